//! Trace files of every format, compressed or not: packets, then at most one error.
#![no_main]

// The module alone: the rest of the command line brings a hundred crates that nobody wants to build
// with instrumentation.
#[allow(dead_code, unreachable_pub, unused_imports)]
#[path = "../../flowradar-cli/src/trace/mod.rs"]
mod trace;

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use trace::{InputFormat, TraceReader};

// Two bits choose the format; the rest is the file.
fuzz_target!(|bytes: &[u8]| {
    let [choice, file @ ..] = bytes else {
        return;
    };
    let format = InputFormat::ALL[*choice as usize % InputFormat::ALL.len()];
    let file = Cursor::new(file.to_vec());
    let Ok(mut reader) = TraceReader::from_reader(file, "fuzz", format) else {
        return;
    };
    let mut packets = 0;
    let mut failed = false;
    for packet in &mut reader {
        match packet {
            Ok(_) => packets += 1,
            Err(error) => {
                assert!(!failed, "a second error: {error}");
                failed = true;
            }
        }
    }
    assert!(reader.next().is_none());
    let stats = reader.stats();
    assert_eq!(stats.ipv4_packets + stats.ipv6_packets, packets);
    assert_eq!(
        stats.packets,
        packets + stats.not_ip_packets + stats.uncounted_packets()
    );
});
