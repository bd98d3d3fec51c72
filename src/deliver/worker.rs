//! One worker a webhook: claims what is due, keeps as many attempts under way as it may, judges each, and settles
//! together what ended together.

use std::{
    collections::VecDeque,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use governor::{
    DefaultDirectRateLimiter, Quota,
    clock::{Clock as _, DefaultClock},
};
use http::StatusCode;
use jiff::Timestamp;
use tokio::{
    sync::{Notify, mpsc, watch},
    task::{JoinError, JoinSet},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    Activity, Assignment, Client, Hold, LastFailure, Refused, State, Target,
    attempt::{Failure, attempt},
    health::{Gate, Health, is_of_endpoint},
};
use crate::{
    clock::Clock,
    event::{Event, WebhookKey},
    limits,
    probe::{Layer, Refusal},
    queue::{Cause, Claim, Queue, Sequence, Settlement},
};

/// Delivers the events of one webhook.
pub struct Worker<Q: Queue, C> {
    webhook: WebhookKey,
    queue: Arc<Q>,
    assignment: watch::Receiver<Assignment>,
    clock: C,
    /// Ends the worker; attempts under way are finished.
    stop: CancellationToken,
    /// Where refusals of a certificate are told.
    refusals: mpsc::Sender<Refused>,
    /// What it is at.
    activity: Arc<Activity>,
    /// What the endpoint is like, as long as it is this one.
    health: Health,
    endpoint: Option<Arc<Target>>,
    limiter: Option<(NonZeroU32, DefaultDirectRateLimiter)>,
    /// Claimed, and not attempted yet.
    ready: VecDeque<Claim>,
    /// When more is to be claimed, once `ready` is used up.
    claim_at: Option<Timestamp>,
    attempts: JoinSet<Ended<Q>>,
    /// What became of attempted events, on its way to the disk, and of how many.
    settling: JoinSet<()>,
    settling_events: Arc<AtomicUsize>,
}

/// How an attempt ended.
struct Ended<Q: Queue> {
    outcome: Outcome,
    /// What becomes of the event; `None` where it is as if it had not been tried.
    settlement: Option<Settlement>,
    /// Where it went: what it says of an endpoint says nothing of another.
    target: Arc<Target>,
    held: Held<Q>,
}

enum Outcome {
    Delivered,
    /// The certificate has expired since the worker looked: nothing was sent, and nothing is counted.
    NotTried,
    Failed(Failure),
}

impl<Q: Queue, C: Clock + Clone> Worker<Q, C> {
    /// A worker for one webhook.
    pub fn new(
        webhook: WebhookKey,
        queue: Arc<Q>,
        assignment: watch::Receiver<Assignment>,
        clock: C,
        stop: CancellationToken,
        refusals: mpsc::Sender<Refused>,
        activity: Arc<Activity>,
    ) -> Self {
        let claim_at = Some(clock.now());
        Self {
            webhook,
            queue,
            assignment,
            clock,
            stop,
            refusals,
            activity,
            health: Health::default(),
            endpoint: None,
            limiter: None,
            ready: VecDeque::new(),
            claim_at,
            attempts: JoinSet::new(),
            settling: JoinSet::new(),
            settling_events: Arc::default(),
        }
    }

    /// Works until it is stopped.
    pub async fn run(mut self) {
        let appended: Arc<Notify> = self.queue.appended(&self.webhook);
        loop {
            let wakes_at = match self.target() {
                Some(target) => self.begin_attempts(&target).await,
                None => self.becomes_valid_at(),
            };
            let pause = wakes_at.map(|at| until(at, self.clock.now()));
            tokio::select! {
                () = self.stop.cancelled() => break,
                changed = self.assignment.changed() => if changed.is_err() { break },
                Some(joined) = self.attempts.join_next() => self.ended(joined).await,
                Some(settled) = self.settling.join_next() => if let Err(error) = settled {
                    tracing::error!(webhook = %self.webhook, %error, "a settlement ended abnormally");
                },
                () = appended.notified() => self.claim_at = Some(self.clock.now()),
                () = sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            }
        }
        self.give_claims_back();
        // Let what is under way be settled; whoever waits for this has a bound, and what is not settled then is
        // sent again after the next start.
        while let Some(joined) = self.attempts.join_next().await {
            self.ended(joined).await;
        }
        while self.settling.join_next().await.is_some() {}
    }

    /// Judges an attempt and all others that have ended with it, and settles their events together.
    async fn ended(&mut self, first: Result<Ended<Q>, JoinError>) {
        let (mut settlements, mut held) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(joined) = next {
            match joined {
                Ok(ended) => {
                    let due_at = match &ended.settlement {
                        Some(Settlement::Retry { due_at, .. }) => Some(*due_at),
                        Some(_) => None,
                        None => Some(self.clock.now()),
                    };
                    self.claim_at = earliest(self.claim_at, due_at);
                    if self.endpoint.as_ref().is_some_and(|endpoint| endpoint.is_as(&ended.target)) {
                        self.judge(ended.outcome).await;
                    }
                    // Given back, where it is not settled, only now that it is known what it says of the endpoint.
                    if let Some(settlement) = ended.settlement {
                        settlements.push((ended.held.claim, settlement));
                        held.push(ended.held);
                    }
                }
                Err(error) => {
                    tracing::error!(webhook = %self.webhook, %error, "an attempt ended abnormally");
                    self.health.not_tried(self.clock.now());
                    // Its event is due again, and may do the same again.
                    sleep(limits::QUEUE_RETRY).await;
                }
            }
            next = self.attempts.try_join_next();
        }
        if !settlements.is_empty() {
            let counted = Counted::new(&self.settling_events, settlements.len());
            let (queue, webhook) = (Arc::clone(&self.queue), self.webhook.clone());
            self.settling.spawn(settle(queue, webhook, settlements, held, counted, self.stop.clone()));
        }
    }

    /// Begins what may begin now; returns when there may be more, unless something happens before.
    async fn begin_attempts(&mut self, target: &Arc<Target>) -> Option<Timestamp> {
        while self.attempts.len() < target.max_in_flight
            && self.settling_events.load(Ordering::Relaxed) < limits::SETTLING_EVENTS
        {
            let gate = self.health.gate(self.clock.now());
            if let Gate::Closed(until) = gate {
                return until;
            }
            if self.ready.is_empty() && self.claim_at.is_some_and(|at| at <= self.clock.now()) {
                self.claim(if gate == Gate::Trial { 1 } else { limits::CLAIM_EVENTS }).await;
            }
            if self.ready.is_empty() {
                return self.claim_at;
            }
            if let Some(wait) = self.rate_limited(target.rate) {
                return self.clock.now().checked_add(wait).ok();
            }
            let Some(claim) = self.ready.pop_front() else { continue };
            if gate == Gate::Trial {
                self.health.trial_begins();
            }
            self.attempts.spawn(self.delivery(target).run(claim));
        }
        None
    }

    /// How long the next attempt has to wait; takes a place where it need not.
    fn rate_limited(&mut self, rate: Option<NonZeroU32>) -> Option<Duration> {
        if self.limiter.as_ref().map(|(rate, _)| *rate) != rate {
            self.limiter = rate.map(|rate| (rate, DefaultDirectRateLimiter::direct(Quota::per_second(rate))));
        }
        let (_, limiter) = self.limiter.as_ref()?;
        let not_until = limiter.check().err()?;
        Some(not_until.wait_time_from(DefaultClock::default().now()))
    }

    /// What the end of an attempt says of the endpoint.
    async fn judge(&mut self, outcome: Outcome) {
        let now = self.clock.now();
        match outcome {
            Outcome::NotTried => self.health.not_tried(now),
            Outcome::Failed(failure) if failure.status() == Some(GONE) => {
                tracing::warn!(webhook = %self.webhook, "holds: the endpoint says that it is gone (410)");
                self.health.gone();
            }
            Outcome::Failed(failure) if is_of_endpoint(&failure) => {
                let was_failing = self.health.is_failing();
                if let Some(target) = &self.endpoint {
                    self.health.failed(&failure, &target.retry, now, rand::random());
                }
                if self.health.is_failing() && !was_failing {
                    let (layer, reason) = (failure.layer, failure.reason);
                    tracing::warn!(webhook = %self.webhook, %layer, %reason, error = %failure, "the endpoint fails: only trials until it works");
                }
                self.give_up_what_is_too_old(&failure, now).await;
            }
            Outcome::Delivered | Outcome::Failed(_) => {
                if self.health.works() {
                    tracing::info!(webhook = %self.webhook, "the endpoint works again");
                    // What failed while it did not work has no reason to wait.
                    if let Err(error) = self.queue.bring_forward(&self.webhook, now).await {
                        tracing::error!(webhook = %self.webhook, %error, "what waits could not be brought forward");
                    }
                }
            }
        }
    }

    /// An endpoint that has been failing for as long as an event is tried has failed all that waited as long:
    /// one trial after the other would take too long to say so.
    async fn give_up_what_is_too_old(&mut self, failure: &Failure, now: Timestamp) {
        let Some(target) = &self.endpoint else { return };
        let Ok(too_old) = now.checked_sub(target.retry.max_age) else { return };
        if self.health.failing_since().is_none_or(|since| since > too_old) {
            return;
        }
        self.give_claims_back();
        let (reason, message) = (failure.reason.as_str().to_owned(), failure.message.clone());
        // The response was to another event.
        let cause = Cause { reason, message, response: None };
        loop {
            match self.queue.give_up(&self.webhook, too_old, now, cause.clone()).await {
                Ok(0) => return,
                Ok(events) => {
                    tracing::error!(webhook = %self.webhook, events, error = %failure, "given up");
                    self.activity.deliveries().gave_up(events);
                }
                Err(error) => {
                    tracing::error!(webhook = %self.webhook, %error, "what is too old could not be given up");
                    return;
                }
            }
        }
    }

    /// What was claimed and not attempted is as if it had not been claimed.
    fn give_claims_back(&mut self) {
        let unused: Vec<_> = self.ready.drain(..).map(|claim| claim.sequence).collect();
        self.queue.release(&self.webhook, &unused);
        self.claim_at = Some(self.clock.now());
    }

    /// Where to send now: nowhere while on hold, nor with a certificate that is not valid.
    fn target(&mut self) -> Option<Arc<Target>> {
        let target = match &*self.assignment.borrow_and_update() {
            Assignment::Deliver(target) => Arc::clone(target),
            Assignment::Hold(why) => {
                let state = State::Holding(*why);
                // The time on hold is none in which the endpoint failed.
                self.health = Health::default();
                self.activity.note(|activity| activity.state = state);
                return None;
            }
        };
        // What the endpoint is like was seen with other certificates, or at another place.
        let same = self.endpoint.as_ref().is_some_and(|before| before.is_as(&target));
        if !same {
            self.health = Health::default();
        }
        self.endpoint = Some(Arc::clone(&target));
        let valid = !target.clients.order(self.clock.now()).is_empty();
        let state = match self.health.failing_since() {
            _ if !valid => State::Holding(Hold::NotValid),
            _ if self.health.is_gone() => State::Gone,
            Some(since) if self.health.is_failing() => State::Failing { since },
            _ => State::Delivering,
        };
        self.activity.note(|activity| {
            if state == State::Holding(Hold::NotValid) && activity.state != state {
                tracing::warn!(webhook = %self.webhook, "holds: {}", Hold::NotValid);
            }
            activity.state = state;
        });
        valid.then_some(target)
    }

    /// When the certificate of a target becomes valid: a clock may lag behind the one that accepted it.
    fn becomes_valid_at(&self) -> Option<Timestamp> {
        let Assignment::Deliver(target) = &*self.assignment.borrow() else { return None };
        target.clients.valid_from(self.clock.now())
    }

    fn delivery(&self, target: &Arc<Target>) -> Delivery<Q, C> {
        Delivery {
            target: Arc::clone(target),
            queue: Arc::clone(&self.queue),
            clock: self.clock.clone(),
            refusals: self.refusals.clone(),
            activity: Arc::clone(&self.activity),
            endpoint_fails_since: self.health.failing_since(),
        }
    }

    async fn claim(&mut self, at_most: usize) {
        match self.queue.claim(&self.webhook, self.clock.now(), at_most).await {
            Ok(page) => (self.ready, self.claim_at) = (page.claims.into(), page.next_due_at),
            Err(error) => {
                tracing::error!(webhook = %self.webhook, %error, "the queue cannot be read");
                self.claim_at = self.clock.now().checked_add(limits::QUEUE_RETRY).ok();
            }
        }
    }
}

const GONE: u16 = 410;

/// Gives a claim back that was not settled, however its attempt ends.
struct Held<Q: Queue> {
    queue: Arc<Q>,
    webhook: WebhookKey,
    claim: Sequence,
    keeps_claim: bool,
}

impl<Q: Queue> Drop for Held<Q> {
    fn drop(&mut self) {
        if !self.keeps_claim {
            self.queue.release(&self.webhook, &[self.claim]);
        }
    }
}

/// Until this is on disk the events stay claimed, so that none is sent twice by one program.
async fn settle<Q: Queue>(
    queue: Arc<Q>,
    webhook: WebhookKey,
    settlements: Vec<(Sequence, Settlement)>,
    mut held: Vec<Held<Q>>,
    _counted: Counted,
    stop: CancellationToken,
) {
    while let Err(error) = queue.settle(&webhook, settlements.clone()).await {
        tracing::error!(%webhook, %error, "what became of events could not be recorded");
        tokio::select! {
            // The claims go back: another worker of the webhook, or the next program, sends them again.
            () = stop.cancelled() => return,
            () = sleep(limits::QUEUE_RETRY) => {}
        }
    }
    for held in &mut held {
        held.keeps_claim = true;
    }
}

/// Events that are being settled; they count for as long as this lives.
struct Counted(Arc<AtomicUsize>, usize);

impl Counted {
    fn new(count: &Arc<AtomicUsize>, events: usize) -> Self {
        count.fetch_add(events, Ordering::Relaxed);
        Self(Arc::clone(count), events)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// What an attempt needs beside its event.
struct Delivery<Q, C> {
    target: Arc<Target>,
    queue: Arc<Q>,
    clock: C,
    refusals: mpsc::Sender<Refused>,
    activity: Arc<Activity>,
    endpoint_fails_since: Option<Timestamp>,
}

impl<Q: Queue, C: Clock> Delivery<Q, C> {
    /// One delivery, and what becomes of its event.
    async fn run(self, claim: Claim) -> Ended<Q> {
        let (queue, webhook) = (Arc::clone(&self.queue), claim.event.webhook.clone());
        let held = Held { queue, webhook, claim: claim.sequence, keeps_claim: false };
        let began = Instant::now();
        let attempted = self.attempt(&claim.event).await;
        let (took, at) = (began.elapsed(), self.clock.now());
        let (settlement, outcome) = match attempted {
            None => (None, Outcome::NotTried),
            Some(Ok(status)) => {
                let (webhook, id) = (&claim.event.webhook, claim.event.id);
                tracing::debug!(%webhook, %id, status = status.as_u16(), "delivered");
                self.activity.note(|activity| activity.last_success = Some(at));
                let since_accepted = at.duration_since(claim.event.accepted_at);
                let since_accepted = Duration::try_from(since_accepted).unwrap_or_default();
                self.activity.deliveries().delivered(took, since_accepted);
                (Some(Settlement::Delivered), Outcome::Delivered)
            }
            Some(Err(failure)) => {
                self.activity.note(|activity| activity.last_failure = Some(LastFailure::new(&failure, at)));
                self.activity.deliveries().failed(took, failure.layer.as_str());
                (self.settlement(&claim, &failure, at), Outcome::Failed(failure))
            }
        };
        Ended { outcome, settlement, target: self.target, held }
    }

    /// What becomes of an event after a failure; `None` where it is as if it had not been tried.
    fn settlement(&self, claim: &Claim, failure: &Failure, at: Timestamp) -> Option<Settlement> {
        let (webhook, id, failures) = (&claim.event.webhook, claim.event.id, claim.failures + 1);
        let (layer, reason) = (failure.layer, failure.reason);
        if failure.status() == Some(GONE) {
            return None;
        }
        // While the endpoint fails as a whole, so does all that waits for it.
        let waited = self.endpoint_fails_since.map_or(at, |since| since.max(claim.event.accepted_at));
        let since = claim.failing_since.unwrap_or(waited.min(at));
        let again = self.target.retry.due_again(since, at, failures, failure.retry_after, rand::random());
        let refused = failure.status().is_some_and(|status| self.target.non_retryable.contains(&status));
        if let Some(due_at) = again.filter(|_| !refused) {
            tracing::warn!(%webhook, %id, %layer, %reason, error = %failure, failures, again = %due_at, "not delivered");
            return Some(Settlement::Retry { since, due_at });
        }
        tracing::error!(%webhook, %id, %layer, %reason, error = %failure, failures, "given up");
        self.activity.deliveries().gave_up(1);
        let (reason, message) = (reason.as_str().to_owned(), failure.message.clone());
        Some(Settlement::Dead { at, cause: Cause { reason, message, response: failure.response.clone() } })
    }

    /// Tries the loaded certificates in turn, for as long as the endpoint refuses them: together they are one
    /// attempt. `None` where none may be tried now.
    async fn attempt(&self, event: &Event) -> Option<Result<StatusCode, Failure>> {
        let clients = &self.target.clients;
        let mut refused: Option<(Arc<Client>, Failure)> = None;
        let deadline = Instant::now() + self.target.timeout;
        for client in clients.order(self.clock.now()) {
            let now = self.clock.now();
            let result = attempt(&self.target, &client, event, now, deadline).await;
            // An answer, whatever it says, to one whose certificate was taken.
            let taken = match &result {
                Ok(_) => true,
                Err(failure) => failure.refusal == Refusal::No && failure.layer == Layer::Http,
            };
            match (result, &refused) {
                (result, Some((before, failure))) if taken => {
                    clients.took_instead(&client, failure.refusal, now);
                    self.report(event, before, failure, Some(&client));
                    return Some(result);
                }
                (Ok(status), _) => {
                    clients.took_at_once(&client);
                    return Some(Ok(status));
                }
                (Err(failure), _) if failure.refusal == Refusal::No => {
                    // Of two failures the refusal tells more; this one may be of the moment.
                    return Some(Err(refused.map_or(failure, |(_, first)| first)));
                }
                (Err(failure), Some((_, first))) if first.refusal >= failure.refusal => {}
                (Err(failure), _) => refused = Some((client, failure)),
            }
        }
        let (client, failure) = refused?;
        if failure.refusal == Refusal::Certain {
            self.report(event, &client, &failure, None);
        }
        Some(Err(failure))
    }

    /// Told for people; a report too many is dropped.
    fn report(&self, event: &Event, refused: &Client, failure: &Failure, taken: Option<&Arc<Client>>) {
        let fingerprint = |client: &Client| client.identity().map(|facts| facts.fingerprint_sha256.clone());
        let Some(fingerprint_sha256) = fingerprint(refused) else { return };
        self.activity.deliveries().refused(taken.is_some(), failure.reason.as_str());
        let refused = Refused {
            webhook: event.webhook.clone(),
            fingerprint_sha256,
            taken_fingerprint_sha256: taken.and_then(|client| fingerprint(client)),
            message: failure.message.clone(),
            at: self.clock.now(),
        };
        self.activity.note(|activity| activity.refused = Some(refused.clone()));
        let _ = self.refusals.try_send(refused);
    }
}

fn until(at: Timestamp, now: Timestamp) -> Duration {
    // Rounded up, so that it is due when the sleep is over.
    Duration::try_from(at.duration_since(now)).unwrap_or_default() + Duration::from_millis(1)
}

fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests;
