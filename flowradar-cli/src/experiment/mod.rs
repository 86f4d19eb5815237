//! Simulated networks, decoded and compared with the truth: what `demo`, `bench` and `evaluate` share.

pub(crate) mod losses;

use std::time::{Duration, Instant};

use flowradar_collector::{NetDecode, NetDecodeOptions, net_decode};
use flowradar_core::decode::{DecodedFlow, SingleDecode, single_decode};
use flowradar_core::layout::Layout;
use flowradar_core::{CounterStatus, FlowKeyV4, Flowset};
use flowradar_sim::encode::{Report, encode};
use flowradar_sim::{Simulation, SwitchId, Truth};
use rayon::prelude::*;
use serde::Serialize;

use crate::outcome::CommandError;

/// The reports of one epoch of a simulated network.
#[derive(Debug)]
pub(crate) struct EpochReports {
    pub(crate) epoch: u64,
    /// The switches that reported.
    pub(crate) switches: Vec<SwitchId>,
    /// Their flowsets, in the same order.
    pub(crate) flowsets: Vec<Flowset<Vec<u8>>>,
}

/// Encodes a simulation at every switch and hands over the reports of each epoch.
pub(crate) fn for_each_epoch(
    simulation: &Simulation,
    layout: &Layout,
    mut take: impl FnMut(EpochReports),
) {
    encode(simulation, layout, |epoch, reports| {
        let flowset = |report: Report| {
            let flowset = Flowset::new_checked(report.flowset);
            (
                report.switch,
                flowset.expect("encoders write good flowsets"),
            )
        };
        let (switches, flowsets) = reports.into_iter().map(flowset).unzip();
        take(EpochReports {
            epoch,
            switches,
            flowsets,
        });
    });
}

/// Encodes a simulation of one epoch.
pub(crate) fn encode_epoch(simulation: &Simulation, layout: &Layout) -> EpochReports {
    let mut first = None;
    for_each_epoch(simulation, layout, |reports| {
        first = first.take().or(Some(reports))
    });
    first.expect("a simulation has an epoch at least")
}

impl EpochReports {
    /// Decodes each switch on its own; how long it took.
    pub(crate) fn single_decode(&self) -> (Vec<SingleDecode<FlowKeyV4>>, Duration) {
        let start = Instant::now();
        let decoded = self
            .flowsets
            .par_iter()
            .map(|flowset| single_decode(flowset).expect("simulated flows are IPv4"))
            .collect();
        (decoded, start.elapsed())
    }

    /// Decodes all switches together; how long it took.
    pub(crate) fn net_decode(&self) -> Result<(NetDecode<FlowKeyV4>, Duration), CommandError> {
        let start = Instant::now();
        let decoded = net_decode::<FlowKeyV4, _>(&self.flowsets, &NetDecodeOptions::default())
            .map_err(|error| CommandError::Failed(error.to_string()))?;
        Ok((decoded, start.elapsed()))
    }

    /// Compares the flows decoded at each switch with the truth.
    pub(crate) fn tally<'a>(
        &self,
        truth: &Truth,
        decoded: impl IntoIterator<Item = &'a [DecodedFlow<FlowKeyV4>]>,
    ) -> Vec<Tally> {
        let pairs: Vec<_> = self.switches.iter().zip(decoded).collect();
        pairs
            .into_par_iter()
            .map(|(&switch, flows)| Tally::of_switch(truth, self.epoch, switch, flows))
            .collect()
    }
}

/// Flows at switches, compared with the truth: a flow at five switches counts five times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Tally {
    /// What there was.
    pub(crate) flows: u64,
    /// Found, and called exact.
    pub(crate) exact: u64,
    /// Found, and called joint.
    pub(crate) joint: u64,
    /// Found, but with bounds only.
    pub(crate) unresolved: u64,
    /// Not found.
    pub(crate) missing: u64,
    /// Found although they were not there.
    pub(crate) invented: u64,
    /// Called exact, but another counter is true.
    pub(crate) wrong_exact: u64,
    /// Called joint, but another counter is true.
    pub(crate) wrong_joint: u64,
    /// The true counter is outside the bounds given.
    pub(crate) wrong_bounds: u64,
}

impl Tally {
    fn of_switch(
        truth: &Truth,
        epoch: u64,
        switch: SwitchId,
        flows: &[DecodedFlow<FlowKeyV4>],
    ) -> Self {
        let there_were = truth.records_of(epoch, switch).len() as u64;
        Self::compare(flows, there_were, |key| {
            Some(truth.get(epoch, switch, key)?.packets)
        })
    }

    /// Compares the flows decoded at a switch with the `flows` that there were, and their packets.
    pub(crate) fn compare(
        decoded: &[DecodedFlow<FlowKeyV4>],
        flows: u64,
        true_packets: impl Fn(&FlowKeyV4) -> Option<u64>,
    ) -> Self {
        let mut tally = Self {
            flows,
            ..Self::default()
        };
        let mut found = 0;
        for flow in decoded {
            let Some(true_packets) = true_packets(&flow.key) else {
                tally.invented += 1;
                continue;
            };
            found += 1;
            let right = flow.packets.value == true_packets;
            match flow.packets.status {
                CounterStatus::Exact => {
                    tally.exact += 1;
                    tally.wrong_exact += u64::from(!right);
                }
                CounterStatus::Joint => {
                    tally.joint += 1;
                    tally.wrong_joint += u64::from(!right);
                }
                CounterStatus::Unresolved { least, most } => {
                    tally.unresolved += 1;
                    let inside = (least..=most).contains(&true_packets);
                    tally.wrong_bounds += u64::from(!inside);
                }
            }
        }
        tally.missing = tally.flows.saturating_sub(found);
        tally
    }

    /// Whether all flows were found with their counters.
    pub(crate) fn is_complete(&self) -> bool {
        self.missing == 0 && self.unresolved == 0
    }

    /// Whatever was said and is not so.
    pub(crate) fn wrong(&self) -> u64 {
        self.invented + self.wrong_exact + self.wrong_joint + self.wrong_bounds
    }

    /// Counters known.
    pub(crate) fn resolved(&self) -> u64 {
        self.exact + self.joint
    }
}

impl std::iter::Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |sum, tally| Self {
            flows: sum.flows + tally.flows,
            exact: sum.exact + tally.exact,
            joint: sum.joint + tally.joint,
            unresolved: sum.unresolved + tally.unresolved,
            missing: sum.missing + tally.missing,
            invented: sum.invented + tally.invented,
            wrong_exact: sum.wrong_exact + tally.wrong_exact,
            wrong_joint: sum.wrong_joint + tally.wrong_joint,
            wrong_bounds: sum.wrong_bounds + tally.wrong_bounds,
        })
    }
}

#[cfg(test)]
mod tests {
    use flowradar_core::Counter;
    use flowradar_sim::Topology;

    use super::*;

    /// Every kind of mistake is counted as what it is.
    #[test]
    fn mistakes_are_noticed() {
        let topology = Topology::fat_tree(4).expect("4 is even");
        let built = Simulation::builder(topology).flows_per_switch(20).build();
        let simulation = built.expect("the settings are fine");
        let truth = Truth::of(&simulation);
        let switch = SwitchId(0);
        let decoded = |status: CounterStatus, error: u64| -> Vec<DecodedFlow<FlowKeyV4>> {
            let records = truth.records_of(0, switch).iter();
            let flow = |record: &flowradar_sim::TruthRecord| DecodedFlow {
                key: simulation.key(record.flow),
                packets: Counter {
                    value: record.packets + error,
                    status,
                },
                bytes: None,
            };
            records.map(flow).collect()
        };
        let tally = |flows: &[DecodedFlow<FlowKeyV4>]| Tally::of_switch(&truth, 0, switch, flows);

        let right = tally(&decoded(CounterStatus::Exact, 0));
        assert_eq!((right.flows, right.exact, right.wrong()), (20, 20, 0));
        assert!(right.is_complete());
        assert_eq!(tally(&decoded(CounterStatus::Exact, 1)).wrong_exact, 20);
        assert_eq!(tally(&decoded(CounterStatus::Joint, 1)).wrong_joint, 20);
        let narrow = CounterStatus::Unresolved { least: 0, most: 0 };
        assert_eq!(tally(&decoded(narrow, 0)).wrong_bounds, 20);
        let mut flows = decoded(CounterStatus::Exact, 0);
        flows.truncate(15);
        assert_eq!(tally(&flows).missing, 5);
        flows[0].key = FlowKeyV4::new([1, 2, 3, 4].into(), [5, 6, 7, 8].into(), 9, 10, 11);
        let invented = tally(&flows);
        assert_eq!((invented.invented, invented.missing), (1, 6));
        assert!(!invented.is_complete());
    }
}
