//! `Range` of content of any size, and `Content-Range`. The first byte is the size's magnitude.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((magnitude, header)) = data.split_first() else { return };
    if let Ok(header) = std::str::from_utf8(header) {
        // From 0 over every power of two to the largest number there is.
        let size = 1u64.checked_shl(u32::from(*magnitude)).unwrap_or_default().wrapping_sub(1);
        longshore_server::api::fuzzing::range(header, size);
        longshore_server::api::fuzzing::content_range(header);
    }
});
