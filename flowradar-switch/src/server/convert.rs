//! Between P4Runtime's entities and the pipeline's own types.

use flowradar_p4::entity::{
    ActionCall, CounterData, EntityError, EntryKey, GroupMember, Match, MeterConfig, TableAction,
    WeightedCall,
};
use flowradar_p4::p4info::{MatchField, MatchKind, Table};
use flowradar_p4::{Bytestring, P4Info};

use super::error::Refusal;
use crate::runtime::{self, MatchValue, MeterRate};
use crate::{Pipeline, Value};

pub(super) fn value(number: &Bytestring) -> Value {
    Value::from_be_bytes(number.as_bytes())
}

pub(super) fn bytestring(value: &Value) -> Bytestring {
    Bytestring::from_be_bytes(value.as_be_bytes())
}

/// The pipeline's key for match fields.
pub(super) fn entry_key(
    table: &Table,
    fields: &[(String, Match)],
    priority: i32,
) -> runtime::EntryKey {
    let matches = table.fields.iter().map(|field| {
        let given = fields.iter().find(|(name, _)| *name == field.name);
        given.map_or(MatchValue::Any, |(_, given)| match_value(given))
    });
    runtime::EntryKey {
        matches: matches.collect(),
        priority,
    }
}

/// The entity's key for a pipeline's key.
pub(super) fn entity_key(table: &Table, key: &runtime::EntryKey) -> EntryKey {
    let fields = table.fields.iter().zip(&key.matches);
    let fields =
        fields.filter_map(|(field, value)| Some((field.name.clone(), entity_match(field, value)?)));
    EntryKey::Match {
        fields: fields.collect(),
        priority: key.priority,
    }
}

pub(super) fn call(info: &P4Info, call: &ActionCall) -> Result<runtime::ActionCall, Refusal> {
    let action = info
        .actions()
        .by_name(&call.action)
        .map_err(EntityError::from)?;
    let argument = |name: &str| {
        let mut arguments = call.arguments.iter();
        let found = arguments.find(|(given, _)| given == name);
        found.map(|(_, number)| value(number)).ok_or_else(|| {
            Refusal::invalid(format!(
                "action `{}`: no argument for `{name}`",
                call.action
            ))
        })
    };
    Ok(runtime::ActionCall {
        action: call.action.clone(),
        arguments: action
            .parameters
            .iter()
            .map(|parameter| argument(&parameter.name))
            .collect::<Result<_, _>>()?,
    })
}

pub(super) fn entity_call(
    info: &P4Info,
    call: &runtime::ActionCall,
) -> Result<ActionCall, Refusal> {
    let action = info
        .actions()
        .by_name(&call.action)
        .map_err(EntityError::from)?;
    let arguments = action.parameters.iter().zip(&call.arguments);
    Ok(ActionCall {
        action: call.action.clone(),
        arguments: arguments
            .map(|(parameter, value)| (parameter.name.clone(), bytestring(value)))
            .collect(),
    })
}

pub(super) fn entry_action(
    info: &P4Info,
    action: &TableAction,
) -> Result<runtime::EntryAction, Refusal> {
    Ok(match action {
        TableAction::Call(action) => runtime::EntryAction::Call(call(info, action)?),
        TableAction::Group(group) => runtime::EntryAction::Group(*group),
        TableAction::Member(member) => runtime::EntryAction::Member(*member),
        TableAction::OneShot(actions) => {
            let convert = |action: &WeightedCall| {
                Ok(runtime::OneShotAction {
                    call: call(info, &action.call)?,
                    weight: action.weight,
                    watch_port: action.watch_port.map(port).transpose()?,
                })
            };
            let actions = actions.iter().map(convert);
            runtime::EntryAction::OneShot(actions.collect::<Result<_, Refusal>>()?)
        }
    })
}

pub(super) fn entity_action(
    info: &P4Info,
    action: &runtime::EntryAction,
) -> Result<TableAction, Refusal> {
    Ok(match action {
        runtime::EntryAction::Call(action) => TableAction::Call(entity_call(info, action)?),
        runtime::EntryAction::Group(group) => TableAction::Group(*group),
        runtime::EntryAction::Member(member) => TableAction::Member(*member),
        runtime::EntryAction::OneShot(actions) => {
            let convert = |action: &runtime::OneShotAction| {
                Ok(WeightedCall {
                    call: entity_call(info, &action.call)?,
                    weight: action.weight,
                    watch_port: action.watch_port.map(u32::from),
                })
            };
            let actions = actions.iter().map(convert);
            TableAction::OneShot(actions.collect::<Result<_, Refusal>>()?)
        }
    })
}

pub(super) fn group(members: &[GroupMember], max_size: u32) -> Result<runtime::Group, Refusal> {
    let convert = |member: &GroupMember| {
        Ok(runtime::GroupMember {
            member: member.member,
            weight: member.weight,
            watch_port: member.watch_port.map(port).transpose()?,
        })
    };
    Ok(runtime::Group {
        members: members
            .iter()
            .map(convert)
            .collect::<Result<_, Refusal>>()?,
        max_size,
    })
}

pub(super) fn entity_members(group: &runtime::Group) -> Vec<GroupMember> {
    let members = group.members.iter();
    members
        .map(|member| GroupMember {
            member: member.member,
            weight: member.weight,
            watch_port: member.watch_port.map(u32::from),
        })
        .collect()
}

pub(super) fn counter(data: CounterData) -> runtime::CounterData {
    runtime::CounterData {
        packets: data.packets,
        bytes: data.bytes,
    }
}

pub(super) fn entity_counter(data: runtime::CounterData) -> CounterData {
    CounterData {
        packets: data.packets,
        bytes: data.bytes,
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "rates above 2^53 a second are no rates of a switch"
)]
pub(super) fn meter(config: &MeterConfig) -> runtime::MeterConfig {
    runtime::MeterConfig {
        committed: MeterRate {
            per_second: config.committed_rate as f64,
            burst: config.committed_burst,
        },
        peak: MeterRate {
            per_second: config.peak_rate as f64,
            burst: config.peak_burst,
        },
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "only what `meter` made is read"
)]
pub(super) fn entity_meter(config: &runtime::MeterConfig) -> MeterConfig {
    MeterConfig {
        committed_rate: config.committed.per_second as u64,
        committed_burst: config.committed.burst,
        peak_rate: config.peak.per_second as u64,
        peak_burst: config.peak.burst,
    }
}

pub(super) fn port(port: u32) -> Result<u16, Refusal> {
    u16::try_from(port).map_err(|_| Refusal::invalid(format!("there can be no port {port}")))
}

/// Whether everything in P4Info is in the program, by name.
pub(super) fn check_program(info: &P4Info, pipeline: &Pipeline) -> Result<(), String> {
    for table in info.tables() {
        let name = &table.preamble.name;
        pipeline.entries(name).map_err(|error| error.to_string())?;
    }
    for profile in info.action_profiles() {
        let name = &profile.preamble.name;
        pipeline.members(name).map_err(|error| error.to_string())?;
    }
    for counter in info.counters() {
        let name = &counter.preamble.name;
        pipeline
            .read_counters(name)
            .map_err(|error| error.to_string())?;
    }
    for meter in info.meters() {
        let name = &meter.preamble.name;
        pipeline
            .meter_size(name)
            .map_err(|error| error.to_string())?;
    }
    for register in info.registers() {
        let name = &register.preamble.name;
        pipeline
            .register_size(name)
            .map_err(|error| error.to_string())?;
    }
    for digest in info.digests() {
        let name = &digest.preamble.name;
        pipeline
            .digest_config(name)
            .map_err(|error| error.to_string())?;
    }
    for set in info.value_sets() {
        let name = &set.preamble.name;
        let members = pipeline.value_set(name);
        members.map(|_| ()).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn match_value(given: &Match) -> MatchValue {
    match given {
        Match::Exact(number) | Match::Optional(number) => MatchValue::Exact(value(number)),
        Match::Lpm {
            value: number,
            prefix_bits,
        } => MatchValue::Lpm {
            value: value(number),
            prefix_length: *prefix_bits,
        },
        Match::Range { low, high } => MatchValue::Range {
            low: value(low),
            high: value(high),
        },
        Match::Ternary {
            value: number,
            mask,
        } => MatchValue::Ternary {
            value: value(number),
            mask: value(mask),
        },
    }
}

/// What a pipeline compares a field with, in the form that P4Runtime has for the field's kind.
fn entity_match(field: &MatchField, given: &MatchValue) -> Option<Match> {
    let width_bits = field.width_bits;
    Some(match (field.kind, given) {
        (_, MatchValue::Any) => return None,
        (_, MatchValue::Valid(is_valid)) => Match::Exact(Bytestring::from(*is_valid)),
        (MatchKind::Exact, MatchValue::Exact(number)) => Match::Exact(bytestring(number)),
        (
            MatchKind::Optional,
            MatchValue::Exact(number) | MatchValue::Ternary { value: number, .. },
        ) => Match::Optional(bytestring(number)),
        (MatchKind::Lpm, MatchValue::Exact(number)) => Match::Lpm {
            value: bytestring(number),
            prefix_bits: width_bits,
        },
        (MatchKind::Ternary, MatchValue::Exact(number)) => Match::Ternary {
            value: bytestring(number),
            mask: Bytestring::ones(width_bits),
        },
        (MatchKind::Range, MatchValue::Exact(number)) => Match::Range {
            low: bytestring(number),
            high: bytestring(number),
        },
        (
            _,
            MatchValue::Lpm {
                value: number,
                prefix_length,
            },
        ) => Match::Lpm {
            value: bytestring(number),
            prefix_bits: *prefix_length,
        },
        (_, MatchValue::Range { low, high }) => Match::Range {
            low: bytestring(low),
            high: bytestring(high),
        },
        (
            _,
            MatchValue::Ternary {
                value: number,
                mask,
            },
        ) => Match::Ternary {
            value: bytestring(number),
            mask: bytestring(mask),
        },
    })
}
