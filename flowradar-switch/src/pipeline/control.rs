//! The control plane's operations.

use std::ops::Range;

use super::Pipeline;
use crate::runtime::{
    ActionCall, ArrayError, CloneSession, CounterData, DigestConfig, DigestError, EntryAction,
    EntryKey, EntryRef, EntryState, Group, MeterConfig, ProfileError, Replica, ReplicationError,
    TableEntry, TableError, ValueSetError,
};
use crate::{Timestamp, Value};

/// # Tables
impl Pipeline {
    /// Adds an entry.
    pub fn insert_entry(
        &mut self,
        table: &str,
        entry: TableEntry,
        now: Timestamp,
    ) -> Result<(), TableError> {
        let _ = (table, entry, now);
        todo!()
    }

    /// Replaces action, idle timeout and metadata of an entry; its counter and meter stay.
    pub fn modify_entry(
        &mut self,
        table: &str,
        entry: TableEntry,
        now: Timestamp,
    ) -> Result<(), TableError> {
        let _ = (table, entry, now);
        todo!()
    }

    /// Removes an entry.
    pub fn delete_entry(&mut self, table: &str, key: &EntryKey) -> Result<(), TableError> {
        let _ = (table, key);
        todo!()
    }

    /// The entry with this key.
    pub fn entry(&self, table: &str, key: &EntryKey) -> Result<EntryState, TableError> {
        let _ = (table, key);
        todo!()
    }

    /// All entries but the default entry, in no particular order.
    pub fn entries(&self, table: &str) -> Result<Vec<EntryState>, TableError> {
        let _ = table;
        todo!()
    }

    /// What is done if nothing matches, with the counter of such packets if the table has direct
    /// counters; `None` as action if nothing is done (tables with a profile, until one is set).
    pub fn default_entry(
        &self,
        table: &str,
    ) -> Result<(Option<EntryAction>, Option<CounterData>), TableError> {
        let _ = table;
        todo!()
    }

    /// Sets what is done if nothing matches.
    pub fn set_default_entry(
        &mut self,
        table: &str,
        action: EntryAction,
    ) -> Result<(), TableError> {
        let _ = (table, action);
        todo!()
    }

    /// Does again what the program says if nothing matches.
    pub fn reset_default_entry(&mut self, table: &str) -> Result<(), TableError> {
        let _ = table;
        todo!()
    }

    /// Sets an entry's direct counter.
    pub fn write_direct_counter(
        &mut self,
        table: &str,
        entry: EntryRef<'_>,
        data: CounterData,
    ) -> Result<(), TableError> {
        let _ = (table, entry, data);
        todo!()
    }

    /// Configures an entry's direct meter; `None` lets everything pass as green.
    pub fn write_direct_meter(
        &mut self,
        table: &str,
        entry: EntryRef<'_>,
        config: Option<MeterConfig>,
        now: Timestamp,
    ) -> Result<(), TableError> {
        let _ = (table, entry, config, now);
        todo!()
    }
}

/// # Action profiles
impl Pipeline {
    /// Adds a member.
    pub fn insert_member(
        &mut self,
        profile: &str,
        member: u32,
        call: ActionCall,
    ) -> Result<(), ProfileError> {
        let _ = (profile, member, call);
        todo!()
    }

    /// Replaces what a member does.
    pub fn modify_member(
        &mut self,
        profile: &str,
        member: u32,
        call: ActionCall,
    ) -> Result<(), ProfileError> {
        let _ = (profile, member, call);
        todo!()
    }

    /// Removes a member that nothing uses.
    pub fn delete_member(&mut self, profile: &str, member: u32) -> Result<(), ProfileError> {
        let _ = (profile, member);
        todo!()
    }

    /// All members, by number.
    pub fn members(&self, profile: &str) -> Result<Vec<(u32, ActionCall)>, ProfileError> {
        let _ = profile;
        todo!()
    }

    /// Adds a group.
    pub fn insert_group(
        &mut self,
        profile: &str,
        group: u32,
        content: Group,
    ) -> Result<(), ProfileError> {
        let _ = (profile, group, content);
        todo!()
    }

    /// Replaces a group's members.
    pub fn modify_group(
        &mut self,
        profile: &str,
        group: u32,
        content: Group,
    ) -> Result<(), ProfileError> {
        let _ = (profile, group, content);
        todo!()
    }

    /// Removes a group that no entry uses.
    pub fn delete_group(&mut self, profile: &str, group: u32) -> Result<(), ProfileError> {
        let _ = (profile, group);
        todo!()
    }

    /// All groups, by number.
    pub fn groups(&self, profile: &str) -> Result<Vec<(u32, Group)>, ProfileError> {
        let _ = profile;
        todo!()
    }

    /// Says whether a port is up: group members that watch a port are not chosen while it is down.
    pub fn set_port_up(&mut self, port: u16, is_up: bool) {
        let _ = (port, is_up);
        todo!()
    }
}

/// # Counters, meters, registers
impl Pipeline {
    /// One cell of an indirect counter.
    pub fn read_counter(&self, counter: &str, index: usize) -> Result<CounterData, ArrayError> {
        let _ = (counter, index);
        todo!()
    }

    /// All cells of an indirect counter.
    pub fn read_counters(&self, counter: &str) -> Result<&[CounterData], ArrayError> {
        let _ = counter;
        todo!()
    }

    /// Sets one cell of an indirect counter.
    pub fn write_counter(
        &mut self,
        counter: &str,
        index: usize,
        data: CounterData,
    ) -> Result<(), ArrayError> {
        let _ = (counter, index, data);
        todo!()
    }

    /// The configuration of one cell of an indirect meter; `None` if there is none.
    pub fn read_meter(&self, meter: &str, index: usize) -> Result<Option<MeterConfig>, ArrayError> {
        let _ = (meter, index);
        todo!()
    }

    /// How many cells an indirect meter has.
    pub fn meter_size(&self, meter: &str) -> Result<usize, ArrayError> {
        let _ = meter;
        todo!()
    }

    /// Configures one cell of an indirect meter; `None` lets everything pass as green.
    pub fn write_meter(
        &mut self,
        meter: &str,
        index: usize,
        config: Option<MeterConfig>,
        now: Timestamp,
    ) -> Result<(), ArrayError> {
        let _ = (meter, index, config, now);
        todo!()
    }

    /// How many cells a register has.
    pub fn register_size(&self, register: &str) -> Result<usize, ArrayError> {
        let _ = register;
        todo!()
    }

    /// The cells of a register within a range.
    pub fn read_registers(
        &self,
        register: &str,
        cells: Range<usize>,
    ) -> Result<Vec<Value>, ArrayError> {
        let _ = (register, cells);
        todo!()
    }

    /// Sets one cell of a register.
    pub fn write_register(
        &mut self,
        register: &str,
        index: usize,
        value: &Value,
    ) -> Result<(), ArrayError> {
        let _ = (register, index, value);
        todo!()
    }

    /// Sets all cells of a register.
    pub fn fill_register(&mut self, register: &str, value: &Value) -> Result<(), ArrayError> {
        let _ = (register, value);
        todo!()
    }
}

/// # Packet replication
impl Pipeline {
    /// Adds a multicast group.
    pub fn insert_multicast_group(
        &mut self,
        group: u32,
        replicas: Vec<Replica>,
    ) -> Result<(), ReplicationError> {
        let _ = (group, replicas);
        todo!()
    }

    /// Replaces a multicast group's replicas.
    pub fn modify_multicast_group(
        &mut self,
        group: u32,
        replicas: Vec<Replica>,
    ) -> Result<(), ReplicationError> {
        let _ = (group, replicas);
        todo!()
    }

    /// Removes a multicast group.
    pub fn delete_multicast_group(&mut self, group: u32) -> Result<(), ReplicationError> {
        let _ = group;
        todo!()
    }

    /// All multicast groups, by number.
    pub fn multicast_groups(&self) -> impl Iterator<Item = (u32, &[Replica])> {
        std::iter::empty()
    }

    /// Adds a clone session.
    pub fn insert_clone_session(
        &mut self,
        session: u32,
        content: CloneSession,
    ) -> Result<(), ReplicationError> {
        let _ = (session, content);
        todo!()
    }

    /// Replaces a clone session.
    pub fn modify_clone_session(
        &mut self,
        session: u32,
        content: CloneSession,
    ) -> Result<(), ReplicationError> {
        let _ = (session, content);
        todo!()
    }

    /// Removes a clone session.
    pub fn delete_clone_session(&mut self, session: u32) -> Result<(), ReplicationError> {
        let _ = session;
        todo!()
    }

    /// All clone sessions, by number.
    pub fn clone_sessions(&self) -> impl Iterator<Item = (u32, &CloneSession)> {
        std::iter::empty()
    }
}

/// # Digests and value sets
impl Pipeline {
    /// Starts sending a digest: until then what the program sends is dropped and counted.
    pub fn insert_digest(&mut self, digest: &str, config: DigestConfig) -> Result<(), DigestError> {
        let _ = (digest, config);
        todo!()
    }

    /// Changes how a digest is gathered.
    pub fn modify_digest(&mut self, digest: &str, config: DigestConfig) -> Result<(), DigestError> {
        let _ = (digest, config);
        todo!()
    }

    /// Stops sending a digest.
    pub fn delete_digest(&mut self, digest: &str) -> Result<(), DigestError> {
        let _ = digest;
        todo!()
    }

    /// How a digest is gathered; `None` if it is not sent.
    pub fn digest_config(&self, digest: &str) -> Result<Option<DigestConfig>, DigestError> {
        let _ = digest;
        todo!()
    }

    /// Acknowledges a list: what it held may be sent again. Unknown lists are ignored, since their time
    /// may have been up.
    pub fn acknowledge_digest(&mut self, digest: &str, list_id: u64) -> Result<(), DigestError> {
        let _ = (digest, list_id);
        todo!()
    }

    /// Replaces the members of a parser value set. Each is the concatenation of the set's components,
    /// without padding.
    pub fn set_value_set(
        &mut self,
        value_set: &str,
        members: Vec<Value>,
    ) -> Result<(), ValueSetError> {
        let _ = (value_set, members);
        todo!()
    }

    /// The members of a parser value set.
    pub fn value_set(&self, value_set: &str) -> Result<&[Value], ValueSetError> {
        let _ = value_set;
        todo!()
    }
}
