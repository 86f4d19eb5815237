//! Counters that reach their highest value stay there, and what depends on them is marked.

use flowradar_core::decode::single_decode;
use flowradar_core::flowset::Epoch;
use flowradar_core::hash::HashFamilyId;
use flowradar_core::layout::{CellWidths, Coupling, FilterLayout, Layout, TableLayout};
use flowradar_core::{CounterStatus, Encoder, FlowKeyV4, Flowset, Packet};

fn layout(packet_count_bits: u8) -> Layout {
    let widths = CellWidths::new(8, packet_count_bits, 0).expect("in range");
    let table = TableLayout::new(3, 50, Coupling::Plain, widths).expect("fits");
    let filter = FilterLayout::blocked(20).expect("fits");
    Layout::new(HashFamilyId::Xxh3, 1, table, filter).expect("enough hashes")
}

fn key(port: u16) -> FlowKeyV4 {
    FlowKeyV4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), port, 443, 6)
}

/// The status of the first flow, which got `first` packets at once and then `then` one by one, and
/// that of a flow beside it with two packets.
fn statuses(
    packet_count_bits: u8,
    first: u32,
    then: usize,
    batch: bool,
) -> [(u64, CounterStatus); 2] {
    let name = "s1".parse().expect("a name");
    let mut encoder = Encoder::<FlowKeyV4>::new(name, layout(packet_count_bits), Epoch::number(0))
        .expect("same family");
    encoder.packets_of_flow(&key(1), first, first as u64);
    let packet = |port| Packet {
        key: key(port),
        ip_bytes: 1,
    };
    let mut packets = vec![packet(1); then];
    packets.extend([packet(2); 2]);
    if batch {
        encoder.packets(&packets);
    } else {
        packets.iter().for_each(|packet| encoder.packet(packet));
    }
    let bytes = encoder
        .end_epoch(Epoch::number(1))
        .expect("first epoch")
        .to_flowset();
    let flowset = Flowset::new_checked(bytes).expect("just written");
    let decoded = single_decode::<FlowKeyV4, _>(&flowset).expect("IPv4");
    assert_eq!(decoded.flows.len(), 2);
    [1, 2].map(|port| {
        let mut flows = decoded.flows.iter();
        let flow = flows
            .find(|flow| flow.key == key(port))
            .expect("both were found");
        (flow.packets.value, flow.packets.status)
    })
}

#[test]
fn counters_below_their_highest_value_are_exact() {
    for batch in [false, true] {
        assert_eq!(
            statuses(8, 250, 4, batch),
            [(254, CounterStatus::Exact), (2, CounterStatus::Exact)]
        );
        let most = u32::MAX - 10;
        assert_eq!(
            statuses(32, most, 9, batch),
            [
                (most as u64 + 9, CounterStatus::Exact),
                (2, CounterStatus::Exact)
            ]
        );
    }
}

#[test]
fn saturated_counters_are_open_and_spoil_no_other() {
    for batch in [false, true] {
        for (bits, first, then) in [
            (8, 250, 5),
            (8, 250, 500),
            (32, u32::MAX - 10, 10),
            (32, u32::MAX, 30),
        ] {
            let [(_, saturated), (value, other)] = statuses(bits, first, then, batch);
            let truth = first as u64 + then as u64;
            let CounterStatus::Unresolved { least, most } = saturated else {
                panic!("{bits} bits, {truth} packets: {saturated:?}");
            };
            assert!((least..=most).contains(&truth));
            assert_eq!((value, other), (2, CounterStatus::Exact));
        }
    }
}
