//! Dead letters over HTTP: listed, sent again, removed.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    routing::{get, post},
};
use data_encoding::BASE64;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{DEAD_LETTERS, Ingest, REPLAY, Webhooks, known, problem::Refused};
use crate::{
    clock::Clock,
    event::WebhookKey,
    limits,
    queue::{DeadLetter, Filter, Queue, Sequence},
};

pub(super) fn routes<Q: Queue, W: Webhooks, C: Clock>() -> Router<Arc<Ingest<Q, W, C>>> {
    let letters = get(list::<Q, W, C>).delete(remove::<Q, W, C>);
    Router::new().route(DEAD_LETTERS, letters).route(REPLAY, post(replay::<Q, W, C>))
}

/// Which ones, in the query: all that is given has to hold.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Which {
    /// Ids, with commas between them.
    ids: Option<String>,
    /// The reason for which they were given up.
    reason: Option<String>,
    /// Given up before this time, RFC 3339.
    before: Option<Timestamp>,
    /// Of a list: what comes after this place.
    after: Option<Sequence>,
    /// Of a list: so many.
    limit: Option<usize>,
}

impl Which {
    /// For what concerns all that is chosen: part of a list is none of its words.
    fn filter_of_all(&self) -> Result<Filter, Refused> {
        if self.after.is_some() || self.limit.is_some() { Err(Refused::OfAList) } else { self.filter() }
    }

    fn filter(&self) -> Result<Filter, Refused> {
        let ids =
            self.ids.as_ref().map(|ids| ids.split(',').map(Uuid::try_parse).collect::<Result<Vec<_>, _>>());
        let ids = ids.transpose().map_err(|_| Refused::NotAnId)?;
        if ids.as_ref().is_some_and(|ids| ids.len() > limits::DEAD_IDS) {
            return Err(Refused::TooManyIds);
        }
        Ok(Filter { ids, reason: self.reason.clone(), before: self.before })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List {
    items: Vec<Item>,
    /// For `after`, where there is anything: there may be more.
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    next: Option<Sequence>,
}

/// A dead letter.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    id: Uuid,
    accepted_at: Timestamp,
    dead_at: Timestamp,
    failures: u32,
    reason: String,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<Response>,
    attributes: std::collections::BTreeMap<String, String>,
    data_base64: String,
}

/// The last response, its body as far as it is kept.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    status: u16,
    body: String,
}

impl From<DeadLetter> for Item {
    fn from(letter: DeadLetter) -> Self {
        let DeadLetter { dead_at, failures, cause, event, .. } = letter;
        let response = cause.response.map(|response| Response {
            status: response.status,
            body: String::from_utf8_lossy(&response.body).into_owned(),
        });
        Self {
            id: event.id,
            accepted_at: event.accepted_at,
            dead_at,
            failures,
            reason: cause.reason,
            message: cause.message,
            response,
            attributes: event.attributes,
            data_base64: BASE64.encode(&event.body),
        }
    }
}

/// How many it were.
#[derive(Serialize)]
struct Count {
    count: u64,
}

type Shared<Q, W, C> = State<Arc<Ingest<Q, W, C>>>;

async fn list<Q: Queue, W: Webhooks, C: Clock>(
    State(ingest): Shared<Q, W, C>,
    webhook: WebhookKey,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<List>, Refused> {
    known(&*ingest.webhooks, &webhook)?;
    let Query(which) = which?;
    let limit = which.limit.unwrap_or(limits::CLAIM_EVENTS).clamp(1, limits::CLAIM_EVENTS);
    let letters = ingest.queue.dead(&webhook, which.filter()?, which.after.unwrap_or(0), limit).await?;
    let next = letters.last().map(|letter| letter.sequence);
    Ok(Json(List { items: letters.into_iter().map(Item::from).collect(), next }))
}

async fn replay<Q: Queue, W: Webhooks, C: Clock>(
    State(ingest): Shared<Q, W, C>,
    webhook: WebhookKey,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<Count>, Refused> {
    known(&*ingest.webhooks, &webhook)?;
    let Query(which) = which?;
    let now = ingest.clock.now();
    // Not those that are given up again meanwhile.
    let filter = which.filter_of_all()?.before(now);
    let mut count = 0;
    loop {
        let replayed = ingest.queue.replay(&webhook, filter.clone(), now).await?;
        count += replayed;
        if replayed == 0 {
            return Ok(Json(Count { count }));
        }
    }
}

async fn remove<Q: Queue, W: Webhooks, C: Clock>(
    State(ingest): Shared<Q, W, C>,
    webhook: WebhookKey,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<Count>, Refused> {
    known(&*ingest.webhooks, &webhook)?;
    let Query(which) = which?;
    let filter = which.filter_of_all()?.before(ingest.clock.now());
    let mut count = 0;
    loop {
        let removed = ingest.queue.remove_dead(&webhook, filter.clone()).await?;
        count += removed;
        if removed == 0 {
            tracing::info!(%webhook, count, "dead letters were removed, as was asked for");
            return Ok(Json(Count { count }));
        }
    }
}
