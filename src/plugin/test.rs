//! `test`: asks the controller for a connection test, and shows layer by layer what it saw.
//!
//! A test is asked for by an annotation that changes. Each result says by `inputs` what it was made with, the wish
//! included: one with other inputs than before is the one that was asked for.

use std::{ops::ControlFlow, time::Duration};

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::{
    advice::is_observed,
    cluster::{Connection, unheard_of},
    failure::Failure,
    follow::follow,
    output::{self, Output, Progress, field, paragraph},
    paint::{State, Text, bold, dim},
};
use crate::{
    api::v1alpha1::{
        ConditionType, OutboundWebhook, Reason as Conclusion, TEST_ANNOTATION, TestStatus, TestsStatus,
    },
    probe::{Layer, Reason},
};

#[derive(Args)]
pub(super) struct Test {
    /// The webhook
    name: String,
    /// How long to wait for the results
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = output::duration)]
    timeout: Duration,
    /// Show the last results instead of asking for new ones
    #[arg(long)]
    last: bool,
}

/// Tests under the names of their slots.
type Results = Vec<(&'static str, TestStatus)>;

impl Test {
    pub(super) async fn run(&self, connection: &Connection, output: Output) -> Result<(), Failure> {
        let webhook = connection.webhook(&self.name).await?;
        let webhook = if self.last { webhook } else { self.asked(connection, &webhook).await? };
        let results = results(&webhook);
        if results.is_empty() {
            let message = format!("{} has not been tested yet", self.name);
            return Err(Failure::not_found(message));
        }
        let seen = tests(&webhook);
        let now = Timestamp::now();
        output.print(
            &json!({ "url": webhook.spec.endpoint.url, "test": seen }),
            [self.name.as_str()],
            || {
                let parts = results.iter().enumerate().map(|(number, (slot, result))| {
                    let gap = if number == 0 { Text::default() } else { Text::default().line() };
                    gap + text(&webhook, slot, result, now)
                });
                parts.collect()
            },
        )?;
        if results.iter().all(|(_, result)| result.succeeded) { Ok(()) } else { Err(Failure::No) }
    }

    /// The webhook with the results of tests that were asked for now, one for each certificate.
    async fn asked(
        &self,
        connection: &Connection,
        before: &OutboundWebhook,
    ) -> Result<OutboundWebhook, Failure> {
        let before = tests(before);
        connection.annotate(&self.name, TEST_ANNOTATION, &unheard_of()).await?;
        let mut progress = Progress::new();
        progress.wait_for("the results of the controller");
        follow(connection, &self.name, self.timeout, &mut progress, |webhook, _| {
            let tests = tests(webhook);
            let fresh = |now: &Option<TestStatus>, before: &Option<TestStatus>| {
                let inputs = |test: &Option<TestStatus>| test.as_ref().map(|test| test.inputs.clone());
                inputs(now).is_some() && inputs(now) != inputs(before)
            };
            let (active, new) = certificates(webhook);
            let active = !active || fresh(&tests.active, &before.active);
            // What was New may be Active by now, and its result with it.
            let new = !new || fresh(&tests.new, &before.new);
            if is_observed(webhook) && active && new && (tests.active.is_some() || tests.new.is_some()) {
                return ControlFlow::Break(Ok(webhook.clone()));
            }
            untestable(webhook)
                .map_or(ControlFlow::Continue(()), |why| ControlFlow::Break(Err(Failure::tried(why))))
        })
        .await
        .map_err(|failure| match failure {
            Failure::Unfinished(message) => {
                let doctor = connection.command(&["doctor"]);
                Failure::unfinished((message + "; see whether a controller runs:").above([doctor]))
            }
            failure => failure,
        })?
    }
}

fn tests(webhook: &OutboundWebhook) -> TestsStatus {
    webhook.status.as_ref().and_then(|status| status.test.clone()).unwrap_or_default()
}

/// Whether there is an Active to test with, or none is asked for, and whether there is a New.
fn certificates(webhook: &OutboundWebhook) -> (bool, bool) {
    let mtls = webhook.status.as_ref().and_then(|status| status.mtls.as_ref());
    let active = webhook.spec.mtls.is_none() || mtls.is_some_and(|mtls| mtls.active.is_some());
    (active, mtls.is_some_and(|mtls| mtls.new.is_some()))
}

/// Why there will be no result: nothing that may be used is there, or nobody may be trusted, and the controller has
/// said so.
fn untestable(webhook: &OutboundWebhook) -> Option<String> {
    const NEVER: [Conclusion; 4] = [
        Conclusion::MtlsNotEnabled,
        Conclusion::InvalidUrl,
        Conclusion::InvalidCaBundle,
        Conclusion::ConfigMapNotFound,
    ];
    let mtls = webhook.status.as_ref()?.mtls.as_ref();
    let published = mtls.is_some_and(|mtls| mtls.client_certificate_ref.is_some());
    let ready = webhook.condition(ConditionType::Ready).filter(|_| is_observed(webhook))?;
    let nothing = webhook.spec.mtls.is_some() && !published;
    let never = nothing || NEVER.iter().any(|reason| reason.as_str() == ready.reason);
    (never && ready.status != "True")
        .then(|| format!("there is nothing to test with: {}: {}", ready.reason, ready.message))
}

fn results(webhook: &OutboundWebhook) -> Results {
    let TestsStatus { active, new } = tests(webhook);
    [("Active", active), ("New", new)].into_iter().filter_map(|(slot, test)| Some((slot, test?))).collect()
}

/// How a result is: one that passed with a hint deserves a look.
pub(super) fn state(test: &TestStatus) -> State {
    match (test.succeeded, test.reason == Reason::Succeeded.as_str() && test.hint.is_none()) {
        (false, _) => State::Bad,
        (true, true) => State::Good,
        (true, false) => State::Warning,
    }
}

/// A result for a person.
pub(super) fn text(webhook: &OutboundWebhook, slot: &str, test: &TestStatus, now: Timestamp) -> Text {
    let mtls = webhook.status.as_ref().and_then(|status| status.mtls.as_ref());
    let known = mtls.into_iter().flat_map(|mtls| [&mtls.active, &mtls.new, &mtls.previous]).flatten();
    let mut named = known.filter(|known| Some(&known.fingerprint_sha256) == test.fingerprint_sha256.as_ref());
    let who = named.next().map_or("without a client certificate", |certificate| &certificate.identifier);
    let state = state(test);
    let mut told = (state.mark() + " " + bold(slot) + "  " + who).line();
    for (layer, state, seen) in layers(webhook, test) {
        let first = Text::from("  ") + state.mark() + format!(" {:<9} ", layer.as_str());
        told += paragraph(seen, first, &" ".repeat(14));
    }
    told += field(if test.succeeded { "Passed" } else { "Failed" }, &test.message);
    if let Some(hint) = &test.hint {
        told += field("Hint", format!("{}: {}", hint.reason, hint.message));
    }
    told + field("Tested", dim(output::ago(test.time.0, now)))
}

/// Layers in the order in which a connection passes them.
const LAYERS: [Layer; 6] =
    [Layer::Dns, Layer::Connect, Layer::Tls, Layer::TlsServer, Layer::TlsClient, Layer::Http];

/// Where it failed. A connection that the server closed broke where TLS had come to, not where it was made.
fn failed_in(test: &TestStatus) -> Option<&str> {
    let layer = test.layer.as_deref()?;
    if test.reason != Reason::ConnectionClosed.as_str() {
        return Some(layer);
    }
    let passed = match (test.client_certificate_requested, test.http_status) {
        (_, Some(_)) => Layer::Http,
        (Some(true), None) => Layer::TlsClient,
        (Some(false), None) if test.tls_version.is_some() && !test.server_chain.is_empty() => Layer::Http,
        (Some(false), None) => Layer::Tls,
        (None, None) => return Some(layer),
    };
    Some(passed.as_str())
}

/// What was seen in each layer. What the server showed proves those below; one that failed ends it.
fn layers(webhook: &OutboundWebhook, test: &TestStatus) -> Vec<(Layer, State, Text)> {
    let failed = failed_in(test);
    let passed = match LAYERS.iter().position(|layer| Some(layer.as_str()) == failed) {
        Some(position) => position,
        None if test.succeeded => LAYERS.len(),
        // The time ran out, and what was seen until then is known.
        None if !test.server_chain.is_empty() => 4,
        None if test.tls_version.is_some() => 3,
        None => 0,
    };
    let in_order = LAYERS.iter().any(|layer| Some(layer.as_str()) == failed);
    let mut all = Vec::new();
    for (position, layer) in LAYERS.into_iter().enumerate() {
        let not_asked = layer == Layer::Http && test.http_status.is_none() && test.succeeded;
        let (state, told) = if not_asked {
            (State::Unknown, "not asked: endpoint.test.request is None".into())
        } else if position < passed {
            let (state, told) = seen(webhook, test, layer);
            (state, told.into())
        } else if Some(layer.as_str()) == failed {
            let alert = test.alert.as_ref().map(|alert| format!(": alert {} ({})", alert.number, alert.name));
            (State::Bad, format!("{}{}", test.reason, alert.unwrap_or_default()).into())
        } else {
            (State::Unknown, dim(if in_order { "not reached" } else { "not known" }))
        };
        all.push((layer, state, told));
    }
    if !test.succeeded && !in_order {
        let layer =
            if failed == Some(Layer::Authorization.as_str()) { Layer::Authorization } else { Layer::Timeout };
        all.push((layer, State::Bad, (&test.reason).into()));
    }
    all
}

/// What a layer showed that was passed.
fn seen(webhook: &OutboundWebhook, test: &TestStatus, layer: Layer) -> (State, String) {
    let url: Option<url::Url> = webhook.spec.endpoint.url.parse().ok();
    let host = url.as_ref().and_then(url::Url::host_str).unwrap_or_default();
    let port = url.as_ref().and_then(url::Url::port_or_known_default).unwrap_or_default();
    let told = match layer {
        Layer::Dns => format!("{host} has an address"),
        Layer::Connect => format!("connected to port {port}"),
        Layer::Tls => {
            let parts = [test.tls_version.clone(), test.cipher_suite.clone()];
            parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
        }
        Layer::TlsServer => test.server_chain.first().map_or_else(String::new, |leaf| {
            format!("{}, valid till {}", leaf.subject, leaf.valid_till.0.strftime("%Y-%m-%d"))
        }),
        Layer::TlsClient => return client(test),
        _ => test.http_status.map_or_else(String::new, |status| format!("HTTP {status}")),
    };
    (State::Good, told)
}

fn client(test: &TestStatus) -> (State, String) {
    let asked = test.client_certificate_requested == Some(true);
    match (asked, test.fingerprint_sha256.is_some()) {
        (true, true) if test.issuer_accepted == Some(false) => {
            let names = test.accepted_authorities.join("; ");
            (
                State::Warning,
                format!("the server asked for a certificate of others, and did not refuse ours: {names}"),
            )
        }
        (true, true) => {
            (State::Good, "the server asked for our certificate, and did not refuse it".to_owned())
        }
        (true, false) => {
            (State::Warning, "the server asked for a certificate; the webhook has none".to_owned())
        }
        (false, true) => (State::Warning, "the server did not ask for our certificate".to_owned()),
        (false, false) => (State::Good, "no client certificate was asked for".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_was_closed_broke_where_tls_had_come_to() {
        let webhook = serde_json::from_value(json!({
            "apiVersion": "postrider.dev/v1alpha1", "kind": "OutboundWebhook", "metadata": { "name": "orders" },
            "spec": { "endpoint": { "url": "https://partner.example" } },
        }));
        let webhook: OutboundWebhook = webhook.unwrap();
        let seen = |of_tls: serde_json::Value| {
            let mut test = json!({ "succeeded": false, "layer": "Connect", "reason": "ConnectionClosed", "message": "closed",
                "fingerprintSHA256": "a", "inputs": "x", "time": "2026-11-24T08:00:00Z" });
            test.as_object_mut().unwrap().extend(of_tls.as_object().unwrap().clone());
            let test = serde_json::from_value(test).unwrap();
            layers(&webhook, &test).into_iter().map(|(_, state, _)| state).collect::<Vec<_>>()
        };
        let (good, bad, unknown) = (State::Good, State::Bad, State::Unknown);
        assert_eq!(seen(json!({})), [good, bad, unknown, unknown, unknown, unknown]);
        let nothing_yet = json!({ "clientCertificateRequested": false });
        assert_eq!(seen(nothing_yet), [good, good, bad, unknown, unknown, unknown]);
        let chain = json!([{ "subject": "CN=partner", "validTill": "2027-11-24T08:00:00Z", "fingerprintSHA256": "b" }]);
        let asked =
            json!({ "clientCertificateRequested": true, "tlsVersion": "TLSv1.3", "serverChain": chain });
        assert_eq!(seen(asked), [good, good, good, good, bad, unknown]);
        let not_asked =
            json!({ "clientCertificateRequested": false, "tlsVersion": "TLSv1.3", "serverChain": chain });
        assert_eq!(seen(not_asked), [good, good, good, good, State::Warning, bad]);
    }
}
