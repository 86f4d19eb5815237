//! CRC-32 and addition, for targets with CRC units and adders but no multiplier.

use crc::{Algorithm, Crc};

use super::{HashFamily, HashFamilyId, KeyHash, TABLE_LANES, mix_seed};
use crate::key::KeyWords;

/// Two CRC-32 of the key, joined by an addition modulo 2^32, then one more CRC-32 for each lane.
///
/// Each CRC has a primitive polynomial of its own. The addition between the two layers carries, so
/// that the whole is not linear over GF(2).
///
/// Defined over the key's bytes in network order (`a`, `b`, `c` are 32 bits wide, `‖` joins in
/// network order):
///
/// ```text
/// s = first output of SplitMix64 from seed
/// a = CRC[A](key) ^ s >> 32           b = CRC[B](key) ^ s mod 2^32
/// c = a + b mod 2^32                  d = b + (c <<< 16) mod 2^32
/// lane i = CRC[L_i](c ‖ d)
/// ```
///
/// The two halves of `s` are constants for the data plane; the control plane computes them. The seed
/// itself will not do: seeds that differ in low bits only change few bits of the sums, so that seven
/// pairs of flows in fifty that collide under one seed collide under the next as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrcAdd;

/// The 64 bits that every lane of a [`CrcAdd`] hash is computed from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrcAddHash {
    base: u64,
}

impl HashFamily for CrcAdd {
    const ID: HashFamilyId = HashFamilyId::CrcAdd;
    const FILTER_LANES_MAX: usize = FILTER_LANES;
    type Hash = CrcAddHash;

    fn hash<W: KeyWords>(words: &W, seed: u64) -> CrcAddHash {
        let mut bytes = [0; 37];
        let (last, whole) = words
            .as_ref()
            .split_last()
            .expect("every key kind has words");
        let length = whole.len() * 8 + 5;
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(whole) {
            chunk.copy_from_slice(&word.to_be_bytes());
        }
        bytes[length - 5..length].copy_from_slice(&last.to_be_bytes()[3..]);

        let seed = mix_seed(seed);
        let a = KEY_CRCS[0].checksum(&bytes[..length]) ^ (seed >> 32) as u32;
        let b = KEY_CRCS[1].checksum(&bytes[..length]) ^ seed as u32;
        let c = a.wrapping_add(b);
        let d = b.wrapping_add(c.rotate_left(16));
        CrcAddHash {
            base: (c as u64) << 32 | d as u64,
        }
    }
}

impl KeyHash for CrcAddHash {
    fn table_lane(&self, lane: usize) -> u32 {
        LANE_CRCS[lane].checksum(&self.base.to_be_bytes())
    }

    fn filter_lane(&self, lane: usize) -> u32 {
        LANE_CRCS[TABLE_LANES + lane].checksum(&self.base.to_be_bytes())
    }
}

const FILTER_LANES: usize = 8;

/// Polynomial A is CRC-32's (IEEE 802.3), B is the first of [`POLYNOMIALS`].
static KEY_CRCS: [Crc<u32>; 2] = [
    Crc::<u32>::new(&ALGORITHMS[0]),
    Crc::<u32>::new(&ALGORITHMS[1]),
];

/// Table lanes, then filter lanes.
static LANE_CRCS: [Crc<u32>; TABLE_LANES + FILTER_LANES] = {
    const FIRST: Crc<u32> = Crc::<u32>::new(&ALGORITHMS[2]);
    let mut crcs = [FIRST; TABLE_LANES + FILTER_LANES];
    let mut lane = 0;
    while lane < crcs.len() {
        crcs[lane] = Crc::<u32>::new(&ALGORITHMS[2 + lane]);
        lane += 1;
    }
    crcs
};

/// Primitive polynomials of degree 32 (normal notation, without x^32). The first is CRC-32's; the
/// others are the first primitive ones at or above successive 32-bit words of the fraction of pi, so
/// that nobody has to wonder why these.
const POLYNOMIALS: [u32; 2 + TABLE_LANES + FILTER_LANES] = [
    0x04C1_1DB7, // key, A
    0x243F_6A95, // key, B
    0x85A3_090B, // subtable 0
    0x1319_8A49,
    0x0370_7347,
    0xA409_382D,
    0x299F_31FF,
    0x082E_FA9D,
    0xEC4E_6CDF,
    0x4528_220D, // window offset
    0x38D0_13DF, // filter hash 0
    0xBE54_6759,
    0x34E9_0D49,
    0xC0AC_29DF,
    0xC97C_511D,
    0x3F84_D5F7,
    0xB547_091F,
    0x9216_D5DF,
];

/// The parameters of CRC-32 (reflected, all ones in and out) with each of [`POLYNOMIALS`].
static ALGORITHMS: [Algorithm<u32>; POLYNOMIALS.len()] = {
    let mut algorithms = [algorithm(POLYNOMIALS[0]); POLYNOMIALS.len()];
    let mut index = 0;
    while index < POLYNOMIALS.len() {
        algorithms[index] = algorithm(POLYNOMIALS[index]);
        index += 1;
    }
    algorithms
};

const fn algorithm(polynomial: u32) -> Algorithm<u32> {
    Algorithm {
        width: 32,
        poly: polynomial,
        init: u32::MAX,
        refin: true,
        refout: true,
        xorout: u32::MAX,
        check: 0,
        residue: 0,
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    /// Order of the multiplicative group of GF(2^32): the order of x for a primitive polynomial.
    const ORDER: u32 = u32::MAX;

    /// The prime factors of [`ORDER`]: the first five Fermat numbers.
    const PRIMES: [u32; 5] = [3, 5, 17, 257, 65537];

    /// The product of two polynomials modulo `x^32 + modulus`, bit by bit.
    fn product(mut a: u32, b: u32, modulus: u32) -> u32 {
        (0..32).fold(0, |sum, bit| {
            let sum = if b >> bit & 1 == 1 { sum ^ a } else { sum };
            a = (a << 1) ^ if a >> 31 == 1 { modulus } else { 0 };
            sum
        })
    }

    fn power_of_x(exponent: u32, modulus: u32) -> u32 {
        (0..32).rev().fold(1, |power, bit| {
            let square = product(power, power, modulus);
            if exponent >> bit & 1 == 1 {
                product(square, 2, modulus)
            } else {
                square
            }
        })
    }

    #[test]
    fn polynomials_are_primitive_and_different() {
        assert_eq!(PRIMES.iter().product::<u32>(), ORDER);
        for (index, &polynomial) in POLYNOMIALS.iter().enumerate() {
            assert_eq!(power_of_x(ORDER, polynomial), 1, "{polynomial:08x}");
            for prime in PRIMES {
                assert_ne!(power_of_x(ORDER / prime, polynomial), 1, "{polynomial:08x}");
            }
            assert!(
                !POLYNOMIALS[..index].contains(&polynomial),
                "{polynomial:08x}"
            );
        }
        // CRC-32C's generator has the factor x + 1: the check can fail.
        assert_ne!(power_of_x(ORDER, 0x1EDC_6F41), 1);
    }

    /// Lanes are linear in the base. No 20 top bits of three subtables, nor of two subtables and the
    /// offset, may depend on each other: 2^60 different sets of cells.
    #[test]
    fn lanes_are_independent() {
        let zero = CrcAddHash { base: 0 };
        for lanes in [
            [0, 1, 2],
            [3, 4, 5],
            [0, 1, 7],
            [1, 2, 7],
            [2, 3, 7],
            [3, 0, 1],
        ] {
            // For each bit of the base, the bits of the lanes that it flips.
            let mut rows: Vec<u64> = (0..64)
                .map(|bit| {
                    let hash = CrcAddHash { base: 1 << bit };
                    lanes.iter().fold(0, |row, &lane| {
                        let flipped = hash.table_lane(lane) ^ zero.table_lane(lane);
                        row << 20 | (flipped >> 12) as u64
                    })
                })
                .collect();
            let mut rank = 0;
            for bit in 0..60 {
                let Some(pivot) = (rank..64).find(|&row| rows[row] >> bit & 1 == 1) else {
                    continue;
                };
                rows.swap(rank, pivot);
                for row in 0..64 {
                    if row != rank && rows[row] >> bit & 1 == 1 {
                        rows[row] ^= rows[rank];
                    }
                }
                rank += 1;
            }
            assert_eq!(rank, 60, "lanes {lanes:?}");
        }
    }
}
