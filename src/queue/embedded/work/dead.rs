//! Events that were given up: how many are kept, and what is sent again or removed.

use jiff::Timestamp;
use rusqlite::OptionalExtension as _;
use uuid::Uuid;

use super::{
    super::{
        super::{Amount, Counts, Filter, QueueError, Sequence},
        reader::time,
        volume::PAGE_BYTES,
    },
    ROW, Work, row,
};
use crate::{event::WebhookKey, limits};

impl Work<'_> {
    /// Events that were given up stay until others of their webhook need the room.
    pub(super) fn drop_oldest_dead(&mut self, webhook: &WebhookKey) -> Result<(), QueueError> {
        let room = self.room.dead;
        while let Some(touched) = self.webhook(webhook)
            && !touched.webhook.counts.dead.is_within(room)
        {
            let id = touched.webhook.id;
            let dropped = self
                .transaction
                .prepare_cached(&format!(
                    "DELETE FROM event WHERE sequence =
                         (SELECT min(sequence) FROM event WHERE webhook = ?1 AND dead_ms IS NOT NULL) RETURNING {ROW}"
                ))?
                .query_row([id], row)
                .optional()?;
            let Some(dropped) = dropped else { break };
            self.count(webhook, Counts { dead: dropped.amount.less(), ..Counts::default() });
            if let Some(touched) = self.webhook(webhook) {
                touched.dropped += 1;
            }
        }
        Ok(())
    }

    /// The dead letters that a filter takes, oldest first, a bounded number of them.
    fn filtered(&self, webhook: i64, filter: &Filter) -> Result<Vec<Sequence>, QueueError> {
        let mut statement = self.transaction.prepare_cached(
            "SELECT sequence, id, dead_reason, dead_ms FROM event
             WHERE webhook = ?1 AND dead_ms IS NOT NULL ORDER BY sequence",
        )?;
        let mut rows = statement.query([webhook])?;
        let mut sequences = Vec::new();
        while let Some(row) = rows.next()? {
            let id = row.get::<_, [u8; 16]>(1).map(Uuid::from_bytes)?;
            let reason = row.get::<_, Option<String>>(2)?.unwrap_or_default();
            if filter.takes(id, &reason, time(row.get(3)?)) {
                sequences.push(row.get(0)?);
            }
            if sequences.len() == limits::EXPIRED_AT_ONCE {
                break;
            }
        }
        Ok(sequences)
    }

    pub(super) fn replay(
        &mut self,
        key: &WebhookKey,
        filter: &Filter,
        now: Timestamp,
    ) -> Result<u64, QueueError> {
        let Some(id) = self.webhook(key).map(|touched| touched.webhook.id) else { return Ok(0) };
        let room = self.room;
        let mut replayed = 0;
        for sequence in self.filtered(id, filter)? {
            let amount: i64 = self
                .transaction
                .prepare_cached(
                    "SELECT octet_length(attributes) + octet_length(body) FROM event WHERE sequence = ?1",
                )?
                .query_row([sequence], |row| row.get(0))?;
            let amount = Amount::one(amount);
            let mut in_all = self.pending;
            in_all.add(amount);
            let Some(touched) = self.webhook(key) else { break };
            let mut after = touched.webhook.counts.pending;
            after.add(amount);
            if !after.is_within(room.pending) || !in_all.is_within(room.pending_in_all) {
                break;
            }
            touched.woken = true;
            touched.webhook.counts.add(Counts { pending: amount, dead: amount.less(), delivered: 0 });
            self.pending = in_all;
            // In a place of its own, behind what waits: its key may have gone on without it.
            self.transaction
                .prepare_cached(
                    "INSERT INTO event (webhook, id, accepted_ms, due_ms, attributes, body, key, blocked)
                     SELECT webhook, id, accepted_ms, ?2, attributes, body, key, key IS NOT NULL AND EXISTS
                         (SELECT 1 FROM event AS earlier WHERE earlier.webhook = event.webhook
                          AND earlier.key = event.key AND earlier.dead_ms IS NULL)
                     FROM event WHERE sequence = ?1",
                )?
                .execute((sequence, now.as_millisecond()))?;
            self.transaction.prepare_cached("DELETE FROM event WHERE sequence = ?1")?.execute([sequence])?;
            self.log_pages += 6 + amount.bytes / PAGE_BYTES;
            replayed += 1;
        }
        Ok(replayed)
    }

    pub(super) fn remove_dead(&mut self, key: &WebhookKey, filter: &Filter) -> Result<u64, QueueError> {
        let Some(id) = self.webhook(key).map(|touched| touched.webhook.id) else { return Ok(0) };
        let mut removed = 0;
        for sequence in self.filtered(id, filter)? {
            self.remove(key, sequence)?;
            removed += 1;
        }
        Ok(removed)
    }
}
