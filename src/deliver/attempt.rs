//! One attempt: a POST in CloudEvents binary mode with the headers of Standard Webhooks.

use std::time::Duration;

use http::{
    StatusCode,
    header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER},
};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use super::{
    Client, Target,
    client::{Response, SendError},
};
use crate::{
    event::{self, Event, trace::TraceContext},
    limits,
    probe::{
        self, Context, Layer, Reason, Refusal, Stage,
        classify::{self, classify},
        http::Answer,
    },
    queue,
    telemetry::traces::Span,
};

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Where.
    pub layer: Layer,
    /// The constant.
    pub reason: Reason,
    /// Whether the client certificate was refused.
    pub refusal: Refusal,
    /// What a person is told; never a body, a header or the URL.
    pub message: String,
    /// How long the server asks to wait.
    pub retry_after: Option<Duration>,
    /// What it answered.
    pub response: Option<queue::Response>,
}

impl Failure {
    /// Status of the answer, where there was one.
    pub fn status(&self) -> Option<u16> {
        self.response.as_ref().map(|response| response.status)
    }
}

impl From<classify::Failure> for Failure {
    fn from(failure: classify::Failure) -> Self {
        let classify::Failure { layer, reason, refusal, message, .. } = failure;
        Self { layer, reason, refusal, message, retry_after: None, response: None }
    }
}

/// Sends an event; `Ok` is the 2xx that acknowledged it.
pub(super) async fn attempt(
    target: &Target,
    client: &Client,
    event: &Event,
    now: Timestamp,
    deadline: Instant,
) -> Result<StatusCode, Failure> {
    let sender = TraceContext::of_event(&event.attributes);
    let mut span = Span::client("deliver", sender.as_ref(), &event.webhook, &target.url);
    let result = send_in(target, client, event, span.context().or(sender), now, deadline).await;
    tell(&mut span, event, &result);
    result
}

/// How an attempt ended, and with what.
fn tell(span: &mut Span, event: &Event, result: &Result<StatusCode, Failure>) {
    if !span.is_recorded() {
        return;
    }
    span.set("http.request.method", "POST");
    span.set("messaging.message.id", event.id.to_string());
    for (name, attribute) in [("cloudevents.event_id", "id"), ("cloudevents.event_type", "type")] {
        if let Some(value) = event.attributes.get(attribute) {
            span.set(name, value.clone());
        }
    }
    let status = match result {
        Ok(status) => Some(status.as_u16()),
        Err(failure) => {
            span.failed(failure.reason.as_str(), &failure.message);
            failure.status()
        }
    };
    if let Some(status) = status {
        span.set("http.response.status_code", i64::from(status));
    }
}

/// Sends it as a part of a trace.
async fn send_in(
    target: &Target,
    client: &Client,
    event: &Event,
    trace: Option<TraceContext<'_>>,
    now: Timestamp,
    deadline: Instant,
) -> Result<StatusCode, Failure> {
    let mut headers =
        event::http::write(event).map_err(|_| not_sendable("an attribute cannot be sent as a header"))?;
    let id = event.id.to_string();
    let value = HeaderValue::from_str(&id);
    headers.insert("webhook-id", value.map_err(|_| not_sendable("the id cannot be sent as a header"))?);
    headers.insert("webhook-timestamp", HeaderValue::from(now.as_second()));
    let authorizer = &target.authorizer;
    authorizer.add_to(&mut headers, &id, now, &event.body).map_err(not_sendable)?;
    // What the webhook itself says of a trace is what was asked for.
    if let Some(trace) = trace.filter(|_| !TraceContext::is_said(&headers)) {
        trace.set_request(&mut headers);
    }
    let Some(tokens) = authorizer.tokens() else {
        return send(target, client, headers, event, now, deadline).await;
    };
    let mut token = tokens.get(now).await?;
    headers.insert(AUTHORIZATION, token.header());
    let mut result = send(target, client, headers.clone(), event, now, deadline).await;
    let unauthorized = |failure: &Failure| failure.status() == Some(StatusCode::UNAUTHORIZED.as_u16());
    if result.as_ref().is_err_and(unauthorized) && tokens.refused(&token, now) {
        token = tokens.get(now).await?;
        headers.insert(AUTHORIZATION, token.header());
        result = send(target, client, headers, event, now, deadline).await;
    }
    if result.is_ok() {
        tokens.taken(&token);
    }
    result
}

async fn send(
    target: &Target,
    client: &Client,
    headers: HeaderMap,
    event: &Event,
    now: Timestamp,
    deadline: Instant,
) -> Result<StatusCode, Failure> {
    let handshakes = client.handshakes();
    let response = match timeout_at(deadline, client.post(&target.url, headers, event.body.clone())).await {
        Ok(Ok(response)) => response,
        Ok(Err(error @ SendError::Request(_))) => return Err(not_sendable(&error.to_string())),
        Ok(Err(error)) => return Err(classify(&error, context(client, handshakes)).into()),
        Err(late) => return Err(classify(&late, context(client, handshakes)).into()),
    };
    let (status, retry_after) = (response.status(), retry_after(&response, now));
    if status.is_success() {
        drain(response, deadline).await;
        return Ok(status);
    }
    let headers = response.headers().clone();
    let body = drain(response, deadline).await;
    let answer = Answer { status: status.as_u16(), headers: &headers, body: &body };
    let refused = probe::http::refused(&answer, context(client, handshakes));
    let failure =
        refused.map_or_else(|| http_failure(Reason::HttpStatus, &format!("HTTP {status}")), Failure::from);
    // An endpoint may repeat what it was sent, and dead letters are read by others.
    let kept = if target.authorizer.adds_secrets() { 0 } else { limits::DEAD_RESPONSE_BYTES };
    let body = body[..body.len().min(kept)].to_vec();
    let response = Some(queue::Response { status: status.as_u16(), body });
    Err(Failure { retry_after, response, ..failure })
}

fn not_sendable(message: &str) -> Failure {
    http_failure(Reason::HttpFailed, message)
}

fn http_failure(reason: Reason, message: &str) -> Failure {
    let (layer, refusal, message) = (Layer::Http, Refusal::No, message.to_owned());
    Failure { layer, reason, refusal, message, retry_after: None, response: None }
}

/// What was seen of the connection. Whether it was a fresh one shows in the handshakes of the client: with
/// others under way at the same time it may be theirs, which costs an attempt with another certificate.
fn context(client: &Client, handshakes_before: usize) -> Context {
    let fresh = client.handshakes() > handshakes_before;
    Context {
        presented: client.identity().is_some(),
        requested: Some(client.certificate_requested()),
        stage: if fresh { Stage::Request } else { Stage::Answered },
    }
}

/// Reads what is left of a response, so that its connection can be used again; a large one is not worth it.
/// Returns the first bytes, by which a refusal can be told.
async fn drain(mut response: Response, deadline: Instant) -> Vec<u8> {
    let (mut first, mut read) = (Vec::new(), 0);
    while let Ok(Some(Ok(frame))) = timeout_at(deadline, response.frame()).await {
        let chunk = frame.data_ref().map_or(&[][..], |data| data);
        let room = limits::PROBE_BODY_BYTES - first.len();
        first.extend_from_slice(&chunk[..chunk.len().min(room)]);
        read += chunk.len();
        if read > limits::RESPONSE_BYTES {
            break;
        }
    }
    first
}

/// RFC 9110, 10.2.3: seconds, or a date.
fn retry_after(response: &Response, now: Timestamp) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = value.parse().ok().map(Duration::from_secs);
    seconds.or_else(|| {
        let date = Timestamp::try_from(httpdate::parse_http_date(value).ok()?).ok()?;
        Duration::try_from(date.duration_since(now)).ok()
    })
}
