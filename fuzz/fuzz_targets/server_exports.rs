//! Datagrams of NetFlow, IPFIX and sFlow of any bytes, one after the other, each after its length (two
//! bytes), all of one exporter.

#![no_main]

use flowradar_server::classic::{NetflowDecoder, decode_sflow};
use libfuzzer_sys::fuzz_target;

const NOW_NS: u64 = 1_700_000_000_000_000_000;

fuzz_target!(|bytes: &[u8]| {
    let mut netflow = NetflowDecoder::default();
    let from = ([192, 0, 2, 1], 2055).into();
    let mut rest = bytes;
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes(*length)).min(after.len());
        let (datagram, after) = after.split_at(length);
        rest = after;
        for decoded in [
            netflow.decode(from, datagram, NOW_NS),
            decode_sflow(datagram, NOW_NS),
        ] {
            for record in decoded.records {
                assert!(record.packets_estimated() >= record.packets);
            }
        }
    }
});
