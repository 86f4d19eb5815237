//! The flowset reader on any bytes: a flowset or an error within the bytes, never a panic.
#![no_main]

#[path = "../../flowradar-core/tests/support/hostile.rs"]
mod hostile;

use flowradar_core::Flowset;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while !rest.is_empty() {
        match Flowset::split_first(rest) {
            Ok((flowset, after)) => {
                hostile::check_decode(&flowset);
                let whole = Flowset::new_checked(flowset.as_bytes());
                assert!(whole.is_ok_and(|whole| whole.header() == flowset.header()));
                rest = after;
            }
            Err(error) => {
                assert!(error.offset <= rest.len(), "{error}");
                return;
            }
        }
    }
});
