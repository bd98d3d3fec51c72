//! What a status says and did not say before: the problems that are new, and those that are mended. Pure.
//!
//! A problem is new with another reason than before, and not each time that it is seen.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::api::v1alpha1::{ConditionType, EventReason, Reason};

/// The conditions whose problems are told, in this order. A test tells of itself, as do the reminders.
const TOLD: [(ConditionType, EventReason); 3] = [
    (ConditionType::Ready, EventReason::NotReady),
    (ConditionType::CertificateValid, EventReason::CertificateInvalid),
    (ConditionType::NewCertificateValid, EventReason::NewCertificateInvalid),
];

/// A condition that has turned, and what its Event is called.
#[derive(Debug)]
pub(in crate::controller) struct News<'a> {
    pub(in crate::controller) reason: EventReason,
    pub(in crate::controller) condition: &'a Condition,
}

/// What is to be told of `now`.
pub(super) fn news<'a>(before: &[Condition], now: &'a [Condition]) -> Vec<News<'a>> {
    let is_new = |told: &News<'_>| {
        let was = of(before, &told.condition.type_).filter(|was| is_problem(was));
        was.is_none_or(|was| was.reason != told.condition.reason)
    };
    let new = problems(now).into_iter().filter(is_new);
    let mended = problems(before).into_iter().filter_map(|told| of(now, &told.condition.type_));
    let mended = mended.filter(|condition| condition.status == "True");
    new.chain(mended.map(|condition| News { reason: EventReason::Mended, condition })).collect()
}

/// Each problem once: what keeps a webhook from being ready shows in the condition of its certificate, too.
fn problems(conditions: &[Condition]) -> Vec<News<'_>> {
    let mut problems: Vec<News<'_>> = Vec::new();
    for (type_, reason) in TOLD {
        let Some(condition) = of(conditions, type_.as_str()).filter(|is| is_problem(is)) else { continue };
        let same = |told: &News<'_>| {
            (&told.condition.reason, &told.condition.message) == (&condition.reason, &condition.message)
        };
        if !problems.iter().any(same) {
            problems.push(News { reason, condition });
        }
    }
    problems
}

/// Suspended is what somebody has asked for.
fn is_problem(condition: &Condition) -> bool {
    condition.status == "False" && condition.reason != Reason::Suspended.as_str()
}

fn of<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::kubernetes::time;

    fn condition(type_: ConditionType, reason: &str) -> Condition {
        let holds = ["Ready", "Valid", "ActiveKept", "WaitsForTest"].contains(&reason);
        Condition {
            type_: type_.as_str().to_owned(),
            status: if holds { "True" } else { "False" }.to_owned(),
            reason: reason.to_owned(),
            message: format!("what {reason} is about"),
            observed_generation: None,
            last_transition_time: time(Timestamp::UNIX_EPOCH),
        }
    }

    /// Of Ready and `CertificateValid`, and of `NewCertificateValid` where there is one.
    fn conditions(reasons: &[&str]) -> Vec<Condition> {
        TOLD.iter().zip(reasons).map(|((type_, _), reason)| condition(*type_, reason)).collect()
    }

    fn told(before: &[&str], now: &[&str]) -> Vec<(EventReason, String)> {
        let (before, now) = (conditions(before), conditions(now));
        news(&before, &now).into_iter().map(|news| (news.reason, news.condition.reason.clone())).collect()
    }

    #[test]
    fn a_problem_is_told_once_until_its_reason_is_another() {
        use EventReason::NotReady;
        let secret = ["SecretNotFound", "SecretNotFound"];
        let password = ["WrongPasswordOrCorrupt", "WrongPasswordOrCorrupt"];
        assert_eq!(told(&[], &secret), [(NotReady, secret[0].to_owned())]);
        assert_eq!(told(&secret, &secret), []);
        assert_eq!(told(&secret, &password), [(NotReady, password[0].to_owned())]);
        assert_eq!(told(&["Ready", "Valid"], &password), [(NotReady, password[0].to_owned())]);
    }

    #[test]
    fn what_keeps_nobody_from_sending_is_told_of_its_certificate() {
        use EventReason::{CertificateInvalid, NewCertificateInvalid, NotReady};
        let kept = ["ActiveKept", "Expired", "KeyNotFound"];
        let both =
            [(CertificateInvalid, "Expired".to_owned()), (NewCertificateInvalid, "KeyNotFound".to_owned())];
        assert_eq!(told(&["Ready", "Valid"], &kept), both);
        // A problem beside the certificate's own.
        let header = ["InvalidHeader", "Expired", "KeyNotFound"];
        assert_eq!(told(&kept, &header), [(NotReady, "InvalidHeader".to_owned())]);
        // It was known of the certificate before.
        assert_eq!(
            told(&["Expired", "Expired"], &["ActiveKept", "Expired"]),
            [(EventReason::Mended, "ActiveKept".to_owned())]
        );
    }

    #[test]
    fn a_problem_that_is_mended_is_told_once_and_one_that_is_gone_is_not() {
        use EventReason::Mended;
        let good = ["Ready", "Valid"];
        assert_eq!(told(&[], &good), []);
        assert_eq!(told(&good, &good), []);
        assert_eq!(told(&["Expired", "Expired"], &good), [(Mended, "Ready".to_owned())]);
        assert_eq!(told(&["ActiveKept", "Expired"], &good), [(Mended, "Valid".to_owned())]);
        let waits = ["Ready", "Valid", "WaitsForTest"];
        assert_eq!(told(&["Ready", "Valid", "KeyMismatch"], &waits), [(Mended, waits[2].to_owned())]);
        assert_eq!(told(&["Ready", "Valid", "KeyMismatch"], &good), []);
    }

    #[test]
    fn who_suspends_a_webhook_is_not_told_of_it() {
        assert_eq!(told(&["Ready", "Valid"], &["Suspended", "Valid"]), []);
        assert_eq!(told(&["Suspended", "Valid"], &["Ready", "Valid"]), []);
        assert_eq!(told(&["SecretNotFound", "Valid"], &["Suspended", "Valid"]), []);
    }
}
