//! Randomness that is the same on every machine and in every version.
//!
//! Each decision of a simulation draws from a stream of its own, named by the seed, a [`Purpose`]
//! and two indices. So any flow can be worked out alone, in any order and on any thread, and
//! switching one fault on does not change what the others do. Only value-stable algorithms are
//! used: XXH3 for naming streams, xoshiro256++ for long ones, and `libm` instead of the platform's
//! mathematics.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What a stream is drawn for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Purpose {
    ClockOffset = 1,
    EcmpSalt = 2,
    FaultPlan = 3,
    FaultSelection = 4,
    FlowContinues = 5,
    FlowKey = 6,
    FlowSize = 7,
    HostPair = 8,
    InFlight = 9,
    LossyFlow = 10,
    Pacing = 11,
    PathLosses = 12,
    PodEdge = 13,
    PodMatching = 14,
    PortPermutation = 15,
    Silence = 16,
    TraceHost = 17,
    EncoderSeed = 18,
    ExtraFlows = 19,
}

/// The seed of a simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(pub(crate) u64);

impl Seed {
    /// 64 bits that depend on nothing but the arguments.
    pub(crate) fn bits(self, purpose: Purpose, a: u64, b: u64) -> u64 {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&(purpose as u64).to_le_bytes());
        bytes[8..16].copy_from_slice(&a.to_le_bytes());
        bytes[16..].copy_from_slice(&b.to_le_bytes());
        xxh3_64_with_seed(&bytes, self.0)
    }

    /// Whether an event of the given probability happens.
    pub(crate) fn chance(self, probability: f64, purpose: Purpose, a: u64, b: u64) -> bool {
        // Most runs leave most faults off: do not hash for them.
        probability > 0.0 && unit(self.bits(purpose, a, b)) < probability
    }

    /// A generator for as many values as needed.
    pub(crate) fn stream(self, purpose: Purpose, a: u64, b: u64) -> Stream {
        Stream(Xoshiro256PlusPlus::seed_from_u64(self.bits(purpose, a, b)))
    }
}

/// A generator of random values.
#[derive(Clone, Debug)]
pub(crate) struct Stream(Xoshiro256PlusPlus);

impl Stream {
    pub(crate) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in `[0, 1)`.
    pub(crate) fn unit(&mut self) -> f64 {
        unit(self.bits())
    }

    /// Uniform in `0..bound`, without bias (Lemire, "Fast Random Integer Generation in an
    /// Interval", 2019). 0 if `bound` is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let reject_below = bound.wrapping_neg().checked_rem(bound).unwrap_or(0);
        loop {
            let product = u128::from(self.bits()) * u128::from(bound);
            if product as u64 >= reject_below {
                return (product >> 64) as u64;
            }
        }
    }

    /// How many of `trials` succeed when each does with the given probability.
    ///
    /// Jumps from success to success with geometric gaps, which is exact, and takes time
    /// proportional to the rarer of successes and failures.
    pub(crate) fn binomial(&mut self, trials: u64, probability: f64) -> u64 {
        if probability <= 0.0 || trials == 0 {
            return 0;
        }
        if probability >= 1.0 {
            return trials;
        }
        if probability > 0.5 {
            return trials - self.binomial(trials, 1.0 - probability);
        }
        let log_failure = libm::log1p(-probability);
        let mut successes = 0;
        let mut left = trials;
        loop {
            // `unit` may be 0 but never 1, so that the logarithm is of a number in (0, 1].
            let failures = libm::floor(libm::log(1.0 - self.unit()) / log_failure);
            if failures >= left as f64 {
                return successes;
            }
            successes += 1;
            left -= failures as u64 + 1;
        }
    }
}

/// A bijection of 30-bit numbers: a balanced Feistel network of four rounds (Luby and Rackoff,
/// 1988). Gives distinct flows distinct port pairs that look random.
pub(crate) fn permute_30_bits(seed: Seed, value: u32) -> u32 {
    const HALF: u32 = (1 << 15) - 1;
    let (mut left, mut right) = (value >> 15 & HALF, value & HALF);
    for round in 0..4 {
        let mixed = seed.bits(Purpose::PortPermutation, round, right.into()) as u32 & HALF;
        (left, right) = (right, left ^ mixed);
    }
    left << 15 | right
}

/// The upper bits as a number in `[0, 1)`; all results are multiples of 2⁻⁵³.
pub(crate) fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// Uniform in `0..bound`, with a bias below `bound / 2^64`: for choices that one hash decides.
pub(crate) fn scale(bits: u64, bound: u64) -> u64 {
    ((u128::from(bits) * u128::from(bound)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and variance within five standard errors, on both sides of one half.
    #[test]
    fn binomial_has_the_binomial_mean_and_variance() {
        const DRAWS: usize = 20_000;
        for (trials, probability) in [(10, 0.1), (1_000, 0.02), (50, 0.5), (200, 0.93)] {
            let mut stream = Seed(7).stream(Purpose::PathLosses, trials, 0);
            let draws: Vec<f64> = (0..DRAWS)
                .map(|_| stream.binomial(trials, probability) as f64)
                .collect();
            let mean = draws.iter().sum::<f64>() / DRAWS as f64;
            let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / DRAWS as f64;
            let (expected_mean, expected_variance) = (
                trials as f64 * probability,
                trials as f64 * probability * (1.0 - probability),
            );
            assert!(
                (mean - expected_mean).abs() < 5.0 * (expected_variance / DRAWS as f64).sqrt(),
                "{trials} × {probability}: mean {mean}"
            );
            // A sum of many trials is nearly normal: its variance has a relative error of
            // sqrt(2 / draws).
            assert!(
                (variance / expected_variance - 1.0).abs() < 6.0 * (2.0 / DRAWS as f64).sqrt(),
                "{trials} × {probability}: variance {variance}"
            );
        }
    }

    #[test]
    fn binomial_keeps_its_bounds() {
        let mut stream = Seed(1).stream(Purpose::PathLosses, 0, 0);
        assert_eq!(stream.binomial(5, 0.0), 0);
        assert_eq!(stream.binomial(5, 1.0), 5);
        assert_eq!(stream.binomial(0, 0.5), 0);
        for _ in 0..1_000 {
            assert!(stream.binomial(3, 1e-300) == 0);
            assert!(stream.binomial(3, 0.9) <= 3);
        }
    }

    #[test]
    fn below_is_uniform_and_bounded() {
        let mut stream = Seed(3).stream(Purpose::HostPair, 0, 0);
        let mut seen = [0_u32; 7];
        for _ in 0..70_000 {
            seen[stream.below(7) as usize] += 1;
        }
        // 10,000 expected, standard deviation 92.6.
        assert!(seen.iter().all(|&n| n.abs_diff(10_000) < 500), "{seen:?}");
        assert_eq!(stream.below(1), 0);
        assert_eq!(stream.below(0), 0);
    }

    #[test]
    fn permutation_is_a_bijection_where_checked() {
        let images: std::collections::HashSet<u32> =
            (0..100_000).map(|i| permute_30_bits(Seed(9), i)).collect();
        assert_eq!(images.len(), 100_000);
        assert!(images.iter().all(|&image| image < 1 << 30));
    }
}
