//! Values of any width, as the control plane writes and reads them.

use std::fmt;

/// An unsigned number of any width, big-endian, without leading zero bytes (zero is one zero byte):
/// the canonical form of P4Runtime's bytestrings (specification, section 8.4).
///
/// Two values are equal if the numbers are, whatever the length of what they were made from.
///
/// ```
/// use flowradar_switch::Value;
///
/// assert_eq!(Value::from_be_bytes(&[0, 0, 1, 2]), Value::from(0x0102_u64));
/// assert_eq!(Value::from(0x1ff_u64).bit_length(), 9);
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Value {
    bytes: Box<[u8]>,
}

impl Value {
    /// The number with these big-endian bytes; empty is zero.
    pub fn from_be_bytes(bytes: &[u8]) -> Self {
        let leading_zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let significant = bytes.get(leading_zeros..).unwrap_or_default();
        Self {
            bytes: if significant.is_empty() {
                Box::from([0])
            } else {
                Box::from(significant)
            },
        }
    }

    /// All ones.
    pub fn ones(bits: u32) -> Self {
        let mut bytes = vec![0xff; bits.div_ceil(8) as usize];
        if let (Some(first), 1..) = (bytes.first_mut(), bits % 8) {
            *first = (1 << (bits % 8)) - 1;
        }
        Self::from_be_bytes(&bytes)
    }

    /// The canonical bytes: big-endian, at least one, no leading zero byte otherwise.
    pub fn as_be_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes with leading zeros up to `length`; longer values stay as they are.
    pub fn to_be_bytes_padded(&self, length: usize) -> Vec<u8> {
        let mut padded = vec![0; length.saturating_sub(self.bytes.len())];
        padded.extend_from_slice(&self.bytes);
        padded
    }

    /// How many bits the number needs; 0 for zero.
    pub fn bit_length(&self) -> u32 {
        let first = self.bytes.first().copied().unwrap_or_default();
        let following_bytes = u32::try_from(self.bytes.len() - 1).unwrap_or(u32::MAX / 8);
        following_bytes * 8 + (8 - first.leading_zeros())
    }

    /// Whether this is zero.
    pub fn is_zero(&self) -> bool {
        self.bit_length() == 0
    }

    /// The number, if it fits in 64 bits.
    pub fn to_u64(&self) -> Option<u64> {
        self.to_u128().and_then(|number| u64::try_from(number).ok())
    }

    /// The number, if it fits in 128 bits.
    pub fn to_u128(&self) -> Option<u128> {
        (self.bytes.len() <= 16).then(|| {
            self.bytes
                .iter()
                .fold(0, |number, byte| number << 8 | u128::from(*byte))
        })
    }

    /// Little-endian 64-bit limbs, exactly `count`; `None` if the number needs more.
    pub(crate) fn to_limbs(&self, count: usize) -> Option<Vec<u64>> {
        let mut limbs = vec![0; count];
        for (position, byte) in self.bytes.iter().rev().enumerate() {
            match limbs.get_mut(position / 8) {
                Some(limb) => *limb |= u64::from(*byte) << (position % 8 * 8),
                None if *byte == 0 => {}
                None => return None,
            }
        }
        Some(limbs)
    }

    /// The number in these little-endian 64-bit limbs.
    pub(crate) fn from_limbs(limbs: &[u64]) -> Self {
        let bytes: Vec<u8> = limbs
            .iter()
            .rev()
            .flat_map(|limb| limb.to_be_bytes())
            .collect();
        Self::from_be_bytes(&bytes)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::from_be_bytes(&number.to_be_bytes())
    }
}

impl From<u128> for Value {
    fn from(number: u128) -> Self {
        Self::from_be_bytes(&number.to_be_bytes())
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("0x")?;
        for (position, byte) in self.bytes.iter().enumerate() {
            if position == 0 {
                write!(formatter, "{byte:x}")?;
            } else {
                write!(formatter, "{byte:02x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn zero_is_one_byte() {
        assert_eq!(Value::from_be_bytes(&[]).as_be_bytes(), [0]);
        assert_eq!(Value::from(0_u64).bit_length(), 0);
        assert!(Value::from_be_bytes(&[0, 0]).is_zero());
    }

    #[test]
    fn ones_have_their_width() {
        for bits in 1..=200 {
            assert_eq!(Value::ones(bits).bit_length(), bits);
        }
        assert_eq!(Value::ones(9), Value::from(0x1ff_u64));
    }

    proptest! {
        #[test]
        fn limbs_and_bytes_agree(number: u128) {
            let value = Value::from(number);
            prop_assert_eq!(value.to_u128(), Some(number));
            prop_assert_eq!(value.bit_length(), 128 - number.leading_zeros());
            let limbs = value.to_limbs(2).expect("128 bits fit two limbs");
            prop_assert_eq!(limbs[0], number as u64);
            prop_assert_eq!(&Value::from_limbs(&limbs), &value);
            prop_assert_eq!(value.to_limbs(1).is_some(), u64::try_from(number).is_ok());
        }
    }
}
