//! `list`: webhooks with the certificate in use and the time that it has left, the most urgent first.

use std::time::Duration;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{
    cluster::Connection,
    failure::Failure,
    output::{self, Cell, Output, cell, cell_in, days_left, table, urgency},
    paint::{State, Text},
};
use crate::{
    api::v1alpha1::{CertificateStatus, ConditionType, OutboundWebhook},
    clock::away,
};

#[derive(Args)]
pub(super) struct List {
    /// Those of every namespace
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Only those whose certificate in use expires within this time, such as 30d
    #[arg(long, value_name = "DURATION", value_parser = output::duration)]
    expiring_within: Option<Duration>,
    /// Exit with status 1 where there is any
    #[arg(long)]
    exit_code: bool,
}

impl List {
    pub(super) async fn run(&self, connection: &Connection, output: Output) -> Result<(), Failure> {
        let now = Timestamp::now();
        let mut webhooks = connection.webhooks(self.all_namespaces).await?;
        if let Some(within) = self.expiring_within {
            let until = SignedDuration::try_from(within).ok().and_then(|within| now.checked_add(within).ok());
            let until = until.unwrap_or(Timestamp::MAX);
            webhooks.retain(|webhook| active(webhook).is_some_and(|active| active.valid_till.0 <= until));
            webhooks.sort_by_key(|webhook| active(webhook).map(|active| active.valid_till.0));
        }
        let values: Vec<_> = webhooks.iter().map(|webhook| value(webhook, now)).collect();
        let names: Vec<_> = webhooks.iter().map(ResourceExt::name_any).collect();
        output.print(&values, names.iter().map(String::as_str), || self.text(&webhooks, output, now))?;
        if self.exit_code && !webhooks.is_empty() { Err(Failure::No) } else { Ok(()) }
    }

    fn text(&self, webhooks: &[OutboundWebhook], output: Output, now: Timestamp) -> Text {
        if webhooks.is_empty() {
            let place = if self.all_namespaces { "anywhere" } else { "in this namespace" };
            let which = self.expiring_within.map_or("", |_| " whose certificate expires within that time");
            return Text::from(format!("No webhook {place}{which}.")).line();
        }
        let mut head = vec!["NAMESPACE", "NAME", "REASON", "VALID TILL", "EXPIRES", "IDENTIFIER"];
        if output.is_wide() {
            head.extend(["NEW IDENTIFIER", "FINGERPRINT"]);
        }
        let rows: Vec<_> = webhooks.iter().map(|webhook| row(webhook, output.is_wide(), now)).collect();
        // Of one namespace it would be the same in every line.
        let from = usize::from(!self.all_namespaces);
        let rows: Vec<_> = rows.into_iter().map(|mut row| row.split_off(from)).collect();
        table(&head[from..], Some(5 - from).filter(|_| !output.is_wide()), &rows)
    }
}

fn active(webhook: &OutboundWebhook) -> Option<&CertificateStatus> {
    webhook.status.as_ref()?.mtls.as_ref()?.active.as_ref()
}

fn row(webhook: &OutboundWebhook, wide: bool, now: Timestamp) -> Vec<Cell> {
    let active = active(webhook);
    let ready = webhook.condition(ConditionType::Ready);
    let state = ready.map_or(State::Unknown, |ready| State::of(ready.status == "True"));
    let mut row = vec![
        cell(webhook.namespace().unwrap_or_default()),
        cell(webhook.name_any()),
        cell_in(state, ready.map_or("not reconciled", |ready| &ready.reason)),
    ];
    row.extend(match active {
        Some(active) => [
            cell(active.valid_till.0.strftime("%Y-%m-%d").to_string()),
            cell_in(urgency(active, now), away(active.valid_till.0, now)),
            cell(&active.identifier),
        ],
        None => ["-", "-", "-"].map(cell),
    });
    if wide {
        let new = webhook.status.as_ref().and_then(|status| status.mtls.as_ref()?.new.as_ref());
        row.push(cell(new.map_or("-", |new| &new.identifier)));
        row.push(cell(active.map_or("-", |active| &active.fingerprint_sha256)));
    }
    row
}

fn value(webhook: &OutboundWebhook, now: Timestamp) -> Value {
    let ready = webhook.condition(ConditionType::Ready);
    json!({
        "namespace": webhook.namespace(),
        "name": webhook.name_any(),
        "url": webhook.spec.endpoint.url,
        "ready": super::status::condition_json(ready),
        "active": active(webhook),
        "daysLeft": active(webhook).map(|active| days_left(active.valid_till.0, now)),
    })
}
