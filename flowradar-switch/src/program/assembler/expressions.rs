//! What expressions are made of, and where their values go.

use super::super::LoadError;
use super::super::expression::{BinaryOperator, Constant, Expression, Scope, UnaryOperator};
use super::super::layout::FieldLayout;
use super::super::op::{Op, Slot, WideBitsKind};
use super::{Access, Assembler, MAX_BITS, Need, Number, Range};

impl Assembler {
    /// A number, computed to where it is needed.
    pub(in crate::program) fn number(
        &mut self,
        scope: Scope<'_>,
        expression: &Expression,
        need: Need,
    ) -> Result<Number, LoadError> {
        match expression {
            Expression::Constant(constant) => self.constant_number(scope, constant, need),
            Expression::Field(field) => self.field(scope, field),
            Expression::Local(index) => self.field(scope, &scope.arguments[*index]),
            Expression::LastField { stack, field } => {
                let first = scope.layout.stacks[usize::from(*stack)].headers[0];
                let layout = &scope.layout.headers[usize::from(first)].fields[*field];
                let to = self.temporary(scope, layout.limbs.into())?;
                let op = Op::LastOfStack {
                    to,
                    stack: *stack,
                    field: *field as u16,
                };
                self.push(scope.place, op)?;
                self.loaded(scope, to, layout)
            }
            Expression::IndexedField {
                stack,
                index,
                field,
            } => {
                let index = self.index(scope, index)?;
                let access = self.fields_access(scope, *stack, *field)?;
                let first = scope.layout.stacks[usize::from(*stack)].headers[0];
                let layout = &scope.layout.headers[usize::from(first)].fields[*field];
                let to = self.temporary(scope, layout.limbs.into())?;
                self.push(scope.place, Op::LoadIndexed { to, access, index })?;
                self.loaded(scope, to, layout)
            }
            Expression::LastIndex { stack } => {
                let next = scope.layout.stacks[usize::from(*stack)].next;
                let one = self.constant(scope.place, 1)?;
                let to = self.temporary(scope, 1)?;
                self.push(
                    scope.place,
                    Op::Subtract {
                        to,
                        a: next,
                        b: one,
                        bits: 64,
                    },
                )?;
                // bmv2 yields -1 for an empty stack.
                Ok(Number::exact(
                    to,
                    1,
                    Range {
                        may_be_negative: true,
                        bits: 32,
                    },
                ))
            }
            Expression::Size { stack } => {
                let next = scope.layout.stacks[usize::from(*stack)].next;
                Ok(Number::exact(
                    next,
                    1,
                    Range {
                        may_be_negative: false,
                        bits: 32,
                    },
                ))
            }
            Expression::Register { register, index } => {
                let index = self.index(scope, index)?;
                let bits = scope.objects.registers[usize::from(*register)].bits;
                let limbs = bits.div_ceil(64) as u8;
                let to = self.temporary(scope, limbs.into())?;
                let field = FieldLayout {
                    name: String::new(),
                    bits,
                    is_signed: false,
                    slot: to,
                    limbs,
                    is_variable: false,
                };
                let zero = self.constant(scope.place, 0)?;
                for limb in 0..limbs {
                    let op = Op::Copy {
                        to: to + Slot::from(limb),
                        from: zero,
                    };
                    self.push(scope.place, op)?;
                }
                self.register_read(scope, *register, index, &field)?;
                self.loaded(scope, to, &field)
            }
            Expression::Ternary(condition, left, right) => {
                let condition = self.boolean(scope, condition)?;
                let left = self.number(scope, left, need)?;
                let right = self.number(scope, right, need)?;
                let range = left.range.union(right.range);
                let exact = left.is_exact && right.is_exact;
                let limbs = if exact { range.limbs() } else { need.limbs() };
                let a = self.extend(scope, left, limbs)?;
                let b = self.extend(scope, right, limbs)?;
                let to = self.temporary(scope, limbs.into())?;
                let op = if limbs == 1 {
                    Op::Select {
                        to,
                        condition,
                        a,
                        b,
                    }
                } else {
                    Op::SelectWide {
                        to,
                        condition,
                        a,
                        b,
                        limbs,
                    }
                };
                self.push(scope.place, op)?;
                Ok(Number {
                    slot: to,
                    limbs,
                    range,
                    is_exact: exact,
                })
            }
            Expression::Unary(UnaryOperator::BoolToData, operand) => {
                let slot = self.boolean(scope, operand)?;
                Ok(Number::exact(
                    slot,
                    1,
                    Range {
                        may_be_negative: false,
                        bits: 1,
                    },
                ))
            }
            Expression::Unary(UnaryOperator::Complement, operand) => {
                let operand = self.number(scope, operand, need)?;
                let range = Range {
                    may_be_negative: true,
                    ..operand.range
                };
                let (limbs, is_exact) = match need {
                    Need::Low(_) => (need.limbs(), false),
                    Need::Exact => (self.checked_limbs(scope, range)?, true),
                };
                let from = self.extend(scope, operand, limbs)?;
                let to = self.temporary(scope, limbs.into())?;
                let op = if limbs == 1 {
                    Op::Not { to, from, bits: 64 }
                } else {
                    let bits = u16::from(limbs) * 64;
                    Op::WideBits {
                        to,
                        a: from,
                        limbs,
                        bits,
                        kind: WideBitsKind::Not,
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
            Expression::Binary(operator, left, right) => {
                self.binary(scope, *operator, left, right, need)
            }
            _ => Err(scope.invalid("a Boolean where a number is expected")),
        }
    }

    /// A Boolean, as 0 or 1 in a slot.
    pub(in crate::program) fn boolean(
        &mut self,
        scope: Scope<'_>,
        expression: &Expression,
    ) -> Result<Slot, LoadError> {
        match expression {
            Expression::Bool(value) => self.constant(scope.place, u64::from(*value)),
            Expression::Valid { header } => Ok(scope.layout.headers[usize::from(*header)].valid),
            Expression::ValidUnion { headers } => {
                let mut valid = self.constant(scope.place, 0)?;
                for header in headers {
                    let to = self.temporary(scope, 1)?;
                    let b = scope.layout.headers[usize::from(*header)].valid;
                    self.push(scope.place, Op::Or { to, a: valid, b })?;
                    valid = to;
                }
                Ok(valid)
            }
            Expression::EqualHeaders { a, b } => {
                let to = self.temporary(scope, 1)?;
                self.push(scope.place, Op::EqualHeaders { to, a: *a, b: *b })?;
                Ok(to)
            }
            Expression::Not(operand) => {
                let from = self.boolean(scope, operand)?;
                let to = self.temporary(scope, 1)?;
                self.push(scope.place, Op::Not { to, from, bits: 1 })?;
                Ok(to)
            }
            Expression::Unary(UnaryOperator::DataToBool, operand) => {
                let operand = self.number(scope, operand, Need::Exact)?;
                if operand.limbs == 1 && operand.range == (Range::unsigned(1)) {
                    return Ok(operand.slot);
                }
                let zero = self.constant_number(scope, &Constant::zero(), Need::Exact)?;
                self.compare(scope, BinaryOperator::NotEqual, operand, zero)
            }
            Expression::Ternary(condition, left, right) => {
                let condition = self.boolean(scope, condition)?;
                let a = self.boolean(scope, left)?;
                let b = self.boolean(scope, right)?;
                let to = self.temporary(scope, 1)?;
                self.push(
                    scope.place,
                    Op::Select {
                        to,
                        condition,
                        a,
                        b,
                    },
                )?;
                Ok(to)
            }
            Expression::Binary(operator, left, right) if left.is_bool() => {
                let a = self.boolean(scope, left)?;
                let b = self.boolean(scope, right)?;
                let to = self.temporary(scope, 1)?;
                let op = match operator {
                    BinaryOperator::LogicalAnd => Op::And { to, a, b },
                    BinaryOperator::LogicalOr => Op::Or { to, a, b },
                    BinaryOperator::Equal => Op::Equal { to, a, b },
                    BinaryOperator::NotEqual => Op::Xor { to, a, b },
                    _ => return Err(scope.invalid("arithmetic with Booleans")),
                };
                self.push(scope.place, op)?;
                Ok(to)
            }
            Expression::Binary(operator, left, right) => {
                let left = self.number(scope, left, Need::Exact)?;
                let right = self.number(scope, right, Need::Exact)?;
                self.compare(scope, *operator, left, right)
            }
            _ => Err(scope.invalid("a number where a Boolean is expected")),
        }
    }

    /// A number as an index or length: one slot; what does not fit is all ones, what is negative zero.
    pub(in crate::program) fn index(
        &mut self,
        scope: Scope<'_>,
        expression: &Expression,
    ) -> Result<Slot, LoadError> {
        let number = self.number(scope, expression, Need::Exact)?;
        if number.limbs == 1 && !number.range.may_be_negative {
            return Ok(number.slot);
        }
        let to = self.temporary(scope, 1)?;
        let is_signed = number.range.may_be_negative;
        let op = Op::Saturate {
            to,
            from: number.slot,
            limbs: number.limbs,
            is_signed,
        };
        self.push(scope.place, op)?;
        Ok(to)
    }

    /// Stores an expression's value in a field, cut off to its width.
    pub(in crate::program) fn assign(
        &mut self,
        scope: Scope<'_>,
        to: &FieldLayout,
        expression: &Expression,
    ) -> Result<(), LoadError> {
        let number = if expression.is_bool() {
            let slot = self.boolean(scope, expression)?;
            Number::exact(slot, 1, Range::unsigned(1))
        } else {
            self.number(scope, expression, Need::Low(to.bits))?
        };
        self.store(scope, to, number)
    }

    /// Stores a number in a field, cut off to its width.
    pub(in crate::program) fn store(
        &mut self,
        scope: Scope<'_>,
        to: &FieldLayout,
        number: Number,
    ) -> Result<(), LoadError> {
        if to.limbs == 1 {
            let fits = number.is_exact && number.range.fits(to.bits);
            if !fits || number.slot != to.slot {
                self.mask_into(scope, to.slot, number.slot, if fits { 64 } else { to.bits })?;
            }
            return Ok(());
        }
        // The whole value is there before any of the field changes: it may be computed from it.
        let fits = number.is_exact && number.range.fits(to.bits) && number.limbs <= to.limbs;
        let from = self.extend(scope, number, to.limbs)?;
        let (bits, limbs) = (to.bits as u16, to.limbs);
        let bits = if fits { u16::from(limbs) * 64 } else { bits };
        let kind = WideBitsKind::Mask;
        self.push(
            scope.place,
            Op::WideBits {
                to: to.slot,
                a: from,
                limbs,
                bits,
                kind,
            },
        )
    }

    /// Reads a register's cell into a field; the field stays as it is if there is no such cell.
    pub(in crate::program) fn register_read(
        &mut self,
        scope: Scope<'_>,
        register: u16,
        index: Slot,
        to: &FieldLayout,
    ) -> Result<(), LoadError> {
        let cell_bits = scope.objects.registers[usize::from(register)].bits;
        if to.limbs == 1 && cell_bits <= 64 {
            let bits = to.bits as u8;
            return self.push(
                scope.place,
                Op::RegisterRead {
                    register,
                    index,
                    to: to.slot,
                    bits,
                },
            );
        }
        let access = self.access(
            scope.place,
            Access::Register {
                register,
                to: to.clone(),
            },
        )?;
        self.push(scope.place, Op::RegisterReadWide { access, index })
    }

    /// What `LoadIndexed` and `StoreIndexed` need for a field of a stack's headers.
    pub(in crate::program) fn fields_access(
        &mut self,
        scope: Scope<'_>,
        stack: u16,
        field: usize,
    ) -> Result<u16, LoadError> {
        let headers = &scope.layout.stacks[usize::from(stack)].headers;
        let fields: Vec<_> = headers
            .iter()
            .map(|header| scope.layout.headers[usize::from(*header)].fields[field].clone())
            .collect();
        let limbs = fields[0].limbs;
        self.access(scope.place, Access::Fields { fields, limbs })
    }

    /// A number in exactly this many slots.
    pub(in crate::program) fn extend(
        &mut self,
        scope: Scope<'_>,
        number: Number,
        limbs: u8,
    ) -> Result<Slot, LoadError> {
        if number.limbs >= limbs {
            return Ok(number.slot);
        }
        let to = self.temporary(scope, limbs.into())?;
        let is_signed = number.range.may_be_negative;
        let op = Op::Extend {
            to,
            from: number.slot,
            from_limbs: number.limbs,
            limbs,
            is_signed,
        };
        self.push(scope.place, op)?;
        Ok(to)
    }

    pub(super) fn constant_number(
        &mut self,
        scope: Scope<'_>,
        constant: &Constant,
        need: Need,
    ) -> Result<Number, LoadError> {
        let range = Range {
            may_be_negative: constant.is_negative,
            bits: constant.bits(),
        };
        let (limbs, is_exact) = match need {
            Need::Low(_) if range.limbs() > need.limbs() => (need.limbs(), false),
            _ => (self.checked_limbs(scope, range)?, true),
        };
        let slot = self.wide_constant(scope.place, constant.to_limbs(limbs.into()))?;
        Ok(Number {
            slot,
            limbs,
            range,
            is_exact,
        })
    }

    pub(super) fn field(
        &mut self,
        scope: Scope<'_>,
        field: &FieldLayout,
    ) -> Result<Number, LoadError> {
        self.loaded(scope, field.slot, field)
    }

    /// A field's value that is in `slot`: signed ones get their sign.
    pub(super) fn loaded(
        &mut self,
        scope: Scope<'_>,
        slot: Slot,
        field: &FieldLayout,
    ) -> Result<Number, LoadError> {
        let number = Number::exact(slot, field.limbs, Range::unsigned(field.bits));
        if field.is_signed {
            self.sign_extend(scope, number, field.bits)
        } else {
            Ok(number)
        }
    }

    /// The low `bits` bits of a number as two's complement.
    pub(super) fn sign_extend(
        &mut self,
        scope: Scope<'_>,
        number: Number,
        bits: u32,
    ) -> Result<Number, LoadError> {
        let limbs = bits.div_ceil(64).max(1) as u8;
        let from = self.extend(scope, number, limbs)?;
        let to = self.temporary(scope, limbs.into())?;
        let op = if limbs == 1 {
            Op::SignExtend {
                to,
                from,
                bits: bits as u8,
            }
        } else {
            let kind = WideBitsKind::SignExtend;
            Op::WideBits {
                to,
                a: from,
                limbs,
                bits: bits as u16,
                kind,
            }
        };
        self.push(scope.place, op)?;
        let range = Range {
            may_be_negative: true,
            bits: bits.saturating_sub(1),
        };
        Ok(Number::exact(to, limbs, range))
    }

    /// A constant width in bits, as the second operand of casts.
    pub(super) fn width(
        &self,
        scope: Scope<'_>,
        expression: &Expression,
    ) -> Result<u32, LoadError> {
        let width = expression.as_constant().and_then(Constant::to_u64);
        match width.and_then(|width| u32::try_from(width).ok()) {
            Some(width) if (1..MAX_BITS).contains(&width) => Ok(width),
            _ => Err(scope.unsupported("a cast to a width that is not a constant")),
        }
    }

    /// The range of an expression, without keeping what computes it.
    pub(super) fn range_of(
        &self,
        scope: Scope<'_>,
        expression: &Expression,
    ) -> Result<Range, LoadError> {
        match expression {
            Expression::Field(field) => Ok(Range::unsigned(field.bits)),
            Expression::Local(index) => Ok(Range::unsigned(scope.arguments[*index].bits)),
            Expression::Binary(BinaryOperator::And, left, right) => {
                let mask = right.as_constant().or_else(|| left.as_constant());
                Ok(Range::unsigned(
                    mask.and_then(Constant::mask_bits).unwrap_or(MAX_BITS),
                ))
            }
            _ => Ok(Range::unsigned(MAX_BITS)),
        }
    }

    pub(super) fn checked_limbs(&self, scope: Scope<'_>, range: Range) -> Result<u8, LoadError> {
        if range.bits >= MAX_BITS {
            return Err(scope.unsupported("an intermediate result of unbounded width"));
        }
        Ok(range.limbs())
    }
}
