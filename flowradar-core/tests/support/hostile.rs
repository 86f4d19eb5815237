//! What must hold of any bytes that the flowset reader accepts. Shared with the fuzz targets.

use std::collections::HashSet;

use flowradar_core::decode::{cells_of, single_decode};
use flowradar_core::{
    Counter, CounterStatus, FlowKey, FlowKeyV4, FlowKeyV6, Flowset, KeyKind, decode::SingleDecode,
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Writes the checksums that belong to the bytes, as far as they have the lengths for it.
pub(crate) fn fix_checksums(flowset: &mut [u8]) {
    let length = flowset.len();
    if length < 120 {
        return;
    }
    let header_bytes = (112 + flowset[104] as usize).next_multiple_of(8) + 8;
    if length < header_bytes + 8 {
        return;
    }
    let mut seed = 0;
    for section in [0..header_bytes, header_bytes..length] {
        let (bytes, checksum) = flowset[section]
            .split_last_chunk_mut::<8>()
            .expect("both sections have eight bytes or more");
        let computed = xxh3_64_with_seed(bytes, seed);
        *checksum = computed.to_le_bytes();
        // The header's checksum is the payload's seed.
        seed = computed;
    }
}

/// Decodes whatever it is, and checks what was decoded.
pub(crate) fn check_decode<B: AsRef<[u8]>>(flowset: &Flowset<B>) {
    match flowset.header().key {
        KeyKind::V4 => check_decoded(
            flowset,
            &single_decode::<FlowKeyV4, _>(flowset).expect("the same kind of key"),
        ),
        KeyKind::V6 => check_decoded(
            flowset,
            &single_decode::<FlowKeyV6, _>(flowset).expect("the same kind of key"),
        ),
    }
}

/// Checks a decoded flowset that may hold anything: what is claimed must follow from the cells.
pub(crate) fn check_decoded<K: FlowKey, B: AsRef<[u8]>>(
    flowset: &Flowset<B>,
    decoded: &SingleDecode<K>,
) {
    let table = flowset.layout().table();
    assert!(decoded.flows.len() <= table.cells());
    assert!(decoded.leftover.cells <= table.cells());
    for flow in &decoded.flows {
        check_bounds(&flow.packets);
        assert!(!flow.packets.is_exact() || flow.packets.value > 0);
        assert_eq!(flow.bytes.is_some(), table.widths().counts_bytes());
        if let Some(bytes) = &flow.bytes {
            check_bounds(bytes);
        }
    }
    if decoded.is_complete() {
        check_complete(flowset, decoded);
    }
}

fn check_bounds(counter: &Counter) {
    if let CounterStatus::Unresolved { least, most } = counter.status {
        assert!((least..=most).contains(&counter.value), "{counter:?}");
    }
}

/// Encoding the flows again must give the cells of the flowset.
fn check_complete<K: FlowKey, B: AsRef<[u8]>>(flowset: &Flowset<B>, decoded: &SingleDecode<K>) {
    let table = flowset.layout().table();
    let widths = table.widths();
    let keys: HashSet<K> = decoded.flows.iter().map(|flow| flow.key).collect();
    assert_eq!(keys.len(), decoded.flows.len(), "a flow came twice");

    let mut sums = vec![(0_u32, 0_u64, 0_u64); table.cells()];
    for flow in &decoded.flows {
        for &cell in &cells_of(flowset.layout(), &flow.key)[..table.hashes()] {
            let (flows, packets, bytes) = &mut sums[cell as usize];
            *flows += 1;
            *packets += flow.packets.value;
            *bytes += flow.bytes.map_or(0, |bytes| bytes.value);
        }
    }
    let counts = flowset.flow_counts().zip(flowset.packet_counts());
    for ((flow_count, packet_count), &(flows, packets, _)) in counts.zip(&sums) {
        assert_eq!(flow_count, flows);
        let saturated = packet_count == widths.packet_count_saturated();
        assert!(saturated || packet_count as u64 == packets);
    }
    for (byte_count, &(_, _, bytes)) in flowset.byte_counts().into_iter().flatten().zip(&sums) {
        assert!(byte_count == widths.byte_count_saturated() || byte_count == bytes);
    }
}
