//! Table entries and default actions.

use std::collections::HashSet;

use super::super::Pipeline;
use super::super::arrays::Meter;
use super::super::table::{Choice, Description, MAX_METADATA, Resolved, canonical};
use super::{CallError, resolve_call};
use crate::program::control::Table;
use crate::runtime::{
    ActionCall, CounterData, EntryAction, EntryKey, EntryRef, EntryState, MeterConfig,
    OneShotAction, TableEntry, TableError,
};
use crate::{Program, Timestamp};

/// The largest sum of weights of a one-shot entry.
const MAX_ONE_SHOT: usize = 4096;

/// # Tables
impl Pipeline {
    /// Adds an entry.
    ///
    /// # Errors
    ///
    /// If there is an entry with this key, the table is full or constant, or the entry does not fit it.
    pub fn insert_entry(
        &mut self,
        table: &str,
        entry: TableEntry,
        now: Timestamp,
    ) -> Result<(), TableError> {
        let index = self.table_index(table)?;
        self.check_changeable(index)?;
        self.insert(index, entry, false, now)
    }

    /// Replaces action, idle timeout and metadata of an entry; its counter and meter stay.
    ///
    /// # Errors
    ///
    /// If there is no entry with this key, the table is constant, or the entry does not fit it.
    pub fn modify_entry(
        &mut self,
        table: &str,
        entry: TableEntry,
        now: Timestamp,
    ) -> Result<(), TableError> {
        let index = self.table_index(table)?;
        self.check_changeable(index)?;
        let key = canonical(&self.program.tables[index], &entry.key)?;
        self.check_entry(index, &entry)?;
        let resolved = self.resolve(index, &entry.action)?;
        let position = self.position(index, &key)?;
        let entry = TableEntry { key, ..entry };
        self.use_profile(index, &entry.action, true);
        let state = &mut self.state.tables[index];
        state.entries[position].resolved = resolved;
        state.entries[position].last_hit = now;
        state.with_timeout += usize::from(entry.idle_timeout.is_some());
        let description = Description {
            entry,
            is_const: false,
            idle_notified: false,
        };
        let before = state.descriptions[position].replace(description);
        if let Some(before) = before {
            state.with_timeout -= usize::from(before.entry.idle_timeout.is_some());
            self.use_profile(index, &before.entry.action, false);
        }
        Ok(())
    }

    /// Removes an entry.
    ///
    /// # Errors
    ///
    /// If there is no entry with this key or the table is constant.
    pub fn delete_entry(&mut self, table: &str, key: &EntryKey) -> Result<(), TableError> {
        let index = self.table_index(table)?;
        self.check_changeable(index)?;
        let key = canonical(&self.program.tables[index], key)?;
        let removed = self.state.tables[index].remove(&self.program.tables[index], &key);
        let removed = removed.ok_or_else(|| TableError::EntryUnknown {
            table: table.to_owned(),
        })?;
        self.use_profile(index, &removed.action, false);
        Ok(())
    }

    /// The entry with this key.
    ///
    /// # Errors
    ///
    /// If there is none, or the key does not fit the table.
    pub fn entry(&self, table: &str, key: &EntryKey) -> Result<EntryState, TableError> {
        let index = self.table_index(table)?;
        let key = canonical(&self.program.tables[index], key)?;
        let position = self.position(index, &key)?;
        self.entry_at(index, position)
            .ok_or_else(|| TableError::EntryUnknown {
                table: table.to_owned(),
            })
    }

    /// All entries but the default entry, in no particular order.
    ///
    /// # Errors
    ///
    /// If there is no such table.
    pub fn entries(&self, table: &str) -> Result<Vec<EntryState>, TableError> {
        let index = self.table_index(table)?;
        let positions = 0..self.state.tables[index].entries.len();
        Ok(positions
            .filter_map(|position| self.entry_at(index, position))
            .collect())
    }

    /// What is done if nothing matches, with the counter of such packets if the table has direct
    /// counters; `None` as action if nothing is done (tables with a profile, until one is set).
    ///
    /// # Errors
    ///
    /// If there is no such table.
    pub fn default_entry(
        &self,
        table: &str,
    ) -> Result<(Option<EntryAction>, Option<CounterData>), TableError> {
        let index = self.table_index(table)?;
        let state = &self.state.tables[index];
        let action = state.default.as_ref().map(|(action, _)| action.clone());
        let has_counters = self.program.tables[index].with_counters;
        Ok((action, has_counters.then_some(state.default_counter)))
    }

    /// Sets what is done if nothing matches.
    ///
    /// # Errors
    ///
    /// If the program fixes it, or the action does not fit the table.
    pub fn set_default_entry(
        &mut self,
        table: &str,
        action: EntryAction,
    ) -> Result<(), TableError> {
        let index = self.table_index(table)?;
        if self.program.tables[index].default_is_const {
            let what = "its default action cannot be changed";
            return Err(TableError::Constant {
                table: table.to_owned(),
                what,
            });
        }
        let resolved = self.resolve(index, &action)?;
        self.use_profile(index, &action, true);
        let before = self.state.tables[index].default.replace((action, resolved));
        if let Some((before, _)) = before {
            self.use_profile(index, &before, false);
        }
        Ok(())
    }

    /// Does again what the program says if nothing matches.
    ///
    /// # Errors
    ///
    /// If there is no such table.
    pub fn reset_default_entry(&mut self, table: &str) -> Result<(), TableError> {
        let index = self.table_index(table)?;
        let before = self.state.tables[index].default.take();
        if let Some((before, _)) = before {
            self.use_profile(index, &before, false);
        }
        if let Some(call) = self.program.tables[index].default.clone() {
            let action = EntryAction::Call(call);
            let resolved = self.resolve(index, &action)?;
            self.state.tables[index].default = Some((action, resolved));
        }
        Ok(())
    }

    /// Sets an entry's direct counter.
    ///
    /// # Errors
    ///
    /// If there is no such entry, or the table has no direct counters.
    pub fn write_direct_counter(
        &mut self,
        table: &str,
        entry: EntryRef<'_>,
        data: CounterData,
    ) -> Result<(), TableError> {
        let index = self.table_index(table)?;
        if !self.program.tables[index].with_counters {
            return Err(TableError::NoDirect {
                table: table.to_owned(),
                what: "counters",
            });
        }
        match entry {
            EntryRef::Default => self.state.tables[index].default_counter = data,
            EntryRef::Key(key) => {
                let key = canonical(&self.program.tables[index], key)?;
                let position = self.position(index, &key)?;
                self.state.tables[index].entries[position].counter = data;
            }
        }
        Ok(())
    }

    /// Configures an entry's direct meter; `None` lets everything pass as green. Packets that match no
    /// entry are not metered, as on bmv2.
    ///
    /// # Errors
    ///
    /// If there is no such entry, the table has no direct meters, or the rates make no sense.
    pub fn write_direct_meter(
        &mut self,
        table: &str,
        entry: EntryRef<'_>,
        config: Option<MeterConfig>,
        now: Timestamp,
    ) -> Result<(), TableError> {
        let index = self.table_index(table)?;
        let no_direct = |what| TableError::NoDirect {
            table: table.to_owned(),
            what,
        };
        if self.program.tables[index].direct_meter.is_none() {
            return Err(no_direct("meters"));
        }
        let EntryRef::Key(key) = entry else {
            return Err(no_direct("meter for packets that match nothing"));
        };
        if config
            .as_ref()
            .is_some_and(|config| !Meter::is_valid(config))
        {
            return Err(no_direct(
                "meters of such rates: not negative, and the peak not below",
            ));
        }
        let key = canonical(&self.program.tables[index], key)?;
        let position = self.position(index, &key)?;
        let meter = config.map(|config| Box::new(Meter::new(config, now)));
        self.state.tables[index].entries[position].meter = meter;
        Ok(())
    }

    /// Adds the entries and default actions that are part of the program.
    pub(in super::super) fn add_program_entries(&mut self) {
        let program = std::sync::Arc::clone(&self.program);
        for (index, table) in program.tables.iter().enumerate() {
            if let Some(call) = &table.default {
                let action = EntryAction::Call(call.clone());
                if let Ok(resolved) = self.resolve(index, &action) {
                    self.state.tables[index].default = Some((action, resolved));
                }
            }
            for (key, call) in &table.entries {
                let entry = TableEntry {
                    key: key.clone(),
                    action: EntryAction::Call(call.clone()),
                    idle_timeout: None,
                    metadata: Vec::new(),
                };
                let inserted = self.insert(index, entry, true, Timestamp::ZERO);
                debug_assert_eq!(inserted, Ok(()), "the loader checked the program's entries");
            }
        }
    }

    fn insert(
        &mut self,
        index: usize,
        entry: TableEntry,
        is_const: bool,
        now: Timestamp,
    ) -> Result<(), TableError> {
        let table = &self.program.tables[index];
        let key = canonical(table, &entry.key)?;
        self.check_entry(index, &entry)?;
        let state = &self.state.tables[index];
        if state.find(&key).is_some() {
            return Err(TableError::EntryExists {
                table: table.name.clone(),
            });
        }
        if state.len() >= table.max_size && !is_const {
            let (table, capacity) = (table.name.clone(), table.max_size);
            return Err(TableError::Full { table, capacity });
        }
        let resolved = self.resolve(index, &entry.action)?;
        self.use_profile(index, &entry.action, true);
        let entry = TableEntry { key, ..entry };
        let description = Description {
            entry,
            is_const,
            idle_notified: false,
        };
        let table = &self.program.tables[index];
        self.state.tables[index].insert(table, description, resolved, now);
        Ok(())
    }

    fn table_index(&self, name: &str) -> Result<usize, TableError> {
        let mut tables = self.program.tables.iter();
        tables
            .position(|table| table.name == name)
            .ok_or_else(|| TableError::TableUnknown {
                table: name.to_owned(),
            })
    }

    fn position(&self, index: usize, key: &EntryKey) -> Result<usize, TableError> {
        let position = self.state.tables[index]
            .find(key)
            .map(|position| position as usize);
        let table = &self.program.tables[index];
        position.ok_or_else(|| TableError::EntryUnknown {
            table: table.name.clone(),
        })
    }

    fn entry_at(&self, index: usize, position: usize) -> Option<EntryState> {
        let table = &self.program.tables[index];
        let state = &self.state.tables[index];
        let description = state.descriptions.get(position)?.as_ref()?;
        let entry = state.entries.get(position)?;
        Some(EntryState {
            entry: description.entry.clone(),
            is_const: description.is_const,
            counter: table.with_counters.then_some(entry.counter),
            meter: entry.meter.as_ref().map(|meter| meter.config),
            last_hit: entry.last_hit,
        })
    }

    fn check_changeable(&self, index: usize) -> Result<(), TableError> {
        let table = &self.program.tables[index];
        if table.entries_are_const {
            let what = "its entries cannot be changed";
            return Err(TableError::Constant {
                table: table.name.clone(),
                what,
            });
        }
        Ok(())
    }

    fn check_entry(&self, index: usize, entry: &TableEntry) -> Result<(), TableError> {
        let table = &self.program.tables[index];
        if entry.idle_timeout.is_some() && !table.supports_timeout {
            return Err(TableError::TimeoutUnsupported {
                table: table.name.clone(),
            });
        }
        if entry.metadata.len() > MAX_METADATA {
            return Err(TableError::MetadataTooLong {
                table: table.name.clone(),
                given: entry.metadata.len(),
                limit: MAX_METADATA,
            });
        }
        Ok(())
    }

    fn resolve(&self, index: usize, action: &EntryAction) -> Result<Resolved, TableError> {
        let table = &self.program.tables[index];
        let wrong = |what| TableError::Implementation {
            table: table.name.clone(),
            what,
        };
        match (action, table.profile) {
            (EntryAction::Call(call), None) => resolve_action(&self.program, table, call),
            (EntryAction::Call(_), Some(_)) => Err(wrong(
                "it takes its actions from a profile; give a member or a group",
            )),
            (_, None) => Err(wrong("it has no action profile; give an action")),
            (EntryAction::Member(member), Some(profile)) => {
                if !self.state.profiles[usize::from(profile)]
                    .members
                    .contains_key(member)
                {
                    let table = table.name.clone();
                    return Err(TableError::MemberUnknown {
                        table,
                        member: *member,
                    });
                }
                Ok(Resolved::Member(*member))
            }
            (EntryAction::Group(group), Some(profile)) => {
                if !self.state.profiles[usize::from(profile)]
                    .groups
                    .contains_key(group)
                {
                    let table = table.name.clone();
                    return Err(TableError::GroupUnknown {
                        table,
                        group: *group,
                    });
                }
                Ok(Resolved::Group(*group))
            }
            (EntryAction::OneShot(actions), Some(profile)) => {
                if self.program.profiles[usize::from(profile)]
                    .selector
                    .is_none()
                {
                    return Err(wrong("its action profile has no selector"));
                }
                self.resolve_one_shot(table, actions)
            }
        }
    }

    fn resolve_one_shot(
        &self,
        table: &Table,
        actions: &[OneShotAction],
    ) -> Result<Resolved, TableError> {
        let total: usize = actions.iter().map(|action| action.weight as usize).sum();
        let has_zero = actions.iter().any(|action| action.weight == 0);
        if has_zero || !(1..=MAX_ONE_SHOT).contains(&total) {
            let table = table.name.clone();
            return Err(TableError::OneShot {
                table,
                limit: MAX_ONE_SHOT,
            });
        }
        let mut choice = Choice::default();
        for action in actions {
            let resolved = (
                resolve_action(&self.program, table, &action.call)?,
                action.watch_port,
            );
            choice
                .actions
                .extend(std::iter::repeat_n(resolved, action.weight as usize));
        }
        choice.refresh(|port| !self.state.ports_down.contains(&port));
        Ok(Resolved::OneShot(Box::new(choice)))
    }

    /// Counts a use of a member or group, or one less.
    fn use_profile(&mut self, index: usize, action: &EntryAction, more: bool) {
        let Some(profile) = self.program.tables[index].profile else {
            return;
        };
        let profile = &mut self.state.profiles[usize::from(profile)];
        let uses = match action {
            EntryAction::Member(member) => profile
                .members
                .get_mut(member)
                .map(|member| &mut member.entries),
            EntryAction::Group(group) => profile
                .groups
                .get_mut(group)
                .map(|group| &mut group.entries),
            EntryAction::Call(_) | EntryAction::OneShot(_) => None,
        };
        if let Some(uses) = uses {
            *uses = if more {
                *uses + 1
            } else {
                uses.saturating_sub(1)
            };
        }
    }
}

/// Checks the entries and default actions that are part of a program; yields the table's name with the
/// error.
pub(crate) fn check_program_entries(program: &Program) -> Result<(), (String, TableError)> {
    for table in &program.tables {
        let explain = |error| (table.name.clone(), error);
        let mut keys = HashSet::new();
        if table.profile.is_some() && !(table.entries.is_empty() && table.default.is_none()) {
            let what = "entries of the program for a table with an action profile";
            return Err(explain(TableError::Implementation {
                table: table.name.clone(),
                what,
            }));
        }
        if let Some(call) = &table.default {
            resolve_action(program, table, call).map_err(explain)?;
        }
        for (key, call) in &table.entries {
            if !keys.insert(canonical(table, key).map_err(explain)?) {
                return Err(explain(TableError::EntryExists {
                    table: table.name.clone(),
                }));
            }
            resolve_action(program, table, call).map_err(explain)?;
        }
    }
    Ok(())
}

fn resolve_action(
    program: &Program,
    table: &Table,
    call: &ActionCall,
) -> Result<Resolved, TableError> {
    let allowed = table.actions.iter().map(|(action, _)| *action);
    let (action, arguments) = resolve_call(program, allowed, call).map_err(|error| {
        let (table, action) = (table.name.clone(), call.action.clone());
        match error {
            CallError::Unknown => TableError::ActionUnknown { table, action },
            CallError::Count { expected } => {
                let given = call.arguments.len();
                TableError::ArgumentCount {
                    table,
                    action,
                    expected,
                    given,
                }
            }
            CallError::Width { parameter, width } => TableError::ArgumentWidth {
                table,
                action,
                parameter,
                width,
            },
        }
    })?;
    let next = table.actions.iter().find(|(other, _)| *other == action);
    let next = next.map_or(table.otherwise, |(_, next)| *next);
    Ok(Resolved::Action {
        action,
        next,
        arguments,
    })
}
