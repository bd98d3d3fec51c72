//! What a person is told: of a refusal the reason, the file and the way out; of what works and yet
//! deserves a look, a warning.

// Helpers of tests may end them, as tests may.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fs, path::Path};

use jiff::Timestamp;
use postrider::keystore::{Format, Loaded, Reason, Refusal, Request, WarningReason, load};

fn bytes(file: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keystores").join(file)).unwrap()
}

/// A request as the controller makes one, for a file under the name that a Secret gives it.
fn request(bytes: &[u8]) -> Request<'_> {
    Request {
        bytes,
        password: b"changeit",
        key_password: None,
        alias: None,
        declared: None,
        file: "keystore.p12",
        now: "2026-11-24T00:00:00Z".parse().unwrap(),
    }
}

fn refused(request: &Request<'_>) -> Refusal {
    load(request).map(|_| panic!("loaded")).unwrap_err()
}

fn warnings(loaded: &Loaded) -> Vec<WarningReason> {
    loaded.warnings.iter().map(|warning| warning.reason).collect()
}

#[test]
fn a_wrong_password_and_a_changed_file_look_the_same() {
    let bytes = bytes("ossl-ec.p12");
    let refusal = refused(&Request { password: b"other", ..request(&bytes) });
    assert_eq!(refusal.reason, Reason::WrongPasswordOrCorrupt);
    assert_eq!(
        refusal.message,
        "keystore.p12: the store password is wrong, or the file was changed after it was written"
    );
    let refusal = refused(&Request { password: b"other\n", ..request(&bytes) });
    assert!(refusal.message.ends_with("; the password ends with a newline"), "{refusal}");
}

#[test]
fn a_newline_after_the_password_is_forgiven_and_told() {
    for (file, password) in [
        ("ossl-ec.p12", &b"changeit\n"[..]),
        ("ossl-ec.p12", b"changeit\r\n"),
        ("ossl-3des.p12", b"changeit\n"),
        ("ossl-nomac.p12", b"changeit\n"),
        ("hm-pbmac1-sha256.p12", b"changeit\n"),
        ("java-ec.jks", b"changeit\n"),
        ("java-ec.jceks", b"changeit\n"),
        ("ossl-emptypw.p12", b"\n"),
    ] {
        let bytes = bytes(file);
        let loaded = load(&Request { password, ..request(&bytes) }).unwrap();
        assert!(warnings(&loaded).contains(&WarningReason::PasswordTrailingNewline), "{file}");
    }
    let bytes = bytes("java-keypw-differs.jks");
    let loaded = load(&Request { key_password: Some(b"keypass-other\n"), ..request(&bytes) }).unwrap();
    assert_eq!(warnings(&loaded), [WarningReason::PasswordTrailingNewline]);
}

#[test]
fn a_key_with_a_password_of_its_own_asks_for_it() {
    for file in ["java-keypw-differs.p12", "java-keypw-differs.jks", "java-keypw-differs.jceks"] {
        let bytes = bytes(file);
        let refusal = refused(&request(&bytes));
        assert_eq!(refusal.reason, Reason::WrongKeyPassword, "{file}");
        assert!(refusal.message.contains("key \"client\""), "{refusal}");
        assert!(refusal.message.contains("keyPasswordSecretRef"), "{refusal}");
        let refusal = refused(&Request { key_password: Some(b"wrong"), ..request(&bytes) });
        assert_eq!(refusal.reason, Reason::WrongKeyPassword, "{file}");
        assert!(refusal.message.contains("neither the key password nor the store password"), "{refusal}");
    }
}

#[test]
fn an_alias_chooses_with_the_case_that_the_format_knows() {
    let jks = bytes("java-twokeys.jks");
    let loaded = load(&Request { alias: Some("ALPHA"), ..request(&jks) }).unwrap();
    assert_eq!(loaded.identity.facts().alias.as_deref(), Some("alpha"));

    let p12 = bytes("hm-two-keys.p12");
    load(&Request { alias: Some("alpha"), ..request(&p12) }).unwrap();
    let refusal = refused(&Request { alias: Some("ALPHA"), ..request(&p12) });
    assert_eq!(refusal.reason, Reason::AliasNotFound);
    assert_eq!(
        refusal.message,
        "keystore.p12: alias \"ALPHA\" is not in the keystore; it holds \"zeta\", \"alpha\""
    );
    let refusal = refused(&request(&p12));
    assert_eq!(refusal.reason, Reason::MultipleKeys);
    assert!(refusal.message.contains("\"zeta\", \"alpha\"; choose one with alias"), "{refusal}");

    let cert_manager = bytes("go-certmanager.jks");
    let refusal = refused(&Request { alias: Some("ca"), ..request(&cert_manager) });
    assert!(refusal.message.contains("is a trusted certificate, not a key"), "{refusal}");
}

#[test]
fn of_two_keys_the_one_that_opens_is_taken_and_the_other_told() {
    let bytes = bytes("java-twokeys-one-differs.jks");
    let loaded = load(&request(&bytes)).unwrap();
    assert_eq!(warnings(&loaded), [WarningReason::UnusableKeys]);
    assert!(loaded.warnings[0].message.contains("\"other\" (WrongKeyPassword)"), "{:?}", loaded.warnings);
}

#[test]
fn an_old_algorithm_comes_with_the_command_that_replaces_it() {
    let bytes = bytes("ossl-rc4-128.p12");
    let refusal = refused(&Request { alias: Some("client"), ..request(&bytes) });
    assert_eq!(refusal.reason, Reason::UnsupportedAlgorithm);
    assert!(refusal.message.starts_with("keystore.p12: RC4-128"), "{refusal}");
    let command = "openssl pkcs12 -legacy -in keystore.p12 -out keystore.pem && \
                   openssl pkcs12 -export -in keystore.pem -out new.p12 -name client";
    assert!(refusal.message.ends_with(command), "{refusal}");
}

#[test]
fn other_files_are_named_for_what_they_are() {
    for (file, reason, word) in [
        ("bad-empty.p12", Reason::NotAKeystore, "empty"),
        ("bad-pem.p12", Reason::NotAKeystore, "PEM"),
        ("bad-base64.p12", Reason::NotAKeystore, "base64 text of a PKCS#12 keystore"),
        ("bad-base64.jks", Reason::NotAKeystore, "base64 text of a Java keystore"),
        ("bad-dercert.p12", Reason::NotAKeystore, "certificate (DER)"),
        ("bad-derkey.p12", Reason::NotAKeystore, "private key"),
        ("bad-zip.p12", Reason::NotAKeystore, "ZIP"),
        ("bc-store.bks", Reason::UnsupportedFormat, "BKS"),
        ("bc-store.bcfks", Reason::UnsupportedFormat, "BCFKS"),
        ("java-withsecret.jceks", Reason::UnsupportedFormat, "JCEKS with secret keys"),
        ("java-truststore.p12", Reason::NoPrivateKey, "only 2 trusted certificates"),
        ("java-empty.jks", Reason::NoPrivateKey, "empty"),
        ("bad-truncated.p12", Reason::Corrupt, "incomplete or damaged"),
        ("hm-iter-2_32-mac.p12", Reason::LimitExceeded, "4294967295, and at most 1000000"),
        ("ossl-dsa.p12", Reason::UnsupportedKey, "DSA"),
        ("ossl-rsa1024.p12", Reason::UnsupportedKey, "RSA of 1024 bits"),
        ("hm-key-mismatch.p12", Reason::KeyMismatch, "CN=client-ec256"),
        ("ossl-expired.p12", Reason::Expired, "2020-01-01"),
        ("ossl-future.p12", Reason::NotYetValid, "2045-01-01"),
    ] {
        let bytes = bytes(file);
        let refusal = refused(&request(&bytes));
        assert_eq!(refusal.reason, reason, "{file}: {refusal}");
        assert!(refusal.message.starts_with("keystore.p12: "), "{refusal}");
        assert!(refusal.message.contains(word), "{file}: {refusal}");
        assert!(!refusal.message.contains("changeit"), "{refusal}");
    }
}

#[test]
fn what_deserves_a_look_is_warned_of() {
    for (file, expected) in [
        ("ossl-ec.p12", &[][..]),
        ("java-ec.jks", &[]),
        ("ossl-nomac.p12", &[WarningReason::NoIntegrity]),
        ("ossl-serveronly.p12", &[WarningReason::ClientAuthMissing]),
        ("ossl-leafonly.p12", &[WarningReason::ChainIncomplete]),
        ("hm-chain-missing-inter.p12", &[WarningReason::IntermediateMissing]),
    ] {
        let bytes = bytes(file);
        let loaded = load(&request(&bytes)).unwrap();
        assert_eq!(warnings(&loaded), expected, "{file}: {:?}", loaded.warnings);
    }
    let bytes = bytes("swap-is-jks.p12");
    let loaded = load(&Request { declared: Some(Format::Pkcs12), ..request(&bytes) }).unwrap();
    assert_eq!(loaded.format, Format::Jks);
    assert_eq!(warnings(&loaded), [WarningReason::FormatMismatch]);
}

#[test]
fn the_last_month_is_warned_of() {
    let bytes = bytes("ossl-ec.p12");
    let loaded = load(&request(&bytes)).unwrap();
    let end = loaded.identity.facts().valid_till;
    let before = |seconds: i64| Timestamp::from_second(end.as_second() - seconds).unwrap();
    let at = |now| load(&Request { now, ..request(&bytes) });
    assert_eq!(warnings(&at(before(30 * 86400 + 1)).unwrap()), []);
    for (seconds, days) in [(30 * 86400, "in 30 days"), (30 * 86400 - 1, "in 29 days")] {
        let loaded = at(before(seconds)).unwrap();
        assert_eq!(warnings(&loaded), [WarningReason::ExpiresSoon]);
        assert!(loaded.warnings[0].message.contains(days), "{:?}", loaded.warnings);
    }
    assert_eq!(warnings(&at(before(0)).unwrap()), [WarningReason::ExpiresSoon]);
    assert_eq!(at(before(-1)).unwrap_err().reason, Reason::Expired);
}

/// The page of all reasons shows what a person is told, word for word.
#[test]
fn the_page_shows_what_is_told() {
    let page = include_str!("../docs/reasons.md");
    let shown = |reason: &str, message: &str| {
        let entries = page.split("\n### ").filter(|entry| entry.starts_with(&format!("`{reason}`\n")));
        let mut examples =
            entries.filter_map(|entry| entry.split_once("- Example: ").map(|(_, example)| example));
        assert!(examples.any(|example| example.contains(&format!("{message}`\n"))), "{reason}: {message}");
    };
    let p12 = |file, alias, password, declared| (file, "keystore.p12", alias, password, declared);
    let plain = |file| p12(file, None, "changeit", None);
    let jks = |file| (file, "keystore.jks", None, "changeit", None);
    let requests = [
        p12("ossl-ec.p12", None, "other", None),
        jks("java-keypw-differs.jks"),
        plain("bad-truncated.p12"),
        plain("bad-pem.p12"),
        plain("bc-store.bks"),
        plain("java-truststore.p12"),
        plain("hm-keyonly.p12"),
        plain("hm-key-mismatch.p12"),
        plain("hm-two-keys.p12"),
        p12("hm-two-keys.p12", Some("ALPHA"), "changeit", None),
        plain("ossl-expired.p12"),
        plain("ossl-future.p12"),
        plain("ossl-rsa1024.p12"),
        plain("ossl-rc4-128.p12"),
        plain("hm-iter-2_32-mac.p12"),
        p12("swap-is-jks.p12", None, "changeit", Some(Format::Pkcs12)),
        p12("ossl-ec.p12", None, "changeit\n", None),
        plain("ossl-nomac.p12"),
        jks("java-twokeys-one-differs.jks"),
        plain("ossl-serveronly.p12"),
        plain("ossl-leafonly.p12"),
        plain("hm-chain-missing-inter.p12"),
    ];
    for (path, file, alias, password, declared) in requests {
        let bytes = bytes(path);
        let request = Request { alias, password: password.as_bytes(), declared, file, ..request(&bytes) };
        match load(&request) {
            Err(refusal) => shown(refusal.reason.as_str(), &refusal.message),
            Ok(loaded) => {
                loaded.warnings.iter().for_each(|warning| shown(warning.reason.as_str(), &warning.message));
            }
        }
    }
}
