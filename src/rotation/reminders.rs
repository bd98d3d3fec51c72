//! When a person is reminded that the certificate in use expires: what was told last + what is in use + now → what is
//! to be told now. Pure.
//!
//! Each of [`limits::REMINDERS`] is told once for a certificate. Of those that have passed unseen, such as before a
//! certificate was accepted or while no controller ran, the last alone: the others say nothing that it does not.

use std::{fmt, str::FromStr};

use jiff::{SignedDuration, Timestamp};

use super::{Found, Known};
use crate::{
    identity::{Facts, Slots},
    limits,
};

/// The reminder that was told last. It is kept beside the slots as text: the fingerprint, and the days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    fingerprint_sha256: String,
    days: i64,
}

/// What is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reminder {
    /// The certificate in use, or the one that was until it expired.
    pub certificate: Facts,
    /// Which of [`limits::REMINDERS`] it is.
    pub days: i64,
    /// The certificate that waits to replace it.
    pub waits: Option<String>,
}

/// The reminder that is due, if it was not told yet.
pub fn due(told: Option<&Told>, slots: &Slots, known: &Known<'_>, now: Timestamp) -> Option<Reminder> {
    let certificate = in_use(slots, known, now)?;
    let days = thresholds(certificate).filter(|(_, moment)| *moment <= now).map(|(days, _)| days).last()?;
    let again = told
        .is_some_and(|told| told.fingerprint_sha256 == certificate.fingerprint_sha256 && told.days <= days);
    let waits = slots.new.as_ref().map(|new| new.facts().fingerprint_sha256.clone());
    (!again).then(|| Reminder { certificate: certificate.clone(), days, waits })
}

/// When the next will be due.
pub(super) fn next_at(slots: &Slots, known: &Known<'_>, now: Timestamp) -> Option<Timestamp> {
    let mut moments = thresholds(in_use(slots, known, now)?).map(|(_, moment)| moment);
    moments.find(|moment| *moment > now)
}

/// The Active; without one, what `mtls.active` goes on to name and has expired.
fn in_use<'a>(slots: &'a Slots, known: &'a Known<'_>, now: Timestamp) -> Option<&'a Facts> {
    match (&slots.active, known.active) {
        (Some(active), _) => Some(active.facts()),
        (None, Found::Unusable(Some(facts))) => Some(&**facts).filter(|facts| facts.is_expired_at(now)),
        _ => None,
    }
}

/// Those that lie in the certificate's life or after it, in their order.
fn thresholds(certificate: &Facts) -> impl Iterator<Item = (i64, Timestamp)> {
    let moment = |days| certificate.valid_till.checked_sub(SignedDuration::from_hours(24 * days)).ok();
    let all = limits::REMINDERS.into_iter().filter_map(move |days| Some((days, moment(days)?)));
    all.filter(|(_, moment)| *moment > certificate.valid_from)
}

impl Reminder {
    /// What is to be kept once it is told.
    pub fn told(&self) -> Told {
        Told { fingerprint_sha256: self.certificate.fingerprint_sha256.clone(), days: self.days }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.fingerprint_sha256, self.days)
    }
}

impl FromStr for Told {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (fingerprint, days) = text.split_once(' ').ok_or(())?;
        Ok(Self { fingerprint_sha256: fingerprint.to_owned(), days: days.parse().map_err(|_| ())? })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{identity::tests::identity_valid, rotation::Promotion};

    const DAY: i64 = 24 * 3600;
    const TILL: i64 = 365 * DAY;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn known(active: &Found) -> Known<'_> {
        let new = &Found::NotAsked;
        Known { active, new, promotion: Promotion::Manual, asked: None, names_waiting: true, passed: &[] }
    }

    fn holding(active: &str, from: i64) -> Slots {
        let active = Some(Arc::new(identity_valid(active, from, TILL)));
        Slots { active, ..Slots::default() }
    }

    /// The days that are told by a controller that looks when it wakes, from one moment to another.
    fn told(slots: &Slots, from: i64, to: i64) -> Vec<i64> {
        let unusable = Found::Unusable(slots.active.as_ref().map(|active| Box::new(active.facts().clone())));
        let known = known(&unusable);
        let (mut told, mut all, mut now) = (None::<Told>, Vec::new(), at(from));
        while now <= at(to) {
            let slots = if now > at(TILL) { &Slots::default() } else { slots };
            for _ in 0..2 {
                // It starts anew each time, and has no more than what was kept.
                told = told.map(|told| told.to_string().parse().unwrap());
                if let Some(reminder) = due(told.as_ref(), slots, &known, now) {
                    told = Some(reminder.told());
                    all.push(reminder.days);
                }
            }
            let expires = (now <= at(TILL)).then(|| at(TILL + 1));
            let Some(next) = next_at(slots, &known, now).into_iter().chain(expires).min() else { break };
            assert!(next > now);
            now = next;
        }
        all
    }

    #[test]
    fn each_is_told_once() {
        let slots = holding("CN=a", 0);
        assert_eq!(told(&slots, 0, 2 * TILL), limits::REMINDERS);
    }

    #[test]
    fn of_those_that_were_missed_the_last_alone_is_told() {
        let slots = holding("CN=a", 0);
        assert_eq!(told(&slots, TILL - 20 * DAY, TILL), [30, 15, 7, 3, 2, 1]);
        assert_eq!(told(&slots, TILL + 8 * DAY, 2 * TILL), [-7]);
    }

    #[test]
    fn what_lies_before_its_life_is_not_told() {
        assert_eq!(told(&holding("CN=a", TILL - 10 * DAY), TILL - 10 * DAY, TILL), [7, 3, 2, 1]);
        assert_eq!(told(&holding("CN=a", TILL - DAY), TILL - DAY, 2 * TILL), [-1, -7]);
    }

    #[test]
    fn another_certificate_has_reminders_of_its_own() {
        let (a, b) = (holding("CN=a", 0), holding("CN=b", 0));
        let (now, none) = (at(TILL - DAY), Found::NotAsked);
        let first = due(None, &a, &known(&none), now).unwrap();
        assert_eq!(due(Some(&first.told()), &a, &known(&none), now), None);
        assert_eq!(due(Some(&first.told()), &b, &known(&none), now).unwrap().days, 1);
        // A clock that goes back tells nothing twice.
        assert_eq!(due(Some(&first.told()), &a, &known(&none), at(TILL - 29 * DAY)), None);
    }

    #[test]
    fn what_is_not_expired_and_not_in_use_is_not_told() {
        let facts = holding("CN=a", 0).active.unwrap().facts().clone();
        let unusable = Found::Unusable(Some(Box::new(facts)));
        assert_eq!(due(None, &Slots::default(), &known(&unusable), at(TILL - DAY)), None);
        assert_eq!(due(None, &Slots::default(), &known(&Found::NotAsked), at(TILL + DAY)), None);
    }
}
