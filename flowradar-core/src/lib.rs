//! FlowRadar core.
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
mod prefetch;

pub use counter::{Counter, CounterStatus};
pub use encoder::{Encoder, Packet};
pub use flowset::Flowset;
pub use key::{FlowKey, FlowKeyV4, FlowKeyV6, KeyKind, KeyWords};
