//! Why an entity is refused.

use thiserror::Error;

use crate::BytestringError;
use crate::p4info::{DataValueError, LookupError};
use crate::proto::google::rpc::Code;

/// Why an entity cannot be translated: it contradicts the program or the specification.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EntityError {
    /// An argument that the action does not have, or twice.
    #[error("action `{action}`: argument {argument} is not a parameter, or is given twice")]
    Argument {
        /// The action.
        action: String,
        /// Name or id.
        argument: String,
    },
    /// A parameter without argument.
    #[error("action `{action}`: parameter `{parameter}` is missing")]
    ArgumentMissing {
        /// The action.
        action: String,
        /// The parameter.
        parameter: String,
    },
    /// An action that the table or profile does not have.
    #[error("`{place}` does not have action `{action}`")]
    ActionForeign {
        /// The table or action profile.
        place: String,
        /// The action.
        action: String,
    },
    /// An action that may not be done here: only in entries, or only if nothing matches.
    #[error("table `{table}`: action `{action}` may not be {used_as}")]
    ActionScope {
        /// The table.
        table: String,
        /// The action.
        action: String,
        /// In an entry, or as default action.
        used_as: &'static str,
    },
    /// A member or group where the table has no profile, or the other way round.
    #[error("table `{table}`: {reason}")]
    Implementation {
        /// The table.
        table: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A number that is negative or too large.
    #[error("{what} is negative or too large")]
    Number {
        /// Which.
        what: &'static str,
    },
    /// A part of the message that must be there.
    #[error("{what} is missing")]
    Missing {
        /// Which.
        what: &'static str,
    },
    /// No object has that name or id.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// A match that is not what the field wants.
    #[error("`{place}`, match field `{field}`: {reason}")]
    Match {
        /// The table or value set.
        place: String,
        /// Name or id.
        field: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A field of a packet's header that is missing, given twice or not known.
    #[error("header `{header}`: field {field} {reason}")]
    HeaderField {
        /// `packet_in` or `packet_out`.
        header: &'static str,
        /// Name or id.
        field: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The table's kind does not allow that priority.
    #[error("table `{table}`: {reason}")]
    Priority {
        /// The table.
        table: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A number that is empty or too wide.
    #[error("{place}: {source}")]
    Value {
        /// Table and field, action and parameter, ….
        place: String,
        /// What is wrong.
        source: BytestringError,
    },
    /// A register's or digest's value.
    #[error("`{place}`: {source}")]
    Data {
        /// The register or digest.
        place: String,
        /// What is wrong.
        source: DataValueError,
    },
    /// What the specification knows but this does not.
    #[error("{construct} is not supported")]
    Unsupported {
        /// What it is.
        construct: &'static str,
    },
}

impl EntityError {
    /// The code that the specification demands in an answer.
    pub fn code(&self) -> Code {
        match self {
            Self::ActionScope { .. } => Code::PermissionDenied,
            Self::Unsupported { .. } => Code::Unimplemented,
            // As the specification has it for bytestrings that do not fit.
            Self::Value { .. } => Code::OutOfRange,
            Self::Lookup(_)
            | Self::Argument { .. }
            | Self::ArgumentMissing { .. }
            | Self::ActionForeign { .. }
            | Self::Implementation { .. }
            | Self::Number { .. }
            | Self::Missing { .. }
            | Self::Match { .. }
            | Self::HeaderField { .. }
            | Self::Priority { .. }
            | Self::Data { .. } => Code::InvalidArgument,
        }
    }
}
