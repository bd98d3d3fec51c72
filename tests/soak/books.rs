//! The books of one webhook, and what the queue's file says at the end.
//!
//! An event that a receiver has answered with 200 is sent again only where the dispatcher could not know, or
//! could not write down, that it was: it was killed about then, or the receiver went away with its answer. Those
//! answers are in doubt. All others are final: such an event never comes again, and is in the queue no more.

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::watch;
use uuid::Uuid;

/// An answer is known and written down within this time; the disk may be busy with more than this.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);

/// Descriptions of what is wrong: the first ones tell enough.
const EXAMPLES: usize = 5;

/// Times in which an answer may be lost.
#[derive(Default)]
pub(crate) struct Doubts(Mutex<Vec<(Instant, Option<Instant>)>>);

impl Doubts {
    /// Answers are in doubt until `work` is done.
    pub(crate) async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        let mine = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.push((Instant::now(), None));
            all.len() - 1
        };
        let done = work.await;
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[mine].1 = Some(Instant::now());
        done
    }

    fn holds(&self, answered: Instant) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().any(|(from, till)| {
            answered + WRITTEN_WITHIN >= *from && till.is_none_or(|till| answered <= till)
        })
    }
}

/// Shared between those that post, the receiver, and who waits.
pub(crate) struct Books {
    book: watch::Sender<Book>,
    /// Of all webhooks: kills.
    kills: Arc<Doubts>,
    /// Of this one: its receiver goes away.
    pub(crate) away: Doubts,
}

/// Ids are numbers here; a run has some hundred thousand.
#[derive(Default)]
pub(crate) struct Book {
    acknowledged: HashSet<u128>,
    /// Answered with 200, and when the last time.
    delivered: HashMap<u128, Instant>,
    /// Acknowledged, and not answered with 200 yet.
    missing: HashSet<u128>,
    /// Came again after an answer in doubt.
    pub(crate) duplicates: u64,
    /// Came again after an answer that was final.
    pub(crate) needless: Vec<Uuid>,
    /// Answered with something else.
    pub(crate) refused: u64,
}

impl Books {
    pub(crate) fn new(kills: Arc<Doubts>) -> Self {
        Self { book: watch::Sender::new(Book::default()), kills, away: Doubts::default() }
    }

    /// The dispatcher answered 202.
    pub(crate) fn acknowledged(&self, id: Uuid) {
        self.book.send_modify(|book| {
            let id = id.as_u128();
            // The receiver may have been faster than the answer.
            if book.acknowledged.insert(id) && !book.delivered.contains_key(&id) {
                book.missing.insert(id);
            }
        });
    }

    /// The receiver answers 200.
    pub(crate) fn delivered(&self, id: Uuid) {
        self.book.send_modify(|book| {
            book.missing.remove(&id.as_u128());
            if let Some(before) = book.delivered.insert(id.as_u128(), Instant::now()) {
                if self.is_in_doubt(before) {
                    book.duplicates += 1;
                } else {
                    book.needless.push(id);
                }
            }
        });
    }

    /// The receiver answers something else.
    pub(crate) fn refused(&self) {
        self.book.send_modify(|book| book.refused += 1);
    }

    /// Waits until all that was acknowledged was answered with 200.
    pub(crate) async fn settled(&self) {
        // The sender is ours: the channel cannot close.
        let _ = self.book.subscribe().wait_for(|book| book.missing.is_empty()).await;
    }

    pub(crate) fn read<T>(&self, look: impl FnOnce(&Book) -> T) -> T {
        look(&self.book.borrow())
    }

    /// Holds the books against the queue's file.
    pub(crate) fn balance(&self, kept: &Kept) -> Balance {
        self.read(|book| {
            let mut balance = Balance {
                acknowledged: book.acknowledged.len(),
                duplicates: book.duplicates,
                refused: book.refused,
                ..Balance::default()
            };
            for id in &book.acknowledged {
                let answered = book.delivered.get(id);
                let (pending, dead) = (kept.pending.contains(id), kept.dead.contains(id));
                match (answered, pending, dead) {
                    (Some(_), false, false) => balance.delivered += 1,
                    (None, true, false) => balance.pending += 1,
                    (None, false, true) => balance.dead += 1,
                    (Some(answered), true, false) if self.is_in_doubt(*answered) => balance.pending += 1,
                    (Some(answered), false, true) if self.is_in_doubt(*answered) => balance.dead += 1,
                    (None, false, false) => balance.lost.push(Uuid::from_u128(*id)),
                    _ => balance.twice.push(Uuid::from_u128(*id)),
                }
            }
            balance.needless.clone_from(&book.needless);
            balance
        })
    }

    fn is_in_doubt(&self, answered: Instant) -> bool {
        self.kills.holds(answered) || self.away.holds(answered)
    }
}

impl Book {
    pub(crate) fn acknowledged_events(&self) -> usize {
        self.acknowledged.len()
    }

    pub(crate) fn missing_events(&self) -> usize {
        self.missing.len()
    }
}

/// Where the acknowledged events of a webhook are.
#[derive(Default)]
pub(crate) struct Balance {
    pub(crate) acknowledged: usize,
    pub(crate) delivered: usize,
    pub(crate) pending: usize,
    pub(crate) dead: usize,
    /// In none of the three.
    pub(crate) lost: Vec<Uuid>,
    /// In two of them, without a reason.
    pub(crate) twice: Vec<Uuid>,
    /// Sent again without a reason.
    pub(crate) needless: Vec<Uuid>,
    pub(crate) duplicates: u64,
    pub(crate) refused: u64,
}

impl Balance {
    /// What is wrong.
    pub(crate) fn failures(&self) -> impl Iterator<Item = String> {
        let wrong = [
            (&self.lost, "neither delivered nor pending nor dead"),
            (&self.twice, "in two of the places: delivered, pending, dead"),
            (&self.needless, "sent again after an answer that was final"),
        ];
        wrong.into_iter().filter(|(ids, _)| !ids.is_empty()).map(|(ids, what)| {
            let examples: Vec<_> = ids.iter().take(EXAMPLES).map(Uuid::to_string).collect();
            format!("{} {what}: {}", ids.len(), examples.join(", "))
        })
    }
}

/// What the queue's file holds once the dispatcher has ended.
pub(crate) struct Kept {
    pending: HashSet<u128>,
    dead: HashSet<u128>,
    /// Rows whose id another row has, too.
    pub(crate) twice: usize,
}

impl Kept {
    pub(crate) fn read(queue: &Path) -> Self {
        let read = || {
            let file = queue.join("queue.db");
            let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            let mut kept = Self { pending: HashSet::new(), dead: HashSet::new(), twice: 0 };
            let mut statement = connection.prepare("SELECT id, dead_ms IS NOT NULL FROM event")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let (id, dead) = (u128::from_be_bytes(row.get(0)?), row.get(1)?);
                let first = !kept.pending.contains(&id) && !kept.dead.contains(&id);
                kept.twice += usize::from(!first);
                if dead {
                    kept.dead.insert(id)
                } else {
                    kept.pending.insert(id)
                };
            }
            Ok(kept)
        };
        read().unwrap_or_else(|error: rusqlite::Error| panic!("the queue in {}: {error}", queue.display()))
    }
}
