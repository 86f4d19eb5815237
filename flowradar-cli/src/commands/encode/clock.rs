//! Which epoch a packet is counted in.

use std::ops::Range;

use flowradar_core::flowset::Epoch;

use crate::units::EpochLength;

/// Which epoch packets belong to.
#[derive(Debug)]
pub(super) struct EpochClock {
    length: EpochLength,
    current: Option<Epoch>,
    /// Epochs with packets.
    pub(super) epochs: u64,
    pub(super) empty_epochs_skipped: u64,
    /// Packets counted in a later epoch than they belong to.
    pub(super) late_packets: u64,
    /// Packets without a timestamp where one is needed: counted in the epoch of the packet before.
    pub(super) packets_without_time: u64,
}

impl EpochClock {
    pub(super) fn new(length: EpochLength) -> Self {
        Self {
            length,
            current: None,
            epochs: 0,
            empty_epochs_skipped: 0,
            late_packets: 0,
            packets_without_time: 0,
        }
    }

    /// The epoch to count a packet in; and if the epoch before has ended with it, the numbers of
    /// the empty epochs in between.
    pub(super) fn advance(&mut self, timestamp_ns: Option<u64>) -> (Epoch, Option<Range<u64>>) {
        let wanted = match (self.length, timestamp_ns, self.current) {
            (EpochLength::Whole, _, Some(current)) => current,
            (EpochLength::Whole, start_ns, None) => Epoch {
                number: 0,
                start_ns: start_ns.unwrap_or(0),
                length_ns: 0,
            },
            (EpochLength::Nanoseconds(length_ns), Some(time_ns), _) => {
                self.epoch(time_ns / length_ns)
            }
            (EpochLength::Nanoseconds(_), None, current) => {
                self.packets_without_time += 1;
                current.unwrap_or_else(|| self.epoch(0))
            }
        };
        match self.current {
            Some(current) if wanted.number == current.number => (current, None),
            Some(current) if wanted.number < current.number => {
                self.late_packets += 1;
                (current, None)
            }
            before => {
                self.current = Some(wanted);
                self.epochs += 1;
                (
                    wanted,
                    before.map(|before| before.number + 1..wanted.number),
                )
            }
        }
    }

    /// The epoch of packets now.
    pub(super) fn current(&self) -> Epoch {
        self.current.unwrap_or_default()
    }

    /// The epoch of this number.
    pub(super) fn epoch(&self, number: u64) -> Epoch {
        let length_ns = match self.length {
            EpochLength::Whole => 0,
            EpochLength::Nanoseconds(length_ns) => length_ns,
        };
        Epoch {
            number,
            start_ns: number * length_ns,
            length_ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn epochs_begin_at_multiples_of_their_length() {
        let mut clock = EpochClock::new(EpochLength::Nanoseconds(10 * MS));
        let (epoch, ended) = clock.advance(Some(1_234 * MS + 567));
        let expected = Epoch {
            number: 123,
            start_ns: 1_230 * MS,
            length_ns: 10 * MS,
        };
        assert_eq!((epoch, ended), (expected, None));
        assert_eq!(clock.advance(Some(1_239 * MS + 999_999)), (expected, None));
        let (epoch, ended) = clock.advance(Some(1_240 * MS));
        assert_eq!((epoch.number, ended), (124, Some(124..124)));
        let (epoch, ended) = clock.advance(Some(1_300 * MS));
        assert_eq!((epoch.number, ended), (130, Some(125..130)));
        assert_eq!((clock.epochs, clock.late_packets), (3, 0));
    }

    #[test]
    fn time_never_goes_back() {
        let mut clock = EpochClock::new(EpochLength::Nanoseconds(10 * MS));
        clock.advance(Some(55 * MS));
        let (epoch, ended) = clock.advance(Some(49 * MS));
        assert_eq!((epoch.number, ended), (5, None));
        let (epoch, ended) = clock.advance(None);
        assert_eq!((epoch.number, ended), (5, None));
        // Late within the epoch is not late.
        clock.advance(Some(51 * MS));
        assert_eq!((clock.late_packets, clock.packets_without_time), (1, 1));
    }

    #[test]
    fn the_whole_trace_is_one_epoch() {
        let mut clock = EpochClock::new(EpochLength::Whole);
        for time in [Some(7 * MS), Some(3 * MS), None, Some(u64::MAX)] {
            let (epoch, ended) = clock.advance(time);
            let expected = Epoch {
                number: 0,
                start_ns: 7 * MS,
                length_ns: 0,
            };
            assert_eq!((epoch, ended), (expected, None));
        }
        assert_eq!((clock.epochs, clock.late_packets), (1, 0));
    }
}
