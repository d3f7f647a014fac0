#![no_main]

use keyslot_fuzz::options::check;

libfuzzer_sys::fuzz_target!(|text: &str| check(text));
