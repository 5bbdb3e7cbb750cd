//! libFuzzer's way to the target `config`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: strowger_fuzz::sow("config"), |data: &[u8]| strowger_fuzz::run("config", data));
