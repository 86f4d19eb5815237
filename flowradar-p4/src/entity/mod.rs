//! What is written into a switch and read from it, by names.
//!
//! P4Runtime numbers everything; these types use the program's names and numbers of any width.
//! [`P4Info::encode`](crate::P4Info::encode) and [`P4Info::decode`](crate::P4Info::decode) translate,
//! and check on the way what the specification demands of an entity, on either side of the wire.

mod display;
mod error;
mod other;
mod table;
mod text;

use std::time::Duration;

pub use error::EntityError;
pub use text::MatchTextError;

use crate::Bytestring;
use crate::p4info::DataValue;

/// Anything that is written or read.
#[derive(Clone, Debug, PartialEq)]
pub enum Entity {
    /// Several members of an action profile, chosen from by a selector.
    ActionProfileGroup(ActionProfileGroup),
    /// An action of an action profile.
    ActionProfileMember(ActionProfileMember),
    /// Where clones go.
    CloneSession(CloneSession),
    /// A cell of an indirect counter, or all of them.
    Counter(CounterEntry),
    /// How a digest is gathered.
    Digest(DigestEntry),
    /// The counter of a table's entry.
    DirectCounter(DirectCounterEntry),
    /// The meter of a table's entry.
    DirectMeter(DirectMeterEntry),
    /// A cell of an indirect meter, or all of them.
    Meter(MeterEntry),
    /// Where multicast packets go.
    MulticastGroup(MulticastGroup),
    /// A cell of a register, or all of them.
    Register(RegisterEntry),
    /// An entry of a table, or what the table does without one.
    Table(TableEntry),
    /// What a parser compares with.
    ValueSet(ValueSetEntry),
}

/// An entry of a table, or its default entry.
#[derive(Clone, Debug, PartialEq)]
pub struct TableEntry {
    /// The table's name.
    pub table: String,
    /// Which entry.
    pub key: EntryKey,
    /// What it does. Needed to insert; a default entry that is modified without one is what the program
    /// says again.
    pub action: Option<TableAction>,
    /// Whether, and after how long without a packet, the controller is told.
    pub idle_timeout: Option<Duration>,
    /// The controller's own; given back as it is.
    pub metadata: Vec<u8>,
    /// Its direct counter.
    pub counter: Option<CounterData>,
    /// Its direct meter; none lets everything pass as green.
    pub meter: Option<MeterConfig>,
    /// How long ago it was last hit; only in what is read.
    pub time_since_last_hit: Option<Duration>,
    /// Whether it is part of the program; only in what is read.
    pub is_const: bool,
}

/// Which entry of a table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EntryKey {
    /// What is done if nothing matches.
    Default,
    /// What matches this.
    Match {
        /// By name; fields that may be anything are left out.
        fields: Vec<(String, Match)>,
        /// The largest wins; at least 1 in tables where several entries may match otherwise than by
        /// longest prefix, 0 in all others.
        priority: i32,
    },
}

/// What a match field is compared with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Match {
    /// Equal.
    Exact(Bytestring),
    /// Equal in the first bits; at least one.
    Lpm {
        /// Zero after the prefix.
        value: Bytestring,
        /// In bits.
        prefix_bits: u32,
    },
    /// Equal.
    Optional(Bytestring),
    /// From low to high, both included.
    Range {
        /// The smallest that matches.
        low: Bytestring,
        /// The largest that matches.
        high: Bytestring,
    },
    /// Equal where the mask is one.
    Ternary {
        /// Zero where the mask is.
        value: Bytestring,
        /// Not zero.
        mask: Bytestring,
    },
}

/// What an entry does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableAction {
    /// An action of the table.
    Call(ActionCall),
    /// A group of the table's action profile.
    Group(u32),
    /// A member of the table's action profile.
    Member(u32),
    /// One of several actions, by the table's selector.
    OneShot(Vec<WeightedCall>),
}

/// An action with arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionCall {
    /// The action's name.
    pub action: String,
    /// By name; all of the action's parameters.
    pub arguments: Vec<(String, Bytestring)>,
}

/// One of the actions of a one-shot entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedCall {
    /// What is done.
    pub call: ActionCall,
    /// Its share; at least 1.
    pub weight: u32,
    /// Not chosen while this port is down.
    pub watch_port: Option<u32>,
}

/// A member of an action profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionProfileMember {
    /// The profile's name.
    pub profile: String,
    /// The controller's number for it.
    pub member: u32,
    /// What it does; not needed to delete it.
    pub call: Option<ActionCall>,
}

/// A group of an action profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionProfileGroup {
    /// The profile's name.
    pub profile: String,
    /// The controller's number for it.
    pub group: u32,
    /// Each member once.
    pub members: Vec<GroupMember>,
    /// The largest the group may become; zero is what the program says.
    pub max_size: u32,
}

/// A member's place in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// The member's number.
    pub member: u32,
    /// Its share; at least 1.
    pub weight: u32,
    /// Not chosen while this port is down.
    pub watch_port: Option<u32>,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterData {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// A two-rate three-colour meter; rates in packets or bytes a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeterConfig {
    /// Above it packets are yellow.
    pub committed_rate: u64,
    /// Packets or bytes that may come at once within the committed rate.
    pub committed_burst: u64,
    /// Above it packets are red.
    pub peak_rate: u64,
    /// Packets or bytes that may come at once within the peak rate.
    pub peak_burst: u64,
}

/// Cells of an indirect counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterEntry {
    /// The counter's name.
    pub counter: String,
    /// Which cell; all if none is named.
    pub index: Option<u64>,
    /// What it counted.
    pub data: Option<CounterData>,
}

/// The counter of a table's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectCounterEntry {
    /// The table's name.
    pub table: String,
    /// Which entry.
    pub key: EntryKey,
    /// What it counted.
    pub data: Option<CounterData>,
}

/// Cells of an indirect meter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterEntry {
    /// The meter's name.
    pub meter: String,
    /// Which cell; all if none is named.
    pub index: Option<u64>,
    /// None lets everything pass as green.
    pub config: Option<MeterConfig>,
}

/// The meter of a table's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectMeterEntry {
    /// The table's name.
    pub table: String,
    /// Which entry.
    pub key: EntryKey,
    /// None lets everything pass as green.
    pub config: Option<MeterConfig>,
}

/// Cells of a register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterEntry {
    /// The register's name.
    pub register: String,
    /// Which cell; all if none is named.
    pub index: Option<u64>,
    /// What it holds.
    pub data: Option<DataValue>,
}

/// One copy of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    /// Where it goes.
    pub port: u32,
    /// What tells it from other copies on the same port.
    pub instance: u32,
}

/// Where multicast packets go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MulticastGroup {
    /// At least 1.
    pub group: u32,
    /// One copy each.
    pub replicas: Vec<Replica>,
    /// The controller's own; given back as it is.
    pub metadata: Vec<u8>,
}

/// Where clones go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloneSession {
    /// At least 1.
    pub session: u32,
    /// One copy each.
    pub replicas: Vec<Replica>,
    /// For the scheduler.
    pub class_of_service: u32,
    /// Longer clones are cut; zero leaves them whole.
    pub packet_length_bytes: u32,
}

/// What a parser compares with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueSetEntry {
    /// The set's name.
    pub value_set: String,
    /// By the names of the set's fields.
    pub members: Vec<Vec<(String, Match)>>,
}

/// How a digest is gathered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DigestEntry {
    /// The digest's name.
    pub digest: String,
    /// Not needed to delete it.
    pub config: Option<DigestConfig>,
}

/// How digests are gathered before they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DigestConfig {
    /// A list is sent at the latest this long after its first digest.
    pub max_timeout: Duration,
    /// A list is sent when it holds this many; zero is no limit.
    pub max_list_size: u32,
    /// Digests that were sent are not sent again within this time unless acknowledged.
    pub ack_timeout: Duration,
}

impl TableEntry {
    /// An entry that matches nothing yet named, to be completed by the other methods.
    ///
    /// ```
    /// use flowradar_p4::entity::{Match, TableEntry};
    /// use std::net::Ipv4Addr;
    ///
    /// let route = TableEntry::new("ipv4_lpm")
    ///     .matching("hdr.ipv4.dst", Match::lpm(Ipv4Addr::new(10, 0, 1, 0), 24))
    ///     .call("forward", [("port", 2_u32)]);
    /// ```
    pub fn new(table: impl Into<String>) -> Self {
        Self {
            table: table.into(),
            key: EntryKey::Match {
                fields: Vec::new(),
                priority: 0,
            },
            action: None,
            idle_timeout: None,
            metadata: Vec::new(),
            counter: None,
            meter: None,
            time_since_last_hit: None,
            is_const: false,
        }
    }

    /// What the table does if nothing matches.
    pub fn default_of(table: impl Into<String>) -> Self {
        Self {
            key: EntryKey::Default,
            ..Self::new(table)
        }
    }

    /// Compares a field; a default entry stays one.
    #[must_use]
    pub fn matching(mut self, field: impl Into<String>, value: Match) -> Self {
        if let EntryKey::Match { fields, .. } = &mut self.key {
            fields.push((field.into(), value));
        }
        self
    }

    /// Sets the priority; a default entry has none.
    #[must_use]
    pub fn with_priority(mut self, entry_priority: i32) -> Self {
        if let EntryKey::Match { priority, .. } = &mut self.key {
            *priority = entry_priority;
        }
        self
    }

    /// Does an action.
    #[must_use]
    pub fn call<N: Into<String>, V: Into<Bytestring>>(
        self,
        action: impl Into<String>,
        arguments: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        self.with_action(TableAction::Call(ActionCall::new(action, arguments)))
    }

    /// Does what an action, member, group or one-shot selection says.
    #[must_use]
    pub fn with_action(mut self, action: TableAction) -> Self {
        self.action = Some(action);
        self
    }
}

impl ActionCall {
    /// An action with its arguments, by name.
    pub fn new<N: Into<String>, V: Into<Bytestring>>(
        action: impl Into<String>,
        arguments: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let arguments = arguments.into_iter();
        Self {
            action: action.into(),
            arguments: arguments
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        }
    }
}

macro_rules! entity_from {
    ($($kind:ident($entity:ty)),* $(,)?) => {
        $(impl From<$entity> for Entity {
            fn from(entity: $entity) -> Self {
                Self::$kind(entity)
            }
        })*
    };
}

entity_from!(
    ActionProfileGroup(ActionProfileGroup),
    ActionProfileMember(ActionProfileMember),
    CloneSession(CloneSession),
    Counter(CounterEntry),
    Digest(DigestEntry),
    DirectCounter(DirectCounterEntry),
    DirectMeter(DirectMeterEntry),
    Meter(MeterEntry),
    MulticastGroup(MulticastGroup),
    Register(RegisterEntry),
    Table(TableEntry),
    ValueSet(ValueSetEntry),
);

impl Match {
    /// Equal to this.
    pub fn exact(value: impl Into<Bytestring>) -> Self {
        Self::Exact(value.into())
    }

    /// Equal to this in the first bits.
    pub fn lpm(value: impl Into<Bytestring>, prefix_bits: u32) -> Self {
        Self::Lpm {
            value: value.into(),
            prefix_bits,
        }
    }

    /// Equal to this where the mask is one.
    pub fn ternary(value: impl Into<Bytestring>, mask: impl Into<Bytestring>) -> Self {
        Self::Ternary {
            value: value.into(),
            mask: mask.into(),
        }
    }

    /// Within this range.
    pub fn range(low: impl Into<Bytestring>, high: impl Into<Bytestring>) -> Self {
        Self::Range {
            low: low.into(),
            high: high.into(),
        }
    }
}
