//! Fine-grained traffic: who sends how much to whom.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::record::FiveTuple;

/// Limits of the traffic analysis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrafficOptions {
    /// Entries of each list.
    pub top: usize,
    /// Length of IPv4 prefixes.
    pub prefix_v4_bits: u8,
    /// Length of IPv6 prefixes.
    pub prefix_v6_bits: u8,
    /// Epochs without packets after which a flow is over.
    pub idle_epochs: u64,
    /// Flows followed over epochs at most.
    pub flows_max: usize,
}

/// The traffic of an epoch: every flow once, with what the first switch on its way counted (where
/// that is not known: the switch that counted most).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrafficSummary {
    /// The epoch.
    pub epoch: u64,
    /// All flows.
    pub total: Volume,
    /// By packets, the largest first.
    pub top_flows: Vec<FlowVolume>,
    /// Source addresses by packets.
    pub top_sources: Vec<AddressVolume>,
    /// Destination addresses by packets.
    pub top_destinations: Vec<AddressVolume>,
    /// Source prefixes by packets.
    pub top_source_prefixes: Vec<PrefixVolume>,
    /// Destination prefixes by packets.
    pub top_destination_prefixes: Vec<PrefixVolume>,
    /// Services by packets.
    pub top_services: Vec<ServiceVolume>,
    /// Traffic between places, by packets: switches that hosts are joined to where the network is
    /// known, else prefixes.
    pub matrix: Vec<MatrixVolume>,
    /// Flows by packets in this epoch: entry i counts those with 2^i to 2^(i+1) − 1 packets.
    pub packets_histogram: Vec<u64>,
    /// Flows by bytes in this epoch, in the same way; 0 and 1 bytes are entry 0.
    pub bytes_histogram: Vec<u64>,
    /// Flows that began in this epoch.
    pub flows_begun: u64,
    /// Flows that turned out to be over in this epoch.
    pub flows_ended: u64,
    /// The flows that ended by epochs from first to last, in powers of two as above.
    pub duration_epochs_histogram: Vec<u64>,
    /// The flows that ended by packets in all their epochs, in powers of two as above.
    pub lifetime_packets_histogram: Vec<u64>,
}

/// How much traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Flows.
    pub flows: u64,
    /// Packets; with estimates of unresolved flows.
    pub packets: u64,
    /// Bytes, where they are counted; with estimates of unresolved flows.
    pub bytes: u64,
    /// Flows of these whose packets or bytes are unresolved.
    pub unresolved_flows: u64,
}

/// Traffic of a flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowVolume {
    /// The flow.
    pub flow: FiveTuple,
    /// How much; `flows` is 1.
    #[serde(flatten)]
    pub volume: Volume,
}

/// Traffic of an address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AddressVolume {
    /// The address.
    pub address: IpAddr,
    /// How much.
    #[serde(flatten)]
    pub volume: Volume,
}

/// Traffic of a prefix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrefixVolume {
    /// The prefix.
    pub prefix: IpNet,
    /// How much.
    #[serde(flatten)]
    pub volume: Volume,
}

/// Traffic of a service: the lower of the two ports, as servers listen on low ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceVolume {
    /// IP protocol number.
    pub protocol: u8,
    /// The port.
    pub port: u16,
    /// How much, both ways.
    #[serde(flatten)]
    pub volume: Volume,
}

/// Traffic from one place to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MatrixVolume {
    /// Where it comes from.
    pub from: String,
    /// Where it goes.
    pub to: String,
    /// How much.
    #[serde(flatten)]
    pub volume: Volume,
}

impl Default for TrafficOptions {
    fn default() -> Self {
        Self {
            top: 20,
            prefix_v4_bits: 24,
            prefix_v6_bits: 48,
            idle_epochs: 10,
            flows_max: 1 << 20,
        }
    }
}
