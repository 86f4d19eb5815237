//! What the counters found for a switch are worth, given how full its filter and table were.
//!
//! CounterDecode works on equations. Whether these may be trusted is a matter of what could have
//! spoiled them unseen:
//!
//! - A filter that is too full ([`FULL_FILTER_PROBABILITY`], and fuller than the table is large) hid many flows, and their packets are in
//!   cells that do not know them. Then nothing is joint, and exact is only what the switch proves alone
//!   ([`flowradar_core::decode`]), where a hidden flow cannot go unnoticed.
//! - In a table with flows that nobody found, or with many saturated counters, deviations from the
//!   network's equations are not sparse: nothing is joint.

use flowradar_core::decode::{
    DecodedFlow, UNDETECTED_HIDDEN_FLOWS_MAX, cells_of, expected_hidden_flows, single_decode,
};
use flowradar_core::{Counter, CounterStatus, FlowKey, Flowset};
use hashbrown::HashMap;

use crate::counter::SwitchCounters;
use crate::flow_decode::SwitchFlows;
use crate::net_decode::SwitchDecode;

/// A filter that takes more of the new flows than this for known is too full: at most so many flows
/// are hidden.
const FULL_FILTER_PROBABILITY: f64 = 0.01;

/// Joint counters want no more than one saturated cell for this many flows.
const FLOWS_PER_SATURATED_CELL: usize = 1000;

/// What CounterDecode found for a switch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Solutions<'a> {
    pub(crate) packets: &'a SwitchCounters,
    pub(crate) bytes: Option<&'a SwitchCounters>,
}

/// The flows of a switch, with statuses that hold.
pub(crate) fn switch_decode<K: FlowKey, B: AsRef<[u8]>>(
    flowset: &Flowset<B>,
    switch: &SwitchFlows<'_, K>,
    keys: &[K],
    solutions: Solutions<'_>,
) -> SwitchDecode<K> {
    let trust = Trust::new(flowset, switch);
    let mut flows: Vec<_> = switch
        .present
        .iter()
        .enumerate()
        .map(|(column, &flow)| trust.flow(keys[flow as usize], column, solutions, 1))
        .collect();
    // Flows that the filter took for known although they were new: reported if the equations prove
    // that they were counted all the same.
    let present = flows.len();
    let mut undecided = 0;
    for (column, &flow) in (switch.present.len()..).zip(&switch.absent) {
        let flow = trust.flow(keys[flow as usize], column, solutions, 0);
        match flow.packets.status {
            CounterStatus::Exact if flow.packets.value > 0 => flows.push(flow),
            CounterStatus::Joint if flow.packets.value > 0 => undecided += 1,
            CounterStatus::Unresolved { most, .. } if most > 0 => undecided += 1,
            _ => {}
        }
    }
    // Those present are in order, as network-wide numbers are.
    if flows.len() > present {
        flows.sort_unstable_by_key(|flow| flow.key);
    }
    SwitchDecode {
        switch: flowset.header().switch.clone(),
        flows,
        leftover: switch.leftover,
        unconfirmed_flows: switch.unconfirmed.len() + undecided,
        flows_found_alone: switch.found_alone,
        unexplained_cells: solutions.packets.unexplained_rows,
    }
}

/// Which statuses hold at a switch.
struct Trust<'a, K, B> {
    flowset: &'a Flowset<B>,
    joint_packets: bool,
    joint_bytes: bool,
    /// What the switch proves alone, where nothing else is exact.
    alone: Option<HashMap<K, DecodedFlow<K>>>,
    /// Highest packets and bytes of one flow in each cell, where some status does not hold.
    most: Option<Vec<(u64, u64)>>,
}

impl<'a, K: FlowKey, B: AsRef<[u8]>> Trust<'a, K, B> {
    fn new(flowset: &'a Flowset<B>, switch: &SwitchFlows<'_, K>) -> Self {
        let (_, merged) = expected_hidden_flows(flowset);
        let full = merged > UNDETECTED_HIDDEN_FLOWS_MAX
            || flowset.filter().false_positive_probability() > FULL_FILTER_PROBABILITY;
        let sparse = !full && switch.leftover.cells == 0;
        let few = |saturated_cells: usize| {
            saturated_cells * FLOWS_PER_SATURATED_CELL <= switch.present.len()
        };
        let joint_packets = sparse && few(saturated_packet_cells(flowset));
        let joint_bytes = sparse && few(saturated_byte_cells(flowset));
        let alone = full.then(|| {
            let decoded = single_decode::<K, B>(flowset).map(|decoded| decoded.flows);
            let flows = decoded.unwrap_or_default().into_iter();
            flows.map(|flow| (flow.key, flow)).collect()
        });
        let untrusted = full || !joint_packets || !joint_bytes;
        Self {
            flowset,
            joint_packets,
            joint_bytes,
            alone,
            most: untrusted.then(|| highest_values(flowset)),
        }
    }

    fn flow(
        &self,
        key: K,
        column: usize,
        solutions: Solutions<'_>,
        least_packets: u64,
    ) -> DecodedFlow<K> {
        if let Some(alone) = &self.alone {
            let proved = alone.get(&key).copied();
            let open = |solution: &SwitchCounters, most: u64, least: u64| Counter {
                value: solution.values[column].clamp(least, most.max(least)),
                status: CounterStatus::Unresolved {
                    least,
                    most: most.max(least),
                },
            };
            let (most_packets, most_bytes) = self.most(&key);
            return DecodedFlow {
                key,
                packets: proved
                    .map(|flow| flow.packets)
                    .filter(Counter::is_exact)
                    .unwrap_or_else(|| open(solutions.packets, most_packets, least_packets)),
                bytes: solutions.bytes.map(|bytes| {
                    proved
                        .and_then(|flow| flow.bytes)
                        .filter(Counter::is_exact)
                        .unwrap_or_else(|| open(bytes, most_bytes, 0))
                }),
            };
        }
        let counter =
            |solution: &SwitchCounters, joint: bool, least: u64, most: fn((u64, u64)) -> u64| {
                let (value, status) = (solution.values[column], solution.statuses[column]);
                match status {
                    CounterStatus::Joint if !joint => {
                        let most = most(self.most(&key)).max(least);
                        Counter {
                            value: value.clamp(least, most),
                            status: CounterStatus::Unresolved { least, most },
                        }
                    }
                    status => Counter { value, status },
                }
            };
        DecodedFlow {
            key,
            packets: counter(
                solutions.packets,
                self.joint_packets,
                least_packets,
                |most| most.0,
            ),
            bytes: solutions
                .bytes
                .map(|bytes| counter(bytes, self.joint_bytes, 0, |most| most.1)),
        }
    }

    /// Highest packets and bytes that a flow can have.
    fn most(&self, key: &K) -> (u64, u64) {
        let Some(most) = &self.most else {
            return (u64::MAX, u64::MAX);
        };
        let layout = self.flowset.layout();
        cells_of(layout, key)[..layout.table().hashes()]
            .iter()
            .map(|&cell| most[cell as usize])
            .fold((u64::MAX, u64::MAX), |a, b| (a.0.min(b.0), a.1.min(b.1)))
    }
}

/// The highest packets and bytes that one flow in a cell can have; `u64::MAX` where saturated.
fn highest_values<B: AsRef<[u8]>>(flowset: &Flowset<B>) -> Vec<(u64, u64)> {
    let widths = flowset.layout().table().widths();
    let open = |count: u64, saturated: u64| if count == saturated { u64::MAX } else { count };
    let packets = flowset
        .packet_counts()
        .map(|count| open(count.into(), widths.packet_count_saturated().into()));
    match flowset.byte_counts() {
        Some(bytes) => packets
            .zip(bytes.map(|count| open(count, widths.byte_count_saturated())))
            .collect(),
        None => packets.map(|packets| (packets, u64::MAX)).collect(),
    }
}

/// Cells whose PacketCount says no more than "at least this".
fn saturated_packet_cells<B: AsRef<[u8]>>(flowset: &Flowset<B>) -> usize {
    let saturated = flowset.layout().table().widths().packet_count_saturated();
    let counts = flowset.packet_counts();
    counts.filter(|&count| count == saturated).count()
}

/// Cells whose ByteCount says no more than "at least this".
fn saturated_byte_cells<B: AsRef<[u8]>>(flowset: &Flowset<B>) -> usize {
    let saturated = flowset.layout().table().widths().byte_count_saturated();
    let counts = flowset.byte_counts().into_iter().flatten();
    counts.filter(|&count| count == saturated).count()
}
