//! What a worker is to do, from a webhook and its Secret of identities. Pure: every way to fail holds.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;

use crate::{
    api::v1alpha1::{ConditionType, GENERATION_ANNOTATION, OutboundWebhook},
    deliver::{Assignment, Client, ClientError, RetryPolicy, Target},
    identity::{ACTIVE_CERTIFICATE, ACTIVE_KEY, PemError, Slots, TRUSTED, Trust, TrustError, parse_bundle},
    kubernetes::is_controlled_by,
};

/// A client with what it was made of, so that it is kept while that stays the same: its connections and
/// its TLS sessions belong to it.
#[derive(Clone, Debug)]
pub(super) struct Built {
    material: Material,
    client: Arc<Client>,
}

/// Public parts only: a key changes with its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Material {
    certificate: Option<Vec<u8>>,
    trusted: Option<Vec<u8>>,
    system_roots: bool,
}

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Pem(#[from] PemError),
    #[error("{TRUSTED} {0}")]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the endpoint is not a URL")]
    Url,
}

/// What to do for a webhook. `built` is the client of the last time, and becomes the one of this time.
pub(super) fn assign(
    webhook: &OutboundWebhook,
    secret: Option<&Secret>,
    built: &mut Option<Built>,
) -> Assignment {
    let hold = |reason| Assignment::Hold(reason);
    if !is_ready(webhook) {
        return hold("not ready");
    }
    let secret = secret.filter(|secret| belongs(secret, webhook));
    if webhook.needs_identities() && secret.is_none() {
        return hold("the identities for this generation are not there yet");
    }
    match target(webhook, secret.filter(|_| webhook.needs_identities()), built) {
        Ok(Some(target)) => Assignment::Deliver(Arc::new(target)),
        Ok(None) => hold("no certificate has been accepted"),
        Err(error) => {
            tracing::error!(webhook = %webhook.name_any(), namespace = ?webhook.namespace(), %error, "cannot deliver");
            hold("the TLS configuration cannot be made")
        }
    }
}

/// Ready, and about what the webhook says now: a status that speaks of an earlier generation does not know
/// which certificate is asked for.
fn is_ready(webhook: &OutboundWebhook) -> bool {
    let conditions = webhook.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    conditions.iter().any(|condition| {
        condition.type_ == ConditionType::Ready.as_str()
            && condition.status == "True"
            && condition.observed_generation == webhook.metadata.generation
    })
}

/// Written by the controller for this very webhook, and for what it says now.
fn belongs(secret: &Secret, webhook: &OutboundWebhook) -> bool {
    let owned = is_controlled_by(secret, webhook.metadata.uid.as_ref());
    let generation = secret.annotations().get(GENERATION_ANNOTATION).and_then(|value| value.parse().ok());
    owned && generation.is_some() && generation == webhook.metadata.generation
}

fn target(
    webhook: &OutboundWebhook,
    secret: Option<&Secret>,
    built: &mut Option<Built>,
) -> Result<Option<Target>, Unusable> {
    let data = secret.and_then(|secret| secret.data.as_ref());
    let get = |key: &str| data.and_then(|data| data.get(key)).map(|value| value.0.as_slice());
    let asks_for_mtls = webhook.spec.mtls.is_some();
    let trust = webhook.spec.endpoint.trust.as_ref();
    let asks_for_bundle = trust.is_some_and(|trust| trust.ca_bundle_ref.is_some());
    let material = Material {
        certificate: get(ACTIVE_CERTIFICATE).filter(|_| asks_for_mtls).map(<[u8]>::to_vec),
        trusted: asks_for_bundle.then(|| get(TRUSTED)).flatten().map(<[u8]>::to_vec),
        system_roots: trust.is_none_or(|trust| trust.include_system_roots),
    };
    if asks_for_mtls && (material.certificate.is_none() || get(ACTIVE_KEY).is_none()) {
        *built = None;
        return Ok(None);
    }
    let client = match built {
        Some(built) if built.material == material => Arc::clone(&built.client),
        _ => {
            let identity = if asks_for_mtls { Slots::from_pem(get)?.active } else { None };
            let trust = Trust {
                certificates: material.trusted.as_deref().map(parse_bundle).transpose()?.unwrap_or_default(),
                system_roots: material.system_roots,
            };
            let client = Arc::new(Client::new(identity.as_ref(), &trust)?);
            *built = Some(Built { material, client: Arc::clone(&client) });
            client
        }
    };
    let delivery = webhook.spec.delivery.clone().unwrap_or_default();
    Ok(Some(Target {
        url: webhook.spec.endpoint.url.parse().map_err(|_| Unusable::Url)?,
        timeout: webhook.spec.endpoint.timeout(),
        max_in_flight: usize::try_from(delivery.max_in_flight).unwrap_or(1).max(1),
        retry: RetryPolicy {
            initial: delivery.retry.initial(),
            max: delivery.retry.max(),
            max_age: delivery.retry.max_age(),
        },
        client,
    }))
}

#[cfg(test)]
mod tests;
