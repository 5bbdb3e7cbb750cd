//! libFuzzer's way to the target `sequence`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: strowger_fuzz::sow("sequence"), |data: &[u8]| strowger_fuzz::run("sequence", data));
