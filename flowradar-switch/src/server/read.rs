//! What a Read request asks for.
//!
//! Ids and indices that are left out mean all of them (specification, "Wildcard Reads").

use std::collections::HashMap;

use flowradar_p4::entity::{
    ActionProfileGroup, ActionProfileMember, CloneSession, CounterEntry, DigestConfig, DigestEntry,
    DirectCounterEntry, DirectMeterEntry, Entity, EntityError, EntryKey, Match, MeterEntry,
    MulticastGroup, RegisterEntry, Replica, TableEntry, ValueSetEntry,
};
use flowradar_p4::p4info::{ActionProfile, Counter, DataType, DataValue, Meter, Register, Table};
use flowradar_p4::p4info::{Digest, Objects, ValueSet};
use flowradar_p4::proto::p4::v1 as p4;
use flowradar_p4::proto::p4::v1::entity::Entity as Message;
use flowradar_p4::proto::p4::v1::packet_replication_engine_entry::Type as Replication;
use flowradar_p4::{Bytestring, P4Info};

use super::convert;
use super::error::Refusal;
use super::write::cells;
use crate::runtime::{self, EntryAction, EntryState};
use crate::{Pipeline, Timestamp, Value};

/// What is read from: a pipeline, and what P4Runtime keeps besides.
pub(super) struct Source<'a> {
    pub(super) info: &'a P4Info,
    pub(super) pipeline: &'a Pipeline,
    pub(super) multicast_metadata: &'a HashMap<u32, Vec<u8>>,
    pub(super) now: Timestamp,
}

/// What a read of table entries wants besides the entries.
struct TableFilter<'a> {
    message: &'a p4::TableEntry,
    fields: Option<Vec<(String, Match)>>,
    action: Option<&'a str>,
}

impl<'a> Source<'a> {
    /// All entities that a request asks for, added to `entities`.
    pub(super) fn read(
        &self,
        request: &p4::Entity,
        entities: &mut Vec<p4::Entity>,
    ) -> Result<(), Refusal> {
        let request = request.entity.as_ref();
        match request.ok_or_else(|| Refusal::invalid("an entity of what is read has no kind"))? {
            Message::ExternEntry(_) => Err(Refusal::unimplemented(
                "there are no externs that P4Runtime does not define",
            )),
            Message::TableEntry(entry) => self.read_tables(entry, entities),
            Message::ActionProfileMember(member) => self.read_members(member, entities),
            Message::ActionProfileGroup(group) => self.read_groups(group, entities),
            Message::CounterEntry(entry) => self.read_counters(entry, entities),
            Message::DirectCounterEntry(entry) => {
                self.read_direct_counters(entry.table_entry.as_ref(), entities)
            }
            Message::MeterEntry(entry) => self.read_meters(entry, entities),
            Message::DirectMeterEntry(entry) => {
                self.read_direct_meters(entry.table_entry.as_ref(), entities)
            }
            Message::PacketReplicationEngineEntry(entry) => self.read_replication(entry, entities),
            Message::ValueSetEntry(entry) => self.read_value_sets(entry, entities),
            Message::RegisterEntry(entry) => self.read_registers(entry, entities),
            Message::DigestEntry(entry) => self.read_digests(entry, entities),
        }
    }

    fn read_tables(
        &self,
        message: &p4::TableEntry,
        entities: &mut Vec<p4::Entity>,
    ) -> Result<(), Refusal> {
        if message.table_id == 0 {
            // No other filter applies.
            let request = p4::TableEntry {
                counter_data: message.counter_data,
                meter_config: message.meter_config,
                ..p4::TableEntry::default()
            };
            for table in self.info.tables() {
                self.read_table(table, &request, entities)?;
            }
            return Ok(());
        }
        let table = self
            .info
            .tables()
            .by_id(message.table_id)
            .map_err(EntityError::from)?;
        if message.time_since_last_hit.is_some() && !table.notifies_idle {
            let message = format!("table `{}` knows no idle timeouts", table.preamble.name);
            return Err(Refusal::invalid(message));
        }
        self.read_table(table, message, entities)
    }

    fn read_table(
        &self,
        table: &Table,
        message: &p4::TableEntry,
        entities: &mut Vec<p4::Entity>,
    ) -> Result<(), Refusal> {
        if message.is_default_action {
            return self.read_default_entry(table, message, entities);
        }
        let filter = self.table_filter(table, message)?;
        for state in self.pipeline.entries(&table.preamble.name)? {
            let key = convert::entity_key(table, &state.entry.key);
            if filter.wants(&state, &key) {
                let entry = self.table_entry(table, message, key, &state)?;
                entities.push(self.info.encode(&Entity::Table(entry))?);
            }
        }
        Ok(())
    }

    fn table_filter<'m>(
        &'m self,
        table: &Table,
        message: &'m p4::TableEntry,
    ) -> Result<TableFilter<'m>, Refusal> {
        let fields = (!message.r#match.is_empty())
            .then(|| self.info.decode_match_fields(table, &message.r#match));
        let action = match message
            .action
            .as_ref()
            .and_then(|action| action.r#type.as_ref())
        {
            None => None,
            Some(p4::table_action::Type::Action(action)) => {
                let action = self.info.actions().by_id(action.action_id);
                Some(action.map_err(EntityError::from)?.preamble.name.as_str())
            }
            Some(_) => {
                return Err(Refusal::unimplemented(
                    "entries can be read by action, not by member or group",
                ));
            }
        };
        Ok(TableFilter {
            message,
            fields: fields.transpose()?,
            action,
        })
    }

    fn table_entry(
        &self,
        table: &Table,
        message: &p4::TableEntry,
        key: EntryKey,
        state: &EntryState,
    ) -> Result<TableEntry, Refusal> {
        let since_last_hit = self.now.since(state.last_hit);
        Ok(TableEntry {
            table: table.preamble.name.clone(),
            key,
            action: Some(convert::entity_action(self.info, &state.entry.action)?),
            idle_timeout: state.entry.idle_timeout,
            metadata: state.entry.metadata.clone(),
            counter: state
                .counter
                .filter(|_| message.counter_data.is_some())
                .map(convert::entity_counter),
            meter: state
                .meter
                .as_ref()
                .filter(|_| message.meter_config.is_some())
                .map(convert::entity_meter),
            time_since_last_hit: message.time_since_last_hit.map(|_| since_last_hit),
            is_const: state.is_const,
        })
    }

    fn read_default_entry(
        &self,
        table: &Table,
        message: &p4::TableEntry,
        entities: &mut Vec<p4::Entity>,
    ) -> Result<(), Refusal> {
        if !message.r#match.is_empty() || message.priority != 0 {
            return Err(Refusal::invalid(
                "a default entry has neither match fields nor priority",
            ));
        }
        let name = table.preamble.name.as_str();
        let (action, counter) = self.pipeline.default_entry(name)?;
        let Some(action) = action else {
            return Ok(());
        };
        let entry = TableEntry {
            action: Some(convert::entity_action(self.info, &action)?),
            counter: counter
                .filter(|_| message.counter_data.is_some())
                .map(convert::entity_counter),
            ..TableEntry::default_of(name)
        };
        entities.push(self.info.encode(&Entity::Table(entry))?);
        Ok(())
    }

    fn read_members(
        &self,
        message: &p4::ActionProfileMember,
        entities: &mut Vec<p4::Entity>,
    ) -> Result<(), Refusal> {
        for profile in self.profiles(message.action_profile_id)? {
            let name = profile.preamble.name.as_str();
            let wanted = message.member_id;
            let count_before = entities.len();
            for (member, call) in self.pipeline.members(name)? {
                if wanted == 0 || wanted == member {
                    let entity = Entity::ActionProfileMember(ActionProfileMember {
                        profile: name.into(),
                        member,
                        call: Some(convert::entity_call(self.info, &call)?),
                    });
                    entities.push(self.info.encode(&entity)?);
                }
            }
            let is_one = message.action_profile_id != 0 && wanted != 0;
            if is_one && entities.len() == count_before {
                let message = format!("action profile `{name}` has no member {wanted}");
                return Err(Refusal::not_found(message));
            }
        }
        Ok(())
    }

    fn read_groups(
        &self,
        message: &p4::ActionProfileGroup,
        entities: &mut Vec<p4::Entity>,
    ) -> Result<(), Refusal> {
        for profile in self.profiles(message.action_profile_id)? {
            if !profile.with_selector {
                continue;
            }
            let name = profile.preamble.name.as_str();
            let wanted = message.group_id;
            let count_before = entities.len();
            for (group, content) in self.pipeline.groups(name)? {
                if wanted == 0 || wanted == group {
                    let entity = Entity::ActionProfileGroup(ActionProfileGroup {
                        profile: name.into(),
                        group,
                        members: convert::entity_members(&content),
                        max_size: content.max_size,
                    });
                    entities.push(self.info.encode(&entity)?);
                }
            }
            let is_one = message.action_profile_id != 0 && wanted != 0;
            if is_one && entities.len() == count_before {
                let message = format!("action profile `{name}` has no group {wanted}");
                return Err(Refusal::not_found(message));
            }
        }
        Ok(())
    }

    fn read_counters(
        &self,
        message: &p4::CounterEntry,
        entities: &mut Vec<p4::Entity>,
    ) -> Result<(), Refusal> {
        let counters: Vec<&Counter> = chosen(self.info.counters(), message.counter_id)?;
        for counter in counters {
            let name = counter.preamble.name.as_str();
            let data = self.pipeline.read_counters(name)?;
            for index in cells(wanted_cell(message.counter_id, message.index)?, data.len())? {
                let Some(counted) = data.get(index) else {
                    break;
                };
                let entity = Entity::Counter(CounterEntry {
                    counter: name.into(),
                    index: Some(index as u64),
                    data: Some(convert::entity_counter(*counted)),
                });
                entities.push(self.info.encode(&entity)?);
            }
        }
        Ok(())
    }

    fn read_direct_counters(
        &self,
        message: Option<&p4::TableEntry>,
        entities: &mut Vec<p4::Entity>,
    ) -> Result<(), Refusal> {
        let any = p4::TableEntry::default();
        let message = message.unwrap_or(&any);
        let has_counter = |table: &Table| table.direct_counter.is_some();
        for table in self.direct_tables(message, "counter", has_counter)? {
            let name = table.preamble.name.as_str();
            let mut push = |key: EntryKey, data: Option<runtime::CounterData>| {
                let entity = Entity::DirectCounter(DirectCounterEntry {
                    table: name.into(),
                    key,
                    data: data.map(convert::entity_counter),
                });
                entities.push(self.info.encode(&entity)?);
                Ok::<(), Refusal>(())
            };
            if message.is_default_action {
                push(EntryKey::Default, self.pipeline.default_entry(name)?.1)?;
                continue;
            }
            for (key, state) in self.direct_entries(table, message)? {
                push(key, state.counter)?;
            }
        }
        Ok(())
    }

    fn read_direct_meters(
        &self,
        message: Option<&p4::TableEntry>,
        entities: &mut Vec<p4::Entity>,
    ) -> Result<(), Refusal> {
        let any = p4::TableEntry::default();
        let message = message.unwrap_or(&any);
        if message.is_default_action {
            return Err(Refusal::unimplemented(
                "meters of default entries cannot be read",
            ));
        }
        let has_meter = |table: &Table| table.direct_meter.is_some();
        for table in self.direct_tables(message, "meter", has_meter)? {
            for (key, state) in self.direct_entries(table, message)? {
                let entity = Entity::DirectMeter(DirectMeterEntry {
                    table: table.preamble.name.clone(),
                    key,
                    config: state.meter.as_ref().map(convert::entity_meter),
                });
                entities.push(self.info.encode(&entity)?);
            }
        }
        Ok(())
    }

    /// The tables that have a direct resource: all of them, or the one that is named.
    fn direct_tables(
        &self,
        message: &p4::TableEntry,
        what: &str,
        has_resource: impl Fn(&Table) -> bool,
    ) -> Result<Vec<&'a Table>, Refusal> {
        let tables = chosen(self.info.tables(), message.table_id)?;
        if message.table_id == 0 {
            return Ok(tables
                .into_iter()
                .filter(|table| has_resource(table))
                .collect());
        }
        if let Some(table) = tables.iter().find(|table| !has_resource(table)) {
            let message = format!("table `{}` has no direct {what}", table.preamble.name);
            return Err(Refusal::invalid(message));
        }
        Ok(tables)
    }

    /// The entries of a table that a direct resource is read of: all of them, or the one that is named,
    /// which must be there.
    fn direct_entries(
        &self,
        table: &Table,
        message: &p4::TableEntry,
    ) -> Result<Vec<(EntryKey, EntryState)>, Refusal> {
        let filter = self.table_filter(table, message)?;
        let entries = self.pipeline.entries(&table.preamble.name)?.into_iter();
        let entries: Vec<(EntryKey, EntryState)> = entries
            .map(|state| (convert::entity_key(table, &state.entry.key), state))
            .filter(|(key, state)| filter.wants(state, key))
            .collect();
        if filter.fields.is_some() && entries.is_empty() {
            let message = format!("table `{}` has no such entry", table.preamble.name);
            return Err(Refusal::not_found(message));
        }
        Ok(entries)
    }

    fn read_meters(
        &self,
        message: &p4::MeterEntry,
        entities: &mut Vec<p4::Entity>,
    ) -> Result<(), Refusal> {
        if message.counter_data.is_some() {
            return Err(Refusal::unimplemented(
                "meters have no counters for their colours",
            ));
        }
        let meters: Vec<&Meter> = chosen(self.info.meters(), message.meter_id)?;
        for meter in meters {
            let name = meter.preamble.name.as_str();
            let size = self.pipeline.meter_size(name)?;
            for index in cells(wanted_cell(message.meter_id, message.index)?, size)? {
                let config = self.pipeline.read_meter(name, index)?;
                let entity = Entity::Meter(MeterEntry {
                    meter: name.into(),
                    index: Some(index as u64),
                    config: config.as_ref().map(convert::entity_meter),
                });
                entities.push(self.info.encode(&entity)?);
            }
        }
        Ok(())
    }

    fn read_registers(
        &self,
        message: &p4::RegisterEntry,
        entities: &mut Vec<p4::Entity>,
    ) -> Result<(), Refusal> {
        let registers: Vec<&Register> = chosen(self.info.registers(), message.register_id)?;
        for register in registers {
            let name = register.preamble.name.as_str();
            let size = self.pipeline.register_size(name)?;
            let range = cells(wanted_cell(message.register_id, message.index)?, size)?;
            let first = range.start;
            let values = self.pipeline.read_registers(name, range)?;
            for (position, value) in values.iter().enumerate() {
                let entity = Entity::Register(RegisterEntry {
                    register: name.into(),
                    index: Some((first + position) as u64),
                    data: Some(register_data(register, value)?),
                });
                entities.push(self.info.encode(&entity)?);
            }
        }
        Ok(())
    }

    fn read_replication(
        &self,
        message: &p4::PacketReplicationEngineEntry,
        entities: &mut Vec<p4::Entity>,
    ) -> Result<(), Refusal> {
        let count_before = entities.len();
        let (wanted, what) = match &message.r#type {
            Some(Replication::MulticastGroupEntry(entry)) => {
                let wanted = entry.multicast_group_id;
                let groups = self.pipeline.multicast_groups();
                for (group, replicas) in groups.filter(|(group, _)| wanted == 0 || wanted == *group)
                {
                    let metadata = self.multicast_metadata.get(&group).cloned();
                    let entity = Entity::MulticastGroup(MulticastGroup {
                        group,
                        replicas: entity_replicas(replicas),
                        metadata: metadata.unwrap_or_default(),
                    });
                    entities.push(self.info.encode(&entity)?);
                }
                (wanted, "multicast group")
            }
            Some(Replication::CloneSessionEntry(entry)) => {
                let wanted = entry.session_id;
                let sessions = self.pipeline.clone_sessions();
                for (session, content) in sessions.filter(|(id, _)| wanted == 0 || wanted == *id) {
                    let entity = Entity::CloneSession(CloneSession {
                        session,
                        replicas: entity_replicas(&content.replicas),
                        class_of_service: content.class_of_service,
                        packet_length_bytes: content.packet_length_bytes,
                    });
                    entities.push(self.info.encode(&entity)?);
                }
                (wanted, "clone session")
            }
            None => return Err(Refusal::invalid("the packet replication entry has no kind")),
        };
        if wanted != 0 && entities.len() == count_before {
            return Err(Refusal::not_found(format!("there is no {what} {wanted}")));
        }
        Ok(())
    }

    fn read_value_sets(
        &self,
        message: &p4::ValueSetEntry,
        entities: &mut Vec<p4::Entity>,
    ) -> Result<(), Refusal> {
        let sets: Vec<&ValueSet> = chosen(self.info.value_sets(), message.value_set_id)?;
        for set in sets {
            let name = set.preamble.name.as_str();
            let members = self.pipeline.value_set(name)?;
            let entity = Entity::ValueSet(ValueSetEntry {
                value_set: name.into(),
                members: members
                    .map(|member| value_set_member(set, member))
                    .collect(),
            });
            entities.push(self.info.encode(&entity)?);
        }
        Ok(())
    }

    fn read_digests(
        &self,
        message: &p4::DigestEntry,
        entities: &mut Vec<p4::Entity>,
    ) -> Result<(), Refusal> {
        let digests: Vec<&Digest> = chosen(self.info.digests(), message.digest_id)?;
        for digest in digests {
            let name = digest.preamble.name.as_str();
            let Some(config) = self.pipeline.digest_config(name)? else {
                continue;
            };
            let entity = Entity::Digest(DigestEntry {
                digest: name.into(),
                config: Some(DigestConfig {
                    max_timeout: config.max_timeout,
                    max_list_size: config.max_list_size,
                    ack_timeout: config.ack_timeout,
                }),
            });
            entities.push(self.info.encode(&entity)?);
        }
        Ok(())
    }

    fn profiles(&self, id: u32) -> Result<Vec<&'a ActionProfile>, Refusal> {
        chosen(self.info.action_profiles(), id)
    }
}

impl TableFilter<'_> {
    fn wants(&self, state: &EntryState, key: &EntryKey) -> bool {
        let message = self.message;
        let has_fields = self
            .fields
            .as_ref()
            .is_none_or(|wanted| matches!(key, EntryKey::Match { fields, .. } if fields == wanted));
        let has_action = self.action.is_none_or(|wanted| {
            matches!(&state.entry.action, EntryAction::Call(call) if call.action == wanted)
        });
        let priority = state.entry.key.priority;
        let has_priority = message.priority == 0 || message.priority == priority;
        let metadata = &state.entry.metadata;
        let has_metadata = message.metadata.is_empty() || message.metadata == *metadata;
        has_fields && has_action && has_priority && has_metadata
    }
}

/// All objects, or the one with this id.
fn chosen<T>(objects: &Objects<T>, id: u32) -> Result<Vec<&T>, Refusal> {
    if id == 0 {
        return Ok(objects.iter().collect());
    }
    Ok(vec![objects.by_id(id).map_err(EntityError::from)?])
}

/// The cell that is asked for; an index without an array means nothing.
fn wanted_cell(id: u32, index: Option<p4::Index>) -> Result<Option<u64>, Refusal> {
    let Some(p4::Index { index }) = index else {
        return Ok(None);
    };
    if id == 0 {
        return Err(Refusal::invalid("an index is of one array: name it"));
    }
    let index = u64::try_from(index);
    index
        .map(Some)
        .map_err(|_| Refusal::invalid("the index is negative"))
}

fn register_data(register: &Register, value: &Value) -> Result<DataValue, Refusal> {
    match register.data_type {
        DataType::Bits { .. } => Ok(DataValue::Bits(convert::bytestring(value))),
        DataType::Bool => Ok(DataValue::Bool(!value.is_zero())),
        DataType::Struct { .. } | DataType::Tuple { .. } => Err(Refusal::unimplemented(
            "registers of structs are not supported",
        )),
    }
}

fn entity_replicas(replicas: &[runtime::Replica]) -> Vec<Replica> {
    let replicas = replicas.iter();
    replicas
        .map(|replica| Replica {
            port: u32::from(replica.port),
            instance: u32::from(replica.instance),
        })
        .collect()
}

/// A value set's member, taken apart again.
fn value_set_member(set: &ValueSet, member: &Value) -> Vec<(String, Match)> {
    let bytes = member.as_be_bytes();
    let bit = |place: u32| {
        let byte = bytes.iter().rev().nth((place / 8) as usize);
        byte.is_some_and(|byte| byte >> (place % 8) & 1 == 1)
    };
    let mut end = set.fields.iter().map(|field| field.width_bits).sum::<u32>();
    let mut fields = Vec::with_capacity(set.fields.len());
    for field in &set.fields {
        let start = end - field.width_bits;
        let mut number = vec![0_u8; field.width_bits.div_ceil(8) as usize];
        for place in (start..end).filter(|place| bit(*place)) {
            let weight = place - start;
            if let Some(byte) = number.iter_mut().rev().nth((weight / 8) as usize) {
                *byte |= 1 << (weight % 8);
            }
        }
        end = start;
        fields.push((
            field.name.clone(),
            Match::Exact(Bytestring::from_be_bytes(&number)),
        ));
    }
    fields
}

#[cfg(test)]
mod tests {
    use flowradar_p4::p4info::{MatchField, MatchKind, Preamble};

    use super::*;
    use crate::server::write::concatenate;

    #[test]
    fn members_of_value_sets_are_taken_apart_again() {
        let field = |id, width_bits| MatchField {
            id,
            name: format!("f{id}"),
            width_bits,
            kind: MatchKind::Exact,
        };
        let set = ValueSet {
            preamble: Preamble {
                id: 1,
                name: "set".into(),
                alias: "set".into(),
            },
            fields: vec![field(1, 3), field(2, 16)],
            size: 4,
        };
        let (low, kind) = (Bytestring::from(5_u8), Bytestring::from(0x0806_u16));
        let whole = concatenate(&[(3, &low), (16, &kind)]);
        let member = value_set_member(&set, &convert::value(&whole));
        assert_eq!(
            member,
            [
                ("f1".into(), Match::Exact(low)),
                ("f2".into(), Match::Exact(kind))
            ]
        );
    }
}
