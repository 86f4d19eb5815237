//! Flows of a pattern besides the traffic: a scan, a flood, a busy service.

use std::ops::RangeInclusive;

use thiserror::Error;

use flowradar_core::FlowKeyV4;

use crate::flow_size::{FLOW_PACKETS_MAX, HEADER_BYTES, PacketTrain};
use crate::random::{Purpose, Seed, scale};
use crate::topology::{HostId, Topology};

/// Most patterns of a run.
pub const PATTERNS_MAX: usize = 16;
/// Most flows of a pattern in an epoch. Each has a source port of its own; the traffic has the ports
/// above these.
pub const PATTERN_FLOWS_MAX: u32 = 3_000;
/// Lowest source port.
const FIRST_PORT: u32 = 1_024;

/// Flows that follow one pattern, new ones in every epoch.
///
/// Their paths are hashed, and faults hit them as any others. Keys are unlike those of all
/// other patterns, and of traffic with random ports; those of a pattern come again after
/// [`PATTERN_FLOWS_MAX`] flows. (Traffic with sequential ports, and recordings, may have the same keys.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraFlows {
    /// Where they come from.
    pub from: HostChoice,
    /// Where they go.
    pub to: HostChoice,
    /// To which port.
    pub dst_port: PortChoice,
    /// IP protocol number: 6 is TCP.
    pub protocol: u8,
    /// How many in an epoch: a number in this range, at random.
    pub flows: RangeInclusive<u32>,
    /// Packets of each in its epoch.
    pub packets: u32,
    /// In which epochs; `None` for all.
    pub epochs: Option<RangeInclusive<u64>>,
}

/// Hosts at one end of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostChoice {
    /// Any but that at the other end, at random.
    Any,
    /// One.
    One(HostId),
}

/// Destination ports of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortChoice {
    /// Another for every flow.
    Each,
    /// One.
    One(u16),
}

/// Why extra flows were refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ExtraFlowsError {
    /// No or too many flows in an epoch.
    #[error(
        "extra_flows[{pattern}]: {flows:?} flows in an epoch, must be from 1 to {PATTERN_FLOWS_MAX}"
    )]
    Flows {
        /// The pattern's place.
        pattern: usize,
        /// What was asked for.
        flows: RangeInclusive<u32>,
    },
    /// A host is not in the topology, or both ends are one.
    #[error("extra_flows[{pattern}]: needs two different hosts of the topology")]
    Hosts {
        /// The pattern's place.
        pattern: usize,
    },
    /// No packets, or more than a flow may send.
    #[error("extra_flows[{pattern}]: {packets} packets, must be from 1 to {FLOW_PACKETS_MAX}")]
    Packets {
        /// The pattern's place.
        pattern: usize,
        /// What was asked for.
        packets: u32,
    },
    /// More patterns than are supported.
    #[error("extra_flows: {found} patterns, at most {PATTERNS_MAX} are supported")]
    TooMany {
        /// Patterns given.
        found: usize,
    },
}

impl ExtraFlows {
    /// A SYN flood: one-packet TCP flows from everywhere to a port of a host.
    pub fn syn_flood(to: HostId, dst_port: u16, flows: u32, epochs: RangeInclusive<u64>) -> Self {
        Self {
            from: HostChoice::Any,
            to: HostChoice::One(to),
            dst_port: PortChoice::One(dst_port),
            protocol: 6,
            flows: flows..=flows,
            packets: 1,
            epochs: Some(epochs),
        }
    }

    /// A scan: one-packet TCP flows from a host to ever other ports of one host, or of any.
    pub fn scan(from: HostId, to: HostChoice, flows: u32, epochs: RangeInclusive<u64>) -> Self {
        Self {
            from: HostChoice::One(from),
            to,
            dst_port: PortChoice::Each,
            protocol: 6,
            flows: flows..=flows,
            packets: 1,
            epochs: Some(epochs),
        }
    }

    pub(crate) fn check(&self, pattern: usize, topology: &Topology) -> Result<(), ExtraFlowsError> {
        let (least, most) = (*self.flows.start(), *self.flows.end());
        if least > most || most == 0 || most > PATTERN_FLOWS_MAX {
            return Err(ExtraFlowsError::Flows {
                pattern,
                flows: self.flows.clone(),
            });
        }
        if self.packets == 0 || self.packets > FLOW_PACKETS_MAX {
            return Err(ExtraFlowsError::Packets {
                pattern,
                packets: self.packets,
            });
        }
        let known = |end| match end {
            HostChoice::Any => true,
            HostChoice::One(host) => host.index() < topology.hosts().len(),
        };
        let same = self.from != HostChoice::Any && self.from == self.to;
        if !known(self.from) || !known(self.to) || same {
            return Err(ExtraFlowsError::Hosts { pattern });
        }
        Ok(())
    }

    /// The number of the `place`-th flow of an epoch, below [`PATTERN_FLOWS_MAX`]; none if there are
    /// fewer flows.
    pub(crate) fn number(&self, seed: Seed, pattern: usize, place: u32, epoch: i64) -> Option<u32> {
        let in_time = match &self.epochs {
            None => true,
            Some(epochs) => u64::try_from(epoch).is_ok_and(|epoch| epochs.contains(&epoch)),
        };
        let (least, most) = (*self.flows.start(), *self.flows.end());
        let bits = seed.bits(Purpose::ExtraFlows, pattern as u64, epoch as u64);
        let flows = least + scale(bits, u64::from(most - least) + 1) as u32;
        if !in_time || place >= flows {
            return None;
        }
        // Epoch −1 is one, too.
        let before = (epoch + 1).unsigned_abs() * u64::from(most);
        Some(((before + u64::from(place)) % u64::from(PATTERN_FLOWS_MAX)) as u32)
    }

    /// Where a flow comes from and goes.
    pub(crate) fn hosts(
        &self,
        seed: Seed,
        pattern: usize,
        number: u32,
        topology: &Topology,
    ) -> (HostId, HostId) {
        let hosts = topology.hosts().len() as u64;
        let bits = |end: u64| {
            seed.bits(
                Purpose::ExtraFlows,
                1 << 32 | pattern as u64,
                end << 32 | u64::from(number),
            )
        };
        let any = |end| scale(bits(end), hosts) as u32;
        let any_but = |end, HostId(other): HostId| {
            let host = scale(bits(end), hosts - 1) as u32;
            HostId(host + u32::from(host >= other))
        };
        match (self.from, self.to) {
            (HostChoice::One(from), HostChoice::One(to)) => (from, to),
            (HostChoice::One(from), HostChoice::Any) => (from, any_but(1, from)),
            (HostChoice::Any, HostChoice::One(to)) => (any_but(0, to), to),
            (HostChoice::Any, HostChoice::Any) => {
                let from = HostId(any(0));
                (from, any_but(1, from))
            }
        }
    }

    /// The key of a flow between two hosts.
    pub(crate) fn key(
        &self,
        pattern: usize,
        number: u32,
        topology: &Topology,
        (from, to): (HostId, HostId),
    ) -> FlowKeyV4 {
        let src_port = FIRST_PORT + pattern as u32 * PATTERN_FLOWS_MAX + number;
        let dst_port = match self.dst_port {
            PortChoice::One(port) => port,
            PortChoice::Each => number as u16 + 1,
        };
        FlowKeyV4::new(
            topology.hosts()[from.index()].address,
            topology.hosts()[to.index()].address,
            src_port as u16,
            dst_port,
            self.protocol,
        )
    }

    pub(crate) fn train(&self) -> PacketTrain {
        PacketTrain::even(
            self.packets,
            u64::from(self.packets) * u64::from(HEADER_BYTES),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{Simulation, Truth};

    #[test]
    fn patterns_are_what_was_asked_for() {
        let topology = Topology::fat_tree(4).expect("4 is even");
        let (attacker, victim) = (HostId(3), HostId(9));
        let address = |host: HostId| topology.hosts()[host.index()].address;
        let build = |extra: Vec<ExtraFlows>| {
            Simulation::builder(topology.clone())
                .flows_per_switch(50)
                .epochs(4)
                .extra_flows(extra)
                .build()
                .expect("the settings are fine")
        };
        let plain = Truth::of(&build(vec![]));
        let simulation = build(vec![
            ExtraFlows::syn_flood(victim, 80, 40, 1..=2),
            ExtraFlows::scan(attacker, HostChoice::One(victim), 30, 2..=2),
        ]);
        let truth = Truth::of(&simulation);
        let usual: HashSet<_> = plain.flows().iter().map(|&(key, _)| key).collect();
        let extra: Vec<_> = truth
            .flows()
            .iter()
            .filter(|(key, _)| !usual.contains(key))
            .collect();
        // The traffic is what it was without them.
        assert_eq!(truth.flows().len(), usual.len() + extra.len());
        assert_eq!(extra.len(), 2 * 40 + 30);
        use flowradar_core::FlowKey;
        let scan: Vec<_> = extra
            .iter()
            .filter(|(key, _)| key.src_v4() == address(attacker))
            .collect();
        let ports: HashSet<u16> = scan
            .iter()
            .filter(|(key, _)| key.dst_port() != 80)
            .map(|(key, _)| key.dst_port())
            .collect();
        assert_eq!(ports.len(), 30);
        for (key, flow) in extra {
            assert_eq!(key.dst_v4(), address(victim));
            assert_eq!(simulation.key(*flow), *key);
            let info = simulation.flow(*flow).expect("a flow of the run");
            assert_eq!(info.to, victim);
            let records = truth.records().iter().filter(|record| record.flow == *flow);
            let records: Vec<_> = records.collect();
            assert_eq!(records.len(), info.path.len());
            assert!(records.iter().all(|record| record.packets == 1));
            assert!(records.iter().all(|record| (1..=2).contains(&record.epoch)));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let topology = Topology::fat_tree(4).expect("4 is even");
        let good = ExtraFlows::syn_flood(HostId(1), 80, 10, 0..=1);
        let check = |extra: ExtraFlows| extra.check(0, &topology);
        assert_eq!(check(good.clone()), Ok(()));
        let hosts = Err(ExtraFlowsError::Hosts { pattern: 0 });
        assert_eq!(
            check(ExtraFlows {
                to: HostChoice::One(HostId(16)),
                ..good.clone()
            }),
            hosts
        );
        assert_eq!(
            check(ExtraFlows {
                from: good.to,
                ..good.clone()
            }),
            hosts
        );
        let flows = 0..=3_001;
        assert_eq!(
            check(ExtraFlows {
                flows: flows.clone(),
                ..good.clone()
            }),
            Err(ExtraFlowsError::Flows { pattern: 0, flows })
        );
        assert!(check(ExtraFlows { packets: 0, ..good }).is_err());
    }
}
