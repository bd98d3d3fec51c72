//! `validate`: a keystore before it is applied, in the words of the controller; or what the controller said of those
//! of a webhook.

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    advice::is_observed,
    cluster::Connection,
    failure::Failure,
    output::{Output, field},
    paint::{State, Text},
    status::condition_json,
};
use crate::{
    api::v1alpha1::{CertificateStatus, ConditionType, OutboundWebhook},
    clock::left,
    inspect::{self, How},
    keystore::load,
};

#[derive(Args)]
pub(super) struct Validate {
    /// The keystore: nothing leaves this machine
    #[arg(value_name = "FILE", required_unless_present = "webhook")]
    keystore: Option<PathBuf>,
    #[command(flatten)]
    how: How,
    /// What the controller made of the keystores of this webhook, instead of a file
    #[arg(long, value_name = "NAME", conflicts_with_all = [
        "keystore", "password_file", "key_password_file", "alias", "format", "at",
    ])]
    webhook: Option<String>,
}

impl Validate {
    pub(super) async fn run(
        &self,
        connect: impl AsyncFnOnce() -> Result<Connection, Failure>,
        output: Output,
    ) -> Result<(), Failure> {
        match (&self.keystore, &self.webhook) {
            (Some(keystore), _) => self.file(keystore, output),
            (None, Some(name)) => of_webhook(&connect().await?.webhook(name).await?, name, output),
            (None, None) => Err(Failure::usage("name a keystore, or a webhook")),
        }
    }

    fn file(&self, keystore: &std::path::Path, output: Output) -> Result<(), Failure> {
        let files = self.how.secrets.read(keystore)?;
        let request = self.how.request(&files);
        let result = load(&request);
        output.print(&inspect::json(&result), [], || Text::lines(&inspect::text(&result, &request)))?;
        if result.is_ok() { Ok(()) } else { Err(Failure::No) }
    }
}

/// What is in a slot, and the condition that speaks of what was named for it.
type Judged<'a> = (&'static str, Option<&'a CertificateStatus>, ConditionType);

fn of_webhook(webhook: &OutboundWebhook, name: &str, output: Output) -> Result<(), Failure> {
    if webhook.spec.mtls.is_none() {
        return Err(Failure::usage(format!("{name} asks for no client certificate: it has no spec.mtls")));
    }
    if !is_observed(webhook) {
        let message = format!("the controller has not judged {name} as it is now: kubectl postrider doctor");
        return Err(Failure::unfinished(message));
    }
    let mtls = webhook.status.as_ref().and_then(|status| status.mtls.as_ref());
    let judged: [Judged; 2] = [
        ("active", mtls.and_then(|mtls| mtls.active.as_ref()), ConditionType::CertificateValid),
        ("new", mtls.and_then(|mtls| mtls.new.as_ref()), ConditionType::NewCertificateValid),
    ];
    let valid = |condition| webhook.condition(condition).is_none_or(|condition| condition.status == "True");
    let all = judged.iter().all(|(_, _, condition)| valid(*condition));
    let value: serde_json::Map<String, Value> = judged
        .iter()
        .map(|(slot, certificate, condition)| {
            let judged = condition_json(webhook.condition(*condition));
            ((*slot).to_owned(), json!({ "judged": judged, "certificate": certificate }))
        })
        .collect();
    let ready = webhook.condition(ConditionType::Ready);
    output.print(&value, [name], || {
        let parts = judged.iter().map(|(slot, certificate, condition)| {
            text(&format!("mtls.{slot}"), *certificate, webhook, *condition)
        });
        let closed = ready.filter(|ready| all && ready.status != "True");
        let closed = closed.map(|ready| {
            (State::Warning.mark() + " not ready all the same").line() + field(&ready.reason, &ready.message)
        });
        parts.chain(closed).collect()
    })?;
    // Without a word about either, the gate or the endpoint was in the way.
    let known = judged.iter().any(|(_, _, condition)| webhook.condition(*condition).is_some());
    if all && known { Ok(()) } else { Err(Failure::No) }
}

fn text(
    field_name: &str,
    certificate: Option<&CertificateStatus>,
    webhook: &OutboundWebhook,
    condition: ConditionType,
) -> Text {
    let Some(condition) = webhook.condition(condition) else { return Text::default() };
    let state = State::of(condition.status == "True");
    let mut text = (state.mark() + " " + field_name).line();
    text += field(&condition.reason, &condition.message);
    if let Some(certificate) = certificate {
        let now = Timestamp::now();
        let till = certificate.valid_till.0;
        text += field("Valid till", format!("{till} ({})", left(till, now)));
        text += field("SHA-256", &certificate.fingerprint_sha256);
        for warning in &certificate.warnings {
            text += field("Warning", format!("{}: {}", warning.reason, warning.message));
        }
    }
    text
}
