//! Ways in for the fuzz targets, which see what the public functions keep inside.

use super::{
    ber::{self, Reader},
    chain, select,
    store::CertificateEntry,
};

/// Reads every value of an input, in every way in which it can be read.
pub fn ber(data: &[u8]) {
    let mut reader = Reader::new(data);
    while let Ok(value) = reader.value() {
        visit(value);
    }
}

fn visit(value: ber::Value<'_>) {
    let _ = value.unsigned();
    let _ = ber::dotted(value.content());
    let octets = value.octets(ber::OCTET_STRING);
    assert!(octets.is_err() || octets.is_ok_and(|octets| octets.len() <= value.encoding().len()));
    if let Ok(mut contents) = value.contents() {
        while let Ok(inner) = contents.value() {
            visit(inner);
        }
    }
}

/// Orders the chain of each of several certificates, which follow one another in the input.
pub fn chain(data: &[u8]) {
    let mut entries = Vec::new();
    let mut reader = Reader::new(data);
    while let Ok(value) = reader.value() {
        entries.push(CertificateEntry {
            alias: None,
            id: None,
            trusted: false,
            der: value.encoding().to_vec(),
        });
    }
    entries.truncate(crate::limits::KEYSTORE_CERTIFICATES);
    entries.retain(|entry| select::parse(std::slice::from_ref(entry)).is_ok());
    let Ok(certificates) = select::parse(&entries) else { return };
    for leaf in 0..certificates.len().min(4) {
        let chain = chain::order(leaf, &certificates, 1_800_000_000);
        assert!(chain.order.len() <= crate::limits::CHAIN_LENGTH);
        let mut once = chain.order.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), chain.order.len());
    }
}
