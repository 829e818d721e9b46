//! From a path to an endpoint. The first byte chooses the method.

#![no_main]

use http::Method;
use libfuzzer_sys::fuzz_target;

const METHODS: [Method; 6] = [Method::GET, Method::HEAD, Method::PUT, Method::POST, Method::PATCH, Method::DELETE];

fuzz_target!(|data: &[u8]| {
    let Some((method, path)) = data.split_first() else { return };
    if let Ok(path) = std::str::from_utf8(path) {
        longshore_server::api::fuzzing::path(&METHODS[usize::from(*method) % METHODS.len()], path);
    }
});
