//! Encoding beside an exact hash map, and SingleDecode, for 100,000 flows.
//!
//! All in one run, because machines differ and are noisy: compare the ratios.

use std::collections::HashMap;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flowradar_core::decode::single_decode;
use flowradar_core::flowset::Epoch;
use flowradar_core::hash::{CrcAdd, HashFamily, HashFamilyId, Mix64, Xxh3};
use flowradar_core::layout::{CellWidths, Coupling, FilterLayout, Layout, TableLayout};
use flowradar_core::{Encoder, FlowKeyV4, Flowset, Packet};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

const FLOWS: usize = 100_000;
const PACKETS: usize = 1 << 20;

fn keys(random: &mut Xoshiro256PlusPlus) -> Vec<FlowKeyV4> {
    (0..FLOWS)
        .map(|_| {
            let (addresses, ports) = (random.next_u64(), random.next_u64());
            FlowKeyV4::new(
                ((addresses >> 32) as u32).into(),
                (addresses as u32).into(),
                (ports >> 16) as u16,
                ports as u16,
                6,
            )
        })
        .collect()
}

/// Packets of [`FLOWS`] flows in random order, the flow of rank r with a share of 1/r.
fn packets() -> Vec<Packet<FlowKeyV4>> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
    let keys = keys(&mut random);
    let mut cumulative = Vec::with_capacity(FLOWS);
    let mut sum = 0.0;
    for rank in 1..=FLOWS {
        sum += 1.0 / rank as f64;
        cumulative.push(sum);
    }
    (0..PACKETS)
        .map(|_| {
            let point = (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64 * sum;
            let rank = cumulative.partition_point(|&until| until < point);
            Packet {
                key: keys[rank.min(FLOWS - 1)],
                ip_bytes: 64,
            }
        })
        .collect()
}

fn layout(family: HashFamilyId, filter: FilterLayout, cells_per_flow: f64) -> Layout {
    let subtable_cells = (FLOWS as f64 * cells_per_flow / 3.0).ceil() as u32;
    let table =
        TableLayout::new(3, subtable_cells, Coupling::Plain, CellWidths::default()).expect("fits");
    Layout::new(family, 1, table, filter).expect("enough filter hashes")
}

fn blocked() -> FilterLayout {
    FilterLayout::blocked((FLOWS * 32 / 512) as u32).expect("fits")
}

fn partitioned() -> FilterLayout {
    FilterLayout::partitioned(10, (FLOWS * 3) as u32).expect("fits")
}

fn encoder<H: HashFamily>(filter: FilterLayout, cells_per_flow: f64) -> Encoder<FlowKeyV4, H> {
    Encoder::new(
        "bench".parse().expect("a name"),
        layout(H::ID, filter, cells_per_flow),
        Epoch::number(0),
    )
    .expect("same family")
}

fn encode(criterion: &mut Criterion) {
    let packets = packets();
    let mut group = criterion.benchmark_group("encode_100k_flows");
    group.throughput(Throughput::Elements(PACKETS as u64));
    group.bench_function("std_hash_map", |bencher| {
        let mut map: HashMap<FlowKeyV4, u64> = HashMap::with_capacity(FLOWS);
        bencher.iter(|| {
            for packet in &packets {
                *map.entry(packet.key).or_default() += 1;
            }
            black_box(&map);
        });
    });
    fn batch<H: HashFamily>(
        group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
        name: &str,
        filter: FilterLayout,
        packets: &[Packet<FlowKeyV4>],
    ) {
        group.bench_function(name, |bencher| {
            let mut encoder = encoder::<H>(filter, 1.25);
            bencher.iter(|| encoder.packets(black_box(packets)));
        });
    }
    batch::<Xxh3>(&mut group, "batch_xxh3_blocked", blocked(), &packets);
    batch::<Mix64>(&mut group, "batch_mix64_blocked", blocked(), &packets);
    batch::<Xxh3>(
        &mut group,
        "batch_xxh3_partitioned",
        partitioned(),
        &packets,
    );
    let crc_filter = FilterLayout::partitioned(8, (FLOWS * 2) as u32).expect("fits");
    batch::<CrcAdd>(
        &mut group,
        "batch_crc_add_partitioned",
        crc_filter,
        &packets,
    );
    group.bench_function("one_by_one_xxh3_blocked", |bencher| {
        let mut encoder = encoder::<Xxh3>(blocked(), 1.25);
        bencher.iter(|| {
            for packet in &packets {
                encoder.packet(packet);
            }
        });
    });
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(2);
    let packets: Vec<_> = keys(&mut random)
        .into_iter()
        .map(|key| Packet { key, ip_bytes: 64 })
        .collect();
    let mut group = criterion.benchmark_group("single_decode_100k_flows");
    for (name, filter) in [("blocked", blocked()), ("partitioned", partitioned())] {
        let mut encoder = encoder::<Xxh3>(filter, 1.25);
        encoder.packets(&packets);
        let bytes = encoder
            .end_epoch(Epoch::number(1))
            .expect("first epoch")
            .to_flowset();
        group.bench_function(format!("{name}_read"), |bencher| {
            bencher.iter(|| Flowset::new_checked(black_box(&bytes[..])).expect("own flowset"));
        });
        let flowset = Flowset::new_checked(&bytes[..]).expect("own flowset");
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let decoded = single_decode::<FlowKeyV4, _>(black_box(&flowset)).expect("IPv4");
                assert_eq!(decoded.flows.len(), FLOWS);
                decoded
            });
        });
    }
    group.finish();
}

criterion_group!(benches, encode, decode);
criterion_main!(benches);
