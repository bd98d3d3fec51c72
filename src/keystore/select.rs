//! The identity in a store: which key, which certificate, which chain.
//!
//! Key and certificate are matched by public key: localKeyId and the order of entries are what the
//! writer meant, and writers err. Of several certificates for one key one that is valid is taken, of
//! those the one that lasts longest. A key is usable when it opens, is of an accepted type, and has a
//! certificate; validity does not count, or a store would change its meaning as time passes.

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::{
    Format, Request,
    budget::Budget,
    chain::{self, Chain},
    fault::{self, Fault},
    key::{KeyError, PrivateKey},
    store::{CertificateEntry, KeyEntry, Keyring, Store},
};
use crate::identity::{Facts, FactsError, Identity, PublicKey};

/// What was chosen.
pub(crate) struct Selected<'a> {
    /// The identity.
    pub(crate) identity: Identity,
    /// Its chain, as indices of `certificates`.
    pub(crate) chain: Chain,
    /// All certificates of the store.
    pub(crate) certificates: Vec<X509Certificate<'a>>,
    /// Keys that were left aside, and why they are not usable.
    pub(crate) unusable: Vec<(String, Fault)>,
    /// Whether the password of the key worked only without the newline at its end.
    pub(crate) without_newline: bool,
}

struct Usable {
    key: PrivateKey,
    alias: Option<String>,
    leaf: usize,
    without_newline: bool,
}

/// Parses the certificates of a store.
pub(crate) fn parse(entries: &[CertificateEntry]) -> Result<Vec<X509Certificate<'_>>, Fault> {
    let parsed = entries.iter().map(|entry| {
        let (rest, certificate) = X509Certificate::from_der(&entry.der).ok()?;
        rest.is_empty().then_some(certificate)
    });
    let parsed: Option<Vec<_>> = parsed.collect();
    parsed.ok_or(Fault::Corrupt("a certificate in it is not valid X.509"))
}

/// The certificates that a store trusts: those that it says so of, as Java's do. Where it says so of
/// none, a store without keys trusts all that it holds, and one with keys the authorities.
pub(crate) fn trusted(store: Store) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let certificates = parse(&store.certificates)?;
    let said = store.certificates.iter().any(|entry| entry.trusted);
    let alone = store.keys.is_empty();
    let is_trusted = |entry: &CertificateEntry, certificate: &X509Certificate<'_>| {
        if said { entry.trusted } else { alone || certificate.is_ca() }
    };
    let trusted: Vec<bool> =
        store.certificates.iter().zip(&certificates).map(|(entry, c)| is_trusted(entry, c)).collect();
    let chosen = store.certificates.into_iter().zip(trusted).filter(|(_, trusted)| *trusted);
    Ok(chosen.map(|(entry, _)| CertificateDer::from(entry.der)).collect())
}

/// Chooses the identity of a store.
pub(crate) fn select<'a>(
    store: &'a Store,
    keyring: &Keyring,
    request: &Request<'_>,
    budget: &mut Budget,
) -> Result<Selected<'a>, Fault> {
    let candidates = candidates(store, request)?;
    let certificates = parse(&store.certificates)?;
    let now = request.now.as_second();

    let mut usable: Vec<Usable> = Vec::new();
    let mut unusable = Vec::new();
    for entry in candidates {
        match open(entry, store, &certificates, keyring, now, budget) {
            // The same key twice is one identity.
            Ok(found) if usable.iter().any(|other| other.key.public() == found.key.public()) => {}
            Ok(found) => usable.push(found),
            // Enough is known: a choice is needed, and with it the work of one key is done.
            Err(Fault::Limit { .. }) if usable.len() > 1 => break,
            Err(limit @ Fault::Limit { .. }) => return Err(limit),
            Err(fault) => unusable.push((fault::name(entry.alias.as_deref()), fault)),
        }
    }
    if usable.len() > 1 {
        let names = usable.iter().map(|usable| described(usable, &certificates)).collect();
        return Err(Fault::MultipleKeys(names));
    }
    let Some(chosen) = usable.pop() else {
        let first = unusable.into_iter().next();
        return Err(first.map_or(Fault::Corrupt("it holds no key"), |(_, fault)| fault));
    };

    let chain = chain::order(chosen.leaf, &certificates, now);
    let ders = chain.order.iter().filter_map(|index| store.certificates.get(*index));
    let ders: Vec<_> = ders.map(|entry| CertificateDer::from(entry.der.clone())).collect();
    let identity = Identity::new(ders, chosen.key.pkcs8, chosen.alias).map_err(|error| unreadable(&error))?;
    check_validity(identity.facts(), request.now)?;
    Ok(Selected { identity, chain, certificates, unusable, without_newline: chosen.without_newline })
}

/// The keys that the alias chooses, or all.
fn candidates<'a>(store: &'a Store, request: &Request<'_>) -> Result<Vec<&'a KeyEntry>, Fault> {
    if store.keys.is_empty() {
        return Err(Fault::NoPrivateKey { certificates: store.certificates.len() });
    }
    let Some(alias) = request.alias else { return Ok(store.keys.iter().collect()) };
    let has = |name: &Option<String>| name.as_ref().is_some_and(|name| same(alias, name, store.format));
    // Some writers name the certificate and not its key.
    let is_chosen = |entry: &&KeyEntry| match &entry.alias {
        None => store.certificates.iter().any(|c| c.id.is_some() && c.id == entry.id && has(&c.alias)),
        alias => has(alias),
    };
    let chosen: Vec<_> = store.keys.iter().filter(is_chosen).collect();
    if chosen.is_empty() {
        let names = store.keys.iter().map(|entry| fault::name(entry.alias.as_deref())).collect();
        let certificate = store.certificates.iter().any(|entry| has(&entry.alias));
        return Err(Fault::AliasNotFound { names, certificate });
    }
    Ok(chosen)
}

/// Java's own formats know no case in aliases; PKCS#12's friendlyName does.
fn same(alias: &str, name: &str, format: Format) -> bool {
    alias == name || (format == Format::Jks && alias.to_lowercase() == name.to_lowercase())
}

fn open(
    entry: &KeyEntry,
    store: &Store,
    certificates: &[X509Certificate<'_>],
    keyring: &Keyring,
    now: i64,
    budget: &mut Budget,
) -> Result<Usable, Fault> {
    let alias = entry.alias.clone();
    let opened = keyring.open(&entry.sealed, budget)?;
    let given = keyring.has_key_password();
    let opened = opened.ok_or_else(|| Fault::KeyPassword { alias: alias.clone(), given })?;
    let key = PrivateKey::parse(&opened.key).map_err(|error| match error {
        KeyError::Damaged => Fault::Corrupt("the private key is not valid"),
        KeyError::Unsupported(algorithm) => Fault::Key { alias: alias.clone(), algorithm },
    })?;
    let leaf = leaf(&key, certificates, now).ok_or_else(|| mismatch(entry, store, certificates))?;
    let alias = alias.or_else(|| store.certificates.get(leaf)?.alias.clone());
    Ok(Usable { key, alias, leaf, without_newline: opened.without_newline })
}

/// The certificate of a key: one that is valid, else one that will be, else one that was.
fn leaf(key: &PrivateKey, certificates: &[X509Certificate<'_>], now: i64) -> Option<usize> {
    let own = certificates.iter().enumerate().filter(|(_, c)| PublicKey::of(c.public_key()) == *key.public());
    let best = own.max_by_key(|(index, certificate)| {
        let validity = certificate.validity();
        let (from, till) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        let rank = if till < now {
            0
        } else if from > now {
            1
        } else {
            2
        };
        (rank, till, std::cmp::Reverse(*index))
    });
    best.map(|(index, _)| index)
}

fn mismatch(entry: &KeyEntry, store: &Store, certificates: &[X509Certificate<'_>]) -> Fault {
    let alias = entry.alias.clone();
    if certificates.is_empty() {
        return Fault::NoCertificate { alias };
    }
    let beside = store.certificates.iter().position(|c| c.id.is_some() && c.id == entry.id);
    let beside = beside.or((certificates.len() == 1).then_some(0));
    let subject = beside.and_then(|index| certificates.get(index)).map(subject);
    Fault::KeyMismatch { alias, beside: subject }
}

/// A key in a list: its name, and where it has none, its certificate's subject.
fn described(usable: &Usable, certificates: &[X509Certificate<'_>]) -> String {
    match (&usable.alias, certificates.get(usable.leaf)) {
        (Some(alias), _) => fault::quoted(alias),
        (None, Some(leaf)) => format!("one without a name for {}", fault::quoted(&subject(leaf))),
        (None, None) => fault::name(None),
    }
}

/// The subject of a certificate, as the status writes it.
pub(crate) fn subject(certificate: &X509Certificate<'_>) -> String {
    crate::identity::rfc4514(certificate.subject())
}

fn check_validity(facts: &Facts, now: Timestamp) -> Result<(), Fault> {
    if facts.is_expired_at(now) {
        return Err(Fault::Expired(Box::new(facts.clone())));
    }
    if !facts.is_valid_at(now) {
        return Err(Fault::NotYetValid(Box::new(facts.clone())));
    }
    Ok(())
}

fn unreadable(error: &FactsError) -> Fault {
    Fault::Corrupt(match error {
        FactsError::Empty => "it holds no certificate",
        FactsError::Malformed => "a certificate in it is not valid X.509",
        FactsError::Validity => "a certificate's validity lies outside the calendar",
    })
}
