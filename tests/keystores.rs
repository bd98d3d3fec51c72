//! The corpus: keystores as real tools write them, and hostile ones, against what openssl and keytool
//! made of each (`tests/keystores/manifest.json`) and what is to be made of them here
//! (`tests/keystores/expected.tsv`).

// Helpers of tests may end them, as tests may.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use jiff::Timestamp;
use postrider::{
    identity::{Facts, Trust, client_config, fingerprint},
    keystore::{Reason, Request, load, load_trust_store},
};
use serde::Deserialize;
use strum::VariantArray as _;

#[derive(Deserialize)]
struct Manifest {
    files: Vec<Keystore>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Keystore {
    file: String,
    password: String,
    key_password: Option<String>,
    reference: BTreeMap<String, Reference>,
}

#[derive(Deserialize)]
struct Reference {
    keys: Option<u32>,
}

/// A row of the table.
struct Expected {
    file: String,
    alias: Option<String>,
    /// The leaf's fingerprint, or a reason.
    outcome: String,
    remark: String,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keystores")
}

fn manifest() -> BTreeMap<String, Keystore> {
    let manifest: Manifest =
        serde_json::from_slice(&fs::read(directory().join("manifest.json")).unwrap()).unwrap();
    manifest.files.into_iter().map(|keystore| (keystore.file.clone(), keystore)).collect()
}

fn expected() -> Vec<Expected> {
    let table = fs::read_to_string(directory().join("expected.tsv")).unwrap();
    let rows = table.lines().filter(|line| !line.starts_with('#'));
    let parse = |row: &str| {
        let [file, alias, outcome, remark] = row.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let alias = (!alias.is_empty()).then(|| alias.to_owned());
        Expected { file: file.to_owned(), alias, outcome: outcome.to_owned(), remark: remark.to_owned() }
    };
    rows.map(parse).collect()
}

fn now() -> Timestamp {
    "2026-11-24T00:00:00Z".parse().unwrap()
}

fn request<'a>(keystore: &'a Keystore, bytes: &'a [u8], alias: Option<&'a str>) -> Request<'a> {
    Request {
        bytes,
        password: keystore.password.as_bytes(),
        key_password: keystore.key_password.as_deref().map(str::as_bytes),
        alias,
        declared: None,
        file: &keystore.file,
        now: now(),
    }
}

#[derive(Default)]
struct Count {
    loaded: usize,
    loadable: usize,
    refused: usize,
    refusable: usize,
}

/// What went wrong with a row, if anything did.
fn check(expected: &Expected, keystore: &Keystore) -> Result<(), String> {
    let bytes = fs::read(directory().join(&expected.file)).unwrap();
    let wanted = Reason::VARIANTS.iter().find(|reason| reason.as_str() == expected.outcome);
    match (load(&request(keystore, &bytes, expected.alias.as_deref())), wanted) {
        (Ok(loaded), None) => {
            let facts = loaded.identity.facts();
            if facts.fingerprint_sha256 != expected.outcome {
                return Err(format!("another leaf: {}", facts.identifier));
            }
            // What is taken can be shown in a handshake.
            let config = client_config(Some(&loaded.identity), &Trust::default());
            config.map(drop).map_err(|error| error.to_string())
        }
        (Ok(_), Some(reason)) => Err(format!("loaded, and should be refused: {reason}")),
        (Err(refusal), None) => Err(format!("{}: {refusal}", refusal.reason)),
        (Err(refusal), Some(reason)) if refusal.reason == *reason => {
            let dated = matches!(reason, Reason::Expired | Reason::NotYetValid);
            let named = refusal.message.starts_with(&format!("{}: ", expected.file));
            match (named, refusal.facts.is_some() == dated) {
                (true, true) => Ok(()),
                (false, _) => Err(format!("the message does not name the file: {refusal}")),
                (_, false) => Err("facts are for certificates that are out of date".to_owned()),
            }
        }
        (Err(refusal), Some(reason)) => {
            Err(format!("{reason} expected, and not {}: {refusal}", refusal.reason))
        }
    }
}

#[test]
fn every_file_is_taken_or_refused_as_expected() {
    let manifest = manifest();
    let expected = expected();
    let counts: Mutex<BTreeMap<String, Count>> = Mutex::default();
    let wrong: Mutex<Vec<String>> = Mutex::default();
    // Some files derive their keys for half a second.
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(row) = expected.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = check(row, &manifest[&row.file]);
            let mut counts = counts.lock().unwrap();
            let producer = row.file.split('-').next().unwrap().to_owned();
            let count = counts.entry(producer).or_default();
            let (done, all) = match row.outcome.len() {
                64 => (&mut count.loaded, &mut count.loadable),
                _ => (&mut count.refused, &mut count.refusable),
            };
            *all += 1;
            *done += usize::from(result.is_ok());
            if let Err(problem) = result {
                wrong.lock().unwrap().push(format!("{} {:?}: {problem}", row.file, row.alias));
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));

    // Past the test runner, which keeps what print! writes to itself while all is well.
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:<10} {:>18} {:>20}", "producer", "loaded/loadable", "refused as expected").unwrap();
    for (producer, count) in counts.into_inner().unwrap() {
        let loaded = format!("{}/{}", count.loaded, count.loadable);
        let refused = format!("{}/{}", count.refused, count.refusable);
        writeln!(out, "{producer:<10} {loaded:>18} {refused:>20}").unwrap();
    }
    writeln!(out, "refused, though a reference opens a key:").unwrap();
    for row in refused_against_reference(&expected, &manifest) {
        writeln!(out, "  {:<42} {:<22} {}", row.file, row.outcome, row.remark).unwrap();
    }
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn refused_against_reference<'a>(
    expected: &'a [Expected],
    manifest: &'a BTreeMap<String, Keystore>,
) -> impl Iterator<Item = &'a Expected> {
    expected.iter().filter(|row| {
        let mut references = manifest[&row.file].reference.values();
        row.outcome.len() != 64 && references.any(|reference| reference.keys.unwrap_or_default() > 0)
    })
}

#[test]
fn the_table_is_whole() {
    let manifest = manifest();
    let expected = expected();
    let rows: BTreeSet<_> = expected.iter().map(|row| row.file.as_str()).collect();
    let files: BTreeSet<_> = manifest.keys().map(String::as_str).collect();
    assert_eq!(rows, files);
    for row in refused_against_reference(&expected, &manifest) {
        assert!(!row.remark.is_empty(), "{}: why is it refused?", row.file);
    }
}

#[test]
fn trust_stores_open() {
    let manifest = manifest();
    for (file, count) in [
        ("java-truststore.p12", 2),
        ("java-truststore.jks", 2),
        ("java-truststore.jceks", 2),
        ("java-passwordless-trust.p12", 1),
        ("go-truststore.p12", 2),
        ("py-java-truststore.p12", 1),
        ("ossl-trustonly.p12", 2),
        ("gnutls-certonly.p12", 1),
        // Of a keystore the trusted entry, not the key's chain.
        ("go-certmanager.jks", 1),
        ("java-inter-as-trusted.p12", 2),
        // Of one that marks nothing the authorities.
        ("ossl-rsa.p12", 2),
    ] {
        let keystore = &manifest[file];
        let bytes = fs::read(directory().join(file)).unwrap();
        let trusted = load_trust_store(&request(keystore, &bytes, None)).unwrap();
        assert_eq!(trusted.len(), count, "{file}");
        let distinct: BTreeSet<_> = trusted.iter().map(|certificate| fingerprint(certificate)).collect();
        assert_eq!(distinct.len(), count, "{file}");
        assert!(trusted.iter().all(|certificate| Facts::of(std::slice::from_ref(certificate), None).is_ok()));
    }
    for (file, reason) in [
        ("java-empty.jks", Reason::NoCertificate),
        ("keytool-gen-rsa.jks", Reason::NoCertificate),
        ("bad-bitflip.p12", Reason::WrongPasswordOrCorrupt),
        ("hm-iter-max-mac.p12", Reason::LimitExceeded),
    ] {
        let bytes = fs::read(directory().join(file)).unwrap();
        let refusal = load_trust_store(&request(&manifest[file], &bytes, None)).unwrap_err();
        assert_eq!(refusal.reason, reason, "{file}: {refusal}");
    }
}
