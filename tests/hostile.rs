//! No file harms: each is opened in a process of its own, under a limit of memory, and on the clock.
//!
//! A second and 64 MiB are what a file may cost the operator. Files that stay within every bound and
//! spend all that the bounds allow are built here: they take that second, and are given twice as much
//! on a machine that has other work too, and more without optimization. What counts is the processor's
//! time.

// Helpers of tests may end them, as tests may.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

/// Of memory that a process may write to, KiB.
const MEMORY_KIB: u64 = 64 * 1024;

struct Outcome {
    reason: String,
    /// On the clock.
    time: Duration,
    /// Of the processor.
    work: Duration,
    peak_kib: u64,
}

/// Inspects a file in a process of its own.
fn inspect(file: &Path, password: &Path) -> Outcome {
    // RLIMIT_DATA counts what a process may write to, and not the program that is mapped.
    let script = format!(r#"ulimit -d {MEMORY_KIB} && exec "$0" "$@""#);
    let start = Instant::now();
    let mut child = Command::new("sh")
        .args(["-c", &script, env!("CARGO_BIN_EXE_postrider"), "keystore", "inspect", "--output", "json"])
        .arg("--password-file")
        .arg(password)
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut peak_kib, mut work) = (0, Duration::ZERO);
    let status = loop {
        let proc = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let peak = proc.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        peak_kib = peak.and_then(|kib| kib.parse().ok()).map_or(peak_kib, |kib: u64| kib.max(peak_kib));
        let usage = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
        // proc(5): fields 14 and 15, in hundredths of a second, and the name in parentheses is the second.
        let fields = usage.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        work = work.max(Duration::from_millis(ticks * 10));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(start.elapsed() < Duration::from_mins(1), "{} hangs", file.display());
        std::thread::sleep(Duration::from_micros(500));
    };
    let time = start.elapsed();
    let output = child.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!("{}: {status}: {}", file.display(), String::from_utf8_lossy(&output.stderr))
    });
    let reason = report["reason"].as_str().unwrap_or("loaded").to_owned();
    assert_eq!(status.code(), Some(i32::from(reason != "loaded")), "{}", file.display());
    Outcome { reason, time, work, peak_kib }
}

fn workshop(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&directory).unwrap();
    directory
}

fn report(worst: &BTreeMap<String, Outcome>) {
    let slowest = worst.iter().max_by_key(|(_, outcome)| outcome.work).unwrap();
    let largest = worst.iter().max_by_key(|(_, outcome)| outcome.peak_kib).unwrap();
    println!("{} files", worst.len());
    println!("slowest: {} {} ms ({})", slowest.0, slowest.1.work.as_millis(), slowest.1.reason);
    println!("largest: {} {} KiB ({})", largest.0, largest.1.peak_kib, largest.1.reason);
}

#[test]
fn hostile_files_of_the_corpus() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keystores");
    let password = workshop("hostile").join("password");
    fs::write(&password, "changeit").unwrap();
    let mut outcomes = BTreeMap::new();
    for entry in fs::read_dir(&directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !["hm-", "hj-", "bad-"].iter().any(|hostile| name.starts_with(hostile)) {
            continue;
        }
        let outcome = inspect(&directory.join(&name), &password);
        assert!(outcome.work < Duration::from_secs(1), "{name}: {:?}", outcome.work);
        assert!(outcome.peak_kib <= MEMORY_KIB, "{name}: {} KiB", outcome.peak_kib);
        outcomes.insert(name, outcome);
    }
    report(&outcomes);
}

fn tlv(identifier: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = vec![identifier, 0x83];
    out.extend(&u32::try_from(length).unwrap().to_be_bytes()[1..]);
    for part in parts {
        out.extend(*part);
    }
    out
}

const DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01";
const ENCRYPTED_DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x06";
const VERSION: &[u8] = b"\x02\x01\x03";
const MILLION: &[u8] = b"\x02\x03\x0f\x42\x40";

fn algorithm(oid: &[u8], parameters: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, &[&tlv(6, &[oid]), &tlv(0x30, parameters)])
}

/// A PKCS#12 store of one encrypted content, without a MAC, so that its derivation is what runs.
fn pfx(algorithm: &[u8], content: &[u8]) -> Vec<u8> {
    let info = tlv(0x30, &[DATA, algorithm, &tlv(0x80, &[content])]);
    let encrypted = tlv(0x30, &[ENCRYPTED_DATA, &tlv(0xa0, &[&tlv(0x30, &[b"\x02\x01\x00", &info])])]);
    let safe = tlv(0x30, &[&encrypted]);
    tlv(0x30, &[VERSION, &tlv(0x30, &[DATA, &tlv(0xa0, &[&tlv(4, &[&safe])])])])
}

fn pbes2(kdf: &[u8]) -> Vec<u8> {
    let aes256 = tlv(0x30, &[&tlv(6, &[b"\x60\x86\x48\x01\x65\x03\x04\x01\x2a"]), &tlv(4, &[&[7; 16]])]);
    algorithm(b"\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0d", &[kdf, &aes256])
}

fn pbkdf2(hmac: u8) -> Vec<u8> {
    let prf = tlv(0x30, &[&tlv(6, &[&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, hmac]])]);
    algorithm(b"\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0c", &[&tlv(4, &[&[1; 16]]), MILLION, &prf])
}

fn scrypt(log_n: u8, parallelism: u8) -> Vec<u8> {
    let n = 1_u32 << log_n;
    let numbers = [&tlv(2, &[&n.to_be_bytes()])[..], b"\x02\x01\x08", &[2, 1, parallelism]].concat();
    algorithm(b"\x2b\x06\x01\x04\x01\xda\x47\x04\x0b", &[&tlv(4, &[&[1; 16]]), &numbers])
}

fn triple_des() -> Vec<u8> {
    algorithm(b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01\x03", &[&tlv(4, &[&[1; 8]]), MILLION])
}

/// A Java keystore with as many certificates as are accepted, and one more where `surplus` is set; all
/// the same, so that each may be the issuer of any other.
fn namesakes(certificate: &[u8], count: u32) -> Vec<u8> {
    let mut out = [&0xfeed_feed_u32.to_be_bytes()[..], &1_u32.to_be_bytes(), &count.to_be_bytes()].concat();
    for _ in 0..count {
        out.extend([0, 0, 0, 2, 0, 1, b'a', 0, 0, 0, 0, 0, 0, 0, 0]);
        out.extend(u32::try_from(certificate.len()).unwrap().to_be_bytes());
        out.extend(certificate);
    }
    out.extend([0; 20]);
    out
}

#[test]
fn files_that_spend_all_that_they_may() {
    let directory = workshop("bounds");
    // Every reading of this password is tried: as UTF-8 and Latin-1, with the newline and without.
    let password = directory.join("password");
    fs::write(&password, "pässwörd\n").unwrap();
    let block = vec![0; 64 * 1024];
    let nested = [&b"\x30\x80\x02\x01\x03"[..], &b"\x30\x80".repeat(60 * 1024), &[0; 128]].concat();
    let files = [
        ("pbes1-3des", pfx(&triple_des(), &block), "WrongPasswordOrCorrupt"),
        ("pbkdf2-sha1", pfx(&pbes2(&pbkdf2(7)), &block), "WrongPasswordOrCorrupt"),
        ("pbkdf2-sha224", pfx(&pbes2(&pbkdf2(8)), &block), "WrongPasswordOrCorrupt"),
        ("pbkdf2-sha512", pfx(&pbes2(&pbkdf2(11)), &block), "WrongPasswordOrCorrupt"),
        ("scrypt", pfx(&pbes2(&scrypt(15, 2)), &block), "WrongPasswordOrCorrupt"),
        ("scrypt-memory", pfx(&pbes2(&scrypt(16, 1)), &block), "LimitExceeded"),
        ("scrypt-parallelism", pfx(&pbes2(&scrypt(10, 3)), &block), "LimitExceeded"),
        ("indefinite", nested, "LimitExceeded"),
        ("certificates", namesakes(&[0x30; 1000], 65), "LimitExceeded"),
        ("large", vec![0x30; 200 * 1024], "LimitExceeded"),
    ];
    let mut outcomes = BTreeMap::new();
    let allowed = Duration::from_secs(if cfg!(debug_assertions) { 20 } else { 2 });
    for (name, bytes, reason) in files {
        let file = directory.join(name);
        fs::write(&file, bytes).unwrap();
        let outcome = inspect(&file, &password);
        let (work, time) = (outcome.work.as_millis(), outcome.time.as_millis());
        println!("{name:<20} {work:>5} ms ({time} on the clock) {:>6} KiB", outcome.peak_kib);
        assert_eq!(outcome.reason, reason, "{name}");
        assert!(outcome.work < allowed, "{name}: {:?}", outcome.work);
        assert!(outcome.peak_kib <= MEMORY_KIB, "{name}: {} KiB", outcome.peak_kib);
        outcomes.insert(name.to_owned(), outcome);
    }
    report(&outcomes);
}
