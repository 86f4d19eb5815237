//! Arrival rate and busy probability of a unit (equation 2 of the paper).

use std::time::Duration;

use crate::time::Timestamp;

/// How quickly estimates follow what arrives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EstimatorSettings {
    /// K of equation 2: the time over which the arrival rate is averaged. The paper takes ten times
    /// the jitter of arrivals, and 200 ms for packets; exports come in bursts, seconds apart.
    pub rate_time_constant: Duration,
    /// A unit that sends nothing for so long is idle: N times the round trip time in the paper.
    pub idle_after: Duration,
    /// Time over which the share of busy time is averaged.
    pub busy_time_constant: Duration,
}

impl Default for EstimatorSettings {
    fn default() -> Self {
        Self {
            rate_time_constant: Duration::from_secs(10),
            idle_after: Duration::from_secs(5),
            busy_time_constant: Duration::from_secs(60),
        }
    }
}

/// An exponentially averaged arrival rate and the probability that the unit is sending.
///
/// After an arrival of `amount`, `T` after the one before:
///
/// ```text
/// rate = (1 - exp(-T / K)) * amount / T + exp(-T / K) * rate
/// ```
///
/// (the limit for `T` = 0 is `rate + amount / K`). At each synchronisation point, the first arrival
/// after an idle period, the fraction of the time since the last such point in which the unit was
/// busy enters the busy probability with the same formula and a time constant of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadEstimate {
    rate_per_second: f64,
    last_arrival: Timestamp,
    /// Busy probability as of `synchronised`.
    busy_probability: f64,
    /// When the present busy period began.
    synchronised: Timestamp,
}

impl LoadEstimate {
    /// Of a unit that has sent nothing yet, and is about to.
    pub fn new(now: Timestamp) -> Self {
        Self {
            rate_per_second: 0.0,
            last_arrival: now,
            busy_probability: 1.0,
            synchronised: now,
        }
    }

    /// Takes an arrival into account. Time that goes back counts as no time.
    pub fn observe(&mut self, amount: f64, now: Timestamp, settings: &EstimatorSettings) {
        if now.since(self.last_arrival) > settings.idle_after {
            self.busy_probability = self.busy_probability(now, settings);
            self.synchronised = now;
        }
        let interval = now.seconds_since(self.last_arrival);
        let time_constant = settings.rate_time_constant.as_secs_f64().max(1e-9);
        let (gain, kept) = if interval > 0.0 {
            let replaced = one_minus_exp_of_minus(interval / time_constant);
            (replaced / interval, 1.0 - replaced)
        } else {
            (1.0 / time_constant, 1.0)
        };
        self.rate_per_second = gain * amount + kept * self.rate_per_second;
        self.last_arrival = self.last_arrival.max(now);
    }

    /// Amount per second while busy, as of the last arrival.
    pub fn rate_per_second(&self) -> f64 {
        self.rate_per_second
    }

    /// When something arrived last.
    pub fn last_arrival(&self) -> Timestamp {
        self.last_arrival
    }

    /// The probability that the unit is sending, an idle period that has not ended included.
    pub fn busy_probability(&self, now: Timestamp, settings: &EstimatorSettings) -> f64 {
        if now.since(self.last_arrival) <= settings.idle_after {
            return self.busy_probability;
        }
        let period = now.seconds_since(self.synchronised);
        let busy = self.last_arrival.seconds_since(self.synchronised);
        let kept = (-period / settings.busy_time_constant.as_secs_f64().max(1e-9)).exp();
        (1.0 - kept) * (busy / period) + kept * self.busy_probability
    }

    /// What equation 1 sums: rate times busy probability, per second.
    pub fn expected_per_second(&self, now: Timestamp, settings: &EstimatorSettings) -> f64 {
        self.rate_per_second * self.busy_probability(now, settings)
    }

    /// The rate now if nothing has arrived since: as if an arrival of nothing had come.
    pub fn decayed_rate_per_second(&self, now: Timestamp, settings: &EstimatorSettings) -> f64 {
        let time_constant = settings.rate_time_constant.as_secs_f64().max(1e-9);
        let silence = now.seconds_since(self.last_arrival);
        self.rate_per_second * (-silence / time_constant).exp()
    }
}

/// `1 - exp(-x)` without loss of digits where x is small.
fn one_minus_exp_of_minus(x: f64) -> f64 {
    // Packets of a busy back end follow each other in microseconds. The first term that is left out
    // is 1e-16 of the sum.
    const SMALL: f64 = 1e-5;
    if x < SMALL {
        return x * (1.0 - x * (0.5 - x / 6.0));
    }
    -(-x).exp_m1()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: EstimatorSettings = EstimatorSettings {
        rate_time_constant: Duration::from_millis(200),
        idle_after: Duration::from_millis(500),
        busy_time_constant: Duration::from_secs(10),
    };

    #[test]
    fn equation_2_by_hand() {
        // K = 200 ms. First arrival of 10 at once: 10 / 0.2 = 50 a second. Then 30 after 200 ms:
        // (1 - 1/e) * 150 + 50 / e = 94.818 + 18.394.
        let mut estimate = LoadEstimate::new(Timestamp::ZERO);
        estimate.observe(10.0, Timestamp::ZERO, &SETTINGS);
        assert!((estimate.rate_per_second() - 50.0).abs() < 1e-9);
        estimate.observe(30.0, Timestamp::from_millis(200), &SETTINGS);
        assert!((estimate.rate_per_second() - 113.212_055_9).abs() < 1e-6);
    }

    #[test]
    fn a_steady_rate_is_found_whatever_the_interval() {
        for interval_ms in [1, 7, 50, 400] {
            let mut estimate = LoadEstimate::new(Timestamp::ZERO);
            for step in 1..=4000 / interval_ms {
                let now = Timestamp::from_millis(step * interval_ms);
                estimate.observe(interval_ms as f64, now, &SETTINGS);
            }
            let rate = estimate.rate_per_second();
            assert!((rate - 1000.0).abs() < 1.0, "{interval_ms} ms: {rate}");
        }
    }

    #[test]
    fn short_intervals_are_as_exact_as_long_ones() {
        for x in [1e-12_f64, 3e-9, 1e-6, 9.9e-6, 1.1e-5, 0.1, 3.0] {
            let exact = -(-x).exp_m1();
            let error = (one_minus_exp_of_minus(x) - exact).abs() / exact;
            assert!(error < 4e-16, "{x}: {error}");
        }
    }

    #[test]
    fn arrivals_at_one_instant_add_up_as_one() {
        let mut one = LoadEstimate::new(Timestamp::ZERO);
        let mut many = one;
        one.observe(30.0, Timestamp::ZERO, &SETTINGS);
        for _ in 0..30 {
            many.observe(1.0, Timestamp::ZERO, &SETTINGS);
        }
        assert!((one.rate_per_second() - many.rate_per_second()).abs() < 1e-9);
    }

    #[test]
    fn busy_probability_becomes_the_share_of_busy_time() {
        // One second busy, three seconds idle, again and again.
        let mut estimate = LoadEstimate::new(Timestamp::ZERO);
        let mut now_ms = 0;
        for _ in 0..40 {
            for step in 0..=20 {
                estimate.observe(1.0, Timestamp::from_millis(now_ms + step * 50), &SETTINGS);
            }
            now_ms += 4000;
        }
        let now = Timestamp::from_millis(now_ms - 3000);
        let probability = estimate.busy_probability(now, &SETTINGS);
        assert!((probability - 0.25).abs() < 0.01, "{probability}");
        // Silence for good: the expected load vanishes.
        let later = Timestamp::from_millis(now_ms + 1_000_000);
        assert!(estimate.busy_probability(later, &SETTINGS) < 0.01);
        assert!(estimate.expected_per_second(later, &SETTINGS) < 0.5);
    }
}
