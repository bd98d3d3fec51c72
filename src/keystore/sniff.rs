//! What a file is, told by its content: names and declarations lie.

use super::{
    ber::{self, Reader},
    fault::Fault,
    oid,
};

/// A format that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// RFC 7292.
    Pkcs12,
    /// Java's own.
    Jks,
    /// Java's keystore of the Cryptography Extension: the same layout.
    Jceks,
}

/// Recognises a keystore, or says what the file is instead.
pub(crate) fn sniff(bytes: &[u8]) -> Result<Kind, Fault> {
    match recognise(bytes) {
        Seen::Keystore(kind) => Ok(kind),
        Seen::Unsupported(name, keytool) => Err(Fault::Format { name, keytool }),
        Seen::Other(what) => Err(other(what)),
        Seen::Nothing => Err(text(bytes)),
    }
}

fn other(what: &str) -> Fault {
    Fault::Other(format!("{what}; a PKCS#12 or JKS keystore is needed"))
}

enum Seen {
    Keystore(Kind),
    Unsupported(&'static str, Option<&'static str>),
    Other(&'static str),
    Nothing,
}

fn recognise(bytes: &[u8]) -> Seen {
    match bytes {
        [] => Seen::Other("the file is empty"),
        [0xfe, 0xed, 0xfe, 0xed, ..] => Seen::Keystore(Kind::Jks),
        [0xce, 0xce, 0xce, 0xce, ..] => Seen::Keystore(Kind::Jceks),
        [ber::SEQUENCE, ..] => asn1(bytes),
        // BouncyCastle: version 1 or 2, then the length of a salt.
        [0, 0, 0, 1 | 2, 0, 0, 0, 1..=64, ..] => {
            Seen::Unsupported("BKS (BouncyCastle's keystore)", Some("BKS"))
        }
        // The first byte of a PKCS#12 file gone wrong: version 3, then a content.
        [_, 0x82, _, _, 0x02, 0x01, 0x03, ber::SEQUENCE, ..] => Seen::Keystore(Kind::Pkcs12),
        [b'P', b'K', 3 | 5, 4 | 6, ..] => Seen::Other("the file is a ZIP archive"),
        [0x1f, 0x8b, ..] => Seen::Other("the file is gzip-compressed"),
        _ => Seen::Nothing,
    }
}

/// The structures that start as a PKCS#12 file does, told apart by their first members.
fn asn1(bytes: &[u8]) -> Seen {
    let mut outer = Reader::new(bytes);
    // A length that lies or is cut off: what is there still tells what it was meant to be.
    let mut inside = match outer.sequence() {
        Ok(inside) => inside,
        Err(_) => Reader::new(bytes.get(header_bytes(bytes)..).unwrap_or_default()),
    };
    match inside.peek() {
        Some(ber::INTEGER) => {
            let Ok(version) = inside.value() else { return Seen::Keystore(Kind::Pkcs12) };
            match (inside.peek(), version.content()) {
                (Some(ber::INTEGER), _) => Seen::Other("the file is a bare RSA private key"),
                (Some(ber::OCTET_STRING), [1]) => Seen::Other("the file is a bare EC private key"),
                (Some(ber::SEQUENCE), [0 | 1]) if private_key_info(inside) => {
                    Seen::Other("the file is a bare private key (PKCS#8)")
                }
                _ => Seen::Keystore(Kind::Pkcs12),
            }
        }
        Some(ber::OID) => match inside.oid() {
            Ok(oid::SIGNED_DATA) => Seen::Other("the file is a PKCS#7 bundle of certificates"),
            Ok(_) => Seen::Other("the file is an ASN.1 structure of another kind"),
            Err(_) => Seen::Keystore(Kind::Pkcs12),
        },
        Some(ber::SEQUENCE) => sequence_of_sequences(inside),
        _ => Seen::Keystore(Kind::Pkcs12),
    }
}

fn header_bytes(bytes: &[u8]) -> usize {
    match bytes.get(1) {
        Some(first) if *first > 0x80 => 2 + usize::from(first & 0x7f),
        _ => 2,
    }
}

fn private_key_info(mut inside: Reader<'_>) -> bool {
    let Ok(mut algorithm) = inside.sequence() else { return false };
    algorithm.oid().is_ok() && inside.peek() == Some(ber::OCTET_STRING)
}

/// A certificate, an encrypted PKCS#8 key, or BouncyCastle's FIPS keystore:
/// `SEQUENCE { SEQUENCE { AlgorithmIdentifier, OCTET STRING }, SEQUENCE … }`.
fn sequence_of_sequences(mut inside: Reader<'_>) -> Seen {
    let Ok(mut first) = inside.sequence() else {
        return Seen::Other("the file is a certificate (DER), or the start of one");
    };
    match (first.peek(), inside.peek()) {
        (Some(ber::OID), Some(ber::OCTET_STRING)) => Seen::Other("the file is a bare encrypted key (PKCS#8)"),
        (Some(ber::SEQUENCE), Some(ber::SEQUENCE)) if first.value().is_ok() => match first.peek() {
            Some(ber::OCTET_STRING) => {
                Seen::Unsupported("BCFKS (BouncyCastle's FIPS keystore)", Some("BCFKS"))
            }
            _ => Seen::Other("the file is a certificate (DER)"),
        },
        _ => Seen::Other("the file is a certificate (DER)"),
    }
}

fn text(bytes: &[u8]) -> Fault {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return other("the file is of an unknown kind");
    };
    if let Some(begin) = text.find("-----BEGIN ") {
        let label: String =
            text.get(begin + 11..).unwrap_or_default().chars().take_while(|c| *c != '-').collect();
        let label: String = label.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(40).collect();
        return Fault::Other(format!(
            "the file is PEM ({label}); make a keystore of it: openssl pkcs12 -export -in FILE -inkey KEY -out keystore.p12"
        ));
    }
    let base64: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let decoded = data_encoding::BASE64.decode(&base64).unwrap_or_default();
    match recognise(&decoded) {
        Seen::Keystore(kind) => {
            let name = if kind == Kind::Pkcs12 { "PKCS#12" } else { "Java" };
            Fault::Other(format!(
                "the file is the base64 text of a {name} keystore, encoded once more than it should be; \
                 put the bytes themselves into the Secret"
            ))
        }
        Seen::Unsupported(..) | Seen::Other(_) if !decoded.is_empty() => {
            other("the file is base64 text of something else than a keystore")
        }
        _ => other("the file is text"),
    }
}
