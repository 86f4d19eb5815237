//! An action profile's members and groups.

use std::collections::{BTreeMap, BTreeSet};

use super::table::{Choice, Resolved};
use crate::runtime::{ActionCall, Group, GroupMember};

/// The state of one action profile.
#[derive(Debug, Default)]
pub(super) struct ProfileState {
    pub(super) members: BTreeMap<u32, Member>,
    pub(super) groups: BTreeMap<u32, GroupState>,
    /// Handles of removed members; the smallest is taken first.
    free_handles: BTreeSet<u32>,
    next_handle: u32,
}

/// A member.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) call: ActionCall,
    pub(super) action: u16,
    pub(super) arguments: Box<[u64]>,
    /// Groups are in the order of handles, as on bmv2.
    handle: u32,
    /// Entries that use it; groups are looked through.
    pub(super) entries: usize,
}

/// A group.
#[derive(Debug)]
pub(super) struct GroupState {
    pub(super) group: Group,
    /// Its members, each as often as its weight, in the order of their handles.
    pub(super) choice: Choice,
    pub(super) entries: usize,
}

impl ProfileState {
    pub(super) fn insert_member(
        &mut self,
        id: u32,
        call: ActionCall,
        action: u16,
        arguments: Box<[u64]>,
    ) {
        let handle = match self.free_handles.pop_first() {
            Some(handle) => handle,
            None => {
                self.next_handle += 1;
                self.next_handle - 1
            }
        };
        self.members.insert(
            id,
            Member {
                call,
                action,
                arguments,
                handle,
                entries: 0,
            },
        );
    }

    pub(super) fn remove_member(&mut self, id: u32) {
        if let Some(member) = self.members.remove(&id) {
            self.free_handles.insert(member.handle);
        }
    }

    /// Whether a group has the member.
    pub(super) fn is_in_group(&self, id: u32) -> bool {
        let mut members = self.groups.values().flat_map(|group| &group.group.members);
        members.any(|member| member.member == id)
    }

    /// The members as a choice; all of them must be there.
    pub(super) fn choice(&self, members: &[GroupMember], is_up: impl Fn(u16) -> bool) -> Choice {
        let handle =
            |member: &&GroupMember| self.members.get(&member.member).map(|member| member.handle);
        let mut sorted: Vec<_> = members.iter().collect();
        sorted.sort_by_key(handle);
        let repeated = sorted.into_iter().flat_map(|member| {
            let action = (Resolved::Member(member.member), member.watch_port);
            std::iter::repeat_n(action, member.weight as usize)
        });
        let mut choice = Choice {
            actions: repeated.collect(),
            active: Vec::new(),
        };
        choice.refresh(is_up);
        choice
    }
}
