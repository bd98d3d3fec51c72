//! What makes a webhook be reconciled: itself, the Secrets and ConfigMaps that it names or owns, and the label
//! of its namespace. Of all these only metadata is watched.
//!
//! Nothing is looked at again for safety's sake: a thousand webhooks would be thousands of requests an hour. A watch
//! that is taken up where it ended misses nothing. One that cannot be begins anew with what there is, and what went in
//! between it does not tell: then every webhook is reconciled.

use std::fmt::Debug;

use futures::{Stream, StreamExt as _, channel::mpsc, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    core::PartialObjectMeta,
    runtime::{
        Controller, Predicate as _, PredicateConfig, WatchStreamExt as _,
        controller::Config,
        predicates,
        reflector::{self, ObjectRef, Store},
        watcher::{self, watcher},
    },
};

use super::Availability;
use crate::{
    api::v1alpha1::{BundleKind, OutboundWebhook},
    event::WebhookKey,
    kubernetes, limits,
    telemetry::{
        health::{Finding, Once},
        metrics::ControllerMetrics,
    },
};

/// What has been read from the API server.
#[derive(Clone, Default)]
pub(super) struct Read {
    /// It leads, or has no need to.
    pub(super) begun: Once,
    webhooks: Once,
    secrets: Once,
    config_maps: Once,
    namespaces: Once,
}

impl Read {
    /// Once is enough: the dispatcher beside it goes on without the API server, and is reached only while both are
    /// ready.
    pub(super) fn finding(&self) -> Finding {
        if !self.begun.is_set() {
            return Finding::OkBut("waits for the Lease".to_owned());
        }
        let all = [
            (&self.webhooks, "webhooks"),
            (&self.secrets, "secrets"),
            (&self.config_maps, "configmaps"),
            (&self.namespaces, "namespaces"),
        ];
        let missing: Vec<_> = all.iter().filter(|(read, _)| !read.is_set()).map(|(_, what)| *what).collect();
        match missing.as_slice() {
            [] => Finding::Ok,
            missing => Finding::Failed(format!("not read from the API server yet: {}", missing.join(", "))),
        }
    }
}

/// A controller of webhooks, of one namespace or of all. Where mTLS may be asked for in all of them, there is no label
/// to be watched, and no right to Namespaces is needed.
///
/// `tested` names those whose connection test has ended.
pub(super) fn controller(
    client: &Client,
    namespace: Option<&str>,
    availability: Availability,
    read: &Read,
    metrics: &ControllerMetrics,
    tested: impl Stream<Item = ObjectRef<OutboundWebhook>> + Send + 'static,
) -> Controller<OutboundWebhook> {
    // In one page: between two, webhooks would be reconciled that the store does not hold yet.
    let any = || watcher::Config { page_size: None, ..watcher::Config::default() };
    let (reader, writer) = reflector::store();
    let (deleted, gone) = mpsc::unbounded();
    let webhooks = told(
        noted(watcher(kubernetes::scoped(client, namespace), any()), &read.webhooks)
            .backoff(kubernetes::WatchBackoff::default())
            .modify(kubernetes::without_managers)
            .reflect(writer)
            .inspect(move |event| {
                if let Ok(watcher::Event::Delete(webhook)) = event {
                    let _ = deleted.unbounded_send(ObjectRef::from_obj(webhook));
                }
            })
            .applied_objects()
            // Not for a status: that is what a reconcile writes.
            .predicate_filter(
                predicates::generation.combine(predicates::annotations),
                PredicateConfig::default(),
            ),
    );
    let there = reader.clone();
    metrics.present_by(move |WebhookKey { namespace, name }| {
        there.get(&ObjectRef::new(name).within(namespace)).is_some()
    });
    let namespaces = namespace.map_or_else(any, |name| any().fields(&format!("metadata.name={name}")));
    let [secrets, config_maps, enabled] = [(); 3].map(|()| reader.clone());
    let (anew, begun_anew) = mpsc::unbounded();
    let controller = Controller::for_stream(webhooks, reader)
        // Of one that is gone nothing is to be kept.
        .reconcile_on(stream::select(tested, gone))
        .reconcile_all_on(begun_anew)
        .with_config(Config::default().concurrency(limits::RECONCILES_AT_ONCE))
        .watches_stream(
            metadata(
                kubernetes::scoped::<PartialObjectMeta<Secret>>(client, namespace),
                any(),
                &read.secrets,
                anew.clone(),
            ),
            move |secret| concerned(&secrets, &secret, names_secret),
        )
        .watches_stream(
            metadata(
                kubernetes::scoped::<PartialObjectMeta<ConfigMap>>(client, namespace),
                any(),
                &read.config_maps,
                anew.clone(),
            ),
            move |config_map| concerned(&config_maps, &config_map, names_config_map),
        );
    if availability == Availability::Always {
        read.namespaces.set();
        return controller;
    }
    controller.watches_stream(
        metadata(
            Api::<PartialObjectMeta<Namespace>>::all(client.clone()),
            namespaces,
            &read.namespaces,
            anew,
        ),
        move |namespace| within(&enabled, &namespace.name_any(), |webhook| webhook.spec.mtls.is_some()),
    )
}

/// A watch with a backoff of its own: one shared by all grows with the failures of each, and after a restart
/// of the API server they all fail once or twice. `anew` is told when it begins anew.
fn metadata<K>(
    api: Api<PartialObjectMeta<K>>,
    config: watcher::Config,
    read: &Once,
    anew: mpsc::UnboundedSender<()>,
) -> impl Stream<Item = Result<PartialObjectMeta<K>, watcher::Error>> + Send + 'static
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
{
    let mut listed = false;
    let watch = watcher(api, config).inspect(move |event| {
        if let Ok(watcher::Event::InitDone) = event
            && std::mem::replace(&mut listed, true)
        {
            // Whoever listened has ended, and this ends with it.
            let _ = anew.unbounded_send(());
        }
    });
    told(noted(watch, read).backoff(kubernetes::WatchBackoff::default()).touched_objects())
}

/// Notes when all there is has been read.
fn noted<K>(
    watch: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send + 'static,
    read: &Once,
) -> impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send + 'static
where
    K: Send + 'static,
{
    let read = read.clone();
    watch.inspect(move |event| {
        if let Ok(watcher::Event::InitDone) = event {
            read.set();
        }
    })
}

/// Failures end here, in the log.
fn told<T: Send>(
    watch: impl Stream<Item = Result<T, watcher::Error>> + Send + 'static,
) -> impl Stream<Item = Result<T, watcher::Error>> + Send + 'static {
    watch.filter(|result| {
        if let Err(error) = result {
            tracing::warn!(%error, "a watch failed; it is taken up again");
        }
        std::future::ready(result.is_ok())
    })
}

fn concerned<K: kube::Resource>(
    webhooks: &Store<OutboundWebhook>,
    object: &K,
    names: fn(&OutboundWebhook, &str) -> bool,
) -> Vec<ObjectRef<OutboundWebhook>> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    within(webhooks, &namespace, |webhook| names(webhook, &name))
}

fn within(
    webhooks: &Store<OutboundWebhook>,
    namespace: &str,
    concerned: impl Fn(&OutboundWebhook) -> bool,
) -> Vec<ObjectRef<OutboundWebhook>> {
    let webhooks = webhooks.state().into_iter();
    let webhooks = webhooks.filter(|webhook| webhook.metadata.namespace.as_deref() == Some(namespace));
    webhooks.filter(|webhook| concerned(webhook)).map(|webhook| ObjectRef::from_obj(&*webhook)).collect()
}

fn names_secret(webhook: &OutboundWebhook, name: &str) -> bool {
    let certificates =
        webhook.spec.mtls.iter().flat_map(|mtls| std::iter::once(&mtls.active).chain(&mtls.new));
    let of_certificates = certificates.flat_map(|certificate| {
        let key_password = certificate.key_password_secret_ref.as_ref().map(|reference| &reference.name);
        [&certificate.secret_ref.name, &certificate.password_secret_ref.name].into_iter().chain(key_password)
    });
    let trust = webhook.spec.endpoint.trust.as_ref();
    let store = trust.and_then(|trust| trust.trust_store_ref.as_ref());
    let of_trust =
        trusts(webhook, BundleKind::Secret).chain(store.map(|store| &store.password_secret_ref.name));
    let of_credentials = webhook.spec.credential_refs().into_iter().map(|reference| &reference.name);
    of_certificates.chain(of_trust).chain(of_credentials).any(|named| named == name)
        || OutboundWebhook::identities_name(&webhook.name_any()) == name
}

fn names_config_map(webhook: &OutboundWebhook, name: &str) -> bool {
    trusts(webhook, BundleKind::ConfigMap).any(|named| named == name)
        || OutboundWebhook::client_certificate_name(&webhook.name_any()) == name
}

/// Objects of this kind that hold whom to trust.
fn trusts(webhook: &OutboundWebhook, kind: BundleKind) -> impl Iterator<Item = &String> {
    let trust = webhook.spec.endpoint.trust.iter();
    trust.flat_map(move |trust| {
        let bundle = trust.ca_bundle_ref.as_ref().filter(|bundle| bundle.kind == kind);
        let store = trust.trust_store_ref.as_ref().filter(|store| store.kind == kind);
        bundle.map(|bundle| &bundle.name).into_iter().chain(store.map(|store| &store.name))
    })
}
