//! The one error of the reader, and the sentences that a person reads in a status.
//!
//! A sentence names the file, what is wrong and the way out. It quotes names out of the file, escaped
//! and cut, and never anything of a password or a key.

use jiff::Timestamp;

use super::{Format, Reason, Refusal, Request, ber, password::without_newline};
use crate::{
    identity::Facts,
    limits::{RSA_BITS, RSA_BITS_AT_MOST},
    text::is_seen,
};

/// What is wrong with a keystore.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Something else than a keystore: what it is, and what to do.
    Other(String),
    /// A keystore in a format that is not taken: its name, and the type that keytool knows it by.
    Format { name: &'static str, keytool: Option<&'static str> },
    /// The store does not open.
    Password,
    /// The key does not open; whether it had a password of its own to try.
    KeyPassword { alias: Option<String>, given: bool },
    /// Incomplete or damaged: where.
    Corrupt(&'static str),
    /// Over a bound.
    Limit { what: &'static str, found: u64, limit: u64 },
    /// An algorithm that is not taken.
    Algorithm(String),
    /// No private key beside this many certificates.
    NoPrivateKey { certificates: usize },
    /// A trust store that trusts nothing; whether it holds keys.
    NothingTrusted { keys: bool },
    /// A key and no certificate.
    NoCertificate { alias: Option<String> },
    /// The key belongs to no certificate; the subject of the one that stands beside it.
    KeyMismatch { alias: Option<String>, beside: Option<String> },
    /// Several usable keys and nothing that chooses: their names.
    MultipleKeys(Vec<String>),
    /// No key has the alias: the names of those there are, and whether a certificate has it.
    AliasNotFound { names: Vec<String>, certificate: bool },
    /// The key is of a type or size that is not taken.
    Key { alias: Option<String>, algorithm: String },
    /// The validity is over.
    Expired(Box<Facts>),
    /// The validity has not begun.
    NotYetValid(Box<Facts>),
}

impl From<ber::Error> for Fault {
    fn from(error: ber::Error) -> Self {
        match error {
            ber::Error::Truncated => Self::Corrupt("it ends too early"),
            ber::Error::Malformed => Self::Corrupt("its structure is damaged"),
            ber::Error::TooDeep => {
                let limit = crate::limits::BER_DEPTH as u64;
                Self::Limit { what: "levels of nesting", found: limit + 1, limit }
            }
        }
    }
}

impl Fault {
    /// An algorithm that is not taken, by its object identifier.
    pub(crate) fn algorithm(oid: &[u8]) -> Self {
        match oid {
            [] => Self::Corrupt("an algorithm is not named"),
            _ => Self::Algorithm(algorithm_name(oid)),
        }
    }

    /// The reason of the fault.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Other(_) => Reason::NotAKeystore,
            Self::Format { .. } => Reason::UnsupportedFormat,
            Self::Password => Reason::WrongPasswordOrCorrupt,
            Self::KeyPassword { .. } => Reason::WrongKeyPassword,
            Self::Corrupt(_) => Reason::Corrupt,
            Self::Limit { .. } => Reason::LimitExceeded,
            Self::Algorithm(_) => Reason::UnsupportedAlgorithm,
            Self::NoPrivateKey { .. } => Reason::NoPrivateKey,
            Self::NothingTrusted { .. } | Self::NoCertificate { .. } => Reason::NoCertificate,
            Self::KeyMismatch { .. } => Reason::KeyMismatch,
            Self::MultipleKeys(_) => Reason::MultipleKeys,
            Self::AliasNotFound { .. } => Reason::AliasNotFound,
            Self::Key { .. } => Reason::UnsupportedKey,
            Self::Expired(_) => Reason::Expired,
            Self::NotYetValid(_) => Reason::NotYetValid,
        }
    }

    /// The refusal that the caller gets.
    pub(crate) fn refuse(self, request: &Request<'_>, format: Option<Format>) -> Refusal {
        let reason = self.reason();
        let message = format!("{}: {}", request.file, self.sentence(request, format));
        let facts = match self {
            Self::Expired(facts) | Self::NotYetValid(facts) => Some(facts),
            _ => None,
        };
        Refusal { reason, message, facts }
    }

    fn sentence(&self, request: &Request<'_>, format: Option<Format>) -> String {
        match self {
            Self::Other(what) => what.clone(),
            Self::Format { name, keytool } => {
                format!("{name} is not supported; {}", convert(request, *keytool))
            }
            Self::Password => {
                let newline = match without_newline(request.password) {
                    Some(_) => "; the password ends with a newline",
                    None => "",
                };
                format!("the store password is wrong, or the file was changed after it was written{newline}")
            }
            Self::KeyPassword { alias, given: false } => {
                format!(
                    "the store opened, but key {} has a password of its own: name it in keyPasswordSecretRef",
                    name(alias.as_deref())
                )
            }
            Self::KeyPassword { alias, given: true } => {
                format!(
                    "the store opened, but neither the key password nor the store password opens key {}",
                    name(alias.as_deref())
                )
            }
            Self::Corrupt(detail) => {
                format!("the file is incomplete or damaged ({detail}); copy it again from where it was made")
            }
            Self::Limit { what, found, limit } => {
                let found = if *found == u64::MAX { "more than 2^64".to_owned() } else { found.to_string() };
                let derivation = ["iterations", "scrypt", "work"].iter().any(|word| what.contains(word));
                let advice = if derivation { reexport(request, format) } else { String::new() };
                format!("{what}: {found}, and at most {limit} are accepted{advice}")
            }
            Self::Algorithm(algorithm) => {
                format!("{algorithm} is not supported{}", reexport(request, format))
            }
            Self::NoPrivateKey { certificates: 0 } => "the keystore is empty".to_owned(),
            Self::NoPrivateKey { certificates } => format!(
                "the keystore holds no private key, only {certificates} trusted certificate{}; \
                 export it together with the key",
                if *certificates == 1 { "" } else { "s" }
            ),
            Self::NothingTrusted { keys: false } => "the trust store is empty".to_owned(),
            Self::NothingTrusted { keys: true } => {
                "the trust store holds keys and no trusted certificate; import the authority's certificate"
                    .to_owned()
            }
            Self::NoCertificate { alias } => format!(
                "the keystore holds key {} and no certificate for it; export both together",
                name(alias.as_deref())
            ),
            Self::KeyMismatch { alias, beside } => {
                let beside = beside.as_ref().map_or_else(
                    || "any certificate in the keystore".to_owned(),
                    |subject| format!("the certificate {} beside it, nor to another here", quoted(subject)),
                );
                format!(
                    "key {} does not belong to {beside}; export the key together with its certificate",
                    name(alias.as_deref())
                )
            }
            Self::MultipleKeys(names) => {
                format!(
                    "the keystore holds {} usable keys: {}; choose one with alias",
                    names.len(),
                    names.join(", ")
                )
            }
            Self::AliasNotFound { names, certificate } => {
                let alias = quoted(request.alias.unwrap_or_default());
                let what = if *certificate {
                    "is a trusted certificate, not a key"
                } else {
                    "is not in the keystore"
                };
                let names = match names.len() {
                    0 => "it holds no keys".to_owned(),
                    _ => format!("it holds {}", names.join(", ")),
                };
                format!("alias {alias} {what}; {names}")
            }
            Self::Key { alias, algorithm } => format!(
                "key {} is {algorithm}, which cannot be used; accepted are RSA of {RSA_BITS} to \
                 {RSA_BITS_AT_MOST} bits, EC P-256, P-384 and P-521, and Ed25519",
                name(alias.as_deref())
            ),
            Self::Expired(facts) => format!(
                "the certificate {} expired on {}; replace it",
                quoted(&facts.identifier),
                date(facts.valid_till)
            ),
            Self::NotYetValid(facts) => format!(
                "the certificate {} is not valid before {}",
                quoted(&facts.identifier),
                date(facts.valid_from)
            ),
        }
    }
}

/// A name out of a file, for a message: escaped, so that it stays on its line, and cut.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for (i, c) in text.chars().enumerate() {
        if i == 128 {
            out.push('…');
            break;
        }
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if is_seen(c) => out.push(c),
            c => out.extend(c.escape_default()),
        }
    }
    out.push('"');
    out
}

/// The name of an entry, for a message.
pub(crate) fn name(alias: Option<&str>) -> String {
    alias.map_or_else(|| "without a name".to_owned(), quoted)
}

fn date(time: Timestamp) -> String {
    time.to_string()
}

/// The way out: the command that writes a keystore again as tools write them today.
fn reexport(request: &Request<'_>, format: Option<Format>) -> String {
    let file = shell(request.file);
    match format {
        Some(Format::Jks) => format!("; {}", convert(request, Some(java_type(request)))),
        // By way of a PEM file, its key encrypted: a pipe does not do, since openssl reads it twice.
        Some(Format::Pkcs12) | None => format!(
            "; write it again as tools do today: openssl pkcs12 -legacy -in {file} -out keystore.pem && \
             openssl pkcs12 -export -in keystore.pem -out new.p12{}",
            request.alias.map(|alias| format!(" -name {}", shell(alias))).unwrap_or_default()
        ),
    }
}

fn java_type(request: &Request<'_>) -> &'static str {
    if request.bytes.first() == Some(&0xce) { "JCEKS" } else { "JKS" }
}

fn convert(request: &Request<'_>, keytool: Option<&str>) -> String {
    match keytool {
        Some(kind) => format!(
            "convert it: keytool -importkeystore -srckeystore {} -srcstoretype {kind} \
             -destkeystore new.p12 -deststoretype PKCS12",
            shell(request.file)
        ),
        None => "a PKCS#12 or JKS keystore is needed".to_owned(),
    }
}

/// A word as a shell takes it.
fn shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "./_-".contains(c);
    if !word.is_empty() && word.chars().all(plain) && !word.starts_with('-') {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn algorithm_name(oid: &[u8]) -> String {
    let dotted = ber::dotted(oid);
    let name = match dotted.as_str() {
        "1.2.840.113549.1.12.1.1" => "RC4-128 (pbeWithSHAAnd128BitRC4)",
        "1.2.840.113549.1.12.1.2" => "RC4-40 (pbeWithSHAAnd40BitRC4)",
        "1.2.840.113549.1.5.1" => "DES (pbeWithMD2AndDES-CBC)",
        "1.2.840.113549.1.5.3" => "DES (pbeWithMD5AndDES-CBC)",
        "1.2.840.113549.1.5.4" => "RC2 (pbeWithMD2AndRC2-CBC)",
        "1.2.840.113549.1.5.6" => "RC2 (pbeWithMD5AndRC2-CBC)",
        "1.2.840.113549.1.5.10" => "DES (pbeWithSHA1AndDES-CBC)",
        "1.2.840.113549.1.5.11" => "RC2 (pbeWithSHA1AndRC2-CBC)",
        "1.2.840.113549.3.2" => "RC2-CBC",
        "1.3.14.3.2.7" => "DES-CBC",
        "1.2.392.200011.61.1.1.1.2" => "Camellia-128",
        "1.2.392.200011.61.1.1.1.3" => "Camellia-192",
        "1.2.392.200011.61.1.1.1.4" => "Camellia-256",
        _ => return format!("the algorithm {dotted}"),
    };
    name.to_owned()
}
