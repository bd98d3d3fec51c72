//! What is to be done next about the serving certificate, from what is there and the time. Pure.
//!
//! A sender that reads the published authorities now and then is never refused, nor does it ever refuse: an authority
//! is published for [`limits::SERVING_AUTHORITY_PUBLISHED`] before it signs, and stays until the last leaf that it
//! signed has expired. Where an authority is lost, its leaf stays for that time instead.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::CertificateDer;

use super::pki::{self, PkiError};
use crate::{identity::Identity, limits};

/// What is there.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) authorities: Result<Authorities, Fault>,
    pub(super) bundle: Bundle,
    pub(super) leaf: Result<Identity, Fault>,
}

/// The authorities, old and new.
#[derive(Clone, Debug)]
pub(super) struct Authorities {
    pub(super) signing: Arc<Identity>,
    /// Is published, and signs once it has been for long enough.
    pub(super) next: Option<Arc<Identity>>,
    /// Have no key any more; what they signed may still be in use.
    pub(super) retired: Vec<CertificateDer<'static>>,
    /// When all that those signed has expired. Later than that is no time that we wrote.
    pub(super) retired_until: Timestamp,
    /// Whether they are kept exactly as we write it.
    pub(super) as_written: bool,
}

/// The certificates of authorities that senders read.
#[derive(Clone, Debug)]
pub(super) enum Bundle {
    Ours {
        certificates: Vec<CertificateDer<'static>>,
        /// Since when they hold the newest authority.
        since: Option<Timestamp>,
        /// Whether there is just this, as we write it.
        as_written: bool,
    },
    /// Somebody else's. Nobody knows what senders read.
    Foreign,
}

/// Why something cannot be used as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Missing,
    /// With what is wrong.
    Damaged(String),
    Expired,
    NotYetValid,
    /// It is about to expire.
    Due,
    /// It has other names than were asked for.
    Names,
    /// No authority of ours has signed it.
    Stranger,
    /// Another authority signs now.
    Replaced,
}

/// What is to be done next. One write each, so that who is interrupted goes on where it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Make an authority where there is none that could sign.
    Begin(Fault),
    /// Make the authority that is to follow.
    Prepare,
    /// Sign with the next authority.
    Promote,
    /// Drop the authorities whose leaves have expired.
    Forget,
    /// Write the authorities again as they are.
    Tidy,
    /// Publish the authorities; the newest since this moment.
    Publish(Timestamp),
    /// Make a leaf.
    Issue(Fault),
    /// Nothing, before this moment.
    Wait(Timestamp),
}

/// The next step.
pub(super) fn next(found: &Found, names: &BTreeSet<String>, now: Timestamp) -> Step {
    let authorities = match &found.authorities {
        Ok(authorities) => authorities,
        Err(fault) => return Step::Begin(fault.clone()),
    };
    let signing = authorities.signing.facts();
    let next = authorities.next.as_ref().filter(|next| !next.facts().is_expired_at(now));
    let signs_at = signs_at(&found.bundle, authorities, now);
    if next.is_some() && (signing.is_expired_at(now) || signs_at.is_some_and(|at| at <= now)) {
        return Step::Promote;
    }
    if signing.is_expired_at(now) {
        return Step::Begin(Fault::Expired);
    }
    let due = part(&authorities.signing, limits::SERVING_RENEWED);
    if next.is_none() && due <= now {
        return Step::Prepare;
    }
    if !authorities.retired.is_empty() && authorities.retired_until <= now {
        return Step::Forget;
    }
    if !authorities.as_written || authorities.retired_too_long(now) {
        return Step::Tidy;
    }
    if let Bundle::Ours { certificates, since, as_written } = &found.bundle {
        let since = since.filter(|since| *since <= now && certificates.contains(authorities.newest()));
        match since {
            Some(_) if *as_written && *certificates == authorities.published() => {}
            since => return Step::Publish(since.unwrap_or(now)),
        }
    }
    let leaf_until = match usable_until(&found.leaf, authorities, names, signs_at, now) {
        Ok(until) => until,
        Err(fault) => return Step::Issue(fault),
    };
    let authority_until = if next.is_some() { signs_at.unwrap_or(signing.valid_till) } else { due };
    let forgotten = (!authorities.retired.is_empty()).then_some(authorities.retired_until);
    let moments = [Some(leaf_until), Some(authority_until), forgotten];
    Step::Wait(moments.into_iter().flatten().min().unwrap_or(leaf_until))
}

/// When the newest authority has been published for long enough to sign; `None` while it is not published.
fn signs_at(bundle: &Bundle, authorities: &Authorities, now: Timestamp) -> Option<Timestamp> {
    let Bundle::Ours { certificates, since: Some(since), .. } = bundle else { return None };
    let published = *since <= now && certificates.contains(authorities.newest());
    published.then(|| after(*since, limits::SERVING_AUTHORITY_PUBLISHED))
}

/// Until when the leaf can stay, or why it cannot.
fn usable_until(
    leaf: &Result<Identity, Fault>,
    authorities: &Authorities,
    names: &BTreeSet<String>,
    signs_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<Timestamp, Fault> {
    let leaf = leaf.as_ref().map_err(Clone::clone)?;
    if leaf.facts().is_expired_at(now) {
        return Err(Fault::Expired);
    }
    if !leaf.facts().is_valid_at(now) {
        return Err(Fault::NotYetValid);
    }
    if !pki::is_for(leaf, names) {
        return Err(Fault::Names);
    }
    let (until, fault) = if pki::is_signed_by(leaf, authorities.signing()) {
        (part(leaf, limits::SERVING_RENEWED), Fault::Due)
    } else if authorities.retired.iter().any(|retired| pki::is_signed_by(leaf, retired)) {
        let kept = part(leaf, limits::SERVING_KEPT);
        (signs_at.map_or(kept, |at| at.min(kept)), Fault::Replaced)
    } else {
        return Err(Fault::Stranger);
    };
    if until <= now { Err(fault) } else { Ok(until) }
}

impl Found {
    /// The authorities after this step, where it is about them.
    pub(super) fn authorities_after(
        &self,
        step: &Step,
        now: Timestamp,
    ) -> Result<Option<Authorities>, PkiError> {
        let after = match (step, &self.authorities) {
            (Step::Begin(_), _) => Authorities::begin(self.authority_of_leaf(), now)?,
            (Step::Prepare, Ok(before)) => {
                Authorities { next: Some(Arc::new(pki::authority(now)?)), ..before.clone() }
            }
            (Step::Promote, Ok(before)) => before.clone().promoted(now),
            (Step::Forget, Ok(before)) => Authorities { retired: Vec::new(), ..before.clone() },
            (Step::Tidy, Ok(before)) if before.retired_too_long(now) => {
                Authorities { retired_until: after(now, limits::SERVING_LIFE), ..before.clone() }
            }
            (Step::Tidy, Ok(before)) => before.clone(),
            _ => return Ok(None),
        };
        Ok(Some(Authorities { as_written: true, ..after }))
    }

    /// The published authority that signed the leaf. What else is published may be anybody's.
    fn authority_of_leaf(&self) -> Option<CertificateDer<'static>> {
        let (Ok(leaf), Bundle::Ours { certificates, .. }) = (&self.leaf, &self.bundle) else { return None };
        certificates.iter().find(|certificate| pki::is_signed_by(leaf, certificate)).cloned()
    }
}

impl Authorities {
    fn begin(lost: Option<CertificateDer<'static>>, now: Timestamp) -> Result<Self, PkiError> {
        Ok(Self {
            signing: Arc::new(pki::authority(now)?),
            next: None,
            retired: lost.into_iter().collect(),
            retired_until: after(now, limits::SERVING_LIFE),
            as_written: true,
        })
    }

    fn promoted(mut self, now: Timestamp) -> Self {
        if let Some(next) = self.next.take() {
            self.retired.insert(0, self.signing().clone());
            self.retired.truncate(limits::SERVING_AUTHORITIES_RETIRED);
            self.retired_until = after(now, limits::SERVING_LIFE);
            self.signing = next;
        }
        self
    }

    fn retired_too_long(&self, now: Timestamp) -> bool {
        !self.retired.is_empty() && self.retired_until > after(now, limits::SERVING_LIFE)
    }

    /// The certificate of the authority that signs.
    pub(super) fn signing(&self) -> &CertificateDer<'static> {
        &self.signing.chain()[0]
    }

    fn newest(&self) -> &CertificateDer<'static> {
        &self.next.as_ref().unwrap_or(&self.signing).chain()[0]
    }

    /// What senders trust.
    pub(super) fn published(&self) -> Vec<CertificateDer<'static>> {
        let mut published = vec![self.signing().clone()];
        published.extend(self.next.as_ref().map(|next| next.chain()[0].clone()));
        published.extend(self.retired.iter().cloned());
        published
    }
}

/// When this part of its life is over.
fn part(identity: &Identity, (numerator, denominator): (i32, i32)) -> Timestamp {
    let facts = identity.facts();
    let life: SignedDuration = facts.valid_till.duration_since(facts.valid_from);
    let part = life / denominator * numerator;
    facts.valid_from.checked_add(part).unwrap_or(facts.valid_till)
}

fn after(time: Timestamp, duration: Duration) -> Timestamp {
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there was none"),
            Self::Damaged(why) => write!(f, "the one before cannot be used: {why}"),
            Self::Expired => f.write_str("the one before has expired"),
            Self::NotYetValid => f.write_str("the one before is not valid yet"),
            Self::Due => f.write_str("the one before is about to expire"),
            Self::Names => f.write_str("the one before has other names"),
            Self::Stranger => f.write_str("none of the published authorities signed the one before"),
            Self::Replaced => f.write_str("another authority signs now"),
        }
    }
}

#[cfg(test)]
mod tests;
