//! From the message to what is checked.

use thiserror::Error;

use super::objects::HasPreamble;
use super::{
    Action, ActionProfile, ActionRef, ControllerHeader, Counter, DataType, Digest, DirectResource,
    Field, LookupError, MatchField, MatchKind, Meter, Objects, P4Info, Preamble, Register, Table,
    ValueSet,
};
use crate::proto::p4::config::v1 as proto;
use crate::proto::p4::config::v1::match_field::{Match, MatchType};

/// Fields wider than this are refused.
const WIDTH_LIMIT_BITS: i32 = 1 << 16;

/// Why a P4Info cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum P4InfoError {
    /// An object refers to one that is not there.
    #[error("P4Info: {place} refers to what is not there: {source}")]
    Dangling {
        /// Which object, by kind and name.
        place: String,
        /// What is not there.
        source: LookupError,
    },
    /// Two objects of a kind have the same id or name.
    #[error("P4Info: {kind} `{name}` (id {id:#010x}) has the id or name of another one")]
    Duplicate {
        /// Table, action, ….
        kind: &'static str,
        /// The object's name.
        name: String,
        /// The object's id.
        id: u32,
    },
    /// A match field that is compared in a way of which nothing is known here.
    #[error("P4Info: match field `{field}` of `{place}` has an unknown match type")]
    MatchType {
        /// The table or value set.
        place: String,
        /// The field.
        field: String,
    },
    /// An object without id or name.
    #[error("P4Info: a {kind} has no id or no name")]
    NoPreamble {
        /// Table, action, ….
        kind: &'static str,
    },
    /// A negative size.
    #[error("P4Info: `{name}` has a negative size")]
    Size {
        /// The object's name.
        name: String,
    },
    /// The text is not in protobuf's text format, or not a P4Info.
    #[error("not the text format of P4Info: {reason}")]
    Text {
        /// The parser's words, with line and column.
        reason: String,
    },
    /// A type that P4Info does not declare.
    #[error("P4Info: type `{name}` is not declared")]
    UnknownType {
        /// Its name.
        name: String,
    },
    /// A construct that is not supported here.
    #[error("P4Info: {construct} is not supported")]
    Unsupported {
        /// The construct.
        construct: &'static str,
    },
    /// A width of no bits (a type that is translated to strings has none) or far too many.
    #[error("P4Info: a field of {width_bits} bits; 1 to 65,536 are supported")]
    Width {
        /// In bits.
        width_bits: i32,
    },
}

pub(super) fn convert(message: proto::P4Info) -> Result<P4Info, P4InfoError> {
    let types = message.type_info.as_ref();
    let direct_counters = objects("direct counter", &message.direct_counters, |counter| {
        Ok(DirectResource {
            preamble: preamble("direct counter", counter.preamble.as_ref())?,
            table: counter.direct_table_id,
        })
    })?;
    let direct_meters = objects("direct meter", &message.direct_meters, |meter| {
        Ok(DirectResource {
            preamble: preamble("direct meter", meter.preamble.as_ref())?,
            table: meter.direct_table_id,
        })
    })?;
    let info = P4Info {
        tables: objects("table", &message.tables, |table| {
            convert_table(table, &direct_counters, &direct_meters)
        })?,
        actions: objects("action", &message.actions, |action| {
            Ok(Action {
                preamble: preamble("action", action.preamble.as_ref())?,
                parameters: action
                    .params
                    .iter()
                    .map(|parameter| field(parameter.id, &parameter.name, parameter.bitwidth))
                    .collect::<Result<_, _>>()?,
            })
        })?,
        action_profiles: objects("action profile", &message.action_profiles, |profile| {
            let preamble = preamble("action profile", profile.preamble.as_ref())?;
            Ok(ActionProfile {
                tables: profile.table_ids.clone(),
                with_selector: profile.with_selector,
                size: size(profile.size, &preamble)?,
                max_group_size: u32::try_from(profile.max_group_size).unwrap_or(0),
                preamble,
            })
        })?,
        counters: objects("counter", &message.counters, |counter| {
            let preamble = preamble("counter", counter.preamble.as_ref())?;
            Ok(Counter {
                size: size(counter.size, &preamble)?,
                preamble,
            })
        })?,
        meters: objects("meter", &message.meters, |meter| {
            let preamble = preamble("meter", meter.preamble.as_ref())?;
            Ok(Meter {
                size: size(meter.size, &preamble)?,
                preamble,
            })
        })?,
        registers: objects("register", &message.registers, |register| {
            let preamble = preamble("register", register.preamble.as_ref())?;
            Ok(Register {
                data_type: DataType::from_spec(register.type_spec.as_ref(), types)?,
                size: size(i64::from(register.size), &preamble)?,
                preamble,
            })
        })?,
        digests: objects("digest", &message.digests, |digest| {
            Ok(Digest {
                preamble: preamble("digest", digest.preamble.as_ref())?,
                data_type: DataType::from_spec(digest.type_spec.as_ref(), types)?,
            })
        })?,
        value_sets: objects("value set", &message.value_sets, |value_set| {
            let preamble = preamble("value set", value_set.preamble.as_ref())?;
            Ok(ValueSet {
                fields: match_fields(&value_set.r#match, &preamble)?,
                size: size(i64::from(value_set.size), &preamble)?,
                preamble,
            })
        })?,
        controller_headers: objects(
            "controller header",
            &message.controller_packet_metadata,
            |header| {
                Ok(ControllerHeader {
                    preamble: preamble("controller header", header.preamble.as_ref())?,
                    fields: header
                        .metadata
                        .iter()
                        .map(|metadata| field(metadata.id, &metadata.name, metadata.bitwidth))
                        .collect::<Result<_, _>>()?,
                })
            },
        )?,
        direct_counters,
        direct_meters,
        message,
    };
    check_references(&info)?;
    Ok(info)
}

pub(super) fn width(width_bits: i32) -> Result<u32, P4InfoError> {
    u32::try_from(width_bits)
        .ok()
        .filter(|_| (1..=WIDTH_LIMIT_BITS).contains(&width_bits))
        .ok_or(P4InfoError::Width { width_bits })
}

fn convert_table(
    table: &proto::Table,
    direct_counters: &Objects<DirectResource>,
    direct_meters: &Objects<DirectResource>,
) -> Result<Table, P4InfoError> {
    let preamble = preamble("table", table.preamble.as_ref())?;
    let find = |resources: &Objects<DirectResource>| {
        let mut ids = table.direct_resource_ids.iter().copied();
        ids.find(|id| resources.by_id(*id).is_ok())
    };
    Ok(Table {
        fields: match_fields(&table.match_fields, &preamble)?,
        actions: table
            .action_refs
            .iter()
            .map(|action| ActionRef {
                id: action.id,
                in_entries: action.scope() != proto::action_ref::Scope::DefaultOnly,
                as_default: action.scope() != proto::action_ref::Scope::TableOnly,
            })
            .collect(),
        const_default_action: some_id(table.const_default_action_id),
        action_profile: some_id(table.implementation_id),
        direct_counter: find(direct_counters),
        direct_meter: find(direct_meters),
        size: size(table.size, &preamble)?,
        notifies_idle: table.idle_timeout_behavior()
            == proto::table::IdleTimeoutBehavior::NotifyControl,
        is_const: table.is_const_table,
        preamble,
    })
}

fn check_references(info: &P4Info) -> Result<(), P4InfoError> {
    for table in &info.tables {
        let dangling = |source| P4InfoError::Dangling {
            place: format!("table `{}`", table.preamble.name),
            source,
        };
        let actions = table.actions.iter().map(|action| action.id);
        for action in actions.chain(table.const_default_action) {
            info.actions.by_id(action).map_err(dangling)?;
        }
        if let Some(profile) = table.action_profile {
            info.action_profiles.by_id(profile).map_err(dangling)?;
        }
    }
    for profile in &info.action_profiles {
        for table in &profile.tables {
            info.tables
                .by_id(*table)
                .map_err(|source| P4InfoError::Dangling {
                    place: format!("action profile `{}`", profile.preamble.name),
                    source,
                })?;
        }
    }
    for resource in info.direct_counters.iter().chain(&info.direct_meters) {
        info.tables
            .by_id(resource.table)
            .map_err(|source| P4InfoError::Dangling {
                place: format!("direct resource `{}`", resource.preamble.name),
                source,
            })?;
    }
    Ok(())
}

fn objects<M, T: HasPreamble>(
    kind: &'static str,
    messages: &[M],
    convert: impl FnMut(&M) -> Result<T, P4InfoError>,
) -> Result<Objects<T>, P4InfoError> {
    let objects = messages.iter().map(convert).collect::<Result<_, _>>()?;
    Objects::new(kind, objects).map_err(|preamble| P4InfoError::Duplicate {
        kind,
        name: preamble.name,
        id: preamble.id,
    })
}

fn preamble(
    kind: &'static str,
    preamble: Option<&proto::Preamble>,
) -> Result<Preamble, P4InfoError> {
    preamble
        .filter(|preamble| preamble.id != 0 && !preamble.name.is_empty())
        .map(|preamble| Preamble {
            id: preamble.id,
            name: preamble.name.clone(),
            alias: preamble.alias.clone(),
        })
        .ok_or(P4InfoError::NoPreamble { kind })
}

fn match_fields(
    fields: &[proto::MatchField],
    preamble: &Preamble,
) -> Result<Vec<MatchField>, P4InfoError> {
    let convert = |field: &proto::MatchField| {
        let kind = match field.r#match {
            Some(Match::MatchType(kind)) => match MatchType::try_from(kind) {
                Ok(MatchType::Exact) => Some(MatchKind::Exact),
                Ok(MatchType::Lpm) => Some(MatchKind::Lpm),
                Ok(MatchType::Optional) => Some(MatchKind::Optional),
                Ok(MatchType::Range) => Some(MatchKind::Range),
                Ok(MatchType::Ternary) => Some(MatchKind::Ternary),
                Ok(MatchType::Unspecified) | Err(_) => None,
            },
            Some(Match::OtherMatchType(_)) | None => None,
        };
        Ok(MatchField {
            id: field.id,
            name: field.name.clone(),
            width_bits: width(field.bitwidth)?,
            kind: kind.ok_or_else(|| P4InfoError::MatchType {
                place: preamble.name.clone(),
                field: field.name.clone(),
            })?,
        })
    };
    fields.iter().map(convert).collect()
}

fn field(id: u32, name: &str, width_bits: i32) -> Result<Field, P4InfoError> {
    Ok(Field {
        id,
        name: name.into(),
        width_bits: width(width_bits)?,
    })
}

fn size(size: i64, preamble: &Preamble) -> Result<u64, P4InfoError> {
    u64::try_from(size).map_err(|_| P4InfoError::Size {
        name: preamble.name.clone(),
    })
}

fn some_id(id: u32) -> Option<u32> {
    (id != 0).then_some(id)
}

macro_rules! has_preamble {
    ($($object:ty),*) => {
        $(impl HasPreamble for $object {
            fn preamble(&self) -> &Preamble {
                &self.preamble
            }
        })*
    };
}

has_preamble!(
    Table,
    Action,
    ActionProfile,
    Counter,
    Meter,
    DirectResource,
    Register,
    Digest,
    ValueSet,
    ControllerHeader
);
