//! Opens a keystore: bytes and a password become an [`Identity`], or a [`Refusal`] that says what to do.
//!
//! No Kubernetes, no I/O, no clock of its own.

mod reason;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;

use crate::identity::{Facts, Identity};
pub use reason::{Reason, WarningReason};

/// The formats that are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// RFC 7292.
    Pkcs12,
    /// Java KeyStore, versions 1 and 2, and JCEKS.
    Jks,
}

/// A keystore and all that it takes to open it.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The file.
    pub bytes: &'a [u8],
    /// The store password, exact bytes.
    pub password: &'a [u8],
    /// The password of the key, where it is not the store's.
    pub key_password: Option<&'a [u8]>,
    /// The entry to take; without one there must be exactly one usable key.
    pub alias: Option<&'a str>,
    /// What the person says the format is; the content decides.
    pub declared: Option<Format>,
    /// What messages call the file: the key of a Secret, or a path.
    pub file: &'a str,
    /// The time against which validity is judged.
    pub now: Timestamp,
}

/// An opened keystore.
#[derive(Debug)]
pub struct Loaded {
    /// Key, leaf and chain.
    pub identity: Identity,
    /// The format that the content shows.
    pub format: Format,
    /// What works and yet deserves a look.
    pub warnings: Vec<Warning>,
}

/// Something that works and yet deserves a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The documented constant.
    pub reason: WarningReason,
    /// One sentence for a person.
    pub message: String,
}

/// Why a keystore is not taken.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The documented constant.
    pub reason: Reason,
    /// What is wrong and the way out; never a secret.
    pub message: String,
    /// What is known of the certificate, where one was found (expired, not yet valid).
    pub facts: Option<Box<Facts>>,
}

/// Opens a keystore and picks its identity.
pub fn load(request: &Request<'_>) -> Result<Loaded, Refusal> {
    let _ = request;
    Err(Refusal { reason: Reason::NotAKeystore, message: String::new(), facts: None })
}

/// Opens a trust store: the certificates that it trusts, without its keys.
pub fn load_trust_store(request: &Request<'_>) -> Result<Vec<CertificateDer<'static>>, Refusal> {
    let _ = request;
    Err(Refusal { reason: Reason::NotAKeystore, message: String::new(), facts: None })
}
