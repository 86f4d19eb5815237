//! Load of ECMP groups.

use flowradar_collector::analysis::{AnalysisOptions, EventKind, Severity};
use flowradar_sim::{EcmpImbalance, Faults, Simulation, Spread, SwitchId, Traffic, Truth};

use crate::score::{Score, Table};
use crate::{analyse_truth, fat_tree};

fn simulation(weights: &[u32], flows_per_switch: u32, seed: u64) -> (Simulation, Vec<String>) {
    let topology = fat_tree(4);
    // An edge and an aggregation switch of different pods.
    let skewed = [SwitchId(1), SwitchId(12)];
    let names = skewed.map(|at| topology.name(at).to_owned()).into();
    let ecmp_imbalance = if weights[0] == weights[1] {
        vec![]
    } else {
        let imbalance = |at| EcmpImbalance {
            at,
            weights: weights.into(),
        };
        skewed.map(imbalance).into()
    };
    let simulation = Simulation::builder(topology)
        .traffic(Traffic::InterPod {
            flows_per_switch,
            spread: Spread::Hashed,
        })
        .epochs(10)
        .faults(Faults {
            ecmp_imbalance,
            ..Faults::default()
        })
        .seed(seed)
        .build()
        .expect("the settings are fine");
    (simulation, names)
}

#[test]
fn skewed_groups_are_found() {
    let mut table = Table::default();
    for (weights, flows) in [
        ([1, 1], 500),
        ([3, 2], 500),
        ([2, 1], 500),
        ([3, 1], 500),
        ([3, 1], 100),
        ([9, 1], 100),
    ] {
        let mut score = Score::default();
        for seed in 0..4 {
            let (simulation, skewed) = simulation(&weights, flows, seed);
            let findings = analyse_truth(&simulation, AnalysisOptions::default());
            let events: Vec<_> = findings
                .events
                .iter()
                .filter(|event| event.severity >= Severity::Warning)
                .filter_map(|event| match &event.kind {
                    EventKind::EcmpImbalance { switch, .. } => Some((switch.clone(), event)),
                    _ => None,
                })
                .collect();
            score.said += events.len() as u64;
            if weights[0] == weights[1] {
                continue;
            }
            score.right += events
                .iter()
                .filter(|(switch, _)| skewed.contains(switch))
                .count() as u64;
            score.there += skewed.len() as u64;
            for switch in &skewed {
                if let Some((_, event)) = events.iter().find(|(found, _)| found == switch) {
                    score.found += 1;
                    score.delays.push(event.detected_epoch);
                }
            }
        }
        table.push(
            format!("weights {weights:?}, {flows} flows a switch"),
            score,
        );
    }
    insta::assert_snapshot!("skewed_groups", table.text());
}

/// The load of a group is what its members counted of the flows that came from there.
#[test]
fn loads_add_up_to_what_members_counted() {
    let (simulation, _) = simulation(&[3, 1], 200, 3);
    let findings = analyse_truth(&simulation, AnalysisOptions::default());
    let topology = simulation.topology();
    let truth = Truth::of(&simulation);
    let mut compared = 0;
    for epoch in &findings.epochs {
        for group in &epoch.groups {
            let at = topology.switch(&group.switch).expect("of the topology");
            for member in &group.members {
                let to = topology.switch(&member.to).expect("of the topology");
                // Without faults every flow at the member that has passed the switch came from there.
                let (mut flows, mut packets, mut bytes) = (0, 0, 0);
                for record in truth.records_of(epoch.epoch, to) {
                    let path = simulation
                        .flow(record.flow)
                        .expect("a flow of the run")
                        .path;
                    let came = path.windows(2).any(|hop| hop == [at, to]);
                    // Down the tree there is one way only, which is not of this group.
                    if came {
                        flows += 1;
                        packets += record.packets;
                        bytes += record.bytes;
                    }
                }
                assert_eq!(
                    (member.flows, member.packets, member.bytes),
                    (flows, packets, bytes)
                );
                compared += 1;
            }
        }
    }
    // 16 switches have a group upwards; each has two members.
    assert_eq!(compared, 10 * 16 * 2);
}
