//! Every fault is in the truth exactly where it was planted, and no packet gets lost unaccounted.

use std::collections::{BTreeMap, BTreeSet};

use flowradar_sim::{
    ClockSkew, Fault, FaultKind, Faults, FlowId, FlowSelector, FlowSizes, Happening, InFlight,
    KeyStyle, LoopEnd, LossyLink, Misforwarded, Node, Silence, Simulation, SwitchId, Topology,
    Traffic, Truth, TruthRecord,
};
use proptest::prelude::*;

fn fat_tree() -> Topology {
    Topology::fat_tree(4).expect("4 is even")
}

fn run(faults: Faults) -> Simulation {
    Simulation::builder(fat_tree())
        .flows_per_switch(200)
        .faults(faults)
        .seed(11)
        .build()
        .expect("is valid")
}

fn planted(kind: FaultKind, flows: FlowSelector) -> Faults {
    Faults {
        planted: vec![Fault {
            kind,
            flows,
            epochs: None,
        }],
        ..Faults::default()
    }
}

fn switch(name: &str) -> SwitchId {
    fat_tree().switch(name).expect("exists")
}

/// Packets of a flow at each switch that saw it.
fn at_switches(truth: &Truth, flow: FlowId) -> BTreeMap<SwitchId, u64> {
    let of_flow = truth.records().iter().filter(|record| record.flow == flow);
    of_flow
        .map(|record| (record.switch, record.packets))
        .collect()
}

/// What each flow sent, from a run without faults and with the same seed.
fn sent(simulation: &Simulation) -> BTreeMap<FlowId, u64> {
    let healthy = Truth::of(&run(Faults::default()));
    assert_eq!(simulation.seed(), 11);
    healthy
        .records()
        .iter()
        .map(|record| (record.flow, record.packets))
        .collect()
}

#[test]
fn without_faults_every_switch_of_the_path_counts_every_packet() {
    let simulation = run(Faults::default());
    let truth = Truth::of(&simulation);
    assert!(truth.events().is_empty());
    for &(key, flow) in truth.flows() {
        let info = simulation.flow(flow).expect("is a flow of the run");
        assert_eq!(info.key, key);
        let seen = at_switches(&truth, flow);
        let path: BTreeSet<SwitchId> = info.path.iter().copied().collect();
        assert_eq!(seen.keys().copied().collect::<BTreeSet<_>>(), path);
        let counts: BTreeSet<u64> = seen.values().copied().collect();
        assert_eq!(counts.len(), 1, "all switches agree");
    }
    let summary = simulation.summary();
    assert_eq!(summary.packets_lost(), 0);
    assert_eq!(summary.packets_delivered, summary.packets_sent);
}

#[test]
fn link_loss_has_the_fraction_asked_for_on_each_link() {
    const FRACTION: f64 = 0.05;
    let simulation = run(Faults {
        link_loss: FRACTION,
        ..Faults::default()
    });
    let summary = simulation.summary();
    let topology = simulation.topology();
    for (link, sums) in summary.links.iter().enumerate() {
        let ends = topology.links()[link / 2];
        let switches = ends.iter().all(|end| matches!(end, Node::Switch(_)));
        if !switches {
            assert_eq!(sums.lost, 0);
            continue;
        }
        let expected = sums.entered as f64 * FRACTION;
        let deviation = (expected * (1.0 - FRACTION)).sqrt();
        assert!(
            (sums.lost as f64 - expected).abs() < 5.0 * deviation,
            "link {link}: {sums:?}"
        );
    }
    assert!(summary.packets_lost_on_links > 0);
}

#[test]
fn one_lossy_link_loses_in_its_direction_only() {
    let topology = fat_tree();
    let (edge, aggregation) = (switch("edge-0-0"), switch("agg-0-1"));
    let simulation = run(Faults {
        lossy_links: vec![LossyLink {
            from: edge.into(),
            to: aggregation.into(),
            fraction: 0.5,
        }],
        ..Faults::default()
    });
    let lossy = topology.link_between(edge, aggregation).expect("joined");
    let summary = simulation.summary();
    for (link, sums) in summary.links.iter().enumerate() {
        assert_eq!(sums.lost > 0, link == lossy.index(), "link {link}");
    }
    let truth = Truth::of(&simulation);
    let lost: u64 = truth.events().iter().map(|event| event.packets).sum();
    assert_eq!(lost, summary.links[lossy.index()].lost);
    for event in truth.events() {
        assert_eq!(event.what, Happening::LostOnLink { link: lossy });
        // Upstream counted what was sent, downstream so much less.
        let seen = at_switches(&truth, event.flow);
        let before = seen[&edge];
        assert_eq!(before - seen.get(&aggregation).unwrap_or(&0), event.packets);
    }
}

#[test]
fn lossy_flows_lose_up_to_a_tenth_at_one_hop() {
    const FRACTION: f64 = 0.1;
    let simulation = run(Faults {
        lossy_flows: FRACTION,
        ..Faults::default()
    });
    let truth = Truth::of(&simulation);
    let sent = sent(&simulation);
    let flows = sent.len() as f64;
    let lossy: BTreeSet<FlowId> = truth.events().iter().map(|event| event.flow).collect();
    assert_eq!(lossy.len(), truth.events().len(), "one loss a flow");
    let deviation = (flows * FRACTION * (1.0 - FRACTION)).sqrt();
    assert!((lossy.len() as f64 - flows * FRACTION).abs() < 5.0 * deviation);
    for event in truth.events() {
        let before = sent[&event.flow];
        assert!((1..=(before / 10).max(1)).contains(&event.packets));
        let Happening::LostOfFlow { link } = event.what else {
            panic!("unexpected {event:?}");
        };
        let path = simulation.flow(event.flow).expect("exists").path;
        let (from, to) = simulation.topology().ends(link);
        let hop = path
            .windows(2)
            .position(|pair| (Node::from(pair[0]), Node::from(pair[1])) == (from, to))
            .expect("the link is on the path");
        let seen = at_switches(&truth, event.flow);
        for (place, at) in path.iter().enumerate() {
            let lost = if place > hop { event.packets } else { 0 };
            assert_eq!(seen.get(at).copied().unwrap_or(0), before - lost);
        }
    }
    for (&flow, &packets) in sent.iter().filter(|(flow, _)| !lossy.contains(flow)) {
        assert!(
            at_switches(&truth, flow)
                .values()
                .all(|&seen| seen == packets)
        );
    }
}

#[test]
fn blackholes_drop_before_or_after_counting() {
    let at = switch("agg-1-0");
    for counted in [false, true] {
        let kind = FaultKind::Blackhole { at, counted };
        let simulation = run(planted(kind, FlowSelector::Fraction(0.3)));
        let truth = Truth::of(&simulation);
        let sent = sent(&simulation);
        let hit: BTreeSet<FlowId> = truth.events().iter().map(|event| event.flow).collect();
        assert!(!hit.is_empty());
        let mut passing = 0;
        for (&flow, &packets) in &sent {
            let path = simulation.flow(flow).expect("exists").path;
            let Some(place) = path.iter().position(|&switch| switch == at) else {
                assert!(!hit.contains(&flow));
                continue;
            };
            passing += 1;
            let seen = at_switches(&truth, flow);
            let reached = place + usize::from(counted);
            let expected = if hit.contains(&flow) {
                &path[..reached]
            } else {
                &path[..]
            };
            let expected: BTreeMap<_, _> = expected.iter().map(|&at| (at, packets)).collect();
            assert_eq!(seen, expected);
        }
        // 200 flows pass; about 60 are hit.
        assert_eq!(passing, 200);
        assert!(hit.len().abs_diff(60) < 33, "{}", hit.len());
    }
}

#[test]
fn looping_packets_are_counted_once_a_turn() {
    let cycle = ["agg-0-0", "core-0", "agg-2-0", "core-1"].map(switch);
    for end in [LoopEnd::TtlExpires, LoopEnd::Heals] {
        let kind = FaultKind::Loop {
            cycle: cycle.to_vec(),
            turns: 3,
            packets_fraction: 0.5,
            end,
        };
        let simulation = run(planted(kind, FlowSelector::All));
        let truth = Truth::of(&simulation);
        let sent = sent(&simulation);
        let mut looped = BTreeSet::new();
        for event in truth.events() {
            let Happening::Looped { entry, fault: 0 } = event.what else {
                assert!(end == LoopEnd::TtlExpires);
                assert!(matches!(event.what, Happening::TtlExpired { .. }));
                continue;
            };
            assert!(looped.insert(event.flow), "caught once");
            let packets = sent[&event.flow];
            assert_eq!(event.packets, packets.div_ceil(2));
            let path = simulation.flow(event.flow).expect("exists").path;
            let place = path
                .iter()
                .position(|at| *at == entry)
                .expect("on the path");
            let mut expected: BTreeMap<SwitchId, u64> = BTreeMap::new();
            for (hop, &at) in path.iter().enumerate() {
                let arriving = match end {
                    LoopEnd::TtlExpires if hop > place => packets - event.packets,
                    _ => packets,
                };
                *expected.entry(at).or_default() += arriving;
            }
            for &at in &cycle {
                *expected.entry(at).or_default() += 3 * event.packets;
            }
            // A flow of one packet is at none of the switches after the loop.
            expected.retain(|_, packets| *packets > 0);
            assert_eq!(
                at_switches(&truth, event.flow),
                expected,
                "{end:?} {event:?}"
            );
        }
        assert!(looped.len() > 100);
        let summary = simulation.summary();
        assert_eq!(summary.packets_lost() > 0, end == LoopEnd::TtlExpires);
    }
}

#[test]
fn wrong_forwarding_shows_at_the_wrong_switch() {
    // An aggregation switch sends everything down to edge-0-0.
    let (at, to) = (switch("agg-0-0"), switch("edge-0-0"));
    for then in [Misforwarded::Continue, Misforwarded::Drop] {
        let kind = FaultKind::WrongForwarding { at, to, then };
        let simulation = run(planted(kind, FlowSelector::Fraction(0.5)));
        let truth = Truth::of(&simulation);
        let sent = sent(&simulation);
        let hit: BTreeMap<FlowId, usize> = truth
            .events()
            .iter()
            .filter(|event| event.what == Happening::Misforwarded { at, to })
            .fold(BTreeMap::new(), |mut hit, event| {
                *hit.entry(event.flow).or_default() += 1;
                hit
            });
        assert!(!hit.is_empty());
        for (&flow, &times) in &hit {
            let path = simulation.flow(flow).expect("exists").path;
            assert!(path.contains(&at));
            let expected_before = u64::from(path[0] == to);
            let seen = at_switches(&truth, flow)[&to] / sent[&flow];
            assert_eq!(seen, expected_before + times as u64);
            if then == Misforwarded::Drop {
                assert_eq!(times, 1);
                assert!(truth.events().iter().any(|event| event.flow == flow
                    && event.what == Happening::MisforwardedDropped { at: to }));
            }
        }
    }
}

#[test]
fn faults_keep_to_their_epochs_and_flows() {
    let at = switch("core-2");
    let host = fat_tree().host("host-3-1-0").expect("exists");
    let simulation = Simulation::builder(fat_tree())
        .flows_per_switch(100)
        .epochs(4)
        .faults(Faults {
            planted: vec![Fault {
                kind: FaultKind::Blackhole { at, counted: true },
                flows: FlowSelector::To(host),
                epochs: Some(1..=2),
            }],
            ..Faults::default()
        })
        .build()
        .expect("is valid");
    let truth = Truth::of(&simulation);
    let epochs: BTreeSet<i64> = truth
        .events()
        .iter()
        .map(|event| event.sent_epoch)
        .collect();
    assert_eq!(epochs, BTreeSet::from([1, 2]));
    for event in truth.events() {
        let info = simulation.flow(event.flow).expect("exists");
        assert!(info.to == host && info.path.contains(&at));
    }
}

/// Upstream switches count in one epoch what the others count in the next: over all epochs
/// nothing is missing in the middle of the run, and each difference is an event.
#[test]
fn packets_in_flight_move_to_the_next_epoch_downstream() {
    let simulation = Simulation::builder(fat_tree())
        .flows_per_switch(200)
        .epochs(3)
        .persistence(1.0)
        .flow_sizes(FlowSizes::Fixed { packets: 20 })
        .faults(Faults {
            in_flight: InFlight {
                flows: 0.2,
                packets_max: 3,
            },
            ..Faults::default()
        })
        .build()
        .expect("is valid");
    let truth = Truth::of(&simulation);
    let mut moved: BTreeMap<(FlowId, SwitchId, i64), i64> = BTreeMap::new();
    for event in truth.events() {
        let Happening::InFlight { from_hop } = event.what else {
            panic!("unexpected {event:?}");
        };
        let path = simulation.flow(event.flow).expect("exists").path;
        assert!((1..=3).contains(&event.packets) && from_hop >= 1);
        for &at in &path[from_hop as usize..] {
            *moved.entry((event.flow, at, event.sent_epoch)).or_default() -= event.packets as i64;
            *moved
                .entry((event.flow, at, event.sent_epoch + 1))
                .or_default() += event.packets as i64;
        }
    }
    // 800 flows and four ends of epochs (one before the run) of 20 %: 640 ± 23.
    assert!(
        truth
            .events()
            .iter()
            .filter(|e| e.sent_epoch < 3)
            .count()
            .abs_diff(640)
            < 115
    );
    // Three epochs, five switches.
    assert_eq!(truth.records().len(), 800 * 3 * 5);
    for record in truth.records() {
        let place = (record.flow, record.switch, record.epoch as i64);
        let expected = 20 + moved.get(&place).copied().unwrap_or(0);
        assert_eq!(record.packets as i64, expected);
    }
}

/// A switch whose clock is a quarter ahead counts the last quarter of an epoch's packets in the
/// next epoch.
#[test]
fn clock_skew_shifts_the_epoch_of_a_switch() {
    let ahead = switch("core-0");
    let behind = switch("agg-0-0");
    let mut offsets = vec![0.0; fat_tree().switches().len()];
    offsets[ahead.index()] = 0.25;
    offsets[behind.index()] = -0.5;
    let simulation = Simulation::builder(fat_tree())
        .flows_per_switch(200)
        .epochs(2)
        .persistence(0.0)
        .flow_sizes(FlowSizes::Fixed { packets: 8 })
        .faults(Faults {
            clock_skew: ClockSkew::Fixed(offsets),
            ..Faults::default()
        })
        .build()
        .expect("is valid");
    let truth = Truth::of(&simulation);
    let (mut at_ahead, mut at_behind, mut elsewhere) = ([0; 9], [0; 9], [0; 9]);
    for &TruthRecord {
        switch, packets, ..
    } in truth.records()
    {
        let counts = match switch {
            at if at == ahead => &mut at_ahead,
            at if at == behind => &mut at_behind,
            _ => &mut elsewhere,
        };
        counts[packets as usize] += 1;
    }
    // Of 8 packets, paced evenly, 6 are in the first three quarters. 200 flows in each of two
    // epochs, of which those of the epoch before the run show their last two packets in epoch 0.
    assert_eq!((at_ahead[6], at_ahead[2]), (400, 400));
    assert_eq!(at_ahead.iter().sum::<i32>(), 800);
    assert_eq!(at_behind[4], 800);
    assert_eq!(at_behind.iter().sum::<i32>(), 800);
    assert_eq!(elsewhere.iter().sum::<i32>(), elsewhere[8]);
}

#[test]
fn silent_switches_are_silent_where_asked() {
    let at = switch("edge-1-1");
    let simulation = Simulation::builder(fat_tree())
        .flows_per_switch(10)
        .epochs(200)
        .faults(Faults {
            silent: vec![Silence {
                at,
                epochs: Some(3..=5),
            }],
            silent_fraction: 0.1,
            ..Faults::default()
        })
        .build()
        .expect("is valid");
    assert!((3..=5).all(|epoch| !simulation.reports(at, epoch)));
    let others = simulation
        .topology()
        .switch_ids()
        .filter(|&other| other != at);
    let silent = others
        .flat_map(|other| (0..200).map(move |epoch| (other, epoch)))
        .filter(|&(other, epoch)| !simulation.reports(other, epoch))
        .count();
    // 3,800 pairs of 10 %: 380 ± 18.5.
    assert!(silent.abs_diff(380) < 93, "{silent}");
}

fn any_faults() -> impl Strategy<Value = Faults> {
    let topology = fat_tree();
    (
        prop_oneof![Just(0.0), 0.0..0.5_f64, Just(1.0)],
        0.0..0.5_f64,
        0.0..0.5_f64,
        prop_oneof![Just(0.0), 0.01..0.5_f64],
        (0_usize..6, 0.0..1.0_f64, any::<u64>()),
    )
        .prop_map(
            move |(link_loss, lossy_flows, in_flight, skew, planted)| Faults {
                link_loss,
                lossy_flows,
                in_flight: InFlight {
                    flows: in_flight,
                    packets_max: 4,
                },
                clock_skew: match skew {
                    0.0 => ClockSkew::None,
                    offset_max => ClockSkew::Random { offset_max },
                },
                planted: Fault::random(&topology, planted.0, planted.1, planted.2),
                ..Faults::default()
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever goes wrong: sent = delivered + lost; what leaves the links into a switch is what it
    /// counted or dropped uncounted; what it counted it lost or put on a link; and the truth agrees
    /// with the sums.
    #[test]
    fn packets_are_conserved(
        faults in any_faults(),
        uniform in any::<bool>(),
        epochs in 1..4_u64,
        seed in any::<u64>(),
    ) {
        let topology = fat_tree();
        let mut builder = Simulation::builder(topology.clone())
            .flows_per_switch(30)
            .epochs(epochs)
            .keys(KeyStyle::SequentialPorts)
            .faults(faults)
            .seed(seed);
        if uniform {
            builder = builder.traffic(Traffic::Uniform { flows_per_switch: 30 });
        }
        let simulation = builder.build().expect("is valid");
        let summary = simulation.summary();
        prop_assert_eq!(summary.packets_sent, summary.packets_delivered + summary.packets_lost());

        let truth = Truth::of(&simulation);
        for at in topology.switch_ids() {
            let arrived: u64 = topology
                .ports(at)
                .iter()
                .map(|port| {
                    // The other direction of the same link.
                    let sums = summary.links[port.link.index() ^ 1];
                    sums.entered - sums.lost
                })
                .sum();
            let sums = summary.switches[at.index()];
            prop_assert_eq!(arrived, sums.packets_ever + sums.packets_dropped_uncounted);
            let left: u64 = topology
                .ports(at)
                .iter()
                .map(|port| summary.links[port.link.index()].entered)
                .sum();
            let dropped: u64 = truth
                .events()
                .iter()
                .filter(|event| match event.what {
                    Happening::Blackholed { at: place, counted } => counted && place == at,
                    Happening::MisforwardedDropped { at: place }
                    | Happening::TtlExpired { at: place } => place == at,
                    _ => false,
                })
                .map(|event| event.packets)
                .sum();
            prop_assert_eq!(sums.packets_ever, left + dropped);

            let records = truth.records().iter().filter(|record| record.switch == at);
            let counted = records.fold((0, 0), |sum, r| (sum.0 + r.packets, sum.1 + r.bytes));
            prop_assert_eq!(counted, (sums.packets, sums.bytes));
        }
        let lost: u64 = truth
            .events()
            .iter()
            .filter(|event| event.what.is_loss())
            .map(|event| event.packets)
            .sum();
        prop_assert_eq!(lost, summary.packets_lost());
    }
}
