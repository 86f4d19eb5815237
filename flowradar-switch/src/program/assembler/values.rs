//! Numbers while they are computed: where they are, and what they can be.

use super::super::op::Slot;

/// A number in slots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number {
    pub(crate) slot: Slot,
    pub(crate) limbs: u8,
    /// What the value can be; meaningless if only low bits are right.
    pub(crate) range: Range,
    /// Whether the slots hold the value, rather than only its low bits.
    pub(in crate::program) is_exact: bool,
}

/// The values a number can have: `0..2^bits`, or `-2^bits..2^bits` if it may be negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) may_be_negative: bool,
    pub(in crate::program) bits: u32,
}

/// How much of a number matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::program) enum Need {
    /// Its value.
    Exact,
    /// Its lowest bits.
    Low(u32),
}

impl Number {
    pub(in crate::program) fn exact(slot: Slot, limbs: u8, range: Range) -> Self {
        Self {
            slot,
            limbs,
            range,
            is_exact: true,
        }
    }

    /// Forgets slots that the value does not need.
    pub(super) fn shrink(self) -> Self {
        Self {
            limbs: self.limbs.min(self.range.limbs()),
            ..self
        }
    }
}

impl Range {
    pub(in crate::program) fn unsigned(bits: u32) -> Self {
        Self {
            may_be_negative: false,
            bits,
        }
    }

    /// Whether all values are unsigned numbers of this width.
    pub(in crate::program) fn fits(self, bits: u32) -> bool {
        !self.may_be_negative && self.bits <= bits
    }

    /// How many slots the values need, with a bit for the sign if there is one.
    pub(super) fn limbs(self) -> u8 {
        let bits = self.bits + u32::from(self.may_be_negative);
        bits.div_ceil(64).clamp(1, u32::from(u8::MAX)) as u8
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self {
            may_be_negative: self.may_be_negative || other.may_be_negative,
            bits: self.bits.max(other.bits),
        }
    }

    pub(super) fn sum(self, other: Self) -> Self {
        let union = self.union(other);
        Self {
            bits: union.bits + 1,
            ..union
        }
    }

    pub(super) fn difference(self, other: Self) -> Self {
        Self {
            may_be_negative: true,
            bits: self.sum(other).bits,
        }
    }

    pub(super) fn product(self, other: Self) -> Self {
        let union = self.union(other);
        Self {
            bits: self.bits + other.bits + u32::from(union.may_be_negative),
            ..union
        }
    }
}

impl Need {
    /// How many slots are needed; one if the value is.
    pub(super) fn limbs(self) -> u8 {
        self.limbs_or(1)
    }

    pub(super) fn limbs_or(self, otherwise: u8) -> u8 {
        match self {
            Self::Exact => otherwise,
            Self::Low(bits) => bits.div_ceil(64).clamp(1, u32::from(u8::MAX)) as u8,
        }
    }
}
