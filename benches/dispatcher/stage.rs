//! Webhooks that are Ready, and dispatchers that serve them.
//!
//! The real controller makes the first webhook Ready and ends. The others are what it would have made of them:
//! its objects under other names. So it is not there while anything is measured, and a thousand connection
//! tests need not be waited for.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
    core::Resource as _,
};
use postrider::api::v1alpha1::{ENDPOINT_ANNOTATION, OutboundWebhook};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio_rustls::TlsConnector;

use crate::{
    harness::{
        self,
        cluster::{Cluster, Namespace},
        pki,
        process::Process,
        programs,
        scene::Scene,
    },
    receiver::Receiver,
    sender::{Door, Paths},
};

/// Objects that are written at one time.
const AT_ONCE: usize = 16;

/// What becomes of the events of a webhook.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// They are delivered.
    Good,
    /// They wait.
    Suspended,
    /// They wait for an endpoint that nobody serves.
    Dead,
}

/// Where nobody serves.
const DEAD: &str = "https://127.0.0.1:1";

/// A webhook that the controller has made Ready, and its Secret of identities.
pub(crate) struct Model {
    webhook: OutboundWebhook,
    identities: Secret,
    /// Dropped, it is deleted.
    _scene: Scene,
}

impl Model {
    pub(crate) async fn new(cluster: &Arc<Cluster>, receiver: &Receiver) -> Self {
        const NAME: &str = "model";
        let scene = Scene::without_controller(Arc::clone(cluster)).await;
        scene.enable(true).await;
        scene.keystore(NAME, pki::shared().await.pkcs12().await).await;
        scene.mtls_webhook(NAME, &receiver.url(), "PKCS12").await;
        let controller = programs::start_controller(cluster).await;
        let webhook = scene.ready(NAME).await;
        controller.terminate().await;
        let secrets: Api<Secret> = scene.namespace.api();
        let identities =
            secrets.get(&OutboundWebhook::identities_name(NAME)).await.expect("Ready, so it is there");
        Self { webhook, identities, _scene: scene }
    }

    /// A webhook like the model.
    async fn copy(&self, namespace: &Namespace, name: &str, kind: Kind) -> kube::Result<()> {
        let (webhooks, secrets): (Api<OutboundWebhook>, Api<Secret>) = (namespace.api(), namespace.api());
        let mut webhook = OutboundWebhook::new(name, self.webhook.spec.clone());
        webhook.spec.suspend = kind == Kind::Suspended;
        let mut annotations = self.identities.metadata.annotations.clone().unwrap_or_default();
        if kind == Kind::Dead {
            DEAD.clone_into(&mut webhook.spec.endpoint.url);
            annotations.insert(ENDPOINT_ANNOTATION.to_owned(), DEAD.to_owned());
        }
        let mut made = webhooks.create(&PostParams::default(), &webhook).await?;
        let mut identities = self.identities.clone();
        identities.metadata = ObjectMeta {
            name: Some(OutboundWebhook::identities_name(name)),
            labels: self.identities.metadata.labels.clone(),
            annotations: Some(annotations),
            owner_references: made.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        };
        secrets.create(&PostParams::default(), &identities).await?;
        made.status.clone_from(&self.webhook.status);
        webhooks.replace_status(name, &PostParams::default(), &made).await.map(drop)
    }
}

/// A namespace with webhooks and the queue of its dispatcher.
pub(crate) struct Stage {
    cluster: Arc<Cluster>,
    namespace: Namespace,
    queue: PathBuf,
}

impl Stage {
    /// Webhooks by their names.
    pub(crate) async fn new(
        cluster: &Arc<Cluster>,
        model: &Model,
        names: impl IntoIterator<Item = String>,
        kind: impl Fn(&str) -> Kind,
    ) -> Self {
        let namespace = cluster.namespace().await;
        let (copy, kind) = (&namespace, &kind);
        stream::iter(names)
            .for_each_concurrent(AT_ONCE, async |name| {
                let copied = model.copy(copy, &name, kind(&name)).await;
                copied.unwrap_or_else(|error| panic!("webhook {name}: {error}"));
            })
            .await;
        Self { cluster: Arc::clone(cluster), namespace, queue: harness::new_directory("queue") }
    }

    pub(crate) fn queue(&self) -> &std::path::Path {
        &self.queue
    }

    /// Starts a dispatcher that serves over TLS too; returns where.
    pub(crate) async fn secure_dispatcher(&self, arguments: &[&str]) -> (Dispatcher, SocketAddr) {
        const SECRET: &str = "postrider-ingest-tls";
        let (namespace, server) = (&self.namespace, &pki::shared().await.server);
        namespace.serving_certificate(SECRET, &server.chain_pem(), &server.key_pem()).await;
        let own = format!("--pod-namespace={}", namespace.name());
        let secure = ["--secure-listen=127.0.0.1:0", &own, "--tls-secret", SECRET];
        let arguments = [&secure, arguments].concat();
        let (process, url) =
            programs::start_dispatcher_with(&self.cluster, namespace.name(), &self.queue, &arguments).await;
        let secure = process.address("serves over TLS").await;
        (Dispatcher { process, url }, secure.parse().expect("an address with a port"))
    }

    /// What a sender has that may send to all webhooks of the namespace.
    pub(crate) async fn door(&self) -> Arc<Door> {
        let (namespace, who) = (&self.namespace, format!("--serviceaccount={}:app", self.namespace.name()));
        let resource = "--resource=outboundwebhooks.postrider.dev/events";
        for arguments in [
            ["create", "serviceaccount", "app"].as_slice(),
            &["create", "role", "sender", "--verb=create", resource],
            &["create", "rolebinding", "sender", "--role=sender", &who],
        ] {
            namespace.kubectl(arguments).await.succeeded();
        }
        let token =
            namespace.kubectl(["create", "token", "app", "--audience=postrider", "--duration=1h"]).await;
        let authorization = format!("Bearer {}", token.succeeded().trim());
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(pki::certificates(&pki::shared().await.server_authority.root));
        let tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let authorization = authorization.parse().expect("a token is ASCII");
        Arc::new(Door { tls: TlsConnector::from(Arc::new(tls)), authorization })
    }

    /// Starts a dispatcher, which goes on with the queue; it is ready when this returns.
    pub(crate) async fn dispatcher(&self) -> Dispatcher {
        let (process, url) =
            programs::start_dispatcher(&self.cluster, self.namespace.name(), &self.queue).await;
        Dispatcher { process, url }
    }

    /// Lets events of a webhook go.
    pub(crate) async fn resume(&self, name: &str) {
        let webhooks: Api<OutboundWebhook> = self.namespace.api();
        let patch = Patch::Merge(json!({ "spec": { "suspend": false } }));
        let patched = webhooks.patch(name, &PatchParams::default(), &patch).await;
        patched.unwrap_or_else(|error| panic!("webhook {name}: {error}"));
    }
}

/// A running dispatcher; dropped, it is killed.
pub(crate) struct Dispatcher {
    pub(crate) process: Process,
    url: String,
}

impl Dispatcher {
    /// Where events for these webhooks are posted.
    pub(crate) fn paths(&self, names: impl IntoIterator<Item = String>) -> Paths {
        let (address, namespace) =
            self.url.strip_prefix("http://").and_then(|url| url.split_once('/')).expect("a URL with a path");
        let path = |name| format!("/{namespace}/outboundwebhooks/{name}/events");
        Paths {
            address: address.parse().expect("an address with a port"),
            paths: names.into_iter().map(path).collect(),
            door: None,
        }
    }

    pub(crate) fn paths_of(&self, name: &str) -> Paths {
        self.paths([name.to_owned()])
    }
}
