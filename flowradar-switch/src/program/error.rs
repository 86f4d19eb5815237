//! Why a program is refused.

use thiserror::Error;

/// Why a program cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LoadError {
    /// The JSON contradicts itself.
    #[error("{place}: {reason}")]
    Invalid {
        /// Which object, by kind and name.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Not JSON, or not of the shape that bmv2's format has.
    #[error("not a bmv2 JSON: {reason}; give the JSON that p4c-bm2-ss writes")]
    Json {
        /// The parser's words, with line and column.
        reason: String,
    },
    /// More of something than is kept.
    #[error("{place}: {size} {what}, at most {limit} are supported")]
    TooLarge {
        /// Which object, by kind and name.
        place: String,
        /// Of what.
        what: &'static str,
        /// How much the program has.
        size: u64,
        /// How much it may have.
        limit: u64,
    },
    /// A construct that this target does not execute.
    #[error("{place}: {construct} is not supported; docs/switch.md lists what is")]
    Unsupported {
        /// Which object, by kind and name.
        place: String,
        /// The construct.
        construct: String,
    },
}
