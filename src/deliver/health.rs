//! Whether an endpoint as a whole takes anything. Pure.
//!
//! An endpoint that fails all the time is left alone but for single trials, however many events wait for it;
//! the first success opens it again for all of them.

use jiff::Timestamp;

use super::{Failure, RetryPolicy};
use crate::{backoff::backoff, limits, probe::Layer};

/// What is known of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// Failures in a row that speak of the endpoint, and not of one event.
    failures: u32,
    /// Since when.
    since: Option<Timestamp>,
    closed: Option<Closed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closed {
    /// Nothing is sent before this time.
    Until(Timestamp),
    /// One attempt is under way, to see.
    Trial,
    /// The endpoint said that it is gone for good.
    Gone,
}

/// What may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// All that is due.
    Open,
    /// One event, to see.
    Trial,
    /// Nothing before this time, or before something happens.
    Closed(Option<Timestamp>),
}

impl Health {
    pub(super) fn gate(&self, now: Timestamp) -> Gate {
        match self.closed {
            None => Gate::Open,
            Some(Closed::Until(at)) if at <= now => Gate::Trial,
            // Nobody asked for so much: the clock was set back.
            Some(Closed::Until(at)) if at > later(now, limits::RETRY_AFTER) => Gate::Trial,
            Some(Closed::Until(at)) => Gate::Closed(Some(at)),
            Some(Closed::Trial | Closed::Gone) => Gate::Closed(None),
        }
    }

    /// Since when it has been failing.
    pub(super) fn failing_since(&self) -> Option<Timestamp> {
        self.since
    }

    /// Whether it is left alone but for trials.
    pub(super) fn is_failing(&self) -> bool {
        self.closed.is_some()
    }

    /// Whether it said that it is gone.
    pub(super) fn is_gone(&self) -> bool {
        self.closed == Some(Closed::Gone)
    }

    pub(super) fn trial_begins(&mut self) {
        self.closed = Some(Closed::Trial);
    }

    /// An attempt came to nothing, for a reason of ours.
    pub(super) fn not_tried(&mut self, now: Timestamp) {
        if self.closed == Some(Closed::Trial) {
            self.closed = Some(Closed::Until(now));
        }
    }

    /// It took an event, or gave a considered answer; true where it had been closed.
    pub(super) fn works(&mut self) -> bool {
        // What was under way when it said so changes nothing of it.
        if self.is_gone() {
            return false;
        }
        std::mem::take(self).closed.is_some()
    }

    pub(super) fn gone(&mut self) {
        self.closed = Some(Closed::Gone);
    }

    /// An attempt failed. `jitter` in 0..1 takes up to half of the delay away.
    pub(super) fn failed(&mut self, failure: &Failure, retry: &RetryPolicy, now: Timestamp, jitter: f64) {
        let wish = failure.retry_after.map(|wish| wish.min(limits::RETRY_AFTER));
        match self.closed {
            Some(Closed::Gone) => return,
            // One that was under way when it was closed tells nothing new.
            Some(Closed::Until(at)) if wish.is_none_or(|wish| later(now, wish) <= at) => return,
            _ => {}
        }
        self.since.get_or_insert(now);
        self.failures = self.failures.saturating_add(1);
        let beyond = (self.failures + 1).saturating_sub(limits::ENDPOINT_FAILURES);
        if beyond == 0 && wish.is_none() {
            return;
        }
        let delay = backoff(retry.initial, retry.max.min(limits::ENDPOINT_TRIAL), beyond);
        let delay = delay.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0).max(wish.unwrap_or_default());
        self.closed = Some(Closed::Until(later(now, delay)));
    }
}

/// Whether a failure speaks of the endpoint, and not of the one event.
pub(super) fn is_of_endpoint(failure: &Failure) -> bool {
    match failure.status() {
        Some(status) if failure.layer == Layer::Http => matches!(status, 408 | 425 | 429 | 500..),
        _ => true,
    }
}

fn later(now: Timestamp, delay: std::time::Duration) -> Timestamp {
    now.checked_add(delay).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        probe::{Reason, Refusal},
        queue::Response,
    };

    const RETRY: RetryPolicy = RetryPolicy {
        initial: Duration::from_secs(2),
        max: Duration::from_mins(10),
        max_age: Duration::from_hours(2),
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn failure(status: Option<u16>, retry_after: Option<u64>) -> Failure {
        Failure {
            layer: if status.is_some() { Layer::Http } else { Layer::Connect },
            reason: Reason::HttpStatus,
            refusal: Refusal::No,
            message: String::new(),
            retry_after: retry_after.map(Duration::from_secs),
            response: status.map(|status| Response { status, body: Vec::new() }),
        }
    }

    fn failed(times: u32) -> Health {
        let mut health = Health::default();
        for _ in 0..times {
            health.failed(&failure(None, None), &RETRY, at(0), 0.0);
        }
        health
    }

    #[test]
    fn failures_in_a_row_close_it_and_trials_come_at_growing_distances() {
        assert_eq!(failed(limits::ENDPOINT_FAILURES - 1).gate(at(0)), Gate::Open);
        let mut health = failed(limits::ENDPOINT_FAILURES);
        let mut now = 0;
        for delay in [2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(health.gate(at(now + delay - 1)), Gate::Closed(Some(at(now + delay))));
            now += delay;
            assert_eq!(health.gate(at(now)), Gate::Trial);
            health.trial_begins();
            assert_eq!(health.gate(at(now)), Gate::Closed(None));
            health.failed(&failure(None, None), &RETRY, at(now), 0.0);
        }
        assert_eq!(health.failing_since(), Some(at(0)));
    }

    #[test]
    fn what_was_under_way_when_it_closed_tells_nothing_new() {
        let mut health = failed(limits::ENDPOINT_FAILURES);
        let before = health;
        health.failed(&failure(None, None), &RETRY, at(1), 0.0);
        assert_eq!(health, before);
    }

    #[test]
    fn one_success_opens_it_and_says_so() {
        let mut health = failed(limits::ENDPOINT_FAILURES);
        assert!(health.works());
        assert_eq!((health.gate(at(0)), health.failing_since()), (Gate::Open, None));
        assert!(!failed(limits::ENDPOINT_FAILURES - 1).works());
    }

    #[test]
    fn retry_after_is_obeyed_at_once_within_bounds() {
        let mut health = Health::default();
        health.failed(&failure(Some(429), Some(30)), &RETRY, at(0), 0.0);
        assert_eq!(health.gate(at(29)), Gate::Closed(Some(at(30))));
        health.failed(&failure(Some(503), Some(1_000_000)), &RETRY, at(0), 0.0);
        assert_eq!(health.gate(at(0)), Gate::Closed(Some(at(3600))));
    }

    #[test]
    fn gone_stays_gone_and_a_trial_that_was_none_is_due_again() {
        let mut health = Health::default();
        health.gone();
        health.failed(&failure(None, None), &RETRY, at(0), 0.0);
        assert!(!health.works());
        assert_eq!((health.gate(at(1_000_000)), health.is_gone()), (Gate::Closed(None), true));
        let mut health = failed(limits::ENDPOINT_FAILURES);
        health.trial_begins();
        health.not_tried(at(5));
        assert_eq!(health.gate(at(5)), Gate::Trial);
    }

    #[test]
    fn a_considered_answer_is_no_failure_of_the_endpoint() {
        let of_endpoint = |status| is_of_endpoint(&failure(status, None));
        assert!([None, Some(408), Some(425), Some(429), Some(500), Some(503)].into_iter().all(of_endpoint));
        assert!(
            ![Some(301), Some(400), Some(401), Some(404), Some(413), Some(422)].into_iter().any(of_endpoint)
        );
    }
}
