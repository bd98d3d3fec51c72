//! One attempt: a POST in CloudEvents binary mode with the headers of Standard Webhooks.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::{
    Response, StatusCode,
    header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER},
};

use super::{Client, Target};
use crate::{
    event::{Event, http},
    limits,
    probe::{
        self, Context, Layer, Reason, Refusal, Stage,
        classify::{self, classify},
        http::Answer,
    },
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
    /// What the endpoint answered, where it did.
    pub status: Option<StatusCode>,
    /// How long the server asks to wait.
    pub retry_after: Option<Duration>,
}

impl From<classify::Failure> for Failure {
    fn from(failure: classify::Failure) -> Self {
        let classify::Failure { layer, reason, refusal, message, .. } = failure;
        Self { layer, reason, refusal, message, status: None, retry_after: None }
    }
}

/// Sends an event; `Ok` is the 2xx that acknowledged it.
pub(super) async fn attempt(
    target: &Target,
    client: &Client,
    event: &Event,
    now: Timestamp,
) -> Result<StatusCode, Failure> {
    let mut headers =
        http::write(event).map_err(|_| not_sendable("an attribute cannot be sent as a header"))?;
    let id = event.id.to_string();
    let value = HeaderValue::from_str(&id);
    headers.insert("webhook-id", value.map_err(|_| not_sendable("the id cannot be sent as a header"))?);
    headers.insert("webhook-timestamp", HeaderValue::from(now.as_second()));
    let authorizer = &target.authorizer;
    authorizer.add_to(&mut headers, &id, now, &event.body).map_err(not_sendable)?;
    let Some(tokens) = authorizer.tokens() else { return send(target, client, headers, event).await };
    let mut token = tokens.get(now).await?;
    headers.insert(AUTHORIZATION, token.header());
    let mut result = send(target, client, headers.clone(), event).await;
    let unauthorized = |failure: &Failure| failure.status == Some(StatusCode::UNAUTHORIZED);
    if result.as_ref().is_err_and(unauthorized) && tokens.refused(&token, now) {
        token = tokens.get(now).await?;
        headers.insert(AUTHORIZATION, token.header());
        result = send(target, client, headers, event).await;
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
) -> Result<StatusCode, Failure> {
    let handshakes = client.handshakes();
    let request = client
        .http()
        .post(target.url.clone())
        .timeout(target.timeout)
        .headers(headers)
        .body(event.body.clone());
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) => return Err(classify(&error, context(client, handshakes)).into()),
    };
    let (status, retry_after) = (response.status(), retry_after(&response));
    if status.is_success() {
        drain(response).await;
        return Ok(status);
    }
    let headers = response.headers().clone();
    let body = drain(response).await;
    let answer = Answer { status: status.as_u16(), headers: &headers, body: &body };
    if let Some(refused) = probe::http::refused(&answer, context(client, handshakes)) {
        return Err(Failure { status: Some(status), retry_after, ..refused.into() });
    }
    let message = format!("HTTP {status}");
    let (layer, reason, refusal) = (Layer::Http, Reason::HttpStatus, Refusal::No);
    Err(Failure { layer, reason, refusal, message, status: Some(status), retry_after })
}

fn not_sendable(message: &str) -> Failure {
    Failure {
        layer: Layer::Http,
        reason: Reason::HttpFailed,
        refusal: Refusal::No,
        message: message.to_owned(),
        status: None,
        retry_after: None,
    }
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
async fn drain(mut response: Response) -> Vec<u8> {
    let (mut first, mut read) = (Vec::new(), 0);
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = limits::PROBE_BODY_BYTES - first.len();
        first.extend_from_slice(&chunk[..chunk.len().min(room)]);
        read += chunk.len();
        if read > limits::RESPONSE_BYTES {
            break;
        }
    }
    first
}

/// RFC 9110, 10.2.3, in seconds.
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}
