//! `pending`: what waits, was delivered and was given up, as the dispatcher tells it in the status.

use clap::Args;
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::json;

use super::{
    cluster::Connection,
    failure::Failure,
    output::{Cell, Output, ago, cell, cell_in, table},
    paint::State,
};
use crate::api::v1alpha1::{ConditionType, DeliveryStatus, OutboundWebhook};

#[derive(Args)]
pub(super) struct Pending {
    /// One webhook; without it all of the namespace
    name: Option<String>,
    /// Those of every namespace
    #[arg(long, short = 'A', conflicts_with = "name")]
    all_namespaces: bool,
}

impl Pending {
    pub(super) async fn run(&self, connection: &Connection, output: Output) -> Result<(), Failure> {
        let webhooks = match &self.name {
            Some(name) => vec![connection.webhook(name).await?],
            None => connection.webhooks(self.all_namespaces).await?,
        };
        let values: Vec<_> = webhooks.iter().map(value).collect();
        let names: Vec<_> = webhooks.iter().map(ResourceExt::name_any).collect();
        output.print(&values, names.iter().map(String::as_str), || {
            // Of one namespace it would be the same in every line.
            let from = usize::from(!self.all_namespaces);
            let rows: Vec<_> = webhooks.iter().map(|webhook| row(webhook).split_off(from)).collect();
            let head = ["NAMESPACE", "NAME", "PENDING", "DELIVERED", "DEAD", "LAST SUCCESS", "DELIVERING"];
            table(&head[from..], None, &rows)
        })
    }
}

fn delivery(webhook: &OutboundWebhook) -> Option<&DeliveryStatus> {
    webhook.status.as_ref()?.delivery.as_ref()
}

fn value(webhook: &OutboundWebhook) -> serde_json::Value {
    json!({ "namespace": webhook.namespace(), "name": webhook.name_any(), "delivery": delivery(webhook) })
}

fn row(webhook: &OutboundWebhook) -> Vec<Cell> {
    let delivery = delivery(webhook).cloned().unwrap_or_default();
    let said = webhook.condition(ConditionType::Delivering);
    let state = said.map_or(State::Unknown, |said| State::of(said.status == "True"));
    let dead = if delivery.dead > 0 { State::Warning } else { State::Unknown };
    let last = delivery.last_success.map(|last| ago(last.0, Timestamp::now()));
    vec![
        cell(webhook.namespace().unwrap_or_default()),
        cell(webhook.name_any()),
        cell(delivery.pending.to_string()),
        cell(delivery.delivered.to_string()),
        cell_in(dead, delivery.dead.to_string()),
        cell(last.unwrap_or_else(|| "never".to_owned())),
        cell_in(state, said.map_or("not told yet", |said| &said.reason)),
    ]
}
