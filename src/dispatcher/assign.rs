//! What a worker is to do, from a webhook and its Secret of identities. Pure: every way to fail holds.

use std::{collections::HashMap, num::NonZeroU32, sync::Arc};

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;

use crate::{
    api::v1alpha1::{Authorization, ConditionType, OutboundWebhook},
    credentials::{CREDENTIALS, Credentials, CredentialsError},
    deliver::{Assignment, Authorizer, Client, Clients, Hold, RetryPolicy, Target},
    egress::Egress,
    identity::{Identity, Slots, TRUSTED, TlsError, Trust, TrustError, parse_bundle},
    kubernetes::{is_controlled_by, made_for},
};

/// The clients with what they were made of, so that each is kept while that stays the same: its connections
/// and its TLS sessions belong to it.
#[derive(Clone, Debug)]
pub(super) struct Built {
    trust: Trust,
    authorizer: Arc<Authorizer>,
    clients: Arc<Clients>,
    /// By the fingerprint of its chain.
    by_fingerprint: HashMap<Option<String>, Arc<Client>>,
}

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("{TRUSTED} {0}")]
    Trust(#[from] TrustError),
    #[error("{CREDENTIALS} {0}")]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Client(#[from] TlsError),
    #[error("the endpoint is not a URL")]
    Url,
}

/// What to do for a webhook. `built` is the client of the last time, and becomes the one of this time.
pub(super) fn assign(
    webhook: &OutboundWebhook,
    secret: Option<&Secret>,
    egress: &Egress,
    built: &mut Option<Built>,
) -> Assignment {
    if let Some(hold) = standing_hold(webhook) {
        return Assignment::Hold(hold);
    }
    let secret = secret.filter(|secret| belongs(secret, webhook));
    if webhook.needs_identities() && secret.is_none() {
        return Assignment::Hold(Hold::NotThere);
    }
    match target(webhook, secret.filter(|_| webhook.needs_identities()), egress, built) {
        Ok(Ok(target)) => Assignment::Deliver(Arc::new(target)),
        Ok(Err(missing)) => Assignment::Hold(missing),
        Err(error) => {
            tracing::error!(webhook = %webhook.name_any(), namespace = ?webhook.namespace(), %error, "cannot deliver");
            Assignment::Hold(Hold::Unusable)
        }
    }
}

/// Why nothing may be sent, whatever the Secret holds: of that the controller tells, or somebody asked for it.
pub(super) fn standing_hold(webhook: &OutboundWebhook) -> Option<Hold> {
    if webhook.spec.suspend {
        Some(Hold::Suspended)
    } else if !is_ready(webhook) {
        Some(Hold::NotReady)
    } else {
        None
    }
}

pub(super) fn is_ready(webhook: &OutboundWebhook) -> bool {
    let conditions = webhook.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    conditions
        .iter()
        .any(|condition| condition.type_ == ConditionType::Ready.as_str() && condition.status == "True")
}

/// Written by the controller for this very webhook, and for the endpoint, the trust and the credentials that it
/// names now: what was accepted for another endpoint is not shown here, whoever is to say so may be away.
fn belongs(secret: &Secret, webhook: &OutboundWebhook) -> bool {
    let Some(made_for) = made_for(webhook) else { return false };
    is_controlled_by(secret, webhook.metadata.uid.as_ref())
        && made_for.iter().all(|(name, value)| secret.annotations().get(*name) == Some(value))
}

/// Where to send, and how; or what is missing of it.
fn target(
    webhook: &OutboundWebhook,
    secret: Option<&Secret>,
    egress: &Egress,
    built: &mut Option<Built>,
) -> Result<Result<Target, Hold>, Unusable> {
    let data = secret.and_then(|secret| secret.data.as_ref());
    let get = |key: &str| data.and_then(|data| data.get(key)).map(|value| value.0.as_slice());
    let slots = if webhook.spec.mtls.is_some() {
        let (slots, errors) = Slots::from_pem(get);
        for error in errors {
            tracing::warn!(webhook = %webhook.name_any(), %error, "an identity cannot be used");
        }
        // Nothing stands in for an Active that is not there.
        if slots.active.is_none() {
            *built = None;
            return Ok(Err(Hold::NoCertificate));
        }
        slots
    } else {
        Slots::default()
    };
    let Some(credentials) = credentials(webhook, get)? else {
        return Ok(Err(Hold::NoCredentials));
    };
    let trust = trust(webhook, get)?;
    let authorizer = authorizer(credentials, &trust, egress, built.as_ref())?;
    let clients = clients(&slots, trust, egress, &authorizer, built)?;
    let delivery = webhook.spec.delivery.clone().unwrap_or_default();
    Ok(Ok(Target {
        url: webhook.spec.endpoint.url.parse().map_err(|_| Unusable::Url)?,
        timeout: webhook.spec.endpoint.timeout(),
        max_in_flight: usize::try_from(delivery.max_in_flight).unwrap_or(1).max(1),
        rate: delivery.rate_limit_per_second.and_then(|rate| NonZeroU32::new(rate.try_into().ok()?)),
        retry: RetryPolicy {
            initial: delivery.retry.initial(),
            max: delivery.retry.max(),
            max_age: delivery.retry.max_age(),
        },
        authorizer,
        non_retryable: statuses(&delivery.retry.non_retryable_status_codes),
        generation: webhook.metadata.generation.unwrap_or_default(),
        clients,
    }))
}

/// `None` where the webhook asks for more than is there.
fn credentials<'a>(
    webhook: &OutboundWebhook,
    get: impl Fn(&str) -> Option<&'a [u8]>,
) -> Result<Option<Credentials>, Unusable> {
    let spec = &webhook.spec;
    if !spec.asks_for_credentials() {
        return Ok(Some(Credentials::default()));
    }
    let Some(json) = get(CREDENTIALS) else { return Ok(None) };
    let credentials = Credentials::from_json(json)?;
    let token = |authorization: &Authorization| authorization.oauth2_client_credentials.is_some();
    let asks_for_token = spec.authorization.as_ref().is_some_and(token);
    let authorization_headers = usize::from(spec.authorization.is_some() && !asks_for_token);
    let signing_secrets = spec.signature.as_ref().map_or(0, |signature| signature.secret_refs.len());
    let complete = credentials.headers.len() == spec.endpoint.headers.len() + authorization_headers
        && credentials.client_credentials.is_some() == asks_for_token
        && credentials.signing_secrets.len() == signing_secrets;
    Ok(complete.then_some(credentials))
}

/// The one of the last time where nothing has changed for it: its token is kept with it.
fn authorizer(
    credentials: Credentials,
    trust: &Trust,
    egress: &Egress,
    before: Option<&Built>,
) -> Result<Arc<Authorizer>, Unusable> {
    match before {
        Some(Built { authorizer, trust: same, .. })
            if authorizer.credentials() == &credentials && same == trust =>
        {
            Ok(Arc::clone(authorizer))
        }
        _ => Ok(Arc::new(Authorizer::new(credentials, trust, egress)?)),
    }
}

fn statuses(codes: &[i32]) -> Vec<u16> {
    codes.iter().filter_map(|code| u16::try_from(*code).ok()).collect()
}

fn trust<'a>(webhook: &OutboundWebhook, get: impl Fn(&str) -> Option<&'a [u8]>) -> Result<Trust, Unusable> {
    let Some(trust) = &webhook.spec.endpoint.trust else { return Ok(Trust::default()) };
    let asks = trust.ca_bundle_ref.is_some() || trust.trust_store_ref.is_some();
    let bundle = asks.then(|| get(TRUSTED)).flatten();
    let certificates = bundle.map(parse_bundle).transpose()?.unwrap_or_default();
    Ok(Trust { certificates, system_roots: trust.include_system_roots })
}

/// One client an identity; those of the last time where they can be kept.
fn clients(
    slots: &Slots,
    trust: Trust,
    egress: &Egress,
    authorizer: &Arc<Authorizer>,
    built: &mut Option<Built>,
) -> Result<Arc<Clients>, Unusable> {
    let before = built.take().filter(|before| before.trust == trust);
    let mut by_fingerprint = HashMap::new();
    let mut client = |identity: Option<&Arc<Identity>>| -> Result<Arc<Client>, Unusable> {
        let fingerprint = identity.map(|identity| identity.chain_fingerprint());
        let kept = before.as_ref().and_then(|before| before.by_fingerprint.get(&fingerprint)).map(Arc::clone);
        let client = match kept {
            Some(client) => client,
            None => Arc::new(Client::new(identity, &trust, egress)?),
        };
        by_fingerprint.insert(fingerprint, Arc::clone(&client));
        Ok(client)
    };
    let active = client(slots.active.as_ref())?;
    let mut other =
        |identity: &Option<Arc<Identity>>| identity.as_ref().map(|other| client(Some(other))).transpose();
    let clients = Clients::new(active, other(&slots.new)?, other(&slots.previous)?);
    let same = before.filter(|before| before.clients.are(&clients)).map(|before| before.clients);
    let clients = same.unwrap_or_else(|| Arc::new(clients));
    let authorizer = Arc::clone(authorizer);
    *built = Some(Built { trust, authorizer, clients: Arc::clone(&clients), by_fingerprint });
    Ok(clients)
}

#[cfg(test)]
mod tests;
