//! libFuzzer's way to the target `ownership`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: strowger_fuzz::sow("ownership"), |data: &[u8]| strowger_fuzz::run("ownership", data));
