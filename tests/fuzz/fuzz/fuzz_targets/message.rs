//! libFuzzer's way to the target `message`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: strowger_fuzz::sow("message"), |data: &[u8]| strowger_fuzz::run("message", data));
