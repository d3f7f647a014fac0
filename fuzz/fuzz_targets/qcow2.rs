#![no_main]

use keyslot_fuzz::qcow2::{Run, check};

libfuzzer_sys::fuzz_target!(|run: Run| check(&run));
