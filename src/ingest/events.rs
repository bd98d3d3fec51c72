//! Events over HTTP: for one webhook, or for all of a namespace that take them.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::ALLOW},
    response::{IntoResponse, Response},
    routing::post,
};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::{EVENTS, EVENTS_OF_NAMESPACE, Ingest, Known, Shared, Target, Webhooks, known, problem::Refused};
use crate::{
    clock::Clock,
    event::{Event, WebhookKey, http},
    limits,
    queue::Queue,
};

pub(super) fn routes<Q: Queue, W: Webhooks, C: Clock>() -> Router<Arc<Ingest<Q, W, C>>> {
    let one = post(to_one::<Q, W, C>).options(validate);
    let all = post(to_all::<Q, W, C>).options(validate);
    Router::new().route(EVENTS, one).route(EVENTS_OF_NAMESPACE, all)
}

async fn to_one<Q: Queue, W: Webhooks, C: Clock>(
    State(ingest): Shared<Q, W, C>,
    webhook: WebhookKey,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refused> {
    let takes = known(&*ingest.webhooks, &webhook)?;
    let WebhookKey { namespace, name } = &webhook;
    let source = format!("/namespaces/{namespace}/outboundwebhooks/{name}");
    let now = ingest.clock.now();
    let messages = http::read(&headers, &body, &source, now)?;
    if let Some(message) = messages.iter().find(|message| !takes.events.take(message.event_type())) {
        let event_type = message.event_type().to_owned();
        return Err(Refused::NotTaken { webhook, event_type });
    }
    let to = |message: http::Message| message.into_event(webhook.clone(), takes.ordered, now);
    let events: Vec<_> = messages.into_iter().map(to).collect();
    let ids = keep(&ingest, events).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "ids": ids }))).into_response())
}

/// An event that was taken for a webhook.
#[derive(Serialize)]
struct Taken {
    webhook: String,
    id: Uuid,
}

async fn to_all<Q: Queue, W: Webhooks, C: Clock>(
    State(ingest): Shared<Q, W, C>,
    Target { namespace, .. }: Target,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refused> {
    // As of now: one that is made later gets none of what came before.
    let webhooks = match ingest.webhooks.of_namespace(&namespace) {
        Known::Yes(webhooks) => webhooks,
        Known::No => Vec::new(),
        Known::NotYet => return Err(Refused::NotReady),
    };
    let now = ingest.clock.now();
    let source = format!("/namespaces/{namespace}");
    let messages = http::read(&headers, &body, &source, now)?;
    // Bounded by what it comes to, before any of it is made.
    let (mut takers, mut bytes) = (Vec::new(), 0);
    for message in &messages {
        let of_each = message.bytes();
        for (webhook, takes) in webhooks.iter().filter(|(_, takes)| takes.events.take(message.event_type())) {
            bytes += of_each;
            if bytes > limits::FAN_OUT_BYTES || takers.len() == limits::FAN_OUT_EVENTS {
                return Err(Refused::FansOutTooFar(webhooks.len()));
            }
            takers.push((message, webhook, takes.ordered));
        }
    }
    let events: Vec<_> = takers
        .into_iter()
        .map(|(message, webhook, ordered)| message.to_event(webhook.clone(), ordered, now))
        .collect();
    let names: Vec<_> = events.iter().map(|event| event.webhook.name.clone()).collect();
    let ids = keep(&ingest, events).await?;
    let taken: Vec<_> = names.into_iter().zip(ids).map(|(webhook, id)| Taken { webhook, id }).collect();
    Ok((StatusCode::ACCEPTED, Json(json!({ "events": taken }))).into_response())
}

/// Their ids, once they are on disk; where there are none, nothing is waited for.
async fn keep<Q: Queue, W, C>(ingest: &Ingest<Q, W, C>, events: Vec<Event>) -> Result<Vec<Uuid>, Refused> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let ids = ingest.queue.append(events).await?;
    ingest.metrics.accepted(ids.len());
    Ok(ids)
}

const REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");
const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");

/// The validation of "HTTP 1.1 Web Hooks for Event Delivery", section 4: a sender asks whether it may send. Who may
/// is not a matter of where it comes from, so all origins may, at any rate.
async fn validate(_: Target, headers: HeaderMap) -> (StatusCode, HeaderMap) {
    let mut answer = HeaderMap::new();
    answer.insert(ALLOW, HeaderValue::from_static("OPTIONS, POST"));
    if headers.contains_key(REQUEST_ORIGIN) {
        answer.insert(ALLOWED_ORIGIN, HeaderValue::from_static("*"));
        answer.insert(ALLOWED_RATE, HeaderValue::from_static("*"));
    }
    (StatusCode::OK, answer)
}
