//! The bearer token of a request (RFC 6750): read, bounded, and known by its fingerprint alone afterwards.

use std::time::Duration;

use aws_lc_rs::hmac;
use axum::http::{HeaderMap, header::AUTHORIZATION};
use data_encoding::BASE64URL_NOPAD;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::denied::Denied;
use crate::limits;

/// A token that came with a request. It has no `Debug`: it cannot be logged by mistake.
pub(super) struct Token {
    text: Zeroizing<String>,
    expires_at: Option<Timestamp>,
}

impl Token {
    /// Takes it out of the headers.
    pub(super) fn take(headers: &mut HeaderMap) -> Result<Self, Denied> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let value = values.next().ok_or(Denied::NoToken)?;
        if values.next().is_some() {
            return Err(Denied::TwoTokens);
        }
        let value = value.to_str().map_err(|_| Denied::NotAToken)?;
        let (scheme, text) = value.split_once(' ').ok_or(Denied::NoToken)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Denied::NoToken);
        }
        let text = text.trim_start_matches(' ');
        if text.len() > limits::TOKEN_BYTES || !is_b64token(text) {
            return Err(Denied::NotAToken);
        }
        let token = Self { expires_at: expiry(text), text: Zeroizing::new(text.to_owned()) };
        headers.remove(AUTHORIZATION);
        Ok(token)
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// How long it is good for, by its own word: nothing, once it has expired; `None`, where it does not say.
    pub(super) fn time_left(&self, now: Timestamp) -> Option<Duration> {
        self.expires_at.map(|end| Duration::try_from(end.duration_since(now)).unwrap_or_default())
    }
}

/// RFC 6750, section 2.1.
fn is_b64token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    !body.is_empty() && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
}

/// `exp` of a JSON Web Token. That the token is genuine is for the API server to say; one that is not gets no grant
/// that this could make longer.
fn expiry(text: &str) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Claims {
        exp: Option<f64>,
    }
    let claims = BASE64URL_NOPAD.decode(text.split('.').nth(1)?.as_bytes()).ok()?;
    let seconds = serde_json::from_slice::<Claims>(&claims).ok()?.exp?;
    let since = SignedDuration::try_from_secs_f64(seconds).unwrap_or(SignedDuration::MAX);
    Some(Timestamp::UNIX_EPOCH.checked_add(since).unwrap_or(Timestamp::MAX))
}

/// By what a token is known: whoever reads the memory of this process finds no token by it, and nobody else can
/// compute it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint([u8; 32]);

/// Makes fingerprints, with a key of this process.
pub(super) struct Fingerprints(hmac::Key);

impl Default for Fingerprints {
    fn default() -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>()))
    }
}

impl Fingerprints {
    pub(super) fn of(&self, token: &Token) -> Fingerprint {
        let tag = hmac::sign(&self.0, token.as_str().as_bytes());
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(tag.as_ref());
        Fingerprint(fingerprint)
    }
}
