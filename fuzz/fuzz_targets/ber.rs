//! The BER reader: whatever the bytes, it ends, and no value reaches beyond its input.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| postrider::keystore::fuzz::ber(data));
