//! What is printed.

use std::time::Duration;

use crate::{
    harness::usage::{self, Memory},
    tally::{PROGRAMS, Tally},
};

/// Requests of a phase, by kind; `each` is what they are divided by.
pub(crate) fn requests(title: &str, tally: &Tally, each: Option<(&str, f64)>) {
    println!("\n{title}");
    let (name, _) = each.unwrap_or_default();
    println!("  {:<34}{:>12}{:>12}{name:>14}", "requests", PROGRAMS[0], PROGRAMS[1]);
    let mut sums = [0; 2];
    for (kind, counts) in tally.kinds() {
        line(&kind, counts, each);
        sums = [sums[0] + counts[0], sums[1] + counts[1]];
    }
    line("all", sums, each);
}

#[allow(clippy::cast_precision_loss)]
fn line(kind: &str, counts: [usize; 2], each: Option<(&str, f64)>) {
    let each = each.map_or_else(String::new, |(_, by)| format!("{:.1}", (counts[0] + counts[1]) as f64 / by));
    println!("  {kind:<34}{:>12}{:>12}{each:>14}", counts[0], counts[1]);
}

/// What both programs have used, one row a phase.
#[derive(Default)]
pub(crate) struct Usage(Vec<(String, [(Memory, Duration); 2])>);

impl Usage {
    /// Of the programs with these ids.
    pub(crate) fn look(&mut self, phase: &str, pids: [i32; 2]) {
        self.0.push((phase.to_owned(), pids.map(|pid| (usage::memory(pid), usage::cpu(pid)))));
    }

    pub(crate) fn print(&self) {
        println!("\n  {:<34}{:>24}{:>24}", "", PROGRAMS[0], PROGRAMS[1]);
        let each = format!("{:>8}{:>8}{:>8}", "MiB", "peak", "CPU s");
        println!("  {:<34}{each}{each}", "after");
        for (phase, used) in &self.0 {
            let used = used.iter().map(|(Memory { now_mib, peak_mib }, cpu)| {
                format!("{now_mib:>8.1}{peak_mib:>8.1}{:>8.2}", cpu.as_secs_f64())
            });
            println!("  {phase:<34}{}", used.collect::<String>());
        }
    }
}
