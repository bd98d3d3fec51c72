//! The thread that writes, and the one that checkpoints.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use jiff::Timestamp;
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
    Settle { sequence: Sequence, settlement: Settlement, at: Timestamp },
}

/// What the writer knows without asking the file. Changed only by a commit.
#[derive(Clone, Debug, Default)]
struct Known {
    webhooks: HashMap<WebhookKey, i64>,
    pending: HashMap<i64, i64>,
}

pub(super) struct Writer {
    connection: Connection,
    known: Known,
    wakers: Arc<Wakers>,
    /// Estimate of the pages in the log since the last checkpoint.
    log_pages: i64,
}

/// What a transaction adds to [`Known`] once it is committed.
#[derive(Default)]
struct Staged {
    webhooks: HashMap<WebhookKey, i64>,
    pending: HashMap<i64, i64>,
    log_pages: i64,
}

impl Writer {
    pub(super) fn new(connection: Connection, wakers: Arc<Wakers>) -> Result<Self, QueueError> {
        let known = read_known(&connection)?;
        Ok(Self { connection, known, wakers, log_pages: 0 })
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
        let mut staged = Staged::default();
        let mut results = Vec::with_capacity(changes.len());
        for change in changes {
            results.push(match change {
                Change::Append(events) => append(&transaction, &self.known, &mut staged, events)?,
                Change::Settle { sequence, settlement, at } => {
                    settle(&transaction, &mut staged, *sequence, settlement, *at)?;
                    Ok(())
                }
            });
        }
        transaction.commit()?;
        self.known.webhooks.extend(staged.webhooks);
        for (webhook, change) in staged.pending {
            let pending = self.known.pending.entry(webhook).or_default();
            *pending += change;
        }
        self.log_pages += staged.log_pages;
        Ok(results)
    }
}

fn read_known(connection: &Connection) -> Result<Known, QueueError> {
    let mut known = Known::default();
    let mut statement = connection.prepare(
        "SELECT webhook.id, namespace, name, count(event.sequence)
         FROM webhook LEFT JOIN event ON event.webhook = webhook.id GROUP BY webhook.id",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id = row.get(0)?;
        known.webhooks.insert(WebhookKey { namespace: row.get(1)?, name: row.get(2)? }, id);
        known.pending.insert(id, row.get(3)?);
    }
    drop(rows);
    drop(statement);
    Ok(known)
}

fn append(
    transaction: &Transaction<'_>,
    known: &Known,
    staged: &mut Staged,
    events: &[Event],
) -> Result<Result<(), QueueError>, QueueError> {
    let mut ids = Vec::with_capacity(events.len());
    let mut added: HashMap<i64, i64> = HashMap::new();
    for event in events {
        let id = webhook_id(transaction, known, staged, &event.webhook)?;
        *added.entry(id).or_default() += 1;
        ids.push(id);
    }
    let full = added.iter().any(|(id, count)| {
        let pending = known.pending.get(id).copied().unwrap_or(0);
        let staged = staged.pending.get(id).copied().unwrap_or(0);
        pending + staged + count > limits::PENDING_EVENTS
    });
    if full {
        return Ok(Err(QueueError::Full));
    }
    let mut insert = transaction.prepare_cached(
        "INSERT INTO event (webhook, id, accepted_ms, due_ms, attributes, body) VALUES (?1, ?2, ?3, ?3, ?4, ?5)",
    )?;
    for (event, id) in events.iter().zip(ids) {
        let attributes = serde_json::to_string(&event.attributes)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        insert.execute((
            id,
            event.id.as_bytes(),
            event.accepted_at.as_millisecond(),
            attributes,
            event.body.as_slice(),
        ))?;
        staged.log_pages += 4 + i64::try_from(event.body.len() / 4096).unwrap_or(0);
        *staged.pending.entry(id).or_default() += 1;
    }
    Ok(Ok(()))
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

fn settle(
    transaction: &Transaction<'_>,
    staged: &mut Staged,
    sequence: Sequence,
    settlement: &Settlement,
    at: Timestamp,
) -> Result<(), QueueError> {
    if let Settlement::Retry { due_at } = settlement {
        transaction
            .prepare_cached("UPDATE event SET due_ms = ?2, failures = failures + 1 WHERE sequence = ?1")?
            .execute((sequence, due_at.as_millisecond()))?;
        staged.log_pages += 3;
        return Ok(());
    }
    if let Settlement::Dead { reason } = settlement {
        transaction
            .prepare_cached(
                "INSERT INTO dead SELECT sequence, webhook, id, accepted_ms, ?2, failures + 1, ?3, attributes, body
                 FROM event WHERE sequence = ?1",
            )?
            .execute((sequence, at.as_millisecond(), reason))?;
    }
    let webhook: Option<i64> = transaction
        .prepare_cached("DELETE FROM event WHERE sequence = ?1 RETURNING webhook")?
        .query_row([sequence], |row| row.get(0))
        .optional()?;
    if let Some(webhook) = webhook {
        *staged.pending.entry(webhook).or_default() -= 1;
    }
    staged.log_pages += 3;
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
