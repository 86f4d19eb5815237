//! Counters, meters and registers.

use thiserror::Error;

/// What a counter counted; both are always counted, whatever kind the program asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterData {
    /// Packets.
    pub packets: u64,
    /// Bytes of these packets as they came in.
    pub bytes: u64,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeterRate {
    /// Packets or bytes a second.
    pub per_second: f64,
    /// Packets or bytes that may come at once.
    pub burst: u64,
}

/// A two-rate three-colour meter (RFC 2698, colour-blind), as bmv2 has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeterConfig {
    /// Above it packets are yellow.
    pub committed: MeterRate,
    /// Above it packets are red; not below the committed rate.
    pub peak: MeterRate,
}

/// What a meter says about a packet; the numbers are those that programs see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeterColor {
    /// Within the committed rate.
    Green = 0,
    /// Above the committed rate.
    Yellow = 1,
    /// Above the peak rate.
    Red = 2,
}

/// Why a counter, meter or register could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ArrayError {
    /// A meter's rate is negative or not a number, or the peak is below the committed rate.
    #[error(
        "meter {name}: rates and bursts must not be negative, nor the peak below the committed rate"
    )]
    MeterRates {
        /// The meter.
        name: String,
    },
    /// The index is beyond the array's end.
    #[error("{what} {name} has {size} cells, there is no cell {index}")]
    OutOfRange {
        /// Counter, meter or register.
        what: &'static str,
        /// Its name.
        name: String,
        /// How many cells it has.
        size: usize,
        /// What was asked for.
        index: usize,
    },
    /// The program has no such array.
    #[error("the program has no {what} {name}")]
    Unknown {
        /// Counter, meter or register.
        what: &'static str,
        /// What was asked for.
        name: String,
    },
    /// The value needs more bits than a cell has.
    #[error("register {name}: the value needs more than a cell's {width} bits")]
    Width {
        /// The register.
        name: String,
        /// Its cells' width in bits.
        width: u32,
    },
}
