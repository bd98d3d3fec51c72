//! What controller and dispatcher share of Kubernetes.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, Client, Resource, core::NamespaceResourceScope, runtime::utils::Backoff};

use crate::{
    api::v1alpha1::{CREDENTIALS_ANNOTATION, ENDPOINT_ANNOTATION, OutboundWebhook, TRUST_ANNOTATION},
    backoff::backoff,
    event::WebhookKey,
    identity::fingerprint,
    limits,
    telemetry::metrics::ApiRequests,
};

/// Name of the Secret of the authority that signs serving certificates, and of the ConfigMap with its certificate.
pub(crate) const SERVING_AUTHORITY: &str = "postrider-ingest-ca";

/// The Secret with the serving certificate of the secure listener. The dispatcher serves it; the controller makes it,
/// where it is told to. The same for both.
#[derive(Args, Clone, Debug)]
#[group(id = "tls-secret")]
pub struct TlsSecret {
    /// Secret (kubernetes.io/tls) with the serving certificate, in the namespace of the Pod
    #[arg(
        long,
        env = "POSTRIDER_TLS_SECRET",
        default_value = "postrider-ingest-tls",
        value_name = "NAME",
        value_parser = of_leaf
    )]
    pub tls_secret: String,
    /// Namespace of the Pod
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME")]
    pub pod_namespace: Option<String>,
}

fn of_leaf(name: &str) -> Result<String, &'static str> {
    if name == SERVING_AUTHORITY { Err("that is the Secret of the authority") } else { Ok(name.to_owned()) }
}

/// The same client, and its requests are counted.
pub(crate) fn counted(client: Client, requests: &ApiRequests) -> Client {
    let (namespace, requests) = (client.default_namespace().to_owned(), requests.clone());
    let service = tower::service_fn(move |request| {
        let (client, requests) = (client.clone(), requests.clone());
        async move {
            let answer = client.send(request).await;
            requests.answered(answer.as_ref().ok().map(http::Response::status));
            answer
        }
    });
    Client::new(service, namespace)
}

/// An API for one namespace, or for all.
pub(crate) fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Namespace and name of an object.
pub(crate) fn key<K: Resource>(object: &K) -> Option<WebhookKey> {
    let metadata = object.meta();
    Some(WebhookKey { namespace: metadata.namespace.clone()?, name: metadata.name.clone()? })
}

/// Takes away who manages which of its fields: as much as the rest of the object, and nobody here reads it.
pub(crate) fn without_managers<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

/// Whether the object's controller is the owner with this UID.
pub(crate) fn is_controlled_by<K: Resource>(object: &K, uid: Option<&String>) -> bool {
    let owners = object.meta().owner_references.as_deref().unwrap_or_default();
    owners.iter().any(|owner| owner.controller == Some(true) && Some(&owner.uid) == uid)
}

/// A time as a status has it: whole seconds.
pub(crate) fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// The note of an Event, as much of it as the API takes.
pub(crate) fn note_of(text: &str) -> String {
    text[..text.floor_char_boundary(limits::EVENT_NOTE_BYTES.min(text.len()))].to_owned()
}

/// What a Secret of identities is made for, as annotations: the origin of the endpoint, whom to trust there, and
/// which credentials are asked for. Controller and dispatcher compare: who is moved to another endpoint shows
/// there what is accepted for it, or nothing.
pub(crate) fn made_for(webhook: &OutboundWebhook) -> Option<Vec<(&'static str, String)>> {
    let spec = &webhook.spec;
    let url: url::Url = spec.endpoint.url.parse().ok()?;
    let trust = serde_json::to_vec(&spec.endpoint.trust).ok()?;
    let mut made_for = vec![(ENDPOINT_ANNOTATION, origin(&url)), (TRUST_ANNOTATION, fingerprint(&trust))];
    if spec.asks_for_credentials() {
        let asked = (&spec.endpoint.headers, &spec.authorization, &spec.signature);
        made_for.push((CREDENTIALS_ANNOTATION, fingerprint(&serde_json::to_vec(&asked).ok()?)));
    }
    Some(made_for)
}

/// Scheme, host and port of an endpoint: the value of [`ENDPOINT_ANNOTATION`].
pub(crate) fn origin(url: &url::Url) -> String {
    url.origin().ascii_serialization()
}

/// How a watch that failed is taken up again: soon, for an API server that restarts is back within seconds.
#[derive(Debug, Default)]
pub(crate) struct WatchBackoff {
    failures: u32,
}

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        let (first, longest) = limits::WATCH_RETRY;
        // With jitter: what was cut off together does not come back together.
        Some(backoff(first, longest, self.failures).mul_f64(0.5 + rand::random::<f64>() / 2.0))
    }
}

impl Backoff for WatchBackoff {
    fn reset(&mut self) {
        self.failures = 0;
    }
}
