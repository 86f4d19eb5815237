//! Gaps in what exporters send, in the protocol's own unit.

/// Larger jumps are restarts of the exporter rather than losses.
const LARGEST_GAP: u32 = 1 << 20;
/// Messages that arrive so much too late count as reordered.
const LARGEST_REORDER: u32 = 1 << 12;
/// So many late messages in a row are a restart.
const LATE_RUN: u8 = 8;

/// Watches the sequence numbers of one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SequenceTracker {
    expected: Option<u32>,
    late_run: u8,
    lost: u64,
    late: u64,
    restarts: u64,
}

/// What a sequence number says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceEvent {
    /// Nothing is known to compare with.
    First,
    /// As expected.
    InOrder,
    /// So many units are missing before this message.
    Gap(u32),
    /// The message was overtaken by others.
    Late,
    /// The exporter began anew.
    Restart,
}

impl SequenceTracker {
    /// Takes the number of a message that carries so many units; none if that is not known, as for
    /// data without a template: the next number is then taken as it is.
    pub fn observe(&mut self, sequence: u32, units: Option<u32>) -> SequenceEvent {
        let after = units.map(|units| sequence.wrapping_add(units));
        let Some(expected) = self.expected else {
            self.expected = after;
            return SequenceEvent::First;
        };
        let ahead = sequence.wrapping_sub(expected);
        let behind = expected.wrapping_sub(sequence);
        let event = if ahead == 0 {
            SequenceEvent::InOrder
        } else if ahead <= LARGEST_GAP {
            SequenceEvent::Gap(ahead)
        } else if behind <= LARGEST_REORDER && self.late_run < LATE_RUN {
            SequenceEvent::Late
        } else {
            SequenceEvent::Restart
        };
        if event == SequenceEvent::Late {
            self.late_run += 1;
            self.late += 1;
            // It was counted as lost when the gap showed.
            self.lost = self.lost.saturating_sub(u64::from(units.unwrap_or(0)));
            return event;
        }
        self.late_run = 0;
        self.expected = after;
        match event {
            SequenceEvent::Gap(units) => self.lost += u64::from(units),
            SequenceEvent::Restart => self.restarts += 1,
            _ => {}
        }
        event
    }

    /// The number that the next message should have, if that is known.
    pub fn expected(&self) -> Option<u32> {
        self.expected
    }

    /// Units that never arrived.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Messages that were overtaken.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// How often the exporter began anew.
    pub fn restarts(&self) -> u64 {
        self.restarts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_count_in_units() {
        let mut tracker = SequenceTracker::default();
        assert_eq!(tracker.observe(100, Some(30)), SequenceEvent::First);
        assert_eq!(tracker.observe(130, Some(30)), SequenceEvent::InOrder);
        assert_eq!(tracker.observe(190, Some(10)), SequenceEvent::Gap(30));
        assert_eq!(tracker.lost(), 30);
        assert_eq!(tracker.observe(160, Some(30)), SequenceEvent::Late);
        assert_eq!((tracker.lost(), tracker.late()), (0, 1));
        assert_eq!(tracker.observe(200, Some(1)), SequenceEvent::InOrder);
    }

    #[test]
    fn numbers_wrap() {
        let mut tracker = SequenceTracker::default();
        tracker.observe(u32::MAX - 4, Some(10));
        assert_eq!(tracker.observe(5, Some(10)), SequenceEvent::InOrder);
        assert_eq!(tracker.observe(16, Some(10)), SequenceEvent::Gap(1));
    }

    #[test]
    fn restarts_are_not_losses() {
        let mut tracker = SequenceTracker::default();
        tracker.observe(3_000_000_000, Some(1));
        assert_eq!(tracker.observe(0, Some(1)), SequenceEvent::Restart);
        assert_eq!(tracker.observe(1, Some(1)), SequenceEvent::InOrder);
        // A restart soon after the start looks late at first.
        tracker.observe(2, Some(1000));
        for sequence in 0..u32::from(LATE_RUN) {
            assert_eq!(tracker.observe(sequence, Some(1)), SequenceEvent::Late);
        }
        assert_eq!(tracker.observe(8, Some(1)), SequenceEvent::Restart);
        assert_eq!(tracker.observe(9, Some(1)), SequenceEvent::InOrder);
        assert_eq!(tracker.lost(), 0);
    }

    #[test]
    fn unknown_units_do_not_invent_gaps() {
        let mut tracker = SequenceTracker::default();
        tracker.observe(10, Some(5));
        assert_eq!(tracker.observe(15, None), SequenceEvent::InOrder);
        assert_eq!(tracker.observe(40, Some(1)), SequenceEvent::First);
        assert_eq!(tracker.observe(42, Some(1)), SequenceEvent::Gap(1));
    }
}
