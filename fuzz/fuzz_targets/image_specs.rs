#![no_main]

use keyslot_fuzz::image_specs::check;

libfuzzer_sys::fuzz_target!(|text: &str| check(text));
