//! The chain builder: certificates one behind the other, each taken as a leaf.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| postrider::keystore::fuzz::chain(data));
