//! Text for a terminal: lines and colours are ours alone, and what others wrote is only seen.

use std::ops::{Add, AddAssign};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::text;

/// What may stand on a terminal. A string becomes a part of it as plain text in a line; with lines and colours it is put
/// together from such parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Text(String);

impl<T: AsRef<str>> From<T> for Text {
    fn from(text: T) -> Self {
        Self(text::line(text.as_ref()))
    }
}

impl Text {
    /// Text that has lines and tabs of its own, such as a body.
    pub(super) fn lines(text: &str) -> Self {
        Self(text::lines(text))
    }

    /// The same, and the line ends there.
    pub(super) fn line(mut self) -> Self {
        self.0.push('\n');
        self
    }

    /// The same, with lines below it that are to be typed.
    pub(super) fn above<T: Into<Self>>(self, lines: impl IntoIterator<Item = T>) -> Self {
        lines.into_iter().fold(self.trimmed(), |text, line| text.line() + "  " + line)
    }

    /// The same, and nothing ends its last line.
    pub(super) fn trimmed(self) -> Self {
        self.map(|text| text.trim_end().to_owned())
    }

    /// The same in another shape, which has nothing in it that was not there.
    pub(super) fn map(self, shape: impl FnOnce(&str) -> String) -> Self {
        Self(shape(&self.0))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<Text>> AddAssign<T> for Text {
    fn add_assign(&mut self, more: T) {
        self.0.push_str(&more.into().0);
    }
}

impl<T: Into<Text>> Add<T> for Text {
    type Output = Self;

    fn add(mut self, more: T) -> Self {
        self += more;
        self
    }
}

impl FromIterator<Text> for Text {
    fn from_iter<I: IntoIterator<Item = Text>>(parts: I) -> Self {
        parts.into_iter().fold(Self::default(), Add::add)
    }
}

fn styled(text: impl Into<Text>, style: Style) -> Text {
    text.into().map(|text| format!("{style}{text}{style:#}"))
}

fn coloured(text: impl Into<Text>, colour: AnsiColor) -> Text {
    styled(text, Style::new().fg_color(Some(colour.into())))
}

pub(super) fn good<T: Into<Text>>(text: T) -> Text {
    coloured(text, AnsiColor::Green)
}

pub(super) fn warning<T: Into<Text>>(text: T) -> Text {
    coloured(text, AnsiColor::Yellow)
}

pub(super) fn bad<T: Into<Text>>(text: T) -> Text {
    coloured(text, AnsiColor::Red)
}

pub(super) fn bold<T: Into<Text>>(text: T) -> Text {
    styled(text, Style::new().bold())
}

pub(super) fn dim<T: Into<Text>>(text: T) -> Text {
    styled(text, Style::new().dimmed())
}

/// The message of a failure.
pub(super) fn failure(message: impl Into<Text>) -> Text {
    bad("error:") + " " + message
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum State {
    /// As it should be.
    Good,
    /// It is not known, or was not tried.
    Unknown,
    /// It deserves a look.
    Warning,
    /// It has to be mended.
    Bad,
}

impl State {
    pub(super) fn of(good: bool) -> Self {
        if good { Self::Good } else { Self::Bad }
    }

    pub(super) fn mark(self) -> Text {
        match self {
            Self::Good => good("✓"),
            Self::Unknown => dim("–"),
            Self::Warning => warning("!"),
            Self::Bad => bad("✗"),
        }
    }

    pub(super) fn paint(self, text: impl Into<Text>) -> Text {
        match self {
            Self::Good => good(text),
            Self::Unknown => text.into(),
            Self::Warning => warning(text),
            Self::Bad => bad(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tests::HOSTILE;

    #[test]
    fn colours_and_lines_are_ours_alone() {
        let plain = text::line(HOSTILE);
        assert_eq!(Text::from(HOSTILE).as_str(), plain);
        for paint in [good::<&str>, warning, bad, bold, dim] {
            let (painted, of_plain) = (paint(HOSTILE), paint(&plain));
            assert_eq!(painted, of_plain);
            assert!(painted.as_str().starts_with("\x1b["), "{painted:?}");
        }
        let put_together = (State::Bad.mark() + " " + bold("a") + HOSTILE).line() + HOSTILE;
        let ours = State::Bad.mark().0 + " " + bold("a").as_str();
        let expected = [&ours, plain.as_str(), "\n", &plain].concat();
        assert_eq!(put_together.as_str(), expected);
        assert_eq!(Text::from("type").above([HOSTILE, "b"]).as_str(), format!("type\n  {plain}\n  b"));
    }

    #[test]
    fn a_colour_that_became_a_string_is_none() {
        assert_eq!(Text::from(bold("a").as_str()).as_str(), "�[1ma�[0m");
    }
}
