//! A client identity: a private key, the certificate that belongs to it, and the chain up to a root.
//!
//! Invariants: the chain is never empty, its first certificate is the leaf, and the key is the leaf's.
//! The key is PKCS#8, it is wiped from memory on drop, and nothing here prints it.

mod facts;
mod name;

use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

pub use facts::{Facts, FactsError, fingerprint, rfc3339};
pub(crate) use name::rfc4514;

/// A certificate chain with its private key.
#[derive(Clone)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: Zeroizing<Vec<u8>>,
    facts: Facts,
}

impl Identity {
    /// Puts together what a keystore holds; `chain` is leaf first, `pkcs8` the DER of the leaf's key.
    ///
    /// The caller has matched key and leaf. The facts are read from the leaf.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        pkcs8: Zeroizing<Vec<u8>>,
        alias: Option<String>,
    ) -> Result<Self, FactsError> {
        let facts = Facts::of(&chain, alias)?;
        Ok(Self { chain, key: pkcs8, facts })
    }

    /// The certificates, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The private key, PKCS#8 DER.
    pub fn key(&self) -> PrivatePkcs8KeyDer<'_> {
        PrivatePkcs8KeyDer::from(self.key.as_slice())
    }

    /// What a person is told of it.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("facts", &self.facts).finish_non_exhaustive()
    }
}
