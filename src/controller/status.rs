//! Step five: what a person reads. The same input gives the same status, and that is not written twice.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{Context, Error, FIELD_MANAGER, Problem, fetch::Fetched, load::Loaded};
use crate::{
    api::v1alpha1::{
        CertificateStatus, CertificateWarning, ConditionType, LocalRef, MutualTlsStatus, OutboundWebhook,
        OutboundWebhookStatus, Reason,
    },
    identity::{Facts, Slots},
    rotation::Found,
};

/// What the steps before have found.
pub(super) struct Observed<'a> {
    pub(super) webhook: &'a OutboundWebhook,
    pub(super) slots: &'a Slots,
    pub(super) loaded: &'a Loaded,
    pub(super) fetched: &'a Fetched,
    pub(super) published: &'a Result<(), Problem>,
}

/// Writes the status, if it says anything new.
pub(super) async fn report(context: &Context, observed: &Observed<'_>, now: Timestamp) -> Result<(), Error> {
    let webhook = observed.webhook;
    let generation = webhook.metadata.generation;
    let before = webhook.status.clone().unwrap_or_default();
    if is_said(&before, &status(generation, &before, observed, now)) {
        return Ok(());
    }
    let api: Api<OutboundWebhook> =
        Api::namespaced(context.client.clone(), &webhook.namespace().unwrap_or_default());
    // The store may lag behind our own last write; what is there now says since when each condition holds.
    let name = webhook.name_any();
    let latest = api.get_opt(&name).await.map_err(Error::api::<OutboundWebhook>("read", &name))?;
    let Some(latest) = latest.filter(|latest| latest.uid() == webhook.uid()) else { return Ok(()) };
    let before = latest.status.unwrap_or_default();
    let status = status(generation, &before, observed, now);
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
    Ok(())
}

/// The status, with the times of `before` for what has not changed.
fn status(
    generation: Option<i64>,
    before: &OutboundWebhookStatus,
    observed: &Observed<'_>,
    now: Timestamp,
) -> OutboundWebhookStatus {
    let mut conditions = vec![ready(observed)];
    conditions.extend(certificate_valid(observed));
    let conditions = conditions.into_iter().map(|(type_, holds, Problem { reason, message })| {
        let (type_, status) = (type_.as_str(), if holds { "True" } else { "False" });
        let earlier = before.conditions.iter().find(|c| c.type_ == type_ && c.status == status);
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: generation,
            last_transition_time: earlier.map_or_else(|| in_seconds(now), |c| c.last_transition_time.clone()),
        }
    });
    OutboundWebhookStatus {
        observed_generation: generation,
        conditions: conditions.collect(),
        mtls: mtls(before, observed),
    }
}

/// Whether a status says all that is to be said already; conditions of others are not looked at.
fn is_said(before: &OutboundWebhookStatus, status: &OutboundWebhookStatus) -> bool {
    let ours = |condition: &&Condition| {
        [ConditionType::Ready, ConditionType::CertificateValid]
            .map(ConditionType::as_str)
            .contains(&condition.type_.as_str())
    };
    before.observed_generation == status.observed_generation
        && before.mtls == status.mtls
        && before.conditions.iter().filter(ours).count() == status.conditions.len()
        && status.conditions.iter().all(|condition| before.conditions.contains(condition))
}

/// The summary: in the order in which a person would mend things.
fn ready(observed: &Observed<'_>) -> (ConditionType, bool, Problem) {
    let Observed { webhook, slots, loaded, fetched, published } = observed;
    // What was accepted goes on while its keystore cannot be used.
    let keystore = loaded.problem.as_ref().filter(|_| slots.active.is_none());
    let problem = (fetched.url.as_ref().err())
        .or(fetched.gate.as_ref().err())
        .or(keystore)
        .or(fetched.trust.as_ref().err())
        .or(published.as_ref().err());
    if let Some(problem) = problem {
        return (ConditionType::Ready, false, problem.clone());
    }
    if webhook.spec.suspend {
        let message = "events are taken and kept, and none is sent, for spec.suspend is true";
        return (ConditionType::Ready, false, Problem::new(Reason::Suspended, message));
    }
    let summary = match (&slots.active, &loaded.problem) {
        (None, _) => Problem::new(Reason::Ready, "delivers over HTTPS without a client certificate"),
        (Some(active), None) => {
            Problem::new(Reason::Ready, format!("delivers with {}", one_line(active.facts())))
        }
        (Some(active), Some(problem)) => Problem::new(
            Reason::ActiveKept,
            format!(
                "delivers with {}, which was accepted before; now: {}",
                one_line(active.facts()),
                problem.message
            ),
        ),
    };
    (ConditionType::Ready, true, summary)
}

/// About what `mtls.active` names; no condition where nothing is asked for.
fn certificate_valid(observed: &Observed<'_>) -> Option<(ConditionType, bool, Problem)> {
    let (holds, problem) = match (&observed.loaded.found, &observed.loaded.problem) {
        (_, Some(problem)) => (false, problem.clone()),
        (Found::Usable(identity), None) => (true, Problem::new(Reason::Valid, one_line(identity.facts()))),
        (Found::NotAsked | Found::Unusable(_), None) => return None,
    };
    Some((ConditionType::CertificateValid, holds, problem))
}

fn one_line(facts: &Facts) -> String {
    format!("{}, valid till {}", facts.identifier, facts.valid_till)
}

/// The Active; while there is none, what is known of the certificate that was refused.
fn mtls(before: &OutboundWebhookStatus, observed: &Observed<'_>) -> Option<MutualTlsStatus> {
    let Observed { slots, loaded, .. } = observed;
    let refused = if let Found::Unusable(facts) = &loaded.found { facts.as_deref() } else { None };
    let active = slots.active.as_ref().map(|active| active.facts());
    let facts = active.or(refused)?;
    let found = if let Found::Usable(identity) = &loaded.found { Some(identity.facts()) } else { refused };
    let known = before.mtls.as_ref().and_then(|mtls| mtls.active.as_ref());
    let entry = if let Some(found) =
        found.filter(|found| found.fingerprint_sha256 == facts.fingerprint_sha256)
    {
        CertificateStatus { source: loaded.source.clone(), warnings: warnings(loaded), ..describe(found) }
    } else if let Some(known) = known.filter(|known| known.fingerprint_sha256 == facts.fingerprint_sha256) {
        // Accepted before: where it came from was said then.
        known.clone()
    } else {
        describe(facts)
    };
    let client_certificate_ref = active
        .map(|_| LocalRef { name: OutboundWebhook::client_certificate_name(&observed.webhook.name_any()) });
    Some(MutualTlsStatus { active: Some(entry), client_certificate_ref })
}

fn warnings(loaded: &Loaded) -> Vec<CertificateWarning> {
    let warning = |warning: &crate::keystore::Warning| CertificateWarning {
        reason: warning.reason.as_str().to_owned(),
        message: warning.message.clone(),
    };
    loaded.warnings.iter().map(warning).collect()
}

fn describe(facts: &Facts) -> CertificateStatus {
    CertificateStatus {
        identifier: facts.identifier.clone(),
        valid_till: in_seconds(facts.valid_till),
        valid_from: in_seconds(facts.valid_from),
        serial_number: facts.serial_number.clone(),
        issuer: facts.issuer.clone(),
        fingerprint_sha256: facts.fingerprint_sha256.clone(),
        alias: facts.alias.clone(),
        key_algorithm: facts.key_algorithm.clone(),
        chain_length: i32::try_from(facts.chain_length).unwrap_or(i32::MAX),
        source: None,
        warnings: Vec::new(),
    }
}

/// As the API server keeps times: whole seconds.
fn in_seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}
