//! The MAC over a PKCS#12 store: HMAC under PKCS#12's own derivation (RFC 7292, 4), or PBMAC1
//! (RFC 9579). It is checked over the octets as they are written, whatever their encoding.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use zeroize::Zeroizing;

use super::{
    ber::{self, Reader},
    budget::{Budget, Cost},
    fault::Fault,
    hash::{DIGEST_BYTES, Hash},
    kdf::Kdf,
    oid,
    password::Reading,
};

/// The purpose of a MAC's key in PKCS#12's own derivation (RFC 7292, appendix B.3).
const MAC: u8 = 3;
/// RFC 9579, 5: a key shorter than this is to be refused.
const PBMAC1_KEY_BYTES: u64 = 20;

/// `MacData`.
pub(crate) struct Mac {
    kdf: Kdf,
    key_bytes: usize,
    hash: Hash,
    digest: Vec<u8>,
}

impl Mac {
    /// Parses `MacData { DigestInfo { algorithm, digest }, salt, iterations DEFAULT 1 }`, opened.
    pub(crate) fn parse(mut data: Reader<'_>) -> Result<Self, Fault> {
        let mut info = data.sequence()?;
        let mut algorithm = info.sequence()?;
        let oid = algorithm.oid()?;
        let digest = info.octets()?.to_vec();
        if oid == oid::PBMAC1 {
            return Self::pbmac1(algorithm.sequence()?, digest);
        }
        let hash = Hash::from_oid(oid).ok_or_else(|| Fault::algorithm(oid))?;
        let salt = data.octets()?.to_vec();
        let iterations = data.optional(ber::INTEGER)?.map_or(Ok(1), |n| n.unsigned())?;
        let kdf = Kdf::Pkcs12 { hash, salt, iterations: Kdf::iterations(iterations)? };
        Ok(Self { kdf, key_bytes: hash.output_bytes(), hash, digest })
    }

    /// `PBMAC1-params { keyDerivationFunc, messageAuthScheme }`; salt and iterations of the `MacData`
    /// are ignored (RFC 9579, 4).
    fn pbmac1(mut parameters: Reader<'_>, digest: Vec<u8>) -> Result<Self, Fault> {
        let (kdf, key_bytes) = Kdf::parse(parameters.sequence()?)?;
        let oid = parameters.sequence()?.oid()?;
        let hash = Hash::from_hmac_oid(oid).ok_or_else(|| Fault::algorithm(oid))?;
        let key_bytes = key_bytes.ok_or(Fault::Corrupt("the MAC states no key length"))?;
        if key_bytes < PBMAC1_KEY_BYTES {
            return Err(Fault::Corrupt("the MAC's key is too short"));
        }
        let limit = DIGEST_BYTES as u64;
        match usize::try_from(key_bytes) {
            Ok(key_bytes) if key_bytes <= DIGEST_BYTES => Ok(Self { kdf, key_bytes, hash, digest }),
            _ => Err(Fault::Limit { what: "bytes of the MAC's key", found: key_bytes, limit }),
        }
    }

    /// What checking it once costs.
    pub(crate) fn cost(&self) -> Cost {
        self.kdf.cost(self.key_bytes)
    }

    /// The index of the first reading of the password under which the MAC is right.
    pub(crate) fn verify(
        &self,
        content: &[u8],
        readings: &[Reading],
        budget: &mut Budget,
    ) -> Result<Option<usize>, Fault> {
        for (index, reading) in readings.iter().enumerate() {
            let secret = self.kdf.secret(reading);
            if readings.iter().take(index).any(|other| self.kdf.secret(other) == secret) {
                continue;
            }
            if index > 0 && !budget.affords(self.cost()) {
                break;
            }
            budget.charge(self.cost())?;
            let mut key = Zeroizing::new(vec![0; self.key_bytes]);
            self.kdf.derive(MAC, reading, &mut key)?;
            let mac = self.hash.hmac(&key, content);
            // A fuzzer cannot make a MAC, and is to see what lies behind it.
            if cfg!(fuzzing)
                || mac.is_some_and(|mac| verify_slices_are_equal(mac.as_ref(), &self.digest).is_ok())
            {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }
}
