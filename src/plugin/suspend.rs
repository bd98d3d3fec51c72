//! `pause` and `resume`: `spec.suspend`, and what the controller says of it.

use std::{ops::ControlFlow, time::Duration};

use clap::Args;
use serde_json::json;

use super::{
    advice::is_observed,
    cluster::Connection,
    failure::Failure,
    follow::follow,
    output::{self, Output, Progress, marked},
    paint::State,
    status::condition_json,
};
use crate::api::v1alpha1::{ConditionType, OutboundWebhook};

#[derive(Args)]
pub(super) struct Named {
    /// The webhook
    name: String,
    /// How long to wait for the controller
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = output::duration)]
    timeout: Duration,
}

impl Named {
    pub(super) async fn run(
        &self,
        suspend: bool,
        connection: &Connection,
        output: Output,
    ) -> Result<(), Failure> {
        connection.patch(&self.name, json!({ "spec": { "suspend": suspend } })).await?;
        let mut progress = Progress::new();
        progress.wait_for("the controller");
        let webhook: OutboundWebhook =
            follow(connection, &self.name, self.timeout, &mut progress, |webhook, _| {
                let taken = webhook.spec.suspend == suspend && is_observed(webhook);
                if taken { ControlFlow::Break(webhook.clone()) } else { ControlFlow::Continue(()) }
            })
            .await?;
        drop(progress);
        let ready = webhook.condition(ConditionType::Ready);
        let is_ready = ready.is_some_and(|ready| ready.status == "True");
        output.print(
            &json!({ "suspend": suspend, "ready": condition_json(ready) }),
            [self.name.as_str()],
            || {
                let told =
                    ready.map(|ready| format!("{}: {}", ready.reason, ready.message)).unwrap_or_default();
                let state = if suspend || is_ready { State::Good } else { State::Warning };
                let what = if suspend { "paused" } else { "resumed" };
                marked(state, format!("{} is {what}; {told}", self.name))
            },
        )
    }
}
