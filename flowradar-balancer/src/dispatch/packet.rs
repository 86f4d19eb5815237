//! From a captured frame to what the dispatcher looks at.
//!
//! Flow keys come from [`flowradar_core::packet`], with its rules for VLANs, tunnels and IPv6
//! extension headers. A dispatcher needs two things more: whether the packet is a fragment, and of
//! which datagram, since later fragments carry no ports; and the flags of TCP, from which it learns
//! where connections begin and end.

use flowradar_core::packet::{
    LinkType, MAX_IPV6_EXTENSION_HEADERS, MAX_VLAN_TAGS, ParsePacketError, Parsed, Ports, parse,
};
use flowradar_core::{FlowKeyV4, FlowKeyV6};

use super::flow_id::{Direction, FlowId};

const PROTOCOL_TCP: u8 = 6;
const IPV6_FRAGMENT_HEADER: u8 = 44;
const IPV6_AUTHENTICATION_HEADER: u8 = 51;

/// A packet, as far as it matters where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The flow that it belongs to. For a later fragment, all packets of its protocol between its
    /// addresses: the flow is known only together with the first fragment.
    pub flow: FlowId,
    /// Which way it goes.
    pub direction: Direction,
    /// The flags of its TCP header, if it has one and that was captured.
    pub tcp: Option<TcpFlags>,
    /// Whether it is a part of a datagram.
    pub fragment: Fragment,
    /// Whether it had ports that were not captured: packets of one flow may then be taken for two.
    pub ports_cut_off: bool,
    /// Length of the IP packet in bytes, header included.
    pub ip_bytes: u32,
}

/// The flags of a TCP header (RFC 9293 §3.1) that begin and end connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags(u8);

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// All of it.
    Whole,
    /// The first fragment, with the ports.
    First {
        /// Identification of the datagram: 16 bits in IPv4, 32 bits in IPv6.
        identification: u32,
    },
    /// A later one, without.
    Later {
        /// Identification of the datagram.
        identification: u32,
    },
}

impl TcpFlags {
    const FIN_BIT: u8 = 0x01;
    const SYN_BIT: u8 = 0x02;
    const RST_BIT: u8 = 0x04;
    const ACK_BIT: u8 = 0x10;

    /// The flags in byte 13 of a TCP header.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// The sender has nothing more to send.
    pub const fn fin(self) -> bool {
        self.0 & Self::FIN_BIT != 0
    }

    /// A connection begins.
    pub const fn syn(self) -> bool {
        self.0 & Self::SYN_BIT != 0
    }

    /// The connection is broken off.
    pub const fn rst(self) -> bool {
        self.0 & Self::RST_BIT != 0
    }

    /// Something is acknowledged.
    pub const fn ack(self) -> bool {
        self.0 & Self::ACK_BIT != 0
    }
}

impl Packet {
    /// What a frame holds; `None` if it is not IP. `wire_bytes` is the length that it had on the
    /// wire.
    ///
    /// # Errors
    /// As [`parse`]: the frame is malformed, or captured too short for a flow key.
    #[inline]
    pub fn of_frame(
        link_type: LinkType,
        captured: &[u8],
        wire_bytes: u32,
    ) -> Result<Option<Self>, ParsePacketError> {
        match parse(link_type, captured, wire_bytes)? {
            Parsed::NotIp { .. } => Ok(None),
            Parsed::V4(packet) => {
                let (flow, direction) = FlowId::of(&packet.key);
                let ip = captured
                    .get(ip_offset(link_type, captured)..)
                    .unwrap_or_default();
                let fragment = fragment_v4(ip);
                let header_bytes = usize::from(ip.first().copied().unwrap_or_default() & 0xf) * 4;
                Ok(Some(Self {
                    flow,
                    direction,
                    tcp: tcp_flags(flow.protocol(), fragment, ip, header_bytes),
                    fragment,
                    ports_cut_off: packet.ports == Ports::CutOff,
                    ip_bytes: packet.ip_bytes,
                }))
            }
            Parsed::V6(packet) => {
                let (flow, direction) = FlowId::of(&packet.key);
                let ip = captured
                    .get(ip_offset(link_type, captured)..)
                    .unwrap_or_default();
                let (fragment, upper_layer) = walk_v6(ip);
                Ok(Some(Self {
                    flow,
                    direction,
                    tcp: tcp_flags(flow.protocol(), fragment, ip, upper_layer),
                    fragment,
                    ports_cut_off: packet.ports == Ports::CutOff,
                    ip_bytes: packet.ip_bytes,
                }))
            }
        }
    }

    /// A packet of which only its IPv4 key is known.
    pub fn of_key_v4(key: &FlowKeyV4, ip_bytes: u32) -> Self {
        Self::of_id(FlowId::of(key), ip_bytes)
    }

    /// A packet of which only its IPv6 key is known.
    pub fn of_key_v6(key: &FlowKeyV6, ip_bytes: u32) -> Self {
        Self::of_id(FlowId::of(key), ip_bytes)
    }

    fn of_id((flow, direction): (FlowId, Direction), ip_bytes: u32) -> Self {
        Self {
            flow,
            direction,
            tcp: None,
            fragment: Fragment::Whole,
            ports_cut_off: false,
            ip_bytes,
        }
    }

    /// The same packet with flags of TCP.
    pub fn with_tcp(self, flags: TcpFlags) -> Self {
        Self {
            tcp: Some(flags),
            ..self
        }
    }
}

/// Where the IP header of a frame begins that [`parse`] found one in.
#[inline]
pub(super) fn ip_offset(link_type: LinkType, captured: &[u8]) -> usize {
    match link_type {
        LinkType::Ethernet => {
            let mut offset = 14;
            for _ in 0..MAX_VLAN_TAGS {
                match captured.get(offset - 2..offset) {
                    Some([0x81, 0x00] | [0x88, 0xa8] | [0x91, 0x00]) => offset += 4,
                    _ => break,
                }
            }
            offset
        }
        LinkType::LinuxSll => sll_ip_offset(captured, 14, 16),
        LinkType::LinuxSll2 => sll_ip_offset(captured, 0, 20),
        LinkType::Loopback => 4,
        _ => 0,
    }
}

/// Cooked captures may keep VLAN tags behind their header.
fn sll_ip_offset(captured: &[u8], protocol_offset: usize, mut offset: usize) -> usize {
    let mut protocol = captured.get(protocol_offset..protocol_offset + 2);
    for _ in 0..MAX_VLAN_TAGS {
        match protocol {
            Some([0x81, 0x00] | [0x88, 0xa8] | [0x91, 0x00]) => {
                protocol = captured.get(offset + 2..offset + 4);
                offset += 4;
            }
            _ => break,
        }
    }
    offset
}

/// RFC 791 §3.1: a fragment has an offset, or more follows.
#[inline]
fn fragment_v4(ip: &[u8]) -> Fragment {
    let Some(&[high, low, flags_and_offset, offset_low]) = ip.get(4..8) else {
        return Fragment::Whole;
    };
    let identification = u32::from(u16::from_be_bytes([high, low]));
    let field = u16::from_be_bytes([flags_and_offset, offset_low]);
    fragment_of(identification, field & 0x1fff, field & 0x2000 != 0)
}

fn fragment_of(identification: u32, offset: u16, more: bool) -> Fragment {
    match (offset, more) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First { identification },
        _ => Fragment::Later { identification },
    }
}

/// Which fragment an IPv6 packet is (RFC 8200 §4.5), and where its upper layer begins.
#[inline]
fn walk_v6(ip: &[u8]) -> (Fragment, usize) {
    let mut fragment = Fragment::Whole;
    let mut next_header = ip.get(6).copied().unwrap_or_default();
    let mut offset = 40;
    for _ in 0..MAX_IPV6_EXTENSION_HEADERS {
        let header = ip.get(offset..offset + 8).unwrap_or_default();
        let &[next, length, f0, f1, i0, i1, i2, i3] = header else {
            break;
        };
        offset += match next_header {
            0 | 43 | 60 | 135 | 139 | 140 => (usize::from(length) + 1) * 8,
            IPV6_AUTHENTICATION_HEADER => (usize::from(length) + 2) * 4,
            IPV6_FRAGMENT_HEADER => {
                let field = u16::from_be_bytes([f0, f1]);
                let identification = u32::from_be_bytes([i0, i1, i2, i3]);
                fragment = fragment_of(identification, field >> 3, field & 1 != 0);
                8
            }
            _ => break,
        };
        next_header = next;
        if matches!(fragment, Fragment::Later { .. }) {
            break;
        }
    }
    (fragment, offset)
}

#[inline]
fn tcp_flags(protocol: u8, fragment: Fragment, ip: &[u8], header: usize) -> Option<TcpFlags> {
    if protocol != PROTOCOL_TCP || matches!(fragment, Fragment::Later { .. }) {
        return None;
    }
    ip.get(header + 13).map(|&bits| TcpFlags(bits))
}

#[cfg(test)]
mod tests {
    use etherparse::{Ipv6Extensions, Ipv6FragmentHeader, PacketBuilder};

    use super::*;

    fn of_ethernet(frame: &[u8]) -> Packet {
        Packet::of_frame(LinkType::Ethernet, frame, frame.len() as u32)
            .expect("a well-formed frame")
            .expect("an IP packet")
    }

    #[test]
    fn flags_are_found_behind_vlan_tags_and_options() {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
            .vlan(etherparse::VlanHeader::Double(
                etherparse::DoubleVlanHeader {
                    outer: etherparse::SingleVlanHeader::default(),
                    inner: etherparse::SingleVlanHeader::default(),
                },
            ))
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(49152, 443, 1, 1000)
            .syn()
            .ack(7);
        let mut frame = vec![];
        builder.write(&mut frame, b"payload").expect("it fits");
        let packet = of_ethernet(&frame);
        let flags = packet.tcp.expect("a TCP header");
        assert_eq!(
            (flags.syn(), flags.ack(), flags.fin(), flags.rst()),
            (true, true, false, false)
        );
        assert_eq!(packet.fragment, Fragment::Whole);
        assert_eq!(packet.ip_bytes, 47);
        // Cut off before the flags: the flow is known, the flags are not.
        let cut = Packet::of_frame(LinkType::Ethernet, &frame[..22 + 20 + 13], 69)
            .expect("long enough for a key")
            .expect("an IP packet");
        assert_eq!((cut.flow, cut.tcp), (packet.flow, None));
    }

    #[test]
    fn fragments_are_told_apart_in_both_versions() {
        let mut frame = vec![];
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(5, 6)
            .write(&mut frame, &[0; 64])
            .expect("it fits");
        for (field, expected) in [
            (0x0000_u16, Fragment::Whole),
            (0x4000, Fragment::Whole),
            (
                0x2000,
                Fragment::First {
                    identification: 0xabcd,
                },
            ),
            (
                0x2001,
                Fragment::Later {
                    identification: 0xabcd,
                },
            ),
            (
                0x0007,
                Fragment::Later {
                    identification: 0xabcd,
                },
            ),
        ] {
            frame[18..20].copy_from_slice(&0xabcd_u16.to_be_bytes());
            frame[20..22].copy_from_slice(&field.to_be_bytes());
            assert_eq!(of_ethernet(&frame).fragment, expected, "{field:x}");
        }
        for (offset, more, later) in [(0, true, false), (9, true, true), (9, false, true)] {
            let offset = etherparse::IpFragOffset::try_new(offset).expect("13 bits");
            let header =
                Ipv6FragmentHeader::new(etherparse::IpNumber::TCP, offset, more, 0x0102_0304);
            let extensions = Ipv6Extensions {
                fragment: Some(header),
                ..Ipv6Extensions::default()
            };
            let ip = etherparse::Ipv6Header {
                source: [1; 16],
                destination: [2; 16],
                ..etherparse::Ipv6Header::default()
            };
            let mut frame = vec![];
            PacketBuilder::ethernet2([2; 6], [4; 6])
                .ip(etherparse::IpHeaders::Ipv6(ip, extensions))
                .tcp(5, 6, 1, 1)
                .fin()
                .write(&mut frame, &[0; 64])
                .expect("it fits");
            let packet = of_ethernet(&frame);
            let identification = 0x0102_0304;
            if later {
                assert_eq!(packet.fragment, Fragment::Later { identification });
                assert_eq!(packet.tcp, None);
                assert_eq!(packet.flow, packet.flow.without_ports());
            } else {
                assert_eq!(packet.fragment, Fragment::First { identification });
                assert!(packet.tcp.is_some_and(TcpFlags::fin));
            }
        }
    }

    #[test]
    fn what_is_not_ip_is_said() {
        let mut frame = [0; 60];
        frame[12..14].copy_from_slice(&[0x08, 0x06]);
        assert_eq!(Packet::of_frame(LinkType::Ethernet, &frame, 60), Ok(None));
        assert!(Packet::of_frame(LinkType::Ethernet, &frame[..10], 60).is_err());
    }
}
