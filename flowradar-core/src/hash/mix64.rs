//! Multiply and xor-shift rounds, for targets that multiply.

use super::{GOLDEN, HashFamily, HashFamilyId, WideHash, mix, mix_seed};
use crate::key::KeyWords;

/// One 64-bit mixing round for each word of the key.
///
/// The base has 64 bits; the second word is derived from it. bmv2 computes this with `bit<64>`
/// arithmetic in an action, without a hash extern. The seed is mixed first, once, by whoever sets it:
/// XORed in as it is, seeds that differ in a few bits would only permute the addresses of a prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mix64;

impl HashFamily for Mix64 {
    const ID: HashFamilyId = HashFamilyId::Mix64;
    const FILTER_LANES_MAX: usize = WideHash::FILTER_LANES_MAX;
    type Hash = WideHash;

    #[inline(always)]
    fn hash<W: KeyWords>(words: &W, seed: u64) -> WideHash {
        let mut state = mix_seed(seed);
        for word in words.as_ref() {
            state = mix(state ^ word).wrapping_add(GOLDEN);
        }
        WideHash::new(mix(state), mix(state ^ GOLDEN))
    }
}
