//! BER (X.690), as far as keystores use it: the one place that believes a length.
//!
//! Definite and indefinite lengths (8.1.3), primitive and constructed strings (8.7), tags up to 30.
//! Invariants: a value is a slice of its input, so nothing is allocated by what a length claims; a
//! value never reaches beyond the value that holds it; nesting is at most [`BER_DEPTH`]. Finding the
//! end of an indefinite length costs one pass over it a level, so the work is bounded by the product
//! of [`BER_DEPTH`] and the size of the input.

use std::ops::Deref;

use zeroize::Zeroizing;

use crate::limits::BER_DEPTH;

/// INTEGER.
pub(crate) const INTEGER: u8 = 0x02;
/// OCTET STRING.
pub(crate) const OCTET_STRING: u8 = 0x04;
/// OBJECT IDENTIFIER.
pub(crate) const OID: u8 = 0x06;
/// SEQUENCE.
pub(crate) const SEQUENCE: u8 = 0x30;
/// SET.
pub(crate) const SET: u8 = 0x31;
/// `[0]`, primitive.
pub(crate) const CONTEXT_0: u8 = 0x80;
/// `[0]`, constructed.
pub(crate) const CONTEXT_0_CONSTRUCTED: u8 = 0xa0;

const CONSTRUCTED: u8 = 0x20;
const TAG_NUMBER: u8 = 0x1f;
const END_OF_CONTENTS: u8 = 0x00;

/// Why an encoding is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// A value claims more bytes than there are.
    #[error("it ends too early")]
    Truncated,
    /// Nested deeper than the bound.
    #[error("it is nested too deeply")]
    TooDeep,
    /// No BER, or another type than the format has at this place.
    #[error("its structure is damaged")]
    Malformed,
}

/// One value: its identifier octet and its contents.
#[derive(Clone, Copy)]
pub(crate) struct Value<'a> {
    identifier: u8,
    content: &'a [u8],
    encoding: &'a [u8],
    depth: usize,
}

/// Reads one value after the other.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    depth: usize,
}

/// The octets of a string: a slice of the input, or its pieces put together.
pub(crate) enum Octets<'a> {
    /// A primitive string.
    Slice(&'a [u8]),
    /// A constructed string.
    Joined(Zeroizing<Vec<u8>>),
}

impl Deref for Octets<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Slice(slice) => slice,
            Self::Joined(joined) => joined,
        }
    }
}

impl<'a> Reader<'a> {
    /// Reads from the top of an input.
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self { rest: input, depth: 0 }
    }

    /// Reads an input that was itself the contents of a value at `depth`.
    pub(crate) fn at_depth(input: &'a [u8], depth: usize) -> Self {
        Self { rest: input, depth }
    }

    /// Whether all is read.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The identifier octet of the next value.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The next value.
    pub(crate) fn value(&mut self) -> Result<Value<'a>, Error> {
        let header = Header::read(self.rest)?;
        let start = header.size;
        let (end, after) = match header.length {
            Some(length) => {
                let end = start.checked_add(length).filter(|end| *end <= self.rest.len());
                let end = end.ok_or(Error::Truncated)?;
                (end, end)
            }
            None => end_of_contents(self.rest, start, self.depth)?,
        };
        let value = Value {
            identifier: header.identifier,
            content: self.rest.get(start..end).ok_or(Error::Truncated)?,
            encoding: self.rest.get(..after).ok_or(Error::Truncated)?,
            depth: self.depth,
        };
        self.rest = self.rest.get(after..).ok_or(Error::Truncated)?;
        Ok(value)
    }

    /// The next value, which must have this identifier octet.
    pub(crate) fn expect(&mut self, identifier: u8) -> Result<Value<'a>, Error> {
        match self.peek() {
            None => Err(Error::Truncated),
            Some(found) if found == identifier => self.value(),
            Some(_) => Err(Error::Malformed),
        }
    }

    /// The next value if it has this identifier octet.
    pub(crate) fn optional(&mut self, identifier: u8) -> Result<Option<Value<'a>>, Error> {
        if self.peek() == Some(identifier) { self.value().map(Some) } else { Ok(None) }
    }

    /// The next value, which must be a SEQUENCE, opened.
    pub(crate) fn sequence(&mut self) -> Result<Reader<'a>, Error> {
        self.expect(SEQUENCE)?.contents()
    }

    /// The next value, which must be an OBJECT IDENTIFIER: its encoded arcs.
    pub(crate) fn oid(&mut self) -> Result<&'a [u8], Error> {
        Ok(self.expect(OID)?.content)
    }

    /// The next value, which must be an INTEGER of zero or more; above 64 bits it is `u64::MAX`.
    pub(crate) fn unsigned(&mut self) -> Result<u64, Error> {
        self.expect(INTEGER)?.unsigned()
    }

    /// The next value, which must be an OCTET STRING, primitive or constructed.
    pub(crate) fn octets(&mut self) -> Result<Octets<'a>, Error> {
        self.value()?.octets(OCTET_STRING)
    }
}

impl<'a> Value<'a> {
    /// The identifier octet: class, constructed or primitive, and tag number.
    pub(crate) fn identifier(&self) -> u8 {
        self.identifier
    }

    /// The contents octets.
    pub(crate) fn content(&self) -> &'a [u8] {
        self.content
    }

    /// The whole encoding, identifier and length included.
    pub(crate) fn encoding(&self) -> &'a [u8] {
        self.encoding
    }

    /// How deep its contents lie.
    pub(crate) fn inner_depth(&self) -> usize {
        self.depth + 1
    }

    /// Opens a constructed value.
    pub(crate) fn contents(&self) -> Result<Reader<'a>, Error> {
        if self.identifier & CONSTRUCTED == 0 {
            return Err(Error::Malformed);
        }
        if self.depth + 1 > BER_DEPTH {
            return Err(Error::TooDeep);
        }
        Ok(Reader { rest: self.content, depth: self.depth + 1 })
    }

    /// The octets of a string whose primitive form has this identifier (8.7; under IMPLICIT tagging
    /// the pieces are OCTET STRINGs all the same).
    pub(crate) fn octets(&self, primitive: u8) -> Result<Octets<'a>, Error> {
        if self.identifier == primitive {
            return Ok(Octets::Slice(self.content));
        }
        if self.identifier != primitive | CONSTRUCTED {
            return Err(Error::Malformed);
        }
        let mut joined = Zeroizing::new(Vec::with_capacity(self.content.len()));
        self.join(&mut joined)?;
        Ok(Octets::Joined(joined))
    }

    fn join(&self, joined: &mut Vec<u8>) -> Result<(), Error> {
        let mut pieces = self.contents()?;
        while !pieces.is_empty() {
            let piece = pieces.value()?;
            match piece.identifier {
                OCTET_STRING => joined.extend_from_slice(piece.content),
                id if id == OCTET_STRING | CONSTRUCTED => piece.join(joined)?,
                _ => return Err(Error::Malformed),
            }
        }
        Ok(())
    }

    /// An INTEGER of zero or more; above 64 bits it is `u64::MAX`, which is over every bound.
    pub(crate) fn unsigned(&self) -> Result<u64, Error> {
        let first = *self.content.first().ok_or(Error::Malformed)?;
        if self.identifier != INTEGER || first & 0x80 != 0 {
            return Err(Error::Malformed);
        }
        let digits = self.content.iter().skip_while(|byte| **byte == 0);
        if digits.clone().count() > size_of::<u64>() {
            return Ok(u64::MAX);
        }
        Ok(digits.fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}

struct Header {
    identifier: u8,
    size: usize,
    /// `None` is the indefinite form.
    length: Option<usize>,
}

impl Header {
    fn read(input: &[u8]) -> Result<Self, Error> {
        let identifier = *input.first().ok_or(Error::Truncated)?;
        if identifier & TAG_NUMBER == TAG_NUMBER {
            return Err(Error::Malformed);
        }
        let first = *input.get(1).ok_or(Error::Truncated)?;
        match first {
            0..0x80 => Ok(Self { identifier, size: 2, length: Some(usize::from(first)) }),
            0x80 if identifier & CONSTRUCTED == 0 => Err(Error::Malformed),
            0x80 => Ok(Self { identifier, size: 2, length: None }),
            0xff => Err(Error::Malformed),
            _ => {
                let size = 2 + usize::from(first & 0x7f);
                let octets = input.get(2..size).ok_or(Error::Truncated)?;
                // BER allows leading zeros; a number that does not fit lies beyond any input.
                let length = octets
                    .iter()
                    .try_fold(0_usize, |n, byte| n.checked_mul(256)?.checked_add(usize::from(*byte)));
                Ok(Self { identifier, size, length: Some(length.ok_or(Error::Truncated)?) })
            }
        }
    }
}

/// Where the contents of an indefinite length end, and where the value does, behind its
/// end-of-contents octets. Definite values inside are stepped over, indefinite ones are counted.
fn end_of_contents(input: &[u8], start: usize, depth: usize) -> Result<(usize, usize), Error> {
    let mut open = 1;
    let mut at = start;
    loop {
        let rest = input.get(at..).ok_or(Error::Truncated)?;
        let header = Header::read(rest)?;
        if header.identifier == END_OF_CONTENTS {
            if header.length != Some(0) || header.size != 2 {
                return Err(Error::Malformed);
            }
            open -= 1;
            if open == 0 {
                return Ok((at, at + header.size));
            }
        }
        match header.length {
            None if depth + open >= BER_DEPTH => return Err(Error::TooDeep),
            None => open += 1,
            Some(_) => {}
        }
        let next = at.checked_add(header.size).and_then(|at| at.checked_add(header.length.unwrap_or(0)));
        at = next.ok_or(Error::Truncated)?;
    }
}

/// An object identifier in dotted notation, for messages.
pub(crate) fn dotted(oid: &[u8]) -> String {
    let mut arcs = Vec::new();
    let mut arc = 0_u64;
    for byte in oid.iter().take(32) {
        arc = arc.saturating_mul(128).saturating_add(u64::from(byte & 0x7f));
        if byte & 0x80 == 0 {
            if arcs.is_empty() {
                // X.690, 8.19.4: the first subidentifier carries two arcs.
                let root = (arc / 40).min(2);
                arcs.push(root.to_string());
                arc -= root * 40;
            }
            arcs.push(arc.to_string());
            arc = 0;
        }
    }
    arcs.join(".")
}

#[cfg(test)]
mod tests;
