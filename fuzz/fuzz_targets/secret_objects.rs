#![no_main]

use keyslot_fuzz::secret_objects::check;

libfuzzer_sys::fuzz_target!(|text: &str| check(text));
