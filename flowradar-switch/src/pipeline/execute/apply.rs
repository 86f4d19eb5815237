//! Applying tables.

use super::super::table::Resolved;
use super::Machine;
use crate::program::op::{Label, ones};

impl Machine<'_> {
    /// Applies a table; yields the action's code, if any, and where to go on.
    #[inline]
    pub(super) fn apply(&mut self, index: u16) -> (Option<Label>, Label) {
        let table = &self.program.tables[usize::from(index)];
        let state = &mut self.state.tables[usize::from(index)];
        let hit = state.lookup(table, self.slots);
        let (resolved, is_hit) = match hit {
            Some(entry) => {
                let entry = &mut state.entries[entry as usize];
                entry.last_hit = self.now;
                if table.with_counters {
                    entry.counter.packets += 1;
                    entry.counter.bytes += self.frame.ingress_length;
                }
                if let Some(meter) = table.direct_meter {
                    let meter = &self.program.objects.meters[usize::from(meter)];
                    let cost = if meter.counts_bytes {
                        self.frame.ingress_length
                    } else {
                        1
                    };
                    let color = entry
                        .meter
                        .as_mut()
                        .map_or(0, |state| state.execute(cost, self.now) as u64);
                    if let Some(target) = &meter.target {
                        self.slots[usize::from(target.slot)] = color & ones(target.bits);
                    }
                }
                (&entry.resolved, true)
            }
            None => {
                if table.with_counters {
                    state.default_counter.packets += 1;
                    state.default_counter.bytes += self.frame.ingress_length;
                }
                match &state.default {
                    Some((_, resolved)) => (resolved, false),
                    None => (&Resolved::Nothing, false),
                }
            }
        };
        let special = if is_hit { table.on_hit } else { table.on_miss };
        if let Resolved::Action {
            action,
            next,
            arguments,
        } = resolved
        {
            let action = &self.program.actions[usize::from(*action)];
            let first = usize::from(action.first_argument);
            if let Some(slots) = self.slots.get_mut(first..first + arguments.len()) {
                slots.copy_from_slice(arguments);
            }
            return (Some(action.start), special.unwrap_or(*next));
        }
        if matches!(resolved, Resolved::Nothing) {
            return (None, special.unwrap_or(table.otherwise));
        }
        let resolved = resolved.clone();
        self.apply_indirect(index, &resolved, special)
    }

    /// Applies a table whose action comes from a profile.
    fn apply_indirect(
        &mut self,
        index: u16,
        resolved: &Resolved,
        special: Option<Label>,
    ) -> (Option<Label>, Label) {
        let table = &self.program.tables[usize::from(index)];
        let nothing = (None, special.unwrap_or(table.otherwise));
        let Some(profile_index) = table.profile.map(usize::from) else {
            return nothing;
        };
        let hash = match resolved {
            Resolved::Group(_) | Resolved::OneShot(_) => {
                let selector = self.program.profiles[profile_index].selector;
                selector.map_or(0, |calculation| self.hash(calculation))
            }
            _ => 0,
        };
        let profile = &self.state.profiles[profile_index];
        let chosen = match resolved {
            Resolved::Group(group) => profile
                .groups
                .get(group)
                .and_then(|group| group.choice.choose(hash)),
            Resolved::OneShot(choice) => choice.choose(hash),
            other => Some(other),
        };
        let (action, arguments) = match chosen {
            Some(Resolved::Member(member)) => match profile.members.get(member) {
                Some(member) => (member.action, &member.arguments),
                None => return nothing,
            },
            Some(Resolved::Action {
                action, arguments, ..
            }) => (*action, arguments),
            _ => {
                self.state.counters.empty_groups += 1;
                return nothing;
            }
        };
        let next = table.actions.iter().find(|(other, _)| *other == action);
        let next = next.map_or(table.otherwise, |(_, next)| *next);
        let action = &self.program.actions[usize::from(action)];
        let first = usize::from(action.first_argument);
        if let Some(slots) = self.slots.get_mut(first..first + arguments.len()) {
            slots.copy_from_slice(arguments);
        }
        (Some(action.start), special.unwrap_or(next))
    }
}
