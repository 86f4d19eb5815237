//! Frames to send, built byte by byte.

use std::net::{Ipv4Addr, Ipv6Addr};

use flowradar_core::{FlowKey, FlowKeyV4};

/// The MAC address that all switches route for.
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The MAC address of all hosts.
pub const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// A UDP or TCP 5-tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple4 {
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
}

/// Ethernet, with VLAN tags (TPID, VLAN), the outermost first.
pub fn ethernet(tags: &[(u16, u16)], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [ROUTER_MAC, HOST_MAC].concat();
    for (protocol, vlan) in tags {
        frame.extend(protocol.to_be_bytes());
        frame.extend(vlan.to_be_bytes());
    }
    frame.extend(ether_type.to_be_bytes());
    frame.extend(payload);
    // What goes over a wire has 60 bytes at least.
    frame.resize(frame.len().max(60), 0);
    frame
}

/// An IPv4 packet with a right checksum. `fragment` has flags and offset, as in the header.
pub fn ipv4(
    (src, dst): (Ipv4Addr, Ipv4Addr),
    protocol: u8,
    fragment: u16,
    payload: &[u8],
) -> Vec<u8> {
    let total_bytes = 20 + payload.len() as u16;
    let mut packet = vec![0x45, 0];
    packet.extend(total_bytes.to_be_bytes());
    packet.extend([0x12, 0x34]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(src.octets());
    packet.extend(dst.octets());
    let sum: u32 = packet
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(payload);
    packet
}

/// An IPv6 packet.
pub fn ipv6((src, dst): (Ipv6Addr, Ipv6Addr), next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next_header, 64]);
    packet.extend(src.octets());
    packet.extend(dst.octets());
    packet.extend(payload);
    packet
}

/// A UDP datagram, without a checksum.
pub fn udp(src_port: u16, dst_port: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = vec![];
    datagram.extend(src_port.to_be_bytes());
    datagram.extend(dst_port.to_be_bytes());
    datagram.extend((8 + payload.len() as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    datagram
}

/// A whole frame with a UDP datagram over IPv4.
pub fn udp4(tuple: Tuple4, payload: &[u8]) -> Vec<u8> {
    let datagram = udp(tuple.src_port, tuple.dst_port, payload);
    ethernet(
        &[],
        0x0800,
        &ipv4((tuple.src, tuple.dst), 17, 0x4000, &datagram),
    )
}

/// A whole frame of a UDP or TCP flow, with an IPv4 packet of `ip_bytes` or as little as it may have.
pub fn of_flow(key: &FlowKeyV4, ip_bytes: u16) -> Vec<u8> {
    const UDP: u8 = 17;
    let (src_port, dst_port) = (key.src_port(), key.dst_port());
    let payload = if key.protocol() == UDP {
        udp(
            src_port,
            dst_port,
            &vec![0; usize::from(ip_bytes.saturating_sub(28))],
        )
    } else {
        let mut segment = vec![0; usize::from(ip_bytes.saturating_sub(20)).max(20)];
        segment[..2].copy_from_slice(&src_port.to_be_bytes());
        segment[2..4].copy_from_slice(&dst_port.to_be_bytes());
        // The header's length, in words of 32 bits: without options.
        segment[12] = 5 << 4;
        segment
    };
    let packet = ipv4(
        (key.src_v4(), key.dst_v4()),
        key.protocol(),
        0x4000,
        &payload,
    );
    ethernet(&[], 0x0800, &packet)
}
