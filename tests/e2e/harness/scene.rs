//! What a test of the product starts from: a namespace with a partner's CA, keystores in Secrets, webhooks,
//! the run's controller, and a dispatcher of its own.

use std::{collections::HashSet, ffi::OsStr, net::SocketAddr, sync::Arc};

use k8s_openapi::{
    ByteString,
    api::{
        core::v1::{ConfigMap, Namespace as NamespaceObject, Secret},
        events::v1::Event,
    },
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use postrider::api::v1alpha1::OutboundWebhook;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::harness::{
    chart,
    cluster::{Cluster, Namespace},
    eventually,
    pki::{self, Keystore},
    process::{Process, Program},
    receiver::TO_RECEIVERS,
};

static CONTROLLER: OnceCell<Process> = OnceCell::const_new();

/// The run's controller, which the first scene starts.
pub(crate) fn controller() -> &'static Process {
    CONTROLLER.get().expect("a scene was made")
}

/// A tenant, with the controller that serves all tenants of the run.
pub(crate) struct Scene {
    cluster: Arc<Cluster>,
    pub(crate) namespace: Namespace,
}

impl Scene {
    /// mTLS is enabled.
    pub(crate) async fn new(cluster: Arc<Cluster>) -> Self {
        let scene = Self::not_enabled(cluster).await;
        scene.enable(true).await;
        scene
    }

    /// mTLS is not enabled.
    pub(crate) async fn not_enabled(cluster: Arc<Cluster>) -> Self {
        CONTROLLER.get_or_init(|| start_controller(&cluster)).await;
        Self::without_controller(cluster).await
    }

    /// On a cluster that the run's controller does not serve.
    pub(crate) async fn without_controller(cluster: Arc<Cluster>) -> Self {
        let namespace = cluster.namespace().await;
        let scene = Self { cluster, namespace };
        let bundle = pki::shared().await.server_authority.root_pem();
        scene.config_map("partner-ca", &[("ca.crt", &bundle)]).await;
        scene
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub(crate) async fn enable(&self, enabled: bool) {
        let value = enabled.then_some("enabled");
        let patch = json!({ "metadata": { "labels": { "postrider.dev/mtls": value } } });
        Api::<NamespaceObject>::all(self.cluster.client())
            .patch(self.namespace.name(), &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
    }

    pub(crate) async fn config_map(&self, name: &str, data: &[(&str, &str)]) {
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let metadata = kube::api::ObjectMeta { name: Some(name.to_owned()), ..Default::default() };
        let map = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
        self.apply_object(&map).await;
    }

    /// Sets exactly these keys.
    pub(crate) async fn secret(&self, name: &str, data: &[(&str, &[u8])]) {
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.to_vec()))).collect();
        let metadata = kube::api::ObjectMeta { name: Some(name.to_owned()), ..Default::default() };
        let secret = Secret { metadata, data: Some(data), ..Secret::default() };
        self.apply_object(&secret).await;
    }

    async fn apply_object<K>(&self, object: &K)
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + serde::de::DeserializeOwned,
    {
        let api: Api<K> = self.namespace.api();
        api.patch(&object.name_any(), &PatchParams::apply("test"), &Patch::Apply(object)).await.unwrap();
    }

    /// The Secrets `<name>-keystore` and `<name>-password`.
    pub(crate) async fn keystore(&self, name: &str, keystore: &Keystore) {
        self.secret(&format!("{name}-keystore"), &[(keystore.format.file_name(), &keystore.bytes())]).await;
        self.password(name, &keystore.password).await;
    }

    pub(crate) async fn password(&self, name: &str, password: &str) {
        self.secret(&format!("{name}-password"), &[("password", password.as_bytes())]).await;
    }

    /// Applies a webhook; `spec` is merged over an endpoint that trusts the partner's CA.
    pub(crate) async fn webhook(&self, name: &str, url: &str, spec: Value) {
        let manifest = json!({
            "apiVersion": "postrider.dev/v1alpha1", "kind": "OutboundWebhook",
            "metadata": { "name": name }, "spec": merged(url, spec),
        });
        self.namespace.apply(&manifest.to_string()).await.succeeded();
    }

    /// A webhook with the keystore of [`Self::keystore`] under the same name.
    pub(crate) async fn mtls_webhook(&self, name: &str, url: &str, format: &str) {
        self.webhook(name, url, json!({ "mtls": { "active": active(name, format) } })).await;
    }

    pub(crate) fn webhooks(&self) -> Api<OutboundWebhook> {
        self.namespace.api()
    }

    /// Waits until the webhook is Ready, as it is written now.
    pub(crate) async fn ready(&self, name: &str) -> OutboundWebhook {
        self.condition(name, "Ready", "True", None).await
    }

    /// Waits until it is not Ready for this reason.
    pub(crate) async fn not_ready(&self, name: &str, reason: &str) -> OutboundWebhook {
        self.condition(name, "Ready", "False", Some(reason)).await
    }

    pub(crate) async fn condition(
        &self,
        name: &str,
        type_: &str,
        status: &str,
        reason: Option<&str>,
    ) -> OutboundWebhook {
        let what = format!("{type_}={status}, reason {}", reason.unwrap_or("any"));
        eventually::object(&self.webhooks(), name, &what, |webhook| {
            condition(webhook, type_).is_some_and(|condition| {
                condition.status == status
                    && condition.observed_generation == webhook.metadata.generation
                    && reason.is_none_or(|reason| condition.reason == reason)
            })
        })
        .await
    }

    /// A dispatcher of this namespace, with a queue of its own, that is ready.
    pub(crate) async fn dispatcher(&self) -> Dispatcher {
        self.dispatcher_with(&TO_RECEIVERS).await
    }

    /// With these arguments beside.
    pub(crate) async fn dispatcher_with(&self, arguments: &[&str]) -> Dispatcher {
        self.dispatcher_in(arguments, &[]).await
    }

    /// And with these variables in its environment.
    pub(crate) async fn dispatcher_in(
        &self,
        arguments: &[&str],
        environment: &[(&str, &OsStr)],
    ) -> Dispatcher {
        let queue = Arc::new(tempfile::tempdir().unwrap());
        Dispatcher::start(&self.cluster, self.namespace.name(), queue, arguments, environment).await
    }

    /// One that goes on with the queue of another, which has ended.
    pub(crate) async fn dispatcher_again(&self, before: &Dispatcher) -> Dispatcher {
        self.dispatcher_again_with(before, &TO_RECEIVERS).await
    }

    pub(crate) async fn dispatcher_again_with(&self, before: &Dispatcher, egress: &[&str]) -> Dispatcher {
        self.dispatcher_again_in(before, egress, &[]).await
    }

    /// With these variables in its environment.
    pub(crate) async fn dispatcher_again_in(
        &self,
        before: &Dispatcher,
        egress: &[&str],
        environment: &[(&str, &OsStr)],
    ) -> Dispatcher {
        Dispatcher::start(
            &self.cluster,
            self.namespace.name(),
            Arc::clone(&before.queue),
            egress,
            environment,
        )
        .await
    }
}

fn merged(url: &str, spec: Value) -> Value {
    let mut whole =
        json!({ "endpoint": { "url": url, "trust": { "caBundleRef": { "name": "partner-ca" } } } });
    merge(&mut whole, spec);
    whole
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// `mtls.active` for the Secrets of [`Scene::keystore`].
pub(crate) fn active(name: &str, format: &str) -> Value {
    json!({
        "secretRef": { "name": format!("{name}-keystore") },
        "format": format,
        "passwordSecretRef": { "name": format!("{name}-password"), "key": "password" },
    })
}

pub(crate) fn condition<'a>(webhook: &'a OutboundWebhook, type_: &str) -> Option<&'a Condition> {
    webhook.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == type_)
}

/// Reasons and notes of the Events of the namespace, in order, once there is one with this reason.
pub(crate) async fn story(scene: &Scene, until: &str) -> Vec<(String, String)> {
    let events = scene.namespace.api::<Event>();
    let what = format!("an Event {until}");
    let mut found = eventually::objects(&events, &ListParams::default(), &what, |events: &[Event]| {
        events.iter().any(|event| event.reason.as_deref() == Some(until))
    })
    .await;
    found.sort_by_key(|event| event.event_time.clone().map(|time| time.0));
    found
        .into_iter()
        .map(|event| (event.reason.unwrap_or_default(), event.note.unwrap_or_default()))
        .collect()
}

pub(crate) async fn start_controller(cluster: &Cluster) -> Process {
    start_controller_with(cluster, &TO_RECEIVERS).await
}

pub(crate) async fn start_controller_with(cluster: &Cluster, arguments: &[&str]) -> Process {
    let controller = launch_controller(cluster, arguments).await;
    controller.line_with("reconciles").await;
    controller
}

/// One that may not reconcile yet.
pub(crate) async fn launch_controller(cluster: &Cluster, arguments: &[&str]) -> Process {
    let kubeconfig = chart::kubeconfig(cluster, "controller", &json!({})).await;
    Program::postrider("controller").args(arguments).env("KUBECONFIG", kubeconfig).start()
}

/// A running dispatcher.
pub(crate) struct Dispatcher {
    pub(crate) process: Process,
    /// Where it takes events of this machine.
    pub(crate) address: SocketAddr,
    poster: Poster,
    queue: Arc<tempfile::TempDir>,
}

/// Posts events to a dispatcher.
#[derive(Clone)]
pub(crate) struct Poster {
    url: String,
    http: reqwest::Client,
}

impl Poster {
    pub(crate) async fn post(&self, webhook: &str, body: &str) -> reqwest::Result<reqwest::Response> {
        let url = format!("{}/outboundwebhooks/{webhook}/events", self.url);
        self.http.post(url).header("postrider-event-type", "order.paid").body(body.to_owned()).send().await
    }

    /// A CloudEvent with a key to order it by; it has to be taken.
    pub(crate) async fn post_with_key(&self, webhook: &str, key: &str, body: &str) {
        let url = format!("{}/outboundwebhooks/{webhook}/events", self.url);
        let event = self.http.post(url).header("ce-specversion", "1.0").header("ce-id", body);
        let event = event.header("ce-source", "/shop").header("ce-type", "order.paid");
        let response = event.header("ce-partitionkey", key).body(body.to_owned()).send().await.unwrap();
        assert_eq!(response.status(), 202);
    }

    /// A CloudEvent for all webhooks of the namespace; it has to be taken. Returns the answer.
    pub(crate) async fn post_to_all(&self, event_type: &str, id: &str) -> Value {
        let event = self.http.post(format!("{}/events", self.url)).header("ce-specversion", "1.0");
        let event = event.header("ce-id", id).header("ce-source", "/shop").header("ce-type", event_type);
        let response = event.body(id.to_owned()).send().await.unwrap();
        assert_eq!(response.status(), 202);
        serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
    }

    /// Asks for dead letters, or that something be done with them; `path` follows `deadletters`.
    pub(crate) async fn dead_letters(&self, method: &str, webhook: &str, path: &str) -> Value {
        let url = format!("{}/outboundwebhooks/{webhook}/deadletters{path}", self.url);
        let response = self.http.request(method.parse().unwrap(), url).send().await.unwrap();
        assert_eq!(response.status(), 200);
        serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
    }
}

/// The id in the body of a 202.
pub(crate) async fn id_of(response: reqwest::Response) -> reqwest::Result<String> {
    let body: Value = serde_json::from_slice(&response.bytes().await?).expect("a 202 holds JSON");
    Ok(body["ids"][0].as_str().expect("a 202 holds ids").to_owned())
}

impl Dispatcher {
    async fn start(
        cluster: &Cluster,
        namespace: &str,
        queue: Arc<tempfile::TempDir>,
        arguments: &[&str],
        environment: &[(&str, &OsStr)],
    ) -> Self {
        let program = Program::postrider("dispatcher")
            .args(["--namespace", namespace, "--listen", "127.0.0.1:0", "--queue"])
            .args([queue.path()])
            .args(arguments)
            .env("KUBECONFIG", chart::kubeconfig(cluster, "dispatcher", &json!({})).await);
        let process =
            environment.iter().fold(program, |program, (name, value)| program.env(name, value)).start();
        let address = process.address("takes events").await;
        process.http_ready(&format!("{}/readyz", process.health().await)).await;
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let poster = Poster { url: format!("http://{address}/v1/namespaces/{namespace}"), http };
        Self { process, address: address.parse().unwrap(), poster, queue }
    }

    /// What is pending, by the file of the queue: its dispatcher may have ended.
    pub(crate) fn pending(&self) -> HashSet<String> {
        let file = self.queue.path().join("queue.db");
        let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let mut ids = connection.prepare("SELECT id FROM event WHERE dead_ms IS NULL").unwrap();
        let ids = ids.query_map([], |row| row.get(0).map(|id| Uuid::from_bytes(id).to_string())).unwrap();
        ids.map(Result::unwrap).collect()
    }

    pub(crate) fn poster(&self) -> Poster {
        self.poster.clone()
    }

    pub(crate) async fn try_post(&self, webhook: &str, body: &str) -> reqwest::Result<reqwest::Response> {
        self.poster.post(webhook, body).await
    }

    /// Where it listens.
    pub(crate) fn origin(&self) -> &str {
        self.poster.url.split_once("/v1/").expect("a path").0
    }

    /// Where events of a webhook are posted, once it is known.
    pub(crate) async fn url_of(&self, webhook: &str) -> String {
        let webhook_url = format!("{}/outboundwebhooks/{webhook}", self.poster.url);
        eventually::polled(&format!("{webhook} to be known to the dispatcher"), || async {
            let response = self.poster.http.get(format!("{webhook_url}/deadletters")).send().await.unwrap();
            if response.status() == 200 { Ok(()) } else { Err(response.status().to_string()) }
        })
        .await;
        format!("{webhook_url}/events")
    }

    /// Posts an event that has to be taken, and returns its id. A webhook that was applied a moment ago may
    /// not be known yet.
    pub(crate) async fn post(&self, webhook: &str, body: &str) -> String {
        eventually::polled(&format!("{webhook} to be known to the dispatcher"), || async {
            let response = self.try_post(webhook, body).await.unwrap();
            match response.status().as_u16() {
                202 => Ok(id_of(response).await.unwrap()),
                404 => Err("404".to_owned()),
                other => panic!("{other}: {}", response.text().await.unwrap()),
            }
        })
        .await
    }
}
