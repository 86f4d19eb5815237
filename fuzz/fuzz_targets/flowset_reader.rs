//! The flowset reader on any bytes, as they are and with checksums put right: flowsets or an error
//! within the bytes, never a panic.
#![no_main]

#[path = "../../flowradar-core/tests/support/hostile.rs"]
mod hostile;

use flowradar_core::Flowset;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    read_all(bytes);
    let mut bytes = bytes.to_vec();
    hostile::fix_checksums(&mut bytes);
    read_all(&bytes);
});

/// Reads one flowset after the other.
fn read_all(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match Flowset::split_first(bytes) {
            Ok((flowset, after)) => {
                hostile::check_decode(&flowset);
                let whole = Flowset::new_checked(flowset.as_bytes());
                assert!(whole.is_ok_and(|whole| whole.header() == flowset.header()));
                bytes = after;
            }
            Err(error) => {
                assert!(error.offset <= bytes.len(), "{error}");
                return;
            }
        }
    }
}
