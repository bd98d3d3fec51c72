//! When a failed attempt is repeated: exponential backoff with jitter, until the event has failed for too long.

use std::time::Duration;

use jiff::Timestamp;

use crate::{backoff::backoff, limits};

/// When a failed attempt is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Delay after the first failure.
    pub initial: Duration,
    /// Longest delay.
    pub max: Duration,
    /// How long an event is tried, from its first failure.
    pub max_age: Duration,
}

impl RetryPolicy {
    /// When the event is due again after its `failures`th failure (from 1), or `None` when it is given up.
    ///
    /// `jitter` in 0..1 takes as much of the delay away (full jitter), so that events that failed together do not
    /// come back together. `retry_after` is the server's wish, and a floor. The last attempt is at the very end of
    /// `max_age`, which counts from the first failure: an event that waited long for a certificate has all
    /// of it.
    pub(super) fn due_again(
        &self,
        failing_since: Timestamp,
        now: Timestamp,
        failures: u32,
        retry_after: Option<Duration>,
        jitter: f64,
    ) -> Option<Timestamp> {
        let end = failing_since.checked_add(self.max_age).ok().filter(|end| *end > now)?;
        let delay = backoff(self.initial, self.max, failures).mul_f64(1.0 - jitter.clamp(0.0, 1.0));
        let delay = delay.max(retry_after.unwrap_or_default().min(limits::RETRY_AFTER));
        Some(now.checked_add(delay).map_or(end, |due_at| due_at.min(end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(failures: u32, retry_after: Option<u64>, jitter: f64, failing_for: i64) -> Option<i64> {
        let [initial, max, max_age] = [2, 60, 7200].map(Duration::from_secs);
        let now = Timestamp::from_second(10_000).unwrap();
        let since = Timestamp::from_second(10_000 - failing_for).unwrap();
        RetryPolicy { initial, max, max_age }
            .due_again(since, now, failures, retry_after.map(Duration::from_secs), jitter)
            .map(|at| at.as_second() - 10_000)
    }

    #[test]
    fn jitter_takes_any_part_of_the_delay() {
        assert_eq!([0.0, 0.5, 1.0].map(|jitter| due(5, None, jitter, 0)), [Some(32), Some(16), Some(0)]);
    }

    #[test]
    fn the_server_may_ask_for_more_and_not_for_ever() {
        assert_eq!(due(1, Some(30), 0.0, 0), Some(30));
        assert_eq!(due(5, Some(3), 0.0, 0), Some(32));
        assert_eq!(due(1, Some(1_000_000), 0.0, 0), Some(3600));
    }

    #[test]
    fn the_last_attempt_is_at_the_end_and_then_it_is_given_up() {
        assert_eq!(due(9, None, 0.0, 7150), Some(50));
        assert_eq!(due(9, Some(3000), 0.0, 7150), Some(50));
        assert_eq!(due(9, None, 0.0, 7199), Some(1));
        assert_eq!(due(9, None, 0.0, 7200), None);
    }
}
