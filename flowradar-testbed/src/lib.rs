//! Networks of P4 switches on wires in memory, and the truth about what they saw.
//!
//! The switches run the reference program (`p4src/v1model`); what they shall do they are told through
//! P4Runtime, as any switch would be. Whoever holds a [`Network`] is its hosts and its wires: frames are
//! carried from port to port, lost where it is said so, and counted on the way. So what comes out of the
//! switches as flowsets can be held to what they were given.
//!
//! - [`network`]: switches, the wires between them, and the truth.
//! - [`embedded`]: a `flowradar-switch` with a P4Runtime server; other kinds of switches implement
//!   [`WiredSwitch`].
//! - [`controller`]: a P4Runtime session with a switch, and draining.
//! - [`routes`]: the entries by which the reference program routes.
//! - [`counts`]: packets and bytes of each flow.
//! - [`frames`]: frames to send.
//!
//! ```
//! use flowradar_sim::{Host, HostId, Node, SwitchId, Topology};
//! use flowradar_testbed::frames::{Tuple4, udp4};
//! use flowradar_testbed::{Counts, EmbeddedSwitch, Network, Wires};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let host = |name: &str, address| Host { name: name.into(), address };
//! let (from, to) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
//! let s1 = Node::Switch(SwitchId(0));
//! let topology = Topology::new(
//!     vec!["s1".into()],
//!     vec![host("h1", from), host("h2", to)],
//!     vec![[Node::Host(HostId(0)), s1], [Node::Host(HostId(1)), s1]],
//! )?;
//! let mut network = Network::start(topology, Wires::lossless(), EmbeddedSwitch::start).await?;
//! let flow = Tuple4 { src: from, dst: to, src_port: 4000, dst_port: 53 };
//! network.send(HostId(0), &udp4(flow, b"hello"));
//! network.settle();
//! assert_eq!(network.delivered.frames(), 1);
//!
//! // What the switch has counted, read out by packets.
//! let mut counted = Counts::default();
//! counted.add_bank(&network.controllers()[0].drain().await?)?;
//! assert_eq!(counted, network.seen[0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod controller;
pub mod counts;
pub mod embedded;
pub mod frames;
pub mod network;
pub mod routes;

use flowradar_core::flowset::SwitchNameError;
use flowradar_p4::client::ClientError;
use flowradar_p4::reader::ReadError;
use flowradar_sim::RoutingTooLarge;
use flowradar_switch::server::ServeError;
use thiserror::Error;

pub use controller::Controller;
pub use counts::Counts;
pub use embedded::EmbeddedSwitch;
pub use network::{Network, WiredSwitch, Wires};

/// Why a network or one of its switches does not do what it should.
#[derive(Debug, Error)]
pub enum TestbedError {
    /// There is no routing for the topology.
    #[error(transparent)]
    Routing(#[from] RoutingTooLarge),
    /// A switch has more ports than the reference program knows.
    #[error("switch {switch} has {ports} ports; the program knows {most}")]
    Ports {
        /// The switch.
        switch: String,
        /// Its ports.
        ports: usize,
        /// Ports at most.
        most: usize,
    },
    /// An embedded switch cannot be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// A switch of another kind cannot be started.
    #[error("a switch cannot be started: {0}")]
    Start(#[from] std::io::Error),
    /// A switch cannot be connected to, or refuses what it is told.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A switch's flowsets cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The name is no switch's name.
    #[error(transparent)]
    Name(#[from] SwitchNameError),
}
