//! Baselines that a few outliers do not move.

use std::collections::VecDeque;

/// A normal distribution's standard deviation over its median absolute deviation.
const DEVIATION_OVER_MAD: f64 = 1.4826;

/// The last values of something that is counted once an epoch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Baseline {
    values: VecDeque<u32>,
}

impl Baseline {
    pub(crate) fn push(&mut self, value: u64, values_max: usize) {
        while self.values.len() >= values_max.max(1) {
            self.values.pop_front();
        }
        self.values
            .push_back(u32::try_from(value).unwrap_or(u32::MAX));
    }

    /// Values of epochs before the first one kept count as zero.
    pub(crate) fn fill_with_zeros(&mut self, values: usize, values_max: usize) {
        for _ in 0..values.min(values_max.saturating_sub(1)) {
            self.values.push_front(0);
        }
    }

    /// Whether all values are zero.
    pub(crate) fn is_zero(&self) -> bool {
        self.values.iter().all(|&value| value == 0)
    }

    /// What a value must exceed to be unusual: the median and so many robust deviations. The deviation
    /// is at least that of a count with this median (its square root), and 1.
    pub(crate) fn limit(&self, deviations: f64) -> f64 {
        let mut values: Vec<f64> = self.values.iter().map(|&value| f64::from(value)).collect();
        let middle = median(&mut values);
        for value in &mut values {
            *value = (*value - middle).abs();
        }
        let deviation = DEVIATION_OVER_MAD * median(&mut values);
        middle + deviations * deviation.max(middle.sqrt()).max(1.0)
    }
}

/// The lower median; 0 of nothing.
fn median(values: &mut [f64]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let middle = (values.len() - 1) / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline(values: &[u64]) -> Baseline {
        let mut baseline = Baseline::default();
        for &value in values {
            baseline.push(value, 9);
        }
        baseline
    }

    #[test]
    fn outliers_do_not_move_it() {
        let calm = baseline(&[100, 104, 96, 100, 108, 92, 100, 104, 96]);
        // Median 100, median absolute deviation 4; the deviation of a count of 100 is 10.
        assert_eq!(calm.limit(6.0), 160.0);
        let outliers = baseline(&[100, 104, 96, 100, 108, 92, 100, 9_000, 0]);
        assert_eq!(outliers.limit(6.0), 160.0);
    }

    #[test]
    fn old_values_are_forgotten() {
        let mut baseline = baseline(&[1_000; 9]);
        for _ in 0..9 {
            baseline.push(0, 9);
        }
        assert!(baseline.is_zero());
        assert_eq!(baseline.limit(5.0), 5.0);
    }
}
