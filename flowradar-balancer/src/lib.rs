//! Flow exports over groups of collectors.

pub mod engine;
pub mod policy;
pub mod stream;
mod time;
pub mod wire;

pub use time::Timestamp;
