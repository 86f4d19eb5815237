//! bmv2's hash algorithms.

use crc::{Algorithm, CRC_8_SMBUS, CRC_16_ARC, CRC_16_IBM_3740, CRC_32_ISO_HDLC, Crc, Table};
use xxhash_rust::xxh64::xxh64;

use crate::program::layout::Layout;
use crate::program::objects::{Calculation, HashAlgorithm, Input};
use crate::program::op::{low, ones};

/// The polynomial of ISO 3309 as bmv2's `crc64_custom` has it by default: nothing inverted.
const CRC_64_CUSTOM: Algorithm<u64> = Algorithm {
    width: 64,
    poly: 0x1b,
    init: 0,
    refin: true,
    refout: true,
    xorout: 0,
    check: 0x46a5_a938_8a5b_effe,
    residue: 0,
};

static CRC_8: Crc<u8, Table<16>> = Crc::<u8, Table<16>>::new(&CRC_8_SMBUS);
static CRC_16: Crc<u16, Table<16>> = Crc::<u16, Table<16>>::new(&CRC_16_ARC);
static CRC_16_CCITT: Crc<u16, Table<16>> = Crc::<u16, Table<16>>::new(&CRC_16_IBM_3740);
static CRC_32: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISO_HDLC);
static CRC_64: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_CUSTOM);

/// Appends numbers of any width to bytes, the most significant bit first.
#[derive(Debug)]
pub(super) struct BitWriter<'a> {
    bytes: &'a mut Vec<u8>,
    pending: u64,
    /// Always below 64.
    pending_bits: u32,
}

impl<'a> BitWriter<'a> {
    pub(super) fn new(bytes: &'a mut Vec<u8>) -> Self {
        Self {
            bytes,
            pending: 0,
            pending_bits: 0,
        }
    }

    /// Appends the low `bits` bits, 1 to 64; the others must be zero.
    #[inline]
    pub(super) fn push(&mut self, value: u64, bits: u32) {
        let free = 64 - self.pending_bits;
        if bits < free {
            self.pending = self.pending << bits | value;
            self.pending_bits += bits;
            return;
        }
        let left = bits - free;
        let shifted = if free == 64 { 0 } else { self.pending << free };
        self.bytes
            .extend_from_slice(&(shifted | value >> left).to_be_bytes());
        self.pending = value & ones(left);
        self.pending_bits = left;
    }

    /// Fills the last byte with zeros.
    pub(super) fn finish(self) {
        let bits = self.pending_bits;
        if bits > 0 {
            let left_aligned = self.pending << (64 - bits);
            let bytes = left_aligned.to_be_bytes();
            self.bytes
                .extend_from_slice(&bytes[..bits.div_ceil(8) as usize]);
        }
    }
}

/// The bytes that a calculation is over.
pub(super) fn gather(
    calculation: &Calculation,
    layout: &Layout,
    slots: &[u64; 1 << 16],
    payload: &[u8],
    bytes: &mut Vec<u8>,
) {
    bytes.clear();
    let slot = |slot: u16| slots[usize::from(slot)];
    let mut writer = BitWriter::new(bytes);
    for input in &calculation.input {
        match input {
            Input::Bits {
                slot: field,
                bits,
                valid,
            } => {
                if slot(*valid) != 0 {
                    writer.push(slot(*field), (*bits).into());
                }
            }
            Input::Run { groups, valid } => {
                if slot(*valid) == 0 {
                    continue;
                }
                if writer.pending_bits == 0 {
                    super::store(slots, groups, writer.bytes);
                    continue;
                }
                for part in &groups.parts {
                    let value = slot(part.slot) >> part.slot_shift & low(part.bits);
                    writer.push(value, part.bits.into());
                }
            }
            Input::Constant { value, bits } => writer.push(*value, (*bits).into()),
            Input::Header { header } => {
                let header = &layout.headers[usize::from(*header)];
                if slot(header.valid) == 0 {
                    continue;
                }
                for part in &header.head.parts {
                    let value = slot(part.slot) >> part.slot_shift & low(part.bits);
                    writer.push(value, part.bits.into());
                }
                variable(header, slots, &mut writer);
                for part in &header.tail.parts {
                    let value = slot(part.slot) >> part.slot_shift & low(part.bits);
                    writer.push(value, part.bits.into());
                }
            }
            Input::Variable { header } => {
                let header = &layout.headers[usize::from(*header)];
                if slot(header.valid) != 0 {
                    variable(header, slots, &mut writer);
                }
            }
        }
    }
    writer.finish();
    if calculation.with_payload {
        bytes.extend_from_slice(payload);
    }
}

/// The hash of some bytes. `calls` counts for [`HashAlgorithm::RoundRobin`].
pub(super) fn hash(algorithm: HashAlgorithm, bytes: &[u8], calls: &mut u64) -> u64 {
    match algorithm {
        HashAlgorithm::Crc8Custom => CRC_8.checksum(bytes).into(),
        HashAlgorithm::Crc16 => CRC_16.checksum(bytes).into(),
        HashAlgorithm::Crc16Ccitt => CRC_16_CCITT.checksum(bytes).into(),
        HashAlgorithm::Crc32 => CRC_32.checksum(bytes).into(),
        HashAlgorithm::Crc64Custom => CRC_64.checksum(bytes),
        HashAlgorithm::Checksum16 => internet_checksum(bytes).into(),
        HashAlgorithm::Identity => bytes
            .iter()
            .take(8)
            .fold(0, |number, byte| number << 8 | u64::from(*byte)),
        HashAlgorithm::RoundRobin => {
            *calls = calls.wrapping_add(1);
            calls.wrapping_sub(1)
        }
        // The key is four zero bytes unless configured over Thrift.
        HashAlgorithm::Toeplitz => 0,
        HashAlgorithm::Xor16 => xor_words(bytes, 2),
        HashAlgorithm::Xor32 => xor_words(bytes, 4),
        HashAlgorithm::Xxh64 => xxh64(bytes, 0),
    }
}

/// RFC 1071.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum: u64 = 0;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        sum += u64::from(u32::from_be_bytes(*word));
    }
    for (position, byte) in rest.iter().enumerate() {
        sum += u64::from(*byte) << (24 - position * 8);
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

/// The XOR of big-endian words; the last is filled with zeros.
fn xor_words(bytes: &[u8], length: usize) -> u64 {
    bytes.chunks(length).fold(0, |sum, chunk| {
        let word = chunk
            .iter()
            .fold(0, |word, byte| word << 8 | u64::from(*byte));
        sum ^ word << ((length - chunk.len()) * 8)
    })
}

fn variable(
    header: &crate::program::layout::HeaderLayout,
    slots: &[u64; 1 << 16],
    writer: &mut BitWriter<'_>,
) {
    let Some(variable) = header.variable else {
        return;
    };
    let mut left = slots[usize::from(variable.length)].min(variable.max_bytes.into());
    let mut slot = usize::from(variable.first_slot);
    while left > 0 {
        let bytes = left.min(8) as u32;
        writer.push(slots[slot] >> (64 - bytes * 8), bytes * 8);
        left -= u64::from(bytes);
        slot += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A CRC by its definition, bit by bit.
    fn crc_by_definition(
        (width, polynomial, initial, last): (u32, u64, u64, u64),
        is_reflected: bool,
        bytes: &[u8],
    ) -> u64 {
        let mut remainder = initial;
        for byte in bytes {
            let byte = if is_reflected {
                byte.reverse_bits()
            } else {
                *byte
            };
            remainder ^= u64::from(byte) << (width - 8);
            for _ in 0..8 {
                let carry = remainder >> (width - 1) & 1 == 1;
                remainder = remainder << 1 & ones(width);
                if carry {
                    remainder ^= polynomial;
                }
            }
        }
        let remainder = if is_reflected {
            remainder.reverse_bits() >> (64 - width)
        } else {
            remainder
        };
        remainder ^ last
    }

    fn value(algorithm: HashAlgorithm, bytes: &[u8]) -> u64 {
        hash(algorithm, bytes, &mut 0)
    }

    #[test]
    fn published_check_values() {
        let input = b"123456789";
        // Catalogue of parametrised CRC algorithms, column "check".
        assert_eq!(value(HashAlgorithm::Crc32, input), 0xcbf4_3926);
        assert_eq!(value(HashAlgorithm::Crc16, input), 0xbb3d);
        assert_eq!(value(HashAlgorithm::Crc16Ccitt, input), 0x29b1);
        assert_eq!(value(HashAlgorithm::Crc8Custom, input), 0xf4);
        assert_eq!(
            value(HashAlgorithm::Crc64Custom, input),
            0x46a5_a938_8a5b_effe
        );
        // RFC 1071, section 3: the sum of its example is 0xddf2.
        let example = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(
            value(HashAlgorithm::Checksum16, &example),
            !0xddf2_u64 & 0xffff
        );
        // xxHash's specification of the empty input with seed 0.
        assert_eq!(value(HashAlgorithm::Xxh64, b""), 0xef46_db37_51d8_e999);
        assert_eq!(
            value(HashAlgorithm::Identity, b"123456789"),
            0x3132_3334_3536_3738
        );
        assert_eq!(value(HashAlgorithm::Xor16, &[1, 2, 3]), 0x0102 ^ 0x0300);
        assert_eq!(
            value(HashAlgorithm::Xor32, &[1, 2, 3, 4, 5]),
            0x0102_0304 ^ 0x0500_0000
        );
    }

    #[test]
    fn round_robin_counts() {
        let mut calls = 0;
        let values: Vec<_> = (0..3)
            .map(|_| hash(HashAlgorithm::RoundRobin, b"x", &mut calls))
            .collect();
        assert_eq!(values, [0, 1, 2]);
    }

    proptest! {
        #[test]
        fn crcs_are_what_they_are_defined_as(bytes: Vec<u8>) {
            let crc = |parameters, is_reflected| crc_by_definition(parameters, is_reflected, &bytes);
            prop_assert_eq!(value(HashAlgorithm::Crc8Custom, &bytes), crc((8, 7, 0, 0), false));
            prop_assert_eq!(value(HashAlgorithm::Crc16, &bytes), crc((16, 0x8005, 0, 0), true));
            prop_assert_eq!(
                value(HashAlgorithm::Crc16Ccitt, &bytes),
                crc((16, 0x1021, 0xffff, 0), false)
            );
            prop_assert_eq!(
                value(HashAlgorithm::Crc32, &bytes),
                crc((32, 0x04c1_1db7, 0xffff_ffff, 0xffff_ffff), true)
            );
            prop_assert_eq!(value(HashAlgorithm::Crc64Custom, &bytes), crc((64, 0x1b, 0, 0), true));
        }

        #[test]
        fn the_checksum_completes_to_all_ones(bytes: Vec<u8>) {
            // RFC 1071: the sum over data and checksum is all ones.
            let mut bytes = bytes;
            if bytes.len() % 2 == 1 {
                bytes.push(0);
            }
            let checksum = value(HashAlgorithm::Checksum16, &bytes) as u16;
            bytes.extend_from_slice(&checksum.to_be_bytes());
            prop_assert_eq!(value(HashAlgorithm::Checksum16, &bytes), 0);
        }

        #[test]
        fn bits_come_one_after_the_other(parts in prop::collection::vec((any::<u64>(), 1..=64_u32), 0..40)) {
            let mut bytes = Vec::new();
            let mut writer = BitWriter::new(&mut bytes);
            let mut text = String::new();
            for (value, bits) in parts {
                let value = value & ones(bits);
                writer.push(value, bits);
                text.push_str(&format!("{value:0width$b}", width = bits as usize));
            }
            writer.finish();
            while !text.len().is_multiple_of(8) {
                text.push('0');
            }
            let expected: Vec<u8> = text
                .as_bytes()
                .chunks(8)
                .map(|byte| byte.iter().fold(0, |byte, bit| byte << 1 | (bit - b'0')))
                .collect();
            prop_assert_eq!(bytes, expected);
        }
    }
}
