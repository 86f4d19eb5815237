//! FlowRadar's switch side, its wire format, and the decoding of one switch.
//!
//! FlowRadar (Li, Miao, Kim, Yu, NSDI 2016) divides the labour of flow monitoring: the switch does a
//! small, constant amount of work for each packet and encodes *all* flows with their counters in a few
//! megabytes, an *encoded flowset*; a collector decodes. This crate has
//!
//! - [`Encoder`]: flow filter, counting table, two banks and epochs;
//! - [`Flowset`]: the encoded flowset as bytes, checked once and read in place;
//! - [`decode`]: SingleDecode, which finds flows and counters and proves them;
//! - [`plan`]: how much memory a number of flows needs, and the other way round;
//! - [`packet`]: from captured frames to flow keys.
//!
//! Decoding a whole network together is the business of the crate `flowradar-collector`.
//!
//! `no_std` with `alloc`: someone will put the encoder on a NIC. No I/O, no clock, no threads.
//!
//! # What a counter's status means
//!
//! A counter is called *exact* only if its switch's own equations prove it; see [`decode`]. Nothing is
//! silently wrong: a full filter, an overloaded table, a saturated counter or a damaged report shows
//! in what is returned.
#![no_std]

extern crate alloc;

pub mod counter;
pub mod decode;
pub mod encoder;
pub mod filter;
pub mod flowset;
pub mod hash;
pub mod key;
pub mod layout;
pub mod packet;
pub mod plan;
mod processor;

pub use counter::{Counter, CounterStatus};
pub use encoder::{Encoder, Packet};
pub use flowset::Flowset;
pub use key::{FlowKey, FlowKeyV4, FlowKeyV6, KeyKind, KeyWords};
