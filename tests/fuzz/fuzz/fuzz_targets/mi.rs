//! libFuzzer's way to the target `mi`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: strowger_fuzz::sow("mi"), |data: &[u8]| strowger_fuzz::run("mi", data));
