//! The same for a machine: what the metrics tell of a webhook.

use super::Observed;
use crate::{
    api::v1alpha1::{ConditionType, OutboundWebhookStatus, TestStatus},
    identity::{Facts, Slot},
    rotation::Found,
    telemetry::metrics::{self, Certificate, Keystore, Tested},
};

pub(super) fn of(observed: &Observed<'_>, status: &OutboundWebhookStatus) -> metrics::Observed {
    let ready = |type_: &str| type_ == ConditionType::Ready.as_str();
    let ready =
        status.conditions.iter().any(|condition| ready(&condition.type_) && condition.status == "True");
    let mut certificates: Vec<_> =
        observed.slots.iter().map(|(slot, identity)| certificate(slot, identity.facts())).collect();
    // An expired certificate leaves its slot; that it has expired is to be seen all the same.
    if let (None, Found::Unusable(Some(facts))) = (&observed.slots.active, &observed.keystores.active.found) {
        certificates.push(certificate(Slot::Active, facts));
    }
    let keystores = [(Slot::Active, &observed.keystores.active), (Slot::New, &observed.keystores.new)];
    let keystores = keystores.into_iter().filter_map(|(slot, keystore)| match keystore.found {
        Found::NotAsked => None,
        Found::Usable(_) => Some(Keystore { slot: slot.as_str(), usable: true }),
        Found::Unusable(_) => Some(Keystore { slot: slot.as_str(), usable: false }),
    });
    let tests = status.test.iter().flat_map(|tests| [(Slot::Active, &tests.active), (Slot::New, &tests.new)]);
    let tested = |(slot, test): (Slot, &Option<TestStatus>)| {
        test.as_ref().map(|test| Tested { slot: slot.as_str(), succeeded: test.succeeded })
    };
    metrics::Observed {
        ready,
        certificates,
        keystores: keystores.collect(),
        tests: tests.filter_map(tested).collect(),
    }
}

fn certificate(slot: Slot, facts: &Facts) -> Certificate {
    let (not_before, not_after) = (facts.valid_from.as_second(), facts.valid_till.as_second());
    Certificate { slot: slot.as_str(), not_before, not_after }
}
