//! FlowRadar's collector as a service.

pub mod epoch;
pub mod ingest;
pub mod journal;
pub mod metrics;
pub mod notice;
pub mod stage;
