//! Masks and shifts.

use super::super::LoadError;
use super::super::expression::{Constant, Expression, Scope};
use super::super::op::{Op, Slot, WideBitsKind, WideKind};
use super::{Assembler, MAX_BITS, Need, Number, Range};

impl Assembler {
    pub(super) fn and(
        &mut self,
        scope: Scope<'_>,
        left: &Expression,
        right: &Expression,
        need: Need,
    ) -> Result<Number, LoadError> {
        // A mask: only so many bits of the other side matter.
        for (mask, other) in [(right, left), (left, right)] {
            let Some(bits) = mask.as_constant().and_then(Constant::mask_bits) else {
                continue;
            };
            let wanted = match need {
                Need::Low(low) => bits.min(low),
                Need::Exact => bits,
            };
            if wanted == 0 {
                return self.constant_number(scope, &Constant::zero(), need);
            }
            let number = self.number(scope, other, Need::Low(wanted))?;
            if number.is_exact && number.range.fits(bits) {
                return Ok(number);
            }
            if bits > wanted {
                let limbs = Need::Low(wanted).limbs().max(number.limbs);
                let slot = self.extend(scope, number, limbs)?;
                return Ok(Number {
                    slot,
                    limbs,
                    is_exact: false,
                    ..number
                });
            }
            return self.mask(scope, number, bits);
        }
        let operand_need = |other: &Expression| match (need, other.as_constant()) {
            (Need::Exact, Some(constant)) if !constant.is_negative => {
                Need::Low(constant.bits().max(1))
            }
            _ => need,
        };
        let a = self.number(scope, left, operand_need(right))?;
        let b = self.number(scope, right, operand_need(left))?;
        let range = match (
            a.is_exact && !a.range.may_be_negative,
            b.is_exact && !b.range.may_be_negative,
        ) {
            (true, true) => Range::unsigned(a.range.bits.min(b.range.bits)),
            (true, false) => a.range,
            (false, true) => b.range,
            (false, false) => a.range.union(b.range),
        };
        // With `Need::Exact`, an operand is inexact only above the bits of a constant beside it.
        let is_exact = (a.is_exact && b.is_exact) || need == Need::Exact;
        let limbs = if is_exact {
            self.checked_limbs(scope, range)?
        } else {
            need.limbs_or(u8::MAX)
        };
        let a = self.extend(scope, a, limbs)?;
        let b = self.extend(scope, b, limbs)?;
        let to = self.temporary(scope, limbs.into())?;
        let op = if limbs == 1 {
            Op::And { to, a, b }
        } else {
            Op::Wide {
                to,
                a,
                b,
                limbs,
                kind: WideKind::And,
            }
        };
        self.push_fused(scope.place, op)?;
        Ok(Number {
            slot: to,
            limbs,
            range,
            is_exact,
        })
    }

    /// The low `bits` bits as an unsigned number.
    pub(super) fn mask(
        &mut self,
        scope: Scope<'_>,
        number: Number,
        bits: u32,
    ) -> Result<Number, LoadError> {
        let range = Range::unsigned(bits);
        let limbs = range.limbs();
        if limbs == 1 {
            let to = if self.is_last_result(number.slot) {
                number.slot
            } else {
                self.temporary(scope, 1)?
            };
            self.mask_into(scope, to, number.slot, bits)?;
            return Ok(Number::exact(to, 1, range));
        }
        let from = self.extend(scope, number, limbs)?;
        let to = self.temporary(scope, limbs.into())?;
        let kind = WideBitsKind::Mask;
        self.push(
            scope.place,
            Op::WideBits {
                to,
                a: from,
                limbs,
                bits: bits as u16,
                kind,
            },
        )?;
        Ok(Number::exact(to, limbs, range))
    }

    /// Copies a slot, cut off; changes the instruction that computed it instead if that can be done.
    pub(super) fn mask_into(
        &mut self,
        scope: Scope<'_>,
        to: Slot,
        from: Slot,
        bits: u32,
    ) -> Result<(), LoadError> {
        if self.is_last_result(from)
            && let Some(last) = self.code.last_mut()
            && last.retarget(to, bits as u8)
        {
            return Ok(());
        }
        let op = if bits == 64 {
            Op::Copy { to, from }
        } else {
            Op::Mask {
                to,
                from,
                bits: bits as u8,
            }
        };
        self.push(scope.place, op)
    }

    /// Whether a slot is a temporary that the last instruction of this statement computed.
    pub(super) fn is_last_result(&self, slot: Slot) -> bool {
        self.code.len() > self.statement
            && self
                .taken
                .iter()
                .any(|(taken, limbs)| *taken == slot && *limbs == 1)
            && self.code.last().and_then(Op::result) == Some(slot)
    }

    pub(super) fn shift_left(
        &mut self,
        scope: Scope<'_>,
        left: &Expression,
        right: &Expression,
        need: Need,
    ) -> Result<Number, LoadError> {
        if let Some(amount) = right.as_constant() {
            let amount = amount
                .to_u64()
                .ok_or_else(|| scope.invalid("a shift by a negative or huge number"))?;
            return self.shift_left_by(scope, left, amount, need);
        }
        let number = self.number(scope, left, need)?;
        let amount_range = self.range_of(scope, right)?;
        let amount = self.index(scope, right)?;
        let grows = if amount_range.bits <= 13 {
            (1_u32 << amount_range.bits) - 1
        } else {
            MAX_BITS
        };
        let range = Range {
            bits: number.range.bits.saturating_add(grows),
            ..number.range
        };
        let (limbs, is_exact) = match need {
            Need::Low(_) => (need.limbs(), false),
            Need::Exact => (self.checked_limbs(scope, range)?, true),
        };
        let a = self.extend(scope, number, limbs)?;
        let to = self.temporary(scope, limbs.into())?;
        let op = if limbs == 1 {
            Op::ShiftLeft {
                to,
                a,
                amount,
                bits: 64,
            }
        } else {
            Op::Wide {
                to,
                a,
                b: amount,
                limbs,
                kind: WideKind::ShiftLeft,
            }
        };
        self.push_fused(scope.place, op)?;
        Ok(Number {
            slot: to,
            limbs,
            range,
            is_exact,
        })
    }

    pub(super) fn shift_left_by(
        &mut self,
        scope: Scope<'_>,
        left: &Expression,
        amount: u64,
        need: Need,
    ) -> Result<Number, LoadError> {
        let amount = u32::try_from(amount).unwrap_or(u32::MAX).min(MAX_BITS);
        let inner_need = match need {
            Need::Low(low) if amount >= low => {
                return self.constant_number(scope, &Constant::zero(), need);
            }
            Need::Low(low) => Need::Low(low - amount),
            Need::Exact => Need::Exact,
        };
        let number = self.number(scope, left, inner_need)?;
        let range = Range {
            bits: number.range.bits.saturating_add(amount),
            ..number.range
        };
        let is_exact = number.is_exact && range.limbs() <= need.limbs_or(u8::MAX);
        let limbs = if is_exact {
            self.checked_limbs(scope, range)?
        } else {
            need.limbs_or(u8::MAX)
        };
        let a = self.extend(scope, number, limbs)?;
        let to = self.temporary(scope, limbs.into())?;
        let op = if limbs == 1 {
            Op::ShiftLeftBy {
                to,
                a,
                amount: amount.min(64) as u8,
                bits: 64,
            }
        } else {
            Op::WideBits {
                to,
                a,
                limbs,
                bits: amount as u16,
                kind: WideBitsKind::ShiftLeft,
            }
        };
        self.push(scope.place, op)?;
        Ok(Number {
            slot: to,
            limbs,
            range,
            is_exact,
        })
    }

    pub(super) fn shift_right(
        &mut self,
        scope: Scope<'_>,
        left: &Expression,
        right: &Expression,
        need: Need,
    ) -> Result<Number, LoadError> {
        if let Some(amount) = right.as_constant() {
            let amount = amount
                .to_u64()
                .ok_or_else(|| scope.invalid("a shift by a negative or huge number"))?;
            let amount = u32::try_from(amount).unwrap_or(u32::MAX).min(MAX_BITS);
            let inner_need = match need {
                Need::Low(low) => Need::Low(low + amount),
                Need::Exact => Need::Exact,
            };
            let number = self.number(scope, left, inner_need)?;
            let range = Range {
                bits: number.range.bits.saturating_sub(amount),
                ..number.range
            };
            let is_signed = number.range.may_be_negative && number.is_exact;
            let limbs = number.limbs;
            let to = self.temporary(scope, limbs.into())?;
            let op = if limbs == 1 && !is_signed {
                Op::ShiftRightBy {
                    to,
                    a: number.slot,
                    amount: amount.min(64) as u8,
                    bits: 64,
                }
            } else {
                let kind = if is_signed {
                    WideBitsKind::ShiftRightSigned
                } else {
                    WideBitsKind::ShiftRightUnsigned
                };
                Op::WideBits {
                    to,
                    a: number.slot,
                    limbs,
                    bits: amount as u16,
                    kind,
                }
            };
            self.push_fused(scope.place, op)?;
            let shifted = Number {
                slot: to,
                limbs,
                range,
                is_exact: number.is_exact,
            };
            return Ok(if number.is_exact {
                shifted.shrink()
            } else {
                shifted
            });
        }
        let number = self.number(scope, left, Need::Exact)?;
        let amount = self.index(scope, right)?;
        let limbs = number.limbs;
        let to = self.temporary(scope, limbs.into())?;
        let op = if number.range.may_be_negative {
            Op::Wide {
                to,
                a: number.slot,
                b: amount,
                limbs,
                kind: WideKind::ShiftRightSigned,
            }
        } else if limbs == 1 {
            Op::ShiftRight {
                to,
                a: number.slot,
                amount,
            }
        } else {
            Op::Wide {
                to,
                a: number.slot,
                b: amount,
                limbs,
                kind: WideKind::ShiftRightUnsigned,
            }
        };
        self.push(scope.place, op)?;
        Ok(Number { slot: to, ..number })
    }
}
