//! FlowRadar core.
#![no_std]
extern crate alloc;
pub mod key;
pub mod packet;
pub use key::{FlowKey, FlowKeyV4, FlowKeyV6, KeyKind, KeyWords};
