//! Analyses against the truth of simulated networks: encoded at every switch, decoded network-wide,
//! analysed, and compared with what really happened. The tables of precision and recall are committed
//! snapshots.
//!
//! To accept a change: `INSTA_UPDATE=always cargo test -p flowradar-collector --test analyses`, then
//! look at the diff.

mod attacks;
mod faults;
mod load;
mod losses;
mod scenario;
mod score;
mod traffic;

use flowradar_collector::analysis::{
    AnalysisOptions, Analyzer, EpochFindings, EpochRecords, Event, EventChange, FiveTuple,
    FlowRecord, Network, NetworkModel,
};
use flowradar_collector::{NetDecodeOptions, net_decode};
use flowradar_core::layout::CellWidths;
use flowradar_core::plan::{CouplingChoice, PlanRequest};
use flowradar_core::{Counter, FlowKeyV4, Flowset};
use flowradar_sim::encode::encode;
use flowradar_sim::{Simulation, Topology, Truth};

/// What an analyzer said of a run.
struct Findings {
    epochs: Vec<EpochFindings>,
    /// All events as they were when they were closed.
    events: Vec<Event>,
    analyzer: Analyzer,
}

impl Findings {
    /// Feeds epochs one by one.
    fn new(simulation: &Simulation, options: AnalysisOptions) -> Self {
        let network = Network::parse(&simulation.topology().to_json()).expect("the same format");
        let model = NetworkModel::shortest_paths(network).expect("small");
        Self {
            epochs: Vec::new(),
            events: Vec::new(),
            analyzer: Analyzer::new(options, Some(model)),
        }
    }

    fn add(&mut self, records: &EpochRecords) {
        let findings = self.analyzer.epoch(records).expect("epochs are in order");
        self.close(&findings.events);
        self.epochs.push(findings);
    }

    fn close(&mut self, changes: &[EventChange]) {
        let closed = changes.iter().filter_map(|change| match change {
            EventChange::Closed(event) => Some(event.clone()),
            EventChange::Opened(_) | EventChange::Updated(_) => None,
        });
        self.events.extend(closed);
    }

    fn finish(mut self) -> Self {
        let changes = self.analyzer.finish();
        self.close(&changes);
        self.events.sort_by_key(|event| event.id);
        self
    }
}

/// Encodes, decodes and analyses a run. Tables have so many cells for each flow of the busiest switch.
fn analyse(simulation: &Simulation, cells_per_flow: f64, options: AnalysisOptions) -> Findings {
    let mut findings = Findings::new(simulation, options);
    let layout = PlanRequest::flows(most_flows(simulation))
        .hashes(3)
        .coupling(CouplingChoice::Plain)
        .cells_per_flow(cells_per_flow)
        .widths(CellWidths::new(16, 32, 48).expect("possible widths"))
        .expected_false_positives(1e-3)
        .plan()
        .expect("a possible layout")
        .layout;
    encode(simulation, &layout, |epoch, reports| {
        let flowsets: Vec<_> = reports
            .into_iter()
            .map(|report| Flowset::new_checked(report.flowset).expect("just written"))
            .collect();
        let decoded = net_decode::<FlowKeyV4, _>(&flowsets, &NetDecodeOptions::default());
        let decoded = decoded.expect("all flowsets are of one epoch");
        findings.add(&EpochRecords::of(epoch, &decoded));
    });
    findings.finish()
}

/// Analyses a run as a perfect decoder would show it.
fn analyse_truth(simulation: &Simulation, options: AnalysisOptions) -> Findings {
    let mut findings = Findings::new(simulation, options);
    for epoch in 0..simulation.epochs() {
        let truth = Truth::of_epoch(simulation, epoch);
        let mut records = EpochRecords::new(epoch);
        for switch in simulation.topology().switch_ids() {
            if !simulation.reports(switch, epoch) {
                continue;
            }
            let name = simulation.topology().switches()[switch.index()].clone();
            let of_switch = records.switch(name);
            of_switch.all_v4 = true;
            of_switch.flows = truth
                .records_of(epoch, switch)
                .iter()
                .map(|record| FlowRecord {
                    flow: FiveTuple::from(&simulation.key(record.flow)),
                    packets: Counter::exact(record.packets),
                    bytes: Some(Counter::exact(record.bytes)),
                })
                .collect();
        }
        findings.add(&records);
    }
    findings.finish()
}

fn most_flows(simulation: &Simulation) -> u64 {
    let truth = Truth::of(simulation);
    let of_epoch = |epoch| {
        let switches = simulation.topology().switch_ids();
        switches
            .map(|switch| truth.records_of(epoch, switch).len())
            .max()
    };
    let most = (0..simulation.epochs()).filter_map(of_epoch).max();
    most.unwrap_or(1).max(1) as u64
}

fn fat_tree(k: u32) -> Topology {
    Topology::fat_tree(k).expect("k is even and in range")
}
