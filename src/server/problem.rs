//! What is wrong with a request, as RFC 9457 wants it told: `application/problem+json`.
//!
//! `type` is a URN of ours where a program may want to tell errors of one status apart; it is never fetched. Where
//! the status says it all it is `about:blank`, as the RFC has it.

use axum::{
    Json,
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Map, Value};

/// The content type of a problem.
pub(crate) const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

/// A sort of problem: its type and title are the same each time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    status: StatusCode,
    /// Ends the URN.
    name: &'static str,
    title: &'static str,
}

pub(crate) const fn kind(status: StatusCode, name: &'static str, title: &'static str) -> Kind {
    Kind { status, name, title }
}

/// What a sender is told.
#[derive(Debug)]
pub(crate) struct Problem {
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
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let Kind { status, name, title } = kind;
        Self::of(status, format!("urn:postrider:problem:{name}"), title, detail.into())
    }

    /// The status says it all.
    pub(crate) fn of_status(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        Self::of(status, "about:blank".to_owned(), title, detail.into())
    }

    fn of(status: StatusCode, r#type: String, title: &'static str, detail: String) -> Self {
        let body = Body { r#type, title, status: status.as_u16(), detail, more: Map::new() };
        Self { status, headers: HeaderMap::new(), body }
    }

    /// Worth another try after this time.
    pub(crate) fn retry_after(self, seconds: u64) -> Self {
        self.header(RETRY_AFTER, seconds.into())
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// A member of its own.
    pub(crate) fn with(mut self, name: &str, value: Value) -> Self {
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
