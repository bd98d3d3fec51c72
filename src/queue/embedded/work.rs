//! One transaction: the changes that share a commit, and what they come to.

mod dead;

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, Transaction, named_params};
use uuid::Uuid;

use super::{
    super::{Amount, Counts, Expired, Filter, QueueError, Sequence, Settlement},
    Books,
    books::Webhook,
    seen::{self, Seen},
    volume::{PAGE_BYTES, Size, Volume},
};
use crate::{
    event::{Event, SenderKey, WebhookKey},
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

/// Estimate of what an event that comes adds to the log.
fn pages(amount: Amount) -> i64 {
    4 + amount.bytes / PAGE_BYTES
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

    /// All events or none, and their ids: the inner result is a refusal that wrote nothing.
    fn append(&mut self, events: &[Event]) -> Result<Result<Vec<Uuid>, QueueError>, QueueError> {
        let mut ids = Vec::with_capacity(events.len());
        let mut rows = Vec::with_capacity(events.len());
        let mut added: HashMap<&WebhookKey, Amount> = HashMap::new();
        let mut named: HashMap<(&WebhookKey, SenderKey), Uuid> = HashMap::new();
        let mut in_all = self.pending;
        for event in events {
            let sender_key = event.sender_key();
            if let Some(key) = sender_key {
                let taken = match named.get(&(&event.webhook, key)) {
                    Some(id) => Some(*id),
                    None => self.taken_before(event, key)?,
                };
                if let Some(id) = taken {
                    ids.push(id);
                    continue;
                }
                named.insert((&event.webhook, key), event.id);
            }
            let attributes = serde_json::to_string(&event.attributes)
                .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
            let amount = Amount::one(i64::try_from(attributes.len() + event.body.len()).unwrap_or(i64::MAX));
            added.entry(&event.webhook).or_default().add(amount);
            in_all.add(amount);
            ids.push(event.id);
            rows.push((event, sender_key, attributes, amount));
        }
        // Only what comes in is refused for want of room: what leaves has to be recorded in any case.
        let size = match self.size {
            Some(size) => size,
            None => Size::read(&self.transaction, self.volume)?,
        };
        self.size = Some(size);
        let log_pages = self.log_pages + rows.iter().map(|(.., amount)| pages(*amount)).sum::<i64>();
        let log_bytes = log_pages * PAGE_BYTES;
        let room = self.room;
        let fits = added.iter().all(|(webhook, added)| {
            let mut after =
                self.webhook(webhook).map(|touched| touched.webhook.counts.pending).unwrap_or_default();
            after.add(*added);
            after.is_within(room.pending)
        });
        if !rows.is_empty()
            && (!fits || size.used + log_bytes > room.file_bytes || !in_all.is_within(room.pending_in_all))
        {
            return Ok(Err(QueueError::Full));
        }
        if !rows.is_empty() && !size.has_room_for(log_bytes) {
            return Ok(Err(QueueError::NoSpace));
        }
        for (event, sender_key, attributes, amount) in rows {
            let touched = self.webhook_or_new(&event.webhook)?;
            touched.woken = true;
            touched.webhook.counts.pending.add(amount);
            let webhook = touched.webhook.id;
            self.pending.add(amount);
            self.insert(webhook, event, &attributes)?;
            if let Some(key) = sender_key {
                let at = event.accepted_at;
                self.seen_changes.take(&self.transaction, (webhook, key), event.id, at)?;
            }
        }
        self.log_pages = log_pages;
        Ok(Ok(ids))
    }

    /// The id of an event that was taken lately and that its sender calls the same.
    fn taken_before(&mut self, event: &Event, key: SenderKey) -> Result<Option<Uuid>, QueueError> {
        let Some(webhook) = self.webhook(&event.webhook).map(|touched| touched.webhook.id) else {
            return Ok(None);
        };
        let since = seen::forgotten_before(event.accepted_at);
        self.seen_changes.find(self.seen, &self.transaction, (webhook, key), since)
    }

    fn insert(&self, webhook: i64, event: &Event, attributes: &str) -> Result<(), QueueError> {
        self.transaction
            .prepare_cached(
                "INSERT INTO event (webhook, id, accepted_ms, due_ms, attributes, body, key, blocked)
                 VALUES (:webhook, :id, :accepted_ms, :accepted_ms, :attributes, :body, :key, :key IS NOT NULL AND EXISTS
                     (SELECT 1 FROM event WHERE webhook = :webhook AND key = :key AND dead_ms IS NULL))",
            )?
            .execute(named_params! {
                ":webhook": webhook,
                ":id": event.id.as_bytes(),
                ":accepted_ms": event.accepted_at.as_millisecond(),
                ":attributes": attributes,
                ":body": &*event.body,
                ":key": event.key,
            })?;
        Ok(())
    }

    /// Writes what became of an event that waits; one that is gone already stays so.
    fn settle(
        &mut self,
        webhook: &WebhookKey,
        sequence: Sequence,
        settlement: &Settlement,
    ) -> Result<(), QueueError> {
        self.log_pages += 3;
        match settlement {
            Settlement::Retry { since, due_at } => {
                self.transaction
                    .prepare_cached(
                        "UPDATE event
                         SET due_ms = ?3, failures = failures + 1, failing_ms = coalesce(failing_ms, ?2)
                         WHERE sequence = ?1 AND dead_ms IS NULL",
                    )?
                    .execute((sequence, since.as_millisecond(), due_at.as_millisecond()))?;
            }
            Settlement::Delivered => {
                let delivered = self
                    .transaction
                    .prepare_cached(&format!(
                        "DELETE FROM event WHERE sequence = ?1 AND dead_ms IS NULL RETURNING {ROW}"
                    ))?
                    .query_row([sequence], row)
                    .optional()?;
                if let Some(delivered) = delivered {
                    let pending = delivered.amount.less();
                    self.count(webhook, Counts { pending, delivered: 1, ..Counts::default() });
                    self.unblock(webhook, &delivered)?;
                }
            }
            Settlement::Dead { at, cause } => {
                let given_up = self
                    .transaction
                    .prepare_cached(&format!(
                        "UPDATE event SET dead_ms = :at, dead_reason = :reason, dead_message = :message,
                                dead_status = :status, dead_body = :body, failures = failures + 1
                         WHERE sequence = :sequence AND dead_ms IS NULL RETURNING {ROW}"
                    ))?
                    .query_row(
                        named_params! {
                            ":sequence": sequence,
                            ":at": at.as_millisecond(),
                            ":reason": cause.reason,
                            ":message": cause.message,
                            ":status": cause.response.as_ref().map(|response| response.status),
                            ":body": cause.response.as_ref().map(|response| response.body.as_slice()),
                        },
                        row,
                    )
                    .optional()?;
                if let Some(given_up) = given_up {
                    let (pending, dead) = (given_up.amount.less(), given_up.amount);
                    self.count(webhook, Counts { pending, dead, ..Counts::default() });
                    self.unblock(webhook, &given_up)?;
                    self.drop_oldest_dead(webhook)?;
                }
            }
        }
        Ok(())
    }

    /// The next event of a key, whose turn it is.
    fn unblock(&mut self, webhook: &WebhookKey, before: &Row) -> Result<(), QueueError> {
        let Some(key) = &before.key else { return Ok(()) };
        let Some(id) = self.webhook(webhook).map(|touched| touched.webhook.id) else { return Ok(()) };
        let unblocked = self
            .transaction
            .prepare_cached(
                "UPDATE event SET blocked = 0 WHERE blocked AND sequence = (
                     SELECT min(sequence) FROM event WHERE webhook = ?1 AND key = ?2 AND dead_ms IS NULL)",
            )?
            .execute((id, key))?;
        if let Some(touched) = self.webhook(webhook).filter(|_| unblocked > 0) {
            touched.woken = true;
        }
        Ok(())
    }

    fn give_up(&mut self, wanted: &GiveUp) -> Result<u64, QueueError> {
        let GiveUp { webhook, taken_before, settlement, claimed } = wanted;
        let Some(id) = self.webhook(webhook).map(|touched| touched.webhook.id) else { return Ok(0) };
        let at_most = i64::try_from(limits::EXPIRED_AT_ONCE).unwrap_or(i64::MAX);
        // What was never tried is due since it was taken, and what was tried is due later than that.
        let sequences: Vec<Sequence> = self
            .transaction
            .prepare_cached(
                "SELECT sequence FROM event WHERE webhook = ?1 AND due_ms < ?2 AND accepted_ms < ?2
                 AND dead_ms IS NULL AND NOT blocked ORDER BY due_ms, sequence LIMIT ?3",
            )?
            .query_map((id, taken_before.as_millisecond(), at_most), |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let mut given_up = 0;
        for sequence in sequences.iter().filter(|sequence| !claimed.contains(sequence)) {
            self.settle(webhook, *sequence, settlement)?;
            given_up += 1;
        }
        Ok(given_up)
    }

    fn bring_forward(&mut self, key: &WebhookKey, now: Timestamp) -> Result<(), QueueError> {
        let Some(touched) = self.webhook(key) else { return Ok(()) };
        touched.woken = true;
        let id = touched.webhook.id;
        let brought = self
            .transaction
            .prepare_cached(
                // What is blocked has never been tried, and is due already.
                "UPDATE event SET due_ms = ?2 WHERE webhook = ?1 AND due_ms > ?2 AND dead_ms IS NULL AND NOT blocked",
            )?
            .execute((id, now.as_millisecond()))?;
        self.log_pages += i64::try_from(brought).unwrap_or(i64::MAX);
        Ok(())
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

    fn present(&mut self, namespace: Option<&String>, webhooks: &[WebhookKey], now: Timestamp) {
        let webhooks: HashSet<_> = webhooks.iter().collect();
        let changed: Vec<_> = {
            let known = self.books.open();
            let changes = |key: &WebhookKey, webhook: &Webhook| {
                namespace.is_none_or(|namespace| *namespace == key.namespace)
                    && self.webhooks.get(key).map_or(webhook, |touched| &touched.webhook).gone_since.is_some()
                        == webhooks.contains(key)
            };
            known
                .webhooks
                .iter()
                .filter(|(key, webhook)| changes(key, webhook))
                .map(|(key, _)| key.clone())
                .collect()
        };
        for key in changed {
            if let Some(touched) = self.webhook(&key) {
                let since = &mut touched.webhook.gone_since;
                *since = if webhooks.contains(&key) { None } else { Some(now) };
            }
        }
    }

    fn expire(&mut self, gone_before: Timestamp, dead_before: Timestamp) -> Result<Expired, QueueError> {
        let mut expired = Expired::default();
        let keys: HashMap<i64, WebhookKey> = {
            let known = self.books.open();
            known.webhooks.iter().map(|(key, webhook)| (webhook.id, key.clone())).collect()
        };
        let mut left = limits::EXPIRED_AT_ONCE;
        for key in keys.values() {
            let Some(webhook) = self.webhook(key).map(|touched| touched.webhook) else { continue };
            if webhook.gone_since.is_none_or(|since| since >= gone_before) {
                continue;
            }
            // Each by an index of its own.
            for state in [
                "dead_ms IS NOT NULL",
                "dead_ms IS NULL AND NOT blocked",
                "dead_ms IS NULL AND key IS NOT NULL",
            ] {
                let events = self.sequences(&format!("webhook = ?1 AND {state}"), webhook.id, left)?;
                for (sequence, _) in &events {
                    self.remove(key, *sequence)?;
                }
                left -= events.len();
            }
            let after = self.webhook(key).map(|touched| touched.webhook.counts).unwrap_or_default();
            expired.gone.push((key.clone(), webhook.counts.less(after)));
            if left == 0 {
                // The rest goes next time.
                return Ok(expired);
            }
            self.transaction.prepare_cached("DELETE FROM webhook WHERE id = ?1")?.execute([webhook.id])?;
            if let Some(touched) = self.webhook(key) {
                touched.removed = true;
            }
        }
        for (sequence, webhook) in self.sequences("dead_ms < ?1", dead_before.as_millisecond(), left)? {
            let Some(key) = keys.get(&webhook) else { continue };
            self.remove(key, sequence)?;
            expired.dead += 1;
        }
        Ok(expired)
    }

    /// Writes a page of the file as it was.
    fn prove(&mut self) -> Result<(), QueueError> {
        let version: i64 = self.transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        self.transaction.pragma_update(None, "user_version", version)?;
        self.log_pages += 1;
        Ok(())
    }

    /// Events for which a condition holds, each with the number of its webhook.
    fn sequences(
        &self,
        condition: &str,
        value: i64,
        at_most: usize,
    ) -> Result<Vec<(Sequence, i64)>, QueueError> {
        let mut statement = self
            .transaction
            .prepare_cached(&format!("SELECT sequence, webhook FROM event WHERE {condition} LIMIT ?2"))?;
        let at_most = i64::try_from(at_most).unwrap_or(i64::MAX);
        let rows = statement.query_map((value, at_most), |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
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
