//! Keys that an attacker, a scanner or an address plan makes must spread like random ones, in every
//! hash family, and differently at every switch.
//!
//! Every figure is compared with the same figure of random keys under the same number of seeds, or
//! with its expectation. The bounds are wide enough that a good hash passes for all seeds of a
//! lifetime; a linear hash misses them by orders of magnitude. `FLOWRADAR_LONG_TESTS=1` takes more
//! flows (65,536, and scans of 100,000) and more seeds.

use flowradar_core::decode::single_decode;
use flowradar_core::filter::FlowFilter;
use flowradar_core::flowset::Epoch;
use flowradar_core::hash::{CrcAdd, HashFamily, Mix64, Xxh3};
use flowradar_core::layout::{CellWidths, Coupling, FilterLayout, Layout, TableLayout};
use flowradar_core::plan::expected_false_positives;
use flowradar_core::{Encoder, FlowKey, FlowKeyV4, FlowKeyV6, Flowset, Packet};

const HASHES: usize = 3;

/// The name of a set of keys, and its `i`-th key.
type KeySet<K> = (&'static str, fn(u64) -> K);

fn v4(src: u64, dst: u64, src_port: u64, dst_port: u64) -> FlowKeyV4 {
    FlowKeyV4::new(
        (src as u32).into(),
        (dst as u32).into(),
        src_port as u16,
        dst_port as u16,
        6,
    )
}

fn v6(src: u128, dst: u128, src_port: u64, dst_port: u64) -> FlowKeyV6 {
    const PREFIX: u128 = 0x2001_0db8 << 96;
    FlowKeyV6::new(
        (PREFIX | src).into(),
        (PREFIX | dst).into(),
        src_port as u16,
        dst_port as u16,
        6,
    )
}

/// The key with the bits of the `i`-th set of at most two bits flipped.
fn few_bits<K: FlowKey>(key: K, i: u64) -> K {
    let bits = K::KIND.bits() as u64;
    let mut bytes = [0; 37];
    let bytes = &mut bytes[..K::KIND.bytes()];
    key.write_bytes(bytes);
    // One bit alone is the pair of a bit with itself.
    let (first, second) = (i / bits % bits, i % bits);
    bytes[(first / 8) as usize] ^= 1 << (first % 8);
    if second != first {
        bytes[(second / 8) as usize] ^= 1 << (second % 8);
    }
    K::from_bytes(bytes)
}

/// Where the pair (i, j) and the pair (j, i) are the same key, keys are counted once.
fn distinct<K: FlowKey>(set: KeySet<K>, n: u64) -> Vec<K> {
    let mut keys: Vec<K> = (0..n).map(|i| set.1(i)).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

const SETS_V4: [KeySet<FlowKeyV4>; 10] = [
    ("destinations of a prefix", |i| {
        v4(0x0a00_0001, 0xc0a8_0000 + i, 1000, 80)
    }),
    ("sources of a prefix", |i| {
        v4(0x0a00_0000 + i, 0xc0a8_0001, 1000, 80)
    }),
    ("source ports", |i| v4(0x0a00_0001, 0xc0a8_0001, i, 80)),
    ("destination ports", |i| {
        v4(0x0a00_0001, 0xc0a8_0001, 1000, i)
    }),
    ("8 sources, 8 destinations, ports", |i| {
        v4(
            0x0a00_0000 + i % 8,
            0xc0a8_0000 + i / 8 % 8,
            1024 + i / 64,
            80,
        )
    }),
    ("middle bytes of both addresses", |i| {
        v4(
            0x0a00_0000 + ((i % 256) << 8),
            0xc000_0000 + ((i / 256) << 16),
            1000,
            80,
        )
    }),
    ("source and destination in step", |i| {
        v4(0x0a00_0000 + i, 0xc0a8_0000 + i, 1000, 80)
    }),
    ("steps of 65537", |i| v4(i * 65537, 0xc0a8_0001, 1000, 80)),
    ("steps of a prime through the port", |i| {
        v4(
            0x0a00_0001,
            0xc0a8_0001 + ((i * 40503) >> 16),
            i * 40503,
            80,
        )
    }),
    ("one or two bits", |i| {
        few_bits(v4(0x0a00_0001, 0xc0a8_0001, 1000, 80), i)
    }),
];

const SETS_V6: [KeySet<FlowKeyV6>; 6] = [
    ("destinations of a prefix", |i| v6(1, i as u128, 1000, 80)),
    ("networks", |i| v6(1, (i as u128) << 64 | 1, 1000, 80)),
    ("source ports", |i| v6(1, 2, i, 80)),
    ("8 sources, 8 destinations, ports", |i| {
        v6((i % 8) as u128, (i / 8 % 8) as u128, 1024 + i / 64, 80)
    }),
    ("steps of 65537 in both halves", |i| {
        v6(1, (i as u128 * 65537) * (1 << 64 | 1), 1000, 80)
    }),
    ("one or two bits", |i| few_bits(v6(1, 2, 1000, 80), i)),
];

fn random_v4(i: u64) -> FlowKeyV4 {
    FlowKeyV4::from_words([random(2 * i), random(2 * i + 1)])
}

fn random_v6(i: u64) -> FlowKeyV6 {
    FlowKeyV6::from_words([0, 1, 2, 3, 4].map(|word| random(5 * i + word)))
}

/// SplitMix64.
fn random(number: u64) -> u64 {
    let mut word = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ word >> 31
}

fn is_long() -> bool {
    std::env::var_os("FLOWRADAR_LONG_TESTS").is_some()
}

/// The first for every day, the second for long runs.
fn size(short: u64, long: u64) -> u64 {
    if is_long() { long } else { short }
}

fn table(flows: usize, cells_per_flow: f64, coupled: bool) -> TableLayout {
    let subtable_cells = (flows as f64 * cells_per_flow / HASHES as f64) as u32;
    let coupling = if coupled {
        Coupling::Window {
            cells: subtable_cells / 8,
        }
    } else {
        Coupling::Plain
    };
    TableLayout::new(
        HASHES as u8,
        subtable_cells,
        coupling,
        CellWidths::default(),
    )
    .expect("fits")
}

/// A sample of a figure under many seeds.
#[derive(Default)]
struct Sample(Vec<f64>);

impl Sample {
    fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }

    fn variance(&self) -> f64 {
        let mean = self.mean();
        let squares: f64 = self.0.iter().map(|x| (x - mean) * (x - mean)).sum();
        squares / (self.0.len() - 1) as f64
    }

    /// Welch's t for equal means, and the ratio of variances: keys that spread too evenly have the
    /// right mean and no variance.
    fn assert_like(&self, other: &Self, what: &str) {
        let n = self.0.len() as f64;
        let error = ((self.variance() + other.variance()) / n).sqrt();
        let t = (self.mean() - other.mean()) / error;
        let ratio = self.variance() / other.variance();
        // For 24 seeds: t beyond 6.5 with a chance of 10^-7, a ratio beyond 10 with 2 * 10^-7.
        assert!(t.abs() < 6.5, "{what}: t {t}");
        assert!(
            (0.1..10.0).contains(&ratio),
            "{what}: ratio of variances {ratio}"
        );
    }
}

/// Under each seed: pure cells, and pairs of flows in a cell (chi-square of the cells' occupancy, but
/// for constants), in a plain and in a coupled table.
fn spread<K: FlowKey, H: HashFamily>(keys: &[K]) -> [(&'static str, Sample); 4] {
    let tables = [
        table(keys.len(), 1.25, false),
        table(keys.len(), 1.25, true),
    ];
    let mut samples = [
        ("pure cells", Sample::default()),
        ("pairs in a cell", Sample::default()),
        ("pure cells, coupled", Sample::default()),
        ("pairs in a cell, coupled", Sample::default()),
    ];
    // Seeds as people choose them: one after the other.
    for seed in 0..24 {
        let mut counts = tables.map(|table| vec![0_u64; table.cells()]);
        for key in keys {
            let hash = H::hash(key.words(), seed);
            for (table, counts) in tables.iter().zip(&mut counts) {
                for cell in table.cells_of::<HASHES>(&hash) {
                    counts[cell as usize] += 1;
                }
            }
        }
        for (counts, samples) in counts.iter().zip(samples.chunks_exact_mut(2)) {
            let pure = counts.iter().filter(|&&count| count == 1).count();
            samples[0].1.0.push(pure as f64);
            let pairs: u64 = counts
                .iter()
                .map(|count| count * (count - count.min(&1)) / 2)
                .sum();
            samples[1].1.0.push(pairs as f64);
        }
    }
    samples
}

fn check_spread<K: FlowKey, H: HashFamily>(sets: &[KeySet<K>], random: fn(u64) -> K) {
    for &set in sets {
        let keys = distinct(set, size(8_192, 65_536));
        let random = distinct(("random", random), keys.len() as u64);
        for ((name, sample), (_, random)) in
            spread::<K, H>(&keys).iter().zip(&spread::<K, H>(&random))
        {
            sample.assert_like(random, &format!("{:?}, {}: {name}", H::ID, set.0));
        }
    }
}

/// Of `seeds` flowsets, how many decode fully in a table as large as the threshold.
fn decoded<K: FlowKey, H: HashFamily>(keys: &[K], coupled: bool, seeds: u64) -> u64 {
    // Half of random flowsets of this size decode.
    let cells_per_flow = if coupled { 1.42 } else { 1.245 };
    let table = table(keys.len(), cells_per_flow, coupled);
    let filter = FilterLayout::partitioned(8, keys.len() as u32 * 8).expect("not empty");
    (0..seeds)
        .filter(|&seed| {
            let layout = Layout::new(H::ID, seed, table, filter).expect("eight hashes");
            let mut encoder =
                Encoder::<K, H>::new("s".parse().expect("a name"), layout, Epoch::number(0))
                    .expect("same family");
            for &key in keys {
                encoder.packet(&Packet { key, ip_bytes: 64 });
            }
            let bytes = encoder
                .end_epoch(Epoch::number(1))
                .expect("first")
                .to_flowset();
            let flowset = Flowset::new_checked(&bytes).expect("own flowset");
            let decoded = single_decode::<K, _>(&flowset).expect("same kind of key");
            decoded.leftover.cells == 0
        })
        .count() as u64
}

fn check_decoded<K: FlowKey, H: HashFamily>(sets: &[KeySet<K>], random: fn(u64) -> K) {
    const FLOWS: u64 = 512;
    let seeds = size(40, 1_000);
    for coupled in [false, true] {
        let random = distinct(("random", random), FLOWS);
        let expected = decoded::<K, H>(&random, coupled, seeds);
        for &set in sets {
            // Some sets name a key twice.
            let mut keys = distinct(set, FLOWS * 3 / 2);
            keys.truncate(FLOWS as usize);
            assert_eq!(keys.len() as u64, FLOWS, "{}", set.0);
            let found = decoded::<K, H>(&keys, coupled, seeds);
            let share = (found + expected) as f64 / (2 * seeds) as f64;
            let deviation = (2.0 * seeds as f64 * share * (1.0 - share)).sqrt().max(1.0);
            assert!(
                found.abs_diff(expected) as f64 <= 5.0 * deviation,
                "{:?}, {}, coupled {coupled}: {found} of {seeds}, random keys {expected}",
                H::ID,
                set.0
            );
        }
    }
}

/// Of the pairs of flows in one cell under one seed, those in one cell under another seed.
fn pairs_in_both<K: FlowKey, H: HashFamily>(keys: &[K], seeds: [u64; 2]) -> (u64, f64) {
    let table = table(keys.len(), 1.25, false);
    let mut cells: Vec<[[u32; HASHES]; 2]> = keys
        .iter()
        .map(|key| seeds.map(|seed| table.cells_of(&H::hash(key.words(), seed))))
        .collect();
    let (mut both, mut expected) = (0, 0.0);
    for first in 0..HASHES {
        cells.sort_unstable_by_key(|cells| cells[0][first]);
        for flows in cells.chunk_by(|a, b| a[0][first] == b[0][first]) {
            for (index, a) in flows.iter().enumerate() {
                for b in &flows[..index] {
                    both += (0..HASHES)
                        .filter(|&second| a[1][second] == b[1][second])
                        .count() as u64;
                    expected += HASHES as f64 / table.subtable_cells() as f64;
                }
            }
        }
    }
    (both, expected)
}

fn check_switches<K: FlowKey, H: HashFamily>(sets: &[KeySet<K>], random: fn(u64) -> K) {
    for &set in sets.iter().chain([&("random", random)]) {
        let keys = distinct(set, size(8_192, 65_536));
        for seeds in [
            [0, 1],
            [1, 2],
            [6, 7],
            [1, 1 << 32],
            [1 << 63, 0],
            [random_seed(1), random_seed(2)],
        ] {
            let (both, expected) = pairs_in_both::<K, H>(&keys, seeds);
            let deviations = (both as f64 - expected) / expected.sqrt();
            assert!(
                deviations.abs() < 6.0,
                "{:?}, {}, seeds {seeds:?}: {both} pairs collide twice, {expected} expected",
                H::ID,
                set.0
            );
        }
    }
}

fn random_seed(number: u64) -> u64 {
    random(number ^ 0x5eed << 32)
}

/// Two seeds must not only permute the keys of a set, or switches would fail together.
fn check_seeds_do_not_permute<K: FlowKey, H: HashFamily>(sets: &[KeySet<K>]) {
    for &set in sets {
        let keys = distinct(set, 4_096);
        let table = table(keys.len(), 1.25, false);
        let mut occupancies: Vec<Vec<u32>> = (0..16)
            .map(|seed| {
                let mut counts = vec![0; table.cells()];
                for key in &keys {
                    for cell in table.cells_of::<HASHES>(&H::hash(key.words(), seed)) {
                        counts[cell as usize] += 1;
                    }
                }
                counts
            })
            .collect();
        occupancies.sort();
        occupancies.dedup();
        assert_eq!(occupancies.len(), 16, "{:?}, {}", H::ID, set.0);
    }
}

/// False positives of real filters against their expectation.
fn check_filters<K: FlowKey, H: HashFamily>(sets: &[KeySet<K>], random: fn(u64) -> K) {
    const FLOWS: u64 = 1_000;
    let mut layouts = vec![
        FilterLayout::blocked(20).expect("not empty"),
        FilterLayout::blocked(36).expect("not empty"),
        FilterLayout::partitioned(3, 1500).expect("not empty"),
        FilterLayout::partitioned(8, 1300).expect("not empty"),
    ];
    if H::FILTER_LANES_MAX >= 17 {
        layouts.push(FilterLayout::partitioned(17, 1200).expect("not empty"));
    }
    for layout in layouts {
        for &set in sets.iter().chain([&("random", random)]) {
            let mut false_positives = 0_u64;
            let mut expected = 0.0;
            let keys = distinct(set, FLOWS);
            for seed in 0..size(60, 2_000) {
                let mut filter = FlowFilter::new(layout);
                for key in &keys {
                    false_positives += u64::from(filter.insert(&H::hash(key.words(), seed)));
                }
                expected += expected_false_positives(&layout, keys.len() as u64);
            }
            // Poisson, or a little wider: false positives of a filter that happens to be full come
            // together.
            let bound = 6.0 * (1.5 * expected).sqrt() + 3.0;
            assert!(
                (false_positives as f64 - expected).abs() < bound,
                "{:?}, {layout:?}, {}: {false_positives} false positives, {expected} expected",
                H::ID,
                set.0
            );
        }
    }
}

/// Filters so sparse that independent lanes hardly ever make a false positive, but flows with lanes
/// in step would (as with double hashing, where one coincidence in start and step is enough).
fn check_sparse_filters<K: FlowKey, H: HashFamily>(random: fn(u64) -> K) {
    let hashes = H::FILTER_LANES_MAX.min(12) as u8;
    let partitioned = FilterLayout::partitioned(hashes, 160).expect("not empty");
    let blocked = FilterLayout::blocked(4).expect("not empty");
    for layout in [partitioned, blocked] {
        const FLOWS: u64 = 64;
        let filters = size(6_000, 200_000);
        let mut false_positives = 0_u64;
        for seed in 0..filters {
            let mut filter = FlowFilter::new(layout);
            for flow in 0..FLOWS {
                let key = random(seed * FLOWS + flow);
                false_positives += u64::from(filter.insert(&H::hash(key.words(), seed)));
            }
        }
        let expected = filters as f64 * expected_false_positives(&layout, FLOWS);
        assert!(
            (false_positives as f64 - expected).abs() < 6.0 * expected.sqrt() + 3.0,
            "{:?}, {layout:?}: {false_positives} false positives, {expected} expected",
            H::ID
        );
    }
}

macro_rules! check {
    ($($name:ident: $family:ty, $sets:expr, $random:expr;)*) => {
        $(mod $name {
            use super::*;

            #[test]
            fn spread() {
                check_spread::<_, $family>(&$sets, $random);
            }

            #[test]
            fn decoding() {
                check_decoded::<_, $family>(&$sets, $random);
            }

            #[test]
            fn independence_of_switches() {
                check_switches::<_, $family>(&$sets, $random);
                check_seeds_do_not_permute::<_, $family>(&$sets);
            }

            #[test]
            fn filters() {
                check_filters::<_, $family>(&$sets, $random);
                check_sparse_filters::<_, $family>($random);
            }
        })*
    };
}

check! {
    xxh3_v4: Xxh3, SETS_V4, random_v4;
    xxh3_v6: Xxh3, SETS_V6, random_v6;
    mix64_v4: Mix64, SETS_V4, random_v4;
    mix64_v6: Mix64, SETS_V6, random_v6;
    crc_add_v4: CrcAdd, SETS_V4, random_v4;
    crc_add_v6: CrcAdd, SETS_V6, random_v6;
}

/// One source scans 65,536 and 100,000 destinations, in layouts as planned.
#[test]
fn scans_decode_in_planned_layouts() {
    use flowradar_core::plan::PlanRequest;

    fn scan<H: HashFamily>(flows: u64) {
        let plan = PlanRequest::flows(flows)
            .family(H::ID)
            .failure_probability(1e-4)
            .plan();
        let layout = plan.expect("an ordinary size").layout;
        let mut encoder =
            Encoder::<FlowKeyV4, H>::new("s".parse().expect("a name"), layout, Epoch::number(0))
                .expect("same family");
        for i in 0..flows {
            let key = v4(0x0a00_0001, 0x0b00_0000 + i, 40_000, 443);
            encoder.packet(&Packet { key, ip_bytes: 40 });
        }
        let bytes = encoder
            .end_epoch(Epoch::number(1))
            .expect("first")
            .to_flowset();
        let flowset = Flowset::new_checked(&bytes).expect("own flowset");
        let decoded = single_decode::<FlowKeyV4, _>(&flowset).expect("IPv4");
        assert!(decoded.is_complete(), "{:?}, {flows} flows", H::ID);
        assert_eq!(decoded.flows.len() as u64, flows);
    }

    for flows in [65_536, 100_000] {
        scan::<Xxh3>(flows);
        scan::<Mix64>(flows);
        scan::<CrcAdd>(flows);
    }
}
