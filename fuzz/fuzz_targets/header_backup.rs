#![no_main]

use keyslot_fuzz::header_backup::{Run, check};

libfuzzer_sys::fuzz_target!(|run: Run| check(&run));
