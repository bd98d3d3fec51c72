//! What the status says of deliveries.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Api, Client, Resource as _,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{super::assign::standing_hold, FIELD_MANAGER, events::problem};
use crate::{
    api::v1alpha1::{
        ConditionType, DeliveryStatus, EventReason, FailureStatus, OutboundWebhook, Reason, RefusalStatus,
    },
    deliver::{LastFailure, Refused, Snapshot, State},
    event::WebhookKey,
    kubernetes::time,
    queue::Counts,
};

/// What was told of a webhook.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Told {
    pub(super) delivery: DeliveryStatus,
    pub(super) delivering: Condition,
    /// What an Event says is wrong, until one says that it is mended.
    pub(super) problem: Option<EventReason>,
}

impl Told {
    /// Before a restart, by what stands in the status. A problem that stands there is taken for told by an Event as well.
    pub(super) fn before(webhook: &OutboundWebhook) -> Option<Self> {
        let delivery = webhook.status.as_ref()?.delivery.clone()?;
        let delivering = webhook.condition(ConditionType::Delivering)?.clone();
        let is = |reason: Reason| delivering.reason == reason.as_str();
        let problem = if is(Reason::EndpointFailing) {
            Some(EventReason::EndpointFailing)
        } else if is(Reason::EndpointGone) {
            Some(EventReason::EndpointGone)
        } else {
            // The reason is the same for every hold: where the webhook has to be held by now, that was why.
            (is(Reason::OnHold) && standing_hold(webhook).is_none()).then_some(EventReason::OnHold)
        };
        Some(Self { delivery, delivering, problem })
    }
}

/// What a status says of the time before a restart.
pub(super) fn before(key: &WebhookKey, told: &DeliveryStatus) -> Snapshot {
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
pub(super) fn tell(
    snapshot: &Snapshot,
    counts: Counts,
    before: Option<&Told>,
    now: Timestamp,
) -> Option<Told> {
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
    Some(Told { delivery, delivering, problem: problem(&snapshot.state) })
}

/// Returns the webhook as it is then.
pub(super) async fn write(
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
