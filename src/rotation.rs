//! What is accepted and what is kept: slots + what was found + now → slots. Pure.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::identity::{Facts, Identity, Slots};

/// What a webhook's keystore turned out to be.
#[derive(Clone, Debug)]
pub enum Found {
    /// The webhook asks for no client certificate.
    NotAsked,
    /// An identity that may be used.
    Usable(Arc<Identity>),
    /// Nothing that may be used; what is known of the certificate, where there is one.
    Unusable(Option<Box<Facts>>),
}

/// The slots that follow.
///
/// A usable identity becomes Active. One that cannot be used changes nothing: what was accepted goes on
/// until it expires. Whoever no longer asks for a certificate keeps none.
pub fn next(slots: Slots, found: &Found, now: Timestamp) -> Slots {
    let active = match found {
        Found::NotAsked => None,
        // The same certificate in another encoding is no change: the parts that were published stay.
        Found::Usable(identity) => match slots.active {
            Some(active) if active.chain() == identity.chain() => Some(active),
            _ => Some(Arc::clone(identity)),
        },
        Found::Unusable(_) => slots.active,
    };
    Slots { active: active.filter(|identity| !identity.facts().is_expired_at(now)) }
}

/// The next moment at which time alone changes something: a certificate expires, or becomes valid.
pub fn wakes_at(slots: &Slots, found: &Found, now: Timestamp) -> Option<Timestamp> {
    let active = slots.active.as_ref().map(|identity| identity.facts());
    let found = match found {
        Found::Unusable(facts) => facts.as_deref(),
        Found::Usable(identity) => Some(identity.facts()),
        Found::NotAsked => None,
    };
    let expired = |facts: &Facts| facts.valid_till.checked_add(SignedDuration::from_millis(1)).ok();
    let moments = active.into_iter().chain(found).flat_map(|facts| [Some(facts.valid_from), expired(facts)]);
    moments.flatten().filter(|moment| *moment > now).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::identity_valid;

    const FROM: i64 = 1000;
    const TILL: i64 = 2000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn made() -> Arc<Identity> {
        Arc::new(identity_valid("CN=shop", FROM, TILL))
    }

    fn holding(identity: &Arc<Identity>) -> Slots {
        Slots { active: Some(Arc::clone(identity)) }
    }

    fn fingerprint(slots: &Slots) -> Option<String> {
        slots.active.as_ref().map(|active| active.facts().fingerprint_sha256.clone())
    }

    #[test]
    fn a_usable_identity_becomes_active_and_replaces_the_one_before() {
        let (first, second) = (made(), made());
        let slots = next(Slots::default(), &Found::Usable(Arc::clone(&first)), at(1500));
        assert_eq!(fingerprint(&slots), Some(first.facts().fingerprint_sha256.clone()));
        let slots = next(slots, &Found::Usable(Arc::clone(&second)), at(1500));
        assert_eq!(fingerprint(&slots), Some(second.facts().fingerprint_sha256.clone()));
    }

    #[test]
    fn what_was_accepted_goes_on_while_the_keystore_cannot_be_used_until_it_expires() {
        let identity = made();
        let kept = next(holding(&identity), &Found::Unusable(None), at(TILL));
        assert_eq!(fingerprint(&kept), Some(identity.facts().fingerprint_sha256.clone()));
        let just_after = at(TILL) + SignedDuration::from_millis(1);
        assert_eq!(fingerprint(&next(kept, &Found::Unusable(None), just_after)), None);
    }

    #[test]
    fn whoever_asks_for_no_certificate_keeps_none() {
        assert_eq!(fingerprint(&next(holding(&made()), &Found::NotAsked, at(1500))), None);
    }

    #[test]
    fn it_wakes_at_the_very_moment_of_expiry_and_of_becoming_valid() {
        let identity = made();
        let found = Found::Usable(Arc::clone(&identity));
        let after = at(TILL) + SignedDuration::from_millis(1);
        assert_eq!(wakes_at(&holding(&identity), &found, at(1500)), Some(after));
        assert!(!identity.facts().is_expired_at(at(TILL)) && identity.facts().is_expired_at(after));
        let early = Found::Unusable(Some(Box::new(identity.facts().clone())));
        assert_eq!(wakes_at(&Slots::default(), &early, at(0)), Some(at(FROM)));
        assert_eq!(wakes_at(&Slots::default(), &early, at(3000)), None);
        assert_eq!(wakes_at(&Slots::default(), &Found::NotAsked, at(0)), None);
    }
}
