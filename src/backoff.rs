//! How long to wait after a failure.

use std::time::Duration;

/// Doubles from `first` up to `longest` with each failure, counted from 1.
pub(crate) fn backoff(first: Duration, longest: Duration, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1);
    first.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_its_maximum() {
        let seconds = |failures| backoff(Duration::from_secs(2), Duration::from_mins(1), failures).as_secs();
        assert_eq!([0, 1, 2, 3, 5, 6, 40, u32::MAX].map(seconds), [2, 2, 4, 8, 32, 60, 60, 60]);
    }
}
