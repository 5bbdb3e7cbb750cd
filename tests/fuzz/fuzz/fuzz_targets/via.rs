//! libFuzzer's way to the target `via`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: strowger_fuzz::sow("via"), |data: &[u8]| strowger_fuzz::run("via", data));
