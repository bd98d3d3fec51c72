//! Which webhook a request is about, from its path: read in one way by who decides whether it may, and by who does it.

use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::request::Parts,
};

use super::problem::Refused;
use crate::{event::WebhookKey, limits};

/// A namespace, or one webhook in it: names that objects of a cluster can have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The namespace.
    pub namespace: String,
    /// The webhook, where the request is about one.
    pub name: Option<String>,
}

/// The path names what no cluster can hold.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum NoTarget {
    #[error(
        "no namespace can have the name in the path: lowercase letters, digits and dashes (RFC 1123), {} at most",
        limits::LABEL_BYTES
    )]
    Namespace,
    #[error(
        "no webhook can have the name in the path: lowercase letters, digits, dashes and dots (RFC 1123), {} at most",
        limits::NAME_BYTES
    )]
    Name,
    #[error("the path is not UTF-8")]
    Encoding,
}

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let parameters =
            RawPathParams::from_request_parts(parts, state).await.map_err(|_| NoTarget::Encoding)?;
        let value = |wanted| parameters.iter().find_map(|(name, value)| (name == wanted).then_some(value));
        let namespace = value("namespace").unwrap_or_default();
        if namespace.len() > limits::LABEL_BYTES || !is_label(namespace) {
            return Err(NoTarget::Namespace.into());
        }
        let name = value("name");
        if name.is_some_and(|name| !is_name(name)) {
            return Err(NoTarget::Name.into());
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.map(str::to_owned) })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for WebhookKey {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let Target { namespace, name } = Target::from_request_parts(parts, state).await?;
        Ok(Self { namespace, name: name.ok_or(NoTarget::Name)? })
    }
}

/// Whether an object of a cluster can have the name: a subdomain (RFC 1123).
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= limits::NAME_BYTES && text.split('.').all(is_label)
}

/// RFC 1123, but for the length: the API server bounds that of the whole name alone.
fn is_label(text: &str) -> bool {
    let is_inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(is_inner)
        && bytes.last().is_some_and(is_inner)
        && bytes.iter().all(|byte| is_inner(byte) || *byte == b'-')
}
