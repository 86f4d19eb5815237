//! An embedded P4 target.
//!
//! It executes the JSON that p4c's bmv2 back end (`p4c-bm2-ss`) writes for v1model programs, the way
//! bmv2's `simple_switch` does: parser, match-action pipelines, checksums, deparser, registers,
//! counters, meters, action profiles and selectors, multicast, clones, resubmit, recirculate and
//! digests. Which constructs are supported is written down in `docs/switch.md`; a program that needs
//! anything else is refused by [`Program::from_json`], with the construct's name.
//!
//! - [`Program`]: a checked and compiled program, from bytes.
//! - [`Pipeline`]: a program with its forwarding state; sans-I/O: a frame and the time go in, frames and
//!   notifications come out.
//! - [`Switch`]: a shared handle around a pipeline with ports, packet-ins and notifications.
//! - [`port`]: in-memory links, pcap files, network interfaces.

pub mod pipeline;
pub mod port;
pub mod program;
pub mod runtime;
pub mod server;
pub mod switch;
pub mod time;
pub mod value;

pub use pipeline::{Outputs, Pipeline, PipelineConfig, PipelineCounters};
pub use program::{LoadError, MatchFieldInfo, MatchKind, Program, TableInfo};
pub use switch::{Switch, SwitchConfig};
pub use time::Timestamp;
pub use value::Value;
