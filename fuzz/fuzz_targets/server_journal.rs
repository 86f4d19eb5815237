//! A journal's segment of any bytes, as the disk may give them back.

#![no_main]

use flowradar_server::journal::{Frames, Record, write_frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // As they are: records or nothing, in ascending places within the bytes.
    let mut end = 0;
    for frame in Frames::new(bytes, 1) {
        assert_eq!(frame.offset, end + frame.skipped_bytes);
        end = frame.end();
        assert!(frame.offset as usize + frame.payload.len() <= bytes.len());
        check(frame.payload);
    }
    // And as a record whose checksums are right.
    let mut segment = vec![];
    write_frame(&mut segment, bytes, 1, 0);
    let frame = Frames::new(&segment, 1).next();
    assert_eq!(frame.map(|frame| frame.payload), Some(bytes));
    check(bytes);
});

/// Bytes make a record that reads back from what it writes, or none.
fn check(bytes: &[u8]) {
    if let Ok(record) = Record::read(bytes) {
        assert_eq!(Record::read(&record.write()), Ok(record));
    }
}
