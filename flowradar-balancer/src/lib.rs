//! Flow exports over groups of collectors.

pub mod config;
pub mod dispatch;
pub mod engine;
pub mod health;
#[cfg(feature = "io")]
pub mod io;
pub mod policy;
pub mod spoof;
pub mod stream;
mod time;
pub mod wire;

pub use time::Timestamp;
