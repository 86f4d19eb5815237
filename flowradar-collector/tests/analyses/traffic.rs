//! Sums of traffic are those of the truth.

use std::collections::HashMap;

use flowradar_collector::analysis::{AnalysisOptions, FiveTuple};
use flowradar_sim::{FlowId, Simulation, Spread, Traffic, Truth};

use crate::{analyse, fat_tree};

#[test]
fn traffic_is_what_hosts_sent() {
    let simulation = Simulation::builder(fat_tree(4))
        .traffic(Traffic::InterPod {
            flows_per_switch: 200,
            spread: Spread::Hashed,
        })
        .epochs(4)
        .seed(9)
        .build()
        .expect("the settings are fine");
    let findings = analyse(&simulation, 1.4, AnalysisOptions::default());
    let truth = Truth::of(&simulation);
    let topology = simulation.topology();
    let mut seen_before: HashMap<FlowId, u64> = HashMap::new();
    for findings in &findings.epochs {
        // What the first switch of each flow's way counted.
        let mut flows: HashMap<FiveTuple, (u64, u64)> = HashMap::new();
        let mut matrix: HashMap<(String, String), u64> = HashMap::new();
        let mut begun = 0;
        let of_epoch = truth
            .records()
            .iter()
            .filter(|record| record.epoch == findings.epoch);
        for record in of_epoch {
            let info = simulation.flow(record.flow).expect("a flow of the run");
            if record.switch != info.path[0] {
                continue;
            }
            flows.insert(FiveTuple::from(&info.key), (record.packets, record.bytes));
            let ends = [info.path[0], info.path[info.path.len() - 1]];
            let [from, to] = ends.map(|switch| topology.name(switch).to_owned());
            *matrix.entry((from, to)).or_default() += record.packets;
            begun += u64::from(seen_before.insert(record.flow, record.epoch).is_none());
        }
        let traffic = &findings.traffic;
        assert_eq!(traffic.total.flows, flows.len() as u64);
        assert_eq!(
            traffic.total.packets,
            flows.values().map(|flow| flow.0).sum::<u64>()
        );
        assert_eq!(
            traffic.total.bytes,
            flows.values().map(|flow| flow.1).sum::<u64>()
        );
        assert_eq!(traffic.total.unresolved_flows, 0);
        assert_eq!(traffic.flows_begun, begun);
        let mut sizes: Vec<u64> = flows.values().map(|flow| flow.0).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        let top: Vec<u64> = traffic
            .top_flows
            .iter()
            .map(|flow| flow.volume.packets)
            .collect();
        assert_eq!(top, sizes[..top.len()]);
        for flow in &traffic.top_flows {
            assert_eq!(flows[&flow.flow], (flow.volume.packets, flow.volume.bytes));
        }
        let found: HashMap<(String, String), u64> = traffic
            .matrix
            .iter()
            .map(|entry| ((entry.from.clone(), entry.to.clone()), entry.volume.packets))
            .collect();
        assert_eq!(found, matrix);
        for (place, &count) in traffic.packets_histogram.iter().enumerate() {
            let range = 1_u64 << place..1_u64 << (place + 1);
            let there = sizes.iter().filter(|size| range.contains(size)).count();
            assert_eq!(count, there as u64, "2^{place} packets");
        }
    }
}
