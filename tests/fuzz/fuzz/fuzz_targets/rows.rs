//! libFuzzer's way to the target `rows`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: strowger_fuzz::sow("rows"), |data: &[u8]| strowger_fuzz::run("rows", data));
