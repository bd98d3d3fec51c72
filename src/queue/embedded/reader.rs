//! The thread that reads: what is due, and what was given up.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use jiff::Timestamp;
use rusqlite::{Connection, Row, types::Type};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::{
    super::{Cause, Claim, DeadLetter, Filter, Page, QueueError, Response, Sequence},
    Books,
};
use crate::{
    event::{Event, WebhookKey},
    limits,
};

pub(super) enum Read {
    Claim(WantedClaim),
    Dead {
        webhook: WebhookKey,
        filter: Filter,
        after: Sequence,
        at_most: usize,
        reply: oneshot::Sender<Result<Vec<DeadLetter>, QueueError>>,
    },
    Oldest {
        webhook: WebhookKey,
        reply: oneshot::Sender<Result<Option<Timestamp>, QueueError>>,
    },
    Close,
}

pub(super) struct WantedClaim {
    pub(super) webhook: WebhookKey,
    pub(super) now: Timestamp,
    pub(super) at_most: usize,
    pub(super) reply: oneshot::Sender<Result<Page, QueueError>>,
}

/// The events that somebody has.
#[derive(Debug, Default)]
pub(super) struct Claimed(Mutex<HashMap<WebhookKey, HashSet<Sequence>>>);

impl Claimed {
    pub(super) fn of(&self, webhook: &WebhookKey) -> HashSet<Sequence> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(webhook).cloned().unwrap_or_default()
    }

    fn claim(&self, webhook: &WebhookKey, claims: impl Iterator<Item = Sequence>) {
        let mut claimed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        claimed.entry(webhook.clone()).or_default().extend(claims);
    }

    pub(super) fn release(&self, webhook: &WebhookKey, claims: &[Sequence]) {
        let mut claimed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(of_webhook) = claimed.get_mut(webhook) else { return };
        for claim in claims {
            of_webhook.remove(claim);
        }
        if of_webhook.is_empty() {
            claimed.remove(webhook);
        }
    }
}

pub(super) struct Reader {
    connection: Connection,
    books: Arc<Books>,
    claimed: Arc<Claimed>,
}

impl Reader {
    pub(super) fn new(connection: Connection, books: Arc<Books>, claimed: Arc<Claimed>) -> Self {
        Self { connection, books, claimed }
    }

    /// Ends on [`Read::Close`] or when every sender is gone.
    pub(super) fn start(self, mut reads: mpsc::Receiver<Read>) -> JoinHandle<()> {
        thread::spawn(move || {
            while let Some(first) = reads.blocking_recv() {
                let mut wanted = Vec::new();
                let mut next = Some(first);
                while let Some(read) = next.take() {
                    match read {
                        Read::Claim(claim) => wanted.push(claim),
                        // Who asked may have gone away.
                        Read::Dead { reply, .. } if reply.is_closed() => {}
                        Read::Dead { webhook, filter, after, at_most, reply } => {
                            let _ = reply.send(self.dead(&webhook, &filter, after, at_most));
                        }
                        Read::Oldest { webhook, reply } => {
                            let _ = reply.send(self.oldest(&webhook));
                        }
                        Read::Close => return self.claim_all(wanted),
                    }
                    next = if wanted.len() < limits::QUEUE_BATCH { reads.try_recv().ok() } else { None };
                }
                self.claim_all(wanted);
            }
        })
    }

    /// What waits together is read together: it is the beginning and the end of a read that cost most of a small one.
    fn claim_all(&self, wanted: Vec<WantedClaim>) {
        // Before the file is looked at: what is settled meanwhile is still in it as it was, and must not be
        // claimed again. Nobody else adds any.
        let mut claimed: HashMap<WebhookKey, HashSet<Sequence>> =
            wanted.iter().map(|wanted| (wanted.webhook.clone(), self.claimed.of(&wanted.webhook))).collect();
        // Dropped, it ends. Where it cannot begin, each statement is one of its own.
        let _together = (wanted.len() > 1).then(|| self.connection.unchecked_transaction());
        for WantedClaim { webhook, now, at_most, reply } in wanted {
            let claimed = claimed.entry(webhook.clone()).or_default();
            let page = self.claim(&webhook, now, at_most, claimed);
            // Whoever asked is gone: nobody has them.
            if let Err(Ok(page)) = reply.send(page) {
                let claims: Vec<_> = page.claims.iter().map(|claim| claim.sequence).collect();
                claimed.retain(|claim| !claims.contains(claim));
                self.claimed.release(&webhook, &claims);
            }
        }
    }

    /// `claimed` is of the time before the read; what is claimed here is added to it.
    fn claim(
        &self,
        webhook: &WebhookKey,
        now: Timestamp,
        at_most: usize,
        claimed: &mut HashSet<Sequence>,
    ) -> Result<Page, QueueError> {
        let Some(id) = self.books.id(webhook) else { return Ok(Page::default()) };
        let (at_most, now_ms) = (at_most.min(limits::CLAIM_EVENTS), now.as_millisecond());
        // Of the index alone; the rows are read one by one.
        let mut sequences = self.connection.prepare_cached(
            "SELECT sequence, due_ms FROM event WHERE webhook = ?1 AND dead_ms IS NULL AND NOT blocked
             ORDER BY due_ms, sequence",
        )?;
        let mut event = self.connection.prepare_cached(
            "SELECT failures, failing_ms, id, accepted_ms, attributes, body, key FROM event WHERE sequence = ?1",
        )?;
        let mut rows = sequences.query([id])?;
        let (mut page, mut bytes) = (Page::default(), 0);
        while let Some(row) = rows.next()? {
            let (sequence, due_ms): (_, i64) = (row.get(0)?, row.get(1)?);
            if due_ms > now_ms {
                page.next_due_at = Some(time(due_ms));
                break;
            }
            if claimed.contains(&sequence) {
                continue;
            }
            if page.claims.len() == at_most || bytes > limits::CLAIM_BYTES {
                page.next_due_at = Some(now);
                break;
            }
            let claim = event.query_row([sequence], |row| {
                Ok(Claim {
                    sequence,
                    failures: row.get(0)?,
                    failing_since: row.get::<_, Option<i64>>(1)?.map(time),
                    event: read_event(row, 2, webhook)?,
                })
            })?;
            bytes += claim.event.body.len();
            page.claims.push(claim);
        }
        claimed.extend(page.claims.iter().map(|claim| claim.sequence));
        self.claimed.claim(webhook, page.claims.iter().map(|claim| claim.sequence));
        Ok(page)
    }

    /// Among those that are due first: to look at all of a million takes too long.
    fn oldest(&self, webhook: &WebhookKey) -> Result<Option<Timestamp>, QueueError> {
        let Some(id) = self.books.id(webhook) else { return Ok(None) };
        let mut oldest = self.connection.prepare_cached(
            "SELECT min(accepted_ms) FROM (
                 SELECT accepted_ms FROM event WHERE webhook = ?1 AND dead_ms IS NULL AND NOT blocked
                 ORDER BY due_ms, sequence LIMIT ?2)",
        )?;
        let at_most = i64::try_from(limits::METRICS_OLDEST_EVENTS).unwrap_or(i64::MAX);
        Ok(oldest.query_row((id, at_most), |row| row.get::<_, Option<i64>>(0))?.map(time))
    }

    fn dead(
        &self,
        webhook: &WebhookKey,
        filter: &Filter,
        after: Sequence,
        at_most: usize,
    ) -> Result<Vec<DeadLetter>, QueueError> {
        let Some(id) = self.books.id(webhook) else { return Ok(Vec::new()) };
        // Bodies are read only of what is asked for: a filter may step over thousands.
        let mut found = self.connection.prepare_cached(
            "SELECT sequence, id, dead_reason, dead_ms FROM event
             WHERE webhook = ?1 AND dead_ms IS NOT NULL AND sequence > ?2 ORDER BY sequence",
        )?;
        let mut letter = self.connection.prepare_cached(
            "SELECT failures, dead_message, dead_status, dead_body, id, accepted_ms, attributes, body, key
             FROM event WHERE sequence = ?1 AND dead_ms IS NOT NULL",
        )?;
        let mut rows = found.query((id, after))?;
        let (mut letters, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()?
            && letters.len() < at_most.min(limits::CLAIM_EVENTS)
            && bytes <= limits::CLAIM_BYTES
        {
            let (sequence, reason) = (row.get(0)?, row.get::<_, Option<String>>(2)?.unwrap_or_default());
            let dead_at = time(row.get(3)?);
            if !filter.takes(Uuid::from_bytes(row.get(1)?), &reason, dead_at) {
                continue;
            }
            let read = |row: &Row<'_>| {
                let body = row.get::<_, Option<Vec<u8>>>(3)?.unwrap_or_default();
                let response = row.get::<_, Option<u16>>(2)?.map(|status| Response { status, body });
                let message = row.get::<_, Option<String>>(1)?.unwrap_or_default();
                Ok(DeadLetter {
                    sequence,
                    dead_at,
                    failures: row.get(0)?,
                    cause: Cause { reason, message, response },
                    event: read_event(row, 4, webhook)?,
                })
            };
            let letter = letter.query_row([sequence], read)?;
            bytes += letter.event.body.len();
            letters.push(letter);
        }
        Ok(letters)
    }
}

impl Filter {
    /// And given up before this time.
    pub(crate) fn before(self, time: Timestamp) -> Self {
        Self { before: Some(self.before.map_or(time, |before| before.min(time))), ..self }
    }

    /// Whether it takes a dead letter.
    pub(super) fn takes(&self, id: Uuid, reason: &str, dead_at: Timestamp) -> bool {
        self.ids.as_ref().is_none_or(|ids| ids.contains(&id))
            && self.reason.as_ref().is_none_or(|wanted| wanted == reason)
            && self.before.is_none_or(|before| dead_at < before)
    }
}

pub(super) fn time(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// An event out of the columns `id, accepted_ms, attributes, body, key`, the first of which is at `at`.
fn read_event(row: &Row<'_>, at: usize, webhook: &WebhookKey) -> Result<Event, rusqlite::Error> {
    let attributes = row.get_ref(at + 2)?.as_str()?;
    Ok(Event {
        id: row.get::<_, [u8; 16]>(at).map(Uuid::from_bytes)?,
        webhook: webhook.clone(),
        accepted_at: time(row.get(at + 1)?),
        attributes: serde_json::from_str(attributes).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(at + 2, Type::Text, Box::new(error))
        })?,
        body: row.get::<_, Vec<u8>>(at + 3)?.into(),
        key: row.get(at + 4)?,
    })
}
