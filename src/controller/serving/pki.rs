//! The X.509 of the serving certificate (RFC 5280): an authority with a key of its own, and the leaf that it signs.
//! All keys are EC P-256. Knows no Kubernetes.

use std::{collections::BTreeSet, time::Duration};

use aws_lc_rs::rand;
use data_encoding::HEXLOWER;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};
use zeroize::Zeroizing;

use crate::{
    identity::{FactsError, Identity},
    limits,
};

/// Bytes of a serial number: more than chance could repeat, and less than the 20 that RFC 5280 (4.1.2.2) allows.
const SERIAL_BYTES: usize = 16;

/// Why a certificate cannot be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum PkiError {
    #[error("a certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    #[error("what was made cannot be read: {0}")]
    Facts(#[from] FactsError),
    #[error("there is no randomness")]
    Random,
}

/// Makes an authority. Each has a name of its own, so that nobody takes one for another.
pub(super) fn authority(now: Timestamp) -> Result<Identity, PkiError> {
    let serial = serial()?;
    let name = format!("Postrider ingest CA {}", HEXLOWER.encode(&serial[..4]));
    let mut params = params(&name, serial, valid(now, limits::SERVING_AUTHORITY_LIFE));
    // It signs leaves, and no other authority.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = key()?;
    let certificate = params.self_signed(&*key)?;
    identity(certificate.into(), &key)
}

/// Makes a leaf for a server with these names. Its chain is itself alone: above it there is only the authority.
pub(super) fn leaf(
    authority: &Identity,
    names: &BTreeSet<String>,
    now: Timestamp,
) -> Result<Identity, PkiError> {
    let (from, till) = valid(now, limits::SERVING_LIFE);
    let till = till.min(authority.facts().valid_till);
    let mut params = params("Postrider ingest", serial()?, (from, till));
    let names = names.iter().map(|name| name.as_str().try_into().map(SanType::DnsName));
    params.subject_alt_names = names.collect::<Result<_, _>>()?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let signs =
        Zeroizing::new(KeyPair::from_pkcs8_der_and_sign_algo(&authority.key(), &PKCS_ECDSA_P256_SHA256)?);
    let issuer = Issuer::from_ca_cert_der(&authority.chain()[0], &*signs)?;
    let key = key()?;
    let certificate = params.signed_by(&*key, &issuer)?;
    identity(certificate.into(), &key)
}

/// Why an identity is no authority that could sign, if it is none.
pub(super) fn not_an_authority(identity: &Identity) -> Option<&'static str> {
    let [certificate] = identity.chain() else { return Some("there is more than one certificate") };
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Some("it is no X.509") };
    let usage = certificate.key_usage().ok().flatten();
    if !certificate.is_ca() || !usage.is_some_and(|usage| usage.value.key_cert_sign()) {
        return Some("it is no certificate of an authority");
    }
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&identity.key(), &PKCS_ECDSA_P256_SHA256);
    key.is_err().then_some("its key is not EC P-256")
}

/// Whether the authority with this certificate has signed the leaf.
pub(super) fn is_signed_by(leaf: &Identity, authority: &CertificateDer<'_>) -> bool {
    let certificate = |der| X509Certificate::from_der(der).map(|(_, certificate)| certificate);
    let (Some(leaf), Ok(authority)) = (leaf.chain().first(), certificate(authority)) else { return false };
    certificate(leaf).is_ok_and(|leaf| {
        leaf.issuer().as_raw() == authority.subject().as_raw()
            && leaf.verify_signature(Some(authority.public_key())).is_ok()
    })
}

/// Whether the leaf is for exactly these names.
pub(super) fn is_for(leaf: &Identity, names: &BTreeSet<String>) -> bool {
    let Some(Ok((_, leaf))) = leaf.chain().first().map(|der| X509Certificate::from_der(der)) else {
        return false;
    };
    let found = leaf.subject_alternative_name().ok().flatten();
    let found = found.into_iter().flat_map(|found| &found.value.general_names);
    let found: Option<BTreeSet<&str>> =
        found.map(|name| if let GeneralName::DNSName(name) = name { Some(*name) } else { None }).collect();
    found.is_some_and(|found| found.into_iter().eq(names))
}

/// From a little before now, so long.
fn valid(now: Timestamp, life: Duration) -> (Timestamp, Timestamp) {
    let from = now.checked_sub(limits::SERVING_CLOCK_SKEW).unwrap_or(now);
    (from, from.checked_add(life).unwrap_or(Timestamp::MAX))
}

fn params(name: &str, serial: [u8; SERIAL_BYTES], (from, till): (Timestamp, Timestamp)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |time: Timestamp| epoch + Duration::from_secs(time.as_second().try_into().unwrap_or_default());
    (params.not_before, params.not_after) = (at(from), at(till));
    params.use_authority_key_identifier_extension = true;
    params
}

/// Random and positive.
fn serial() -> Result<[u8; SERIAL_BYTES], PkiError> {
    let mut serial = [0; SERIAL_BYTES];
    rand::fill(&mut serial).map_err(|_| PkiError::Random)?;
    serial[0] = (serial[0] & 0x7f) | 0x40;
    Ok(serial)
}

fn key() -> Result<Zeroizing<KeyPair>, PkiError> {
    Ok(Zeroizing::new(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?))
}

fn identity(certificate: CertificateDer<'static>, key: &KeyPair) -> Result<Identity, PkiError> {
    Ok(Identity::new(vec![certificate], Zeroizing::new(key.serialize_der()), None)?)
}

#[cfg(test)]
mod tests {
    use x509_parser::extensions::ParsedExtension;

    use super::*;

    fn now() -> Timestamp {
        "2026-11-24T12:00:00Z".parse().unwrap()
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn parsed(identity: &Identity) -> X509Certificate<'_> {
        X509Certificate::from_der(&identity.chain()[0]).unwrap().1
    }

    /// Subject and authority key identifier.
    fn key_identifiers<'a>(certificate: &'a X509Certificate<'_>) -> [&'a [u8]; 2] {
        let mut found = [&[] as &[u8]; 2];
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => found[0] = id.0,
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    found[1] = id.key_identifier.as_ref().unwrap().0;
                }
                _ => {}
            }
        }
        found
    }

    #[test]
    fn an_authority_may_sign_leaves_and_nothing_else() {
        let authority = authority(now()).unwrap();
        let certificate = parsed(&authority);
        let constraints = certificate.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, Some(0));
        let usage = certificate.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
        assert!(!usage.value.digital_signature());
        assert_eq!(authority.facts().key_algorithm, "EC P-256");
        assert_eq!(authority.facts().valid_from.to_string(), "2026-11-24T11:55:00Z");
        assert_eq!(authority.facts().valid_till.to_string(), "2029-11-23T11:55:00Z");
        let [of_itself, of_its_authority] = key_identifiers(&certificate);
        assert!(!of_itself.is_empty() && of_itself == of_its_authority);
        assert!(not_an_authority(&authority).is_none());
        assert!(is_signed_by(&authority, &authority.chain()[0]));
    }

    #[test]
    fn a_leaf_is_for_a_server_with_these_names() {
        let authority = authority(now()).unwrap();
        let names = names(&["ingest.example", "postrider.postrider.svc"]);
        let leaf = leaf(&authority, &names, now()).unwrap();
        let certificate = parsed(&leaf);
        let constraints = certificate.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && !constraints.value.ca);
        let usage = certificate.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.digital_signature() && !usage.value.key_cert_sign());
        let purpose = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(purpose.server_auth && !purpose.client_auth && !purpose.any);
        assert_eq!(leaf.facts().valid_from.to_string(), "2026-11-24T11:55:00Z");
        assert_eq!(leaf.facts().valid_till.to_string(), "2027-02-22T11:55:00Z");
        let [of_itself, of_its_authority] = key_identifiers(&certificate);
        assert!(!of_itself.is_empty() && of_itself != of_its_authority);
        assert_eq!(of_its_authority, key_identifiers(&parsed(&authority))[0]);
        assert!(is_for(&leaf, &names) && is_signed_by(&leaf, &authority.chain()[0]));
        assert_eq!(not_an_authority(&leaf), Some("it is no certificate of an authority"));
    }

    #[test]
    fn a_leaf_does_not_outlive_its_authority() {
        let authority = authority(now()).unwrap();
        let late = authority.facts().valid_till - jiff::SignedDuration::from_hours(1);
        let leaf = leaf(&authority, &names(&["a"]), late).unwrap();
        assert_eq!(leaf.facts().valid_till, authority.facts().valid_till);
    }

    #[test]
    fn no_two_are_the_same() {
        let (one, other) = (authority(now()).unwrap(), authority(now()).unwrap());
        assert_ne!(one.facts().identifier, other.facts().identifier);
        let [first, second] = [0, 1].map(|_| leaf(&one, &names(&["a"]), now()).unwrap());
        assert_ne!(first.facts().serial_number, second.facts().serial_number);
        assert_eq!(first.facts().serial_number.len(), 2 * SERIAL_BYTES);
        assert_ne!(first.key(), second.key());
        assert!(!is_signed_by(&first, &other.chain()[0]));
        for others in [&[][..], &["b"], &["a", "b"]] {
            assert!(!is_for(&first, &names(others)));
        }
    }
}
