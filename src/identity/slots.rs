//! The slots of a webhook, and their form in its Secret of identities: for each slot `<slot>.crt` (leaf, then
//! chain) and `<slot>.key` (PKCS#8), PEM.

use std::{collections::BTreeMap, sync::Arc};

use pem_rfc7468::LineEnding;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject as _};
use zeroize::Zeroizing;

use super::{FactsError, Identity, TlsError, tls::check_pair};

/// A place for an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Slot {
    /// Presented first.
    Active,
    /// Loaded, and waits to become Active.
    New,
    /// A replaced Active that has not expired.
    Previous,
}

impl Slot {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Active, Self::New, Self::Previous];

    /// Its name, as it stands in objects.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The key of its certificate and chain.
    pub fn certificate_key(self) -> &'static str {
        match self {
            Self::Active => "active.crt",
            Self::New => "new.crt",
            Self::Previous => "previous.crt",
        }
    }

    /// The key of its private key.
    pub fn private_key_key(self) -> &'static str {
        match self {
            Self::Active => "active.key",
            Self::New => "new.key",
            Self::Previous => "previous.key",
        }
    }
}

/// The identities that the controller has accepted for a webhook.
#[derive(Clone, Debug, Default)]
pub struct Slots {
    /// Presented first.
    pub active: Option<Arc<Identity>>,
    /// Waits.
    pub new: Option<Arc<Identity>>,
    /// Replaced.
    pub previous: Option<Arc<Identity>>,
}

/// Why a slot cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// One of a pair is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// Not PEM of the expected kind.
    #[error("{0} is not valid PEM")]
    Malformed(&'static str),
    /// PEM, and not a certificate.
    #[error("{0}: {1}")]
    Facts(&'static str, FactsError),
    /// A key that is not the certificate's, or that TLS cannot use.
    #[error("{0}: {1}")]
    Pair(&'static str, TlsError),
    /// A key that cannot be written as PEM.
    #[error("the key cannot be written as PEM")]
    Encode,
}

impl Slots {
    /// Whether nothing is in any slot.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// What is in the slots.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Arc<Identity>)> {
        Slot::ALL.into_iter().filter_map(|slot| Some((slot, self.get(slot)?)))
    }

    /// What is in a slot.
    pub fn get(&self, slot: Slot) -> Option<&Arc<Identity>> {
        match slot {
            Slot::Active => self.active.as_ref(),
            Slot::New => self.new.as_ref(),
            Slot::Previous => self.previous.as_ref(),
        }
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> &mut Option<Arc<Identity>> {
        match slot {
            Slot::Active => &mut self.active,
            Slot::New => &mut self.new,
            Slot::Previous => &mut self.previous,
        }
    }

    /// Reads the slots from the data of a Secret, each by itself: one that cannot be read is empty, and told.
    pub fn from_pem<'a>(get: impl Fn(&str) -> Option<&'a [u8]>) -> (Self, Vec<PemError>) {
        let (mut slots, mut errors) = (Self::default(), Vec::new());
        for slot in Slot::ALL {
            match identity_from_pem([slot.certificate_key(), slot.private_key_key()], &get) {
                Ok(identity) => *slots.get_mut(slot) = identity.map(Arc::new),
                Err(error) => errors.push(error),
            }
        }
        (slots, errors)
    }

    /// The slots as data of a Secret.
    pub fn to_pem(&self) -> Result<BTreeMap<&'static str, Zeroizing<Vec<u8>>>, PemError> {
        let mut data = BTreeMap::new();
        for (slot, identity) in self.iter() {
            let chain = chain_to_pem(identity.chain()).into_bytes();
            data.insert(slot.certificate_key(), Zeroizing::new(chain));
            data.insert(slot.private_key_key(), key_to_pem(identity)?);
        }
        Ok(data)
    }
}

/// Certificates as PEM, in their order.
pub fn chain_to_pem(chain: &[CertificateDer<'_>]) -> String {
    // Encoding fails only for a length that overflows usize.
    chain.iter().filter_map(|c| pem_rfc7468::encode_string("CERTIFICATE", LineEnding::LF, c).ok()).collect()
}

/// The private key as PEM.
pub(crate) fn key_to_pem(identity: &Identity) -> Result<Zeroizing<Vec<u8>>, PemError> {
    let key = identity.key();
    let key = pem_rfc7468::encode_string("PRIVATE KEY", LineEnding::LF, key.secret_pkcs8_der())
        .map_err(|_| PemError::Encode)?;
    Ok(Zeroizing::new(key.into_bytes()))
}

/// Reads an identity by the names of its chain and of its key; `None` where neither is there.
pub(crate) fn identity_from_pem<'a>(
    [certificate_key, private_key_key]: [&'static str; 2],
    get: impl Fn(&str) -> Option<&'a [u8]>,
) -> Result<Option<Identity>, PemError> {
    let (certificate, key) = match (get(certificate_key), get(private_key_key)) {
        (None, None) => return Ok(None),
        (Some(_), None) => return Err(PemError::Missing(private_key_key)),
        (None, Some(_)) => return Err(PemError::Missing(certificate_key)),
        (Some(certificate), Some(key)) => (certificate, key),
    };
    let chain = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| PemError::Malformed(certificate_key))?;
    let key = PrivatePkcs8KeyDer::from_pem_slice(key).map_err(|_| PemError::Malformed(private_key_key))?;
    let key = Zeroizing::new(key.secret_pkcs8_der().to_vec());
    // The alias is the keystore's affair; it ends there.
    let identity =
        Identity::new(chain, key, None).map_err(|error| PemError::Facts(certificate_key, error))?;
    check_pair(&identity).map_err(|error| PemError::Pair(private_key_key, error))?;
    Ok(Some(identity))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::identity;

    fn slots() -> Slots {
        let [active, new, previous] = ["CN=a", "CN=n", "CN=p"].map(|name| Some(Arc::new(identity(name))));
        Slots { active, new, previous }
    }

    fn read(data: &BTreeMap<&'static str, Zeroizing<Vec<u8>>>) -> (Slots, Vec<PemError>) {
        Slots::from_pem(|key| data.get(key).map(|value| value.as_slice()))
    }

    #[test]
    fn slots_survive_their_secret() {
        let slots = slots();
        let (after, errors) = read(&slots.to_pem().unwrap());
        assert!(errors.is_empty(), "{errors:?}");
        for ((slot, before), (same, after)) in slots.iter().zip(after.iter()) {
            assert_eq!((slot, before.chain(), before.key()), (same, after.chain(), after.key()));
        }
        assert_eq!(after.iter().count(), 3);
    }

    #[test]
    fn a_slot_that_cannot_be_read_leaves_the_others() {
        let good = slots().to_pem().unwrap();
        let without_key = |data: &mut BTreeMap<_, _>| drop(data.remove("new.key"));
        let wrong_key = |data: &mut BTreeMap<_, Zeroizing<Vec<u8>>>| {
            data.insert("new.key", data["previous.key"].clone());
        };
        let garbled = |data: &mut BTreeMap<_, _>| drop(data.insert("new.crt", Zeroizing::new(b"x".to_vec())));
        for change in [without_key, wrong_key, garbled] as [fn(&mut BTreeMap<_, _>); 3] {
            let mut data = good.clone();
            change(&mut data);
            let (slots, errors) = read(&data);
            assert_eq!(
                slots.iter().map(|(slot, _)| slot).collect::<Vec<_>>(),
                [Slot::Active, Slot::Previous]
            );
            assert_eq!(errors.len(), 1, "{errors:?}");
        }
    }
}
