//! The embedded queue: SQLite, one writer thread, group commit.
//!
//! One thread owns the connection that writes. It commits in one transaction all that gathered while the
//! last commit ran, so a lone event waits for one fsync and a crowd shares it; removals ride in the same
//! commits. A second thread reads, committed rows only, and never waits for the first. Checkpoints run on a
//! third, off the path of an append.
//!
//! Claims are in memory: nobody else has the file, and a program that has ended claims nothing any more.

mod books;
mod reader;
mod seen;
mod volume;
mod work;
mod writer;

use std::{
    collections::HashMap,
    fs::{self, File, TryLockError},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task,
};
use uuid::Uuid;

use super::{
    Cause, Counts, DeadLetter, Expired, Filter, Page, Queue, QueueError, Sequence, Settlement, schema,
};
use crate::{
    event::{Event, WebhookKey},
    limits,
    telemetry::metrics::QueueMetrics,
};
use books::Books;
use reader::{Claimed, Read, Reader, WantedClaim};
use seen::Seen;
use volume::{Size, Volume};
use work::{Change, GiveUp, Outcome, Room};
use writer::{Write, Writer};

type Wakers = Mutex<HashMap<WebhookKey, Arc<Notify>>>;

/// A queue in a directory of its own.
#[derive(Debug)]
pub struct Embedded {
    writes: mpsc::Sender<Write>,
    reads: mpsc::Sender<Read>,
    books: Arc<Books>,
    claimed: Arc<Claimed>,
    wakers: Arc<Wakers>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
    metrics: QueueMetrics,
    /// Held for as long as the queue is open.
    _lock: File,
}

impl Embedded {
    /// Opens the queue in `directory`, which is made if it is missing.
    pub fn open(directory: &Path) -> Result<Self, QueueError> {
        Self::open_with(directory, Room::default())
    }

    fn open_with(directory: &Path, room: Room) -> Result<Self, QueueError> {
        let directory_error = |error| QueueError::Directory(Arc::new(error));
        fs::create_dir_all(directory).map_err(directory_error)?;
        let lock = File::create(directory.join("lock")).map_err(directory_error)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(QueueError::InUse(directory.display().to_string())),
            Err(TryLockError::Error(error)) => return Err(directory_error(error)),
        }
        let path = directory.join("queue.db");
        let (writes, to_write) = mpsc::channel(limits::QUEUE_REQUESTS);
        let (reads, to_read) = mpsc::channel(limits::QUEUE_REQUESTS);
        let connection = schema::open_writer(&path)?;
        let books = Arc::new(Books::read(&connection)?);
        let (claimed, wakers) = (Arc::default(), Arc::default());
        let reader = Reader::new(schema::open_beside(&path)?, Arc::clone(&books), Arc::clone(&claimed));
        let seen = Seen::read(&connection)?;
        let volume = Volume::of(path.clone());
        let metrics = QueueMetrics::new(directory.to_owned(), room.file_bytes);
        metrics.uses(Size::read(&connection, &volume)?.used);
        let mut threads = Writer::new(
            connection,
            Arc::clone(&books),
            seen,
            Arc::clone(&wakers),
            room,
            volume,
            metrics.clone(),
        )
        .start(to_write, schema::open_beside(&path)?);
        threads.push(reader.start(to_read));
        let threads = Mutex::new(threads);
        Ok(Self { writes, reads, books, claimed, wakers, threads, metrics, _lock: lock })
    }

    /// What is counted of the queue as a whole.
    pub fn metrics(&self) -> &QueueMetrics {
        &self.metrics
    }

    /// When the oldest event that waits was taken, by those that are due first ([`limits::METRICS_OLDEST_EVENTS`]).
    pub async fn oldest(&self, webhook: &WebhookKey) -> Result<Option<Timestamp>, QueueError> {
        let webhook = webhook.clone();
        self.read(|reply| Read::Oldest { webhook, reply }).await
    }

    async fn write(&self, change: Change) -> Result<Outcome, QueueError> {
        let (reply, answer) = oneshot::channel();
        self.writes.send(Write::Change { change, reply }).await.map_err(|_| QueueError::Closed)?;
        answer.await.map_err(|_| QueueError::Closed)?
    }

    async fn read<T>(
        &self,
        read: impl FnOnce(oneshot::Sender<Result<T, QueueError>>) -> Read,
    ) -> Result<T, QueueError> {
        let (reply, answer) = oneshot::channel();
        self.reads.send(read(reply)).await.map_err(|_| QueueError::Closed)?;
        answer.await.map_err(|_| QueueError::Closed)?
    }
}

impl Queue for Embedded {
    async fn append(&self, events: Vec<Event>) -> Result<Vec<Uuid>, QueueError> {
        self.write(Change::Append(events)).await.map(Outcome::ids)
    }

    async fn claim(&self, webhook: &WebhookKey, now: Timestamp, at_most: usize) -> Result<Page, QueueError> {
        let webhook = webhook.clone();
        self.read(|reply| Read::Claim(WantedClaim { webhook, now, at_most, reply })).await
    }

    fn release(&self, webhook: &WebhookKey, claims: &[Sequence]) {
        self.claimed.release(webhook, claims);
        self.appended(webhook).notify_one();
    }

    async fn settle(
        &self,
        webhook: &WebhookKey,
        settlements: Vec<(Sequence, Settlement)>,
    ) -> Result<(), QueueError> {
        let claims: Vec<_> = settlements.iter().map(|(claim, _)| *claim).collect();
        let again = settlements.iter().any(|(_, settlement)| matches!(settlement, Settlement::Retry { .. }));
        self.write(Change::Settle { webhook: webhook.clone(), settlements }).await?;
        self.claimed.release(webhook, &claims);
        if again {
            // Whoever looked for it while it was claimed did not find it.
            self.appended(webhook).notify_one();
        }
        Ok(())
    }

    async fn give_up(
        &self,
        webhook: &WebhookKey,
        taken_before: Timestamp,
        at: Timestamp,
        cause: Cause,
    ) -> Result<u64, QueueError> {
        let (settlement, claimed) = (Settlement::Dead { at, cause }, self.claimed.of(webhook));
        let wanted = GiveUp { webhook: webhook.clone(), taken_before, settlement, claimed };
        self.write(Change::GiveUp(Box::new(wanted))).await.map(Outcome::count)
    }

    async fn bring_forward(&self, webhook: &WebhookKey, now: Timestamp) -> Result<(), QueueError> {
        self.write(Change::BringForward { webhook: webhook.clone(), now }).await.map(drop)
    }

    fn counts(&self, webhook: &WebhookKey) -> Counts {
        self.books.counts(webhook)
    }

    async fn dead(
        &self,
        webhook: &WebhookKey,
        filter: Filter,
        after: Sequence,
        at_most: usize,
    ) -> Result<Vec<DeadLetter>, QueueError> {
        let webhook = webhook.clone();
        self.read(|reply| Read::Dead { webhook, filter, after, at_most, reply }).await
    }

    async fn replay(&self, webhook: &WebhookKey, filter: Filter, now: Timestamp) -> Result<u64, QueueError> {
        let change = Change::Replay { webhook: webhook.clone(), filter, now };
        self.write(change).await.map(Outcome::count)
    }

    async fn remove_dead(&self, webhook: &WebhookKey, filter: Filter) -> Result<u64, QueueError> {
        self.write(Change::RemoveDead { webhook: webhook.clone(), filter }).await.map(Outcome::count)
    }

    async fn present(
        &self,
        namespace: Option<String>,
        webhooks: Vec<WebhookKey>,
        now: Timestamp,
    ) -> Result<(), QueueError> {
        self.write(Change::Present { namespace, webhooks, now }).await.map(drop)
    }

    async fn expire(&self, gone_before: Timestamp, dead_before: Timestamp) -> Result<Expired, QueueError> {
        self.write(Change::Expire { gone_before, dead_before }).await.map(Outcome::expired)
    }

    async fn writable(&self) -> Result<(), QueueError> {
        if self.books.has_written() { Ok(()) } else { self.write(Change::Prove).await.map(drop) }
    }

    fn appended(&self, webhook: &WebhookKey) -> Arc<Notify> {
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(wakers.entry(webhook.clone()).or_default())
    }

    async fn close(&self) {
        // What was sent before this is committed first: the channel keeps its order.
        let _ = self.writes.send(Write::Close).await;
        let _ = self.reads.send(Read::Close).await;
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let _ =
            task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join()))).await;
    }
}

#[cfg(test)]
mod tests;
