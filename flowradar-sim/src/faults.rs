//! What goes wrong in the network.

use std::ops::RangeInclusive;

use thiserror::Error;

use crate::random::{Purpose, Seed};
use crate::topology::{HostId, Node, SwitchId, Topology};
use crate::traffic::FlowId;

/// Most planted faults of a run.
pub const PLANTED_MAX: usize = 4_096;
/// Times that a packet may pass a switch of a loop; an IPv4 packet starts with a TTL of at most 255.
pub const LOOP_PASSES_MAX: usize = 255;
/// Switches that a packet passes at most: the TTL that hosts send with.
pub const TTL_DEFAULT: u32 = 64;

/// All faults of a run. The default is a network without any.
///
/// Every choice that a fault makes depends on the simulation's seed and on nothing else: switching
/// one fault on leaves the others where they were.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// Fraction of packets lost on every link between switches, each way, independently.
    pub link_loss: f64,
    /// Links with a loss of their own, in one direction, instead of `link_loss`.
    pub lossy_links: Vec<LossyLink>,
    /// Fraction of flows that, in an epoch, lose packets on one link between switches of their
    /// path: 1 to a tenth of what they sent (at least 1). Flows that stay at one switch have no
    /// such link and lose nothing.
    pub lossy_flows: f64,
    /// Packets on their way while an epoch ends.
    pub in_flight: InFlight,
    /// How far the switches' clocks are apart.
    pub clock_skew: ClockSkew,
    /// Loops, blackholes and wrong forwarding entries. Where several apply to a packet at one
    /// switch, the first of this list does.
    pub planted: Vec<Fault>,
    /// Switches that spread flows unevenly over equal paths.
    pub ecmp_imbalance: Vec<EcmpImbalance>,
    /// All switches use one hash function: who chooses after another chooses the same again, and
    /// most paths stay unused (hash polarisation). Matters where the spread is hashed.
    pub ecmp_polarised: bool,
    /// Switches whose reports are missing.
    pub silent: Vec<Silence>,
    /// Fraction of (switch, epoch) pairs whose report is missing, besides those of `silent`.
    pub silent_fraction: f64,
}

/// A link that loses packets in one direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossyLink {
    /// Where the link is entered.
    pub from: Node,
    /// Where it leads.
    pub to: Node,
    /// Fraction of packets lost.
    pub fraction: f64,
}

/// Packets that pass the first switches of their path in one epoch and the others in the next.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct InFlight {
    /// Fraction of flows that have packets in flight when an epoch ends.
    pub flows: f64,
    /// Such a flow has 1 to this many packets in flight, all at one place of its path.
    pub packets_max: u32,
}

/// Clocks of switches: an offset of 0.1 makes a switch begin its epochs a tenth of an epoch early.
///
/// A flow's packets are evenly paced over the epoch in which they are sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ClockSkew {
    /// All clocks agree.
    #[default]
    None,
    /// Offsets uniform between −`offset_max` and `offset_max`, in epochs, at most 0.5.
    Random {
        /// In epochs.
        offset_max: f64,
    },
    /// The offset of each switch, in epochs, from −0.5 to 0.5.
    Fixed(Vec<f64>),
}

/// Something wrong at a place, for some flows, in some epochs.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// What is wrong and where.
    pub kind: FaultKind,
    /// Which flows it hits.
    pub flows: FlowSelector,
    /// The epochs in which packets are sent that it hits; `None` for all.
    pub epochs: Option<RangeInclusive<u64>>,
}

/// What is wrong at a place.
#[derive(Clone, Debug, PartialEq)]
pub enum FaultKind {
    /// A switch drops packets.
    Blackhole {
        /// The switch.
        at: SwitchId,
        /// Whether it has counted them by then.
        counted: bool,
    },
    /// Packets that come to a switch of a cycle go around it: a transient loop, as while routes
    /// converge. Those that it spares have passed before or after it, and are not caught later. On
    /// their rounds packets meet the loss of links, but no other planted fault.
    Loop {
        /// The switches, each joined to the next and the last to the first.
        cycle: Vec<SwitchId>,
        /// Full turns from where packets enter; each switch counts them once a turn.
        turns: u32,
        /// Fraction of a flow's packets of an epoch caught, rounded up to whole packets.
        packets_fraction: f64,
        /// What becomes of them then.
        end: LoopEnd,
    },
    /// A switch sends packets to a neighbour to which its routes do not send them.
    WrongForwarding {
        /// The switch.
        at: SwitchId,
        /// The neighbour.
        to: SwitchId,
        /// What the neighbour does.
        then: Misforwarded,
    },
}

/// How packets leave a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoopEnd {
    /// Their TTL reaches zero: they are dropped where they entered.
    TtlExpires,
    /// The loop ends: they go on from where they entered.
    Heals,
}

/// What becomes of packets that were sent to a wrong switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misforwarded {
    /// The wrong switch sends them on by its own routes. If these lead back to the wrong entry,
    /// they circle until their TTL, [`TTL_DEFAULT`], is used up.
    Continue,
    /// The wrong switch counts and drops them.
    Drop,
}

/// Which flows a fault hits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FlowSelector {
    /// All flows that come by.
    All,
    /// A random fraction of them.
    Fraction(f64),
    /// Those of a source.
    From(HostId),
    /// Those to a destination.
    To(HostId),
    /// One flow.
    Flow(FlowId),
}

/// A switch that favours some of its equal next hops. It then chooses by hash even if the traffic
/// is dealt out evenly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EcmpImbalance {
    /// The switch.
    pub at: SwitchId,
    /// Weights of the next hops in the order of their numbers, repeated if there are more.
    pub weights: Vec<u32>,
}

/// Missing reports of a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// The switch.
    pub at: SwitchId,
    /// The epochs; `None` for all.
    pub epochs: Option<RangeInclusive<u64>>,
}

/// Why faults were refused.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum FaultError {
    /// A fraction is not one.
    #[error("{what}: {value} is not between 0 and 1")]
    Fraction {
        /// The field, such as `lossy_links[2].fraction`.
        what: String,
        /// Its value.
        value: f64,
    },
    /// A clock is too far off.
    #[error("{what}: an offset of {value} epochs is not within half an epoch")]
    Offset {
        /// The field.
        what: String,
        /// Its value.
        value: f64,
    },
    /// Not one offset for each switch.
    #[error("clock_skew: {found} offsets for {switches} switches")]
    Offsets {
        /// Offsets given.
        found: usize,
        /// Switches of the topology.
        switches: usize,
    },
    /// `in_flight.flows` is set but no packets may be in flight.
    #[error("in_flight: packets_max must be at least 1 where flows is above 0")]
    InFlightPackets,
    /// A node is not one of the topology.
    #[error("{what}: {node} is not in the topology")]
    UnknownNode {
        /// The field.
        what: String,
        /// The node.
        node: Node,
    },
    /// Two nodes are not joined.
    #[error("{what}: no link leads from {from:?} to {to:?}")]
    NotJoined {
        /// The field.
        what: String,
        /// Name of the first node.
        from: String,
        /// Name of the second node.
        to: String,
    },
    /// A loop's cycle is none.
    #[error("{what}: a cycle needs at least two switches, all different")]
    Cycle {
        /// The field.
        what: String,
    },
    /// A loop's packets would pass too many switches.
    #[error(
        "{what}: {turns} turns of {switches} switches; must be from 1 to {LOOP_PASSES_MAX} passes"
    )]
    LoopPasses {
        /// The field.
        what: String,
        /// Turns asked for.
        turns: u32,
        /// Switches of the cycle.
        switches: usize,
    },
    /// No weight is above zero.
    #[error("{what}: at least one of the first weights must be above 0")]
    Weights {
        /// The field.
        what: String,
    },
    /// More planted faults than are supported.
    #[error("planted: {found} faults, at most {PLANTED_MAX} are supported")]
    TooMany {
        /// Faults given.
        found: usize,
    },
}

impl Faults {
    /// Refuses faults that make no sense in the topology.
    ///
    /// # Errors
    /// [`FaultError`], with the field's place.
    pub fn check(&self, topology: &Topology) -> Result<(), FaultError> {
        let check = Check { topology };
        check.fraction("link_loss", self.link_loss)?;
        check.fraction("lossy_flows", self.lossy_flows)?;
        check.fraction("silent_fraction", self.silent_fraction)?;
        check.fraction("in_flight.flows", self.in_flight.flows)?;
        if self.in_flight.flows > 0.0 && self.in_flight.packets_max == 0 {
            return Err(FaultError::InFlightPackets);
        }
        for (i, link) in self.lossy_links.iter().enumerate() {
            let what = format!("lossy_links[{i}]");
            check.joined(&what, link.from, link.to)?;
            check.fraction(&format!("{what}.fraction"), link.fraction)?;
        }
        check.clocks(&self.clock_skew)?;
        if self.planted.len() > PLANTED_MAX {
            return Err(FaultError::TooMany {
                found: self.planted.len(),
            });
        }
        for (i, fault) in self.planted.iter().enumerate() {
            check.planted(&format!("planted[{i}]"), fault)?;
        }
        for (i, imbalance) in self.ecmp_imbalance.iter().enumerate() {
            let what = format!("ecmp_imbalance[{i}]");
            check.known(&what, imbalance.at.into())?;
            // Groups may be as small as two: a zero total there would leave no choice.
            if imbalance.weights.iter().take(2).all(|&weight| weight == 0) {
                return Err(FaultError::Weights { what });
            }
        }
        for (i, silence) in self.silent.iter().enumerate() {
            check.known(&format!("silent[{i}]"), silence.at.into())?;
        }
        Ok(())
    }

    /// Whether packets can be counted in another epoch than that in which they were sent.
    pub(crate) fn displace_packets(&self) -> bool {
        self.in_flight.flows > 0.0 || self.clock_skew != ClockSkew::None
    }

    /// The clock offset of each switch, in epochs.
    pub(crate) fn clock_offsets(&self, seed: Seed, topology: &Topology) -> Vec<f64> {
        match &self.clock_skew {
            ClockSkew::None => vec![0.0; topology.switches().len()],
            ClockSkew::Random { offset_max } => topology
                .switch_ids()
                .map(|switch| {
                    let mut stream = seed.stream(Purpose::ClockOffset, switch.0.into(), 0);
                    (2.0 * stream.unit() - 1.0) * offset_max
                })
                .collect(),
            ClockSkew::Fixed(offsets) => offsets.clone(),
        }
    }

    pub(crate) fn is_silent(&self, seed: Seed, switch: SwitchId, epoch: u64) -> bool {
        let listed = self
            .silent
            .iter()
            .any(|silence| silence.at == switch && covers(&silence.epochs, epoch as i64));
        listed
            || seed.chance(
                self.silent_fraction,
                Purpose::Silence,
                switch.0.into(),
                epoch,
            )
    }
}

impl Fault {
    /// A random fault of each kind in turn, at random places of the topology, each hitting a
    /// random fraction of the flows that come by, in all epochs: for tests over many networks.
    ///
    /// Loops are between two neighbours, catch half of a flow's packets and turn 2 to 8 times.
    pub fn random(topology: &Topology, count: usize, flows: f64, seed: u64) -> Vec<Self> {
        let mut stream = Seed(seed).stream(Purpose::FaultPlan, 0, 0);
        let mut pick = |bound: usize| stream.below(bound as u64) as usize;
        (0..count)
            .map(|number| {
                let at = SwitchId::from_index(pick(topology.switches().len()));
                let neighbours: Vec<SwitchId> = topology
                    .ports(at)
                    .iter()
                    .filter_map(|port| match port.neighbour {
                        Node::Switch(switch) => Some(switch),
                        Node::Host(_) => None,
                    })
                    .collect();
                let one_in_two = pick(2) == 0;
                let turns = 2 + pick(7) as u32;
                let neighbour = neighbours.get(pick(neighbours.len().max(1)));
                let kind = match (number % 3, neighbour) {
                    // A network of one switch has only blackholes.
                    (0, _) | (_, None) => FaultKind::Blackhole {
                        at,
                        counted: one_in_two,
                    },
                    (1, Some(&to)) => FaultKind::Loop {
                        cycle: vec![at, to],
                        turns,
                        packets_fraction: 0.5,
                        end: if one_in_two {
                            LoopEnd::TtlExpires
                        } else {
                            LoopEnd::Heals
                        },
                    },
                    (_, Some(&to)) => FaultKind::WrongForwarding {
                        at,
                        to,
                        then: if one_in_two {
                            Misforwarded::Continue
                        } else {
                            Misforwarded::Drop
                        },
                    },
                };
                Self {
                    kind,
                    flows: FlowSelector::Fraction(flows),
                    epochs: None,
                }
            })
            .collect()
    }

    /// Whether the fault, the `number`-th planted, hits a flow's packets sent in an epoch.
    pub(crate) fn hits(
        &self,
        seed: Seed,
        number: usize,
        flow: FlowId,
        (from, to): (HostId, HostId),
        sent_epoch: i64,
    ) -> bool {
        covers(&self.epochs, sent_epoch)
            && match self.flows {
                FlowSelector::All => true,
                FlowSelector::Fraction(fraction) => seed.chance(
                    fraction,
                    Purpose::FaultSelection,
                    number as u64,
                    flow.0.into(),
                ),
                FlowSelector::From(host) => host == from,
                FlowSelector::To(host) => host == to,
                FlowSelector::Flow(one) => one == flow,
            }
    }
}

fn covers(epochs: &Option<RangeInclusive<u64>>, epoch: i64) -> bool {
    match epochs {
        None => true,
        Some(epochs) => u64::try_from(epoch).is_ok_and(|epoch| epochs.contains(&epoch)),
    }
}

struct Check<'a> {
    topology: &'a Topology,
}

impl Check<'_> {
    fn fraction(&self, what: &str, value: f64) -> Result<(), FaultError> {
        if (0.0..=1.0).contains(&value) {
            return Ok(());
        }
        Err(FaultError::Fraction {
            what: what.to_owned(),
            value,
        })
    }

    fn offset(&self, what: &str, value: f64) -> Result<(), FaultError> {
        if (-0.5..=0.5).contains(&value) {
            return Ok(());
        }
        Err(FaultError::Offset {
            what: what.to_owned(),
            value,
        })
    }

    fn clocks(&self, skew: &ClockSkew) -> Result<(), FaultError> {
        match skew {
            ClockSkew::None => Ok(()),
            &ClockSkew::Random { offset_max } => self.offset("clock_skew.offset_max", offset_max),
            ClockSkew::Fixed(offsets) => {
                let switches = self.topology.switches().len();
                if offsets.len() != switches {
                    return Err(FaultError::Offsets {
                        found: offsets.len(),
                        switches,
                    });
                }
                offsets
                    .iter()
                    .enumerate()
                    .try_for_each(|(i, &offset)| self.offset(&format!("clock_skew[{i}]"), offset))
            }
        }
    }

    fn known(&self, what: &str, node: Node) -> Result<(), FaultError> {
        let known = match node {
            Node::Switch(switch) => switch.index() < self.topology.switches().len(),
            Node::Host(host) => host.index() < self.topology.hosts().len(),
        };
        if known {
            return Ok(());
        }
        Err(FaultError::UnknownNode {
            what: what.to_owned(),
            node,
        })
    }

    fn joined(&self, what: &str, from: Node, to: Node) -> Result<(), FaultError> {
        self.known(what, from)?;
        self.known(what, to)?;
        if self.topology.link_between(from, to).is_some() {
            return Ok(());
        }
        Err(FaultError::NotJoined {
            what: what.to_owned(),
            from: self.topology.name(from).to_owned(),
            to: self.topology.name(to).to_owned(),
        })
    }

    fn planted(&self, what: &str, fault: &Fault) -> Result<(), FaultError> {
        match fault.flows {
            FlowSelector::Fraction(fraction) => {
                self.fraction(&format!("{what}.flows"), fraction)?;
            }
            FlowSelector::From(host) | FlowSelector::To(host) => {
                self.known(&format!("{what}.flows"), host.into())?;
            }
            FlowSelector::All | FlowSelector::Flow(_) => {}
        }
        match &fault.kind {
            &FaultKind::Blackhole { at, .. } => self.known(what, at.into()),
            &FaultKind::WrongForwarding { at, to, .. } => self.joined(what, at.into(), to.into()),
            FaultKind::Loop {
                cycle,
                turns,
                packets_fraction,
                ..
            } => {
                self.fraction(&format!("{what}.packets_fraction"), *packets_fraction)?;
                let what = || what.to_owned();
                let distinct: std::collections::HashSet<_> = cycle.iter().collect();
                if cycle.len() < 2 || distinct.len() < cycle.len() {
                    return Err(FaultError::Cycle { what: what() });
                }
                let passes = (*turns as usize).saturating_mul(cycle.len());
                if !(1..=LOOP_PASSES_MAX).contains(&passes) {
                    return Err(FaultError::LoopPasses {
                        what: what(),
                        turns: *turns,
                        switches: cycle.len(),
                    });
                }
                let next = cycle.iter().cycle().skip(1);
                cycle
                    .iter()
                    .zip(next)
                    .try_for_each(|(&at, &next)| self.joined(&what(), at.into(), next.into()))
            }
        }
    }
}
