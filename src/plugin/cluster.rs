//! The cluster, as kubectl finds it.

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::{
    NamespaceResourceScope,
    api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
};
use kube::{
    Api, Client, Config, Resource,
    api::{ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::Value;

use super::{failure::Failure, typed};
use crate::{api::v1alpha1::OutboundWebhook, limits};

/// The name under which the plugin owns fields.
pub(super) const FIELD_MANAGER: &str = "kubectl-postrider";

/// Which cluster, and as whom: the options of kubectl.
#[derive(Args)]
#[command(next_help_heading = "Cluster")]
pub(super) struct Cluster {
    /// The namespace; without it that of the context
    #[arg(long, short, global = true, value_name = "NAME")]
    namespace: Option<String>,
    /// The kubeconfig; without it KUBECONFIG, ~/.kube/config, or that of the Pod
    #[arg(long, global = true, hide_short_help = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig
    #[arg(long, global = true, hide_short_help = true, value_name = "NAME")]
    context: Option<String>,
    /// The cluster of the kubeconfig
    #[arg(long, global = true, hide_short_help = true, value_name = "NAME")]
    cluster: Option<String>,
    /// The user of the kubeconfig
    #[arg(long, global = true, hide_short_help = true, value_name = "NAME")]
    user: Option<String>,
    /// Act as this user
    #[arg(long = "as", global = true, hide_short_help = true, value_name = "USER")]
    impersonate: Option<String>,
    /// Act as a member of this group; may be repeated
    #[arg(
        long = "as-group",
        global = true,
        hide_short_help = true,
        value_name = "GROUP",
        requires = "impersonate"
    )]
    impersonate_group: Vec<String>,
}

/// A client of the API server, for one namespace.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) namespace: String,
    /// For people.
    pub(super) server: String,
}

impl Cluster {
    pub(super) async fn connect(&self) -> Result<Connection, Failure> {
        let mut config = self.config().await?;
        config.connect_timeout = Some(limits::PLUGIN_CONNECT);
        if let Some(user) = &self.impersonate {
            config.auth_info.impersonate = Some(user.clone());
            config.auth_info.impersonate_groups =
                Some(self.impersonate_group.clone()).filter(|groups| !groups.is_empty());
        }
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let server = config.cluster_url.to_string();
        Ok(Connection { client: Client::try_from(config)?, namespace, server })
    }

    async fn config(&self) -> Result<Config, Failure> {
        let Self { kubeconfig, context, cluster, user, .. } = self;
        let options =
            KubeConfigOptions { context: context.clone(), cluster: cluster.clone(), user: user.clone() };
        Ok(match kubeconfig {
            Some(path) => Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?,
            None if context.is_some() || cluster.is_some() || user.is_some() => {
                Config::from_kubeconfig(&options).await?
            }
            None => Config::infer().await?,
        })
    }
}

impl Connection {
    /// An API of the namespace.
    pub(super) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(super) async fn webhook(&self, name: &str) -> Result<OutboundWebhook, Failure> {
        Ok(self.api::<OutboundWebhook>().get(name).await?)
    }

    /// All of the namespace, or of the cluster, in order.
    pub(super) async fn webhooks(&self, everywhere: bool) -> Result<Vec<OutboundWebhook>, Failure> {
        let api = if everywhere { Api::all(self.client.clone()) } else { self.api::<OutboundWebhook>() };
        let mut parameters = ListParams::default().limit(limits::PLUGIN_PAGE);
        let mut all = Vec::new();
        for _ in 0..limits::PLUGIN_PAGES {
            let page = api.list(&parameters).await?;
            let brought = page.items.len();
            all.extend(page.items);
            let next = page.metadata.continue_.filter(|next| !next.is_empty());
            let Some(next) = next else {
                all.sort_by_key(|webhook| {
                    (webhook.metadata.namespace.clone(), webhook.metadata.name.clone())
                });
                return Ok(all);
            };
            if brought == 0 || parameters.continue_token.as_ref() == Some(&next) {
                break;
            }
            parameters = parameters.continue_token(&next);
        }
        let message =
            format!("the API server's list of webhooks does not end: {} of them, and more", all.len());
        Err(Failure::tried(message))
    }

    /// Changes fields of a webhook, and nothing else of it.
    pub(super) async fn patch(&self, name: &str, patch: Value) -> Result<OutboundWebhook, Failure> {
        Ok(self.try_patch(name, patch).await?)
    }

    async fn try_patch(&self, name: &str, patch: Value) -> kube::Result<OutboundWebhook> {
        let parameters =
            PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        self.api().patch(name, &parameters, &Patch::Merge(patch)).await
    }

    /// The same with a patch that names the version that it is for; tells whether it was that.
    pub(super) async fn patch_if_unchanged(&self, name: &str, patch: Value) -> Result<bool, Failure> {
        match self.try_patch(name, patch).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            result => Ok(result.map(|_| true)?),
        }
    }

    /// Annotates a webhook.
    pub(super) async fn annotate(
        &self,
        name: &str,
        annotation: &str,
        value: &str,
    ) -> Result<OutboundWebhook, Failure> {
        self.patch(name, serde_json::json!({ "metadata": { "annotations": { annotation: value } } })).await
    }

    /// Whether the person has a right.
    pub(super) async fn may(&self, right: ResourceAttributes) -> Result<bool, Failure> {
        let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(right), ..Default::default() };
        let review = SelfSubjectAccessReview { spec, ..Default::default() };
        let review = Api::all(self.client.clone()).create(&PostParams::default(), &review).await?;
        Ok(review.status.is_some_and(|status| status.allowed && status.denied != Some(true)))
    }

    /// A command of this plugin for the same namespace, as a person types it.
    pub(super) fn command(&self, words: &[&str]) -> String {
        typed::postrider(&self.namespace, words)
    }
}

/// A value of an annotation that none had before.
pub(super) fn unheard_of() -> String {
    format!("{} {:08x}", Timestamp::now(), rand::random::<u32>())
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    /// Lists the webhooks of an API server that has these pages: how many it brings, and the token of the next. Tells
    /// how often it was asked.
    async fn listed(
        page: impl Fn(usize) -> (usize, String) + Clone + Send + 'static,
    ) -> (Result<usize, Failure>, usize) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let service = tower::service_fn(move |_: Request<Body>| {
            let number = counter.fetch_add(1, Ordering::Relaxed);
            let (brought, next) = page(number);
            let webhook = |item| {
                let name = format!("orders-{number}-{item}");
                json!({ "metadata": { "name": name }, "spec": { "endpoint": { "url": "https://partner.example" } } })
            };
            let items: Vec<_> = (0..brought).map(webhook).collect();
            let list = json!({ "apiVersion": "postrider.dev/v1alpha1", "kind": "OutboundWebhookList",
                "metadata": { "continue": next }, "items": items });
            async move {
                Ok::<_, std::convert::Infallible>(Response::new(Body::from(list.to_string().into_bytes())))
            }
        });
        let client = Client::new(service, "shop");
        let connection = Connection { client, namespace: "shop".to_owned(), server: String::new() };
        let all = connection.webhooks(false).await.map(|all| all.len());
        (all, asked.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn a_list_is_read_to_its_end_and_no_further() {
        let three = |number: usize| (2, if number < 2 { number.to_string() } else { String::new() });
        let (all, asked) = listed(three).await;
        assert_eq!((all.unwrap(), asked), (6, 3));

        let (all, asked) = listed(|number| (1, number.to_string())).await;
        let Failure::Tried(message) = all.unwrap_err() else { panic!("it could not be tried") };
        assert!(message.as_str().contains("does not end: 200 of them, and more"), "{message:?}");
        assert_eq!(asked, limits::PLUGIN_PAGES);

        let (all, asked) = listed(|_| (1, "same".to_owned())).await;
        assert!(matches!(all, Err(Failure::Tried(_))) && asked == 2, "asked {asked} times");
        let (all, asked) = listed(|number| (0, number.to_string())).await;
        assert!(matches!(all, Err(Failure::Tried(_))) && asked == 1, "asked {asked} times");
    }
}
