//! XXH3, for encoders in software.

use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::{HashFamily, HashFamilyId, WideHash};
use crate::key::KeyWords;

/// XXH3 with 128 bits of output over the key's words in little-endian order.
///
/// ```
/// use flowradar_core::{FlowKey, FlowKeyV4, hash::{HashFamily, KeyHash, Xxh3}};
/// let key = FlowKeyV4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 1, 2, 6);
/// let hash = Xxh3::hash(key.words(), 7);
/// assert_ne!(hash.table_lane(0), hash.table_lane(1));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Xxh3;

impl HashFamily for Xxh3 {
    const ID: HashFamilyId = HashFamilyId::Xxh3;
    const FILTER_LANES_MAX: usize = WideHash::FILTER_LANES_MAX;
    type Hash = WideHash;

    #[inline(always)]
    fn hash<W: KeyWords>(words: &W, seed: u64) -> WideHash {
        // The widest key has five words. The length is known at compile time, so the copy is too.
        let mut bytes = [0; 40];
        let words = words.as_ref();
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        let hash = xxh3_128_with_seed(&bytes[..words.len() * 8], seed);
        WideHash::new(hash as u64, (hash >> 64) as u64)
    }
}
