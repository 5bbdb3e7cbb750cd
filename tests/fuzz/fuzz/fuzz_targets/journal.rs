//! libFuzzer's way to the target `journal`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: strowger_fuzz::sow("journal"), |data: &[u8]| strowger_fuzz::run("journal", data));
