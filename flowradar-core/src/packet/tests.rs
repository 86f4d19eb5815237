//! Vectors made by hand from the RFCs, and properties against `etherparse`.

use alloc::vec;
use alloc::vec::Vec;

use etherparse::{
    IpHeaders, Ipv4Extensions, Ipv4Header, Ipv6Extensions, Ipv6Header, LaxSlicedPacket, NetSlice,
    PacketBuilder, PacketBuilderStep, SlicedPacket, TransportSlice, VlanId,
};
use proptest::prelude::*;

use super::*;
use crate::key::FlowKey;

const SRC4: [u8; 4] = [10, 1, 2, 3];
const DST4: [u8; 4] = [192, 0, 2, 9];
const SRC6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const DST6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
/// Ports 0x1234 and 0x0050, and four more bytes.
const PORTS: [u8; 8] = [0x12, 0x34, 0x00, 0x50, 0xaa, 0xbb, 0xcc, 0xdd];

const LINK_TYPES: [LinkType; 7] = [
    LinkType::Ethernet,
    LinkType::RawIp,
    LinkType::RawIpv4,
    LinkType::RawIpv6,
    LinkType::LinuxSll,
    LinkType::LinuxSll2,
    LinkType::Loopback,
];

/// An IPv4 packet without options; `flags_and_offset` is the fragment field.
fn ipv4(protocol: u8, flags_and_offset: u16, payload: &[u8]) -> Vec<u8> {
    let [total_high, total_low] = (20 + payload.len() as u16).to_be_bytes();
    let [flags, offset] = flags_and_offset.to_be_bytes();
    let mut packet = vec![
        0x45, 0, total_high, total_low, 0, 1, flags, offset, 64, protocol, 0, 0,
    ];
    packet.extend(SRC4);
    packet.extend(DST4);
    packet.extend(payload);
    packet
}

fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let [length_high, length_low] = (payload.len() as u16).to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, length_high, length_low, next_header, 64];
    packet.extend(SRC6);
    packet.extend(DST6);
    packet.extend(payload);
    packet
}

fn raw(packet: &[u8]) -> Result<Parsed, ParsePacketError> {
    parse(LinkType::RawIp, packet, packet.len() as u32)
}

fn v4(src_port: u16, dst_port: u16, protocol: u8, ip_bytes: u32, ports: Ports) -> Parsed {
    Parsed::V4(IpPacket {
        key: FlowKeyV4::new(SRC4.into(), DST4.into(), src_port, dst_port, protocol),
        ip_bytes,
        ports,
    })
}

fn v6(src_port: u16, dst_port: u16, protocol: u8, ip_bytes: u32, ports: Ports) -> Parsed {
    Parsed::V6(IpPacket {
        key: FlowKeyV6::new(SRC6.into(), DST6.into(), src_port, dst_port, protocol),
        ip_bytes,
        ports,
    })
}

fn error(offset: usize, reason: MalformedReason) -> Result<Parsed, ParsePacketError> {
    Err(ParsePacketError { offset, reason })
}

#[test]
fn protocols_with_ports() {
    for protocol in [6, 17, 33, 132, 136] {
        assert_eq!(
            raw(&ipv4(protocol, 0x4000, &PORTS)),
            Ok(v4(0x1234, 80, protocol, 28, Ports::Read))
        );
        assert_eq!(
            raw(&ipv6(protocol, &PORTS)),
            Ok(v6(0x1234, 80, protocol, 48, Ports::Read))
        );
    }
}

#[test]
fn icmp_type_and_code_are_the_destination_port() {
    // Destination unreachable (3), port unreachable (3); the inner header is not looked at.
    let mut unreachable = vec![3, 3, 0, 0, 0, 0, 0, 0];
    unreachable.extend(ipv4(17, 0, &PORTS));
    assert_eq!(
        raw(&ipv4(1, 0, &unreachable)),
        Ok(v4(0, 0x0303, 1, 56, Ports::Read))
    );
    // Neighbor solicitation (135).
    assert_eq!(
        raw(&ipv6(58, &[135, 0, 0, 0])),
        Ok(v6(0, 135 << 8, 58, 44, Ports::Read))
    );
    // Each over the other version is just another protocol.
    assert_eq!(
        raw(&ipv4(58, 0, &[135, 0, 0, 0])),
        Ok(v4(0, 0, 58, 24, Ports::NotCarried))
    );
    assert_eq!(
        raw(&ipv6(1, &[8, 0, 0, 0])),
        Ok(v6(0, 0, 1, 44, Ports::NotCarried))
    );
}

#[test]
fn ipv4_fragments() {
    // More fragments, offset 0: the first.
    assert_eq!(
        raw(&ipv4(17, 0x2000, &PORTS)),
        Ok(v4(0x1234, 80, 17, 28, Ports::Read))
    );
    // Offset 185 with and without more fragments, and the smallest and the largest offset.
    for flags_and_offset in [0x20b9, 0x00b9, 0x0001, 0x1000, 0x1fff] {
        assert_eq!(
            raw(&ipv4(17, flags_and_offset, &PORTS)),
            Ok(v4(0, 0, 17, 28, Ports::NotCarried))
        );
    }
    assert_eq!(
        raw(&ipv4(1, 0x00b9, &PORTS)),
        Ok(v4(0, 0, 1, 28, Ports::NotCarried))
    );
}

#[test]
fn ipv6_fragments() {
    let fragment = |offset_and_flags: u16, next_header: u8| {
        let [high, low] = offset_and_flags.to_be_bytes();
        let mut payload = vec![next_header, 0, high, low, 0, 0, 0, 7];
        payload.extend(PORTS);
        ipv6(44, &payload)
    };
    // The first, and an atomic fragment (RFC 6946).
    for first in [0x0001, 0x0000] {
        assert_eq!(
            raw(&fragment(first, 17)),
            Ok(v6(0x1234, 80, 17, 56, Ports::Read))
        );
    }
    // Later ones: what follows the fragment header is not a header.
    for later in [0x0008, 0x0009, 0x8000, 0xfff8] {
        assert_eq!(
            raw(&fragment(later, 17)),
            Ok(v6(0, 0, 17, 56, Ports::NotCarried))
        );
        assert_eq!(
            raw(&fragment(later, 60)),
            Ok(v6(0, 0, 60, 56, Ports::NotCarried))
        );
    }
}

#[test]
fn other_protocols_and_tunnels_have_no_ports() {
    // IGMP, IP in IP, IPv6 in IP, GRE, ESP, AH over IPv4, OSPF.
    for protocol in [2, 4, 41, 47, 50, 51, 89] {
        assert_eq!(
            raw(&ipv4(protocol, 0, &PORTS)),
            Ok(v4(0, 0, protocol, 28, Ports::NotCarried))
        );
    }
    for protocol in [4, 41, 47, 50, 59, 89] {
        assert_eq!(
            raw(&ipv6(protocol, &PORTS)),
            Ok(v6(0, 0, protocol, 48, Ports::NotCarried))
        );
    }
}

#[test]
fn ipv4_options_are_skipped() {
    let mut packet = ipv4(6, 0, &[1, 1, 1, 1, 1, 1, 1, 0, 0x12, 0x34, 0x00, 0x50]);
    packet[0] = 0x47;
    assert_eq!(raw(&packet), Ok(v4(0x1234, 80, 6, 32, Ports::Read)));
    // Cut off inside the options: the addresses are there, the ports are not.
    assert_eq!(
        parse(LinkType::RawIp, &packet[..21], 32),
        Ok(v4(0, 0, 6, 32, Ports::CutOff))
    );
}

#[test]
fn ipv6_extension_headers_are_walked() {
    let mut payload = Vec::new();
    payload.extend([43, 0, 1, 4, 0, 0, 0, 0]); // hop-by-hop options, then routing
    payload.extend([44, 2, 0, 0, 0, 0, 0, 0]); // routing, 24 bytes, then fragment
    payload.extend([0; 16]);
    payload.extend([51, 0, 0, 1, 0, 0, 0, 9]); // fragment, the first, then authentication
    payload.extend([60, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]); // authentication, 24 bytes
    payload.extend([0; 12]);
    payload.extend([135, 0, 1, 4, 0, 0, 0, 0]); // destination options, then mobility
    payload.extend([139, 0, 0, 0, 0, 0, 0, 0]); // mobility, then HIP
    payload.extend([140, 0, 0, 0, 0, 0, 0, 0]); // HIP, then Shim6
    payload.extend([6, 0, 0, 0, 0, 0, 0, 0]); // Shim6, then TCP
    payload.extend(PORTS);
    let packet = ipv6(0, &payload);
    let length = packet.len() as u32;
    assert_eq!(raw(&packet), Ok(v6(0x1234, 80, 6, length, Ports::Read)));

    // However short the capture: the same key, or no ports, or an error, but no other key.
    for captured in 0..packet.len() {
        let upper_layer_known = packet.len() - PORTS.len() - 8 + 1;
        match parse(LinkType::RawIp, &packet[..captured], length) {
            Ok(parsed) if captured >= packet.len() - 4 => {
                assert_eq!(parsed, v6(0x1234, 80, 6, length, Ports::Read));
            }
            Ok(parsed) => {
                assert!(captured > upper_layer_known, "{captured}");
                assert_eq!(parsed, v6(0, 0, 6, length, Ports::CutOff));
            }
            Err(problem) => {
                assert!(captured <= upper_layer_known, "{captured}: {problem}");
                assert_eq!(problem.offset, captured);
            }
        }
    }
}

#[test]
fn ipv6_extension_headers_are_bounded() {
    let chain = |headers: usize| {
        let mut payload = [60, 0, 1, 4, 0, 0, 0, 0].repeat(headers - 1);
        payload.extend([17, 0, 1, 4, 0, 0, 0, 0]);
        payload.extend(PORTS);
        ipv6(60, &payload)
    };
    let longest = chain(MAX_IPV6_EXTENSION_HEADERS);
    assert_eq!(
        raw(&longest),
        Ok(v6(0x1234, 80, 17, longest.len() as u32, Ports::Read))
    );
    assert_eq!(
        raw(&chain(MAX_IPV6_EXTENSION_HEADERS + 1)),
        error(
            40 + 8 * (MAX_IPV6_EXTENSION_HEADERS + 1),
            MalformedReason::TooManyExtensionHeaders
        )
    );
}

#[test]
fn ports_behind_the_end_of_the_datagram_are_not_read_from_padding() {
    // Total length 22: two bytes of UDP; the rest is Ethernet padding.
    let mut packet = ipv4(17, 0, &PORTS);
    packet[3] = 22;
    assert_eq!(raw(&packet), Ok(v4(0, 0, 17, 22, Ports::BeyondDatagram)));
    packet[3] = 24;
    assert_eq!(raw(&packet), Ok(v4(0x1234, 80, 17, 24, Ports::Read)));
    let mut packet = ipv6(17, &PORTS);
    packet[5] = 3;
    assert_eq!(raw(&packet), Ok(v6(0, 0, 17, 43, Ports::BeyondDatagram)));
}

#[test]
fn bytes_are_those_of_the_ip_header_and_fall_back_to_the_wire() {
    // 1,500 bytes by the header, 60 on the wire by a wrong record: the header counts.
    let mut packet = ipv4(6, 0, &PORTS);
    packet[2..4].copy_from_slice(&1500_u16.to_be_bytes());
    assert_eq!(
        parse(LinkType::RawIp, &packet, 60),
        Ok(v4(0x1234, 80, 6, 1500, Ports::Read))
    );
    // Length 0 in an Ethernet frame of 70,014 bytes.
    packet[2..4].copy_from_slice(&[0, 0]);
    let mut frame = vec![0; 12];
    frame.extend([0x08, 0x00]);
    frame.extend(&packet);
    assert_eq!(
        parse(LinkType::Ethernet, &frame, 70_014),
        Ok(v4(0x1234, 80, 6, 70_000, Ports::Read))
    );
    // IPv6 jumbogram with its hop-by-hop option.
    let mut packet = ipv6(0, &[6, 0, 0xc2, 4, 0, 1, 0x11, 0x70]);
    packet.extend(PORTS);
    packet[5] = 0;
    assert_eq!(
        parse(LinkType::RawIpv6, &packet, 70_040),
        Ok(v6(0x1234, 80, 6, 70_040, Ports::Read))
    );
    // Payload length 0 and no next header is a whole packet; the rest is padding.
    let mut packet = ipv6(59, &[0; 6]);
    packet[5] = 0;
    assert_eq!(raw(&packet), Ok(v6(0, 0, 59, 40, Ports::NotCarried)));
}

#[test]
fn vlan_tags_are_skipped() {
    let frame = |tags: &[u16]| {
        let mut frame = vec![0xff; 12];
        for tag in tags {
            frame.extend(tag.to_be_bytes());
            frame.extend([0x0f, 0xff]);
        }
        frame.extend([0x08, 0x00]);
        frame.extend(ipv4(6, 0, &PORTS));
        frame
    };
    let expected = v4(0x1234, 80, 6, 28, Ports::Read);
    for tags in [
        &[][..],
        &[0x8100],
        &[0x88a8, 0x8100],
        &[0x9100, 0x8100],
        &[0x88a8, 0x88a8, 0x8100],
        &[0x8100; MAX_VLAN_TAGS],
    ] {
        let frame = frame(tags);
        assert_eq!(
            parse(LinkType::Ethernet, &frame, frame.len() as u32),
            Ok(expected)
        );
    }
    assert_eq!(
        parse(LinkType::Ethernet, &frame(&[0x8100; MAX_VLAN_TAGS + 1]), 0),
        error(14 + 4 * MAX_VLAN_TAGS, MalformedReason::TooManyVlanTags)
    );
    assert_eq!(
        parse(LinkType::Ethernet, &frame(&[0x8100])[..17], 0),
        error(17, MalformedReason::LinkHeaderCutOff)
    );
}

#[test]
fn link_types() {
    let (four, six) = (ipv4(6, 0, &PORTS), ipv6(17, &PORTS));
    let expected = (
        Ok(v4(0x1234, 80, 6, 28, Ports::Read)),
        Ok(v6(0x1234, 80, 17, 48, Ports::Read)),
    );
    let headers: [(LinkType, Vec<u8>, Vec<u8>); 6] = [
        (LinkType::RawIp, vec![], vec![]),
        // Outgoing, Ethernet, address of six bytes, EtherType.
        (
            LinkType::LinuxSll,
            vec![0, 4, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 0x08, 0x00],
            vec![0, 4, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 0x86, 0xdd],
        ),
        // A tunnel interface (ARPHRD_NONE), no address.
        (
            LinkType::LinuxSll,
            vec![0, 0, 0xff, 0xfe, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x08, 0x00],
            vec![0, 0, 0xff, 0xfe, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x86, 0xdd],
        ),
        // EtherType, reserved, interface 3, Ethernet, outgoing, address.
        (
            LinkType::LinuxSll2,
            vec![8, 0, 0, 0, 0, 0, 0, 3, 0, 1, 4, 6, 2, 0, 0, 0, 0, 1, 0, 0],
            vec![
                0x86, 0xdd, 0, 0, 0, 0, 0, 3, 0, 1, 4, 6, 2, 0, 0, 0, 0, 1, 0, 0,
            ],
        ),
        (LinkType::Loopback, vec![2, 0, 0, 0], vec![30, 0, 0, 0]),
        (LinkType::Loopback, vec![0, 0, 0, 2], vec![0, 0, 0, 24]),
    ];
    for (link_type, before_four, before_six) in headers {
        let four = [before_four, four.clone()].concat();
        let six = [before_six, six.clone()].concat();
        assert_eq!(parse(link_type, &four, four.len() as u32), expected.0);
        assert_eq!(parse(link_type, &six, six.len() as u32), expected.1);
    }
    assert_eq!(parse(LinkType::RawIpv4, &four, 28), expected.0);
    assert_eq!(parse(LinkType::RawIpv6, &six, 48), expected.1);
    // A VLAN tag behind a cooked header.
    let mut tagged = vec![
        0, 4, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 0x81, 0, 0, 7, 8, 0,
    ];
    tagged.extend(&four);
    assert_eq!(
        parse(LinkType::LinuxSll, &tagged, tagged.len() as u32),
        expected.0
    );
}

#[test]
fn pcap_link_numbers() {
    let known = [
        (0, LinkType::Loopback),
        (1, LinkType::Ethernet),
        (12, LinkType::RawIp),
        (101, LinkType::RawIp),
        (108, LinkType::Loopback),
        (113, LinkType::LinuxSll),
        (228, LinkType::RawIpv4),
        (229, LinkType::RawIpv6),
        (276, LinkType::LinuxSll2),
    ];
    for (number, link_type) in known {
        assert_eq!(LinkType::from_pcap(number), Some(link_type));
    }
    // IEEE 802.11, and a number out of range.
    assert_eq!(LinkType::from_pcap(105), None);
    assert_eq!(LinkType::from_pcap(u32::MAX), None);
}

#[test]
fn frames_without_ip() {
    // ARP, LLDP, MPLS, PPPoE session, and the length of an 802.3 frame (spanning tree).
    for ether_type in [0x0806_u16, 0x88cc, 0x8847, 0x8864, 0x0026] {
        let mut frame = vec![1; 12];
        frame.extend(ether_type.to_be_bytes());
        frame.extend([0; 46]);
        assert_eq!(
            parse(LinkType::Ethernet, &frame, 60),
            Ok(Parsed::NotIp {
                link_protocol: u32::from(ether_type)
            })
        );
    }
    // Netlink over a cooked header: the protocol 0x0800 is not an EtherType.
    let netlink = [0, 4, 0x03, 0x38, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0x45];
    assert_eq!(
        parse(LinkType::LinuxSll, &netlink, 17),
        Ok(Parsed::NotIp {
            link_protocol: 0x0800
        })
    );
}

#[test]
fn malformed_headers() {
    let mut packet = ipv4(6, 0, &PORTS);
    packet[0] = 0x44;
    assert_eq!(raw(&packet), error(0, MalformedReason::Ipv4HeaderLength));
    packet[0] = 0x55;
    assert_eq!(raw(&packet), error(0, MalformedReason::IpVersion));
    packet[0] = 0x45;
    packet[3] = 19;
    assert_eq!(raw(&packet), error(2, MalformedReason::Ipv4TotalLength));
    assert_eq!(
        raw(&packet[..19]),
        error(19, MalformedReason::IpHeaderCutOff)
    );
    assert_eq!(raw(&[]), error(0, MalformedReason::IpHeaderCutOff));
    assert_eq!(
        parse(LinkType::RawIpv6, &packet, 28),
        error(0, MalformedReason::IpVersion)
    );
    assert_eq!(
        parse(LinkType::Ethernet, &[0; 13], 13),
        error(13, MalformedReason::LinkHeaderCutOff)
    );
    // Payload of four bytes that should hold a header of eight.
    assert_eq!(
        raw(&ipv6(60, &[6, 0, 1, 2])),
        error(40, MalformedReason::ExtensionHeaderBeyondDatagram)
    );
    assert_eq!(
        error(40, MalformedReason::TooManyVlanTags)
            .map_err(|problem| alloc::string::ToString::to_string(&problem)),
        Err("byte 40 of the frame: more than 4 VLAN tags".into())
    );
}

/// Upper layers that `etherparse` can build.
#[derive(Clone, Copy, Debug)]
enum UpperLayer {
    Tcp { src_port: u16, dst_port: u16 },
    Udp { src_port: u16, dst_port: u16 },
    Icmp { icmp_type: u8, code: u8 },
}

fn upper_layer() -> impl Strategy<Value = UpperLayer> {
    prop_oneof![
        any::<(u16, u16)>().prop_map(|(src_port, dst_port)| UpperLayer::Tcp { src_port, dst_port }),
        any::<(u16, u16)>().prop_map(|(src_port, dst_port)| UpperLayer::Udp { src_port, dst_port }),
        any::<(u8, u8)>().prop_map(|(icmp_type, code)| UpperLayer::Icmp { icmp_type, code }),
    ]
}

/// Adds the upper layer and writes the packet.
fn build(
    builder: PacketBuilderStep<IpHeaders>,
    upper_layer: UpperLayer,
    is_ipv6: bool,
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = vec![0; 512];
    let written = match upper_layer {
        UpperLayer::Tcp { src_port, dst_port } => builder
            .tcp(src_port, dst_port, 1, 1024)
            .write_to_slice(&mut packet, payload),
        UpperLayer::Udp { src_port, dst_port } => builder
            .udp(src_port, dst_port)
            .write_to_slice(&mut packet, payload),
        UpperLayer::Icmp { icmp_type, code } if is_ipv6 => builder
            .icmpv6_raw(icmp_type, code, [0; 4])
            .write_to_slice(&mut packet, payload),
        UpperLayer::Icmp { icmp_type, code } => builder
            .icmpv4_raw(icmp_type, code, [0; 4])
            .write_to_slice(&mut packet, payload),
    };
    packet.truncate(written.expect("512 bytes hold any packet of these tests"));
    packet
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_without_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..160),
        wire_bytes in any::<u32>(),
    ) {
        for link_type in LINK_TYPES {
            if let Err(problem) = parse(link_type, &bytes, wire_bytes) {
                // The walk over extension headers may end far behind the captured bytes.
                prop_assert!(problem.offset <= 64 * 1024);
            }
        }
    }

    /// Bytes that look like IPv6 extension headers reach the walk more often than any bytes do.
    #[test]
    fn any_extension_headers_are_parsed_without_panic(
        next_header in prop::sample::select(vec![0_u8, 43, 44, 50, 51, 59, 60, 135, 139, 140, 6]),
        chain in proptest::collection::vec(
            (prop::sample::select(vec![0_u8, 43, 44, 51, 60, 135, 6, 58]), 0_u8..3, any::<[u8; 6]>()),
            0..16,
        ),
        captured in 0_usize..200,
    ) {
        let mut payload = Vec::new();
        for (next_header, length, rest) in chain {
            payload.extend([next_header, length]);
            payload.extend(rest);
        }
        let packet = ipv6(next_header, &payload);
        let whole = raw(&packet);
        let cut = parse(
            LinkType::RawIp,
            &packet[..captured.min(packet.len())],
            packet.len() as u32,
        );
        // Cutting off may hide ports or the whole key, but never gives another key.
        if let (Ok(Parsed::V6(whole)), Ok(Parsed::V6(cut))) = (whole, cut) {
            prop_assert_eq!(whole.key.protocol(), cut.key.protocol());
            prop_assert!(whole == cut || cut.ports == Ports::CutOff);
        }
    }

    #[test]
    fn built_packets_give_their_key(
        src in any::<u128>(),
        dst in any::<u128>(),
        is_ipv6: bool,
        link in 0_usize..5,
        upper_layer in upper_layer(),
        payload in proptest::collection::vec(any::<u8>(), 0..100),
        padding in 0_usize..20,
    ) {
        let src_v4 = Ipv4Addr::from_bits(src as u32);
        let dst_v4 = Ipv4Addr::from_bits(dst as u32);
        let (src_v6, dst_v6) = (Ipv6Addr::from_bits(src), Ipv6Addr::from_bits(dst));
        // The builder sets lengths and protocol.
        let ip = if is_ipv6 {
            let header = Ipv6Header { source: src_v6.octets(), destination: dst_v6.octets(), ..Default::default() };
            IpHeaders::Ipv6(header, Ipv6Extensions::default())
        } else {
            let header = Ipv4Header { source: src_v4.octets(), destination: dst_v4.octets(), time_to_live: 64, ..Default::default() };
            IpHeaders::Ipv4(header, Ipv4Extensions::default())
        };
        let ethernet = PacketBuilder::ethernet2([1; 6], [2; 6]);
        let vlan = VlanId::try_new(7).expect("7 is a VLAN identifier");
        let (link_type, link_bytes, builder) = match link {
            0 => (LinkType::Ethernet, 14, ethernet.ip(ip)),
            1 => (LinkType::Ethernet, 18, ethernet.single_vlan(vlan).ip(ip)),
            2 => (LinkType::Ethernet, 22, ethernet.double_vlan(vlan, vlan).ip(ip)),
            3 => (
                LinkType::LinuxSll,
                16,
                PacketBuilder::linux_sll(etherparse::LinuxSllPacketType::OUTGOING, 6, [0; 8]).ip(ip),
            ),
            _ => (LinkType::RawIp, 0, PacketBuilder::ip(ip)),
        };
        let mut frame = build(builder, upper_layer, is_ipv6, &payload);
        let ip_bytes = (frame.len() - link_bytes) as u32;
        frame.extend(core::iter::repeat_n(0, padding));

        let (src_port, dst_port, protocol) = match upper_layer {
            UpperLayer::Tcp { src_port, dst_port } => (src_port, dst_port, 6),
            UpperLayer::Udp { src_port, dst_port } => (src_port, dst_port, 17),
            UpperLayer::Icmp { icmp_type, code } => (
                0,
                u16::from_be_bytes([icmp_type, code]),
                if is_ipv6 { 58 } else { 1 },
            ),
        };
        let expected = if is_ipv6 {
            Parsed::V6(IpPacket {
                key: FlowKeyV6::new(src_v6, dst_v6, src_port, dst_port, protocol),
                ip_bytes,
                ports: Ports::Read,
            })
        } else {
            Parsed::V4(IpPacket {
                key: FlowKeyV4::new(src_v4, dst_v4, src_port, dst_port, protocol),
                ip_bytes,
                ports: Ports::Read,
            })
        };
        prop_assert_eq!(parse(link_type, &frame, frame.len() as u32), Ok(expected));
    }

    /// Whatever `etherparse` can make of arbitrary IP bytes, the key says too.
    #[test]
    fn agrees_with_etherparse_on_altered_packets(
        is_ipv6: bool,
        upper_layer in upper_layer(),
        payload in proptest::collection::vec(any::<u8>(), 0..40),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let builder = if is_ipv6 {
            PacketBuilder::ipv6(SRC6, DST6, 64)
        } else {
            PacketBuilder::ipv4(SRC4, DST4, 64)
        };
        let mut packet = build(builder, upper_layer, is_ipv6, &payload);
        for (index, value) in changes {
            let index = index.index(packet.len());
            packet[index] = value;
        }
        let ours = raw(&packet);
        if let Ok(theirs) = SlicedPacket::from_ip(&packet) {
            let (key_src, key_dst, upper_layer) = match &theirs.net {
                Some(NetSlice::Ipv4(ip)) => (
                    core::net::IpAddr::from(ip.header().source_addr()),
                    core::net::IpAddr::from(ip.header().destination_addr()),
                    ip.payload().ip_number,
                ),
                Some(NetSlice::Ipv6(ip)) => (
                    ip.header().source_addr().into(),
                    ip.header().destination_addr().into(),
                    ip.payload().ip_number,
                ),
                _ => return Ok(()),
            };
            // Extension headers that etherparse takes for upper layers, with arbitrary contents.
            if is_ipv6 && matches!(upper_layer.0, 135 | 139 | 140) {
                return Ok(());
            }
            let ports = match &theirs.transport {
                Some(TransportSlice::Tcp(tcp)) => Some((tcp.source_port(), tcp.destination_port())),
                Some(TransportSlice::Udp(udp)) => Some((udp.source_port(), udp.destination_port())),
                _ => None,
            };
            let (src, dst, our_ports, protocol) = match ours {
                Ok(Parsed::V4(packet)) => (packet.key.src(), packet.key.dst(), (packet.key.src_port(), packet.key.dst_port()), packet.key.protocol()),
                Ok(Parsed::V6(packet)) => (packet.key.src(), packet.key.dst(), (packet.key.src_port(), packet.key.dst_port()), packet.key.protocol()),
                other => return Err(TestCaseError::fail(alloc::format!("etherparse accepts it, we say {other:?}"))),
            };
            prop_assert_eq!((src, dst), (key_src, key_dst));
            // IPv4 ends at an authentication header here; etherparse looks behind it.
            if let Some(ports) = ports && protocol != 51 {
                prop_assert_eq!(our_ports, ports);
            }
        } else if LaxSlicedPacket::from_ip(&packet).is_err() {
            // Not even the start of an IP packet, or one that ends inside the IPv4 options.
            let has_no_ports = match ours {
                Ok(Parsed::V4(packet)) => packet.ports != Ports::Read,
                Ok(_) => false,
                Err(_) => true,
            };
            prop_assert!(has_no_ports, "{:?}", ours);
        }
    }
}
