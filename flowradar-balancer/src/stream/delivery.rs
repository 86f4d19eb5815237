//! How far one collector has been told of one stream.

use crate::policy::BackEndId;
use crate::time::Timestamp;

/// State of a stream at one collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The collector, or the receiver of a copy.
    pub destination: BackEndId,
    /// The stream's templates and options up to this version are there.
    pub version: u64,
    /// A collector that may have lost its memory gets the next number, and all state again.
    pub memory: u32,
    /// When all templates were there last, by the exporter or by the balancer.
    pub templates_at: Timestamp,
    /// When anything was sent.
    pub last_sent: Timestamp,
    /// Messages sent.
    pub messages: u64,
    /// The sequence number that the collector expects next; none before the first message.
    next_sequence: Option<u32>,
    /// What is added to the exporter's sequence numbers, if the stream is not split.
    shift: u32,
}

impl Delivery {
    /// Nothing sent yet.
    pub fn new(destination: BackEndId, now: Timestamp) -> Self {
        Self {
            destination,
            version: 0,
            memory: 0,
            templates_at: now,
            last_sent: now,
            messages: 0,
            next_sequence: None,
            shift: 0,
        }
    }

    /// The number for a message of a split stream that carries so many units: the collector's own
    /// count, begun with the exporter's number.
    pub fn own_number(&mut self, upstream: u32, units: u32) -> u32 {
        let number = self.next_sequence.unwrap_or(upstream);
        self.next_sequence = Some(number.wrapping_add(units));
        number
    }

    /// Prepares for the message with the exporter's number `upstream` of a stream that is not split,
    /// before which messages of `inserted` units in all are inserted. Returns the number of the first
    /// inserted one.
    ///
    /// At first contact the inserted numbers lie before the exporter's, which stay. Where the stream
    /// was before and comes back, its numbers go on from where they were. And where messages are
    /// inserted into a running stream, what follows is shifted: the exporter's own gaps stay gaps.
    pub fn make_room(&mut self, upstream: u32, inserted: u32, comes_back: bool) -> u32 {
        let start = match self.next_sequence {
            None => upstream.wrapping_sub(inserted),
            Some(next) if comes_back => next,
            Some(_) => upstream.wrapping_add(self.shift),
        };
        self.shift = start.wrapping_add(inserted).wrapping_sub(upstream);
        start
    }

    /// The number for a message of a stream that is not split.
    pub fn shifted_number(&mut self, upstream: u32, units: u32) -> u32 {
        let number = upstream.wrapping_add(self.shift);
        self.next_sequence = Some(number.wrapping_add(units));
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery() -> Delivery {
        Delivery::new(BackEndId(0), Timestamp::ZERO)
    }

    #[test]
    fn an_unsplit_stream_keeps_its_numbers_and_gaps() {
        let mut delivery = delivery();
        assert_eq!(delivery.make_room(100, 2, false), 98);
        assert_eq!(delivery.shifted_number(100, 1), 100);
        assert_eq!(delivery.shifted_number(105, 1), 105);
    }

    #[test]
    fn insertions_shift_what_follows() {
        let mut delivery = delivery();
        assert_eq!(delivery.shifted_number(7, 1), 7);
        assert_eq!(delivery.make_room(8, 2, false), 8);
        assert_eq!(delivery.shifted_number(8, 1), 10);
        assert_eq!(delivery.shifted_number(9, 1), 11);
        // Two are missing at the exporter's.
        assert_eq!(delivery.shifted_number(12, 1), 14);
    }

    #[test]
    fn a_returning_stream_goes_on() {
        let mut delivery = delivery();
        assert_eq!(delivery.shifted_number(7, 1), 7);
        assert_eq!(delivery.make_room(500, 1, true), 8);
        assert_eq!(delivery.shifted_number(500, 1), 9);
        assert_eq!(delivery.shifted_number(501, 1), 10);
    }

    #[test]
    fn own_numbers_have_no_gaps() {
        let mut delivery = delivery();
        assert_eq!(delivery.own_number(u32::MAX, 3), u32::MAX);
        assert_eq!(delivery.own_number(77, 1), 2);
        assert_eq!(delivery.own_number(99, 1), 3);
    }
}
