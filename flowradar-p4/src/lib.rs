//! FlowRadar on P4 switches, through P4Runtime.
//!
//! - [`proto`]: the messages and stubs of P4Runtime v1.
//! - [`p4info`]: what may be known of a P4 program, by name.
//! - [`entity`]: what is written into a switch and read from it, by name.
//! - [`packet`]: packets to and from the controller, with their headers by name.
//! - [`client`]: a controller's session with a switch.
//! - [`config`]: the generated header that ties a P4 program to a layout.
//! - [`epoch`]: when epochs end, sans I/O.
//! - [`topology`]: switches and their tables, in a file.
//! - [`reader`]: getting flowsets out of a switch.
//! - [`agent`]: keeps switches running the program, and ships their flowsets.
//! - [`program`]: a FlowRadar program, compiled, with its configuration.
//! - [`fleet`]: all switches of a topology at the same time.
//! - [`tofino`]: flowsets of a Tofino switch's registers, sans I/O.
//! - `bfrt`: a controller's session with a Tofino switch.
//! - [`drain`]: reading encoded flowsets out of a switch by packets, sans I/O.

#[cfg(feature = "client")]
pub mod agent;
#[cfg(feature = "bfrt")]
pub mod bfrt;
pub mod bytestring;
#[cfg(feature = "client")]
pub mod client;
pub mod config;
pub mod drain;
pub mod entity;
pub mod epoch;
#[cfg(feature = "client")]
pub mod fleet;
pub mod p4info;
pub mod packet;
pub mod pipeline;
pub mod program;
pub mod proto;
#[cfg(feature = "client")]
pub mod reader;
pub mod tofino;
pub mod topology;

pub use bytestring::{Bytestring, BytestringError};
pub use p4info::{P4Info, P4InfoError};
pub use pipeline::PipelineConfig;
pub use program::Program;
