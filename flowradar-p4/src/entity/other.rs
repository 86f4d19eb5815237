//! Everything but entries of tables.

use std::time::Duration;

use super::table::{decode_matches, decode_weight, encode_matches, watch_without_port, weight};
use super::{
    ActionProfileGroup, ActionProfileMember, CloneSession, CounterData, CounterEntry, DigestConfig,
    DigestEntry, DirectCounterEntry, DirectMeterEntry, Entity, EntityError, EntryKey, GroupMember,
    MeterConfig, MeterEntry, MulticastGroup, RegisterEntry, Replica, TableEntry, ValueSetEntry,
};
use crate::P4Info;
use crate::p4info::{DataValue, Register};
use crate::proto::p4::v1 as p4;
use crate::proto::p4::v1::action_profile_group::member::WatchKind;
use crate::proto::p4::v1::entity::Entity as Message;
use crate::proto::p4::v1::packet_replication_engine_entry::Type as Replication;
use crate::proto::p4::v1::replica::PortKind;

impl P4Info {
    /// The message for an entity.
    ///
    /// # Errors
    ///
    /// If the program has no such object, or a value does not fit.
    pub fn encode(&self, entity: &Entity) -> Result<p4::Entity, EntityError> {
        let message = match entity {
            Entity::ActionProfileGroup(group) => {
                Message::ActionProfileGroup(self.encode_group(group)?)
            }
            Entity::ActionProfileMember(member) => {
                let profile = self.action_profiles().by_name(&member.profile)?;
                let call = member.call.as_ref();
                Message::ActionProfileMember(p4::ActionProfileMember {
                    action_profile_id: profile.preamble.id,
                    member_id: member.member,
                    action: call.map(|call| self.encode_call(call)).transpose()?,
                })
            }
            Entity::CloneSession(session) => {
                replication(Replication::CloneSessionEntry(p4::CloneSessionEntry {
                    session_id: session.session,
                    replicas: session.replicas.iter().map(replica_message).collect(),
                    class_of_service: session.class_of_service,
                    packet_length_bytes: i32::try_from(session.packet_length_bytes).map_err(
                        |_| EntityError::Number {
                            what: "packet_length_bytes",
                        },
                    )?,
                }))
            }
            Entity::Counter(entry) => Message::CounterEntry(p4::CounterEntry {
                counter_id: self.counters().by_name(&entry.counter)?.preamble.id,
                index: index_message(entry.index)?,
                data: entry.data.as_ref().map(counter_message),
            }),
            Entity::Digest(entry) => Message::DigestEntry(p4::DigestEntry {
                digest_id: self.digests().by_name(&entry.digest)?.preamble.id,
                config: entry.config.as_ref().map(digest_config).transpose()?,
            }),
            Entity::DirectCounter(entry) => Message::DirectCounterEntry(p4::DirectCounterEntry {
                table_entry: Some(self.encode_key(&entry.table, &entry.key)?),
                data: entry.data.as_ref().map(counter_message),
            }),
            Entity::DirectMeter(entry) => Message::DirectMeterEntry(p4::DirectMeterEntry {
                table_entry: Some(self.encode_key(&entry.table, &entry.key)?),
                config: entry.config.as_ref().map(meter_message).transpose()?,
                counter_data: None,
            }),
            Entity::Meter(entry) => Message::MeterEntry(p4::MeterEntry {
                meter_id: self.meters().by_name(&entry.meter)?.preamble.id,
                index: index_message(entry.index)?,
                config: entry.config.as_ref().map(meter_message).transpose()?,
                counter_data: None,
            }),
            Entity::MulticastGroup(group) => {
                replication(Replication::MulticastGroupEntry(p4::MulticastGroupEntry {
                    multicast_group_id: group.group,
                    replicas: group.replicas.iter().map(replica_message).collect(),
                    metadata: group.metadata.clone(),
                }))
            }
            Entity::Register(entry) => {
                let register = self.registers().by_name(&entry.register)?;
                let data = entry.data.as_ref();
                Message::RegisterEntry(p4::RegisterEntry {
                    register_id: register.preamble.id,
                    index: index_message(entry.index)?,
                    data: data.map(|data| register_data(register, data)).transpose()?,
                })
            }
            Entity::Table(entry) => Message::TableEntry(self.encode_table_entry(entry)?),
            Entity::ValueSet(entry) => {
                let set = self.value_sets().by_name(&entry.value_set)?;
                let name = &set.preamble.name;
                let members = entry.members.iter().map(|member| {
                    Ok(p4::ValueSetMember {
                        r#match: encode_matches(name, &set.fields, member)?,
                    })
                });
                Message::ValueSetEntry(p4::ValueSetEntry {
                    value_set_id: set.preamble.id,
                    members: members.collect::<Result<_, EntityError>>()?,
                })
            }
        };
        Ok(p4::Entity {
            entity: Some(message),
        })
    }

    /// The entity in a message.
    ///
    /// # Errors
    ///
    /// If it contradicts the program or the specification's rules.
    pub fn decode(&self, message: &p4::Entity) -> Result<Entity, EntityError> {
        let message = message.entity.as_ref().ok_or(EntityError::Missing {
            what: "the entity's kind",
        })?;
        match message {
            Message::ExternEntry(_) => Err(EntityError::Unsupported {
                construct: "an entry of an extern that P4Runtime does not define",
            }),
            Message::TableEntry(entry) => self.decode_table_entry(entry).map(Entity::Table),
            Message::ActionProfileMember(member) => {
                self.decode_member(member).map(Entity::ActionProfileMember)
            }
            Message::ActionProfileGroup(group) => {
                self.decode_group(group).map(Entity::ActionProfileGroup)
            }
            Message::MeterEntry(entry) => {
                refuse_colours(entry.counter_data.as_ref())?;
                Ok(Entity::Meter(MeterEntry {
                    meter: self.meters().by_id(entry.meter_id)?.preamble.name.clone(),
                    index: decode_index(entry.index.as_ref())?,
                    config: entry.config.as_ref().map(decode_meter).transpose()?,
                }))
            }
            Message::DirectMeterEntry(entry) => {
                refuse_colours(entry.counter_data.as_ref())?;
                let (table, key) = self.decode_direct_key(entry.table_entry.as_ref())?;
                Ok(Entity::DirectMeter(DirectMeterEntry {
                    table,
                    key,
                    config: entry.config.as_ref().map(decode_meter).transpose()?,
                }))
            }
            Message::CounterEntry(entry) => Ok(Entity::Counter(CounterEntry {
                counter: self
                    .counters()
                    .by_id(entry.counter_id)?
                    .preamble
                    .name
                    .clone(),
                index: decode_index(entry.index.as_ref())?,
                data: entry.data.as_ref().map(decode_counter).transpose()?,
            })),
            Message::DirectCounterEntry(entry) => {
                let (table, key) = self.decode_direct_key(entry.table_entry.as_ref())?;
                Ok(Entity::DirectCounter(DirectCounterEntry {
                    table,
                    key,
                    data: entry.data.as_ref().map(decode_counter).transpose()?,
                }))
            }
            Message::PacketReplicationEngineEntry(entry) => decode_replication(entry),
            Message::ValueSetEntry(entry) => {
                let set = self.value_sets().by_id(entry.value_set_id)?;
                let name = &set.preamble.name;
                let members = entry.members.iter();
                let members =
                    members.map(|member| decode_matches(name, &set.fields, &member.r#match));
                Ok(Entity::ValueSet(ValueSetEntry {
                    value_set: name.clone(),
                    members: members.collect::<Result<_, _>>()?,
                }))
            }
            Message::RegisterEntry(entry) => {
                let register = self.registers().by_id(entry.register_id)?;
                let data = entry.data.as_ref();
                let data = data
                    .map(|data| register.data_type.from_message(data))
                    .transpose();
                Ok(Entity::Register(RegisterEntry {
                    register: register.preamble.name.clone(),
                    index: decode_index(entry.index.as_ref())?,
                    data: data.map_err(|source| EntityError::Data {
                        place: register.preamble.name.clone(),
                        source,
                    })?,
                }))
            }
            Message::DigestEntry(entry) => {
                let digest = self.digests().by_id(entry.digest_id)?;
                Ok(Entity::Digest(DigestEntry {
                    digest: digest.preamble.name.clone(),
                    config: entry
                        .config
                        .as_ref()
                        .map(decode_digest_config)
                        .transpose()?,
                }))
            }
        }
    }

    fn encode_key(&self, table: &str, key: &EntryKey) -> Result<p4::TableEntry, EntityError> {
        self.encode_table_entry(&TableEntry {
            key: key.clone(),
            ..TableEntry::new(table)
        })
    }

    fn decode_direct_key(
        &self,
        entry: Option<&p4::TableEntry>,
    ) -> Result<(String, EntryKey), EntityError> {
        let entry = entry.ok_or(EntityError::Missing {
            what: "the table entry of a direct counter or meter",
        })?;
        let (table, key) = self.decode_table_key(entry)?;
        Ok((table.preamble.name.clone(), key))
    }

    fn encode_group(
        &self,
        group: &ActionProfileGroup,
    ) -> Result<p4::ActionProfileGroup, EntityError> {
        let encode = |member: &GroupMember| {
            Ok(p4::action_profile_group::Member {
                member_id: member.member,
                weight: weight(member.weight)?,
                watch_kind: member
                    .watch_port
                    .map(|port| WatchKind::WatchPort(port_bytes(port))),
            })
        };
        Ok(p4::ActionProfileGroup {
            action_profile_id: self.action_profiles().by_name(&group.profile)?.preamble.id,
            group_id: group.group,
            members: group
                .members
                .iter()
                .map(encode)
                .collect::<Result<_, EntityError>>()?,
            max_size: i32::try_from(group.max_size)
                .map_err(|_| EntityError::Number { what: "max_size" })?,
        })
    }

    fn decode_group(
        &self,
        message: &p4::ActionProfileGroup,
    ) -> Result<ActionProfileGroup, EntityError> {
        let profile = self.action_profiles().by_id(message.action_profile_id)?;
        let decode = |member: &p4::action_profile_group::Member| {
            Ok(GroupMember {
                member: member.member_id,
                weight: decode_weight(member.weight)?,
                watch_port: match &member.watch_kind {
                    None => None,
                    Some(WatchKind::WatchPort(bytes)) => watch_port(bytes)?,
                    Some(_) => return Err(watch_without_port()),
                },
            })
        };
        Ok(ActionProfileGroup {
            profile: profile.preamble.name.clone(),
            group: message.group_id,
            members: message
                .members
                .iter()
                .map(decode)
                .collect::<Result<_, EntityError>>()?,
            max_size: u32::try_from(message.max_size)
                .map_err(|_| EntityError::Number { what: "max_size" })?,
        })
    }

    fn decode_member(
        &self,
        message: &p4::ActionProfileMember,
    ) -> Result<ActionProfileMember, EntityError> {
        let profile = self.action_profiles().by_id(message.action_profile_id)?;
        let call = message.action.as_ref();
        if let Some(call) = call {
            let tables = profile.tables.iter();
            let mut tables = tables.filter_map(|table| self.tables().by_id(*table).ok());
            let is_usable = tables.any(|table| {
                let mut actions = table.actions.iter();
                actions.any(|action| action.id == call.action_id)
            });
            if !is_usable {
                return Err(EntityError::ActionForeign {
                    place: profile.preamble.name.clone(),
                    action: format!("{:#010x}", call.action_id),
                });
            }
        }
        Ok(ActionProfileMember {
            profile: profile.preamble.name.clone(),
            member: message.member_id,
            call: call.map(|call| self.decode_call(call)).transpose()?,
        })
    }
}

pub(super) fn counter_message(data: &CounterData) -> p4::CounterData {
    // Counters that were read from a switch fit; larger ones say "at least".
    p4::CounterData {
        byte_count: i64::try_from(data.bytes).unwrap_or(i64::MAX),
        packet_count: i64::try_from(data.packets).unwrap_or(i64::MAX),
    }
}

pub(super) fn decode_counter(message: &p4::CounterData) -> Result<CounterData, EntityError> {
    let count =
        |count: i64| u64::try_from(count).map_err(|_| EntityError::Number { what: "a count" });
    Ok(CounterData {
        packets: count(message.packet_count)?,
        bytes: count(message.byte_count)?,
    })
}

pub(super) fn meter_message(config: &MeterConfig) -> Result<p4::MeterConfig, EntityError> {
    let number = |number: u64| {
        i64::try_from(number).map_err(|_| EntityError::Number {
            what: "a meter's rate or burst",
        })
    };
    Ok(p4::MeterConfig {
        cir: number(config.committed_rate)?,
        cburst: number(config.committed_burst)?,
        pir: number(config.peak_rate)?,
        pburst: number(config.peak_burst)?,
        eburst: 0,
    })
}

pub(super) fn decode_meter(message: &p4::MeterConfig) -> Result<MeterConfig, EntityError> {
    let number = |number: i64| {
        u64::try_from(number).map_err(|_| EntityError::Number {
            what: "a meter's rate or burst",
        })
    };
    if message.eburst != 0 {
        return Err(EntityError::Number {
            what: "eburst of a two-rate three-colour meter (it has none)",
        });
    }
    Ok(MeterConfig {
        committed_rate: number(message.cir)?,
        committed_burst: number(message.cburst)?,
        peak_rate: number(message.pir)?,
        peak_burst: number(message.pburst)?,
    })
}

pub(super) fn port_bytes(port: u32) -> Vec<u8> {
    crate::Bytestring::from(port).into_bytes()
}

/// No bytes at all: nothing is watched.
pub(super) fn watch_port(bytes: &[u8]) -> Result<Option<u32>, EntityError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    decode_port(bytes).map(Some)
}

fn decode_port(bytes: &[u8]) -> Result<u32, EntityError> {
    let number = crate::Bytestring::from_wire(bytes, 32).ok();
    number
        .and_then(|number| u32::try_from(number.to_u64()?).ok())
        .ok_or(EntityError::Number { what: "a port" })
}

fn index_message(index: Option<u64>) -> Result<Option<p4::Index>, EntityError> {
    let convert = |index| {
        i64::try_from(index)
            .map(|index| p4::Index { index })
            .map_err(|_| EntityError::Number { what: "an index" })
    };
    index.map(convert).transpose()
}

fn decode_index(index: Option<&p4::Index>) -> Result<Option<u64>, EntityError> {
    index
        .map(|index| {
            u64::try_from(index.index).map_err(|_| EntityError::Number { what: "an index" })
        })
        .transpose()
}

fn register_data(register: &Register, data: &DataValue) -> Result<p4::P4Data, EntityError> {
    register
        .data_type
        .to_message(data)
        .map_err(|source| EntityError::Data {
            place: register.preamble.name.clone(),
            source,
        })
}

fn digest_config(config: &DigestConfig) -> Result<p4::digest_entry::Config, EntityError> {
    let nanoseconds = |time: Duration| {
        i64::try_from(time.as_nanos()).map_err(|_| EntityError::Number {
            what: "a digest's timeout",
        })
    };
    Ok(p4::digest_entry::Config {
        max_timeout_ns: nanoseconds(config.max_timeout)?,
        max_list_size: i32::try_from(config.max_list_size).map_err(|_| EntityError::Number {
            what: "max_list_size",
        })?,
        ack_timeout_ns: nanoseconds(config.ack_timeout)?,
    })
}

fn decode_digest_config(message: &p4::digest_entry::Config) -> Result<DigestConfig, EntityError> {
    let time = |nanoseconds: i64| {
        u64::try_from(nanoseconds)
            .map(Duration::from_nanos)
            .map_err(|_| EntityError::Number {
                what: "a digest's timeout",
            })
    };
    Ok(DigestConfig {
        max_timeout: time(message.max_timeout_ns)?,
        max_list_size: u32::try_from(message.max_list_size).map_err(|_| EntityError::Number {
            what: "max_list_size",
        })?,
        ack_timeout: time(message.ack_timeout_ns)?,
    })
}

fn replication(entry: Replication) -> Message {
    Message::PacketReplicationEngineEntry(p4::PacketReplicationEngineEntry {
        r#type: Some(entry),
    })
}

#[allow(deprecated, reason = "older targets and clients know only this field")]
fn replica_message(replica: &Replica) -> p4::Replica {
    p4::Replica {
        port_kind: Some(PortKind::EgressPort(replica.port)),
        instance: replica.instance,
        backup_replicas: Vec::new(),
    }
}

fn decode_replica(message: &p4::Replica) -> Result<Replica, EntityError> {
    if !message.backup_replicas.is_empty() {
        return Err(EntityError::Unsupported {
            construct: "a backup replica",
        });
    }
    let port = match message.port_kind.as_ref() {
        #[allow(deprecated, reason = "older clients know only this field")]
        Some(PortKind::EgressPort(port)) => *port,
        Some(PortKind::Port(bytes)) => decode_port(bytes)?,
        None => {
            return Err(EntityError::Missing {
                what: "a replica's port",
            });
        }
    };
    Ok(Replica {
        port,
        instance: message.instance,
    })
}

fn decode_replication(message: &p4::PacketReplicationEngineEntry) -> Result<Entity, EntityError> {
    let replicas = |replicas: &[p4::Replica]| {
        let replicas = replicas.iter().map(decode_replica);
        replicas.collect::<Result<Vec<_>, _>>()
    };
    match message.r#type.as_ref() {
        Some(Replication::MulticastGroupEntry(entry)) => {
            if entry.multicast_group_id == 0 {
                return Err(EntityError::Number {
                    what: "multicast group 0 means all groups; its number",
                });
            }
            Ok(Entity::MulticastGroup(MulticastGroup {
                group: entry.multicast_group_id,
                replicas: replicas(&entry.replicas)?,
                metadata: entry.metadata.clone(),
            }))
        }
        Some(Replication::CloneSessionEntry(entry)) => {
            if entry.session_id == 0 {
                return Err(EntityError::Number {
                    what: "clone session 0 means all sessions; its number",
                });
            }
            Ok(Entity::CloneSession(CloneSession {
                session: entry.session_id,
                replicas: replicas(&entry.replicas)?,
                class_of_service: entry.class_of_service,
                packet_length_bytes: u32::try_from(entry.packet_length_bytes).map_err(|_| {
                    EntityError::Number {
                        what: "packet_length_bytes",
                    }
                })?,
            }))
        }
        None => Err(EntityError::Missing {
            what: "the kind of a packet replication entry",
        }),
    }
}

fn refuse_colours(colours: Option<&p4::MeterCounterData>) -> Result<(), EntityError> {
    match colours {
        None => Ok(()),
        Some(_) => Err(EntityError::Unsupported {
            construct: "a counter for each colour of a meter",
        }),
    }
}
