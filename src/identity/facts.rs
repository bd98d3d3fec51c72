//! What a person is told of a certificate: RFC 5280 fields in the notation of `openssl x509`.

use std::time::Duration;

use aws_lc_rs::digest;
use data_encoding::{HEXLOWER, HEXUPPER};
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, prelude::FromDer, public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};

use super::name::rfc4514;
use crate::limits::{EXPIRING_SOON, NAME_CHARACTERS};

/// The facts of a leaf certificate and of the chain that stands behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Subject DN (RFC 4514); without a subject the first SAN, else the serial number.
    pub identifier: String,
    /// notBefore.
    pub valid_from: Timestamp,
    /// notAfter.
    pub valid_till: Timestamp,
    /// Upper-case hex without leading zeros.
    pub serial_number: String,
    /// Issuer DN (RFC 4514).
    pub issuer: String,
    /// SHA-256 of the leaf's DER, lower-case hex.
    pub fingerprint_sha256: String,
    /// The name of the entry in its keystore, where it has one.
    pub alias: Option<String>,
    /// `RSA 2048`, `EC P-256`, `Ed25519`.
    pub key_algorithm: String,
    /// Certificates in the chain, leaf included.
    pub chain_length: usize,
}

/// Why facts cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// There is no certificate.
    #[error("the chain holds no certificate")]
    Empty,
    /// The leaf is no X.509 certificate.
    #[error("the certificate is not a valid X.509 certificate")]
    Malformed,
    /// notBefore or notAfter lies outside years -9999 to 9999.
    #[error("the certificate's validity lies outside the calendar")]
    Validity,
}

impl Facts {
    /// Reads the facts of a chain's leaf.
    pub fn of(chain: &[CertificateDer<'_>], alias: Option<String>) -> Result<Self, FactsError> {
        let leaf = chain.first().ok_or(FactsError::Empty)?;
        let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| FactsError::Malformed)?;
        let time = |t: i64| Timestamp::from_second(clamped(t)).map_err(|_| FactsError::Validity);
        let validity = certificate.validity();
        let serial_number = bounded(serial(certificate.raw_serial()));
        Ok(Self {
            identifier: bounded(identifier(&certificate, &serial_number)),
            valid_from: time(validity.not_before.timestamp())?,
            valid_till: time(validity.not_after.timestamp())?,
            issuer: bounded(rfc4514(certificate.issuer())),
            fingerprint_sha256: fingerprint(leaf),
            key_algorithm: key_algorithm(certificate.public_key()),
            chain_length: chain.len(),
            serial_number,
            alias: alias.map(bounded),
        })
    }

    /// Whether `now` lies in the validity period, both ends included (RFC 5280, 4.1.2.5).
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.valid_from <= now && !self.is_expired_at(now)
    }

    /// From when on it is said to expire soon.
    pub fn expires_soon_at(&self) -> Timestamp {
        expires_soon_between(self.valid_from, self.valid_till)
    }

    /// Whether the validity period is over.
    pub fn is_expired_at(&self, now: Timestamp) -> bool {
        now > self.valid_till
    }
}

/// From when on a certificate that is valid between two moments is said to expire soon: the last month, or the last
/// quarter of a shorter life.
pub(crate) fn expires_soon_between(valid_from: Timestamp, valid_till: Timestamp) -> Timestamp {
    let life = Duration::try_from(valid_till.duration_since(valid_from)).unwrap_or_default();
    valid_till.checked_sub(EXPIRING_SOON.min(life / 4)).unwrap_or(valid_till)
}

/// Facts go into a status, where a name of a hundred kilobytes is not welcome.
fn bounded(mut name: String) -> String {
    if let Some((end, _)) = name.char_indices().nth(NAME_CHARACTERS) {
        name.truncate(end);
        name.push('…');
    }
    name
}

/// RFC 5280, 4.1.2.5: 99991231235959Z stands for "no end". It lies two hours behind the last moment that
/// a timestamp can be, which takes its place.
fn clamped(seconds: i64) -> i64 {
    seconds.min(Timestamp::MAX.as_second())
}

/// A time as RFC 3339 writes it, in UTC; "no end" as the certificate has it.
pub fn rfc3339(time: Timestamp) -> String {
    if time.as_second() >= Timestamp::MAX.as_second() {
        "9999-12-31T23:59:59Z".to_owned()
    } else {
        time.to_string()
    }
}

/// SHA-256 of a certificate's DER, lower-case hex.
pub fn fingerprint(der: &[u8]) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, der).as_ref())
}

fn identifier(certificate: &X509Certificate<'_>, serial_number: &str) -> String {
    let subject = rfc4514(certificate.subject());
    if !subject.is_empty() {
        return subject;
    }
    let names = certificate.subject_alternative_name().ok().flatten();
    names
        .and_then(|extension| extension.value.general_names.iter().find_map(alternative_name))
        .unwrap_or_else(|| format!("serial {serial_number}"))
}

fn alternative_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(dns) => Some(format!("DNS:{dns}")),
        GeneralName::URI(uri) => Some(format!("URI:{uri}")),
        GeneralName::RFC822Name(email) => Some(format!("email:{email}")),
        GeneralName::DirectoryName(name) => Some(format!("DirName:{}", rfc4514(name))),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| format!("IP:{}", std::net::Ipv4Addr::from(b))),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|b| format!("IP:{}", std::net::Ipv6Addr::from(b))),
            _ => None,
        },
        _ => None,
    }
}

fn serial(raw: &[u8]) -> String {
    let hex = HEXUPPER.encode(raw);
    let trimmed = hex.trim_start_matches('0');
    if trimmed.is_empty() { "0".to_owned() } else { trimmed.to_owned() }
}

fn key_algorithm(spki: &SubjectPublicKeyInfo<'_>) -> String {
    let oid = spki.algorithm.algorithm.to_id_string();
    match (oid.as_str(), spki.parsed()) {
        ("1.2.840.113549.1.1.1", Ok(PublicKey::RSA(rsa))) => format!("RSA {}", rsa.key_size()),
        ("1.2.840.113549.1.1.10", _) => "RSASSA-PSS".to_owned(),
        ("1.2.840.10045.2.1", _) => {
            let curve = spki.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
            match curve.map(|c| c.to_id_string()).as_deref() {
                Some("1.2.840.10045.3.1.7") => "EC P-256".to_owned(),
                Some("1.3.132.0.34") => "EC P-384".to_owned(),
                Some("1.3.132.0.35") => "EC P-521".to_owned(),
                Some(other) => format!("EC {other}"),
                None => "EC".to_owned(),
            }
        }
        ("1.3.101.112", _) => "Ed25519".to_owned(),
        ("1.3.101.113", _) => "Ed448".to_owned(),
        ("1.2.840.10040.4.1", _) => "DSA".to_owned(),
        (other, _) => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soon_is_the_last_month_or_the_last_quarter() {
        const HOUR: i64 = 3600;
        let soon = |hours: i64| {
            let life = [0, hours * HOUR].map(|second| Timestamp::from_second(second).unwrap());
            expires_soon_between(life[0], life[1]).as_second() / HOUR
        };
        assert_eq!([4, 90 * 24, 365 * 24].map(soon), [3, 90 * 18, 335 * 24]);
    }
}
