//! What a sender does with its connection, and whether it takes too long.
//!
//! A connection waits for the head of a request, or has requests under way, or is idle. Each has its time. One
//! look a second is enough for all of them, and costs a request nothing but the note that it began and ended.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::limits;

/// Of one connection.
#[derive(Debug)]
pub(super) struct Activity {
    state: Mutex<State>,
    /// Its place is another's.
    made_room: CancellationToken,
}

#[derive(Debug)]
struct State {
    /// Requests under way, and when each began, in that order.
    exchanges: BTreeMap<u64, Instant>,
    begun: u64,
    /// What it does while there are none.
    quiet: Quiet,
    since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quiet {
    /// The head of a request, or a handshake before it, has begun, or ought to.
    Head,
    /// Nothing since the last answer.
    Idle,
    /// The same, and it has been told that this is the end.
    Ends,
}

/// What took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Overdue {
    #[error("no whole head of a request came in {:?}", limits::HTTP_HEAD)]
    Head,
    #[error("idle for {:?}", limits::HTTP_IDLE)]
    Idle,
    #[error("the last of an answer was not taken in {:?}", limits::HTTP_LAST)]
    Ends,
    #[error("a request and its answer took more than {:?}", limits::HTTP_EXCHANGE)]
    Exchange,
}

impl Activity {
    pub(super) fn new() -> Self {
        let state = State { exchanges: BTreeMap::new(), begun: 0, quiet: Quiet::Head, since: Instant::now() };
        Self { state: Mutex::new(state), made_room: CancellationToken::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first request is expected now.
    pub(super) fn opened(&self) {
        self.state().be(Quiet::Head);
    }

    /// Nothing is expected.
    pub(super) fn idles(&self) {
        self.state().be(Quiet::Idle);
    }

    /// Nothing is expected any more.
    pub(super) fn idles_for_the_last_time(&self) {
        let mut state = self.state();
        // A head that has begun has its time still.
        if state.quiet == Quiet::Idle {
            state.be(Quiet::Ends);
        }
    }

    /// Something came.
    pub(super) fn heard(&self) {
        let mut state = self.state();
        if state.exchanges.is_empty() && state.quiet == Quiet::Idle {
            state.be(Quiet::Head);
        }
    }

    /// A request's head is there; its exchange ends when this is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Exchange {
        let mut state = self.state();
        state.begun += 1;
        let number = state.begun;
        state.exchanges.insert(number, Instant::now());
        Exchange { activity: Arc::clone(self), number }
    }

    /// For who chooses whose place another gets: the least is the one that does the least, for the longest time.
    pub(super) fn rank(&self) -> (bool, Instant) {
        let state = self.state();
        let oldest = state.exchanges.first_key_value().map(|(_, began)| *began);
        (oldest.is_some(), oldest.unwrap_or(state.since))
    }

    /// Takes its place away.
    pub(super) fn make_room(&self) {
        self.made_room.cancel();
    }

    /// Waits until that has happened.
    pub(super) async fn made_room(&self) {
        self.made_room.cancelled().await;
    }

    /// Waits until something has taken too long.
    pub(super) async fn overdue(&self) -> Overdue {
        loop {
            let now = Instant::now();
            let (deadline, overdue) = self.state().deadline();
            if deadline <= now {
                return overdue;
            }
            sleep_until(deadline.min(now + limits::HTTP_LOOK)).await;
        }
    }
}

impl State {
    fn be(&mut self, quiet: Quiet) {
        self.quiet = quiet;
        self.since = Instant::now();
    }

    fn deadline(&self) -> (Instant, Overdue) {
        if let Some((_, began)) = self.exchanges.first_key_value() {
            return (*began + limits::HTTP_EXCHANGE, Overdue::Exchange);
        }
        let (time, overdue): (Duration, _) = match self.quiet {
            Quiet::Head => (limits::HTTP_HEAD, Overdue::Head),
            Quiet::Idle => (limits::HTTP_IDLE, Overdue::Idle),
            Quiet::Ends => (limits::HTTP_LAST, Overdue::Ends),
        };
        (self.since + time, overdue)
    }
}

/// A request and its answer.
#[derive(Debug)]
pub(super) struct Exchange {
    activity: Arc<Activity>,
    number: u64,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        state.exchanges.remove(&self.number);
        if state.exchanges.is_empty() {
            let quiet = if state.quiet == Quiet::Ends { Quiet::Ends } else { Quiet::Idle };
            state.be(quiet);
        }
    }
}
