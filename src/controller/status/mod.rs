//! The last step: what a person reads. The same input gives the same status, and that is not written twice.

mod certificates;
mod conditions;
mod metrics;
mod news;
mod test;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{Context, Error, FIELD_MANAGER, Problem, fetch::Fetched, load::Keystores};
use crate::{
    api::v1alpha1::{ConditionType, OutboundWebhook, OutboundWebhookStatus, TestsStatus},
    identity::Slots,
    kubernetes::{key, time},
};
pub(super) use news::News;
pub(super) use test::test_status;

/// What the steps before have found.
pub(super) struct Observed<'a> {
    pub(super) webhook: &'a OutboundWebhook,
    pub(super) slots: &'a Slots,
    pub(super) keystores: &'a Keystores,
    pub(super) fetched: &'a Fetched,
    pub(super) published: &'a Result<(), Problem>,
    /// The last tests of what is in the slots.
    pub(super) tests: TestsStatus,
    pub(super) now: Timestamp,
}

/// Writes the status, if it says anything new, and tells the news in it.
pub(super) async fn report(context: &Context, observed: &Observed<'_>) -> Result<(), Error> {
    let webhook = observed.webhook;
    let api: Api<OutboundWebhook> =
        Api::namespaced(context.client.clone(), &webhook.namespace().unwrap_or_default());
    // The store may lag behind our own last write, and nobody would come back to what is not written now.
    let name = webhook.name_any();
    let latest = api.get_opt(&name).await.map_err(Error::api::<OutboundWebhook>("read", &name))?;
    let Some(latest) = latest.filter(|latest| latest.uid() == webhook.uid()) else { return Ok(()) };
    let before = latest.status.unwrap_or_default();
    let status = status(&before, observed);
    if let Some(webhook) = key(webhook) {
        context.metrics.observed(webhook, metrics::of(observed, &status));
    }
    if is_said(&before, &status) {
        return Ok(());
    }
    // The UID keeps this from being said of another webhook of the same name.
    let patch = json!({
        "apiVersion": OutboundWebhook::api_version(&()),
        "kind": OutboundWebhook::kind(&()),
        "metadata": { "uid": webhook.uid() },
        "status": status,
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    api.patch_status(&name, &parameters, &Patch::Apply(patch))
        .await
        .map_err(Error::api::<OutboundWebhook>("write the status of", &name))?;
    for news in news::news(&before.conditions, &status.conditions) {
        context.story.report(webhook, &news).await;
    }
    Ok(())
}

/// The status, with the times of `before` for what has not changed.
fn status(before: &OutboundWebhookStatus, observed: &Observed<'_>) -> OutboundWebhookStatus {
    let generation = observed.webhook.metadata.generation;
    let conditions =
        conditions::of(observed).into_iter().map(|(type_, holds, Problem { reason, message })| {
            let (type_, status) = (type_.as_str(), if holds { "True" } else { "False" });
            let earlier = before.conditions.iter().find(|c| c.type_ == type_ && c.status == status);
            Condition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: reason.into_owned(),
                message,
                observed_generation: generation,
                last_transition_time: earlier
                    .map_or_else(|| time(observed.now), |c| c.last_transition_time.clone()),
            }
        });
    OutboundWebhookStatus {
        observed_generation: generation,
        conditions: conditions.collect(),
        mtls: certificates::of(before, observed),
        test: Some(observed.tests.clone()).filter(|tests| *tests != TestsStatus::default()),
        // The dispatcher's.
        delivery: None,
    }
}

/// Whether a status says all that is to be said already; what others say is not looked at.
fn is_said(before: &OutboundWebhookStatus, status: &OutboundWebhookStatus) -> bool {
    let ours = |condition: &&Condition| {
        ConditionType::OF_CONTROLLER.iter().any(|type_| type_.as_str() == condition.type_)
    };
    before.observed_generation == status.observed_generation
        && before.mtls == status.mtls
        && before.test == status.test
        && before.conditions.iter().filter(ours).count() == status.conditions.len()
        && status.conditions.iter().all(|condition| before.conditions.contains(condition))
}
