//! FlowRadar on P4 switches, through P4Runtime.
//!
//! - [`proto`]: the messages and stubs of P4Runtime v1.
//! - [`p4info`]: what may be known of a P4 program, by name.
//! - [`config`]: the generated header that ties a P4 program to a layout.
//! - [`drain`]: reading encoded flowsets out of a switch by packets, sans I/O.

pub mod bytestring;
pub mod config;
pub mod drain;
pub mod p4info;
pub mod proto;

pub use bytestring::{Bytestring, BytestringError};
pub use p4info::{P4Info, P4InfoError};
