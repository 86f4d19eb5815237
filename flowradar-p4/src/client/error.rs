//! What goes wrong between a controller and a switch.

use std::fmt;
use std::time::Duration;

use prost::Message;
use thiserror::Error;
use tonic::{Code, Status};

use crate::P4InfoError;
use crate::entity::EntityError;
use crate::proto::google::rpc;
use crate::proto::p4::v1 as p4;

/// What went wrong, and with which switch.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("switch {switch}: {reason}")]
pub struct ClientError {
    /// The switch's name.
    pub switch: String,
    /// What went wrong.
    pub reason: Box<ClientErrorReason>,
}

/// What went wrong with a switch.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ClientErrorReason {
    /// The address or the certificates are not usable.
    #[error("{reason}; give an address as host:port")]
    Address {
        /// Why.
        reason: String,
    },
    /// Nobody answers at the address, or not by TLS as expected.
    #[error("cannot connect to {address}: {reason}")]
    Connect {
        /// The address.
        address: String,
        /// Why.
        reason: String,
    },
    /// The switch did not answer in time.
    #[error("{operation} took longer than {limit:?}")]
    Deadline {
        /// What was asked for.
        operation: &'static str,
        /// How long an answer may take.
        limit: Duration,
    },
    /// The request contradicts the program.
    #[error(transparent)]
    Entity(#[from] EntityError),
    /// The switch's P4Info cannot be used.
    #[error(transparent)]
    P4Info(#[from] P4InfoError),
    /// Names are used before the program is known.
    #[error("the switch's program is not known yet: set or fetch its pipeline first")]
    NoPipeline,
    /// Another controller is primary, or nobody.
    #[error(
        "this controller is not primary (its election id is {}, the highest is {}); take over with a \
         higher one",
        number(*own),
        number(*highest)
    )]
    NotPrimary {
        /// This controller's election id.
        own: Option<u128>,
        /// The highest that the switch has seen.
        highest: Option<u128>,
    },
    /// The switch refused a request.
    #[error("{operation} was refused ({code:?}): {message}")]
    Refused {
        /// What was asked for.
        operation: &'static str,
        /// The switch's code.
        code: Code,
        /// The switch's reason.
        message: String,
    },
    /// The stream to the switch has ended: nothing can be changed any more.
    #[error("the stream has ended: {reason}")]
    StreamEnded {
        /// The switch's reason, if it gave one.
        reason: String,
    },
    /// Some updates of a batch failed; the others were done.
    #[error("{} of {total} updates failed: {}", failures.len(), list(failures))]
    Updates {
        /// How many updates there were.
        total: usize,
        /// Those that failed.
        failures: Vec<UpdateFailure>,
    },
}

/// An update that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateFailure {
    /// Its place among the updates.
    pub position: usize,
    /// What it was to do.
    pub update: String,
    /// The switch's code.
    pub code: Code,
    /// The switch's reason.
    pub message: String,
}

impl ClientErrorReason {
    /// Whether a new session may help: the switch is away, not at odds with what was asked.
    pub fn is_connection_lost(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Deadline { .. } | Self::StreamEnded { .. } => true,
            Self::Refused { code, .. } => matches!(
                code,
                Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Aborted
            ),
            Self::Address { .. }
            | Self::Entity(_)
            | Self::P4Info(_)
            | Self::NoPipeline
            | Self::NotPrimary { .. }
            | Self::Updates { .. } => false,
        }
    }
}

impl fmt::Display for UpdateFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            update,
            code,
            message,
            ..
        } = self;
        write!(formatter, "{update}: {code:?}")?;
        if !message.is_empty() {
            write!(formatter, " ({message})")?;
        }
        Ok(())
    }
}

/// What a status says of the updates of a batch; `None` if it is about the whole batch.
pub(super) fn update_errors(status: &Status) -> Option<Vec<p4::Error>> {
    if status.details().is_empty() {
        return None;
    }
    let details = rpc::Status::decode(status.details()).ok()?;
    let errors = details.details.iter();
    let errors: Option<Vec<p4::Error>> = errors
        .map(|any| {
            any.type_url
                .ends_with("/p4.v1.Error")
                .then(|| p4::Error::decode(any.value.as_slice()).ok())
                .flatten()
        })
        .collect();
    errors.filter(|errors| !errors.is_empty())
}

fn number(election_id: Option<u128>) -> String {
    election_id.map_or_else(|| "none".into(), |id| id.to_string())
}

fn list(failures: &[UpdateFailure]) -> String {
    /// Enough to see what is wrong.
    const FAILURES_SHOWN: usize = 5;

    let shown = failures.iter().take(FAILURES_SHOWN);
    let mut text: Vec<String> = shown.map(UpdateFailure::to_string).collect();
    if failures.len() > FAILURES_SHOWN {
        text.push(format!("and {} more", failures.len() - FAILURES_SHOWN));
    }
    text.join("; ")
}
