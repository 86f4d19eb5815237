//! FlowRadar's collector as a service.
//!
//! ```text
//! agents ─gRPC─▶ ingest ─▶ journal (durable, then acknowledged)
//! drop folder ─▶   │
//!                  ▼
//!               grouping by epoch ─▶ decode ─┬─▶ store (Parquet) ◀── NetFlow, IPFIX, sFlow
//!                                            ├─▶ analyses ─▶ events ─▶ log, webhook, API
//!                                            └─▶ IPFIX export
//! ```
//!
//! [`Collector`] is all of it; the modules are its stages and what they are made of. What decides is free
//! of I/O and clocks: [`ingest::Session`], [`epoch::Grouper`], [`epoch::decode`], [`export::ipfix`],
//! [`journal::Frames`]. [`agent`] is the other side, on or near the switches.

pub mod agent;
mod api;
pub mod classic;
mod collector;
pub mod config;
pub mod epoch;
pub mod export;
pub mod ingest;
pub mod journal;
pub mod live;
pub mod metrics;
pub mod notice;
mod run;
mod run_number;
pub mod stage;
pub mod store;
mod webhook;

pub use collector::{Collector, StartError};
pub use config::Config;
