//! The rim: sockets, threads, clocks, signals, and the HTTP interface.
//!
//! ```text
//! exporters ──▶ SO_REUSEPORT sockets, chosen by source address
//!                 │ recvmmsg, 64 at a time
//!               worker 0..n: one Engine each, no locks ──▶ a batch for each destination
//!                 │ one bounded queue for each destination
//!               sender 0..m ── sendmmsg, segmentation offload ──▶ collectors, receivers of copies
//!
//! control (one task): probes, reload, HTTP, metrics; tells workers by commands
//! ```
//!
//! An exporter's datagrams always go to the same worker, whatever ports they come from, so that no
//! engine needs another's templates. Datagrams are copied once, from the receive buffer to the batch
//! of their destination; batches are used again and again.

mod clock;
mod control;
mod http;
mod metrics;
mod probe;
mod queue;
mod sender;
mod service;
mod state_file;
mod status;
pub(crate) mod sys;
mod worker;

pub mod bench;
pub mod capture;
pub mod replay;

pub use service::{Service, ServiceError, ServiceOptions};
pub use status::{DestinationStatus, Event, ExporterStatus, SocketStatus, Status};
