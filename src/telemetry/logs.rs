//! Logs on standard error: for a person in a terminal, JSON anywhere else.

use std::io::{IsTerminal as _, stderr};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text in a terminal, JSON elsewhere
    #[default]
    Auto,
    /// Lines for a person
    Text,
    /// One JSON object a line
    Json,
}

/// Starts logging; `filter` has the syntax of `RUST_LOG`.
pub fn init(format: LogFormat, filter: &str) {
    let filter = EnvFilter::builder().parse_lossy(filter);
    let text = match format {
        LogFormat::Auto => stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let builder = tracing_subscriber::fmt().with_writer(stderr).with_env_filter(filter);
    if text {
        builder.with_ansi(stderr().is_terminal()).with_target(false).init();
    } else {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
    }
}
