//! Events that come: which are known already, what there is room for, and their rows.

use std::collections::HashMap;

use rusqlite::named_params;
use uuid::Uuid;

use super::{
    super::{
        super::{Amount, QueueError},
        seen,
        volume::{PAGE_BYTES, Size},
    },
    Work,
};
use crate::event::{Event, SenderKey, WebhookKey};

/// Estimate of what an event that comes adds to the log.
fn pages(amount: Amount) -> i64 {
    4 + amount.bytes / PAGE_BYTES
}

impl Work<'_> {
    /// All events or none, and their ids: the inner result is a refusal that wrote nothing.
    pub(super) fn append(&mut self, events: &[Event]) -> Result<Result<Vec<Uuid>, QueueError>, QueueError> {
        let mut ids = Vec::with_capacity(events.len());
        let mut rows = Vec::with_capacity(events.len());
        let mut added: HashMap<&WebhookKey, Amount> = HashMap::new();
        let mut named: HashMap<(&WebhookKey, SenderKey), Uuid> = HashMap::new();
        let mut in_all = self.pending;
        for event in events {
            let sender_key = event.sender_key();
            if let Some(key) = sender_key {
                let taken = match named.get(&(&event.webhook, key)) {
                    Some(id) => Some(*id),
                    None => self.taken_before(event, key)?,
                };
                if let Some(id) = taken {
                    ids.push(id);
                    continue;
                }
                named.insert((&event.webhook, key), event.id);
            }
            let attributes = serde_json::to_string(&event.attributes)
                .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
            let amount = Amount::one(i64::try_from(attributes.len() + event.body.len()).unwrap_or(i64::MAX));
            added.entry(&event.webhook).or_default().add(amount);
            in_all.add(amount);
            ids.push(event.id);
            rows.push((event, sender_key, attributes, amount));
        }
        // Only what comes in is refused for want of room: what leaves has to be recorded in any case.
        let size = match self.size {
            Some(size) => size,
            None => Size::read(&self.transaction, self.volume)?,
        };
        self.size = Some(size);
        let log_pages = self.log_pages + rows.iter().map(|(.., amount)| pages(*amount)).sum::<i64>();
        let log_bytes = log_pages * PAGE_BYTES;
        let room = self.room;
        let fits = added.iter().all(|(webhook, added)| {
            let mut after =
                self.webhook(webhook).map(|touched| touched.webhook.counts.pending).unwrap_or_default();
            after.add(*added);
            after.is_within(room.pending)
        });
        if !rows.is_empty()
            && (!fits || size.used + log_bytes > room.file_bytes || !in_all.is_within(room.pending_in_all))
        {
            return Ok(Err(QueueError::Full));
        }
        if !rows.is_empty() && !size.has_room_for(log_bytes) {
            return Ok(Err(QueueError::NoSpace));
        }
        for (event, sender_key, attributes, amount) in rows {
            let touched = self.webhook_or_new(&event.webhook)?;
            touched.woken = true;
            touched.webhook.counts.pending.add(amount);
            let webhook = touched.webhook.id;
            self.pending.add(amount);
            self.insert(webhook, event, &attributes)?;
            if let Some(key) = sender_key {
                let at = event.accepted_at;
                self.seen_changes.take(&self.transaction, (webhook, key), event.id, at)?;
            }
        }
        self.log_pages = log_pages;
        Ok(Ok(ids))
    }

    /// The id of an event that was taken lately and that its sender calls the same.
    fn taken_before(&mut self, event: &Event, key: SenderKey) -> Result<Option<Uuid>, QueueError> {
        let Some(webhook) = self.webhook(&event.webhook).map(|touched| touched.webhook.id) else {
            return Ok(None);
        };
        let since = seen::forgotten_before(event.accepted_at);
        self.seen_changes.find(self.seen, &self.transaction, (webhook, key), since)
    }

    fn insert(&self, webhook: i64, event: &Event, attributes: &str) -> Result<(), QueueError> {
        self.transaction
            .prepare_cached(
                "INSERT INTO event (webhook, id, accepted_ms, due_ms, attributes, body, key, blocked)
                 VALUES (:webhook, :id, :accepted_ms, :accepted_ms, :attributes, :body, :key, :key IS NOT NULL AND EXISTS
                     (SELECT 1 FROM event WHERE webhook = :webhook AND key = :key AND dead_ms IS NULL))",
            )?
            .execute(named_params! {
                ":webhook": webhook,
                ":id": event.id.as_bytes(),
                ":accepted_ms": event.accepted_at.as_millisecond(),
                ":attributes": attributes,
                ":body": &*event.body,
                ":key": event.key,
            })?;
        Ok(())
    }
}
