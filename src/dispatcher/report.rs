//! What the dispatcher tells of deliveries, in the status and as Events. Both are for people; no delivery waits
//! for them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Api, Client, Resource as _,
    api::{Patch, PatchParams},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    api::v1alpha1::{
        ConditionType, DeliveryStatus, EventReason, FailureStatus, OutboundWebhook, Reason, RefusalStatus,
    },
    clock::Clock,
    deliver::{Activity, LastFailure, Refused, Snapshot, State},
    event::WebhookKey,
    kubernetes::{note_of, time},
    limits,
    queue::{Counts, Embedded, Queue},
    telemetry::metrics::{Amounts, Dispatcher as Metrics},
};

/// The name under which the dispatcher owns fields.
const FIELD_MANAGER: &str = "postrider-dispatcher";

/// What all workers are at, and what was told of it.
#[derive(Debug)]
pub(super) struct Board {
    entries: Mutex<HashMap<WebhookKey, Entry>>,
    metrics: Metrics,
}

#[derive(Clone, Debug)]
struct Entry {
    uid: Option<String>,
    activity: Arc<Activity>,
    told: Option<Told>,
    /// Not before this time is anything told again.
    again_at: Option<Instant>,
}

/// What stands in a status.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    delivery: DeliveryStatus,
    delivering: Condition,
}

impl Board {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { entries: Mutex::default(), metrics }
    }

    /// A webhook appears; what was told of it before a restart is not forgotten.
    pub(super) fn add(&self, key: &WebhookKey, webhook: &OutboundWebhook) -> Arc<Activity> {
        let status = webhook.status.clone().unwrap_or_default();
        let snapshot = status.delivery.as_ref().map(|told| before(key, told)).unwrap_or_default();
        let activity = Arc::new(Activity::new(snapshot, self.metrics.deliveries(key)));
        let delivering = status
            .conditions
            .into_iter()
            .find(|condition| condition.type_ == ConditionType::Delivering.as_str());
        let told =
            status.delivery.zip(delivering).map(|(delivery, delivering)| Told { delivery, delivering });
        let uid = webhook.metadata.uid.clone();
        let entry = Entry { uid, activity: Arc::clone(&activity), told, again_at: None };
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
    fn news(&self, queue: &impl Queue, now: Timestamp) -> Vec<(WebhookKey, Option<String>, Told)> {
        let due = Instant::now();
        let entries = self.entries();
        let mut entries: Vec<_> =
            entries.iter().filter(|(_, entry)| entry.again_at.is_none_or(|at| at <= due)).collect();
        // Who has waited longest is first.
        entries.sort_by_key(|(_, entry)| entry.again_at);
        entries
            .into_iter()
            .filter_map(|(key, entry)| {
                let told = tell(&entry.activity.snapshot(), queue.counts(key), entry.told.as_ref(), now)?;
                (entry.told.as_ref() != Some(&told)).then(|| (key.clone(), entry.uid.clone(), told))
            })
            .take(limits::STATUS_WRITES)
            .collect()
    }

    /// `told` is `None` where it could not be told.
    fn note(&self, key: &WebhookKey, uid: Option<&String>, told: Option<Told>) {
        if let Some(entry) = self.entries().get_mut(key).filter(|entry| entry.uid.as_ref() == uid) {
            entry.again_at = Some(Instant::now() + limits::STATUS_WRITTEN);
            entry.told = told.or_else(|| entry.told.take());
        }
    }
}

/// What a status says of the time before a restart.
fn before(key: &WebhookKey, told: &DeliveryStatus) -> Snapshot {
    Snapshot {
        state: State::Starting,
        last_success: told.last_success.as_ref().map(|time| time.0),
        last_failure: told.last_failure.as_ref().map(|failure| LastFailure {
            at: failure.time.0,
            layer: failure.layer.clone(),
            reason: failure.reason.clone(),
            message: failure.message.clone(),
        }),
        refused: told.client_certificate_refused.as_ref().map(|refused| Refused {
            webhook: key.clone(),
            fingerprint_sha256: refused.fingerprint_sha256.clone(),
            taken_fingerprint_sha256: refused.taken_fingerprint_sha256.clone(),
            message: refused.message.clone(),
            at: refused.time.0,
        }),
    }
}

/// What a status is to say; `None` while there is nothing to say yet.
fn tell(snapshot: &Snapshot, counts: Counts, before: Option<&Told>, now: Timestamp) -> Option<Told> {
    let (status, reason, message) = match &snapshot.state {
        State::Starting => return None,
        State::Delivering => ("True", Reason::Delivering, "events go out as they come".to_owned()),
        State::Holding(why) => {
            ("False", Reason::OnHold, format!("nothing is sent, and what comes is kept: {why}"))
        }
        State::Failing { since } => {
            let message = format!(
                "the endpoint has been failing since {}: one event at a time is tried until it works",
                time(*since).0
            );
            ("False", Reason::EndpointFailing, message)
        }
        State::Gone => {
            let message = "the endpoint answered 410, that it is gone: nothing is sent, and what comes is kept, \
                           until the spec changes (its URL, or suspend and back)";
            ("False", Reason::EndpointGone, message.to_owned())
        }
    };
    let since = before.map(|told| &told.delivering).filter(|condition| condition.status == status);
    let delivering = Condition {
        type_: ConditionType::Delivering.as_str().to_owned(),
        status: status.to_owned(),
        reason: reason.as_str().to_owned(),
        message,
        last_transition_time: since
            .map_or_else(|| time(now), |condition| condition.last_transition_time.clone()),
        observed_generation: None,
    };
    let Snapshot { last_success, last_failure, refused, .. } = snapshot;
    let delivery = DeliveryStatus {
        pending: counts.pending.events,
        delivered: counts.delivered,
        dead: counts.dead.events,
        last_success: last_success.map(time),
        last_failure: last_failure.as_ref().map(|failure| FailureStatus {
            time: time(failure.at),
            layer: failure.layer.clone(),
            reason: failure.reason.clone(),
            message: failure.message.clone(),
        }),
        client_certificate_refused: refused.as_ref().map(|refused| RefusalStatus {
            fingerprint_sha256: refused.fingerprint_sha256.clone(),
            taken_fingerprint_sha256: refused.taken_fingerprint_sha256.clone(),
            message: refused.message.clone(),
            time: time(refused.at),
        }),
    };
    Some(Told { delivery, delivering })
}

/// Writes what has changed, each webhook's status once in a while.
pub(super) async fn statuses(client: Client, queue: Arc<impl Queue>, board: Arc<Board>, clock: impl Clock) {
    let mut ticks = interval(limits::STATUS_LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let news = board.news(&*queue, clock.now());
        futures::stream::iter(news)
            .for_each_concurrent(limits::STATUS_WRITES_AT_ONCE, |(key, uid, told)| {
                let (client, board) = (&client, &board);
                async move {
                    let written = write(client, &key, uid.as_ref(), &told).await;
                    if let Err(error) = &written {
                        tracing::debug!(webhook = %key, %error, "the status of deliveries could not be written");
                    }
                    board.note(&key, uid.as_ref(), written.is_ok().then_some(told));
                }
            })
            .await;
    }
}

async fn write(
    client: &Client,
    WebhookKey { namespace, name }: &WebhookKey,
    uid: Option<&String>,
    told: &Told,
) -> Result<(), kube::Error> {
    let webhooks: Api<OutboundWebhook> = Api::namespaced(client.clone(), namespace);
    let patch = json!({
        "apiVersion": OutboundWebhook::api_version(&()),
        "kind": OutboundWebhook::kind(&()),
        "metadata": { "uid": uid },
        "status": { "delivery": told.delivery, "conditions": [told.delivering] },
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    webhooks.patch_status(name, &parameters, &Patch::Apply(patch)).await.map(drop)
}

/// The queue keeps its own books.
impl Amounts for Arc<Embedded> {
    fn amounts(&self, webhook: &WebhookKey) -> (i64, i64) {
        let counts = self.counts(webhook);
        (counts.pending.events, counts.dead.events)
    }
}

/// Looks for what waits longest, now and then.
pub(super) async fn oldest(queue: Arc<Embedded>, metrics: Metrics) {
    let mut look = interval(limits::METRICS_LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        for webhook in metrics.webhooks() {
            let oldest = if queue.counts(&webhook).pending.events > 0 {
                // Whoever looks at the queue is told of what is wrong with it elsewhere.
                queue.oldest(&webhook).await.ok().flatten()
            } else {
                None
            };
            metrics.oldest(&webhook, oldest.map(Timestamp::as_second));
        }
    }
}

/// Tells refusals as Events, each webhook's and certificate's once in a while.
pub(super) async fn refusals(client: Client, mut refused: mpsc::Receiver<Refused>) {
    let instance = std::env::var("HOSTNAME").ok();
    let recorder = Recorder::new(client.clone(), Reporter { controller: FIELD_MANAGER.to_owned(), instance });
    let mut told: HashMap<(WebhookKey, String, Option<String>), Timestamp> = HashMap::new();
    while let Some(refused) = refused.recv().await {
        let since = refused.at.checked_sub(limits::REFUSAL_TOLD).unwrap_or(refused.at);
        told.retain(|_, at| *at > since);
        let what = (
            refused.webhook.clone(),
            refused.fingerprint_sha256.clone(),
            refused.taken_fingerprint_sha256.clone(),
        );
        if told.contains_key(&what) {
            continue;
        }
        told.insert(what, refused.at);
        let webhook = &refused.webhook;
        tracing::warn!(
            %webhook,
            refused = refused.fingerprint_sha256,
            taken = refused.taken_fingerprint_sha256,
            error = refused.message,
            "the endpoint refused a client certificate"
        );
        if let Err(error) = publish(&client, &recorder, &refused).await {
            tracing::warn!(%webhook, %error, "a refusal could not be told");
        }
    }
}

async fn publish(client: &Client, recorder: &Recorder, refused: &Refused) -> Result<(), kube::Error> {
    let WebhookKey { namespace, name } = &refused.webhook;
    let webhooks: Api<OutboundWebhook> = Api::namespaced(client.clone(), namespace);
    let Some(webhook) = webhooks.get_opt(name).await? else { return Ok(()) };
    let short = |fingerprint: &str| format!("{}…", fingerprint.get(..12).unwrap_or(fingerprint));
    let instead = match &refused.taken_fingerprint_sha256 {
        Some(taken) => format!("{} was taken instead", short(taken)),
        None => "no other loaded certificate was taken; the event is sent again".to_owned(),
    };
    let note = format!("{} was refused: {}; {instead}", short(&refused.fingerprint_sha256), refused.message);
    let event = Event {
        type_: EventType::Warning,
        reason: EventReason::ClientCertificateRefused.as_str().to_owned(),
        note: Some(note_of(&note)),
        // Not one series for all certificates: the first note would stand for all.
        action: format!("Deliver {:.12}", refused.fingerprint_sha256),
        secondary: None,
    };
    recorder.publish(&event, &webhook.object_ref(&())).await
}
