//! Networks with known troubles in them: to show what analyses find, and to measure it.

use std::ops::RangeInclusive;

use crate::extra::{ExtraFlows, HostChoice, PortChoice};
use crate::faults::{
    EcmpImbalance, Fault, FaultKind, Faults, FlowSelector, LoopEnd, LossyLink, Misforwarded,
};
use crate::simulation::{Simulation, SimulationError};
use crate::topology::{HostId, SwitchId, Topology};
use crate::traffic::{Spread, Traffic};

/// Something planted in a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Planted {
    /// What it is.
    pub trouble: Trouble,
    /// The epochs in which it is there.
    pub epochs: RangeInclusive<u64>,
}

/// What can be planted.
#[derive(Clone, Debug, PartialEq)]
pub enum Trouble {
    /// A switch drops the flows to some hosts.
    Blackhole {
        /// The switch; it counts them first.
        at: SwitchId,
    },
    /// A switch prefers one of its next hops.
    EcmpImbalance {
        /// The switch.
        at: SwitchId,
    },
    /// A link loses packets in one direction.
    LossyLink {
        /// Where it is entered.
        from: SwitchId,
        /// Where it leads.
        to: SwitchId,
        /// Fraction of packets lost.
        fraction: f64,
    },
    /// Packets go around between two switches.
    Loop {
        /// The switches.
        switches: Vec<SwitchId>,
    },
    /// A host tries many ports of another.
    Scan {
        /// Who.
        from: HostId,
        /// Whom.
        to: HostId,
    },
    /// One-packet flows from everywhere to a port of a host.
    SynFlood {
        /// The host.
        to: HostId,
        /// The port.
        dst_port: u16,
    },
    /// A switch sends flows where its tables should not.
    WrongForwarding {
        /// The switch.
        at: SwitchId,
        /// Where it sends them.
        to: SwitchId,
    },
}

/// A simulated network, and what was planted in it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The network with its troubles.
    pub simulation: Simulation,
    /// The troubles.
    pub planted: Vec<Planted>,
}

/// First epoch of troubles that begin while one is watching: analyses have learned by then what is
/// usual.
pub const TROUBLE_BEGINS_EPOCH: u64 = 8;

impl Scenario {
    /// A fat tree of 20 switches with a lossy link, a loop, a blackhole, a wrong forwarding entry, a
    /// skewed ECMP group, a scan and a SYN flood in it.
    ///
    /// The skewed group is there from the beginning, as a fault of configuration; everything else
    /// begins in epoch [`TROUBLE_BEGINS_EPOCH`] or some epochs later, and lasts to the end, but for the
    /// loop, which is over after three epochs. A service with many small flows, which is nobody's
    /// trouble, is there throughout. Runs of less than 20 epochs are cut short: not all happens then.
    ///
    /// ```
    /// use flowradar_sim::{Scenario, Truth};
    /// let scenario = Scenario::troubled_fat_tree(100, 20, 1)?;
    /// assert_eq!(scenario.planted.len(), 7);
    /// assert_eq!(scenario.simulation.topology().switches().len(), 20);
    /// # Ok::<(), flowradar_sim::SimulationError>(())
    /// ```
    ///
    /// # Errors
    /// If there are no flows or epochs, or too many.
    pub fn troubled_fat_tree(
        flows_per_switch: u32,
        epochs: u64,
        seed: u64,
    ) -> Result<Self, SimulationError> {
        let topology = Topology::fat_tree(4).expect("4 is even and in range");
        let switch = |name: &str| topology.switch(name).expect("a fat tree has it");
        let host = |name: &str| topology.host(name).expect("a fat tree has it");
        let last = epochs.max(1) - 1;
        let from = |begin: u64| begin..=last.max(begin);
        let planted = vec![
            Planted {
                trouble: Trouble::EcmpImbalance {
                    at: switch("agg-3-0"),
                },
                epochs: from(0),
            },
            Planted {
                trouble: Trouble::LossyLink {
                    from: switch("agg-1-1"),
                    to: switch("core-3"),
                    fraction: 0.02,
                },
                epochs: from(0),
            },
            Planted {
                trouble: Trouble::Loop {
                    switches: vec![switch("agg-0-0"), switch("core-0")],
                },
                epochs: TROUBLE_BEGINS_EPOCH + 1..=TROUBLE_BEGINS_EPOCH + 3,
            },
            Planted {
                trouble: Trouble::Blackhole {
                    at: switch("agg-2-1"),
                },
                epochs: from(TROUBLE_BEGINS_EPOCH + 2),
            },
            Planted {
                trouble: Trouble::WrongForwarding {
                    at: switch("core-1"),
                    to: switch("agg-3-0"),
                },
                epochs: from(TROUBLE_BEGINS_EPOCH + 4),
            },
            Planted {
                trouble: Trouble::Scan {
                    from: host("host-0-1-0"),
                    to: host("host-3-1-1"),
                },
                epochs: from(TROUBLE_BEGINS_EPOCH),
            },
            Planted {
                trouble: Trouble::SynFlood {
                    to: host("host-1-0-0"),
                    dst_port: 443,
                },
                epochs: from(TROUBLE_BEGINS_EPOCH + 5),
            },
        ];
        let busy_service = ExtraFlows {
            from: HostChoice::Any,
            to: HostChoice::One(host("host-2-0-1")),
            dst_port: PortChoice::One(53),
            protocol: 6,
            flows: 40..=80,
            packets: 1,
            epochs: None,
        };
        let mut extra = vec![busy_service];
        let mut faults = Faults::default();
        for Planted { trouble, epochs } in &planted {
            plant(trouble, epochs, &topology, &mut faults, &mut extra);
        }
        let simulation = Simulation::builder(topology.clone())
            .traffic(Traffic::InterPod {
                flows_per_switch,
                spread: Spread::Hashed,
            })
            .epochs(epochs)
            .faults(faults)
            .extra_flows(extra)
            .seed(seed)
            .build()?;
        Ok(Self {
            simulation,
            planted,
        })
    }
}

fn plant(
    trouble: &Trouble,
    epochs: &RangeInclusive<u64>,
    topology: &Topology,
    faults: &mut Faults,
    extra: &mut Vec<ExtraFlows>,
) {
    let mut fault = |kind, flows| {
        faults.planted.push(Fault {
            kind,
            flows,
            epochs: Some(epochs.clone()),
        });
    };
    match *trouble {
        Trouble::Blackhole { at } => {
            let kind = FaultKind::Blackhole { at, counted: true };
            fault(kind, FlowSelector::Fraction(0.2));
        }
        Trouble::EcmpImbalance { at } => faults.ecmp_imbalance.push(EcmpImbalance {
            at,
            weights: vec![9, 1],
        }),
        Trouble::LossyLink { from, to, fraction } => faults.lossy_links.push(LossyLink {
            from: from.into(),
            to: to.into(),
            fraction,
        }),
        Trouble::Loop { ref switches } => {
            let kind = FaultKind::Loop {
                cycle: switches.clone(),
                turns: 4,
                packets_fraction: 0.5,
                end: LoopEnd::TtlExpires,
            };
            fault(kind, FlowSelector::Fraction(0.3));
        }
        Trouble::Scan { from, to } => extra.push(ExtraFlows::scan(
            from,
            HostChoice::One(to),
            120,
            epochs.clone(),
        )),
        Trouble::SynFlood { to, dst_port } => {
            extra.push(ExtraFlows::syn_flood(to, dst_port, 300, epochs.clone()));
        }
        Trouble::WrongForwarding { at, to } => {
            // To a host that is not in the pod of the switch it is sent to.
            let host = topology.host("host-2-1-0").expect("a fat tree has it");
            let kind = FaultKind::WrongForwarding {
                at,
                to,
                then: Misforwarded::Drop,
            };
            fault(kind, FlowSelector::To(host));
        }
    }
}
