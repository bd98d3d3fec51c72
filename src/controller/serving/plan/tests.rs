use proptest::prelude::*;
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::aws_lc_rs,
    pki_types::{ServerName, UnixTime},
};

use super::*;

/// Objects, and what senders have read of them. Nothing but steps of the plan changes them, and what a test breaks.
struct World {
    found: Found,
    names: BTreeSet<String>,
    now: Timestamp,
    /// The leaf that the listener has.
    served: Option<Identity>,
    /// What was published, and since when.
    published: Vec<(Timestamp, Vec<CertificateDer<'static>>)>,
}

fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * days)
}

fn nothing_published() -> Bundle {
    Bundle::Ours { certificates: Vec::new(), since: None, as_written: false }
}

impl World {
    fn new() -> Self {
        let found = Found {
            authorities: Err(Fault::Missing),
            bundle: nothing_published(),
            leaf: Err(Fault::Missing),
        };
        let now = "2026-11-24T12:00:00Z".parse().unwrap();
        Self { found, names: ["a.example".to_owned()].into(), now, served: None, published: Vec::new() }
    }

    /// With all three objects, made now.
    fn settled() -> Self {
        let mut world = Self::new();
        world.settle();
        world
    }

    /// Takes the steps that are due; when there is another.
    fn settle(&mut self) -> (Vec<Step>, Timestamp) {
        let mut taken = Vec::new();
        loop {
            match next(&self.found, &self.names, self.now) {
                Step::Wait(until) => return (taken, until),
                step => {
                    self.take(&step);
                    taken.push(step);
                    assert!(taken.len() < 10, "it never ends: {taken:?}");
                }
            }
        }
    }

    fn steps(&mut self) -> Vec<Step> {
        self.settle().0
    }

    fn take(&mut self, step: &Step) {
        if let Some(authorities) = self.found.authorities_after(step, self.now).unwrap() {
            self.found.authorities = Ok(authorities);
            return;
        }
        let authorities = self.found.authorities.as_ref().unwrap();
        match step {
            Step::Publish(since) => {
                let certificates = authorities.published();
                self.published.push((self.now, certificates.clone()));
                self.found.bundle = Bundle::Ours { certificates, since: Some(*since), as_written: true };
            }
            Step::Issue(_) => {
                let leaf = pki::leaf(&authorities.signing, &self.names, self.now).unwrap();
                self.served = Some(leaf.clone());
                self.found.leaf = Ok(leaf);
            }
            other => panic!("{other:?} is about nothing"),
        }
    }

    /// Lets time go by; the controller is there all the time, or only at its end.
    fn advance(&mut self, by: SignedDuration, controller: bool) {
        let end = self.now + by;
        loop {
            let until = if controller { self.settle().1 } else { end };
            self.senders_trust_the_listener();
            assert!(until > self.now || until >= end, "it does not wait");
            if until >= end {
                break;
            }
            self.now = until;
        }
        self.now = end;
        self.senders_trust_the_listener();
        self.settle();
        self.senders_trust_the_listener();
    }

    /// Whoever has read what was published, at any time that is not longer ago than an authority is published before
    /// it signs.
    fn senders_trust_the_listener(&self) {
        let leaf = self.served.as_ref().unwrap();
        let longest_ago = self.now - SignedDuration::try_from(limits::SERVING_AUTHORITY_PUBLISHED).unwrap();
        let ends = self.published.iter().skip(1).map(|(from, _)| *from).chain([Timestamp::MAX]);
        for ((from, certificates), end) in self.published.iter().zip(ends) {
            if end > longest_ago {
                let trusted = trust(certificates, leaf, self.now);
                assert!(trusted.is_ok(), "at {}, with what was published at {from}: {trusted:?}", self.now);
            }
        }
        let authority =
            self.published.last().unwrap().1.iter().find(|ca| pki::is_signed_by(leaf, ca)).unwrap();
        let authority = crate::identity::Facts::of(std::slice::from_ref(authority), None).unwrap();
        assert!(authority.is_valid_at(self.now) && authority.valid_till >= leaf.facts().valid_till);
    }

    fn authorities(&mut self) -> &mut Authorities {
        self.found.authorities.as_mut().unwrap()
    }

    fn leaf(&self) -> &Identity {
        self.found.leaf.as_ref().unwrap()
    }
}

/// As a TLS client does.
fn trust(
    certificates: &[CertificateDer<'static>],
    leaf: &Identity,
    now: Timestamp,
) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    assert_eq!(roots.add_parsable_certificates(certificates.iter().cloned()).1, 0);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().try_into().unwrap()));
    let name = ServerName::try_from("a.example").unwrap();
    verifier.verify_server_cert(&leaf.chain()[0], &leaf.chain()[1..], &name, &[], now).map(drop)
}

#[test]
fn an_authority_is_made_and_published_and_signs() {
    let mut world = World::new();
    let now = world.now;
    let (steps, until) = world.settle();
    assert_eq!(steps, [Step::Begin(Fault::Missing), Step::Publish(now), Step::Issue(Fault::Missing)]);
    assert_eq!(until, now - SignedDuration::from_mins(5) + days(60));
    world.senders_trust_the_listener();
    assert_eq!(world.steps(), []);
}

/// What is broken in a world that was settled, how many days ago, and the steps that mend it.
type Row = (&'static str, fn(&mut World), i64, fn(now: Timestamp, before: Timestamp) -> Vec<Step>);

const ROWS: &[Row] = &[
    ("nothing", |_| {}, 59, |_, _| vec![]),
    ("it is a while ago", |_| {}, 60, |_, _| vec![Step::Issue(Fault::Due)]),
    ("it is long ago", |_| {}, 100, |_, _| vec![Step::Issue(Fault::Expired)]),
    ("it is to come", |_| {}, -1, |now, _| vec![Step::Publish(now), Step::Issue(Fault::NotYetValid)]),
    ("no leaf", |world| world.found.leaf = Err(Fault::Missing), 1, |_, _| vec![Step::Issue(Fault::Missing)]),
    (
        "a damaged leaf",
        |world| world.found.leaf = Err(Fault::Damaged("x".to_owned())),
        1,
        |_, _| vec![Step::Issue(Fault::Damaged("x".to_owned()))],
    ),
    (
        "other names",
        |world| world.names.extend(["b.example".to_owned()]),
        1,
        |_, _| vec![Step::Issue(Fault::Names)],
    ),
    (
        "another's leaf",
        |world| world.found.leaf = World::settled().found.leaf,
        1,
        |_, _| vec![Step::Issue(Fault::Stranger)],
    ),
    (
        "nothing published",
        |world| world.found.bundle = nothing_published(),
        1,
        |now, _| vec![Step::Publish(now)],
    ),
    (
        "edited beside the certificates",
        |world| {
            let Bundle::Ours { as_written, .. } = &mut world.found.bundle else { unreachable!() };
            *as_written = false;
        },
        1,
        |_, before| vec![Step::Publish(before)],
    ),
    (
        "another's authority published",
        |world| {
            let Bundle::Ours { certificates, .. } = &mut world.found.bundle else { unreachable!() };
            certificates.push(World::settled().authorities().signing().clone());
        },
        1,
        |_, before| vec![Step::Publish(before)],
    ),
    (
        "a time that cannot be",
        |world| {
            let Bundle::Ours { since, .. } = &mut world.found.bundle else { unreachable!() };
            *since = Some(Timestamp::MAX);
        },
        1,
        |now, _| vec![Step::Publish(now)],
    ),
    ("another's ConfigMap", |world| world.found.bundle = Bundle::Foreign, 1, |_, _| vec![]),
    (
        "another's ConfigMap for long",
        |world| world.found.bundle = Bundle::Foreign,
        60,
        |_, _| vec![Step::Issue(Fault::Due)],
    ),
    (
        "authorities not as written",
        |world| world.authorities().as_written = false,
        1,
        |_, _| vec![Step::Tidy],
    ),
    // The leaf stays: senders do not know the new authority.
    (
        "no authorities",
        |world| world.found.authorities = Err(Fault::Missing),
        1,
        |now, _| vec![Step::Begin(Fault::Missing), Step::Publish(now)],
    ),
    (
        "damaged authorities",
        |world| {
            world.found.authorities = Err(Fault::Damaged("x".to_owned()));
        },
        1,
        |now, _| vec![Step::Begin(Fault::Damaged("x".to_owned())), Step::Publish(now)],
    ),
    // Whoever deletes all of it begins anew at once.
    (
        "nothing left",
        |world| world.found = World::new().found,
        1,
        |now, _| vec![Step::Begin(Fault::Missing), Step::Publish(now), Step::Issue(Fault::Missing)],
    ),
    (
        "only the leaf left",
        |world| {
            world.found = Found { leaf: world.found.leaf.clone(), ..World::new().found };
        },
        1,
        |now, _| vec![Step::Begin(Fault::Missing), Step::Publish(now), Step::Issue(Fault::Stranger)],
    ),
    (
        "an authority that is a while old",
        |_| {},
        730,
        |now, _| vec![Step::Prepare, Step::Publish(now), Step::Issue(Fault::Expired)],
    ),
    (
        "an authority that has expired",
        |_| {},
        1096,
        |now, _| vec![Step::Begin(Fault::Expired), Step::Publish(now), Step::Issue(Fault::Expired)],
    ),
];

#[test]
fn what_is_broken_is_mended() {
    for (what, breaks, days_later, expected) in ROWS {
        let mut world = World::settled();
        let before = world.now;
        breaks(&mut world);
        world.now += days(*days_later);
        let steps = world.steps();
        assert_eq!(steps, expected(world.now, before), "{what}");
        assert_eq!(world.steps(), [], "{what}");
        assert!(
            trust(&world.found.authorities.as_ref().unwrap().published(), world.leaf(), world.now).is_ok()
        );
    }
}

#[test]
fn an_authority_is_followed_by_one_that_was_published_before() {
    let mut world = World::settled();
    let begun = world.now;
    let mut told = Vec::new();
    while world.now < begun + days(3 * 365) {
        let (_, until) = world.settle();
        world.now = until;
        let (steps, _) = world.settle();
        world.senders_trust_the_listener();
        let day = world.now.duration_since(begun).as_hours().div_euclid(24);
        told.extend(
            steps.into_iter().filter(|step| *step != Step::Issue(Fault::Due)).map(|step| (day, step)),
        );
    }
    let at = |day: i64| told.iter().filter(|(on, _)| *on == day).map(|(_, step)| step).collect::<Vec<_>>();
    let on = told.iter().map(|(day, _)| *day).collect::<BTreeSet<_>>();
    assert_eq!(on, [729, 736, 826].into());
    assert!(matches!(at(729)[..], [Step::Prepare, Step::Publish(_)]), "{told:?}");
    assert!(
        matches!(at(736)[..], [Step::Promote, Step::Publish(_), Step::Issue(Fault::Replaced)]),
        "{told:?}"
    );
    assert!(matches!(at(826)[..], [Step::Forget, Step::Publish(_)]), "{told:?}");
    assert_eq!(world.authorities().published().len(), 1);
}

#[test]
fn the_leaf_of_a_lost_authority_stays_until_senders_know_the_next() {
    let mut world = World::settled();
    world.now += days(59);
    let before = world.leaf().facts().clone();
    world.found.authorities = Err(Fault::Missing);
    let (_, until) = world.settle();
    assert_eq!(until, world.now + days(7));
    assert_eq!(world.leaf().facts(), &before);
    assert_eq!(world.authorities().published().len(), 2);
    world.now = until;
    assert_eq!(world.steps(), [Step::Issue(Fault::Replaced)]);
    world.senders_trust_the_listener();
    world.now += days(90);
    assert_eq!(world.steps()[0], Step::Forget);
    assert_eq!(world.authorities().published().len(), 1);
}

#[test]
fn a_time_that_is_not_ours_keeps_no_authority() {
    for until in [Timestamp::MAX, Timestamp::MIN] {
        let mut world = World::settled();
        world.found.authorities = Err(Fault::Missing);
        world.settle();
        world.authorities().retired_until = until;
        let retired = until == Timestamp::MIN;
        assert_eq!(world.steps()[0], if retired { Step::Forget } else { Step::Tidy });
        let latest = world.now + days(90);
        assert!(world.authorities().retired_until <= latest);
    }
}

#[test]
fn an_authority_that_nobody_can_read_of_does_not_sign() {
    let mut world = World::settled();
    world.now += days(730);
    world.settle();
    let signs = world.authorities().signing().clone();
    // Somebody takes it out again and again.
    for _ in 0..10 {
        let Bundle::Ours { certificates, .. } = &mut world.found.bundle else { unreachable!() };
        certificates.truncate(1);
        world.now += days(6);
        let now = world.now;
        assert_eq!(world.steps()[0], Step::Publish(now));
    }
    world.found.bundle = Bundle::Foreign;
    world.now += days(30);
    world.settle();
    assert_eq!(world.authorities().signing(), &signs);
    // But better one that nobody knows than one that has expired.
    world.now += days(365);
    assert_eq!(world.steps()[0], Step::Promote);
}

/// What may happen to the objects.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Nothing,
    LeafLost,
    LeafDamaged,
    OtherNames,
    BundleLost,
    BundleEdited,
    AuthoritiesNotAsWritten,
    AuthoritiesLost,
}

impl Happens {
    fn to(self, world: &mut World) {
        match self {
            Self::Nothing => {}
            Self::LeafLost => world.found.leaf = Err(Fault::Missing),
            Self::LeafDamaged => world.found.leaf = Err(Fault::Damaged("x".to_owned())),
            Self::OtherNames => world.names.extend([format!("{}.example", world.names.len())]),
            Self::BundleLost => world.found.bundle = nothing_published(),
            Self::BundleEdited => {
                if let Bundle::Ours { certificates, as_written, .. } = &mut world.found.bundle {
                    (*as_written, _) = (false, certificates.pop());
                }
            }
            Self::AuthoritiesNotAsWritten => world.authorities().as_written = false,
            Self::AuthoritiesLost => world.found.authorities = Err(Fault::Missing),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Over years, with a controller that is away for up to ten days. Who loses the authority must not lose the leaf
    /// as well before the new one is known: nothing could be served then that senders trust.
    #[test]
    fn senders_trust_the_listener_at_every_moment(
        history in prop::collection::vec((
            prop_oneof![
                4 => Just(Happens::Nothing), 1 => Just(Happens::LeafLost), 1 => Just(Happens::LeafDamaged),
                1 => Just(Happens::OtherNames), 1 => Just(Happens::BundleLost), 1 => Just(Happens::BundleEdited),
                1 => Just(Happens::AuthoritiesNotAsWritten), 1 => Just(Happens::AuthoritiesLost),
            ],
            (1_i64..60 * 24).prop_map(SignedDuration::from_hours),
            (0_i64..10 * 24).prop_map(SignedDuration::from_hours),
        ), 1..60),
    ) {
        let mut world = World::settled();
        for (happens, with, without) in history {
            happens.to(&mut world);
            if matches!(happens, Happens::AuthoritiesLost) {
                world.settle();
                world.advance(days(8), true);
            }
            world.advance(without, false);
            world.advance(with, true);
        }
    }
}
