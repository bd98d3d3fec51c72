//! What is told of a client certificate that an endpoint refused.

use jiff::Timestamp;

use crate::event::WebhookKey;

/// An endpoint refused a client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The webhook.
    pub webhook: WebhookKey,
    /// Fingerprint of the certificate that was refused.
    pub fingerprint_sha256: String,
    /// Fingerprint of the certificate that was taken instead, where one was.
    pub taken_fingerprint_sha256: Option<String>,
    /// What was seen.
    pub message: String,
    /// When.
    pub at: Timestamp,
}
