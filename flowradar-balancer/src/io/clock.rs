//! The clock behind [`Timestamp`].

use std::time::Instant;

use crate::time::Timestamp;

/// Counts from when it was made; copies agree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Timestamp {
        // 584 years fit.
        Timestamp::from_nanos(self.0.elapsed().as_nanos() as u64)
    }
}
