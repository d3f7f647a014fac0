#![no_main]

use keyslot_fuzz::luks2_header::check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check(data));
