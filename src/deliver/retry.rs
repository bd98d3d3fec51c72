//! When a failed attempt is repeated: exponential backoff with jitter, until the event is too old.

use std::time::Duration;

use jiff::Timestamp;

use crate::{api::v1alpha1::Retry, limits};

/// When the event is due again after its `failures`th failure (from 1), or `None` when it is given up.
///
/// The delay doubles from `initial` up to `max`; `jitter` in 0..1 takes up to half of it away, so that
/// events that failed together do not come back together. `retry_after` is the server's wish, and a floor.
pub(super) fn due_again(
    policy: &Retry,
    accepted_at: Timestamp,
    now: Timestamp,
    failures: u32,
    retry_after: Option<Duration>,
    jitter: f64,
) -> Option<Timestamp> {
    let doubled =
        policy.initial().saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    let delay = doubled.min(policy.max()).mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0);
    let delay = delay.max(retry_after.unwrap_or_default().min(limits::RETRY_AFTER));
    let due_at = now.checked_add(delay).ok()?;
    (due_at <= accepted_at.checked_add(policy.max_age()).ok()?).then_some(due_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(failures: u32, retry_after: Option<u64>, jitter: f64, age: i64) -> Option<i64> {
        let policy = Retry { initial_seconds: 2, max_seconds: 60, max_age_seconds: 3600 };
        let now = Timestamp::from_second(10_000).unwrap();
        let accepted_at = Timestamp::from_second(10_000 - age).unwrap();
        due_again(&policy, accepted_at, now, failures, retry_after.map(Duration::from_secs), jitter)
            .map(|at| at.as_second() - 10_000)
    }

    #[test]
    fn the_delay_doubles_up_to_its_maximum() {
        let delays: Vec<_> =
            [1, 2, 3, 5, 6, 40, u32::MAX].map(|failures| due(failures, None, 0.0, 0).unwrap()).into();
        assert_eq!(delays, [2, 4, 8, 32, 60, 60, 60]);
    }

    #[test]
    fn jitter_takes_at_most_half() {
        assert_eq!(due(5, None, 1.0, 0), Some(16));
        assert_eq!(due(5, None, 0.5, 0), Some(24));
    }

    #[test]
    fn the_server_may_ask_for_more_and_not_for_ever() {
        assert_eq!(due(1, Some(30), 0.0, 0), Some(30));
        assert_eq!(due(5, Some(3), 0.0, 0), Some(32));
        assert_eq!(due(1, Some(1_000_000), 0.0, 0), Some(3600));
    }

    #[test]
    fn an_event_is_given_up_once_it_would_be_too_old() {
        assert_eq!(due(1, None, 0.0, 3598), Some(2));
        assert_eq!(due(1, None, 0.0, 3599), None);
    }
}
