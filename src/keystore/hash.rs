//! The digests that keystores name, with HMAC (RFC 2104) and PBKDF2 (RFC 8018, 5.2) over them.
//!
//! MD5 and SHA-1 are here because files have them: they prove who knew the password when the file was
//! written, and nothing rests on their resistance to collisions.

use std::num::NonZeroU32;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Digest as _;
use zeroize::Zeroize;

use super::oid;

/// The longest digest, bytes.
pub(crate) const DIGEST_BYTES: usize = 64;

/// Runs a block with `D` as the type of a digest.
macro_rules! with_digest {
    ($hash:expr, $D:ident => $block:expr) => {
        match $hash {
            Hash::Md5 => {
                type $D = md5::Md5;
                $block
            }
            Hash::Sha1 => {
                type $D = sha1::Sha1;
                $block
            }
            Hash::Sha224 => {
                type $D = sha2::Sha224;
                $block
            }
            Hash::Sha256 => {
                type $D = sha2::Sha256;
                $block
            }
            Hash::Sha384 => {
                type $D = sha2::Sha384;
                $block
            }
            Hash::Sha512 => {
                type $D = sha2::Sha512;
                $block
            }
            Hash::Sha512_224 => {
                type $D = sha2::Sha512_224;
                $block
            }
            Hash::Sha512_256 => {
                type $D = sha2::Sha512_256;
                $block
            }
            Hash::Sha3_256 => {
                type $D = sha3::Sha3_256;
                $block
            }
            Hash::Sha3_384 => {
                type $D = sha3::Sha3_384;
                $block
            }
            Hash::Sha3_512 => {
                type $D = sha3::Sha3_512;
                $block
            }
        }
    };
}

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
    /// Takes a digest over, and wipes where it was.
    fn new(digest: &mut [u8]) -> Self {
        let mut output = Self { bytes: [0; DIGEST_BYTES], length: digest.len().min(DIGEST_BYTES) };
        if let (Some(to), Some(from)) = (output.bytes.get_mut(..output.length), digest.get(..output.length)) {
            to.copy_from_slice(from);
        }
        digest.zeroize();
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
            Self::Sha1 | Self::Sha224 | Self::Sha256 => 1,
            Self::Md5 => 2,
            Self::Sha384 | Self::Sha512 | Self::Sha512_224 | Self::Sha512_256 => 4,
            Self::Sha3_256 | Self::Sha3_384 | Self::Sha3_512 => 7,
        }
    }

    /// The digest of several pieces, one behind the other.
    pub(crate) fn digest(self, pieces: &[&[u8]]) -> Output {
        self.iterated(pieces, NonZeroU32::MIN)
    }

    /// The same, and the digest of the digest and so on: so many digests in all.
    pub(crate) fn iterated(self, pieces: &[&[u8]], iterations: NonZeroU32) -> Output {
        with_digest!(self, D => {
            let mut digest = D::new();
            for piece in pieces {
                digest.update(piece);
            }
            let mut output = digest.finalize();
            for _ in 1..iterations.get() {
                output = D::digest(output);
            }
            Output::new(&mut output)
        })
    }

    /// HMAC; of a key of any length (RFC 2104, 2), so it always is one.
    pub(crate) fn hmac(self, key: &[u8], data: &[u8]) -> Option<Output> {
        with_digest!(self, D => {
            let mac = Hmac::<D>::new_from_slice(key).ok()?;
            Some(Output::new(&mut mac.chain_update(data).finalize().into_bytes()))
        })
    }

    /// PBKDF2 with HMAC over this digest.
    pub(crate) fn pbkdf2(self, password: &[u8], salt: &[u8], iterations: NonZeroU32, key: &mut [u8]) {
        with_digest!(self, D => pbkdf2::pbkdf2_hmac::<D>(password, salt, iterations.get(), key));
    }
}
