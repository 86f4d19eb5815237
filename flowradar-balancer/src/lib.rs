//! Flow exports over groups of collectors.

pub mod policy;
mod time;

pub use time::Timestamp;
