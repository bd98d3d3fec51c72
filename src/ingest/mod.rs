//! Events in: HTTP, bounded, answered 202 once what came is on disk.

mod server;

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower_http::timeout::TimeoutLayer;

use crate::{
    clock::Clock,
    event::{WebhookKey, http},
    limits,
    queue::{Queue, QueueError},
};

/// Whether a webhook may be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It exists.
    Yes,
    /// It does not.
    No,
    /// The webhooks have not been read yet.
    NotYet,
}

/// Who knows which webhooks there are.
pub trait Webhooks: Send + Sync + 'static {
    /// Whether there is such a webhook.
    fn knows(&self, webhook: &WebhookKey) -> Known;
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
        .route(
            "/v1/namespaces/{namespace}/outboundwebhooks/{name}/events",
            post(accept::<Q, W, C>).layer(DefaultBodyLimit::max(limits::EVENT_BYTES)),
        )
        .layer(GlobalConcurrencyLimitLayer::new(limits::INGEST_REQUESTS))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, limits::INGEST_TIMEOUT))
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(ready::<Q, W, C>))
        .with_state(ingest)
}

async fn ready<Q: Queue, W: Webhooks, C: Clock>(State(ingest): State<Arc<Ingest<Q, W, C>>>) -> Response {
    if ingest.webhooks.is_ready() { "ok".into_response() } else { Refused::NotReady.into_response() }
}

async fn accept<Q: Queue, W: Webhooks, C: Clock>(
    State(ingest): State<Arc<Ingest<Q, W, C>>>,
    Path((namespace, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    let webhook = WebhookKey { namespace, name };
    match ingest.webhooks.knows(&webhook) {
        Known::Yes => {}
        Known::No => return Err(Refused::NoSuchWebhook(webhook)),
        Known::NotYet => return Err(Refused::NotReady),
    }
    let body = body.map_err(Refused::Body)?;
    let events = http::read(&webhook, &headers, &body, ingest.clock.now())?;
    let ids: Vec<_> = events.iter().map(|event| event.id).collect();
    if !events.is_empty() {
        ingest.queue.append(events).await?;
    }
    Ok((StatusCode::ACCEPTED, Json(json!({ "ids": ids }))).into_response())
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
    #[error("{0}")]
    Queue(#[from] QueueError),
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::NoSuchWebhook(_) => StatusCode::NOT_FOUND,
            Self::NotAnEvent(_) => StatusCode::BAD_REQUEST,
            Self::Body(rejection) => rejection.status(),
            Self::Queue(QueueError::Full) => StatusCode::TOO_MANY_REQUESTS,
            Self::NotReady | Self::Queue(QueueError::Closed) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Queue(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let message = match (&self, status) {
            (_, StatusCode::PAYLOAD_TOO_LARGE) => {
                format!("the body is larger than the limit of {} bytes", limits::EVENT_BYTES)
            }
            // What is wrong with our disk is for our log.
            (Self::Queue(error), StatusCode::INTERNAL_SERVER_ERROR) => {
                tracing::error!(%error, "an event could not be kept");
                "the event could not be kept; send it again".to_owned()
            }
            _ => self.to_string(),
        };
        let mut response = (status, Json(json!({ "error": message }))).into_response();
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(RETRY_AFTER, limits::INGEST_RETRY_AFTER_SECONDS.into());
        }
        response
    }
}

#[cfg(test)]
mod tests;
