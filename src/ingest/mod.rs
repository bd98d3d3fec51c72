//! Events in: HTTP, bounded, answered 202 once what came is on disk.

mod dead_letters;
mod events;
mod server;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{State, rejection::BytesRejection},
    http::{StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower_http::timeout::TimeoutLayer;

use crate::{
    api::v1alpha1::Events,
    clock::Clock,
    event::{WebhookKey, http},
    limits,
    queue::{Queue, QueueError},
};

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

/// Serves until `stop`; requests that have begun are answered.
pub async fn serve<Q: Queue, W: Webhooks, C: Clock>(
    listener: TcpListener,
    ingest: Ingest<Q, W, C>,
    stop: CancellationToken,
) {
    server::serve(listener, router(Arc::new(ingest)), stop).await;
}

fn router<Q: Queue, W: Webhooks, C: Clock>(ingest: Arc<Ingest<Q, W, C>>) -> Router {
    Router::new()
        .merge(events::routes())
        .merge(dead_letters::routes())
        .layer(GlobalConcurrencyLimitLayer::new(limits::INGEST_REQUESTS))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, limits::INGEST_TIMEOUT))
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(ready::<Q, W, C>))
        .with_state(ingest)
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

/// Why nothing was taken.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("no OutboundWebhook {0}")]
    NoSuchWebhook(WebhookKey),
    #[error("the webhooks have not been read from the API server yet")]
    NotReady,
    #[error("{0}")]
    Body(BytesRejection),
    #[error("{0}")]
    NotAnEvent(#[from] http::NotAnEvent),
    #[error("{webhook} does not take events of type {event_type:?}: see spec.events.types")]
    NotTaken { webhook: WebhookKey, event_type: String },
    #[error("{0} webhooks take events of this request, together more than {limit} events or {bytes} bytes: send fewer at one time",
            limit = limits::FAN_OUT_EVENTS, bytes = limits::FAN_OUT_BYTES)]
    FansOutTooFar(usize),
    #[error("{0}")]
    Queue(#[from] QueueError),
    #[error("ids: must be UUIDs with commas between them")]
    NotAnId,
    #[error("after and limit are for lists: choose by ids, reason and before")]
    OfAList,
    #[error("ids: must be at most {} at one time", limits::DEAD_IDS)]
    TooManyIds,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::NoSuchWebhook(_) => StatusCode::NOT_FOUND,
            Self::NotTaken { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::FansOutTooFar(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotAnEvent(_) | Self::NotAnId | Self::OfAList | Self::TooManyIds => StatusCode::BAD_REQUEST,
            Self::Body(rejection) => rejection.status(),
            Self::Queue(QueueError::Full) => StatusCode::TOO_MANY_REQUESTS,
            Self::Queue(QueueError::NoSpace) => StatusCode::INSUFFICIENT_STORAGE,
            Self::NotReady | Self::Queue(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        let message = match (&self, status) {
            (Self::Body(_), StatusCode::PAYLOAD_TOO_LARGE) => {
                format!("the body is larger than the limit of {} bytes", limits::EVENT_BYTES)
            }
            // What is wrong with our disk is for our log.
            (Self::Queue(error), _) if !matches!(error, QueueError::Full | QueueError::Closed) => {
                tracing::error!(%error, "an event could not be kept");
                "the event could not be kept; send it again".to_owned()
            }
            _ => self.to_string(),
        };
        let mut response = (status, Json(json!({ "error": message }))).into_response();
        let again = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::INSUFFICIENT_STORAGE,
        ];
        if again.contains(&status) {
            response.headers_mut().insert(RETRY_AFTER, limits::INGEST_RETRY_AFTER_SECONDS.into());
        }
        response
    }
}

#[cfg(test)]
mod tests;
