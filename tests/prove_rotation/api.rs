//! The API server as a person uses it: manifests go in, status comes out, and between the two it may be away.

use std::{collections::BTreeMap, pin::pin, sync::Arc, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use serde_json::{Value, json};
use tokio::{
    sync::{RwLock, watch},
    time::{sleep, timeout},
};

use crate::harness::{
    cluster::{Cluster, Namespace},
    pki::Keystore,
};

/// What a step may take while controllers, dispatchers and API servers come and go: their watches return
/// with a backoff.
pub(crate) const STEP_TIMEOUT: Duration = Duration::from_mins(2);

/// A connection that was open when the API server went is found dead by the request that uses it.
const TRIES: usize = 5;

/// The objects of one namespace.
pub(crate) struct ApiServer {
    cluster: Arc<Cluster>,
    /// Dropped, it is deleted.
    namespace: Namespace,
    secrets: Api<Secret>,
    webhooks: Api<DynamicObject>,
    /// The webhooks as the watch last saw them.
    seen: watch::Sender<BTreeMap<String, Webhook>>,
    /// Held for writing while the API server is away.
    away: RwLock<()>,
}

impl ApiServer {
    pub(crate) fn new(cluster: &Arc<Cluster>, namespace: Namespace) -> Arc<Self> {
        let kind =
            ApiResource::from_gvk(&GroupVersionKind::gvk("postrider.dev", "v1alpha1", "OutboundWebhook"));
        let api = Arc::new(Self {
            cluster: Arc::clone(cluster),
            secrets: namespace.api(),
            webhooks: Api::namespaced_with(cluster.client(), namespace.name(), &kind),
            namespace,
            seen: watch::Sender::new(BTreeMap::new()),
            away: RwLock::new(()),
        });
        tokio::spawn(Arc::clone(&api).watch());
        api
    }

    pub(crate) fn namespace(&self) -> &str {
        self.namespace.name()
    }

    async fn watch(self: Arc<Self>) {
        let mut changes = pin!(watcher(self.webhooks.clone(), watcher::Config::default()).default_backoff());
        while let Some(change) = changes.next().await {
            let Ok(Event::Apply(object) | Event::InitApply(object)) = change else { continue };
            let (name, value) = (object.metadata.name.clone(), serde_json::to_value(&object));
            if let (Some(name), Ok(value)) = (name, value) {
                self.seen.send_modify(|seen| drop(seen.insert(name, Webhook(value))));
            }
        }
    }

    /// Kills the API server, and starts it again after a while. Nobody here writes meanwhile.
    pub(crate) async fn restart(&self, after: Duration) {
        let _away = self.away.write().await;
        self.cluster.stop_api_server().await;
        sleep(after).await;
        self.cluster.start_api_server().await;
    }

    /// Applies a webhook; returns its generation.
    pub(crate) async fn webhook(&self, name: &str, spec: &Value) -> Result<i64, String> {
        let manifest = json!({
            "apiVersion": "postrider.dev/v1alpha1", "kind": "OutboundWebhook",
            "metadata": { "name": name }, "spec": spec,
        });
        let applied = self.apply(&self.webhooks, name, &Patch::Apply(&manifest)).await?;
        Ok(applied.metadata.generation.unwrap_or_default())
    }

    pub(crate) async fn annotate(&self, name: &str, annotation: &str, value: &str) -> Result<(), String> {
        let patch = json!({ "metadata": { "annotations": { annotation: value } } });
        self.apply(&self.webhooks, name, &Patch::Merge(&patch)).await.map(drop)
    }

    /// Writes the file of `<name>-keystore`.
    pub(crate) async fn keystore(&self, name: &str, keystore: &Keystore) -> Result<(), String> {
        self.secret(&format!("{name}-keystore"), keystore.format.file_name(), &keystore.bytes()).await
    }

    /// Writes `<name>-password`.
    pub(crate) async fn password(&self, name: &str, password: &str) -> Result<(), String> {
        self.secret(&format!("{name}-password"), "password", password.as_bytes()).await
    }

    /// Deletes both.
    pub(crate) async fn delete_keystore(&self, name: &str) -> Result<(), String> {
        for secret in [format!("{name}-keystore"), format!("{name}-password")] {
            self.tried(|| async {
                match self.secrets.delete(&secret, &DeleteParams::default()).await {
                    Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
                    outcome => outcome.map(drop),
                }
            })
            .await?;
        }
        Ok(())
    }

    async fn secret(&self, name: &str, key: &str, bytes: &[u8]) -> Result<(), String> {
        let manifest = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name },
            "data": { key: data_encoding::BASE64.encode(bytes) },
        });
        self.apply(&self.secrets, name, &Patch::Apply(&manifest)).await.map(drop)
    }

    async fn apply<K>(&self, api: &Api<K>, name: &str, patch: &Patch<&Value>) -> Result<K, String>
    where
        K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    {
        let mut parameters =
            PatchParams { field_manager: Some("prove-rotation".to_owned()), ..Default::default() };
        parameters.force = matches!(patch, Patch::Apply(_));
        self.tried(|| api.patch(name, &parameters, patch))
            .await
            .map_err(|error| format!("{name} cannot be written: {error}"))
    }

    async fn tried<T, F>(&self, request: impl Fn() -> F) -> Result<T, String>
    where
        F: Future<Output = kube::Result<T>>,
    {
        let mut last = String::new();
        for _ in 0..TRIES {
            let _up = self.away.read().await;
            match request().await {
                Ok(answer) => return Ok(answer),
                Err(kube::Error::Api(status)) => return Err(status.to_string()),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }

    /// Waits until the webhook is as wanted.
    pub(crate) async fn until(
        &self,
        name: &str,
        what: &str,
        condition: impl Fn(&Webhook) -> bool,
    ) -> Result<(), String> {
        let mut seen = self.seen.subscribe();
        let wanted = seen.wait_for(|seen| seen.get(name).is_some_and(&condition));
        match timeout(STEP_TIMEOUT, wanted).await {
            Ok(_) => Ok(()),
            Err(_) => Err(format!(
                "{name}: waited {STEP_TIMEOUT:?} for {what}; its status is {}",
                self.seen.borrow().get(name).map_or(&Value::Null, |webhook| &webhook.0["status"])
            )),
        }
    }
}

/// A webhook as the API server shows it.
pub(crate) struct Webhook(Value);

impl Webhook {
    /// The fingerprint of `status.mtls.active`, `new` or `previous`.
    pub(crate) fn holds(&self, slot: &str) -> Option<&str> {
        self.0["status"]["mtls"][slot]["fingerprintSHA256"].as_str()
    }

    /// Whether the last connection test with this certificate as New passed; `None` before it ended.
    pub(crate) fn new_passed(&self, fingerprint: &str) -> Option<bool> {
        let test = &self.0["status"]["test"]["new"];
        let about = test["fingerprintSHA256"].as_str().is_some_and(|tested| tested == fingerprint);
        test["succeeded"].as_bool().filter(|_| about)
    }

    /// The controller has seen this generation.
    pub(crate) fn observed(&self, generation: i64) -> bool {
        self.0["status"]["observedGeneration"].as_i64().is_some_and(|observed| observed >= generation)
    }

    pub(crate) fn is_ready(&self) -> bool {
        let conditions = self.0["status"]["conditions"].as_array();
        conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True")
    }
}
