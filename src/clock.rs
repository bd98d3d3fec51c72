//! Injected time: pure code takes `now` as an argument, drivers take a [`Clock`]. How times are told to a person.

use jiff::{SignedDuration, Timestamp};

/// Where a driver reads the time.
pub trait Clock: Send + Sync + 'static {
    /// The time now, UTC.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A duration for a person, to the nearest of the largest unit that says enough: `90 s`, `3 min`, `47 h`, `30 days`.
/// What lies ahead and what has passed are told alike.
pub fn rough(duration: SignedDuration) -> String {
    let nearest = |amount: i64, of: i64| (amount + of / 2) / of;
    let seconds = duration.abs().as_secs();
    let (minutes, hours) = (nearest(seconds, 60), nearest(seconds, 3_600));
    if seconds < 120 {
        format!("{seconds} s")
    } else if minutes < 120 {
        format!("{minutes} min")
    } else if hours < 48 {
        format!("{hours} h")
    } else {
        format!("{} days", nearest(seconds, 86_400))
    }
}

/// How far away a moment is: `in 30 days`, `in 5 h`, `3 min ago`.
pub fn away(moment: Timestamp, now: Timestamp) -> String {
    let distance = rough(moment.duration_since(now));
    if now > moment { format!("{distance} ago") } else { format!("in {distance}") }
}

/// How long a certificate is valid yet, or since when it is not: `30 days left`, `expired 3 min ago`.
pub fn left(till: Timestamp, now: Timestamp) -> String {
    if now > till {
        format!("expired {}", away(till, now))
    } else {
        format!("{} left", rough(till.duration_since(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_away_a_moment_is_reads_well() {
        const HOUR: i64 = 3600;
        const DAY: i64 = 24 * HOUR;
        let moment = Timestamp::from_second(100 * DAY).unwrap();
        for (left, text) in [
            (30 * DAY - 1, "in 30 days"),
            (20 * DAY + HOUR, "in 20 days"),
            (2 * DAY - 1, "in 2 days"),
            (2 * DAY - HOUR, "in 47 h"),
            (DAY - 1, "in 24 h"),
            (2 * HOUR - 1, "in 2 h"),
            (119 * 60, "in 119 min"),
            (1, "in 1 s"),
            (-1, "1 s ago"),
            (-185, "3 min ago"),
            (-DAY - 1, "24 h ago"),
            (-7 * DAY, "7 days ago"),
        ] {
            assert_eq!(away(moment, Timestamp::from_second(100 * DAY - left).unwrap()), text);
        }
    }
}
