//! The plugin: `kubectl postrider …`.

use std::process::ExitCode;

use clap::Parser as _;
use postrider::plugin::{Plugin, run};

fn main() -> ExitCode {
    run(&Plugin::parse())
}
