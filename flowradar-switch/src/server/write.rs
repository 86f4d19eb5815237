//! Updates of a Write request.

use std::collections::{HashMap, HashSet};

use flowradar_p4::entity::{
    ActionProfileGroup, ActionProfileMember, CloneSession, CounterEntry, DigestEntry,
    DirectCounterEntry, DirectMeterEntry, Entity, EntryKey, Match, MeterEntry, MulticastGroup,
    RegisterEntry, Replica, TableEntry, ValueSetEntry,
};
use flowradar_p4::p4info::{DataValue, Table};
use flowradar_p4::proto::google::rpc::Code;
use flowradar_p4::proto::p4::v1 as p4;
use flowradar_p4::proto::p4::v1::entity::Entity as Message;
use flowradar_p4::proto::p4::v1::update::Type;
use flowradar_p4::{Bytestring, P4Info};

use super::convert;
use super::error::Refusal;
use crate::runtime::{self, EntryRef};
use crate::{Pipeline, Timestamp, Value};

/// More of a multicast group's metadata is refused.
const METADATA_MAX_BYTES: usize = 4096;

/// What is written to: a pipeline, and what P4Runtime keeps besides.
pub(super) struct Target<'a> {
    pub(super) info: &'a P4Info,
    pub(super) pipeline: &'a mut Pipeline,
    pub(super) multicast_metadata: &'a mut HashMap<u32, Vec<u8>>,
    pub(super) now: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Insert,
    Modify,
    Delete,
}

impl<'a> Target<'a> {
    /// Applies an update.
    pub(super) fn apply(&mut self, update: &p4::Update) -> Result<(), Refusal> {
        let operation = match update.r#type() {
            Type::Insert => Operation::Insert,
            Type::Modify => Operation::Modify,
            Type::Delete => Operation::Delete,
            Type::Unspecified => return Err(Refusal::invalid("the update has no type")),
        };
        let entity = update.entity.as_ref();
        let entity = entity.ok_or_else(|| Refusal::invalid("the update has no entity"))?;
        // Deleting looks at an entry's key only, whatever nonsense the rest may be.
        if operation == Operation::Delete
            && let Some(Message::TableEntry(entry)) = &entity.entity
        {
            return self.delete_entry(entry);
        }
        match self.info.decode(entity)? {
            Entity::Table(entry) => self.write_entry(operation, entry),
            Entity::ActionProfileMember(member) => self.write_member(operation, &member),
            Entity::ActionProfileGroup(group) => self.write_group(operation, &group),
            Entity::Counter(entry) => self.write_counter(operation, &entry),
            Entity::DirectCounter(entry) => self.write_direct_counter(operation, &entry),
            Entity::Meter(entry) => self.write_meter(operation, &entry),
            Entity::DirectMeter(entry) => self.write_direct_meter(operation, &entry),
            Entity::Register(entry) => self.write_register(operation, &entry),
            Entity::MulticastGroup(group) => self.write_multicast_group(operation, group),
            Entity::CloneSession(session) => self.write_clone_session(operation, &session),
            Entity::ValueSet(entry) => self.write_value_set(operation, &entry),
            Entity::Digest(entry) => self.write_digest(operation, &entry),
        }
    }

    fn delete_entry(&mut self, message: &p4::TableEntry) -> Result<(), Refusal> {
        if message.is_const {
            return Err(Refusal::invalid(
                "is_const is not to be set in what is written",
            ));
        }
        let (table, key) = self.info.decode_table_key(message)?;
        match &key {
            EntryKey::Default => Err(Refusal::invalid(
                "a default entry cannot be deleted; modify it without an action to reset it",
            )),
            EntryKey::Match { fields, priority } => {
                let key = convert::entry_key(table, fields, *priority);
                Ok(self.pipeline.delete_entry(&table.preamble.name, &key)?)
            }
        }
    }

    fn write_entry(&mut self, operation: Operation, entry: TableEntry) -> Result<(), Refusal> {
        if entry.is_const {
            return Err(Refusal::invalid(
                "is_const is not to be set in what is written",
            ));
        }
        if entry.time_since_last_hit.is_some() {
            return Err(Refusal::invalid(
                "time_since_last_hit is not to be set in what is written",
            ));
        }
        let info = self.info;
        let table = self.table(&entry.table)?;
        if entry.counter.is_some() && table.direct_counter.is_none() {
            let message = format!("table `{}` has no direct counter", entry.table);
            return Err(Refusal::invalid(message));
        }
        if entry.meter.is_some() && table.direct_meter.is_none() {
            let message = format!("table `{}` has no direct meter", entry.table);
            return Err(Refusal::invalid(message));
        }
        let EntryKey::Match { fields, priority } = &entry.key else {
            return self.write_default_entry(operation, table, &entry);
        };
        if table.fields.is_empty() {
            let message = format!("table `{}` has no key, so it has no entries", entry.table);
            return Err(Refusal::invalid(message));
        }
        let key = convert::entry_key(table, fields, *priority);
        let action = match (&entry.action, operation) {
            (Some(action), _) => convert::entry_action(info, action)?,
            (None, Operation::Insert) => {
                return Err(Refusal::invalid("an entry is inserted with an action"));
            }
            (None, Operation::Modify | Operation::Delete) => {
                self.pipeline.entry(&entry.table, &key)?.entry.action
            }
        };
        let written = runtime::TableEntry {
            key: key.clone(),
            action,
            idle_timeout: entry.idle_timeout,
            metadata: entry.metadata,
        };
        let now = self.now;
        let name = entry.table.as_str();
        if operation == Operation::Insert {
            self.pipeline.insert_entry(name, written, now)?;
        } else {
            self.pipeline.modify_entry(name, written, now)?;
        }
        if let Some(data) = entry.counter {
            let data = convert::counter(data);
            self.pipeline
                .write_direct_counter(name, EntryRef::Key(&key), data)?;
        }
        if table.direct_meter.is_some() {
            let config = entry.meter.as_ref().map(convert::meter);
            let written = self
                .pipeline
                .write_direct_meter(name, EntryRef::Key(&key), config, now);
            if written.is_err() && operation == Operation::Insert {
                // An insertion that is refused leaves nothing behind.
                self.pipeline.delete_entry(name, &key)?;
            }
            written?;
        }
        Ok(())
    }

    fn write_default_entry(
        &mut self,
        operation: Operation,
        table: &Table,
        entry: &TableEntry,
    ) -> Result<(), Refusal> {
        let name = entry.table.as_str();
        if operation != Operation::Modify {
            return Err(Refusal::invalid(
                "a default entry is always there: it can be modified, not inserted or deleted",
            ));
        }
        if entry.idle_timeout.is_some() {
            return Err(Refusal::invalid("a default entry has no idle timeout"));
        }
        if !entry.metadata.is_empty() {
            return Err(Refusal::unimplemented(
                "metadata of a default entry is not kept",
            ));
        }
        if table.const_default_action.is_some() {
            let message = format!("table `{name}`: the default action is constant");
            return Err(Refusal::new(Code::PermissionDenied, message));
        }
        match &entry.action {
            Some(action) => {
                let action = convert::entry_action(self.info, action)?;
                self.pipeline.set_default_entry(name, action)?;
            }
            None => self.pipeline.reset_default_entry(name)?,
        }
        if let Some(data) = entry.counter {
            let data = convert::counter(data);
            self.pipeline
                .write_direct_counter(name, EntryRef::Default, data)?;
        }
        if let Some(config) = &entry.meter {
            let config = Some(convert::meter(config));
            self.pipeline
                .write_direct_meter(name, EntryRef::Default, config, self.now)?;
        }
        Ok(())
    }

    fn write_member(
        &mut self,
        operation: Operation,
        member: &ActionProfileMember,
    ) -> Result<(), Refusal> {
        let profile = member.profile.as_str();
        if operation == Operation::Delete {
            return Ok(self.pipeline.delete_member(profile, member.member)?);
        }
        let call = member.call.as_ref();
        let call = call.ok_or_else(|| Refusal::invalid("a member is written with an action"))?;
        let call = convert::call(self.info, call)?;
        if operation == Operation::Insert {
            self.pipeline.insert_member(profile, member.member, call)?;
        } else {
            self.pipeline.modify_member(profile, member.member, call)?;
        }
        Ok(())
    }

    fn write_group(
        &mut self,
        operation: Operation,
        group: &ActionProfileGroup,
    ) -> Result<(), Refusal> {
        let profile = group.profile.as_str();
        if operation == Operation::Delete {
            return Ok(self.pipeline.delete_group(profile, group.group)?);
        }
        self.check_group_size(operation, group)?;
        let content = convert::group(&group.members, group.max_size)?;
        if operation == Operation::Insert {
            self.pipeline.insert_group(profile, group.group, content)?;
        } else {
            self.pipeline.modify_group(profile, group.group, content)?;
        }
        Ok(())
    }

    /// A group's size is within what the program says, and stays what it was when it was inserted.
    fn check_group_size(
        &self,
        operation: Operation,
        group: &ActionProfileGroup,
    ) -> Result<(), Refusal> {
        let name = group.profile.as_str();
        let profile = self.info.action_profiles().by_name(name);
        let most = profile.map_or(0, |profile| profile.max_group_size);
        if most > 0 && group.max_size > most {
            return Err(Refusal::invalid(format!(
                "groups of `{name}` have at most {most} members; max_size is {}",
                group.max_size
            )));
        }
        if operation != Operation::Modify {
            return Ok(());
        }
        let groups = self.pipeline.groups(name)?;
        let old = groups.iter().find(|(number, _)| *number == group.group);
        match old {
            Some((_, old)) if old.max_size != group.max_size => Err(Refusal::invalid(format!(
                "group {} was inserted with max_size {}, which cannot be changed",
                group.group, old.max_size
            ))),
            _ => Ok(()),
        }
    }

    fn write_counter(&mut self, operation: Operation, entry: &CounterEntry) -> Result<(), Refusal> {
        only_modify(operation, "a counter")?;
        let name = entry.counter.as_str();
        let size = self.pipeline.read_counters(name)?.len();
        let Some(data) = entry.data.map(convert::counter) else {
            return Ok(());
        };
        for index in cells(entry.index, size)? {
            self.pipeline.write_counter(name, index, data)?;
        }
        Ok(())
    }

    fn write_direct_counter(
        &mut self,
        operation: Operation,
        entry: &DirectCounterEntry,
    ) -> Result<(), Refusal> {
        only_modify(operation, "a direct counter")?;
        let table = self.table(&entry.table)?;
        let key = direct_key(table, &entry.key);
        if let Some(key) = &key {
            self.pipeline.entry(&entry.table, key)?;
        }
        let Some(data) = entry.data.map(convert::counter) else {
            return Ok(());
        };
        let entry_ref = key.as_ref().map_or(EntryRef::Default, EntryRef::Key);
        Ok(self
            .pipeline
            .write_direct_counter(&entry.table, entry_ref, data)?)
    }

    fn write_meter(&mut self, operation: Operation, entry: &MeterEntry) -> Result<(), Refusal> {
        only_modify(operation, "a meter")?;
        let name = entry.meter.as_str();
        let size = self.pipeline.meter_size(name)?;
        let config = entry.config.as_ref().map(convert::meter);
        for index in cells(entry.index, size)? {
            self.pipeline.write_meter(name, index, config, self.now)?;
        }
        Ok(())
    }

    fn write_direct_meter(
        &mut self,
        operation: Operation,
        entry: &DirectMeterEntry,
    ) -> Result<(), Refusal> {
        only_modify(operation, "a direct meter")?;
        let key = direct_key(self.table(&entry.table)?, &entry.key);
        let entry_ref = key.as_ref().map_or(EntryRef::Default, EntryRef::Key);
        let config = entry.config.as_ref().map(convert::meter);
        let now = self.now;
        Ok(self
            .pipeline
            .write_direct_meter(&entry.table, entry_ref, config, now)?)
    }

    fn write_register(
        &mut self,
        operation: Operation,
        entry: &RegisterEntry,
    ) -> Result<(), Refusal> {
        only_modify(operation, "a register")?;
        let name = entry.register.as_str();
        let data = match &entry.data {
            Some(DataValue::Bits(number)) => convert::value(number),
            Some(DataValue::Bool(bit)) => Value::from(u64::from(*bit)),
            Some(DataValue::Members(_)) => {
                return Err(Refusal::unimplemented(
                    "registers of structs are not supported",
                ));
            }
            None => return Err(Refusal::invalid("a register is written with data")),
        };
        match entry.index {
            None => self.pipeline.fill_register(name, &data)?,
            Some(_) => {
                let size = self.pipeline.register_size(name)?;
                for index in cells(entry.index, size)? {
                    self.pipeline.write_register(name, index, &data)?;
                }
            }
        }
        Ok(())
    }

    fn write_multicast_group(
        &mut self,
        operation: Operation,
        group: MulticastGroup,
    ) -> Result<(), Refusal> {
        let number = group.group;
        if operation == Operation::Delete {
            self.pipeline.delete_multicast_group(number)?;
            self.multicast_metadata.remove(&number);
            return Ok(());
        }
        if group.metadata.len() > METADATA_MAX_BYTES {
            let message = format!("at most {METADATA_MAX_BYTES} bytes of metadata are kept");
            return Err(Refusal::invalid(message));
        }
        let replicas = replicas(&group.replicas)?;
        if operation == Operation::Insert {
            self.pipeline.insert_multicast_group(number, replicas)?;
        } else {
            self.pipeline.modify_multicast_group(number, replicas)?;
        }
        if group.metadata.is_empty() {
            self.multicast_metadata.remove(&number);
        } else {
            self.multicast_metadata.insert(number, group.metadata);
        }
        Ok(())
    }

    fn write_clone_session(
        &mut self,
        operation: Operation,
        session: &CloneSession,
    ) -> Result<(), Refusal> {
        if operation == Operation::Delete {
            return Ok(self.pipeline.delete_clone_session(session.session)?);
        }
        let content = runtime::CloneSession {
            replicas: replicas(&session.replicas)?,
            class_of_service: session.class_of_service,
            packet_length_bytes: session.packet_length_bytes,
        };
        if operation == Operation::Insert {
            self.pipeline
                .insert_clone_session(session.session, content)?;
        } else {
            self.pipeline
                .modify_clone_session(session.session, content)?;
        }
        Ok(())
    }

    fn write_value_set(
        &mut self,
        operation: Operation,
        entry: &ValueSetEntry,
    ) -> Result<(), Refusal> {
        only_modify(operation, "a value set")?;
        let set = self.info.value_sets().by_name(&entry.value_set);
        let set = set.map_err(|error| Refusal::not_found(error.to_string()))?;
        if entry.members.len() as u64 > set.size {
            let message = format!(
                "value set `{}` may hold {} members, not {}",
                entry.value_set,
                set.size,
                entry.members.len()
            );
            return Err(Refusal::new(Code::ResourceExhausted, message));
        }
        let mut seen = HashSet::new();
        let mut members = Vec::with_capacity(entry.members.len());
        for member in &entry.members {
            let mut parts = Vec::with_capacity(set.fields.len());
            for field in &set.fields {
                match member.iter().find(|(name, _)| *name == field.name) {
                    Some((_, Match::Exact(number))) => parts.push((field.width_bits, number)),
                    Some(_) | None => {
                        return Err(Refusal::unimplemented(
                            "value sets are compared exactly only",
                        ));
                    }
                }
            }
            let member = concatenate(&parts);
            if !seen.insert(member.clone()) {
                let message = format!("value set `{}`: a member is given twice", entry.value_set);
                return Err(Refusal::new(Code::AlreadyExists, message));
            }
            members.push(convert::value(&member));
        }
        Ok(self.pipeline.set_value_set(&entry.value_set, members)?)
    }

    fn write_digest(&mut self, operation: Operation, entry: &DigestEntry) -> Result<(), Refusal> {
        let name = entry.digest.as_str();
        if operation == Operation::Delete {
            return Ok(self.pipeline.delete_digest(name)?);
        }
        // Unset is all zeros: every digest at once, none suppressed.
        let config = runtime::DigestConfig {
            max_timeout: entry
                .config
                .map_or_else(Default::default, |config| config.max_timeout),
            max_list_size: entry.config.map_or(0, |config| config.max_list_size),
            ack_timeout: entry
                .config
                .map_or_else(Default::default, |config| config.ack_timeout),
        };
        if operation == Operation::Insert {
            self.pipeline.insert_digest(name, config)?;
        } else {
            self.pipeline.modify_digest(name, config)?;
        }
        Ok(())
    }

    fn table(&self, name: &str) -> Result<&'a Table, Refusal> {
        let table = self.info.tables().by_name(name);
        table.map_err(|error| Refusal::invalid(error.to_string()))
    }
}

/// Numbers one after the other, without padding.
pub(super) fn concatenate(parts: &[(u32, &Bytestring)]) -> Bytestring {
    let mut bits = Vec::new();
    for (width_bits, number) in parts {
        for bit in (0..*width_bits).rev() {
            let byte = number.as_bytes().iter().rev().nth((bit / 8) as usize);
            bits.push(byte.is_some_and(|byte| byte >> (bit % 8) & 1 == 1));
        }
    }
    let padding = (8 - bits.len() % 8) % 8;
    let mut bytes = vec![0_u8; (bits.len() + padding) / 8];
    for (position, _) in bits.iter().enumerate().filter(|(_, bit)| **bit) {
        let place = position + padding;
        if let Some(byte) = bytes.get_mut(place / 8) {
            *byte |= 0x80 >> (place % 8);
        }
    }
    Bytestring::from_be_bytes(&bytes)
}

fn only_modify(operation: Operation, what: &str) -> Result<(), Refusal> {
    match operation {
        Operation::Modify => Ok(()),
        Operation::Insert | Operation::Delete => {
            let message = format!("{what} is always there: it can only be modified");
            Err(Refusal::invalid(message))
        }
    }
}

fn direct_key(table: &Table, key: &EntryKey) -> Option<runtime::EntryKey> {
    match key {
        EntryKey::Default => None,
        EntryKey::Match { fields, priority } => Some(convert::entry_key(table, fields, *priority)),
    }
}

/// One cell, or all of them.
pub(super) fn cells(index: Option<u64>, size: usize) -> Result<std::ops::Range<usize>, Refusal> {
    let Some(index) = index else {
        return Ok(0..size);
    };
    match usize::try_from(index) {
        Ok(index) if index < size => Ok(index..index + 1),
        Ok(_) | Err(_) => {
            let message = format!("there are {size} cells, there is no cell {index}");
            Err(Refusal::new(Code::OutOfRange, message))
        }
    }
}

fn replicas(replicas: &[Replica]) -> Result<Vec<runtime::Replica>, Refusal> {
    let convert = |replica: &Replica| {
        Ok(runtime::Replica {
            port: convert::port(replica.port)?,
            instance: u16::try_from(replica.instance).map_err(|_| {
                Refusal::invalid(format!("instance {} is above 65,535", replica.instance))
            })?,
        })
    };
    replicas.iter().map(convert).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_concatenated_without_padding() {
        let (three, port) = (Bytestring::from(0b101_u8), Bytestring::from(0x1ff_u16));
        let whole = concatenate(&[(3, &three), (9, &port)]);
        assert_eq!(whole, Bytestring::from(0b1011_1111_1111_u16));
        assert_eq!(concatenate(&[]), Bytestring::zero());
    }
}
