//! Arithmetic on numbers of several 64-bit limbs, the least significant first, modulo their width.
//! Results may take the place of operands, except products and shifts.

use crate::pipeline::table::Slots;
use crate::program::op::ones;

pub(super) fn add(slots: &mut Slots, to: usize, a: usize, b: usize, limbs: usize) {
    let mut carry = false;
    for limb in 0..limbs {
        (slots[to + limb], carry) = slots[a + limb].carrying_add(slots[b + limb], carry);
    }
}

pub(super) fn subtract(slots: &mut Slots, to: usize, a: usize, b: usize, limbs: usize) {
    let mut borrow = false;
    for limb in 0..limbs {
        (slots[to + limb], borrow) = slots[a + limb].borrowing_sub(slots[b + limb], borrow);
    }
}

pub(super) fn multiply(slots: &mut Slots, to: usize, a: usize, b: usize, limbs: usize) {
    slots[to..to + limbs].fill(0);
    for i in 0..limbs {
        let mut carry = 0;
        for j in 0..limbs - i {
            let product = u128::from(slots[a + i]) * u128::from(slots[b + j])
                + u128::from(slots[to + i + j])
                + carry;
            slots[to + i + j] = product as u64;
            carry = product >> 64;
        }
    }
}

/// The low `bits` bits.
pub(super) fn mask(slots: &mut Slots, to: usize, a: usize, limbs: usize, bits: usize) {
    for limb in 0..limbs {
        let left = bits.saturating_sub(limb * 64).min(64) as u32;
        slots[to + limb] = slots[a + limb] & ones(left);
    }
}

/// The low `bits` bits as two's complement.
pub(super) fn sign_extend(slots: &mut Slots, to: usize, a: usize, limbs: usize, bits: usize) {
    let sign = bits.saturating_sub(1);
    let is_negative = slots[a + sign / 64] >> (sign % 64) & 1 == 1;
    for limb in 0..limbs {
        let kept = ones(bits.saturating_sub(limb * 64).min(64) as u32);
        let fill = if is_negative { !kept } else { 0 };
        slots[to + limb] = slots[a + limb] & kept | fill;
    }
}

pub(super) fn shift_left(slots: &mut Slots, to: usize, a: usize, limbs: usize, amount: usize) {
    let (whole, bits) = (amount / 64, amount % 64);
    for limb in (0..limbs).rev() {
        let from = |back: usize| limb.checked_sub(back).map_or(0, |limb| slots[a + limb]);
        let high = from(whole) << bits;
        let low = if bits == 0 {
            0
        } else {
            from(whole + 1) >> (64 - bits)
        };
        slots[to + limb] = high | low;
    }
}

pub(super) fn shift_right(
    slots: &mut Slots,
    to: usize,
    a: usize,
    limbs: usize,
    amount: usize,
    is_signed: bool,
) {
    let fill = if is_signed && slots[a + limbs - 1] >> 63 == 1 {
        u64::MAX
    } else {
        0
    };
    let (whole, bits) = (amount / 64, amount % 64);
    for limb in 0..limbs {
        let from = |ahead: usize| {
            if limb + ahead < limbs {
                slots[a + limb + ahead]
            } else {
                fill
            }
        };
        let low = from(whole) >> bits;
        let high = if bits == 0 {
            0
        } else {
            from(whole + 1) << (64 - bits)
        };
        slots[to + limb] = low | high;
    }
}

/// Whether `a` is below `b`.
pub(super) fn is_less(a: &[u64], b: &[u64], is_signed: bool) -> bool {
    let sign = |limbs: &[u64]| is_signed && limbs.last().is_some_and(|limb| limb >> 63 == 1);
    match (sign(a), sign(b)) {
        (true, false) => true,
        (false, true) => false,
        _ => a.iter().rev().cmp(b.iter().rev()).is_lt(),
    }
}

/// Cuts off to the range of an unsigned or signed number of `bits` bits.
pub(super) fn clamp(value: &mut [u64], from_signed: bool, to_signed: bool, bits: usize) {
    let magnitude = if to_signed { bits - 1 } else { bits };
    let is_negative = from_signed && value.last().is_some_and(|limb| limb >> 63 == 1);
    // Beyond the magnitude, all bits must equal the sign.
    let sign = if is_negative { u64::MAX } else { 0 };
    let is_within = value.iter().enumerate().all(|(limb, word)| {
        let below = ones(magnitude.saturating_sub(limb * 64).min(64) as u32);
        word & !below == sign & !below
    });
    if is_within && (to_signed || !is_negative) {
        return;
    }
    for (limb, word) in value.iter_mut().enumerate() {
        let below = ones(magnitude.saturating_sub(limb * 64).min(64) as u32);
        *word = match (is_negative, to_signed) {
            (true, false) => 0,
            (true, true) => !below,
            (false, _) => below,
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs an operation on two 128-bit numbers and yields its result.
    fn with(a: u128, b: u128, operation: impl Fn(&mut Slots)) -> u128 {
        let slots: Box<[u64]> = vec![0; 1 << 16].into();
        let mut slots: Box<Slots> = slots.try_into().expect("65,536 slots");
        for (at, number) in [(0, a), (2, b)] {
            slots[at] = number as u64;
            slots[at + 1] = (number >> 64) as u64;
        }
        operation(&mut slots);
        u128::from(slots[5]) << 64 | u128::from(slots[4])
    }

    fn words(number: i128) -> [u64; 2] {
        [number as u64, (number >> 64) as u64]
    }

    proptest! {
        #[test]
        fn arithmetic_is_that_of_u128(a: u128, b: u128, amount in 0..140_usize) {
            prop_assert_eq!(with(a, b, |slots| add(slots, 4, 0, 2, 2)), a.wrapping_add(b));
            prop_assert_eq!(with(a, b, |slots| subtract(slots, 4, 0, 2, 2)), a.wrapping_sub(b));
            prop_assert_eq!(with(a, b, |slots| multiply(slots, 4, 0, 2, 2)), a.wrapping_mul(b));
            let left = a.checked_shl(amount as u32).unwrap_or(0);
            prop_assert_eq!(with(a, b, |slots| shift_left(slots, 4, 0, 2, amount)), left);
            let right = a.checked_shr(amount as u32).unwrap_or(0);
            prop_assert_eq!(with(a, b, |slots| shift_right(slots, 4, 0, 2, amount, false)), right);
            let signed = (a as i128) >> amount.min(127);
            prop_assert_eq!(
                with(a, b, |slots| shift_right(slots, 4, 0, 2, amount, true)) as i128,
                signed
            );
        }

        #[test]
        fn cut_off_to_bits(a: u128, bits in 1..=128_usize) {
            let unused = 128 - bits as u32;
            prop_assert_eq!(with(a, 0, |slots| mask(slots, 4, 0, 2, bits)), a << unused >> unused);
            let signed = (a << unused) as i128 >> unused;
            prop_assert_eq!(
                with(a, 0, |slots| sign_extend(slots, 4, 0, 2, bits)) as i128,
                signed
            );
        }

        #[test]
        fn comparisons_and_limits(a: i128, b: i128, bits in 1..=100_usize) {
            prop_assert_eq!(is_less(&words(a), &words(b), true), a < b);
            prop_assert_eq!(is_less(&words(a), &words(b), false), (a as u128) < b as u128);
            let mut value = words(a);
            clamp(&mut value, true, true, bits);
            let limit = 1_i128 << (bits - 1);
            prop_assert_eq!(value, words(a.clamp(-limit, limit - 1)));
            let mut value = words(a);
            clamp(&mut value, true, false, bits);
            prop_assert_eq!(value, words(a.clamp(0, (1_i128 << bits) - 1)));
        }
    }
}
