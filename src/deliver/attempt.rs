//! One attempt: a POST in CloudEvents binary mode with the headers of Standard Webhooks.

use std::{error::Error as _, time::Duration};

use jiff::Timestamp;
use reqwest::{
    Response, StatusCode,
    header::{HeaderValue, RETRY_AFTER},
};

use super::Target;
use crate::{
    event::{Event, http},
    limits,
};

/// Where an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The host's name could not be resolved.
    Dns,
    /// No connection, or it broke.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// The server answered, and not with 2xx.
    Http,
    /// The attempt took too long.
    Timeout,
    /// The event cannot be sent.
    Event,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Failure {
    /// Where.
    pub layer: Layer,
    /// What a person is told; never a body, a header or the URL.
    pub detail: String,
    /// How long the server asks to wait.
    pub retry_after: Option<Duration>,
}

impl Failure {
    fn new(layer: Layer, detail: impl Into<String>) -> Self {
        Self { layer, detail: detail.into(), retry_after: None }
    }
}

/// Sends an event; `Ok` is the 2xx that acknowledged it.
pub(super) async fn attempt(target: &Target, event: &Event, now: Timestamp) -> Result<StatusCode, Failure> {
    let mut headers = http::write(event)
        .map_err(|_| Failure::new(Layer::Event, "an attribute cannot be sent as a header"))?;
    let id = HeaderValue::from_str(&event.id.to_string());
    headers.insert("webhook-id", id.map_err(|_| Failure::new(Layer::Event, "the id cannot be sent"))?);
    headers.insert("webhook-timestamp", HeaderValue::from(now.as_second()));
    let request = target
        .client
        .http()
        .post(target.url.clone())
        .timeout(target.timeout)
        .headers(headers)
        .body(event.body.clone());
    let response = request.send().await.map_err(|error| classify(&error))?;
    let (status, retry_after) = (response.status(), retry_after(&response));
    drain(response).await;
    if status.is_success() {
        return Ok(status);
    }
    Err(Failure { layer: Layer::Http, detail: format!("HTTP {status}"), retry_after })
}

/// Reads what is left of a response, so that its connection can be used again; a large one is not worth it.
async fn drain(mut response: Response) {
    let mut read = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        read += chunk.len();
        if read > limits::RESPONSE_BYTES {
            return;
        }
    }
}

/// RFC 9110, 10.2.3, in seconds.
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

fn classify(error: &reqwest::Error) -> Failure {
    let mut sources = Vec::new();
    let mut next = error.source();
    while let Some(source) = next {
        sources.push(source);
        next = source.source();
    }
    if let Some(tls) = sources.iter().find_map(|source| tls_error(*source)) {
        return Failure::new(Layer::Tls, format!("TLS: {tls}"));
    }
    if error.is_timeout() {
        return Failure::new(Layer::Timeout, "no answer in time");
    }
    // The last source is the system's word; reqwest's own text would repeat the URL.
    let root = sources.last().map_or_else(|| "the request failed".to_owned(), ToString::to_string);
    let resolving = sources.iter().any(|source| source.to_string().contains("dns error"));
    Failure::new(if resolving { Layer::Dns } else { Layer::Connect }, root)
}

fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    match inner {
        Some(inner) => inner.downcast_ref(),
        None => error.downcast_ref(),
    }
}
