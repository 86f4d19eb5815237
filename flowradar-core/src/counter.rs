//! Decoded counters, and how sure they are.

use core::fmt::{self, Display, Formatter};

/// How sure a decoded counter is. The three words are never mixed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CounterStatus {
    /// Proved by the equations of the counter's own switch.
    Exact,
    /// Satisfies every equation of the network, assuming that losses are sparse.
    Joint,
    /// Not known; the true counter is within these bounds.
    Unresolved {
        /// No lower than this.
        least: u64,
        /// No higher than this; `u64::MAX` where a saturated cell leaves it open.
        most: u64,
    },
}

impl CounterStatus {
    /// The word for it: `exact`, `joint` or `unresolved`.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Joint => "joint",
            Self::Unresolved { .. } => "unresolved",
        }
    }

    /// Whether the counter is known.
    pub const fn is_resolved(&self) -> bool {
        !matches!(self, Self::Unresolved { .. })
    }
}

impl Display for CounterStatus {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// A decoded counter: packets or bytes of a flow at a switch in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Counter {
    /// The counter; the best estimate if it is unresolved.
    pub value: u64,
    /// How sure it is.
    pub status: CounterStatus,
}

impl Counter {
    /// A proved counter.
    pub const fn exact(value: u64) -> Self {
        Self {
            value,
            status: CounterStatus::Exact,
        }
    }

    /// Whether the counter is proved.
    pub const fn is_exact(&self) -> bool {
        matches!(self.status, CounterStatus::Exact)
    }
}
