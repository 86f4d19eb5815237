//! Bytes from outside: whatever they are, the reader ends with a flowset or with an error that says
//! where and why, and neither reader nor decoder panics or allocates beyond the input's size.

#[path = "support/counting_allocator.rs"]
mod counting_allocator;
#[path = "support/hostile.rs"]
mod hostile;

use std::fs;
use std::path::Path;

use counting_allocator::{CountingAllocator, allocated_by};
use flowradar_core::decode::single_decode;
use flowradar_core::flowset::{FlowsetError, FlowsetErrorKind, SwitchName, SwitchNameError};
use flowradar_core::hash::HashFamilyId;
use flowradar_core::layout::LayoutError;
use flowradar_core::{FlowKeyV4, FlowKeyV6, Flowset, KeyKind};
use hostile::{check_decode, fix_checksums};
use proptest::prelude::*;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// An empty one, both kinds of key, plain and coupled, both filters, with and without ByteCount.
const VECTORS: [&str; 5] = [
    "tiny-empty",
    "xxh3-v4-plain-partitioned",
    "mix64-v6-plain-blocked",
    "crc-add-v4-coupled-partitioned",
    "odd-sizes",
];

fn vector(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/vectors/{name}.flowset"));
    fs::read(path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Reads bytes with a reader that may keep the switch's name, and nothing else.
fn read(bytes: &[u8]) -> Result<Flowset<&[u8]>, FlowsetError> {
    let (flowset, allocated) = allocated_by(|| Flowset::new_checked(bytes));
    assert!(allocated.bytes <= SwitchName::BYTES_MAX as u64);
    if let Err(error) = &flowset {
        assert!(error.offset <= bytes.len(), "{error}");
    }
    flowset
}

/// Decodes what may be anything. The memory that takes is that of a few copies of the table.
fn decode(flowset: &Flowset<&[u8]>) {
    let ((), allocated) = allocated_by(|| match flowset.header().key {
        KeyKind::V4 => drop(single_decode::<FlowKeyV4, _>(flowset)),
        KeyKind::V6 => drop(single_decode::<FlowKeyV6, _>(flowset)),
    });
    let bytes = flowset.as_bytes().len() as u64;
    assert!(
        allocated.bytes <= 16 * bytes,
        "{allocated:?} for {bytes} bytes"
    );
    check_decode(flowset);
}

#[test]
fn every_prefix() {
    for name in VECTORS {
        let bytes = vector(name);
        for found in 0..bytes.len() {
            let error = read(&bytes[..found]).expect_err("a part is not the whole");
            let FlowsetErrorKind::CutOff {
                found: said,
                needed,
            } = error.kind
            else {
                panic!("{name}: {error}");
            };
            assert_eq!((error.offset, said), (found, found), "{name}");
            assert!(needed > found as u64, "{name}");
            assert!(needed <= bytes.len() as u64, "{name}");
        }
    }
}

#[test]
fn bytes_that_follow() {
    for name in VECTORS {
        let bytes = vector(name);
        let twice = [&bytes[..], &bytes[..]].concat();
        assert_eq!(
            read(&twice).expect_err("two flowsets are not one"),
            FlowsetError {
                offset: bytes.len(),
                kind: FlowsetErrorKind::TrailingBytes(bytes.len()),
            }
        );
        let (first, rest) = Flowset::split_first(&twice).expect("a flowset");
        assert_eq!((first.as_bytes(), rest), (&bytes[..], &bytes[..]));
    }
}

/// Two whole flowsets of one layout, the header of one before the filter and table of the other.
#[test]
fn payload_of_another_flowset() {
    let name = VECTORS[0];
    let original = vector(name);
    let header_bytes = u16::from_le_bytes([original[10], original[11]]) as usize;
    let mut other = original.clone();
    other[24] ^= 1;
    fix_checksums(&mut other);
    assert!(Flowset::new_checked(&other[..]).is_ok());
    let spliced = [&other[..header_bytes], &original[header_bytes..]].concat();
    let error = Flowset::new_checked(&spliced[..]).expect_err("a payload of another epoch");
    assert_eq!(error.offset, original.len() - 8);
    assert!(matches!(
        error.kind,
        FlowsetErrorKind::PayloadChecksum { .. }
    ));
}

/// No change of one byte, to whatever value, goes unnoticed, and each is found where it is.
#[test]
fn every_changed_byte() {
    for name in VECTORS {
        let original = vector(name);
        let header_bytes = u16::from_le_bytes([original[10], original[11]]) as usize;
        let header_checksum = header_bytes - 8;
        let payload_checksum = original.len() - 8;
        let mut bytes = original.clone();
        for offset in 0..bytes.len() {
            // All values for the header, some for the payload, whose bytes are all alike.
            let changes = if offset < header_bytes {
                (1..=255).collect()
            } else {
                vec![1, 2, 4, 8, 16, 32, 64, 128, 255]
            };
            for change in changes {
                bytes[offset] = original[offset] ^ change;
                let error = read(&bytes).expect_err("a damaged flowset");
                let found = (error.offset, &error.kind);
                let expected = match offset {
                    0..8 => matches!(found, (0, FlowsetErrorKind::Magic)),
                    8..10 => matches!(found, (8, FlowsetErrorKind::Version(_))),
                    10..12 => matches!(found, (10, FlowsetErrorKind::Length { .. })),
                    // The name's length decides where the checksum is expected.
                    104 if matches!(found, (10, FlowsetErrorKind::Length { .. })) => true,
                    _ if offset < header_bytes => {
                        matches!(found.1, FlowsetErrorKind::HeaderChecksum { .. })
                            && found.0 == header_checksum
                    }
                    _ => {
                        matches!(found.1, FlowsetErrorKind::PayloadChecksum { .. })
                            && found.0 == payload_checksum
                    }
                };
                assert!(expected, "{name}: byte {offset} ^ {change:#x}: {error}");
            }
            bytes[offset] = original[offset];
        }
        assert!(read(&bytes).is_ok(), "{name}");
    }
}

/// Every row of the table in `docs/flowset-format.md` of what a reader must reject. Checksums match.
#[test]
fn impossible_fields() {
    use FlowsetErrorKind as Kind;
    let layout = |offset, reason| (offset, Kind::Layout(reason));
    let changes: Vec<(usize, &[u8], (usize, Kind))> = vec![
        (12, &[2], (12, Kind::Flags(2))),
        (12, &[1, 0, 0, 0x80], (12, Kind::Flags(0x8000_0001))),
        (48, &[5], (48, Kind::KeyKind(5))),
        (49, &[0], (49, Kind::HashFamily(0))),
        (49, &[4], (49, Kind::HashFamily(4))),
        (50, &[1], layout(50, LayoutError::Hashes(1))),
        (50, &[7], layout(50, LayoutError::Hashes(7))),
        (51, &[1], layout(51, LayoutError::FlowCountBits(1))),
        (51, &[17], layout(51, LayoutError::FlowCountBits(17))),
        (52, &[1], layout(52, LayoutError::PacketCountBits(1))),
        (52, &[33], layout(52, LayoutError::PacketCountBits(33))),
        (53, &[15], layout(53, LayoutError::ByteCountBits(15))),
        (53, &[49], layout(53, LayoutError::ByteCountBits(49))),
        (54, &[0], (54, Kind::FilterKind { kind: 0, hashes: 7 })),
        (54, &[3], (54, Kind::FilterKind { kind: 3, hashes: 7 })),
        (54, &[2], (54, Kind::FilterKind { kind: 2, hashes: 7 })),
        (
            55,
            &[25],
            layout(
                55,
                LayoutError::FilterHashes {
                    hashes: 25,
                    family: HashFamilyId::Xxh3,
                    most: 24,
                },
            ),
        ),
        (64, &[0, 0, 0, 0], layout(64, LayoutError::Cells(0))),
        (
            64,
            &[255, 255, 255, 255],
            layout(64, LayoutError::Cells(3 * 0xffff_ffff)),
        ),
        (
            68,
            &[25],
            layout(
                68,
                LayoutError::Window {
                    window_cells: 25,
                    subtable_cells: 24,
                },
            ),
        ),
        (72, &[0], layout(72, LayoutError::FilterBits(0))),
        (76, &[1], (76, Kind::NotZero)),
        (79, &[1], (79, Kind::NotZero)),
        (105, &[1], (105, Kind::NotZero)),
        (111, &[1], (111, Kind::NotZero)),
        (
            112,
            b".",
            (
                112,
                Kind::SwitchName(SwitchNameError::Character {
                    position: 0,
                    found: '.',
                }),
            ),
        ),
        (
            114,
            b"/",
            (
                114,
                Kind::SwitchName(SwitchNameError::Character {
                    position: 2,
                    found: '/',
                }),
            ),
        ),
        (115, &[0xff], (115, Kind::SwitchNameUtf8)),
        // After the name `leaf-1`.
        (118, &[1], (118, Kind::NotZero)),
        (119, &[1], (119, Kind::NotZero)),
        // Fewer cells, a smaller filter, one more hash: the stated length is no longer right.
        (
            64,
            &[23],
            (
                16,
                Kind::Length {
                    stated: 1832,
                    needed: 1784,
                },
            ),
        ),
        (
            17,
            &[0xff],
            (
                16,
                Kind::Length {
                    stated: 0xff28,
                    needed: 1832,
                },
            ),
        ),
        // The name would be longer than names may be.
        (
            104,
            &[255],
            (
                10,
                Kind::Length {
                    stated: 128,
                    needed: 376,
                },
            ),
        ),
    ];
    let original = vector("xxh3-v4-plain-partitioned");
    assert_eq!(original.len(), 1832);
    for (offset, values, (error_offset, kind)) in changes {
        let mut bytes = original.clone();
        bytes[offset..offset + values.len()].copy_from_slice(values);
        fix_checksums(&mut bytes);
        let expected = FlowsetError {
            offset: error_offset,
            kind,
        };
        assert_eq!(read(&bytes).expect_err("an impossible header"), expected);
    }
}

/// Names of no byte and of more bytes than allowed, in headers of the right length.
#[test]
fn impossible_names() {
    for length in [0, 129, 255] {
        let original = vector("tiny-empty");
        let mut bytes = original[..112].to_vec();
        bytes[104] = length;
        bytes.extend(vec![b'n'; length as usize]);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend([0; 8]);
        let header_bytes = bytes.len() as u16;
        bytes[10..12].copy_from_slice(&header_bytes.to_le_bytes());
        bytes.extend(&original[128..]);
        let total_bytes = bytes.len() as u64;
        bytes[16..24].copy_from_slice(&total_bytes.to_le_bytes());
        fix_checksums(&mut bytes);
        assert_eq!(
            read(&bytes).expect_err("an impossible name"),
            FlowsetError {
                offset: 104,
                kind: FlowsetErrorKind::SwitchName(SwitchNameError::Length(length as usize)),
            }
        );
    }
}

/// What checksums do not show: padding and widths of columns.
#[test]
fn impossible_payload() {
    // 7 × 127 bits of filter, 13 × 72 bytes of FlowXOR (no padding), 72, 3 × 72, 5 × 72.
    let plain = vector("xxh3-v4-plain-partitioned");
    // Six subtables of 23 cells: 13 × 138 bytes and 6 of padding; 5 bits of FlowCount, 17 of
    // PacketCount, 33 of ByteCount.
    let odd = vector("odd-sizes");
    let odd_header = u16::from_le_bytes([odd[10], odd[11]]) as usize;
    let filter_bytes = (24 * 61_usize).div_ceil(64) * 8;
    let xors = odd_header + filter_bytes;
    let flows = xors + (13 * 138_usize).next_multiple_of(8);
    let packets = flows + 138_usize.next_multiple_of(8);
    let bytes = packets + (3 * 138_usize).next_multiple_of(8);
    assert_eq!(odd.len(), bytes + (5 * 138_usize).next_multiple_of(8) + 8);
    let counter = |value, bits| FlowsetErrorKind::Counter { value, bits };
    let changes = [
        // Bit 889 of 889 and the last one, in the filter's last word.
        (
            &plain,
            128 + 111,
            0x02,
            128 + 104,
            FlowsetErrorKind::NotZero,
        ),
        (
            &plain,
            128 + 111,
            0x80,
            128 + 104,
            FlowsetErrorKind::NotZero,
        ),
        (&odd, flows - 1, 1, flows - 1, FlowsetErrorKind::NotZero),
        (&odd, flows - 6, 1, flows - 6, FlowsetErrorKind::NotZero),
        (&odd, packets - 1, 1, packets - 1, FlowsetErrorKind::NotZero),
        (&odd, bytes - 2, 1, bytes - 2, FlowsetErrorKind::NotZero),
        (
            &odd,
            odd.len() - 9,
            1,
            odd.len() - 9,
            FlowsetErrorKind::NotZero,
        ),
        (&odd, flows + 7, 0x20, flows + 7, counter(0x20, 5)),
        (
            &odd,
            packets + 3 * 7 + 2,
            0x02,
            packets + 3 * 7,
            counter(0x2_0000, 17),
        ),
        (
            &odd,
            bytes + 5 * 7 + 4,
            0x80,
            bytes + 5 * 7,
            counter(0x80_0000_0000, 33),
        ),
    ];
    for (original, offset, change, error_offset, kind) in changes {
        let mut changed = original.clone();
        // Counters are cleared first, so that the test can state the whole value.
        if let FlowsetErrorKind::Counter { bits, .. } = kind {
            changed[error_offset..error_offset + bits.div_ceil(8) as usize].fill(0);
        }
        changed[offset] |= change;
        fix_checksums(&mut changed);
        let expected = FlowsetError {
            offset: error_offset,
            kind,
        };
        assert_eq!(read(&changed).expect_err("impossible"), expected);
    }
}

/// Totals that are not there must be zero.
#[test]
fn totals_without_their_flag() {
    for offset in 80..104 {
        let mut bytes = vector("tiny-empty");
        bytes[12] = 0;
        bytes[offset] = 1;
        fix_checksums(&mut bytes);
        let expected = FlowsetError {
            offset,
            kind: FlowsetErrorKind::NotZero,
        };
        assert_eq!(read(&bytes).expect_err("a total without flag"), expected);
    }
}

/// Values for header fields: likely ones, limits, and anything.
fn field_value() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..40_u64,
        any::<u64>(),
        prop::sample::select(vec![u64::MAX, 1 << 28, 1 << 31, u32::MAX.into(), 1 << 35]),
    ]
}

/// Offset and length of the header's fields, lengths of header and flowset excepted.
const FIELDS: [(usize, usize); 22] = [
    (12, 4),
    (24, 8),
    (32, 8),
    (40, 8),
    (48, 1),
    (49, 1),
    (50, 1),
    (51, 1),
    (52, 1),
    (53, 1),
    (54, 1),
    (55, 1),
    (56, 8),
    (64, 4),
    (68, 4),
    (72, 4),
    (76, 4),
    (80, 8),
    (88, 8),
    (96, 8),
    (105, 7),
    (112, 6),
];

/// Sets fields and, if told, the total length that the reader asks for.
fn set_fields(bytes: &mut Vec<u8>, fields: &[(prop::sample::Index, u64)], fix_length: bool) {
    for (field, value) in fields {
        let (offset, length) = *field.get(&FIELDS);
        bytes[offset..offset + length].copy_from_slice(&value.to_le_bytes()[..length]);
    }
    fix_checksums(bytes);
    if !fix_length {
        return;
    }
    let error = Flowset::new_checked(&bytes[..]).err();
    if let Some(FlowsetErrorKind::Length { needed, .. }) = error.map(|error| error.kind) {
        bytes[16..24].copy_from_slice(&needed.to_le_bytes());
        if needed < 100_000 {
            bytes.resize(needed as usize, 0);
        }
        fix_checksums(bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(read(&bytes).is_err());
    }

    /// Headers whose checksums match, but which say anything.
    #[test]
    fn any_fields(
        name in prop::sample::select(&VECTORS[..4]),
        fields in prop::collection::vec((any::<prop::sample::Index>(), field_value()), 1..4),
        fix_length: bool,
    ) {
        let mut bytes = vector(name);
        set_fields(&mut bytes, &fields, fix_length);
        if let Ok(flowset) = read(&bytes) {
            decode(&flowset);
        }
    }

    /// Payloads whose checksum matches, but in which anything changed.
    #[test]
    fn any_payload(
        name in prop::sample::select(&VECTORS[..]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..30),
        seed: Option<u64>,
    ) {
        let mut bytes = vector(name);
        let header_bytes = u16::from_le_bytes([bytes[10], bytes[11]]) as usize;
        let payload = bytes.len() - 8 - header_bytes;
        for (offset, value) in changes {
            bytes[header_bytes + offset.index(payload)] = value;
        }
        // With other hash functions every key is in the wrong cell.
        if let Some(seed) = seed {
            bytes[56..64].copy_from_slice(&seed.to_le_bytes());
        }
        fix_checksums(&mut bytes);
        if let Ok(flowset) = read(&bytes) {
            decode(&flowset);
        }
    }
}

/// Packets that no flow accounts for: nothing is decoded wrong, but it is not all that was there.
#[test]
fn packets_without_a_flow() {
    let mut bytes = vector("tiny-empty");
    let packet_counts = 128 + 8 + 32 + 8;
    for subtable in 0..2 {
        bytes[packet_counts + subtable] = 1;
    }
    bytes[80] = 1;
    fix_checksums(&mut bytes);
    let flowset = read(&bytes).expect("the right form");
    let decoded = single_decode::<FlowKeyV4, _>(&flowset).expect("the same kind of key");
    assert_eq!(decoded.flows, []);
    assert!(!decoded.is_complete(), "{decoded:?}");
}

/// Even the layout with the most memory for each byte of input stays within the bound.
#[test]
fn memory_of_decoding() {
    for name in VECTORS {
        let bytes = vector(name);
        decode(&read(&bytes).expect("a vector"));
    }
}
