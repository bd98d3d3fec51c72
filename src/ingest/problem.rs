//! What is wrong with a request, as RFC 9457 wants it told: `application/problem+json`, for every error.
//!
//! `type` is a URN of ours where a program may want to tell errors of one status apart; it is never fetched. Where
//! the status says it all it is `about:blank`, as the RFC has it.

use axum::{
    Json,
    extract::rejection::QueryRejection,
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Map, Value};

use super::target::NoTarget;
use crate::{
    event::{WebhookKey, http},
    limits,
    queue::QueueError,
    server::Over,
};

const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

/// A sort of problem: its type and title are the same each time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    status: StatusCode,
    /// Ends the URN.
    name: &'static str,
    title: &'static str,
}

pub(super) const fn kind(status: StatusCode, name: &'static str, title: &'static str) -> Kind {
    Kind { status, name, title }
}

const NOT_AN_EVENT: Kind = kind(StatusCode::BAD_REQUEST, "not-an-event", "Not an event");
const NOT_UNDERSTOOD: Kind = kind(StatusCode::BAD_REQUEST, "not-understood", "The request is not understood");
const NO_SUCH_WEBHOOK: Kind = kind(StatusCode::NOT_FOUND, "no-such-webhook", "No such webhook");
const NOT_TAKEN: Kind =
    kind(StatusCode::UNPROCESSABLE_ENTITY, "type-not-taken", "The webhook does not take events of this type");
const FANS_OUT_TOO_FAR: Kind =
    kind(StatusCode::PAYLOAD_TOO_LARGE, "fans-out-too-far", "Too much for the webhooks that take it");
const NOT_READY: Kind = kind(StatusCode::SERVICE_UNAVAILABLE, "not-ready", "Not ready yet");
const QUEUE_FULL: Kind = kind(StatusCode::TOO_MANY_REQUESTS, "queue-full", "The queue is full");
const NO_SPACE: Kind = kind(StatusCode::INSUFFICIENT_STORAGE, "no-space", "The volume of the queue is full");
const NOT_KEPT: Kind = kind(StatusCode::SERVICE_UNAVAILABLE, "not-kept", "The event was not kept");

/// What a sender is told.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
}

#[derive(Debug, Serialize)]
struct Body {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(flatten)]
    more: Map<String, Value>,
}

impl Problem {
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let Kind { status, name, title } = kind;
        Self::of(status, format!("urn:postrider:problem:{name}"), title, detail.into())
    }

    /// The status says it all.
    pub(super) fn of_status(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        Self::of(status, "about:blank".to_owned(), title, detail.into())
    }

    fn of(status: StatusCode, r#type: String, title: &'static str, detail: String) -> Self {
        let body = Body { r#type, title, status: status.as_u16(), detail, more: Map::new() };
        Self { status, headers: HeaderMap::new(), body }
    }

    /// Worth another try after this time.
    pub(super) fn retry_after(self, seconds: u64) -> Self {
        self.header(RETRY_AFTER, seconds.into())
    }

    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// A member of its own.
    pub(super) fn with(mut self, name: &str, value: Value) -> Self {
        self.body.more.insert(name.to_owned(), value);
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.headers, Json(self.body)).into_response();
        response.headers_mut().insert(CONTENT_TYPE, PROBLEM);
        response
    }
}

/// Makes a problem of what the router and its layers answer by themselves: 404, 405, 408.
pub(super) async fn of_any_error(response: Response) -> Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_error || response.headers().get(CONTENT_TYPE) == Some(&PROBLEM) {
        return response;
    }
    let detail = match status {
        StatusCode::NOT_FOUND => "there is nothing at this path",
        StatusCode::METHOD_NOT_ALLOWED => "this path takes other methods: Allow has them",
        StatusCode::REQUEST_TIMEOUT => "the request did not come, or was not answered, in time",
        _ => "the request cannot be answered",
    };
    let mut problem = Problem::of_status(status, detail).into_response();
    // Such as Allow.
    for (name, value) in response.headers() {
        problem.headers_mut().entry(name).or_insert_with(|| value.clone());
    }
    problem
}

/// Why nothing was taken.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("{0}")]
    NoTarget(#[from] NoTarget),
    #[error("no OutboundWebhook {0}")]
    NoSuchWebhook(WebhookKey),
    #[error("the webhooks have not been read from the API server yet")]
    NotReady,
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
    #[error("too much is on its way here; send it again")]
    Over(Over),
    #[error("{0}")]
    Query(#[from] QueryRejection),
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

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let again =
            |kind, detail: String| Self::new(kind, detail).retry_after(limits::INGEST_RETRY_AFTER_SECONDS);
        let again_by_status = |status, detail: String| {
            Self::of_status(status, detail).retry_after(limits::INGEST_RETRY_AFTER_SECONDS)
        };
        match refused {
            Refused::NoSuchWebhook(_) => Self::new(NO_SUCH_WEBHOOK, refused.to_string()),
            Refused::NotAnEvent(_) => Self::new(NOT_AN_EVENT, refused.to_string()),
            Refused::NotTaken { .. } => Self::new(NOT_TAKEN, refused.to_string()),
            Refused::FansOutTooFar(_) => Self::new(FANS_OUT_TOO_FAR, refused.to_string()),
            Refused::NoTarget(_)
            | Refused::Query(_)
            | Refused::NotAnId
            | Refused::OfAList
            | Refused::TooManyIds => Self::new(NOT_UNDERSTOOD, refused.to_string()),
            Refused::TooLarge => Self::of_status(StatusCode::PAYLOAD_TOO_LARGE, refused.to_string()),
            Refused::BrokenBody => Self::of_status(StatusCode::BAD_REQUEST, refused.to_string()),
            Refused::TooSlow => Self::of_status(StatusCode::REQUEST_TIMEOUT, refused.to_string()),
            Refused::Over(Over::Peer) => again_by_status(StatusCode::TOO_MANY_REQUESTS, refused.to_string()),
            Refused::Over(Over::All) => again_by_status(StatusCode::SERVICE_UNAVAILABLE, refused.to_string()),
            Refused::NoAnswer => again(NOT_KEPT, refused.to_string()),
            Refused::NotReady => again(NOT_READY, refused.to_string()),
            Refused::Queue(QueueError::Full) => again(QUEUE_FULL, refused.to_string()),
            Refused::Queue(QueueError::Closed) => again(NOT_KEPT, refused.to_string()),
            // What is wrong with our disk is for our log.
            Refused::Queue(error) => {
                tracing::error!(%error, "an event could not be kept");
                let kind = if matches!(error, QueueError::NoSpace) { NO_SPACE } else { NOT_KEPT };
                again(kind, "the event could not be kept; send it again".to_owned())
            }
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        Problem::from(self).into_response()
    }
}
