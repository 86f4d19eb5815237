//! Classic exports: NetFlow, NetStream, IPFIX and sFlow, into the same store.
//!
//! [`NetflowDecoder`] and [`decode_sflow`] turn datagrams into [`ClassicRecord`]s, without I/O; the collector
//! receives them where `[classic]` says. Where an
//! exporter samples, counters are multiplied by its sampling rate and the record says so. UDP is not
//! acknowledged, so these records are not in the journal: what is not stored yet when the process dies is
//! gone, as are datagrams that come meanwhile.

mod listener;
mod netflow;
mod sflow;

use std::net::IpAddr;

use flowradar_collector::analysis::FiveTuple;
use serde::{Deserialize, Serialize};

pub use listener::{Addresses, Kind};
pub(crate) use listener::{bind, listen};
pub use netflow::NetflowDecoder;
pub use sflow::decode_sflow;

/// What a record came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassicSource {
    /// IPFIX.
    Ipfix,
    /// NetFlow version 5, or NetStream's.
    Netflow5,
    /// NetFlow version 7.
    Netflow7,
    /// NetFlow version 9, or NetStream's.
    Netflow9,
    /// sFlow version 5: one sampled packet.
    Sflow,
}

/// What a datagram held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// Flow records.
    pub records: Vec<ClassicRecord>,
    /// Records without addresses (layer-2 flows, events and the like), and sets that nothing was read of.
    pub other_records: u64,
    /// Sets of records whose template has not come yet.
    pub without_template: u64,
    /// Whether the datagram, or its rest, could not be read.
    pub malformed: bool,
}

/// A flow record of a classic exporter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassicRecord {
    /// What it came by.
    pub source: ClassicSource,
    /// Address of the exporter; for sFlow, of the agent.
    pub exporter: IpAddr,
    /// The flow.
    pub flow: FiveTuple,
    /// When it began, in nanoseconds since 1970.
    pub start_ns: u64,
    /// How long it was seen, in nanoseconds.
    pub length_ns: u64,
    /// Packets as counted by the exporter.
    pub packets: u64,
    /// Bytes as counted by the exporter.
    pub bytes: u64,
    /// The exporter counts one packet of so many; none if it does not say.
    pub sampling_rate: Option<u32>,
}

impl ClassicSource {
    /// The source in a word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ipfix => "ipfix",
            Self::Netflow5 => "netflow5",
            Self::Netflow7 => "netflow7",
            Self::Netflow9 => "netflow9",
            Self::Sflow => "sflow",
        }
    }
}

impl ClassicRecord {
    /// Packets, as estimated from the sampling rate.
    pub fn packets_estimated(&self) -> u64 {
        self.packets.saturating_mul(self.factor())
    }

    /// Bytes, as estimated from the sampling rate.
    pub fn bytes_estimated(&self) -> u64 {
        self.bytes.saturating_mul(self.factor())
    }

    /// `sampled` if the counters are estimates, else `reported`.
    pub fn status(&self) -> &'static str {
        if self.factor() > 1 {
            "sampled"
        } else {
            "reported"
        }
    }

    fn factor(&self) -> u64 {
        self.sampling_rate.unwrap_or(1).max(1).into()
    }
}
