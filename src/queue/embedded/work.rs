//! One transaction: the changes that share a commit, and what they come to.

mod append;
mod dead;
mod expire;
mod settle;

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, Transaction};
use uuid::Uuid;

use super::{
    super::{Amount, Counts, Expired, Filter, QueueError, Sequence, Settlement},
    Books,
    books::Webhook,
    seen::{self, Seen},
    volume::{Size, Volume},
};
use crate::{
    event::{Event, WebhookKey},
    limits,
};

pub(super) enum Change {
    Append(Vec<Event>),
    Settle {
        webhook: WebhookKey,
        settlements: Vec<(Sequence, Settlement)>,
    },
    GiveUp(Box<GiveUp>),
    BringForward {
        webhook: WebhookKey,
        now: Timestamp,
    },
    Replay {
        webhook: WebhookKey,
        filter: Filter,
        now: Timestamp,
    },
    RemoveDead {
        webhook: WebhookKey,
        filter: Filter,
    },
    Present {
        namespace: Option<String>,
        webhooks: Vec<WebhookKey>,
        now: Timestamp,
    },
    Expire {
        gone_before: Timestamp,
        dead_before: Timestamp,
    },
    /// Shows that something can be written.
    Prove,
}

impl Change {
    /// How many events it writes, and their bodies.
    pub(super) fn weight(&self) -> (usize, usize) {
        match self {
            Self::Append(events) => (events.len(), events.iter().map(|event| event.body.len()).sum()),
            Self::Settle { settlements, .. } => (settlements.len(), 0),
            // A bounded number each, and seldom.
            Self::GiveUp(_) | Self::Replay { .. } | Self::RemoveDead { .. } | Self::Expire { .. } => {
                (limits::EXPIRED_AT_ONCE, 0)
            }
            Self::BringForward { .. } | Self::Present { .. } | Self::Prove => (1, 0),
        }
    }
}

/// Of a webhook, what was taken before a time, but what is claimed.
pub(super) struct GiveUp {
    pub(super) webhook: WebhookKey,
    pub(super) taken_before: Timestamp,
    pub(super) settlement: Settlement,
    pub(super) claimed: HashSet<Sequence>,
}

/// What a change came to.
#[derive(Debug)]
pub(super) enum Outcome {
    Done,
    Ids(Vec<Uuid>),
    Count(u64),
    Expired(Expired),
}

impl Outcome {
    pub(super) fn ids(self) -> Vec<Uuid> {
        if let Self::Ids(ids) = self { ids } else { Vec::new() }
    }

    pub(super) fn count(self) -> u64 {
        if let Self::Count(count) = self { count } else { 0 }
    }

    pub(super) fn expired(self) -> Expired {
        if let Self::Expired(expired) = self { expired } else { Expired::default() }
    }
}

/// What the queue may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Waiting, for each webhook.
    pub(super) pending: Amount,
    /// Waiting, in all.
    pub(super) pending_in_all: Amount,
    /// Given up, for each webhook.
    pub(super) dead: Amount,
    /// Of the file, in all.
    pub(super) file_bytes: i64,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            pending: Amount { events: limits::PENDING_EVENTS, bytes: limits::PENDING_BYTES },
            pending_in_all: Amount { events: limits::PENDING_EVENTS_IN_ALL, bytes: limits::QUEUE_BYTES },
            dead: Amount { events: limits::DEAD_EVENTS, bytes: limits::DEAD_BYTES },
            file_bytes: limits::QUEUE_BYTES,
        }
    }
}

/// A webhook as a transaction leaves it.
struct Touched {
    webhook: Webhook,
    /// It may have more to claim.
    woken: bool,
    /// Its row goes.
    removed: bool,
    /// Dead letters that made room for others.
    dropped: u64,
}

/// One transaction. What it comes to is in the books once it is committed.
pub(super) struct Work<'a> {
    transaction: Transaction<'a>,
    books: &'a Books,
    seen: &'a Seen,
    room: &'a Room,
    volume: &'a Volume,
    seen_changes: seen::Changes,
    webhooks: HashMap<WebhookKey, Touched>,
    /// Of all webhooks.
    pending: Amount,
    /// Of the file, once it has been asked for.
    size: Option<Size>,
    woken: Vec<WebhookKey>,
    log_pages: i64,
}

/// What a transaction came to.
pub(super) struct Committed {
    /// The webhooks as they are now; those that have gone are `None`.
    pub(super) webhooks: Vec<(WebhookKey, Option<Webhook>)>,
    /// Of all webhooks.
    pub(super) pending: Amount,
    /// Of the file as it began, bytes, where that was asked for.
    pub(super) used: Option<i64>,
    /// What was taken.
    pub(super) seen: seen::Changes,
    /// Webhooks that may have more to claim.
    pub(super) woken: Vec<WebhookKey>,
    /// Estimate of what it added to the log.
    pub(super) log_pages: i64,
}

/// A row that was changed: its size, its key, whether it was given up.
struct Row {
    amount: Amount,
    key: Option<String>,
    dead: bool,
}

const ROW: &str = "octet_length(attributes) + octet_length(body), key, dead_ms IS NOT NULL";

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok(Row { amount: Amount::one(row.get(0)?), key: row.get(1)?, dead: row.get(2)? })
}

impl<'a> Work<'a> {
    pub(super) fn begin(
        transaction: Transaction<'a>,
        books: &'a Books,
        seen: &'a Seen,
        room: &'a Room,
        volume: &'a Volume,
    ) -> Self {
        let pending = books.open().pending;
        Self {
            transaction,
            books,
            seen,
            room,
            volume,
            seen_changes: seen.begin(),
            webhooks: HashMap::new(),
            pending,
            size: None,
            woken: Vec::new(),
            log_pages: 0,
        }
    }

    pub(super) fn commit(mut self) -> Result<Committed, QueueError> {
        let webhooks = self.write_webhooks()?;
        self.seen_changes.forget(self.seen, &self.transaction)?;
        let Self { transaction, pending, size, seen_changes, woken, log_pages, .. } = self;
        transaction.commit()?;
        Ok(Committed {
            webhooks,
            pending,
            used: size.map(|size| size.used),
            seen: seen_changes,
            woken,
            log_pages,
        })
    }

    /// The inner result is a refusal that wrote nothing.
    pub(super) fn apply(&mut self, change: &Change) -> Result<Result<Outcome, QueueError>, QueueError> {
        Ok(Ok(match change {
            Change::Append(events) => match self.append(events)? {
                Ok(ids) => Outcome::Ids(ids),
                Err(refused) => return Ok(Err(refused)),
            },
            Change::Settle { webhook, settlements } => {
                for (sequence, settlement) in settlements {
                    self.settle(webhook, *sequence, settlement)?;
                }
                Outcome::Done
            }
            Change::GiveUp(wanted) => Outcome::Count(self.give_up(wanted)?),
            Change::BringForward { webhook, now } => {
                self.bring_forward(webhook, *now)?;
                Outcome::Done
            }
            Change::Replay { webhook, filter, now } => Outcome::Count(self.replay(webhook, filter, *now)?),
            Change::RemoveDead { webhook, filter } => Outcome::Count(self.remove_dead(webhook, filter)?),
            Change::Present { namespace, webhooks, now } => {
                self.present(namespace.as_ref(), webhooks, *now);
                Outcome::Done
            }
            Change::Expire { gone_before, dead_before } => {
                Outcome::Expired(self.expire(*gone_before, *dead_before)?)
            }
            Change::Prove => {
                self.prove()?;
                Outcome::Done
            }
        }))
    }

    /// The webhook, as this transaction has it; `None` for one without a row.
    fn webhook(&mut self, key: &WebhookKey) -> Option<&mut Touched> {
        if !self.webhooks.contains_key(key) {
            let webhook = *self.books.open().webhooks.get(key)?;
            self.webhooks.insert(key.clone(), Touched { webhook, woken: false, removed: false, dropped: 0 });
        }
        self.webhooks.get_mut(key).filter(|touched| !touched.removed)
    }

    fn webhook_or_new(&mut self, key: &WebhookKey) -> Result<&mut Touched, QueueError> {
        if self.webhook(key).is_none() {
            let id = self.seen_changes.number_of_webhook();
            self.transaction
                .prepare_cached("INSERT INTO webhook (id, namespace, name) VALUES (?1, ?2, ?3)")?
                .execute((id, &key.namespace, &key.name))?;
            let webhook = Webhook { id, ..Webhook::default() };
            self.webhooks.insert(key.clone(), Touched { webhook, woken: false, removed: false, dropped: 0 });
        }
        self.webhooks.get_mut(key).ok_or(QueueError::Closed)
    }

    fn count(&mut self, key: &WebhookKey, change: Counts) {
        self.pending.add(change.pending);
        if let Some(touched) = self.webhook(key) {
            touched.webhook.counts.add(change);
        }
    }

    /// Removes an event, whatever its state.
    fn remove(&mut self, key: &WebhookKey, sequence: Sequence) -> Result<(), QueueError> {
        let removed = self
            .transaction
            .prepare_cached(&format!("DELETE FROM event WHERE sequence = ?1 RETURNING {ROW}"))?
            .query_row([sequence], row)
            .optional()?;
        if let Some(removed) = removed {
            self.log_pages += 3;
            let mut change = Counts::default();
            *(if removed.dead { &mut change.dead } else { &mut change.pending }) = removed.amount.less();
            self.count(key, change);
            if !removed.dead {
                // Its webhook may come back before the rest is removed.
                self.unblock(key, &removed)?;
            }
        }
        Ok(())
    }

    /// Writes a page of the file as it was.
    fn prove(&mut self) -> Result<(), QueueError> {
        let version: i64 = self.transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        self.transaction.pragma_update(None, "user_version", version)?;
        self.log_pages += 1;
        Ok(())
    }

    /// Writes the rows of the webhooks that were touched; returns what they are now.
    fn write_webhooks(&mut self) -> Result<Vec<(WebhookKey, Option<Webhook>)>, QueueError> {
        let mut update = self.transaction.prepare_cached(
            "UPDATE webhook SET pending_events = ?2, pending_bytes = ?3, dead_events = ?4, dead_bytes = ?5,
                    delivered = ?6, gone_ms = ?7 WHERE id = ?1",
        )?;
        let mut written = Vec::with_capacity(self.webhooks.len());
        for (key, touched) in self.webhooks.drain() {
            if touched.woken {
                self.woken.push(key.clone());
            }
            if touched.dropped > 0 {
                let events = touched.dropped;
                tracing::error!(webhook = %key, events, "the oldest events that were given up are gone: there are too many of their webhook");
            }
            if touched.removed {
                written.push((key, None));
                continue;
            }
            let Webhook { id, counts: Counts { pending, dead, delivered }, gone_since } = touched.webhook;
            let gone_ms = gone_since.map(Timestamp::as_millisecond);
            update.execute((
                id,
                pending.events,
                pending.bytes,
                dead.events,
                dead.bytes,
                delivered,
                gone_ms,
            ))?;
            written.push((key, Some(touched.webhook)));
        }
        Ok(written)
    }
}
