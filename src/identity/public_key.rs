//! Whose key is whose.

use x509_parser::{asn1_rs::Tag, x509::SubjectPublicKeyInfo};

/// What makes a public key this one: its algorithm, such as a curve, and its bits.
#[derive(PartialEq, Eq)]
pub(crate) struct PublicKey {
    algorithm: Vec<u8>,
    /// But for NULL, which some leave out.
    parameters: Option<Vec<u8>>,
    bits: Vec<u8>,
}

impl PublicKey {
    /// Of a certificate, or of what a private key says of itself.
    pub(crate) fn of(spki: &SubjectPublicKeyInfo<'_>) -> Self {
        Self {
            algorithm: spki.algorithm.algorithm.as_bytes().to_vec(),
            parameters: spki
                .algorithm
                .parameters
                .as_ref()
                .filter(|parameters| parameters.tag() != Tag::Null)
                .map(|parameters| parameters.data.to_vec()),
            bits: spki.subject_public_key.data.to_vec(),
        }
    }
}
