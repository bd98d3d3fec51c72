//! One worker a webhook: reads what is due, keeps as many attempts under way as it may, and settles each.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use reqwest::StatusCode;
use tokio::{
    sync::{mpsc, watch},
    task::{Id, JoinSet},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{
    Assignment, Client, Refused, Target,
    attempt::{Failure, attempt},
};
use crate::{
    clock::Clock,
    event::{Event, WebhookKey},
    limits,
    probe::{Layer, Refusal},
    queue::{Due, Queue, Sequence, Settlement},
};

/// Delivers the events of one webhook.
pub struct Worker<Q, C> {
    webhook: WebhookKey,
    queue: Arc<Q>,
    assignment: watch::Receiver<Assignment>,
    clock: C,
    /// Ends the worker; attempts under way are finished.
    stop: CancellationToken,
    /// Where refusals of a certificate are told.
    refusals: mpsc::Sender<Refused>,
    /// Whether the certificate was valid when last looked at.
    sends: bool,
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
    ) -> Self {
        Self { webhook, queue, assignment, clock, stop, refusals, sends: true }
    }

    /// Works until it is stopped.
    pub async fn run(mut self) {
        let appended = self.queue.appended(&self.webhook);
        let mut ready: VecDeque<Due> = VecDeque::new();
        let mut under_way: HashMap<Id, Sequence> = HashMap::new();
        let mut attempts: JoinSet<Option<Timestamp>> = JoinSet::new();
        // When the queue is to be read again, once `ready` is used up.
        let mut read_at = Some(self.clock.now());
        loop {
            let target = self.target();
            if let Some(target) = &target {
                while attempts.len() < target.max_in_flight {
                    if ready.is_empty() && read_at.is_some_and(|at| at <= self.clock.now()) {
                        (ready, read_at) = self.read(under_way.values().copied().collect()).await;
                    }
                    let Some(due) = ready.pop_front() else { break };
                    let sequence = due.sequence;
                    let handle = attempts.spawn(self.delivery(target).run(due));
                    under_way.insert(handle.id(), sequence);
                }
            }
            let wakes_at = match target {
                Some(target) if attempts.len() < target.max_in_flight && ready.is_empty() => read_at,
                Some(_) => None,
                None => self.becomes_valid_at(),
            };
            let pause = wakes_at.map(|at| until(at, self.clock.now()));
            tokio::select! {
                () = self.stop.cancelled() => break,
                changed = self.assignment.changed() => if changed.is_err() { break },
                Some(joined) = attempts.join_next_with_id() => {
                    let (id, due_at) = match joined {
                        Ok((id, due_at)) => (id, due_at),
                        // Its event is still in the queue: it is read again.
                        Err(error) => {
                            tracing::error!(webhook = %self.webhook, %error, "an attempt ended abnormally");
                            (error.id(), Some(self.clock.now()))
                        }
                    };
                    under_way.remove(&id);
                    read_at = earliest(read_at, due_at);
                },
                () = appended.notified() => read_at = Some(self.clock.now()),
                () = sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            }
        }
        // Let what is under way be settled; whoever waits for this has a bound, and what is not settled then is
        // sent again after the next start.
        while attempts.join_next().await.is_some() {}
    }

    /// Where to send now: nowhere while on hold, nor with a certificate that is not valid.
    fn target(&mut self) -> Option<Arc<Target>> {
        let assignment = self.assignment.borrow_and_update();
        let Assignment::Deliver(target) = &*assignment else { return None };
        let valid = !target.clients.order(self.clock.now()).is_empty();
        if std::mem::replace(&mut self.sends, valid) && !valid {
            tracing::warn!(webhook = %self.webhook, "holds: its certificate is not valid at this time");
        }
        valid.then(|| Arc::clone(target))
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
            stop: self.stop.clone(),
            refusals: self.refusals.clone(),
        }
    }

    async fn read(&self, except: Vec<Sequence>) -> (VecDeque<Due>, Option<Timestamp>) {
        match self.queue.due(&self.webhook, self.clock.now(), except).await {
            Ok(page) => (page.due.into(), page.next_due_at),
            Err(error) => {
                tracing::error!(webhook = %self.webhook, %error, "the queue cannot be read");
                (VecDeque::new(), self.clock.now().checked_add(limits::QUEUE_RETRY).ok())
            }
        }
    }
}

/// What an attempt needs beside its event.
struct Delivery<Q, C> {
    target: Arc<Target>,
    queue: Arc<Q>,
    clock: C,
    stop: CancellationToken,
    refusals: mpsc::Sender<Refused>,
}

impl<Q: Queue, C: Clock> Delivery<Q, C> {
    /// One delivery and its settlement; returns when the event is due again.
    async fn run(self, due: Due) -> Option<Timestamp> {
        let event = &due.event;
        let (webhook, id, failures) = (&event.webhook, event.id, due.failures + 1);
        let settlement = match self.attempt(event).await {
            // The certificate has expired since the worker looked: nothing was sent, and nothing is counted.
            None => return Some(self.clock.now()),
            Some(Ok(status)) => {
                tracing::debug!(%webhook, %id, status = status.as_u16(), "delivered");
                Settlement::Delivered
            }
            Some(Err(failure)) => {
                let at = self.clock.now();
                let since = due.failing_since.unwrap_or(at);
                let (layer, reason) = (failure.layer, failure.reason);
                let again =
                    self.target.retry.due_again(since, at, failures, failure.retry_after, rand::random());
                if let Some(due_at) = again {
                    tracing::warn!(%webhook, %id, %layer, %reason, error = %failure, failures, again = %due_at, "not delivered");
                    Settlement::Retry { at, due_at }
                } else {
                    tracing::error!(%webhook, %id, %layer, %reason, error = %failure, failures, "given up");
                    Settlement::Dead { at, reason: format!("{reason}: {failure}") }
                }
            }
        };
        let again = if let Settlement::Retry { due_at, .. } = settlement { Some(due_at) } else { None };
        // Until this is on disk the event stays under way, so that it is not sent twice by one program.
        while let Err(error) = self.queue.settle(due.sequence, settlement.clone()).await {
            tracing::error!(%webhook, %id, %error, "what became of an event could not be recorded");
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = sleep(limits::QUEUE_RETRY) => {}
            }
        }
        again
    }

    /// Tries the loaded certificates in turn, for as long as the endpoint refuses them: together they are one
    /// attempt. `None` where none may be tried now.
    async fn attempt(&self, event: &Event) -> Option<Result<StatusCode, Failure>> {
        let clients = &self.target.clients;
        let mut refused: Option<(Arc<Client>, Failure)> = None;
        for client in clients.order(self.clock.now()) {
            let now = self.clock.now();
            let result = attempt(&self.target, &client, event, now).await;
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
        let _ = self.refusals.try_send(Refused {
            webhook: event.webhook.clone(),
            fingerprint_sha256,
            taken_fingerprint_sha256: taken.and_then(|client| fingerprint(client)),
            message: failure.message.clone(),
            at: self.clock.now(),
        });
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
