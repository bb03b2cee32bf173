#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rhumb_formats_fuzz::arrow(data));
