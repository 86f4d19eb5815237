//! Lost packets of every flow, and a map of the links that lose them.

use serde::{Deserialize, Serialize};

use super::record::FiveTuple;

/// Limits of the loss analysis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossOptions {
    /// Epochs after which a packet on its way has been counted downstream: 1, or 0 where switches
    /// stamp the epoch into packets so that all count a packet in the same one.
    pub in_flight_epochs: u8,
    /// A link is lossy from so many packets lost in an epoch on.
    pub packets_min: u64,
    /// A link is lossy from this fraction of packets lost in an epoch on.
    pub rate_min: f64,
    /// Lossy flows listed for an epoch at most, those with most packets lost first.
    pub flows_listed_max: usize,
}

/// What was lost in an epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LossMap {
    /// The epoch.
    pub epoch: u64,
    /// Links between switches that packets crossed, in both directions apart; by name.
    pub links: Vec<LinkLoss>,
    /// Losses where the link is not known, as no packet of the flow went further; by name.
    pub behind: Vec<SwitchLoss>,
    /// Lossy flows, the one that lost most first; at most [`LossOptions::flows_listed_max`].
    pub flows: Vec<FlowLoss>,
    /// Lossy flows in all (a flow that lost packets at two places counts twice).
    pub lossy_flows: u64,
    /// Packets lost on links and behind switches.
    pub packets_lost: u64,
    /// Packets that were missing and were counted in the neighbouring epoch.
    pub packets_in_flight: u64,
    /// Comparisons of two switches' counters of a flow.
    pub compared: u64,
    /// Comparisons that were not made, since a counter is not known, or a report is missing or
    /// incomplete.
    pub undecided: u64,
}

/// What a link carried and lost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkLoss {
    /// Where packets enter it.
    pub from: String,
    /// Where it leads.
    pub to: String,
    /// Flows that crossed it.
    pub flows: u64,
    /// Their packets before it.
    pub packets: u64,
    /// Packets lost on it at least.
    pub lost: u64,
    /// Flows that lost packets on it.
    pub lossy_flows: u64,
}

/// What got lost somewhere behind a switch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SwitchLoss {
    /// The last switch that counted the packets.
    pub switch: String,
    /// Where intended forwarding sends them.
    pub next: Vec<String>,
    /// Flows that end there.
    pub flows: u64,
    /// Their packets.
    pub lost: u64,
}

/// What a flow lost at a place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowLoss {
    /// The flow.
    pub flow: FiveTuple,
    /// The last switch that counted its packets.
    pub from: String,
    /// The next switch; none if none of the flow's packets went further.
    pub to: Option<String>,
    /// Packets at `from`, at least.
    pub packets: u64,
    /// Packets lost, at least.
    pub lost: u64,
}

impl Default for LossOptions {
    fn default() -> Self {
        Self {
            in_flight_epochs: 1,
            packets_min: 1,
            rate_min: 0.0,
            flows_listed_max: 100,
        }
    }
}

impl LinkLoss {
    /// Fraction of packets lost.
    pub fn rate(&self) -> f64 {
        self.lost as f64 / self.packets.max(1) as f64
    }
}
