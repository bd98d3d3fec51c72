//! Step four: the Secret that the dispatcher reads, and the ConfigMap that the receiver's people read.

use std::{collections::BTreeMap, fmt::Debug};

use k8s_openapi::{
    ByteString, NamespaceResourceScope,
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use rustls::pki_types::CertificateDer;
use serde::{Serialize, de::DeserializeOwned};

use super::{Context, Error, FIELD_MANAGER, Problem, fetch::Fetched};
use crate::{
    api::v1alpha1::{
        BUNDLE, CREDENTIALS_ANNOTATION, ENDPOINT_ANNOTATION, IDENTITIES, MANAGED_BY, OutboundWebhook,
        REMINDED_ANNOTATION, Reason, TRUST_ANNOTATION,
    },
    credentials::{CREDENTIALS, Credentials},
    identity::{Slot, Slots, TRUSTED, Trust, chain_to_pem},
    kubernetes::{is_controlled_by, made_for},
    rotation::reminders::Told,
};

/// The keys that the dispatcher reads.
fn own_keys() -> impl Iterator<Item = &'static str> {
    let of_slots = Slot::ALL.into_iter().flat_map(|slot| [slot.certificate_key(), slot.private_key_key()]);
    of_slots.chain([TRUSTED, CREDENTIALS])
}

/// Writes the Secret that the dispatcher reads, where it differs from what is there.
pub(super) async fn identities(
    context: &Context,
    webhook: &OutboundWebhook,
    slots: &Slots,
    reminded: Option<&Told>,
    fetched: &Fetched,
) -> Result<Result<(), Problem>, Error> {
    let (Ok(_), Ok(trust)) = (&fetched.url, &fetched.trust) else { return Ok(Ok(())) };
    let secrets: Api<Secret> =
        Api::namespaced(context.client.clone(), &webhook.namespace().unwrap_or_default());
    // Without all that is asked for there is nothing that may be sent.
    let credentials = fetched.credentials.as_ref().ok().filter(|_| webhook.spec.asks_for_credentials());
    let wanted = || identities_secret(webhook, slots, reminded, trust.as_ref(), credentials);
    let wanted = webhook.needs_identities().then(wanted).transpose()?;
    if let (Some(secret), Some(wanted)) = (&fetched.identities, &wanted) {
        remove_foreign_keys(&secrets, webhook, secret, wanted).await?;
    }
    ensure(&secrets, webhook, fetched.identities.clone(), wanted, same_secret).await
}

/// Writes the public certificates, where they differ from what is there.
pub(super) async fn certificates(
    context: &Context,
    webhook: &OutboundWebhook,
    slots: &Slots,
) -> Result<Result<(), Problem>, Error> {
    let config_maps: Api<ConfigMap> =
        Api::namespaced(context.client.clone(), &webhook.namespace().unwrap_or_default());
    let name = OutboundWebhook::client_certificate_name(&webhook.name_any());
    let existing = config_maps.get_opt(&name).await.map_err(Error::api::<ConfigMap>("read", &name))?;
    ensure(&config_maps, webhook, existing, offered(webhook, slots), same_config_map).await
}

fn identities_secret(
    webhook: &OutboundWebhook,
    slots: &Slots,
    reminded: Option<&Told>,
    trust: Option<&Trust>,
    credentials: Option<&Credentials>,
) -> Result<Secret, Error> {
    let mut metadata = metadata(webhook, OutboundWebhook::identities_name(&webhook.name_any()));
    let reminded = reminded.map(|told| (REMINDED_ANNOTATION, told.to_string()));
    let annotations = made_for(webhook).into_iter().flatten().chain(reminded);
    metadata.annotations = Some(annotations.map(|(name, value)| (name.to_owned(), value)).collect());
    metadata.labels.get_or_insert_default().insert(IDENTITIES.0.to_owned(), IDENTITIES.1.to_owned());
    let mut data: BTreeMap<String, ByteString> = slots
        .to_pem()?
        .into_iter()
        .map(|(key, value)| (key.to_owned(), ByteString(value.to_vec())))
        .collect();
    if let Some(trust) = trust.filter(|trust| !trust.certificates.is_empty()) {
        data.insert(TRUSTED.to_owned(), ByteString(trust.to_pem().into_bytes()));
    }
    if let Some(credentials) = credentials {
        data.insert(CREDENTIALS.to_owned(), ByteString(credentials.to_json()?.to_vec()));
    }
    Ok(Secret { metadata, data: Some(data), type_: Some("Opaque".to_owned()), ..Secret::default() })
}

/// `None` while there is no certificate to show.
fn offered(webhook: &OutboundWebhook, slots: &Slots) -> Option<ConfigMap> {
    if slots.is_empty() {
        return None;
    }
    // As they stand: a receiver installs those of Active and New before the change, and all from the bundle.
    let mut data: BTreeMap<String, String> = slots
        .iter()
        .map(|(slot, identity)| (slot.certificate_key().to_owned(), chain_to_pem(identity.chain())))
        .collect();
    data.insert(BUNDLE.to_owned(), bundle(slots));
    let metadata = metadata(webhook, OutboundWebhook::client_certificate_name(&webhook.name_any()));
    Some(ConfigMap { metadata, data: Some(data), ..ConfigMap::default() })
}

/// Every certificate once, the leaves first.
fn bundle(slots: &Slots) -> String {
    let leaves = slots.iter().filter_map(|(_, identity)| identity.chain().first());
    let issuers = slots.iter().flat_map(|(_, identity)| identity.chain().iter().skip(1));
    let mut all: Vec<CertificateDer<'static>> = Vec::new();
    for certificate in leaves.chain(issuers) {
        if !all.contains(certificate) {
            all.push(certificate.clone());
        }
    }
    chain_to_pem(&all)
}

fn metadata(webhook: &OutboundWebhook, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: webhook.namespace(),
        owner_references: webhook.controller_owner_ref(&()).map(|owner| vec![owner]),
        labels: Some([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())].into()),
        ..ObjectMeta::default()
    }
}

/// A key of ours that somebody else has added stays through a server-side apply: it is theirs.
async fn remove_foreign_keys(
    secrets: &Api<Secret>,
    webhook: &OutboundWebhook,
    secret: &Secret,
    wanted: &Secret,
) -> Result<(), Error> {
    let has = |secret: &Secret, key: &str| secret.data.as_ref().is_some_and(|data| data.contains_key(key));
    let foreign = own_keys().filter(|key| has(secret, key) && !has(wanted, key));
    let removed: serde_json::Map<_, _> =
        foreign.map(|key| (key.to_owned(), serde_json::Value::Null)).collect();
    if removed.is_empty() || !is_controlled_by(secret, webhook.metadata.uid.as_ref()) {
        return Ok(());
    }
    let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let patch = Patch::Merge(serde_json::json!({ "metadata": { "uid": secret.uid() }, "data": removed }));
    let name = secret.name_any();
    secrets.patch(&name, &parameters, &patch).await.map_err(Error::api::<Secret>("write", &name)).map(drop)
}

fn same_secret(is: &Secret, wanted: &Secret) -> bool {
    let data = |secret: &Secret| secret.data.clone().unwrap_or_default();
    let annotated = |name| is.annotations().get(name) == wanted.annotations().get(name);
    // Keys of others beside ours change nothing: they are not read.
    let there = data(is);
    data(wanted).iter().all(|(key, value)| there.get(key) == Some(value))
        && own_keys().all(|key| there.contains_key(key) == data(wanted).contains_key(key))
        && [ENDPOINT_ANNOTATION, TRUST_ANNOTATION, CREDENTIALS_ANNOTATION, REMINDED_ANNOTATION]
            .into_iter()
            .all(annotated)
        && has_labels(is, wanted)
}

fn same_config_map(is: &ConfigMap, wanted: &ConfigMap) -> bool {
    is.data == wanted.data && has_labels(is, wanted)
}

fn has_labels<K: Resource>(is: &K, wanted: &K) -> bool {
    wanted.labels().iter().all(|(name, value)| is.labels().get(name) == Some(value))
}

/// Makes what is there what is wanted. An object that is not this webhook's is left alone, and told.
async fn ensure<K>(
    api: &Api<K>,
    webhook: &OutboundWebhook,
    existing: Option<K>,
    wanted: Option<K>,
    same: fn(&K, &K) -> bool,
) -> Result<Result<(), Problem>, Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned,
{
    let ours = existing.as_ref().is_none_or(|object| is_controlled_by(object, webhook.metadata.uid.as_ref()));
    match (existing, wanted) {
        (Some(object), Some(_)) if !ours => {
            let (kind, name) = (K::kind(&()), object.name_any());
            return Ok(Err(Problem::new(
                Reason::NotOwned,
                format!(
                    "{kind} {name:?} belongs to somebody else: delete it, or name the webhook differently"
                ),
            )));
        }
        (Some(object), Some(wanted)) if same(&object, &wanted) => {}
        (_, Some(wanted)) => {
            let parameters = PatchParams::apply(FIELD_MANAGER).force();
            api.patch(&wanted.name_any(), &parameters, &Patch::Apply(&wanted))
                .await
                .map_err(Error::api::<K>("write", &wanted.name_any()))?;
        }
        (Some(object), None) if ours => {
            let preconditions = Preconditions { uid: object.uid(), resource_version: None };
            let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            match api.delete(&object.name_any(), &parameters).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(Error::api::<K>("delete", &object.name_any())(error)),
                Ok(_) => {}
            }
        }
        (_, None) => {}
    }
    Ok(Ok(()))
}
