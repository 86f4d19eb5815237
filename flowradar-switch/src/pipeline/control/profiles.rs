//! Action profiles.

use super::super::Pipeline;
use super::super::profile::GroupState;
use super::{CallError, resolve_call};
use crate::runtime::{ActionCall, Group, ProfileError};

/// # Action profiles
impl Pipeline {
    /// Adds a member.
    ///
    /// # Errors
    ///
    /// If it is there already, the profile is full, or none of its tables has the action.
    pub fn insert_member(
        &mut self,
        profile: &str,
        member: u32,
        call: ActionCall,
    ) -> Result<(), ProfileError> {
        let index = self.profile_index(profile)?;
        let (action, arguments) = self.resolve_member(index, &call)?;
        let capacity = self.program.profiles[index].max_size;
        let state = &mut self.state.profiles[index];
        if state.members.contains_key(&member) {
            let profile = profile.to_owned();
            return Err(ProfileError::Exists {
                profile,
                what: "member",
                id: member,
            });
        }
        if state.members.len() >= capacity {
            return Err(ProfileError::Full {
                profile: profile.to_owned(),
                what: "members",
                capacity,
            });
        }
        state.insert_member(member, call, action, arguments);
        Ok(())
    }

    /// Replaces what a member does.
    ///
    /// # Errors
    ///
    /// If it is not there, or none of the profile's tables has the action.
    pub fn modify_member(
        &mut self,
        profile: &str,
        member: u32,
        call: ActionCall,
    ) -> Result<(), ProfileError> {
        let index = self.profile_index(profile)?;
        let (action, arguments) = self.resolve_member(index, &call)?;
        let state = &mut self.state.profiles[index];
        let Some(state) = state.members.get_mut(&member) else {
            let profile = profile.to_owned();
            return Err(ProfileError::Unknown {
                profile,
                what: "member",
                id: member,
            });
        };
        (state.call, state.action, state.arguments) = (call, action, arguments);
        Ok(())
    }

    /// Removes a member that nothing uses.
    ///
    /// # Errors
    ///
    /// If it is not there or still in use.
    pub fn delete_member(&mut self, profile: &str, member: u32) -> Result<(), ProfileError> {
        let index = self.profile_index(profile)?;
        let state = &mut self.state.profiles[index];
        let (profile, what, id) = (profile.to_owned(), "member", member);
        let Some(found) = state.members.get(&member) else {
            return Err(ProfileError::Unknown { profile, what, id });
        };
        if found.entries > 0 || state.is_in_group(member) {
            return Err(ProfileError::InUse { profile, what, id });
        }
        state.remove_member(member);
        Ok(())
    }

    /// All members, by number.
    ///
    /// # Errors
    ///
    /// If there is no such profile.
    pub fn members(&self, profile: &str) -> Result<Vec<(u32, ActionCall)>, ProfileError> {
        let index = self.profile_index(profile)?;
        let members = self.state.profiles[index].members.iter();
        Ok(members
            .map(|(id, member)| (*id, member.call.clone()))
            .collect())
    }

    /// Adds a group.
    ///
    /// # Errors
    ///
    /// If it is there already, the profile has no selector, or a member does not fit.
    pub fn insert_group(
        &mut self,
        profile: &str,
        group: u32,
        content: Group,
    ) -> Result<(), ProfileError> {
        let index = self.profile_index(profile)?;
        self.check_group(index, group, &content)?;
        let state = &mut self.state.profiles[index];
        if state.groups.contains_key(&group) {
            let profile = profile.to_owned();
            return Err(ProfileError::Exists {
                profile,
                what: "group",
                id: group,
            });
        }
        let capacity = self.program.profiles[index].max_size;
        if state.groups.len() >= capacity {
            return Err(ProfileError::Full {
                profile: profile.to_owned(),
                what: "groups",
                capacity,
            });
        }
        let down = &self.state.ports_down;
        let choice = state.choice(&content.members, |port| !down.contains(&port));
        state.groups.insert(
            group,
            GroupState {
                group: content,
                choice,
                entries: 0,
            },
        );
        Ok(())
    }

    /// Replaces a group's members.
    ///
    /// # Errors
    ///
    /// If it is not there, or a member does not fit.
    pub fn modify_group(
        &mut self,
        profile: &str,
        group: u32,
        content: Group,
    ) -> Result<(), ProfileError> {
        let index = self.profile_index(profile)?;
        self.check_group(index, group, &content)?;
        let state = &mut self.state.profiles[index];
        let down = &self.state.ports_down;
        let choice = state.choice(&content.members, |port| !down.contains(&port));
        let Some(found) = state.groups.get_mut(&group) else {
            let profile = profile.to_owned();
            return Err(ProfileError::Unknown {
                profile,
                what: "group",
                id: group,
            });
        };
        (found.group, found.choice) = (content, choice);
        Ok(())
    }

    /// Removes a group that no entry uses.
    ///
    /// # Errors
    ///
    /// If it is not there or still in use.
    pub fn delete_group(&mut self, profile: &str, group: u32) -> Result<(), ProfileError> {
        let index = self.profile_index(profile)?;
        let state = &mut self.state.profiles[index];
        let (profile, what, id) = (profile.to_owned(), "group", group);
        match state.groups.get(&group) {
            None => Err(ProfileError::Unknown { profile, what, id }),
            Some(found) if found.entries > 0 => Err(ProfileError::InUse { profile, what, id }),
            Some(_) => {
                state.groups.remove(&group);
                Ok(())
            }
        }
    }

    /// All groups, by number.
    ///
    /// # Errors
    ///
    /// If there is no such profile.
    pub fn groups(&self, profile: &str) -> Result<Vec<(u32, Group)>, ProfileError> {
        let index = self.profile_index(profile)?;
        let groups = self.state.profiles[index].groups.iter();
        Ok(groups
            .map(|(id, group)| (*id, group.group.clone()))
            .collect())
    }

    /// Says whether a port is up: group members that watch a port are not chosen while it is down.
    pub fn set_port_up(&mut self, port: u16, is_up: bool) {
        let has_changed = if is_up {
            self.state.ports_down.remove(&port)
        } else {
            self.state.ports_down.insert(port)
        };
        if has_changed {
            self.refresh_choices();
        }
    }

    fn profile_index(&self, name: &str) -> Result<usize, ProfileError> {
        let mut profiles = self.program.profiles.iter();
        profiles
            .position(|profile| profile.name == name)
            .ok_or_else(|| ProfileError::ProfileUnknown {
                profile: name.to_owned(),
            })
    }

    fn resolve_member(
        &self,
        index: usize,
        call: &ActionCall,
    ) -> Result<(u16, Box<[u64]>), ProfileError> {
        let profile = &self.program.profiles[index];
        resolve_call(&self.program, profile.actions.iter().copied(), call).map_err(|error| {
            let (profile, action) = (profile.name.clone(), call.action.clone());
            let what = match error {
                CallError::Unknown => return ProfileError::ActionUnknown { profile, action },
                CallError::Count { expected } => {
                    format!(
                        "it takes {expected} arguments, not {}",
                        call.arguments.len()
                    )
                }
                CallError::Width { parameter, width } => {
                    format!("argument {parameter} needs more than its {width} bits")
                }
            };
            ProfileError::Arguments {
                profile,
                action,
                what,
            }
        })
    }

    fn check_group(&self, index: usize, group: u32, content: &Group) -> Result<(), ProfileError> {
        let program = &self.program.profiles[index];
        let profile = || program.name.clone();
        if program.selector.is_none() {
            return Err(ProfileError::NoSelector { profile: profile() });
        }
        let state = &self.state.profiles[index];
        let mut seen = std::collections::HashSet::new();
        let mut total = 0_usize;
        for member in &content.members {
            if !state.members.contains_key(&member.member) {
                let id = member.member;
                return Err(ProfileError::Unknown {
                    profile: profile(),
                    what: "member",
                    id,
                });
            }
            let what = if member.weight == 0 {
                "a member has a weight of zero"
            } else if !seen.insert(member.member) {
                "a member is named twice; give it a larger weight instead"
            } else {
                total = total.saturating_add(member.weight as usize);
                continue;
            };
            return Err(ProfileError::GroupMember {
                profile: profile(),
                group,
                what,
            });
        }
        let capacity = match content.max_size {
            0 => program.max_size,
            limit => (limit as usize).min(program.max_size),
        };
        if total > capacity {
            let what = "members in a group, by weight";
            return Err(ProfileError::Full {
                profile: profile(),
                what,
                capacity,
            });
        }
        Ok(())
    }
}
