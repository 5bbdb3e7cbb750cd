//! libFuzzer's way to the target `sdp`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: strowger_fuzz::sow("sdp"), |data: &[u8]| strowger_fuzz::run("sdp", data));
