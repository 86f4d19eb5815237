//! Loads, paths and keys of the traffic; reproducibility; what observers are shown.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write as _;
use std::path::Path;

use flowradar_core::decode::single_decode;
use flowradar_core::hash::HashFamilyId;
use flowradar_core::layout::{CellWidths, Coupling, FilterLayout, Layout, TableLayout};
use flowradar_core::{FlowKeyV4, Flowset};
use flowradar_sim::encode::encode;
use flowradar_sim::{
    EcmpImbalance, FaultError, Faults, FlowSizeCdf, FlowSizes, InFlight, Observation,
    PacketObserver, Simulation, SimulationError, Spread, SwitchId, Topology, Trace, TraceRecord,
    Traffic, Truth,
};

fn fat_tree(k: u32) -> Topology {
    Topology::fat_tree(k).expect("k is even and in range")
}

fn inter_pod(k: u32, flows_per_switch: u32, spread: Spread) -> Simulation {
    Simulation::builder(fat_tree(k))
        .traffic(Traffic::InterPod {
            flows_per_switch,
            spread,
        })
        .epochs(2)
        .seed(5)
        .build()
        .expect("is valid")
}

/// Flows at each switch in each epoch.
fn loads(simulation: &Simulation) -> BTreeMap<(u64, SwitchId), u32> {
    let mut loads = BTreeMap::new();
    for epoch in 0..simulation.epochs() {
        simulation.for_each_block(epoch, |pieces| {
            for observation in pieces.iter().flat_map(|piece| piece.all()) {
                *loads.entry((epoch, observation.switch)).or_default() += 1;
            }
        });
    }
    loads
}

#[test]
fn even_inter_pod_traffic_loads_every_switch_alike() {
    for k in (4..=16).step_by(2) {
        for flows_per_switch in [1, 7, 64] {
            let simulation = inter_pod(k, flows_per_switch, Spread::Even);
            let switches = 5 * k as usize * k as usize / 4;
            assert_eq!(
                simulation.flows_per_epoch(),
                flows_per_switch * k * k / 4,
                "F = N k²/4"
            );
            let loads = loads(&simulation);
            assert_eq!(loads.len(), 2 * switches);
            assert!(
                loads.values().all(|&load| load == flows_per_switch),
                "k = {k}, {flows_per_switch} flows: {loads:?}"
            );
        }
    }
}

#[test]
fn paths_are_paths_of_the_topology() {
    let topologies = [
        inter_pod(4, 50, Spread::Even),
        inter_pod(8, 20, Spread::Hashed),
        uniform(fat_tree(6), 100),
        uniform(ring(), 100),
    ];
    for simulation in &topologies {
        let topology = simulation.topology();
        for flow in 0..simulation.flows_per_epoch() {
            let info = simulation
                .flow(flowradar_sim::FlowId(flow))
                .expect("is a flow of the run");
            let (first, last) = (info.path[0], info.path[info.path.len() - 1]);
            assert!(topology.link_between(info.from, first).is_some());
            assert!(topology.link_between(last, info.to).is_some());
            for pair in info.path.windows(2) {
                assert!(topology.link_between(pair[0], pair[1]).is_some());
            }
            let shortest = simulation.routing().path_switches(info.from, info.to);
            assert_eq!(info.path.len(), usize::from(shortest));
            assert_eq!(
                topology.hosts()[info.from.index()].address,
                info.key.src_v4()
            );
            assert_eq!(topology.hosts()[info.to.index()].address, info.key.dst_v4());
        }
    }
}

#[test]
fn uniform_traffic_has_the_mean_load_and_the_paths_of_random_pairs() {
    let simulation = uniform(fat_tree(8), 2_000);
    let truth = Truth::of(&simulation);
    let switches = simulation.topology().switches().len() as f64;
    // The number of flows is set by the mean path length; what random pairs add to it varies.
    let mean = truth.records().len() as f64 / switches;
    assert!((mean / 2_000.0 - 1.0).abs() < 0.01, "{mean}");

    let mut lengths: BTreeMap<usize, u32> = BTreeMap::new();
    let mut switches_of: HashMap<_, usize> = HashMap::new();
    for record in truth.records() {
        *switches_of.entry(record.flow).or_default() += 1;
    }
    for &length in switches_of.values() {
        *lengths.entry(length).or_default() += 1;
    }
    // Of the 127 other hosts 3 are on the same edge switch, 12 in the same pod, 112 elsewhere.
    let flows = f64::from(simulation.flows_per_epoch());
    for (length, hosts) in [(1, 3.0), (3, 12.0), (5, 112.0)] {
        let probability = hosts / 127.0;
        let deviation = (flows * probability * (1.0 - probability)).sqrt();
        let found = f64::from(lengths[&length]);
        assert!(
            (found - flows * probability).abs() < 5.0 * deviation,
            "{lengths:?}"
        );
    }
    assert_eq!(lengths.len(), 3);
}

#[test]
fn hashed_spread_is_binomial() {
    const FLOWS: u32 = 2_000;
    let simulation = inter_pod(8, FLOWS, Spread::Hashed);
    let topology = simulation.topology();
    let loads = loads(&simulation);
    for (&(_, switch), &load) in &loads {
        let name = topology.name(switch);
        // Which edge switches flows use is dealt out; the hash chooses one of 4 aggregation
        // switches at each end (the same number, from the way up), and one of 16 cores.
        let (trials, probability) = if name.starts_with("edge") {
            assert_eq!(load, FLOWS);
            continue;
        } else if name.starts_with("agg") {
            (f64::from(FLOWS) * 4.0, 0.25)
        } else {
            (f64::from(FLOWS) * 16.0, 1.0 / 16.0)
        };
        let deviation = (trials * probability * (1.0 - probability)).sqrt();
        let expected = trials * probability;
        assert!(
            (f64::from(load) - expected).abs() < 5.0 * deviation,
            "{name}: {load}"
        );
    }
}

#[test]
fn polarised_hashes_leave_cores_unused() {
    let cores_used = |ecmp_polarised| {
        let simulation = Simulation::builder(fat_tree(8))
            .traffic(Traffic::InterPod {
                flows_per_switch: 200,
                spread: Spread::Hashed,
            })
            .faults(Faults {
                ecmp_polarised,
                ..Faults::default()
            })
            .build()
            .expect("is valid");
        loads(&simulation)
            .keys()
            .filter(|(_, at)| at.index() >= 64)
            .count()
    };
    // An edge and an aggregation switch that choose by one hash both choose the same number of
    // four: 4 of 16 combinations are left.
    assert_eq!((cores_used(false), cores_used(true)), (16, 4));
}

#[test]
fn imbalance_shifts_flows_at_one_switch() {
    let at = fat_tree(4).switch("edge-0-0").expect("exists");
    let simulation = Simulation::builder(fat_tree(4))
        .flows_per_switch(4_000)
        .faults(Faults {
            ecmp_imbalance: vec![EcmpImbalance {
                at,
                weights: vec![3, 1],
            }],
            ..Faults::default()
        })
        .build()
        .expect("is valid");
    let mut chosen = [0_u32; 2];
    for flow in 0..2 * simulation.flows_per_epoch() {
        let info = simulation
            .flow(flowradar_sim::FlowId(flow))
            .expect("exists");
        if info.path[0] == at {
            let name = simulation.topology().name(info.path[1]);
            chosen[usize::from(name == "agg-0-1")] += 1;
        }
    }
    let (total, upper) = (f64::from(chosen[0] + chosen[1]), f64::from(chosen[0]));
    assert!(
        (upper - 0.75 * total).abs() < 5.0 * (total * 0.75 * 0.25).sqrt(),
        "{chosen:?}"
    );
}

/// The same on one thread and on several, today and in a second run, and different for another
/// seed.
#[test]
fn the_seed_alone_decides() {
    let build = |seed| {
        Simulation::builder(fat_tree(4))
            .flows_per_switch(3_000)
            .epochs(2)
            .faults(Faults {
                link_loss: 0.01,
                in_flight: InFlight {
                    flows: 0.05,
                    packets_max: 2,
                },
                ..Faults::default()
            })
            .seed(seed)
            .build()
            .expect("is valid")
    };
    let everything = |simulation: &Simulation, threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("threads can be made").install(|| {
            let mut observations: Vec<Observation> = Vec::new();
            for epoch in 0..simulation.epochs() {
                simulation.for_each_block(epoch, |pieces| {
                    observations.extend(pieces.iter().flat_map(|piece| piece.all()));
                });
            }
            let mut reports = Vec::new();
            encode(simulation, &layout(3_000), |_, more| reports.extend(more));
            (
                observations,
                Truth::of(simulation),
                simulation.summary(),
                reports,
            )
        })
    };
    let one = everything(&build(1), 1);
    assert!(one == everything(&build(1), 3));
    let other = everything(&build(2), 2);
    assert!(one.0 != other.0 && one.1 != other.1 && one.3 != other.3);
}

/// The truth of each epoch is the part of the truth of all.
#[test]
fn truth_of_an_epoch_is_a_part_of_the_truth() {
    let simulation = Simulation::builder(fat_tree(4))
        .flows_per_switch(50)
        .epochs(3)
        .faults(Faults {
            in_flight: InFlight {
                flows: 0.3,
                packets_max: 2,
            },
            clock_skew: flowradar_sim::ClockSkew::Random { offset_max: 0.2 },
            ..Faults::default()
        })
        .build()
        .expect("is valid");
    let all = Truth::of(&simulation);
    let parts: Vec<_> = (0..3)
        .flat_map(|epoch| Truth::of_epoch(&simulation, epoch).records().to_vec())
        .collect();
    assert_eq!(all.records(), parts);
}

#[derive(Default)]
struct OneByOne(BTreeMap<(u64, SwitchId, FlowKeyV4), (u64, u64)>);

impl PacketObserver for OneByOne {
    fn packet(&mut self, switch: SwitchId, epoch: u64, key: &FlowKeyV4, ip_bytes: u32) {
        let counters = self.0.entry((epoch, switch, *key)).or_default();
        counters.0 += 1;
        counters.1 += u64::from(ip_bytes);
    }
}

/// What an observer counts packet by packet is the truth, and what the encoders report decodes to.
#[test]
fn observers_encoders_and_truth_agree() {
    let simulation = Simulation::builder(fat_tree(4))
        .flows_per_switch(300)
        .epochs(2)
        .faults(Faults {
            lossy_flows: 0.1,
            in_flight: InFlight {
                flows: 0.1,
                packets_max: 2,
            },
            silent: vec![flowradar_sim::Silence {
                at: SwitchId(3),
                epochs: Some(0..=0),
            }],
            ..Faults::default()
        })
        .build()
        .expect("is valid");
    let truth = Truth::of(&simulation);
    let mut counted = OneByOne::default();
    simulation.observe(&mut counted);
    let expected: BTreeMap<_, _> = truth
        .records()
        .iter()
        .map(|r| {
            (
                (r.epoch, r.switch, simulation.key(r.flow)),
                (r.packets, r.bytes),
            )
        })
        .collect();
    assert_eq!(counted.0, expected);

    let mut reported = HashSet::new();
    encode(&simulation, &layout(600), |epoch, reports| {
        for report in reports {
            assert_eq!(report.epoch, epoch);
            assert!(reported.insert((epoch, report.switch)));
            let flowset = Flowset::new_checked(&report.flowset[..]).expect("just written");
            let name = &simulation.topology().switches()[report.switch.index()];
            assert_eq!(&flowset.header().switch, name);
            assert_eq!(flowset.header().epoch.number, epoch);
            let decoded = single_decode::<FlowKeyV4, _>(&flowset).expect("IPv4 keys");
            let records = truth.records_of(epoch, report.switch);
            assert_eq!(decoded.flows.len(), records.len());
            for flow in &decoded.flows {
                let known = truth
                    .get(epoch, report.switch, &flow.key)
                    .expect("was there");
                assert_eq!(flow.packets.value, known.packets);
                assert_eq!(flow.bytes.map(|bytes| bytes.value), Some(known.bytes));
            }
        }
    });
    assert_eq!(reported.len(), 39);
    assert!(!reported.contains(&(0, SwitchId(3))));
}

#[test]
fn traces_keep_their_keys_and_counts() {
    let key = |port| {
        FlowKeyV4::new(
            [192, 0, 2, 1].into(),
            [198, 51, 100, 7].into(),
            port,
            53,
            17,
        )
    };
    let record = |epoch, port, packets, bytes| TraceRecord {
        epoch,
        key: key(port),
        packets,
        bytes,
    };
    let trace = Trace::new([
        record(0, 1, 3, 1_000),
        record(1, 1, 2, 80),
        record(1, 2, 1, 41),
    ])
    .expect("is valid");
    let simulation = Simulation::builder(ring())
        .traffic(Traffic::Trace(trace))
        .build()
        .expect("is valid");
    assert_eq!(simulation.epochs(), 2);
    let truth = Truth::of(&simulation);
    for (epoch, port, packets, bytes) in [(0, 1, 3, 1_000), (1, 1, 2, 80), (1, 2, 1, 41)] {
        let flow = truth.flow_of(&key(port)).expect("was recorded");
        for switch in simulation.flow(flow).expect("exists").path {
            let found = truth.get(epoch, switch, &key(port)).expect("passed here");
            assert_eq!((found.packets, found.bytes), (packets, bytes));
        }
    }
    assert_eq!(truth.flows().len(), 2);
    let flow = truth.flow_of(&key(2)).expect("was recorded");
    assert!(
        truth
            .records()
            .iter()
            .all(|r| r.flow != flow || r.epoch == 1)
    );
}

#[test]
fn settings_are_checked() {
    let refusal = |builder: flowradar_sim::SimulationBuilder| builder.build().expect_err("bad");
    let builder = || Simulation::builder(fat_tree(4));
    assert_eq!(
        refusal(builder().flows_per_switch(0)),
        SimulationError::NoFlows
    );
    assert_eq!(
        refusal(builder().epochs(0)),
        SimulationError::Epochs { epochs: 0 }
    );
    assert_eq!(
        refusal(builder().persistence(1.5)),
        SimulationError::Persistence { value: 1.5 }
    );
    assert_eq!(
        refusal(builder().mtu_bytes(67)),
        SimulationError::Mtu { mtu_bytes: 67 }
    );
    assert!(matches!(
        refusal(builder().flows_per_switch(u32::MAX)),
        SimulationError::TooManyFlows { .. }
    ));
    assert!(matches!(
        refusal(builder().flow_sizes(FlowSizes::Fixed { packets: 0 })),
        SimulationError::FlowSizes { .. }
    ));
    assert_eq!(
        refusal(Simulation::builder(ring()).traffic(Traffic::InterPod {
            flows_per_switch: 1,
            spread: Spread::Even,
        })),
        SimulationError::NotAFatTree
    );
    let faults = Faults {
        link_loss: f64::NAN,
        ..Faults::default()
    };
    assert!(matches!(
        refusal(builder().faults(faults)),
        SimulationError::Faults(FaultError::Fraction { .. })
    ));
}

/// The published distributions are read as they are, and drawn flows have their quantiles.
#[test]
fn published_distributions_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/1_traces");
    for name in ["FbHdp_distribution.txt", "WebSearch_distribution.txt"] {
        let Ok(text) = std::fs::read_to_string(folder.join(name)) else {
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: {name} is not in {}",
                folder.display()
            );
            continue;
        };
        let sizes = FlowSizeCdf::parse(&text).expect("is published in this format");
        // Every point of the file again, by an independent reading of it.
        for line in text.lines() {
            let fields: Vec<f64> = line
                .split(' ')
                .map(|f| f.parse().expect("number"))
                .collect();
            assert_eq!(
                sizes.quantile(fields[1] / 100.0) as f64,
                fields[0],
                "{name}: {line}"
            );
        }
        let median_bytes = sizes.quantile(0.5);
        let simulation = Simulation::builder(fat_tree(4))
            .flows_per_switch(5_000)
            .flow_sizes(FlowSizes::Bytes(sizes))
            .build()
            .expect("is valid");
        let truth = Truth::of(&simulation);
        let records = truth.records_of(0, SwitchId(0));
        let smaller = records
            .iter()
            .filter(|record| record.bytes - 40 * record.packets <= median_bytes)
            .count();
        // Half of 5,000, standard deviation 35.
        assert!(smaller.abs_diff(2_500) < 177, "{name}: {smaller}");
    }
}

/// Loss on every link by topology: packets at each tier, and what becomes of them.
#[test]
fn loss_table() {
    let mut table =
        String::from("k   loss  flows/switch  sent  edge  agg  core  delivered  lost\n");
    for k in [4, 8] {
        for link_loss in [0.0, 0.001, 0.01, 0.1] {
            let simulation = Simulation::builder(fat_tree(k))
                .flows_per_switch(100)
                .faults(Faults {
                    link_loss,
                    ..Faults::default()
                })
                .build()
                .expect("is valid");
            let summary = simulation.summary();
            let tier = |name: &str| -> u64 {
                let switches = simulation.topology().switches().iter();
                switches
                    .zip(&summary.switches)
                    .filter(|(switch, _)| switch.as_str().starts_with(name))
                    .map(|(_, sums)| sums.packets)
                    .sum()
            };
            table += &format!(
                "{k}   {link_loss:<5} 100           {}  {}  {}  {}  {}  {}\n",
                summary.packets_sent,
                tier("edge"),
                tier("agg"),
                tier("core"),
                summary.packets_delivered,
                summary.packets_lost(),
            );
        }
    }
    insta::assert_snapshot!(table);
}

fn uniform(topology: Topology, flows_per_switch: u32) -> Simulation {
    Simulation::builder(topology)
        .traffic(Traffic::Uniform { flows_per_switch })
        .build()
        .expect("is valid")
}

/// Five switches in a ring, with a host each and one with two links.
fn ring() -> Topology {
    Topology::from_json(
        r#"{
            "version": 1,
            "switches": ["s0", "s1", "s2", "s3", "s4"],
            "hosts": [{"name": "a"}, {"name": "b"}, {"name": "c"}, {"name": "d"}],
            "links": [
                ["s0", "s1"], ["s1", "s2"], ["s2", "s3"], ["s3", "s4"], ["s4", "s0"],
                ["a", "s0"], ["b", "s1"], ["b", "s2"], ["c", "s3"], ["d", "s4"]
            ]
        }"#,
    )
    .expect("is well-formed")
}

/// Roomy enough to decode at each switch alone.
fn layout(flows: u32) -> Layout {
    let widths = CellWidths::new(8, 32, 48).expect("in range");
    let table = TableLayout::new(3, flows * 2 / 3 + 50, Coupling::Plain, widths).expect("in range");
    let filter = FilterLayout::partitioned(10, flows * 6 + 64).expect("in range");
    Layout::new(HashFamilyId::Xxh3, 9, table, filter).expect("ten hashes are offered")
}
