//! From reports to decoded epochs.
//!
//! [`Grouper`] decides, without clock or I/O, which reports belong together, when an epoch is decoded,
//! and what becomes of reports that come late, twice or never. [`decode`] decodes one epoch.
//!
//! What may happen to a report, and where it shows:
//!
//! | outcome | when | what is done |
//! | --- | --- | --- |
//! | `on_time` | before its epoch is decoded | decoded with the others |
//! | `late` | afterwards, within `late_ms` | the epoch is decoded again, with it; its stored rows are replaced |
//! | `too_late` | when the epoch is closed, and it has a start time that says so | decoded alone and stored, unless rows of the switch and epoch are there |
//! | `duplicate` | the same bytes were reported before | nothing |
//! | `conflict` | other bytes were reported for the same switch and epoch | the first one counts |
//! | `corrupt` | the bytes are no flowset | refused where it came in, with the reason |
//! | `foreign` | an agent reports for a switch that is not its own | refused where it came in |
//!
//! All are counted by switch, and all but the first two are told as notices. A switch that did not
//! report by the deadline is named in the epoch's `missing`.
//!
//! An epoch that only one switch reports and whose number is far from those of all others is *implausible*:
//! it is decoded and stored, but other epochs do not wait for it, and it is not analysed.

pub mod decode;
mod decoded;
mod grouper;

use serde::{Deserialize, Serialize};

pub(crate) use decoded::weaker_status;
pub use decoded::{DecodedEpoch, Quality, SwitchOutcome};
pub use grouper::{Action, Grouper, GrouperOptions, GrouperStatus, Overload};

use crate::journal::Position;

/// Number of a group of reports, as given by the grouper. Ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GroupId(pub u64);

/// A report that is in the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrived {
    /// Where it is.
    pub position: Position,
    /// The switch.
    pub switch: String,
    /// Number of its epoch.
    pub epoch: u64,
    /// When the epoch began, in nanoseconds since 1970; 0 if unknown.
    pub start_ns: u64,
    /// How long it was, in nanoseconds; 0 if unknown.
    pub length_ns: u64,
    /// 4 or 6.
    pub key: u8,
    /// Hash of the flowset.
    pub digest: u64,
    /// When it was received, in nanoseconds since 1970.
    pub received_ns: u64,
    /// Whether it comes from the journal of an earlier run.
    pub replayed: bool,
}

/// A switch came or went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// The switch.
    pub switch: String,
    /// Whether an agent is there for it.
    pub present: bool,
}

/// What grouping hears.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupingInput {
    /// A report arrived.
    Arrived(Arrived),
    /// A switch came or went.
    Presence(Presence),
}

/// What later stages tell grouping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Feedback {
    /// A group was decoded.
    Decoded(GroupId),
    /// What was decoded of a group is stored durably.
    Stored {
        /// The group.
        group: GroupId,
        /// Which decode of it.
        revision: u32,
    },
}

/// Reports to be decoded together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecodeRequest {
    /// The group.
    pub group: GroupId,
    /// Counts decodes of the group, from 0.
    pub revision: u32,
    /// Number of the epoch.
    pub epoch: u64,
    /// When it began, in nanoseconds since 1970; if that is not known, when its first report came.
    pub time_ns: u64,
    /// How long it was, in nanoseconds; 0 if unknown.
    pub length_ns: u64,
    /// How thoroughly to decode.
    pub quality: Quality,
    /// Whether the report came when its epoch was closed.
    pub too_late: bool,
    /// Whether only one switch reported it, and its number is far from those of all others.
    pub implausible: bool,
    /// Whether rows of this epoch may be stored already.
    pub may_be_stored: bool,
    /// The reports, by switch and kind of key.
    pub reports: Vec<ReportPlace>,
    /// Switches that were expected and did not report.
    pub missing: Vec<String>,
}

/// A report, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportPlace {
    /// The switch.
    pub switch: String,
    /// 4 or 6.
    pub key: u8,
    /// Where the report is.
    pub position: Position,
}

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Decoded with the others.
    OnTime,
    /// The epoch was decoded already, and is decoded again.
    Late,
    /// The epoch is closed: it is decoded alone.
    TooLate,
    /// The same flowset was there.
    Duplicate,
    /// Another flowset of this switch and epoch was there.
    Conflict,
    /// It is no flowset.
    Corrupt,
    /// It is of another switch than the agent's.
    Foreign,
}

impl Outcome {
    /// The outcome in a word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::OnTime => "on_time",
            Self::Late => "late",
            Self::TooLate => "too_late",
            Self::Duplicate => "duplicate",
            Self::Conflict => "conflict",
            Self::Corrupt => "corrupt",
            Self::Foreign => "foreign",
        }
    }
}
