//! Reading whatever may stand in a journal, and writing and reading records.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| longshore_server::meta::fuzzing::journal(bytes));
