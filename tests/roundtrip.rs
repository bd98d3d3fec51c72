//! Stores that openssl, keytool and Python's cryptography write here and now are read with the facts
//! that `openssl x509` prints. The tools are needed: without one the test fails, and says which.

// Helpers of tests may end them, as tests may.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use jiff::Timestamp;
use postrider::{
    identity::rfc3339,
    keystore::{Format, Loaded, Request, WarningReason, load},
};

const PASSWORD: &str = "chängeit-😀";
const ASCII_PASSWORD: &str = "change it";

/// Runs a tool in a directory; what it prints.
fn run(directory: &Path, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .env("LC_ALL", "C.UTF-8")
        .env_remove("JAVA_TOOL_OPTIONS")
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A directory of this test's own, with an authority and a leaf of each type of key.
fn workshop(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    let openssl = |arguments: &str| {
        run(&directory, "openssl", &arguments.split(' ').collect::<Vec<_>>());
    };
    openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 3650 -subj /CN=Authority");
    fs::write(
        directory.join("leaf.ext"),
        "basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\nsubjectAltName=DNS:client.example\n",
    )
    .unwrap();
    for (leaf, key) in LEAVES {
        let subject = format!("/C=DE/O=Söhne, \"A\" + B/CN={leaf} <client>");
        let new = format!("req -newkey {key} -nodes -keyout {leaf}.key -out {leaf}.csr -utf8 -subj");
        let mut arguments: Vec<_> = new.split(' ').collect();
        arguments.push(&subject);
        run(&directory, "openssl", &arguments);
        openssl(&format!(
            "x509 -req -in {leaf}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -extfile leaf.ext -out {leaf}.crt"
        ));
    }
    directory
}

const LEAVES: [(&str, &str); 4] = [
    ("rsa", "rsa:2048"),
    ("p256", "ec -pkeyopt ec_paramgen_curve:P-256"),
    ("p521", "ec -pkeyopt ec_paramgen_curve:P-521"),
    ("ed25519", "ed25519"),
];

fn open(
    directory: &Path,
    file: &str,
    password: &str,
    key_password: Option<&str>,
    alias: Option<&str>,
) -> Loaded {
    let bytes = fs::read(directory.join(file)).unwrap();
    let request = Request {
        bytes: &bytes,
        password: password.as_bytes(),
        key_password: key_password.map(str::as_bytes),
        alias,
        declared: None,
        file,
        now: Timestamp::now(),
    };
    load(&request).unwrap_or_else(|refusal| panic!("{}: {refusal}", refusal.reason))
}

/// Holds the facts of a store against what openssl prints of the leaf.
fn compare(directory: &Path, leaf: &str, loaded: &Loaded) {
    let printed = run(
        directory,
        "openssl",
        &[
            "x509",
            "-in",
            &format!("{leaf}.crt"),
            "-noout",
            "-subject",
            "-issuer",
            "-serial",
            "-dates",
            "-dateopt",
            "iso_8601",
            "-fingerprint",
            "-sha256",
            "-nameopt",
            "RFC2253,-esc_msb",
        ],
    );
    let facts = loaded.identity.facts();
    let time = |time| rfc3339(time).replace('T', " ");
    let fingerprint = facts.fingerprint_sha256.to_uppercase();
    let pairs: Vec<_> = (0..fingerprint.len()).step_by(2).map(|at| &fingerprint[at..at + 2]).collect();
    let expected = format!(
        "subject={}\nissuer={}\nserial={}\nnotBefore={}\nnotAfter={}\nsha256 Fingerprint={}\n",
        facts.identifier,
        facts.issuer,
        facts.serial_number,
        time(facts.valid_from),
        time(facts.valid_till),
        pairs.join(":")
    );
    let zeros_cut = printed.replace("serial=0", "serial=");
    assert_eq!(zeros_cut, expected);
    assert_eq!(loaded.identity.chain().len(), 2, "leaf and authority");
    assert_eq!(facts.chain_length, 2);
}

#[test]
fn openssl_writes() {
    let directory = workshop("openssl");
    let variants = [
        "",
        "-legacy",
        "-keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-3DES -macalg sha1",
        "-keypbe AES-128-CBC -certpbe AES-192-CBC -macalg sha512",
        "-keypbe DES-EDE3-CBC -certpbe NONE -iter 1",
        "-legacy -keypbe PBE-SHA1-RC2-128 -certpbe PBE-SHA1-RC2-40",
        "-nomac",
    ];
    for (leaf, _) in LEAVES {
        for (number, variant) in variants.iter().enumerate() {
            let file = format!("{leaf}-{number}.p12");
            let command = format!(
                "pkcs12 -export -inkey {leaf}.key -in {leaf}.crt -certfile ca.crt -out {file} -name Größe {variant}"
            );
            let mut arguments: Vec<_> = command.split_whitespace().collect();
            let password = format!("pass:{PASSWORD}");
            arguments.extend(["-passout", &password]);
            run(&directory, "openssl", &arguments);
            let loaded = open(&directory, &file, PASSWORD, None, Some("Größe"));
            assert_eq!(loaded.format, Format::Pkcs12);
            assert_eq!(loaded.identity.facts().alias.as_deref(), Some("Größe"));
            compare(&directory, leaf, &loaded);
        }
    }
}

#[test]
fn certificates_that_deserve_a_look() {
    let directory = workshop("lints");
    let openssl = |arguments: &str| run(&directory, "openssl", &arguments.split(' ').collect::<Vec<_>>());
    openssl("x509 -req -sha1 -in rsa.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -out sha1.crt");
    openssl("pkcs12 -export -inkey rsa.key -in sha1.crt -certfile ca.crt -out sha1.p12 -passout pass:weak");
    openssl("pkcs12 -export -inkey ca.key -in ca.crt -out ca.p12 -passout pass:weak");
    for (file, reason) in
        [("sha1.p12", WarningReason::WeakSignature), ("ca.p12", WarningReason::CertificateAuthority)]
    {
        let reasons: Vec<_> = open(&directory, file, "weak", None, None)
            .warnings
            .iter()
            .map(|warning| warning.reason)
            .collect();
        assert_eq!(reasons, [reason], "{file}");
    }
}

#[test]
fn keytool_writes() {
    let directory = workshop("keytool");
    for (leaf, _) in LEAVES {
        let source = format!("{leaf}.p12");
        let export = format!(
            "pkcs12 -export -inkey {leaf}.key -in {leaf}.crt -certfile ca.crt -out {source} -name one -passout"
        );
        let mut arguments: Vec<_> = export.split(' ').collect();
        let password = format!("pass:{ASCII_PASSWORD}");
        arguments.push(&password);
        run(&directory, "openssl", &arguments);
        for (kind, key_password) in
            [("PKCS12", ASCII_PASSWORD), ("JKS", "of the key"), ("JCEKS", "of the key")]
        {
            let file = format!("{leaf}.{}", kind.to_lowercase());
            let file = if kind == "PKCS12" { format!("{leaf}-java.p12") } else { file };
            let arguments = [
                "-importkeystore",
                "-noprompt",
                "-srckeystore",
                &source,
                "-srcstoretype",
                "PKCS12",
                "-srcstorepass",
                ASCII_PASSWORD,
                "-srcalias",
                "one",
                "-destkeystore",
                &file,
                "-deststoretype",
                kind,
                "-deststorepass",
                ASCII_PASSWORD,
                "-destkeypass",
                key_password,
                "-destalias",
                "Client",
            ];
            run(&directory, "keytool", &arguments);
            let alias = if kind == "PKCS12" { "client" } else { "CLIENT" };
            let loaded = open(&directory, &file, ASCII_PASSWORD, Some(key_password), Some(alias));
            assert_eq!(loaded.format, if kind == "PKCS12" { Format::Pkcs12 } else { Format::Jks });
            assert_eq!(loaded.identity.facts().alias.as_deref(), Some("client"));
            compare(&directory, leaf, &loaded);
        }
    }
}

/// The interpreter with `cryptography`: the machine's, or one in an environment of this test's own.
fn python(directory: &Path) -> String {
    let has = Command::new("python3").args(["-c", "import cryptography"]).output();
    if has.is_ok_and(|output| output.status.success()) {
        return "python3".to_owned();
    }
    run(directory, "python3", &["-m", "venv", "venv"]);
    run(directory, "venv/bin/pip", &["install", "--quiet", "cryptography==46.0.3"]);
    directory.join("venv/bin/python").to_string_lossy().into_owned()
}

const WRITE: &str = r#"
import sys
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import pkcs12, PrivateFormat
leaf, password = sys.argv[1], sys.argv[2].encode()
key = serialization.load_pem_private_key(open(leaf + ".key", "rb").read(), None)
certificate, authority = (x509.load_pem_x509_certificate(open(f, "rb").read()) for f in (leaf + ".crt", "ca.crt"))
pbes = pkcs12.PBES
builder = PrivateFormat.PKCS12.encryption_builder
encryptions = [
    serialization.BestAvailableEncryption(password),
    builder().kdf_rounds(5000).key_cert_algorithm(pbes.PBESv1SHA1And3KeyTripleDESCBC)
        .hmac_hash(hashes.SHA1()).build(password),
    builder().kdf_rounds(5000).key_cert_algorithm(pbes.PBESv2SHA256AndAES256CBC)
        .hmac_hash(hashes.SHA512()).build(password),
]
for number, encryption in enumerate(encryptions):
    store = pkcs12.serialize_key_and_certificates(b"client", key, certificate, [authority], encryption)
    open(f"{leaf}-{number}.p12", "wb").write(store)
"#;

#[test]
fn python_writes() {
    let directory = workshop("python");
    let python = python(&directory);
    for (leaf, _) in LEAVES {
        run(&directory, &python, &["-c", WRITE, leaf, PASSWORD]);
        for number in 0..3 {
            let loaded = open(&directory, &format!("{leaf}-{number}.p12"), PASSWORD, None, Some("client"));
            compare(&directory, leaf, &loaded);
        }
    }
}
