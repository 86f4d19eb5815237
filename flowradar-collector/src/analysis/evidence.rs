//! What was seen of an event in an epoch, on its way to becoming one.

use super::NetworkModel;
use super::event::{EVIDENCE_FLOWS_MAX, EventKind, FlowEvidence, HopCounter, Measure, Severity};
use super::path::Settled;
use super::way::Way;

/// An event as one epoch shows it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sighted {
    pub(crate) kind: EventKind,
    pub(crate) epoch: u64,
    pub(crate) severity: Severity,
    pub(crate) flows: u64,
    pub(crate) packets: u64,
    pub(crate) measures: Vec<Measure>,
    pub(crate) examples: Vec<FlowEvidence>,
}

/// Flows that something happened to: how many packets of each.
#[derive(Clone, Debug, Default)]
pub(crate) struct FlowsConcerned {
    flows: u64,
    packets: u64,
    /// Those with most packets: packets, place among the settled flows.
    most: Vec<(u64, usize)>,
}

impl FlowsConcerned {
    pub(crate) fn of(flows: &[(usize, u64)]) -> Self {
        let mut concerned = Self::default();
        for &(flow, packets) in flows {
            concerned.add(flow, packets);
        }
        concerned
    }

    pub(crate) fn packets(&self) -> u64 {
        self.packets
    }

    /// Packets of the flow with most.
    pub(crate) fn largest(&self) -> u64 {
        self.most.first().map_or(0, |&(packets, _)| packets)
    }

    pub(crate) fn add(&mut self, flow: usize, packets: u64) {
        self.flows += 1;
        self.packets += packets;
        let place = self.most.partition_point(|&(more, _)| more >= packets);
        if place < EVIDENCE_FLOWS_MAX {
            self.most.insert(place, (packets, flow));
            self.most.truncate(EVIDENCE_FLOWS_MAX);
        }
    }
}

impl Sighted {
    pub(crate) fn new(kind: EventKind, epoch: u64, severity: Severity) -> Self {
        Self {
            kind,
            epoch,
            severity,
            flows: 0,
            packets: 0,
            measures: Vec::new(),
            examples: Vec::new(),
        }
    }

    pub(crate) fn measure(mut self, name: &str, value: f64) -> Self {
        self.measures.push(Measure {
            name: name.into(),
            value,
        });
        self
    }

    /// Adds flows, with their counters along their ways.
    pub(crate) fn concerning(
        mut self,
        concerned: &FlowsConcerned,
        settled: &Settled,
        model: &NetworkModel,
    ) -> Self {
        self.flows += concerned.flows;
        self.packets += concerned.packets;
        for &(packets, number) in &concerned.most {
            let (flow, way) = &settled.flows[number];
            self.examples.push(FlowEvidence {
                flow: *flow,
                epoch: settled.epoch,
                packets,
                hops: hop_counters(way, model),
            });
        }
        self
    }
}

fn hop_counters(way: &Way, model: &NetworkModel) -> Vec<HopCounter> {
    let mut stops: Vec<_> = way.stops.iter().collect();
    stops.sort_by_key(|stop| stop.before());
    let counter = |stop: &super::way::Stop| HopCounter {
        switch: model.network.switch_name(stop.switch).into(),
        packets: stop.packets,
    };
    stops.into_iter().map(counter).collect()
}
