//! The embedded queue: SQLite, one writer thread, group commit.
//!
//! One thread owns the connection that writes. It commits in one transaction all that gathered while the
//! last commit ran, so a lone event waits for one fsync and a crowd shares it; removals ride in the same
//! commits. Reads have a connection of their own and see committed rows only. Checkpoints run on a third,
//! off the path of an append.

mod writer;

use std::{
    collections::HashMap,
    fs::{self, File, TryLockError},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task,
};

use super::{Due, Page, Queue, QueueError, Sequence, Settlement, schema};
use crate::{
    event::{Event, WebhookKey},
    limits,
};
use writer::{Change, Request, Room, Writer};

type Wakers = Mutex<HashMap<WebhookKey, Arc<Notify>>>;

/// A queue in a directory of its own.
#[derive(Debug)]
pub struct Embedded {
    requests: mpsc::Sender<Request>,
    reader: Arc<Mutex<Connection>>,
    wakers: Arc<Wakers>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
    /// Held for as long as the queue is open.
    _lock: File,
}

impl Embedded {
    /// Opens the queue in `directory`, which is made if it is missing.
    pub fn open(directory: &Path) -> Result<Self, QueueError> {
        let directory_error = |error| QueueError::Directory(Arc::new(error));
        fs::create_dir_all(directory).map_err(directory_error)?;
        let lock = File::create(directory.join("lock")).map_err(directory_error)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(QueueError::InUse(directory.display().to_string())),
            Err(TryLockError::Error(error)) => return Err(directory_error(error)),
        }
        let path = directory.join("queue.db");
        let (requests, received) = mpsc::channel(limits::QUEUE_REQUESTS);
        let wakers = Arc::new(Wakers::default());
        let (writer, checkpointer) = (
            Writer::new(schema::open_writer(&path)?, Arc::clone(&wakers), Room::default())?,
            schema::open_beside(&path)?,
        );
        let reader = schema::open_beside(&path)?;
        Ok(Self {
            requests,
            reader: Arc::new(Mutex::new(reader)),
            wakers,
            threads: Mutex::new(writer.start(received, checkpointer)),
            _lock: lock,
        })
    }

    async fn request(&self, change: Change) -> Result<(), QueueError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Change { change, reply }).await.map_err(|_| QueueError::Closed)?;
        answer.await.map_err(|_| QueueError::Closed)?
    }
}

impl Queue for Embedded {
    async fn append(&self, events: Vec<Event>) -> Result<(), QueueError> {
        self.request(Change::Append(events)).await
    }

    async fn due(
        &self,
        webhook: &WebhookKey,
        now: Timestamp,
        except: Vec<Sequence>,
    ) -> Result<Page, QueueError> {
        let (reader, webhook) = (Arc::clone(&self.reader), webhook.clone());
        task::spawn_blocking(move || {
            read_due(&reader.lock().unwrap_or_else(PoisonError::into_inner), &webhook, now, &except)
        })
        .await
        .map_err(|_| QueueError::Closed)?
    }

    async fn settle(&self, sequence: Sequence, settlement: Settlement) -> Result<(), QueueError> {
        self.request(Change::Settle { sequence, settlement }).await
    }

    fn appended(&self, webhook: &WebhookKey) -> Arc<Notify> {
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(wakers.entry(webhook.clone()).or_default())
    }

    async fn close(&self) {
        // What was sent before this is committed first: the channel keeps its order.
        let _ = self.requests.send(Request::Close).await;
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let _ =
            task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join()))).await;
    }
}

fn read_due(
    reader: &Connection,
    webhook: &WebhookKey,
    now: Timestamp,
    except: &[Sequence],
) -> Result<Page, QueueError> {
    let id: Option<i64> = reader
        .prepare_cached("SELECT id FROM webhook WHERE namespace = ?1 AND name = ?2")?
        .query_row((&webhook.namespace, &webhook.name), |row| row.get(0))
        .optional()?;
    let Some(id) = id else { return Ok(Page::default()) };

    let now_ms = now.as_millisecond();
    let mut statement = reader.prepare_cached(
        "SELECT sequence, id, accepted_ms, failing_ms, failures, attributes, body FROM event
         WHERE webhook = ?1 AND due_ms <= ?2 AND dead_ms IS NULL ORDER BY due_ms, sequence",
    )?;
    let mut rows = statement.query((id, now_ms))?;
    let (mut page, mut bytes) = (Page::default(), 0);
    while let Some(row) = rows.next()? {
        if except.contains(&row.get(0)?) {
            continue;
        }
        if page.due.len() == limits::READ_AHEAD_EVENTS || bytes > limits::READ_AHEAD_BYTES {
            page.next_due_at = Some(now);
            return Ok(page);
        }
        let due = read_row(row, webhook)?;
        bytes += due.event.body.len();
        page.due.push(due);
    }
    let next_ms: Option<i64> = reader
        .prepare_cached(
            "SELECT min(due_ms) FROM event WHERE webhook = ?1 AND due_ms > ?2 AND dead_ms IS NULL",
        )?
        .query_row((id, now_ms), |row| row.get(0))?;
    page.next_due_at = next_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok());
    Ok(page)
}

fn read_row(row: &Row<'_>, webhook: &WebhookKey) -> Result<Due, rusqlite::Error> {
    let time = |ms| Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
    let attributes: String = row.get(5)?;
    Ok(Due {
        sequence: row.get(0)?,
        failures: row.get(4)?,
        failing_since: row.get::<_, Option<i64>>(3)?.map(time),
        event: Event {
            id: row.get::<_, [u8; 16]>(1).map(uuid::Uuid::from_bytes)?,
            webhook: webhook.clone(),
            accepted_at: time(row.get(2)?),
            attributes: serde_json::from_str(&attributes).map_err(|error| {
                rusqlite::Error::FromSqlConversionFailure(5, rusqlite::types::Type::Text, Box::new(error))
            })?,
            body: row.get(6)?,
        },
    })
}

#[cfg(test)]
mod tests;
