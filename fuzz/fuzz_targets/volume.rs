#![no_main]

use keyslot_fuzz::volume::{Run, check};

libfuzzer_sys::fuzz_target!(|run: Run| check(&run));
