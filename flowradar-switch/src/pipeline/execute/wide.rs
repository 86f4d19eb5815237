//! Arithmetic on several slots.

use super::{Machine, limbs};
use crate::program::op::{Op, Slot, WideBitsKind, WideKind};

impl Machine<'_> {
    pub(super) fn wide(&mut self, op: &Op) {
        let slots = &mut *self.slots;
        match *op {
            Op::Extend {
                to,
                from,
                from_limbs,
                limbs,
                is_signed,
            } => {
                let last = slots[usize::from(from) + usize::from(from_limbs) - 1];
                let fill = if is_signed && last >> 63 == 1 {
                    u64::MAX
                } else {
                    0
                };
                for limb in 0..Slot::from(limbs) {
                    let is_there = limb < Slot::from(from_limbs);
                    let value = if is_there {
                        slots[usize::from(from.wrapping_add(limb))]
                    } else {
                        fill
                    };
                    slots[usize::from(to.wrapping_add(limb))] = value;
                }
            }
            Op::SelectWide {
                to,
                condition,
                a,
                b,
                limbs,
            } => {
                let from = if slots[usize::from(condition)] != 0 {
                    a
                } else {
                    b
                };
                let start = usize::from(from);
                slots.copy_within(start..start + usize::from(limbs), to.into());
            }
            Op::Clamp {
                to,
                limbs,
                from_signed,
                to_signed,
                bits,
            } => {
                let start = usize::from(to);
                let value = &mut slots[start..start + usize::from(limbs)];
                limbs::clamp(value, from_signed, to_signed, bits.into());
            }
            Op::WideBits {
                to,
                a,
                limbs,
                bits,
                kind,
            } => {
                let (to, a, limbs) = (usize::from(to), usize::from(a), usize::from(limbs));
                let bits = usize::from(bits);
                match kind {
                    WideBitsKind::Mask => limbs::mask(slots, to, a, limbs, bits),
                    WideBitsKind::Not => {
                        for limb in 0..limbs {
                            slots[to + limb] = !slots[a + limb];
                        }
                        limbs::mask(slots, to, to, limbs, bits);
                    }
                    WideBitsKind::ShiftLeft => limbs::shift_left(slots, to, a, limbs, bits),
                    WideBitsKind::ShiftRightSigned => {
                        limbs::shift_right(slots, to, a, limbs, bits, true);
                    }
                    WideBitsKind::ShiftRightUnsigned => {
                        limbs::shift_right(slots, to, a, limbs, bits, false);
                    }
                    WideBitsKind::SignExtend => limbs::sign_extend(slots, to, a, limbs, bits),
                }
            }
            Op::Wide {
                to,
                a,
                b,
                limbs,
                kind,
            } => {
                let (to, a, b) = (usize::from(to), usize::from(a), usize::from(b));
                let limbs = usize::from(limbs);
                let amount = usize::try_from(slots[b])
                    .unwrap_or(usize::MAX)
                    .min(limbs * 64);
                match kind {
                    WideKind::Add => limbs::add(slots, to, a, b, limbs),
                    WideKind::Subtract => limbs::subtract(slots, to, a, b, limbs),
                    WideKind::Multiply => limbs::multiply(slots, to, a, b, limbs),
                    WideKind::And | WideKind::Or | WideKind::Xor => {
                        for limb in 0..limbs {
                            let (x, y) = (slots[a + limb], slots[b + limb]);
                            slots[to + limb] = match kind {
                                WideKind::And => x & y,
                                WideKind::Or => x | y,
                                _ => x ^ y,
                            };
                        }
                    }
                    WideKind::Equal => {
                        let is_equal = slots[a..a + limbs] == slots[b..b + limbs];
                        slots[to] = u64::from(is_equal);
                    }
                    WideKind::LessSigned => {
                        let is_less =
                            limbs::is_less(&slots[a..a + limbs], &slots[b..b + limbs], true);
                        slots[to] = u64::from(is_less);
                    }
                    WideKind::LessUnsigned => {
                        let is_less =
                            limbs::is_less(&slots[a..a + limbs], &slots[b..b + limbs], false);
                        slots[to] = u64::from(is_less);
                    }
                    WideKind::Divide | WideKind::Remainder => {
                        let number =
                            |at: usize| u128::from(slots[at + 1]) << 64 | u128::from(slots[at]);
                        let (x, y) = (number(a), number(b));
                        let result = match kind {
                            WideKind::Divide => x.checked_div(y),
                            _ => x.checked_rem(y),
                        };
                        self.state.counters.divisions_by_zero += u64::from(result.is_none());
                        let result = result.unwrap_or_default();
                        slots[to] = result as u64;
                        slots[to + 1] = (result >> 64) as u64;
                    }
                    WideKind::ShiftLeft => limbs::shift_left(slots, to, a, limbs, amount),
                    WideKind::ShiftRightSigned => {
                        limbs::shift_right(slots, to, a, limbs, amount, true);
                    }
                    WideKind::ShiftRightUnsigned => {
                        limbs::shift_right(slots, to, a, limbs, amount, false);
                    }
                }
            }
            other => unreachable!("{other:?} is no arithmetic on several slots"),
        }
    }
}
