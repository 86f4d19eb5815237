//! The flow filter: has this flow been seen in this epoch?
//!
//! A Bloom filter (NSDI 2016 §3.1). It never forgets a flow; now and then it takes a new flow for a
//! known one (a *false positive*), whose packets are then counted in cells that do not know the
//! flow. Decoders detect that: see [`crate::decode`].
//!
//! Plain 64-bit words rather than `bitvec`: test-and-set of one bit takes the same time in both, but
//! the blocked filter works on whole words, which `bitvec` hides.

use alloc::vec;
use alloc::vec::Vec;

use crate::hash::{KeyHash, reduce};
use crate::layout::{BLOCK_HASHES, FilterLayout};
use crate::processor::{Instructions, LANE_SHIFTS, Portable, Word, prefetch};

const BLOCK_WORDS: usize = BLOCK_HASHES as usize;

/// A flow filter that flows can be added to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowFilter {
    layout: FilterLayout,
    words: Vec<u64>,
}

impl FlowFilter {
    /// An empty filter.
    pub fn new(layout: FilterLayout) -> Self {
        Self {
            layout,
            words: vec![0; layout.words()],
        }
    }

    /// Adds a flow; says whether it seemed to be there already.
    #[inline]
    pub fn insert(&mut self, hash: &impl KeyHash) -> bool {
        insert(self.layout, &mut self.words, hash)
    }

    /// The words, to be written to.
    pub(crate) fn words_mut(&mut self) -> &mut [u64] {
        &mut self.words
    }

    /// Whether a flow seems to have been added.
    pub fn contains(&self, hash: &impl KeyHash) -> bool {
        contains(self.layout, &self.words, hash)
    }

    /// Removes all flows.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// The filter's bits: bit `i` is bit `i % 64` of word `i / 64`.
    pub fn words(&self) -> &[u64] {
        &self.words
    }
}

/// One arrangement of a filter's bits, so that hot loops are compiled for it.
pub(crate) trait Arrangement: Copy {
    /// Where a flow's bits are.
    type Place<H: KeyHash>: Copy + Default;

    /// Finds a flow's bits.
    fn place<H: KeyHash>(self, hash: &H) -> Self::Place<H>;

    /// Starts loading what [`Arrangement::insert`] and [`Arrangement::contains`] will touch.
    fn prefetch<H: KeyHash, W: Word>(self, words: &[W], place: &Self::Place<H>);

    /// Adds a flow; says whether it seemed to be there already.
    fn insert<H: KeyHash, I: Instructions>(self, words: &mut [u64], place: &Self::Place<H>)
    -> bool;

    /// Whether a flow seems to have been added.
    fn contains<H: KeyHash, I: Instructions, W: Word>(
        self,
        words: &[W],
        place: &Self::Place<H>,
    ) -> bool;

    /// One look at some of a flow's bits, without branches: false for most flows that were never
    /// added, and for no other. After [`LOOKS`] of them, one after the other, nothing is left to see.
    fn may_contain<H: KeyHash, I: Instructions, W: Word, const LOOK: usize>(
        self,
        words: &[W],
        place: &Self::Place<H>,
    ) -> bool;
}

/// Looks at a flow's bits that tell whether it was added.
pub(crate) const LOOKS: usize = 4;

/// [`FilterLayout::Partitioned`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Partitioned {
    pub(crate) hashes: u8,
    pub(crate) partition_bits: u32,
}

impl Arrangement for Partitioned {
    /// The hash itself: there may be up to 24 places.
    type Place<H: KeyHash> = H;

    #[inline(always)]
    fn place<H: KeyHash>(self, hash: &H) -> H {
        *hash
    }

    /// Only the first: there are more lines than can be loaded at a time, and a flow that was never
    /// added ends the search early.
    #[inline(always)]
    fn prefetch<H: KeyHash, W: Word>(self, words: &[W], place: &H) {
        let bit = reduce(place.filter_lane(0), self.partition_bits);
        prefetch(words, (bit / 64) as usize);
    }

    #[inline(always)]
    fn insert<H: KeyHash, I: Instructions>(self, words: &mut [u64], place: &H) -> bool {
        let mut seen = true;
        let mut start = 0;
        for lane in 0..self.hashes as usize {
            let bit = start + reduce(place.filter_lane(lane), self.partition_bits) as u64;
            let word = &mut words[(bit / 64) as usize];
            let mask = 1 << (bit % 64);
            seen &= *word & mask != 0;
            *word |= mask;
            start += self.partition_bits as u64;
        }
        seen
    }

    #[inline(always)]
    fn contains<H: KeyHash, I: Instructions, W: Word>(self, words: &[W], place: &H) -> bool {
        self.may_contain::<H, I, W, 0>(words, place)
            && self.may_contain::<H, I, W, 1>(words, place)
            && self.may_contain::<H, I, W, 2>(words, place)
            && self.may_contain::<H, I, W, 3>(words, place)
    }

    #[inline(always)]
    fn may_contain<H: KeyHash, I: Instructions, W: Word, const LOOK: usize>(
        self,
        words: &[W],
        place: &H,
    ) -> bool {
        // Half of the flows that were never added lack the first bit, half of the others the second:
        // few are left for the longer looks. After lane 0, which has a word of its own, two lanes
        // share one: each look begins with the first lane of a word.
        const BEGINS: [usize; LOOKS] = [0, 3, 7, 13];
        let end = if LOOK + 1 < LOOKS {
            BEGINS[LOOK + 1]
        } else {
            self.hashes as usize
        };
        let mut all = 1;
        for lane in BEGINS[LOOK]..end {
            if lane < self.hashes as usize {
                all &= self.bit(words, place, lane);
            }
        }
        all == 1
    }
}

impl Partitioned {
    /// The bit of a flow in one partition.
    #[inline(always)]
    fn bit<H: KeyHash, W: Word>(self, words: &[W], place: &H, lane: usize) -> u64 {
        let bit = lane as u64 * self.partition_bits as u64
            + reduce(place.filter_lane(lane), self.partition_bits) as u64;
        words[(bit / 64) as usize].bits() >> (bit % 64) & 1
    }
}

/// [`FilterLayout::Blocked`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocked {
    pub(crate) blocks: u32,
}

/// A flow's block, and its bits there.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BlockPlace {
    /// Filter lane 1 in the low half, lane 2 in the high one.
    lanes: u64,
    block: u32,
}

impl Arrangement for Blocked {
    type Place<H: KeyHash> = BlockPlace;

    #[inline(always)]
    fn place<H: KeyHash>(self, hash: &H) -> BlockPlace {
        BlockPlace {
            lanes: block_lanes(hash),
            block: reduce(hash.filter_lane(0), self.blocks),
        }
    }

    #[inline(always)]
    fn prefetch<H: KeyHash, W: Word>(self, words: &[W], place: &BlockPlace) {
        prefetch(words, place.block as usize * BLOCK_WORDS);
    }

    #[inline(always)]
    fn insert<H: KeyHash, I: Instructions>(self, words: &mut [u64], place: &BlockPlace) -> bool {
        let (blocks, _) = words.as_chunks_mut::<BLOCK_WORDS>();
        let block = &mut blocks[place.block as usize];
        // Most packets belong to known flows: they need no store.
        let seen = I::has_bits(block, place.lanes);
        if !seen {
            for (word, shift) in block.iter_mut().zip(LANE_SHIFTS) {
                *word |= 1 << (place.lanes >> shift & 63);
            }
        }
        seen
    }

    #[inline(always)]
    fn contains<H: KeyHash, I: Instructions, W: Word>(
        self,
        words: &[W],
        place: &BlockPlace,
    ) -> bool {
        let (blocks, _) = words.as_chunks::<BLOCK_WORDS>();
        I::has_bits(&blocks[place.block as usize], place.lanes)
    }

    /// The first look at the block tells all.
    #[inline(always)]
    fn may_contain<H: KeyHash, I: Instructions, W: Word, const LOOK: usize>(
        self,
        words: &[W],
        place: &BlockPlace,
    ) -> bool {
        LOOK > 0 || self.contains::<H, I, W>(words, place)
    }
}

/// A flow filter in a flowset's bytes.
#[derive(Clone, Copy, Debug)]
pub struct FilterView<'a> {
    layout: FilterLayout,
    words: &'a [[u8; 8]],
}

impl<'a> FilterView<'a> {
    /// `words` holds [`FilterLayout::words`] little-endian words.
    pub(crate) fn new(layout: FilterLayout, words: &'a [[u8; 8]]) -> Self {
        debug_assert_eq!(words.len(), layout.words());
        Self { layout, words }
    }

    /// Whether a flow seems to have been added.
    #[inline(always)]
    pub fn contains(&self, hash: &impl KeyHash) -> bool {
        contains(self.layout, self.words, hash)
    }

    pub(crate) fn layout(&self) -> FilterLayout {
        self.layout
    }

    /// The filter's bits: bit `i` is bit `i % 64` of word `i / 64`.
    pub(crate) fn words(&self) -> &'a [[u8; 8]] {
        self.words
    }

    /// The chance that a flow that was never added seems to be there, from the bits that are set.
    pub fn false_positive_probability(&self) -> f64 {
        match self.layout {
            FilterLayout::Partitioned {
                hashes,
                partition_bits,
            } => (0..hashes as u64)
                .map(|partition| {
                    let start = partition * partition_bits as u64;
                    self.ones(start, start + partition_bits as u64) as f64 / partition_bits as f64
                })
                .product(),
            FilterLayout::Blocked { blocks } => {
                let sum: f64 = self
                    .words
                    .chunks_exact(BLOCK_WORDS)
                    .map(|block| {
                        block
                            .iter()
                            .map(|word| u64::from_le_bytes(*word).count_ones() as f64 / 64.0)
                            .product::<f64>()
                    })
                    .sum();
                sum / blocks as f64
            }
        }
    }

    /// Bits set from bit `start` to before bit `end`.
    fn ones(&self, start: u64, end: u64) -> u64 {
        let (first, last) = ((start / 64) as usize, ((end - 1) / 64) as usize);
        (first..=last)
            .map(|index| {
                let mut word = u64::from_le_bytes(self.words[index]);
                if index == first {
                    word &= u64::MAX << (start % 64);
                }
                if index == last {
                    word &= u64::MAX >> (63 - (end - 1) % 64);
                }
                word.count_ones() as u64
            })
            .sum()
    }
}

/// Runs `$body` with `$arrangement` bound to the [`Arrangement`] of a layout.
macro_rules! with_arrangement {
    ($layout:expr, $arrangement:ident => $body:expr) => {
        match $layout {
            $crate::layout::FilterLayout::Partitioned {
                hashes,
                partition_bits,
            } => {
                let $arrangement = $crate::filter::Partitioned {
                    hashes,
                    partition_bits,
                };
                $body
            }
            $crate::layout::FilterLayout::Blocked { blocks } => {
                let $arrangement = $crate::filter::Blocked { blocks };
                $body
            }
        }
    };
}
pub(crate) use with_arrangement;

#[inline(always)]
fn insert<H: KeyHash>(layout: FilterLayout, words: &mut [u64], hash: &H) -> bool {
    with_arrangement!(layout, arrangement => {
        arrangement.insert::<H, Portable>(words, &arrangement.place(hash))
    })
}

#[inline(always)]
fn contains<H: KeyHash>(layout: FilterLayout, words: &[impl Word], hash: &H) -> bool {
    with_arrangement!(layout, arrangement => {
        arrangement.contains::<H, Portable, _>(words, &arrangement.place(hash))
    })
}

/// The lanes that say which bit of each word of its block a flow has: six bits of a lane each, the
/// top ones first; lane 1, for words 0 to 3, in the low half, lane 2 in the high one.
#[inline(always)]
fn block_lanes(hash: &impl KeyHash) -> u64 {
    (hash.filter_lane(2) as u64) << 32 | hash.filter_lane(1) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::{HashFamily, Xxh3};

    /// Also with more hashes than a layout takes.
    #[test]
    fn a_filter_contains_what_it_would_take_for_known() {
        for hashes in (1..=32).step_by(3) {
            let layout = FilterLayout::partitioned(hashes, 64).expect("a filter");
            let mut filter = FlowFilter::new(layout);
            let hash = |flow: u64| Xxh3::hash(&[flow, 1], 7);
            for flow in 0..150 {
                filter.insert(&hash(flow));
            }
            let mut known = 0;
            for flow in 0..4_000 {
                let is_known = filter.clone().insert(&hash(flow));
                assert_eq!(filter.contains(&hash(flow)), is_known, "{hashes} hashes");
                known += u32::from(is_known);
            }
            assert!((150..4_000).contains(&known), "{known}");
        }
    }
}
