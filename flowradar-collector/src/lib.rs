//! Network-wide decoding of FlowRadar's flowsets (NSDI 2016 §4), and the linear algebra it needs.
//!
//! A switch alone decodes as many flows as its table was planned for. When bursts of flows overload
//! tables, the switches of a network decode together: [`net_decode`] finds flows of one switch with
//! the help of the others ([`flow_decode`]), then solves for the counters ([`counter`]). Routing need
//! not be known, and any subset of the switches may report.
//!
//! What the decoded flows say about the network (losses, loops, blackholes, wrong forwarding, load,
//! attacks) is found by the analyses ([`analysis`]).
//!
//! Pure computing: no I/O and no clock. Work is spread over rayon's thread pool; the outcome does not
//! depend on the number of threads.

pub mod analysis;
pub mod counter;
pub mod flow_decode;
mod net_decode;
mod trust;

pub use net_decode::{
    NetDecode, NetDecodeError, NetDecodeOptions, NetDecodeSummary, SwitchDecode, net_decode,
};
