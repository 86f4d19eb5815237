//! Planned layouts keep their promises. `FLOWRADAR_LONG_TESTS=1` (best with `--release`) decodes
//! hundreds of flowsets of 100,000 flows and prints how many were complete.

use flowradar_core::decode::{SingleDecode, single_decode};
use flowradar_core::flowset::Epoch;
use flowradar_core::hash::{HashFamily, HashFamilyId, Xxh3};
use flowradar_core::layout::{Coupling, FilterLayout, Layout, LayoutError};
use flowradar_core::plan::{CouplingChoice, DecodeGoal, FilterKind, Plan, PlanError, PlanRequest};
use flowradar_core::{Encoder, FlowKey, FlowKeyV4, Flowset, KeyKind, Packet};
use proptest::prelude::*;

const MEGABYTE_BITS: u64 = 8_000_000;

/// Every flow but less than one, in expectation, is known to the table: the paper's comparison.
const LESS_THAN_ONE_HIDDEN_FLOW: f64 = 0.99;

fn plain_100k() -> Plan {
    let request = PlanRequest::flows(100_000)
        .expected_false_positives(LESS_THAN_ONE_HIDDEN_FLOW)
        .coupling(CouplingChoice::Plain);
    request.plan().expect("an ordinary size")
}

fn coupled_100k() -> Plan {
    let request = PlanRequest::flows(100_000).expected_false_positives(LESS_THAN_ONE_HIDDEN_FLOW);
    request.plan().expect("an ordinary size")
}

/// Memory with 8 bits of FlowCount and 24 bits of PacketCount; a megabyte is 10^6 bytes. The paper
/// (NSDI 2016) has 2.36 MB.
#[test]
fn memory_of_100_000_flows() {
    let plain = plain_100k();
    assert_eq!(plain.layout.table().coupling(), Coupling::Plain);
    assert!(
        plain.switch_memory_bits() * 100 <= 236 * MEGABYTE_BITS,
        "{plain:?}"
    );
    assert!(plain.expected_false_positives < 1.0);
    assert!(plain.failure_probability <= 0.01);

    let coupled = coupled_100k();
    assert_ne!(coupled.layout.table().coupling(), Coupling::Plain);
    assert!(
        coupled.switch_memory_bits() * 10 <= 22 * MEGABYTE_BITS,
        "{coupled:?}"
    );
    assert!(coupled.expected_false_positives < 1.0);
    assert!(coupled.failure_probability <= 0.01);

    let network = PlanRequest::flows(100_000)
        .goal(DecodeGoal::Network)
        .expected_false_positives(LESS_THAN_ONE_HIDDEN_FLOW)
        .plan()
        .expect("an ordinary size");
    assert!(
        network.switch_memory_bits() * 10 <= 15 * MEGABYTE_BITS,
        "{network:?}"
    );
    assert!(network.expected_false_positives < 1.0);
    assert!((network.cells_per_flow - 0.68).abs() < 0.001);

    // Complete in 99 of 100 epochs, filter included.
    let complete = PlanRequest::flows(100_000)
        .plan()
        .expect("an ordinary size");
    assert!(complete.expected_false_positives + complete.failure_probability <= 0.01);
    if is_long() {
        for plan in [plain, coupled, network, complete] {
            eprintln!("{} bytes: {plan:?}", plan.switch_memory_bits() / 8);
        }
    }
}

#[test]
fn flowsets_of_100_000_flows_decode() {
    let trials = if is_long() { 500 } else { 2 };
    for plan in [plain_100k(), coupled_100k()] {
        let (mut full, mut complete) = (0, 0);
        for trial in 0..trials {
            let decoded = decode(&plan.layout.with_seed(trial), plan.flows, trial);
            full += u64::from(decoded.leftover.cells == 0);
            complete += u64::from(decoded.is_complete());
        }
        eprintln!(
            "{:?}: every recorded flow in {full} of {trials}, complete in {complete}",
            plan.layout.table()
        );
        assert!(trials - full <= failures_most(plan.failure_probability, trials));
    }
}

/// Over all sizes and couplings, flowsets fail no more often than wished.
#[test]
fn planned_flowsets_fail_no_more_often_than_wished() {
    let grid: &[(u64, u64)] = if is_long() {
        &[
            (1, 100),
            (2, 2000),
            (5, 2000),
            (16, 5000),
            (30, 5000),
            (64, 5000),
            (65, 5000),
            (100, 5000),
            (300, 5000),
            (1_000, 5000),
            (3_000, 2000),
            (10_000, 1000),
            (30_000, 500),
            (60_000, 300),
            (300_000, 100),
        ]
    } else {
        &[
            (1, 20),
            (2, 300),
            (16, 300),
            (64, 300),
            (65, 300),
            (200, 300),
            (1_000, 200),
            (3_000, 100),
            (12_000, 30),
        ]
    };
    for &(flows, trials) in grid {
        for coupling in [CouplingChoice::Plain, CouplingChoice::Coupled] {
            for hashes in [None, Some(3), Some(4)] {
                if hashes.is_some() && !is_long() && flows > 1_000 {
                    continue;
                }
                let wished = 0.05;
                let mut request = PlanRequest::flows(flows)
                    .coupling(coupling)
                    .failure_probability(wished);
                if let Some(hashes) = hashes {
                    request = request.hashes(hashes);
                }
                let plan = match request.plan() {
                    Err(PlanError::CoupledFlows(_)) => continue,
                    plan => plan.expect("an ordinary size"),
                };
                let failures = (0..trials)
                    .filter(|&trial| {
                        let layout = plan.layout.with_seed(trial);
                        !decode(&layout, flows, trial).is_complete()
                    })
                    .count() as u64;
                if is_long() {
                    eprintln!(
                        "{flows} flows, {coupling:?}, {hashes:?}: {failures} of {trials} failed, \
                         {wished} wished, {:.4} cells a flow, {:?}",
                        plan.cells_per_flow,
                        plan.layout.table()
                    );
                }
                assert!(
                    failures <= failures_most(wished, trials),
                    "{flows} flows: {failures} of {trials} failed: {plan:?}"
                );
            }
        }
    }
}

/// A binomial number is above this with a chance below 10^-6 (Bernstein's inequality).
fn failures_most(probability: f64, trials: u64) -> u64 {
    let variance = trials as f64 * probability * (1.0 - probability);
    let exponent = 14.0;
    let above = exponent / 3.0 + (exponent * exponent / 9.0 + 2.0 * exponent * variance).sqrt();
    (trials as f64 * probability + above) as u64
}

fn decode(layout: &Layout, flows: u64, seed: u64) -> SingleDecode<FlowKeyV4> {
    let mut encoder =
        Encoder::<FlowKeyV4, Xxh3>::new("s".parse().expect("a name"), *layout, Epoch::number(0))
            .expect("same family");
    let packets: Vec<_> = (0..flows)
        .map(|flow| Packet {
            key: FlowKeyV4::from_words([random(seed << 32 | flow), random(!(seed << 32 | flow))]),
            ip_bytes: 64,
        })
        .collect();
    encoder.packets(&packets);
    let bytes = encoder
        .end_epoch(Epoch::number(1))
        .expect("first")
        .to_flowset();
    single_decode(&Flowset::new_checked(&bytes).expect("own flowset")).expect("IPv4")
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

#[test]
fn wishes_out_of_range_are_refused() {
    let request = || PlanRequest::flows(1_000);
    let refused = [
        (
            request().failure_probability(0.0),
            PlanError::FailureProbability(0.0),
        ),
        (
            request().failure_probability(0.9),
            PlanError::FailureProbability(0.9),
        ),
        (
            request().expected_false_positives(-1.0),
            PlanError::ExpectedFalsePositives(-1.0),
        ),
        (
            request().expected_false_positives(f64::INFINITY),
            PlanError::ExpectedFalsePositives(f64::INFINITY),
        ),
        (request().cells_per_flow(0.0), PlanError::CellsPerFlow(0.0)),
        (
            request().hashes(7),
            PlanError::Layout(LayoutError::Hashes(7)),
        ),
        (
            request().flows_max(10),
            PlanError::FlowsMax {
                flows: 1_000,
                flows_max: 10,
            },
        ),
        (
            request().coupling(CouplingChoice::Coupled),
            PlanError::CoupledFlows(1_000),
        ),
        (
            request().goal(DecodeGoal::Network).hashes(5),
            PlanError::NetworkHashes(5),
        ),
    ];
    for (request, error) in refused {
        assert_eq!(request.plan(), Err(error));
    }
    assert!(matches!(
        PlanRequest::flows(u64::MAX).plan(),
        Err(PlanError::Layout(LayoutError::Cells(_)))
    ));
    assert!(matches!(
        PlanRequest::for_memory(100).plan(),
        Err(PlanError::Memory { bits: 100, .. })
    ));
}

#[test]
fn the_network_goal_decodes_expected_flows_alone() {
    let request = PlanRequest::flows(60_000)
        .flows_max(100_000)
        .goal(DecodeGoal::Network);
    let plan = request.plan().expect("an ordinary size");
    // 60,000 flows need more cells alone than 100,000 in the network.
    assert!(plan.cells_per_flow > 0.68);
    assert!(decode(&plan.layout, 60_000, 1).leftover.cells == 0);
    assert!(plan.failure_probability > 0.99);

    let plan = request
        .flows_max(1_000_000)
        .plan()
        .expect("an ordinary size");
    assert!((plan.cells_per_flow - 0.68).abs() < 0.001);
}

#[test]
fn more_flows_than_expected_decode_up_to_the_most() {
    let most = PlanRequest::flows(1_000)
        .flows_max(5_000)
        .plan()
        .expect("an ordinary size");
    let expected = PlanRequest::flows(5_000).plan().expect("an ordinary size");
    assert_eq!(most.layout, expected.layout);
}

#[test]
fn export_bandwidth_is_flowsets_by_time() {
    let plan = PlanRequest::flows(1_000).plan().expect("an ordinary size");
    let bits = plan.flowset_bytes().expect("small") as f64 * 8.0;
    assert_eq!(plan.export_bits_per_second(1_000_000_000), bits);
    assert_eq!(plan.export_bits_per_second(10_000_000), bits * 100.0);
}

fn requests() -> impl Strategy<Value = PlanRequest> {
    (
        prop_oneof![1_u64..100, 1_u64..200_000, 1_u64..50_000_000],
        -6.0..-0.302_f64,
        prop::sample::select(HashFamilyId::ALL.to_vec()),
        prop::sample::select(vec![FilterKind::Partitioned, FilterKind::Blocked]),
        prop::option::of(2_u8..=6),
        prop::sample::select(vec![KeyKind::V4, KeyKind::V6]),
    )
        .prop_map(|(flows, exponent, family, filter, hashes, key)| {
            let request = PlanRequest::flows(flows)
                .failure_probability(10_f64.powf(exponent))
                .family(family)
                .filter(filter)
                .key(key);
            match hashes {
                Some(hashes) => request.hashes(hashes),
                None => request,
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Plans exist for all sizes, and keep to the wishes by their own model.
    #[test]
    fn every_size_has_a_plan(request in requests()) {
        match request.plan() {
            Ok(plan) => {
                let table = plan.layout.table();
                prop_assert!(table.cells() as u64 >= plan.flows_max);
                prop_assert!(plan.failure_probability + plan.expected_false_positives <= 0.5);
            }
            // Two hashes need very many cells, blocked filters without false positives very many bits.
            Err(error) => prop_assert!(
                matches!(
                    error,
                    PlanError::Layout(LayoutError::Cells(_) | LayoutError::FilterBits(_))
                ),
                "{}",
                error
            ),
        }
    }

    /// What is planned for a memory fits, and a hundredth more flows do not.
    #[test]
    fn memory_is_used(kilobytes in 10_u64..10_000, blocked: bool) {
        let kind = if blocked { FilterKind::Blocked } else { FilterKind::Partitioned };
        let bits = kilobytes * 8_000;
        let plan = PlanRequest::for_memory(bits).filter(kind).plan().expect("an ordinary size");
        prop_assert!(plan.switch_memory_bits() <= bits);
        let more = PlanRequest::flows(plan.flows * 101 / 100 + 1).filter(kind).plan();
        prop_assert!(more.expect("an ordinary size").switch_memory_bits() > bits);
    }
}

#[test]
fn the_default_filter_has_the_fewest_bits() {
    for family in HashFamilyId::ALL {
        let partitioned = PlanRequest::flows(10_000)
            .family(family)
            .plan()
            .expect("ordinary");
        let blocked = PlanRequest::flows(10_000)
            .family(family)
            .filter(FilterKind::Blocked)
            .plan()
            .expect("ordinary");
        assert!(matches!(
            partitioned.layout.filter(),
            FilterLayout::Partitioned { .. }
        ));
        assert!(matches!(
            blocked.layout.filter(),
            FilterLayout::Blocked { .. }
        ));
        assert!(partitioned.layout.filter().bits() < blocked.layout.filter().bits());
        assert!(partitioned.layout.filter().hashes() as usize <= family.filter_lanes_max());
    }
    assert_eq!(
        Xxh3::FILTER_LANES_MAX,
        HashFamilyId::Xxh3.filter_lanes_max()
    );
}
