//! `status`: all of a webhook on one screen.

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::{
    advice::{Advice, advice, is_observed, not_connected},
    cluster::Connection,
    failure::Failure,
    output::{Output, ago, bar, days_left, field, urgency},
    paint::{State, Text, bold, dim},
    test,
};
use crate::{
    api::v1alpha1::{
        CertificateStatus, ConditionType, DeliveryStatus, FailureStatus, MutualTlsStatus, OutboundWebhook,
        OutboundWebhookStatus, RefusalStatus, TestStatus,
    },
    clock::left,
};

#[derive(Args)]
pub(super) struct Show {
    /// The webhook
    name: String,
}

impl Show {
    pub(super) async fn run(&self, connection: &Connection, output: Output) -> Result<(), Failure> {
        let webhook = connection.webhook(&self.name).await?;
        let now = Timestamp::now();
        output.print(&value(&webhook, now), [self.name.as_str()], || text(&webhook, output, now))?;
        let ready = webhook.condition(ConditionType::Ready);
        if ready.is_some_and(|ready| ready.status == "True") { Ok(()) } else { Err(Failure::No) }
    }
}

/// A condition, for a program.
pub(super) fn condition_json(condition: Option<&Condition>) -> Value {
    condition.map_or(Value::Null, |Condition { status, reason, message, .. }| {
        json!({ "status": status, "reason": reason, "message": message })
    })
}

/// The slots, in the order in which they are told.
fn slots(mtls: &MutualTlsStatus) -> impl Iterator<Item = (&'static str, &CertificateStatus)> {
    let all = [("Active", &mtls.active), ("New", &mtls.new), ("Previous", &mtls.previous)];
    all.into_iter().filter_map(|(slot, certificate)| Some((slot, certificate.as_ref()?)))
}

fn value(webhook: &OutboundWebhook, now: Timestamp) -> Value {
    let status = webhook.status.clone().unwrap_or_default();
    let mtls = status.mtls.unwrap_or_default();
    let days: serde_json::Map<_, _> = slots(&mtls)
        .map(|(slot, certificate)| (slot.to_lowercase(), days_left(certificate.valid_till.0, now).into()))
        .collect();
    let conditions: serde_json::Map<_, _> = status
        .conditions
        .iter()
        .map(|condition| (condition.type_.clone(), condition_json(Some(condition))))
        .collect();
    json!({
        "namespace": webhook.namespace(),
        "name": webhook.name_any(),
        "url": webhook.spec.endpoint.url,
        "conditions": conditions,
        "certificates": mtls,
        "daysLeft": days,
        "test": status.test,
        "delivery": status.delivery,
        "next": advice(webhook),
    })
}

fn text(webhook: &OutboundWebhook, output: Output, now: Timestamp) -> Text {
    let status = webhook.status.clone().unwrap_or_default();
    let (state, told) = summary(webhook);
    let title = format!("{}/{}", webhook.namespace().unwrap_or_default(), webhook.name_any());
    let mut text = (state.mark() + " " + bold(title) + "  " + state.paint(told)).line();
    text += field("Endpoint", &webhook.spec.endpoint.url);
    let next = advice(webhook);
    // What is wrong is told once, with what to do.
    let ready = webhook.condition(ConditionType::Ready);
    let told =
        |ready: &Condition| is_observed(webhook) && ready.status != "True" || is_told(&ready.message, &next);
    if let Some(ready) = ready.filter(|ready| !told(ready)) {
        text += field("Ready", &ready.message);
    }
    text += certificates(webhook, &status, output, now);
    text += tests(&status, now);
    if let Some(delivery) = &status.delivery {
        text += deliveries(delivery, &next, now);
    }
    text + what_next(&next)
}

/// How it is in a word or two: one that is ready may still get nothing through.
fn summary(webhook: &OutboundWebhook) -> (State, String) {
    let Some(ready) = webhook.condition(ConditionType::Ready) else {
        return (State::Unknown, "not reconciled yet".to_owned());
    };
    if !is_observed(webhook) {
        return (State::Warning, format!("{}, before the last change", ready.reason));
    }
    let delivering = webhook.condition(ConditionType::Delivering);
    let but = match ready.status.as_str() {
        "True" if delivering.is_some_and(|it| it.status == "False") => ", and nothing is delivered",
        "True" if not_connected(webhook).is_some() => ", and its test fails",
        status => return (State::of(status == "True"), ready.reason.clone()),
    };
    (State::Warning, format!("{}{but}", ready.reason))
}

/// Whether some advice says this.
fn is_told(what: &str, advice: &[Advice]) -> bool {
    advice.iter().any(|advice| advice.message.contains(what))
}

fn certificates(
    webhook: &OutboundWebhook,
    status: &OutboundWebhookStatus,
    output: Output,
    now: Timestamp,
) -> Text {
    if webhook.spec.mtls.is_none() {
        return below(field("Certificate", "none is asked for: plain HTTPS"));
    }
    let Some(mtls) = &status.mtls else {
        return below(field("Certificate", "none is there"));
    };
    let one = |(slot, certificate): (&str, &CertificateStatus)| {
        let till = certificate.valid_till.0;
        let mut text = below(field(slot, &certificate.identifier));
        let remaining = urgency(certificate, now).paint(left(till, now));
        let till = till.strftime("%Y-%m-%d %H:%M UTC");
        text += field("", bar(certificate, now) + "  " + remaining + format!(", till {till}"));
        let source = certificate.source.as_ref().map(|source| format!(", Secret {}", source.secret));
        let CertificateStatus { key_algorithm, chain_length, .. } = certificate;
        let facts = format!("{key_algorithm}, chain of {chain_length}{}", source.unwrap_or_default());
        text += field("", dim(facts));
        if output.is_wide() {
            text += field("", dim(format!("SHA-256 {}", certificate.fingerprint_sha256)));
            text += field("", dim(format!("issued by {}", certificate.issuer)));
        }
        // What has been replaced needs nothing done.
        for warning in certificate.warnings.iter().filter(|_| slot != "Previous") {
            text += field("", State::Warning.paint(format!("{}: {}", warning.reason, warning.message)));
        }
        text
    };
    slots(mtls).map(one).collect()
}

fn tests(status: &OutboundWebhookStatus, now: Timestamp) -> Text {
    let tests = status.test.clone().unwrap_or_default();
    let one = |(slot, result): (&str, Option<TestStatus>)| {
        let result = result?;
        let state = test::state(&result);
        let told = state.mark() + format!(" {slot}: ") + state.paint(&result.reason);
        let told = told + ", " + ago(result.time.0, now);
        let label = if slot == "New" && tests.active.is_some() { "" } else { "Last test" };
        Some(field(label, told))
    };
    let all: Text =
        [("Active", tests.active.clone()), ("New", tests.new.clone())].into_iter().filter_map(one).collect();
    below(if all == Text::default() { field("Last test", "none yet") } else { all })
}

fn deliveries(delivery: &DeliveryStatus, next: &[Advice], now: Timestamp) -> Text {
    let DeliveryStatus { pending, delivered, dead, last_success, last_failure, client_certificate_refused } =
        delivery;
    let gone = if *dead > 0 { State::Warning } else { State::Unknown };
    let last = last_success.as_ref().map_or_else(|| "never".to_owned(), |last| ago(last.0, now));
    let dead = gone.paint(format!("{dead} dead"));
    let counts = Text::from(format!("{pending} pending, {delivered} delivered, "));
    let mut text = field("Queue", counts + dead + format!("; last delivery {last}"));
    if let Some(FailureStatus { time, layer, reason, message }) = last_failure {
        let message = if is_told(reason, next) { String::new() } else { format!(": {message}") };
        text += field("Failed", format!("{}, {layer}: {reason}{message}", ago(time.0, now)));
    }
    if let Some(RefusalStatus { time, fingerprint_sha256, taken_fingerprint_sha256, .. }) =
        client_certificate_refused
    {
        let short = |fingerprint: &String| format!("{}…", fingerprint.get(..12).unwrap_or(fingerprint));
        let taken = taken_fingerprint_sha256.as_ref().map_or_else(|| "none".to_owned(), short);
        let refused = short(fingerprint_sha256);
        text += field("Refused", format!("{}: {refused}; taken instead: {taken}", ago(time.0, now)));
    }
    text
}

fn what_next(all: &[Advice]) -> Text {
    if all.is_empty() {
        return below(field("Next", "nothing to do"));
    }
    let one = |(number, advice): (usize, &Advice)| {
        let command = advice.command.as_ref();
        let command = command.map(|command| (Text::from(" ".repeat(14)) + bold(command)).line());
        field(if number == 0 { "Next" } else { "" }, &advice.message) + command.unwrap_or_default()
    };
    below(all.iter().enumerate().map(one).collect())
}

/// A part of the screen, with a gap above it.
fn below(part: Text) -> Text {
    Text::default().line() + part
}
