//! Whom to trust at the endpoint.

use std::sync::{Arc, LazyLock};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use super::slots::chain_to_pem;
use crate::limits;

/// Key of the trusted certificates in a Secret of identities, PEM.
pub const TRUSTED: &str = "ca.crt";

/// Whom to trust at an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// Authorities (or servers) by certificate.
    pub certificates: Vec<CertificateDer<'static>>,
    /// Also whom the system trusts.
    pub system_roots: bool,
}

/// Why nobody can be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// A bundle without a PEM certificate.
    #[error("holds no PEM certificate (-----BEGIN CERTIFICATE-----)")]
    Empty,
    /// PEM that cannot be decoded.
    #[error("is not valid PEM")]
    Malformed,
    /// A certificate that cannot be an anchor of trust.
    #[error("certificate {0} of the bundle is not a valid X.509 certificate")]
    Certificate(usize),
    /// A bound was exceeded.
    #[error("is larger than the limit of {limit} {unit}", limit = .0, unit = .1)]
    Limit(usize, &'static str),
    /// No certificate, and not the system's either.
    #[error("names nobody to trust")]
    Nobody,
    /// The system has no authorities.
    #[error("the system has no trusted certificates: install ca-certificates, or set SSL_CERT_FILE")]
    NoSystemRoots,
}

/// Whom the system trusts: read once, for it is slow, and kept once, for there are some 150 of them.
static SYSTEM: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::warn!(%error, "a trusted certificate of the system cannot be read");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(system.certs);
    Arc::new(roots)
});

impl Default for Trust {
    /// Whom the system trusts.
    fn default() -> Self {
        Self { certificates: Vec::new(), system_roots: true }
    }
}

impl Trust {
    /// The anchors of trust for a TLS configuration.
    pub(super) fn roots(&self) -> Result<Arc<RootCertStore>, TrustError> {
        if self.system_roots && SYSTEM.is_empty() {
            return Err(TrustError::NoSystemRoots);
        }
        if self.system_roots && self.certificates.is_empty() {
            return Ok(Arc::clone(&SYSTEM));
        }
        let mut roots =
            if self.system_roots { RootCertStore::clone(&SYSTEM) } else { RootCertStore::empty() };
        for (i, certificate) in self.certificates.iter().enumerate() {
            roots.add(certificate.clone()).map_err(|_| TrustError::Certificate(i + 1))?;
        }
        Ok(Arc::new(roots))
    }

    /// Whether each certificate can be an anchor of trust, and there are not too many.
    pub fn check(&self) -> Result<(), TrustError> {
        if self.certificates.len() > limits::TRUST_CERTIFICATES {
            return Err(TrustError::Limit(limits::TRUST_CERTIFICATES, "certificates"));
        }
        self.roots().map(drop)
    }

    /// The certificates as the value of [`TRUSTED`].
    pub fn to_pem(&self) -> String {
        chain_to_pem(&self.certificates)
    }
}

/// Reads a bundle of PEM certificates and checks that each can be an anchor of trust.
pub fn parse_bundle(bundle: &[u8]) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    if bundle.len() > limits::TRUST_BYTES {
        return Err(TrustError::Limit(limits::TRUST_BYTES, "bytes"));
    }
    let certificates = CertificateDer::pem_slice_iter(bundle)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| TrustError::Malformed)?;
    if certificates.is_empty() {
        return Err(TrustError::Empty);
    }
    let trust = Trust { certificates, system_roots: false };
    trust.check()?;
    Ok(trust.certificates)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::identity;

    #[test]
    fn a_bundle_is_read_and_written() {
        let authority = identity("CN=authority").chain().to_vec();
        let bundle = format!("a comment\n{}", chain_to_pem(&authority));
        let certificates = parse_bundle(bundle.as_bytes()).unwrap();
        assert_eq!(certificates, authority);
    }

    #[test]
    fn whom_the_system_trusts_is_in_memory_once() {
        let (Ok(one), Ok(other)) = (Trust::default().roots(), Trust::default().roots()) else {
            // A machine without authorities.
            return assert_eq!(Trust::default().roots().unwrap_err(), TrustError::NoSystemRoots);
        };
        assert!(Arc::ptr_eq(&one, &other));
        let certificates = identity("CN=authority").chain().to_vec();
        let with_one_more = Trust { certificates, system_roots: true }.roots().unwrap();
        assert_eq!(with_one_more.len(), one.len() + 1);
    }

    #[test]
    fn what_is_no_bundle_is_told() {
        assert_eq!(parse_bundle(b"hello").unwrap_err(), TrustError::Empty);
        let not_x509 =
            pem_rfc7468::encode_string("CERTIFICATE", pem_rfc7468::LineEnding::LF, b"hello").unwrap();
        assert_eq!(parse_bundle(not_x509.as_bytes()).unwrap_err(), TrustError::Certificate(1));
        assert_eq!(
            parse_bundle(&vec![b' '; limits::TRUST_BYTES + 1]).unwrap_err(),
            TrustError::Limit(limits::TRUST_BYTES, "bytes")
        );
    }
}
