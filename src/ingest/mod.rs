//! Events in: HTTP, bounded, answered 202 once what came is on disk.
//!
//! Two listeners have the same routes: a plain one for this machine alone, where nobody is asked who it is, and one
//! over TLS for everybody else, where a guard stands before them.

mod body;
pub mod certificate;
mod dead_letters;
mod events;
mod options;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::rejection::BytesRejection,
    http::{StatusCode, header::RETRY_AFTER},
    middleware,
    response::{IntoResponse, Response},
};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    api::v1alpha1::Events,
    clock::Clock,
    event::{WebhookKey, http},
    limits,
    queue::{Queue, QueueError},
    server::{self, Bounds, Over, Shares, Tls},
};
pub use options::{Options, OptionsError};

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
}

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
    let bounds =
        Arc::new(Bounds::new(limits::INGEST_CONNECTIONS, limits::INGEST_HANDSHAKES, limits::INGEST_REQUESTS));
    let over_tls = async {
        if let Some(Secure { listener, tls, routes }) = secure {
            server::serve(listener, Some(tls), routes, Arc::clone(&bounds), stop.clone()).await;
        }
    };
    tokio::join!(server::serve(plain, None, routes, Arc::clone(&bounds), stop.clone()), over_tls);
}

/// What is served over TLS: the one place where a guard is put before the routes. There is none yet, so nothing is
/// let through.
pub(crate) fn guarded(_routes: Router) -> Router {
    Router::new().fallback(async || Refused::NoGuard)
}

/// What is served to whoever reaches it: for this machine alone.
pub(crate) fn router<Q: Queue, W: Webhooks, C: Clock>(ingest: Arc<Ingest<Q, W, C>>) -> Router {
    Router::new()
        .merge(events::routes())
        .merge(dead_letters::routes())
        .layer(middleware::from_fn_with_state(Shares::new(limits::INGEST_BODY_BYTES), body::whole))
        .with_state(ingest)
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
    #[error("the body is larger than the limit of {} bytes", limits::EVENT_BYTES)]
    TooLarge,
    #[error("the body broke off, or is not what its headers say")]
    BrokenBody,
    #[error(
        "the body did not come in {:?}, or paused for {:?}",
        limits::INGEST_BODY,
        limits::INGEST_BODY_PAUSE
    )]
    TooSlow,
    #[error("there was no answer in {:?}; send it again", limits::INGEST_ANSWER)]
    NoAnswer,
    #[error("nobody can be asked here yet who may send")]
    NoGuard,
    #[error("too much is under way")]
    Over(Over),
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
            Self::FansOutTooFar(_) | Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotAnEvent(_) | Self::BrokenBody | Self::NotAnId | Self::OfAList | Self::TooManyIds => {
                StatusCode::BAD_REQUEST
            }
            Self::Body(rejection) => rejection.status(),
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Over(over) => return over.told("bytes"),
            Self::Queue(QueueError::Full) => StatusCode::TOO_MANY_REQUESTS,
            Self::Queue(QueueError::NoSpace) => StatusCode::INSUFFICIENT_STORAGE,
            Self::NotReady | Self::NoAnswer | Self::NoGuard | Self::Queue(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
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
