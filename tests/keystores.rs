//! The corpus: keystores as real tools write them, and hostile ones, against what their references
//! make of them.

use std::path::Path;

use jiff::Timestamp;
use postrider::keystore::{Request, load};
use serde::Deserialize;

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
}

#[test]
fn smoke() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keystores");
    let manifest: Manifest =
        serde_json::from_slice(&std::fs::read(directory.join("manifest.json")).unwrap()).unwrap();
    let mut loaded = 0;
    for file in manifest.files {
        let bytes = std::fs::read(directory.join(&file.file)).unwrap();
        let request = Request {
            bytes: &bytes,
            password: file.password.as_bytes(),
            key_password: file.key_password.as_deref().map(str::as_bytes),
            alias: None,
            declared: None,
            file: &file.file,
            now: "2026-11-24T00:00:00Z".parse::<Timestamp>().unwrap(),
        };
        match load(&request) {
            Ok(_) => loaded += 1,
            Err(refusal) => println!("{}: {}", refusal.reason, refusal.message),
        }
    }
    assert_eq!(loaded, 228);
}
