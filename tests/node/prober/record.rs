//! The two records, a line each: of answers (`<milliseconds> <number> <answer>`), and of arrivals, as the example
//! receiver prints them.

use std::{
    convert::Infallible,
    fmt,
    fs::File,
    io::{self, BufRead as _, BufReader},
    path::Path,
    str::FromStr,
};

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Answer {
    /// Its status, and `Retry-After` in seconds.
    Http { status: u16, retry_after: Option<u64> },
    /// There was none; why.
    Nothing(String),
}

/// What a certificate that is not trusted came to: another try does not help.
pub(crate) const NOT_TRUSTED: &str = "not-trusted";

impl Answer {
    pub(crate) fn is_taken(&self) -> bool {
        matches!(self, Self::Http { status: 202, .. })
    }

    /// A sender may come again, and is told when, where it is told something.
    pub(crate) fn is_retryable(&self) -> bool {
        match self {
            Self::Http { status, retry_after } => {
                retry_after.is_some() && (*status == 429 || (500..600).contains(status))
            }
            Self::Nothing(why) => why != NOT_TRUSTED,
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { status, retry_after: Some(seconds) } => write!(f, "{status}+{seconds}"),
            Self::Http { status, retry_after: None } => write!(f, "{status}"),
            Self::Nothing(why) => f.write_str(why),
        }
    }
}

impl FromStr for Answer {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let (status, retry_after) = text.split_once('+').unwrap_or((text, ""));
        Ok(match status.parse() {
            Ok(status) => Self::Http { status, retry_after: retry_after.parse().ok() },
            Err(_) => Self::Nothing(text.to_owned()),
        })
    }
}

/// An answer to a request with event `number`.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    /// Milliseconds since 1970.
    pub(crate) at: i64,
    pub(crate) number: u64,
    pub(crate) answer: Answer,
}

impl fmt::Display for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.at, self.number, self.answer)
    }
}

pub(crate) fn answered(line: &str) -> Option<Answered> {
    let mut words = line.split(' ');
    let (at, number) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let Ok(answer) = words.next()?.parse();
    Some(Answered { at, number, answer })
}

/// The number of an event that came with the webhook's certificate.
pub(crate) fn arrived(line: &str) -> Option<u64> {
    let (head, body) = line.split_once(": {\"number\":")?;
    let ours = head.starts_with("/orders ") && head.contains("CN=orders.shop.example");
    body.split([',', '}']).next()?.parse().ok().filter(|_| ours)
}

/// A file of lines that somebody else goes on writing.
pub(crate) struct Lines {
    file: BufReader<File>,
    line: String,
}

impl Lines {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: BufReader::new(File::open(path)?), line: String::new() })
    }

    /// The next one that is whole, as `read` understands it; one that it does not is left out.
    pub(crate) fn next<T>(&mut self, read: impl Fn(&str) -> Option<T>) -> io::Result<Option<T>> {
        loop {
            self.file.read_line(&mut self.line)?;
            if !self.line.ends_with('\n') {
                return Ok(None);
            }
            let value = read(self.line.trim_end());
            self.line.clear();
            if value.is_some() {
                return Ok(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (text, retryable) in [
            ("202", false),
            ("503+5", true),
            ("429+1", true),
            ("503", false),
            ("404", false),
            ("refused", true),
            (NOT_TRUSTED, false),
        ] {
            let line = format!("1790000000123 17 {text}");
            let read = answered(&line).unwrap();
            assert_eq!((read.to_string(), read.answer.is_retryable()), (line, retryable));
        }
    }

    #[test]
    fn an_arrival_is_one_with_the_right_certificate() {
        let line = |name| {
            format!("/orders prober.tick from C=NL,O=Shop,CN={name}.shop.example (0123…): {{\"number\":17}}")
        };
        assert_eq!(arrived(&line("orders")), Some(17));
        assert_eq!(arrived(&line("invoices")), None);
        assert_eq!(arrived("refused: HandshakeFailure"), None);
    }
}
