#![no_main]

use keyslot_fuzz::amend_ops_luks2::{Run, check};

libfuzzer_sys::fuzz_target!(|run: Run| check(&run));
