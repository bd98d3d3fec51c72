//! What a worker is at, for whoever tells it to people.

use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use super::{Failure, Hold, Refused};
use crate::telemetry::metrics::{Deliveries, Flow};

/// Shared between a worker and whoever asks.
#[derive(Debug, Default)]
pub struct Activity {
    snapshot: Mutex<Snapshot>,
    deliveries: Deliveries,
}

/// What a worker is at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Whether it sends.
    pub state: State,
    /// When an event was last delivered.
    pub last_success: Option<Timestamp>,
    /// The last attempt that failed.
    pub last_failure: Option<LastFailure>,
    /// The last client certificate that the endpoint refused.
    pub refused: Option<Refused>,
}

/// Whether a worker sends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It has not looked yet.
    #[default]
    Starting,
    /// All that is due.
    Delivering,
    /// Nothing.
    Holding(Hold),
    /// Single trials: the endpoint has been failing.
    Failing {
        /// Since when.
        since: Timestamp,
    },
    /// Nothing: the endpoint said that it is gone.
    Gone,
}

/// An attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastFailure {
    /// When.
    pub at: Timestamp,
    /// Where.
    pub layer: String,
    /// The constant.
    pub reason: String,
    /// What a person is told.
    pub message: String,
}

impl LastFailure {
    pub(super) fn new(failure: &Failure, at: Timestamp) -> Self {
        Self {
            at,
            layer: failure.layer.as_str().to_owned(),
            reason: failure.reason.as_str().to_owned(),
            message: failure.message.clone(),
        }
    }
}

impl Activity {
    /// One that goes on from what was told before, and what is counted beside it.
    pub fn new(snapshot: Snapshot, deliveries: Deliveries) -> Self {
        Self { snapshot: Mutex::new(snapshot), deliveries }
    }

    pub(super) fn deliveries(&self) -> &Deliveries {
        &self.deliveries
    }

    /// As it is now.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn note(&self, change: impl FnOnce(&mut Snapshot)) {
        let mut snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut snapshot);
        match snapshot.state {
            State::Starting => {}
            State::Delivering => self.deliveries.is(Flow::Delivering),
            State::Holding(_) => self.deliveries.is(Flow::Held),
            State::Failing { .. } | State::Gone => self.deliveries.is(Flow::Failing),
        }
    }
}
