//! Answers of the API server, remembered for a while: one question at a time for each key, a bounded number at a
//! time in all.

use std::{
    hash::Hash,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use moka::future::Cache;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::Unavailable;
use crate::limits;

/// What was answered to each key: a grant (`Some`), or a refusal.
pub(super) struct Answers<K, G> {
    /// For the log.
    what: &'static str,
    cache: Cache<K, Answer<G>>,
    /// There was no answer last time.
    away: AtomicBool,
    strangers: Line,
    /// Those who have been granted before have a line of their own: strangers do not make them wait.
    known: Line,
}

#[derive(Clone)]
struct Answer<G> {
    what: Result<Option<G>, Unavailable>,
    until: Instant,
    /// Granted, the last time that there was a review.
    known: bool,
}

impl<K, G> Answers<K, G>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    G: Clone + Send + Sync + 'static,
{
    pub(super) fn new(what: &'static str, capacity: u64) -> Self {
        let (strangers, known) = (Line::default(), Line::default());
        Self { what, cache: Cache::new(capacity), away: AtomicBool::new(false), strangers, known }
    }

    /// What was answered, or what `review` finds. A grant counts for `grant` from when it was asked for, a refusal
    /// for [`limits::REFUSAL`]; that there was no review is told to those who waited for it, and forgotten.
    pub(super) async fn get(
        &self,
        key: K,
        grant: Duration,
        review: impl Future<Output = Result<Option<G>, Unavailable>>,
    ) -> Result<Option<G>, Unavailable> {
        let before = self.cache.get(&key).await;
        if let Some(answer) = before.as_ref().filter(|answer| !answer.is_over()) {
            return answer.what.clone();
        }
        let was_known = before.is_some_and(|answer| answer.known);
        let review = async {
            let asked_at = Instant::now();
            let line = if was_known { &self.known } else { &self.strangers };
            let what = line.wait_and(review).await;
            self.tell(what.as_ref().err());
            let (counts_for, known) = match &what {
                Ok(Some(_)) => (grant, true),
                Ok(None) => (limits::REFUSAL, false),
                Err(_) => (Duration::ZERO, was_known),
            };
            Answer { what, until: asked_at + counts_for, known }
        };
        let answer = self.cache.entry(key).or_insert_with_if(review, Answer::is_over).await;
        answer.into_value().what
    }

    /// Tells the log when the API server goes away, and when it is back; not of each request in between.
    fn tell(&self, error: Option<&Unavailable>) {
        let what = self.what;
        match error {
            Some(Unavailable::Busy) => {}
            Some(error) => {
                if !self.away.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "the {what} of senders cannot be reviewed; what was granted a moment ago goes on");
                }
            }
            None => {
                if self.away.swap(false, Ordering::Relaxed) {
                    tracing::info!("the {what} of senders can be reviewed again");
                }
            }
        }
    }
}

impl<G> Answer<G> {
    fn is_over(&self) -> bool {
        self.until <= Instant::now()
    }
}

/// Reviews under way, and those who wait for their turn.
struct Line {
    at_once: Semaphore,
    in_all: Semaphore,
}

impl Default for Line {
    fn default() -> Self {
        Self { at_once: Semaphore::new(limits::REVIEWS_AT_ONCE), in_all: Semaphore::new(limits::REVIEWS) }
    }
}

impl Line {
    async fn wait_and<T>(
        &self,
        review: impl Future<Output = Result<T, Unavailable>>,
    ) -> Result<T, Unavailable> {
        let deadline = Instant::now() + limits::REVIEW_TIMEOUT;
        let _place = self.in_all.try_acquire().map_err(|_| Unavailable::Busy)?;
        let _turn = timeout_at(deadline, self.at_once.acquire()).await.map_err(|_| Unavailable::Busy)?;
        timeout_at(deadline, review)
            .await
            .unwrap_or_else(|_| Err(Unavailable::Away("no answer in time".to_owned())))
    }
}
