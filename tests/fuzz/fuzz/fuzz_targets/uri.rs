//! libFuzzer's way to the target `uri`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: strowger_fuzz::sow("uri"), |data: &[u8]| strowger_fuzz::run("uri", data));
