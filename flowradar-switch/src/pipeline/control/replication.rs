//! Multicast groups and clone sessions.

use std::collections::{BTreeMap, HashSet};

use super::super::Pipeline;
use crate::runtime::{CloneSession, Replica, ReplicationError};

/// `mcast_grp` has 16 bits.
const LARGEST_GROUP: u32 = 65_535;

/// bmv2 has 15 bits for a session's number.
const LARGEST_SESSION: u32 = 32_767;

/// How many replicas a group or session may have.
const MAX_REPLICAS: usize = 65_536;

const GROUP: &str = "multicast group";
const SESSION: &str = "clone session";

/// # Packet replication
impl Pipeline {
    /// Adds a multicast group.
    ///
    /// # Errors
    ///
    /// If it is there already, or number or replicas are out of range.
    pub fn insert_multicast_group(
        &mut self,
        group: u32,
        replicas: Vec<Replica>,
    ) -> Result<(), ReplicationError> {
        check(GROUP, group, LARGEST_GROUP, &replicas)?;
        insert(&mut self.state.multicast_groups, GROUP, group, replicas)
    }

    /// Replaces a multicast group's replicas.
    ///
    /// # Errors
    ///
    /// If it is not there, or the replicas are out of range.
    pub fn modify_multicast_group(
        &mut self,
        group: u32,
        replicas: Vec<Replica>,
    ) -> Result<(), ReplicationError> {
        check(GROUP, group, LARGEST_GROUP, &replicas)?;
        modify(&mut self.state.multicast_groups, GROUP, group, replicas)
    }

    /// Removes a multicast group.
    ///
    /// # Errors
    ///
    /// If it is not there.
    pub fn delete_multicast_group(&mut self, group: u32) -> Result<(), ReplicationError> {
        let removed = self.state.multicast_groups.remove(&group);
        removed.map(|_| ()).ok_or(ReplicationError::Unknown {
            what: GROUP,
            id: group,
        })
    }

    /// All multicast groups, by number.
    pub fn multicast_groups(&self) -> impl Iterator<Item = (u32, &[Replica])> {
        self.state
            .multicast_groups
            .iter()
            .map(|(group, replicas)| (*group, replicas.as_slice()))
    }

    /// Adds a clone session.
    ///
    /// # Errors
    ///
    /// If it is there already, or number or replicas are out of range.
    pub fn insert_clone_session(
        &mut self,
        session: u32,
        content: CloneSession,
    ) -> Result<(), ReplicationError> {
        check(SESSION, session, LARGEST_SESSION, &content.replicas)?;
        insert(&mut self.state.clone_sessions, SESSION, session, content)
    }

    /// Replaces a clone session.
    ///
    /// # Errors
    ///
    /// If it is not there, or the replicas are out of range.
    pub fn modify_clone_session(
        &mut self,
        session: u32,
        content: CloneSession,
    ) -> Result<(), ReplicationError> {
        check(SESSION, session, LARGEST_SESSION, &content.replicas)?;
        modify(&mut self.state.clone_sessions, SESSION, session, content)
    }

    /// Removes a clone session.
    ///
    /// # Errors
    ///
    /// If it is not there.
    pub fn delete_clone_session(&mut self, session: u32) -> Result<(), ReplicationError> {
        let removed = self.state.clone_sessions.remove(&session);
        removed.map(|_| ()).ok_or(ReplicationError::Unknown {
            what: SESSION,
            id: session,
        })
    }

    /// All clone sessions, by number.
    pub fn clone_sessions(&self) -> impl Iterator<Item = (u32, &CloneSession)> {
        self.state
            .clone_sessions
            .iter()
            .map(|(session, content)| (*session, content))
    }
}

fn check(
    what: &'static str,
    id: u32,
    largest: u32,
    replicas: &[Replica],
) -> Result<(), ReplicationError> {
    if id == 0 || id > largest {
        return Err(ReplicationError::IdRange { what, id, largest });
    }
    if replicas.len() > MAX_REPLICAS {
        return Err(ReplicationError::Full {
            what: "replicas",
            capacity: MAX_REPLICAS,
        });
    }
    let mut seen = HashSet::new();
    if !replicas.iter().all(|replica| seen.insert(replica)) {
        return Err(ReplicationError::ReplicaTwice { what, id });
    }
    Ok(())
}

fn insert<T>(
    all: &mut BTreeMap<u32, T>,
    what: &'static str,
    id: u32,
    content: T,
) -> Result<(), ReplicationError> {
    if all.contains_key(&id) {
        return Err(ReplicationError::Exists { what, id });
    }
    all.insert(id, content);
    Ok(())
}

fn modify<T>(
    all: &mut BTreeMap<u32, T>,
    what: &'static str,
    id: u32,
    content: T,
) -> Result<(), ReplicationError> {
    match all.get_mut(&id) {
        Some(found) => {
            *found = content;
            Ok(())
        }
        None => Err(ReplicationError::Unknown { what, id }),
    }
}
