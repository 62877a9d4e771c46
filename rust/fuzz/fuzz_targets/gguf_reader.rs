//! The reader of GGUF files, on any bytes: an error, or tensors that can be expanded.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| arrowembed::read_for_fuzzing(bytes));
