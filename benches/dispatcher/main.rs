//! What the dispatcher costs beside what its parts cost alone, and how it stands a full queue and many webhooks.
//!
//! ```sh
//! make bench
//! make bench QUICK=1
//! ```
//!
//! Everything is on loopback and measured in one run: the real dispatcher in its own process, a receiver that
//! demands client certificates in another, and the parts alone, each in one of its own. A figure is a ratio, and
//! its numerator and its denominator are measured in turns, so that what else the machine does meets both.
//! "Per core" is per second of CPU time. What the senders use is not counted.
//!
//! A figure that misses its mark is told, and is no failure: only what cannot be measured is one.

// What cannot go on says so by panicking; the harness turns that into a failure.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{process::ExitCode, sync::Arc};

use clap::{Parser, Subcommand};

mod event;
#[path = "../../tests/e2e/harness/mod.rs"]
mod harness;
mod measure;
mod parts;
mod receiver;
mod report;
mod sender;
mod stage;

use harness::cluster::Cluster;
use measure::{Scale, Section};

/// Measure the dispatcher.
#[derive(Parser)]
struct Arguments {
    /// In a minute, for a first look: one round, a tenth of the webhooks and of the pending events
    #[arg(long)]
    quick: bool,
    /// One section, with its table and no file
    #[arg(long, value_name = "SECTION")]
    only: Option<Section>,
    /// What Cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What runs in a process of its own.
#[derive(Subcommand)]
enum Part {
    #[command(hide = true)]
    Receiver(receiver::Options),
    #[command(hide = true)]
    Accepts,
    #[command(hide = true)]
    Appends(parts::appends::Options),
    #[command(hide = true)]
    Pool(parts::pool::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let part: parts::Body = match arguments.part {
        None => {
            let scale = if arguments.quick { Scale::QUICK } else { Scale::FULL };
            return harness::run_alone("bench", move |cluster| bench(cluster, scale, arguments.only));
        }
        Some(Part::Appends(options)) => {
            parts::appends::run(&options);
            return ExitCode::SUCCESS;
        }
        Some(Part::Receiver(options)) => Box::pin(receiver::run(options)),
        Some(Part::Accepts) => Box::pin(parts::accepts::run()),
        Some(Part::Pool(options)) => Box::pin(parts::pool::run(options)),
    };
    parts::run(part);
    ExitCode::SUCCESS
}

async fn bench(cluster: Arc<Cluster>, scale: Scale, only: Option<Section>) -> bool {
    println!("{scale}");
    let rows = Box::pin(measure::run(&cluster, &scale, only)).await;
    report::print(&rows);
    only.is_some() || report::write(&rows, scale.file)
}
