use proptest::prelude::*;

use super::*;

/// A store as Java writes it, out of parts that need not mean anything.
#[derive(Clone, Debug)]
struct Written {
    version: u32,
    password: String,
    keys: Vec<(String, Vec<u8>, Vec<Vec<u8>>)>,
    trusted: Vec<(String, Vec<u8>)>,
}

impl Written {
    fn encode(&self) -> Vec<u8> {
        let mut out = 0xfeed_feed_u32.to_be_bytes().to_vec();
        out.extend(self.version.to_be_bytes());
        out.extend(count(self.keys.len() + self.trusted.len()));
        for (alias, key, chain) in &self.keys {
            out.extend(PRIVATE_KEY.to_be_bytes());
            utf(&mut out, alias);
            out.extend([0; 8]);
            out.extend(count(key.len()));
            out.extend(key);
            out.extend(count(chain.len()));
            for der in chain {
                self.certificate(&mut out, der);
            }
        }
        for (alias, der) in &self.trusted {
            out.extend(TRUSTED_CERTIFICATE.to_be_bytes());
            utf(&mut out, alias);
            out.extend([0; 8]);
            self.certificate(&mut out, der);
        }
        let password: Vec<u8> = self.password.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let digest = Hash::Sha1.digest(&[&password, PHRASE, &out]);
        out.extend(digest.as_ref());
        out
    }

    fn certificate(&self, out: &mut Vec<u8>, der: &[u8]) {
        if self.version == 2 {
            utf(out, "X.509");
        }
        out.extend(count(der.len()));
        out.extend(der);
    }
}

fn count(n: usize) -> [u8; 4] {
    u32::try_from(n).unwrap().to_be_bytes()
}

/// `java.io.DataOutput.writeUTF`.
fn utf(out: &mut Vec<u8>, text: &str) {
    let mut bytes = Vec::new();
    for unit in text.encode_utf16() {
        let [high, low] = unit.to_be_bytes();
        match unit {
            1..0x80 => bytes.push(low),
            0 | 0x80..0x800 => bytes.extend([0xc0 | high << 2 | low >> 6, 0x80 | low & 0x3f]),
            _ => bytes.extend([0xe0 | high >> 4, 0x80 | (high << 2 | low >> 6) & 0x3f, 0x80 | low & 0x3f]),
        }
    }
    out.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
    out.extend(bytes);
}

fn written() -> impl Strategy<Value = Written> {
    let blob = || proptest::collection::vec(any::<u8>(), 0..60);
    let keys =
        proptest::collection::vec((any::<String>(), blob(), proptest::collection::vec(blob(), 0..3)), 0..4);
    let trusted = proptest::collection::vec((any::<String>(), blob()), 0..4);
    (1..=2_u32, any::<String>(), keys, trusted).prop_map(|(version, password, mut keys, trusted)| {
        keys.sort_by(|(a, ..), (b, ..)| a.cmp(b));
        keys.dedup_by(|(a, ..), (b, ..)| a == b);
        Written { version, password, keys, trusted }
    })
}

fn open(bytes: &[u8], password: &str) -> Result<Store, Fault> {
    read(bytes, &mut Keyring::new(password.as_bytes(), None))
}

proptest! {
    #[test]
    fn what_was_written_is_read(written in written()) {
        let store = open(&written.encode(), &written.password).map_err(|fault| TestCaseError::fail(format!("{fault:?}")))?;
        let aliases: Vec<_> = store.keys.iter().filter_map(|key| key.alias.clone()).collect();
        let expected: Vec<_> = written.keys.iter().map(|(alias, ..)| alias.clone()).collect();
        prop_assert_eq!(aliases, expected);
        let certificates: Vec<_> = store.certificates.iter().map(|entry| entry.der.clone()).collect();
        let chains = written.keys.iter().flat_map(|(_, _, chain)| chain.clone());
        let expected: Vec<_> = chains.chain(written.trusted.iter().map(|(_, der)| der.clone())).collect();
        prop_assert_eq!(certificates, expected);
    }

    #[test]
    fn a_changed_byte_is_noticed(written in written(), at in any::<prop::sample::Index>(), change in 1..=255_u8) {
        let mut bytes = written.encode();
        let at = at.index(bytes.len() - 4) + 4;
        bytes[at] ^= change;
        prop_assert!(open(&bytes, &written.password).is_err());
    }

    #[test]
    fn a_store_cut_short_is_refused(written in written(), cut in any::<prop::sample::Index>()) {
        let bytes = written.encode();
        prop_assert!(open(&bytes[..cut.index(bytes.len())], &written.password).is_err());
    }

    #[test]
    fn another_password_is_refused(written in written(), other in any::<String>()) {
        prop_assume!(other.trim_end_matches(['\r', '\n']) != written.password);
        prop_assert!(open(&written.encode(), &other).is_err());
    }

    #[test]
    fn no_sealed_key_harms(sealed in any::<Vec<u8>>(), password in any::<Vec<u8>>()) {
        let _ = open_key(&sealed, &super::super::password::readings(&password), &mut Budget::default());
    }

    #[test]
    fn a_masked_key_is_unmasked(key in any::<Vec<u8>>(), salt in any::<[u8; 20]>(), password in any::<Vec<u8>>()) {
        let mut masked = salt.to_vec();
        let mut stream = Hash::Sha1.digest(&[&password, &salt]);
        for block in key.chunks(DIGEST_BYTES) {
            masked.extend(block.iter().zip(stream.as_ref()).map(|(a, b)| a ^ b));
            stream = Hash::Sha1.digest(&[&password, stream.as_ref()]);
        }
        masked.extend(Hash::Sha1.digest(&[&password, &key]).as_ref());
        prop_assert_eq!(unmask(&masked, &password).map(|key| key.to_vec()), Some(key));
    }
}
