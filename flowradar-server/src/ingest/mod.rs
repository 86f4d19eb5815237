//! Ingest: agents' streams, and the drop folder.
//!
//! A flowset is checked, appended to the journal, and acknowledged when it is durable there; then
//! grouping hears of it. An agent that comes back is told how far its spool is durable and goes on from
//! there: no gap, no duplicate. When journal or grouping cannot take more, streams are not read until
//! they can (*back pressure*), and refused after a while: agents keep what is not acknowledged.

mod connection;
mod drop_folder;
mod identity;
mod service;
mod session;
mod switches;

/// Messages and stubs of the ingest protocol.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod proto {
    tonic::include_proto!("flowradar.collector.v1");
}

pub use connection::{Connection, limited};
pub use drop_folder::{DropFolder, DroppedFile};
pub use identity::{Credentials, Identities, Identity, IdentityError, Secret};
pub use service::{Ingest, IngestOptions};
pub use session::{Registration, Session, SessionError, SessionLimits, SessionOutput};
pub use switches::{SwitchStatus, Switches, TooManySwitches};

/// Version of the ingest protocol.
pub const PROTOCOL_VERSION: u32 = 1;

/// Nanoseconds since 1970.
pub(crate) fn unix_now_ns() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        })
}
