//! What a request carries beside the client certificate: headers, authorization, a signature.
//!
//! The controller makes [`Credentials`] of the webhook's Secrets and publishes them as JSON under [`CREDENTIALS`]
//! in the Secret of identities; the dispatcher reads them there. Reading checks all that making has checked.
//! Nothing here prints a value.

mod header;
mod signature;

use std::fmt;

use http::header::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use url::Url;
use zeroize::Zeroizing;

use crate::limits;
pub use header::{InvalidHeader, basic, bearer, name, value};
pub use signature::{InvalidSigningSecret, SigningSecret};

/// Key of the credentials in a Secret of identities, JSON.
pub const CREDENTIALS: &str = "credentials.json";

/// What a request carries beside the client certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// As they are sent; an authorization that is a header is among them.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How a bearer token is got.
    pub client_credentials: Option<ClientCredentials>,
    /// Each signs every request.
    pub signing_secrets: Vec<SigningSecret>,
}

/// RFC 6749, 4.4: what a token endpoint is told.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientCredentials {
    /// The token endpoint.
    pub token_url: Url,
    /// The client's id.
    pub client_id: String,
    /// The client's secret.
    pub client_secret: String,
    /// What the token is to be good for.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Whom it is for.
    #[serde(default)]
    pub audience: Option<String>,
    /// Whether id and secret go in the body instead of the header Authorization.
    pub in_body: bool,
}

impl fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCredentials").field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

/// Why credentials cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// Not the JSON that [`Credentials::to_json`] writes.
    #[error("is not valid JSON")]
    Json,
    /// A header that cannot be sent.
    #[error("header {0}: {1}")]
    Header(String, InvalidHeader),
    /// A secret that cannot sign.
    #[error("signing secret {0}: {1}")]
    SigningSecret(usize, InvalidSigningSecret),
    /// More than a request may carry.
    #[error("the headers have more than {limit} bytes in all", limit = limits::HEADERS_BYTES)]
    TooLarge,
}

/// The JSON.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    headers: Vec<(String, String)>,
    client_credentials: Option<ClientCredentials>,
    signing_secrets: Vec<String>,
}

impl Credentials {
    /// Whether all headers together are not too large for a request.
    pub fn check(&self) -> Result<(), CredentialsError> {
        let bytes: usize = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if bytes > limits::HEADERS_BYTES { Err(CredentialsError::TooLarge) } else { Ok(()) }
    }

    /// As the value of [`CREDENTIALS`].
    pub fn to_json(&self) -> Result<Zeroizing<Vec<u8>>, CredentialsError> {
        let headers = self.headers.iter().map(|(name, value)| {
            Ok((name.to_string(), value.to_str().map_err(|_| CredentialsError::Json)?.to_owned()))
        });
        let stored = Stored {
            headers: headers.collect::<Result<_, CredentialsError>>()?,
            client_credentials: self.client_credentials.clone(),
            signing_secrets: self.signing_secrets.iter().map(SigningSecret::to_text).collect(),
        };
        serde_json::to_vec(&stored).map(Zeroizing::new).map_err(|_| CredentialsError::Json)
    }

    /// Reads [`Self::to_json`].
    pub fn from_json(json: &[u8]) -> Result<Self, CredentialsError> {
        // The parser's own words would quote what it has found.
        let stored: Stored = serde_json::from_slice(json).map_err(|_| CredentialsError::Json)?;
        let headers = stored.headers.iter().map(|(text, content)| {
            let invalid = |error| CredentialsError::Header(text.clone(), error);
            Ok((name(text).map_err(invalid)?, value(content.as_bytes()).map_err(invalid)?))
        });
        let secrets = stored.signing_secrets.iter().enumerate().map(|(n, text)| {
            SigningSecret::parse(text.as_bytes()).map_err(|error| CredentialsError::SigningSecret(n, error))
        });
        let credentials = Self {
            headers: headers.collect::<Result<_, _>>()?,
            client_credentials: stored.client_credentials,
            signing_secrets: secrets.collect::<Result<_, _>>()?,
        };
        credentials.check()?;
        Ok(credentials)
    }
}

/// A value as it stands in a Secret, without the line break that an editor or `echo` leaves at its end.
pub fn without_line_break(value: &[u8]) -> &[u8] {
    let value = value.strip_suffix(b"\n").unwrap_or(value);
    value.strip_suffix(b"\r").unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn credentials() -> Credentials {
        Credentials {
            headers: vec![
                (name("X-Tenant").unwrap(), value(b"shop one").unwrap()),
                (name("authorization").unwrap(), basic(b"me", b"pa:ss w\xc3\xb6rd").unwrap()),
            ],
            client_credentials: Some(ClientCredentials {
                token_url: "https://login.example/token".parse().unwrap(),
                client_id: "the-client-id".into(),
                client_secret: "the-client-secret".into(),
                scopes: vec!["events".into()],
                audience: Some("partner".into()),
                in_body: true,
            }),
            signing_secrets: vec![SigningSecret::parse(SECRET.as_bytes()).unwrap()],
        }
    }

    #[test]
    fn credentials_survive_their_secret() {
        let json = credentials().to_json().unwrap();
        assert_eq!(Credentials::from_json(&json).unwrap(), credentials());
        assert_eq!(Credentials::from_json(&json).unwrap().to_json().unwrap(), json);
    }

    #[test]
    fn what_cannot_be_sent_is_refused_and_not_quoted() {
        let json = String::from_utf8(credentials().to_json().unwrap().to_vec()).unwrap();
        for (from, to) in [
            ("shop one", "shop\\nx-evil: 1"),
            ("x-tenant", "host"),
            (SECRET, "whsec_c2hvcnQ="),
            ("\"inBody\":true", "\"inBody\":\"the-client-secret\""),
        ] {
            let error = Credentials::from_json(json.replace(from, to).as_bytes()).unwrap_err().to_string();
            for secret in ["evil", "c2hvcnQ", "the-client-secret"] {
                assert!(!error.contains(secret), "{error}");
            }
        }
        let long =
            vec![(name("x-long").unwrap(), value(&vec![b'x'; limits::HEADER_VALUE_BYTES]).unwrap()); 5];
        let error = Credentials { headers: long, ..Credentials::default() }.check().unwrap_err();
        assert!(matches!(error, CredentialsError::TooLarge), "{error}");
    }

    #[test]
    fn nothing_of_the_values_is_printed() {
        let printed = format!("{:?}", credentials());
        for secret in ["shop one", "bWU6", "the-client-id", "the-client-secret", &SECRET[6..], "77, 102"] {
            assert!(!printed.contains(secret), "{printed}");
        }
        assert!(printed.contains("x-tenant"), "{printed}");
    }

    #[test]
    fn one_line_break_at_the_end_is_left_out() {
        for (value, is) in [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("\na", "\na"), ("a", "a")] {
            assert_eq!(without_line_break(value.as_bytes()), is.as_bytes());
        }
    }
}
