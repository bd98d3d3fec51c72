//! Whose key is whose.

use x509_parser::x509::SubjectPublicKeyInfo;

/// What makes a public key this one: its algorithm and its bits, without the parameters that some leave out.
#[derive(PartialEq, Eq)]
pub(crate) struct PublicKey {
    algorithm: Vec<u8>,
    bits: Vec<u8>,
}

impl PublicKey {
    /// Of a certificate, or of what a private key says of itself.
    pub(crate) fn of(spki: &SubjectPublicKeyInfo<'_>) -> Self {
        Self {
            algorithm: spki.algorithm.algorithm.as_bytes().to_vec(),
            bits: spki.subject_public_key.data.to_vec(),
        }
    }
}
