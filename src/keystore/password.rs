//! What a password may mean: formats turn its bytes into characters in different ways.
//!
//! PKCS#12's own derivation takes UTF-16BE with a terminator (RFC 7292, appendix B.1), PKCS#5 takes
//! octets (RFC 8018, in practice UTF-8), JKS takes UTF-16BE without a terminator. The bytes are read
//! as given; then without the newline that an editor or `echo` left at their end; and, where they are
//! not ASCII, as Latin-1 too, as OpenSSL before 1.1 and cert-manager's JKS do. The empty password of
//! PKCS#12 may also be no characters at all, without a terminator.

use zeroize::Zeroizing;

/// One way to read a password.
pub(crate) struct Reading {
    /// The octets, for PKCS#5.
    pub(crate) octets: Zeroizing<Vec<u8>>,
    /// UTF-16BE, for JKS.
    pub(crate) utf16: Zeroizing<Vec<u8>>,
    /// UTF-16BE with the terminator, for PKCS#12.
    pub(crate) bmp: Zeroizing<Vec<u8>>,
    /// Whether a newline at the end was left out.
    pub(crate) without_newline: bool,
}

/// What a password opened, and the index of the reading that did.
pub(crate) type Plain = (Zeroizing<Vec<u8>>, usize);

/// The ways to read a password, the likeliest first.
pub(crate) fn readings(password: &[u8]) -> Vec<Reading> {
    let mut readings = Vec::new();
    let stripped = without_newline(password);
    for (bytes, without_newline) in [(Some(password), false), (stripped, true)] {
        let Some(bytes) = bytes else { continue };
        if let Ok(text) = std::str::from_utf8(bytes) {
            readings.push(Reading::new(bytes, text.encode_utf16(), without_newline));
        }
        if !bytes.is_ascii() {
            readings.push(Reading::new(bytes, bytes.iter().map(|b| u16::from(*b)), without_newline));
        }
        if bytes.is_empty() {
            let mut null = Reading::new(bytes, std::iter::empty(), without_newline);
            null.bmp.clear();
            readings.push(null);
        }
    }
    readings
}

/// The password without the newline at its end, if there is one.
pub(crate) fn without_newline(password: &[u8]) -> Option<&[u8]> {
    let stripped = password.strip_suffix(b"\n")?;
    Some(stripped.strip_suffix(b"\r").unwrap_or(stripped))
}

impl Reading {
    fn new(octets: &[u8], units: impl Iterator<Item = u16>, without_newline: bool) -> Self {
        // Room for all from the start: a vector that grows leaves copies behind.
        let mut bmp = Zeroizing::new(Vec::with_capacity(octets.len() * 2 + 2));
        for unit in units {
            bmp.extend_from_slice(&unit.to_be_bytes());
        }
        let utf16 = bmp.clone();
        bmp.extend_from_slice(&[0, 0]);
        Self { octets: Zeroizing::new(octets.to_vec()), utf16, bmp, without_newline }
    }
}
