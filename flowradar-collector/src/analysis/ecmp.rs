//! How evenly the members of ECMP groups are loaded.

use serde::{Deserialize, Serialize};

/// Limits of the ECMP analysis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EcmpOptions {
    /// Standard deviations of the number of flows from what the weights say, from which on a group is
    /// skewed.
    pub skew_deviations: f64,
    /// Load of the most loaded member over its fair share, from which on a group is imbalanced.
    pub overload_ratio: f64,
    /// Epochs over which load is averaged.
    pub window_epochs: usize,
    /// A group with fewer packets in a window is not judged.
    pub packets_min: u64,
}

/// The load of an ECMP group in an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupLoad {
    /// The switch that chooses.
    pub switch: String,
    /// Its next hops.
    pub members: Vec<MemberLoad>,
    /// Largest share over its fair share, in flows; 1 is even. 0 without any.
    pub flow_ratio: f64,
    /// The same in packets.
    pub packet_ratio: f64,
    /// The same in bytes, where all switches count bytes.
    pub byte_ratio: Option<f64>,
    /// Flows of the group that no member is known of.
    pub flows_unassigned: u64,
}

/// The load of a member of an ECMP group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberLoad {
    /// The next hop.
    pub to: String,
    /// How much it is meant to get, relative to the others.
    pub weight: u32,
    /// Flows sent to it.
    pub flows: u64,
    /// Packets sent to it; estimates where counters are unresolved.
    pub packets: u64,
    /// Bytes sent to it; estimates where counters are unresolved.
    pub bytes: u64,
    /// Flows of these whose counters are unresolved.
    pub unresolved: u64,
}

impl Default for EcmpOptions {
    fn default() -> Self {
        Self {
            skew_deviations: 6.0,
            overload_ratio: 1.5,
            window_epochs: 10,
            packets_min: 1_000,
        }
    }
}
