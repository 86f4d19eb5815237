//! The agent: ships flowsets to a collector, from a spool on disk.
//!
//! What is put into the [`Spool`] is numbered and stays there until the collector has it durably. The
//! collector may be away, come back, or die at any moment: [`ship`] connects again and goes on where the
//! collector's journal ends. No flowset is lost, and none is taken twice. The spool is bounded: when it is
//! full, it takes no more, and a switch's bank waits in the switch.

mod client;
mod sink;
mod spool;

pub use client::{AgentError, AgentOptions, AgentProgress, ship};
pub use sink::{SpoolSink, spool_folder};
pub use spool::{AdoptError, PutError, Spool, SpoolOptions, SpoolSync, Spooled};
