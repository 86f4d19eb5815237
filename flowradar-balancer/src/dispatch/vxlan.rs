//! VXLAN (RFC 7348): captured frames in UDP datagrams, as ordinary tools decode them.

use flowradar_core::packet::LinkType;

use super::packet::ip_offset;

/// The port that the IANA assigned to VXLAN.
pub const VXLAN_PORT: u16 = 4789;
/// Bytes of a VXLAN header.
pub const VXLAN_HEADER_BYTES: usize = 8;
/// The largest VXLAN network identifier: 24 bits.
pub const VNI_MAX: u32 = (1 << 24) - 1;

const ETHERNET_HEADER_BYTES: usize = 14;

/// The header of a VXLAN network; higher bits than the 24 that there are do not count.
pub fn vxlan_header(vni: u32) -> [u8; VXLAN_HEADER_BYTES] {
    const VNI_IS_VALID: u8 = 0x08;
    let [_, high, middle, low] = vni.to_be_bytes();
    [VNI_IS_VALID, 0, 0, 0, high, middle, low, 0]
}

/// A captured frame as an Ethernet frame: as it is, or its IP packet behind a made-up header, with
/// the locally administered addresses 02:00:00:00:00:01 and 02:00:00:00:00:02.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EthernetFrame<'a> {
    made_up: Option<[u8; ETHERNET_HEADER_BYTES]>,
    rest: &'a [u8],
}

impl<'a> EthernetFrame<'a> {
    /// `None` if the frame came over another link and holds no IP packet.
    pub fn of(link_type: LinkType, captured: &'a [u8]) -> Option<Self> {
        if link_type == LinkType::Ethernet {
            return Some(Self {
                made_up: None,
                rest: captured,
            });
        }
        let rest = captured.get(ip_offset(link_type, captured)..)?;
        let ether_type = match rest.first()? >> 4 {
            4 => [0x08, 0x00],
            6 => [0x86, 0xdd],
            _ => return None,
        };
        let mut header = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0, 0];
        header[12..].copy_from_slice(&ether_type);
        Some(Self {
            made_up: Some(header),
            rest,
        })
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.made_up.map_or(0, |header| header.len()) + self.rest.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds its bytes.
    pub fn append_to(&self, bytes: &mut Vec<u8>) {
        if let Some(header) = &self.made_up {
            bytes.extend_from_slice(header);
        }
        bytes.extend_from_slice(self.rest);
    }
}

#[cfg(test)]
mod tests {
    use flowradar_core::packet::{Parsed, parse};

    use super::*;

    #[test]
    fn header_as_in_the_rfc() {
        assert_eq!(vxlan_header(0x12_3456), [8, 0, 0, 0, 0x12, 0x34, 0x56, 0]);
        assert_eq!(vxlan_header(u32::MAX), vxlan_header(VNI_MAX));
    }

    #[test]
    fn frames_of_any_link_become_ethernet() {
        let packet = [
            0x45, 0, 0, 24, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0xc0, 0, 1, 0xbb,
        ];
        let mut cooked = vec![0; 14];
        cooked.extend([0x08, 0x00]);
        cooked.extend(packet);
        let loopback = [&[2, 0, 0, 0], &packet[..]].concat();
        for (link_type, frame) in [
            (LinkType::RawIp, packet.to_vec()),
            (LinkType::LinuxSll, cooked),
            (LinkType::Loopback, loopback),
        ] {
            let ethernet = EthernetFrame::of(link_type, &frame).expect("an IP packet");
            let mut bytes = vec![];
            ethernet.append_to(&mut bytes);
            assert_eq!(bytes.len(), ethernet.len());
            let length = bytes.len() as u32;
            let Ok(Parsed::V4(parsed)) = parse(LinkType::Ethernet, &bytes, length) else {
                panic!("{link_type:?}: {bytes:?}");
            };
            assert_eq!(
                parsed.key.to_string(),
                "10.0.0.1:49152 > 10.0.0.2:443 proto 6"
            );
        }
        let arp = [0; 60];
        let kept = EthernetFrame::of(LinkType::Ethernet, &arp).expect("Ethernet is Ethernet");
        assert_eq!((kept.len(), kept.made_up), (60, None));
        assert_eq!(EthernetFrame::of(LinkType::RawIp, &arp), None);
        assert_eq!(EthernetFrame::of(LinkType::LinuxSll, &[]), None);
    }
}
