//! One worker a webhook: reads what is due, keeps as many attempts under way as it may, and settles each.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::watch,
    task::{Id, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Client, attempt::attempt, retry};
use crate::{
    api::v1alpha1::Retry,
    clock::Clock,
    event::WebhookKey,
    limits,
    queue::{Due, Queue, Sequence, Settlement},
};

/// What a worker is to do. Readers see it whole or not at all.
#[derive(Clone, Debug)]
pub enum Assignment {
    /// Send.
    Deliver(Arc<Target>),
    /// Keep what comes, and send nothing; why.
    Hold(&'static str),
}

/// Where to send, and how.
#[derive(Debug)]
pub struct Target {
    /// The endpoint.
    pub url: reqwest::Url,
    /// Time for a whole attempt.
    pub timeout: Duration,
    /// Attempts under way at one time.
    pub max_in_flight: usize,
    /// When a failed attempt is repeated.
    pub retry: Retry,
    /// The client with the certificate that was asked for.
    pub client: Arc<Client>,
}

/// Delivers the events of one webhook.
pub struct Worker<Q, C> {
    /// The webhook.
    pub webhook: WebhookKey,
    /// Its events.
    pub queue: Arc<Q>,
    /// What to do.
    pub assignment: watch::Receiver<Assignment>,
    /// The time.
    pub clock: C,
    /// Ends the worker; attempts under way are finished.
    pub stop: CancellationToken,
}

impl<Q: Queue, C: Clock + Clone> Worker<Q, C> {
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
                    let handle = attempts.spawn(deliver(
                        Arc::clone(target),
                        Arc::clone(&self.queue),
                        self.clock.clone(),
                        self.stop.clone(),
                        due,
                    ));
                    under_way.insert(handle.id(), sequence);
                }
            }
            let waits = target.filter(|target| attempts.len() < target.max_in_flight && ready.is_empty());
            let pause = waits.and(read_at).map(|at| until(at, self.clock.now()));
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
        // Let what is under way be settled: what is not is sent again after the next start.
        let rest = async { while attempts.join_next().await.is_some() {} };
        if timeout(limits::SHUTDOWN, rest).await.is_err() {
            tracing::warn!(webhook = %self.webhook, "attempts did not end in time; their events are sent again");
        }
    }

    /// Where to send now: nowhere while on hold, nor with a certificate that is not valid.
    fn target(&mut self) -> Option<Arc<Target>> {
        match &*self.assignment.borrow_and_update() {
            Assignment::Deliver(target) if target.client.is_valid_at(self.clock.now()) => {
                Some(Arc::clone(target))
            }
            Assignment::Deliver(_) | Assignment::Hold(_) => None,
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

/// One attempt and its settlement; returns when the event is due again.
async fn deliver<Q: Queue, C: Clock>(
    target: Arc<Target>,
    queue: Arc<Q>,
    clock: C,
    stop: CancellationToken,
    due: Due,
) -> Option<Timestamp> {
    let event = &due.event;
    let (webhook, id, failures) = (&event.webhook, event.id, due.failures + 1);
    let now = clock.now();
    // The certificate may have expired since the worker looked: then nothing is sent, and nothing counted.
    if !target.client.is_valid_at(now) {
        return Some(now);
    }
    let settlement = match attempt(&target, event, now).await {
        Ok(status) => {
            tracing::debug!(%webhook, %id, status = status.as_u16(), "delivered");
            Settlement::Delivered
        }
        Err(failure) => {
            let now = clock.now();
            let due_at = retry::due_again(
                &target.retry,
                event.accepted_at,
                now,
                failures,
                failure.retry_after,
                rand::random(),
            );
            if let Some(due_at) = due_at {
                tracing::warn!(%webhook, %id, layer = ?failure.layer, error = %failure, failures, again = %due_at, "not delivered");
                Settlement::Retry { due_at }
            } else {
                tracing::error!(%webhook, %id, layer = ?failure.layer, error = %failure, failures, "given up");
                Settlement::Dead { reason: failure.to_string() }
            }
        }
    };
    let again = if let Settlement::Retry { due_at } = settlement { Some(due_at) } else { None };
    // Until this is on disk the event stays under way, so that it is not sent twice by one program.
    while let Err(error) = queue.settle(due.sequence, settlement.clone()).await {
        tracing::error!(%webhook, %id, %error, "what became of an event could not be recorded");
        tokio::select! {
            () = stop.cancelled() => break,
            () = sleep(limits::QUEUE_RETRY) => {}
        }
    }
    again
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
