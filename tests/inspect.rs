//! `postrider keystore inspect` as scripts use it: exit status and JSON.

// Helpers of tests may end them, as tests may.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

fn inspect(file: &str, arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    fs::write(directory.join("changeit"), "changeit").unwrap();
    fs::write(directory.join("keypass-other"), "keypass-other").unwrap();
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keystores").join(file), directory.join(file))
        .unwrap();
    Command::new(env!("CARGO_BIN_EXE_postrider"))
        .args(["keystore", "inspect", file, "--at", "2026-11-24T00:00:00Z"])
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

const PASSWORD: [&str; 4] = ["--password-file", "changeit", "--output", "json"];

#[test]
fn a_usable_keystore_is_described() {
    let output = inspect("java-rsa.jks", &[&PASSWORD[..], &["--format", "PKCS12"]].concat());
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        json(&output),
        json!({
            "format": "JKS",
            "identifier": "CN=client-rsa,OU=Integration,O=Example Test GmbH,C=DE",
            "validFrom": "2024-01-01T00:00:00Z",
            "validTill": "2046-01-01T00:00:00Z",
            "serialNumber": "5A01",
            "issuer": "CN=Holdout Issuing CA 1,O=Example Test GmbH,C=DE",
            "fingerprintSHA256": "2f5ed58218ef9e336fe8510b176b36790452021b1e3290d9602bcf2d20b8b56e",
            "alias": "client",
            "keyAlgorithm": "RSA 2048",
            "chainLength": 3,
            "chain": [
                "CN=client-rsa,OU=Integration,O=Example Test GmbH,C=DE",
                "CN=Holdout Issuing CA 1,O=Example Test GmbH,C=DE",
                "CN=Holdout Root CA,O=Example Test GmbH,C=DE",
            ],
            "warnings": [{
                "reason": "FormatMismatch",
                "message": "java-rsa.jks: the content is JKS, and format says PKCS12; set format to JKS",
            }],
        })
    );
}

#[test]
fn a_refused_keystore_says_why_and_what_is_known() {
    let output = inspect("ossl-expired.p12", &PASSWORD);
    assert_eq!(output.status.code(), Some(1));
    let report = json(&output);
    assert_eq!(report["reason"], "Expired");
    assert_eq!(report["identifier"], "CN=client-expired,O=Example Test GmbH,C=DE");
    assert_eq!(report["validTill"], "2020-01-01T00:00:00Z");

    let output = inspect("bad-pem.p12", &PASSWORD);
    assert_eq!(output.status.code(), Some(1));
    let report = json(&output);
    assert_eq!(report["reason"], "NotAKeystore");
    assert!(report.get("identifier").is_none());
}

#[test]
fn times_without_end_are_printed_as_the_certificate_has_them() {
    let output = inspect("ossl-na9999.p12", &PASSWORD);
    assert_eq!(json(&output)["validTill"], "9999-12-31T23:59:59Z");
}

#[test]
fn a_key_password_and_an_alias_are_taken() {
    let key = ["--key-password-file", "keypass-other", "--alias", "client"];
    let output = inspect("java-keypw-differs.jks", &[&PASSWORD[..], &key].concat());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn text_is_made_to_be_read() {
    let output = inspect("ossl-leafonly.p12", &["--password-file", "changeit"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("ossl-leafonly.p12: this PKCS12 keystore can be used\n"), "{text}");
    assert!(text.contains("\n  Valid till    2046-01-01T00:00:00Z ("), "{text}");
    assert!(text.contains("\nWarnings:\n  ChainIncomplete: "), "{text}");
}

#[test]
fn what_cannot_be_tried_is_an_error_of_its_own() {
    let output = inspect("ossl-ec.p12", &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--password-file"));
    let output = inspect("ossl-ec.p12", &["--password-file", "no such file"]);
    assert_eq!(output.status.code(), Some(2));
}
