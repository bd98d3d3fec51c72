//! What makes a webhook be reconciled: itself, the Secrets and ConfigMaps that it names or owns, and the label
//! of its namespace. Of all these only metadata is watched.

use futures::Stream;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::{
    Api, Client, ResourceExt as _,
    core::PartialObjectMeta,
    runtime::{
        Controller, Predicate as _, PredicateConfig, WatchStreamExt as _,
        controller::Config,
        predicates,
        reflector::{self, ObjectRef, Store},
        watcher::{self, watcher},
    },
};

use crate::{
    api::v1alpha1::{BundleKind, OutboundWebhook},
    limits,
};

/// A controller of webhooks, of one namespace or of all.
///
/// `tested` names those whose connection test has ended.
pub(super) fn controller(
    client: &Client,
    namespace: Option<&str>,
    tested: impl Stream<Item = ObjectRef<OutboundWebhook>> + Send + 'static,
) -> Controller<OutboundWebhook> {
    // In one page: between two, webhooks would be reconciled that the store does not hold yet.
    let any = || watcher::Config { page_size: None, ..watcher::Config::default() };
    let (reader, writer) = reflector::store();
    let webhooks = watcher(crate::kubernetes::scoped(client, namespace), any())
        .default_backoff()
        .reflect(writer)
        .applied_objects()
        // Not for a status: that is what a reconcile writes.
        .predicate_filter(
            predicates::generation.combine(predicates::annotations),
            PredicateConfig::default(),
        );
    let namespaces = namespace.map_or_else(any, |name| any().fields(&format!("metadata.name={name}")));
    let [secrets, config_maps, enabled] = [(); 3].map(|()| reader.clone());
    Controller::for_stream(webhooks, reader)
        .reconcile_on(tested)
        .with_config(Config::default().concurrency(limits::RECONCILES_AT_ONCE))
        .watches(
            crate::kubernetes::scoped::<PartialObjectMeta<Secret>>(client, namespace),
            any(),
            move |secret| concerned(&secrets, &secret, names_secret),
        )
        .watches(
            crate::kubernetes::scoped::<PartialObjectMeta<ConfigMap>>(client, namespace),
            any(),
            move |config_map| concerned(&config_maps, &config_map, names_config_map),
        )
        .watches(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), namespaces, move |namespace| {
            within(&enabled, &namespace.name_any(), |webhook| webhook.spec.mtls.is_some())
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
    let bundle = webhook.spec.endpoint.trust.as_ref().and_then(|trust| trust.ca_bundle_ref.as_ref());
    let mtls = webhook.spec.mtls.iter();
    mtls.flat_map(|mtls| std::iter::once(&mtls.active).chain(&mtls.new)).any(|certificate| {
        certificate.secret_ref.name == name
            || certificate.password_secret_ref.name == name
            || certificate.key_password_secret_ref.as_ref().is_some_and(|reference| reference.name == name)
    }) || bundle.is_some_and(|bundle| bundle.kind == BundleKind::Secret && bundle.name == name)
        || OutboundWebhook::identities_name(&webhook.name_any()) == name
}

fn names_config_map(webhook: &OutboundWebhook, name: &str) -> bool {
    let bundle = webhook.spec.endpoint.trust.as_ref().and_then(|trust| trust.ca_bundle_ref.as_ref());
    bundle.is_some_and(|bundle| bundle.kind == BundleKind::ConfigMap && bundle.name == name)
        || OutboundWebhook::client_certificate_name(&webhook.name_any()) == name
}
