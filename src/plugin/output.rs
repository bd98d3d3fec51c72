//! How a command looks: for people in words and columns, for programs in JSON, YAML or names.
//!
//! What a command was asked for goes to standard output, what it tells on the way to standard error. Colours are
//! written always, and taken out again where they do not belong: not a terminal, or NO_COLOR.

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use clap::ValueEnum;
use jiff::{SignedDuration, Timestamp};
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_saphyr::DoubleQuoted;
use textwrap::Options;
use unicode_width::UnicodeWidthStr as _;

use super::{
    failure::Failure,
    paint::{State, Text, dim},
};
use crate::{
    api::v1alpha1::CertificateStatus,
    clock::{away, rough},
    ingest::access::{GROUP, RESOURCE},
    limits,
    text::{self, is_line_or_seen},
};

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// One JSON document
    Json,
    /// The same as YAML
    Yaml,
    /// With more columns, and full fingerprints
    Wide,
    /// Names alone, as kubectl takes them
    Name,
}

/// Where a command says what came of it.
#[derive(Clone, Copy)]
pub(super) struct Output {
    format: Option<Format>,
}

impl Output {
    pub(super) fn new(format: Option<Format>) -> Self {
        Self { format }
    }

    pub(super) fn is_wide(self) -> bool {
        self.format == Some(Format::Wide)
    }

    pub(super) fn is_name(self) -> bool {
        self.format == Some(Format::Name)
    }

    pub(super) fn is_for_programs(self) -> bool {
        !matches!(self.format, None | Some(Format::Wide))
    }

    /// Prints the one that is asked for.
    pub(super) fn print<'a>(
        self,
        value: &impl Serialize,
        names: impl IntoIterator<Item = &'a str>,
        text: impl FnOnce() -> Text,
    ) -> Result<(), Failure> {
        let unwritable =
            |error: &dyn std::fmt::Display| Failure::tried(format!("cannot be written: {error}"));
        match self.format {
            Some(Format::Json) => put(&json(value).map_err(|error| unwritable(&error))?),
            Some(Format::Yaml) => put(&yaml(value).map_err(|error| unwritable(&error))?),
            Some(Format::Name) => {
                let line = |name| Text::from(format!("{}.{GROUP}/{name}", singular())).line();
                write(&names.into_iter().map(line).collect())
            }
            None | Some(Format::Wide) => write(&text()),
        }
    }
}

fn json(value: &impl Serialize) -> serde_json::Result<String> {
    Ok(text::json(&(serde_json::to_string_pretty(value)? + "\n")))
}

/// The name of a field has no double quotes: with an escape it is another.
fn yaml(value: &impl Serialize) -> Result<String, Box<dyn std::error::Error>> {
    Ok(text::yaml(&serde_saphyr::to_string(&Quoted(&serde_json::to_value(value)?))?))
}

/// A value whose strings are in double quotes where they hold what is not seen, but for lines.
struct Quoted<'a>(&'a Value);

impl Serialize for Quoted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::String(text) if !text.chars().all(is_line_or_seen) => {
                DoubleQuoted(text).serialize(serializer)
            }
            Value::Array(values) => serializer.collect_seq(values.iter().map(Quoted)),
            Value::Object(fields) => {
                serializer.collect_map(fields.iter().map(|(name, value)| (name, Quoted(value))))
            }
            value => value.serialize(serializer),
        }
    }
}

/// Writes to standard output.
pub(super) fn write(text: &Text) -> Result<(), Failure> {
    put(text.as_str())
}

/// Writes a line to standard error.
pub(super) fn tell(text: &Text) {
    anstream::eprintln!("{}", text.as_str());
}

/// Whoever reads no further, such as `head`, has what they wanted.
fn put(text: &str) -> Result<(), Failure> {
    match io::Write::write_all(&mut anstream::stdout(), text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::tried(format!("cannot write: {error}")))
        }
        _ => Ok(()),
    }
}

fn singular() -> &'static str {
    RESOURCE.strip_suffix('s').unwrap_or(RESOURCE)
}

// --- Layout ---

/// Width of the terminal, or of a page where there is none.
fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col));
    size.filter(|columns| *columns > 0).unwrap_or(limits::PLUGIN_COLUMNS)
}

/// What is left of text that does not fit.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    for char in text.chars() {
        if kept.width() + char.to_string().width() + 1 > width {
            break;
        }
        kept.push(char);
    }
    kept + "…"
}

/// A label and what is to be said of it, over as many lines as it takes.
pub(super) fn field(label: &str, text: impl Into<Text>) -> Text {
    const LABEL: usize = 12;
    let label = text::line(label);
    paragraph(text, format!("  {label:<LABEL$}"), &" ".repeat(2 + LABEL))
}

/// Text behind the mark of how it is.
pub(super) fn marked(state: State, text: impl Into<Text>) -> Text {
    paragraph(text, state.mark() + " ", "  ")
}

/// Text that is broken between words; commands of more than a line stay whole, to be copied.
pub(super) fn paragraph(text: impl Into<Text>, first: impl Into<Text>, next: &str) -> Text {
    let first = first.into();
    let options = Options::new(columns())
        .initial_indent(first.as_str())
        .subsequent_indent(next)
        .break_words(false)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    text.into().map(|text| textwrap::fill(text, options) + "\n")
}

/// A cell of a table.
pub(super) struct Cell {
    text: String,
    state: State,
}

pub(super) fn cell(text: impl AsRef<str>) -> Cell {
    cell_in(State::Unknown, text)
}

pub(super) fn cell_in(state: State, text: impl AsRef<str>) -> Cell {
    Cell { text: text::line(text.as_ref()), state }
}

/// Columns under a head, as kubectl has them. Where a terminal is too narrow, the column `cut_at` is cut, if one is.
pub(super) fn table(head: &[&str], cut_at: Option<usize>, rows: &[Vec<Cell>]) -> Text {
    const GAP: usize = 3;
    let of_column = |column: usize| rows.iter().filter_map(move |row| row.get(column));
    let mut widths: Vec<_> = head
        .iter()
        .enumerate()
        .map(|(column, head)| {
            of_column(column).map(|cell| cell.text.width()).max().unwrap_or(0).max(head.width())
        })
        .collect();
    if let Some(column) = cut_at.filter(|_| io::stdout().is_terminal()) {
        let over = (widths.iter().sum::<usize>() + GAP * (head.len() - 1)).saturating_sub(columns());
        if let (Some(width), Some(head)) = (widths.get_mut(column), head.get(column)) {
            *width = width.saturating_sub(over).max(head.width());
        }
    }
    let line = |cells: &[Cell]| {
        let last = cells.len() - 1;
        let padded = |(column, Cell { text, state }): (usize, &Cell)| {
            let text = cut(text, widths[column]);
            let pad = if column == last { 0 } else { widths[column] - text.width() + GAP };
            state.paint(&text) + " ".repeat(pad)
        };
        cells.iter().enumerate().map(padded).collect::<Text>().line()
    };
    let head: Vec<_> = head.iter().map(cell).collect();
    line(&head) + rows.iter().map(|row| line(row)).collect::<Text>()
}

/// So many of something.
pub(super) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

// --- Times ---

/// Whole days that a certificate is valid yet, for a program; less than none once it has expired.
pub(super) fn days_left(till: Timestamp, now: Timestamp) -> i64 {
    (till.as_second() - now.as_second()).div_euclid(24 * 3600)
}

/// How long ago something was.
pub(super) fn ago(then: Timestamp, now: Timestamp) -> String {
    let since = now.duration_since(then);
    if since.as_secs() < 1 { "now".to_owned() } else { away(then, now) }
}

/// How urgent the end of a certificate is.
pub(super) fn urgency(certificate: &CertificateStatus, now: Timestamp) -> State {
    let (from, till) = (certificate.valid_from.0, certificate.valid_till.0);
    if now > till || now < from {
        State::Bad
    } else if now >= crate::identity::expires_soon_between(from, till) {
        State::Warning
    } else {
        State::Good
    }
}

/// What is left of a certificate's life, as a bar.
pub(super) fn bar(certificate: &CertificateStatus, now: Timestamp) -> Text {
    const WIDTH: i64 = 20;
    let (from, till) = (certificate.valid_from.0.as_second(), certificate.valid_till.0.as_second());
    let (life, left) = ((till - from).max(1), (till - now.as_second()).clamp(0, (till - from).max(1)));
    let full = usize::try_from((left * WIDTH + life - 1) / life).unwrap_or_default();
    let empty = usize::try_from(WIDTH).unwrap_or_default() - full;
    urgency(certificate, now).paint("█".repeat(full)) + dim("░".repeat(empty))
}

// --- What is told on the way ---

/// What is told while something is under way: what has happened stays, and in a terminal the last line says what is
/// waited for.
pub(super) struct Progress {
    terminal: bool,
    waiting: Option<String>,
    since: std::time::Instant,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), waiting: None, since: std::time::Instant::now() }
    }

    /// Something has happened.
    pub(super) fn say(&mut self, state: State, text: impl Into<Text>) {
        self.clear();
        anstream::eprint!("{}", marked(state, text).as_str());
        self.draw();
    }

    /// What is waited for from now on.
    pub(super) fn wait_for(&mut self, what: &str) {
        if self.waiting.as_deref() == Some(what) {
            return;
        }
        self.clear();
        if !self.terminal {
            tell(&Text::from(format!("  waits for {what}")));
        }
        self.waiting = Some(what.to_owned());
        self.since = std::time::Instant::now();
        self.draw();
    }

    /// Time has passed.
    pub(super) fn tick(&self) {
        self.draw();
    }

    fn draw(&self) {
        if let Some(waiting) = self.waiting.as_ref().filter(|_| self.terminal) {
            let since = SignedDuration::try_from(self.since.elapsed()).unwrap_or_default();
            let line = cut(&format!("  waits for {waiting} ({})", rough(since)), columns() - 1);
            anstream::eprint!("\r\x1b[2K{}", dim(line).as_str());
        }
    }

    fn clear(&self) {
        if self.terminal && self.waiting.is_some() {
            anstream::eprint!("\r\x1b[2K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A duration that a person may give: `90s`, `10m`, `30d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let whole: SignedDuration = match text.strip_suffix('d').map(str::parse::<i64>) {
        Some(Ok(days)) => {
            SignedDuration::try_from_hours(days.saturating_mul(24)).ok_or("that is too long")?
        }
        _ => text.parse().map_err(|error: jiff::Error| format!("{error}; such as 90s, 10m, 12h or 30d"))?,
    };
    Duration::try_from(whole).map_err(|_| "it has to be positive".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::paint::failure;
    use crate::text::tests::HOSTILE;

    #[test]
    fn durations_of_people_are_read() {
        assert_eq!(duration("30d").unwrap(), Duration::from_hours(720));
        assert_eq!(duration("90s").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("10m").unwrap(), Duration::from_mins(10));
        for wrong in ["", "soon", "-1d", "-5s", "99999999999999999d"] {
            duration(wrong).unwrap_err();
        }
    }

    #[test]
    fn no_way_in_lets_a_text_of_others_do_more_than_be_seen() {
        let seen = |text: Text| {
            let text = text.as_str();
            let unpainted = anstream::adapter::strip_str(text).to_string();
            assert!(unpainted.chars().all(is_line_or_seen), "{text:?}");
            assert!(!text.contains("\x1b[32m"), "{text:?}");
            // Where a line is broken it goes on under its begin.
            unpainted.lines().filter(|line| !line.starts_with("  ")).count()
        };
        assert_eq!(seen(field(HOSTILE, HOSTILE)), 0);
        assert_eq!(seen(marked(State::Bad, HOSTILE)), 1);
        assert_eq!(seen(paragraph(HOSTILE, HOSTILE, "  ")), 1);
        assert_eq!(seen(table(&["A", "B"], None, &[vec![cell(HOSTILE), cell_in(State::Bad, HOSTILE)]])), 2);
        assert_eq!(seen(failure(HOSTILE)), 1);
    }

    #[test]
    fn a_document_hides_nothing_and_says_the_same() {
        let value = serde_json::json!({ "message": HOSTILE, "lines": "a\nb", "all": [{ "name": HOSTILE }] });
        for document in [json(&value).unwrap(), yaml(&value).unwrap()] {
            assert!(document.chars().all(is_line_or_seen), "{document}");
            assert!(!document.contains("\n✓"), "{document}");
            assert_eq!(serde_saphyr::from_str::<Value>(&document).unwrap(), value, "{document}");
        }
        let name = serde_json::json!({ "a\u{200b}": 1 });
        assert_eq!(yaml(&name).unwrap(), "a\\U0000200B: 1\n");
    }

    #[test]
    fn what_does_not_fit_is_cut() {
        assert_eq!(cut("CN=orders", 9), "CN=orders");
        assert_eq!(cut("CN=orders", 6), "CN=or…");
        assert_eq!(cut("日本語", 5), "日本…");
    }

    #[test]
    fn a_bar_is_full_at_the_start_and_empty_at_the_end() {
        let time = |second| {
            k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::from_second(second).unwrap())
        };
        let certificate = CertificateStatus {
            identifier: String::new(),
            valid_till: time(1_000_000),
            valid_from: time(0),
            serial_number: String::new(),
            issuer: String::new(),
            fingerprint_sha256: String::new(),
            alias: None,
            key_algorithm: String::new(),
            chain_length: 1,
            source: None,
            warnings: Vec::new(),
        };
        let bar = |second| {
            let bar = bar(&certificate, Timestamp::from_second(second).unwrap());
            let bar = bar.as_str();
            (bar.matches('█').count(), bar.matches('░').count())
        };
        assert_eq!(
            [0, 500_000, 999_999, 1_000_000, 2_000_000].map(bar),
            [(20, 0), (10, 10), (1, 19), (0, 20), (0, 20)]
        );
    }
}
