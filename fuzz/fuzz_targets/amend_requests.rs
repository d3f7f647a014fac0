#![no_main]

use keyslot_fuzz::amend_requests::check;

libfuzzer_sys::fuzz_target!(|text: &str| check(text));
