use proptest::prelude::*;

use super::*;
use crate::identity::tests::identity_valid;

const FROM: i64 = 0;
const TILL: i64 = 100_000;
const NOW: i64 = 50_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn made(name: &str, till: i64) -> Arc<Identity> {
    Arc::new(identity_valid(name, FROM, till))
}

fn usable(identity: &Arc<Identity>) -> Found {
    Found::Usable(Arc::clone(identity))
}

fn known<'a>(active: &'a Found, new: &'a Found, passed: &'a [String]) -> Known<'a> {
    Known { active, new, promotion: Promotion::Automatic, asked: None, names_waiting: true, passed }
}

fn name(identity: Option<&Arc<Identity>>) -> &str {
    identity.map_or("-", |identity| identity.facts().identifier.trim_start_matches("CN="))
}

/// Active, New, Previous by name.
fn names(slots: &Slots) -> [&str; 3] {
    [name(slots.active.as_ref()), name(slots.new.as_ref()), name(slots.previous.as_ref())]
}

fn holding(
    active: Option<&Arc<Identity>>,
    new: Option<&Arc<Identity>>,
    previous: Option<&Arc<Identity>>,
) -> Slots {
    Slots { active: active.cloned(), new: new.cloned(), previous: previous.cloned() }
}

fn promoted(from: Option<&Arc<Identity>>, to: &Arc<Identity>, because: Because) -> Step {
    Step::Promoted { from: from.map(fingerprint), to: fingerprint(to), because }
}

#[test]
fn the_first_usable_identity_is_active_at_once() {
    let a = made("a", TILL);
    let (slots, steps) = next(Slots::default(), &known(&usable(&a), &Found::NotAsked, &[]), at(NOW));
    assert_eq!((names(&slots), steps), (["a", "-", "-"], vec![Step::Accepted(fingerprint(&a))]));
}

#[test]
fn mtls_new_waits_for_its_test_and_then_replaces_the_active() {
    let (a, b) = (made("a", TILL), made("b", TILL));
    let (active, new) = (usable(&a), usable(&b));
    let (slots, steps) = next(holding(Some(&a), None, None), &known(&active, &new, &[]), at(NOW));
    assert_eq!((names(&slots), steps), (["a", "b", "-"], vec![Step::Waits(fingerprint(&b))]));
    let passed = [fingerprint(&b)];
    let (slots, steps) = next(slots, &known(&active, &new, &passed), at(NOW));
    assert_eq!((names(&slots), steps), (["b", "-", "a"], vec![promoted(Some(&a), &b, Because::TestPassed)]));
    // The manifest still says the same, then `new` moves to `active`: nothing happens.
    for (active, new) in
        [(usable(&a), usable(&b)), (usable(&b), Found::NotAsked), (Found::Unusable(None), usable(&b))]
    {
        let (same, steps) = next(slots.clone(), &known(&active, &new, &passed), at(NOW));
        assert_eq!((names(&same), steps), (["b", "-", "a"], vec![]));
    }
}

#[test]
fn a_secret_that_is_overwritten_in_place_is_a_new() {
    let (a, b) = (made("a", TILL), made("b", TILL));
    let overwritten = usable(&b);
    let (slots, _) =
        next(holding(Some(&a), None, None), &known(&overwritten, &Found::NotAsked, &[]), at(NOW));
    assert_eq!(names(&slots), ["a", "b", "-"]);
    // Re-encoded, or its password lags: the same certificate waits.
    for found in [usable(&b), Found::Unusable(None)] {
        let (same, steps) = next(slots.clone(), &known(&found, &Found::NotAsked, &[]), at(NOW));
        assert_eq!((names(&same), steps), (["a", "b", "-"], vec![]));
    }
    let passed = [fingerprint(&b)];
    let (slots, _) = next(slots, &known(&overwritten, &Found::NotAsked, &passed), at(NOW));
    assert_eq!(names(&slots), ["b", "-", "a"]);
}

#[test]
fn a_new_is_withdrawn_or_replaced_and_the_active_stays() {
    let (a, b, c) = (made("a", TILL), made("b", TILL), made("c", TILL));
    let waits = holding(Some(&a), Some(&b), None);
    let (slots, steps) = next(waits.clone(), &known(&usable(&a), &Found::NotAsked, &[]), at(NOW));
    assert_eq!((names(&slots), steps), (["a", "-", "-"], vec![Step::Withdrawn(fingerprint(&b))]));
    let (slots, steps) = next(waits, &known(&usable(&a), &usable(&c), &[]), at(NOW));
    let expected = vec![Step::Withdrawn(fingerprint(&b)), Step::Waits(fingerprint(&c))];
    assert_eq!((names(&slots), steps), (["a", "c", "-"], expected));
}

#[test]
fn a_new_that_is_not_named_any_more_goes_though_the_active_cannot_be_read() {
    let (a, b) = (made("a", TILL), made("b", TILL));
    let state = known(&Found::Unusable(None), &Found::NotAsked, &[]);
    for (names_waiting, expected) in [(true, ["a", "b", "-"]), (false, ["a", "-", "-"])] {
        let state = Known { names_waiting, ..state.clone() };
        let (slots, _) = next(holding(Some(&a), Some(&b), None), &state, at(NOW));
        assert_eq!(names(&slots), expected);
    }
}

#[test]
fn an_unusable_successor_is_not_promoted_by_a_test_of_the_one_before() {
    let (a, b) = (made("a", TILL), made("b", TILL));
    let passed = [fingerprint(&b)];
    let state = known(&Found::NotAsked, &Found::Unusable(None), &passed);
    let active = usable(&a);
    let state = Known { active: &active, ..state };
    let (slots, _) = next(holding(Some(&a), Some(&b), None), &state, at(NOW));
    assert_eq!(names(&slots), ["a", "b", "-"]);
}

#[test]
fn manual_promotion_waits_for_exactly_this_fingerprint() {
    let (a, b) = (made("a", TILL), made("b", TILL));
    let (active, new, passed) = (usable(&a), usable(&b), [fingerprint(&b)]);
    let (of_a, of_b) = (fingerprint(&a), fingerprint(&b));
    for (asked, expected) in [(None, "a"), (Some(&of_a), "a"), (Some(&of_b), "b")] {
        let state = Known {
            promotion: Promotion::Manual,
            asked: asked.map(String::as_str),
            ..known(&active, &new, &passed)
        };
        let (slots, _) = next(holding(Some(&a), Some(&b), None), &state, at(NOW));
        assert_eq!(names(&slots)[0], expected, "asked for {asked:?}");
    }
}

#[test]
fn before_the_active_expires_a_valid_new_takes_over_untested() {
    let (a, b) = (made("a", TILL), made("b", TILL * 2));
    let (active, new) = (usable(&a), usable(&b));
    let state = Known { promotion: Promotion::Manual, ..known(&active, &new, &[]) };
    let moment = wakes_at(&holding(Some(&a), Some(&b), None), &state, at(TILL - 9_000)).unwrap();
    assert_eq!(moment, at(TILL - 3_600));
    let before = next(holding(Some(&a), Some(&b), None), &state, at(TILL - 3_601)).0;
    assert_eq!(names(&before), ["a", "b", "-"]);
    let (after, steps) = next(before, &state, moment);
    assert_eq!(
        (names(&after), steps),
        (["b", "-", "a"], vec![promoted(Some(&a), &b, Because::ActiveExpires)])
    );
    // One that would end even earlier is no help.
    let short = made("short", TILL - 10);
    let new = usable(&short);
    let slots = next(holding(Some(&a), Some(&short), None), &Known { new: &new, ..state }, moment).0;
    assert_eq!(names(&slots)[0], "a");
}

#[test]
fn the_days_that_are_left_are_counted_down() {
    const DAY: i64 = 24 * 60 * 60;
    let till = 365 * DAY;
    let a = made("a", till);
    let found = usable(&a);
    let wakes = |now| wakes_at(&Slots::default(), &known(&found, &Found::NotAsked, &[]), now);
    assert_eq!(wakes(at(NOW)), Some(at(till - 30 * DAY)));
    assert_eq!(wakes(at(till - 30 * DAY)), Some(at(till - 30 * DAY + 1)));
    assert_eq!(wakes(at(till - 30 * DAY + 1)), Some(at(till - 29 * DAY + 1)));
    assert_eq!(wakes(at(till - DAY) + jiff::SignedDuration::from_millis(500)), Some(at(till - DAY + 1)));
    assert_eq!(wakes(at(till - DAY + 1)), None);
}

#[test]
fn without_an_active_whatever_is_usable_serves() {
    let b = made("b", TILL);
    let (slots, steps) = next(Slots::default(), &known(&Found::Unusable(None), &usable(&b), &[]), at(NOW));
    assert_eq!(names(&slots), ["b", "-", "-"]);
    assert_eq!(steps.last(), Some(&promoted(None, &b, Because::NoActive)));
}

#[test]
fn what_expires_leaves_its_slot_and_the_previous_does_not_come_back() {
    let (a, long) = (made("a", TILL), made("long", TILL * 2));
    let (slots, steps) = next(
        holding(Some(&a), None, Some(&long)),
        &known(&Found::Unusable(None), &Found::NotAsked, &[]),
        at(TILL + 1),
    );
    let expired = Step::Expired { slot: Slot::Active, fingerprint: fingerprint(&a) };
    assert_eq!((names(&slots), steps), (["-", "-", "long"], vec![expired]));
    let (slots, _) = next(slots, &known(&Found::Unusable(None), &Found::NotAsked, &[]), at(TILL * 2 + 1));
    assert_eq!(names(&slots), ["-", "-", "-"]);
}

#[test]
fn going_back_to_the_previous_is_a_rotation_like_any_other() {
    let (a, b) = (made("a", TILL), made("b", TILL));
    let back = usable(&a);
    let (slots, _) = next(holding(Some(&b), None, Some(&a)), &known(&back, &Found::NotAsked, &[]), at(NOW));
    assert_eq!(names(&slots), ["b", "a", "a"]);
    let (slots, _) = next(slots, &known(&back, &Found::NotAsked, &[fingerprint(&a)]), at(NOW));
    assert_eq!(names(&slots), ["a", "-", "b"]);
}

#[test]
fn without_an_active_the_previous_serves_again_if_the_manifest_names_it() {
    let a = made("a", TILL);
    let (slots, steps) =
        next(holding(None, None, Some(&a)), &known(&usable(&a), &Found::Unusable(None), &[]), at(NOW));
    assert_eq!((names(&slots), steps), (["a", "-", "-"], vec![Step::Accepted(fingerprint(&a))]));
}

#[test]
fn a_renewal_behind_active_goes_before_a_new_that_does_not_pass() {
    let (a, renewed, b) = (made("a", TILL), made("renewed", TILL * 2), made("b", TILL * 3));
    let (active, new) = (usable(&renewed), usable(&b));
    let (slots, _) = next(holding(Some(&a), Some(&b), None), &known(&active, &new, &[]), at(NOW));
    assert_eq!(names(&slots), ["a", "renewed", "-"]);
    let passed = [fingerprint(&renewed)];
    let (slots, _) = next(slots, &known(&active, &new, &passed), at(NOW));
    assert_eq!(names(&slots), ["renewed", "b", "a"]);
    let passed = [fingerprint(&renewed), fingerprint(&b)];
    let (slots, _) = next(slots, &known(&active, &new, &passed), at(NOW));
    assert_eq!(names(&slots), ["b", "-", "renewed"]);
}

#[test]
fn a_chain_that_is_mended_takes_its_place_without_a_step() {
    let (a, authority) = (made("a", TILL), made("authority", TILL));
    let chain = vec![a.chain()[0].clone(), authority.chain()[0].clone()];
    let key = zeroize::Zeroizing::new(a.key().secret_pkcs8_der().to_vec());
    let mended = Arc::new(Identity::new(chain, key, None).unwrap());
    let (slots, steps) =
        next(holding(Some(&a), None, None), &known(&usable(&mended), &Found::NotAsked, &[]), at(NOW));
    assert_eq!((slots.active.unwrap().chain().len(), steps), (2, vec![]));
}

#[test]
fn whoever_asks_for_no_certificate_keeps_none() {
    let a = made("a", TILL);
    let (slots, steps) =
        next(holding(Some(&a), None, None), &known(&Found::NotAsked, &Found::NotAsked, &[]), at(NOW));
    assert_eq!((names(&slots), steps), (["-", "-", "-"], vec![Step::Dropped]));
}

/// What a test of all of this does next.
#[derive(Clone, Copy, Debug)]
enum Op {
    /// `mtls.active` holds this certificate, or nothing that may be used.
    Active(Option<usize>),
    /// `mtls.new` holds this certificate, or nothing that may be used.
    New(Option<usize>),
    /// `mtls.new` is not there.
    NoNew,
    /// The test of this certificate ends.
    Test(usize, bool),
    /// Somebody asks for the promotion of this certificate.
    Ask(usize),
    /// Time goes on, or back.
    Clock(i64),
    /// The program starts again: what is not in the Secret is lost.
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let which = 0..4_usize;
    prop_oneof![
        prop::option::of(which.clone()).prop_map(Op::Active),
        prop::option::of(which.clone()).prop_map(Op::New),
        Just(Op::NoNew),
        (which.clone(), any::<bool>()).prop_map(|(which, passes)| Op::Test(which, passes)),
        which.prop_map(Op::Ask),
        (-20_000..60_000_i64).prop_map(Op::Clock),
        Just(Op::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn in_any_order_of_events(ops in prop::collection::vec(op(), 1..40), manual in any::<bool>()) {
        // Making keys is slow; the same four serve every case.
        static IDENTITIES: std::sync::LazyLock<[Arc<Identity>; 4]> = std::sync::LazyLock::new(|| {
            [made("a", 100_000), made("b", 150_000), made("c", 200_000), made("d", 300_000)]
        });
        let found = |which: Option<usize>, now: Timestamp| match which.map(|which| &IDENTITIES[which]) {
            // As the keystore is judged: an expired one may not be used.
            Some(identity) if !identity.facts().is_expired_at(now) => usable(identity),
            Some(identity) => Found::Unusable(Some(Box::new(identity.facts().clone()))),
            None => Found::Unusable(None),
        };
        let (mut slots, mut now) = (Slots::default(), at(1_000));
        let (mut active, mut new, mut asked) = (Some(0), None, None);
        let mut passed: Vec<String> = Vec::new();
        for op in ops {
            match op {
                Op::Active(which) => active = which,
                Op::New(which) => new = Some(which),
                Op::NoNew => new = None,
                Op::Test(which, passes) => {
                    let fingerprint = fingerprint(&IDENTITIES[which]);
                    passed.retain(|other| *other != fingerprint);
                    passed.extend(passes.then_some(fingerprint));
                }
                Op::Ask(which) => asked = Some(fingerprint(&IDENTITIES[which])),
                Op::Clock(seconds) => now = at((now.as_second() + seconds).max(0)),
                Op::Restart => {
                    let data = slots.to_pem().unwrap();
                    slots = Slots::from_pem(|key| data.get(key).map(|value| value.as_slice())).0;
                }
            }
            let (of_active, of_new) = (found(active, now), new.map_or(Found::NotAsked, |new| found(new, now)));
            let known = Known {
                active: &of_active,
                new: &of_new,
                promotion: if manual { Promotion::Manual } else { Promotion::Automatic },
                asked: asked.as_deref(),
                names_waiting: new.is_some() || active.is_some(),
                passed: &passed,
            };
            let (after, _) = next(slots.clone(), &known, now);

            // Never an expired one.
            prop_assert!(after.iter().all(|(_, identity)| !identity.facts().is_expired_at(now)));
            // An Active leaves only for a valid one, or by expiry.
            if let Some(before) = &slots.active && !before.facts().is_expired_at(now) {
                let serves = after.active.as_ref();
                prop_assert!(serves.is_some_and(|serves| is_same(Some(serves), before)
                    || is_same(after.previous.as_ref(), before)));
            }
            // Nothing that could serve is left waiting while nothing serves.
            if after.active.is_none() {
                prop_assert!(after.new.is_none());
                prop_assert!(![&of_active, &of_new].iter().any(|found| matches!(found, Found::Usable(_))));
            }
            // One is not waiting for itself.
            if let Some(active) = &after.active {
                prop_assert!(!is_same(after.new.as_ref(), active) && !is_same(after.previous.as_ref(), active));
            }
            // The same again changes nothing, and the next moment lies ahead.
            let (again, steps) = next(after.clone(), &known, now);
            prop_assert_eq!(names(&again), names(&after));
            prop_assert!(steps.is_empty(), "{:?}", steps);
            prop_assert!(wakes_at(&after, &known, now).is_none_or(|moment| moment > now));
            slots = after;
        }
    }
}
