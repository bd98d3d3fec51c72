//! Private keys: `PrivateKeyInfo` (RFC 5208) as any tool writes it becomes the PKCS#8 that rustls signs
//! with, and its public half, by which it is matched to a certificate.
//!
//! The key is written anew: without attributes (BouncyCastle, NSS), without a stated public key, which
//! might be another's, and with the scalar of an EC key at its full length (RFC 5915).

use aws_lc_rs::constant_time;
use rustls::{crypto::aws_lc_rs::sign::any_supported_type, pki_types::PrivateKeyDer};
use x509_parser::{prelude::FromDer, x509::SubjectPublicKeyInfo};
use zeroize::Zeroizing;

use super::{
    ber::{self, Reader},
    oid,
};
use crate::{
    identity::PublicKey,
    limits::{RSA_BITS, RSA_BITS_AT_MOST},
};

/// A private key that rustls signs with.
pub(crate) struct PrivateKey {
    /// PKCS#8, DER.
    pub(crate) pkcs8: Zeroizing<Vec<u8>>,
    public: PublicKey,
}

/// Why a key is not taken.
#[derive(Debug)]
pub(crate) enum KeyError {
    /// Its structure or its numbers are wrong.
    Damaged,
    /// A type or size that is not taken: its name.
    Unsupported(String),
}

impl From<ber::Error> for KeyError {
    fn from(_: ber::Error) -> Self {
        Self::Damaged
    }
}

impl PrivateKey {
    /// Reads a `PrivateKeyInfo { version, algorithm, OCTET STRING }`.
    pub(crate) fn parse(info: &[u8]) -> Result<Self, KeyError> {
        let mut info = Reader::new(info).sequence()?;
        info.unsigned()?;
        let mut algorithm = info.sequence()?;
        let oid = algorithm.oid()?;
        let key = info.octets()?;
        let pkcs8 = match oid {
            oid::RSA => rsa(&key)?,
            oid::EC => ec(algorithm, &key)?,
            oid::ED25519 => ed25519(&key)?,
            oid::RSA_PSS => return Err(KeyError::Unsupported("RSASSA-PSS".to_owned())),
            oid::DSA => return Err(KeyError::Unsupported("DSA".to_owned())),
            oid::ED448 => return Err(KeyError::Unsupported("Ed448".to_owned())),
            oid::X25519 => return Err(KeyError::Unsupported("X25519".to_owned())),
            other => return Err(KeyError::Unsupported(format!("of type {}", ber::dotted(other)))),
        };
        let der = PrivateKeyDer::Pkcs8(pkcs8.as_slice().into());
        let signer = any_supported_type(&der).map_err(|_| KeyError::Damaged)?;
        let spki = signer.public_key().ok_or(KeyError::Damaged)?;
        let (_, spki) = SubjectPublicKeyInfo::from_der(&spki).map_err(|_| KeyError::Damaged)?;
        Ok(Self { public: PublicKey::of(&spki), pkcs8 })
    }

    /// The public half.
    pub(crate) fn public(&self) -> &PublicKey {
        &self.public
    }
}

/// `RSAPrivateKey { version, modulus, … }` (RFC 8017, A.1.2).
fn rsa(key: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let mut members = Reader::new(key).sequence()?;
    members.expect(ber::INTEGER)?;
    let modulus = members.expect(ber::INTEGER)?.content();
    let modulus = modulus.get(modulus.iter().take_while(|byte| **byte == 0).count()..).unwrap_or_default();
    let unused = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    let bits = modulus.len() * 8 - unused;
    if !(RSA_BITS..=RSA_BITS_AT_MOST).contains(&bits) {
        return Err(KeyError::Unsupported(format!("RSA of {bits} bits")));
    }
    let null = [0x05, 0x00];
    Ok(pkcs8(&[&tlv(ber::OID, &[oid::RSA]), &null], key))
}

/// `ECPrivateKey { version, OCTET STRING, [0] parameters, [1] publicKey }` (RFC 5915).
fn ec<'a>(mut parameters: Reader<'a>, key: &'a [u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let mut members = Reader::new(key).sequence()?;
    members.expect(ber::INTEGER)?;
    let scalar = members.octets()?;
    if parameters.is_empty()
        && let Some(own) = members.optional(ber::CONTEXT_0_CONSTRUCTED)?
    {
        parameters = own.contents()?;
    }
    if parameters.peek() != Some(ber::OID) {
        return Err(KeyError::Unsupported("EC with parameters of its own".to_owned()));
    }
    let curve = parameters.oid()?;
    let bytes = match curve {
        oid::P256 => 32,
        oid::P384 => 48,
        oid::P521 => 66,
        other => return Err(KeyError::Unsupported(format!("EC on {}", curve_name(other)))),
    };
    let zeros = scalar.len().saturating_sub(bytes);
    let (surplus, scalar) = scalar.split_at_checked(zeros).ok_or(KeyError::Damaged)?;
    if constant_time::verify_slices_are_equal(surplus, &vec![0; zeros]).is_err() {
        return Err(KeyError::Damaged);
    }
    let padding = vec![0; bytes - scalar.len()];
    let version = [ber::INTEGER, 1, 1];
    let scalar = tlv(ber::OCTET_STRING, &[&padding, scalar]);
    let key = tlv(ber::SEQUENCE, &[&version, &scalar]);
    Ok(pkcs8(&[&tlv(ber::OID, &[oid::EC]), &tlv(ber::OID, &[curve])], &key))
}

/// `CurvePrivateKey`, an OCTET STRING in the OCTET STRING (RFC 8410, 7).
fn ed25519(key: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let seed = Reader::new(key).octets()?;
    if seed.len() != 32 {
        return Err(KeyError::Damaged);
    }
    Ok(pkcs8(&[&tlv(ber::OID, &[oid::ED25519])], &tlv(ber::OCTET_STRING, &[&seed])))
}

fn curve_name(curve: &[u8]) -> String {
    let dotted = ber::dotted(curve);
    match dotted.as_str() {
        "1.3.132.0.10" => "secp256k1".to_owned(),
        "1.3.132.0.33" => "P-224".to_owned(),
        "1.2.840.10045.3.1.1" => "P-192".to_owned(),
        "1.3.36.3.3.2.8.1.1.7" => "brainpoolP256r1".to_owned(),
        "1.3.36.3.3.2.8.1.1.11" => "brainpoolP384r1".to_owned(),
        "1.3.36.3.3.2.8.1.1.13" => "brainpoolP512r1".to_owned(),
        _ => dotted,
    }
}

fn pkcs8(algorithm: &[&[u8]], key: &[u8]) -> Zeroizing<Vec<u8>> {
    let version = [ber::INTEGER, 1, 0];
    let algorithm = tlv(ber::SEQUENCE, algorithm);
    tlv(ber::SEQUENCE, &[&version, &algorithm, &tlv(ber::OCTET_STRING, &[key])])
}

/// One DER value.
fn tlv(identifier: u8, contents: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let length: usize = contents.iter().map(|part| part.len()).sum();
    let octets = length.to_be_bytes();
    let octets = octets.get(octets.iter().take_while(|byte| **byte == 0).count()..).unwrap_or_default();
    let mut out = Zeroizing::new(Vec::with_capacity(length + octets.len() + 2));
    out.push(identifier);
    match octets {
        [] => out.push(0),
        [short @ 0..0x80] => out.push(*short),
        long => {
            // At most eight octets of a usize.
            out.push(0x80 | u8::try_from(long.len()).unwrap_or_default());
            out.extend_from_slice(long);
        }
    }
    for part in contents {
        out.extend_from_slice(part);
    }
    out
}
