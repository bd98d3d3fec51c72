//! A client identity: a private key, the certificate that belongs to it, and the chain up to a root.
//!
//! Invariants: the chain is never empty, its first certificate is the leaf, and the key is the leaf's.
//! The key is PKCS#8, it is wiped from memory on drop, and nothing here prints it.

mod facts;
mod name;
mod public_key;
mod recorder;
mod slots;
mod tls;
mod trust;

use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

pub(crate) use facts::expires_soon_between;
pub use facts::{Facts, FactsError, fingerprint, rfc3339};
pub(crate) use name::rfc4514;
pub(crate) use public_key::PublicKey;
pub use recorder::{Handshake, Recorder, recorded_client_config};
pub use slots::{PemError, Slot, Slots, chain_to_pem};
pub(crate) use slots::{identity_from_pem, key_to_pem};
pub use tls::{TlsError, Unpresentable, client_config};
pub use trust::{TRUSTED, Trust, TrustError, parse_bundle};

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

    /// SHA-256 over all certificates, lower-case hex: another chain behind the same leaf is another.
    pub fn chain_fingerprint(&self) -> String {
        fingerprint(&self.chain.iter().flat_map(|certificate| certificate.to_vec()).collect::<Vec<_>>())
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn generate(name: &str, validity: Option<(i64, i64)>) -> rcgen::CertifiedKey<rcgen::KeyPair> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name.trim_start_matches("CN="));
        if let Some((from, till)) = validity {
            let epoch = rcgen::date_time_ymd(1970, 1, 1);
            params.not_before = epoch + std::time::Duration::from_secs(from.try_into().unwrap());
            params.not_after = epoch + std::time::Duration::from_secs(till.try_into().unwrap());
        }
        rcgen::CertifiedKey { cert: params.self_signed(&key).unwrap(), signing_key: key }
    }

    fn from_parts(made: &rcgen::CertifiedKey<rcgen::KeyPair>, key: &rcgen::KeyPair) -> Identity {
        Identity::new(vec![made.cert.der().clone()], Zeroizing::new(key.serialize_der()), None).unwrap()
    }

    /// A self-signed identity with this subject.
    pub(crate) fn identity(name: &str) -> Identity {
        let made = generate(name, None);
        from_parts(&made, &made.signing_key)
    }

    /// One that is valid between two moments, seconds since 1970.
    pub(crate) fn identity_valid(name: &str, from: i64, till: i64) -> Identity {
        let made = generate(name, Some((from, till)));
        from_parts(&made, &made.signing_key)
    }

    /// What no keystore yields: a certificate with a key that is not its own.
    pub(crate) fn identity_with_key_of(name: &str, other: &str) -> Identity {
        from_parts(&generate(name, None), &generate(other, None).signing_key)
    }
}
