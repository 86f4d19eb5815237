//! Making a switch's tables what they shall be.

use std::collections::{BTreeMap, BTreeSet};

use super::{ClientError, ClientErrorReason, Session, Update};
use crate::entity::{ActionProfileGroup, ActionProfileMember, Entity, EntryKey, TableEntry};
use crate::proto::p4::v1 as p4;
use crate::proto::p4::v1::entity::Entity as Message;

/// What was changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReconcileSummary {
    /// Entities that were missing.
    pub inserted: usize,
    /// Entities that were otherwise.
    pub modified: usize,
    /// Entries, groups and members of the tables and profiles concerned that were not wanted.
    pub deleted: usize,
    /// Entities that were as they shall be.
    pub kept: usize,
}

impl Session {
    /// Makes all tables and action profiles that `wanted` names hold just what it says, changing as little
    /// as possible. Multicast groups and clone sessions are written; others are left alone.
    ///
    /// What the program itself put into tables stays.
    ///
    /// # Errors
    ///
    /// As for [`Session::read`] and [`Session::write`].
    pub async fn reconcile(&self, wanted: &[Entity]) -> Result<ReconcileSummary, ClientError> {
        let mut summary = ReconcileSummary::default();
        let wanted = self.with_full_names(wanted)?;
        let wanted = wanted.as_slice();
        let (members_before, groups_before) = self.profiles_of(wanted).await?;
        let entries_before = self.entries_of(wanted).await?;
        let mut before = members_before;
        before.extend(groups_before);
        before.extend(entries_before);

        let before_by_key: BTreeMap<String, &Entity> = before
            .iter()
            .map(|entity| (entity.to_string(), entity))
            .collect();
        let wanted_keys: BTreeSet<String> = wanted.iter().map(Entity::to_string).collect();
        let mut changes = Vec::new();
        let mut replications = Vec::new();
        for entity in wanted {
            if matches!(entity, Entity::MulticastGroup(_) | Entity::CloneSession(_)) {
                replications.push(entity.clone());
                continue;
            }
            match before_by_key.get(&entity.to_string()) {
                Some(existing) if is_same(existing, entity) => summary.kept += 1,
                Some(_) => {
                    summary.modified += 1;
                    changes.push(Update::Modify(entity.clone()));
                }
                // Default entries are always there, whether or not the switch lists them.
                None if is_default(entity) => {
                    summary.modified += 1;
                    changes.push(Update::Modify(entity.clone()));
                }
                None => {
                    summary.inserted += 1;
                    changes.push(Update::Insert(entity.clone()));
                }
            }
        }
        self.write(&changes).await?;

        // Entries before the groups they use, groups before their members.
        let mut stale: Vec<Update> = before
            .iter()
            .rev()
            .filter(|entity| !wanted_keys.contains(&entity.to_string()) && !is_default(entity))
            .map(|entity| Update::Delete(entity.clone()))
            .collect();
        summary.deleted = stale.len();
        stale.sort_by_key(|update| deletion_order(update.entity()));
        self.write(&stale).await?;

        for entity in replications {
            match self.write(&[Update::Insert(entity.clone())]).await {
                Ok(()) => summary.inserted += 1,
                Err(error) if is_there_already(&error) => {
                    self.write(&[Update::Modify(entity)]).await?;
                    summary.modified += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(summary)
    }

    /// Entities as the switch will name them, so that they can be compared.
    fn with_full_names(&self, entities: &[Entity]) -> Result<Vec<Entity>, ClientError> {
        let info = self.info()?;
        let named = entities.iter().map(|entity| {
            let message = info.encode(entity)?;
            info.decode(&message)
        });
        let named: Result<_, crate::entity::EntityError> = named.collect();
        named.map_err(|error| self.error(error))
    }

    async fn entries_of(&self, wanted: &[Entity]) -> Result<Vec<Entity>, ClientError> {
        let tables: BTreeSet<&str> = wanted
            .iter()
            .filter_map(|entity| match entity {
                Entity::Table(entry) => Some(entry.table.as_str()),
                _ => None,
            })
            .collect();
        let mut entries = Vec::new();
        for table in tables {
            let before = self.read_table(Some(table)).await?.into_iter();
            entries.extend(before.filter(|entry| !entry.is_const).map(Entity::Table));
        }
        Ok(entries)
    }

    async fn profiles_of(
        &self,
        wanted: &[Entity],
    ) -> Result<(Vec<Entity>, Vec<Entity>), ClientError> {
        let info = self.info()?;
        let profiles: BTreeSet<&str> = wanted
            .iter()
            .filter_map(|entity| match entity {
                Entity::ActionProfileMember(ActionProfileMember { profile, .. })
                | Entity::ActionProfileGroup(ActionProfileGroup { profile, .. }) => {
                    Some(profile.as_str())
                }
                _ => None,
            })
            .collect();
        let (mut members, mut groups) = (Vec::new(), Vec::new());
        for name in profiles {
            let profile = info.action_profiles().by_name(name);
            let profile =
                profile.map_err(|error| self.error(crate::entity::EntityError::from(error)))?;
            let id = profile.preamble.id;
            let all = p4::Entity {
                entity: Some(Message::ActionProfileMember(p4::ActionProfileMember {
                    action_profile_id: id,
                    ..p4::ActionProfileMember::default()
                })),
            };
            members.extend(self.read(vec![all]).await?);
            if profile.with_selector {
                let all = p4::Entity {
                    entity: Some(Message::ActionProfileGroup(p4::ActionProfileGroup {
                        action_profile_id: id,
                        ..p4::ActionProfileGroup::default()
                    })),
                };
                groups.extend(self.read(vec![all]).await?);
            }
        }
        Ok((members, groups))
    }
}

fn is_default(entity: &Entity) -> bool {
    matches!(
        entity,
        Entity::Table(TableEntry {
            key: EntryKey::Default,
            ..
        })
    )
}

/// Whether two entities of the same key say the same; counters do not matter.
fn is_same(existing: &Entity, wanted: &Entity) -> bool {
    match (existing, wanted) {
        (Entity::Table(existing), Entity::Table(wanted)) => {
            let plain = |entry: &TableEntry| TableEntry {
                counter: None,
                time_since_last_hit: None,
                ..entry.clone()
            };
            plain(existing) == plain(wanted)
        }
        (Entity::ActionProfileGroup(existing), Entity::ActionProfileGroup(wanted)) => {
            let sorted = |group: &ActionProfileGroup| {
                let mut members = group.members.clone();
                members.sort_by_key(|member| member.member);
                members
            };
            // Targets may answer with what zero means.
            let has_size = wanted.max_size == 0 || wanted.max_size == existing.max_size;
            has_size && sorted(existing) == sorted(wanted)
        }
        _ => existing == wanted,
    }
}

fn deletion_order(entity: &Entity) -> u8 {
    match entity {
        Entity::ActionProfileGroup(_) => 1,
        Entity::ActionProfileMember(_) => 2,
        _ => 0,
    }
}

fn is_there_already(error: &ClientError) -> bool {
    let already = |code| code == tonic::Code::AlreadyExists;
    match &*error.reason {
        ClientErrorReason::Updates { failures, .. } => {
            failures.iter().all(|failure| already(failure.code))
        }
        ClientErrorReason::Refused { code, .. } => already(*code),
        _ => false,
    }
}
