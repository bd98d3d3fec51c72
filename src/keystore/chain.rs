//! The chain of a leaf: each certificate followed by its issuer, by name and by verified signature
//! (RFC 5280, 6.1), from whatever order and place they lie in.
//!
//! Bounded: at most [`CHAIN_LENGTH`] certificates and [`CHAIN_SIGNATURES`] verified signatures, so that
//! a store full of namesakes costs no more than a long chain.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use x509_parser::{
    certificate::X509Certificate,
    extensions::ParsedExtension,
    oid_registry::{
        OID_EC_P256, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA,
        OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384,
        OID_SIG_ECDSA_WITH_SHA512,
    },
};

use crate::limits::{CHAIN_LENGTH, CHAIN_SIGNATURES};

/// A chain out of a store's certificates.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    /// Indices, leaf first.
    pub(crate) order: Vec<usize>,
    /// Whether it ends in a certificate that is its own issuer.
    pub(crate) rooted: bool,
}

/// Orders the chain of the leaf at `leaf`; `now` (seconds since 1970) chooses between namesakes.
pub(crate) fn order(leaf: usize, certificates: &[X509Certificate<'_>], now: i64) -> Chain {
    let mut chain = Chain { order: vec![leaf], rooted: false };
    let mut signatures = 0;
    while let Some(current) = chain.order.last().and_then(|index| certificates.get(*index)) {
        // Its own name and its own key; a self-issued one of an older key goes on (RFC 5280, 3.2).
        if is_named(current, current) {
            chain.rooted = true;
            break;
        }
        if chain.order.len() == CHAIN_LENGTH {
            break;
        }
        let mut issuers: Vec<(usize, &X509Certificate<'_>)> = certificates
            .iter()
            .enumerate()
            .filter(|(index, issuer)| !chain.order.contains(index) && is_named(current, issuer))
            .collect();
        // Of several that fit, one that is valid now, and of those the one that lasts.
        issuers.sort_by_key(|(_, issuer)| {
            let validity = issuer.validity();
            let valid = (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now);
            std::cmp::Reverse((valid, validity.not_after.timestamp()))
        });
        let issuer = issuers.iter().find(|(_, issuer)| {
            signatures += 1;
            signatures <= CHAIN_SIGNATURES && is_signed_by(current, issuer)
        });
        let Some((index, _)) = issuer else { break };
        chain.order.push(*index);
    }
    chain
}

/// Whether the certificate names itself as its issuer.
pub(crate) fn is_self_issued(certificate: &X509Certificate<'_>) -> bool {
    certificate.subject().as_raw() == certificate.issuer().as_raw()
}

/// Whether the issuer's name fits, and its key's identifier where both state one (RFC 5280, 4.2.1.1).
fn is_named(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    if certificate.issuer().as_raw() != issuer.subject().as_raw() {
        return false;
    }
    let wanted = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0),
        _ => None,
    });
    let found = issuer.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    });
    !matches!((wanted, found), (Some(wanted), Some(found)) if wanted != found)
}

fn is_signed_by(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    if certificate.verify_signature(Some(issuer.public_key())).is_ok() {
        return true;
    }
    let signed: &[u8] = certificate.tbs_certificate.as_ref();
    let key = &issuer.public_key().subject_public_key.data;
    beyond_x509_parser(certificate, issuer).is_some_and(|algorithm| {
        UnparsedPublicKey::new(algorithm, key).verify(signed, &certificate.signature_value.data).is_ok()
    })
}

/// What private authorities use and x509-parser does not verify: P-521, SHA-512 with ECDSA, and roots
/// of RSA-1024.
fn beyond_x509_parser(
    certificate: &X509Certificate<'_>,
    issuer: &X509Certificate<'_>,
) -> Option<&'static dyn VerificationAlgorithm> {
    let algorithm = &certificate.signature_algorithm.algorithm;
    if *algorithm == OID_PKCS1_SHA256WITHRSA {
        return Some(&signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY);
    }
    if *algorithm == OID_PKCS1_SHA384WITHRSA {
        return Some(&signature::RSA_PKCS1_3072_8192_SHA384);
    }
    if *algorithm == OID_PKCS1_SHA512WITHRSA {
        return Some(&signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY);
    }
    let curve = issuer.public_key().algorithm.parameters.as_ref()?.as_oid().ok()?;
    let table: [(_, _, &'static dyn VerificationAlgorithm); 5] = [
        (OID_EC_P256, OID_SIG_ECDSA_WITH_SHA512, &signature::ECDSA_P256_SHA512_ASN1),
        (OID_NIST_EC_P384, OID_SIG_ECDSA_WITH_SHA512, &signature::ECDSA_P384_SHA512_ASN1),
        (OID_NIST_EC_P521, OID_SIG_ECDSA_WITH_SHA256, &signature::ECDSA_P521_SHA256_ASN1),
        (OID_NIST_EC_P521, OID_SIG_ECDSA_WITH_SHA384, &signature::ECDSA_P521_SHA384_ASN1),
        (OID_NIST_EC_P521, OID_SIG_ECDSA_WITH_SHA512, &signature::ECDSA_P521_SHA512_ASN1),
    ];
    let found = table.into_iter().find(|(on, with, _)| *on == curve && with == algorithm);
    found.map(|(_, _, algorithm)| algorithm)
}
