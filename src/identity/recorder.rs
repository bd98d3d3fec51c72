//! What a server shows of itself while it shakes hands, also where the handshake fails.
//!
//! A recorder only looks: whom to trust and what to present are exactly as without it.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, ProtocolVersion, SignatureScheme,
    client::{
        ResolvesClientCert, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::CertifiedKey,
};

use super::{Identity, TlsError, Trust, TrustError, tls::config_with_roots};

/// What a server showed. TLS bounds each message, and so the size of this, at 64 KiB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handshake {
    /// The version, once the server has proved that its certificate is its own.
    pub version: Option<ProtocolVersion>,
    /// Whether it asked for a client certificate.
    pub certificate_requested: bool,
    /// The names of the authorities that it says it accepts, DER. Empty: it names none.
    pub accepted_authorities: Vec<Vec<u8>>,
    /// Its chain as it sent it, leaf first, trusted or not.
    pub server_chain: Vec<CertificateDer<'static>>,
    /// How many times it has shown that: a session that is resumed is no full handshake.
    pub count: usize,
}

/// Keeps what the last handshakes of a configuration showed.
#[derive(Debug, Default)]
pub struct Recorder(Mutex<Handshake>);

impl Recorder {
    /// What was shown last. Of handshakes side by side it may be a mixture: a test has one.
    pub fn handshake(&self) -> Handshake {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Full handshakes so far.
    pub fn handshakes(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    /// Whether a client certificate was ever asked for.
    pub fn certificate_requested(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).certificate_requested
    }

    fn keep(&self, change: impl FnOnce(&mut Handshake)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// As [`super::client_config`], and `recorder` learns what the server shows.
pub fn recorded_client_config(
    identity: Option<&Identity>,
    trust: &Trust,
    recorder: &Arc<Recorder>,
) -> Result<ClientConfig, TlsError> {
    let roots = trust.roots()?;
    let verifier = WebPkiServerVerifier::builder_with_provider(
        Arc::clone(&roots),
        Arc::new(aws_lc_rs::default_provider()),
    );
    let verifier = verifier.build().map_err(|_| TrustError::Nobody)?;
    let mut config = config_with_roots(identity, roots)?;
    config
        .dangerous()
        .set_certificate_verifier(Arc::new(RecordsServer { verifier, recorder: Arc::clone(recorder) }));
    config.client_auth_cert_resolver = Arc::new(RecordsRequest {
        resolver: config.client_auth_cert_resolver,
        recorder: Arc::clone(recorder),
    });
    Ok(config)
}

/// Sees whether a certificate is asked for, and answers as the resolver behind it does.
#[derive(Debug)]
struct RecordsRequest {
    resolver: Arc<dyn ResolvesClientCert>,
    recorder: Arc<Recorder>,
}

impl ResolvesClientCert for RecordsRequest {
    fn resolve(&self, accepted: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.recorder.keep(|seen| {
            seen.certificate_requested = true;
            seen.accepted_authorities = accepted.iter().map(|name| name.to_vec()).collect();
        });
        self.resolver.resolve(accepted, schemes)
    }

    fn has_certs(&self) -> bool {
        self.resolver.has_certs()
    }
}

/// Sees the server's chain, and judges as the verifier behind it does.
#[derive(Debug)]
struct RecordsServer {
    verifier: Arc<WebPkiServerVerifier>,
    recorder: Arc<Recorder>,
}

impl ServerCertVerifier for RecordsServer {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.recorder.keep(|seen| {
            seen.count += 1;
            let chain = std::iter::once(leaf).chain(intermediates);
            seen.server_chain = chain.map(|certificate| certificate.clone().into_owned()).collect();
        });
        self.verifier.verify_server_cert(leaf, intermediates, name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.recorder.keep(|seen| seen.version = Some(ProtocolVersion::TLSv1_2));
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.recorder.keep(|seen| seen.version = Some(ProtocolVersion::TLSv1_3));
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{client_config, tests::identity};

    #[test]
    fn a_request_is_seen_and_answered_as_without_a_recorder() {
        let identity = identity("CN=a");
        let trust = Trust { certificates: identity.chain().to_vec(), system_roots: false };
        let recorder = Arc::new(Recorder::default());
        let config = recorded_client_config(Some(&identity), &trust, &recorder).unwrap();
        assert!(!recorder.certificate_requested());
        let presented = config.client_auth_cert_resolver.resolve(&[b"name"], &[SignatureScheme::ED448]);
        let plain = client_config(Some(&identity), &trust).unwrap();
        let expected = plain.client_auth_cert_resolver.resolve(&[b"name"], &[SignatureScheme::ED448]);
        assert_eq!(presented.unwrap().cert, expected.unwrap().cert);
        assert!(recorder.certificate_requested());
        assert_eq!(recorder.handshake().accepted_authorities, [b"name".to_vec()]);
    }

    #[test]
    fn without_an_identity_the_request_is_seen_too() {
        let trust = Trust { certificates: identity("CN=a").chain().to_vec(), system_roots: false };
        let recorder = Arc::new(Recorder::default());
        let config = recorded_client_config(None, &trust, &recorder).unwrap();
        assert!(config.client_auth_cert_resolver.resolve(&[], &[SignatureScheme::ED25519]).is_none());
        assert!(recorder.certificate_requested() && !config.client_auth_cert_resolver.has_certs());
    }

    #[test]
    fn trusting_nobody_is_an_error() {
        let trust = Trust { certificates: Vec::new(), system_roots: false };
        let error = recorded_client_config(None, &trust, &Arc::default()).unwrap_err();
        assert!(matches!(error, TlsError::Trust(TrustError::Nobody)), "{error}");
    }
}
