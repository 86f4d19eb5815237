//! Entries of tables.

use std::time::Duration;

use super::other::{
    counter_message, decode_counter, decode_meter, meter_message, port_bytes, watch_port,
};
use super::{ActionCall, EntityError, EntryKey, Match, TableAction, TableEntry, WeightedCall};
use crate::p4info::{Action, MatchField, MatchKind, Table};
use crate::proto::p4::v1 as p4;
use crate::proto::p4::v1::action_profile_action::WatchKind;
use crate::proto::p4::v1::field_match::FieldMatchType;
use crate::proto::p4::v1::table_action::Type as ActionType;
use crate::{Bytestring, P4Info};

impl P4Info {
    /// The message for a table's entry.
    ///
    /// # Errors
    ///
    /// If the program has no such table, field or action, or a value does not fit.
    pub fn encode_table_entry(&self, entry: &TableEntry) -> Result<p4::TableEntry, EntityError> {
        let table = self.tables().by_name(&entry.table)?;
        let (fields, priority, is_default_action) = match &entry.key {
            EntryKey::Default => (Vec::new(), 0, true),
            EntryKey::Match { fields, priority } => {
                check_priority(table, *priority)?;
                let place = &table.preamble.name;
                (
                    encode_matches(place, &table.fields, fields)?,
                    *priority,
                    false,
                )
            }
        };
        let action = entry.action.as_ref();
        Ok(p4::TableEntry {
            table_id: table.preamble.id,
            r#match: fields,
            action: action
                .map(|action| self.encode_table_action(table, action, is_default_action))
                .transpose()?,
            priority,
            meter_config: entry.meter.as_ref().map(meter_message).transpose()?,
            counter_data: entry.counter.as_ref().map(counter_message),
            is_default_action,
            idle_timeout_ns: nanoseconds(entry.idle_timeout.unwrap_or_default())?,
            time_since_last_hit: entry
                .time_since_last_hit
                .map(|elapsed| {
                    nanoseconds(elapsed)
                        .map(|elapsed_ns| p4::table_entry::IdleTimeout { elapsed_ns })
                })
                .transpose()?,
            metadata: entry.metadata.clone(),
            is_const: entry.is_const,
            ..p4::TableEntry::default()
        })
    }

    /// The entry in a message.
    ///
    /// # Errors
    ///
    /// If it contradicts the program or the specification's rules.
    pub fn decode_table_entry(&self, message: &p4::TableEntry) -> Result<TableEntry, EntityError> {
        let table = self.tables().by_id(message.table_id)?;
        let key = decode_key(table, message)?;
        let is_default = key == EntryKey::Default;
        if message.meter_counter_data.is_some() {
            return Err(EntityError::Unsupported {
                construct: "a counter for each colour of a meter",
            });
        }
        let idle_timeout =
            u64::try_from(message.idle_timeout_ns).map_err(|_| EntityError::Number {
                what: "idle_timeout_ns",
            })?;
        Ok(TableEntry {
            table: table.preamble.name.clone(),
            key,
            action: message
                .action
                .as_ref()
                .map(|action| self.decode_table_action(table, action, is_default))
                .transpose()?,
            idle_timeout: (idle_timeout != 0).then_some(Duration::from_nanos(idle_timeout)),
            metadata: message.metadata.clone(),
            counter: message
                .counter_data
                .as_ref()
                .map(decode_counter)
                .transpose()?,
            meter: message
                .meter_config
                .as_ref()
                .map(decode_meter)
                .transpose()?,
            time_since_last_hit: message.time_since_last_hit.as_ref().map(|idle| {
                Duration::from_nanos(u64::try_from(idle.elapsed_ns).unwrap_or_default())
            }),
            is_const: message.is_const,
        })
    }

    /// Which entry a message is about; whatever else it says is not looked at.
    ///
    /// # Errors
    ///
    /// If it contradicts the program or the specification's rules.
    pub fn decode_table_key(
        &self,
        message: &p4::TableEntry,
    ) -> Result<(&Table, EntryKey), EntityError> {
        let table = self.tables().by_id(message.table_id)?;
        Ok((table, decode_key(table, message)?))
    }

    /// The match fields of an entry, by name, in the order of the table's key.
    ///
    /// # Errors
    ///
    /// If they contradict the program or the specification's rules.
    pub fn decode_match_fields(
        &self,
        table: &Table,
        messages: &[p4::FieldMatch],
    ) -> Result<Vec<(String, Match)>, EntityError> {
        decode_matches(&table.preamble.name, &table.fields, messages)
    }

    pub(super) fn encode_call(&self, call: &ActionCall) -> Result<p4::Action, EntityError> {
        let action = self.actions().by_name(&call.action)?;
        let name = &action.preamble.name;
        let foreign = |argument: &String| EntityError::Argument {
            action: name.clone(),
            argument: format!("`{argument}`"),
        };
        for (position, (argument, _)) in call.arguments.iter().enumerate() {
            let twice = call
                .arguments
                .iter()
                .take(position)
                .any(|(other, _)| other == argument);
            if twice || action.parameter(argument).is_none() {
                return Err(foreign(argument));
            }
        }
        let encode = |parameter: &crate::p4info::Field| {
            let value = call
                .arguments
                .iter()
                .find(|(argument, _)| *argument == parameter.name)
                .map(|(_, value)| value.clone())
                .ok_or_else(|| missing_argument(action, &parameter.name))?;
            let value =
                value
                    .fitting(parameter.width_bits)
                    .map_err(|source| EntityError::Value {
                        place: argument_place(action, &parameter.name),
                        source,
                    })?;
            Ok(p4::action::Param {
                param_id: parameter.id,
                value: value.into_bytes(),
            })
        };
        Ok(p4::Action {
            action_id: action.preamble.id,
            params: action
                .parameters
                .iter()
                .map(encode)
                .collect::<Result<_, EntityError>>()?,
        })
    }

    pub(super) fn decode_call(&self, message: &p4::Action) -> Result<ActionCall, EntityError> {
        let action = self.actions().by_id(message.action_id)?;
        for (position, param) in message.params.iter().enumerate() {
            let same = |other: &p4::action::Param| other.param_id == param.param_id;
            let twice = message.params.iter().take(position).any(same);
            let mut ids = action.parameters.iter().map(|parameter| parameter.id);
            if twice || ids.all(|id| id != param.param_id) {
                return Err(EntityError::Argument {
                    action: action.preamble.name.clone(),
                    argument: param.param_id.to_string(),
                });
            }
        }
        let decode = |parameter: &crate::p4info::Field| {
            let param = message
                .params
                .iter()
                .find(|param| param.param_id == parameter.id)
                .ok_or_else(|| missing_argument(action, &parameter.name))?;
            let value =
                Bytestring::from_wire(&param.value, parameter.width_bits).map_err(|source| {
                    EntityError::Value {
                        place: argument_place(action, &parameter.name),
                        source,
                    }
                })?;
            Ok((parameter.name.clone(), value))
        };
        Ok(ActionCall {
            action: action.preamble.name.clone(),
            arguments: action
                .parameters
                .iter()
                .map(decode)
                .collect::<Result<_, EntityError>>()?,
        })
    }

    fn encode_table_action(
        &self,
        table: &Table,
        action: &TableAction,
        is_default: bool,
    ) -> Result<p4::TableAction, EntityError> {
        self.check_implementation(table, action, is_default)?;
        let action = match action {
            TableAction::Call(call) => {
                let message = self.encode_call(call)?;
                self.check_action(table, message.action_id, is_default)?;
                ActionType::Action(message)
            }
            TableAction::Group(group) => ActionType::ActionProfileGroupId(*group),
            TableAction::Member(member) => ActionType::ActionProfileMemberId(*member),
            TableAction::OneShot(calls) => {
                let encode = |weighted: &WeightedCall| {
                    let message = self.encode_call(&weighted.call)?;
                    self.check_action(table, message.action_id, is_default)?;
                    Ok(p4::ActionProfileAction {
                        action: Some(message),
                        weight: weight(weighted.weight)?,
                        watch_kind: weighted
                            .watch_port
                            .map(|port| WatchKind::WatchPort(port_bytes(port))),
                    })
                };
                ActionType::ActionProfileActionSet(p4::ActionProfileActionSet {
                    action_profile_actions: calls
                        .iter()
                        .map(encode)
                        .collect::<Result<_, EntityError>>()?,
                    ..p4::ActionProfileActionSet::default()
                })
            }
        };
        Ok(p4::TableAction {
            r#type: Some(action),
        })
    }

    fn decode_table_action(
        &self,
        table: &Table,
        message: &p4::TableAction,
        is_default: bool,
    ) -> Result<TableAction, EntityError> {
        let action = match message.r#type.as_ref() {
            Some(ActionType::Action(call)) => {
                self.check_action(table, call.action_id, is_default)?;
                TableAction::Call(self.decode_call(call)?)
            }
            Some(ActionType::ActionProfileMemberId(member)) => TableAction::Member(*member),
            Some(ActionType::ActionProfileGroupId(group)) => TableAction::Group(*group),
            Some(ActionType::ActionProfileActionSet(set)) => {
                if set.group_action.is_some()
                    || set.action_selection_mode != 0
                    || set.size_semantics != 0
                {
                    return Err(EntityError::Unsupported {
                        construct: "a one-shot selector with a mode of its own",
                    });
                }
                let decode = |action: &p4::ActionProfileAction| {
                    let call = action.action.as_ref().ok_or(EntityError::Missing {
                        what: "the action of a one-shot entry",
                    })?;
                    self.check_action(table, call.action_id, is_default)?;
                    Ok(WeightedCall {
                        call: self.decode_call(call)?,
                        weight: decode_weight(action.weight)?,
                        watch_port: match &action.watch_kind {
                            None => None,
                            Some(WatchKind::WatchPort(bytes)) => watch_port(bytes)?,
                            Some(_) => return Err(watch_without_port()),
                        },
                    })
                };
                let actions = set.action_profile_actions.iter();
                TableAction::OneShot(actions.map(decode).collect::<Result<_, EntityError>>()?)
            }
            None => {
                return Err(EntityError::Missing {
                    what: "the kind of a table entry's action",
                });
            }
        };
        self.check_implementation(table, &action, is_default)?;
        Ok(action)
    }

    fn check_action(&self, table: &Table, id: u32, is_default: bool) -> Result<(), EntityError> {
        let name = match self.actions().by_id(id) {
            Ok(action) => action.preamble.name.clone(),
            Err(_) => format!("{id:#010x}"),
        };
        let Some(action) = table.actions.iter().find(|action| action.id == id) else {
            return Err(EntityError::ActionForeign {
                place: table.preamble.name.clone(),
                action: name,
            });
        };
        let (is_allowed, used_as) = if is_default {
            (action.as_default, "the default action")
        } else {
            (action.in_entries, "in an entry")
        };
        if !is_allowed {
            return Err(EntityError::ActionScope {
                table: table.preamble.name.clone(),
                action: name,
                used_as,
            });
        }
        Ok(())
    }

    fn check_implementation(
        &self,
        table: &Table,
        action: &TableAction,
        is_default: bool,
    ) -> Result<(), EntityError> {
        let profile = match table.action_profile {
            Some(id) => Some(self.action_profiles().by_id(id)?),
            None => None,
        };
        let reason = match (profile, action) {
            (None, TableAction::Call(_)) => return Ok(()),
            // The default entry of an indirect table is an action of its own on some targets.
            (Some(_), TableAction::Call(_)) if is_default => return Ok(()),
            (None, _) => "it has no action profile, so its entries name actions",
            (Some(_), TableAction::Call(_)) => {
                "it has an action profile, so its entries name members, groups or sets of actions"
            }
            (Some(_), TableAction::Member(_)) => return Ok(()),
            (Some(profile), TableAction::Group(_) | TableAction::OneShot(_)) => {
                if profile.with_selector {
                    return Ok(());
                }
                "its action profile has no selector, so its entries name members"
            }
        };
        Err(EntityError::Implementation {
            table: table.preamble.name.clone(),
            reason,
        })
    }
}

pub(super) fn encode_matches(
    place: &str,
    declared: &[MatchField],
    fields: &[(String, Match)],
) -> Result<Vec<p4::FieldMatch>, EntityError> {
    for (position, (name, _)) in fields.iter().enumerate() {
        let twice = fields.iter().take(position).any(|(other, _)| other == name);
        if twice || declared.iter().all(|field| field.name != *name) {
            return Err(match_error(
                place,
                name,
                "is not a field of it, or is given twice",
            ));
        }
    }
    let mut messages = Vec::with_capacity(fields.len());
    for field in declared {
        match fields.iter().find(|(name, _)| *name == field.name) {
            Some((_, value)) => {
                check_match(place, field, value)?;
                messages.push(p4::FieldMatch {
                    field_id: field.id,
                    field_match_type: Some(match_message(value)),
                });
            }
            None if field.kind == MatchKind::Exact => return Err(exact_missing(place, field)),
            None => {}
        }
    }
    Ok(messages)
}

pub(super) fn decode_matches(
    place: &str,
    declared: &[MatchField],
    messages: &[p4::FieldMatch],
) -> Result<Vec<(String, Match)>, EntityError> {
    for (position, message) in messages.iter().enumerate() {
        let id = message.field_id;
        let twice = messages
            .iter()
            .take(position)
            .any(|other| other.field_id == id);
        if twice || declared.iter().all(|field| field.id != id) {
            let reason = "is not a field of it, or is given twice";
            return Err(match_error(place, &id.to_string(), reason));
        }
    }
    let mut fields = Vec::with_capacity(messages.len());
    for field in declared {
        match messages.iter().find(|message| message.field_id == field.id) {
            Some(message) => {
                let value = decode_match(place, field, message)?;
                check_match(place, field, &value)?;
                fields.push((field.name.clone(), value));
            }
            None if field.kind == MatchKind::Exact => return Err(exact_missing(place, field)),
            None => {}
        }
    }
    Ok(fields)
}

pub(super) fn weight(weight: u32) -> Result<i32, EntityError> {
    i32::try_from(weight).map_err(|_| EntityError::Number { what: "a weight" })
}

/// Weights are at least 1.
pub(super) fn decode_weight(weight: i32) -> Result<u32, EntityError> {
    match u32::try_from(weight) {
        Ok(weight) if weight > 0 => Ok(weight),
        _ => Err(EntityError::Number {
            what: "a weight (at least 1)",
        }),
    }
}

pub(super) fn watch_without_port() -> EntityError {
    EntityError::Unsupported {
        construct: "watching by number (`watch`), instead of by `watch_port`,",
    }
}

fn decode_key(table: &Table, message: &p4::TableEntry) -> Result<EntryKey, EntityError> {
    let name = &table.preamble.name;
    if message.is_default_action {
        if !message.r#match.is_empty() {
            let reason = "the default entry has no match fields";
            return Err(match_error(name, "any", reason));
        }
        if message.priority != 0 {
            return Err(EntityError::Priority {
                table: name.clone(),
                reason: "the default entry has no priority",
            });
        }
        return Ok(EntryKey::Default);
    }
    check_priority(table, message.priority)?;
    Ok(EntryKey::Match {
        fields: decode_matches(name, &table.fields, &message.r#match)?,
        priority: message.priority,
    })
}

fn check_priority(table: &Table, priority: i32) -> Result<(), EntityError> {
    let reason = match (table.needs_priority(), priority) {
        (true, 1..) | (false, 0) => return Ok(()),
        (true, _) => "its entries need a priority of at least 1",
        (false, _) => "its entries have no priority",
    };
    Err(EntityError::Priority {
        table: table.preamble.name.clone(),
        reason,
    })
}

fn match_message(value: &Match) -> FieldMatchType {
    use p4::field_match::{Exact, Lpm, Optional, Range, Ternary};

    let bytes = |number: &Bytestring| number.as_bytes().to_vec();
    match value {
        Match::Exact(value) => FieldMatchType::Exact(Exact {
            value: bytes(value),
        }),
        Match::Lpm { value, prefix_bits } => FieldMatchType::Lpm(Lpm {
            value: bytes(value),
            prefix_len: i32::try_from(*prefix_bits).unwrap_or(i32::MAX),
        }),
        Match::Optional(value) => FieldMatchType::Optional(Optional {
            value: bytes(value),
        }),
        Match::Range { low, high } => FieldMatchType::Range(Range {
            low: bytes(low),
            high: bytes(high),
        }),
        Match::Ternary { value, mask } => FieldMatchType::Ternary(Ternary {
            value: bytes(value),
            mask: bytes(mask),
        }),
    }
}

fn decode_match(
    place: &str,
    field: &MatchField,
    message: &p4::FieldMatch,
) -> Result<Match, EntityError> {
    let number = |bytes: &[u8]| {
        Bytestring::from_wire(bytes, field.width_bits).map_err(|source| EntityError::Value {
            place: format!("`{place}`, match field `{}`", field.name),
            source,
        })
    };
    match message.field_match_type.as_ref() {
        Some(FieldMatchType::Exact(exact)) => Ok(Match::Exact(number(&exact.value)?)),
        Some(FieldMatchType::Lpm(lpm)) => Ok(Match::Lpm {
            value: number(&lpm.value)?,
            prefix_bits: u32::try_from(lpm.prefix_len).map_err(|_| EntityError::Number {
                what: "a prefix length",
            })?,
        }),
        Some(FieldMatchType::Optional(optional)) => Ok(Match::Optional(number(&optional.value)?)),
        Some(FieldMatchType::Range(range)) => Ok(Match::Range {
            low: number(&range.low)?,
            high: number(&range.high)?,
        }),
        Some(FieldMatchType::Ternary(ternary)) => Ok(Match::Ternary {
            value: number(&ternary.value)?,
            mask: number(&ternary.mask)?,
        }),
        Some(FieldMatchType::Other(_)) => Err(EntityError::Unsupported {
            construct: "a match type that P4Runtime does not define",
        }),
        None => Err(match_error(place, &field.name, "has no value")),
    }
}

/// The specification's constraints on matches, section "Match Format".
fn check_match(place: &str, field: &MatchField, value: &Match) -> Result<(), EntityError> {
    let width_bits = field.width_bits;
    let fits = |number: &Bytestring| match number.clone().fitting(width_bits) {
        Ok(_) => Ok(()),
        Err(source) => Err(EntityError::Value {
            place: format!("`{place}`, match field `{}`", field.name),
            source,
        }),
    };
    let reason = match (field.kind, value) {
        (MatchKind::Exact, Match::Exact(value)) | (MatchKind::Optional, Match::Optional(value)) => {
            return fits(value);
        }
        (MatchKind::Lpm, Match::Lpm { value, prefix_bits }) => {
            fits(value)?;
            if *prefix_bits == 0 {
                "a prefix of no bits matches anything: leave the field out"
            } else if *prefix_bits > width_bits {
                "the prefix is longer than the field"
            } else if value.and(&Bytestring::prefix_mask(width_bits, *prefix_bits)) != *value {
                "bits after the prefix must be zero"
            } else {
                return Ok(());
            }
        }
        (MatchKind::Range, Match::Range { low, high }) => {
            fits(low)?;
            fits(high)?;
            if low.compare(high).is_gt() {
                "the range's low end is above its high end"
            } else if low.is_zero() && *high == Bytestring::ones(width_bits) {
                "the range is everything: leave the field out"
            } else {
                return Ok(());
            }
        }
        (MatchKind::Ternary, Match::Ternary { value, mask }) => {
            fits(value)?;
            fits(mask)?;
            if mask.is_zero() {
                "a mask of zero matches anything: leave the field out"
            } else if value.and(mask) != *value {
                "bits outside of the mask must be zero"
            } else {
                return Ok(());
            }
        }
        (MatchKind::Exact, _) => "wants an exact match",
        (MatchKind::Lpm, _) => "wants a prefix (lpm)",
        (MatchKind::Optional, _) => "wants an optional match",
        (MatchKind::Range, _) => "wants a range",
        (MatchKind::Ternary, _) => "wants a ternary match",
    };
    Err(match_error(place, &field.name, reason))
}

fn nanoseconds(duration: Duration) -> Result<i64, EntityError> {
    i64::try_from(duration.as_nanos()).map_err(|_| EntityError::Number { what: "a time" })
}

fn exact_missing(place: &str, field: &MatchField) -> EntityError {
    match_error(place, &field.name, "is compared exactly and must be given")
}

fn match_error(place: &str, field: &str, reason: &'static str) -> EntityError {
    EntityError::Match {
        place: place.into(),
        field: field.into(),
        reason,
    }
}

fn missing_argument(action: &Action, parameter: &str) -> EntityError {
    EntityError::ArgumentMissing {
        action: action.preamble.name.clone(),
        parameter: parameter.into(),
    }
}

fn argument_place(action: &Action, parameter: &str) -> String {
    format!("action `{}`, parameter `{parameter}`", action.preamble.name)
}
