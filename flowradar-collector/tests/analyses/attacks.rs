//! Scans, floods and fans among traffic with busy services.

use std::net::IpAddr;

use flowradar_collector::analysis::{AnalysisOptions, Event, EventKind};
use flowradar_sim::{ExtraFlows, HostChoice, HostId, PortChoice, Simulation, Traffic};

use crate::score::{Score, Table};
use crate::{analyse_truth, fat_tree};

const ONSET: u64 = 12;
const EPOCHS: u64 = 24;
const ATTACKER: HostId = HostId(17);
const VICTIM: HostId = HostId(101);
const SERVER: HostId = HostId(40);

fn flows(
    from: HostChoice,
    to: HostChoice,
    dst_port: PortChoice,
    packets: u32,
    flows: u32,
) -> ExtraFlows {
    ExtraFlows {
        from,
        to,
        dst_port,
        protocol: 6,
        flows: flows..=flows,
        packets,
        epochs: Some(ONSET..=EPOCHS),
    }
}

/// 128 hosts, 1,600 flows an epoch, and a service with 30 to 120 one-packet flows an epoch.
fn run(attack: Option<ExtraFlows>, seed: u64) -> (Vec<Event>, Vec<IpAddr>) {
    let topology = fat_tree(8);
    let addresses = topology
        .hosts()
        .iter()
        .map(|host| host.address.into())
        .collect();
    let service = ExtraFlows {
        flows: 30..=120,
        epochs: None,
        ..flows(
            HostChoice::Any,
            HostChoice::One(SERVER),
            PortChoice::One(53),
            1,
            1,
        )
    };
    let simulation = Simulation::builder(topology)
        .traffic(Traffic::Uniform {
            flows_per_switch: 100,
        })
        .epochs(EPOCHS)
        .extra_flows([Some(service), attack].into_iter().flatten().collect())
        .seed(seed)
        .build()
        .expect("the settings are fine");
    let findings = analyse_truth(&simulation, AnalysisOptions::default());
    let of_attacks = |event: &Event| {
        matches!(
            event.kind,
            EventKind::FanIn { .. }
                | EventKind::FanOut { .. }
                | EventKind::Scan { .. }
                | EventKind::SynFlood { .. }
        )
    };
    (
        findings.events.into_iter().filter(of_attacks).collect(),
        addresses,
    )
}

#[test]
fn attacks_are_found_in_time() {
    let (any, victim) = (HostChoice::Any, HostChoice::One(VICTIM));
    let attacker = HostChoice::One(ATTACKER);
    let (each, web) = (PortChoice::Each, PortChoice::One(443));
    let mut table = Table::default();
    type Expected = fn(&EventKind, &[IpAddr]) -> bool;
    let flood: Expected = |kind, addresses| {
        *kind
            == EventKind::SynFlood {
                dst: addresses[VICTIM.index()],
                dst_port: 443,
            }
    };
    let scan: Expected = |kind, addresses| {
        *kind
            == EventKind::Scan {
                src: addresses[ATTACKER.index()],
                dst: Some(addresses[VICTIM.index()]),
                dst_port: None,
            }
    };
    let sweep: Expected = |kind, addresses| {
        *kind
            == EventKind::Scan {
                src: addresses[ATTACKER.index()],
                dst: None,
                dst_port: Some(443),
            }
    };
    let fan_in: Expected = |kind, addresses| {
        *kind
            == EventKind::FanIn {
                dst: addresses[VICTIM.index()],
            }
    };
    let fan_out: Expected = |kind, addresses| {
        *kind
            == EventKind::FanOut {
                src: addresses[ATTACKER.index()],
            }
    };
    let mut cases: Vec<(String, Option<ExtraFlows>, Option<Expected>)> =
        vec![("nothing".into(), None, None)];
    for number in [40, 100, 400] {
        cases.push((
            format!("SYN flood, {number} flows an epoch"),
            Some(flows(any, victim, web, 1, number)),
            Some(flood),
        ));
        cases.push((
            format!("scan of {number} ports an epoch"),
            Some(flows(attacker, victim, each, 1, number)),
            Some(scan),
        ));
    }
    for number in [60, 200] {
        cases.push((
            format!("sweep of {number} hosts an epoch"),
            Some(flows(attacker, any, web, 1, number)),
            Some(sweep),
        ));
        cases.push((
            format!("fan-in of {number} flows an epoch"),
            Some(flows(any, victim, each, 20, number)),
            Some(fan_in),
        ));
        cases.push((
            format!("fan-out of {number} flows an epoch"),
            Some(flows(attacker, any, each, 20, number)),
            Some(fan_out),
        ));
    }
    for (name, attack, expected) in cases {
        let mut score = Score::default();
        for seed in 0..3 {
            let (events, addresses) = run(attack.clone(), seed);
            score.said += events.len() as u64;
            let Some(expected) = expected else {
                continue;
            };
            score.there += 1;
            let right: Vec<_> = events
                .iter()
                .filter(|event| expected(&event.kind, &addresses) && event.detected_epoch >= ONSET)
                .collect();
            score.right += right.len() as u64;
            if let Some(first) = right.first() {
                score.found += 1;
                score.delays.push(first.detected_epoch - ONSET);
            }
        }
        table.push(name, score);
    }
    insta::assert_snapshot!("attacks", table.text());
}
