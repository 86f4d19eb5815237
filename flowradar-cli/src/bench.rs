//! Rates of this machine.

use std::collections::HashMap;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Instant;

use flowradar_core::decode::single_decode;
use flowradar_core::flowset::Epoch;
use flowradar_core::hash::{HashFamilyId, Xxh3};
use flowradar_core::layout::{CellWidths, Coupling, FilterLayout, Layout, TableLayout};
use flowradar_core::plan::{CouplingChoice, PlanRequest};
use flowradar_core::{Encoder, FlowKey, FlowKeyV4, Flowset, Packet};
use flowradar_sim::{Faults, Simulation, Topology, Truth};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use serde::Serialize;

use crate::experiment::{Tally, encode_epoch};
use crate::layout_options;
use crate::outcome::CommandError;
use crate::progress::Progress;
use crate::text::{grouped, percent};

const FLOWS: usize = 100_000;
const PACKETS: usize = 1 << 20;
const HASHES: u8 = 3;
const CELLS_PER_FLOW: f64 = 1.25;
const FILTER_BITS_PER_FLOW: usize = 32;
const SEED: u64 = 1;

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BenchSettings {
    pub(crate) flows_per_switch: u32,
    pub(crate) quick: bool,
}

/// What was measured. Rates are those of the best round, as nothing makes a machine faster than it
/// is; the medians show how busy it was.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct BenchReport {
    /// Millions of packets a second, one call for each packet.
    encode_mpps: f64,
    /// Millions of packets a second, packets handed over in batches.
    encode_batch_mpps: f64,
    /// Millions of packets a second counted in a hash map of the standard library, from 5-tuples to
    /// packets and bytes.
    hash_map_mpps: f64,
    /// The same with this project's packed keys, which are twice as fast to hash, and packets only.
    hash_map_packed_mpps: f64,
    /// Median over rounds of the ratio of the two within a round.
    encode_batch_per_hash_map: f64,
    single_decode_100k_ms: f64,
    /// Joint CounterDecode, the second of `net_decode`.
    net_decode_s: f64,
    medians: Medians,
    net_decode: Vec<NetDecodeRow>,
    settings: SettingsReport,
}

/// Medians over rounds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Medians {
    encode_mpps: f64,
    encode_batch_mpps: f64,
    hash_map_mpps: f64,
    hash_map_packed_mpps: f64,
    single_decode_100k_ms: f64,
}

/// A network decoded.
#[derive(Clone, Debug, Serialize)]
struct NetDecodeRow {
    setting: &'static str,
    hashes: u8,
    cells_per_flow: f64,
    lossy_flows: f64,
    switches: usize,
    flows_per_switch: u32,
    seconds: f64,
    /// Switches that decode on their own in this memory.
    single_decode_complete_switches: usize,
    counters: Tally,
}

/// How it was measured.
#[derive(Clone, Debug, Serialize)]
struct SettingsReport {
    threads_encode_and_single_decode: usize,
    threads_net_decode: usize,
    flows: usize,
    packets_per_round: usize,
    packet_sizes: &'static str,
    hash_family: String,
    hashes: u8,
    cells_per_flow: f64,
    filter: &'static str,
    filter_bits_per_flow: usize,
    rounds: usize,
    figures: &'static str,
}

/// Measures.
pub(crate) fn run(settings: &BenchSettings) -> Result<BenchReport, CommandError> {
    let rounds = if settings.quick { 5 } else { 15 };
    let progress = Progress::steps("measuring", 2 * rounds as u64 + 2);
    let mut random = Xoshiro256PlusPlus::seed_from_u64(SEED);
    let keys = keys(&mut random);
    let packets = packets(&keys, &mut random);
    let layout = layout()?;

    let mut alone = encoder(layout);
    let mut batch = encoder(layout);
    let tuples: Vec<_> = packets.iter().map(tuple_packet).collect();
    let mut map = HashMap::with_capacity(FLOWS);
    let mut packed_map = HashMap::with_capacity(FLOWS);
    // All flows are known from here on, to all four.
    alone.packets(&packets);
    batch.packets(&packets);
    count_tuples(&mut map, &tuples);
    count_packed(&mut packed_map, &packets);
    let (mut alone_mpps, mut batch_mpps) = (vec![], vec![]);
    let (mut map_mpps, mut packed_map_mpps) = (vec![], vec![]);
    for round in 0..rounds {
        alone_mpps.push(mpps(|| {
            for packet in &packets {
                alone.packet(black_box(packet));
            }
        }));
        batch_mpps.push(mpps(|| batch.packets(black_box(&packets))));
        map_mpps.push(mpps(|| count_tuples(&mut map, black_box(&tuples))));
        packed_map_mpps.push(mpps(|| count_packed(&mut packed_map, black_box(&packets))));
        progress.set(round as u64 + 1);
    }
    black_box((&alone, &batch, &map, &packed_map));

    let flowset = flowset_of(&keys, layout);
    let mut decode_ms = vec![];
    for round in 0..rounds {
        let start = Instant::now();
        let decoded = single_decode::<FlowKeyV4, _>(black_box(&flowset));
        decode_ms.push(start.elapsed().as_secs_f64() * 1e3);
        let flows = decoded.map_or(0, |decoded| decoded.flows.len());
        if flows != FLOWS {
            return Err(CommandError::Failed(format!(
                "SingleDecode found {flows} flows"
            )));
        }
        progress.set((rounds + round) as u64 + 1);
    }

    let (k, flows_per_switch) = match settings.quick {
        true => (4, settings.flows_per_switch.min(5_000)),
        false => (8, settings.flows_per_switch),
    };
    let mut net_decode = vec![];
    for (setting, hashes, cells_per_flow, lossy_flows) in
        [("per switch", 4, 1.025, 0.0), ("joint", 3, 0.68, 0.02)]
    {
        net_decode.push(network(
            setting,
            (hashes, cells_per_flow, lossy_flows),
            k,
            flows_per_switch,
        )?);
        progress.set((2 * rounds + net_decode.len()) as u64);
    }

    let ratios = batch_mpps
        .iter()
        .zip(&map_mpps)
        .map(|(batch, map)| batch / map)
        .collect();
    Ok(BenchReport {
        encode_mpps: most(&alone_mpps),
        encode_batch_mpps: most(&batch_mpps),
        hash_map_mpps: most(&map_mpps),
        hash_map_packed_mpps: most(&packed_map_mpps),
        encode_batch_per_hash_map: median(ratios),
        single_decode_100k_ms: decode_ms.iter().copied().fold(f64::INFINITY, f64::min),
        net_decode_s: net_decode.last().map_or(f64::NAN, |row| row.seconds),
        medians: Medians {
            encode_mpps: median(alone_mpps),
            encode_batch_mpps: median(batch_mpps),
            hash_map_mpps: median(map_mpps),
            hash_map_packed_mpps: median(packed_map_mpps),
            single_decode_100k_ms: median(decode_ms),
        },
        net_decode,
        settings: SettingsReport {
            threads_encode_and_single_decode: 1,
            threads_net_decode: rayon::current_num_threads(),
            flows: FLOWS,
            packets_per_round: PACKETS,
            packet_sizes: "flow of rank r has a share of 1/r of the packets, in random order",
            hash_family: layout.family().to_string(),
            hashes: HASHES,
            cells_per_flow: CELLS_PER_FLOW,
            filter: "blocked",
            filter_bits_per_flow: FILTER_BITS_PER_FLOW,
            rounds,
            figures: "best of the rounds",
        },
    })
}

impl BenchReport {
    /// The report in words.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "{} flows, {} packets a round, {} rounds, one thread: best (median)\n",
            grouped(FLOWS as u64),
            grouped(PACKETS as u64),
            self.settings.rounds
        );
        for (name, best, median, unit) in [
            (
                "encode, packet by packet",
                self.encode_mpps,
                self.medians.encode_mpps,
                "Mpps",
            ),
            (
                "encode, in batches",
                self.encode_batch_mpps,
                self.medians.encode_batch_mpps,
                "Mpps",
            ),
            (
                "exact count, std HashMap",
                self.hash_map_mpps,
                self.medians.hash_map_mpps,
                "Mpps",
            ),
            (
                "  packed keys, no bytes",
                self.hash_map_packed_mpps,
                self.medians.hash_map_packed_mpps,
                "Mpps",
            ),
            (
                "SingleDecode",
                self.single_decode_100k_ms,
                self.medians.single_decode_100k_ms,
                "ms",
            ),
        ] {
            text.push_str(&format!("  {name:<26}{best:>8.1} ({median:.1}) {unit}\n"));
        }
        text.push_str(&format!(
            "  batches beside HashMap    {:>8.1} times (median of rounds)\n",
            self.encode_batch_per_hash_map
        ));
        for row in &self.net_decode {
            let tally = &row.counters;
            text.push_str(&format!(
                "NetDecode, {}: {} switches with {} flows, k = {}, {} cells a flow, {:.0} % of flows \
                 lossy, {} threads\n  {:.2} s; {} exact, {} joint, {} wrong; {} of {} switches \
                 complete alone\n",
                row.setting,
                row.switches,
                grouped(row.flows_per_switch.into()),
                row.hashes,
                row.cells_per_flow,
                row.lossy_flows * 100.0,
                self.settings.threads_net_decode,
                row.seconds,
                percent(tally.exact, tally.flows),
                percent(tally.joint, tally.flows),
                grouped(tally.wrong()),
                row.single_decode_complete_switches,
                row.switches,
            ));
        }
        text
    }
}

fn network(
    setting: &'static str,
    (hashes, cells_per_flow, lossy_flows): (u8, f64, f64),
    k: u32,
    flows_per_switch: u32,
) -> Result<NetDecodeRow, CommandError> {
    let failed = |error: &dyn std::error::Error| CommandError::Failed(error.to_string());
    let topology = Topology::fat_tree(k).map_err(|error| failed(&error))?;
    let simulation = Simulation::builder(topology)
        .flows_per_switch(flows_per_switch)
        .faults(Faults {
            lossy_flows,
            ..Faults::default()
        })
        .seed(SEED)
        .build()
        .map_err(|error| failed(&error))?;
    let request = PlanRequest::flows(flows_per_switch.into())
        .hashes(hashes)
        .coupling(CouplingChoice::Plain)
        .cells_per_flow(cells_per_flow);
    let reports = encode_epoch(&simulation, &layout_options::plan(&request)?.layout);
    let (single, _) = reports.single_decode();
    let (decoded, time) = reports.net_decode()?;
    let truth = Truth::of(&simulation);
    let flows = decoded.switches.iter().map(|switch| &switch.flows[..]);
    Ok(NetDecodeRow {
        setting,
        hashes,
        cells_per_flow,
        lossy_flows,
        switches: reports.switches.len(),
        flows_per_switch,
        seconds: time.as_secs_f64(),
        single_decode_complete_switches: single.iter().filter(|one| one.is_complete()).count(),
        counters: reports.tally(&truth, flows).into_iter().sum(),
    })
}

fn layout() -> Result<Layout, CommandError> {
    let subtable_cells = (FLOWS as f64 * CELLS_PER_FLOW / f64::from(HASHES)).ceil() as u32;
    let table = TableLayout::new(
        HASHES,
        subtable_cells,
        Coupling::Plain,
        CellWidths::default(),
    );
    let filter = FilterLayout::blocked((FLOWS * FILTER_BITS_PER_FLOW / 512) as u32);
    table
        .and_then(|table| Layout::new(HashFamilyId::Xxh3, SEED, table, filter?))
        .map_err(|error| CommandError::Failed(error.to_string()))
}

fn encoder(layout: Layout) -> Encoder<FlowKeyV4, Xxh3> {
    let name = "bench".parse().expect("a good name");
    Encoder::new(name, layout, Epoch::number(0)).expect("the layout is for this hash family")
}

/// A flow key as a program would write it down that has nothing to do with this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Tuple {
    src: Ipv4Addr,
    dst: Ipv4Addr,
    src_port: u16,
    dst_port: u16,
    protocol: u8,
}

fn tuple_packet(packet: &Packet<FlowKeyV4>) -> (Tuple, u32) {
    let key = &packet.key;
    let tuple = Tuple {
        src: key.src_v4(),
        dst: key.dst_v4(),
        src_port: key.src_port(),
        dst_port: key.dst_port(),
        protocol: key.protocol(),
    };
    (tuple, packet.ip_bytes)
}

/// Counts what the encoder counts: packets and bytes.
fn count_tuples(map: &mut HashMap<Tuple, (u64, u64)>, packets: &[(Tuple, u32)]) {
    for (tuple, ip_bytes) in packets {
        let (packets, bytes) = map.entry(*tuple).or_default();
        *packets += 1;
        *bytes += u64::from(*ip_bytes);
    }
}

fn count_packed(map: &mut HashMap<FlowKeyV4, u64>, packets: &[Packet<FlowKeyV4>]) {
    for packet in packets {
        *map.entry(packet.key).or_default() += 1;
    }
}

fn flowset_of(keys: &[FlowKeyV4], layout: Layout) -> Flowset<Vec<u8>> {
    let packets: Vec<_> = keys
        .iter()
        .map(|&key| Packet { key, ip_bytes: 64 })
        .collect();
    let mut encoder = encoder(layout);
    encoder.packets(&packets);
    let sealed = encoder
        .end_epoch(Epoch::number(1))
        .expect("no epoch ended before");
    Flowset::new_checked(sealed.to_flowset()).expect("encoders write good flowsets")
}

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

/// Packets in random order, of the flow of rank r with a share of 1/r.
fn packets(keys: &[FlowKeyV4], random: &mut Xoshiro256PlusPlus) -> Vec<Packet<FlowKeyV4>> {
    let shares = (1..=keys.len()).scan(0.0, |sum, rank| {
        *sum += 1.0 / rank as f64;
        Some(*sum)
    });
    let until: Vec<f64> = shares.collect();
    let whole = until.last().copied().unwrap_or(0.0);
    (0..PACKETS)
        .map(|_| {
            let point = (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64 * whole;
            let rank = until.partition_point(|&until| until < point);
            Packet {
                key: keys[rank.min(keys.len() - 1)],
                ip_bytes: 64,
            }
        })
        .collect()
}

fn mpps(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    PACKETS as f64 / start.elapsed().as_secs_f64() / 1e6
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
