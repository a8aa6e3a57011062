#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tower_operations_fuzz::poll::check(data));
