//! Hash families: how a flow key finds its bits in the flow filter and its cells in the counting
//! table.
//!
//! A family turns a key and a seed into a [`KeyHash`]: any number of 32-bit *lanes*, one for each
//! subtable and each filter hash. A lane becomes an index by [`reduce`]. Encoder, decoder and P4
//! program must agree bit for bit; `docs/hash-families.md` specifies each family with test
//! vectors.
//!
//! | family | runs on | base hash |
//! | --- | --- | --- |
//! | [`Xxh3`] | software | XXH3, 128 bits |
//! | [`Mix64`] | software, bmv2 and other targets that multiply | multiply and xor-shift rounds, 64 bits |
//! | [`CrcAdd`] | Tofino and other targets with CRC units and adders | two CRC-32, joined by an addition, 64 bits |
//!
//! Why not plain CRCs: a CRC is linear over GF(2). Keys that differ only within a linear subspace,
//! such as all hosts of a prefix, then fill the cells perfectly evenly: no cell is pure, and nothing
//! decodes. And any 32-bit base collides fully for about one pair among 100,000 flows. Every family
//! here is non-linear and has at least 64 bits of base.

mod crc_add;
mod mix64;
mod xxh3;

use core::fmt::{self, Debug, Display, Formatter};

pub use crc_add::CrcAdd;
pub use mix64::Mix64;
pub use xxh3::Xxh3;

use crate::key::KeyWords;

/// Lanes for the counting table: one for each subtable, and [`OFFSET_LANE`].
pub const TABLE_LANES: usize = 8;

/// The table lane that places the window of a coupled layout.
pub const OFFSET_LANE: usize = 7;

/// A family of hash functions over flow keys.
///
/// The functions of a family are chosen by a 64-bit seed. Switches of one network should have
/// different seeds: FlowDecode relies on flows colliding differently at each switch.
pub trait HashFamily: Copy + Debug + Default + Send + Sync + 'static {
    /// The family's number in a flowset.
    const ID: HashFamilyId;

    /// Most filter hashes that this family offers.
    const FILTER_LANES_MAX: usize;

    /// All that is needed to compute lanes of one key.
    type Hash: KeyHash;

    /// Hashes a key. Constant time for each key kind.
    fn hash<W: KeyWords>(words: &W, seed: u64) -> Self::Hash;
}

/// The hash of one key, from which lanes are read.
pub trait KeyHash: Copy + Debug + Default {
    /// Lane `lane` (below [`TABLE_LANES`]) for the counting table.
    fn table_lane(&self, lane: usize) -> u32;

    /// Lane `lane` (below [`HashFamily::FILTER_LANES_MAX`]) for the flow filter.
    fn filter_lane(&self, lane: usize) -> u32;
}

/// The number of a hash family in a flowset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum HashFamilyId {
    /// [`Xxh3`].
    #[default]
    Xxh3 = 1,
    /// [`Mix64`].
    Mix64 = 2,
    /// [`CrcAdd`].
    CrcAdd = 3,
}

impl HashFamilyId {
    /// Every family.
    pub const ALL: [Self; 3] = [Self::Xxh3, Self::Mix64, Self::CrcAdd];

    /// The family with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Xxh3),
            2 => Some(Self::Mix64),
            3 => Some(Self::CrcAdd),
            _ => None,
        }
    }

    /// The family with this name, as printed by [`Display`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name)
    }

    /// The family's name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xxh3 => "xxh3",
            Self::Mix64 => "mix64",
            Self::CrcAdd => "crc-add",
        }
    }

    /// Most filter hashes that the family offers.
    pub const fn filter_lanes_max(self) -> usize {
        match self {
            Self::Xxh3 => Xxh3::FILTER_LANES_MAX,
            Self::Mix64 => Mix64::FILTER_LANES_MAX,
            Self::CrcAdd => CrcAdd::FILTER_LANES_MAX,
        }
    }
}

impl Display for HashFamilyId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Runs `$body` with the type `$H` bound to the family that `$id` names.
#[macro_export]
macro_rules! with_hash_family {
    ($id:expr, $H:ident => $body:expr) => {
        match $id {
            $crate::hash::HashFamilyId::Xxh3 => {
                type $H = $crate::hash::Xxh3;
                $body
            }
            $crate::hash::HashFamilyId::Mix64 => {
                type $H = $crate::hash::Mix64;
                $body
            }
            $crate::hash::HashFamilyId::CrcAdd => {
                type $H = $crate::hash::CrcAdd;
                $body
            }
        }
    };
}

/// Maps a lane evenly to `0..size`: the high half of the product. For a power of two these are the
/// lane's top bits.
///
/// ```
/// use flowradar_core::hash::reduce;
/// assert_eq!(reduce(0x8000_0000, 1000), 500);
/// assert_eq!(reduce(u32::MAX, 1000), 999);
/// ```
#[inline(always)]
pub const fn reduce(lane: u32, size: u32) -> u32 {
    ((lane as u64 * size as u64) >> 32) as u32
}

/// The hash of the families with a wide base: two words for the table, more by mixing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WideHash {
    low: u64,
    high: u64,
}

impl WideHash {
    /// Filter lanes of a wide hash. There could be any number; more than 24 are never useful.
    const FILTER_LANES_MAX: usize = 24;

    #[inline]
    const fn new(low: u64, high: u64) -> Self {
        Self { low, high }
    }
}

impl KeyHash for WideHash {
    #[inline(always)]
    fn table_lane(&self, lane: usize) -> u32 {
        let word = match lane / 2 {
            0 => self.low,
            1 => self.high,
            2 => mix(self.low ^ GOLDEN),
            _ => mix(self.high ^ GOLDEN),
        };
        (word >> (32 * (lane % 2))) as u32
    }

    /// One word for lane 0, then one word for every two lanes: a SplitMix64 sequence.
    ///
    /// Double hashing, even enhanced by a cubic term, would be faster and is not good enough: in a
    /// filter for less than one false positive per flowset, two flows with nearby starts and steps
    /// collide in all lanes more often than all other false positives occur together.
    #[inline(always)]
    fn filter_lane(&self, lane: usize) -> u32 {
        let base = (self.low ^ self.high.rotate_left(32)).wrapping_mul(GOLDEN);
        let Some(lane) = lane.checked_sub(1) else {
            return (base >> 32) as u32;
        };
        let word = mix(base.wrapping_add(GOLDEN.wrapping_mul(lane as u64 / 2)));
        (word >> (32 * (lane % 2))) as u32
    }
}

/// 2^64 divided by the golden ratio, made odd.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// A bijection on 64 bits where every input bit changes every output bit with probability near one
/// half: the finalizer of MurmurHash3 with the constants of "variant 13" (Stafford 2011), as used by
/// SplitMix64.
#[inline(always)]
const fn mix(mut word: u64) -> u64 {
    word ^= word >> 30;
    word = word.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word ^= word >> 27;
    word = word.wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

/// Makes seeds that differ in a few bits, such as the numbers of switches, differ in half of their
/// bits: the first output of SplitMix64. Without it two seeds permute the keys of a prefix or leave
/// most of a sum as it is, and flows that collide at one switch collide at the next.
#[inline]
pub const fn mix_seed(seed: u64) -> u64 {
    mix(seed.wrapping_add(GOLDEN))
}
