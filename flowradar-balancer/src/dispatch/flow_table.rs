//! The flow table: what is remembered of each flow, found by one hash, forgotten in time.

use super::flow_id::FlowId;
use super::flow_state::FlowState;
use super::index::{Index, prefetch};
use super::wheel::{Link, Links, Wheel};
use crate::policy::{BackEndId, Unit};
use crate::time::Timestamp;

/// No round trip is being measured.
pub(super) const NOT_MEASURED: Timestamp = Timestamp::from_nanos(u64::MAX);

/// What is remembered of a flow: two cache lines that are fetched together.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Entry {
    pub(super) flow: FlowId,
    /// What the balancer keeps of it.
    pub(super) unit: Unit,
    /// When its initiator's last SYN passed, while the answer is awaited.
    pub(super) round_trip_began: Timestamp,
    link: Link,
    /// Where its last packet went.
    pub(super) back_end: Option<BackEndId>,
    pub(super) state: FlowState,
}

const _: () = assert!(size_of::<Entry>() == 128, "an entry is two cache lines");

/// Flows by their ids, at most as many as it was made for.
///
/// A look-up touches one or two cache lines of the index and the two of the entry.
#[derive(Debug)]
pub(super) struct FlowTable {
    index: Index,
    entries: Entries,
    /// Slots of entries that were removed.
    free: Vec<u32>,
    wheel: Wheel,
    capacity: usize,
    seed: u64,
}

#[derive(Debug)]
struct Entries(Vec<Entry>);

impl Links for Entries {
    #[inline]
    fn link(&mut self, slot: u32) -> &mut Link {
        &mut self.0[slot as usize].link
    }
}

impl FlowTable {
    /// A table for so many flows, at most 2^32 - 2. Memory is taken as flows come.
    pub(super) fn new(capacity: usize, seed: u64, now: Timestamp) -> Self {
        let capacity = capacity.min(u32::MAX as usize - 1);
        Self {
            index: Index::new(capacity),
            entries: Entries(Vec::new()),
            free: Vec::new(),
            wheel: Wheel::new(now),
            capacity,
            seed,
        }
    }

    /// Flows in the table.
    pub(super) fn len(&self) -> usize {
        self.entries.0.len() - self.free.len()
    }

    /// The hash of a flow, for the other functions.
    #[inline]
    pub(super) fn hash(&self, flow: &FlowId) -> u64 {
        flow.hash(self.seed)
    }

    /// Starts loading what a look-up of this hash touches first.
    #[inline]
    pub(super) fn prefetch_index(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// The slot that a flow of this hash seems to have; starts loading its entry.
    #[inline]
    pub(super) fn prefetch_entry(&self, hash: u64) -> Option<u32> {
        let slot = self.index.find(hash, |_| true)?;
        prefetch(&self.entries.0, slot as usize);
        Some(slot)
    }

    /// The slot of a flow, which may be the one that [`FlowTable::prefetch_entry`] found.
    #[inline]
    pub(super) fn find(&self, flow: &FlowId, hash: u64, guess: Option<u32>) -> Option<u32> {
        // Entries that were removed since hold no flow.
        if let Some(slot) = guess
            && let Some(entry) = self.entries.0.get(slot as usize)
            && entry.flow == *flow
        {
            return guess;
        }
        self.index.find(hash, |slot| {
            self.entries
                .0
                .get(slot as usize)
                .is_some_and(|entry| entry.flow == *flow)
        })
    }

    /// Adds a flow that is not in the table; `None` if there is no room for it.
    pub(super) fn insert(
        &mut self,
        flow: FlowId,
        hash: u64,
        state: FlowState,
        now: Timestamp,
    ) -> Option<u32> {
        let slot = match self.free.last() {
            Some(&slot) => slot,
            None if self.entries.0.len() < self.capacity => self.entries.0.len() as u32,
            None => return None,
        };
        if !self.index.insert(hash, slot) {
            return None;
        }
        let entry = Entry {
            flow,
            unit: Unit::new(now),
            round_trip_began: NOT_MEASURED,
            link: Link::OUT,
            back_end: None,
            state,
        };
        if self.free.pop().is_some() {
            self.entries.0[slot as usize] = entry;
        } else {
            if self.entries.0.is_empty() {
                // At once, since moving millions of entries would take too long in between;
                // untouched memory costs nothing.
                self.entries.0.reserve_exact(self.capacity);
            }
            self.entries.0.push(entry);
        }
        Some(slot)
    }

    /// Takes a flow out, and returns what the balancer keeps of it.
    pub(super) fn remove(&mut self, slot: u32, now: Timestamp) -> Unit {
        self.wheel.remove(&mut self.entries, slot);
        let entry = &mut self.entries.0[slot as usize];
        let hash = entry.flow.hash(self.seed);
        entry.flow = FlowId::NONE;
        let unit = std::mem::replace(&mut entry.unit, Unit::new(now));
        self.index.remove(hash, slot);
        self.free.push(slot);
        unit
    }

    /// A flow in the table.
    #[inline]
    pub(super) fn entry_mut(&mut self, slot: u32) -> &mut Entry {
        &mut self.entries.0[slot as usize]
    }

    /// Arranges for a flow to come out of [`FlowTable::pop_due`] at some time, and not at the time
    /// arranged before.
    pub(super) fn schedule(&mut self, slot: u32, due: Timestamp) {
        self.wheel.remove(&mut self.entries, slot);
        self.wheel.insert(&mut self.entries, slot, due);
    }

    /// Whether [`FlowTable::pop_due`] has something to do.
    #[inline]
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.wheel.is_due(now)
    }

    /// A flow whose time has come, or which is scheduled beyond the wheel's reach. It is not
    /// scheduled any more.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<u32> {
        self.wheel.pop(&mut self.entries, now)
    }
}
