//! Events in: HTTP, bounded, answered 202 once what came is on disk.

pub mod access;
mod dead_letters;
mod events;
mod problem;
mod server;
mod target;

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    middleware::{from_fn_with_state, map_response},
    response::{IntoResponse, Response},
    routing::get,
};
use tower::limit::GlobalConcurrencyLimitLayer;
use tower_http::timeout::TimeoutLayer;

use crate::{api::v1alpha1::Events, clock::Clock, event::WebhookKey, limits, queue::Queue};
use access::{Access, Reviewer};
use problem::Refused;
pub use server::serve;
pub use target::Target;

const EVENTS: &str = "/v1/namespaces/{namespace}/outboundwebhooks/{name}/events";
const EVENTS_OF_NAMESPACE: &str = "/v1/namespaces/{namespace}/events";
const DEAD_LETTERS: &str = "/v1/namespaces/{namespace}/outboundwebhooks/{name}/deadletters";
const REPLAY: &str = "/v1/namespaces/{namespace}/outboundwebhooks/{name}/deadletters/replay";

/// Whether a webhook may be sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known<T> {
    /// It exists.
    Yes(T),
    /// It does not.
    No,
    /// The webhooks have not been read yet.
    NotYet,
}

/// What a webhook takes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Takes {
    /// Which events.
    pub events: Arc<Events>,
    /// Whether its events go out one at a time, those with the same key.
    pub ordered: bool,
}

/// Who knows which webhooks there are.
pub trait Webhooks: Send + Sync + 'static {
    /// Whether there is such a webhook.
    fn knows(&self, webhook: &WebhookKey) -> Known<Takes>;
    /// All of a namespace; there may be none.
    fn of_namespace(&self, namespace: &str) -> Known<Vec<(WebhookKey, Takes)>>;
    /// Whether the webhooks have been read.
    fn is_ready(&self) -> bool;
}

/// What a request needs.
pub struct Ingest<Q, W, C> {
    /// Where events go.
    pub queue: Arc<Q>,
    /// Which webhooks there are.
    pub webhooks: Arc<W>,
    /// The time of acceptance.
    pub clock: C,
}

/// What is served to whoever reaches it: for loopback.
pub fn router<Q: Queue, W: Webhooks, C: Clock>(ingest: Arc<Ingest<Q, W, C>>) -> Router {
    Router::new()
        .merge(events::routes())
        .merge(dead_letters::routes())
        .layer(GlobalConcurrencyLimitLayer::new(limits::INGEST_REQUESTS))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, limits::INGEST_TIMEOUT))
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(ready::<Q, W, C>))
        .layer(map_response(problem::of_any_error))
        .with_state(ingest)
}

/// The same for those whom Kubernetes lets, for everywhere else. The guard stands before all that a route does, the
/// body of a request included.
pub fn guarded<R: Reviewer, C: Clock>(routes: Router, access: Arc<Access<R, C>>) -> Router {
    routes.layer(from_fn_with_state(access, access::guard))
}

async fn ready<Q: Queue, W: Webhooks, C: Clock>(State(ingest): State<Arc<Ingest<Q, W, C>>>) -> Response {
    if ingest.webhooks.is_ready() { "ok".into_response() } else { Refused::NotReady.into_response() }
}

/// What a webhook takes, where there is one.
fn known(webhooks: &impl Webhooks, webhook: &WebhookKey) -> Result<Takes, Refused> {
    match webhooks.knows(webhook) {
        Known::Yes(takes) => Ok(takes),
        Known::No => Err(Refused::NoSuchWebhook(webhook.clone())),
        Known::NotYet => Err(Refused::NotReady),
    }
}

#[cfg(test)]
mod tests;
