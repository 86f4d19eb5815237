//! The cells of registers and meters.

use crate::program::op::ones;
use crate::runtime::{MeterColor, MeterConfig, MeterRate};
use crate::{Timestamp, Value};

/// A register's cells, in the smallest words that hold them.
#[derive(Debug)]
pub(super) struct RegisterCells {
    pub(super) bits: u32,
    pub(super) words: Words,
}

/// The words of [`RegisterCells`].
#[derive(Debug)]
pub(super) enum Words {
    Bits8(Vec<u8>),
    Bits32(Vec<u32>),
    Bits64(Vec<u64>),
    Wide { limbs: usize, words: Vec<u64> },
}

impl RegisterCells {
    pub(super) fn new(size: usize, bits: u32) -> Self {
        let words = match bits {
            0..=8 => Words::Bits8(vec![0; size]),
            9..=32 => Words::Bits32(vec![0; size]),
            33..=64 => Words::Bits64(vec![0; size]),
            _ => {
                let limbs = bits.div_ceil(64) as usize;
                Words::Wide {
                    limbs,
                    words: vec![0; size * limbs],
                }
            }
        };
        Self { bits, words }
    }

    pub(super) fn len(&self) -> usize {
        match &self.words {
            Words::Bits8(words) => words.len(),
            Words::Bits32(words) => words.len(),
            Words::Bits64(words) => words.len(),
            Words::Wide { limbs, words } => words.len() / limbs,
        }
    }

    /// A cell of at most 64 bits, or the low 64 bits of a wider one.
    #[inline]
    pub(super) fn read(&self, index: u64) -> Option<u64> {
        let index = usize::try_from(index).ok()?;
        match &self.words {
            Words::Bits8(words) => words.get(index).map(|word| u64::from(*word)),
            Words::Bits32(words) => words.get(index).map(|word| u64::from(*word)),
            Words::Bits64(words) => words.get(index).copied(),
            Words::Wide { limbs, words } => words.get(index.checked_mul(*limbs)?).copied(),
        }
    }

    /// All words of a cell.
    pub(super) fn read_wide(&self, index: u64) -> Option<CellWords<'_>> {
        match &self.words {
            Words::Wide { limbs, words } => {
                let start = usize::try_from(index).ok()?.checked_mul(*limbs)?;
                words
                    .get(start..start.checked_add(*limbs)?)
                    .map(CellWords::Wide)
            }
            _ => self.read(index).map(CellWords::Narrow),
        }
    }

    /// Sets a cell of at most 64 bits, cut off; `false` if there is none.
    #[inline]
    pub(super) fn write(&mut self, index: u64, value: u64) -> bool {
        let Ok(index) = usize::try_from(index) else {
            return false;
        };
        let value = value & ones(self.bits.min(64));
        match &mut self.words {
            Words::Bits8(words) => set(words, index, value as u8),
            Words::Bits32(words) => set(words, index, value as u32),
            Words::Bits64(words) => set(words, index, value),
            Words::Wide { .. } => false,
        }
    }

    /// Sets a wide cell, cut off; `false` if there is none.
    pub(super) fn write_wide(&mut self, index: u64, value: &[u64]) -> bool {
        let bits = self.bits;
        match &mut self.words {
            Words::Wide { limbs, words } => {
                let cell = usize::try_from(index)
                    .ok()
                    .and_then(|index| index.checked_mul(*limbs))
                    .and_then(|start| words.get_mut(start..start.checked_add(*limbs)?));
                let (Some(cell), true) = (cell, value.len() == *limbs) else {
                    return false;
                };
                cell.copy_from_slice(value);
                if let Some(last) = cell.last_mut() {
                    *last &= ones(bits - (*limbs as u32 - 1) * 64);
                }
                true
            }
            _ => value.first().is_some_and(|value| self.write(index, *value)),
        }
    }

    pub(super) fn value(&self, index: usize) -> Option<Value> {
        Some(match self.read_wide(index as u64)? {
            CellWords::Narrow(word) => Value::from(word),
            CellWords::Wide(words) => Value::from_limbs(words),
        })
    }

    pub(super) fn limbs(&self) -> usize {
        self.bits.div_ceil(64) as usize
    }
}

/// The words of one cell.
#[derive(Clone, Copy, Debug)]
pub(super) enum CellWords<'a> {
    Narrow(u64),
    Wide(&'a [u64]),
}

impl CellWords<'_> {
    /// A word, or zero above the cell's.
    pub(super) fn word(self, index: usize) -> u64 {
        match self {
            Self::Narrow(word) => {
                if index == 0 {
                    word
                } else {
                    0
                }
            }
            Self::Wide(words) => words.get(index).copied().unwrap_or_default(),
        }
    }
}

/// One meter: two token buckets filled from the time it was configured.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    pub(super) config: MeterConfig,
    since: Timestamp,
    committed: Bucket,
    peak: Bucket,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: u64,
    given: u64,
}

impl Meter {
    pub(super) fn new(config: MeterConfig, now: Timestamp) -> Self {
        Self {
            config,
            since: now,
            committed: Bucket {
                tokens: config.committed.burst,
                given: 0,
            },
            peak: Bucket {
                tokens: config.peak.burst,
                given: 0,
            },
        }
    }

    /// Whether rates make sense.
    pub(super) fn is_valid(config: &MeterConfig) -> bool {
        let rates = [config.committed.per_second, config.peak.per_second];
        rates.iter().all(|rate| rate.is_finite() && *rate >= 0.0)
            && config.peak.per_second >= config.committed.per_second
    }

    /// The colour of a packet that costs `cost` tokens. As in bmv2, peak first: a packet that the peak
    /// bucket has no tokens for leaves the committed one alone.
    pub(super) fn execute(&mut self, cost: u64, now: Timestamp) -> MeterColor {
        let microseconds = now.microseconds().saturating_sub(self.since.microseconds());
        if !self.peak.take(self.config.peak, cost, microseconds) {
            MeterColor::Red
        } else if !self
            .committed
            .take(self.config.committed, cost, microseconds)
        {
            MeterColor::Yellow
        } else {
            MeterColor::Green
        }
    }
}

impl Bucket {
    fn take(&mut self, rate: MeterRate, cost: u64, microseconds: u64) -> bool {
        let due = (microseconds as f64 * (rate.per_second / 1e6)) as u64;
        let fresh = due.saturating_sub(self.given);
        self.given = self.given.max(due);
        self.tokens = self.tokens.saturating_add(fresh).min(rate.burst);
        if self.tokens < cost {
            return false;
        }
        self.tokens -= cost;
        true
    }
}

#[inline]
fn set<T>(words: &mut [T], index: usize, value: T) -> bool {
    match words.get_mut(index) {
        Some(word) => {
            *word = value;
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_cut_off_to_their_width() {
        for (bits, stored) in [(1, 1), (7, 0x7f), (20, 0xf_ffff), (33, 0x1_ffff_ffff)] {
            let mut cells = RegisterCells::new(3, bits);
            assert!(cells.write(2, u64::MAX));
            assert_eq!(cells.read(2), Some(stored));
            assert!(!cells.write(3, 1));
            assert_eq!(cells.read(3), None);
            assert_eq!(cells.read(u64::MAX), None);
        }
        let mut wide = RegisterCells::new(2, 104);
        assert!(wide.write_wide(1, &[u64::MAX, u64::MAX]));
        assert_eq!(wide.value(1), Some(Value::ones(104)));
        assert_eq!(wide.value(0), Some(Value::from(0_u64)));
        assert!(!wide.write_wide(2, &[0, 0]));
    }

    #[test]
    fn a_meter_colours_by_rate() {
        // RFC 2698 by hand: committed 1 packet a second with a burst of 1, peak 2 with a burst of 2.
        let rate = |per_second, burst| MeterRate { per_second, burst };
        let config = MeterConfig {
            committed: rate(1.0, 1),
            peak: rate(2.0, 2),
        };
        let mut meter = Meter::new(config, Timestamp::ZERO);
        let at = Timestamp::from_microseconds;
        assert_eq!(meter.execute(1, at(0)), MeterColor::Green);
        assert_eq!(meter.execute(1, at(1)), MeterColor::Yellow);
        assert_eq!(meter.execute(1, at(2)), MeterColor::Red);
        // Half a second gives one peak token, no committed one.
        assert_eq!(meter.execute(1, at(500_000)), MeterColor::Yellow);
        // At one second both have one.
        assert_eq!(meter.execute(1, at(1_000_000)), MeterColor::Green);
    }
}
