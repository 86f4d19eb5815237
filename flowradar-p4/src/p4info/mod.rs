//! What may be known of a P4 program at run time, by name.
//!
//! A [`P4Info`] is checked once: every id is unique, every reference leads somewhere, every width is
//! known. Whatever is looked up afterwards is found by fully qualified name or by the shorter alias
//! that the compiler made, and need not be checked again.

mod convert;
mod data;
mod objects;
mod text;

pub use convert::P4InfoError;
pub use data::{DataType, DataValue, DataValueError};
pub use objects::{LookupError, Objects, Preamble};

use crate::proto::p4::config::v1 as proto;

/// A program's objects, checked.
///
/// ```
/// use flowradar_p4::P4Info;
///
/// let text = r#"
///     registers {
///       preamble { id: 369098753 name: "ingress.seen" alias: "seen" }
///       type_spec { bitstring { bit { bitwidth: 32 } } }
///       size: 1024
///     }
/// "#;
/// let info = P4Info::from_text(text)?;
/// assert_eq!(info.registers().by_name("seen")?.size, 1024);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct P4Info {
    message: proto::P4Info,
    tables: Objects<Table>,
    actions: Objects<Action>,
    action_profiles: Objects<ActionProfile>,
    counters: Objects<Counter>,
    direct_counters: Objects<DirectResource>,
    meters: Objects<Meter>,
    direct_meters: Objects<DirectResource>,
    registers: Objects<Register>,
    digests: Objects<Digest>,
    value_sets: Objects<ValueSet>,
    controller_headers: Objects<ControllerHeader>,
}

/// A table.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Its names and id.
    pub preamble: Preamble,
    /// What it matches, in the order of its key.
    pub fields: Vec<MatchField>,
    /// What its entries may do.
    pub actions: Vec<ActionRef>,
    /// The action that is always done if nothing matches.
    pub const_default_action: Option<u32>,
    /// The action profile that holds its actions.
    pub action_profile: Option<u32>,
    /// Whether entries have a counter, and which.
    pub direct_counter: Option<u32>,
    /// Whether entries have a meter, and which.
    pub direct_meter: Option<u32>,
    /// How many entries it should hold.
    pub size: u64,
    /// Whether entries may have an idle timeout.
    pub notifies_idle: bool,
    /// Whether its entries are fixed in the program.
    pub is_const: bool,
}

/// A match field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchField {
    /// Unique in its table.
    pub id: u32,
    /// As in the program.
    pub name: String,
    /// In bits.
    pub width_bits: u32,
    /// How it is compared.
    pub kind: MatchKind,
}

/// How a match field is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchKind {
    /// Equal.
    Exact,
    /// By longest prefix.
    Lpm,
    /// Equal, or anything.
    Optional,
    /// Within a range.
    Range,
    /// Equal where a mask is one.
    Ternary,
}

/// An action of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActionRef {
    /// The action.
    pub id: u32,
    /// Whether entries may do it.
    pub in_entries: bool,
    /// Whether it may be done if nothing matches.
    pub as_default: bool,
}

/// An action.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// Its names and id.
    pub preamble: Preamble,
    /// In the order of declaration.
    pub parameters: Vec<Field>,
}

/// A parameter of an action, or a field of a controller header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Unique in its action or header.
    pub id: u32,
    /// As in the program.
    pub name: String,
    /// In bits.
    pub width_bits: u32,
}

/// An action profile.
#[derive(Clone, Debug, PartialEq)]
pub struct ActionProfile {
    /// Its names and id.
    pub preamble: Preamble,
    /// The tables that use it.
    pub tables: Vec<u32>,
    /// Whether it has groups.
    pub with_selector: bool,
    /// How many members (and, with a selector, how much weight) it should hold.
    pub size: u64,
    /// The largest group; zero is no limit but the size.
    pub max_group_size: u32,
}

/// An indirect counter.
#[derive(Clone, Debug, PartialEq)]
pub struct Counter {
    /// Its names and id.
    pub preamble: Preamble,
    /// How many cells it has.
    pub size: u64,
}

/// An indirect meter.
#[derive(Clone, Debug, PartialEq)]
pub struct Meter {
    /// Its names and id.
    pub preamble: Preamble,
    /// How many cells it has.
    pub size: u64,
}

/// A counter or meter for each entry of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct DirectResource {
    /// Its names and id.
    pub preamble: Preamble,
    /// The table.
    pub table: u32,
}

/// A register array.
#[derive(Clone, Debug, PartialEq)]
pub struct Register {
    /// Its names and id.
    pub preamble: Preamble,
    /// What a cell holds.
    pub data_type: DataType,
    /// How many cells it has.
    pub size: u64,
}

/// A digest.
#[derive(Clone, Debug, PartialEq)]
pub struct Digest {
    /// Its names and id.
    pub preamble: Preamble,
    /// What it carries.
    pub data_type: DataType,
}

/// A parser value set.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueSet {
    /// Its names and id.
    pub preamble: Preamble,
    /// What a member gives.
    pub fields: Vec<MatchField>,
    /// How many members it should hold.
    pub size: u64,
}

/// The header of packets to or from the controller.
#[derive(Clone, Debug, PartialEq)]
pub struct ControllerHeader {
    /// Its names and id; named `packet_in` or `packet_out`.
    pub preamble: Preamble,
    /// In the order of the header.
    pub fields: Vec<Field>,
}

impl P4Info {
    /// Reads the text format that `p4c --p4runtime-files …txtpb` writes.
    ///
    /// # Errors
    ///
    /// If the text is not of that format or contradicts itself.
    pub fn from_text(text: &str) -> Result<Self, P4InfoError> {
        Self::from_message(text::parse(text)?)
    }

    /// Checks a message.
    ///
    /// # Errors
    ///
    /// If it contradicts itself or needs what is not supported.
    pub fn from_message(message: proto::P4Info) -> Result<Self, P4InfoError> {
        convert::convert(message)
    }

    /// The message it was made from.
    pub fn message(&self) -> &proto::P4Info {
        &self.message
    }

    /// All tables.
    pub fn tables(&self) -> &Objects<Table> {
        &self.tables
    }

    /// All actions.
    pub fn actions(&self) -> &Objects<Action> {
        &self.actions
    }

    /// All action profiles.
    pub fn action_profiles(&self) -> &Objects<ActionProfile> {
        &self.action_profiles
    }

    /// All indirect counters.
    pub fn counters(&self) -> &Objects<Counter> {
        &self.counters
    }

    /// All direct counters.
    pub fn direct_counters(&self) -> &Objects<DirectResource> {
        &self.direct_counters
    }

    /// All indirect meters.
    pub fn meters(&self) -> &Objects<Meter> {
        &self.meters
    }

    /// All direct meters.
    pub fn direct_meters(&self) -> &Objects<DirectResource> {
        &self.direct_meters
    }

    /// All register arrays.
    pub fn registers(&self) -> &Objects<Register> {
        &self.registers
    }

    /// All digests.
    pub fn digests(&self) -> &Objects<Digest> {
        &self.digests
    }

    /// All parser value sets.
    pub fn value_sets(&self) -> &Objects<ValueSet> {
        &self.value_sets
    }

    /// The header of packets from the controller.
    pub fn packet_out(&self) -> Option<&ControllerHeader> {
        self.controller_headers.by_name("packet_out").ok()
    }

    /// The header of packets to the controller.
    pub fn packet_in(&self) -> Option<&ControllerHeader> {
        self.controller_headers.by_name("packet_in").ok()
    }
}

impl Table {
    /// Whether entries need a priority: several may match.
    pub fn needs_priority(&self) -> bool {
        self.fields.iter().any(|field| {
            matches!(
                field.kind,
                MatchKind::Optional | MatchKind::Range | MatchKind::Ternary
            )
        })
    }

    /// The match field of this name.
    pub fn field(&self, name: &str) -> Option<&MatchField> {
        self.fields.iter().find(|field| field.name == name)
    }
}

impl Action {
    /// The parameter of this name.
    pub fn parameter(&self, name: &str) -> Option<&Field> {
        self.parameters.iter().find(|field| field.name == name)
    }
}

impl ControllerHeader {
    /// Its length in bits.
    pub fn width_bits(&self) -> u32 {
        self.fields.iter().map(|field| field.width_bits).sum()
    }
}
