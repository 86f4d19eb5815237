//! A timing wheel over slots: what is due when, in constant time.

use crate::time::Timestamp;

/// Length of a tick: 2^26 ns, 67 ms.
const TICK_SHIFT: u32 = 26;
/// Ticks that the wheel holds; 4.6 minutes. What is due later is looked at once in between.
const TICKS: u64 = 4096;
/// No slot.
const NONE: u32 = u32::MAX;

/// Where a slot hangs in the wheel; the owner of the slots keeps it for each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    next: u32,
    previous: u32,
    /// The place in the wheel; `NONE` if it does not hang there.
    place: u32,
}

impl Link {
    /// Not in the wheel.
    pub(super) const OUT: Self = Self {
        next: NONE,
        previous: NONE,
        place: NONE,
    };
}

/// Slots that have links.
pub(super) trait Links {
    /// The link of a slot.
    fn link(&mut self, slot: u32) -> &mut Link;
}

/// Lists of slots by the tick at which they are due. Late by up to a tick, never early.
#[derive(Clone, Debug)]
pub(super) struct Wheel {
    heads: Vec<u32>,
    /// The first tick whose slots have not all been taken.
    tick: u64,
}

impl Wheel {
    /// An empty wheel.
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            heads: vec![NONE; TICKS as usize],
            tick: tick_of(now),
        }
    }

    /// Hangs a slot that is not in the wheel under a time.
    pub(super) fn insert(&mut self, links: &mut impl Links, slot: u32, due: Timestamp) {
        // A tick is taken when it is over, so that nothing is early.
        let tick = tick_of(due).clamp(self.tick, self.tick + TICKS - 1);
        let place = (tick % TICKS) as u32;
        let head = std::mem::replace(&mut self.heads[place as usize], slot);
        if head != NONE {
            links.link(head).previous = slot;
        }
        *links.link(slot) = Link {
            next: head,
            previous: NONE,
            place,
        };
    }

    /// Takes a slot out, wherever it hangs.
    pub(super) fn remove(&mut self, links: &mut impl Links, slot: u32) {
        let Link {
            next,
            previous,
            place,
        } = std::mem::replace(links.link(slot), Link::OUT);
        if place == NONE {
            return;
        }
        if next != NONE {
            links.link(next).previous = previous;
        }
        if previous == NONE {
            self.heads[place as usize] = next;
        } else {
            links.link(previous).next = next;
        }
    }

    /// Whether a tick is over whose slots have not been taken.
    #[inline]
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.tick < tick_of(now)
    }

    /// Takes the next slot that is due, if any.
    pub(super) fn pop(&mut self, links: &mut impl Links, now: Timestamp) -> Option<u32> {
        let end = tick_of(now);
        // After a leap in time each place needs to be looked at once only.
        if end - self.tick.min(end) > TICKS && self.heads.iter().all(|&head| head == NONE) {
            self.tick = end;
        }
        while self.tick < end {
            let slot = self.heads[(self.tick % TICKS) as usize];
            if slot != NONE {
                self.remove(links, slot);
                return Some(slot);
            }
            self.tick += 1;
        }
        None
    }
}

fn tick_of(time: Timestamp) -> u64 {
    time.as_nanos() >> TICK_SHIFT
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Links for Vec<Link> {
        fn link(&mut self, slot: u32) -> &mut Link {
            &mut self[slot as usize]
        }
    }

    proptest! {
        /// What comes out was due, within the wheel's reach nothing due is left, removed slots do
        /// not come.
        #[test]
        fn everything_comes_when_it_is_due(
            dues in prop::collection::vec(0_u64..250_000, 1..60),
            removed in prop::collection::vec(any::<bool>(), 60),
            steps in prop::collection::vec(1_u64..40_000, 1..20),
        ) {
            let mut links = vec![Link::OUT; dues.len()];
            let mut wheel = Wheel::new(Timestamp::ZERO);
            for (slot, &due) in dues.iter().enumerate() {
                wheel.insert(&mut links, slot as u32, Timestamp::from_millis(due));
            }
            let mut left: Vec<usize> = (0..dues.len()).collect();
            for (slot, &is_removed) in removed.iter().enumerate().take(dues.len()) {
                if is_removed {
                    wheel.remove(&mut links, slot as u32);
                    left.retain(|&other| other != slot);
                }
            }
            let mut now_ms = 0;
            for step in steps {
                now_ms += step;
                let now = Timestamp::from_millis(now_ms);
                while let Some(slot) = wheel.pop(&mut links, now) {
                    let position = left.iter().position(|&other| other == slot as usize);
                    prop_assert!(position.is_some(), "{slot} came twice, or was removed");
                    left.remove(position.unwrap_or_default());
                    prop_assert!(dues[slot as usize] <= now_ms);
                }
                let tick_ms = (1 << TICK_SHIFT) / 1_000_000 + 1;
                prop_assert!(left.iter().all(|&slot| dues[slot] + tick_ms > now_ms));
            }
        }
    }

    #[test]
    fn a_leap_of_years_takes_one_turn() {
        let mut links = vec![Link::OUT; 2];
        let mut wheel = Wheel::new(Timestamp::ZERO);
        wheel.insert(&mut links, 0, Timestamp::from_millis(10));
        let later = Timestamp::from_nanos(u64::MAX);
        // What is due beyond the wheel's reach comes at its end, to be put back.
        wheel.insert(&mut links, 1, later);
        assert_eq!(wheel.pop(&mut links, Timestamp::from_millis(200)), Some(0));
        assert_eq!(wheel.pop(&mut links, Timestamp::from_millis(200)), None);
        assert_eq!(wheel.pop(&mut links, later), Some(1));
        assert_eq!(wheel.pop(&mut links, later), None);
        assert!(!wheel.is_due(later));
    }
}
