//! Sums, products, quotients and comparisons.

use super::super::LoadError;
use super::super::expression::{BinaryOperator, Expression, Scope};
use super::super::op::{Op, Slot, WideBitsKind, WideKind};
use super::{Assembler, Need, Number, Range};

#[derive(Clone, Copy)]
enum NarrowKind {
    Add,
    Multiply,
    Or,
    Subtract,
    Xor,
}

impl Assembler {
    pub(super) fn binary(
        &mut self,
        scope: Scope<'_>,
        operator: BinaryOperator,
        left: &Expression,
        right: &Expression,
        need: Need,
    ) -> Result<Number, LoadError> {
        match operator {
            BinaryOperator::Add | BinaryOperator::Subtract | BinaryOperator::Multiply => {
                let a = self.number(scope, left, need)?;
                let b = self.number(scope, right, need)?;
                let range = match operator {
                    BinaryOperator::Add => a.range.sum(b.range),
                    BinaryOperator::Subtract => a.range.difference(b.range),
                    _ => a.range.product(b.range),
                };
                let kinds = match operator {
                    BinaryOperator::Add => (WideKind::Add, NarrowKind::Add),
                    BinaryOperator::Subtract => (WideKind::Subtract, NarrowKind::Subtract),
                    _ => (WideKind::Multiply, NarrowKind::Multiply),
                };
                self.arithmetic(scope, kinds, a, b, range, need)
            }
            BinaryOperator::And => self.and(scope, left, right, need),
            BinaryOperator::Or | BinaryOperator::Xor => {
                let a = self.number(scope, left, need)?;
                let b = self.number(scope, right, need)?;
                let kinds = match operator {
                    BinaryOperator::Or => (WideKind::Or, NarrowKind::Or),
                    _ => (WideKind::Xor, NarrowKind::Xor),
                };
                self.arithmetic(scope, kinds, a, b, a.range.union(b.range), need)
            }
            BinaryOperator::ShiftLeft => self.shift_left(scope, left, right, need),
            BinaryOperator::ShiftRight => self.shift_right(scope, left, right, need),
            BinaryOperator::Divide | BinaryOperator::Remainder => {
                self.divide(scope, operator, left, right)
            }
            BinaryOperator::TwosComplement => {
                let bits = self.width(scope, right)?;
                let number = self.number(scope, left, Need::Low(bits))?;
                if number.is_exact && number.range.fits(bits - 1) {
                    return Ok(number);
                }
                self.sign_extend(scope, number, bits)
            }
            BinaryOperator::SaturateSigned | BinaryOperator::SaturateUnsigned => {
                let bits = self.width(scope, right)?;
                let number = self.number(scope, left, Need::Exact)?;
                self.clamp(
                    scope,
                    number,
                    bits,
                    operator == BinaryOperator::SaturateSigned,
                )
            }
            _ => Err(scope.invalid("a Boolean where a number is expected")),
        }
    }

    /// Operators whose low bits depend on the operands' low bits only.
    fn arithmetic(
        &mut self,
        scope: Scope<'_>,
        (wide, narrow): (WideKind, NarrowKind),
        a: Number,
        b: Number,
        range: Range,
        need: Need,
    ) -> Result<Number, LoadError> {
        let is_exact = a.is_exact && b.is_exact && range.limbs() <= need.limbs_or(u8::MAX);
        let limbs = if is_exact {
            self.checked_limbs(scope, range)?
        } else {
            need.limbs_or(u8::MAX)
        };
        let a = self.extend(scope, a, limbs)?;
        let b = self.extend(scope, b, limbs)?;
        let to = self.temporary(scope, limbs.into())?;
        let op = if limbs == 1 {
            let bits = 64;
            match narrow {
                NarrowKind::Add => Op::Add { to, a, b, bits },
                NarrowKind::Multiply => Op::Multiply { to, a, b, bits },
                NarrowKind::Or => Op::Or { to, a, b },
                NarrowKind::Subtract => Op::Subtract { to, a, b, bits },
                NarrowKind::Xor => Op::Xor { to, a, b },
            }
        } else {
            Op::Wide {
                to,
                a,
                b,
                limbs,
                kind: wide,
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

    pub(super) fn divide(
        &mut self,
        scope: Scope<'_>,
        operator: BinaryOperator,
        left: &Expression,
        right: &Expression,
    ) -> Result<Number, LoadError> {
        let a = self.number(scope, left, Need::Exact)?;
        let b = self.number(scope, right, Need::Exact)?;
        if a.range.may_be_negative || b.range.may_be_negative {
            return Err(scope.unsupported("division of numbers that may be negative"));
        }
        let limbs = a.limbs.max(b.limbs);
        if limbs > 2 {
            return Err(scope.unsupported("division of numbers of more than 128 bits"));
        }
        let (x, y) = (self.extend(scope, a, limbs)?, self.extend(scope, b, limbs)?);
        let to = self.temporary(scope, limbs.into())?;
        let op = match (operator, limbs) {
            (BinaryOperator::Divide, 1) => Op::Divide { to, a: x, b: y },
            (_, 1) => Op::Remainder { to, a: x, b: y },
            (BinaryOperator::Divide, _) => Op::Wide {
                to,
                a: x,
                b: y,
                limbs,
                kind: WideKind::Divide,
            },
            _ => Op::Wide {
                to,
                a: x,
                b: y,
                limbs,
                kind: WideKind::Remainder,
            },
        };
        self.push(scope.place, op)?;
        let bits = match operator {
            BinaryOperator::Divide => a.range.bits,
            _ => a.range.bits.min(b.range.bits),
        };
        Ok(Number::exact(to, limbs, Range::unsigned(bits)).shrink())
    }

    pub(super) fn clamp(
        &mut self,
        scope: Scope<'_>,
        number: Number,
        bits: u32,
        to_signed: bool,
    ) -> Result<Number, LoadError> {
        let magnitude = if to_signed { bits - 1 } else { bits };
        let range = Range {
            may_be_negative: to_signed,
            bits: magnitude,
        };
        if !number.range.may_be_negative && number.range.fits(magnitude) {
            return Ok(number);
        }
        if number.limbs == 1 && !number.range.may_be_negative && !to_signed && bits <= 64 {
            let to = self.temporary(scope, 1)?;
            let op = Op::ClampUnsigned {
                to,
                from: number.slot,
                bits: bits as u8,
            };
            self.push(scope.place, op)?;
            return Ok(Number::exact(to, 1, range));
        }
        // One bit more than either needs, so that comparing with the limits is exact.
        let wide = Range {
            may_be_negative: true,
            bits: number.range.bits.max(magnitude) + 1,
        };
        let limbs = self.checked_limbs(scope, wide)?;
        let from = self.extend(scope, number, limbs)?;
        let to = self.temporary(scope, limbs.into())?;
        let copy = u16::from(limbs) * 64;
        let kind = WideBitsKind::Mask;
        self.push(
            scope.place,
            Op::WideBits {
                to,
                a: from,
                limbs,
                bits: copy,
                kind,
            },
        )?;
        let from_signed = number.range.may_be_negative;
        let bits = bits as u16;
        self.push(
            scope.place,
            Op::Clamp {
                to,
                limbs,
                from_signed,
                to_signed,
                bits,
            },
        )?;
        Ok(Number::exact(to, limbs, range).shrink())
    }

    pub(super) fn compare(
        &mut self,
        scope: Scope<'_>,
        operator: BinaryOperator,
        left: Number,
        right: Number,
    ) -> Result<Slot, LoadError> {
        let is_signed = left.range.may_be_negative || right.range.may_be_negative;
        let mut range = left.range.union(right.range);
        range.may_be_negative = is_signed;
        let limbs = self.checked_limbs(scope, range)?;
        let left = self.extend(scope, left, limbs)?;
        let right = self.extend(scope, right, limbs)?;
        let to = self.temporary(scope, 1)?;
        let (a, b, negate) = match operator {
            BinaryOperator::Greater => (right, left, false),
            BinaryOperator::GreaterOrEqual => (left, right, true),
            BinaryOperator::LessOrEqual => (right, left, true),
            BinaryOperator::NotEqual => (left, right, true),
            _ => (left, right, false),
        };
        let is_equality = matches!(operator, BinaryOperator::Equal | BinaryOperator::NotEqual);
        if limbs == 1 {
            let op = match (is_equality, is_signed, negate) {
                (true, _, false) => Some(Op::Equal { to, a, b }),
                (true, _, true) => Some(Op::NotEqual { to, a, b }),
                (false, false, false) => Some(Op::Less { to, a, b }),
                (false, false, true) => Some(Op::LessOrEqual { to, a: b, b: a }),
                (false, true, false) => Some(Op::LessSigned { to, a, b }),
                (false, true, true) => None,
            };
            if let Some(op) = op {
                self.push(scope.place, op)?;
                return Ok(to);
            }
            self.push(scope.place, Op::LessSigned { to, a, b })?;
        } else {
            let kind = match (is_equality, is_signed) {
                (true, _) => WideKind::Equal,
                (false, true) => WideKind::LessSigned,
                (false, false) => WideKind::LessUnsigned,
            };
            self.push(
                scope.place,
                Op::Wide {
                    to,
                    a,
                    b,
                    limbs,
                    kind,
                },
            )?;
        }
        if !negate {
            return Ok(to);
        }
        let negated = self.temporary(scope, 1)?;
        self.push(
            scope.place,
            Op::Not {
                to: negated,
                from: to,
                bits: 1,
            },
        )?;
        Ok(negated)
    }
}
