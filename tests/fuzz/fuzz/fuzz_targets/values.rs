//! libFuzzer's way to the target `values`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: strowger_fuzz::sow("values"), |data: &[u8]| strowger_fuzz::run("values", data));
