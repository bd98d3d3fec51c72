//! Names and values of headers that a person chooses: RFC 9110, 5; RFC 7617; RFC 6750.

use data_encoding::BASE64;
use http::header::{HeaderName, HeaderValue};
use zeroize::Zeroizing;

use crate::limits;

/// Those that the program sets itself, and those that are about a connection and no request. The definition has
/// the same in its rules.
const RESERVED: [&str; 11] = [
    "host",
    "content-length",
    "content-type",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
    "expect",
];
const RESERVED_PREFIXES: [&str; 2] = ["webhook-", "ce-"];

/// Why a header cannot be sent; never with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHeader {
    /// Not a token of RFC 9110.
    #[error("that is no name of a header")]
    Name,
    /// A name that the program sets itself.
    #[error("that name is reserved")]
    Reserved,
    /// No value.
    #[error("it is empty")]
    Empty,
    /// A character that cannot be sent.
    #[error(
        "it holds a line break, or another character that is not printable ASCII, or begins or ends with a space"
    )]
    Value,
    /// More than a server may be expected to take.
    #[error("it has more than {limit} bytes", limit = limits::HEADER_VALUE_BYTES)]
    TooLong,
    /// A user's name with a colon: all behind it would become a part of the password.
    #[error("the user's name holds a colon")]
    Colon,
    /// A control character in a user's name or password.
    #[error("it holds a line break, or another control character")]
    Control,
    /// A token with a space in it, such as one with its scheme before it.
    #[error("it holds a space; the token stands there without the word Bearer")]
    Space,
}

/// A header's name.
pub fn name(text: &str) -> Result<HeaderName, InvalidHeader> {
    let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| InvalidHeader::Name)?;
    let is = name.as_str();
    let reserved = RESERVED.contains(&is) || RESERVED_PREFIXES.iter().any(|prefix| is.starts_with(prefix));
    if reserved { Err(InvalidHeader::Reserved) } else { Ok(name) }
}

/// A header's value, marked as sensitive: whatever prints headers leaves it out.
pub fn value(bytes: &[u8]) -> Result<HeaderValue, InvalidHeader> {
    let is_blank = |byte: Option<&u8>| byte.is_some_and(|byte| *byte == b' ' || *byte == b'\t');
    if bytes.is_empty() {
        return Err(InvalidHeader::Empty);
    }
    if bytes.len() > limits::HEADER_VALUE_BYTES {
        return Err(InvalidHeader::TooLong);
    }
    let printable = bytes.iter().all(|byte| (b' '..=b'~').contains(byte) || *byte == b'\t');
    if !printable || is_blank(bytes.first()) || is_blank(bytes.last()) {
        return Err(InvalidHeader::Value);
    }
    let mut value = HeaderValue::from_bytes(bytes).map_err(|_| InvalidHeader::Value)?;
    value.set_sensitive(true);
    Ok(value)
}

/// The value of Authorization for a user and a password. Both go as the bytes that they are: UTF-8, as a rule.
pub fn basic(username: &[u8], password: &[u8]) -> Result<HeaderValue, InvalidHeader> {
    if username.contains(&b':') {
        return Err(InvalidHeader::Colon);
    }
    if username.iter().chain(password).any(u8::is_ascii_control) {
        return Err(InvalidHeader::Control);
    }
    if username.is_empty() && password.is_empty() {
        return Err(InvalidHeader::Empty);
    }
    let pair = Zeroizing::new([username, b":", password].concat());
    let encoded = Zeroizing::new(BASE64.encode(&pair));
    value(Zeroizing::new(format!("Basic {}", *encoded)).as_bytes())
}

/// The value of Authorization for a token.
pub fn bearer(token: &[u8]) -> Result<HeaderValue, InvalidHeader> {
    if token.is_empty() {
        return Err(InvalidHeader::Empty);
    }
    if token.contains(&b' ') {
        return Err(InvalidHeader::Space);
    }
    value(&Zeroizing::new([b"Bearer ", token].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_names_and_no_names_are_refused() {
        for reserved in ["Host", "CONTENT-LENGTH", "Transfer-Encoding", "Webhook-Id", "ce-type", "Expect"] {
            assert_eq!(name(reserved), Err(InvalidHeader::Reserved), "{reserved}");
        }
        for wrong in ["", "a b", "a:", "ü"] {
            assert_eq!(name(wrong), Err(InvalidHeader::Name), "{wrong}");
        }
        assert_eq!(name("X-Api-Key").unwrap(), "x-api-key");
    }

    #[test]
    fn a_value_is_printable_and_sensitive() {
        assert!(value(b"a\tb c").unwrap().is_sensitive());
        for wrong in [&b"a\r\nx: y"[..], b"a\n", b" a", b"a\t", b"\xc3\xbc", b"\0"] {
            assert_eq!(value(wrong), Err(InvalidHeader::Value));
        }
        assert_eq!(value(b""), Err(InvalidHeader::Empty));
        assert_eq!(value(&vec![b'a'; limits::HEADER_VALUE_BYTES + 1]), Err(InvalidHeader::TooLong));
    }

    #[test]
    fn basic_is_as_in_its_rfc() {
        // RFC 7617, 2 and 2.1.
        assert_eq!(basic(b"Aladdin", b"open sesame").unwrap(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(basic(b"test", "123£".as_bytes()).unwrap(), "Basic dGVzdDoxMjPCow==");
        assert_eq!(basic(b"a:b", b"c"), Err(InvalidHeader::Colon));
        assert_eq!(basic(b"a", b"c\n"), Err(InvalidHeader::Control));
        assert_eq!(basic(b"", b""), Err(InvalidHeader::Empty));
    }

    #[test]
    fn a_token_is_one_word() {
        assert_eq!(bearer(b"abc.def-_~+/=").unwrap(), "Bearer abc.def-_~+/=");
        assert_eq!(bearer(b"Bearer abc"), Err(InvalidHeader::Space));
        assert_eq!(bearer(b""), Err(InvalidHeader::Empty));
        assert_eq!(bearer(b"abc\n"), Err(InvalidHeader::Value));
    }
}
