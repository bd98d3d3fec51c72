//! The TLS configuration of one identity.
//!
//! One configuration belongs to one identity for its whole life, its session cache included: a session that
//! is resumed does not present a certificate again, so a cache that outlived a rotation would go on with the
//! old one.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::{
    ClientConfig, InconsistentKeys, OtherError, RootCertStore, SignatureAlgorithm, SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer},
    sign::{CertifiedKey, Signer, SigningKey},
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _, x509::SubjectPublicKeyInfo};

use super::{Facts, Identity, PublicKey, Trust, TrustError};
use crate::limits;

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Nobody can be trusted.
    #[error("trust: {0}")]
    Trust(#[from] TrustError),
    /// The key cannot be used, or is not the certificate's.
    #[error("the identity cannot be used for TLS: {0}")]
    Identity(rustls::Error),
}

/// TLS 1.2 and 1.3 towards whom `trust` names, presenting `identity` whenever the server asks for a
/// certificate, whatever authorities it says it accepts: that list is a hint, and often wrong.
pub fn client_config(identity: Option<&Identity>, trust: &Trust) -> Result<ClientConfig, TlsError> {
    config_with_roots(identity, trust.roots()?)
}

pub(super) fn config_with_roots(
    identity: Option<&Identity>,
    roots: Arc<RootCertStore>,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Identity)?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder.with_client_cert_resolver(Arc::new(Present::new(identity)?)),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Room for more servers would be taken at once, and this one is only ever shown to one.
    config.resumption = Resumption::in_memory_sessions(limits::TLS_SESSIONS);
    Ok(config)
}

/// Presents one certificate, always, for as long as it is valid.
#[derive(Debug)]
struct Present {
    certified: Arc<CertifiedKey>,
    /// Ends the handshake instead.
    refusing: Arc<CertifiedKey>,
    facts: Facts,
}

impl Present {
    fn new(identity: &Identity) -> Result<Self, TlsError> {
        let key = PrivateKeyDer::Pkcs8(identity.key());
        let key = aws_lc_rs::sign::any_supported_type(&key).map_err(TlsError::Identity)?;
        let certified = CertifiedKey::new(identity.chain().to_vec(), Arc::new(MustSign(key)));
        if !is_key_of(&*certified.key, &identity.chain()[0]) {
            return Err(TlsError::Identity(InconsistentKeys::KeyMismatch.into()));
        }
        let refusing = CertifiedKey::new(identity.chain().to_vec(), Arc::new(NotValidNow));
        let facts = identity.facts().clone();
        Ok(Self { certified: Arc::new(certified), refusing: Arc::new(refusing), facts })
    }

    /// A handshake may begin before the certificate expires and reach this after.
    fn at(&self, now: Timestamp) -> Arc<CertifiedKey> {
        Arc::clone(if self.facts.is_valid_at(now) { &self.certified } else { &self.refusing })
    }
}

/// By the keys alone. rustls asks webpki, which reads no certificate of version 1, and compares what some leave out;
/// a server may well take such a certificate.
fn is_key_of(key: &dyn SigningKey, certificate: &CertificateDer<'_>) -> bool {
    let own = key.public_key();
    let own = own.as_ref().and_then(|own| SubjectPublicKeyInfo::from_der(own).ok());
    let certificate = X509Certificate::from_der(certificate).ok();
    own.zip(certificate).is_some_and(|((_, own), (_, certificate))| {
        PublicKey::of(&own) == PublicKey::of(certificate.public_key())
    })
}

/// Whether the key is the certificate's, and one that TLS can sign with.
pub(super) fn check_pair(identity: &Identity) -> Result<(), TlsError> {
    Present::new(identity).map(drop)
}

impl ResolvesClientCert for Present {
    fn resolve(&self, _accepted: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.at(Timestamp::now()))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A key whose handshake fails where it cannot sign. Without this, rustls would go on with an empty
/// certificate message, and a server to which the certificate is optional would get a request without it.
#[derive(Debug)]
struct MustSign(Arc<dyn SigningKey>);

impl SigningKey for MustSign {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let refusal = || Box::new(Refusal(Unpresentable::NoCommonSignature)) as Box<dyn Signer>;
        Some(self.0.choose_scheme(offered).unwrap_or_else(refusal))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.0.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.algorithm()
    }
}

/// Why a handshake was ended on this side: going on would have been without the certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unpresentable {
    /// The key can make no signature that the server takes.
    #[error("the server accepts no signature that the client certificate's key can make")]
    NoCommonSignature,
    /// The certificate is not valid yet, or no more.
    #[error("the client certificate is not valid now")]
    NotValidNow,
}

/// The key of a certificate that is not valid now.
#[derive(Debug)]
struct NotValidNow;

impl SigningKey for NotValidNow {
    fn choose_scheme(&self, _offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(Refusal(Unpresentable::NotValidNow)))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::Unknown(0)
    }
}

/// Signs nothing, and so ends the handshake.
#[derive(Debug)]
struct Refusal(Unpresentable);

impl Signer for Refusal {
    fn sign(&self, _message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Err(rustls::Error::Other(OtherError(Arc::new(self.0))))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::Unknown(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::{identity, identity_valid, identity_with_key_of};

    #[test]
    fn the_key_of_another_certificate_is_refused() {
        let error =
            client_config(Some(&identity_with_key_of("CN=a", "CN=b")), &Trust::default()).unwrap_err();
        assert!(matches!(error, TlsError::Identity(rustls::Error::InconsistentKeys(_))), "{error}");
    }

    #[test]
    fn a_key_that_cannot_sign_ends_the_handshake_instead_of_going_on_without() {
        let present = Present::new(&identity("CN=a")).unwrap();
        let signer = present.certified.key.choose_scheme(&[SignatureScheme::ED448]).unwrap();
        assert!(signer.sign(b"transcript").is_err());
        assert!(present.resolve(&[b"an unrelated name"], &[SignatureScheme::ED448]).is_some());
    }

    #[test]
    fn outside_its_validity_a_certificate_ends_the_handshake() {
        let present = Present::new(&identity_valid("CN=a", 1_000, 2_000)).unwrap();
        let signs = |second| {
            let at = present.at(Timestamp::from_second(second).unwrap());
            let signer = at.key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]).unwrap();
            signer.sign(b"transcript").is_ok()
        };
        assert_eq!([999, 1_000, 2_000, 2_001].map(signs), [false, true, true, false]);
    }

    #[test]
    fn nothing_of_the_key_is_printed() {
        let identity = identity("CN=a");
        let config = client_config(Some(&identity), &Trust::default()).unwrap();
        let printed = format!("{identity:?} {config:?}");
        let key = identity.key();
        let key = key.secret_pkcs8_der();
        assert!(!printed.contains(&format!("{:?}", &key[key.len() - 16..]).replace(['[', ']'], "")));
        assert!(printed.contains("CN=a"));
    }
}
