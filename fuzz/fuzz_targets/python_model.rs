#![no_main]

use rust_eland_fuzz::{limit, targets};

libfuzzer_sys::fuzz_target!(|input: &[u8]| limit::run(targets::python_model, input));
