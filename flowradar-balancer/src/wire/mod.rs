//! The formats of flow exports: NetFlow v5 and v9 (NetStream too), IPFIX, sFlow v5.
//!
//! Checked views that read in place and never allocate, in the manner of a parser that trusts
//! nothing: each error is a [`WireError`] with an offset and a reason, each loop ends with the bytes.
//!
//! - [`Header`]: what a message says of itself, whatever its protocol, with the place of its
//!   sequence number so that it can be rewritten;
//! - [`sets`]: the sets of a NetFlow v9 or IPFIX message;
//! - [`template`]: (options) template records, and how they cut a data set into records;
//! - [`v5`], [`sflow`]: records and samples of the formats without templates;
//! - [`flow_hash`]: the flow that a record is about, direction-independent and the same in all formats;
//! - [`build`]: messages made of parts of others.

pub mod build;
mod bytes;
mod error;
pub mod flow_hash;
mod header;
pub mod sets;
pub mod sflow;
pub mod template;
pub mod v5;

pub use error::{WireError, WireReason};
pub use header::{Header, Protocol, SequenceUnit};
