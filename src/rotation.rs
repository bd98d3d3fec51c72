//! What is accepted, what waits and what is promoted: slots + what was found + test results + now → slots
//! and the steps that led there. Pure.
//!
//! **Active** is presented first, **New** is loaded and waits, **Previous** is a replaced Active that has not
//! expired. What is to follow the Active is `mtls.new` where the webhook names it, else what stands behind
//! `mtls.active`: a Secret that is overwritten in place needs no word in the manifest, and one that moves from
//! `new` to `active` after its promotion changes nothing.
//!
//! Invariants: no slot holds an expired identity; an Active leaves only for a valid successor or by expiry;
//! the same input twice changes nothing.

pub mod reminders;

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};

use crate::{
    identity::{Facts, Identity, Slot, Slots},
    limits,
};

/// What a keystore turned out to be.
#[derive(Clone, Debug)]
pub enum Found {
    /// The webhook does not name one.
    NotAsked,
    /// An identity that may be used.
    Usable(Arc<Identity>),
    /// Nothing that may be used; what is known of the certificate, where there is one.
    Unusable(Option<Box<Facts>>),
}

/// When New becomes Active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promotion {
    /// Once it has passed its test.
    Automatic,
    /// Once it is asked for.
    Manual,
}

/// What is known at the moment of a step.
#[derive(Clone, Debug)]
pub struct Known<'a> {
    /// Behind `mtls.active`; [`Found::NotAsked`] where the webhook asks for no client certificate at all.
    pub active: &'a Found,
    /// Behind `mtls.new`.
    pub new: &'a Found,
    /// When New becomes Active.
    pub promotion: Promotion,
    /// The fingerprint whose promotion is asked for.
    pub asked: Option<&'a str>,
    /// Whether the manifest still names the Secret that the waiting New was read from.
    pub names_waiting: bool,
    /// Fingerprints that have passed their test against the endpoint as it is.
    pub passed: &'a [String],
}

impl Known<'_> {
    fn has_passed(&self, identity: &Identity) -> bool {
        self.passed.contains(&identity.facts().fingerprint_sha256)
    }
}

/// What happened, by fingerprint; told as events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The first Active.
    Accepted(String),
    /// A New that waits for its test or its promotion.
    Waits(String),
    /// The New is no longer asked for, or another has taken its place.
    Withdrawn(String),
    /// New is Active.
    Promoted {
        /// The one that is Previous now, or was lost to expiry.
        from: Option<String>,
        /// The Active.
        to: String,
        /// Why.
        because: Because,
    },
    /// An identity left its slot because its validity is over.
    Expired {
        /// Which slot.
        slot: Slot,
        /// Its certificate.
        fingerprint: String,
    },
    /// The webhook asks for no client certificate any more.
    Dropped,
}

/// Why New was promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
pub enum Because {
    /// It passed its test.
    TestPassed,
    /// A person asked for it.
    Asked,
    /// The Active is about to expire.
    ActiveExpires,
    /// There was no Active.
    NoActive,
}

impl Because {
    /// Its name, as it stands in a metric.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The slots that follow, and what happened on the way.
pub fn next(slots: Slots, known: &Known<'_>, now: Timestamp) -> (Slots, Vec<Step>) {
    let mut steps = Vec::new();
    if matches!(known.active, Found::NotAsked) {
        if !slots.is_empty() {
            steps.push(Step::Dropped);
        }
        return (Slots::default(), steps);
    }
    let mut slots = without_expired(slots, now, &mut steps);
    // A renewal that is promoted makes way for mtls.new: as often as there are slots is enough.
    for _ in Slot::ALL {
        let before = steps.len();
        accept(&mut slots, known, &mut steps);
        promote(&mut slots, known, now, &mut steps);
        if steps.len() == before {
            break;
        }
    }
    (slots, steps)
}

fn without_expired(mut slots: Slots, now: Timestamp, steps: &mut Vec<Step>) -> Slots {
    for slot in Slot::ALL {
        if let Some(identity) = slots.get_mut(slot).take_if(|identity| identity.facts().is_expired_at(now)) {
            steps.push(Step::Expired { slot, fingerprint: fingerprint(&identity) });
        }
    }
    slots
}

/// Puts what was found where it belongs. What cannot be used changes nothing.
fn accept(slots: &mut Slots, known: &Known<'_>, steps: &mut Vec<Step>) {
    mend_chains(slots, known);
    let successor = successor(slots, known).cloned();
    if let (None, None, Found::Usable(identity)) = (&slots.active, &slots.new, known.active)
        // With a successor at hand the way back to a Previous leads through its test.
        && (successor.is_none() || !is_same(slots.previous.as_ref(), identity))
    {
        steps.push(Step::Accepted(fingerprint(identity)));
        slots.active = Some(Arc::clone(identity));
        slots.previous.take_if(|previous| is_same(Some(previous), identity));
    }
    let Some(successor) = successor else {
        // What cannot be read now may still be what waits; what is not named any more is not to follow.
        let withdrawn = slots.new.take_if(|_| !known.names_waiting);
        steps.extend(withdrawn.map(|waiting| Step::Withdrawn(fingerprint(&waiting))));
        return;
    };
    if is_same(slots.new.as_ref(), &successor) {
        return;
    }
    steps.extend(slots.new.take().map(|waiting| Step::Withdrawn(fingerprint(&waiting))));
    // Where it is Active already, nothing is to follow: promoted, or the manifest has gone back to it.
    if !is_same(slots.active.as_ref(), &successor) {
        steps.push(Step::Waits(fingerprint(&successor)));
        slots.new = Some(successor);
    }
}

/// A certificate that is found again with another chain, such as one that had lacked its intermediate, takes
/// its own place: nothing is to be promoted for that.
fn mend_chains(slots: &mut Slots, known: &Known<'_>) {
    for found in [known.active, known.new] {
        let Found::Usable(identity) = found else { continue };
        for slot in Slot::ALL {
            let place = slots.get_mut(slot);
            if is_same(place.as_ref(), identity)
                && place.as_ref().is_some_and(|kept| kept.chain() != identity.chain())
            {
                *place = Some(Arc::clone(identity));
            }
        }
    }
}

/// What is to follow the Active; `None` where it cannot be used, and what waits goes on waiting.
///
/// It is `mtls.new`, or without one what stands behind `mtls.active`. A renewal of that goes first as long as
/// `mtls.new` has not passed its test: one that never passes would keep it away until the Active expires.
fn successor<'a>(slots: &Slots, known: &'a Known<'_>) -> Option<&'a Arc<Identity>> {
    match (known.new, known.active) {
        (Found::Usable(new), Found::Usable(active)) => {
            let renews = slots.active.as_ref().is_some_and(|kept| {
                !is_same(Some(kept), active) && active.facts().valid_till > kept.facts().valid_till
            });
            let known_already =
                is_same(slots.previous.as_ref(), active) || is_same(slots.active.as_ref(), new);
            let cleared =
                known.has_passed(new) || known.asked == Some(new.facts().fingerprint_sha256.as_str());
            Some(if renews && !known_already && !cleared { active } else { new })
        }
        (Found::Usable(identity), _) | (Found::NotAsked, Found::Usable(identity)) => Some(identity),
        _ => None,
    }
}

fn promote(slots: &mut Slots, known: &Known<'_>, now: Timestamp, steps: &mut Vec<Step>) {
    let Some(new) = slots.new.take() else { return };
    let because = match &slots.active {
        None => Some(Because::NoActive),
        Some(active) => because(slots, active.facts(), &new, known, now),
    };
    let Some(because) = because else {
        slots.new = Some(new);
        return;
    };
    let from = slots.active.replace(Arc::clone(&new));
    steps.push(Step::Promoted { from: from.as_ref().map(fingerprint), to: fingerprint(&new), because });
    // A Previous that is promoted again leaves its slot by this, too.
    slots.previous = from.or(slots.previous.take()).filter(|previous| !is_same(Some(previous), &new));
}

fn because(
    slots: &Slots,
    active: &Facts,
    new: &Arc<Identity>,
    known: &Known<'_>,
    now: Timestamp,
) -> Option<Because> {
    let still_wanted = successor(slots, known).is_some_and(|successor| is_same(Some(successor), new));
    if known.asked == Some(new.facts().fingerprint_sha256.as_str()) {
        return Some(Because::Asked);
    }
    if still_wanted && known.promotion == Promotion::Automatic && known.has_passed(new) {
        return Some(Because::TestPassed);
    }
    let outlives = new.facts().valid_till > active.valid_till;
    (outlives && now >= promoted_untested_at(active)).then_some(Because::ActiveExpires)
}

/// When a New is promoted even without a test: an hour before the Active expires, or in the last tenth of a
/// life that is shorter than ten hours.
fn promoted_untested_at(active: &Facts) -> Timestamp {
    let life = Duration::try_from(active.valid_till.duration_since(active.valid_from)).unwrap_or_default();
    before_expiry(active, limits::PROMOTED_UNTESTED_BEFORE_EXPIRY.min(life / 10))
}

fn before_expiry(facts: &Facts, margin: Duration) -> Timestamp {
    facts.valid_till.checked_sub(margin).unwrap_or(facts.valid_till)
}

/// When the keystore's warning of the end changes next: it begins, and from then on says how many whole days are left.
fn warned_at(facts: &Facts, now: Timestamp) -> Option<Timestamp> {
    const DAY: i64 = 24 * 60 * 60;
    let soon = facts.expires_soon_at();
    if now < soon {
        return Some(soon);
    }
    let till = facts.valid_till.as_second();
    let days = (till - now.as_second()).div_euclid(DAY);
    // A second after so many are left, it is one less.
    (days > 0).then(|| Timestamp::from_second(till - days * DAY + 1).ok())?
}

/// The next moment at which time alone changes something: a certificate expires or becomes valid, an Active
/// is about to expire, the words that warn of it change, a person is to be reminded of it.
pub fn wakes_at(slots: &Slots, known: &Known<'_>, now: Timestamp) -> Option<Timestamp> {
    let unusable = |found: &Found| match found {
        Found::Unusable(facts) => facts.as_deref().cloned(),
        Found::Usable(_) | Found::NotAsked => None,
    };
    let kept = slots.iter().map(|(_, identity)| identity.facts().clone());
    let facts = kept.chain([known.active, known.new].into_iter().filter_map(unusable));
    let expired = |facts: &Facts| facts.valid_till.checked_add(SignedDuration::from_millis(1)).ok();
    let moments = facts.flat_map(|facts| [Some(facts.valid_from), expired(&facts)]);
    let warned = [known.active, known.new].into_iter().filter_map(|found| match found {
        Found::Usable(identity) => warned_at(identity.facts(), now),
        Found::Unusable(_) | Found::NotAsked => None,
    });
    let active = slots.active.as_ref().map(|active| active.facts());
    let near_the_end = active.iter().flat_map(|facts| [promoted_untested_at(facts), facts.expires_soon_at()]);
    let near_the_end = near_the_end.map(Some);
    let reminder = reminders::next_at(slots, known, now);
    let near_the_end = near_the_end.chain([reminder]).chain(warned.map(Some));
    moments.chain(near_the_end).flatten().filter(|moment| *moment > now).min()
}

/// The same certificate, in whatever encoding and with whatever chain it came.
fn is_same(one: Option<&Arc<Identity>>, other: &Arc<Identity>) -> bool {
    one.is_some_and(|one| one.facts().fingerprint_sha256 == other.facts().fingerprint_sha256)
}

fn fingerprint(identity: &Arc<Identity>) -> String {
    identity.facts().fingerprint_sha256.clone()
}

#[cfg(test)]
mod tests;
