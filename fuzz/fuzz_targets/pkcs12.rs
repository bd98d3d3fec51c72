//! Opening a keystore; MACs and digests count as right, so that what lies behind them is reached.
#![no_main]

use postrider::keystore::{Format, Request, load};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let request = Request {
        bytes: data,
        password: b"changeit",
        key_password: None,
        alias: None,
        declared: Some(Format::Pkcs12),
        file: "keystore",
        now: jiff::Timestamp::from_second(1_800_000_000).unwrap_or_default(),
    };
    let _ = load(&request);
});
