//! What nobody is going to have: the events of webhooks that stay away, and those that were given up long ago.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use super::{
    super::{
        super::{Expired, QueueError, Sequence},
        books::Webhook,
    },
    Work,
};
use crate::{event::WebhookKey, limits};

impl Work<'_> {
    pub(super) fn present(&mut self, namespace: Option<&String>, webhooks: &[WebhookKey], now: Timestamp) {
        let webhooks: HashSet<_> = webhooks.iter().collect();
        let changed: Vec<_> = {
            let known = self.books.open();
            let changes = |key: &WebhookKey, webhook: &Webhook| {
                namespace.is_none_or(|namespace| *namespace == key.namespace)
                    && self.webhooks.get(key).map_or(webhook, |touched| &touched.webhook).gone_since.is_some()
                        == webhooks.contains(key)
            };
            known
                .webhooks
                .iter()
                .filter(|(key, webhook)| changes(key, webhook))
                .map(|(key, _)| key.clone())
                .collect()
        };
        for key in changed {
            if let Some(touched) = self.webhook(&key) {
                let since = &mut touched.webhook.gone_since;
                *since = if webhooks.contains(&key) { None } else { Some(now) };
            }
        }
    }

    pub(super) fn expire(
        &mut self,
        gone_before: Timestamp,
        dead_before: Timestamp,
    ) -> Result<Expired, QueueError> {
        let mut expired = Expired::default();
        let keys: HashMap<i64, WebhookKey> = {
            let known = self.books.open();
            known.webhooks.iter().map(|(key, webhook)| (webhook.id, key.clone())).collect()
        };
        let mut left = limits::EXPIRED_AT_ONCE;
        for key in keys.values() {
            let Some(webhook) = self.webhook(key).map(|touched| touched.webhook) else { continue };
            if webhook.gone_since.is_none_or(|since| since >= gone_before) {
                continue;
            }
            // Each by an index of its own.
            for state in [
                "dead_ms IS NOT NULL",
                "dead_ms IS NULL AND NOT blocked",
                "dead_ms IS NULL AND key IS NOT NULL",
            ] {
                let events = self.sequences(&format!("webhook = ?1 AND {state}"), webhook.id, left)?;
                for (sequence, _) in &events {
                    self.remove(key, *sequence)?;
                }
                left -= events.len();
            }
            let after = self.webhook(key).map(|touched| touched.webhook.counts).unwrap_or_default();
            expired.gone.push((key.clone(), webhook.counts.less(after)));
            if left == 0 {
                // The rest goes next time.
                return Ok(expired);
            }
            self.transaction.prepare_cached("DELETE FROM webhook WHERE id = ?1")?.execute([webhook.id])?;
            if let Some(touched) = self.webhook(key) {
                touched.removed = true;
            }
        }
        for (sequence, webhook) in self.sequences("dead_ms < ?1", dead_before.as_millisecond(), left)? {
            let Some(key) = keys.get(&webhook) else { continue };
            self.remove(key, sequence)?;
            expired.dead += 1;
        }
        Ok(expired)
    }

    /// Events for which a condition holds, each with the number of its webhook.
    fn sequences(
        &self,
        condition: &str,
        value: i64,
        at_most: usize,
    ) -> Result<Vec<(Sequence, i64)>, QueueError> {
        let mut statement = self
            .transaction
            .prepare_cached(&format!("SELECT sequence, webhook FROM event WHERE {condition} LIMIT ?2"))?;
        let at_most = i64::try_from(at_most).unwrap_or(i64::MAX);
        let rows = statement.query_map((value, at_most), |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
