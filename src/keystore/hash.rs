//! The digests that keystores name, with HMAC (RFC 2104) and PBKDF2 (RFC 8018, 5.2) over them.
//!
//! MD5 and SHA-1 are here because files have them: they prove who knew the password when the file was
//! written, and nothing rests on their resistance to collisions.

use std::num::NonZeroU32;

use aws_lc_rs::{digest, pbkdf2};
use md5::Digest as _;
use zeroize::{Zeroize, Zeroizing};

use super::oid;

/// The longest digest, bytes.
pub(crate) const DIGEST_BYTES: usize = 64;

/// A digest algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hash {
    Md5,
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
    Sha512_224,
    Sha512_256,
    Sha3_256,
    Sha3_384,
    Sha3_512,
}

/// A digest; derived from a password it is a secret, so it is wiped.
pub(crate) struct Output {
    bytes: [u8; DIGEST_BYTES],
    length: usize,
}

impl Output {
    fn new(digest: &[u8]) -> Self {
        let mut output = Self { bytes: [0; DIGEST_BYTES], length: digest.len().min(DIGEST_BYTES) };
        if let (Some(to), Some(from)) = (output.bytes.get_mut(..output.length), digest.get(..output.length)) {
            to.copy_from_slice(from);
        }
        output
    }
}

impl AsRef<[u8]> for Output {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl Hash {
    /// The digest that an object identifier names.
    pub(crate) fn from_oid(oid: &[u8]) -> Option<Self> {
        Some(match oid {
            oid::MD5 => Self::Md5,
            oid::SHA1 => Self::Sha1,
            oid::SHA224 => Self::Sha224,
            oid::SHA256 => Self::Sha256,
            oid::SHA384 => Self::Sha384,
            oid::SHA512 => Self::Sha512,
            oid::SHA512_224 => Self::Sha512_224,
            oid::SHA512_256 => Self::Sha512_256,
            oid::SHA3_256 => Self::Sha3_256,
            oid::SHA3_384 => Self::Sha3_384,
            oid::SHA3_512 => Self::Sha3_512,
            _ => return None,
        })
    }

    /// The digest under the HMAC that an object identifier names.
    pub(crate) fn from_hmac_oid(oid: &[u8]) -> Option<Self> {
        Some(match oid {
            oid::HMAC_SHA1 => Self::Sha1,
            oid::HMAC_SHA224 => Self::Sha224,
            oid::HMAC_SHA256 => Self::Sha256,
            oid::HMAC_SHA384 => Self::Sha384,
            oid::HMAC_SHA512 => Self::Sha512,
            oid::HMAC_SHA512_224 => Self::Sha512_224,
            oid::HMAC_SHA512_256 => Self::Sha512_256,
            _ => return None,
        })
    }

    /// Length of the digest, bytes.
    pub(crate) fn output_bytes(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha224 | Self::Sha512_224 => 28,
            Self::Sha256 | Self::Sha512_256 | Self::Sha3_256 => 32,
            Self::Sha384 | Self::Sha3_384 => 48,
            Self::Sha512 | Self::Sha3_512 => 64,
        }
    }

    /// Length of an input block, bytes.
    pub(crate) fn block_bytes(self) -> usize {
        match self {
            Self::Md5 | Self::Sha1 | Self::Sha224 | Self::Sha256 => 64,
            Self::Sha384 | Self::Sha512 | Self::Sha512_224 | Self::Sha512_256 => 128,
            Self::Sha3_256 => 136,
            Self::Sha3_384 => 104,
            Self::Sha3_512 => 72,
        }
    }

    /// What one block costs, in blocks of SHA-256.
    pub(crate) fn weight(self) -> u64 {
        match self {
            Self::Md5 | Self::Sha1 | Self::Sha224 | Self::Sha256 => 1,
            Self::Sha384 | Self::Sha512 | Self::Sha512_224 | Self::Sha512_256 => 3,
            Self::Sha3_256 | Self::Sha3_384 | Self::Sha3_512 => 4,
        }
    }

    /// The digest of `data`.
    pub(crate) fn digest(self, data: &[u8]) -> Output {
        match (self, self.algorithm()) {
            (_, Some(algorithm)) => Output::new(digest::digest(algorithm, data).as_ref()),
            (Self::Md5, None) => Output::new(&md5::Md5::digest(data)),
            (_, None) => Output::new(&sha2::Sha512_224::digest(data)),
        }
    }

    /// The digest of the digest and so on, `times` over.
    pub(crate) fn chain(self, start: &Output, times: u32) -> Output {
        let Some(algorithm) = self.algorithm() else {
            return (0..times).fold(Output::new(start.as_ref()), |output, _| self.digest(output.as_ref()));
        };
        if times == 0 {
            return Output::new(start.as_ref());
        }
        let first = digest::digest(algorithm, start.as_ref());
        Output::new((1..times).fold(first, |output, _| digest::digest(algorithm, output.as_ref())).as_ref())
    }

    /// The implementation, where the TLS library has it.
    fn algorithm(self) -> Option<&'static digest::Algorithm> {
        match self {
            Self::Md5 | Self::Sha512_224 => None,
            Self::Sha1 => Some(&digest::SHA1_FOR_LEGACY_USE_ONLY),
            Self::Sha224 => Some(&digest::SHA224),
            Self::Sha256 => Some(&digest::SHA256),
            Self::Sha384 => Some(&digest::SHA384),
            Self::Sha512 => Some(&digest::SHA512),
            Self::Sha512_256 => Some(&digest::SHA512_256),
            Self::Sha3_256 => Some(&digest::SHA3_256),
            Self::Sha3_384 => Some(&digest::SHA3_384),
            Self::Sha3_512 => Some(&digest::SHA3_512),
        }
    }

    /// The digest of several pieces, one behind the other.
    pub(crate) fn digest_of(self, pieces: &[&[u8]]) -> Output {
        self.digest(&joined(pieces))
    }

    /// HMAC of several pieces, one behind the other.
    pub(crate) fn hmac(self, key: &[u8], pieces: &[&[u8]]) -> Output {
        let mut block = Zeroizing::new([0_u8; 136]);
        let block = block.get_mut(..self.block_bytes()).unwrap_or_default();
        let short = (key.len() > self.block_bytes()).then(|| self.digest(key));
        for (to, from) in block.iter_mut().zip(short.as_ref().map_or(key, AsRef::as_ref)) {
            *to = *from;
        }
        for byte in block.iter_mut() {
            *byte ^= 0x36;
        }
        let mut inner = Vec::with_capacity(pieces.len() + 1);
        inner.push(&*block);
        inner.extend_from_slice(pieces);
        let inner = self.digest_of(&inner);
        for byte in block.iter_mut() {
            *byte ^= 0x36 ^ 0x5c;
        }
        self.digest_of(&[block, inner.as_ref()])
    }

    /// PBKDF2 with HMAC over this digest.
    pub(crate) fn pbkdf2(self, password: &[u8], salt: &[u8], iterations: NonZeroU32, key: &mut [u8]) {
        let algorithm = match self {
            Self::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha384 => pbkdf2::PBKDF2_HMAC_SHA384,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
            _ => return self.pbkdf2_by_hmac(password, salt, iterations, key),
        };
        pbkdf2::derive(algorithm, iterations, salt, password, key);
    }

    /// The same for the digests that few files name.
    fn pbkdf2_by_hmac(self, password: &[u8], salt: &[u8], iterations: NonZeroU32, key: &mut [u8]) {
        for (block, index) in key.chunks_mut(self.output_bytes()).zip(1_u32..) {
            let mut u = self.hmac(password, &[salt, &index.to_be_bytes()]);
            block.iter_mut().zip(u.as_ref()).for_each(|(to, from)| *to = *from);
            for _ in 1..iterations.get() {
                u = self.hmac(password, &[u.as_ref()]);
                block.iter_mut().zip(u.as_ref()).for_each(|(to, from)| *to ^= from);
            }
        }
    }

    /// Blocks of SHA-256 that one iteration of PBKDF2 costs for a block of output.
    pub(crate) fn pbkdf2_weight(self) -> u64 {
        match self {
            Self::Sha1 | Self::Sha256 | Self::Sha384 | Self::Sha512 => 2 * self.weight(),
            // Four digests over the padded key and two allocations, where the others keep their state.
            _ => 8 * self.weight(),
        }
    }
}

fn joined(pieces: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let mut joined = Zeroizing::new(Vec::with_capacity(pieces.iter().map(|piece| piece.len()).sum()));
    for piece in pieces {
        joined.extend_from_slice(piece);
    }
    joined
}
