//! The encoder allocates when it is made, and never again.

#[path = "support/counting_allocator.rs"]
mod counting_allocator;

use std::hint::black_box;

use counting_allocator::{Allocated, CountingAllocator, allocated_by};
use flowradar_core::flowset::Epoch;
use flowradar_core::hash::{CrcAdd, HashFamily, Mix64, Xxh3};
use flowradar_core::layout::{CellWidths, Coupling, FilterLayout, Layout, TableLayout};
use flowradar_core::{Encoder, FlowKey, FlowKeyV4, FlowKeyV6, Packet};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Several epochs with far more flows than the table is made for, in every way of encoding.
fn encode<K: FlowKey, H: HashFamily>(layout: Layout, packets: &[Packet<K>]) {
    let mut encoder =
        Encoder::<K, H>::new("leaf-1".parse().expect("a name"), layout, Epoch::number(0))
            .expect("same family");
    let mut new_flows = 0;
    let ((), allocated) = allocated_by(|| {
        for epoch in 1..4 {
            for packet in packets {
                encoder.packet(packet);
            }
            encoder.packets(packets);
            for packet in packets {
                encoder.packets_of_flow(&packet.key, u32::MAX, u64::MAX);
            }
            new_flows += encoder.totals().new_flows;
            let sealed = encoder.end_epoch(Epoch::number(epoch)).expect("released");
            new_flows -= sealed.totals().new_flows / 2;
            assert!(encoder.end_epoch(Epoch::number(epoch)).is_err());
            encoder.packets(&packets[..packets.len() / 2]);
            assert!(encoder.sealed().is_some());
            encoder.release();
        }
    });
    assert!(new_flows > 0);
    assert_eq!(allocated.allocations, 0, "{layout:?}");
}

fn every_layout<K: FlowKey, H: HashFamily>(key: impl Fn(u32) -> K) {
    let packets: Vec<_> = (0..5000)
        .map(|number| Packet {
            key: key(number % 3000),
            ip_bytes: u32::MAX - number,
        })
        .collect();
    for hashes in 2..=6 {
        for coupling in [Coupling::Plain, Coupling::Window { cells: 50 }] {
            for filter in [FilterLayout::partitioned(8, 999), FilterLayout::blocked(20)] {
                let widths = CellWidths::new(2, 2, 16).expect("in range");
                let table = TableLayout::new(hashes, 300, coupling, widths).expect("fits");
                let layout = Layout::new(H::ID, 5, table, filter.expect("fits"));
                encode::<K, H>(layout.expect("eight hashes"), &packets);
            }
        }
    }
}

fn v4(number: u32) -> FlowKeyV4 {
    FlowKeyV4::new(number.into(), [10, 0, 0, 1].into(), 1024, 443, 6)
}

fn v6(number: u32) -> FlowKeyV6 {
    FlowKeyV6::new(u128::from(number).into(), 1.into(), 1024, 443, 6)
}

#[test]
fn xxh3() {
    every_layout::<_, Xxh3>(v4);
    every_layout::<_, Xxh3>(v6);
}

#[test]
fn mix64() {
    every_layout::<_, Mix64>(v4);
    every_layout::<_, Mix64>(v6);
}

#[test]
fn crc_add() {
    every_layout::<_, CrcAdd>(v4);
    every_layout::<_, CrcAdd>(v6);
}

/// The test would notice an allocation.
#[test]
fn allocations_are_counted() {
    let (_, allocated) = allocated_by(|| black_box(Box::new(1_u64)));
    let one = Allocated {
        allocations: 1,
        bytes: 8,
    };
    assert_eq!(allocated, one);
}
