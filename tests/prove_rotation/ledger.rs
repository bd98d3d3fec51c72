//! The books of one webhook: what was acknowledged, what arrived, and with which certificate.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use uuid::Uuid;

/// Descriptions of what was wrongly sent: the first ones tell enough.
const EXAMPLES: usize = 5;

/// A request as a receiver saw it.
pub(crate) struct Receipt {
    /// Of the header `webhook-id`.
    pub(crate) id: Option<Uuid>,
    /// SHA-256 of the client's certificate, lower-case hex.
    pub(crate) fingerprint: Option<String>,
    pub(crate) received_at: Timestamp,
    /// The receiver answered 200.
    pub(crate) accepted: bool,
}

/// Shared between those that post, those that receive, and those that wait.
pub(crate) struct Ledger(watch::Sender<Book>);

/// What is in the books. Ids are kept as numbers, a run has some hundred thousand.
pub(crate) struct Book {
    /// Certificates that the webhook was told to use, and when they expire.
    asked: HashMap<String, Timestamp>,
    acknowledged: HashSet<u128>,
    arrived: HashSet<u128>,
    /// Acknowledged, and not arrived yet; since when.
    pending: HashMap<u128, Timestamp>,
    /// Accepted requests by certificate.
    accepted: HashMap<String, u64>,
    pub(crate) duplicates: u64,
    /// Requests that the receiver answered with something else than 200.
    pub(crate) refused: u64,
    pub(crate) without_certificate: u64,
    pub(crate) expired_certificate: u64,
    /// With a certificate that the webhook was never told to use.
    pub(crate) unknown_certificate: u64,
    pub(crate) examples: Vec<String>,
    /// Since when nothing arrived, while something is pending.
    quiet_since: Instant,
    pub(crate) longest_gap: Option<Gap>,
}

/// A time in which events were pending and none arrived.
#[derive(Clone, Copy)]
pub(crate) struct Gap {
    pub(crate) from: Instant,
    pub(crate) till: Instant,
}

impl Gap {
    pub(crate) fn length(self) -> Duration {
        self.till.duration_since(self.from)
    }
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(Book {
            asked: HashMap::new(),
            acknowledged: HashSet::new(),
            arrived: HashSet::new(),
            pending: HashMap::new(),
            accepted: HashMap::new(),
            duplicates: 0,
            refused: 0,
            without_certificate: 0,
            expired_certificate: 0,
            unknown_certificate: 0,
            examples: Vec::new(),
            quiet_since: Instant::now(),
            longest_gap: None,
        }))
    }

    /// The webhook is about to be told to use this certificate.
    pub(crate) fn asks_for(&self, fingerprint: &str, not_after: Timestamp) {
        self.0.send_modify(|book| {
            book.asked.insert(fingerprint.to_owned(), not_after);
        });
    }

    /// The dispatcher answered 202.
    pub(crate) fn acknowledged(&self, id: Uuid) {
        self.0.send_modify(|book| book.acknowledge(id.as_u128()));
    }

    /// The receiver got a request.
    pub(crate) fn received(&self, receipt: &Receipt) {
        self.0.send_modify(|book| book.receive(receipt));
    }

    /// The receiver ended a handshake because the client's certificate had expired.
    pub(crate) fn refused_as_expired(&self, description: String) {
        self.0.send_modify(|book| {
            book.expired_certificate += 1;
            book.example(description);
        });
    }

    /// Looks at the books; they are closed to others meanwhile.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Book) -> T) -> T {
        look(&self.0.borrow())
    }

    /// Waits until a request with this certificate was accepted.
    pub(crate) async fn accepted_with(&self, fingerprint: &str) {
        self.wait_for(|book| book.accepted.contains_key(fingerprint)).await;
    }

    /// Waits until all that was acknowledged has arrived.
    pub(crate) async fn settled(&self) {
        self.wait_for(|book| book.pending.is_empty()).await;
    }

    async fn wait_for(&self, condition: impl FnMut(&Book) -> bool) {
        // The sender is ours: the channel cannot close.
        let _ = self.0.subscribe().wait_for(condition).await;
    }
}

impl Book {
    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// Of those that were acknowledged.
    pub(crate) fn delivered(&self) -> usize {
        self.acknowledged.len() - self.pending.len()
    }

    pub(crate) fn lost(&self) -> usize {
        self.pending.len()
    }

    /// Some of those that were lost, and when they were acknowledged.
    pub(crate) fn examples_of_lost(&self) -> impl Iterator<Item = (Uuid, Timestamp)> {
        self.pending.iter().take(EXAMPLES).map(|(id, at)| (Uuid::from_u128(*id), *at))
    }

    /// Events that arrived although their sender never saw the 202: the dispatcher was killed in between.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.arrived.len() - self.delivered()
    }

    fn acknowledge(&mut self, id: u128) {
        // The receiver may have been faster than the answer.
        if self.acknowledged.insert(id) && !self.arrived.contains(&id) {
            if self.pending.is_empty() {
                self.quiet_since = Instant::now();
            }
            self.pending.insert(id, Timestamp::now());
        }
    }

    fn receive(&mut self, receipt: &Receipt) {
        self.check_certificate(receipt);
        if !receipt.accepted {
            self.refused += 1;
            return;
        }
        let Some(id) = receipt.id.map(|id| id.as_u128()) else { return };
        if let Some(fingerprint) = &receipt.fingerprint {
            // One allocation for a certificate, and not for a request.
            match self.accepted.get_mut(fingerprint) {
                Some(count) => *count += 1,
                None => {
                    self.accepted.insert(fingerprint.clone(), 1);
                }
            }
        }
        self.end_gap();
        if self.arrived.insert(id) {
            self.pending.remove(&id);
        } else {
            self.duplicates += 1;
        }
    }

    fn end_gap(&mut self) {
        let gap = Gap { from: self.quiet_since, till: Instant::now() };
        self.quiet_since = gap.till;
        if !self.pending.is_empty() && self.longest_gap.is_none_or(|longest| longest.length() < gap.length())
        {
            self.longest_gap = Some(gap);
        }
    }

    fn check_certificate(&mut self, Receipt { id, fingerprint, received_at, .. }: &Receipt) {
        let Some(fingerprint) = fingerprint else {
            self.without_certificate += 1;
            return self.example(format!("{received_at}: {id:?} without a certificate"));
        };
        match self.asked.get(fingerprint) {
            None => {
                self.unknown_certificate += 1;
                self.example(format!("{received_at}: {id:?} with the unknown certificate {fingerprint}"));
            }
            // notAfter names a second, and that second is included (RFC 5280, 4.1.2.5): the servers count so.
            // What is on its way when it begins has the second to arrive.
            Some(&not_after) if *received_at >= not_after + SignedDuration::from_secs(1) => {
                self.expired_certificate += 1;
                self.example(format!("{received_at}: {id:?} with {fingerprint}, which expired {not_after}"));
            }
            Some(_) => {}
        }
    }

    fn example(&mut self, description: String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(description);
        }
    }
}
