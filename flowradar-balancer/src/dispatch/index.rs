//! From the hash of a flow to its slot: two buckets of eight, each one cache line.

/// Slots in a bucket.
const WAYS: usize = 8;
/// No slot.
const EMPTY: u32 = u32::MAX;

/// An index of slots by hash, of fixed size, in which every operation looks at two cache lines at
/// most.
///
/// Each hash has two buckets, and goes into the emptier one ("the power of two choices"). At most
/// half of all places are in use, so with random hashes none is ever missing; with hashes made up
/// by an attacker one may be, which [`Index::insert`] says. Nothing is ever moved.
#[derive(Clone, Debug)]
pub(super) struct Index {
    buckets: Vec<Bucket>,
    mask: u32,
}

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Bucket {
    /// The low 32 bits of hashes: two hashes that agree in them are told apart by the caller.
    tags: [u32; WAYS],
    slots: [u32; WAYS],
}

const EMPTY_BUCKET: Bucket = Bucket {
    tags: [0; WAYS],
    slots: [EMPTY; WAYS],
};

impl Index {
    /// An index for so many slots.
    pub(super) fn new(slots: usize) -> Self {
        let buckets = (slots * 2).div_ceil(WAYS).next_power_of_two().max(2);
        Self {
            buckets: vec![EMPTY_BUCKET; buckets],
            mask: (buckets - 1) as u32,
        }
    }

    /// Starts loading the buckets of a hash into the cache.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        let (first, second) = self.places(hash);
        prefetch(&self.buckets, first);
        prefetch(&self.buckets, second);
    }

    /// The slot of this hash for which `is_it` holds.
    #[inline]
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let (first, second) = self.places(hash);
        for place in [first, second] {
            let bucket = &self.buckets[place];
            for (&tag, &slot) in bucket.tags.iter().zip(&bucket.slots) {
                if tag == hash as u32 && slot != EMPTY && is_it(slot) {
                    return Some(slot);
                }
            }
        }
        None
    }

    /// Adds a slot; says if there is no room for this hash.
    #[inline]
    #[must_use]
    pub(super) fn insert(&mut self, hash: u64, slot: u32) -> bool {
        let (first, second) = self.places(hash);
        let in_use = |place: usize| {
            let slots = self.buckets[place].slots.iter();
            slots.filter(|&&slot| slot != EMPTY).count()
        };
        let place = if in_use(first) <= in_use(second) {
            first
        } else {
            second
        };
        let bucket = &mut self.buckets[place];
        let Some(way) = bucket.slots.iter().position(|&slot| slot == EMPTY) else {
            return false;
        };
        bucket.tags[way] = hash as u32;
        bucket.slots[way] = slot;
        true
    }

    /// Takes a slot out.
    pub(super) fn remove(&mut self, hash: u64, slot: u32) {
        let (first, second) = self.places(hash);
        for place in [first, second] {
            let slots = &mut self.buckets[place].slots;
            if let Some(way) = slots.iter().position(|&present| present == slot) {
                slots[way] = EMPTY;
                return;
            }
        }
    }

    #[inline]
    fn places(&self, hash: u64) -> (usize, usize) {
        let first = (hash >> 32) as u32;
        // Odd, so that the second bucket is another one.
        let distance = (hash as u32).wrapping_mul(0x9e37_79b1) | 1;
        let second = first ^ distance;
        ((first & self.mask) as usize, (second & self.mask) as usize)
    }
}

/// Starts loading `items[index]` into the cache. Changes nothing else, whatever the index.
#[inline(always)]
pub(super) fn prefetch<T>(items: &[T], index: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        const LINE_BYTES: usize = 64;
        let item = items.as_ptr().wrapping_add(index).cast::<i8>();
        for line in 0..size_of::<T>().div_ceil(LINE_BYTES) {
            // SAFETY: a prefetch reads nothing architecturally and cannot fault, whatever the
            // address; SSE, which it belongs to, is part of every x86-64.
            #[allow(unsafe_code)]
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(item.wrapping_add(line * LINE_BYTES));
            }
        }
    }
    // No stable intrinsic on other architectures: there the out-of-order window has to do.
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (items, index);
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::policy::mix;

    proptest! {
        /// The index is a map from hashes to slots, whatever is inserted and removed.
        #[test]
        fn behaves_as_a_map(operations in prop::collection::vec((0_u64..60, any::<bool>()), 1..400)) {
            let mut index = Index::new(64);
            let mut model: HashMap<u64, u32> = HashMap::new();
            for (number, insert) in operations {
                let hash = mix(number);
                match (insert, model.get(&number)) {
                    (true, None) => {
                        prop_assert!(index.insert(hash, number as u32));
                        model.insert(number, number as u32);
                    }
                    (false, Some(&slot)) => {
                        index.remove(hash, slot);
                        model.remove(&number);
                    }
                    _ => {}
                }
                for number in 0..60 {
                    let found = index.find(mix(number), |slot| slot == number as u32);
                    prop_assert_eq!(found, model.get(&number).copied());
                }
            }
        }
    }

    #[test]
    fn as_many_as_it_is_made_for_fit() {
        for slots in [1_u32, 7, 1000, 100_000] {
            let mut index = Index::new(slots as usize);
            for slot in 0..slots {
                assert!(
                    index.insert(mix(u64::from(slot)), slot),
                    "{slot} of {slots}"
                );
            }
        }
    }

    #[test]
    fn hashes_that_are_all_the_same_are_refused_in_the_end() {
        let mut index = Index::new(1000);
        let inserted = (0..100).filter(|&slot| index.insert(42, slot)).count();
        assert_eq!(inserted, 2 * WAYS);
        assert_eq!(index.find(42, |slot| slot == 5), Some(5));
        index.remove(42, 5);
        assert!(index.insert(42, 200));
    }
}
