//! How many flows an epoch has, before it is encoded.

use hyperloglockless::HyperLogLogPlus;

use super::PlannedFlows;
use crate::trace::TraceKey;

/// Registers of the estimate of the number of flows, as a power of two: a standard error of 0.6 %.
const ESTIMATE_PRECISION: u8 = 15;

/// How much more flows than estimated a table is made for: five standard errors.
const ESTIMATE_MARGIN: f64 = 1.03;

/// Seed of the estimate's hashes, so that a trace gives the same flowsets every time.
const ESTIMATE_SEED: u128 = 0x5EED;

/// Estimates the most flows of an epoch, by HyperLogLog: constant memory.
pub(super) struct FlowEstimate {
    v4: HyperLogLogPlus,
    v6: HyperLogLogPlus,
    pub(super) most: PlannedFlows,
}

impl FlowEstimate {
    pub(super) fn packet(&mut self, key: &TraceKey) {
        match key {
            TraceKey::V4(key) => self.v4.insert(key),
            TraceKey::V6(key) => self.v6.insert(key),
        }
    }

    pub(super) fn end_epoch(&mut self) {
        let flows = |estimate: &mut HyperLogLogPlus| {
            let count = std::mem::replace(estimate, new_estimate()).count();
            (count as f64 * ESTIMATE_MARGIN).ceil() as u64
        };
        self.most.v4 = self.most.v4.max(flows(&mut self.v4));
        self.most.v6 = self.most.v6.max(flows(&mut self.v6));
    }
}

impl Default for FlowEstimate {
    fn default() -> Self {
        Self {
            v4: new_estimate(),
            v6: new_estimate(),
            most: PlannedFlows { v4: 1, v6: 1 },
        }
    }
}

fn new_estimate() -> HyperLogLogPlus {
    HyperLogLogPlus::seeded(ESTIMATE_PRECISION, ESTIMATE_SEED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_is_of_the_largest_epoch() {
        let mut estimate = FlowEstimate::default();
        for flows in [500_u16, 2000, 100] {
            for port in 0..flows {
                let key = flowradar_core::FlowKeyV4::new(
                    [10, 0, 0, 1].into(),
                    [10, 0, 0, 2].into(),
                    port,
                    80,
                    6,
                );
                estimate.packet(&TraceKey::V4(key));
            }
            estimate.end_epoch();
        }
        assert!(
            (2000..2200).contains(&estimate.most.v4),
            "{:?}",
            estimate.most
        );
        assert_eq!(estimate.most.v6, 1);
    }
}
