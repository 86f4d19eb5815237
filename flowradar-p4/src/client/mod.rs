//! A P4Runtime client: a [`Session`] is one controller's connection with one switch.
//!
//! Everything is bounded: queues of packets and notifications drop and count ([`SessionCounters`]),
//! requests have deadlines, batches a largest size. Errors say which switch, what was to be done with
//! which entity, and the switch's reason.

mod backoff;
mod error;
mod operations;
mod reconcile;
mod session;
mod stream;
mod target;

pub use backoff::{Backoff, BackoffPolicy};
pub use error::{ClientError, ClientErrorReason, UpdateFailure};
pub use operations::{PipelineAction, PipelineOutcome, Update};
pub use reconcile::ReconcileSummary;
pub use session::Session;
pub use stream::{SessionCounters, Standing, SwitchNotification};
#[cfg(feature = "bfrt")]
pub(crate) use target::with_causes;
pub use target::{SessionOptions, SwitchTarget, TlsOptions};
