//! Events in: HTTP, bounded, answered 202 once what came is on disk.
//!
//! Two listeners have the same routes: a plain one for this machine alone, where nobody is asked who it is, and one
//! over TLS for everybody else, where a guard stands before them.

pub mod access;
mod body;
pub mod certificate;
mod dead_letters;
mod events;
mod options;
mod problem;
mod target;
mod traced;

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    middleware::{from_fn, from_fn_with_state, map_response, map_response_with_state},
    response::Response,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    api::v1alpha1::Events,
    clock::Clock,
    event::WebhookKey,
    limits,
    queue::Queue,
    server::{self, Bounds, Shares, Tls},
    telemetry::{metrics::Requests, traces},
};
use access::{Access, Reviewer};
pub use options::{Options, OptionsError};
use problem::Refused;
pub use target::Target;
pub(crate) use target::is_name;

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
}

/// What a request needs.
pub struct Ingest<Q, W, C> {
    /// Where events go.
    pub queue: Arc<Q>,
    /// Which webhooks there are.
    pub webhooks: Arc<W>,
    /// The time of acceptance.
    pub clock: C,
    /// What is counted of requests.
    pub metrics: Requests,
}

/// How a handler has it.
type Shared<Q, W, C> = State<Arc<Ingest<Q, W, C>>>;

/// The listener for senders anywhere.
pub(crate) struct Secure {
    pub(crate) listener: TcpListener,
    pub(crate) tls: Tls,
    /// [`guarded`].
    pub(crate) routes: Router,
}

/// Serves until `stop`; requests that have begun are answered.
pub(crate) async fn serve(
    plain: TcpListener,
    routes: Router,
    secure: Option<Secure>,
    stop: CancellationToken,
) {
    // Each its own: whoever crowds one of them keeps nobody from the other.
    let bounds = || {
        Arc::new(Bounds::new(limits::INGEST_CONNECTIONS, limits::INGEST_HANDSHAKES, limits::INGEST_REQUESTS))
    };
    let over_tls = async {
        if let Some(Secure { listener, tls, routes }) = secure {
            server::serve(listener, Some(tls), routes, bounds(), stop.clone()).await;
        }
    };
    tokio::join!(server::serve(plain, None, routes, bounds(), stop.clone()), over_tls);
}

/// What is served to whoever reaches it: for this machine alone.
pub(crate) fn router<Q: Queue, W: Webhooks, C: Clock>(ingest: Arc<Ingest<Q, W, C>>) -> Router {
    let events = events::routes();
    let events = if traces::are_on() { events.layer(from_fn(traced::traced)) } else { events };
    Router::new()
        .merge(events)
        .merge(dead_letters::routes())
        .layer(from_fn_with_state(Shares::new(limits::INGEST_BODY_BYTES), body::whole))
        .layer(map_response(problem::of_any_error))
        .with_state(ingest)
}

/// Counts the answers of routes.
pub(crate) fn counted(routes: Router, metrics: Requests) -> Router {
    routes.layer(map_response_with_state(
        metrics,
        async |State(metrics): State<Requests>, response: Response| {
            metrics.answered(response.status());
            response
        },
    ))
}

/// The same for those whom Kubernetes lets, for everywhere else. The guard stands before all that a route does, the
/// body of a request included.
pub(crate) fn guarded<R: Reviewer, C: Clock>(routes: Router, access: Arc<Access<R, C>>) -> Router {
    routes.layer(from_fn_with_state(access, access::guard))
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
