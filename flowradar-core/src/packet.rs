//! From a captured frame to a flow key.
//!
//! [`parse`] takes the bytes of one frame, as a capture file or a switch port delivers them, and
//! returns the 5-tuple of its outermost IP header together with the bytes that ByteCount counts.
//! The rules are those that a P4 parser with a fixed parse graph can follow too, so that a flow
//! has the same key in software and on a switch.
//!
//! # What the port fields hold
//!
//! | packet | source port | destination port | protocol | [`Ports`] |
//! | --- | --- | --- | --- | --- |
//! | TCP, UDP, UDP-Lite, SCTP, DCCP | source port | destination port | of the IP header | [`Read`](Ports::Read) |
//! | ICMP over IPv4, ICMPv6 over IPv6 | 0 | `type << 8 \| code`, as in NetFlow | 1, 58 | [`Read`](Ports::Read) |
//! | first fragment (offset 0) of one of these | as above | as above | as above | [`Read`](Ports::Read) |
//! | later fragment, IPv4 | 0 | 0 | of the IP header | [`NotCarried`](Ports::NotCarried) |
//! | later fragment, IPv6 | 0 | 0 | next header of the fragment header | [`NotCarried`](Ports::NotCarried) |
//! | any other protocol (GRE, ESP, OSPF, IGMP, IP in IP, AH over IPv4, …) | 0 | 0 | of the IP header | [`NotCarried`](Ports::NotCarried) |
//! | ports lie behind the end of the captured bytes | 0 | 0 | as above | [`CutOff`](Ports::CutOff) |
//! | ports lie behind the end of the IP datagram itself | 0 | 0 | as above | [`BeyondDatagram`](Ports::BeyondDatagram) |
//!
//! - **IPv6 extension headers**: hop-by-hop options, routing, fragment, authentication,
//!   destination options, mobility, HIP and Shim6 are walked, at most
//!   [`MAX_IPV6_EXTENSION_HEADERS`] of them; the protocol of the key is what follows the last one.
//!   ESP ends the walk: what it carries is encrypted. The addresses are those of the fixed header,
//!   whatever a routing header says.
//! - **Tunnels** (IP in IP, GRE, VXLAN, GTP, …): the outer header only.
//! - **VLAN**: up to [`MAX_VLAN_TAGS`] tags (802.1Q `0x8100`, 802.1ad `0x88a8`, and the older
//!   `0x9100`) are skipped. VLAN identifiers are *not* part of the key: the same 5-tuple in two
//!   VLANs is one flow.
//! - **Not IP** (ARP, LLDP, MPLS, PPPoE, 802.3 frames with an LLC header, …):
//!   [`Parsed::NotIp`], to be counted, not an error.
//! - **Malformed**: a [`ParsePacketError`] with the offset in the frame and the reason. This
//!   includes frames captured so short that no key can be made: a key is never guessed.
//!
//! # Bytes
//!
//! [`IpPacket::ip_bytes`] is what the IP header says, whatever was captured: total length for
//! IPv4, payload length + 40 for IPv6. So link headers, Ethernet padding and trailers do not count.
//! A length field of 0 is no length: a packet captured before segmentation offload (TSO) cut it up,
//! or an IPv6 jumbogram (RFC 2675). `ip_bytes` is then the length on the wire without the link
//! headers. (Payload length 0 with next header 59, no next header, is a complete packet of 40
//! bytes.)
//!
//! # Own code and `etherparse`
//!
//! The protocol numbers come from [`etherparse`], and its packet builder and its slicer are what
//! the tests compare with. Its slicers do not do the parsing here, because each of them needs more
//! of a packet than the key does: a capture often ends 20 to 28 bytes into the IP packet, where the
//! addresses and ports are there but the TCP header or the IPv4 options are not complete;
//! and SCTP, DCCP, UDP-Lite, mobility headers, a fourth VLAN tag, SLL2, and SLL on interfaces
//! without hardware addresses are not known to them.
//!
//! # Example
//!
//! ```
//! use flowradar_core::FlowKey;
//! use flowradar_core::packet::{LinkType, Parsed, Ports, parse};
//!
//! // IPv4, TCP, 52 bytes of which only the first 24 were captured.
//! let captured = [
//!     0x45, 0, 0, 52, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, // IPv4 header
//!     0xc0, 0x00, 0x01, 0xbb, // TCP ports
//! ];
//! let Parsed::V4(packet) = parse(LinkType::RawIp, &captured, 52)? else {
//!     panic!("an IPv4 packet");
//! };
//! assert_eq!(packet.key.to_string(), "10.0.0.1:49152 > 10.0.0.2:443 proto 6");
//! assert_eq!((packet.ip_bytes, packet.ports), (52, Ports::Read));
//! # Ok::<(), flowradar_core::packet::ParsePacketError>(())
//! ```

use core::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{EtherType, IpNumber};
use thiserror::Error;

use crate::key::{FlowKeyV4, FlowKeyV6};

/// How many VLAN tags a frame may carry. A frame with more is
/// [`MalformedReason::TooManyVlanTags`].
pub const MAX_VLAN_TAGS: usize = 4;

/// How many IPv6 extension headers are walked. A packet with more is
/// [`MalformedReason::TooManyExtensionHeaders`]. RFC 8200 §4.1 expects at most seven.
pub const MAX_IPV6_EXTENSION_HEADERS: usize = 8;

/// What a frame begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LinkType {
    /// Ethernet II.
    Ethernet,
    /// An IP header, version 4 or 6 by its first four bits.
    RawIp,
    /// An IPv4 header.
    RawIpv4,
    /// An IPv6 header.
    RawIpv6,
    /// Linux cooked capture, version 1 (`tcpdump -i any`).
    LinuxSll,
    /// Linux cooked capture, version 2.
    LinuxSll2,
    /// BSD loopback: four bytes with the address family, in either byte order.
    Loopback,
}

impl LinkType {
    /// The link type for a LINKTYPE number of a pcap or pcapng file (`None`: not supported).
    ///
    /// The numbers are those of <https://www.tcpdump.org/linktypes.html>, and the platform-dependent
    /// DLT numbers 12 and 14 of raw IP that some files carry instead.
    pub const fn from_pcap(number: u32) -> Option<Self> {
        Some(match number {
            0 | 108 => Self::Loopback,
            1 => Self::Ethernet,
            12 | 14 | 101 => Self::RawIp,
            113 => Self::LinuxSll,
            228 => Self::RawIpv4,
            229 => Self::RawIpv6,
            276 => Self::LinuxSll2,
            _ => return None,
        })
    }
}

/// What [`parse`] found in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// An IPv4 packet.
    V4(IpPacket<FlowKeyV4>),
    /// An IPv6 packet.
    V6(IpPacket<FlowKeyV6>),
    /// A frame that carries no IP packet.
    NotIp {
        /// What it carries: an EtherType (after VLAN tags), the length of an 802.3 frame, or the
        /// address family of a loopback frame.
        link_protocol: u32,
    },
}

/// The parts of an IP packet that flow monitoring counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpPacket<K> {
    /// The flow that the packet belongs to.
    pub key: K,
    /// Length of the IP packet in bytes, header included, as the header says
    /// (see the [module](self#bytes) for lengths of 0).
    pub ip_bytes: u32,
    /// Where the ports of the key come from.
    pub ports: Ports,
}

/// Where the ports of a key come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ports {
    /// They were read from the packet.
    Read,
    /// They are 0: this kind of packet carries none.
    NotCarried,
    /// They are 0: the packet had ports, but the captured bytes end before them. Packets of one
    /// flow may so be counted under two keys; count these packets and say so.
    CutOff,
    /// They are 0: the protocol has ports, but the IP datagram ends before them.
    BeyondDatagram,
}

/// Why no flow key could be made from a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("byte {offset} of the frame: {reason}")]
pub struct ParsePacketError {
    /// Offset in the frame of the field or the missing byte, in bytes. It may lie behind the captured
    /// bytes, where a header says so.
    pub offset: usize,
    /// What is wrong there.
    pub reason: MalformedReason,
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
#[non_exhaustive]
pub enum MalformedReason {
    /// The captured bytes end inside the link header or a VLAN tag.
    #[error("the captured bytes end inside the link header")]
    LinkHeaderCutOff,
    /// The captured bytes end inside the fixed IP header.
    #[error("the captured bytes end inside the IP header")]
    IpHeaderCutOff,
    /// The captured bytes end before the IPv6 extension header that names the upper layer.
    #[error("the captured bytes end inside the IPv6 extension headers")]
    ExtensionHeaderCutOff,
    /// More than [`MAX_VLAN_TAGS`] VLAN tags.
    #[error("more than {MAX_VLAN_TAGS} VLAN tags")]
    TooManyVlanTags,
    /// The version field is not the one that the link layer announced, or neither 4 nor 6.
    #[error("the IP version field holds another version")]
    IpVersion,
    /// The header length field of IPv4 is below 5 words.
    #[error("the IPv4 header length is below 20 bytes")]
    Ipv4HeaderLength,
    /// The total length of IPv4 is not 0 and less than the header length.
    #[error("the IPv4 total length is less than the header length")]
    Ipv4TotalLength,
    /// The chain of IPv6 extension headers goes on behind the end of the datagram.
    #[error("an IPv6 extension header lies behind the end of the datagram")]
    ExtensionHeaderBeyondDatagram,
    /// More than [`MAX_IPV6_EXTENSION_HEADERS`] IPv6 extension headers.
    #[error("more than {MAX_IPV6_EXTENSION_HEADERS} IPv6 extension headers")]
    TooManyExtensionHeaders,
}

/// The flow key and length of the IP packet in a captured frame.
///
/// `captured` are the bytes that the capture kept of the frame, from its first; `wire_bytes` is the
/// length that the frame had on the wire, and is used only where an IP length field is 0.
/// Constant work: a bounded number of headers is looked at.
///
/// # Errors
/// [`ParsePacketError`] if the frame is malformed or captured too short for a key. Ports alone
/// missing is no error, see [`Ports::CutOff`].
pub fn parse(
    link_type: LinkType,
    captured: &[u8],
    wire_bytes: u32,
) -> Result<Parsed, ParsePacketError> {
    let frame = Frame {
        captured,
        // A capture never holds more of a frame than there was: a smaller number is a mistake.
        wire_bytes: (wire_bytes as usize).max(captured.len()),
    };
    match link_type {
        LinkType::Ethernet => frame.ether_type_payload(frame.link_u16(12)?, 14),
        LinkType::LinuxSll => {
            let protocol = frame.link_u16(14)?;
            if sll_protocol_is_ether_type(frame.link_u16(2)?) {
                frame.ether_type_payload(protocol, 16)
            } else {
                Ok(not_ip(protocol))
            }
        }
        LinkType::LinuxSll2 => {
            // The last byte of the header must be there, too.
            frame.link_u16(18)?;
            let protocol = frame.link_u16(0)?;
            if sll_protocol_is_ether_type(frame.link_u16(8)?) {
                frame.ether_type_payload(protocol, 20)
            } else {
                Ok(not_ip(protocol))
            }
        }
        LinkType::Loopback => {
            // The family is a small number in the byte order of the capturing host.
            let (first, second) = (frame.link_u16(0)?, frame.link_u16(2)?);
            let family = match (first, second) {
                (0, family) => u32::from(family),
                (family, 0) => u32::from(family.swap_bytes()),
                (first, second) => u32::from(first) << 16 | u32::from(second),
            };
            match family {
                2 => frame.ipv4(4),
                // AF_INET6 of Linux, NetBSD and OpenBSD, FreeBSD, macOS.
                10 | 24 | 28 | 30 => frame.ipv6(4),
                other => Ok(Parsed::NotIp {
                    link_protocol: other,
                }),
            }
        }
        LinkType::RawIp => match frame.ip_version(0)? {
            4 => frame.ipv4(0),
            6 => frame.ipv6(0),
            _ => Err(malformed(0, MalformedReason::IpVersion)),
        },
        LinkType::RawIpv4 => frame.ipv4(0),
        LinkType::RawIpv6 => frame.ipv6(0),
    }
}

/// Whether the protocol field of a Linux cooked header holds an EtherType, by its ARPHRD type:
/// Frame Relay, 802.11 with radiotap, and netlink use it otherwise.
fn sll_protocol_is_ether_type(arp_hardware_type: u16) -> bool {
    !matches!(arp_hardware_type, 770 | 803 | 824)
}

fn not_ip(ether_type: u16) -> Parsed {
    Parsed::NotIp {
        link_protocol: u32::from(ether_type),
    }
}

fn malformed(offset: usize, reason: MalformedReason) -> ParsePacketError {
    ParsePacketError { offset, reason }
}

/// A captured frame. Offsets count from its first byte and are small: no sum can overflow.
struct Frame<'a> {
    captured: &'a [u8],
    wire_bytes: usize,
}

impl Frame<'_> {
    /// What an EtherType announces at `offset`, behind any VLAN tags.
    #[inline]
    fn ether_type_payload(
        &self,
        mut ether_type: u16,
        mut offset: usize,
    ) -> Result<Parsed, ParsePacketError> {
        for _ in 0..=MAX_VLAN_TAGS {
            match EtherType(ether_type) {
                EtherType::IPV4 => return self.ipv4(offset),
                EtherType::IPV6 => return self.ipv6(offset),
                EtherType::VLAN_TAGGED_FRAME
                | EtherType::PROVIDER_BRIDGING
                | EtherType::VLAN_DOUBLE_TAGGED_FRAME => {
                    ether_type = self.link_u16(offset + 2)?;
                    offset += 4;
                }
                _ => return Ok(not_ip(ether_type)),
            }
        }
        Err(malformed(offset - 4, MalformedReason::TooManyVlanTags))
    }

    #[inline]
    fn ipv4(&self, start: usize) -> Result<Parsed, ParsePacketError> {
        if self.ip_version(start)? != 4 {
            return Err(malformed(start, MalformedReason::IpVersion));
        }
        let header: &[u8; 20] = self.ip_header(start)?;
        let header_bytes = usize::from(header[0] & 0x0f) * 4;
        if header_bytes < header.len() {
            return Err(malformed(start, MalformedReason::Ipv4HeaderLength));
        }
        let ip_bytes = match usize::from(be_u16(header[2], header[3])) {
            0 => self.wire_bytes - start,
            total if total < header_bytes => {
                return Err(malformed(start + 2, MalformedReason::Ipv4TotalLength));
            }
            total => total,
        };
        let fragment_offset = be_u16(header[6], header[7]) & 0x1fff;
        let protocol = IpNumber(header[9]);
        let (src_port, dst_port, ports) = if fragment_offset == 0 {
            self.ports(
                protocol,
                IpNumber::ICMP,
                start + header_bytes,
                start + ip_bytes,
            )
        } else {
            (0, 0, Ports::NotCarried)
        };
        let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *header;
        Ok(Parsed::V4(IpPacket {
            key: FlowKeyV4::new(
                Ipv4Addr::new(s0, s1, s2, s3),
                Ipv4Addr::new(d0, d1, d2, d3),
                src_port,
                dst_port,
                protocol.0,
            ),
            ip_bytes: ip_bytes as u32,
            ports,
        }))
    }

    #[inline]
    fn ipv6(&self, start: usize) -> Result<Parsed, ParsePacketError> {
        if self.ip_version(start)? != 6 {
            return Err(malformed(start, MalformedReason::IpVersion));
        }
        let header: &[u8; 40] = self.ip_header(start)?;
        let next_header = IpNumber(header[6]);
        let ip_bytes = match usize::from(be_u16(header[4], header[5])) {
            0 if next_header != IpNumber::IPV6_NO_NEXT_HEADER => self.wire_bytes - start,
            payload => header.len() + payload,
        };
        let (protocol, src_port, dst_port, ports) =
            self.ipv6_upper_layer(next_header, start + header.len(), start + ip_bytes)?;
        let (addresses, _) = header[8..].as_chunks::<16>();
        Ok(Parsed::V6(IpPacket {
            key: FlowKeyV6::new(
                Ipv6Addr::from(addresses[0]),
                Ipv6Addr::from(addresses[1]),
                src_port,
                dst_port,
                protocol.0,
            ),
            ip_bytes: ip_bytes as u32,
            ports,
        }))
    }

    /// Protocol and ports behind the extension headers from `offset` on.
    #[inline]
    fn ipv6_upper_layer(
        &self,
        mut next_header: IpNumber,
        mut offset: usize,
        datagram_end: usize,
    ) -> Result<(IpNumber, u16, u16, Ports), ParsePacketError> {
        for _ in 0..=MAX_IPV6_EXTENSION_HEADERS {
            let field = |index| self.extension_header_byte(offset, index, datagram_end);
            let header_bytes = match next_header {
                IpNumber::IPV6_HEADER_HOP_BY_HOP
                | IpNumber::IPV6_ROUTE_HEADER
                | IpNumber::IPV6_DESTINATION_OPTIONS
                | IpNumber::MOBILITY_HEADER
                | IpNumber::HIP
                | IpNumber::SHIM6 => (usize::from(field(1)?) + 1) * 8,
                // RFC 4302 §2.2: in words of four bytes, less two.
                IpNumber::AUTHENTICATION_HEADER => (usize::from(field(1)?) + 2) * 4,
                IpNumber::IPV6_FRAGMENTATION_HEADER => {
                    let fragment_offset = be_u16(field(2)?, field(3)?) >> 3;
                    if fragment_offset != 0 {
                        return Ok((IpNumber(field(0)?), 0, 0, Ports::NotCarried));
                    }
                    8
                }
                protocol => {
                    let (src_port, dst_port, ports) =
                        self.ports(protocol, IpNumber::IPV6_ICMP, offset, datagram_end);
                    return Ok((protocol, src_port, dst_port, ports));
                }
            };
            next_header = IpNumber(field(0)?);
            offset += header_bytes;
        }
        Err(malformed(offset, MalformedReason::TooManyExtensionHeaders))
    }

    /// One byte of the extension header at `header_start`.
    #[inline]
    fn extension_header_byte(
        &self,
        header_start: usize,
        index: usize,
        datagram_end: usize,
    ) -> Result<u8, ParsePacketError> {
        // Every extension header is at least eight bytes long.
        if header_start + 8 > datagram_end {
            return Err(malformed(
                header_start,
                MalformedReason::ExtensionHeaderBeyondDatagram,
            ));
        }
        self.captured
            .get(header_start + index)
            .copied()
            .ok_or_else(|| self.cut_off(MalformedReason::ExtensionHeaderCutOff))
    }

    /// The port fields of the key from the upper-layer header at `offset`.
    #[inline]
    fn ports(
        &self,
        protocol: IpNumber,
        icmp: IpNumber,
        offset: usize,
        datagram_end: usize,
    ) -> (u16, u16, Ports) {
        let is_icmp = protocol == icmp;
        let has_ports = matches!(
            protocol,
            IpNumber::TCP | IpNumber::UDP | IpNumber::UDP_LITE | IpNumber::SCTP | IpNumber::DCCP
        );
        if !is_icmp && !has_ports {
            return (0, 0, Ports::NotCarried);
        }
        let field_bytes = if is_icmp { 2 } else { 4 };
        if offset + field_bytes > datagram_end {
            return (0, 0, Ports::BeyondDatagram);
        }
        match self.captured.get(offset..offset + field_bytes) {
            Some(&[icmp_type, icmp_code]) => (0, be_u16(icmp_type, icmp_code), Ports::Read),
            Some(&[s0, s1, d0, d1]) => (be_u16(s0, s1), be_u16(d0, d1), Ports::Read),
            _ => (0, 0, Ports::CutOff),
        }
    }

    #[inline]
    fn ip_version(&self, start: usize) -> Result<u8, ParsePacketError> {
        match self.captured.get(start) {
            Some(byte) => Ok(byte >> 4),
            None => Err(self.cut_off(MalformedReason::IpHeaderCutOff)),
        }
    }

    #[inline]
    fn ip_header<const N: usize>(&self, start: usize) -> Result<&[u8; N], ParsePacketError> {
        self.captured
            .get(start..)
            .and_then(<[u8]>::first_chunk)
            .ok_or_else(|| self.cut_off(MalformedReason::IpHeaderCutOff))
    }

    #[inline]
    fn link_u16(&self, offset: usize) -> Result<u16, ParsePacketError> {
        match self.captured.get(offset..offset + 2) {
            Some(&[high, low]) => Ok(be_u16(high, low)),
            _ => Err(self.cut_off(MalformedReason::LinkHeaderCutOff)),
        }
    }

    fn cut_off(&self, reason: MalformedReason) -> ParsePacketError {
        malformed(self.captured.len(), reason)
    }
}

#[inline]
fn be_u16(high: u8, low: u8) -> u16 {
    u16::from_be_bytes([high, low])
}

#[cfg(test)]
mod tests;
