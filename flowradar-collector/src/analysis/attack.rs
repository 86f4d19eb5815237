//! Attacks: SYN floods, scans, fan-in and fan-out.

/// Limits of attack detection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttackOptions {
    /// Epochs before anything is called unusual.
    pub learning_epochs: usize,
    /// Epochs that a baseline remembers.
    pub baseline_epochs: usize,
    /// Robust standard deviations (1.4826 times the median absolute deviation) above the median from
    /// which on a number is unusual.
    pub deviations: f64,
    /// No number below this is unusual.
    pub flows_min: u64,
    /// A flow of at most so many packets may be an attempt that nobody answered.
    pub attempt_packets_max: u64,
    /// Addresses and services with a baseline of their own at most, of each kind.
    pub baselines_max: usize,
}

impl Default for AttackOptions {
    fn default() -> Self {
        Self {
            learning_epochs: 5,
            baseline_epochs: 32,
            deviations: 8.0,
            flows_min: 30,
            attempt_packets_max: 1,
            baselines_max: 4_096,
        }
    }
}
