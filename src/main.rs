//! The operator's program.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use postrider::inspect;

#[derive(Parser)]
#[command(name = "postrider", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Look at keystores.
    #[command(subcommand)]
    Keystore(Keystore),
}

#[derive(Subcommand)]
enum Keystore {
    /// Show what a keystore holds and whether it can be used, as the controller sees it.
    Inspect(inspect::Inspect),
}

fn main() -> ExitCode {
    let Command::Keystore(Keystore::Inspect(args)) = Cli::parse().command;
    inspect::run(&args)
}
