//! libFuzzer's way to the target `records`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: strowger_fuzz::sow("records"), |data: &[u8]| strowger_fuzz::run("records", data));
