//! Key derivation: PKCS#12's own (RFC 7292, appendix B), PBKDF2 (RFC 8018, 5.2), scrypt (RFC 7914).
//!
//! Parameters are held against the bounds when they are parsed; nothing that is over one is derived.

use std::num::NonZeroU32;

use zeroize::Zeroizing;

use super::{
    ber::{self, Reader},
    budget::Cost,
    fault::Fault,
    hash::Hash,
    oid,
    password::Reading,
};
use crate::limits::{KDF_ITERATIONS, SCRYPT_BYTES, SCRYPT_PARALLELISM};

/// A key derivation function with its parameters.
pub(crate) enum Kdf {
    Pkcs12 { hash: Hash, salt: Vec<u8>, iterations: NonZeroU32 },
    Pbkdf2 { hash: Hash, salt: Vec<u8>, iterations: NonZeroU32 },
    Scrypt { salt: Vec<u8>, log_n: u8, r: u32, p: u32 },
}

impl Kdf {
    /// Parses the `AlgorithmIdentifier` of PBKDF2 or scrypt, opened; with the key length, where stated.
    pub(crate) fn parse(mut algorithm: Reader<'_>) -> Result<(Self, Option<u64>), Fault> {
        match algorithm.oid()? {
            oid::PBKDF2 => Self::pbkdf2(algorithm.sequence()?),
            oid::SCRYPT => Self::scrypt(algorithm.sequence()?),
            other => Err(Fault::algorithm(other)),
        }
    }

    /// A count of iterations, within the bound.
    pub(crate) fn iterations(stated: u64) -> Result<NonZeroU32, Fault> {
        if stated > KDF_ITERATIONS {
            let what = "iterations of one key derivation";
            return Err(Fault::Limit { what, found: stated, limit: KDF_ITERATIONS });
        }
        let iterations = u32::try_from(stated).ok().and_then(NonZeroU32::new);
        iterations.ok_or(Fault::Corrupt("a key derivation has no iterations"))
    }

    fn pbkdf2(mut parameters: Reader<'_>) -> Result<(Self, Option<u64>), Fault> {
        let salt = parameters.octets()?.to_vec();
        let iterations = Self::iterations(parameters.unsigned()?)?;
        let key_bytes = parameters.optional(ber::INTEGER)?.map(|n| n.unsigned()).transpose()?;
        // RFC 8018, A.2: the default is HMAC with SHA-1.
        let hash = match parameters.optional(ber::SEQUENCE)? {
            None => Hash::Sha1,
            Some(prf) => {
                let oid = prf.contents()?.oid()?;
                Hash::from_hmac_oid(oid).ok_or_else(|| Fault::algorithm(oid))?
            }
        };
        Ok((Self::Pbkdf2 { hash, salt, iterations }, key_bytes))
    }

    fn scrypt(mut parameters: Reader<'_>) -> Result<(Self, Option<u64>), Fault> {
        let salt = parameters.octets()?.to_vec();
        let (n, r, p) = (parameters.unsigned()?, parameters.unsigned()?, parameters.unsigned()?);
        let key_bytes = parameters.optional(ber::INTEGER)?.map(|n| n.unsigned()).transpose()?;
        let memory = n.saturating_mul(r).saturating_mul(128);
        if memory > SCRYPT_BYTES {
            return Err(Fault::Limit {
                what: "bytes of memory for scrypt",
                found: memory,
                limit: SCRYPT_BYTES,
            });
        }
        if p > SCRYPT_PARALLELISM {
            return Err(Fault::Limit { what: "parallelism of scrypt", found: p, limit: SCRYPT_PARALLELISM });
        }
        let damaged = Fault::Corrupt("the parameters of scrypt are not valid");
        let (Ok(log_n), Ok(r), Ok(p)) = (u8::try_from(n.max(1).ilog2()), u32::try_from(r), u32::try_from(p))
        else {
            return Err(damaged);
        };
        if !n.is_power_of_two() || n < 2 || r == 0 || p == 0 {
            return Err(damaged);
        }
        Ok((Self::Scrypt { salt, log_n, r, p }, key_bytes))
    }

    /// What deriving `length` bytes costs.
    pub(crate) fn cost(&self, length: usize) -> Cost {
        let blocks = |hash: &Hash| length.div_ceil(hash.output_bytes()) as u64;
        match self {
            Self::Pkcs12 { hash, iterations, .. } => {
                let iterations = u64::from(iterations.get());
                Cost { iterations, steps: iterations * blocks(hash) * hash.weight() }
            }
            Self::Pbkdf2 { hash, iterations, .. } => {
                let iterations = u64::from(iterations.get());
                Cost { iterations, steps: iterations * blocks(hash) * 2 * hash.weight() }
            }
            // Each of the n*r*p blocks of 128 bytes is mixed twice, at about four blocks of SHA-256.
            Self::Scrypt { log_n, r, p, .. } => {
                Cost { iterations: 0, steps: 4 * ((u64::from(*r) * u64::from(*p)) << log_n) }
            }
        }
    }

    /// The form of the password that goes into the derivation.
    pub(crate) fn secret<'a>(&self, password: &'a Reading) -> &'a [u8] {
        match self {
            Self::Pkcs12 { .. } => &password.bmp,
            Self::Pbkdf2 { .. } | Self::Scrypt { .. } => &password.octets,
        }
    }

    /// Fills `key`; `purpose` is for PKCS#12's own derivation. The cost is charged by the caller.
    pub(crate) fn derive(&self, purpose: u8, password: &Reading, key: &mut [u8]) -> Result<(), Fault> {
        let secret = self.secret(password);
        match self {
            Self::Pkcs12 { hash, salt, iterations } => {
                pkcs12(*hash, purpose, secret, salt, *iterations, key);
            }
            Self::Pbkdf2 { hash, salt, iterations } => hash.pbkdf2(secret, salt, *iterations, key),
            Self::Scrypt { salt, log_n, r, p } => {
                let damaged = "the parameters of scrypt are not valid";
                let parameters = scrypt::Params::new(*log_n, *r, *p).map_err(|_| Fault::Corrupt(damaged))?;
                scrypt::scrypt(secret, salt, &parameters, key).map_err(|_| Fault::Corrupt(damaged))?;
            }
        }
        Ok(())
    }
}

/// RFC 7292, appendix B.2, with its names.
fn pkcs12(hash: Hash, id: u8, password: &[u8], salt: &[u8], iterations: NonZeroU32, key: &mut [u8]) {
    let v = hash.block_bytes();
    let filled = |bytes: &[u8]| bytes.len().div_ceil(v) * v;
    let diversifier = vec![id; v];
    let mut i = Zeroizing::new(Vec::with_capacity(filled(salt) + filled(password)));
    i.extend(salt.iter().cycle().take(filled(salt)));
    i.extend(password.iter().cycle().take(filled(password)));
    for block in key.chunks_mut(hash.output_bytes()) {
        let a = hash.iterated(&[&diversifier, &i], iterations);
        for (to, from) in block.iter_mut().zip(a.as_ref()) {
            *to = *from;
        }
        // Each block of I becomes I + B + 1 modulo 2^v, where B is A repeated.
        let b: Zeroizing<Vec<u8>> = Zeroizing::new(a.as_ref().iter().copied().cycle().take(v).collect());
        for chunk in i.chunks_mut(v) {
            let mut carry = 1_u16;
            for (to, from) in chunk.iter_mut().zip(b.iter()).rev() {
                carry += u16::from(*to) + u16::from(*from);
                *to = carry.to_le_bytes()[0];
                carry >>= 8;
            }
        }
    }
}
