//! Namespaces with webhooks. Most webhooks have a keystore of their own, the last two of a namespace share one. Half
//! of them trust an authority that they name, the others whom the system trusts.

use std::{collections::BTreeMap, sync::Arc};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{
    Api,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use postrider::api::v1alpha1::OutboundWebhook;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    SETTLE_TIMEOUT,
    harness::{
        cluster::{Cluster, Namespace},
        pki::{self, Certificate, Keystore, Request},
        scene::{active, condition},
    },
};

/// Name of the keystore that webhooks share.
const SHARED: &str = "shared";

/// Webhooks of a namespace that share one.
pub(crate) const SHARING: usize = 2;

/// Requests of ours at one time, and programs that make keystores.
const AT_ONCE: usize = 8;

/// All of them.
pub(crate) struct Tenants {
    cluster: Arc<Cluster>,
    pub(crate) namespaces: Vec<Tenant>,
}

/// One namespace.
pub(crate) struct Tenant {
    pub(crate) namespace: Namespace,
    certificate: Certificate,
    /// Of the first webhook.
    password: String,
    webhooks: usize,
}

impl Tenants {
    /// Everything but the webhooks.
    pub(crate) async fn prepare(cluster: &Arc<Cluster>, namespaces: usize, webhooks: usize) -> Self {
        let of_one = |n| webhooks / namespaces + usize::from(n < webhooks % namespaces);
        let tenants: Vec<_> = (0..namespaces).map(|n| Tenant::prepare(cluster, of_one(n))).collect();
        Self {
            cluster: Arc::clone(cluster),
            namespaces: stream::iter(tenants).buffered(AT_ONCE).collect().await,
        }
    }

    /// Makes the webhooks, as fast as the API server takes them.
    pub(crate) async fn apply(&self, url: &str) {
        let mut all = Vec::new();
        for tenant in &self.namespaces {
            all.extend((0..tenant.webhooks).map(|n| tenant.apply(n, url)));
        }
        stream::iter(all).buffer_unordered(AT_ONCE).collect::<()>().await;
    }

    fn count(&self) -> usize {
        self.namespaces.iter().map(|tenant| tenant.webhooks).sum()
    }

    /// Waits until all are Ready, tested, and taken up by the dispatcher.
    pub(crate) async fn ready(&self) {
        let webhooks: Api<OutboundWebhook> = Api::all(self.cluster.client());
        let mut changes =
            watcher(webhooks, watcher::Config::default()).default_backoff().applied_objects().boxed();
        let mut ready: BTreeMap<String, bool> = BTreeMap::new();
        let all_are = async {
            while ready.values().filter(|ready| **ready).count() < self.count() {
                let Ok(Some(webhook)) = changes.try_next().await else { continue };
                let is_ready = ["Ready", "Connected", "Delivering"].iter().all(|type_| {
                    condition(&webhook, type_).is_some_and(|condition| condition.status == "True")
                });
                ready.insert(webhook.metadata.uid.unwrap_or_default(), is_ready);
            }
        };
        let in_time = timeout(SETTLE_TIMEOUT, all_are).await.is_ok();
        let count = ready.values().filter(|ready| **ready).count();
        assert!(in_time, "{count} of {} are ready after {SETTLE_TIMEOUT:?}", self.count());
    }
}

impl Tenant {
    async fn prepare(cluster: &Arc<Cluster>, webhooks: usize) -> Self {
        let namespace = cluster.namespace_with_labels(&[("postrider.dev/mtls", "enabled")]).await;
        let shared = pki::shared().await;
        let certificate = shared.client_authority.issue(&Request::client("/O=Shop/CN=orders")).await;
        let bundle = ConfigMap {
            metadata: ObjectMeta { name: Some("partner-ca".to_owned()), ..ObjectMeta::default() },
            data: Some([("ca.crt".to_owned(), shared.server_authority.root_pem())].into()),
            ..ConfigMap::default()
        };
        namespace.api().create(&PostParams::default(), &bundle).await.unwrap();
        let mut tenant = Self { namespace, certificate, password: String::new(), webhooks };
        tenant.keystore(SHARED, shared.jks().await).await;
        for n in 0..webhooks.saturating_sub(SHARING) {
            let keystore = tenant.certificate.pkcs12().await;
            tenant.keystore(&name(n), &keystore).await;
            if n == 0 {
                tenant.password = keystore.password;
            }
        }
        tenant
    }

    async fn keystore(&self, name: &str, keystore: &Keystore) {
        self.secret(&format!("{name}-keystore"), keystore.format.file_name(), &keystore.bytes()).await;
        self.secret(&format!("{name}-password"), "password", keystore.password.as_bytes()).await;
    }

    async fn secret(&self, name: &str, key: &str, value: &[u8]) {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let data = Some([(key.to_owned(), ByteString(value.to_vec()))].into());
        let secret = Secret { metadata, data, ..Secret::default() };
        let secrets: Api<Secret> = self.namespace.api();
        secrets.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(secret)).await.unwrap();
    }

    async fn apply(&self, n: usize, url: &str) {
        let shares = n + SHARING >= self.webhooks;
        let mtls = if shares { active(SHARED, "JKS") } else { active(&name(n), "PKCS12") };
        let trust = if n.is_multiple_of(2) {
            json!({ "caBundleRef": { "name": "partner-ca" } })
        } else {
            Value::Null
        };
        let webhook = json!({
            "apiVersion": "postrider.dev/v1alpha1", "kind": "OutboundWebhook", "metadata": { "name": name(n) },
            "spec": { "endpoint": { "url": url, "trust": trust }, "mtls": { "active": mtls } },
        });
        let webhook: OutboundWebhook = serde_json::from_value(webhook).unwrap();
        self.namespace.api().create(&PostParams::default(), &webhook).await.unwrap();
    }

    /// Another keystore for the first webhook, with the same certificate.
    pub(crate) async fn change_the_first(&self) {
        let keystore = self.certificate.pkcs12_with(&self.password, &[]).await;
        self.secret(&format!("{}-keystore", name(0)), keystore.format.file_name(), &keystore.bytes()).await;
    }

    /// Something beside in the Secret of the keystore that webhooks share.
    pub(crate) async fn change_the_shared(&self) {
        self.touch(&format!("{SHARED}-keystore")).await;
    }

    /// A Secret that no webhook names.
    pub(crate) async fn change_another(&self) {
        self.touch("another").await;
    }

    async fn touch(&self, name: &str) {
        let patch = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": { "note": "x" },
        });
        let secrets: Api<Secret> = self.namespace.api();
        secrets.patch(name, &PatchParams::apply("somebody").force(), &Patch::Apply(patch)).await.unwrap();
    }
}

fn name(n: usize) -> String {
    format!("webhook-{n}")
}
