#![no_main]

use keyslot_fuzz::restore_ops::{Run, check};

libfuzzer_sys::fuzz_target!(|run: Run| check(&run));
