//! Digests: messages of the data plane to the control plane.

use std::time::Duration;

use thiserror::Error;

use crate::{Timestamp, Value};

/// How digests are gathered before they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DigestConfig {
    /// A list is sent at the latest this long after its first digest; zero for at once.
    pub max_timeout: Duration,
    /// A list is sent when it holds this many; zero for one.
    pub max_list_size: u32,
    /// Digests equal to one that was sent but not acknowledged are suppressed for this long.
    pub ack_timeout: Duration,
}

/// Digests that are sent together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DigestList {
    /// The digest's name.
    pub digest: String,
    /// What to acknowledge; counts up from 1 for each digest.
    pub list_id: u64,
    /// The members of each digest, in the program's order.
    pub digests: Vec<Vec<Value>>,
    /// When the list was closed.
    pub at: Timestamp,
}

/// Why a digest could not be configured or acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DigestError {
    /// It is configured already.
    #[error("digest {digest} is configured already; modify it instead")]
    Exists {
        /// The digest.
        digest: String,
    },
    /// It is not configured.
    #[error("digest {digest} is not configured; insert its configuration first")]
    NotConfigured {
        /// The digest.
        digest: String,
    },
    /// The program has no such digest.
    #[error("the program has no digest {digest}")]
    Unknown {
        /// What was asked for.
        digest: String,
    },
}
