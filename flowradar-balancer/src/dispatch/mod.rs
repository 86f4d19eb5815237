//! Captured packets over analysis servers, all packets of a flow to one.
//!
//! The system of Lee, Park, Sanadidi, Gerla, *Flow Based Dynamic Load Balancing for Passive Network
//! Monitoring*: [`Dispatcher`] takes packets and times and says to which back end each goes, by the
//! policies of [`crate::policy`]. It reads no clock and no socket. [`simulate`] is the paper's
//! experiment.
//!
//! | part | what |
//! | --- | --- |
//! | [`Packet`] | flow, direction, TCP flags and fragment of a captured frame |
//! | [`FlowId`] | 5-tuple without direction: both halves of a connection are one flow |
//! | [`FlowState`], [`Timeouts`] | how long a flow is remembered, by protocol and TCP state |
//! | [`DispatchCounters`] | what happened, and what could not be kept |
//! | [`EthernetFrame`], [`vxlan_header`] | captured frames for servers in the network |
//! | `FrameInput`, `FrameOutput` | sockets: frames of an interface, to interfaces and servers |
//!
//! # What holds
//!
//! - All packets of a flow go to one back end, from its first packet to its timeout, unless that
//!   back end fails. [`DispatchCounters::affinity_breaks`] counts the contrary.
//! - A failed back end's flows move, and no others.
//! - Later fragments go where their first went, if that came before.
//! - The table is bounded, and a flow in it is never pushed out by others. Flows for which there is
//!   no room go by hash, which keeps them together as well; until such a flow must be over, flows
//!   that are new to the table go by hash, too, so that none of them is torn apart when there is
//!   room again.

mod counters;
mod engine;
mod flow_id;
mod flow_state;
mod flow_table;
mod fragments;
mod index;
#[cfg(all(feature = "io", target_os = "linux"))]
mod input;
#[cfg(all(feature = "io", target_os = "linux"))]
mod output;
mod packet;
pub mod simulate;
mod vxlan;
mod wheel;

pub use counters::DispatchCounters;
pub use engine::{Dispatcher, DispatcherSettings, LoadUnit};
pub use flow_id::{Direction, FlowId};
pub use flow_state::{FlowEvent, FlowState, Timeouts};
#[cfg(all(feature = "io", target_os = "linux"))]
pub use input::{FrameInput, InputError, InputFrame, InputStatistics};
#[cfg(all(feature = "io", target_os = "linux"))]
pub use output::FrameOutput;
pub use packet::{Fragment, Packet, TcpFlags};
pub use vxlan::{EthernetFrame, VNI_MAX, VXLAN_HEADER_BYTES, VXLAN_PORT, vxlan_header};
