//! What happened, as Events: the story that `kubectl describe` tells of a rotation.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client, Resource as _,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use super::{FIELD_MANAGER, status::News};
use crate::{
    api::v1alpha1::{EventReason, OutboundWebhook, TestStatus},
    clock::away,
    identity::{Facts, Slot, Slots, fingerprint},
    kubernetes::note_of,
    rotation::{Because, Step, reminders::Reminder},
};

/// Says what happened.
pub(super) struct Story(Recorder);

impl Story {
    pub(super) fn new(client: Client) -> Self {
        let instance = std::env::var("HOSTNAME").ok();
        Self(Recorder::new(client, Reporter { controller: FIELD_MANAGER.to_owned(), instance }))
    }

    /// An Event that cannot be written is a line in the log: what it tells of has happened all the same.
    pub(super) async fn tell(
        &self,
        webhook: &OutboundWebhook,
        steps: &[Step],
        tests: &[TestStatus],
        names: &Names,
    ) {
        let tests = tests.iter().map(|test| of_test(test, names));
        for event in tests.chain(steps.iter().map(|step| of_step(step, names))) {
            self.publish(&event, &webhook.object_ref(&())).await;
        }
    }

    /// Reminds of a certificate that expires, or has.
    pub(super) async fn remind(
        &self,
        webhook: &OutboundWebhook,
        reminder: &Reminder,
        names: &Names,
        now: Timestamp,
    ) {
        self.publish(&of_reminder(reminder, names, now), &webhook.object_ref(&())).await;
    }

    /// Tells of a condition that has turned.
    pub(super) async fn report(&self, webhook: &OutboundWebhook, news: &News<'_>) {
        self.publish(&of_news(news), &webhook.object_ref(&())).await;
    }

    /// Writes one Event.
    pub(super) async fn publish(&self, event: &Event, about: &ObjectReference) {
        if let Err(error) = self.0.publish(event, about).await {
            tracing::warn!(%error, reason = event.reason, note = event.note, "an Event could not be written");
        }
    }
}

/// What certificates are called, by fingerprint.
#[derive(Default)]
pub(super) struct Names(HashMap<String, String>);

impl Names {
    pub(super) fn add(&mut self, slots: &Slots) {
        for (_, identity) in slots.iter() {
            let facts = identity.facts();
            self.0.insert(facts.fingerprint_sha256.clone(), name_of(facts));
        }
    }

    fn of<'a>(&'a self, fingerprint: &'a str) -> &'a str {
        self.0.get(fingerprint).map_or(fingerprint, String::as_str)
    }
}

fn name_of(facts: &Facts) -> String {
    let short = facts.fingerprint_sha256.get(..12).unwrap_or_default();
    format!("{} ({short}…, valid till {})", facts.identifier, facts.valid_till)
}

/// `about` is the certificate, or what else is one of a kind. It stands in the action because the recorder takes Events of one reason and
/// action for repetitions of the first, and would show that one's note for all.
pub(super) fn event(
    type_: EventType,
    reason: EventReason,
    action: &str,
    about: &str,
    note: impl AsRef<str>,
) -> Event {
    // The API takes actions of up to 128 characters.
    let action = format!("{action} {about:.60}");
    let note = note_of(note.as_ref());
    Event { type_, reason: reason.as_str().to_owned(), note: Some(note), action, secondary: None }
}

fn of_step(step: &Step, names: &Names) -> Event {
    use EventType::{Normal, Warning};
    match step {
        Step::Accepted(fingerprint) => event(
            Normal,
            EventReason::Accepted,
            "Accept",
            fingerprint,
            format!("{} is the Active certificate", names.of(fingerprint)),
        ),
        Step::Waits(fingerprint) => {
            let note = format!("{} is loaded as New, and waits to become Active", names.of(fingerprint));
            event(Normal, EventReason::NewCertificate, "Load", fingerprint, note)
        }
        Step::Withdrawn(fingerprint) => event(
            Normal,
            EventReason::NewWithdrawn,
            "Withdraw",
            fingerprint,
            format!("{} is not to follow any more", names.of(fingerprint)),
        ),
        Step::Promoted { from, to, because } => {
            let because = match because {
                Because::TestPassed => "its test has passed",
                Because::Asked => "it was asked for",
                Because::ActiveExpires => "the Active is about to expire",
                Because::NoActive => "there was no Active",
            };
            let before = match from {
                Some(from) => format!("; {} is Previous until it expires", names.of(from)),
                None => String::new(),
            };
            event(
                Normal,
                EventReason::Promoted,
                "Promote",
                to,
                format!("{} is Active, for {because}{before}", names.of(to)),
            )
        }
        Step::Expired { slot: Slot::Active, fingerprint } => {
            let note =
                format!("{} has expired; events are kept until another is there", names.of(fingerprint));
            event(Warning, EventReason::ActiveExpired, "Expire", fingerprint, note)
        }
        Step::Expired { slot, fingerprint } => {
            let note = format!("{} ({}) has expired and is dropped", names.of(fingerprint), slot.as_str());
            event(Normal, EventReason::CertificateExpired, "Expire", fingerprint, note)
        }
        Step::Dropped => event(
            Normal,
            EventReason::Dropped,
            "Drop",
            "all",
            "no client certificate is asked for; none is kept",
        ),
    }
}

/// A warning, unless all that is to be done is to wait.
fn of_reminder(reminder: &Reminder, names: &Names, now: Timestamp) -> Event {
    let Reminder { certificate, days, waits } = reminder;
    let (type_, next) = match waits {
        Some(new) => (EventType::Normal, format!("{} waits to replace it", names.of(new))),
        None if *days < 0 => {
            let next = "events are kept until another is there: name it in mtls.new or mtls.active";
            (EventType::Warning, next.to_owned())
        }
        None => {
            let next = "nothing waits to replace it: name its successor in mtls.new";
            (EventType::Warning, next.to_owned())
        }
    };
    let verb = if *days < 0 { "expired" } else { "expires" };
    let note = format!("{} {verb} {}; {next}", name_of(certificate), away(certificate.valid_till, now));
    let about = format!("{:.12} {days}", certificate.fingerprint_sha256);
    event(type_, EventReason::CertificateExpiring, "Remind", &about, note)
}

fn of_news(News { reason, condition }: &News<'_>) -> Event {
    let (type_, of) = if *reason == EventReason::Mended {
        (EventType::Normal, &condition.type_)
    } else {
        (EventType::Warning, &condition.reason)
    };
    // The same reason with another message is about something else.
    let about = format!("{of} {:.12}", fingerprint(condition.message.as_bytes()));
    event(type_, *reason, "Judge", &about, format!("{of}: {}", condition.message))
}

fn of_test(test: &TestStatus, names: &Names) -> Event {
    let with = test.fingerprint_sha256.as_deref().map_or("no client certificate", |of| names.of(of));
    let note = format!("{} with {with}: {}", test.reason, test.message);
    let about = format!("{:.12} {}", test.fingerprint_sha256.as_deref().unwrap_or("none"), test.reason);
    let (type_, reason) = if test.succeeded {
        (EventType::Normal, EventReason::TestPassed)
    } else {
        (EventType::Warning, EventReason::TestFailed)
    };
    event(type_, reason, "Test", &about, note)
}
