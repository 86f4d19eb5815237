//! Flow keys: what makes two packets belong to the same flow.
//!
//! A flow is a one-way 5-tuple. IPv4 and IPv6 flows have key types, and so tables, of their own:
//! 104 bits and 296 bits on the switch (NSDI 2016 §3.1 uses the 104-bit key). What the port fields
//! hold for protocols without ports is defined by [`crate::packet`].

use core::fmt::{self, Debug, Display, Formatter};
use core::hash::Hash;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The two kinds of flow key, as named in a flowset's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum KeyKind {
    /// IPv4 5-tuple, 104 bits.
    V4 = 4,
    /// IPv6 5-tuple, 296 bits.
    V6 = 6,
}

impl KeyKind {
    /// Size of the key on the switch and on the wire, in bits.
    pub const fn bits(self) -> u32 {
        match self {
            Self::V4 => 104,
            Self::V6 => 296,
        }
    }

    /// Size of the key on the wire, in bytes.
    pub const fn bytes(self) -> usize {
        self.bits() as usize / 8
    }
}

impl Display for KeyKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Words of a flow key: an array of `u64`, XORed and hashed word by word.
pub trait KeyWords:
    Copy + Default + Eq + Debug + Hash + AsRef<[u64]> + AsMut<[u64]> + Send + Sync + 'static
{
}

impl<const N: usize> KeyWords for [u64; N] where [u64; N]: Default {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::FlowKeyV4 {}
    impl Sealed for super::FlowKeyV6 {}
}

/// A flow key that the encoder and decoder can work on.
///
/// Sealed: the wire format knows [`FlowKeyV4`] and [`FlowKeyV6`].
pub trait FlowKey:
    sealed::Sealed + Copy + Eq + Ord + Hash + Debug + Display + Send + Sync + 'static
{
    /// The key as words. Bits beyond [`KeyKind::bits`] are zero.
    type Words: KeyWords;

    /// Which kind of key this is.
    const KIND: KeyKind;

    /// The key's words.
    fn words(&self) -> &Self::Words;

    /// A key from its words. Bits beyond [`KeyKind::bits`] must be zero; they are masked away.
    fn from_words(words: Self::Words) -> Self;

    /// Writes the key in network byte order: source, destination, source port, destination port,
    /// protocol. `out` must hold exactly [`KeyKind::bytes`] bytes.
    ///
    /// # Panics
    /// If `out` has another length.
    fn write_bytes(&self, out: &mut [u8]);

    /// Reads what [`FlowKey::write_bytes`] wrote.
    ///
    /// # Panics
    /// If `bytes` is not exactly [`KeyKind::bytes`] long.
    fn from_bytes(bytes: &[u8]) -> Self;

    /// Source address.
    fn src(&self) -> IpAddr;
    /// Destination address.
    fn dst(&self) -> IpAddr;
    /// Source port, 0 where the protocol has none.
    fn src_port(&self) -> u16;
    /// Destination port; for ICMP `type << 8 | code`; 0 where the protocol has none.
    fn dst_port(&self) -> u16;
    /// IP protocol number of the upper layer.
    fn protocol(&self) -> u8;
}

/// The IPv4 5-tuple: 104 bits.
///
/// ```
/// use flowradar_core::{FlowKey, FlowKeyV4};
/// let key = FlowKeyV4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 49152, 443, 6);
/// assert_eq!(key.to_string(), "10.0.0.1:49152 > 10.0.0.2:443 proto 6");
/// let mut bytes = [0; 13];
/// key.write_bytes(&mut bytes);
/// assert_eq!(bytes, [10, 0, 0, 1, 10, 0, 0, 2, 0xc0, 0x00, 0x01, 0xbb, 6]);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKeyV4 {
    /// `[src << 32 | dst, src_port << 24 | dst_port << 8 | protocol]`: sorting by words sorts by
    /// source, destination, ports, protocol.
    words: [u64; 2],
}

impl FlowKeyV4 {
    /// A key from its five fields.
    pub const fn new(
        src: Ipv4Addr,
        dst: Ipv4Addr,
        src_port: u16,
        dst_port: u16,
        protocol: u8,
    ) -> Self {
        Self {
            words: [
                (src.to_bits() as u64) << 32 | dst.to_bits() as u64,
                ports_and_protocol(src_port, dst_port, protocol),
            ],
        }
    }

    /// Source address.
    pub const fn src_v4(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits((self.words[0] >> 32) as u32)
    }

    /// Destination address.
    pub const fn dst_v4(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.words[0] as u32)
    }
}

impl FlowKey for FlowKeyV4 {
    type Words = [u64; 2];
    const KIND: KeyKind = KeyKind::V4;

    #[inline]
    fn words(&self) -> &[u64; 2] {
        &self.words
    }

    #[inline]
    fn from_words(words: [u64; 2]) -> Self {
        Self {
            words: [words[0], words[1] & PORTS_AND_PROTOCOL_MASK],
        }
    }

    #[inline]
    fn write_bytes(&self, out: &mut [u8]) {
        assert_eq!(out.len(), Self::KIND.bytes());
        out[..8].copy_from_slice(&self.words[0].to_be_bytes());
        out[8..].copy_from_slice(&self.words[1].to_be_bytes()[3..]);
    }

    #[inline]
    fn from_bytes(bytes: &[u8]) -> Self {
        assert_eq!(bytes.len(), Self::KIND.bytes());
        Self {
            words: [
                be_word(bytes, 0),
                be_word(bytes, 5) & PORTS_AND_PROTOCOL_MASK,
            ],
        }
    }

    fn src(&self) -> IpAddr {
        self.src_v4().into()
    }

    fn dst(&self) -> IpAddr {
        self.dst_v4().into()
    }

    fn src_port(&self) -> u16 {
        (self.words[1] >> 24) as u16
    }

    fn dst_port(&self) -> u16 {
        (self.words[1] >> 8) as u16
    }

    fn protocol(&self) -> u8 {
        self.words[1] as u8
    }
}

/// The IPv6 5-tuple: 296 bits. The flow label is not part of it.
///
/// ```
/// use flowradar_core::{FlowKey, FlowKeyV6};
/// let key = FlowKeyV6::new("2001:db8::1".parse()?, "2001:db8::2".parse()?, 5353, 5353, 17);
/// assert_eq!(key.to_string(), "[2001:db8::1]:5353 > [2001:db8::2]:5353 proto 17");
/// # Ok::<(), core::net::AddrParseError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKeyV6 {
    /// `[src high, src low, dst high, dst low, src_port << 24 | dst_port << 8 | protocol]`.
    words: [u64; 5],
}

impl FlowKeyV6 {
    /// A key from its five fields.
    pub const fn new(
        src: Ipv6Addr,
        dst: Ipv6Addr,
        src_port: u16,
        dst_port: u16,
        protocol: u8,
    ) -> Self {
        let (src, dst) = (src.to_bits(), dst.to_bits());
        Self {
            words: [
                (src >> 64) as u64,
                src as u64,
                (dst >> 64) as u64,
                dst as u64,
                ports_and_protocol(src_port, dst_port, protocol),
            ],
        }
    }

    /// Source address.
    pub const fn src_v6(&self) -> Ipv6Addr {
        Ipv6Addr::from_bits((self.words[0] as u128) << 64 | self.words[1] as u128)
    }

    /// Destination address.
    pub const fn dst_v6(&self) -> Ipv6Addr {
        Ipv6Addr::from_bits((self.words[2] as u128) << 64 | self.words[3] as u128)
    }
}

impl FlowKey for FlowKeyV6 {
    type Words = [u64; 5];
    const KIND: KeyKind = KeyKind::V6;

    #[inline]
    fn words(&self) -> &[u64; 5] {
        &self.words
    }

    #[inline]
    fn from_words(mut words: [u64; 5]) -> Self {
        words[4] &= PORTS_AND_PROTOCOL_MASK;
        Self { words }
    }

    #[inline]
    fn write_bytes(&self, out: &mut [u8]) {
        assert_eq!(out.len(), Self::KIND.bytes());
        for (chunk, word) in out[..32].chunks_exact_mut(8).zip(self.words) {
            chunk.copy_from_slice(&word.to_be_bytes());
        }
        out[32..].copy_from_slice(&self.words[4].to_be_bytes()[3..]);
    }

    #[inline]
    fn from_bytes(bytes: &[u8]) -> Self {
        assert_eq!(bytes.len(), Self::KIND.bytes());
        Self {
            words: [
                be_word(bytes, 0),
                be_word(bytes, 8),
                be_word(bytes, 16),
                be_word(bytes, 24),
                be_word(bytes, 29) & PORTS_AND_PROTOCOL_MASK,
            ],
        }
    }

    fn src(&self) -> IpAddr {
        self.src_v6().into()
    }

    fn dst(&self) -> IpAddr {
        self.dst_v6().into()
    }

    fn src_port(&self) -> u16 {
        (self.words[4] >> 24) as u16
    }

    fn dst_port(&self) -> u16 {
        (self.words[4] >> 8) as u16
    }

    fn protocol(&self) -> u8 {
        self.words[4] as u8
    }
}

impl Display for FlowKeyV4 {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{} > {}:{} proto {}",
            self.src_v4(),
            self.src_port(),
            self.dst_v4(),
            self.dst_port(),
            self.protocol()
        )
    }
}

impl Display for FlowKeyV6 {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "[{}]:{} > [{}]:{} proto {}",
            self.src_v6(),
            self.src_port(),
            self.dst_v6(),
            self.dst_port(),
            self.protocol()
        )
    }
}

impl Debug for FlowKeyV4 {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "FlowKeyV4({self})")
    }
}

impl Debug for FlowKeyV6 {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "FlowKeyV6({self})")
    }
}

/// Of the last word of a key, the 40 bits in use.
const PORTS_AND_PROTOCOL_MASK: u64 = (1 << 40) - 1;

const fn ports_and_protocol(src_port: u16, dst_port: u16, protocol: u8) -> u64 {
    (src_port as u64) << 24 | (dst_port as u64) << 8 | protocol as u64
}

/// The big-endian number in the eight bytes from `start`, which the caller knows to be there.
#[inline]
fn be_word(bytes: &[u8], start: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[start..start + 8]);
    u64::from_be_bytes(word)
}
