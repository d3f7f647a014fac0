#![no_main]

use keyslot_fuzz::volume_copy::{Run, check};

libfuzzer_sys::fuzz_target!(|run: Run| check(&run));
