//! Why a request does not get through, and how it is told (RFC 6750, section 3; RFC 9457).

use std::time::Duration;

use axum::http::{
    HeaderValue, StatusCode,
    header::{ALLOW, WWW_AUTHENTICATE},
};
use serde_json::json;

use super::{Right, Unavailable};
use crate::{
    ingest::problem::{Kind, Problem, Refused, kind},
    limits,
};

const NOT_AUTHENTICATED: Kind =
    kind(StatusCode::UNAUTHORIZED, "not-authenticated", "It is not known who you are");
const TWO_TOKENS: Kind = kind(StatusCode::BAD_REQUEST, "not-authenticated", "It is not known who you are");
const FORBIDDEN: Kind = kind(StatusCode::FORBIDDEN, "forbidden", "You may not do this");
const TOO_FAST: Kind = kind(StatusCode::TOO_MANY_REQUESTS, "too-fast", "Too many requests of one sender");
const NOT_REVIEWED: Kind =
    kind(StatusCode::SERVICE_UNAVAILABLE, "not-reviewed", "It cannot be told now whether you may");

/// Why. Never with the token.
#[derive(Debug, thiserror::Error)]
pub(super) enum Denied {
    #[error("there is nothing at this path")]
    NoSuchPath,
    #[error("this path takes {0}")]
    Method(String),
    /// As the same path is refused to everybody.
    #[error("{0}")]
    Refused(#[from] Refused),
    #[error("send a token of a ServiceAccount: Authorization: Bearer <token>")]
    NoToken,
    #[error("there is more than one Authorization header")]
    TwoTokens,
    #[error("the token is none of RFC 6750, or has more than {} bytes", limits::TOKEN_BYTES)]
    NotAToken,
    #[error("the token has expired")]
    Expired,
    #[error(
        "the API server does not accept the token for audience {audience:?}: it is not valid, not valid any more, or \
         for another audience"
    )]
    NotAccepted { audience: String },
    #[error("{user:?} may not {right}")]
    Forbidden { user: String, right: Right },
    #[error("too many requests of this sender in a second")]
    TooFast(Duration),
    #[error("the API server cannot be asked now who may send; try again")]
    Unavailable(#[from] Unavailable),
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let detail = denied.to_string();
        match denied {
            Denied::Refused(refused) => refused.into(),
            Denied::NoSuchPath => Self::of_status(StatusCode::NOT_FOUND, detail),
            Denied::Method(allowed) => {
                let problem = Self::of_status(StatusCode::METHOD_NOT_ALLOWED, detail);
                let allowed = HeaderValue::try_from(allowed);
                allowed.into_iter().fold(problem, |problem, allowed| problem.header(ALLOW, allowed))
            }
            Denied::NoToken => Self::new(NOT_AUTHENTICATED, detail).challenge("Bearer realm=\"postrider\""),
            Denied::TwoTokens => Self::new(TWO_TOKENS, detail)
                .challenge("Bearer realm=\"postrider\", error=\"invalid_request\""),
            Denied::NotAToken | Denied::Expired | Denied::NotAccepted { .. } => {
                Self::new(NOT_AUTHENTICATED, detail)
                    .challenge("Bearer realm=\"postrider\", error=\"invalid_token\"")
            }
            Denied::Forbidden { user, right } => Self::new(FORBIDDEN, detail)
                .challenge("Bearer realm=\"postrider\", error=\"insufficient_scope\"")
                .with("user", json!(user))
                .with("missing", right.to_json())
                .with("grant", json!(right.granted_by(&user))),
            // Whole seconds, and not before the time.
            Denied::TooFast(wait) => Self::new(TOO_FAST, detail).retry_after(wait.as_secs() + 1),
            Denied::Unavailable(Unavailable::Busy) => {
                Self::new(NOT_REVIEWED, detail).retry_after(limits::REVIEWS_RETRY_AFTER_SECONDS)
            }
            Denied::Unavailable(Unavailable::Away(_)) => {
                Self::new(NOT_REVIEWED, detail).retry_after(limits::INGEST_RETRY_AFTER_SECONDS)
            }
        }
    }
}

impl Problem {
    fn challenge(self, challenge: &'static str) -> Self {
        self.header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }
}
