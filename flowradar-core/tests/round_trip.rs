//! Encode, write, read and decode against an exact counter.

use std::collections::HashMap;

use flowradar_core::decode::single_decode;
use flowradar_core::flowset::Epoch;
use flowradar_core::hash::{CrcAdd, HashFamily, Mix64, Xxh3};
use flowradar_core::layout::{CellWidths, Coupling, FilterLayout, Layout, TableLayout};
use flowradar_core::{Encoder, FlowKey, FlowKeyV4, FlowKeyV6, Flowset, Packet};
use proptest::prelude::*;

/// Any layout that is roomy enough for some hundred flows.
fn layouts(family: impl HashFamily) -> impl Strategy<Value = Layout> {
    fn id<H: HashFamily>(_: &H) -> flowradar_core::hash::HashFamilyId {
        H::ID
    }
    let family = id(&family);
    let coupling = prop_oneof![Just(None), (200_u32..400).prop_map(Some)];
    let filter = prop_oneof![
        (500_u32..2000).prop_map(|blocks| FilterLayout::blocked(blocks).expect("not empty")),
        (1_u8..=8, 20_000_u32..60_000)
            .prop_map(|(hashes, bits)| FilterLayout::partitioned(hashes, bits).expect("not empty")),
    ];
    (2_u8..=6, 400_u32..800, coupling, filter, any::<u64>()).prop_map(
        move |(hashes, subtable_cells, window, filter, seed)| {
            let coupling = window.map_or(Coupling::Plain, |cells| Coupling::Window { cells });
            let widths = CellWidths::new(8, 32, 48).expect("in range");
            let table = TableLayout::new(hashes, subtable_cells, coupling, widths).expect("fits");
            Layout::new(family, seed, table, filter).expect("eight hashes or fewer")
        },
    )
}

fn v4() -> impl Strategy<Value = FlowKeyV4> {
    any::<(u32, u32, u16, u16, u8)>().prop_map(|(src, dst, src_port, dst_port, protocol)| {
        FlowKeyV4::new(src.into(), dst.into(), src_port, dst_port, protocol)
    })
}

fn v6() -> impl Strategy<Value = FlowKeyV6> {
    any::<(u128, u128, u16, u16, u8)>().prop_map(|(src, dst, src_port, dst_port, protocol)| {
        FlowKeyV6::new(src.into(), dst.into(), src_port, dst_port, protocol)
    })
}

/// Packets of some flows, interleaved.
fn packets<K: FlowKey>(key: impl Strategy<Value = K>) -> impl Strategy<Value = Vec<Packet<K>>> {
    (
        prop::collection::vec(key, 1..300),
        prop::collection::vec((any::<prop::sample::Index>(), 20_u32..9000), 0..1000),
    )
        .prop_map(|(keys, packets)| {
            packets
                .into_iter()
                .map(|(index, ip_bytes)| Packet {
                    key: *index.get(&keys),
                    ip_bytes,
                })
                .collect()
        })
}

/// Whatever is found must be true; what is called exact must be right; nothing may be missing
/// without being said.
fn check<K: FlowKey, H: HashFamily>(layout: Layout, packets: &[Packet<K>], batch: bool) {
    let mut encoder = Encoder::<K, H>::new("s1".parse().expect("a name"), layout, Epoch::number(7))
        .expect("same family");
    let mut truth: HashMap<K, (u64, u64)> = HashMap::new();
    for packet in packets {
        let (count, bytes) = truth.entry(packet.key).or_default();
        *count += 1;
        *bytes += packet.ip_bytes as u64;
        if !batch {
            encoder.packet(packet);
        }
    }
    if batch {
        encoder.packets(packets);
    }
    let bytes = encoder
        .end_epoch(Epoch::number(8))
        .expect("first epoch")
        .to_flowset();
    let flowset = Flowset::new_checked(bytes).expect("own flowset");
    assert_eq!(flowset.header().layout, layout);
    assert_eq!(flowset.header().epoch, Epoch::number(7));
    let decoded = single_decode::<K, _>(&flowset).expect("same kind of key");
    for flow in &decoded.flows {
        let &(count, bytes) = truth.get(&flow.key).expect("a flow that was there");
        for (counter, truth) in [(flow.packets, count), (flow.bytes.expect("counted"), bytes)] {
            match counter.status {
                flowradar_core::CounterStatus::Unresolved { least, most } => {
                    assert!((least..=most).contains(&truth), "{counter:?} {truth}");
                }
                _ => assert_eq!(counter.value, truth),
            }
        }
    }
    if decoded.is_complete() {
        // A hidden flow is the one way to miss a flow, and fails the proof.
        assert_eq!(decoded.flows.len(), truth.len());
    }
}

proptest! {
    #[test]
    fn xxh3_v4(layout in layouts(Xxh3), packets in packets(v4()), batch: bool) {
        check::<_, Xxh3>(layout, &packets, batch);
    }

    #[test]
    fn mix64_v4(layout in layouts(Mix64), packets in packets(v4()), batch: bool) {
        check::<_, Mix64>(layout, &packets, batch);
    }

    #[test]
    fn crc_add_v4(layout in layouts(CrcAdd), packets in packets(v4()), batch: bool) {
        check::<_, CrcAdd>(layout, &packets, batch);
    }

    #[test]
    fn xxh3_v6(layout in layouts(Xxh3), packets in packets(v6()), batch: bool) {
        check::<_, Xxh3>(layout, &packets, batch);
    }

    #[test]
    fn mix64_v6(layout in layouts(Mix64), packets in packets(v6()), batch: bool) {
        check::<_, Mix64>(layout, &packets, batch);
    }

    #[test]
    fn crc_add_v6(layout in layouts(CrcAdd), packets in packets(v6()), batch: bool) {
        check::<_, CrcAdd>(layout, &packets, batch);
    }
}
