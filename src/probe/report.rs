//! What a handshake showed, as a person is told of it. Pure; everything that a server sent is bounded.

use jiff::Timestamp;
use rustls::{CipherSuite, ProtocolVersion};
use x509_parser::{certificate::X509Certificate, prelude::FromDer, x509::X509Name};

use crate::{
    identity::{Facts, Handshake, Identity, rfc4514},
    limits,
};

/// What a handshake showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// `TLSv1.3`; `None` where the handshake failed before it was certain.
    pub version: Option<&'static str>,
    /// `TLS_AES_256_GCM_SHA384`; `None` where the handshake failed.
    pub cipher_suite: Option<String>,
    /// Whether the server asked for a client certificate.
    pub certificate_requested: bool,
    /// The authorities that the server says it accepts, RFC 4514; the first
    /// [`limits::PROBE_AUTHORITIES`] of them.
    pub accepted_authorities: Vec<String>,
    /// How many it named in all.
    pub accepted_authorities_count: usize,
    /// Whether our certificate is, or is under, one of them. `None`: the list is empty, or there is no
    /// certificate.
    pub issuer_accepted: Option<bool>,
    /// What the server presented, leaf first.
    pub server_chain: Vec<ServerCertificate>,
}

/// A certificate that the server presented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerCertificate {
    /// Subject (RFC 4514); without a subject the first alternative name, else the serial number.
    pub subject: String,
    /// Issuer (RFC 4514).
    pub issuer: String,
    /// notAfter.
    pub valid_till: Timestamp,
    /// SHA-256 of the certificate, lower-case hex.
    pub fingerprint_sha256: String,
}

/// `None` where the server showed nothing.
pub(super) fn report(
    seen: &Handshake,
    cipher_suite: Option<CipherSuite>,
    identity: Option<&Identity>,
) -> Option<Tls> {
    if !seen.certificate_requested && seen.server_chain.is_empty() && seen.version.is_none() {
        return None;
    }
    let accepted = &seen.accepted_authorities;
    Some(Tls {
        version: seen.version.and_then(version_name),
        cipher_suite: cipher_suite.and_then(cipher_name),
        certificate_requested: seen.certificate_requested,
        accepted_authorities: accepted.iter().take(limits::PROBE_AUTHORITIES).map(|der| name(der)).collect(),
        accepted_authorities_count: accepted.len(),
        issuer_accepted: identity
            .filter(|_| !accepted.is_empty())
            .map(|identity| issuer_accepted(identity, accepted)),
        server_chain: seen
            .server_chain
            .iter()
            .take(limits::PROBE_CHAIN)
            .filter_map(|certificate| Facts::of(std::slice::from_ref(certificate), None).ok())
            .map(|facts| ServerCertificate {
                subject: bounded(&facts.identifier),
                issuer: bounded(&facts.issuer),
                valid_till: facts.valid_till,
                fingerprint_sha256: facts.fingerprint_sha256,
            })
            .collect(),
    })
}

/// As OpenSSL writes it; `None` for what is never negotiated.
pub(super) fn version_name(version: ProtocolVersion) -> Option<&'static str> {
    match version {
        ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
        ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
        _ => None,
    }
}

/// As IANA writes it; rustls marks the suites of TLS 1.3.
fn cipher_name(suite: CipherSuite) -> Option<String> {
    suite.as_str().map(|name| name.replacen("TLS13_", "TLS_", 1))
}

/// Whether one of the names stands in our chain: an issuer's, or (a server that pins) the leaf's own.
fn issuer_accepted(identity: &Identity, accepted: &[Vec<u8>]) -> bool {
    let ours: Vec<String> = identity
        .chain()
        .iter()
        .filter_map(|der| X509Certificate::from_der(der).ok())
        .flat_map(|(_, certificate)| [comparable(certificate.subject()), comparable(certificate.issuer())])
        .collect();
    accepted.iter().any(|der| match X509Name::from_der(der) {
        Ok((_, name)) => ours.contains(&comparable(&name)),
        Err(_) => false,
    })
}

/// RFC 5280, 7.1: the encoding of strings, case and repeated spaces make no difference.
fn comparable(name: &X509Name<'_>) -> String {
    rfc4514(name).to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn name(der: &[u8]) -> String {
    match X509Name::from_der(der) {
        Ok((_, name)) => bounded(&rfc4514(&name)),
        Err(_) => "(not a name)".to_owned(),
    }
}

fn bounded(text: &str) -> String {
    match text.char_indices().nth(limits::PROBE_NAME_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::identity;

    fn subject_der(identity: &Identity) -> Vec<u8> {
        X509Certificate::from_der(&identity.chain()[0]).unwrap().1.subject().as_raw().to_vec()
    }

    fn asked(accepted_authorities: Vec<Vec<u8>>) -> Handshake {
        Handshake { certificate_requested: true, accepted_authorities, ..Handshake::default() }
    }

    #[test]
    fn nothing_seen_is_nothing_told() {
        assert_eq!(report(&Handshake::default(), None, None), None);
    }

    #[test]
    fn the_list_is_compared_with_our_chain() {
        let (ours, other) = (identity("CN=ours"), identity("CN=other"));
        let accepted =
            |list: Vec<Vec<u8>>, identity| report(&asked(list), None, identity).unwrap().issuer_accepted;
        assert_eq!(accepted(vec![], Some(&ours)), None);
        assert_eq!(accepted(vec![subject_der(&ours)], None), None);
        assert_eq!(accepted(vec![subject_der(&other), subject_der(&ours)], Some(&ours)), Some(true));
        assert_eq!(accepted(vec![subject_der(&identity("CN=OURS"))], Some(&ours)), Some(true));
        assert_eq!(accepted(vec![subject_der(&other), b"junk".to_vec()], Some(&ours)), Some(false));
    }

    #[test]
    fn what_a_server_sends_is_bounded() {
        let long = subject_der(&identity(&"n".repeat(2 * limits::PROBE_NAME_CHARACTERS)));
        let mut seen = asked(vec![long; 2 * limits::PROBE_AUTHORITIES]);
        seen.server_chain = vec![identity("CN=server").chain()[0].clone(); 2 * limits::PROBE_CHAIN];
        let tls = report(&seen, Some(CipherSuite::TLS13_AES_256_GCM_SHA384), None).unwrap();
        assert_eq!(tls.accepted_authorities.len(), limits::PROBE_AUTHORITIES);
        assert_eq!(tls.accepted_authorities_count, 2 * limits::PROBE_AUTHORITIES);
        assert_eq!(tls.accepted_authorities[0].chars().count(), limits::PROBE_NAME_CHARACTERS + 1);
        assert_eq!(tls.server_chain.len(), limits::PROBE_CHAIN);
        assert_eq!(tls.cipher_suite.as_deref(), Some("TLS_AES_256_GCM_SHA384"));
    }
}
