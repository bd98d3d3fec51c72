//! Who may send what: Kubernetes decides, by TokenReview and SubjectAccessReview.
//!
//! A request passes in this order: the right that its method and path need ([`rights`]; without one it is refused),
//! the webhook that its path names, its token ([`token`]), whose it is, how often they have asked lately, whether
//! they have the right. Only then is the webhook looked up and the body read: who lacks the right sees the same
//! answer whether there is such a webhook or not.
//!
//! What the API server said is remembered for a bounded time ([`answers`]). While it is away a grant goes on to that
//! bound and no further: nobody knows whether it still holds, and the sender has its events to send again.

mod answers;
mod denied;
mod rights;
mod token;

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc, time::Duration};

use axum::{
    extract::{FromRequestParts as _, Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use clap::{Args, builder::NonEmptyStringValueParser};
use governor::{
    DefaultKeyedRateLimiter, Quota,
    clock::{Clock as _, DefaultClock},
};

use super::{problem::Problem, target::Target};
use crate::{clock::Clock, limits};
use answers::Answers;
use denied::Denied;
use rights::Rule;
pub use rights::{GROUP, RESOURCE, Right};
use token::{Fingerprint, Fingerprints, Token};

/// What an administrator says of who may send.
#[derive(Args, Clone, Debug)]
#[group(id = "access")]
pub struct Options {
    /// The audience that a sender's token has to be for
    #[arg(long, env = "POSTRIDER_TOKEN_AUDIENCE", default_value = "postrider", value_name = "AUDIENCE", value_parser = NonEmptyStringValueParser::new())]
    pub token_audience: String,
    /// Requests that one ServiceAccount may send in a second; one more is answered 429
    #[arg(long, env = "POSTRIDER_SENDER_RATE", default_value_t = limits::SENDER_RATE, value_name = "REQUESTS")]
    pub sender_rate: NonZeroU32,
}

/// Whom a token belongs to, as the API server said: all that a right may depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Such as `system:serviceaccount:shop:app`.
    pub name: String,
    /// Of the account, not of one that had its name before.
    pub uid: Option<String>,
    /// Groups it is in.
    pub groups: Option<Vec<String>>,
    /// What else the authenticator knows, such as the Pod.
    pub extra: Option<BTreeMap<String, Vec<String>>>,
}

/// Who is asked whether a token is good, and whether its user has a right.
pub trait Reviewer: Send + Sync + 'static {
    /// Whose token this is; nobody's where it is not good, or is not for us.
    fn whose(&self, token: &str) -> impl Future<Output = Result<Option<User>, Unavailable>> + Send;
    /// Whether the user has the right.
    fn may(&self, user: &User, right: &Right) -> impl Future<Output = Result<bool, Unavailable>> + Send;
}

/// There was no review. It is no refusal, and nothing is remembered of it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unavailable {
    /// Too many were under way.
    #[error("too many reviews are under way")]
    Busy,
    /// The API server gave no answer, or none that says it. Holds nothing of what was asked.
    #[error("{0}")]
    Away(String),
}

/// Who may send what, by a reviewer whose answers are remembered.
pub struct Access<R, C> {
    reviewer: R,
    clock: C,
    /// That of the tokens, for people: the reviewer sees to it.
    audience: String,
    fingerprints: Fingerprints,
    users: Answers<Fingerprint, Arc<User>>,
    rights: Answers<(Fingerprint, Right), ()>,
    rates: DefaultKeyedRateLimiter<String>,
}

impl<R: Reviewer, C: Clock> Access<R, C> {
    /// Nobody has been reviewed yet.
    pub fn new(reviewer: R, clock: C, options: &Options) -> Self {
        Self {
            reviewer,
            clock,
            audience: options.token_audience.clone(),
            fingerprints: Fingerprints::default(),
            users: Answers::new("tokens", limits::REVIEWED_TOKENS),
            rights: Answers::new("rights", limits::REVIEWED_RIGHTS),
            rates: DefaultKeyedRateLimiter::keyed(Quota::per_second(options.sender_rate)),
        }
    }

    /// The request as it may go on: without its token, which nobody behind needs.
    async fn check(&self, request: Request) -> Result<Request, Denied> {
        let (mut parts, body) = request.into_parts();
        let rule = Rule::of(parts.extensions.get(), &parts.method)?;
        // What is used afterwards is read from the same path, in the same way.
        let target = Target::from_request_parts(&mut parts, &()).await?;
        let token = Token::take(&mut parts.headers)?;
        let fingerprint = self.fingerprints.of(&token);
        let user = self.authenticate(&token, fingerprint).await?;
        self.measure(&user)?;
        self.authorize(fingerprint, &user, rule.on(target)).await?;
        Ok(Request::from_parts(parts, body))
    }

    async fn authenticate(&self, token: &Token, fingerprint: Fingerprint) -> Result<Arc<User>, Denied> {
        // The API server gives a token a minute of grace, and we a minute of memory: neither is for one that is over.
        let left = token.time_left(self.clock.now());
        if left == Some(Duration::ZERO) {
            return Err(Denied::Expired);
        }
        let grant = left.unwrap_or(limits::GRANT).min(limits::GRANT);
        let review = async { Ok(self.reviewer.whose(token.as_str()).await?.map(Arc::new)) };
        self.users
            .get(fingerprint, grant, review)
            .await?
            .ok_or_else(|| Denied::NotAccepted { audience: self.audience.clone() })
    }

    async fn authorize(&self, fingerprint: Fingerprint, user: &User, right: Right) -> Result<(), Denied> {
        let review = async { Ok(self.reviewer.may(user, &right).await?.then_some(())) };
        let granted = self.rights.get((fingerprint, right.clone()), limits::GRANT, review).await?;
        granted.ok_or_else(|| {
            tracing::debug!(user = user.name, %right, "may not");
            Denied::Forbidden { user: user.name.clone(), right: right.clone() }
        })
    }

    /// Whether the user has not asked too often. Those who have been silent for a while have no state to keep.
    fn measure(&self, user: &User) -> Result<(), Denied> {
        if self.rates.len() >= limits::SENDERS {
            self.rates.retain_recent();
            if self.rates.len() >= limits::SENDERS {
                return Err(Denied::TooFast(Duration::from_secs(1)));
            }
        }
        let too_fast = |until: governor::NotUntil<_>| until.wait_time_from(DefaultClock::default().now());
        self.rates.check_key(&user.name).map_err(|until| Denied::TooFast(too_fast(until)))
    }
}

/// Lets a request through, or answers it.
pub(super) async fn guard<R: Reviewer, C: Clock>(
    State(access): State<Arc<Access<R, C>>>,
    request: Request,
    next: Next,
) -> Response {
    match access.check(request).await {
        Ok(request) => next.run(request).await,
        Err(denied) => Problem::from(denied).into_response(),
    }
}

#[cfg(test)]
mod tests;
