//! `status.mtls`: what is in the slots, or what is known of the certificate that was refused.

use kube::ResourceExt as _;

use super::Observed;
use crate::{
    api::v1alpha1::{
        CertificateStatus, CertificateWarning, LocalRef, MutualTlsStatus, OutboundWebhook,
        OutboundWebhookStatus,
    },
    controller::load::Loaded,
    identity::{Facts, Slot},
    kubernetes::time,
    rotation::Found,
};

pub(super) fn of(before: &OutboundWebhookStatus, observed: &Observed<'_>) -> Option<MutualTlsStatus> {
    let Observed { slots, keystores, .. } = observed;
    let entry = |slot, refused: Option<&Loaded>| {
        let kept = slots.get(slot).map(|identity| identity.facts());
        // Only where nothing is in the slot: Valid Till of an expired certificate is worth knowing.
        let facts = kept.or_else(|| refused.and_then(|loaded| unusable(loaded)))?;
        Some(describe(facts, before, observed))
    };
    let status = MutualTlsStatus {
        active: entry(Slot::Active, Some(&keystores.active)),
        new: entry(Slot::New, Some(&keystores.new)),
        previous: entry(Slot::Previous, None),
        client_certificate_ref: (!slots.is_empty()).then(|| LocalRef {
            name: OutboundWebhook::client_certificate_name(&observed.webhook.name_any()),
        }),
    };
    (status != MutualTlsStatus::default()).then_some(status)
}

fn unusable(loaded: &Loaded) -> Option<&Facts> {
    if let Found::Unusable(facts) = &loaded.found { facts.as_deref() } else { None }
}

/// A certificate with where it came from: its keystore as it is now, or what was said when it was accepted.
fn describe(facts: &Facts, before: &OutboundWebhookStatus, observed: &Observed<'_>) -> CertificateStatus {
    let same = |other: &Facts| other.fingerprint_sha256 == facts.fingerprint_sha256;
    let now = [&observed.keystores.active, &observed.keystores.new].into_iter().find_map(|loaded| {
        let found = match &loaded.found {
            Found::Usable(identity) => Some(identity.facts()),
            Found::Unusable(_) | Found::NotAsked => unusable(loaded),
        };
        found.filter(|found| same(found)).map(|found| (found, loaded))
    });
    if let Some((found, loaded)) = now {
        return CertificateStatus {
            source: loaded.source.clone(),
            warnings: warnings(loaded),
            ..entry(found)
        };
    }
    let said = before.mtls.iter().flat_map(|mtls| mtls.active.iter().chain(&mtls.new).chain(&mtls.previous));
    let said = said.into_iter().find(|said| said.fingerprint_sha256 == facts.fingerprint_sha256);
    said.cloned().unwrap_or_else(|| entry(facts))
}

fn warnings(loaded: &Loaded) -> Vec<CertificateWarning> {
    let warning = |warning: &crate::keystore::Warning| CertificateWarning {
        reason: warning.reason.as_str().to_owned(),
        message: warning.message.clone(),
    };
    loaded.warnings.iter().map(warning).collect()
}

fn entry(facts: &Facts) -> CertificateStatus {
    CertificateStatus {
        identifier: facts.identifier.clone(),
        valid_till: time(facts.valid_till),
        valid_from: time(facts.valid_from),
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
