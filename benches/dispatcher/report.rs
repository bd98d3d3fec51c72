//! A table for people, and JSON for programs.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

/// A ratio, or a figure that stands for itself.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// What is better, what it must be, and what it aims at. Without them it is for people to know.
    pub(crate) marks: Option<(Better, f64, f64)>,
    pub(crate) numerator: Option<Figure>,
    pub(crate) denominator: Option<Figure>,
}

#[derive(Clone, Copy)]
pub(crate) enum Better {
    Less,
    More,
}

/// What was measured.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Figure {
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
}

impl Better {
    fn sign(self) -> char {
        match self {
            Self::Less => '≤',
            Self::More => '≥',
        }
    }

    fn meets(self, value: f64, mark: f64) -> bool {
        match self {
            Self::Less => value <= mark,
            Self::More => value >= mark,
        }
    }
}

impl Row {
    fn misses(&self) -> bool {
        self.marks.is_some_and(|(better, must, _)| !better.meets(self.value, must))
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "better": self.marks.map(|(better, ..)| better.sign()),
            "must": self.marks.map(|(_, must, _)| must),
            "aim": self.marks.map(|(.., aim)| aim),
            "numerator": self.numerator,
            "denominator": self.denominator,
        })
    }
}

/// Prints a table.
pub(crate) fn print(rows: &[Row]) {
    println!("\n{:<58} {:>9} {:>9} {:>12}  verdict", "", "must", "aim", "measured");
    for row in rows {
        let value = format!("{} {}", number(row.value), row.unit.trim_start_matches("ratio"));
        let (must, aim, verdict) = match row.marks {
            None => (String::new(), String::new(), ""),
            Some((better, must, aim)) => (
                format!("{} {}", better.sign(), number(must)),
                format!("{} {}", better.sign(), number(aim)),
                match (better.meets(row.value, must), better.meets(row.value, aim)) {
                    (_, true) => "aim met",
                    (true, false) => "must met",
                    (false, false) => "MISSED",
                },
            ),
        };
        println!("{:<58} {must:>9} {aim:>9} {:>12}  {verdict}", row.name, value.trim_end());
        if let (Some(numerator), Some(denominator)) = (&row.numerator, &row.denominator) {
            println!("    {} / {}", describe(numerator), describe(denominator));
        }
    }
    let missed: Vec<_> = rows.iter().filter(|row| row.misses()).map(|row| row.name).collect();
    match missed.as_slice() {
        [] => println!("\nnothing misses a must"),
        missed => println!("\nmissed a must:\n  {}", missed.join("\n  ")),
    }
}

/// False where the file cannot be written.
pub(crate) fn write(rows: &[Row], file: &str) -> bool {
    // Beside what Cargo builds.
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = scratch.parent().unwrap_or(scratch).join(file);
    let text = serde_json::to_string_pretty(&rows.iter().map(Row::json).collect::<Value>())
        .expect("numbers and names are JSON")
        + "\n";
    let written = std::fs::write(&path, text);
    match &written {
        Ok(()) => println!("\n{}", path.display()),
        Err(error) => eprintln!("{} cannot be written: {error}", path.display()),
    }
    written.is_ok()
}

fn describe(figure: &Figure) -> String {
    format!("{} {}", number(figure.value), figure.unit)
}

/// With as many digits as it can be trusted.
fn number(value: f64) -> String {
    let digits = match value {
        ..100.0 => 2,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    if digits > 0 && text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}
