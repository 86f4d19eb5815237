//! Packets, encoded and decoded: what is found was there, what is called exact is right. Or, if the
//! flowset is damaged on the way and its checksums are put right again: nothing panics, and what is
//! claimed follows from the cells.
#![no_main]

#[path = "../../flowradar-core/tests/support/hostile.rs"]
mod hostile;

use std::collections::{HashMap, HashSet};

use arbitrary::Arbitrary;
use flowradar_core::decode::{SingleDecode, cells_of, single_decode};
use flowradar_core::filter::FlowFilter;
use flowradar_core::flowset::Epoch;
use flowradar_core::hash::{HashFamily, HashFamilyId};
use flowradar_core::layout::{CellWidths, Coupling, FilterLayout, Layout, TableLayout};
use flowradar_core::{
    Counter, CounterStatus, Encoder, FlowKey, FlowKeyV4, FlowKeyV6, Flowset, KeyKind, Packet,
    with_hash_family,
};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input {
    layout: LayoutInput,
    is_v6: bool,
    keys: Vec<[u8; 13]>,
    packets: Vec<PacketsInput>,
    /// Where the flowset is damaged, and how.
    damage: Vec<(u16, u8)>,
}

#[derive(Arbitrary, Debug)]
struct LayoutInput {
    family: u8,
    seed: u64,
    hashes: u8,
    subtable_cells: u8,
    window_cells: Option<u8>,
    widths: (u8, u8, u8),
    is_blocked: bool,
    filter_hashes: u8,
    filter_size: u16,
}

#[derive(Arbitrary, Debug)]
struct PacketsInput {
    key: u8,
    /// One packet at a time, or all at once.
    count: Option<u16>,
    ip_bytes: u16,
}

/// Enough flows to overload any of these tables.
const FLOWS_MAX: usize = 256;

fuzz_target!(|input: Input| {
    let Some(layout) = input.layout.layout() else {
        return;
    };
    with_hash_family!(layout.family(), H => if input.is_v6 {
        run::<FlowKeyV6, H>(layout, &input);
    } else {
        run::<FlowKeyV4, H>(layout, &input);
    });
});

impl LayoutInput {
    fn layout(&self) -> Option<Layout> {
        let family = HashFamilyId::ALL[self.family as usize % 3];
        let (flow_count, packet_count, byte_count) = self.widths;
        let widths = CellWidths::new(
            2 + flow_count % 15,
            2 + packet_count % 31,
            [0, 16 + byte_count % 33][usize::from(byte_count > 100)],
        )
        .ok()?;
        let subtable_cells = u32::from(self.subtable_cells) + 1;
        let coupling = self
            .window_cells
            .map_or(Coupling::Plain, |cells| Coupling::Window {
                cells: u32::from(cells) % subtable_cells + 1,
            });
        let table = TableLayout::new(2 + self.hashes % 5, subtable_cells, coupling, widths).ok()?;
        let filter = if self.is_blocked {
            FilterLayout::blocked(u32::from(self.filter_size) % 64 + 1)
        } else {
            let hashes = 1 + self.filter_hashes % family.filter_lanes_max() as u8;
            FilterLayout::partitioned(hashes, u32::from(self.filter_size) % 4096 + 1)
        };
        Layout::new(family, self.seed, table, filter.ok()?).ok()
    }
}

/// What really happened.
struct Truth<K> {
    counters: HashMap<K, (u64, u64)>,
    /// Flows that the filter took for known ones.
    hidden_flows: HashSet<K>,
}

fn run<K: FlowKey, H: HashFamily>(layout: Layout, input: &Input) {
    let keys: Vec<K> = input.keys.iter().take(FLOWS_MAX).map(key).collect();
    if keys.is_empty() {
        return;
    }
    let mut encoder =
        Encoder::<K, H>::new("fuzz".parse().expect("a name"), layout, Epoch::number(1))
            .expect("the layout's family");
    let truth = encode(&mut encoder, &keys, &input.packets);
    let mut bytes = encoder
        .end_epoch(Epoch::number(2))
        .expect("the first epoch")
        .to_flowset();
    for &(offset, change) in &input.damage {
        let length = bytes.len();
        bytes[offset as usize % length] ^= change;
    }
    if !input.damage.is_empty() {
        hostile::fix_checksums(&mut bytes);
        if let Ok(flowset) = Flowset::new_checked(&bytes[..]) {
            hostile::check_decode(&flowset);
        }
        return;
    }
    let flowset = Flowset::new_checked(&bytes[..]).expect("a flowset of our own");
    let decoded = single_decode::<K, _>(&flowset).expect("the same kind of key");
    hostile::check_decoded(&flowset, &decoded);
    check_truth(&decoded, &truth);
    check_equations(&flowset, &decoded, &truth);
}

fn key<K: FlowKey>(bytes: &[u8; 13]) -> K {
    match K::KIND {
        KeyKind::V4 => K::from_bytes(bytes),
        KeyKind::V6 => K::from_bytes(&[*bytes, *bytes, *bytes].concat()[..37]),
    }
}

fn encode<K: FlowKey, H: HashFamily>(
    encoder: &mut Encoder<K, H>,
    keys: &[K],
    packets: &[PacketsInput],
) -> Truth<K> {
    let layout = *encoder.layout();
    let mut filter = FlowFilter::new(*layout.filter());
    let mut truth = Truth {
        counters: HashMap::new(),
        hidden_flows: HashSet::new(),
    };
    let mut batch = vec![];
    for packet in packets {
        let key = keys[packet.key as usize % keys.len()];
        let seemed_known = filter.insert(&H::hash(key.words(), layout.seed()));
        if seemed_known && !truth.counters.contains_key(&key) {
            truth.hidden_flows.insert(key);
        }
        let (count, bytes) = truth.counters.entry(key).or_default();
        match packet.count {
            Some(packets) => {
                encoder.packets(&batch);
                batch.clear();
                let packets = u32::from(packets) + 1;
                let ip_bytes = u64::from(packets) * u64::from(packet.ip_bytes);
                encoder.packets_of_flow(&key, packets, ip_bytes);
                *count += u64::from(packets);
                *bytes += ip_bytes;
            }
            None => {
                let ip_bytes = u32::from(packet.ip_bytes);
                batch.push(Packet { key, ip_bytes });
                *count += 1;
                *bytes += u64::from(ip_bytes);
            }
        }
    }
    encoder.packets(&batch);
    let recorded = truth.counters.len() - truth.hidden_flows.len();
    assert_eq!(encoder.totals().new_flows, recorded as u64);
    truth
}

/// No flow that was not there; no counter exact and wrong, unless flows were hidden in a way that
/// satisfies all equations (see [`check_equations`]); bounds that hold in any case.
fn check_truth<K: FlowKey>(decoded: &SingleDecode<K>, truth: &Truth<K>) {
    let mut found = HashSet::new();
    for flow in &decoded.flows {
        let &(packets, bytes) = truth
            .counters
            .get(&flow.key)
            .expect("a flow that was there");
        assert!(!truth.hidden_flows.contains(&flow.key));
        assert!(found.insert(flow.key), "found twice");
        check_counter(flow.packets, packets, truth);
        if let Some(counter) = flow.bytes {
            check_counter(counter, bytes, truth);
        }
    }
    if decoded.leftover.cells == 0 {
        assert_eq!(found.len() + truth.hidden_flows.len(), truth.counters.len());
    }
}

fn check_counter<K>(counter: Counter, true_value: u64, truth: &Truth<K>) {
    match counter.status {
        CounterStatus::Unresolved { least, most } => {
            assert!(
                (least..=most).contains(&true_value),
                "{counter:?} {true_value}"
            );
        }
        _ => assert!(
            counter.value == true_value || !truth.hidden_flows.is_empty(),
            "{counter:?} {true_value}"
        ),
    }
}

/// Counters that are called exact satisfy every equation in which nothing else is unknown.
fn check_equations<K: FlowKey>(
    flowset: &Flowset<&[u8]>,
    decoded: &SingleDecode<K>,
    truth: &Truth<K>,
) {
    let table = flowset.layout().table();
    let exact: HashMap<K, u64> = decoded
        .flows
        .iter()
        .filter(|flow| flow.packets.is_exact())
        .map(|flow| (flow.key, flow.packets.value))
        .collect();
    if exact.is_empty() {
        return;
    }
    let mut sums = vec![Some(0); table.cells()];
    for key in truth.counters.keys() {
        if truth.hidden_flows.contains(key) {
            continue;
        }
        for &cell in &cells_of(flowset.layout(), key)[..table.hashes()] {
            let sum: &mut Option<u64> = &mut sums[cell as usize];
            *sum = sum.zip(exact.get(key)).map(|(sum, value)| sum + value);
        }
    }
    let widths = table.widths();
    let counts = flowset.flow_counts().zip(flowset.packet_counts());
    for (sum, (flow_count, packet_count)) in sums.into_iter().zip(counts) {
        // A saturated cell is no equation, nor one whose flows cannot all be told.
        if let Some(sum) = sum
            && flow_count != widths.flow_count_saturated()
            && packet_count != widths.packet_count_saturated()
        {
            assert_eq!(sum, u64::from(packet_count));
        }
    }
}
