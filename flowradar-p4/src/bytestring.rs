//! Numbers of any width, as P4Runtime carries them.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

/// An unsigned number of any width in P4Runtime's canonical form: big-endian, without leading zero
/// bytes, zero as one zero byte (P4Runtime specification, section on bytestrings).
///
/// ```
/// use std::net::Ipv4Addr;
///
/// use flowradar_p4::Bytestring;
///
/// let address = Bytestring::from(Ipv4Addr::new(10, 0, 0, 1));
/// assert_eq!("10.0.0.1".parse(), Ok(address.clone()));
/// assert_eq!("0x0a000001".parse(), Ok(address.clone()));
/// assert_eq!("167772161".parse(), Ok(address));
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytestring(Vec<u8>);

/// Why bytes or text are not a number of the width that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BytestringError {
    /// A number has at least one byte.
    #[error("an empty bytestring is no number; zero is one zero byte")]
    Empty,
    /// Neither a number, an address nor a MAC address.
    #[error(
        "`{text}` is no number (decimal or 0x…), IP address or MAC address (aa:bb:cc:dd:ee:ff)"
    )]
    Text {
        /// What was given.
        text: String,
    },
    /// The number needs more bits than there are.
    #[error("{value} does not fit in {width_bits} bits")]
    TooWide {
        /// The number.
        value: Bytestring,
        /// How many bits there are.
        width_bits: u32,
    },
}

impl Bytestring {
    /// Zero.
    pub fn zero() -> Self {
        Self(vec![0])
    }

    /// The number with these big-endian bytes; none at all are zero.
    pub fn from_be_bytes(bytes: &[u8]) -> Self {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        match bytes.get(zeros..) {
            Some(significant) if !significant.is_empty() => Self(significant.to_vec()),
            _ => Self::zero(),
        }
    }

    /// The number that a peer sent for a value of this width.
    ///
    /// # Errors
    ///
    /// If there are no bytes, or the number needs more bits. Leading zero bytes are allowed, as the
    /// specification demands.
    pub fn from_wire(bytes: &[u8], width_bits: u32) -> Result<Self, BytestringError> {
        if bytes.is_empty() {
            return Err(BytestringError::Empty);
        }
        Self::from_be_bytes(bytes).fitting(width_bits)
    }

    /// All ones.
    pub fn ones(width_bits: u32) -> Self {
        Self::prefix_mask(width_bits, width_bits)
    }

    /// A mask of the first `prefix_bits` of `width_bits`.
    pub fn prefix_mask(width_bits: u32, prefix_bits: u32) -> Self {
        let mut bytes = vec![0; width_bits.div_ceil(8) as usize];
        let zeros = width_bits.saturating_sub(prefix_bits);
        for bit in zeros..width_bits {
            if let Some(byte) = bytes.iter_mut().rev().nth((bit / 8) as usize) {
                *byte |= 1 << (bit % 8);
            }
        }
        Self::from_be_bytes(&bytes)
    }

    /// The number itself if it needs at most `width_bits`.
    ///
    /// # Errors
    ///
    /// If it needs more.
    pub fn fitting(self, width_bits: u32) -> Result<Self, BytestringError> {
        if self.bit_length() > width_bits {
            return Err(BytestringError::TooWide {
                value: self,
                width_bits,
            });
        }
        Ok(self)
    }

    /// The canonical bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The canonical bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Big-endian with leading zeros up to `length` bytes; longer numbers stay as they are.
    pub fn to_padded_bytes(&self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length.saturating_sub(self.0.len())];
        bytes.extend_from_slice(&self.0);
        bytes
    }

    /// How many bits the number needs; none for zero.
    pub fn bit_length(&self) -> u32 {
        let first = self.0.first().copied().unwrap_or_default();
        let following = u32::try_from(self.0.len().saturating_sub(1)).unwrap_or(u32::MAX / 8);
        (following * 8).saturating_add(8 - first.leading_zeros())
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.bit_length() == 0
    }

    /// The number, if it fits in 64 bits.
    pub fn to_u64(&self) -> Option<u64> {
        (self.0.len() <= 8).then(|| {
            self.0
                .iter()
                .fold(0, |number, byte| (number << 8) | u64::from(*byte))
        })
    }

    /// The bits that are one in both.
    pub fn and(&self, mask: &Self) -> Self {
        let length = self.0.len().min(mask.0.len());
        let tail = |bytes: &[u8]| bytes.len() - length;
        let (own, other) = (self.0.get(tail(&self.0)..), mask.0.get(tail(&mask.0)..));
        let both = own.into_iter().flatten().zip(other.into_iter().flatten());
        Self::from_be_bytes(&both.map(|(a, b)| a & b).collect::<Vec<u8>>())
    }

    /// Compares as numbers.
    pub fn compare(&self, other: &Self) -> std::cmp::Ordering {
        self.0
            .len()
            .cmp(&other.0.len())
            .then_with(|| self.0.cmp(&other.0))
    }
}

impl fmt::Display for Bytestring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(number) = self.to_u64()
            && number < 0x1_0000
        {
            return write!(formatter, "{number}");
        }
        formatter.write_str("0x")?;
        for byte in &self.0 {
            write!(formatter, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Bytestring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl From<u64> for Bytestring {
    fn from(number: u64) -> Self {
        Self::from_be_bytes(&number.to_be_bytes())
    }
}

impl From<u32> for Bytestring {
    fn from(number: u32) -> Self {
        Self::from(u64::from(number))
    }
}

impl From<u16> for Bytestring {
    fn from(number: u16) -> Self {
        Self::from(u64::from(number))
    }
}

impl From<u8> for Bytestring {
    fn from(number: u8) -> Self {
        Self(vec![number])
    }
}

impl From<u128> for Bytestring {
    fn from(number: u128) -> Self {
        Self::from_be_bytes(&number.to_be_bytes())
    }
}

impl From<bool> for Bytestring {
    fn from(bit: bool) -> Self {
        Self::from(u8::from(bit))
    }
}

impl From<Ipv4Addr> for Bytestring {
    fn from(address: Ipv4Addr) -> Self {
        Self::from_be_bytes(&address.octets())
    }
}

impl From<Ipv6Addr> for Bytestring {
    fn from(address: Ipv6Addr) -> Self {
        Self::from_be_bytes(&address.octets())
    }
}

/// A MAC address.
impl From<[u8; 6]> for Bytestring {
    fn from(address: [u8; 6]) -> Self {
        Self::from_be_bytes(&address)
    }
}

/// Decimal, `0x…`, an IPv4 or IPv6 address, or a MAC address with colons.
impl FromStr for Bytestring {
    type Err = BytestringError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || BytestringError::Text { text: text.into() };
        if let Some(digits) = text.strip_prefix("0x") {
            return parse_hexadecimal(digits).ok_or_else(invalid);
        }
        if let Ok(number) = text.parse::<u128>() {
            return Ok(Self::from(number));
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Ok(Self::from(address));
        }
        if let Some(address) = parse_mac_address(text) {
            return Ok(Self::from(address));
        }
        text.parse::<Ipv6Addr>()
            .map(Self::from)
            .map_err(|_| invalid())
    }
}

fn parse_hexadecimal(digits: &str) -> Option<Bytestring> {
    if digits.is_empty() || !digits.is_ascii() {
        return None;
    }
    let padded = format!("{}{digits}", if digits.len() % 2 == 1 { "0" } else { "" });
    let bytes: Option<Vec<u8>> = padded
        .as_bytes()
        .chunks_exact(2)
        .map(|pair| {
            let high = char::from(*pair.first()?).to_digit(16)?;
            let low = char::from(*pair.get(1)?).to_digit(16)?;
            u8::try_from(high << 4 | low).ok()
        })
        .collect();
    bytes.map(|bytes| Bytestring::from_be_bytes(&bytes))
}

fn parse_mac_address(text: &str) -> Option<[u8; 6]> {
    let mut address = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut address {
        let part = parts.next()?;
        if part.len() != 2 || part.starts_with('+') {
            return None;
        }
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(address)
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use proptest::prelude::*;

    use super::*;

    /// The specification's tables of valid and invalid encodings of `bit<W>`.
    #[test]
    fn encodings_of_the_specification() {
        let valid: [(u32, u64, &[u8]); 6] = [
            (8, 99, &[0x63]),
            (16, 99, &[0x00, 0x63]),
            (16, 12388, &[0x30, 0x64]),
            (16, 12388, &[0x00, 0x30, 0x64]),
            (12, 99, &[0x00, 0x63]),
            (12, 99, &[0x00, 0x00, 0x63]),
        ];
        for (width, number, bytes) in valid {
            assert_eq!(
                Bytestring::from_wire(bytes, width),
                Ok(Bytestring::from(number))
            );
        }
        let invalid: [(u32, &[u8]); 6] = [
            (8, &[0x01, 0x63]),
            (8, &[]),
            (16, &[0x01, 0x00, 0x63]),
            (12, &[0x10, 0x63]),
            (12, &[0x01, 0x00, 0x63]),
            (12, &[0x00, 0x40, 0x63]),
        ];
        for (width, bytes) in invalid {
            assert!(
                Bytestring::from_wire(bytes, width).is_err(),
                "{bytes:?} in {width}"
            );
        }
    }

    #[test]
    fn text_is_a_number_an_address_or_nothing() {
        assert_eq!("7".parse(), Ok(Bytestring::from(7_u8)));
        assert_eq!("0x1ff".parse(), Ok(Bytestring::from(0x1ff_u16)));
        assert_eq!(
            "02:00:00:00:01:ff".parse(),
            Ok(Bytestring::from([2, 0, 0, 0, 1, 0xff]))
        );
        assert_eq!(
            "2001:db8::1".parse(),
            Ok(Bytestring::from(
                0x2001_0db8_0000_0000_0000_0000_0000_0001_u128
            ))
        );
        for text in [
            "",
            "0x",
            "-1",
            "0xg1",
            "10.0.0",
            "02:00:00:00:01",
            "+1:00:00:00:00:00",
            "é",
        ] {
            assert!(text.parse::<Bytestring>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn numbers_behave_as_numbers(a: u128, b: u128, prefix in 0_u32..=128) {
            let (left, right) = (Bytestring::from(a), Bytestring::from(b));
            prop_assert_eq!(left.bit_length(), 128 - a.leading_zeros());
            prop_assert_eq!(left.and(&right), Bytestring::from(a & b));
            prop_assert_eq!(left.compare(&right), a.cmp(&b));
            prop_assert_eq!(left.compare(&left), Ordering::Equal);
            prop_assert_eq!(left.to_u64(), u64::try_from(a).ok());
            let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
            prop_assert_eq!(Bytestring::prefix_mask(128, prefix), Bytestring::from(mask));
            prop_assert_eq!(left.to_padded_bytes(16), a.to_be_bytes());
            prop_assert_eq!(left.to_string().parse::<Bytestring>(), Ok(left));
        }
    }
}
