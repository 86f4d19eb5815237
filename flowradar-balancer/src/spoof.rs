//! IP packets with the exporter's address as source, for receivers that must see it.
//!
//! A raw socket does not cut packets up, so that is done here: an export datagram may have 64 kB.

use std::net::{IpAddr, SocketAddr};

/// Bytes of a UDP header.
const UDP_HEADER_LEN: usize = 8;
const IPV4_HEADER_LEN: usize = 20;
const IPV6_HEADER_LEN: usize = 40;
const FRAGMENT_HEADER_LEN: usize = 8;
const UDP: u8 = 17;
const HOPS: u8 = 64;

/// Why a packet cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpoofError {
    /// An IPv4 exporter and an IPv6 collector, or the other way round.
    #[error("source and destination are of different address families")]
    FamilyMismatch,
    /// More than an IP packet carries.
    #[error("datagram too long")]
    TooLong,
}

/// Makes the packets of one datagram, each no longer than `mtu`, and calls with each.
///
/// `identification` must differ between datagrams that are under way at the same time.
///
/// # Errors
///
/// See [`SpoofError`].
pub fn packets(
    source: SocketAddr,
    destination: SocketAddr,
    payload: &[u8],
    mtu: usize,
    identification: u32,
    mut each: impl FnMut(&[u8]),
) -> Result<(), SpoofError> {
    let length = u16::try_from(UDP_HEADER_LEN + payload.len()).map_err(|_| SpoofError::TooLong)?;
    let mut udp = Vec::with_capacity(usize::from(length));
    udp.extend_from_slice(&source.port().to_be_bytes());
    udp.extend_from_slice(&destination.port().to_be_bytes());
    udp.extend_from_slice(&length.to_be_bytes());
    udp.extend_from_slice(&[0, 0]);
    udp.extend_from_slice(payload);
    let mut pseudo = Sum::default();
    match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            if udp.len() + IPV4_HEADER_LEN > usize::from(u16::MAX) {
                return Err(SpoofError::TooLong);
            }
            pseudo.add(&from.octets());
            pseudo.add(&to.octets());
            set_checksum(&mut udp, pseudo, length);
            let mut fragments = fragments(&udp, mtu.saturating_sub(IPV4_HEADER_LEN));
            let mut packet = Vec::with_capacity(mtu);
            fragments.try_for_each(|(offset, part, more)| {
                packet.clear();
                let total = (IPV4_HEADER_LEN + part.len()) as u16;
                let flags = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
                packet.extend_from_slice(&[0x45, 0]);
                packet.extend_from_slice(&total.to_be_bytes());
                packet.extend_from_slice(&(identification as u16).to_be_bytes());
                packet.extend_from_slice(&flags.to_be_bytes());
                packet.extend_from_slice(&[HOPS, UDP, 0, 0]);
                packet.extend_from_slice(&from.octets());
                packet.extend_from_slice(&to.octets());
                let mut sum = Sum::default();
                sum.add(&packet);
                packet[10..12].copy_from_slice(&sum.finish().to_be_bytes());
                packet.extend_from_slice(part);
                each(&packet);
                Ok(())
            })
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            pseudo.add(&from.octets());
            pseudo.add(&to.octets());
            set_checksum(&mut udp, pseudo, length);
            let is_whole = udp.len() + IPV6_HEADER_LEN <= mtu;
            let room = mtu.saturating_sub(IPV6_HEADER_LEN + FRAGMENT_HEADER_LEN);
            let mut packet = Vec::with_capacity(mtu);
            let mut emit = |offset: usize, part: &[u8], more: bool| {
                packet.clear();
                let header = if is_whole { 0 } else { FRAGMENT_HEADER_LEN };
                packet.extend_from_slice(&[0x60, 0, 0, 0]);
                packet.extend_from_slice(&((header + part.len()) as u16).to_be_bytes());
                packet.extend_from_slice(&[if is_whole { UDP } else { 44 }, HOPS]);
                packet.extend_from_slice(&from.octets());
                packet.extend_from_slice(&to.octets());
                if !is_whole {
                    packet.extend_from_slice(&[UDP, 0]);
                    packet.extend_from_slice(&(offset as u16 | u16::from(more)).to_be_bytes());
                    packet.extend_from_slice(&identification.to_be_bytes());
                }
                packet.extend_from_slice(part);
                each(&packet);
            };
            if is_whole {
                emit(0, &udp, false);
            } else {
                fragments(&udp, room).for_each(|(offset, part, more)| emit(offset, part, more));
            }
            Ok(())
        }
        _ => Err(SpoofError::FamilyMismatch),
    }
}

/// Offsets, parts and whether more follow. Offsets are multiples of eight.
fn fragments(bytes: &[u8], room: usize) -> impl Iterator<Item = (usize, &[u8], bool)> {
    let step = if bytes.len() <= room {
        bytes.len()
    } else {
        (room / 8 * 8).max(8)
    };
    let parts = bytes.chunks(step.max(1)).enumerate();
    parts.map(move |(index, part)| (index * step, part, index * step + part.len() < bytes.len()))
}

fn set_checksum(udp: &mut [u8], mut sum: Sum, length: u16) {
    sum.add(&[0, UDP]);
    sum.add(&length.to_be_bytes());
    sum.add(udp);
    // 0 would mean that there is none.
    let checksum = match sum.finish() {
        0 => 0xffff,
        checksum => checksum,
    };
    udp[6..8].copy_from_slice(&checksum.to_be_bytes());
}

/// The internet checksum (RFC 1071).
#[derive(Clone, Copy, Default)]
struct Sum(u64);

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        for pair in bytes.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            self.0 += u64::from(u16::from_be_bytes([pair[0], low]));
        }
    }

    fn finish(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{IpSlice, Ipv4Header, SlicedPacket, UdpHeader};

    use super::*;

    fn made(source: &str, destination: &str, length: usize, mtu: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
        let payload: Vec<u8> = (0..length).map(|index| (index * 7) as u8).collect();
        let mut made = Vec::new();
        let (source, destination) = (
            source.parse().expect("a socket"),
            destination.parse().expect("a socket"),
        );
        packets(source, destination, &payload, mtu, 0x1234_5678, |packet| {
            made.push(packet.to_vec())
        })
        .expect("same family");
        (payload, made)
    }

    /// Puts fragments together, with etherparse as the judge of each header.
    fn reassemble(packets: &[Vec<u8>], mtu: usize) -> Vec<u8> {
        let mut udp = Vec::new();
        for (index, packet) in packets.iter().enumerate() {
            assert!(packet.len() <= mtu);
            let (offset, more, part): (usize, bool, &[u8]) =
                match IpSlice::from_slice(packet).expect("IP") {
                    IpSlice::Ipv4(ip) => {
                        let header: Ipv4Header = ip.header().to_header();
                        assert_eq!(header.header_checksum, header.calc_header_checksum());
                        assert_eq!(header.identification, 0x5678);
                        (
                            usize::from(header.fragment_offset.value()) * 8,
                            header.more_fragments,
                            ip.payload().payload,
                        )
                    }
                    IpSlice::Ipv6(ip) => {
                        let more = index + 1 < packets.len();
                        let part = ip.payload().payload;
                        (udp.len(), more, part)
                    }
                };
            assert_eq!(offset, udp.len());
            assert_eq!(more, index + 1 < packets.len());
            udp.extend_from_slice(part);
        }
        udp
    }

    #[test]
    fn packets_are_whole_and_their_checksums_right() {
        for (source, destination) in [
            ("192.0.2.1:4242", "198.51.100.7:2055"),
            ("[2001:db8::1]:4242", "[2001:db8::7]:2055"),
        ] {
            for length in [0, 1, 33, 1400, 1472, 1473, 9000, 65_000] {
                let (payload, packets) = made(source, destination, length, 1500);
                if length > 1472 {
                    assert!(packets.len() > 1);
                } else if length <= 1400 {
                    assert_eq!(packets.len(), 1);
                }
                let udp = reassemble(&packets, 1500);
                let (header, rest) = UdpHeader::from_slice(&udp).expect("UDP");
                assert!(rest == payload);
                assert_eq!((header.source_port, header.destination_port), (4242, 2055));
                let expected =
                    match (
                        source.parse().expect("a socket"),
                        destination.parse().expect("a socket"),
                    ) {
                        (SocketAddr::V4(from), SocketAddr::V4(to)) => header
                            .calc_checksum_ipv4_raw(from.ip().octets(), to.ip().octets(), rest),
                        (SocketAddr::V6(from), SocketAddr::V6(to)) => header
                            .calc_checksum_ipv6_raw(from.ip().octets(), to.ip().octets(), rest),
                        _ => unreachable!("the same family"),
                    };
                assert_eq!(header.checksum, expected.expect("short enough"));
            }
        }
    }

    #[test]
    fn a_whole_packet_parses_as_one() {
        let (payload, packets) = made("192.0.2.1:4242", "198.51.100.7:2055", 100, 1500);
        let sliced = SlicedPacket::from_ip(&packets[0]).expect("a packet");
        let udp = match sliced.transport {
            Some(etherparse::TransportSlice::Udp(udp)) => udp,
            other => panic!("{other:?}"),
        };
        assert!(udp.payload() == payload);
    }

    #[test]
    fn families_do_not_mix() {
        let result = packets(
            "192.0.2.1:1".parse().expect("a socket"),
            "[::1]:2".parse().expect("a socket"),
            &[],
            1500,
            0,
            |_| {},
        );
        assert_eq!(result, Err(SpoofError::FamilyMismatch));
    }
}
