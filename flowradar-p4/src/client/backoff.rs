//! How long to wait before the next attempt. No clock: delays come out.

use std::time::Duration;

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// Bounds of the delays between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffPolicy {
    /// At most this long after the first failure.
    pub first: Duration,
    /// At most this long after many.
    pub longest: Duration,
}

/// Delays that double with every failure, each drawn from the upper half of what it may be, so that many
/// clients of one switch do not come back at the same moment.
#[derive(Clone, Debug)]
pub struct Backoff {
    policy: BackoffPolicy,
    failures: u32,
    random: Xoshiro256PlusPlus,
}

impl Default for BackoffPolicy {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            longest: Duration::from_secs(10),
        }
    }
}

impl Backoff {
    /// No failures so far. Clients of one switch should have different seeds.
    pub fn new(policy: BackoffPolicy, seed: u64) -> Self {
        Self {
            policy,
            failures: 0,
            random: Xoshiro256PlusPlus::seed_from_u64(seed),
        }
    }

    /// An attempt has failed: the time to wait before the next one.
    pub fn fail(&mut self) -> Duration {
        let doubled = self.policy.first.saturating_mul(1 << self.failures.min(20));
        let bound = doubled.min(self.policy.longest);
        self.failures = self.failures.saturating_add(1);
        let half = bound / 2;
        let bound_ns = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        let random_ns = match bound_ns.checked_add(1) {
            Some(range) => self.random.next_u64() % range,
            None => self.random.next_u64(),
        };
        half + Duration::from_nanos(random_ns)
    }

    /// An attempt has succeeded: the next failure is a first one again.
    pub fn succeed(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: BackoffPolicy = BackoffPolicy {
        first: Duration::from_millis(100),
        longest: Duration::from_secs(10),
    };

    #[test]
    fn delays_double_up_to_the_longest() {
        let mut backoff = Backoff::new(POLICY, 1);
        let mut bound = POLICY.first;
        for _ in 0..100 {
            let delay = backoff.fail();
            assert!(
                delay >= bound / 2 && delay <= bound,
                "{delay:?} of {bound:?}"
            );
            bound = (bound * 2).min(POLICY.longest);
        }
        backoff.succeed();
        assert!(backoff.fail() <= POLICY.first);
    }

    #[test]
    fn clients_come_back_at_different_moments() {
        let delays: Vec<Duration> = (0..50)
            .map(|seed| Backoff::new(POLICY, seed).fail())
            .collect();
        let mut distinct = delays.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), delays.len());
    }
}
