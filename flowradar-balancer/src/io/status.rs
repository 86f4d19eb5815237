//! Everything there is to see, as the HTTP interface tells it.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::config::DestinationKind;
use crate::engine::{Counters, GroupSnapshot, StreamSnapshot};

/// The whole state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The balancer's version.
    pub version: String,
    /// Seconds since it started.
    pub uptime_seconds: f64,
    /// Threads that receive.
    pub workers: usize,
    /// Sockets that exports arrive at.
    pub sockets: Vec<SocketStatus>,
    /// Sums of all workers.
    pub counters: Counters,
    /// Flow records received a second, lately.
    pub records_per_second: f64,
    /// Datagrams received a second, lately.
    pub datagrams_per_second: f64,
    /// Exporters with the most records.
    pub exporters: Vec<ExporterStatus>,
    /// Exporters known.
    pub known_exporters: usize,
    /// Streams known.
    pub known_streams: usize,
    /// Groups of collectors.
    pub groups: Vec<GroupSnapshot>,
    /// Collectors and receivers of copies.
    pub destinations: Vec<DestinationStatus>,
    /// Bytes of templates and options kept.
    pub state_bytes: usize,
    /// Bytes of data that wait for templates.
    pub waiting_bytes: usize,
    /// Bytes kept for replay.
    pub replay_bytes: usize,
    /// What happened, latest last.
    pub events: Vec<Event>,
}

/// A socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketStatus {
    /// Where it listens.
    pub address: SocketAddr,
    /// The worker that it belongs to.
    pub worker: usize,
    /// Its buffer, as the kernel granted it.
    pub receive_buffer_bytes: usize,
    /// Datagrams that the kernel dropped because the buffer was full (SO_RXQ_OVFL).
    pub kernel_drops: u64,
}

/// An exporter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExporterStatus {
    /// Its address.
    pub address: IpAddr,
    /// Its group of routers.
    pub router_group: Option<String>,
    /// Messages received.
    pub messages: u64,
    /// Bytes received.
    pub bytes: u64,
    /// Flow records received.
    pub records: u64,
    /// Flow records received a second, lately.
    pub records_per_second: f64,
    /// Seconds since the last message.
    pub silent_seconds: f64,
    /// Sequence units (records or messages) lost before they arrived.
    pub lost: u64,
    /// Names of the collectors that it goes to.
    pub collectors: Vec<String>,
    /// Its streams.
    pub streams: Vec<StreamSnapshot>,
}

/// A collector or a receiver of copies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DestinationStatus {
    /// Its id in groups and streams.
    pub id: u16,
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it is.
    pub kind: DestinationKind,
    /// `up`, `draining` or `down`.
    pub state: String,
    /// Datagrams sent.
    pub datagrams: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Flow records handed to its sender.
    pub records: u64,
    /// Flow records a second, lately.
    pub records_per_second: f64,
    /// Load over capacity, the highest of its groups; 0 for copies.
    pub utilisation: f64,
    /// Bytes in its queue.
    pub queue_bytes: usize,
    /// Size of its queue.
    pub queue_limit_bytes: usize,
    /// Datagrams that found no room in its queue.
    pub queue_dropped_datagrams: u64,
    /// Flow records in them.
    pub queue_dropped_records: u64,
    /// Datagrams refused by ICMP.
    pub refused: u64,
    /// Datagrams that could not be sent.
    pub failed: u64,
    /// Datagrams that could not have the exporter's address and were sent with the balancer's.
    pub not_spoofed: u64,
    /// Its own word about its load.
    pub reported_load: Option<f64>,
    /// Streams with templates that go to it.
    pub streams: u64,
    /// Of these, those of which it has all templates and options.
    pub streams_up_to_date: u64,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in seconds since 1970.
    pub unix_seconds: u64,
    /// What.
    pub text: String,
}
