//! What makes packets belong together: the 5-tuple without a direction.

use std::fmt::{self, Debug, Display, Formatter};
use std::net::{IpAddr, Ipv6Addr};

use flowradar_core::FlowKey;
use xxhash_rust::xxh3::xxh3_64_with_seed;

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_ICMPV6: u8 = 58;

/// A flow in both of its directions: two endpoints, the smaller one first, and a protocol.
///
/// For protocols with ports an endpoint is an address and a port. ICMP has no ports, and its type
/// and code differ between a request and its answer, so all ICMP between two addresses is one flow,
/// as is all of any other protocol without ports.
///
/// ```
/// use flowradar_balancer::dispatch::{Direction, FlowId};
/// use flowradar_core::FlowKeyV4;
///
/// let there = FlowKeyV4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 49152, 443, 6);
/// let back = FlowKeyV4::new([10, 0, 0, 2].into(), [10, 0, 0, 1].into(), 443, 49152, 6);
/// assert_eq!(FlowId::of(&there), (FlowId::of(&back).0, Direction::Ascending));
/// assert_eq!(FlowId::of(&back).1, Direction::Descending);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId {
    /// Addresses of the first and the second endpoint as IPv6, then the ports, the protocol and
    /// the IP version. IPv4 addresses are mapped (RFC 4291 §2.5.5.2).
    words: [u64; 5],
}

/// Which way a packet goes between the endpoints of its [`FlowId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the first endpoint to the second.
    Ascending,
    /// From the second to the first.
    Descending,
}

impl FlowId {
    /// Not the id of any packet: it has no IP version.
    pub(super) const NONE: Self = Self { words: [0; 5] };

    /// The flow of a one-way key, and the direction of that key.
    #[inline]
    pub fn of<K: FlowKey>(key: &K) -> (Self, Direction) {
        let protocol = key.protocol();
        let (src_port, dst_port) = if matches!(protocol, PROTOCOL_ICMP | PROTOCOL_ICMPV6) {
            (0, 0)
        } else {
            (key.src_port(), key.dst_port())
        };
        Self::new((key.src(), src_port), (key.dst(), dst_port), protocol)
    }

    /// The flow of packets from one endpoint to another.
    #[inline]
    pub fn new(from: (IpAddr, u16), to: (IpAddr, u16), protocol: u8) -> (Self, Direction) {
        let version = if from.0.is_ipv4() { 4 } else { 6 };
        let from = (address_bits(from.0), from.1);
        let to = (address_bits(to.0), to.1);
        let (first, second, direction) = if from <= to {
            (from, to, Direction::Ascending)
        } else {
            (to, from, Direction::Descending)
        };
        let last = u64::from(first.1) << 32
            | u64::from(second.1) << 16
            | u64::from(protocol) << 8
            | version;
        let words = [
            (first.0 >> 64) as u64,
            first.0 as u64,
            (second.0 >> 64) as u64,
            second.0 as u64,
            last,
        ];
        (Self { words }, direction)
    }

    /// All packets of a protocol between the two addresses of this flow: what is left of it where
    /// ports are not to be seen.
    pub fn without_ports(&self) -> Self {
        let mut words = self.words;
        words[4] &= 0xffff;
        Self { words }
    }

    /// Address and port of the endpoint that a packet of this direction comes from.
    pub fn source(&self, direction: Direction) -> (IpAddr, u16) {
        let (address, port) = match direction {
            Direction::Ascending => (&self.words[..2], self.words[4] >> 32),
            Direction::Descending => (&self.words[2..4], self.words[4] >> 16),
        };
        let bits = u128::from(address[0]) << 64 | u128::from(address[1]);
        let address = Ipv6Addr::from_bits(bits);
        let address = match address.to_ipv4_mapped() {
            Some(address) if self.words[4] & 0xff == 4 => IpAddr::V4(address),
            _ => IpAddr::V6(address),
        };
        (address, port as u16)
    }

    /// Address and port of the endpoint that a packet of this direction goes to.
    pub fn destination(&self, direction: Direction) -> (IpAddr, u16) {
        self.source(direction.reversed())
    }

    /// IP protocol number.
    pub fn protocol(&self) -> u8 {
        (self.words[4] >> 8) as u8
    }

    /// 64 well-mixed bits.
    #[inline]
    pub fn hash(&self, seed: u64) -> u64 {
        let mut bytes = [0; 40];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(self.words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        xxh3_64_with_seed(&bytes, seed)
    }
}

impl Direction {
    /// The other one.
    pub fn reversed(self) -> Self {
        match self {
            Self::Ascending => Self::Descending,
            Self::Descending => Self::Ascending,
        }
    }
}

impl Display for FlowId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (first, first_port) = self.source(Direction::Ascending);
        let (second, second_port) = self.source(Direction::Descending);
        write!(
            f,
            "{} <> {} proto {}",
            std::net::SocketAddr::new(first, first_port),
            std::net::SocketAddr::new(second, second_port),
            self.protocol()
        )
    }
}

impl Debug for FlowId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "FlowId({self})")
    }
}

#[inline]
fn address_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => 0xffff_0000_0000 | u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endpoint() -> impl Strategy<Value = (u128, u16)> {
        (any::<u128>(), any::<u16>())
    }

    proptest! {
        /// Both directions are one flow, and nothing else is; the endpoints come out as they went in.
        #[test]
        fn direction_and_nothing_else_is_left_out(a in endpoint(), b in endpoint(), v4 in any::<bool>(), protocol in any::<u8>(), other in any::<u8>()) {
            let place = |(bits, port): (u128, u16)| {
                let address = if v4 { IpAddr::V4((bits as u32).into()) } else { IpAddr::V6(bits.into()) };
                (address, port)
            };
            let (a, b) = (place(a), place(b));
            let (there, direction) = FlowId::new(a, b, protocol);
            let (back, reversed) = FlowId::new(b, a, protocol);
            prop_assert_eq!(there, back);
            prop_assert_eq!(there.hash(7), back.hash(7));
            prop_assert!(a == b || direction == reversed.reversed());
            prop_assert_eq!(there.source(direction), a);
            prop_assert_eq!(there.destination(direction), b);
            prop_assert_eq!(there.protocol(), protocol);
            prop_assert_eq!(FlowId::new(a, b, other).0 == there, other == protocol);
            let (third, _) = FlowId::new(a, (b.0, b.1.wrapping_add(1)), protocol);
            prop_assert!(third != there || (a.0 == b.0 && b.1.wrapping_add(1) == b.1));
            prop_assert_eq!(third.without_ports(), there.without_ports());
        }
    }
}
