//! The thread that writes, and the one that checkpoints.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use rusqlite::{Connection, OptionalExtension as _, Transaction};
use tokio::sync::{mpsc, oneshot};

use super::{QueueError, Sequence, Settlement, Wakers};
use crate::{
    event::{Event, WebhookKey},
    limits,
};

pub(super) enum Request {
    Change { change: Change, reply: oneshot::Sender<Result<(), QueueError>> },
    Close,
}

pub(super) enum Change {
    Append(Vec<Event>),
    Settle { sequence: Sequence, settlement: Settlement },
}

/// What the writer knows without asking the file. Changed only by a commit.
#[derive(Clone, Debug, Default)]
struct Known {
    webhooks: HashMap<WebhookKey, i64>,
    pending: HashMap<i64, Amount>,
    dead: HashMap<i64, Amount>,
}

/// An amount of events, or a change of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Amount {
    pub(super) events: i64,
    pub(super) bytes: i64,
}

impl Amount {
    /// As the file counts an event.
    fn of(attributes: &str, body: &[u8]) -> Self {
        Self { events: 1, bytes: i64::try_from(attributes.len() + body.len()).unwrap_or(i64::MAX) }
    }

    fn add(&mut self, other: Self) {
        self.events += other.events;
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    fn less(self) -> Self {
        Self { events: -self.events, bytes: -self.bytes }
    }

    fn is_within(self, limit: Self) -> bool {
        self.events <= limit.events && self.bytes <= limit.bytes
    }
}

/// What the queue may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Waiting, for each webhook.
    pub(super) pending: Amount,
    /// Given up, for each webhook.
    pub(super) dead: Amount,
    /// Of the file, in all.
    pub(super) file_bytes: i64,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            pending: Amount { events: limits::PENDING_EVENTS, bytes: limits::PENDING_BYTES },
            dead: Amount { events: limits::DEAD_EVENTS, bytes: limits::DEAD_BYTES },
            file_bytes: limits::QUEUE_BYTES,
        }
    }
}

pub(super) struct Writer {
    connection: Connection,
    known: Known,
    wakers: Arc<Wakers>,
    room: Room,
    /// Estimate of the pages in the log since the last checkpoint.
    log_pages: i64,
}

/// What a transaction adds to [`Known`] once it is committed.
#[derive(Default)]
struct Staged {
    webhooks: HashMap<WebhookKey, i64>,
    pending: HashMap<i64, Amount>,
    dead: HashMap<i64, Amount>,
    log_pages: i64,
}

impl Writer {
    pub(super) fn new(connection: Connection, wakers: Arc<Wakers>, room: Room) -> Result<Self, QueueError> {
        let known = read_known(&connection)?;
        Ok(Self { connection, known, wakers, room, log_pages: 0 })
    }

    /// Starts the threads; they end on [`Request::Close`] or when every sender is gone.
    pub(super) fn start(
        mut self,
        mut requests: mpsc::Receiver<Request>,
        checkpointer: Connection,
    ) -> Vec<JoinHandle<()>> {
        let (wish, wishes) = sync_channel(1);
        let writer = thread::spawn(move || self.run(&mut requests, &wish));
        let checkpointer = thread::spawn(move || checkpoint_when_wished(&checkpointer, &wishes));
        vec![writer, checkpointer]
    }

    fn run(&mut self, requests: &mut mpsc::Receiver<Request>, wish: &SyncSender<()>) {
        let mut open = true;
        while open {
            let Some(first) = requests.blocking_recv() else { break };
            let mut batch = Vec::new();
            let mut next = Some(first);
            while let Some(request) = next.take() {
                match request {
                    Request::Change { change, reply } => batch.push((change, reply)),
                    Request::Close => {
                        open = false;
                        break;
                    }
                }
                if batch.len() < limits::QUEUE_BATCH {
                    next = requests.try_recv().ok();
                }
            }
            self.serve(batch);
            if self.log_pages >= limits::WAL_PAGES && wish.try_send(()).is_ok() {
                self.log_pages = 0;
            }
        }
    }

    fn serve(&mut self, batch: Vec<(Change, oneshot::Sender<Result<(), QueueError>>)>) {
        let changes: Vec<&Change> = batch.iter().map(|(change, _)| change).collect();
        let results = match self.commit(&changes) {
            Ok(results) => results,
            // One of many failed: each is tried alone, so that the others do not pay for it.
            Err(_) if changes.len() > 1 => changes
                .iter()
                .map(|change| self.commit(&[change]).and_then(|mut results| results.remove(0)))
                .collect(),
            Err(error) => vec![Err(error)],
        };
        for ((change, reply), result) in batch.into_iter().zip(results) {
            if let (Change::Append(events), Ok(())) = (&change, &result) {
                self.wake(events);
            }
            // A sender that has gone away still has its event delivered: at least once.
            let _ = reply.send(result);
        }
    }

    fn wake(&self, events: &[Event]) {
        let wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        for waker in events.iter().filter_map(|event| wakers.get(&event.webhook)) {
            waker.notify_one();
        }
    }

    /// Writes all changes in one transaction; the inner results are refusals that wrote nothing.
    fn commit(&mut self, changes: &[&Change]) -> Result<Vec<Result<(), QueueError>>, QueueError> {
        let transaction = self.connection.transaction()?;
        let (room, known) = (&self.room, &self.known);
        let mut staged = Staged::default();
        let mut results = Vec::with_capacity(changes.len());
        for change in changes {
            results.push(match change {
                Change::Append(events) => append(&transaction, known, &mut staged, events, room)?,
                Change::Settle { sequence, settlement } => {
                    settle(&transaction, known, &mut staged, *sequence, settlement, room)?;
                    Ok(())
                }
            });
        }
        transaction.commit()?;
        self.known.webhooks.extend(staged.webhooks);
        for (amounts, changes) in
            [(&mut self.known.pending, staged.pending), (&mut self.known.dead, staged.dead)]
        {
            for (webhook, change) in changes {
                amounts.entry(webhook).or_default().add(change);
            }
        }
        self.log_pages += staged.log_pages;
        Ok(results)
    }
}

fn read_known(connection: &Connection) -> Result<Known, QueueError> {
    let mut known = Known::default();
    let mut statement = connection.prepare("SELECT id, namespace, name FROM webhook")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        known.webhooks.insert(WebhookKey { namespace: row.get(1)?, name: row.get(2)? }, row.get(0)?);
    }
    let mut statement = connection.prepare(
        "SELECT webhook, dead_ms IS NOT NULL, count(*), sum(octet_length(attributes) + octet_length(body))
         FROM event GROUP BY 1, 2",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let amounts = if row.get(1)? { &mut known.dead } else { &mut known.pending };
        amounts.insert(row.get(0)?, Amount { events: row.get(2)?, bytes: row.get(3)? });
    }
    Ok(known)
}

/// All events or none: the inner result is a refusal that wrote nothing.
fn append(
    transaction: &Transaction<'_>,
    known: &Known,
    staged: &mut Staged,
    events: &[Event],
    room: &Room,
) -> Result<Result<(), QueueError>, QueueError> {
    let mut rows = Vec::with_capacity(events.len());
    let mut after: HashMap<i64, Amount> = HashMap::new();
    let mut bytes = used_bytes(transaction)?;
    for event in events {
        let id = webhook_id(transaction, known, staged, &event.webhook)?;
        let attributes = serde_json::to_string(&event.attributes)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        let amount = Amount::of(&attributes, &event.body);
        after.entry(id).or_insert_with(|| total(&known.pending, &staged.pending, id)).add(amount);
        bytes = bytes.saturating_add(amount.bytes);
        rows.push((id, attributes, amount));
    }
    // Only what comes in is refused for want of room: what leaves has to be recorded in any case.
    if bytes > room.file_bytes || !after.values().all(|amount| amount.is_within(room.pending)) {
        return Ok(Err(QueueError::Full));
    }
    let mut insert = transaction.prepare_cached(
        "INSERT INTO event (webhook, id, accepted_ms, due_ms, attributes, body) VALUES (?1, ?2, ?3, ?3, ?4, ?5)",
    )?;
    for (event, (id, attributes, amount)) in events.iter().zip(rows) {
        let accepted_ms = event.accepted_at.as_millisecond();
        insert.execute((id, event.id.as_bytes(), accepted_ms, attributes, event.body.as_slice()))?;
        staged.log_pages += 4 + amount.bytes / 4096;
        staged.pending.entry(id).or_default().add(amount);
    }
    Ok(Ok(()))
}

/// Pages in use; those that are free are used again.
fn used_bytes(transaction: &Transaction<'_>) -> Result<i64, QueueError> {
    let pragma = |name| transaction.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    Ok((pragma("page_count")? - pragma("freelist_count")?) * pragma("page_size")?)
}

fn total(known: &HashMap<i64, Amount>, staged: &HashMap<i64, Amount>, webhook: i64) -> Amount {
    let mut total = known.get(&webhook).copied().unwrap_or_default();
    total.add(staged.get(&webhook).copied().unwrap_or_default());
    total
}

fn webhook_id(
    transaction: &Transaction<'_>,
    known: &Known,
    staged: &mut Staged,
    webhook: &WebhookKey,
) -> Result<i64, QueueError> {
    if let Some(id) = known.webhooks.get(webhook).or_else(|| staged.webhooks.get(webhook)) {
        return Ok(*id);
    }
    let id = transaction
        .prepare_cached("INSERT INTO webhook (namespace, name) VALUES (?1, ?2) RETURNING id")?
        .query_row((&webhook.namespace, &webhook.name), |row| row.get(0))?;
    staged.webhooks.insert(webhook.clone(), id);
    Ok(id)
}

const SIZE: &str = "webhook, octet_length(attributes) + octet_length(body)";

fn sized(row: &rusqlite::Row<'_>) -> rusqlite::Result<(i64, Amount)> {
    Ok((row.get(0)?, Amount { events: 1, bytes: row.get(1)? }))
}

/// Writes what became of an event that waits; one that is gone already stays so.
fn settle(
    transaction: &Transaction<'_>,
    known: &Known,
    staged: &mut Staged,
    sequence: Sequence,
    settlement: &Settlement,
    room: &Room,
) -> Result<(), QueueError> {
    staged.log_pages += 3;
    match settlement {
        Settlement::Retry { at, due_at } => {
            transaction
                .prepare_cached(
                    "UPDATE event SET due_ms = ?3, failures = failures + 1, failing_ms = coalesce(failing_ms, ?2)
                     WHERE sequence = ?1 AND dead_ms IS NULL",
                )?
                .execute((sequence, at.as_millisecond(), due_at.as_millisecond()))?;
        }
        Settlement::Delivered => {
            let removed = transaction
                .prepare_cached(&format!(
                    "DELETE FROM event WHERE sequence = ?1 AND dead_ms IS NULL RETURNING {SIZE}"
                ))?
                .query_row([sequence], sized)
                .optional()?;
            if let Some((webhook, amount)) = removed {
                staged.pending.entry(webhook).or_default().add(amount.less());
            }
        }
        Settlement::Dead { at, reason } => {
            let given_up = transaction
                .prepare_cached(&format!(
                    "UPDATE event SET dead_ms = ?2, dead_reason = ?3, failures = failures + 1
                     WHERE sequence = ?1 AND dead_ms IS NULL RETURNING {SIZE}"
                ))?
                .query_row((sequence, at.as_millisecond(), reason), sized)
                .optional()?;
            if let Some((webhook, amount)) = given_up {
                staged.pending.entry(webhook).or_default().add(amount.less());
                staged.dead.entry(webhook).or_default().add(amount);
                drop_oldest_dead(transaction, known, staged, webhook, room)?;
            }
        }
    }
    Ok(())
}

/// Events that were given up stay until others of their webhook need the room.
fn drop_oldest_dead(
    transaction: &Transaction<'_>,
    known: &Known,
    staged: &mut Staged,
    webhook: i64,
    room: &Room,
) -> Result<(), QueueError> {
    while !total(&known.dead, &staged.dead, webhook).is_within(room.dead) {
        let dropped = transaction
            .prepare_cached(&format!(
                "DELETE FROM event WHERE sequence =
                     (SELECT min(sequence) FROM event WHERE webhook = ?1 AND dead_ms IS NOT NULL) RETURNING {SIZE}"
            ))?
            .query_row([webhook], sized)
            .optional()?;
        let Some((_, amount)) = dropped else { break };
        staged.dead.entry(webhook).or_default().add(amount.less());
        tracing::error!("the oldest event that was given up is gone: there are too many of its webhook");
    }
    Ok(())
}

/// Ends when the writer does: the sender of wishes goes with it.
fn checkpoint_when_wished(connection: &Connection, wishes: &Receiver<()>) {
    while wishes.recv().is_ok() {
        let result = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        if let Err(error) = result {
            tracing::warn!(%error, "the queue's log could not be checkpointed; the next commits wish for it again");
        }
    }
}
