//! What came of it: a table for people, JSON for programs, and whether it is good.

use std::{
    path::{Path, PathBuf},
    sync::{PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    disturbances::{Disturbance, Entry, World},
    ledger::Gap,
};

/// What may be the cause of a gap may be over when it begins: connections come back, attempts back off.
const CAUSE_BEFORE: Duration = Duration::from_secs(2);

const KINDS: [Disturbance; 9] = [
    Disturbance::Renewal,
    Disturbance::RotationByNew,
    Disturbance::RotationInPlace,
    Disturbance::TrustSwitch,
    Disturbance::RefusedNew,
    Disturbance::ReceiverRestart,
    Disturbance::ControllerKill,
    Disturbance::DispatcherKill,
    Disturbance::ApiServerRestart,
];

/// The figures of one receiver, or of all.
#[derive(Clone, Default)]
struct Figures {
    acknowledged: usize,
    delivered: usize,
    lost: usize,
    duplicates: u64,
    unacknowledged: usize,
    refused: u64,
    without_certificate: u64,
    expired_certificate: u64,
    unknown_certificate: u64,
    longest_takeover_ms: u64,
    longest_gap: Option<Gap>,
    /// Disturbances at the time of the longest gap.
    causes: Vec<String>,
}

impl Figures {
    fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.duplicates += other.duplicates;
        self.unacknowledged += other.unacknowledged;
        self.refused += other.refused;
        self.without_certificate += other.without_certificate;
        self.expired_certificate += other.expired_certificate;
        self.unknown_certificate += other.unknown_certificate;
        self.longest_takeover_ms = self.longest_takeover_ms.max(other.longest_takeover_ms);
        if self.longest_gap_millis() < other.longest_gap_millis() {
            self.longest_gap = other.longest_gap;
            self.causes.clone_from(&other.causes);
        }
    }

    fn longest_gap_millis(&self) -> u64 {
        self.longest_gap.map_or(0, |gap| millis(gap.length()))
    }

    fn json(&self) -> Value {
        json!({
            "acknowledged": self.acknowledged,
            "delivered": self.delivered,
            "lost": self.lost,
            "duplicates": self.duplicates,
            "unacknowledged": self.unacknowledged,
            "refused": self.refused,
            "without_certificate": self.without_certificate,
            "expired_certificate": self.expired_certificate,
            "unknown_certificate": self.unknown_certificate,
            "longest_takeover_ms": self.longest_takeover_ms,
            "longest_gap_ms": self.longest_gap_millis(),
            "longest_gap_causes": self.causes,
        })
    }

    fn row(&self, name: &str) -> String {
        format!(
            "{name:<13} {:>8} {:>9} {:>5} {:>10} {:>8} {:>7} {:>7} {:>7} {:>8} {:>8}",
            self.acknowledged,
            self.delivered,
            self.lost,
            self.duplicates,
            self.refused,
            self.without_certificate,
            self.expired_certificate,
            self.unknown_certificate,
            self.longest_takeover_ms,
            self.longest_gap_millis(),
        )
    }
}

/// A line while it runs.
pub(crate) fn progress(world: &World) -> String {
    let (mut acknowledged, mut delivered) = (0, 0);
    for partner in &world.partners {
        partner.ledger.read(|book| {
            acknowledged += book.acknowledged();
            delivered += book.delivered();
        });
    }
    let now: Vec<_> = entries(world)
        .into_iter()
        .filter(|entry| entry.till.is_none())
        .map(|entry| describe(&entry, world.started))
        .collect();
    format!(
        "{:>5} s: {acknowledged} acknowledged, {} on their way, {} rotations, {} kills; now: {}",
        world.started.elapsed().as_secs(),
        acknowledged - delivered,
        world.rotations.load(Ordering::Relaxed),
        world.programs.kills(),
        if now.is_empty() { "nothing else".to_owned() } else { now.join(", ") },
    )
}

/// Prints and writes the report; true where nothing was lost and nothing was wrongly sent.
pub(crate) fn report(world: &World, mut failures: Vec<String>) -> bool {
    let entries = entries(world);
    let mut total = Figures::default();
    let mut receivers = Vec::new();
    for partner in &world.partners {
        let (figures, examples) = figures(world, partner.name(), &entries);
        total.add(&figures);
        receivers.push((partner.name(), figures));
        failures.extend(examples.into_iter().map(|example| format!("{}: {example}", partner.name())));
    }
    let rotations = world.rotations.load(Ordering::Relaxed);
    if total.acknowledged == 0 {
        failures.push("no event was acknowledged".to_owned());
    }
    if rotations == 0 {
        failures.push("no rotation took place".to_owned());
    }
    let seconds = world.started.elapsed().as_secs();

    println!(
        "\n{:<13} acknowl. delivered  lost duplicates  refused without expired unknown takeover   gap ms",
        ""
    );
    for (name, figures) in &receivers {
        println!("{}", figures.row(name));
    }
    println!("{}\n", total.row("total"));
    println!("{seconds} s, seed {}: {rotations} rotations, {} kills", world.seed, world.programs.kills());
    for kind in KINDS {
        let times = entries.iter().filter(|entry| entry.what == kind);
        let took: Vec<_> = times.filter_map(|entry| Some(entry.till?.duration_since(entry.from))).collect();
        if let Some(longest) = took.iter().max() {
            println!("{:>4} x {}, at most {} ms", took.len(), kind.name(), millis(*longest));
        }
    }
    println!("\nthe longest gaps, in which events waited and none arrived:");
    for (name, figures) in &receivers {
        let Some(gap) = figures.longest_gap else { continue };
        let from = millis(gap.from.duration_since(world.started));
        println!(
            "{name}: {} ms from {from} ms on; {}",
            figures.longest_gap_millis(),
            figures.causes.join(", ")
        );
    }

    let bad = total.without_certificate + total.expired_certificate + total.unknown_certificate;
    let passed = failures.is_empty() && total.lost == 0 && bad == 0;
    let mut json = total.json();
    json["rotations"] = json!(rotations);
    json["kills"] = json!(world.programs.kills());
    json["seconds"] = json!(seconds);
    json["seed"] = json!(world.seed);
    json["passed"] = json!(passed);
    json["failures"] = json!(failures);
    json["receivers"] =
        receivers.iter().map(|(name, figures)| ((*name).to_owned(), figures.json())).collect::<Value>();
    json["disturbances"] = entries.iter().map(|entry| json_of(entry, world.started)).collect();
    for failure in &failures {
        println!("FAILED: {failure}");
    }
    let path = path();
    let text = serde_json::to_string_pretty(&json).unwrap_or_default() + "\n";
    match std::fs::write(&path, text) {
        Ok(()) => println!("\n{}: {}", if passed { "proved" } else { "NOT proved" }, path.display()),
        Err(error) => {
            eprintln!("{} cannot be written: {error}", path.display());
            return false;
        }
    }
    passed
}

fn figures(world: &World, name: &'static str, entries: &[Entry]) -> (Figures, Vec<String>) {
    let partner = world.partners.iter().find(|partner| partner.name() == name);
    let Some(partner) = partner else { return (Figures::default(), Vec::new()) };
    partner.ledger.read(|book| {
        let causes = book.longest_gap.map_or_else(Vec::new, |gap| causes(gap, name, entries, world.started));
        let figures = Figures {
            acknowledged: book.acknowledged(),
            delivered: book.delivered(),
            lost: book.lost(),
            duplicates: book.duplicates,
            unacknowledged: book.unacknowledged(),
            refused: book.refused,
            without_certificate: book.without_certificate,
            expired_certificate: book.expired_certificate,
            unknown_certificate: book.unknown_certificate,
            longest_takeover_ms: partner.longest_takeover_ms.load(Ordering::Relaxed),
            longest_gap: book.longest_gap,
            causes,
        };
        (figures, book.examples.clone())
    })
}

/// What happened to this webhook, or to all of them, at the time of a gap.
fn causes(gap: Gap, webhook: &str, entries: &[Entry], started: Instant) -> Vec<String> {
    let concerns = |entry: &&Entry| entry.webhook.is_none_or(|about| about == webhook);
    let meets = |entry: &&Entry| {
        entry.from <= gap.till && entry.till.is_none_or(|till| till + CAUSE_BEFORE >= gap.from)
    };
    entries.iter().filter(concerns).filter(meets).map(|entry| describe(entry, started)).collect()
}

fn describe(entry: &Entry, started: Instant) -> String {
    let webhook = entry.webhook.map_or_else(String::new, |webhook| format!(" ({webhook})"));
    let from = millis(entry.from.duration_since(started));
    let till =
        entry.till.map_or_else(String::new, |till| format!("-{}", millis(till.duration_since(started))));
    format!("{}{webhook} at {from}{till} ms", entry.what.name())
}

fn json_of(entry: &Entry, started: Instant) -> Value {
    json!({
        "what": entry.what.name(),
        "webhook": entry.webhook,
        "at_ms": millis(entry.from.duration_since(started)),
        "took_ms": entry.till.map(|till| millis(till.duration_since(entry.from))),
    })
}

fn entries(world: &World) -> Vec<Entry> {
    world.journal.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Beside what Cargo builds.
fn path() -> PathBuf {
    let tests = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tests.parent().unwrap_or(tests).join("prove-rotation.json")
}
