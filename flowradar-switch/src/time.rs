//! Time as the data plane sees it.

use std::time::Duration;

/// Nanoseconds since the switch was started.
///
/// Nothing in a pipeline reads a clock: every operation that depends on time is given one of these.
/// Programs see microseconds, as on bmv2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    nanoseconds: u64,
}

impl Timestamp {
    /// The start of the switch.
    pub const ZERO: Self = Self { nanoseconds: 0 };

    /// The time this many nanoseconds after the start.
    pub const fn from_nanoseconds(nanoseconds: u64) -> Self {
        Self { nanoseconds }
    }

    /// The time this many microseconds after the start; saturates after 584 years.
    pub const fn from_microseconds(microseconds: u64) -> Self {
        Self {
            nanoseconds: microseconds.saturating_mul(1000),
        }
    }

    /// Nanoseconds since the start.
    pub const fn nanoseconds(self) -> u64 {
        self.nanoseconds
    }

    /// Whole microseconds since the start: the unit of v1model's timestamps.
    pub const fn microseconds(self) -> u64 {
        self.nanoseconds / 1000
    }

    /// The time that passed since `earlier`; zero if that is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanoseconds.saturating_sub(earlier.nanoseconds))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self {
            nanoseconds: self.nanoseconds.saturating_add(nanoseconds),
        }
    }
}

impl From<Duration> for Timestamp {
    fn from(since_start: Duration) -> Self {
        Self::ZERO + since_start
    }
}
