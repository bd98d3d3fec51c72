//! What a keystore holds, whatever its format: sealed keys, certificates, and how it opened.

use zeroize::Zeroizing;

use super::{
    Format,
    budget::Budget,
    fault::Fault,
    jks,
    password::{Plain, Reading, readings},
    pbe::Scheme,
};
use crate::limits::{KEYSTORE_CERTIFICATES, KEYSTORE_KEYS};

/// An opened keystore, its keys still sealed.
pub(crate) struct Store {
    /// The format that the content shows.
    pub(crate) format: Format,
    /// Private keys.
    pub(crate) keys: Vec<KeyEntry>,
    /// Certificates, of keys and trusted ones.
    pub(crate) certificates: Vec<CertificateEntry>,
    /// Whether a MAC or digest over the content was there, and right.
    pub(crate) integrity: bool,
}

/// A private key.
pub(crate) struct KeyEntry {
    /// Its name.
    pub(crate) alias: Option<String>,
    /// What ties it to a certificate: localKeyId, or the number of its entry.
    pub(crate) id: Option<Vec<u8>>,
    /// The key.
    pub(crate) sealed: Sealed,
}

/// A certificate.
pub(crate) struct CertificateEntry {
    /// Its name.
    pub(crate) alias: Option<String>,
    /// What ties it to a key.
    pub(crate) id: Option<Vec<u8>>,
    /// Whether the store says that it is trusted, and not a key's.
    pub(crate) trusted: bool,
    /// X.509, DER.
    pub(crate) der: Vec<u8>,
}

/// A key as the store holds it; opened it is a `PrivateKeyInfo`.
pub(crate) enum Sealed {
    /// Not encrypted.
    Plain(Zeroizing<Vec<u8>>),
    /// Encrypted with a scheme of PKCS#12 or PKCS#5.
    Shrouded { scheme: Scheme, data: Vec<u8> },
    /// Encrypted with one of the JDK's own schemes: an `EncryptedPrivateKeyInfo`.
    Jks(Vec<u8>),
}

/// A key in the clear.
pub(crate) struct Opened {
    /// `PrivateKeyInfo`.
    pub(crate) key: Zeroizing<Vec<u8>>,
    /// Whether the password worked only without the newline at its end.
    pub(crate) without_newline: bool,
}

impl Store {
    /// An empty store.
    pub(crate) fn new(format: Format) -> Self {
        Self { format, keys: Vec::new(), certificates: Vec::new(), integrity: false }
    }

    /// Adds a key, within the bound.
    pub(crate) fn add_key(&mut self, key: KeyEntry) -> Result<(), Fault> {
        self.keys.push(key);
        within("private keys in it", self.keys.len(), KEYSTORE_KEYS)
    }

    /// Adds a certificate, within the bound.
    pub(crate) fn add_certificate(&mut self, certificate: CertificateEntry) -> Result<(), Fault> {
        self.certificates.push(certificate);
        within("certificates in it", self.certificates.len(), KEYSTORE_CERTIFICATES)
    }
}

fn within(what: &'static str, found: usize, limit: usize) -> Result<(), Fault> {
    if found > limit { Err(Fault::Limit { what, found: found as u64, limit: limit as u64 }) } else { Ok(()) }
}

/// The passwords of a file, in all their readings.
pub(crate) struct Keyring {
    store: Vec<Reading>,
    key: Vec<Reading>,
}

impl Keyring {
    /// Reads the store's password and, where it differs, the key's.
    pub(crate) fn new(store: &[u8], key: Option<&[u8]>) -> Self {
        Self { store: readings(store), key: key.map(readings).unwrap_or_default() }
    }

    /// The readings of the store password; the one that worked comes first.
    pub(crate) fn store(&self) -> &[Reading] {
        &self.store
    }

    /// Puts the reading that opened the store first.
    pub(crate) fn opened_with(&mut self, index: usize) {
        if index < self.store.len() {
            self.store.swap(0, index);
        }
    }

    /// Whether a password for the key was given.
    pub(crate) fn has_key_password(&self) -> bool {
        !self.key.is_empty()
    }

    /// Opens a key: with its own password, else with the store's.
    pub(crate) fn open(&self, sealed: &Sealed, budget: &mut Budget) -> Result<Option<Opened>, Fault> {
        for readings in [&self.key, &self.store] {
            let found = match sealed {
                Sealed::Plain(key) => Some((key.clone(), 0)),
                Sealed::Shrouded { scheme, data } => decrypt(scheme, data, readings, budget)?,
                Sealed::Jks(data) => jks::open_key(data, readings, budget)?,
            };
            if let Some((key, index)) = found {
                let without_newline = readings.get(index).is_some_and(|reading| reading.without_newline);
                return Ok(Some(Opened { key, without_newline }));
            }
        }
        Ok(None)
    }
}

/// Decrypts with the first reading that works; with its index. Readings behind the first are tried
/// while the budget lasts: the file is not to blame for them.
pub(crate) fn decrypt(
    scheme: &Scheme,
    data: &[u8],
    readings: &[Reading],
    budget: &mut Budget,
) -> Result<Option<Plain>, Fault> {
    for (index, reading) in readings.iter().enumerate() {
        let tried = readings.iter().take(index);
        if tried.clone().any(|other| scheme.same_key(other, reading)) {
            continue;
        }
        if index > 0 && !budget.affords(scheme.cost()) {
            break;
        }
        if let Some(plain) = scheme.decrypt(data, reading, budget)? {
            return Ok(Some((plain, index)));
        }
    }
    Ok(None)
}
