//! The serving certificate: what a Secret of type `kubernetes.io/tls` holds becomes what TLS is served with.
//!
//! `tls.crt` is PEM, the leaf first and then what stands above it; `tls.key` is its key, PEM as PKCS#8, PKCS#1 or
//! SEC 1 (cert-manager writes the latter two by default).

use std::sync::Arc;

use jiff::Timestamp;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use crate::{
    identity::{Facts, FactsError, rfc3339},
    limits,
    server::ALPN,
};

/// Key of the certificates, in a Secret.
pub const CERTIFICATE: &str = "tls.crt";
/// Key of the private key, in a Secret.
pub const PRIVATE_KEY: &str = "tls.key";

/// A certificate that can be served with.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1. Its sessions are its own: none is resumed past a new certificate.
    pub config: Arc<ServerConfig>,
    /// What a person is told of it.
    pub facts: Facts,
}

/// Why there is nothing to serve with. Nothing of a key is in it.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A key of the Secret is missing or empty.
    #[error("has no {0}")]
    Missing(&'static str),
    /// Not PEM, or nothing in it.
    #[error("{CERTIFICATE}: holds no PEM certificate, or one that is not whole")]
    NoCertificate,
    /// More certificates than a chain may have.
    #[error("{CERTIFICATE}: holds more than {} certificates", limits::CHAIN_LENGTH)]
    TooMany,
    /// The leaf cannot be read.
    #[error("{CERTIFICATE}: {0}")]
    Facts(#[from] FactsError),
    /// Not PEM, or nothing in it.
    #[error(
        "{PRIVATE_KEY}: holds no PEM private key (PKCS#8, PKCS#1 or SEC 1), or one that is encrypted or not whole"
    )]
    NoKey,
    /// Two that do not belong together.
    #[error("{PRIVATE_KEY} is not the key of the first certificate in {CERTIFICATE}")]
    NotAPair,
    /// TLS does not take them.
    #[error("cannot be served with: {0}")]
    Unusable(rustls::Error),
    /// Its time is over.
    #[error("the certificate expired at {}", rfc3339(*.0))]
    Expired(Timestamp),
    /// Its time is to come.
    #[error("the certificate is not valid before {}", rfc3339(*.0))]
    NotYetValid(Timestamp),
}

/// Reads what a Secret holds under [`CERTIFICATE`] and [`PRIVATE_KEY`].
pub fn read(
    chain: Option<&[u8]>,
    key: Option<&[u8]>,
    now: Timestamp,
) -> Result<Certificate, CertificateError> {
    let there = |value: Option<_>, name| {
        value.filter(|value: &&[u8]| !value.is_empty()).ok_or(CertificateError::Missing(name))
    };
    let (chain, key) = (there(chain, CERTIFICATE)?, there(key, PRIVATE_KEY)?);
    let chain = CertificateDer::pem_slice_iter(chain).take(limits::CHAIN_LENGTH + 1);
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(|_| CertificateError::NoCertificate)?;
    if chain.is_empty() {
        return Err(CertificateError::NoCertificate);
    }
    if chain.len() > limits::CHAIN_LENGTH {
        return Err(CertificateError::TooMany);
    }
    let facts = Facts::of(&chain, None)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateError::NoKey)?;
    let config = config(chain, key)?;
    if facts.is_expired_at(now) {
        return Err(CertificateError::Expired(facts.valid_till));
    }
    if !facts.is_valid_at(now) {
        return Err(CertificateError::NotYetValid(facts.valid_from));
    }
    Ok(Certificate { config: Arc::new(config), facts })
}

fn config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, CertificateError> {
    let unusable = |error| match error {
        rustls::Error::InconsistentKeys(_) => CertificateError::NotAPair,
        error => CertificateError::Unusable(error),
    };
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).map_err(unusable)?;
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    Ok(config)
}

#[cfg(test)]
mod tests {
    use pem_rfc7468::LineEnding;

    use super::*;
    use crate::identity::{
        chain_to_pem,
        tests::{identity, identity_valid},
    };

    fn pem(label: &str, der: &[u8]) -> String {
        pem_rfc7468::encode_string(label, LineEnding::LF, der).unwrap()
    }

    fn key_pem(identity: &crate::identity::Identity) -> String {
        pem("PRIVATE KEY", identity.key().secret_pkcs8_der())
    }

    fn refused(chain: &str, key: &str) -> String {
        let now = Timestamp::from_second(1_500).unwrap();
        let error = read(Some(chain.as_bytes()), Some(key.as_bytes()), now).unwrap_err();
        error.to_string()
    }

    #[test]
    fn a_pair_is_served_with() {
        let identity = identity_valid("CN=ingest", 1_000, 2_000);
        let (chain, key) = (chain_to_pem(identity.chain()), key_pem(&identity));
        let read = |second| {
            let now = Timestamp::from_second(second).unwrap();
            read(Some(chain.as_bytes()), Some(key.as_bytes()), now)
        };
        let certificate = read(1_500).unwrap();
        assert_eq!(certificate.facts.identifier, "CN=ingest");
        assert_eq!(certificate.config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        assert_eq!(
            [999, 2_001].map(|second| read(second).unwrap_err().to_string()),
            [
                "the certificate is not valid before 1970-01-01T00:16:40Z",
                "the certificate expired at 1970-01-01T00:33:20Z"
            ]
        );
    }

    #[test]
    fn what_is_no_pair_is_told() {
        let (one, other) = (identity("CN=one"), identity("CN=other"));
        let (chain, key) = (chain_to_pem(one.chain()), key_pem(&one));
        for (chain, key, says) in [
            (None, Some(key.as_bytes()), "has no tls.crt"),
            (Some(b"".as_slice()), Some(key.as_bytes()), "has no tls.crt"),
            (Some(chain.as_bytes()), None, "has no tls.key"),
        ] {
            assert_eq!(read(chain, key, Timestamp::now()).unwrap_err().to_string(), says);
        }
        for (chain, key, says) in [
            (key.as_str(), key.as_str(), "tls.crt: holds no PEM certificate"),
            ("-----BEGIN CERTIFICATE-----\n%", &key, "tls.crt: holds no PEM certificate"),
            (&chain.repeat(11), &key, "tls.crt: holds more than 10"),
            (&pem("CERTIFICATE", b"not DER"), &key, "tls.crt: the certificate is not a valid X.509"),
            (&chain, &chain, "tls.key: holds no PEM private key"),
            (&chain, &pem("ENCRYPTED PRIVATE KEY", b"sealed"), "tls.key: holds no PEM private key"),
            (&chain, &pem("PRIVATE KEY", b"not DER"), "cannot be served with"),
            (&chain, &key_pem(&other), "tls.key is not the key of the first certificate in tls.crt"),
        ] {
            let told = refused(chain, key);
            assert!(told.contains(says), "{told}");
        }
    }

    #[test]
    fn nothing_of_the_key_is_printed() {
        let identity = identity("CN=ingest");
        let (chain, key) = (chain_to_pem(identity.chain()), key_pem(&identity));
        let certificate = read(Some(chain.as_bytes()), Some(key.as_bytes()), Timestamp::now()).unwrap();
        let printed = format!("{certificate:?}");
        let der = identity.key();
        let part = format!("{:?}", &der.secret_pkcs8_der()[40..56]).replace(['[', ']'], "");
        assert!(!printed.contains(&part), "{printed}");
    }
}
