//! What the control plane writes into a pipeline and reads out of it.
//!
//! Everything is named as in the program's JSON, which for p4c's output are the fully qualified P4 names
//! that P4Info has too. All operations are methods of [`Pipeline`](crate::Pipeline).

pub mod arrays;
pub mod digest;
pub mod profile;
pub mod replication;
pub mod table;
pub mod value_set;

pub use arrays::{ArrayError, CounterData, MeterColor, MeterConfig, MeterRate};
pub use digest::{DigestConfig, DigestError, DigestList};
pub use profile::{Group, GroupMember, ProfileError};
pub use replication::{CloneSession, Replica, ReplicationError};
pub use table::{
    ActionCall, EntryAction, EntryKey, EntryRef, EntryState, IdleNotification, MatchValue,
    OneShotAction, TableEntry, TableError,
};
pub use value_set::ValueSetError;
