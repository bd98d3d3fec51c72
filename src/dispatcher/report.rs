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
    identity::fingerprint,
    kubernetes::{note_of, time},
    limits,
    queue::{Counts, Queue},
    telemetry::metrics::Dispatcher as Metrics,
};

use super::assign::{NOT_READY, SUSPENDED};

/// The name under which the dispatcher owns fields.
const FIELD_MANAGER: &str = "postrider-dispatcher";

/// Why nothing is sent where somebody asked for it, or where the controller says what is wrong.
const TOLD_BY_THE_CONTROLLER: [&str; 2] = [SUSPENDED, NOT_READY];

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
    /// Since when it holds for something that may pass by itself.
    holds_since: Option<Instant>,
    /// The endpoint failed before a restart, and that it is tried anew mends nothing.
    in_doubt: bool,
}

/// What is to be told of a webhook.
struct News {
    webhook: WebhookKey,
    uid: Option<String>,
    told: Told,
    /// What has turned.
    event: Option<Event>,
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
        let entry = Entry::new(uid, Arc::clone(&activity), told);
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
            entry.told = told.or_else(|| entry.told.take());
        }
    }
}

impl Entry {
    fn new(uid: Option<String>, activity: Arc<Activity>, told: Option<Told>) -> Self {
        let before = told.as_ref().and_then(problem);
        let in_doubt = matches!(before, Some(EventReason::EndpointFailing | EventReason::EndpointGone));
        Self { uid, activity, told, again_at: None, holds_since: None, in_doubt }
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
            }
        }
        let before = self.told.as_ref();
        (before != Some(&told)).then(|| News {
            webhook: key.clone(),
            uid: self.uid.clone(),
            event: event(before, &told),
            told,
        })
    }

    /// Whether it holds for a moment only, such as until the identities for another endpoint are there.
    fn may_pass(&mut self, state: &State) -> bool {
        let (State::Holding(why), Some(due)) = (state, Instant::now().checked_sub(limits::HOLD_TOLD)) else {
            self.holds_since = None;
            return false;
        };
        !TOLD_BY_THE_CONTROLLER.contains(why) && *self.holds_since.get_or_insert_with(Instant::now) > due
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
        State::Holding(why) => ("False", Reason::OnHold, on_hold(why)),
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

fn on_hold(why: &str) -> String {
    format!("nothing is sent, and what comes is kept: {why}")
}

/// What keeps events from going out, unless it is told by the controller, or was asked for.
fn problem(told: &Told) -> Option<EventReason> {
    let Condition { status, reason, message, .. } = &told.delivering;
    let is = |one: Reason| status == "False" && reason == one.as_str();
    let elsewhere = || TOLD_BY_THE_CONTROLLER.iter().any(|why| *message == on_hold(why));
    if is(Reason::EndpointFailing) {
        Some(EventReason::EndpointFailing)
    } else if is(Reason::EndpointGone) {
        Some(EventReason::EndpointGone)
    } else {
        (is(Reason::OnHold) && !elsewhere()).then_some(EventReason::OnHold)
    }
}

/// What has turned since the last time that it was told; one problem is told once, however often it is looked at.
fn event(before: Option<&Told>, now: &Told) -> Option<Event> {
    let Condition { type_, status, message, .. } = &now.delivering;
    let was = before.and_then(problem);
    let is = problem(now).filter(|is| was != Some(*is));
    let (type_of, reason) = match is {
        Some(problem) => (EventType::Warning, problem),
        None if was.is_some() && status == "True" => (EventType::Normal, EventReason::Mended),
        None => return None,
    };
    let note = match (&now.delivery.last_failure, is) {
        (_, None) => format!("{type_}: {message}"),
        (Some(FailureStatus { layer, reason, message: last, .. }), Some(EventReason::EndpointFailing)) => {
            format!("{message}; {layer}: {reason}: {last}")
        }
        (_, Some(_)) => message.clone(),
    };
    Some(Event {
        type_: type_of,
        reason: reason.as_str().to_owned(),
        note: Some(note_of(&note)),
        // The same reason with another note is no repetition of the first.
        action: format!("Deliver {:.12}", fingerprint(note.as_bytes())),
        secondary: None,
    })
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

async fn write(
    client: &Client,
    WebhookKey { namespace, name }: &WebhookKey,
    uid: Option<&String>,
    told: &Told,
) -> Result<OutboundWebhook, kube::Error> {
    let webhooks: Api<OutboundWebhook> = Api::namespaced(client.clone(), namespace);
    let patch = json!({
        "apiVersion": OutboundWebhook::api_version(&()),
        "kind": OutboundWebhook::kind(&()),
        "metadata": { "uid": uid },
        "status": { "delivery": told.delivery, "conditions": [told.delivering] },
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    webhooks.patch_status(name, &parameters, &Patch::Apply(patch)).await
}

/// Tells refusals as Events, each webhook's and certificate's once in a while.
pub(super) async fn refusals(client: Client, mut refused: mpsc::Receiver<Refused>) {
    let recorder = recorder(&client);
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
        let webhooks: Api<OutboundWebhook> = Api::namespaced(client.clone(), &webhook.namespace);
        match webhooks.get_opt(&webhook.name).await {
            Ok(Some(there)) => publish(&recorder, &of_refusal(&refused), &there).await,
            Ok(None) => {}
            Err(error) => tracing::warn!(%webhook, %error, "a refusal could not be told"),
        }
    }
}

fn of_refusal(refused: &Refused) -> Event {
    let short = |fingerprint: &str| format!("{}…", fingerprint.get(..12).unwrap_or(fingerprint));
    let instead = match &refused.taken_fingerprint_sha256 {
        Some(taken) => format!("{} was taken instead", short(taken)),
        None => "no other loaded certificate was taken; the event is sent again".to_owned(),
    };
    let note = format!("{} was refused: {}; {instead}", short(&refused.fingerprint_sha256), refused.message);
    Event {
        type_: EventType::Warning,
        reason: EventReason::ClientCertificateRefused.as_str().to_owned(),
        note: Some(note_of(&note)),
        // Not one series for all certificates: the first note would stand for all.
        action: format!("Deliver {:.12}", refused.fingerprint_sha256),
        secondary: None,
    }
}

fn recorder(client: &Client) -> Recorder {
    let instance = std::env::var("HOSTNAME").ok();
    Recorder::new(client.clone(), Reporter { controller: FIELD_MANAGER.to_owned(), instance })
}

/// An Event that cannot be written is a line in the log: what it tells of has happened all the same.
async fn publish(recorder: &Recorder, event: &Event, webhook: &OutboundWebhook) {
    if let Err(error) = recorder.publish(event, &webhook.object_ref(&())).await {
        tracing::warn!(%error, reason = event.reason, note = event.note, "an Event could not be written");
    }
}

#[cfg(test)]
mod tests;
