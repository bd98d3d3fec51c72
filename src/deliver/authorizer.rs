//! What is added to each request so that the endpoint knows the sender: headers, a token, a signature.

use http::header::{HeaderMap, HeaderValue};
use jiff::Timestamp;

use super::token::Tokens;
use crate::{
    credentials::Credentials,
    egress::Egress,
    identity::{TlsError, Trust},
};

/// Adds a webhook's credentials to its requests. It lives as long as they stay the same, for its token does.
#[derive(Debug, Default)]
pub struct Authorizer {
    credentials: Credentials,
    tokens: Option<Tokens>,
}

impl Authorizer {
    /// `trust` says who the server of a token endpoint may be.
    pub fn new(credentials: Credentials, trust: &Trust, egress: &Egress) -> Result<Self, TlsError> {
        let client = credentials.client_credentials.clone();
        let tokens = client.map(|client| Tokens::new(client, trust, egress)).transpose()?;
        Ok(Self { credentials, tokens })
    }

    /// What is added.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Headers and signature, all but a token. The error is told to a person.
    pub(super) fn add_to(
        &self,
        headers: &mut HeaderMap,
        id: &str,
        now: Timestamp,
        body: &[u8],
    ) -> Result<(), &'static str> {
        for (name, value) in &self.credentials.headers {
            headers.insert(name, value.clone());
        }
        let secrets = &self.credentials.signing_secrets;
        let signatures: Vec<_> =
            secrets.iter().map(|secret| secret.sign(id, now.as_second(), body)).collect();
        if !signatures.is_empty() {
            let value = HeaderValue::from_str(&signatures.join(" "));
            headers.insert("webhook-signature", value.map_err(|_| "the signature cannot be sent")?);
        }
        Ok(())
    }

    /// Whether a request holds what only the endpoint may read: an answer may repeat it.
    pub(super) fn adds_secrets(&self) -> bool {
        self.tokens.is_some() || self.credentials.headers.iter().any(|(_, value)| value.is_sensitive())
    }

    /// Where a token comes from, if one is asked for.
    pub(super) fn tokens(&self) -> Option<&Tokens> {
        self.tokens.as_ref()
    }
}
