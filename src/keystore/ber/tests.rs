use proptest::prelude::*;

use super::*;

/// A string as it may be written: whole, or in pieces, each of either length form.
#[derive(Clone, Debug)]
enum Written {
    Whole(Vec<u8>),
    Pieces { pieces: Vec<Written>, indefinite: bool },
}

impl Written {
    fn octets(&self) -> Vec<u8> {
        match self {
            Self::Whole(octets) => octets.clone(),
            Self::Pieces { pieces, .. } => pieces.iter().flat_map(Self::octets).collect(),
        }
    }

    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Whole(octets) => tlv(OCTET_STRING, octets, false),
            Self::Pieces { pieces, indefinite } => {
                let content: Vec<u8> = pieces.iter().flat_map(Self::encode).collect();
                tlv(OCTET_STRING | CONSTRUCTED, &content, *indefinite)
            }
        }
    }
}

fn tlv(identifier: u8, content: &[u8], indefinite: bool) -> Vec<u8> {
    let mut out = vec![identifier];
    if indefinite {
        out.push(0x80);
        out.extend(content);
        out.extend([0, 0]);
        return out;
    }
    match content.len() {
        short @ 0..0x80 => out.push(u8::try_from(short).unwrap()),
        long => {
            out.push(0x84);
            out.extend(u32::try_from(long).unwrap().to_be_bytes());
        }
    }
    out.extend(content);
    out
}

fn written() -> impl Strategy<Value = Written> {
    let whole = proptest::collection::vec(any::<u8>(), 0..200).prop_map(Written::Whole);
    whole.prop_recursive(6, 32, 4, |inner| {
        (proptest::collection::vec(inner, 0..4), any::<bool>())
            .prop_map(|(pieces, indefinite)| Written::Pieces { pieces, indefinite })
    })
}

/// Reads all there is, at every depth; how many values there were.
fn visit(mut reader: Reader<'_>) -> usize {
    let mut values = 0;
    while let Ok(value) = reader.value() {
        assert!(value.content().len() <= value.encoding().len());
        let _ = (value.unsigned(), value.octets(OCTET_STRING), dotted(value.content()));
        values += 1 + value.contents().map_or(0, visit);
    }
    values
}

proptest! {
    #[test]
    fn a_string_is_the_same_however_it_is_written(written in written(), after in any::<Vec<u8>>()) {
        let mut input = written.encode();
        input.extend(&after);
        let mut reader = Reader::new(&input);
        let octets = reader.octets().unwrap();
        prop_assert_eq!(&*octets, written.octets());
        prop_assert_eq!(reader.rest, after);
    }

    #[test]
    fn no_bytes_harm(bytes in any::<Vec<u8>>()) {
        // A value takes two bytes at least, and is seen once for each value around it.
        prop_assert!(visit(Reader::new(&bytes)) <= bytes.len());
    }

    #[test]
    fn nothing_that_looks_like_ber_harms(
        bytes in proptest::collection::vec(
            prop_oneof![Just(0x30_u8), Just(0x24), Just(0x80), Just(0), Just(0x04), Just(0x84), 0..=16_u8],
            0..400,
        )
    ) {
        prop_assert!(visit(Reader::new(&bytes)) <= bytes.len());
    }

    #[test]
    fn a_value_cut_short_is_no_value(written in written(), cut in any::<prop::sample::Index>()) {
        let whole = written.encode();
        let cut = &whole[..cut.index(whole.len())];
        prop_assert!(Reader::new(cut).octets().is_err());
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |levels: usize, indefinite| {
        (0..levels).fold(vec![5, 0], |inner, _| tlv(SEQUENCE, &inner, indefinite))
    };
    let descend = |bytes: &[u8]| {
        let mut reader = Reader::new(bytes);
        loop {
            let value = reader.value()?;
            if value.identifier() == 5 {
                return Ok(());
            }
            reader = value.contents()?;
        }
    };
    for indefinite in [false, true] {
        assert_eq!(descend(&nested(BER_DEPTH, indefinite)), Ok(()));
        assert_eq!(descend(&nested(BER_DEPTH + 1, indefinite)), Err(Error::TooDeep));
    }
}

#[test]
fn a_claimed_length_beyond_the_input_is_refused() {
    for claim in [
        &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff][..],
        &[0x04, 0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ] {
        assert_eq!(Reader::new(claim).value().err(), Some(Error::Truncated));
    }
    assert_eq!(Reader::new(&[0x04, 0x80]).value().err(), Some(Error::Malformed));
    assert_eq!(Reader::new(&[0x1f, 0x81, 0x00]).value().err(), Some(Error::Malformed));
}

#[test]
fn integers_saturate_and_are_not_negative() {
    let number = |content: &[u8]| Reader::new(&tlv(INTEGER, content, false)).unsigned();
    assert_eq!(number(&[0]), Ok(0));
    assert_eq!(number(&[0, 0xff]), Ok(255));
    assert_eq!(number(&[1; 9]), Ok(u64::MAX));
    assert_eq!(number(&[0x80]), Err(Error::Malformed));
    assert_eq!(number(&[]), Err(Error::Malformed));
}

#[test]
fn object_identifiers_are_dotted() {
    assert_eq!(dotted(super::super::oid::AES256_CBC), "2.16.840.1.101.3.4.1.42");
    assert_eq!(dotted(super::super::oid::RSA), "1.2.840.113549.1.1.1");
    assert_eq!(dotted(&[]), "");
}
