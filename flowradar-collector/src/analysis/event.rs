//! Events: what an operator is told, with the evidence for it.

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::record::{Bounds, FiveTuple};

/// Flows named as evidence of an event at most.
pub const EVIDENCE_FLOWS_MAX: usize = 8;

/// Something that went wrong, from its first epoch to its last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Unique within an [`super::Analyzer`], ascending.
    pub id: u64,
    /// What, and where.
    #[serde(flatten)]
    pub kind: EventKind,
    /// How bad it is; the highest so far.
    pub severity: Severity,
    /// The first epoch with evidence.
    pub start_epoch: u64,
    /// The epoch whose records made it known: no earlier than the start.
    pub detected_epoch: u64,
    /// The last epoch with evidence so far.
    pub last_epoch: u64,
    /// The last epoch with evidence, once the event is over.
    pub end_epoch: Option<u64>,
    /// Why it is believed.
    pub evidence: Evidence,
}

/// What went wrong, and where: two events of the same kind and place are one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    /// Flows end at a switch, or between it and the next.
    Blackhole {
        /// The last switch that counts them.
        switch: String,
        /// Where intended forwarding sends them next; empty if not known.
        next: Vec<String>,
    },
    /// The members of an ECMP group carry different loads.
    EcmpImbalance {
        /// The switch that chooses.
        switch: String,
        /// Its next hops.
        members: Vec<String>,
    },
    /// Many sources send to one destination.
    FanIn {
        /// The destination.
        dst: IpAddr,
    },
    /// One source sends to many destinations.
    FanOut {
        /// The source.
        src: IpAddr,
    },
    /// Packets get lost on a link.
    LinkLoss {
        /// The last switch that counts them.
        from: String,
        /// The next switch.
        to: String,
    },
    /// Packets get lost behind a switch, on one of several links.
    LossBehind {
        /// The last switch that counts them.
        switch: String,
        /// Where intended forwarding sends them next.
        next: Vec<String>,
    },
    /// Packets go around.
    Loop {
        /// The switches of the cycle, sorted by name.
        switches: Vec<String>,
    },
    /// One source tries many ports of one destination, or one port of many.
    Scan {
        /// The source.
        src: IpAddr,
        /// The destination, where it is one.
        dst: Option<IpAddr>,
        /// The destination port, where it is one.
        dst_port: Option<u16>,
    },
    /// Many flows of one packet each to one service.
    SynFlood {
        /// The destination.
        dst: IpAddr,
        /// The destination port.
        dst_port: u16,
    },
    /// A switch sends flows where intended forwarding does not.
    WrongForwarding {
        /// The switch with the wrong entry.
        at: String,
        /// Where it sends them.
        to: String,
    },
}

/// How bad an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Something is wrong, traffic gets through.
    Warning,
    /// Traffic does not get through, or somebody attacks.
    Critical,
}

/// Why an event is believed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Epochs with evidence.
    pub epochs: u64,
    /// Flows concerned, summed over epochs.
    pub flows: u64,
    /// Packets concerned (lost, gone around, sent wrongly, …), summed over epochs.
    pub packets: u64,
    /// Measures of the worst epoch so far, by name; units are last in names.
    pub measures: Vec<Measure>,
    /// Some of the flows, the ones with most packets concerned first; at most
    /// [`EVIDENCE_FLOWS_MAX`].
    pub examples: Vec<FlowEvidence>,
}

/// A number of an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// What it is, such as `loss_rate` or `flows_of_one_packet`.
    pub name: String,
    /// Its value.
    pub value: f64,
}

/// A flow that shows an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowEvidence {
    /// The flow.
    pub flow: FiveTuple,
    /// The epoch.
    pub epoch: u64,
    /// Its packets concerned.
    pub packets: u64,
    /// What the switches on its way counted of it, in the order of the way.
    pub hops: Vec<HopCounter>,
}

/// What a switch counted of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HopCounter {
    /// The switch.
    pub switch: String,
    /// Packets, or between which bounds they are.
    pub packets: Bounds,
}

/// A change of an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "change", content = "event")]
pub enum EventChange {
    /// It began.
    Opened(Event),
    /// It goes on: worse than before, or as it was for a while.
    Updated(Event),
    /// It is over.
    Closed(Event),
}

impl Event {
    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.end_epoch.is_some()
    }

    /// Epochs from the first one with evidence to the one whose records made it known.
    pub fn delay_epochs(&self) -> u64 {
        self.detected_epoch.saturating_sub(self.start_epoch)
    }
}

impl EventKind {
    /// Its kind in a word, as in the JSON form.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Blackhole { .. } => "blackhole",
            Self::EcmpImbalance { .. } => "ecmp_imbalance",
            Self::FanIn { .. } => "fan_in",
            Self::FanOut { .. } => "fan_out",
            Self::LinkLoss { .. } => "link_loss",
            Self::LossBehind { .. } => "loss_behind",
            Self::Loop { .. } => "loop",
            Self::Scan { .. } => "scan",
            Self::SynFlood { .. } => "syn_flood",
            Self::WrongForwarding { .. } => "wrong_forwarding",
        }
    }
}

impl EventChange {
    /// The event as it is now.
    pub fn event(&self) -> &Event {
        match self {
            Self::Opened(event) | Self::Updated(event) | Self::Closed(event) => event,
        }
    }
}

impl Severity {
    /// `info`, `warning` or `critical`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl Display for Severity {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// In a few words, such as `packets lost from agg-1-1 to core-3`.
impl Display for EventKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blackhole { switch, next } if next.is_empty() => {
                write!(f, "flows end at {switch}")
            }
            Self::Blackhole { switch, next } => {
                write!(f, "flows end between {switch} and {}", next.join(" or "))
            }
            Self::EcmpImbalance { switch, members } => {
                write!(f, "{switch} loads {} unevenly", members.join(", "))
            }
            Self::FanIn { dst } => write!(f, "unusually many sources send to {dst}"),
            Self::FanOut { src } => write!(f, "{src} sends to unusually many destinations"),
            Self::LinkLoss { from, to } => write!(f, "packets lost from {from} to {to}"),
            Self::LossBehind { switch, next } => {
                write!(
                    f,
                    "packets lost behind {switch}, before {}",
                    next.join(" or ")
                )
            }
            Self::Loop { switches } => {
                write!(f, "packets go around between {}", switches.join(", "))
            }
            Self::Scan { src, dst, dst_port } => match (dst, dst_port) {
                (Some(dst), _) => write!(f, "{src} tries many ports of {dst}"),
                (None, Some(port)) => write!(f, "{src} tries port {port} of many destinations"),
                (None, None) => write!(f, "{src} tries many ports of many destinations"),
            },
            Self::SynFlood { dst, dst_port } => {
                write!(f, "flood of one-packet flows to {dst} port {dst_port}")
            }
            Self::WrongForwarding { at, to } => {
                write!(f, "{at} sends flows to {to}, which is not intended")
            }
        }
    }
}

/// In a line: kind, severity, epochs, packets.
impl Display for Event {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} (epoch {}",
            self.severity, self.kind, self.start_epoch
        )?;
        if self.last_epoch > self.start_epoch {
            write!(f, " to {}", self.last_epoch)?;
        }
        if !self.is_over() {
            f.write_str(", not over")?;
        }
        write!(
            f,
            "; {} flows, {} packets)",
            self.evidence.flows, self.evidence.packets
        )
    }
}
