//! libFuzzer's way to the target `spool`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: strowger_fuzz::sow("spool"), |data: &[u8]| strowger_fuzz::run("spool", data));
