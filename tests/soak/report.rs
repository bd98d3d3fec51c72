//! What came of it: a table for people, JSON for programs, and whether it is good.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    books::{Balance, Kept},
    growth::{Growth, Thirds},
    harness::programs::Programs,
    receivers::Receiver,
};

/// A line while it runs.
pub(crate) fn progress(
    started: Instant,
    receivers: &[Arc<Receiver>],
    programs: &Programs,
    growth: &Growth,
) -> String {
    let waiting: Vec<_> = receivers
        .iter()
        .map(|receiver| {
            let missing = receiver.books().read(|book| (book.missing_events(), book.acknowledged_events()));
            format!("{} {} of {}", receiver.kind().name(), missing.0, missing.1)
        })
        .collect();
    let (memory, file) = growth.now();
    format!(
        "{:>5} s: {} kills, {memory:.0} MiB of memory, {file:.0} MiB of file; not delivered yet: {}",
        started.elapsed().as_secs(),
        programs.kills(),
        waiting.join(", ")
    )
}

/// What is told at the end.
pub(crate) struct Report {
    webhooks: Vec<(&'static str, Balance)>,
    /// Rows of the queue with the id of another.
    twice: usize,
    memory: Thirds,
    memory_of_one_life: Thirds,
    file: Thirds,
    kills: u64,
    seed: u64,
    seconds: u64,
}

impl Report {
    pub(crate) fn new(
        receivers: &[Arc<Receiver>],
        kept: &Kept,
        growth: &Growth,
        kills: u64,
        seed: u64,
        took: Duration,
    ) -> Self {
        let balance = |receiver: &Arc<Receiver>| (receiver.kind().name(), receiver.books().balance(kept));
        Self {
            webhooks: receivers.iter().map(balance).collect(),
            twice: kept.twice,
            memory: growth.memory(),
            memory_of_one_life: growth.memory_of_one_life(),
            file: growth.file(),
            kills,
            seed,
            seconds: took.as_secs(),
        }
    }

    /// What is wrong.
    pub(crate) fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for (name, balance) in &self.webhooks {
            failures.extend(balance.failures().map(|failure| format!("{name}: {failure}")));
            if balance.acknowledged == 0 {
                failures.push(format!("{name}: no event was acknowledged"));
            }
        }
        if self.twice > 0 {
            failures.push(format!("{} rows of the queue have the id of another", self.twice));
        }
        for (what, thirds) in self.growth() {
            if thirds.levels_off == Some(false) {
                failures.push(format!("{what} grows: {:.0} MiB, then {:.0} MiB", thirds.first, thirds.last));
            }
        }
        failures
    }

    fn growth(&self) -> [(&'static str, Thirds); 3] {
        [
            ("memory", self.memory),
            ("memory of one life", self.memory_of_one_life),
            ("the queue's file", self.file),
        ]
    }

    /// Prints and writes it; true where nothing is wrong.
    pub(crate) fn print(&self, failures: &[String]) -> bool {
        println!(
            "\n{:<10} {:>8} {:>9} {:>7} {:>6} {:>5} {:>6} {:>10} {:>8}",
            "", "acknowl.", "delivered", "pending", "dead", "lost", "twice", "duplicates", "refused"
        );
        for (name, balance) in &self.webhooks {
            println!(
                "{name:<10} {:>8} {:>9} {:>7} {:>6} {:>5} {:>6} {:>10} {:>8}",
                balance.acknowledged,
                balance.delivered,
                balance.pending,
                balance.dead,
                balance.lost.len(),
                balance.twice.len(),
                balance.duplicates,
                balance.refused,
            );
        }
        println!("\n{:<18} {:>11} {:>10} {:>6}", "MiB, middle of", "first third", "last third", "most");
        for (what, thirds) in self.growth() {
            let note = if thirds.levels_off.is_none() { "  (too short to judge)" } else { "" };
            println!("{what:<18} {:>11.1} {:>10.1} {:>6.1}{note}", thirds.first, thirds.last, thirds.most);
        }
        println!("\n{} s, seed {}: {} kills", self.seconds, self.seed, self.kills);
        for failure in failures {
            println!("FAILED: {failure}");
        }
        let passed = failures.is_empty();
        // Beside what Cargo builds.
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let path = scratch.parent().unwrap_or(scratch).join("soak.json");
        let text = serde_json::to_string_pretty(&self.json(failures)).unwrap_or_default() + "\n";
        match std::fs::write(&path, text) {
            Ok(()) => println!("\n{}: {}", if passed { "passed" } else { "NOT passed" }, path.display()),
            Err(error) => {
                eprintln!("{} cannot be written: {error}", path.display());
                return false;
            }
        }
        passed
    }

    fn json(&self, failures: &[String]) -> Value {
        let thirds = |thirds: Thirds| json!({ "first_mib": thirds.first, "last_mib": thirds.last, "most_mib": thirds.most });
        let webhook = |balance: &Balance| {
            json!({
                "acknowledged": balance.acknowledged,
                "delivered": balance.delivered,
                "pending": balance.pending,
                "dead": balance.dead,
                "lost": balance.lost.len(),
                "twice": balance.twice.len(),
                "needless": balance.needless.len(),
                "duplicates": balance.duplicates,
                "refused": balance.refused,
            })
        };
        json!({
            "seconds": self.seconds,
            "seed": self.seed,
            "kills": self.kills,
            "passed": failures.is_empty(),
            "failures": failures,
            "memory": thirds(self.memory),
            "memory_of_one_life": thirds(self.memory_of_one_life),
            "file": thirds(self.file),
            "webhooks": self.webhooks.iter().map(|(name, balance)| ((*name).to_owned(), webhook(balance))).collect::<Value>(),
        })
    }
}
