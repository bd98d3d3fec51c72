//! Events that wait: what became of them, and whose turn is next.

use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, named_params};

use super::{
    super::super::{Counts, QueueError, Sequence, Settlement},
    GiveUp, ROW, Row, Work, row,
};
use crate::{event::WebhookKey, limits};

impl Work<'_> {
    /// Writes what became of an event that waits; one that is gone already stays so.
    pub(super) fn settle(
        &mut self,
        webhook: &WebhookKey,
        sequence: Sequence,
        settlement: &Settlement,
    ) -> Result<(), QueueError> {
        self.log_pages += 3;
        match settlement {
            Settlement::Retry { since, due_at } => {
                self.transaction
                    .prepare_cached(
                        "UPDATE event
                         SET due_ms = ?3, failures = failures + 1, failing_ms = coalesce(failing_ms, ?2)
                         WHERE sequence = ?1 AND dead_ms IS NULL",
                    )?
                    .execute((sequence, since.as_millisecond(), due_at.as_millisecond()))?;
            }
            Settlement::Delivered => {
                let delivered = self
                    .transaction
                    .prepare_cached(&format!(
                        "DELETE FROM event WHERE sequence = ?1 AND dead_ms IS NULL RETURNING {ROW}"
                    ))?
                    .query_row([sequence], row)
                    .optional()?;
                if let Some(delivered) = delivered {
                    let pending = delivered.amount.less();
                    self.count(webhook, Counts { pending, delivered: 1, ..Counts::default() });
                    self.unblock(webhook, &delivered)?;
                }
            }
            Settlement::Dead { at, cause } => {
                let given_up = self
                    .transaction
                    .prepare_cached(&format!(
                        "UPDATE event SET dead_ms = :at, dead_reason = :reason, dead_message = :message,
                                dead_status = :status, dead_body = :body, failures = failures + 1
                         WHERE sequence = :sequence AND dead_ms IS NULL RETURNING {ROW}"
                    ))?
                    .query_row(
                        named_params! {
                            ":sequence": sequence,
                            ":at": at.as_millisecond(),
                            ":reason": cause.reason,
                            ":message": cause.message,
                            ":status": cause.response.as_ref().map(|response| response.status),
                            ":body": cause.response.as_ref().map(|response| response.body.as_slice()),
                        },
                        row,
                    )
                    .optional()?;
                if let Some(given_up) = given_up {
                    let (pending, dead) = (given_up.amount.less(), given_up.amount);
                    self.count(webhook, Counts { pending, dead, ..Counts::default() });
                    self.unblock(webhook, &given_up)?;
                    self.drop_oldest_dead(webhook)?;
                }
            }
        }
        Ok(())
    }

    /// The next event of a key, whose turn it is.
    pub(super) fn unblock(&mut self, webhook: &WebhookKey, before: &Row) -> Result<(), QueueError> {
        let Some(key) = &before.key else { return Ok(()) };
        let Some(id) = self.webhook(webhook).map(|touched| touched.webhook.id) else { return Ok(()) };
        let unblocked = self
            .transaction
            .prepare_cached(
                "UPDATE event SET blocked = 0 WHERE blocked AND sequence = (
                     SELECT min(sequence) FROM event WHERE webhook = ?1 AND key = ?2 AND dead_ms IS NULL)",
            )?
            .execute((id, key))?;
        if let Some(touched) = self.webhook(webhook).filter(|_| unblocked > 0) {
            touched.woken = true;
        }
        Ok(())
    }

    pub(super) fn give_up(&mut self, wanted: &GiveUp) -> Result<u64, QueueError> {
        let GiveUp { webhook, taken_before, settlement, claimed } = wanted;
        let Some(id) = self.webhook(webhook).map(|touched| touched.webhook.id) else { return Ok(0) };
        let at_most = i64::try_from(limits::EXPIRED_AT_ONCE).unwrap_or(i64::MAX);
        // What was never tried is due since it was taken, and what was tried is due later than that.
        let sequences: Vec<Sequence> = self
            .transaction
            .prepare_cached(
                "SELECT sequence FROM event WHERE webhook = ?1 AND due_ms < ?2 AND accepted_ms < ?2
                 AND dead_ms IS NULL AND NOT blocked ORDER BY due_ms, sequence LIMIT ?3",
            )?
            .query_map((id, taken_before.as_millisecond(), at_most), |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let mut given_up = 0;
        for sequence in sequences.iter().filter(|sequence| !claimed.contains(sequence)) {
            self.settle(webhook, *sequence, settlement)?;
            given_up += 1;
        }
        Ok(given_up)
    }

    pub(super) fn bring_forward(&mut self, key: &WebhookKey, now: Timestamp) -> Result<(), QueueError> {
        let Some(touched) = self.webhook(key) else { return Ok(()) };
        touched.woken = true;
        let id = touched.webhook.id;
        let brought = self
            .transaction
            .prepare_cached(
                // What is blocked has never been tried, and is due already.
                "UPDATE event SET due_ms = ?2 WHERE webhook = ?1 AND due_ms > ?2 AND dead_ms IS NULL AND NOT blocked",
            )?
            .execute((id, now.as_millisecond()))?;
        self.log_pages += i64::try_from(brought).unwrap_or(i64::MAX);
        Ok(())
    }
}
