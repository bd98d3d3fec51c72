//! Step one: what the webhook names, and what the controller itself has kept.

use std::{collections::BTreeMap, fmt::Debug};

use k8s_openapi::{
    ByteString, NamespaceResourceScope,
    api::core::v1::{ConfigMap, Namespace, Secret},
};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use url::Url;
use zeroize::Zeroizing;

use super::{Availability, Context, Error, Problem, credentials::credentials};
use crate::{
    api::v1alpha1::{
        BundleKind, BundleRef, Certificate, ENABLED, ENDPOINT_ANNOTATION, KeystoreFormat, MTLS_LABEL,
        OutboundWebhook, REMINDED_ANNOTATION, Reason, SecretKeyRef, Source, TrustStoreRef,
    },
    credentials::Credentials,
    identity::{Slots, Trust, parse_bundle},
    keystore::Format,
    kubernetes::{is_controlled_by, origin},
    rotation::reminders::Told,
};

/// Keys that are looked for where the webhook names none: what cert-manager and Strimzi write.
const KEYSTORE_KEYS: [&str; 3] = ["keystore.p12", "keystore.jks", "user.p12"];

/// Likewise for a trust store.
const TRUST_STORE_KEYS: [&str; 2] = ["truststore.p12", "truststore.jks"];

/// What one reconcile works with.
pub(super) struct Fetched {
    /// The endpoint.
    pub(super) url: Result<Url, Problem>,
    /// Whether the namespace may have what the webhook asks for.
    pub(super) gate: Result<(), Problem>,
    /// Behind `mtls.active`; `None` where the webhook asks for no client certificate.
    pub(super) active: Option<Result<Keystore, Problem>>,
    /// Behind `mtls.new`; `None` where the webhook names none.
    pub(super) new: Option<Result<Keystore, Problem>>,
    /// Whom to trust; `Ok(None)` where the webhook does not say. What is in the trust store comes in
    /// [`super::load`].
    pub(super) trust: Result<Option<Trust>, Problem>,
    /// The trust store, where the webhook names one.
    pub(super) trust_store: Option<Result<TrustStore, Problem>>,
    /// What a request carries beside the client certificate.
    pub(super) credentials: Result<Credentials, Problem>,
    /// What was accepted before.
    pub(super) slots: Slots,
    /// The reminder that was told last.
    pub(super) reminded: Option<Told>,
    /// The Secret that the slots came from, or whoever has its name.
    pub(super) identities: Option<Secret>,
}

/// A keystore with its passwords.
pub(super) struct Keystore {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    pub(super) password: Zeroizing<Vec<u8>>,
    pub(super) key_password: Option<Zeroizing<Vec<u8>>>,
    pub(super) alias: Option<String>,
    pub(super) declared: Format,
    pub(super) source: Source,
}

/// A trust store with its password.
pub(super) struct TrustStore {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    pub(super) password: Zeroizing<Vec<u8>>,
    /// Name and key of the object that holds it.
    pub(super) source: (String, String),
}

/// Fetches it all.
pub(super) async fn fetch(context: &Context, webhook: &OutboundWebhook) -> Result<Fetched, Error> {
    let namespace = webhook.namespace().unwrap_or_default();
    let objects = Objects { context, namespace: &namespace };
    let identities: Option<Secret> =
        objects.get(&OutboundWebhook::identities_name(&webhook.name_any())).await?;
    let url = url(webhook);
    let gate = if webhook.spec.mtls.is_some() { objects.gate().await? } else { Ok(()) };
    let (active, new) = match (&webhook.spec.mtls, &gate) {
        (None, _) => (None, None),
        // A tenant's keystores are not even opened before.
        (Some(mtls), Err(problem)) => {
            (Some(Err(problem.clone())), mtls.new.is_some().then(|| Err(problem.clone())))
        }
        (Some(mtls), Ok(())) => {
            let new = match &mtls.new {
                Some(new) => Some(objects.keystore("mtls.new", new).await?),
                None => None,
            };
            (Some(objects.keystore("mtls.active", &mtls.active).await?), new)
        }
    };
    let (mut trust, mut trust_store) = (Ok(None), None);
    if let Some(spec) = &webhook.spec.endpoint.trust {
        let certificates = match &spec.ca_bundle_ref {
            Some(bundle) => objects.bundle(bundle).await?,
            None => Ok(Vec::new()),
        };
        let system_roots = spec.include_system_roots;
        trust = certificates.map(|certificates| Some(Trust { certificates, system_roots }));
        if let Some(reference) = &spec.trust_store_ref {
            trust_store = Some(objects.trust_store(reference).await?);
        }
    }
    let credentials = credentials(&objects, webhook).await?;
    let slots =
        url.as_ref().map_or_else(|_| Slots::default(), |url| slots(webhook, url, identities.as_ref()));
    let reminded = reminded(webhook, identities.as_ref());
    Ok(Fetched { url, gate, active, new, trust, trust_store, credentials, slots, reminded, identities })
}

/// The API server and the client do not agree on every URL.
fn url(webhook: &OutboundWebhook) -> Result<Url, Problem> {
    webhook.spec.endpoint.url.parse().map_err(|error: <Url as std::str::FromStr>::Err| {
        Problem::new(Reason::InvalidUrl, format!("endpoint.url cannot be dialled: {error}"))
    })
}

/// What was accepted before, from our own Secret only, and for this endpoint only: who is moved to another
/// one shows there what is named now, or nothing.
fn slots(webhook: &OutboundWebhook, url: &Url, identities: Option<&Secret>) -> Slots {
    let origin = origin(url);
    let ours = identities
        .filter(|secret| is_controlled_by(*secret, webhook.metadata.uid.as_ref()))
        .filter(|secret| secret.annotations().get(ENDPOINT_ANNOTATION) == Some(&origin));
    let data = ours.and_then(|secret| secret.data.as_ref());
    let (slots, errors) = Slots::from_pem(|key| data?.get(key).map(|value| value.0.as_slice()));
    for error in errors {
        tracing::warn!(webhook = %webhook.name_any(), %error, "an identity was changed by somebody else; its slot is empty");
    }
    slots
}

/// It is about a certificate, whichever endpoint that is accepted for.
fn reminded(webhook: &OutboundWebhook, identities: Option<&Secret>) -> Option<Told> {
    let ours = identities.filter(|secret| is_controlled_by(*secret, webhook.metadata.uid.as_ref()))?;
    ours.annotations().get(REMINDED_ANNOTATION)?.parse().ok()
}

/// Reads objects of the webhook's namespace.
pub(super) struct Objects<'a> {
    context: &'a Context,
    namespace: &'a str,
}

impl Objects<'_> {
    pub(super) async fn get<K>(&self, name: &str) -> Result<Option<K>, Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.context.client.clone(), self.namespace);
        api.get_opt(name).await.map_err(Error::api::<K>("read", name))
    }

    /// mTLS is off for a namespace until an administrator enables it.
    async fn gate(&self) -> Result<Result<(), Problem>, Error> {
        if self.context.availability == Availability::Always {
            return Ok(Ok(()));
        }
        let namespaces: Api<Namespace> = Api::all(self.context.client.clone());
        let namespace = namespaces
            .get_metadata(self.namespace)
            .await
            .map_err(Error::api::<Namespace>("read", self.namespace))?;
        if namespace.labels().get(MTLS_LABEL).is_some_and(|value| value == ENABLED) {
            return Ok(Ok(()));
        }
        let name = self.namespace;
        Ok(Err(Problem::new(
            Reason::MtlsNotEnabled,
            format!(
                "mTLS is off for namespace {name}: an administrator enables it with \
                 kubectl label namespace {name} {MTLS_LABEL}={ENABLED}"
            ),
        )))
    }

    /// `field` is where the webhook names it.
    async fn keystore(
        &self,
        field: &str,
        certificate: &Certificate,
    ) -> Result<Result<Keystore, Problem>, Error> {
        let (name, secret_ref) = (&certificate.secret_ref.name, format!("{field}.secretRef"));
        let Some(secret) = self.get::<Secret>(name).await? else {
            return Ok(Err(secret_not_found(&secret_ref, name)));
        };
        let key = certificate.secret_ref.key.as_deref();
        let key = key.or_else(|| KEYSTORE_KEYS.into_iter().find(|key| has(secret.data.as_ref(), key)));
        let Some((key, bytes)) = key.and_then(|key| Some((key, value(secret.data.as_ref(), key)?))) else {
            let wanted = key.map_or_else(|| KEYSTORE_KEYS.join(", "), str::to_owned);
            return Ok(Err(key_not_found(&secret_ref, "Secret", name, &wanted, secret.data.as_ref())));
        };
        let password = match self
            .password(&format!("{field}.passwordSecretRef"), &certificate.password_secret_ref)
            .await?
        {
            Ok(password) => password,
            Err(problem) => return Ok(Err(problem)),
        };
        let key_password = match &certificate.key_password_secret_ref {
            None => None,
            Some(reference) => {
                match self.password(&format!("{field}.keyPasswordSecretRef"), reference).await? {
                    Ok(password) => Some(password),
                    Err(problem) => return Ok(Err(problem)),
                }
            }
        };
        Ok(Ok(Keystore {
            bytes,
            password,
            key_password,
            alias: certificate.alias.clone(),
            declared: match certificate.format {
                KeystoreFormat::Pkcs12 => Format::Pkcs12,
                KeystoreFormat::Jks => Format::Jks,
            },
            source: Source {
                secret: name.clone(),
                key: key.to_owned(),
                resource_version: secret.resource_version().unwrap_or_default(),
            },
        }))
    }

    async fn password(
        &self,
        field: &str,
        reference: &SecretKeyRef,
    ) -> Result<Result<Zeroizing<Vec<u8>>, Problem>, Error> {
        let SecretKeyRef { name, key } = reference;
        let Some(secret) = self.get::<Secret>(name).await? else {
            return Ok(Err(secret_not_found(field, name)));
        };
        Ok(value(secret.data.as_ref(), key)
            .ok_or_else(|| key_not_found(field, "Secret", name, key, secret.data.as_ref())))
    }

    async fn bundle(
        &self,
        reference: &BundleRef,
    ) -> Result<Result<Vec<rustls::pki_types::CertificateDer<'static>>, Problem>, Error> {
        const FIELD: &str = "endpoint.trust.caBundleRef";
        let BundleRef { kind, name, key } = reference;
        let bytes = self.data(FIELD, *kind, name).await?.and_then(|data| {
            value(Some(&data), key).ok_or_else(|| key_not_found(FIELD, kind.as_str(), name, key, Some(&data)))
        });
        Ok(bytes.and_then(|bytes| {
            parse_bundle(&bytes).map_err(|error| {
                Problem::new(Reason::InvalidCaBundle, format!("{FIELD}: {name}/{key} {error}"))
            })
        }))
    }

    async fn trust_store(&self, reference: &TrustStoreRef) -> Result<Result<TrustStore, Problem>, Error> {
        const FIELD: &str = "endpoint.trust.trustStoreRef";
        let TrustStoreRef { kind, name, key, password_secret_ref } = reference;
        let data = match self.data(FIELD, *kind, name).await? {
            Ok(data) => data,
            Err(problem) => return Ok(Err(problem)),
        };
        let found = key.as_deref().or_else(|| TRUST_STORE_KEYS.into_iter().find(|key| has(Some(&data), key)));
        let Some((key, bytes)) = found.and_then(|key| Some((key, value(Some(&data), key)?))) else {
            let wanted = key.clone().unwrap_or_else(|| TRUST_STORE_KEYS.join(", "));
            return Ok(Err(key_not_found(FIELD, kind.as_str(), name, &wanted, Some(&data))));
        };
        let source = (name.clone(), key.to_owned());
        let password = self.password(&format!("{FIELD}.passwordSecretRef"), password_secret_ref).await?;
        Ok(password.map(|password| TrustStore { bytes, password, source }))
    }

    /// What a Secret or a ConfigMap holds, as bytes.
    async fn data(
        &self,
        field: &str,
        kind: BundleKind,
        name: &str,
    ) -> Result<Result<BTreeMap<String, ByteString>, Problem>, Error> {
        if kind == BundleKind::Secret {
            let secret = self.get::<Secret>(name).await?;
            return Ok(secret
                .map(|secret| secret.data.unwrap_or_default())
                .ok_or_else(|| secret_not_found(field, name)));
        }
        let Some(map) = self.get::<ConfigMap>(name).await? else {
            let message = format!("{field}: there is no ConfigMap {name:?} in this namespace");
            return Ok(Err(Problem::new(Reason::ConfigMapNotFound, message)));
        };
        let text = map.data.unwrap_or_default().into_iter();
        let mut data = map.binary_data.unwrap_or_default();
        data.extend(text.map(|(key, text)| (key, ByteString(text.into_bytes()))));
        Ok(Ok(data))
    }
}

fn has(data: Option<&BTreeMap<String, ByteString>>, key: &str) -> bool {
    data.is_some_and(|data| data.contains_key(key))
}

pub(super) fn value(data: Option<&BTreeMap<String, ByteString>>, key: &str) -> Option<Zeroizing<Vec<u8>>> {
    data?.get(key).map(|value| Zeroizing::new(value.0.clone()))
}

pub(super) fn secret_not_found(field: &str, name: &str) -> Problem {
    Problem::new(Reason::SecretNotFound, format!("{field}: there is no Secret {name:?} in this namespace"))
}

/// Names of keys are no secrets, and one of them is usually the one that was meant.
pub(super) fn key_not_found<V>(
    field: &str,
    kind: &str,
    name: &str,
    key: &str,
    data: Option<&BTreeMap<String, V>>,
) -> Problem {
    let there: Vec<&str> = data.into_iter().flat_map(BTreeMap::keys).map(String::as_str).collect();
    let there =
        if there.is_empty() { "it is empty".to_owned() } else { format!("it has {}", there.join(", ")) };
    Problem::new(Reason::KeyNotFound, format!("{field}: {kind} {name:?} has no key {key}; {there}"))
}
