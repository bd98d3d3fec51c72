//! Events between their 202 and their delivery.
//!
//! What is appended survives `kill -9` and power loss before [`Queue::append`] returns. An event leaves the
//! queue only by [`Queue::settle`]; one that was read and not settled is read again after a restart.

mod embedded;
mod schema;

use std::{future::Future, sync::Arc};

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::event::{Event, WebhookKey};
pub use embedded::Embedded;

/// The place of an event in its queue.
pub type Sequence = i64;

/// An event that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its place.
    pub sequence: Sequence,
    /// Attempts that failed so far.
    pub failures: u32,
    /// Since when it has been failing; not the time that it waited for a certificate.
    pub failing_since: Option<Timestamp>,
    /// The event.
    pub event: Event,
}

/// What is read at one time.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Events that are due, earliest first.
    pub due: Vec<Due>,
    /// When the first event after these is due: now, where the page did not hold them all.
    pub next_due_at: Option<Timestamp>,
}

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Delivered: it leaves the queue.
    Delivered,
    /// To be sent again.
    Retry {
        /// When it failed.
        at: Timestamp,
        /// Not before this time.
        due_at: Timestamp,
    },
    /// Given up: kept, and never sent by itself.
    Dead {
        /// When it failed.
        at: Timestamp,
        /// What failed last.
        reason: String,
    },
}

/// Why an event was not taken, or a queue not read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QueueError {
    /// The webhook has as many events or bytes waiting as it may have, or the file is as large as it may be.
    #[error("the queue is full")]
    Full,
    /// The program is ending.
    #[error("the queue is closed")]
    Closed,
    /// The file was written by a newer version.
    #[error(
        "the queue's file has schema {found}, this version knows {known}: run the version that wrote it, or a later one"
    )]
    NewerSchema {
        /// In the file.
        found: i64,
        /// In this program.
        known: i64,
    },
    /// Two dispatchers on one file would send everything twice.
    #[error("the queue in {0} is in use by another dispatcher: give each its own directory")]
    InUse(String),
    /// The file could not be read or written.
    #[error("the queue's file cannot be used: {0}")]
    Storage(Arc<rusqlite::Error>),
    /// The directory could not be made.
    #[error("the queue's directory cannot be made: {0}")]
    Directory(Arc<std::io::Error>),
}

impl From<rusqlite::Error> for QueueError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full,
            _ => Self::Storage(Arc::new(error)),
        }
    }
}

/// Keeps events until they are settled.
pub trait Queue: Send + Sync + 'static {
    /// Takes events, all or none; returns once they are on disk.
    fn append(&self, events: Vec<Event>) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Events of a webhook that are due at `now` and whose sequence is not in `except`.
    fn due(
        &self,
        webhook: &WebhookKey,
        now: Timestamp,
        except: Vec<Sequence>,
    ) -> impl Future<Output = Result<Page, QueueError>> + Send;

    /// Records what became of an event; returns once that is on disk.
    fn settle(
        &self,
        sequence: Sequence,
        settlement: Settlement,
    ) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Told whenever an event of the webhook has been appended.
    fn appended(&self, webhook: &WebhookKey) -> Arc<Notify>;

    /// Commits what was taken and closes the file.
    fn close(&self) -> impl Future<Output = ()> + Send;
}
