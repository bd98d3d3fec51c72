//! What was taken lately, so that it is not taken again.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Transaction};
use uuid::Uuid;

use super::super::QueueError;
use crate::{event::SenderKey, limits};

/// The index of the table `seen`. The writer alone has it; it is as the last commit left the table.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Places by what is found there. Another may come to the same number: the row says what it is.
    places: HashMap<u64, i64>,
    /// Larger than the number of every webhook in the table: one that has gone must not give its number to
    /// another, whose events would be taken for its.
    next_webhook: i64,
}

/// What a transaction changes of it.
#[derive(Debug)]
pub(super) struct Changes {
    /// Taken, with the id under which it is kept.
    taken: HashMap<(i64, SenderKey), Uuid>,
    places: Vec<(u64, i64)>,
    forgotten: Vec<(u64, i64)>,
    /// When the last was taken.
    latest: Timestamp,
    next_webhook: i64,
}

impl Seen {
    /// As the file says.
    pub(super) fn read(connection: &Connection) -> Result<Self, QueueError> {
        let last = |table: &str, column: &str| {
            connection.query_row(&format!("SELECT coalesce(max({column}), 0) FROM {table}"), [], |row| {
                row.get::<_, i64>(0)
            })
        };
        let mut seen = Self { places: HashMap::new(), next_webhook: last("webhook", "id")? + 1 };
        let mut statement = connection.prepare("SELECT place, webhook, digest FROM seen ORDER BY place")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let webhook = row.get(1)?;
            seen.places.insert(fingerprint(webhook, &row.get(2)?), row.get(0)?);
            seen.next_webhook = seen.next_webhook.max(webhook + 1);
        }
        Ok(seen)
    }

    pub(super) fn begin(&self) -> Changes {
        Changes {
            taken: HashMap::new(),
            places: Vec::new(),
            forgotten: Vec::new(),
            latest: Timestamp::MIN,
            next_webhook: self.next_webhook,
        }
    }

    /// What a commit came to.
    pub(super) fn keep(&mut self, changes: Changes) {
        // First: what was taken may be forgotten already.
        self.places.extend(changes.places);
        for (fingerprint, place) in changes.forgotten {
            if self.places.get(&fingerprint) == Some(&place) {
                self.places.remove(&fingerprint);
            }
        }
        self.next_webhook = changes.next_webhook;
    }
}

impl Changes {
    /// A number that no webhook has had.
    pub(super) fn number_of_webhook(&mut self) -> i64 {
        self.next_webhook += 1;
        self.next_webhook - 1
    }

    /// The id under which an event was taken at or after a time.
    pub(super) fn find(
        &self,
        seen: &Seen,
        transaction: &Transaction<'_>,
        (webhook, key): (i64, SenderKey),
        since: Timestamp,
    ) -> Result<Option<Uuid>, QueueError> {
        if let Some(id) = self.taken.get(&(webhook, key)) {
            return Ok(Some(*id));
        }
        let Some(place) = seen.places.get(&fingerprint(webhook, &key)) else { return Ok(None) };
        let found = transaction
            .prepare_cached(
                "SELECT id FROM seen WHERE place = ?1 AND webhook = ?2 AND digest = ?3 AND taken_ms >= ?4",
            )?
            .query_row((place, webhook, key, since.as_millisecond()), |row| row.get(0).map(Uuid::from_bytes))
            .optional()?;
        Ok(found)
    }

    pub(super) fn take(
        &mut self,
        transaction: &Transaction<'_>,
        (webhook, key): (i64, SenderKey),
        id: Uuid,
        at: Timestamp,
    ) -> Result<(), QueueError> {
        transaction
            .prepare_cached("INSERT INTO seen (webhook, digest, id, taken_ms) VALUES (?1, ?2, ?3, ?4)")?
            .execute((webhook, key, id.as_bytes(), at.as_millisecond()))?;
        self.places.push((fingerprint(webhook, &key), transaction.last_insert_rowid()));
        self.taken.insert((webhook, key), id);
        self.latest = self.latest.max(at);
        Ok(())
    }

    /// Forgets the oldest of what is too old or too much: twice as many as were taken, so that they become fewer.
    pub(super) fn forget(&mut self, seen: &Seen, transaction: &Transaction<'_>) -> Result<(), QueueError> {
        if self.places.is_empty() {
            return Ok(());
        }
        let (at_most, before) = (2 * self.places.len(), forgotten_before(self.latest));
        let there = seen.places.len() + self.places.len();
        let mut too_many = there.saturating_sub(limits::SEEN_EVENTS);
        let mut oldest = transaction
            .prepare_cached("SELECT place, webhook, digest, taken_ms FROM seen ORDER BY place LIMIT ?1")?;
        let mut rows = oldest.query([i64::try_from(at_most).unwrap_or(i64::MAX)])?;
        let mut last = None;
        while let Some(row) = rows.next()? {
            if too_many == 0 && row.get::<_, i64>(3)? >= before.as_millisecond() {
                break;
            }
            let place = row.get(0)?;
            too_many = too_many.saturating_sub(1);
            self.forgotten.push((fingerprint(row.get(1)?, &row.get(2)?), place));
            last = Some(place);
        }
        if let Some(last) = last {
            transaction.prepare_cached("DELETE FROM seen WHERE place <= ?1")?.execute([last])?;
        }
        Ok(())
    }
}

/// What was taken before this time is another event.
pub(super) fn forgotten_before(now: Timestamp) -> Timestamp {
    let kept = SignedDuration::try_from(limits::SEEN).unwrap_or(SignedDuration::MAX);
    now.checked_sub(kept).unwrap_or(Timestamp::MIN)
}

fn fingerprint(webhook: i64, key: &SenderKey) -> u64 {
    let digest = key.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    // Numbers of webhooks are small: multiplied by an odd number they reach all bits.
    digest ^ webhook.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
