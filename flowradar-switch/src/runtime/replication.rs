//! Multicast groups and clone sessions: the packet replication engine.

use thiserror::Error;

/// One copy of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    /// Where the copy goes.
    pub port: u16,
    /// What the copy finds in `standard_metadata.egress_rid`.
    pub instance: u16,
}

/// Where the clones of a session go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloneSession {
    /// One clone each.
    pub replicas: Vec<Replica>,
    /// Kept and returned; there is one queue a port.
    pub class_of_service: u32,
    /// Clones are cut to this many bytes; zero leaves them whole.
    pub packet_length_bytes: u32,
}

/// Why a multicast group or clone session could not be read or changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReplicationError {
    /// It is there already.
    #[error("there is a {what} {id} already; modify it instead")]
    Exists {
        /// Multicast group or clone session.
        what: &'static str,
        /// Its number.
        id: u32,
    },
    /// There are as many as there may be.
    #[error("at most {capacity} {what} are kept")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many may be kept.
        capacity: usize,
    },
    /// The number is out of range.
    #[error("{what} {id} is out of range: 1 to {largest}")]
    IdRange {
        /// Multicast group or clone session.
        what: &'static str,
        /// Its number.
        id: u32,
        /// The largest that may be.
        largest: u32,
    },
    /// A port and instance are named twice.
    #[error("{what} {id} names a port and instance twice")]
    ReplicaTwice {
        /// Multicast group or clone session.
        what: &'static str,
        /// Its number.
        id: u32,
    },
    /// There is none with this number.
    #[error("there is no {what} {id}")]
    Unknown {
        /// Multicast group or clone session.
        what: &'static str,
        /// Its number.
        id: u32,
    },
}
