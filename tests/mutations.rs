//! Every file of the corpus, changed in many small ways: whatever comes of it, it ends and nothing
//! panics. A short stand-in, on the stable toolchain, for the fuzz targets in `fuzz/`, with the inputs
//! that those once stumbled over (`fuzz/cases`).

// Helpers of tests may end them, as tests may.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use postrider::keystore::{Request, load, load_trust_store};

/// Changes made to each file.
const CHANGES: usize = 4;

fn files(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn open(bytes: &[u8]) {
    let request = Request {
        bytes,
        password: b"changeit",
        key_password: None,
        alias: None,
        declared: None,
        file: "keystore",
        now: Timestamp::UNIX_EPOCH,
    };
    let _ = load(&request);
    let _ = load_trust_store(&request);
}

/// Marsaglia's xorshift: the same changes in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }
}

fn change(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    if bytes.is_empty() {
        return bytes.push(random.byte());
    }
    // Lengths, tags and versions stand early.
    let reach = if random.below(2) == 0 { 64.min(bytes.len()) } else { bytes.len() };
    let at = random.below(reach);
    match random.below(6) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.byte(),
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..(at + random.below(16)).min(bytes.len()))),
        4 => bytes.insert(at, [0x30, 0x80, 0x84, 0xff, 0x00][random.below(5)]),
        _ => {
            let from = random.below(other.len());
            let piece = &other[from..(from + random.below(64)).min(other.len())];
            let end = (at + piece.len()).min(bytes.len());
            bytes.splice(at..end, piece.iter().copied());
        }
    }
}

#[test]
fn no_change_harms() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let corpus = files("tests/keystores").into_iter().map(|file| fs::read(file).unwrap());
    let corpus: Vec<_> = corpus.filter(|bytes| bytes.len() < 16 * 1024).collect();
    let mut opened = 0;
    for (number, original) in corpus.iter().enumerate() {
        let start = Instant::now();
        open(original);
        // Where the key derivation alone takes long, there is no time left for more.
        let changes = if start.elapsed() < Duration::from_millis(100) { CHANGES } else { 0 };
        let other = &corpus[(number * 7 + 1) % corpus.len()];
        for _ in 0..changes {
            let mut bytes = original.clone();
            for _ in 0..=random.below(3) {
                change(&mut bytes, other, &mut random);
            }
            open(&bytes);
            opened += 1;
        }
    }
    println!("{opened} changed files opened");
}

#[test]
fn no_known_case_harms() {
    for file in files("fuzz/cases") {
        open(&fs::read(file).unwrap());
    }
}
