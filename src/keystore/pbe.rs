//! Password-based encryption: PKCS#12's own schemes (RFC 7292, appendix C) and PBES2 (RFC 8018, 6.2).
//!
//! An [`Algorithm`](Scheme) is parsed whole, and its parameters are held against the bounds, before
//! anything is derived; deriving is charged to the file's [`Budget`]. RC4 is refused: it is not a
//! block cipher, it is broken, and no tool of today writes it.

use aws_lc_rs::{
    cipher::{AES_128, AES_192, AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey},
    iv::FixedLength,
};
use cbc::cipher::{
    BlockCipherDecrypt, BlockModeDecrypt, BlockSizeUser, InnerIvInit, KeyInit, block_padding::Pkcs7,
    consts::U8,
};
use zeroize::Zeroizing;

use super::{
    ber::{self, Reader},
    budget::{Budget, Cost},
    fault::Fault,
    hash::Hash,
    kdf::Kdf,
    oid,
    password::Reading,
};

/// An encryption scheme with its parameters.
pub(crate) struct Scheme {
    kdf: Kdf,
    cipher: Cipher,
    /// `None`: derived from the password beside the key.
    iv: Option<Vec<u8>>,
}

#[derive(Clone, Copy)]
enum Cipher {
    TripleDes,
    TwoKeyTripleDes,
    /// Key length, bytes, and effective key length, bits (RFC 2268).
    Rc2(usize, usize),
    Aes(usize),
}

/// The purposes of PKCS#12's derivation (RFC 7292, appendix B.3).
const KEY: u8 = 1;
const IV: u8 = 2;

impl Scheme {
    /// Parses an `AlgorithmIdentifier`, opened.
    pub(crate) fn parse(mut algorithm: Reader<'_>) -> Result<Self, Fault> {
        let oid = algorithm.oid()?;
        let cipher = match oid {
            oid::PBES2 => return Self::pbes2(algorithm.sequence()?),
            oid::PBE_3DES => Cipher::TripleDes,
            oid::PBE_2DES => Cipher::TwoKeyTripleDes,
            oid::PBE_RC2_128 => Cipher::Rc2(16, 128),
            oid::PBE_RC2_40 => Cipher::Rc2(5, 40),
            _ => return Err(Fault::algorithm(oid)),
        };
        let mut parameters = algorithm.sequence()?;
        let salt = parameters.octets()?.to_vec();
        let iterations = Kdf::iterations(parameters.unsigned()?)?;
        Ok(Self { kdf: Kdf::Pkcs12 { hash: Hash::Sha1, salt, iterations }, cipher, iv: None })
    }

    fn pbes2(mut parameters: Reader<'_>) -> Result<Self, Fault> {
        let (kdf, _) = Kdf::parse(parameters.sequence()?)?;
        let mut encryption = parameters.sequence()?;
        let oid = encryption.oid()?;
        let cipher = match oid {
            oid::AES128_CBC => Cipher::Aes(16),
            oid::AES192_CBC => Cipher::Aes(24),
            oid::AES256_CBC => Cipher::Aes(32),
            oid::DES_EDE3_CBC => Cipher::TripleDes,
            _ => return Err(Fault::algorithm(oid)),
        };
        let iv = encryption.octets()?.to_vec();
        if iv.len() != cipher.block_bytes() {
            return Err(Fault::Corrupt("an initialization vector has the wrong length"));
        }
        Ok(Self { kdf, cipher, iv: Some(iv) })
    }

    /// What one decryption costs.
    pub(crate) fn cost(&self) -> Cost {
        let key = self.kdf.cost(self.cipher.key_bytes());
        match self.iv {
            Some(_) => key,
            // The iterations are stated once, and run once more for the initialization vector.
            None => Cost {
                steps: key.steps.saturating_add(self.kdf.cost(self.cipher.block_bytes()).steps),
                ..key
            },
        }
    }

    /// Whether this reading of the password would derive the same key as the other.
    pub(crate) fn same_key(&self, one: &Reading, other: &Reading) -> bool {
        self.kdf.secret(one) == self.kdf.secret(other)
    }

    /// Decrypts; `None` when the password or the data is wrong. What comes out is one BER value.
    pub(crate) fn decrypt(
        &self,
        data: &[u8],
        password: &Reading,
        budget: &mut Budget,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Fault> {
        if data.is_empty() || !data.len().is_multiple_of(self.cipher.block_bytes()) {
            return Err(Fault::Corrupt("encrypted data has the wrong length"));
        }
        budget.charge(self.cost())?;
        let mut key = Zeroizing::new(vec![0; self.cipher.key_bytes()]);
        self.kdf.derive(KEY, password, &mut key)?;
        let iv = if let Some(iv) = &self.iv {
            iv.clone()
        } else {
            let mut iv = vec![0; self.cipher.block_bytes()];
            self.kdf.derive(IV, password, &mut iv)?;
            iv
        };
        let mut buffer = Zeroizing::new(data.to_vec());
        let Some(length) = self.cipher.decrypt(&key, &iv, &mut buffer) else { return Ok(None) };
        buffer.truncate(length);
        // One wrong key in 256 leaves a valid padding; none leaves a value that fills the rest.
        let mut plain = Reader::new(&buffer);
        let whole = plain.expect(ber::SEQUENCE).is_ok() && plain.is_empty();
        Ok(whole.then_some(buffer))
    }
}

impl Cipher {
    fn key_bytes(self) -> usize {
        match self {
            Self::TripleDes => 24,
            Self::TwoKeyTripleDes => 16,
            Self::Rc2(bytes, _) | Self::Aes(bytes) => bytes,
        }
    }

    fn block_bytes(self) -> usize {
        match self {
            Self::TripleDes | Self::TwoKeyTripleDes | Self::Rc2(..) => 8,
            Self::Aes(_) => 16,
        }
    }

    /// Decrypts in place and takes off the padding; the length of what remains.
    fn decrypt(self, key: &[u8], iv: &[u8], buffer: &mut [u8]) -> Option<usize> {
        match self {
            Self::TripleDes => cbc(des::TdesEde3::new_from_slice(key).ok()?, iv, buffer),
            Self::TwoKeyTripleDes => cbc(des::TdesEde2::new_from_slice(key).ok()?, iv, buffer),
            Self::Rc2(_, bits) => cbc(rc2::Rc2::new_with_eff_key_len(key, bits), iv, buffer),
            Self::Aes(bytes) => aes(bytes, key, iv, buffer),
        }
    }
}

/// 3DES in CBC mode, for the one scheme that lies outside PKCS#12 and PBES2.
pub(crate) fn triple_des_cbc(key: &[u8], iv: &[u8], buffer: &mut [u8]) -> Option<usize> {
    Cipher::TripleDes.decrypt(key, iv, buffer)
}

fn cbc<C>(cipher: C, iv: &[u8], buffer: &mut [u8]) -> Option<usize>
where
    C: BlockCipherDecrypt + BlockSizeUser<BlockSize = U8>,
{
    let mode = cbc::Decryptor::inner_iv_slice_init(cipher, iv).ok()?;
    Some(mode.decrypt_padded::<Pkcs7>(buffer).ok()?.len())
}

fn aes(key_bytes: usize, key: &[u8], iv: &[u8], buffer: &mut [u8]) -> Option<usize> {
    let algorithm = match key_bytes {
        16 => &AES_128,
        24 => &AES_192,
        _ => &AES_256,
    };
    let key = PaddedBlockDecryptingKey::cbc_pkcs7(UnboundCipherKey::new(algorithm, key).ok()?).ok()?;
    let iv = DecryptionContext::Iv128(FixedLength::from(<[u8; 16]>::try_from(iv).ok()?));
    Some(key.decrypt(buffer, iv).ok()?.len())
}
