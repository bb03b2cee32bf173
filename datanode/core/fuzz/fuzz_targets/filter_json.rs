#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rhumb_core_fuzz::filter_json(data));
