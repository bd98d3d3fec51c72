//! The thread that writes, and the one that checkpoints.

use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::{
    super::QueueError,
    Books, Wakers,
    seen::Seen,
    volume::Volume,
    work::{Change, Committed, Outcome, Room, Work},
};
use crate::{limits, telemetry::metrics::QueueMetrics};

pub(super) enum Write {
    Change { change: Change, reply: oneshot::Sender<Result<Outcome, QueueError>> },
    Close,
}

pub(super) struct Writer {
    connection: Connection,
    books: Arc<Books>,
    seen: Seen,
    wakers: Arc<Wakers>,
    room: Room,
    volume: Volume,
    metrics: QueueMetrics,
    /// Estimate of the pages in the log since the last checkpoint.
    log_pages: i64,
    /// A checkpoint has moved what was in the log.
    moved: Arc<AtomicBool>,
}

/// Requests that share a commit.
#[derive(Default)]
struct Batch {
    changes: Vec<(Change, oneshot::Sender<Result<Outcome, QueueError>>)>,
    events: usize,
    bytes: usize,
}

impl Batch {
    fn add(&mut self, change: Change, reply: oneshot::Sender<Result<Outcome, QueueError>>) {
        let (events, bytes) = change.weight();
        self.events += events;
        self.bytes += bytes;
        self.changes.push((change, reply));
    }

    fn is_full(&self) -> bool {
        self.changes.len() >= limits::QUEUE_BATCH
            || self.events >= limits::QUEUE_BATCH_EVENTS
            || self.bytes >= limits::QUEUE_BATCH_BYTES
    }
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        books: Arc<Books>,
        seen: Seen,
        wakers: Arc<Wakers>,
        room: Room,
        volume: Volume,
        metrics: QueueMetrics,
    ) -> Self {
        Self { connection, books, seen, wakers, room, volume, metrics, log_pages: 0, moved: Arc::default() }
    }

    /// Starts the threads; they end on [`Write::Close`] or when every sender is gone.
    pub(super) fn start(
        mut self,
        mut writes: mpsc::Receiver<Write>,
        checkpointer: Connection,
    ) -> Vec<JoinHandle<()>> {
        let (wish, wishes) = sync_channel(1);
        let moved = Arc::clone(&self.moved);
        vec![
            thread::spawn(move || self.run(&mut writes, &wish)),
            thread::spawn(move || checkpoint_when_wished(&checkpointer, &wishes, &moved)),
        ]
    }

    fn run(&mut self, writes: &mut mpsc::Receiver<Write>, wish: &SyncSender<()>) {
        let mut open = true;
        while open {
            let Some(first) = writes.blocking_recv() else { break };
            let mut batch = Batch::default();
            open = gather(&mut batch, Some(first), writes);
            // Where many wait, more are about to: a commit costs the same for all of them together.
            if open && batch.changes.len() >= limits::QUEUE_CROWD && !batch.is_full() {
                thread::sleep(limits::QUEUE_GATHER);
                let next = writes.try_recv().ok();
                open = gather(&mut batch, next, writes);
            }
            self.serve(batch);
            let moved = self.moved.swap(false, Ordering::Relaxed);
            if self.volume.is_low() {
                self.begin_log_anew("TRUNCATE");
            } else if moved {
                self.begin_log_anew("RESTART");
            }
            if self.log_pages >= limits::WAL_PAGES && wish.try_send(()).is_ok() {
                self.log_pages = 0;
            }
        }
    }

    /// The log is written from its beginning again once all of it is in the file, which never happens by itself
    /// while commits go on. Little is left to be moved after the checkpoint. `TRUNCATE` gives its room back, too.
    fn begin_log_anew(&self, mode: &str) {
        let restarted = (|| {
            // Somebody who reads is not waited for: the next checkpoint is soon.
            self.connection.busy_timeout(Duration::ZERO)?;
            let busy: bool =
                self.connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get(0))?;
            self.connection.busy_timeout(limits::QUEUE_BUSY_TIMEOUT)?;
            Ok::<_, rusqlite::Error>(!busy)
        })();
        step("restarted");
        match restarted {
            Ok(true) => {}
            Ok(false) => tracing::debug!("the queue's log is being read, and goes on"),
            Err(error) => tracing::warn!(%error, "the queue's log could not begin anew"),
        }
    }

    fn serve(&mut self, batch: Batch) {
        let changes: Vec<&Change> = batch.changes.iter().map(|(change, _)| change).collect();
        let results = match self.commit(&changes) {
            Ok(results) => results,
            // One of many failed: each is tried alone, so that the others do not pay for it.
            Err(_) if changes.len() > 1 => changes
                .iter()
                .map(|change| self.commit(&[change]).and_then(|mut results| results.remove(0)))
                .collect(),
            Err(error) => vec![Err(error)],
        };
        for ((_, reply), result) in batch.changes.into_iter().zip(results) {
            // A sender that has gone away still has its event delivered: at least once.
            let _ = reply.send(result);
        }
    }

    /// Writes all changes in one transaction, and notes whether that can be done.
    fn commit(&mut self, changes: &[&Change]) -> Result<Vec<Result<Outcome, QueueError>>, QueueError> {
        let committed = self.write(changes);
        match &committed {
            // Not every change writes something.
            Ok((_, 0)) => {}
            _ => self.books.wrote(committed.is_ok()),
        }
        committed.map(|(results, _)| results)
    }

    /// The inner results are refusals that wrote nothing. Also returns an estimate of the pages that were written.
    fn write(&mut self, changes: &[&Change]) -> Result<(Vec<Result<Outcome, QueueError>>, i64), QueueError> {
        let began = Instant::now();
        let transaction = self.connection.transaction()?;
        let mut work = Work::begin(transaction, &self.books, &self.seen, &self.room, &self.volume);
        step("begun");
        let results = changes.iter().map(|change| work.apply(change)).collect::<Result<_, _>>()?;
        step("written");
        let Committed { webhooks, pending, used, seen, woken, log_pages } = work.commit()?;
        step("committed");
        if log_pages > 0 {
            self.metrics.committed(began);
        }
        if let Some(used) = used {
            self.metrics.uses(used);
        }
        self.log_pages += log_pages;
        self.books.keep(webhooks, pending);
        self.seen.keep(seen);
        let wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        for waker in woken.iter().filter_map(|webhook| wakers.get(webhook)) {
            waker.notify_one();
        }
        Ok((results, log_pages))
    }
}

/// Adds what is there; false where the queue is to be closed.
fn gather(batch: &mut Batch, mut next: Option<Write>, writes: &mut mpsc::Receiver<Write>) -> bool {
    while let Some(write) = next {
        match write {
            Write::Change { change, reply } => batch.add(change, reply),
            Write::Close => return false,
        }
        next = if batch.is_full() { None } else { writes.try_recv().ok() };
    }
    true
}

/// Ends when the writer does: the sender of wishes goes with it.
fn checkpoint_when_wished(connection: &Connection, wishes: &Receiver<()>, moved: &AtomicBool) {
    while wishes.recv().is_ok() {
        step("checkpoint");
        let result = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        match result {
            Ok(()) => moved.store(true, Ordering::Relaxed),
            Err(error) => {
                tracing::warn!(%error, "the queue's log could not be checkpointed; the next commits wish for it again");
            }
        }
        step("checkpointed");
    }
}

/// Where a test kills the program.
#[cfg(test)]
use super::tests::crash::step;
#[cfg(not(test))]
fn step(_: &str) {}

#[cfg(test)]
mod tests {
    use super::{super::tests::event, *};

    #[test]
    fn a_commit_takes_no_more_than_a_share_of_what_waits() {
        let (send, mut writes) = mpsc::channel(16);
        let events = |count, body: &str| (0..count).map(|_| event("a", body)).collect();
        let large = "x".repeat(limits::QUEUE_BATCH_BYTES);
        for events in [
            events(limits::QUEUE_BATCH_EVENTS - 1, ""),
            events(1, ""),
            events(2 * limits::QUEUE_BATCH_EVENTS, ""),
            events(1, &large),
            events(1, ""),
        ] {
            let (reply, _) = oneshot::channel();
            let change = Change::Append(events);
            assert!(send.try_send(Write::Change { change, reply }).is_ok());
        }
        let mut taken = Vec::new();
        while let Ok(first) = writes.try_recv() {
            let mut batch = Batch::default();
            gather(&mut batch, Some(first), &mut writes);
            taken.push(batch.changes.len());
        }
        assert_eq!(taken, [2, 1, 1, 1]);
    }
}
