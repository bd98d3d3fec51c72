//! JKS and JCEKS, Java's own keystores (JDK: `sun.security.provider.JavaKeyStore`,
//! `com.sun.crypto.provider.JceKeyStore`).
//!
//! Big-endian: magic, version (1 or 2), count of entries; an entry is a tag, an alias (modified UTF-8),
//! a time, and for tag 1 a sealed key and its chain, for tag 2 a certificate. A certificate is its type
//! (version 2 only) and its bytes. The last 20 bytes are SHA-1 over the password in UTF-16BE, the
//! phrase "Mighty Aphrodite" and all before.
//!
//! Invariants: a length only ever cuts a slice from what is there; nothing is decrypted, and no
//! certificate is looked into, before the digest is right.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use zeroize::Zeroizing;

use super::{
    Format,
    ber::Reader,
    budget::{Budget, Cost},
    fault::Fault,
    hash::Hash,
    kdf::Kdf,
    oid,
    password::{Plain, Reading},
    pbe::triple_des_cbc,
    store::{CertificateEntry, KeyEntry, Keyring, Sealed, Store},
};

const PHRASE: &[u8] = b"Mighty Aphrodite";
const DIGEST_BYTES: usize = 20;
const PRIVATE_KEY: u32 = 1;
const TRUSTED_CERTIFICATE: u32 = 2;
const SECRET_KEY: u32 = 3;

/// Opens a store.
pub(crate) fn read(bytes: &[u8], keyring: &mut Keyring) -> Result<Store, Fault> {
    let mut cursor = Cursor { rest: bytes };
    let store = entries(&mut cursor)?;
    let content = bytes.len() - cursor.rest.len();
    let content = bytes.get(..content).unwrap_or_default();
    // What follows the digest is no part of the store, as for the JDK.
    let digest = cursor.bytes(DIGEST_BYTES)?;
    let right = |reading: &Reading| {
        let computed = Hash::Sha1.digest(&[&reading.utf16, PHRASE, content]);
        // A fuzzer cannot make a digest, and is to see what lies behind it.
        cfg!(fuzzing) || verify_slices_are_equal(computed.as_ref(), digest).is_ok()
    };
    let opened = keyring.store().iter().position(right).ok_or(Fault::Password)?;
    keyring.opened_with(opened);
    Ok(store)
}

/// Cuts the entries out of the file, and looks into none.
fn entries(cursor: &mut Cursor<'_>) -> Result<Store, Fault> {
    let mut store = Store::new(Format::Jks);
    store.integrity = true;
    cursor.u32()?;
    let version = cursor.u32()?;
    if !matches!(version, 1 | 2) {
        return Err(Fault::Format { name: "JKS of a version other than 1 and 2", keytool: None });
    }
    for number in 0..cursor.u32()? {
        let tag = cursor.u32()?;
        let alias = cursor.modified_utf8()?;
        cursor.bytes(8)?;
        match tag {
            PRIVATE_KEY => {
                let key = cursor.block()?;
                let id = number.to_be_bytes().to_vec();
                for position in 0..cursor.u32()? {
                    // Only the first of a chain is the key's own.
                    let id = (position == 0).then(|| id.clone());
                    add_certificate(cursor, version, None, id, &mut store)?;
                }
                // As in the JDK, an entry replaces an earlier one of the same name.
                store.keys.retain(|earlier| earlier.alias.as_ref() != Some(&alias));
                let sealed = Sealed::Jks(key.to_vec());
                store.add_key(KeyEntry { alias: Some(alias), id: Some(id), sealed })?;
            }
            TRUSTED_CERTIFICATE => add_certificate(cursor, version, Some(alias), None, &mut store)?,
            SECRET_KEY => {
                return Err(Fault::Format { name: "JCEKS with secret keys", keytool: Some("JCEKS") });
            }
            _ => return Err(Fault::Corrupt("an entry is of an unknown type")),
        }
    }
    Ok(store)
}

fn add_certificate(
    cursor: &mut Cursor<'_>,
    version: u32,
    alias: Option<String>,
    id: Option<Vec<u8>>,
    store: &mut Store,
) -> Result<(), Fault> {
    if version == 2 {
        // "X.509" from Java, "X509" from Go; there never was another, and the bytes tell.
        cursor.modified_utf8()?;
    }
    let der = cursor.block()?;
    // Only a trusted certificate has a name of its own.
    let trusted = alias.is_some();
    store.add_certificate(CertificateEntry { alias, id, trusted, der: der.to_vec() })
}

/// Opens a sealed key with the first reading of the password that works; with its index.
pub(crate) fn open_key(
    sealed: &[u8],
    readings: &[Reading],
    budget: &mut Budget,
) -> Result<Option<Plain>, Fault> {
    let mut info = Reader::new(sealed).sequence()?;
    let mut algorithm = info.sequence()?;
    let oid = algorithm.oid()?;
    let data = info.octets()?;
    match oid {
        oid::JKS_KEY_PROTECTOR => Ok(first(readings, |reading| unmask(&data, &reading.utf16))),
        oid::JCEKS_KEY_PROTECTOR => {
            let mut parameters = algorithm.sequence()?;
            let salt = parameters.octets()?;
            let salt =
                <[u8; 8]>::try_from(&*salt).map_err(|_| Fault::Corrupt("a salt has the wrong length"))?;
            let iterations = Kdf::iterations(parameters.unsigned()?)?.get();
            // Each half of the salt is digested on its own.
            let steps = 2 * u64::from(iterations) * Hash::Md5.weight();
            let cost = Cost { iterations: u64::from(iterations), steps };
            if data.is_empty() || !data.len().is_multiple_of(8) {
                return Err(Fault::Corrupt("encrypted data has the wrong length"));
            }
            for (index, reading) in readings.iter().enumerate() {
                if index > 0 && !budget.affords(cost) {
                    break;
                }
                budget.charge(cost)?;
                if let Some(key) = decrypt_jceks(&data, salt, iterations, &reading.octets) {
                    return Ok(Some((key, index)));
                }
            }
            Ok(None)
        }
        other => Err(Fault::algorithm(other)),
    }
}

fn first<T>(readings: &[Reading], open: impl Fn(&Reading) -> Option<T>) -> Option<(T, usize)> {
    readings.iter().enumerate().find_map(|(index, reading)| Some((open(reading)?, index)))
}

/// The JDK's `KeyProtector` of JKS: a salt of 20 bytes, the key under a stream of chained SHA-1, and
/// SHA-1 over password and key as a check.
fn unmask(data: &[u8], password: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (salt, rest) = data.split_at_checked(DIGEST_BYTES)?;
    let (masked, check) = rest.split_at_checked(rest.len().checked_sub(DIGEST_BYTES)?)?;
    let mut key = Zeroizing::new(masked.to_vec());
    let mut stream = Hash::Sha1.digest(&[password, salt]);
    for block in key.chunks_mut(DIGEST_BYTES) {
        block.iter_mut().zip(stream.as_ref()).for_each(|(to, from)| *to ^= from);
        stream = Hash::Sha1.digest(&[password, stream.as_ref()]);
    }
    let computed = Hash::Sha1.digest(&[password, &key]);
    verify_slices_are_equal(computed.as_ref(), check).ok().map(|()| key)
}

/// The JDK's `PBEWithMD5AndTripleDES`: key and initialization vector are two chains of MD5, each from
/// one half of the salt.
fn decrypt_jceks(data: &[u8], salt: [u8; 8], iterations: u32, password: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut salt = salt;
    if salt[..4] == salt[4..] {
        // The JDK means to reverse the half here, and writes this.
        for i in 0..2 {
            let kept = salt[i];
            salt[i] = salt[3 - i];
            salt[3 - 1] = kept;
        }
    }
    let mut derived = Zeroizing::new(Vec::with_capacity(32));
    for half in salt.chunks(4) {
        let mut digest = Hash::Md5.digest(&[half, password]);
        for _ in 1..iterations {
            digest = Hash::Md5.digest(&[digest.as_ref(), password]);
        }
        derived.extend_from_slice(digest.as_ref());
    }
    let (key, iv) = derived.split_at_checked(24)?;
    let mut buffer = Zeroizing::new(data.to_vec());
    let length = triple_des_cbc(key, iv, &mut buffer)?;
    buffer.truncate(length);
    let mut plain = Reader::new(&buffer);
    let whole = plain.sequence().is_ok() && plain.is_empty();
    whole.then_some(buffer)
}

/// Cuts slices from the front; whatever a length says, never beyond the end.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or(Fault::Corrupt("it ends too early"))?;
        self.rest = rest;
        Ok(bytes)
    }

    fn number(&mut self, bytes: usize) -> Result<u32, Fault> {
        Ok(self.bytes(bytes)?.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        self.number(4)
    }

    /// A length of four bytes, and as many bytes.
    fn block(&mut self) -> Result<&'a [u8], Fault> {
        let length = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        self.bytes(length)
    }

    /// A length of two bytes, and a string in `java.io.DataInput`'s modified UTF-8: NUL in two bytes,
    /// and a character beyond the first plane as two surrogates of three bytes each.
    fn modified_utf8(&mut self) -> Result<String, Fault> {
        let length = usize::try_from(self.number(2)?).unwrap_or(usize::MAX);
        let mut bytes = self.bytes(length)?;
        let mut units = Vec::with_capacity(bytes.len());
        while !bytes.is_empty() {
            let (unit, rest) = modified_utf8_unit(bytes).ok_or(Fault::Corrupt("a name is not valid"))?;
            units.push(unit);
            bytes = rest;
        }
        Ok(String::from_utf16_lossy(&units))
    }
}

fn modified_utf8_unit(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let low = |byte: u8| (byte & 0xc0 == 0x80).then(|| u16::from(byte & 0x3f));
    match bytes {
        [a @ 0..0x80, rest @ ..] => Some((u16::from(*a), rest)),
        [a @ 0xc0..0xe0, b, rest @ ..] => Some((u16::from(a & 0x1f) << 6 | low(*b)?, rest)),
        [a @ 0xe0..0xf0, b, c, rest @ ..] => {
            Some((u16::from(a & 0x0f) << 12 | low(*b)? << 6 | low(*c)?, rest))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
