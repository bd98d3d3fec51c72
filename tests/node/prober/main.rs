//! A sender that never pauses, and the account of what became of its events: for `tests/node/faults`.
//!
//! `send` runs as a Pod and writes down each answer; the receiver beside it writes down what arrives. `account`
//! compares the two after each fault, and adds a line to the table of faults.

mod account;
mod record;
mod send;

use std::error::Error;

use clap::Parser;

#[derive(Parser)]
enum Command {
    /// Sends numbered events, each until it is taken; until SIGTERM, and then until the last one is taken
    Send(send::Options),
    /// Waits until senders are served again and all that was taken has arrived, and tells what a fault came to
    Account(account::Options),
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    match Command::parse() {
        Command::Send(options) => send::run(options).await,
        Command::Account(options) => account::run(&options).await,
    }
}
