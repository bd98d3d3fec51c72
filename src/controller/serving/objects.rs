//! The three objects of the serving certificate, and how they are read and written.
//!
//! | object | holds |
//! | --- | --- |
//! | Secret `postrider-ingest-ca` | `tls.crt` and `tls.key` of the authority that signs, `next.crt` and `next.key` of the one that is to follow, `retired.crt` |
//! | ConfigMap `postrider-ingest-ca` | `ca.crt`: all of these certificates |
//! | the Secret of the listener | `tls.crt`, `tls.key`, and `ca.crt` of the authority that signed it |
//!
//! Keys are PKCS#8; all is PEM. An object that is not as it is written here was changed by somebody else.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{Resource, ResourceExt as _, core::ObjectMeta};
use rustls::pki_types::CertificateDer;

use super::{
    pki,
    plan::{Authorities, Bundle, Fault},
};
use crate::{
    api::v1alpha1::MANAGED_BY,
    identity::{Identity, PemError, chain_to_pem, identity_from_pem, key_to_pem, parse_bundle},
    kubernetes::SERVING_AUTHORITY,
};

/// On all three objects.
const COMPONENT: (&str, &str) = ("app.kubernetes.io/component", "serving-certificate");
/// On the Secret of the authorities: when the last leaf of those in `retired.crt` has expired.
const RETIRED_UNTIL: &str = "postrider.dev/retired-until";
/// On the ConfigMap: since when it holds the newest authority.
const SINCE: &str = "postrider.dev/published-since";

/// The type of both Secrets.
const TLS_TYPE: &str = "kubernetes.io/tls";
const TLS: [&str; 2] = ["tls.crt", "tls.key"];
const NEXT: [&str; 2] = ["next.crt", "next.key"];
const RETIRED: &str = "retired.crt";
const CA: &str = "ca.crt";

type Data = BTreeMap<String, ByteString>;

/// An object of which it can be said whether it was written here.
pub(super) trait Owned: Resource<DynamicType = ()> {
    /// Whether it was.
    fn is_ours(&self) -> bool;
}

impl Owned for Secret {
    fn is_ours(&self) -> bool {
        // The type of a Secret can never be changed.
        has_our_labels(self) && self.type_.as_deref() == Some(TLS_TYPE)
    }
}

impl Owned for ConfigMap {
    fn is_ours(&self) -> bool {
        has_our_labels(self)
    }
}

fn has_our_labels(object: &impl Resource) -> bool {
    [MANAGED_BY, COMPONENT]
        .into_iter()
        .all(|(name, value)| object.labels().get(name).is_some_and(|is| is == value))
}

/// Reads the Secret of the authorities.
pub(super) fn authorities(secret: Option<&Secret>) -> Result<Authorities, Fault> {
    let secret = secret.ok_or(Fault::Missing)?;
    let get = |key: &str| secret.data.as_ref()?.get(key).map(|value| value.0.as_slice());
    let authority = |names: [&'static str; 2]| {
        let found = identity_from_pem(names, get).map_err(|error| error.to_string())?;
        match found.as_ref().and_then(pki::not_an_authority) {
            Some(why) => Err(format!("{}: {why}", names[0])),
            None => Ok(found.map(Arc::new)),
        }
    };
    let signing = authority(TLS).map_err(Fault::Damaged)?;
    let signing = signing.ok_or_else(|| Fault::Damaged(PemError::Missing(TLS[0]).to_string()))?;
    let until = secret.annotations().get(RETIRED_UNTIL).and_then(|until| until.parse().ok());
    let mut authorities = Authorities {
        signing,
        // Nothing depends on one that signs nothing yet: another is made.
        next: authority(NEXT).unwrap_or_default(),
        retired: get(RETIRED).and_then(|pem| parse_bundle(pem).ok()).unwrap_or_default(),
        retired_until: until.unwrap_or(Timestamp::MAX),
        as_written: false,
    };
    let written = authority_secret(&authorities).map_err(|error| Fault::Damaged(error.to_string()))?;
    authorities.as_written = secret.data == written.data;
    Ok(authorities)
}

/// The Secret of the authorities.
pub(super) fn authority_secret(authorities: &Authorities) -> Result<Secret, PemError> {
    let mut data = pair(TLS, &authorities.signing)?;
    if let Some(next) = &authorities.next {
        data.extend(pair(NEXT, next)?);
    }
    let mut secret = Secret { type_: Some(TLS_TYPE.to_owned()), ..Secret::default() };
    secret.metadata = metadata(SERVING_AUTHORITY);
    if !authorities.retired.is_empty() {
        data.insert(RETIRED.to_owned(), pem(&authorities.retired));
        let until = authorities.retired_until.to_string();
        secret.annotations_mut().insert(RETIRED_UNTIL.to_owned(), until);
    }
    secret.data = Some(data);
    Ok(secret)
}

/// Reads the ConfigMap.
pub(super) fn bundle(map: Option<&ConfigMap>) -> Bundle {
    let Some(map) = map else {
        return Bundle::Ours { certificates: Vec::new(), since: None, as_written: false };
    };
    if !map.is_ours() {
        return Bundle::Foreign;
    }
    let text = map.data.as_ref().and_then(|data| data.get(CA));
    let certificates = text.and_then(|text| parse_bundle(text.as_bytes()).ok()).unwrap_or_default();
    let since = map.annotations().get(SINCE).and_then(|since| since.parse().ok());
    let as_written = map.binary_data.is_none() && map.data.as_ref() == Some(&bundle_data(&certificates));
    Bundle::Ours { certificates, since, as_written }
}

/// The ConfigMap.
pub(super) fn bundle_map(certificates: &[CertificateDer<'_>], since: Timestamp) -> ConfigMap {
    let mut map = ConfigMap { metadata: metadata(SERVING_AUTHORITY), ..ConfigMap::default() };
    map.annotations_mut().insert(SINCE.to_owned(), since.to_string());
    map.data = Some(bundle_data(certificates));
    map
}

fn bundle_data(certificates: &[CertificateDer<'_>]) -> BTreeMap<String, String> {
    [(CA.to_owned(), chain_to_pem(certificates))].into()
}

/// Reads the Secret of the listener.
pub(super) fn leaf(secret: Option<&Secret>) -> Result<Identity, Fault> {
    let secret = secret.ok_or(Fault::Missing)?;
    let get = |key: &str| secret.data.as_ref()?.get(key).map(|value| value.0.as_slice());
    let damaged = |error: String| Fault::Damaged(error);
    let leaf = identity_from_pem(TLS, get).map_err(|error| damaged(error.to_string()))?;
    let leaf = leaf.ok_or_else(|| damaged(PemError::Missing(TLS[0]).to_string()))?;
    let authority = get(CA).ok_or_else(|| damaged(PemError::Missing(CA).to_string()))?;
    let authority = parse_bundle(authority).map_err(|error| damaged(format!("{CA} {error}")))?;
    let [authority] = authority.as_slice() else {
        return Err(damaged(format!("{CA} is not one certificate")));
    };
    if !pki::is_signed_by(&leaf, authority) {
        return Err(damaged(format!("{CA} is not of the authority that signed {}", TLS[0])));
    }
    let written = leaf_data(&leaf, authority).map_err(|error| damaged(error.to_string()))?;
    if secret.data.as_ref() != Some(&written) {
        return Err(damaged("it was changed".to_owned()));
    }
    Ok(leaf)
}

/// The Secret of the listener.
pub(super) fn leaf_secret(
    name: &str,
    leaf: &Identity,
    authority: &CertificateDer<'static>,
) -> Result<Secret, PemError> {
    let data = Some(leaf_data(leaf, authority)?);
    Ok(Secret { metadata: metadata(name), data, type_: Some(TLS_TYPE.to_owned()), ..Secret::default() })
}

fn leaf_data(leaf: &Identity, authority: &CertificateDer<'static>) -> Result<Data, PemError> {
    let mut data = pair(TLS, leaf)?;
    data.insert(CA.to_owned(), pem(std::slice::from_ref(authority)));
    Ok(data)
}

fn pair([certificate, key]: [&str; 2], identity: &Identity) -> Result<Data, PemError> {
    let key_pem = ByteString(key_to_pem(identity)?.to_vec());
    Ok([(certificate.to_owned(), pem(identity.chain())), (key.to_owned(), key_pem)].into())
}

fn pem(certificates: &[CertificateDer<'_>]) -> ByteString {
    ByteString(chain_to_pem(certificates).into_bytes())
}

fn metadata(name: &str) -> ObjectMeta {
    let labels = [MANAGED_BY, COMPONENT].map(|(name, value)| (name.to_owned(), value.to_owned()));
    ObjectMeta { name: Some(name.to_owned()), labels: Some(labels.into()), ..ObjectMeta::default() }
}

/// Puts `ours` over the metadata of the object that was read: what others have noted there stays, and the write is for
/// that version alone.
pub(super) fn take_over(before: &ObjectMeta, ours: &mut ObjectMeta) {
    let mut metadata = before.clone();
    metadata.managed_fields = None;
    metadata.labels.get_or_insert_default().extend(ours.labels.take().unwrap_or_default());
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.retain(|name, _| ![RETIRED_UNTIL, SINCE].contains(&name.as_str()));
    annotations.extend(ours.annotations.take().unwrap_or_default());
    *ours = metadata;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-24T12:00:00Z".parse().unwrap()
    }

    fn made() -> (Authorities, Secret) {
        let authority = || Arc::new(pki::authority(now()).unwrap());
        let authorities = Authorities {
            signing: authority(),
            next: Some(authority()),
            retired: vec![authority().chain()[0].clone(), authority().chain()[0].clone()],
            retired_until: now(),
            as_written: true,
        };
        let leaf = pki::leaf(&authorities.signing, &["a".to_owned()].into(), now()).unwrap();
        let secret = leaf_secret("ingest", &leaf, authorities.signing()).unwrap();
        (authorities, secret)
    }

    fn change(secret: &Secret, key: &str, value: Option<&[u8]>) -> Secret {
        let mut secret = secret.clone();
        let data = secret.data.as_mut().unwrap();
        match value {
            Some(value) => data.insert(key.to_owned(), ByteString(value.to_vec())),
            None => data.remove(key),
        };
        secret
    }

    fn value<'a>(secret: &'a Secret, key: &str) -> &'a [u8] {
        &secret.data.as_ref().unwrap()[key].0
    }

    #[test]
    fn what_is_written_is_read() {
        let (before, leaf_secret) = made();
        let secret = authority_secret(&before).unwrap();
        let after = authorities(Some(&secret)).unwrap();
        assert!(secret.is_ours() && after.as_written);
        assert_eq!(after.published(), before.published());
        assert_eq!(after.signing.key(), before.signing.key());
        assert_eq!(after.next.unwrap().key(), before.next.as_ref().unwrap().key());
        assert_eq!(after.retired_until, now());
        assert!(leaf_secret.is_ours() && leaf(Some(&leaf_secret)).is_ok());

        let map = bundle_map(&before.published(), now());
        let Bundle::Ours { certificates, since, as_written } = bundle(Some(&map)) else { unreachable!() };
        assert_eq!((certificates, since, as_written), (before.published(), Some(now()), true));
        assert!(!map.data.unwrap()[CA].contains("PRIVATE"));
    }

    #[test]
    fn authorities_that_cannot_sign_are_told_and_the_rest_is_written_anew() {
        let (before, of_leaf) = made();
        let secret = authority_secret(&before).unwrap();
        for (key, value, says) in [
            ("tls.crt", None, "tls.crt is missing"),
            ("tls.key", None, "tls.key is missing"),
            ("tls.crt", Some(&b"x"[..]), "tls.crt: the chain holds no certificate"),
            ("tls.key", Some(value(&secret, "next.key")), "tls.key: the identity cannot be used for TLS"),
            ("tls.crt", Some(value(&secret, "retired.crt")), "tls.key: the identity cannot be used for TLS"),
        ] {
            let Err(Fault::Damaged(why)) = authorities(Some(&change(&secret, key, value))) else {
                panic!("{key} is taken");
            };
            assert!(why.starts_with(says), "{why}");
        }
        let mut leaf = change(&of_leaf, "ca.crt", None);
        leaf.metadata = secret.metadata.clone();
        let told = authorities(Some(&leaf)).unwrap_err();
        assert_eq!(told, Fault::Damaged("tls.crt: it is no certificate of an authority".to_owned()));

        for (key, value, published) in [
            ("next.crt", None, 3),
            ("next.key", Some(&b"x"[..]), 3),
            ("retired.crt", Some(&b"x"[..]), 2),
            ("more", Some(&b"x"[..]), 4),
        ] {
            let found = authorities(Some(&change(&secret, key, value))).unwrap();
            assert_eq!((found.as_written, found.published().len()), (false, published), "{key}");
        }
    }

    #[test]
    fn a_leaf_that_was_changed_is_told() {
        let ((_, secret), (_, others)) = (made(), made());
        assert_eq!(leaf(None).unwrap_err(), Fault::Missing);
        for (key, value, says) in [
            ("tls.crt", None, "tls.crt is missing"),
            ("tls.key", Some(value(&others, "tls.key")), "tls.key: the identity cannot be used for TLS"),
            ("ca.crt", None, "ca.crt is missing"),
            ("ca.crt", Some(&b"x"[..]), "ca.crt holds no PEM certificate"),
            ("ca.crt", Some(value(&others, "ca.crt")), "ca.crt is not of the authority that signed tls.crt"),
            ("more", Some(&b"x"[..]), "it was changed"),
        ] {
            let Err(Fault::Damaged(why)) = leaf(Some(&change(&secret, key, value))) else {
                panic!("{key} is taken");
            };
            assert!(why.starts_with(says), "{why}");
        }
    }

    #[test]
    fn what_has_not_our_labels_or_our_type_is_somebody_elses() {
        let (_, secret) = made();
        let without = |name: &str| {
            let mut secret = secret.clone();
            secret.labels_mut().remove(name);
            secret
        };
        assert!(!without(MANAGED_BY.0).is_ours() && !without(COMPONENT.0).is_ours());
        assert!(!Secret { type_: Some("Opaque".to_owned()), ..secret.clone() }.is_ours());
        let mut map = bundle_map(&[], now());
        map.labels_mut().insert(MANAGED_BY.0.to_owned(), "Helm".to_owned());
        assert!(matches!(bundle(Some(&map)), Bundle::Foreign));
    }

    #[test]
    fn nothing_of_a_key_is_printed() {
        let (before, _) = made();
        let secret = authority_secret(&before).unwrap();
        let found = authorities(Some(&change(&secret, "tls.crt", Some(value(&secret, "next.crt")))));
        let key = before.signing.key();
        let part = format!("{:?}", &key.secret_pkcs8_der()[40..56]).replace(['[', ']'], "");
        for printed in [format!("{before:?}"), format!("{found:?}")] {
            assert!(!printed.contains(&part) && !printed.contains("PRIVATE"), "{printed}");
        }
    }

    #[test]
    fn what_others_note_on_an_object_stays() {
        let mut before = bundle_map(&[], Timestamp::MIN);
        before.annotations_mut().insert("reflect".to_owned(), "yes".to_owned());
        before.annotations_mut().insert(RETIRED_UNTIL.to_owned(), "then".to_owned());
        before.labels_mut().insert("team".to_owned(), "shop".to_owned());
        before.metadata.resource_version = Some("7".to_owned());
        let mut map = bundle_map(&[], now());
        take_over(&before.metadata, &mut map.metadata);
        assert_eq!(map.resource_version().as_deref(), Some("7"));
        assert_eq!((map.labels().len(), map.labels()["team"].as_str()), (3, "shop"));
        let annotations: Vec<_> = map.annotations().iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(annotations, [(SINCE, "2026-11-24T12:00:00Z"), ("reflect", "yes")]);
    }
}
