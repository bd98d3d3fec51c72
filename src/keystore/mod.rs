//! Opens a keystore: bytes and a password become an [`Identity`], or a [`Refusal`] that says what to do.
//!
//! No Kubernetes, no I/O, no clock of its own.

mod ber;
mod budget;
mod chain;
mod fault;
#[cfg(fuzzing)]
pub mod fuzz;
mod hash;
mod jks;
mod kdf;
mod key;
mod lint;
mod mac;
mod oid;
mod password;
mod pbe;
mod pkcs12;
mod reason;
mod select;
mod sniff;
mod store;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;

use crate::{
    identity::{Facts, Identity},
    limits::{KEYSTORE_BYTES, PASSWORD_BYTES},
};
use budget::Budget;
use fault::Fault;
pub(crate) use fault::quoted;
pub use reason::{Reason, WarningReason};
use sniff::{Kind, sniff};
use store::{Keyring, Store};

/// The formats that are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display, strum::IntoStaticStr)]
#[strum(serialize_all = "UPPERCASE")]
pub enum Format {
    /// RFC 7292.
    Pkcs12,
    /// `JavaKeyStore`, versions 1 and 2, and JCEKS.
    Jks,
}

impl Format {
    /// The name as it stands in the resource.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
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
    let mut format = None;
    open(request, &mut format).map_err(|fault| fault.refuse(request, format))
}

fn open(request: &Request<'_>, format: &mut Option<Format>) -> Result<Loaded, Fault> {
    let mut budget = Budget::default();
    let mut keyring = Keyring::new(request.password, request.key_password);
    let store = read(request, format, &mut keyring, &mut budget)?;
    let selected = select::select(&store, &keyring, request, &mut budget)?;
    let without_newline = keyring.store().first().is_some_and(|used| used.without_newline);
    let warnings = lint::lint(request, &store, &selected, without_newline);
    Ok(Loaded { identity: selected.identity, format: store.format, warnings })
}

/// Reads a store, its keys still sealed.
fn read(
    request: &Request<'_>,
    format: &mut Option<Format>,
    keyring: &mut Keyring,
    budget: &mut Budget,
) -> Result<Store, Fault> {
    let found = request.bytes.len();
    if found > KEYSTORE_BYTES {
        return Err(Fault::Limit {
            what: "bytes of the file",
            found: found as u64,
            limit: KEYSTORE_BYTES as u64,
        });
    }
    let found = request.password.len().max(request.key_password.unwrap_or_default().len());
    if found > PASSWORD_BYTES {
        return Err(Fault::Limit {
            what: "bytes of a password",
            found: found as u64,
            limit: PASSWORD_BYTES as u64,
        });
    }
    let kind = sniff(request.bytes)?;
    *format = Some(if kind == Kind::Pkcs12 { Format::Pkcs12 } else { Format::Jks });
    match kind {
        Kind::Pkcs12 => pkcs12::read(request.bytes, keyring, budget),
        Kind::Jks | Kind::Jceks => jks::read(request.bytes, keyring),
    }
}

/// Opens a trust store: the certificates that it trusts, without its keys.
pub fn load_trust_store(request: &Request<'_>) -> Result<Vec<CertificateDer<'static>>, Refusal> {
    let mut format = None;
    trusted(request, &mut format).map_err(|fault| fault.refuse(request, format))
}

fn trusted(
    request: &Request<'_>,
    format: &mut Option<Format>,
) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let mut keyring = Keyring::new(request.password, None);
    let store = read(request, format, &mut keyring, &mut Budget::default())?;
    let keys = !store.keys.is_empty();
    let trusted = select::trusted(store)?;
    if trusted.is_empty() {
        return Err(Fault::NothingTrusted { keys });
    }
    Ok(trusted)
}
