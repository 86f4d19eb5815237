//! Fragments: later ones carry no ports, and follow the first.

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashMap;

use super::flow_id::{Direction, FlowId};
use crate::policy::BackEndId;
use crate::time::Timestamp;

/// A datagram of which fragments were seen (RFC 791 §2.3: addresses, protocol, identification).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct DatagramKey {
    addresses: FlowId,
    descending: bool,
    identification: u32,
}

impl DatagramKey {
    pub(super) fn new(flow: &FlowId, direction: Direction, identification: u32) -> Self {
        Self {
            addresses: flow.without_ports(),
            // Ports decide about the direction only between a host and itself.
            descending: direction == Direction::Descending,
            identification,
        }
    }
}

/// What is known of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Datagram {
    /// The first fragment was seen, and the flow it belongs to is known.
    Known(FlowId),
    /// Only later fragments were seen; they went here.
    Early(BackEndId),
}

/// Datagrams whose fragments may still come, at most as many as it was made for.
#[derive(Debug)]
pub(super) struct Fragments {
    datagrams: HashMap<DatagramKey, (Datagram, Timestamp)>,
    /// In the order in which they are forgotten.
    order: VecDeque<(Timestamp, DatagramKey)>,
    capacity: usize,
    timeout: Duration,
    evicted: u64,
}

impl Fragments {
    pub(super) fn new(capacity: usize, timeout: Duration) -> Self {
        Self {
            datagrams: HashMap::new(),
            order: VecDeque::new(),
            capacity,
            timeout,
            evicted: 0,
        }
    }

    /// What is known of a datagram.
    pub(super) fn find(&self, key: &DatagramKey, now: Timestamp) -> Option<Datagram> {
        let &(datagram, seen) = self.datagrams.get(key)?;
        (now.since(seen) <= self.timeout).then_some(datagram)
    }

    /// Remembers a datagram, in place of what was known of it.
    pub(super) fn remember(&mut self, key: DatagramKey, datagram: Datagram, now: Timestamp) {
        self.forget_old(now);
        if self.capacity == 0 {
            self.evicted += 1;
            return;
        }
        self.datagrams.insert(key, (datagram, now));
        self.order.push_back((now, key));
        while self.order.len() > self.capacity {
            self.evicted += u64::from(self.forget_first());
        }
    }

    /// Datagrams that were forgotten for lack of room.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    fn forget_old(&mut self, now: Timestamp) {
        while self
            .order
            .front()
            .is_some_and(|(seen, _)| now.since(*seen) > self.timeout)
        {
            self.forget_first();
        }
    }

    /// Forgets what was remembered first; says whether it was not remembered again since.
    fn forget_first(&mut self) -> bool {
        let Some((seen, key)) = self.order.pop_front() else {
            return false;
        };
        let is_latest = self.datagrams.get(&key).is_some_and(|&(_, at)| at == seen);
        if is_latest {
            self.datagrams.remove(&key);
        }
        is_latest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_remembered_for_a_time_and_a_number() {
        let flow = |port| {
            let from = ("10.0.0.1".parse().expect("an address"), port);
            FlowId::new(from, ("10.0.0.2".parse().expect("an address"), 53), 17).0
        };
        let key = |identification| DatagramKey::new(&flow(1), Direction::Ascending, identification);
        let at = Timestamp::from_millis;
        let mut fragments = Fragments::new(3, Duration::from_secs(30));
        fragments.remember(key(1), Datagram::Early(BackEndId(7)), at(0));
        // The ports are no part of the key: later fragments do not have them.
        let same = DatagramKey::new(&flow(2), Direction::Ascending, 1);
        assert_eq!(
            fragments.find(&same, at(30_000)),
            Some(Datagram::Early(BackEndId(7)))
        );
        assert_eq!(fragments.find(&same, at(30_001)), None);
        let back = DatagramKey::new(&flow(1), Direction::Descending, 1);
        assert_eq!(fragments.find(&back, at(1)), None);

        fragments.remember(key(1), Datagram::Known(flow(1)), at(10));
        fragments.remember(key(2), Datagram::Known(flow(2)), at(20));
        assert_eq!(fragments.evicted(), 0);
        fragments.remember(key(3), Datagram::Known(flow(3)), at(30));
        fragments.remember(key(4), Datagram::Known(flow(4)), at(40));
        assert_eq!(fragments.find(&key(1), at(41)), None);
        assert_eq!(
            fragments.find(&key(2), at(41)),
            Some(Datagram::Known(flow(2)))
        );
        assert_eq!(fragments.evicted(), 1);
        fragments.remember(key(5), Datagram::Known(flow(5)), at(100_000));
        assert_eq!(fragments.datagrams.len(), 1);
        assert_eq!(fragments.order.len(), 1);
    }
}
