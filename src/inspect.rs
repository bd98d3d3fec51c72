//! `postrider keystore inspect`: what the controller would make of a keystore, before it is applied.
//!
//! Exit status: 0 the keystore would be used, 1 it would be refused, 2 it could not be tried.

use std::{
    fs::File,
    io::{self, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{
    clock::left,
    identity::{Facts, rfc3339},
    keystore::{Format, Loaded, Refusal, Request, load, quoted},
    limits::{KEYSTORE_BYTES, PASSWORD_BYTES},
    text,
};

/// Show what a keystore holds and whether it can be used, as the controller sees it.
#[derive(Args)]
pub struct Inspect {
    /// The keystore.
    #[arg(value_name = "FILE")]
    keystore: PathBuf,
    #[command(flatten)]
    how: How,
    /// How to print what was found.
    #[arg(long, value_name = "text|json", default_value = "text", hide_possible_values = true)]
    output: Output,
}

/// How a keystore is opened and judged.
#[derive(Args, Debug)]
pub struct How {
    #[command(flatten)]
    pub(crate) secrets: Secrets,
    /// The format that the resource declares.
    #[arg(long, value_name = "PKCS12|JKS", ignore_case = true, hide_possible_values = true)]
    pub(crate) format: Option<Declared>,
    /// The time against which validity is judged [default: now].
    #[arg(long, value_name = "RFC3339")]
    pub(crate) at: Option<Timestamp>,
}

/// What it takes to open a keystore. A password is never an argument: others see those.
#[derive(Args, Debug)]
#[group(id = "secrets")]
pub struct Secrets {
    /// File with the store password, taken byte for byte as from a Secret; - is standard input. Without it a terminal
    /// is asked.
    #[arg(long, value_name = "F")]
    password_file: Option<PathBuf>,
    /// File with the password of the key, where it is not the store's.
    #[arg(long, value_name = "F")]
    key_password_file: Option<PathBuf>,
    /// The entry to take; without it there must be exactly one usable key.
    #[arg(long, value_name = "A")]
    pub(crate) alias: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Declared {
    Pkcs12,
    Jks,
}

impl From<Declared> for Format {
    fn from(declared: Declared) -> Self {
        match declared {
            Declared::Pkcs12 => Self::Pkcs12,
            Declared::Jks => Self::Jks,
        }
    }
}

/// A keystore and its passwords, as they were read.
pub(crate) struct Files {
    /// As it was named.
    pub(crate) name: String,
    pub(crate) keystore: Zeroizing<Vec<u8>>,
    pub(crate) password: Zeroizing<Vec<u8>>,
    pub(crate) key_password: Option<Zeroizing<Vec<u8>>>,
}

impl Secrets {
    pub(crate) fn read(&self, keystore: &Path) -> Result<Files, Problem> {
        Ok(Files {
            name: keystore.display().to_string(),
            keystore: read(keystore, KEYSTORE_BYTES)?,
            password: match &self.password_file {
                Some(path) => read(path, PASSWORD_BYTES)?,
                None => ask(keystore)?,
            },
            key_password: self
                .key_password_file
                .as_ref()
                .map(|path| read(path, PASSWORD_BYTES))
                .transpose()?,
        })
    }
}

impl How {
    pub(crate) fn request<'a>(&'a self, files: &'a Files) -> Request<'a> {
        Request {
            bytes: &files.keystore,
            password: &files.password,
            key_password: files.key_password.as_deref().map(Vec::as_slice),
            alias: self.secrets.alias.as_deref(),
            declared: self.format.map(Format::from),
            file: &files.name,
            now: self.at.unwrap_or_else(Timestamp::now),
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Runs the command.
pub fn run(args: &Inspect) -> ExitCode {
    match inspect(args) {
        Ok(usable) => ExitCode::from(u8::from(!usable)),
        Err(problem) => {
            let _ = writeln!(io::stderr(), "error: {problem}");
            ExitCode::from(2)
        }
    }
}

/// Why a keystore could not be tried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("no password: name a file with --password-file, or run this in a terminal to be asked")]
    NoPassword,
    #[error("cannot ask for the password: {0}")]
    Ask(io::Error),
    #[error("cannot write: {0}")]
    Write(io::Error),
}

fn inspect(args: &Inspect) -> Result<bool, Problem> {
    let files = args.how.secrets.read(&args.keystore)?;
    let request = args.how.request(&files);
    let result = load(&request);
    let text = match args.output {
        Output::Text => text(&result, &request),
        Output::Json => text::json(&format!("{:#}\n", json(&result))),
    };
    io::stdout().write_all(text.as_bytes()).map_err(Problem::Write)?;
    Ok(result.is_ok())
}

/// What came of it, for a person: lines of which names out of the keystore make no others.
pub(crate) fn text(result: &Result<Loaded, Refusal>, request: &Request<'_>) -> String {
    let lines = match result {
        Ok(loaded) => loaded_text(loaded, request),
        Err(refusal) => refused_text(refusal, request),
    };
    lines.iter().map(|line| text::line(line) + "\n").collect()
}

/// The same for a program.
pub(crate) fn json(result: &Result<Loaded, Refusal>) -> Value {
    match result {
        Ok(loaded) => loaded_json(loaded),
        Err(refusal) => refused_json(refusal),
    }
}

/// Reads a file, and of one that is over the bound just enough to be refused for it.
pub(crate) fn read(path: &Path, bound: usize) -> Result<Zeroizing<Vec<u8>>, Problem> {
    // Room for all from the start: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(bound + 2));
    let bound = bound as u64 + 1;
    let read = if path.as_os_str() == "-" {
        io::stdin().take(bound).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(bound).read_to_end(&mut bytes))
    };
    match read {
        Ok(_) => Ok(bytes),
        Err(source) => Err(Problem::Read { path: path.to_owned(), source }),
    }
}

fn ask(keystore: &Path) -> Result<Zeroizing<Vec<u8>>, Problem> {
    if !io::stdin().is_terminal() {
        return Err(Problem::NoPassword);
    }
    let prompt = format!("Password of {}: ", keystore.display());
    let mut password = Zeroizing::new(rpassword::prompt_password(prompt).map_err(Problem::Ask)?);
    Ok(Zeroizing::new(std::mem::take(&mut *password).into_bytes()))
}

/// The names of all certificates of the chain, leaf first.
fn chain(loaded: &Loaded) -> Vec<String> {
    let name = |certificate| Facts::of(std::slice::from_ref(certificate), None).map(|facts| facts.identifier);
    loaded.identity.chain().iter().map(|certificate| name(certificate).unwrap_or_default()).collect()
}

fn loaded_json(loaded: &Loaded) -> Value {
    let mut value = json!({ "format": loaded.format.as_str() });
    merge(&mut value, facts_json(loaded.identity.facts()));
    let warnings: Vec<_> = loaded
        .warnings
        .iter()
        .map(|warning| json!({ "reason": warning.reason.as_str(), "message": warning.message }))
        .collect();
    merge(&mut value, json!({ "chain": chain(loaded), "warnings": warnings }));
    value
}

fn refused_json(refusal: &Refusal) -> Value {
    let mut value = json!({ "reason": refusal.reason.as_str(), "message": refusal.message });
    if let Some(facts) = &refusal.facts {
        merge(&mut value, facts_json(facts));
    }
    value
}

pub(crate) fn facts_json(facts: &Facts) -> Value {
    json!({
        "identifier": facts.identifier,
        "validFrom": rfc3339(facts.valid_from),
        "validTill": rfc3339(facts.valid_till),
        "serialNumber": facts.serial_number,
        "issuer": facts.issuer,
        "fingerprintSHA256": facts.fingerprint_sha256,
        "alias": facts.alias,
        "keyAlgorithm": facts.key_algorithm,
        "chainLength": facts.chain_length,
    })
}

fn merge(value: &mut Value, more: Value) {
    if let (Value::Object(value), Value::Object(more)) = (value, more) {
        value.extend(more);
    }
}

fn loaded_text(loaded: &Loaded, request: &Request<'_>) -> Vec<String> {
    let mut lines = vec![format!("{}: this {} keystore can be used", request.file, loaded.format)];
    lines.extend(facts_text(loaded.identity.facts(), request.now));
    for (number, name) in chain(loaded).iter().enumerate() {
        let label = if number == 0 { "Chain" } else { "" };
        lines.push(format!("  {label:<14}{}. {name}", number + 1));
    }
    if !loaded.warnings.is_empty() {
        lines.push(String::new());
        lines.push("Warnings:".to_owned());
    }
    let warnings = &loaded.warnings;
    lines.extend(warnings.iter().map(|warning| format!("  {}: {}", warning.reason, warning.message)));
    lines
}

fn refused_text(refusal: &Refusal, request: &Request<'_>) -> Vec<String> {
    let mut lines = vec![format!("{} ({})", refusal.message, refusal.reason)];
    if let Some(facts) = &refusal.facts {
        lines.extend(facts_text(facts, request.now));
    }
    lines
}

fn facts_text(facts: &Facts, now: Timestamp) -> Vec<String> {
    [
        ("Identifier", facts.identifier.clone()),
        ("Issuer", facts.issuer.clone()),
        ("Valid from", rfc3339(facts.valid_from)),
        ("Valid till", format!("{} ({})", rfc3339(facts.valid_till), left(facts.valid_till, now))),
        ("Serial number", facts.serial_number.clone()),
        ("SHA-256", facts.fingerprint_sha256.clone()),
        ("Alias", facts.alias.as_deref().map_or_else(|| "(none)".to_owned(), quoted)),
        ("Key", facts.key_algorithm.clone()),
    ]
    .into_iter()
    .map(|(label, value)| format!("  {label:<14}{value}"))
    .collect()
}
