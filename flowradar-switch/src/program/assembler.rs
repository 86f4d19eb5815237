//! Expressions to instructions.
//!
//! bmv2 computes with unbounded integers and cuts off only where a value is stored. To give the same
//! results in fixed slots, every number here carries the range its value can have, and whoever uses it
//! says how much of it matters: all of it (a comparison), or only the low bits (an assignment, a mask).
//! Low bits of sums, products and the like depend on low bits only, so they are computed modulo.

use std::collections::HashMap;

use super::expression::{BinaryOperator, Constant, Expression, Scope, UnaryOperator};
use super::layout::{FieldLayout, Layout};
use super::op::{Label, Op, Slot, WideBitsKind, WideKind};
use super::{LoadError, too_large};

/// The widest intermediate result, in bits.
const MAX_BITS: u32 = 8192;

/// How many instructions a program may have.
const MAX_CODE: usize = 1 << 22;

/// Code under construction.
#[derive(Debug)]
pub(super) struct Assembler {
    pub(super) code: Vec<Op>,
    /// Slots with what they hold for good.
    pub(super) constants: Vec<(Slot, u64)>,
    /// What `LoadIndexed`, `StoreIndexed` and wide register reads refer to.
    pub(super) accesses: Vec<Access>,
    next_slot: u32,
    constant_slots: HashMap<Vec<u64>, Slot>,
    free: HashMap<u8, Vec<Slot>>,
    taken: Vec<(Slot, u8)>,
    statement: usize,
}

/// Where something of several slots is read from or written to.
#[derive(Clone, Debug)]
pub(crate) enum Access {
    /// One of these fields, by index.
    Fields { fields: Vec<FieldLayout>, limbs: u8 },
    /// A register, to or from a field.
    Register { register: u16, to: FieldLayout },
}

/// A number in slots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number {
    pub(crate) slot: Slot,
    pub(crate) limbs: u8,
    /// What the value can be; meaningless if only low bits are right.
    pub(crate) range: Range,
    /// Whether the slots hold the value, rather than only its low bits.
    pub(super) is_exact: bool,
}

/// The values a number can have: `0..2^bits`, or `-2^bits..2^bits` if it may be negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) may_be_negative: bool,
    pub(super) bits: u32,
}

/// How much of a number matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Its value.
    Exact,
    /// Its lowest bits.
    Low(u32),
}

impl Assembler {
    pub(super) fn new(layout: &Layout) -> Self {
        Self {
            code: Vec::new(),
            constants: Vec::new(),
            accesses: Vec::new(),
            next_slot: u32::from(layout.packet_slots),
            constant_slots: HashMap::new(),
            free: HashMap::new(),
            taken: Vec::new(),
            statement: 0,
        }
    }

    /// The next instruction's place.
    pub(super) fn here(&self) -> Label {
        self.code.len() as Label
    }

    pub(super) fn push(&mut self, place: &str, op: Op) -> Result<(), LoadError> {
        if self.code.len() >= MAX_CODE {
            return Err(too_large(
                place,
                "instructions",
                self.code.len() as u64,
                MAX_CODE as u64,
            ));
        }
        self.code.push(op);
        Ok(())
    }

    /// Jumps if a Boolean is false; yields the jump's place. The comparison that computed the Boolean
    /// becomes part of the jump if it can.
    pub(super) fn jump_if_false(
        &mut self,
        place: &str,
        condition: Slot,
    ) -> Result<Label, LoadError> {
        let to = 0;
        let op = match self.code.last() {
            Some(&Op::Equal { a, b, .. }) if self.is_last_result(condition) => {
                self.code.pop();
                Op::JumpIfNotEqual { a, b, to }
            }
            Some(&Op::NotEqual { a, b, .. }) if self.is_last_result(condition) => {
                self.code.pop();
                Op::JumpIfEqual { a, b, to }
            }
            _ => Op::JumpIfZero { condition, to },
        };
        let label = self.here();
        self.push(place, op)?;
        Ok(label)
    }

    /// Sets where the jump at `from` goes.
    pub(super) fn patch(&mut self, from: Label, target: Label) {
        match self.code.get_mut(from as usize) {
            Some(
                Op::Jump { to }
                | Op::JumpIfEqual { to, .. }
                | Op::JumpIfNotEqual { to, .. }
                | Op::JumpIfZero { to, .. },
            ) => *to = target,
            other => unreachable!("only jumps are patched, not {other:?}"),
        }
        self.statement = self.code.len();
    }

    /// Ends a statement: temporaries are free again.
    pub(super) fn end_statement(&mut self) {
        for (slot, limbs) in self.taken.drain(..) {
            self.free.entry(limbs).or_default().push(slot);
        }
        self.statement = self.code.len();
    }

    /// A slot that holds this number for good.
    pub(super) fn constant(&mut self, place: &str, number: u64) -> Result<Slot, LoadError> {
        self.wide_constant(place, vec![number])
    }

    /// Slots that nothing else uses.
    pub(super) fn reserve(&mut self, place: &str, count: u32) -> Result<Slot, LoadError> {
        let first = self.next_slot;
        let end = first + count;
        match Slot::try_from(first) {
            Ok(first) if end <= u32::from(Slot::MAX) => {
                self.next_slot = end;
                Ok(first)
            }
            _ => Err(too_large(
                place,
                "slots",
                u64::from(end),
                u64::from(Slot::MAX),
            )),
        }
    }

    /// A number, computed to where it is needed.
    pub(super) fn number(
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
    pub(super) fn boolean(
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
    pub(super) fn index(
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
    pub(super) fn assign(
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
    pub(super) fn store(
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
    pub(super) fn register_read(
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
            scope,
            Access::Register {
                register,
                to: to.clone(),
            },
        )?;
        self.push(scope.place, Op::RegisterReadWide { access, index })
    }

    /// What `LoadIndexed` and `StoreIndexed` need for a field of a stack's headers.
    pub(super) fn fields_access(
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
        self.access(scope, Access::Fields { fields, limbs })
    }

    /// A number in exactly this many slots.
    pub(super) fn extend(
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

    /// Slots for the rest of the statement.
    pub(super) fn temporary(&mut self, scope: Scope<'_>, limbs: u32) -> Result<Slot, LoadError> {
        let count = limbs as u8;
        let slot = match self.free.get_mut(&count).and_then(Vec::pop) {
            Some(slot) => slot,
            None => self.reserve(scope.place, limbs)?,
        };
        self.taken.push((slot, count));
        Ok(slot)
    }

    fn access(&mut self, scope: Scope<'_>, access: Access) -> Result<u16, LoadError> {
        let index = self.accesses.len();
        let limit = u64::from(u16::MAX);
        let number = u16::try_from(index)
            .map_err(|_| too_large(scope.place, "indirect accesses", index as u64, limit))?;
        self.accesses.push(access);
        Ok(number)
    }

    fn wide_constant(&mut self, place: &str, limbs: Vec<u64>) -> Result<Slot, LoadError> {
        if let Some(slot) = self.constant_slots.get(&limbs) {
            return Ok(*slot);
        }
        let slot = self.reserve(place, limbs.len() as u32)?;
        for (limb, value) in (0..).zip(&limbs) {
            self.constants.push((slot + limb, *value));
        }
        self.constant_slots.insert(limbs, slot);
        Ok(slot)
    }

    fn constant_number(
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

    fn field(&mut self, scope: Scope<'_>, field: &FieldLayout) -> Result<Number, LoadError> {
        self.loaded(scope, field.slot, field)
    }

    /// A field's value that is in `slot`: signed ones get their sign.
    fn loaded(
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
    fn sign_extend(
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

    fn binary(
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
        let op = if let Some(fused) = self.fused(narrow, to, a, b).filter(|_| limbs == 1) {
            self.code.pop();
            fused
        } else if limbs == 1 {
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
        self.push(scope.place, op)?;
        Ok(Number {
            slot: to,
            limbs,
            range,
            is_exact,
        })
    }

    /// A shift that was computed just now together with what is done with it: hash functions are full
    /// of these.
    fn fused(&self, kind: NarrowKind, to: Slot, a: Slot, b: Slot) -> Option<Op> {
        match (kind, *self.code.last()?) {
            (
                NarrowKind::Xor,
                Op::ShiftRightBy {
                    to: shifted,
                    a: from,
                    amount,
                    bits: 64,
                },
            ) if shifted == b && a != b && amount < 64 && self.is_last_result(shifted) => {
                Some(Op::XorShiftRight {
                    to,
                    a,
                    b: from,
                    amount,
                })
            }
            (
                NarrowKind::Or,
                Op::ShiftLeftBy {
                    to: shifted,
                    a: from,
                    amount,
                    bits: 64,
                },
            ) if shifted == a && a != b && amount < 64 && self.is_last_result(shifted) => {
                Some(Op::ShiftLeftOr {
                    to,
                    a: from,
                    amount,
                    b,
                })
            }
            _ => None,
        }
    }

    fn and(
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
        self.push(scope.place, op)?;
        Ok(Number {
            slot: to,
            limbs,
            range,
            is_exact,
        })
    }

    /// The low `bits` bits as an unsigned number.
    fn mask(&mut self, scope: Scope<'_>, number: Number, bits: u32) -> Result<Number, LoadError> {
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
    fn mask_into(
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
    fn is_last_result(&self, slot: Slot) -> bool {
        self.code.len() > self.statement
            && self
                .taken
                .iter()
                .any(|(taken, limbs)| *taken == slot && *limbs == 1)
            && self.code.last().and_then(Op::result) == Some(slot)
    }

    fn shift_left(
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
        self.push(scope.place, op)?;
        Ok(Number {
            slot: to,
            limbs,
            range,
            is_exact,
        })
    }

    fn shift_left_by(
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

    fn shift_right(
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
            self.push(scope.place, op)?;
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

    fn divide(
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

    fn clamp(
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

    fn compare(
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

    /// A constant width in bits, as the second operand of casts.
    fn width(&self, scope: Scope<'_>, expression: &Expression) -> Result<u32, LoadError> {
        let width = expression.as_constant().and_then(Constant::to_u64);
        match width.and_then(|width| u32::try_from(width).ok()) {
            Some(width) if (1..MAX_BITS).contains(&width) => Ok(width),
            _ => Err(scope.unsupported("a cast to a width that is not a constant")),
        }
    }

    /// The range of an expression, without keeping what computes it.
    fn range_of(&self, scope: Scope<'_>, expression: &Expression) -> Result<Range, LoadError> {
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

    fn checked_limbs(&self, scope: Scope<'_>, range: Range) -> Result<u8, LoadError> {
        if range.bits >= MAX_BITS {
            return Err(scope.unsupported("an intermediate result of unbounded width"));
        }
        Ok(range.limbs())
    }
}

#[derive(Clone, Copy)]
enum NarrowKind {
    Add,
    Multiply,
    Or,
    Subtract,
    Xor,
}

impl Number {
    pub(super) fn exact(slot: Slot, limbs: u8, range: Range) -> Self {
        Self {
            slot,
            limbs,
            range,
            is_exact: true,
        }
    }

    /// Forgets slots that the value does not need.
    fn shrink(self) -> Self {
        Self {
            limbs: self.limbs.min(self.range.limbs()),
            ..self
        }
    }
}

impl Range {
    pub(super) fn unsigned(bits: u32) -> Self {
        Self {
            may_be_negative: false,
            bits,
        }
    }

    /// Whether all values are unsigned numbers of this width.
    pub(super) fn fits(self, bits: u32) -> bool {
        !self.may_be_negative && self.bits <= bits
    }

    /// How many slots the values need, with a bit for the sign if there is one.
    fn limbs(self) -> u8 {
        let bits = self.bits + u32::from(self.may_be_negative);
        bits.div_ceil(64).clamp(1, u32::from(u8::MAX)) as u8
    }

    fn union(self, other: Self) -> Self {
        Self {
            may_be_negative: self.may_be_negative || other.may_be_negative,
            bits: self.bits.max(other.bits),
        }
    }

    fn sum(self, other: Self) -> Self {
        let union = self.union(other);
        Self {
            bits: union.bits + 1,
            ..union
        }
    }

    fn difference(self, other: Self) -> Self {
        Self {
            may_be_negative: true,
            bits: self.sum(other).bits,
        }
    }

    fn product(self, other: Self) -> Self {
        let union = self.union(other);
        Self {
            bits: self.bits + other.bits + u32::from(union.may_be_negative),
            ..union
        }
    }
}

impl Need {
    /// How many slots are needed; one if the value is.
    fn limbs(self) -> u8 {
        self.limbs_or(1)
    }

    fn limbs_or(self, otherwise: u8) -> u8 {
        match self {
            Self::Exact => otherwise,
            Self::Low(bits) => bits.div_ceil(64).clamp(1, u32::from(u8::MAX)) as u8,
        }
    }
}

impl Op {
    /// The slot that an instruction's one-slot result goes to.
    fn result(&self) -> Option<Slot> {
        match *self {
            Self::Add { to, .. }
            | Self::And { to, .. }
            | Self::ClampUnsigned { to, .. }
            | Self::Copy { to, .. }
            | Self::Divide { to, .. }
            | Self::Equal { to, .. }
            | Self::Less { to, .. }
            | Self::LessOrEqual { to, .. }
            | Self::LessSigned { to, .. }
            | Self::Mask { to, .. }
            | Self::Multiply { to, .. }
            | Self::Not { to, .. }
            | Self::NotEqual { to, .. }
            | Self::Or { to, .. }
            | Self::Remainder { to, .. }
            | Self::Select { to, .. }
            | Self::ShiftLeft { to, .. }
            | Self::ShiftLeftBy { to, .. }
            | Self::ShiftLeftOr { to, .. }
            | Self::ShiftRight { to, .. }
            | Self::ShiftRightBy { to, .. }
            | Self::Subtract { to, .. }
            | Self::Xor { to, .. }
            | Self::XorShiftRight { to, .. } => Some(to),
            _ => None,
        }
    }

    /// Makes the result go elsewhere, cut off to `new_bits`; `false` if this instruction cannot.
    fn retarget(&mut self, new_to: Slot, new_bits: u8) -> bool {
        match self {
            Self::Add { to, bits, .. }
            | Self::Mask { to, bits, .. }
            | Self::Multiply { to, bits, .. }
            | Self::Not { to, bits, .. }
            | Self::ShiftLeft { to, bits, .. }
            | Self::ShiftLeftBy { to, bits, .. }
            | Self::ShiftRightBy { to, bits, .. }
            | Self::Subtract { to, bits, .. } => {
                *to = new_to;
                *bits = new_bits.min(*bits);
                true
            }
            Self::And { to, .. }
            | Self::ClampUnsigned { to, .. }
            | Self::Copy { to, .. }
            | Self::Divide { to, .. }
            | Self::Equal { to, .. }
            | Self::Less { to, .. }
            | Self::LessOrEqual { to, .. }
            | Self::LessSigned { to, .. }
            | Self::NotEqual { to, .. }
            | Self::Or { to, .. }
            | Self::Remainder { to, .. }
            | Self::Select { to, .. }
            | Self::ShiftLeftOr { to, .. }
            | Self::ShiftRight { to, .. }
            | Self::Xor { to, .. }
            | Self::XorShiftRight { to, .. }
                if new_bits == 64 =>
            {
                *to = new_to;
                true
            }
            _ => false,
        }
    }
}
