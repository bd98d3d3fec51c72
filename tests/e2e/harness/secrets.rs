//! What must never be in a log: the private keys and passwords that the run made.

use std::{
    collections::BTreeSet,
    fs,
    ops::Range,
    path::{Path, PathBuf},
    sync::Mutex,
};

use aho_corasick::AhoCorasick;
use data_encoding::{BASE64, HEXLOWER, HEXUPPER};

use super::context::locked;

/// In every private key in PEM, whosever it is.
const PEM: &[u8] = b"PRIVATE KEY-----";

/// Shorter strings occur by accident.
const NEEDLE_BYTES_MIN: usize = 8;

const PEM_LINE_CHARACTERS: usize = 64;

static SECRETS: Mutex<Vec<Secret>> = Mutex::new(Vec::new());

struct Secret {
    what: String,
    /// Any of these gives it away.
    needles: Vec<Vec<u8>>,
}

/// Looked for in every log of the run: the password, as it is and as a Secret or a header holds it.
pub(crate) fn password(what: &str, password: &str) {
    let bytes = password.as_bytes();
    let mut needles = vec![bytes.to_vec(), HEXLOWER.encode(bytes).into_bytes(), decimals(bytes)];
    needles.extend(base64(bytes));
    add(what, needles);
}

/// Looked for in every log of the run: a JSON Web Token, by its claims and by its signature, for a part of it may be
/// told as well as the whole. Its header is that of others, too.
pub(crate) fn token(what: &str, token: &str) {
    let mut parts = token.trim().split('.').skip(1).peekable();
    assert!(parts.peek().is_some(), "{what} is no JSON Web Token");
    parts.for_each(|part| password(what, part));
}

/// Looked for in every log of the run: a private key, by the bytes of its DER that are in no certificate.
pub(crate) fn private_key(what: &str, der: &[u8]) {
    let secret = secret_bytes(der.len());
    let mut needles = Vec::new();
    for part in der[secret.clone()].chunks(24) {
        needles.extend([
            HEXLOWER.encode(part).into_bytes(),
            HEXUPPER.encode(part).into_bytes(),
            decimals(part),
        ]);
    }
    // Base64 as in a PEM file, whether in lines of 64 or in one, and that once more, as in a Secret.
    let encoded = BASE64.encode(der).into_bytes();
    let (from, to) = (secret.start.div_ceil(3) * 4, secret.end / 3 * 4);
    for line in (0..encoded.len()).step_by(PEM_LINE_CHARACTERS) {
        let part = from.max(line)..to.min(line + PEM_LINE_CHARACTERS);
        if let Some(part) = encoded.get(part) {
            needles.push(part.to_vec());
            needles.extend(base64(part));
        }
    }
    add(what, needles);
}

/// Where a PKCS#8 key holds what is in no certificate.
fn secret_bytes(der_bytes: usize) -> Range<usize> {
    if der_bytes > 600 {
        // RSA: modulus and public exponent come first, less than a half of it.
        der_bytes * 6 / 10..der_bytes
    } else {
        // EC, Ed25519: after the name of the algorithm, before the public key.
        der_bytes / 4..der_bytes / 2
    }
}

fn add(what: &str, needles: Vec<Vec<u8>>) {
    let needles: Vec<_> = needles.into_iter().filter(|needle| needle.len() >= NEEDLE_BYTES_MIN).collect();
    assert!(!needles.is_empty(), "{what} is too short to be looked for");
    locked(&SECRETS).push(Secret { what: what.to_owned(), needles });
}

/// What base64 makes of the bytes wherever they stand in a longer text: at each of three offsets, without
/// the characters that depend on the neighbours.
fn base64(bytes: &[u8]) -> Vec<Vec<u8>> {
    (0..3)
        .filter_map(|offset| {
            let padded = [&vec![0; offset], bytes].concat();
            let encoded = BASE64.encode(&padded).into_bytes();
            encoded.get((offset * 8).div_ceil(6)..padded.len() * 8 / 6).map(<[u8]>::to_vec)
        })
        .collect()
}

/// `1, 2, 3`: what `{:?}` makes of bytes.
fn decimals(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ").into_bytes()
}

/// Looks into every log in the directory.
pub(super) fn scan(directory: &Path) -> Result<(), String> {
    let mut found = BTreeSet::new();
    let mut logs = Vec::new();
    collect(directory, &mut logs).map_err(|error| format!("{}: {error}", directory.display()))?;
    let any = any()?;
    for log in &logs {
        // A control plane that a test started may be taking its directory away.
        let Ok(text) = fs::read(log) else { continue };
        if !any.is_match(&text) {
            continue;
        }
        for finding in findings(&text) {
            found.insert(format!("{}: {finding}", log.display()));
        }
    }
    if found.is_empty() { Ok(()) } else { Err(found.into_iter().collect::<Vec<_>>().join("\n")) }
}

/// Finds whatever there is to be found in one pass: a run has thousands of secrets, and hundreds of megabytes of logs.
fn any() -> Result<AhoCorasick, String> {
    let secrets = locked(&SECRETS);
    let needles = secrets.iter().flat_map(|secret| &secret.needles).map(Vec::as_slice);
    AhoCorasick::new(needles.chain([PEM])).map_err(|error| error.to_string())
}

/// What is given away in the text.
pub(crate) fn findings(text: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    if contains(text, PEM) {
        found.push("a private key in PEM".to_owned());
    }
    let secrets = locked(&SECRETS);
    let given_away =
        secrets.iter().filter(|secret| secret.needles.iter().any(|needle| contains(text, needle)));
    found.extend(given_away.map(|secret| secret.what.clone()));
    found
}

fn collect(directory: &Path, logs: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            let _ = collect(&path, logs);
        } else if path.extension().is_some_and(|extension| extension == "log") {
            logs.push(path);
        }
    }
    Ok(())
}

fn contains(text: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(text, needle).is_some()
}
