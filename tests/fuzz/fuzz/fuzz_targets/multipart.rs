//! libFuzzer's way to the target `multipart`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: strowger_fuzz::sow("multipart"), |data: &[u8]| strowger_fuzz::run("multipart", data));
