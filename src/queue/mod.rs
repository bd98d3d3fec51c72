//! Events between their 202 and their delivery.
//!
//! What is appended survives `kill -9` and power loss before [`Queue::append`] returns. An event leaves the
//! queue only by [`Queue::settle`], or because nobody is to have it; one that was claimed and not settled is claimed again after a restart.
//!
//! A queue may have many dispatchers: a claim is theirs alone until it is settled, released or has run out.
//! `docs/queue.md` says how it would map to a stream with acknowledgements, and what would not.

mod embedded;
mod schema;

#[cfg(test)]
mod model;

use std::{future::Future, sync::Arc};

use jiff::Timestamp;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::event::{Event, WebhookKey};
pub use embedded::Embedded;

/// The place of an event in its queue.
pub type Sequence = i64;

/// An event that is to be attempted, by whoever claimed it and by nobody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its place.
    pub sequence: Sequence,
    /// Attempts that failed so far.
    pub failures: u32,
    /// Since when it has been failing; not the time that it waited for a certificate.
    pub failing_since: Option<Timestamp>,
    /// The event.
    pub event: Event,
}

/// What is claimed at one time.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Events that are due, earliest first.
    pub claims: Vec<Claim>,
    /// When the first event after these is due: now, where the page did not hold them all.
    pub next_due_at: Option<Timestamp>,
}

/// What became of a claimed event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Delivered: it leaves the queue.
    Delivered,
    /// To be sent again.
    Retry {
        /// Since when it has been failing.
        since: Timestamp,
        /// Not before this time.
        due_at: Timestamp,
    },
    /// Given up: kept, and never sent by itself.
    Dead {
        /// When it failed.
        at: Timestamp,
        /// What failed last.
        cause: Cause,
    },
}

/// Why an event was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// A documented constant.
    pub reason: String,
    /// What a person is told.
    pub message: String,
    /// The last response, where there was one.
    pub response: Option<Response>,
}

/// What an endpoint answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// The first bytes of its body.
    pub body: Vec<u8>,
}

/// An event that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its place.
    pub sequence: Sequence,
    /// When it was given up.
    pub dead_at: Timestamp,
    /// Attempts that failed.
    pub failures: u32,
    /// Why.
    pub cause: Cause,
    /// The event.
    pub event: Event,
}

/// Which dead letters of a webhook: those for which all that is said holds; all of them where nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// With one of these ids.
    pub ids: Option<Vec<Uuid>>,
    /// Given up for this reason.
    pub reason: Option<String>,
    /// Given up before this time.
    pub before: Option<Timestamp>,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Events.
    pub events: i64,
    /// Their attributes and bodies, bytes.
    pub bytes: i64,
}

/// How much there is of a webhook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Waiting, those under way included.
    pub pending: Amount,
    /// Given up, and kept.
    pub dead: Amount,
    /// Delivered since the webhook's first event.
    pub delivered: i64,
}

/// What was dropped for want of anybody to have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Webhooks that had been gone for too long, and the events that waited for them.
    pub gone: Vec<(WebhookKey, Counts)>,
    /// Dead letters that were kept for as long as they are.
    pub dead: i64,
}

/// Why an event was not taken, or a queue not read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QueueError {
    /// The webhook, or the queue, has as many events or bytes waiting as it may have.
    #[error("the queue is full")]
    Full,
    /// The volume is full.
    #[error("the queue's volume is full")]
    NoSpace,
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
    /// The file is no queue of ours, or not whole.
    #[error(
        "queue.db is damaged or something else ({0}): put a copy of it back, or move it away together with \
         queue.db-wal to begin an empty one; what it holds can be looked at with sqlite3"
    )]
    Damaged(Arc<rusqlite::Error>),
    /// Two dispatchers on one file would send everything twice.
    #[error("the queue in {0} is in use by another dispatcher: give each its own directory")]
    InUse(String),
    /// The file could not be read or written.
    #[error("the queue's file cannot be used: {0}")]
    Storage(Arc<rusqlite::Error>),
    /// The directory cannot be made, or not written.
    #[error("the queue's directory cannot be used: {0}")]
    Directory(Arc<std::io::Error>),
}

impl From<rusqlite::Error> for QueueError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::NoSpace,
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
                Self::Damaged(Arc::new(error))
            }
            _ => Self::Storage(Arc::new(error)),
        }
    }
}

/// Keeps events until they are settled.
pub trait Queue: Send + Sync + 'static {
    /// Takes events, all or none; returns once they are on disk, with the ids under which they are kept. One that
    /// its sender has named as another that was taken lately is that one: it has its id, and is not taken again.
    ///
    /// Events of one webhook with the same key are claimed one at a time, in the order in which they were taken.
    fn append(&self, events: Vec<Event>) -> impl Future<Output = Result<Vec<Uuid>, QueueError>> + Send;

    /// Claims events of a webhook that are due at `now`, `at_most` so many. Nobody else gets them until they are
    /// settled or released, or this program has ended.
    fn claim(
        &self,
        webhook: &WebhookKey,
        now: Timestamp,
        at_most: usize,
    ) -> impl Future<Output = Result<Page, QueueError>> + Send;

    /// Gives claims back without an attempt: they are due as they were.
    fn release(&self, webhook: &WebhookKey, claims: &[Sequence]);

    /// Records what became of claimed events, all or none; returns once that is on disk. On an error they are still
    /// claimed.
    fn settle(
        &self,
        webhook: &WebhookKey,
        settlements: Vec<(Sequence, Settlement)>,
    ) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Gives up what was taken before a time and has not been claimed, a bounded number at a time; returns how
    /// many.
    fn give_up(
        &self,
        webhook: &WebhookKey,
        taken_before: Timestamp,
        at: Timestamp,
        cause: Cause,
    ) -> impl Future<Output = Result<u64, QueueError>> + Send;

    /// Makes all that waits for a later attempt due at `now`.
    fn bring_forward(
        &self,
        webhook: &WebhookKey,
        now: Timestamp,
    ) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// How much there is of a webhook, as of the last commit.
    fn counts(&self, webhook: &WebhookKey) -> Counts;

    /// Dead letters after a place, in the order in which their events were taken, `at_most` so many.
    fn dead(
        &self,
        webhook: &WebhookKey,
        filter: Filter,
        after: Sequence,
        at_most: usize,
    ) -> impl Future<Output = Result<Vec<DeadLetter>, QueueError>> + Send;

    /// Makes dead letters pending again, as they were when they were taken, behind what waits, a bounded number at a
    /// time; returns how many. Those for which there is no room stay dead.
    fn replay(
        &self,
        webhook: &WebhookKey,
        filter: Filter,
        now: Timestamp,
    ) -> impl Future<Output = Result<u64, QueueError>> + Send;

    /// Removes dead letters, a bounded number at a time; returns how many.
    fn remove_dead(
        &self,
        webhook: &WebhookKey,
        filter: Filter,
    ) -> impl Future<Output = Result<u64, QueueError>> + Send;

    /// Says which webhooks there are at `now`, of a namespace or of all. The events of one that is gone wait a
    /// while for its return.
    fn present(
        &self,
        namespace: Option<String>,
        webhooks: Vec<WebhookKey>,
        now: Timestamp,
    ) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Drops what belongs to webhooks that have been gone since before `gone_before`, and dead letters of
    /// before `dead_before`.
    fn expire(
        &self,
        gone_before: Timestamp,
        dead_before: Timestamp,
    ) -> impl Future<Output = Result<Expired, QueueError>> + Send;

    /// Whether something can be written: something has been a moment ago, or is now.
    fn writable(&self) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Told whenever the webhook may have more to claim than it had.
    fn appended(&self, webhook: &WebhookKey) -> Arc<Notify>;

    /// Commits what was taken and closes the file.
    fn close(&self) -> impl Future<Output = ()> + Send;
}
