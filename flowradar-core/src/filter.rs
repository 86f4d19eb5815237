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
use crate::prefetch::prefetch;

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
        self.parts().insert(hash)
    }

    /// The filter for a hot loop, which need not fetch the parts anew for each packet.
    #[inline]
    pub(crate) fn parts(&mut self) -> FilterParts<'_> {
        FilterParts {
            layout: self.layout,
            words: &mut self.words,
        }
    }

    /// Whether a flow seems to have been added.
    pub fn contains(&self, hash: &impl KeyHash) -> bool {
        contains(self.layout, hash, |word| self.words[word])
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

/// A flow filter, borrowed for a hot loop.
#[derive(Debug)]
pub(crate) struct FilterParts<'a> {
    layout: FilterLayout,
    words: &'a mut [u64],
}

impl FilterParts<'_> {
    /// Adds a flow; says whether it seemed to be there already.
    #[inline(always)]
    pub(crate) fn insert(&mut self, hash: &impl KeyHash) -> bool {
        match self.layout {
            FilterLayout::Partitioned {
                hashes,
                partition_bits,
            } => {
                let mut seen = true;
                let mut start = 0;
                for lane in 0..hashes as usize {
                    let bit = start + reduce(hash.filter_lane(lane), partition_bits) as u64;
                    let word = &mut self.words[(bit / 64) as usize];
                    let mask = 1 << (bit % 64);
                    seen &= *word & mask != 0;
                    *word |= mask;
                    start += partition_bits as u64;
                }
                seen
            }
            FilterLayout::Blocked { blocks } => {
                let (all, _) = self.words.as_chunks_mut::<BLOCK_WORDS>();
                let block = &mut all[reduce(hash.filter_lane(0), blocks) as usize];
                let masks = block_masks(hash);
                let mut missing = 0;
                for index in 0..BLOCK_WORDS {
                    missing |= !block[index] & masks[index];
                }
                // Most packets belong to known flows: they need no store.
                if missing != 0 {
                    for index in 0..BLOCK_WORDS {
                        block[index] |= masks[index];
                    }
                }
                missing == 0
            }
        }
    }

    /// Starts loading what [`FilterParts::insert`] will touch. Only a blocked filter is worth it.
    #[inline(always)]
    pub(crate) fn prefetch(&self, hash: &impl KeyHash) {
        if let FilterLayout::Blocked { blocks } = self.layout {
            let block = reduce(hash.filter_lane(0), blocks) as usize;
            prefetch(self.words, block * BLOCK_WORDS);
        }
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
        contains(self.layout, hash, |word| {
            u64::from_le_bytes(self.words[word])
        })
    }

    /// Starts loading the first word that [`FilterView::contains`] will read.
    #[inline(always)]
    pub(crate) fn prefetch(&self, hash: &impl KeyHash) {
        let word = match self.layout {
            FilterLayout::Partitioned { partition_bits, .. } => {
                (reduce(hash.filter_lane(0), partition_bits) / 64) as usize
            }
            FilterLayout::Blocked { blocks } => {
                reduce(hash.filter_lane(0), blocks) as usize * BLOCK_WORDS
            }
        };
        prefetch(self.words, word);
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

#[inline(always)]
fn contains(layout: FilterLayout, hash: &impl KeyHash, word: impl Fn(usize) -> u64) -> bool {
    match layout {
        FilterLayout::Partitioned {
            hashes,
            partition_bits,
        } => (0..hashes as usize).all(|lane| {
            let bit = lane as u64 * partition_bits as u64
                + reduce(hash.filter_lane(lane), partition_bits) as u64;
            word((bit / 64) as usize) >> (bit % 64) & 1 == 1
        }),
        FilterLayout::Blocked { blocks } => {
            let start = reduce(hash.filter_lane(0), blocks) as usize * BLOCK_WORDS;
            block_masks(hash)
                .into_iter()
                .enumerate()
                .all(|(index, mask)| word(start + index) & mask != 0)
        }
    }
}

/// The bit of a flow in each word of its block: six bits of a lane each, the top ones first.
#[inline(always)]
fn block_masks(hash: &impl KeyHash) -> [u64; BLOCK_WORDS] {
    const SHIFTS: [u32; BLOCK_WORDS] = [26, 20, 14, 8, 26, 20, 14, 8];
    let (first, second) = (hash.filter_lane(1), hash.filter_lane(2));
    // Step by step over arrays, so that each step becomes one instruction for four or eight words.
    let lanes = [first, first, first, first, second, second, second, second];
    let mut bits = [0_u32; BLOCK_WORDS];
    for word in 0..BLOCK_WORDS {
        bits[word] = (lanes[word] >> SHIFTS[word]) & 63;
    }
    let mut masks = [0; BLOCK_WORDS];
    for word in 0..BLOCK_WORDS {
        masks[word] = 1 << bits[word] as u64;
    }
    masks
}
