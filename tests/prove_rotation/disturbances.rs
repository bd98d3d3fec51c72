//! What happens while events flow: certificates rotate on one lane, programs die on another, both in an
//! order that the seed decides.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::SignedDuration;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::ApiServer,
    harness::{
        pki::{Format, Keystore, Validity, new_password},
        programs::Programs,
    },
    partner::{Authorities, Held, Partner},
};

/// From this length on every kind of disturbance happens at least once.
const SECONDS_FOR_ALL: u64 = 60;

/// A certificate that has less than this left is renewed.
const RENEWED_BEFORE: SignedDuration = SignedDuration::from_secs(15);

/// Between two looks at how long a certificate has left.
const LOOK: Duration = Duration::from_secs(1);

/// How long the certificate of a short life lives, seconds.
const SHORT_LIFE_SECONDS: std::ops::Range<u64> = 25..45;

/// An Active with at least this much left is not replaced because of its age while a New waits.
const LONG_LIFE: SignedDuration = SignedDuration::from_hours(24);

/// How long a New that was refused is watched not to be promoted: there is no event for what does not happen.
const WATCHED: Duration = Duration::from_secs(2);

/// Annotation that asks for the promotion of a New.
const PROMOTE: &str = "postrider.dev/promote";

/// A kind of disturbance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disturbance {
    Renewal,
    RotationByNew,
    RotationInPlace,
    TrustSwitch,
    RefusedNew,
    ReceiverRestart,
    ControllerKill,
    DispatcherKill,
    ApiServerRestart,
}

impl Disturbance {
    const OF_WEBHOOKS: [Self; 5] = [
        Self::RotationByNew,
        Self::RotationInPlace,
        Self::TrustSwitch,
        Self::RefusedNew,
        Self::ReceiverRestart,
    ];
    const OF_PROGRAMS: [Self; 3] = [Self::ControllerKill, Self::DispatcherKill, Self::ApiServerRestart];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Renewal => "renewal before expiry",
            Self::RotationByNew => "rotation by mtls.new",
            Self::RotationInPlace => "rotation in place",
            Self::TrustSwitch => "receiver trusts only the new authority",
            Self::RefusedNew => "a New that the receiver refuses",
            Self::ReceiverRestart => "receiver restart",
            Self::ControllerKill => "controller SIGKILL",
            Self::DispatcherKill => "dispatcher SIGKILL",
            Self::ApiServerRestart => "API server restart",
        }
    }
}

/// A disturbance that took place.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) what: Disturbance,
    /// The webhook, where it was about one.
    pub(crate) webhook: Option<&'static str>,
    pub(crate) from: Instant,
    /// `None` while it goes on.
    pub(crate) till: Option<Instant>,
}

/// All that is disturbed.
pub(crate) struct World {
    pub(crate) api: Arc<ApiServer>,
    pub(crate) programs: Programs,
    pub(crate) authorities: Authorities,
    pub(crate) partners: Vec<Partner>,
    pub(crate) journal: Mutex<Vec<Entry>>,
    pub(crate) rotations: AtomicU64,
    pub(crate) started: Instant,
    pub(crate) seconds: u64,
    pub(crate) seed: u64,
}

/// Disturbs until the time is over; returns what went wrong.
pub(crate) async fn run(world: &Arc<World>) -> Vec<String> {
    let stop = CancellationToken::new();
    let mut lanes = JoinSet::new();
    lanes.spawn(Lane::new(world, 1, &stop).disturb_webhooks());
    lanes.spawn(Lane::new(world, 2, &stop).disturb_programs());
    let mut failures = Vec::new();
    while let Some(ended) = lanes.join_next().await {
        let failure = match ended {
            Ok(Ok(())) => continue,
            Ok(Err(failure)) => failure,
            Err(error) => error.to_string(),
        };
        // The other lane ends what it is in, so that everything runs at the end.
        stop.cancel();
        failures.push(failure);
    }
    failures
}

struct Lane {
    world: Arc<World>,
    random: StdRng,
    stop: CancellationToken,
    deck: Vec<Disturbance>,
    dealt: usize,
}

impl Lane {
    fn new(world: &Arc<World>, number: u64, stop: &CancellationToken) -> Self {
        let random = StdRng::seed_from_u64(world.seed.wrapping_add(number));
        Self { world: Arc::clone(world), random, stop: stop.clone(), deck: Vec::new(), dealt: 0 }
    }

    /// The next disturbance after a pause: each of `kinds` once, then each once more.
    async fn next(
        &mut self,
        kinds: &[Disturbance],
        pause_millis: std::ops::Range<u64>,
    ) -> Option<Disturbance> {
        let pause = self.millis(pause_millis);
        tokio::select! {
            () = self.stop.cancelled() => return None,
            () = sleep(pause) => {}
        }
        let is_short = self.world.seconds < SECONDS_FOR_ALL;
        let over = self.world.started.elapsed() >= Duration::from_secs(self.world.seconds);
        if over && (is_short || self.dealt >= kinds.len()) {
            return None;
        }
        if self.deck.is_empty() {
            self.deck = kinds.to_vec();
            self.deck.shuffle(&mut self.random);
        }
        self.dealt += 1;
        self.deck.pop()
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.random.random_range(range))
    }

    async fn disturb_programs(mut self) -> Result<(), String> {
        while let Some(what) = self.next(&Disturbance::OF_PROGRAMS, 1500..4500).await {
            let down = self.millis(0..1500);
            let World { api, programs, .. } = &*self.world;
            self.world
                .noted(what, None, async {
                    match what {
                        Disturbance::ControllerKill => programs.kill_controller(down).await,
                        Disturbance::DispatcherKill => programs.kill_dispatcher(down).await,
                        _ => api.restart(down).await,
                    }
                    Ok(())
                })
                .await?;
        }
        Ok(())
    }

    async fn disturb_webhooks(mut self) -> Result<(), String> {
        let world = Arc::clone(&self.world);
        while let Some(what) = self.next(&Disturbance::OF_WEBHOOKS, 300..1500).await {
            let partner = &world.partners[self.random.random_range(0..world.partners.len())];
            let (life, down) = (short_or_long(&mut self.random), self.millis(200..2000));
            // The same dice whatever happens, so that the next disturbance is the seed's as well.
            let mut random = StdRng::seed_from_u64(self.random.random());
            let mut held = partner.held.lock().await;
            let needs_long_life = matches!(what, Disturbance::TrustSwitch | Disturbance::RefusedNew);
            if needs_long_life && held.lives_for() < LONG_LIFE {
                // A New that waits while the Active is about to expire would be promoted whatever its test says.
                let renewal = world.rotate_in_place(partner, &mut held, Validity::Year, &mut random);
                world.noted(Disturbance::Renewal, Some(partner), renewal).await?;
            }
            world
                .noted(what, Some(partner), async {
                    match what {
                        Disturbance::RotationByNew => world.rotate_by_new(partner, &mut held, life).await,
                        Disturbance::RotationInPlace => {
                            world.rotate_in_place(partner, &mut held, life, &mut random).await
                        }
                        Disturbance::TrustSwitch => world.switch_trust(partner, &mut held).await,
                        Disturbance::RefusedNew => world.offer_refused(partner, &mut held).await,
                        _ => {
                            partner.receiver.stop().await;
                            sleep(down).await;
                            partner.receiver.start_again(&world.authorities.all()).await;
                            Ok(())
                        }
                    }
                })
                .await?;
        }
        Ok(())
    }
}

/// Renews certificates before they expire, as cert-manager does, whatever else happens.
pub(crate) struct Renewals {
    keepers: JoinSet<Result<(), String>>,
    stop: CancellationToken,
}

impl Renewals {
    pub(crate) fn start(world: &Arc<World>) -> Self {
        let (mut keepers, stop) = (JoinSet::new(), CancellationToken::new());
        for index in 0..world.partners.len() {
            keepers.spawn(keep_valid(Arc::clone(world), index, stop.clone()));
        }
        Self { keepers, stop }
    }

    /// Lets renewals under way finish; returns what went wrong.
    pub(crate) async fn stop(self) -> Vec<String> {
        self.stop.cancel();
        let ended = self.keepers.join_all().await;
        ended.into_iter().filter_map(Result::err).collect()
    }
}

async fn keep_valid(world: Arc<World>, index: usize, stop: CancellationToken) -> Result<(), String> {
    // Renewals come when they are due; their dice are their own, so that the seed decides the rest.
    let mut random = StdRng::seed_from_u64(world.seed.wrapping_sub(u64::try_from(index).unwrap_or_default()));
    let partner = &world.partners[index];
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            // Another rotation may have changed when the next one is due.
            () = sleep(LOOK) => {}
        }
        let mut held = partner.held.lock().await;
        if held.lives_for() < RENEWED_BEFORE {
            let life = short_or_long(&mut random);
            let renewal = world.rotate_in_place(partner, &mut held, life, &mut random);
            world.noted(Disturbance::Renewal, Some(partner), renewal).await?;
        }
    }
}

/// Half of the certificates expire within a run of a minute.
fn short_or_long(random: &mut StdRng) -> Validity {
    let seconds = random.random_range(SHORT_LIFE_SECONDS);
    if random.random() { Validity::LivesFor(Duration::from_secs(seconds)) } else { Validity::Year }
}

impl World {
    /// Notes when a disturbance began and ended; a failure names it.
    async fn noted(
        &self,
        what: Disturbance,
        partner: Option<&Partner>,
        disturbance: impl Future<Output = Result<(), String>>,
    ) -> Result<(), String> {
        let webhook = partner.map(Partner::name);
        let index = {
            let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
            journal.push(Entry { what, webhook, from: Instant::now(), till: None });
            journal.len() - 1
        };
        let outcome = disturbance.await;
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)[index].till = Some(Instant::now());
        outcome.map_err(|error| format!("{}: {error}", what.name()))
    }

    /// `mtls.new`, and once it is promoted the manifest names it as `mtls.active`.
    async fn rotate_by_new(&self, partner: &Partner, held: &mut Held, life: Validity) -> Result<(), String> {
        let next = held.next_authority();
        let (certificate, slot) = partner.issue(held, &self.authorities.trusted[next], life).await;
        let keystore = partner.keystore(&certificate, &new_password()).await;
        self.write(&slot, &keystore).await?;
        self.api.webhook(partner.name(), &partner.spec(&held.slot, Some((&slot, "Automatic")))).await?;
        partner.serves(&self.api, &certificate.facts.fingerprint_sha256).await?;
        (held.certificate, held.authority) = (certificate, next);
        self.move_new_to_active(partner, held, slot, keystore.password).await
    }

    /// One update swaps the certificate, more follow with the same one in other bytes (cert-manager: up to
    /// four within 45 ms), and where the password changes, too, it comes last.
    async fn rotate_in_place(
        &self,
        partner: &Partner,
        held: &mut Held,
        life: Validity,
        random: &mut StdRng,
    ) -> Result<(), String> {
        let next = held.next_authority();
        let (certificate, _) = partner.issue(held, &self.authorities.trusted[next], life).await;
        let password = if random.random() { new_password() } else { held.password.clone() };
        let mut encodings: Vec<Keystore> = Vec::new();
        // keytool takes seconds for each.
        let most = if partner.format() == Format::Jks { 2 } else { 4 };
        for _ in 0..random.random_range(1..=most) {
            encodings.push(partner.keystore(&certificate, &password).await);
        }
        for keystore in &encodings {
            self.api.keystore(&held.slot, keystore).await?;
        }
        if password != held.password {
            sleep(Duration::from_millis(random.random_range(100..1500))).await;
            self.api.password(&held.slot, &password).await?;
        }
        partner.serves(&self.api, &certificate.facts.fingerprint_sha256).await?;
        (held.certificate, held.authority, held.password) = (certificate, next, password);
        self.rotations.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// New waits to be promoted by hand; meanwhile the server stops trusting what is Active.
    async fn switch_trust(&self, partner: &Partner, held: &mut Held) -> Result<(), String> {
        let (name, next) = (partner.name(), held.next_authority());
        let authority = &self.authorities.trusted[next];
        let (certificate, slot) = partner.issue(held, authority, Validity::Year).await;
        let fingerprint = certificate.facts.fingerprint_sha256.clone();
        let keystore = partner.keystore(&certificate, &new_password()).await;
        self.write(&slot, &keystore).await?;
        self.api.webhook(name, &partner.spec(&held.slot, Some((&slot, "Manual")))).await?;
        self.api
            .until(name, "New to be loaded", |webhook| webhook.holds("new") == Some(&fingerprint))
            .await?;

        partner.receiver.stop().await;
        partner.receiver.start_again(&[authority]).await;
        // Not promoted, and the only one that is taken.
        partner.accepted_with(&fingerprint).await?;
        self.api.annotate(name, PROMOTE, &fingerprint).await?;
        partner.serves(&self.api, &fingerprint).await?;
        partner.receiver.stop().await;
        partner.receiver.start_again(&self.authorities.all()).await;
        (held.certificate, held.authority) = (certificate, next);
        self.move_new_to_active(partner, held, slot, keystore.password).await
    }

    /// What every server refuses is never promoted.
    async fn offer_refused(&self, partner: &Partner, held: &mut Held) -> Result<(), String> {
        let name = partner.name();
        let (certificate, slot) = partner.issue(held, &self.authorities.stranger, Validity::Year).await;
        let fingerprint = certificate.facts.fingerprint_sha256.clone();
        let keystore = partner.keystore(&certificate, &new_password()).await;
        self.write(&slot, &keystore).await?;
        self.api.webhook(name, &partner.spec(&held.slot, Some((&slot, "Automatic")))).await?;
        let tested = self.api.until(name, "a failed test of the refused New", |webhook| {
            webhook.holds("new") == Some(&fingerprint) && webhook.new_passed(&fingerprint) == Some(false)
        });
        let promoted = || {
            self.api.until(name, "the promotion of the refused New", |webhook| {
                webhook.holds("active") == Some(&fingerprint)
            })
        };
        let was_promoted = || Err(format!("{name}: the refused New {fingerprint} was promoted"));
        tokio::select! {
            tested = tested => tested?,
            Ok(()) = promoted() => return was_promoted(),
        }
        if matches!(timeout(WATCHED, promoted()).await, Ok(Ok(()))) {
            return was_promoted();
        }
        let generation = self.api.webhook(name, &partner.spec(&held.slot, None)).await?;
        let active = held.fingerprint();
        self.api
            .until(name, "the withdrawal of the refused New", |webhook| {
                webhook.observed(generation)
                    && webhook.holds("new").is_none()
                    && webhook.holds("active") == Some(active)
            })
            .await?;
        self.api.delete_keystore(&slot).await
    }

    async fn write(&self, slot: &str, keystore: &Keystore) -> Result<(), String> {
        self.api.password(slot, &keystore.password).await?;
        self.api.keystore(slot, keystore).await
    }

    /// The manifest catches up with a promotion, and the Secrets of the certificate before go: that changes
    /// nothing that is sent.
    async fn move_new_to_active(
        &self,
        partner: &Partner,
        held: &mut Held,
        slot: String,
        password: String,
    ) -> Result<(), String> {
        let generation = self.api.webhook(partner.name(), &partner.spec(&slot, None)).await?;
        let fingerprint = held.fingerprint();
        self.api
            .until(partner.name(), "New as Active in the manifest", |webhook| {
                webhook.observed(generation)
                    && webhook.holds("active") == Some(fingerprint)
                    && webhook.holds("new").is_none()
            })
            .await?;
        let before = std::mem::replace(&mut held.slot, slot);
        held.password = password;
        self.rotations.fetch_add(1, Ordering::Relaxed);
        self.api.delete_keystore(&before).await
    }
}
