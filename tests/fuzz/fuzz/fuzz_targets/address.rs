//! libFuzzer's way to the target `address`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: strowger_fuzz::sow("address"), |data: &[u8]| strowger_fuzz::run("address", data));
