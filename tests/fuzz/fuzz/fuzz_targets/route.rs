//! libFuzzer's way to the target `route`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: strowger_fuzz::sow("route"), |data: &[u8]| strowger_fuzz::run("route", data));
