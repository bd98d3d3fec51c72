//! PKCS#12 (RFC 7292): `PFX { version, authSafe, macData }`, the authSafe a sequence of contents, each
//! plain or encrypted, each a sequence of bags.
//!
//! In three steps, so that no work is done for a file that is over a bound: what lies open is read
//! first, and what its key derivations would cost together is held against the bounds; then the MAC is
//! checked; then the encrypted contents are opened, where the same bounds hold. Keys stay sealed until
//! one is chosen. The integrity mode is the password's; a store without a MAC is taken, and is told.
//! CRLs, secrets and bags of other kinds are passed over.

use zeroize::Zeroizing;

use super::{
    Format,
    ber::{self, Octets, Reader, Value},
    budget::{Budget, Cost},
    fault::Fault,
    mac::Mac,
    oid,
    pbe::Scheme,
    store::{CertificateEntry, KeyEntry, Keyring, Sealed, Store, decrypt},
};

/// Opens a store.
pub(crate) fn read(bytes: &[u8], keyring: &mut Keyring, budget: &mut Budget) -> Result<Store, Fault> {
    // What follows the outermost value is no part of it, as for OpenSSL: a newline, a copy's padding.
    let mut pfx = Reader::new(bytes).sequence()?;
    pfx.expect(ber::INTEGER)?;
    let mut content_info = pfx.sequence()?;
    match content_info.oid()? {
        oid::DATA => {}
        oid::SIGNED_DATA => {
            return Err(Fault::Algorithm("integrity by a signature (PKCS#12 in public-key mode)".to_owned()));
        }
        _ => return Err(Fault::Corrupt("its content is of an unknown type")),
    }
    let (authenticated, depth) = explicit_octets(&mut content_info)?;
    let mac = pfx.optional(ber::SEQUENCE)?.map(|mac| Mac::parse(mac.contents()?)).transpose()?;

    let outline = match outline(&authenticated, depth) {
        Err(limit @ Fault::Limit { .. }) => return Err(limit),
        outline => outline,
    };
    let stated = outline.as_ref().map(Outline::cost).unwrap_or_default();
    stated.plus(mac.as_ref().map(Mac::cost).unwrap_or_default()).check()?;

    if let Some(mac) = &mac {
        let opened = mac.verify(&authenticated, keyring.store(), budget)?;
        keyring.opened_with(opened.ok_or(Fault::Password)?);
    }
    let Outline { mut store, encrypted } = outline?;
    store.integrity = mac.is_some();
    for content in encrypted {
        let opened = decrypt(&content.scheme, &content.data, keyring.store(), budget)?;
        let (plain, reading) = opened.ok_or(Fault::Password)?;
        keyring.opened_with(reading);
        bags(Reader::new(&plain).sequence()?, &mut store)?;
    }
    Ok(store)
}

/// What can be read without a password.
struct Outline {
    store: Store,
    encrypted: Vec<Encrypted>,
}

struct Encrypted {
    scheme: Scheme,
    data: Vec<u8>,
}

impl Outline {
    fn cost(&self) -> Cost {
        let contents = self.encrypted.iter().map(|content| content.scheme.cost());
        let keys = self.store.keys.iter().filter_map(|key| match &key.sealed {
            Sealed::Shrouded { scheme, .. } => Some(scheme.cost()),
            Sealed::Plain(_) | Sealed::Jks(_) => None,
        });
        contents.chain(keys).fold(Cost::default(), Cost::plus)
    }
}

fn outline(authenticated: &[u8], depth: usize) -> Result<Outline, Fault> {
    let mut outline = Outline { store: Store::new(Format::Pkcs12), encrypted: Vec::new() };
    let mut contents = Reader::at_depth(authenticated, depth).sequence()?;
    while !contents.is_empty() {
        let mut content_info = contents.sequence()?;
        match content_info.oid()? {
            oid::DATA => {
                let (safe, depth) = explicit_octets(&mut content_info)?;
                bags(Reader::at_depth(&safe, depth).sequence()?, &mut outline.store)?;
            }
            oid::ENCRYPTED_DATA => {
                let data = content_info.expect(ber::CONTEXT_0_CONSTRUCTED)?.contents()?.sequence()?;
                outline.encrypted.push(encrypted_data(data)?);
            }
            other => return Err(Fault::algorithm(other)),
        }
    }
    Ok(outline)
}

/// `EncryptedData { version, EncryptedContentInfo { type, algorithm, [0] IMPLICIT content } }`
/// (RFC 5652, 8).
fn encrypted_data(mut data: Reader<'_>) -> Result<Encrypted, Fault> {
    data.expect(ber::INTEGER)?;
    let mut info = data.sequence()?;
    info.oid()?;
    let scheme = Scheme::parse(info.sequence()?)?;
    let data = info.value()?.octets(ber::CONTEXT_0)?.to_vec();
    Ok(Encrypted { scheme, data })
}

/// `SafeContents ::= SEQUENCE OF SafeBag { bagId, [0] EXPLICIT value, attributes }`, opened.
fn bags(mut safe: Reader<'_>, store: &mut Store) -> Result<(), Fault> {
    while !safe.is_empty() {
        let mut bag = safe.sequence()?;
        let kind = bag.oid()?;
        let mut value = bag.expect(ber::CONTEXT_0_CONSTRUCTED)?.contents()?;
        let attributes = Attributes::parse(bag.optional(ber::SET)?)?;
        match kind {
            oid::KEY_BAG => {
                let key = Zeroizing::new(value.expect(ber::SEQUENCE)?.encoding().to_vec());
                store.add_key(attributes.key(Sealed::Plain(key)))?;
            }
            oid::SHROUDED_KEY_BAG => {
                let mut info = value.sequence()?;
                let scheme = Scheme::parse(info.sequence()?)?;
                let data = info.octets()?.to_vec();
                store.add_key(attributes.key(Sealed::Shrouded { scheme, data }))?;
            }
            oid::CERT_BAG => {
                let mut certificate = value.sequence()?;
                if certificate.oid()? == oid::X509_CERTIFICATE {
                    let (der, _) = explicit_octets(&mut certificate)?;
                    store.add_certificate(attributes.certificate(der.to_vec()))?;
                }
            }
            oid::SAFE_CONTENTS_BAG => bags(value.sequence()?, store)?,
            _ => {}
        }
    }
    Ok(())
}

/// `[0] EXPLICIT OCTET STRING`: its octets, and how deep they lie.
fn explicit_octets<'a>(reader: &mut Reader<'a>) -> Result<(Octets<'a>, usize), Fault> {
    let string = reader.expect(ber::CONTEXT_0_CONSTRUCTED)?.contents()?.value()?;
    Ok((string.octets(ber::OCTET_STRING)?, string.inner_depth()))
}

/// The attributes of a bag (RFC 2985, 5.5): of each kind the first counts.
#[derive(Default)]
struct Attributes {
    friendly_name: Option<String>,
    local_key_id: Option<Vec<u8>>,
    trusted: bool,
}

impl Attributes {
    fn parse(set: Option<Value<'_>>) -> Result<Self, Fault> {
        let mut attributes = Self::default();
        let Some(set) = set else { return Ok(attributes) };
        let mut set = set.contents()?;
        while !set.is_empty() {
            let mut attribute = set.sequence()?;
            let kind = attribute.oid()?;
            attributes.trusted |= kind == oid::TRUSTED_KEY_USAGE;
            let mut values = attribute.expect(ber::SET)?.contents()?;
            if values.is_empty() {
                continue;
            }
            match kind {
                oid::FRIENDLY_NAME if attributes.friendly_name.is_none() => {
                    attributes.friendly_name = string(values.value()?);
                }
                oid::LOCAL_KEY_ID if attributes.local_key_id.is_none() => {
                    attributes.local_key_id = Some(values.octets()?.to_vec());
                }
                _ => {}
            }
        }
        Ok(attributes)
    }

    fn key(self, sealed: Sealed) -> KeyEntry {
        KeyEntry { alias: self.friendly_name, id: self.local_key_id, sealed }
    }

    fn certificate(self, der: Vec<u8>) -> CertificateEntry {
        CertificateEntry { alias: self.friendly_name, id: self.local_key_id, trusted: self.trusted, der }
    }
}

/// A name: a BMPString by the standard, of surrogate pairs too; some write UTF8String and others.
fn string(value: Value<'_>) -> Option<String> {
    const UTF8_STRING: u8 = 0x0c;
    const PRINTABLE_STRING: u8 = 0x13;
    const TELETEX_STRING: u8 = 0x14;
    const IA5_STRING: u8 = 0x16;
    const BMP_STRING: u8 = 0x1e;
    let content = value.content();
    let text = match value.identifier() {
        BMP_STRING => {
            let units: Vec<u16> = content
                .chunks_exact(2)
                .filter_map(|unit| Some(u16::from_be_bytes(unit.try_into().ok()?)))
                .collect();
            String::from_utf16_lossy(&units)
        }
        UTF8_STRING | PRINTABLE_STRING | IA5_STRING => String::from_utf8_lossy(content).into_owned(),
        TELETEX_STRING => content.iter().map(|byte| char::from(*byte)).collect(),
        _ => return None,
    };
    // An empty name chooses nothing, and BouncyCastle and others terminate theirs.
    let text = text.trim_end_matches('\0');
    (!text.is_empty()).then(|| text.to_owned())
}
