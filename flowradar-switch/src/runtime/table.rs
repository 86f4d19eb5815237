//! Table entries and default actions.

use std::time::Duration;

use thiserror::Error;

use super::{CounterData, MeterConfig};
use crate::{Timestamp, Value};

/// The part of a key that one match field of a table is compared with.
///
/// A field of kind `optional` is ternary in the JSON that p4c writes for bmv2; give [`Self::Exact`] or
/// [`Self::Any`] for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MatchValue {
    /// Anything; for fields of kind lpm, ternary and range.
    Any,
    /// Equal. For fields of kind ternary this means all ones as the mask, and for lpm the full length.
    Exact(Value),
    /// The first `prefix_length` bits are equal; the others must be zero.
    Lpm {
        /// The prefix, as a value of the field's full width.
        value: Value,
        /// In bits, at most the field's width.
        prefix_length: u32,
    },
    /// The bits that are one in `mask` are equal; the others must be zero in `value`.
    Ternary {
        /// What the masked key must equal.
        value: Value,
        /// Which bits count.
        mask: Value,
    },
    /// At least `low` and at most `high`.
    Range {
        /// The smallest value that matches.
        low: Value,
        /// The largest value that matches.
        high: Value,
    },
    /// For P4_14's `valid` kind: whether the header is valid.
    Valid(bool),
}

/// An action with its arguments, in the order of the action's parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionCall {
    /// The action's name.
    pub action: String,
    /// One value a parameter.
    pub arguments: Vec<Value>,
}

/// One of the actions a one-shot selector entry chooses from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneShotAction {
    /// What is done.
    pub call: ActionCall,
    /// Its share; at least 1.
    pub weight: u32,
    /// Not chosen while this port is down.
    pub watch_port: Option<u16>,
}

/// What a table does for an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryAction {
    /// Runs an action: for tables without an implementation.
    Call(ActionCall),
    /// Runs the action of a group's member that the selector chooses.
    Group(u32),
    /// Runs the action of an action profile's member.
    Member(u32),
    /// Chooses from actions given with the entry: a group of its own.
    OneShot(Vec<OneShotAction>),
}

/// What identifies an entry of a table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EntryKey {
    /// One for each match field, in the table's order.
    pub matches: Vec<MatchValue>,
    /// Where several entries match, the one with the largest priority wins, as in P4Runtime (bmv2's
    /// JSON has it the other way round: `i32::MAX - priority`). Zero for tables with neither ternary
    /// nor range fields; at least 1 for the others.
    pub priority: i32,
}

/// An entry, or a table's default entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryRef<'a> {
    /// What is done if nothing matches.
    Default,
    /// The entry with this key.
    Key(&'a EntryKey),
}

/// An entry as the control plane writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableEntry {
    /// What it matches.
    pub key: EntryKey,
    /// What it does.
    pub action: EntryAction,
    /// Notify when nothing matched the entry for this long; the table must support it.
    pub idle_timeout: Option<Duration>,
    /// The control plane's own; returned as it was given. At most 4 KiB.
    pub metadata: Vec<u8>,
}

/// An entry as it is read.
#[derive(Clone, Debug, PartialEq)]
pub struct EntryState {
    /// What was written; matches in canonical form ([`MatchValue::Any`] where nothing is compared).
    pub entry: TableEntry,
    /// Whether it comes from the program and cannot be changed.
    pub is_const: bool,
    /// The entry's direct counter, if the table has them.
    pub counter: Option<CounterData>,
    /// The entry's direct meter, if one was configured.
    pub meter: Option<MeterConfig>,
    /// When it was last matched, or written.
    pub last_hit: Timestamp,
}

/// Nothing matched an entry for as long as it asked to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdleNotification {
    /// The table.
    pub table: String,
    /// The entry.
    pub entry: TableEntry,
    /// When its time was up.
    pub at: Timestamp,
}

/// Why a table could not be read or changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TableError {
    /// The action does not exist or is not one of the table's.
    #[error(
        "table {table}: no action {action} to use in an entry; see the program for its actions"
    )]
    ActionUnknown {
        /// The table.
        table: String,
        /// What was asked for.
        action: String,
    },
    /// The action has another number of parameters.
    #[error("table {table}: action {action} takes {expected} arguments, not {given}")]
    ArgumentCount {
        /// The table.
        table: String,
        /// The action.
        action: String,
        /// How many parameters it has.
        expected: usize,
        /// How many arguments were given.
        given: usize,
    },
    /// An argument needs more bits than its parameter has.
    #[error("table {table}: argument {parameter} of {action} needs more than its {width} bits")]
    ArgumentWidth {
        /// The table.
        table: String,
        /// The action.
        action: String,
        /// The parameter.
        parameter: String,
        /// Its width in bits.
        width: u32,
    },
    /// The program does not allow it: entries or default action are `const`.
    #[error("table {table} is constant in the program: {what}")]
    Constant {
        /// The table.
        table: String,
        /// What was tried.
        what: &'static str,
    },
    /// An entry with this key is there already.
    #[error("table {table} has an entry with this key already; modify it instead")]
    EntryExists {
        /// The table.
        table: String,
    },
    /// There is no entry with this key.
    #[error("table {table} has no entry with this key")]
    EntryUnknown {
        /// The table.
        table: String,
    },
    /// The table holds as many entries as it may.
    #[error("table {table} is full: {capacity} entries")]
    Full {
        /// The table.
        table: String,
        /// How many it may hold.
        capacity: usize,
    },
    /// The action profile has no such group.
    #[error("table {table}: its action profile has no group {group}")]
    GroupUnknown {
        /// The table.
        table: String,
        /// The group.
        group: u32,
    },
    /// Actions for tables with a profile, or members for tables without.
    #[error("table {table}: {what}")]
    Implementation {
        /// The table.
        table: String,
        /// What does not fit.
        what: &'static str,
    },
    /// A match value is not canonical or not of the field's kind.
    #[error("table {table}, match field {field}: {what}")]
    Match {
        /// The table.
        table: String,
        /// The field.
        field: String,
        /// What is wrong, and what is expected.
        what: &'static str,
    },
    /// Another number of match values than the table has fields.
    #[error("table {table} has {expected} match fields, not {given}")]
    MatchCount {
        /// The table.
        table: String,
        /// How many fields it has.
        expected: usize,
        /// How many values were given.
        given: usize,
    },
    /// The action profile has no such member.
    #[error("table {table}: its action profile has no member {member}")]
    MemberUnknown {
        /// The table.
        table: String,
        /// The member.
        member: u32,
    },
    /// More metadata than is kept.
    #[error("table {table}: {given} bytes of metadata, at most {limit} are kept")]
    MetadataTooLong {
        /// The table.
        table: String,
        /// How many were given.
        given: usize,
        /// How many may be.
        limit: usize,
    },
    /// The table has no direct meters or counters.
    #[error("table {table} has no direct {what}")]
    NoDirect {
        /// The table.
        table: String,
        /// Counters or meters.
        what: &'static str,
    },
    /// A one-shot entry without actions, or with a weight of zero or more than is allowed.
    #[error("table {table}: a one-shot selector needs 1 to {limit} actions, by weight")]
    OneShot {
        /// The table.
        table: String,
        /// The largest sum of weights.
        limit: usize,
    },
    /// The priority does not fit the table's kind.
    #[error("table {table}: {what}")]
    Priority {
        /// The table.
        table: String,
        /// What is wrong, and what is expected.
        what: &'static str,
    },
    /// The program has no such table.
    #[error("the program has no table {table}")]
    TableUnknown {
        /// What was asked for.
        table: String,
    },
    /// The table does not support idle timeouts.
    #[error("table {table} does not support idle timeouts; see its property support_timeout")]
    TimeoutUnsupported {
        /// The table.
        table: String,
    },
}
