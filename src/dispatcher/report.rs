//! What the dispatcher tells of deliveries, in the status and as Events. Both are for people; no delivery waits
//! for them.

mod events;
mod refusals;
mod status;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use futures::StreamExt as _;
use jiff::Timestamp;
use kube::{Client, runtime::events::Event};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    api::v1alpha1::{EventReason, OutboundWebhook},
    clock::Clock,
    deliver::{Activity, State},
    event::WebhookKey,
    limits,
    queue::{Counts, Queue},
    telemetry::metrics::{Deliveries, DispatcherMetrics},
};
use events::{event, publish, recorder};
pub(super) use refusals::refusals;
use status::{Told, before, tell, write};

/// The name under which the dispatcher owns fields.
const FIELD_MANAGER: &str = "postrider-dispatcher";

/// What all workers are at, and what was told of it.
#[derive(Debug)]
pub(super) struct Board {
    entries: Mutex<HashMap<WebhookKey, Entry>>,
    metrics: DispatcherMetrics,
}

#[derive(Clone, Debug)]
struct Entry {
    uid: Option<String>,
    activity: Arc<Activity>,
    told: Option<Told>,
    /// Not before this time is anything told again.
    again_at: Option<Instant>,
    /// Since when it holds for something that may pass by itself.
    holds_since: Option<Instant>,
    /// The endpoint failed before a restart, and that it is tried anew mends nothing.
    in_doubt: bool,
    /// When an Event last told that the endpoint fails.
    failing_told: Option<Instant>,
}

/// What is to be told of a webhook.
struct News {
    webhook: WebhookKey,
    uid: Option<String>,
    told: Told,
    /// What has turned.
    event: Option<Event>,
}

impl Board {
    pub(super) fn new(metrics: DispatcherMetrics) -> Self {
        Self { entries: Mutex::default(), metrics }
    }

    /// A webhook appears; what was told of it before a restart is not forgotten.
    pub(super) fn add(&self, key: &WebhookKey, webhook: &OutboundWebhook) -> Arc<Activity> {
        let entry = Entry::new(key, webhook, self.metrics.deliveries(key));
        let activity = Arc::clone(&entry.activity);
        self.entries().insert(key.clone(), entry);
        activity
    }

    pub(super) fn remove(&self, key: &WebhookKey) {
        self.entries().remove(key);
        self.metrics.forget(key);
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, HashMap<WebhookKey, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be told now.
    fn news(&self, queue: &impl Queue, now: Timestamp) -> Vec<News> {
        let due = Instant::now();
        let mut entries = self.entries();
        let mut entries: Vec<_> =
            entries.iter_mut().filter(|(_, entry)| entry.again_at.is_none_or(|at| at <= due)).collect();
        // Who has waited longest is first.
        entries.sort_by_key(|(_, entry)| entry.again_at);
        entries
            .into_iter()
            .filter_map(|(key, entry)| entry.news(key, queue.counts(key), now))
            .take(limits::STATUS_WRITES)
            .collect()
    }

    /// `told` is `None` where it could not be told.
    fn note(&self, key: &WebhookKey, uid: Option<&String>, told: Option<Told>) {
        if let Some(entry) = self.entries().get_mut(key).filter(|entry| entry.uid.as_ref() == uid) {
            entry.again_at = Some(Instant::now() + limits::STATUS_WRITTEN);
            if let Some(told) = told {
                entry.note(told);
            }
        }
    }
}

impl Entry {
    fn new(key: &WebhookKey, webhook: &OutboundWebhook, deliveries: Deliveries) -> Self {
        let status = webhook.status.as_ref().and_then(|status| status.delivery.as_ref());
        let snapshot = status.map(|status| before(key, status)).unwrap_or_default();
        let activity = Arc::new(Activity::new(snapshot, deliveries));
        let told = Told::before(webhook);
        let before = told.as_ref().and_then(|told| told.problem);
        let in_doubt = matches!(before, Some(EventReason::EndpointFailing | EventReason::EndpointGone));
        let uid = webhook.metadata.uid.clone();
        Self { uid, activity, told, again_at: None, holds_since: None, in_doubt, failing_told: None }
    }

    fn news(&mut self, key: &WebhookKey, counts: Counts, now: Timestamp) -> Option<News> {
        let snapshot = self.activity.snapshot();
        if self.may_pass(&snapshot.state) {
            return None;
        }
        let mut told = tell(&snapshot, counts, self.told.as_ref(), now)?;
        if let Some(before) = self.told.as_ref().filter(|_| self.in_doubt) {
            self.in_doubt = snapshot.state == State::Delivering
                && told.delivery.last_success == before.delivery.last_success;
            if self.in_doubt {
                told.delivering = before.delivering.clone();
                told.problem = before.problem;
            }
        }
        let before = self.told.as_ref();
        let lately = self.failing_told.is_some_and(|at| at.elapsed() < limits::FAILING_TOLD);
        if lately && told.problem == Some(EventReason::EndpointFailing) {
            // Not yet, where that is not what was told last; it may be mended before.
            told.problem = before.and_then(|before| before.problem);
        }
        (before != Some(&told)).then(|| News {
            webhook: key.clone(),
            uid: self.uid.clone(),
            event: event(before, &told),
            told,
        })
    }

    fn note(&mut self, told: Told) {
        let is = told.problem;
        let was = self.told.replace(told).and_then(|before| before.problem);
        if is != was && is == Some(EventReason::EndpointFailing) {
            self.failing_told = Some(Instant::now());
        }
    }

    /// Whether it holds for a moment only, such as until the identities for another endpoint are there.
    fn may_pass(&mut self, state: &State) -> bool {
        let (State::Holding(why), Some(due)) = (state, Instant::now().checked_sub(limits::HOLD_TOLD)) else {
            self.holds_since = None;
            return false;
        };
        !why.is_told_elsewhere() && *self.holds_since.get_or_insert_with(Instant::now) > due
    }
}

/// Writes what has changed, each webhook's status once in a while, and tells what has turned.
pub(super) async fn statuses(client: Client, queue: Arc<impl Queue>, board: Arc<Board>, clock: impl Clock) {
    let recorder = recorder(&client);
    let mut ticks = interval(limits::STATUS_LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let news = board.news(&*queue, clock.now());
        futures::stream::iter(news)
            .for_each_concurrent(limits::STATUS_WRITES_AT_ONCE, |News { webhook, uid, told, event }| {
                let (client, recorder, board) = (&client, &recorder, &board);
                async move {
                    let written = write(client, &webhook, uid.as_ref(), &told).await;
                    match (&written, &event) {
                        (Err(error), _) => {
                            tracing::debug!(%webhook, %error, "the status of deliveries could not be written");
                        }
                        (Ok(written), Some(event)) => publish(recorder, event, written).await,
                        (Ok(_), None) => {}
                    }
                    board.note(&webhook, uid.as_ref(), written.is_ok().then_some(told));
                }
            })
            .await;
    }
}
