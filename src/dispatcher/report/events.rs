//! What is told of deliveries as Events.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Client, Resource as _,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use super::{FIELD_MANAGER, status::Told};
use crate::{
    api::v1alpha1::{EventReason, FailureStatus, OutboundWebhook},
    deliver::State,
    identity::fingerprint,
    kubernetes::note_of,
};

/// What keeps events from going out, unless it is told elsewhere.
pub(super) fn problem(state: &State) -> Option<EventReason> {
    match state {
        State::Failing { .. } => Some(EventReason::EndpointFailing),
        State::Gone => Some(EventReason::EndpointGone),
        State::Holding(why) if !why.is_told_elsewhere() => Some(EventReason::OnHold),
        State::Starting | State::Delivering | State::Holding(_) => None,
    }
}

/// What has turned since the last time that it was told; one problem is told once, however often it is looked at.
pub(super) fn event(before: Option<&Told>, now: &Told) -> Option<Event> {
    let Condition { type_, status, message, .. } = &now.delivering;
    let was = before.and_then(|told| told.problem);
    let is = now.problem.filter(|is| was != Some(*is));
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

pub(super) fn recorder(client: &Client) -> Recorder {
    let instance = std::env::var("HOSTNAME").ok();
    Recorder::new(client.clone(), Reporter { controller: FIELD_MANAGER.to_owned(), instance })
}

/// An Event that cannot be written is a line in the log: what it tells of has happened all the same.
pub(super) async fn publish(recorder: &Recorder, event: &Event, webhook: &OutboundWebhook) {
    if let Err(error) = recorder.publish(event, &webhook.object_ref(&())).await {
        tracing::warn!(%error, reason = event.reason, note = event.note, "an Event could not be written");
    }
}
