//! The agent: keeps switches running the program, ends their epochs by the clock, and brings their
//! flowsets to where they are safe.
//!
//! One [`SwitchAgent`] looks after one switch, and lives through everything that may happen to it: a
//! switch that restarts gets its program and tables again; a controller that restarts finds what was
//! left; a switch that is slow has its epochs merged, which is said ([`AgentEventKind::EpochDrained`]); one
//! that is away is tried again, less and less often. Switches do not wait for each other.
//!
//! A bank is cleared only when its flowsets are safe. A crash at any moment delivers them once more at
//! worst, never less often than once.

mod sink;
mod switch;

use std::time::Duration;

use flowradar_core::KeyKind;
use flowradar_core::flowset::SwitchName;

pub use sink::{Delivery, DirectorySink, FlowsetSink, TcpSink};
pub use switch::{AgentError, AgentOptions, ReaderKind, SwitchAgent};

use crate::client::{PipelineOutcome, ReconcileSummary};

/// What happened to a switch.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentEvent {
    /// The switch.
    pub switch: SwitchName,
    /// What happened.
    pub kind: AgentEventKind,
}

/// What happened to a switch.
#[derive(Clone, Debug, PartialEq)]
pub enum AgentEventKind {
    /// A session was opened and is primary.
    Connected {
        /// The election id that it has.
        election_id: u128,
    },
    /// A session was opened, and another controller is primary: it is waited for.
    Standby {
        /// The highest election id that the switch has seen.
        highest: Option<u128>,
    },
    /// The switch runs the program, with its tables as they shall be.
    Deployed {
        /// Whether the program was set, or ran already.
        pipeline: PipelineOutcome,
        /// What was changed in the tables.
        tables: ReconcileSummary,
    },
    /// A controller before has left a bank that was not read; it will be.
    BankLeft {
        /// Its epoch.
        epoch: u64,
    },
    /// A controller before has left a bank that was read but not wholly cleared; it was.
    BankCleared {
        /// Its epoch.
        epoch: u64,
    },
    /// An epoch's flowsets are safe, and its bank is clean.
    EpochDrained(EpochDrained),
    /// Something went wrong; a new attempt will be made.
    Failed {
        /// What.
        error: String,
        /// When.
        retry_in: Duration,
    },
}

/// An epoch that was read out of a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochDrained {
    /// Its number.
    pub epoch: u64,
    /// How many epochs it holds: more than one if the switch or the way to it was slow.
    pub merged: u64,
    /// Packets counted in it, over all tables.
    pub packets: u64,
    /// Frames that are in no table: not IP, or malformed.
    pub not_encoded: u64,
    /// Its flowsets: kind of key, and bytes.
    pub flowsets: Vec<(KeyKind, usize)>,
    /// How long reading took.
    pub read_time: Duration,
    /// How long it took from the epoch's end until the bank was clean.
    pub drain_time: Duration,
    /// Requests sent, and sent again.
    pub requests: (u64, u64),
    /// How often the bank was read, until no packets came in any more.
    pub rounds: u32,
}
