//! Parser value sets.

use thiserror::Error;

/// Why a parser value set could not be read or changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ValueSetError {
    /// More members than are kept.
    #[error("value set {value_set} may hold {capacity} members, not {given}")]
    Full {
        /// The value set.
        value_set: String,
        /// How many it may hold.
        capacity: usize,
        /// How many were given.
        given: usize,
    },
    /// The program has no such value set.
    #[error("the program has no parser value set {value_set}")]
    Unknown {
        /// What was asked for.
        value_set: String,
    },
    /// A member needs more bits than the set's.
    #[error("value set {value_set}: a member needs more than {width} bits")]
    Width {
        /// The value set.
        value_set: String,
        /// Its width in bits.
        width: u32,
    },
}
