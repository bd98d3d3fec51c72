//! The conditions, each from what was found. One that does not apply is absent.

use super::Observed;
use crate::{
    api::v1alpha1::{ConditionType, Promotion, Reason, TestStatus},
    controller::Problem,
    identity::Facts,
    rotation::Found,
};

/// Type, whether it holds, and why.
type Judged = (ConditionType, bool, Problem);

pub(super) fn of(observed: &Observed<'_>) -> Vec<Judged> {
    let ready = Some(ready(observed));
    [
        ready,
        certificate_valid(observed),
        new_certificate_valid(observed),
        connected(observed),
        expiring(observed),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The summary: in the order in which a person would mend things.
fn ready(observed: &Observed<'_>) -> Judged {
    let Observed { webhook, slots, keystores, fetched, published, .. } = observed;
    let keystore = &keystores.active.problem;
    let problem = (fetched.url.as_ref().err())
        .or(fetched.gate.as_ref().err())
        // What was accepted goes on while its keystore cannot be used.
        .or(keystore.as_ref().filter(|_| slots.active.is_none()))
        .or(fetched.trust.as_ref().err())
        .or(fetched.credentials.as_ref().err())
        .or(published.as_ref().err());
    if let Some(problem) = problem {
        return (ConditionType::Ready, false, problem.clone());
    }
    if webhook.spec.suspend {
        let message = "events are taken and kept, and none is sent, for spec.suspend is true";
        return (ConditionType::Ready, false, Problem::new(Reason::Suspended, message));
    }
    let summary = match (&slots.active, keystore) {
        (None, _) if webhook.spec.mtls.is_some() => {
            let message = "no certificate that the webhook names may be used now";
            return (ConditionType::Ready, false, Problem::new(Reason::NoCertificate, message));
        }
        (None, _) => Problem::new(Reason::Ready, "delivers over HTTPS without a client certificate"),
        // A New that was promoted is not what `mtls.active` names, and its keystore is fine.
        (Some(active), Some(problem)) if !is_found(&keystores.new.found, active.facts()) => Problem::new(
            Reason::ActiveKept,
            format!(
                "delivers with {}, which was accepted before; now: {}",
                one_line(active.facts()),
                problem.message
            ),
        ),
        (Some(active), _) => {
            Problem::new(Reason::Ready, format!("delivers with {}", one_line(active.facts())))
        }
    };
    (ConditionType::Ready, true, summary)
}

/// About what `mtls.active` names.
fn certificate_valid(observed: &Observed<'_>) -> Option<Judged> {
    let active = &observed.keystores.active;
    let (holds, problem) = match (&active.found, &active.problem) {
        (_, Some(problem)) => (false, problem.clone()),
        (Found::Usable(identity), None) => (true, Problem::new(Reason::Valid, one_line(identity.facts()))),
        (Found::NotAsked | Found::Unusable(_), None) => return None,
    };
    Some((ConditionType::CertificateValid, holds, problem))
}

/// About what is to follow: behind `mtls.new`, or behind `mtls.active` where that was overwritten.
fn new_certificate_valid(observed: &Observed<'_>) -> Option<Judged> {
    let Observed { webhook, slots, keystores, tests, .. } = observed;
    if let Some(problem) = &keystores.new.problem {
        return Some((ConditionType::NewCertificateValid, false, problem.clone()));
    }
    let promotion = webhook.spec.mtls.as_ref()?.rotation.as_ref().map(|rotation| rotation.promotion);
    let problem = match (&slots.new, &slots.active) {
        (Some(new), _) => {
            let facts = new.facts();
            let passed = tests.new.as_ref().is_some_and(|test| test.succeeded);
            if passed && promotion == Some(Promotion::Manual) {
                let message = format!(
                    "{} has passed its test; it becomes Active with the annotation postrider.dev/promote={}",
                    one_line(facts),
                    facts.fingerprint_sha256
                );
                Problem::new(Reason::WaitsForPromotion, message)
            } else {
                let message =
                    format!("{} waits for its test: {}", one_line(facts), result(tests.new.as_ref()));
                Problem::new(Reason::WaitsForTest, message)
            }
        }
        (None, Some(active)) if is_found(&keystores.new.found, active.facts()) => {
            let message = format!("{} is Active; it can move to mtls.active", one_line(active.facts()));
            Problem::new(Reason::Promoted, message)
        }
        _ => return None,
    };
    Some((ConditionType::NewCertificateValid, true, problem))
}

fn result(test: Option<&TestStatus>) -> String {
    test.map_or_else(|| "not tested yet".to_owned(), |test| format!("{}: {}", test.reason, test.message))
}

/// The last test with the Active, or without a certificate where none is asked for.
fn connected(observed: &Observed<'_>) -> Option<Judged> {
    let test = observed.tests.active.as_ref()?;
    let problem = Problem { reason: test.reason.clone().into(), message: test.message.clone() };
    Some((ConditionType::Connected, test.succeeded, problem))
}

/// True is the warning: nothing is there that could follow.
fn expiring(observed: &Observed<'_>) -> Option<Judged> {
    let Observed { slots, now, .. } = observed;
    let active = slots.active.as_ref()?.facts();
    let soon = *now >= active.expires_soon_at();
    let (holds, problem) = if soon && slots.new.is_none() {
        let message =
            format!("{}, and nothing waits to replace it: name its successor in mtls.new", one_line(active));
        (true, Problem::new(Reason::NoReplacement, message))
    } else {
        (false, Problem::new(Reason::NotSoon, one_line(active)))
    };
    Some((ConditionType::CertificateExpiring, holds, problem))
}

fn is_found(found: &Found, facts: &Facts) -> bool {
    let Found::Usable(identity) = found else { return false };
    identity.facts().fingerprint_sha256 == facts.fingerprint_sha256
}

fn one_line(facts: &Facts) -> String {
    format!("{}, valid till {}", facts.identifier, facts.valid_till)
}
