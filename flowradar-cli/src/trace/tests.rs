//! Every format, from files built byte by byte from its specification: none of these builders uses
//! the crates that the readers use.

use std::io::{Cursor, Write};
use std::path::PathBuf;

use flate2::write::GzEncoder;
use proptest::prelude::*;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::*;

/// A reader's whole output.
#[derive(Debug, PartialEq)]
struct Outcome {
    packets: Vec<TracePacket>,
    error: Option<TraceError>,
    stats: TraceStats,
}

fn read_as(bytes: &[u8], format: InputFormat) -> Outcome {
    match TraceReader::from_reader(Cursor::new(bytes.to_vec()), "test", format) {
        Ok(reader) => outcome(reader),
        Err(error) => Outcome {
            packets: Vec::new(),
            error: Some(error),
            stats: TraceStats::default(),
        },
    }
}

fn read(bytes: &[u8]) -> Outcome {
    read_as(bytes, InputFormat::Auto)
}

fn outcome(mut reader: TraceReader) -> Outcome {
    let (mut packets, mut error) = (Vec::new(), None);
    for packet in &mut reader {
        assert_eq!(error, None, "nothing follows an error");
        match packet {
            Ok(packet) => packets.push(packet),
            Err(problem) => error = Some(problem),
        }
    }
    assert!(reader.next().is_none());
    let stats = reader.stats().clone();
    assert_eq!(
        stats.packets,
        stats.ipv4_packets + stats.ipv6_packets + stats.not_ip_packets + stats.uncounted_packets()
    );
    Outcome {
        packets,
        error,
        stats,
    }
}

fn problem(outcome: &Outcome) -> (u64, &TraceProblem) {
    let error = outcome.error.as_ref().expect("there is an error");
    (error.offset, &error.problem)
}

/// Byte order of a file under construction.
#[derive(Clone, Copy, Debug)]
struct Order {
    is_big: bool,
}

const ORDERS: [Order; 2] = [Order { is_big: false }, Order { is_big: true }];
const LITTLE: Order = ORDERS[0];

impl Order {
    fn u16(self, number: u16) -> [u8; 2] {
        if self.is_big {
            number.to_be_bytes()
        } else {
            number.to_le_bytes()
        }
    }

    fn u32(self, number: u32) -> [u8; 4] {
        if self.is_big {
            number.to_be_bytes()
        } else {
            number.to_le_bytes()
        }
    }

    fn u64(self, number: u64) -> [u8; 8] {
        if self.is_big {
            number.to_be_bytes()
        } else {
            number.to_le_bytes()
        }
    }

    fn pcap_header(self, magic: u32, link_type: u32) -> Vec<u8> {
        let mut bytes = self.u32(magic).to_vec();
        bytes.extend(self.u16(2));
        bytes.extend(self.u16(4));
        bytes.extend([0; 8]);
        bytes.extend(self.u32(65535));
        bytes.extend(self.u32(link_type));
        bytes
    }

    fn pcap_record(self, seconds: u32, fraction: u32, captured: &[u8], wire: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for field in [seconds, fraction, captured.len() as u32, wire] {
            bytes.extend(self.u32(field));
        }
        bytes.extend(captured);
        bytes
    }

    fn block(self, block_type: u32, body: &[u8]) -> Vec<u8> {
        let mut padded = body.to_vec();
        padded.resize(body.len().next_multiple_of(4), 0);
        let length = self.u32(padded.len() as u32 + 12);
        [&self.u32(block_type)[..], &length, &padded, &length].concat()
    }

    fn section(self) -> Vec<u8> {
        let mut body = self.u32(0x1a2b_3c4d).to_vec();
        body.extend(self.u16(1));
        body.extend(self.u16(0));
        body.extend(self.u64(u64::MAX));
        self.block(0x0a0d_0d0a, &body)
    }

    fn option(self, code: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = self.u16(code).to_vec();
        bytes.extend(self.u16(value.len() as u16));
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn interface(self, link_type: u16, snap_bytes: u32, options: &[u8]) -> Vec<u8> {
        let mut body = self.u16(link_type).to_vec();
        body.extend([0, 0]);
        body.extend(self.u32(snap_bytes));
        body.extend(options);
        self.block(1, &body)
    }

    fn enhanced(self, interface: u32, timestamp: u64, captured: &[u8], wire: u32) -> Vec<u8> {
        let mut body = self.u32(interface).to_vec();
        body.extend(self.u32((timestamp >> 32) as u32));
        body.extend(self.u32(timestamp as u32));
        body.extend(self.u32(captured.len() as u32));
        body.extend(self.u32(wire));
        body.extend(captured);
        body.resize(body.len().next_multiple_of(4), 0);
        // A comment, to have an option behind the packet.
        body.extend(self.option(1, b"hello"));
        body.extend(self.option(0, b""));
        self.block(6, &body)
    }

    fn simple(self, captured: &[u8], wire: u32) -> Vec<u8> {
        self.block(3, &[&self.u32(wire)[..], captured].concat())
    }

    fn obsolete(self, interface: u16, timestamp: u64, captured: &[u8], wire: u32) -> Vec<u8> {
        let mut body = self.u16(interface).to_vec();
        body.extend(self.u16(0xffff));
        body.extend(self.u32((timestamp >> 32) as u32));
        body.extend(self.u32(timestamp as u32));
        body.extend(self.u32(captured.len() as u32));
        body.extend(self.u32(wire));
        body.extend(captured);
        self.block(2, &body)
    }
}

/// A raw IPv4 packet of 28 bytes, UDP from port `n` to port 53.
fn udp(n: u16) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 17, 0, 0];
    packet.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    packet.extend(n.to_be_bytes());
    packet.extend([0, 53, 0, 8, 0, 0]);
    packet
}

/// What the readers make of [`udp`].
fn udp_packet(n: u16, timestamp_ns: Option<u64>) -> TracePacket {
    TracePacket {
        timestamp_ns,
        key: TraceKey::V4(FlowKeyV4::new(
            [10, 0, 0, 1].into(),
            [10, 0, 0, 2].into(),
            n,
            53,
            17,
        )),
        ip_bytes: Some(28),
    }
}

fn ethernet(ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend(ether_type.to_be_bytes());
    frame.extend(payload);
    frame
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("a vector takes all bytes");
    encoder.finish().expect("a vector takes all bytes")
}

/// A zstd frame of one raw block, without checksum (RFC 8878 §3.1.1).
fn zstd_raw(bytes: &[u8]) -> Vec<u8> {
    let size = bytes.len() as u32;
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0b1010_0000];
    frame.extend(size.to_le_bytes());
    frame.extend(&(1 | size << 3).to_le_bytes()[..3]);
    frame.extend(bytes);
    frame
}

/// Cuts a file at every byte: the reader must return the packets that are there, and an error
/// unless the cut is at a boundary. `boundaries` are the valid ends of a file, with the packets
/// before each.
fn check_every_cut(file: &[u8], format: InputFormat, boundaries: &[(usize, usize)]) {
    let whole = read_as(file, format);
    assert_eq!(whole.error, None);
    for cut in 0..=file.len() {
        let part = read_as(&file[..cut], format);
        let last = boundaries.iter().rev().find(|(end, _)| *end <= cut);
        let (end, packets) = last.copied().unwrap_or((0, 0));
        assert_eq!(part.packets, whole.packets[..packets], "cut at {cut}");
        assert_eq!(part.stats.packets, packets as u64, "cut at {cut}");
        if cut == end && last.is_some() {
            assert_eq!(part.error, None, "cut at {cut}");
            continue;
        }
        match problem(&part) {
            (0, TraceProblem::Empty) => assert_eq!(cut, 0),
            (
                offset,
                TraceProblem::Truncated {
                    present_bytes,
                    expected_bytes,
                    ..
                },
            ) => {
                assert_eq!(offset, end as u64, "cut at {cut}");
                assert_eq!(*present_bytes, (cut - end) as u64, "cut at {cut}");
                assert!(expected_bytes > present_bytes, "cut at {cut}");
            }
            other => panic!("cut at {cut}: {other:?}"),
        }
    }
}

#[test]
fn pcap_in_both_byte_orders_and_resolutions() {
    for order in ORDERS {
        for (magic, unit_ns) in [(0xa1b2_c3d4, 1000), (0xa1b2_3c4d, 1)] {
            let mut file = order.pcap_header(magic, 101);
            let mut boundaries = vec![(file.len(), 0)];
            for n in 1..=3_u16 {
                file.extend(order.pcap_record(1_700_000_000, u32::from(n), &udp(n), 28));
                boundaries.push((file.len(), usize::from(n)));
            }
            let whole = read(&file);
            let expected: Vec<_> = (1..=3)
                .map(|n| {
                    let timestamp = 1_700_000_000_000_000_000 + u64::from(n) * unit_ns;
                    udp_packet(n, Some(timestamp))
                })
                .collect();
            assert_eq!(whole.packets, expected);
            assert_eq!(
                (whole.stats.ipv4_packets, whole.stats.captured_bytes),
                (3, 84)
            );
            assert_eq!(whole.stats.ip_bytes, 84);
            check_every_cut(&file, InputFormat::Auto, &boundaries);
            check_every_cut(&file, InputFormat::Pcap, &boundaries);
        }
    }
}

#[test]
fn pcap_with_modified_records() {
    let mut file = LITTLE.pcap_header(0xa1b2_cd34, 101);
    let mut boundaries = vec![(file.len(), 0)];
    for n in 1..=2 {
        let record = LITTLE.pcap_record(5, 6, &udp(n), 28);
        let (header, packet) = record.split_at(16);
        // Interface, protocol, packet type.
        file.extend([header, &[3, 0, 0, 0, 8, 0, 4, 0], packet].concat());
        boundaries.push((file.len(), usize::from(n)));
    }
    let expected = [1, 2].map(|n| udp_packet(n, Some(5_000_006_000)));
    assert_eq!(read(&file).packets, expected);
    check_every_cut(&file, InputFormat::Auto, &boundaries);
}

#[test]
fn every_record_is_counted_by_kind() {
    let mut file = LITTLE.pcap_header(0xa1b2_c3d4, 1);
    let mut icmpv6 = vec![0x60, 0, 0, 0, 0, 8, 58, 255];
    icmpv6.extend([0xfe; 32]);
    icmpv6.extend([128, 0, 0, 0, 0, 0, 0, 0]);
    let frames = [
        ethernet(0x0800, &udp(1)),
        ethernet(0x0806, &[0; 28]),
        ethernet(0x86dd, &icmpv6),
        // Only 22 bytes of the IP packet captured: half of the ports.
        ethernet(0x0800, &udp(2)[..22]),
        // Header length 16.
        ethernet(0x0800, &[0x44; 20]),
        vec![1; 10],
        // A datagram of 20 bytes, then padding.
        ethernet(0x0800, &{
            let mut packet = udp(3);
            packet[3] = 20;
            packet
        }),
    ];
    let mut offsets = Vec::new();
    for frame in &frames {
        offsets.push(file.len() as u64);
        file.extend(LITTLE.pcap_record(1, 0, frame, 60));
    }
    let outcome = read(&file);
    assert_eq!(outcome.error, None);
    let stats = outcome.stats;
    assert_eq!(outcome.packets.len(), 4);
    assert_eq!(
        (stats.packets, stats.ipv4_packets, stats.ipv6_packets),
        (7, 3, 1)
    );
    assert_eq!((stats.not_ip_packets, stats.uncounted_packets()), (1, 2));
    assert_eq!(
        (
            stats.ports_cut_off_packets,
            stats.ports_beyond_datagram_packets
        ),
        (1, 1)
    );
    assert_eq!(
        stats.malformed_packets,
        BTreeMap::from([
            (MalformedReason::LinkHeaderCutOff, 1),
            (MalformedReason::Ipv4HeaderLength, 1)
        ])
    );
    let first = stats.first_malformed.expect("two packets are malformed");
    assert_eq!(
        first.to_string(),
        format!(
            "packet 5 (its record begins at byte {}), byte 14 of the frame: the IPv4 header \
             length is below 20 bytes",
            offsets[4]
        )
    );
    assert_eq!(stats.ip_bytes, 28 + 48 + 28 + 20);
}

#[test]
fn pcap_header_problems() {
    let header = LITTLE.pcap_header(0xa1b2_c3d4, 105);
    assert_eq!(
        problem(&read(&header)),
        (20, &TraceProblem::UnsupportedLinkType { number: 105 })
    );
    // Four bytes of frame check sequence, said in the highest bits.
    let mut file = LITTLE.pcap_header(0xa1b2_c3d4, 0x2400_0000 << 1 | 101);
    file.extend(LITTLE.pcap_record(0, 0, &udp(1), 28));
    assert_eq!(read(&file).packets, [udp_packet(1, Some(0))]);
    let mut header = LITTLE.pcap_header(0xa1b2_c3d4, 1);
    header[6] = 2;
    assert_eq!(
        problem(&read(&header)),
        (
            4,
            &TraceProblem::UnsupportedVersion {
                format: InputFormat::Pcap,
                major: 2,
                minor: 2
            }
        )
    );
    assert_eq!(
        read(b"GET / HTTP/1.1\r\n")
            .error
            .map(|error| error.to_string()),
        Some(
            "test: byte 0: neither pcap nor pcapng: the input begins with the bytes \
             [47, 45, 54, 20]; for 13-byte 5-tuple records say --input-format tuple13"
                .into()
        )
    );
    assert_eq!(
        problem(&read_as(&LITTLE.section(), InputFormat::Pcap)),
        (
            0,
            &TraceProblem::WrongFormat {
                expected: InputFormat::Pcap,
                found: InputFormat::Pcapng
            }
        )
    );
}

#[test]
fn long_records() {
    // A packet of 256 KiB is read; a record beyond the limit is an error, and read no further.
    let mut long = udp(1);
    long.resize(256 << 10, 0);
    let mut file = LITTLE.pcap_header(0xa1b2_c3d4, 101);
    file.extend(LITTLE.pcap_record(0, 0, &long, 256 << 10));
    file.extend(LITTLE.pcap_record(0, 0, &udp(2), 28));
    let offset = file.len() as u64;
    file.extend(LITTLE.pcap_record(0, 0, &udp(3), 28));
    let hostile = (MAX_RECORD_BYTES as u32 - 15).to_le_bytes();
    file[offset as usize + 8..offset as usize + 12].copy_from_slice(&hostile);
    let outcome = read(&file);
    assert_eq!(
        outcome.packets,
        [udp_packet(1, Some(0)), udp_packet(2, Some(0))]
    );
    assert_eq!(
        problem(&outcome),
        (
            offset,
            &TraceProblem::RecordTooLong {
                bytes: MAX_RECORD_BYTES as u64 + 1,
                limit: MAX_RECORD_BYTES as u64
            }
        )
    );
}

/// A file with everything that pcapng has: sections of both byte orders, interfaces with clocks of
/// their own, all kinds of packet blocks, and blocks to pass over. Returns also its valid ends.
fn pcapng_file() -> (Vec<u8>, Vec<TracePacket>, Vec<(usize, usize)>) {
    let (mut file, mut packets, mut boundaries) = (Vec::new(), Vec::new(), Vec::new());
    for order in ORDERS {
        let offset_s = order.u64(1_000_000_000);
        // Nanoseconds; microseconds by default, with an offset; 2^-10 seconds.
        let nanoseconds = [
            order.option(2, b"eth0"),
            order.option(9, &[9]),
            order.option(0, b""),
        ];
        let shifted = [order.option(14, &offset_s), order.option(0, b"")];
        let binary = order.option(9, &[0x8a]);
        let packet = |n, timestamp_ns| Some(udp_packet(n, timestamp_ns));
        let blocks = [
            (order.section(), None),
            (order.interface(101, 0, &nanoseconds.concat()), None),
            (
                order.enhanced(0, 123_456_789_012, &udp(1), 28),
                packet(1, Some(123_456_789_012)),
            ),
            (order.interface(1, 65535, &shifted.concat()), None),
            (order.interface(228, 65535, &binary), None),
            // Interface statistics, name resolution, and a type that nobody knows.
            (order.block(5, &[0; 12]), None),
            (order.block(4, &[0; 4]), None),
            (order.block(0x7abc_def0, b"anything"), None),
            (
                order.enhanced(1, 5_000_001, &ethernet(0x0800, &udp(2)), 42),
                packet(2, Some(1_000_000_005_000_001_000)),
            ),
            (order.simple(&udp(3), 28), packet(3, None)),
            (
                order.obsolete(2, 1536, &udp(4), 28),
                packet(4, Some(1_500_000_000)),
            ),
            // Captured 25 bytes of 28: padded in the block.
            (order.enhanced(0, 7, &udp(5)[..25], 28), packet(5, Some(7))),
        ];
        for (block, packet) in blocks {
            file.extend(block);
            packets.extend(packet);
            boundaries.push((file.len(), packets.len()));
        }
    }
    (file, packets, boundaries)
}

#[test]
fn pcapng_of_all_blocks_and_byte_orders() {
    let (file, packets, boundaries) = pcapng_file();
    let outcome = read(&file);
    assert_eq!(outcome.error, None);
    assert_eq!(outcome.packets, packets);
    assert_eq!(outcome.stats.packets, 10);
    check_every_cut(&file, InputFormat::Auto, &boundaries);
}

#[test]
fn pcapng_timestamps_are_exact() {
    let clock = |resolution, offset_s| pcapng_clock(resolution, offset_s);
    // From the specification's section 4.6: 2012-06-29 07:28:25.298858 UTC.
    let timestamp = 0x0004_c397_64ca_47aa;
    assert_eq!(clock(6, 0)(timestamp), Some(1_340_954_905_298_858_000));
    assert_eq!(clock(0, 0)(7), Some(7_000_000_000));
    assert_eq!(clock(12, 0)(1_999), Some(1));
    assert_eq!(clock(127, 0)(u64::MAX), Some(0));
    assert_eq!(clock(0x80, 0)(7), Some(7_000_000_000));
    assert_eq!(clock(0xa0, 0)(1 << 31), Some(500_000_000));
    assert_eq!(clock(0xff, 0)(u64::MAX), Some(0));
    assert_eq!(clock(6, -1)(1_500_000), Some(500_000_000));
    // Out of range: unknown, not wrong.
    assert_eq!(clock(6, -2)(1_500_000), None);
    assert_eq!(clock(0, 0)(u64::MAX), None);
    assert_eq!(clock(0, i64::MAX)(u64::MAX), None);
    assert_eq!(clock(0, i64::MIN)(0), None);
}

/// The timestamp that a file with one packet gives.
fn pcapng_clock(resolution: u8, offset_s: i64) -> impl Fn(u64) -> Option<u64> {
    move |timestamp| {
        let options = [
            LITTLE.option(9, &[resolution]),
            LITTLE.option(14, &offset_s.to_le_bytes()),
        ];
        let file = [
            LITTLE.section(),
            LITTLE.interface(101, 0, &options.concat()),
            LITTLE.enhanced(0, timestamp, &udp(1), 28),
        ];
        read(&file.concat()).packets[0].timestamp_ns
    }
}

#[test]
fn pcapng_snapped_simple_packets() {
    let snapped = [
        LITTLE.section(),
        LITTLE.interface(101, 24, &[]),
        LITTLE.simple(&udp(9)[..24], 28),
    ];
    let outcome = read(&snapped.concat());
    assert_eq!(outcome.packets, [udp_packet(9, None)]);
    assert_eq!(outcome.stats.captured_bytes, 24);
}

#[test]
fn pcapng_interfaces_of_unsupported_link_types_are_counted() {
    let file = [
        LITTLE.section(),
        LITTLE.interface(105, 0, &[]),
        LITTLE.interface(101, 0, &[]),
        LITTLE.enhanced(0, 0, &[8; 40], 40),
        LITTLE.enhanced(1, 0, &udp(1), 28),
    ];
    let outcome = read(&file.concat());
    assert_eq!(outcome.packets, [udp_packet(1, Some(0))]);
    assert_eq!(outcome.stats.unsupported_link_packets, 1);
    assert_eq!(outcome.stats.uncounted_packets(), 1);
}

#[test]
fn damaged_pcapng_blocks() {
    let start = [
        LITTLE.section(),
        LITTLE.interface(101, 0, &[]),
        LITTLE.enhanced(0, 0, &udp(1), 28),
    ]
    .concat();
    let packet = LITTLE.enhanced(0, 0, &udp(2), 28);
    let altered = |at: usize, value: u32| {
        let mut packet = packet.clone();
        packet[at..at + 4].copy_from_slice(&value.to_le_bytes());
        packet
    };
    let length = packet.len() as u32;
    let cases = [
        (
            altered(4, 30),
            TraceProblem::BlockLength {
                block_type: 6,
                bytes: 30,
            },
        ),
        (
            altered(4, length - 2),
            TraceProblem::BlockLength {
                block_type: 6,
                bytes: length - 2,
            },
        ),
        (
            altered(packet.len() - 4, 1),
            TraceProblem::BlockLengthsDiffer {
                first: length,
                last: 1,
            },
        ),
        (
            altered(20, 100),
            TraceProblem::PacketBeyondBlock { block_type: 6 },
        ),
        (
            altered(20, u32::MAX),
            TraceProblem::PacketBeyondBlock { block_type: 6 },
        ),
        (
            altered(8, 1),
            TraceProblem::UnknownInterface {
                interface: 1,
                described: 1,
            },
        ),
        (
            altered(4, 0x7fff_fff0),
            TraceProblem::RecordTooLong {
                bytes: 0x7fff_fff0,
                limit: MAX_RECORD_BYTES as u64,
            },
        ),
        (
            LITTLE.simple(&udp(1), 1000),
            TraceProblem::PacketBeyondBlock { block_type: 3 },
        ),
        (
            LITTLE.block(0x0a0d_0d0a, &[0; 16]),
            TraceProblem::NoSectionHeader,
        ),
    ];
    for (block, expected) in cases {
        let outcome = read(&[&start[..], &block, &packet].concat());
        assert_eq!(outcome.packets, [udp_packet(1, Some(0))]);
        assert_eq!(problem(&outcome), (start.len() as u64, &expected));
    }
    // A section does not know the interfaces of the one before.
    let outcome = read(&[&start[..], &LITTLE.section(), &packet].concat());
    let unknown = TraceProblem::UnknownInterface {
        interface: 0,
        described: 0,
    };
    assert_eq!(problem(&outcome), (start.len() as u64 + 28, &unknown));
}

#[test]
fn pcapng_interfaces_are_bounded() {
    let mut file = LITTLE.section();
    file.extend(LITTLE.interface(101, 0, &[]).repeat(65_537));
    assert_eq!(
        problem(&read(&file)),
        (
            28 + 20 * 65_536,
            &TraceProblem::TooManyInterfaces { limit: 65_536 }
        )
    );
}

#[test]
fn long_unknown_blocks_are_passed_over() {
    let body = vec![7; MAX_RECORD_BYTES + 100];
    let (section, interface) = (LITTLE.section(), LITTLE.interface(101, 0, &[]));
    let (long, packet) = (LITTLE.block(99, &body), LITTLE.enhanced(0, 0, &udp(1), 28));
    let file = [&section[..], &interface, &long, &packet].concat();
    assert_eq!(read(&file).packets, [udp_packet(1, Some(0))]);
    // Cut off inside it, and before and inside its second length.
    for missing in [packet.len() + 1, packet.len() + 4, packet.len() + 50] {
        let outcome = read(&file[..file.len() - missing]);
        let expected = TraceProblem::Truncated {
            part: "block",
            present_bytes: (long.len() + packet.len() - missing) as u64,
            expected_bytes: long.len() as u64,
        };
        assert_eq!(problem(&outcome), (48, &expected));
    }
}

#[test]
fn tuple13_records() {
    // A record that begins like gzip, and one that begins like pcap.
    let records = [
        [0x1f, 0x8b, 8, 0, 192, 0, 2, 1, 0x12, 0x34, 0, 80, 6],
        [0xd4, 0xc3, 0xb2, 0xa1, 192, 0, 2, 1, 0, 0, 8, 0, 1],
    ];
    let expected = [
        FlowKeyV4::new(
            [0x1f, 0x8b, 8, 0].into(),
            [192, 0, 2, 1].into(),
            0x1234,
            80,
            6,
        ),
        FlowKeyV4::new(
            [0xd4, 0xc3, 0xb2, 0xa1].into(),
            [192, 0, 2, 1].into(),
            0,
            0x800,
            1,
        ),
    ];
    let outcome = read_as(&records.concat(), InputFormat::Tuple13);
    assert_eq!(
        outcome.packets,
        expected.map(|key| TracePacket {
            timestamp_ns: None,
            key: TraceKey::V4(key),
            ip_bytes: None
        })
    );
    for cut in 0..=26 {
        let part = read_as(&records.concat()[..cut], InputFormat::Tuple13);
        assert_eq!(part.packets, outcome.packets[..cut / 13]);
        assert_eq!(part.error.is_some(), cut % 13 != 0);
    }
}

/// A file of its own for a test, removed when dropped.
struct TestFile(PathBuf);

impl TestFile {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let name = format!("flowradar-trace-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, bytes).expect("the temporary directory can be written");
        Self(path)
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        // Nothing depends on it.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn tuple13_timestamps_come_from_a_second_file() {
    let records = TestFile::new("records", &[1; 39]);
    let read = |timestamps: &[u8]| {
        let timestamps = TestFile::new("timestamps", timestamps);
        let reader = TraceReader::open(&records.0, InputFormat::Tuple13)
            .and_then(|reader| reader.with_timestamps(&timestamps.0))
            .expect("both files are there");
        outcome(reader)
    };
    let seconds = |values: &[f64]| -> Vec<u8> {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    };
    let whole = read(&seconds(&[0.0, 0.25, 1.000_001_5]));
    assert_eq!(whole.error, None);
    let timestamps: Vec<_> = whole
        .packets
        .iter()
        .map(|packet| packet.timestamp_ns)
        .collect();
    assert_eq!(
        timestamps,
        [Some(0), Some(250_000_000), Some(1_000_001_500)]
    );

    let cases = [
        (seconds(&[0.0, 1.0]), 2, 16, TraceProblem::TooFewTimestamps),
        (seconds(&[0.0; 4]), 3, 24, TraceProblem::TooManyTimestamps),
        (
            seconds(&[0.0, -0.5, 1.0]),
            1,
            8,
            TraceProblem::InvalidTimestamp,
        ),
        (
            seconds(&[f64::NAN; 3]),
            0,
            0,
            TraceProblem::InvalidTimestamp,
        ),
        (
            seconds(&[0.0, 1e300, 1.0]),
            1,
            8,
            TraceProblem::InvalidTimestamp,
        ),
        (
            seconds(&[0.0; 3])[..20].to_vec(),
            2,
            16,
            TraceProblem::Truncated {
                part: "timestamp",
                present_bytes: 4,
                expected_bytes: 8,
            },
        ),
    ];
    for (timestamps, packets, offset, expected) in cases {
        let outcome = read(&timestamps);
        assert_eq!(outcome.packets.len(), packets, "{expected}");
        assert_eq!(problem(&outcome), (offset, &expected));
        let error = outcome.error.expect("there is an error");
        assert!(error.input.ends_with("timestamps"), "{error}");
    }

    let pcap = TestFile::new("with-timestamps.pcap", &LITTLE.pcap_header(0xa1b2_c3d4, 1));
    let error = TraceReader::open(&pcap.0, InputFormat::Auto)
        .and_then(|reader| reader.with_timestamps(&records.0))
        .expect_err("pcap has timestamps");
    assert_eq!(error.problem, TraceProblem::TimestampsNotNeeded);
}

#[test]
fn compressed_input() {
    let (file, packets, _) = pcapng_file();
    let (first, second) = file.split_at(100);
    let skippable = [&[0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
    let inputs = [
        gzip(&file),
        // Members and frames of their own, as of files appended to each other.
        [gzip(first), gzip(second)].concat(),
        zstd_raw(&file),
        [zstd_raw(first), skippable.clone(), zstd_raw(second)].concat(),
        [skippable, zstd_raw(&file)].concat(),
        compress_to_vec(&file[..], CompressionLevel::Fastest),
    ];
    for input in &inputs {
        let outcome = read(input);
        assert_eq!((outcome.error, &outcome.packets), (None, &packets));
        // Cut off anywhere: no panic, no packet that is not there, and never silently short.
        for cut in 0..input.len() {
            let part = read(&input[..cut]);
            let count = part.packets.len();
            assert_eq!(part.packets, packets[..count], "cut at {cut}");
            if part.error.is_none() {
                // A cut between members or frames can only be seen if it is inside a block.
                assert!(count < packets.len(), "cut at {cut}");
            }
        }
    }
    // One member or frame cannot be cut unseen.
    for input in [&inputs[0], &inputs[2], &inputs[5]] {
        for cut in 0..input.len() {
            assert!(read(&input[..cut]).error.is_some(), "cut at {cut}");
        }
    }
}

#[test]
fn offsets_in_compressed_input_are_those_of_the_contents() {
    let mut file = LITTLE.pcap_header(0xa1b2_c3d4, 101);
    file.extend(LITTLE.pcap_record(0, 0, &udp(1), 28));
    let offset = file.len();
    file.extend(&LITTLE.pcap_record(0, 0, &udp(2), 28)[..30]);
    for input in [gzip(&file), zstd_raw(&file)] {
        let outcome = read(&input);
        assert_eq!(outcome.packets, [udp_packet(1, Some(0))]);
        assert_eq!(
            outcome.error.map(|error| error.to_string()),
            Some(format!(
                "test: byte {offset} of the decompressed data: the input ends inside the packet \
                 record that begins here: 30 bytes of at least 44 are there; was the capture or \
                 the copy cut short?"
            ))
        );
    }
}

#[test]
fn damaged_compressed_input() {
    let mut file = LITTLE.pcap_header(0xa1b2_c3d4, 101);
    for n in 0..100 {
        file.extend(LITTLE.pcap_record(0, 0, &udp(n), 28));
    }
    // The checksum at the end of either format.
    for mut input in [
        gzip(&file),
        compress_to_vec(&file[..], CompressionLevel::Fastest),
    ] {
        let is_gzip = input[0] == 0x1f;
        let checksum = input.len() - if is_gzip { 8 } else { 4 };
        input[checksum] ^= 1;
        let outcome = read(&input);
        assert_eq!(outcome.packets.len(), 100);
        let (offset, problem) = problem(&outcome);
        assert_eq!(offset, file.len() as u64);
        assert!(
            matches!(problem, TraceProblem::Decompress { .. }),
            "{problem}"
        );
    }
    // Something else behind the end.
    let trailing = [gzip(&file), b"trailing bytes".to_vec()].concat();
    assert!(matches!(
        problem(&read(&trailing)).1,
        TraceProblem::Decompress { .. }
    ));
    // A zstd window of 2 GiB.
    let window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 1, 0, 0];
    assert!(matches!(
        problem(&read(&window)).1,
        TraceProblem::Decompress { .. }
    ));
    // Compressed twice is not unpacked twice.
    assert!(matches!(
        problem(&read(&gzip(&gzip(&file)))).1,
        TraceProblem::UnknownFormat { .. }
    ));
}

#[test]
fn missing_files_and_directories() {
    let error = TraceReader::open("/nowhere/trace.pcap", InputFormat::Auto)
        .expect_err("there is no such file");
    assert_eq!(error.input, "/nowhere/trace.pcap");
    assert!(matches!(
        error.problem,
        TraceProblem::Io {
            kind: std::io::ErrorKind::NotFound,
            ..
        }
    ));
    let error = TraceReader::open(std::env::temp_dir(), InputFormat::Auto)
        .expect_err("a directory is no trace");
    assert!(matches!(error.problem, TraceProblem::Io { .. }), "{error}");
}

#[test]
fn reads_from_pipes_that_deliver_single_bytes() {
    struct Trickle(Cursor<Vec<u8>>);

    impl Read for Trickle {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            match buffer {
                [] => Ok(0),
                [first, ..] => self.0.read(std::slice::from_mut(first)),
            }
        }
    }

    let (file, packets, _) = pcapng_file();
    for input in [file.clone(), gzip(&file), zstd_raw(&file)] {
        let length = input.len() as u64;
        let trickle = Trickle(Cursor::new(input));
        let mut reader = TraceReader::from_reader(trickle, "pipe", InputFormat::Auto)
            .expect("the file is whole");
        let read: Result<Vec<_>, _> = reader.by_ref().collect();
        assert_eq!(read.as_ref(), Ok(&packets));
        assert_eq!(reader.input_bytes(), length);
        assert_eq!(reader.input_bytes_total(), None);
    }
}

#[test]
fn progress_is_known_for_files() {
    let bytes = gzip(&pcapng_file().0);
    let file = TestFile::new("progress.pcapng.gz", &bytes);
    let mut reader = TraceReader::open(&file.0, InputFormat::Auto).expect("the file is there");
    assert_eq!(reader.input_bytes_total(), Some(bytes.len() as u64));
    assert_eq!(reader.by_ref().count(), 10);
    assert_eq!(reader.input_bytes(), bytes.len() as u64);
    assert_eq!(reader.format(), InputFormat::Pcapng);
}

#[test]
fn format_names() {
    for format in InputFormat::ALL {
        assert_eq!(format.to_string().parse(), Ok(format));
    }
    assert_eq!(
        "cap"
            .parse::<InputFormat>()
            .map_err(|error| error.to_string()),
        Err("unknown input format \"cap\": expected auto, pcap, pcapng or tuple13".into())
    );
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        start in prop::sample::select(vec![
            vec![],
            LITTLE.pcap_header(0xa1b2_c3d4, 1),
            [LITTLE.section(), LITTLE.interface(1, 0, &[])].concat(),
            vec![0x1f, 0x8b, 8, 0],
            vec![0x28, 0xb5, 0x2f, 0xfd],
        ]),
    ) {
        let file = [start, bytes].concat();
        for format in InputFormat::ALL {
            read_as(&file, format);
        }
    }

    #[test]
    fn altered_files_are_read_without_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        compression in 0..4,
    ) {
        let (file, _, _) = pcapng_file();
        let mut input = match compression {
            0 => file,
            1 => gzip(&file),
            2 => zstd_raw(&file),
            _ => compress_to_vec(&file[..], CompressionLevel::Fastest),
        };
        for (index, value) in changes {
            let index = index.index(input.len());
            input[index] = value;
        }
        read(&input);
    }
}
