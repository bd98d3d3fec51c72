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
use serde::{Serialize, de::DeserializeOwned};

use super::{Context, Error, FIELD_MANAGER, Problem};
use crate::{
    api::v1alpha1::{GENERATION_ANNOTATION, IDENTITIES, MANAGED_BY, OutboundWebhook, Reason},
    identity::{ACTIVE_CERTIFICATE, Slots, TRUSTED, Trust, chain_to_pem},
    kubernetes::is_controlled_by,
};

/// All certificates in one file: what a receiver trusts that takes a single one.
const BUNDLE: &str = "bundle.crt";

/// Writes both objects, where they differ from what is there.
pub(super) async fn publish(
    context: &Context,
    webhook: &OutboundWebhook,
    slots: &Slots,
    trust: Result<&Option<Trust>, &Problem>,
    identities: Option<Secret>,
) -> Result<Result<(), Problem>, Error> {
    let namespace = webhook.namespace().unwrap_or_default();
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &namespace);
    // A bundle that cannot be read leaves the one that is published: nothing is sent meanwhile.
    if let Ok(trust) = trust {
        let wanted = webhook
            .needs_identities()
            .then(|| identities_secret(webhook, slots, trust.as_ref()))
            .transpose()?;
        if let Err(problem) = ensure(&secrets, webhook, identities, wanted, same_secret).await? {
            return Ok(Err(problem));
        }
    }
    let config_maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), &namespace);
    let name = OutboundWebhook::client_certificate_name(&webhook.name_any());
    let existing = config_maps
        .get_opt(&name)
        .await
        .map_err(|source| Error::Api { action: "read the client certificate's ConfigMap", source })?;
    ensure(&config_maps, webhook, existing, certificates(webhook, slots), same_config_map).await
}

fn identities_secret(
    webhook: &OutboundWebhook,
    slots: &Slots,
    trust: Option<&Trust>,
) -> Result<Secret, Error> {
    let mut metadata = metadata(webhook, OutboundWebhook::identities_name(&webhook.name_any()));
    let generation = webhook.metadata.generation.unwrap_or_default().to_string();
    metadata.annotations = Some([(GENERATION_ANNOTATION.to_owned(), generation)].into());
    metadata.labels.get_or_insert_default().insert(IDENTITIES.0.to_owned(), IDENTITIES.1.to_owned());
    let mut data: BTreeMap<String, ByteString> = slots
        .to_pem()?
        .into_iter()
        .map(|(key, value)| (key.to_owned(), ByteString(value.to_vec())))
        .collect();
    if let Some(trust) = trust.filter(|trust| !trust.certificates.is_empty()) {
        data.insert(TRUSTED.to_owned(), ByteString(trust.to_pem().into_bytes()));
    }
    Ok(Secret { metadata, data: Some(data), type_: Some("Opaque".to_owned()), ..Secret::default() })
}

/// `None` while there is no certificate to show.
fn certificates(webhook: &OutboundWebhook, slots: &Slots) -> Option<ConfigMap> {
    let active = chain_to_pem(slots.active.as_ref()?.chain());
    let metadata = metadata(webhook, OutboundWebhook::client_certificate_name(&webhook.name_any()));
    let data = [(ACTIVE_CERTIFICATE, active.clone()), (BUNDLE, active)];
    let data = data.map(|(key, value)| (key.to_owned(), value)).into();
    Some(ConfigMap { metadata, data: Some(data), ..ConfigMap::default() })
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

fn same_secret(is: &Secret, wanted: &Secret) -> bool {
    let data = |secret: &Secret| secret.data.clone().unwrap_or_default();
    let generation = |secret: &Secret| secret.annotations().get(GENERATION_ANNOTATION).cloned();
    data(is) == data(wanted) && generation(is) == generation(wanted) && has_labels(is, wanted)
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
                .map_err(|source| Error::Api { action: "write an object of the webhook", source })?;
        }
        (Some(object), None) if ours => {
            let preconditions = Preconditions { uid: object.uid(), resource_version: None };
            let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            match api.delete(&object.name_any(), &parameters).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(source) => return Err(Error::Api { action: "delete an object of the webhook", source }),
                Ok(_) => {}
            }
        }
        (_, None) => {}
    }
    Ok(Ok(()))
}
