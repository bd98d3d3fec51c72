//! `promote`: asks that the New become the certificate in use, and waits until it is.

use std::{ops::ControlFlow, time::Duration};

use clap::Args;
use kube::ResourceExt as _;
use serde_json::json;

use super::{
    cluster::Connection,
    failure::Failure,
    follow::follow,
    output::{self, Output, Progress, marked},
    paint::State,
};
use crate::api::v1alpha1::{
    CertificateStatus, ConditionType, MutualTlsStatus, OutboundWebhook, PROMOTE_ANNOTATION, Reason,
};

#[derive(Args)]
pub(super) struct Promote {
    /// The webhook
    name: String,
    /// Also where the New has not passed its test
    #[arg(long)]
    untested: bool,
    /// How long to wait for the controller
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = output::duration)]
    timeout: Duration,
}

impl Promote {
    pub(super) async fn run(&self, connection: &Connection, output: Output) -> Result<(), Failure> {
        let webhook = connection.webhook(&self.name).await?;
        let said = webhook.condition(ConditionType::NewCertificateValid);
        let promoted = said.is_some_and(|said| said.reason == Reason::Promoted.as_str());
        let certificate = if promoted {
            active(&webhook).cloned()
        } else {
            let new = self.waiting(&webhook)?;
            let mut progress = Progress::new();
            Some(promote(connection, &self.name, new, self.timeout, &mut progress).await?)
        };
        output.print(&json!({ "active": certificate }), [self.name.as_str()], || {
            let certificate = certificate.as_ref().map(in_short).unwrap_or_default();
            let what = if promoted { "is in use already" } else { "is in use now" };
            marked(State::Good, format!("{certificate} {what}"))
        })
    }

    /// The New that may be promoted.
    fn waiting<'a>(&self, webhook: &'a OutboundWebhook) -> Result<&'a CertificateStatus, Failure> {
        let said = webhook.condition(ConditionType::NewCertificateValid);
        let new = mtls(webhook).and_then(|mtls| mtls.new.as_ref());
        let (Some(said), Some(new)) = (said, new) else {
            let words = format!("{} has no New certificate", webhook.name_any());
            return Err(Failure::not_found(said.map_or(words, |said| said.message.clone())));
        };
        if said.status != "True" {
            return Err(Failure::tried(format!("the New cannot be used: {}: {}", said.reason, said.message)));
        }
        let test = webhook.status.as_ref().and_then(|status| status.test.as_ref()?.new.as_ref());
        let passed = test.is_some_and(|test| {
            test.succeeded && test.fingerprint_sha256.as_ref() == Some(&new.fingerprint_sha256)
        });
        if !passed && !self.untested {
            let message = format!("{}; --untested promotes it all the same", said.message);
            return Err(Failure::tried(message));
        }
        Ok(new)
    }
}

/// Asks, and waits until it is the one in use.
pub(super) async fn promote(
    connection: &Connection,
    name: &str,
    new: &CertificateStatus,
    timeout: Duration,
    progress: &mut Progress,
) -> Result<CertificateStatus, Failure> {
    connection.annotate(name, PROMOTE_ANNOTATION, &new.fingerprint_sha256).await?;
    progress.wait_for("the controller to promote it");
    follow(connection, name, timeout, progress, |webhook, _| match active(webhook) {
        Some(active) if active.fingerprint_sha256 == new.fingerprint_sha256 => {
            ControlFlow::Break(active.clone())
        }
        _ => ControlFlow::Continue(()),
    })
    .await
}

pub(super) fn mtls(webhook: &OutboundWebhook) -> Option<&MutualTlsStatus> {
    webhook.status.as_ref()?.mtls.as_ref()
}

pub(super) fn active(webhook: &OutboundWebhook) -> Option<&CertificateStatus> {
    mtls(webhook)?.active.as_ref()
}

/// A certificate in a sentence.
pub(super) fn in_short(certificate: &CertificateStatus) -> String {
    let CertificateStatus { identifier, fingerprint_sha256, valid_till, .. } = certificate;
    let short = fingerprint_sha256.get(..12).unwrap_or(fingerprint_sha256);
    format!("{identifier} ({short}…, valid till {})", valid_till.0)
}
