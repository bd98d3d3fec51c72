//! Standard Webhooks, v1: `webhook-signature: v1,<base64 of HMAC-SHA256 over id.timestamp.body>`.
//!
//! The specification's own crate signs only bodies that are UTF-8, and copies each; a CloudEvent's data may be
//! any bytes. Its verifier is what the tests compare with.

use std::fmt;

use aws_lc_rs::hmac;
use data_encoding::BASE64;
use zeroize::Zeroizing;

use crate::limits;

const PREFIX: &[u8] = b"whsec_";

/// Why a secret cannot sign; never with the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is no secret of Standard Webhooks: whsec_ and the base64 of {least} to {most} bytes",
    least = limits::SIGNING_SECRET_BYTES.0, most = limits::SIGNING_SECRET_BYTES.1
)]
pub struct InvalidSigningSecret;

/// A secret that signs.
#[derive(Clone)]
pub struct SigningSecret {
    bytes: Zeroizing<Vec<u8>>,
    key: hmac::Key,
}

impl SigningSecret {
    /// Reads `whsec_<base64>`.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidSigningSecret> {
        let encoded = text.strip_prefix(PREFIX).ok_or(InvalidSigningSecret)?;
        let bytes = Zeroizing::new(BASE64.decode(encoded).map_err(|_| InvalidSigningSecret)?);
        let (least, most) = limits::SIGNING_SECRET_BYTES;
        if !(least..=most).contains(&bytes.len()) {
            return Err(InvalidSigningSecret);
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        Ok(Self { bytes, key })
    }

    pub(super) fn to_text(&self) -> String {
        format!("whsec_{}", BASE64.encode(&self.bytes))
    }

    /// The signature of a request: one word of `webhook-signature`.
    pub fn sign(&self, id: &str, timestamp_seconds: i64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(format!("{id}.{timestamp_seconds}.").as_bytes());
        context.update(body);
        format!("v1,{}", BASE64.encode(context.sign().as_ref()))
    }
}

impl PartialEq for SigningSecret {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for SigningSecret {}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret")
    }
}

#[cfg(test)]
mod tests {
    use http::header::HeaderMap;
    use jiff::Timestamp;

    use super::*;

    fn secret(byte: u8, length: usize) -> String {
        format!("whsec_{}", BASE64.encode(&vec![byte; length]))
    }

    #[test]
    fn it_signs_as_the_specification_does() {
        // The vector of the specification's own libraries.
        let secret = SigningSecret::parse(b"whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").unwrap();
        let body = br#"{"email":"test@example.com","username":"test_user"}"#;
        assert_eq!(
            secret.sign("msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1_649_367_553, body),
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="
        );
    }

    #[test]
    fn the_specifications_verifier_takes_either_of_two() {
        let (now, body) = (Timestamp::now().as_second(), b"paid");
        let texts = [secret(1, 24), secret(2, 64)];
        let signatures =
            texts.clone().map(|t| SigningSecret::parse(t.as_bytes()).unwrap().sign("1", now, body));
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", "1".parse().unwrap());
        headers.insert("webhook-timestamp", now.into());
        headers.insert("webhook-signature", signatures.join(" ").parse().unwrap());
        let verify = |text: &str| standardwebhooks::Webhook::new(text).unwrap().verify(body, &headers);
        assert!(texts.iter().all(|text| verify(text).is_ok()));
        assert!(verify(&secret(3, 24)).is_err());
    }

    #[test]
    fn any_body_is_signed() {
        let text = secret(1, 32);
        let of = |body: &[u8]| SigningSecret::parse(text.as_bytes()).unwrap().sign("1", 1, body);
        assert_ne!(of(&[0xff, 0x00]), of(&[0xff, 0x01]));
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        let bad = [
            secret(1, 23),
            secret(1, 65),
            secret(1, 24).replace("whsec_", ""),
            format!("{}\n", secret(1, 24)),
            "whsec_?".repeat(6),
        ];
        for text in bad {
            assert_eq!(SigningSecret::parse(text.as_bytes()), Err(InvalidSigningSecret), "{text}");
        }
    }
}
