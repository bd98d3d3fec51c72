//! The slots of a webhook, and their form in its Secret of identities: `active.crt` (leaf, then chain) and
//! `active.key` (PKCS#8), PEM.

use std::{collections::BTreeMap, sync::Arc};

use pem_rfc7468::LineEnding;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject as _};
use zeroize::Zeroizing;

use super::{FactsError, Identity, TlsError, tls::check_pair};

/// Key of the Active's certificate and chain.
pub const ACTIVE_CERTIFICATE: &str = "active.crt";
/// Key of the Active's private key.
pub const ACTIVE_KEY: &str = "active.key";

/// The identities that the controller has accepted for a webhook.
#[derive(Clone, Debug, Default)]
pub struct Slots {
    /// Presented first.
    pub active: Option<Arc<Identity>>,
}

/// Why a Secret of identities cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// One of a pair is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// Not PEM of the expected kind.
    #[error("{0} is not valid PEM")]
    Malformed(&'static str),
    /// PEM, and not a certificate.
    #[error("{ACTIVE_CERTIFICATE}: {0}")]
    Facts(#[from] FactsError),
    /// A key that is not the certificate's, or that TLS cannot use.
    #[error("{ACTIVE_KEY}: {0}")]
    Pair(#[from] TlsError),
    /// A key that cannot be written as PEM.
    #[error("the key cannot be written as PEM")]
    Encode,
}

impl Slots {
    /// Reads the slots from the data of a Secret; other keys are left alone.
    pub fn from_pem<'a>(get: impl Fn(&str) -> Option<&'a [u8]>) -> Result<Self, PemError> {
        let active = match (get(ACTIVE_CERTIFICATE), get(ACTIVE_KEY)) {
            (None, None) => None,
            (Some(_), None) => return Err(PemError::Missing(ACTIVE_KEY)),
            (None, Some(_)) => return Err(PemError::Missing(ACTIVE_CERTIFICATE)),
            (Some(certificate), Some(key)) => Some(Arc::new(identity_from_pem(certificate, key)?)),
        };
        Ok(Self { active })
    }

    /// The slots as data of a Secret.
    pub fn to_pem(&self) -> Result<BTreeMap<&'static str, Zeroizing<Vec<u8>>>, PemError> {
        let mut data = BTreeMap::new();
        if let Some(active) = &self.active {
            data.insert(ACTIVE_CERTIFICATE, Zeroizing::new(chain_to_pem(active.chain()).into_bytes()));
            let key = active.key();
            let key = pem_rfc7468::encode_string("PRIVATE KEY", LineEnding::LF, key.secret_pkcs8_der())
                .map_err(|_| PemError::Encode)?;
            data.insert(ACTIVE_KEY, Zeroizing::new(key.into_bytes()));
        }
        Ok(data)
    }
}

/// Certificates as PEM, in their order.
pub fn chain_to_pem(chain: &[CertificateDer<'_>]) -> String {
    // Encoding fails only for a length that overflows usize.
    chain.iter().filter_map(|c| pem_rfc7468::encode_string("CERTIFICATE", LineEnding::LF, c).ok()).collect()
}

fn identity_from_pem(certificate: &[u8], key: &[u8]) -> Result<Identity, PemError> {
    let chain = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| PemError::Malformed(ACTIVE_CERTIFICATE))?;
    let key = PrivatePkcs8KeyDer::from_pem_slice(key).map_err(|_| PemError::Malformed(ACTIVE_KEY))?;
    // The alias is the keystore's affair; it ends there.
    let identity = Identity::new(chain, Zeroizing::new(key.secret_pkcs8_der().to_vec()), None)?;
    check_pair(&identity)?;
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::identity;

    #[test]
    fn slots_survive_their_secret() {
        let slots = Slots { active: Some(Arc::new(identity("CN=shop"))) };
        let data = slots.to_pem().unwrap();
        let read = Slots::from_pem(|key| data.get(key).map(|value| value.as_slice())).unwrap();
        let (before, after) = (slots.active.unwrap(), read.active.unwrap());
        assert_eq!(before.chain(), after.chain());
        assert_eq!(before.key(), after.key());
    }

    #[test]
    fn the_key_of_another_is_an_error() {
        let [mut data, other] = ["CN=shop", "CN=other"]
            .map(|name| Slots { active: Some(Arc::new(identity(name))) }.to_pem().unwrap());
        data.insert(ACTIVE_KEY, other[ACTIVE_KEY].clone());
        let error = Slots::from_pem(|key| data.get(key).map(|value| value.as_slice()));
        assert!(matches!(error, Err(PemError::Pair(_))));
    }

    #[test]
    fn half_a_pair_is_an_error() {
        let data = Slots { active: Some(Arc::new(identity("CN=shop"))) }.to_pem().unwrap();
        let error = Slots::from_pem(|key| (key == ACTIVE_CERTIFICATE).then(|| data[key].as_slice()));
        assert!(matches!(error, Err(PemError::Missing(ACTIVE_KEY))));
    }
}
