//! FlowRadar on P4 switches, through P4Runtime.
//!
//! - [`proto`]: the messages and stubs of P4Runtime v1.
//! - [`config`]: the generated header that ties a P4 program to a layout.
//! - [`drain`]: reading encoded flowsets out of a switch by packets, sans I/O.

pub mod config;
pub mod drain;
pub mod proto;
