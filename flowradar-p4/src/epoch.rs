//! When epochs end. No clock: the time of day comes in.
//!
//! Epochs are aligned to the time of day, so that all switches whose epochs are equally long end them
//! together, whoever controls them and however often controllers restart: epoch `n` begins `n` times its
//! length after 1970. If a bank is still being drained when an epoch ends, the next one becomes part of
//! it, and so on until the bank is free ([`EpochStep::Switch::merged`] says how many).

use std::time::Duration;

use thiserror::Error;

/// Shortest epoch: shorter than this, the round trip to a switch is longer.
const LENGTH_MIN: Duration = Duration::from_millis(1);

/// The length of epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochClock {
    length: Duration,
}

/// A length that epochs cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("epochs of {length:?}: use at least {LENGTH_MIN:?}")]
pub struct EpochLengthError {
    length: Duration,
}

/// When to change the epochs of one switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochSchedule {
    clock: EpochClock,
    /// Whether a bank is bound to odd or even epochs, since packets carry their epoch's lowest bit.
    alternates: bool,
    active: u64,
    is_drained: bool,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochStep {
    /// Let epoch `epoch` begin now; `merged` epochs end with it.
    Switch {
        /// The number of the new epoch.
        epoch: u64,
        /// How many epochs the bank holds that is sealed by it; 1 if all is well.
        merged: u64,
    },
    /// Nothing before this time, since 1970.
    Wait {
        /// When the next epoch begins.
        until: Duration,
    },
}

impl EpochClock {
    /// Epochs of this length.
    ///
    /// # Errors
    ///
    /// If they are shorter than a millisecond.
    pub fn new(length: Duration) -> Result<Self, EpochLengthError> {
        if length < LENGTH_MIN {
            return Err(EpochLengthError { length });
        }
        Ok(Self { length })
    }

    /// How long epochs are.
    pub fn length(self) -> Duration {
        self.length
    }

    /// The epoch at a time since 1970.
    pub fn epoch_at(self, unix: Duration) -> u64 {
        u64::try_from(unix.as_nanos() / self.length.as_nanos()).unwrap_or(u64::MAX)
    }

    /// When an epoch begins, since 1970; saturates far in the future.
    pub fn start_of(self, epoch: u64) -> Duration {
        let nanoseconds = self.length.as_nanos().saturating_mul(u128::from(epoch));
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

impl EpochSchedule {
    /// For a switch that is in epoch `active`, with its other bank clean.
    pub fn new(clock: EpochClock, alternates: bool, active: u64) -> Self {
        Self {
            clock,
            alternates,
            active,
            is_drained: true,
        }
    }

    /// The lengths of its epochs.
    pub fn clock(&self) -> EpochClock {
        self.clock
    }

    /// The epoch that is counted now.
    pub fn active(&self) -> u64 {
        self.active
    }

    /// What to do at this time since 1970.
    pub fn step(&self, unix: Duration) -> EpochStep {
        let current = self.clock.epoch_at(unix);
        let is_due = self.is_drained && current > self.active;
        let merged = current.saturating_sub(self.active);
        if is_due && (!self.alternates || merged % 2 == 1) {
            let epoch = current;
            return EpochStep::Switch { epoch, merged };
        }
        let next = current.max(self.active).saturating_add(1);
        EpochStep::Wait {
            until: self.clock.start_of(next),
        }
    }

    /// The switch has begun `epoch`: its other bank is sealed, and must be drained before the next.
    pub fn switched(&mut self, epoch: u64) {
        self.active = epoch;
        self.is_drained = false;
    }

    /// The sealed bank is clean again.
    pub fn drained(&mut self) {
        self.is_drained = true;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn clock() -> EpochClock {
        EpochClock::new(Duration::from_secs(1)).expect("long enough")
    }

    const fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn epochs_end_on_the_second() {
        let mut schedule = EpochSchedule::new(clock(), false, 10);
        assert_eq!(
            schedule.step(at(10_400)),
            EpochStep::Wait { until: at(11_000) }
        );
        let step = schedule.step(at(11_003));
        assert_eq!(
            step,
            EpochStep::Switch {
                epoch: 11,
                merged: 1
            }
        );
        schedule.switched(11);
        schedule.drained();
        assert_eq!(
            schedule.step(at(11_300)),
            EpochStep::Wait { until: at(12_000) }
        );
    }

    #[test]
    fn a_slow_drain_merges_epochs_and_says_so() {
        let mut schedule = EpochSchedule::new(clock(), false, 10);
        schedule.switched(11);
        assert_eq!(
            schedule.step(at(12_001)),
            EpochStep::Wait { until: at(13_000) }
        );
        schedule.drained();
        // Drained in the middle of epoch 13: epochs 11 and 12 are over, and end together.
        let step = schedule.step(at(13_600));
        assert_eq!(
            step,
            EpochStep::Switch {
                epoch: 13,
                merged: 2
            }
        );
    }

    #[test]
    fn stamped_packets_bind_banks_to_odd_and_even_epochs() {
        let schedule = EpochSchedule::new(clock(), true, 11);
        assert_eq!(
            schedule.step(at(13_600)),
            EpochStep::Wait { until: at(14_000) }
        );
        let step = schedule.step(at(14_000));
        assert_eq!(
            step,
            EpochStep::Switch {
                epoch: 14,
                merged: 3
            }
        );
    }

    #[test]
    fn a_clock_that_goes_back_changes_nothing() {
        let schedule = EpochSchedule::new(clock(), false, 10);
        assert_eq!(
            schedule.step(at(5_500)),
            EpochStep::Wait { until: at(11_000) }
        );
    }

    #[test]
    fn epochs_have_a_length() {
        assert!(EpochClock::new(Duration::ZERO).is_err());
        assert!(EpochClock::new(Duration::from_micros(999)).is_err());
    }

    proptest! {
        /// Whatever the times of polls and drains, epochs only grow, none is lost, and banks alternate.
        #[test]
        fn every_epoch_is_counted_once(
            alternates: bool,
            polls in proptest::collection::vec((1_u64..3_000, any::<bool>()), 1..60),
        ) {
            let start = 100;
            let mut schedule = EpochSchedule::new(clock(), alternates, start);
            let (mut now, mut counted, mut active) = (start * 1_000, 0, start);
            for (pause, drains) in polls {
                now += pause;
                if drains {
                    schedule.drained();
                }
                match schedule.step(at(now)) {
                    EpochStep::Switch { epoch, merged } => {
                        prop_assert_eq!(epoch, active + merged);
                        prop_assert_eq!(epoch, now / 1_000);
                        prop_assert!(!alternates || merged % 2 == 1);
                        counted += merged;
                        active = epoch;
                        schedule.switched(epoch);
                    }
                    EpochStep::Wait { until } => {
                        prop_assert!(until > at(now));
                        prop_assert!(until <= at(now + 1_000));
                    }
                }
            }
            prop_assert_eq!(counted, active - start);
        }
    }
}
