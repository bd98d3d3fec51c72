//! Text that others wrote, where a person reads it: it is seen, and does nothing else.

use std::fmt::Write as _;

use icu_properties::{CodePointSetData, props::DefaultIgnorableCodePoint};

/// Whether a reader sees a character as itself. Of the others a terminal makes lines, colours or a turn of the text
/// after them, or nothing at all, so that what they say is hidden.
///
/// Those are, as Unicode calls them: control characters (Cc); separators of lines and paragraphs (Zl, Zp); what is
/// ignored by default (`Default_Ignorable_Code_Point`: marks of direction, zero width, tags, variation selectors, the
/// soft hyphen, the byte order mark); and the annotations (U+FFF9 to U+FFFB), which are as invisible.
pub(crate) fn is_seen(char: char) -> bool {
    let ignorable = CodePointSetData::new::<DefaultIgnorableCodePoint>();
    !(char.is_control()
        || matches!(char, '\u{2028}' | '\u{2029}' | '\u{fff9}'..='\u{fffb}')
        || ignorable.contains(char))
}

/// Text as one line: newlines and tabs are blanks, and what is not seen is shown to be there.
pub(crate) fn line(text: &str) -> String {
    text.chars().map(|char| if matches!(char, '\n' | '\t') { ' ' } else { seen(char) }).collect()
}

/// Text that may have lines and tabs of its own.
pub(crate) fn lines(text: &str) -> String {
    text.chars().map(|char| if matches!(char, '\n' | '\t') { char } else { seen(char) }).collect()
}

/// A document of JSON that is the same and shows all that is in it: characters that are not seen stand in strings alone,
/// but for the lines of its layout, and there can be escaped.
pub(crate) fn json(document: &str) -> String {
    escaped(document, |shown, char| {
        for unit in char.encode_utf16(&mut [0; 2]) {
            let _ = write!(shown, "\\u{unit:04x}");
        }
    })
}

/// The same of YAML, which knows such escapes in double quotes alone.
pub(crate) fn yaml(document: &str) -> String {
    escaped(document, |shown, char| {
        let _ = write!(shown, "\\U{:08X}", u32::from(char));
    })
}

fn escaped(document: &str, escape: impl Fn(&mut String, char)) -> String {
    let mut shown = String::with_capacity(document.len());
    for char in document.chars() {
        if is_line_or_seen(char) {
            shown.push(char);
        } else {
            escape(&mut shown, char);
        }
    }
    shown
}

/// Whether a character stands in a document as itself: it is seen, or makes the lines of its layout.
pub(crate) fn is_line_or_seen(char: char) -> bool {
    char == '\n' || is_seen(char)
}

fn seen(char: char) -> char {
    if is_seen(char) { char } else { char::REPLACEMENT_CHARACTER }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// All that text may do to who reads it.
    pub(crate) const HOSTILE: &str = "a\n✓ all is well\x1b[32m\x1b]0;owned\x07\u{9b}2J\r\u{7f}\u{202e}\u{200b}\u{ad}\u{feff}\u{2028}\u{e0041}\tb";

    #[test]
    fn what_is_not_seen_is_shown_to_be_there() {
        let seen = "✓ all is well�[32m�]0;owned��2J��������";
        assert_eq!(line(HOSTILE), format!("a {seen} b"));
        assert_eq!(lines(HOSTILE), format!("a\n{seen}\tb"));
    }

    #[test]
    fn a_document_says_the_same_and_hides_nothing() {
        let value = serde_json::json!({ HOSTILE: [HOSTILE] });
        let document = json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(document.lines().flat_map(str::chars).all(is_seen), "{document}");
        assert!(document.contains(r"\u202e\u200b\u00ad\ufeff\u2028\udb40\udc41\tb"), "{document}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&document).unwrap(), value);
    }

    #[test]
    fn scripts_of_the_world_are_seen() {
        for text in ["Zoë e\u{301}", "日本語", "العربية", "עברית", "हिन्दी", "ไทย", "한국어", "→ ✓ 🦀"]
        {
            assert_eq!(line(text), text);
        }
    }
}
