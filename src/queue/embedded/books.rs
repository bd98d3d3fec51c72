//! What is known of the webhooks without asking the file. Changed only by a commit.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use jiff::Timestamp;
use rusqlite::Connection;

use super::super::{Amount, Counts, QueueError};
use crate::{event::WebhookKey, limits};

/// Shared between who writes, who reads and who counts.
#[derive(Debug, Default)]
pub(super) struct Books(Mutex<Known>);

#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) webhooks: HashMap<WebhookKey, Webhook>,
    /// Pending events of all webhooks.
    pub(super) pending: Amount,
    /// When something was written last; `None` where that failed since.
    written_at: Option<Instant>,
}

/// A webhook that has, or had, events.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Webhook {
    /// Its number in the file.
    pub(super) id: i64,
    pub(super) counts: Counts,
    /// Since when it has been deleted.
    pub(super) gone_since: Option<Timestamp>,
}

impl Books {
    /// As the file says.
    pub(super) fn read(connection: &Connection) -> Result<Self, QueueError> {
        let mut known = Known::default();
        let mut statement = connection.prepare(
            "SELECT namespace, name, id, pending_events, pending_bytes, dead_events, dead_bytes, delivered,
             gone_ms FROM webhook",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let amount =
                |at| Ok::<_, rusqlite::Error>(Amount { events: row.get(at)?, bytes: row.get(at + 1)? });
            let counts = Counts { pending: amount(3)?, dead: amount(5)?, delivered: row.get(7)? };
            let gone_since = row.get::<_, Option<i64>>(8)?;
            let gone_since = gone_since.and_then(|ms| Timestamp::from_millisecond(ms).ok());
            known.pending.add(counts.pending);
            let key = WebhookKey { namespace: row.get(0)?, name: row.get(1)? };
            known.webhooks.insert(key, Webhook { id: row.get(2)?, counts, gone_since });
        }
        Ok(Self(Mutex::new(known)))
    }

    /// What a commit came to.
    pub(super) fn keep(&self, webhooks: Vec<(WebhookKey, Option<Webhook>)>, pending: Amount) {
        let mut known = self.open();
        known.pending = pending;
        for (key, webhook) in webhooks {
            match webhook {
                Some(webhook) => drop(known.webhooks.insert(key, webhook)),
                None => drop(known.webhooks.remove(&key)),
            }
        }
    }

    /// Something was written, or could not be.
    pub(super) fn wrote(&self, succeeded: bool) {
        self.open().written_at = succeeded.then(Instant::now);
    }

    /// Whether something was written a moment ago, and nothing failed since.
    pub(super) fn has_written(&self) -> bool {
        self.open().written_at.is_some_and(|at| at.elapsed() < limits::QUEUE_PROVEN)
    }

    pub(super) fn open(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn id(&self, webhook: &WebhookKey) -> Option<i64> {
        self.open().webhooks.get(webhook).map(|webhook| webhook.id)
    }

    pub(super) fn counts(&self, webhook: &WebhookKey) -> Counts {
        self.open().webhooks.get(webhook).map(|webhook| webhook.counts).unwrap_or_default()
    }
}

impl Amount {
    pub(super) fn one(bytes: i64) -> Self {
        Self { events: 1, bytes }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.events += other.events;
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    pub(super) fn less(self) -> Self {
        Self { events: -self.events, bytes: -self.bytes }
    }

    pub(super) fn is_within(self, limit: Self) -> bool {
        self.events <= limit.events && self.bytes <= limit.bytes
    }
}

impl Counts {
    pub(super) fn less(mut self, other: Self) -> Self {
        self.add(Self {
            pending: other.pending.less(),
            dead: other.dead.less(),
            delivered: -other.delivered,
        });
        self
    }

    pub(super) fn add(&mut self, other: Self) {
        self.pending.add(other.pending);
        self.dead.add(other.dead);
        self.delivered += other.delivered;
    }
}
