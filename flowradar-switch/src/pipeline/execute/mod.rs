//! Running a program's code.
//!
//! What most packets meet is here; `apply` has tables, `parse` the parser, `headers`, `wide` and
//! `effects` everything else.

mod apply;
mod effects;
mod headers;
mod limbs;
mod parse;
mod wide;

use super::hash;
use super::state::State;
use super::table::Slots;
use crate::Timestamp;
use crate::program::Program;
use crate::program::assembler::Access;
use crate::program::op::{Label, Op, low};
use crate::program::parser::ACCEPT;

/// How many states a packet may pass through in the parser.
const MAX_PARSER_STEPS: u32 = 4096;

/// How much longer a packet's buffer is than the packet, so that windows may be read at its end.
pub(super) const PADDING: usize = 16;

/// A packet in the middle of a program.
pub(super) struct Machine<'a> {
    pub(super) program: &'a Program,
    pub(super) slots: &'a mut Slots,
    pub(super) state: &'a mut State,
    pub(super) frame: Frame<'a>,
    pub(super) now: Timestamp,
    pub(super) scratch: &'a mut Vec<u8>,
}

/// A packet's bytes.
#[derive(Clone, Copy)]
pub(super) struct Frame<'a> {
    /// The bytes, followed by [`PADDING`] zeros.
    pub(super) padded: &'a [u8],
    pub(super) length: usize,
    /// How many were parsed.
    pub(super) parsed: usize,
    /// What counters and meters count: the bytes as they came in.
    pub(super) ingress_length: u64,
}

impl Machine<'_> {
    /// Runs code until it finishes; `Err` with the number of a parser error.
    pub(super) fn run(&mut self, start: Label) -> Result<(), u64> {
        let program = self.program;
        let code = program.code.as_slice();
        // What is at a label and after it; labels are within the code, which ends with `Finish`.
        let from = |label: Label| code.get(label as usize..).unwrap_or_default().iter();
        let mut next = from(start);
        let mut after_action = 0;
        let mut is_exiting = false;
        let mut parser_steps = 0;
        while let Some(op) = next.next() {
            let slots = &mut *self.slots;
            macro_rules! at {
                ($slot:expr) => {
                    slots[usize::from($slot)]
                };
            }
            match *op {
                Op::Apply { table } => match self.apply(table) {
                    (Some(action), after) => {
                        next = from(action);
                        after_action = after;
                    }
                    (None, after) => next = from(after),
                },
                Op::Exit => is_exiting = true,
                Op::Finish => return Ok(()),
                Op::FinishIfExited => {
                    if is_exiting {
                        return Ok(());
                    }
                }
                Op::Jump { to } => next = from(to),
                Op::JumpIfEqual { a, b, to } => {
                    if at!(a) == at!(b) {
                        next = from(to);
                    }
                }
                Op::JumpIfNotEqual { a, b, to } => {
                    if at!(a) != at!(b) {
                        next = from(to);
                    }
                }
                Op::JumpIfZero { condition, to } => {
                    if at!(condition) == 0 {
                        next = from(to);
                    }
                }
                Op::Return => {
                    if is_exiting {
                        return Ok(());
                    }
                    next = from(after_action);
                }
                Op::Add { to, a, b, bits } => {
                    at!(to) = at!(a).wrapping_add(at!(b)) & low(bits);
                }
                Op::And { to, a, b } => at!(to) = at!(a) & at!(b),
                Op::Copy { to, from } => at!(to) = at!(from),
                Op::Divide { to, a, b } => {
                    let quotient = at!(a).checked_div(at!(b));
                    at!(to) = quotient.unwrap_or_default();
                    self.state.counters.divisions_by_zero += u64::from(quotient.is_none());
                }
                Op::Equal { to, a, b } => at!(to) = u64::from(at!(a) == at!(b)),
                Op::Less { to, a, b } => at!(to) = u64::from(at!(a) < at!(b)),
                Op::LessOrEqual { to, a, b } => at!(to) = u64::from(at!(a) <= at!(b)),
                Op::LessSigned { to, a, b } => {
                    at!(to) = u64::from((at!(a) as i64) < at!(b) as i64);
                }
                Op::Mask { to, from, bits } => at!(to) = at!(from) & low(bits),
                Op::Multiply { to, a, b, bits } => {
                    at!(to) = at!(a).wrapping_mul(at!(b)) & low(bits);
                }
                Op::Not { to, from, bits } => at!(to) = !at!(from) & low(bits),
                Op::NotEqual { to, a, b } => at!(to) = u64::from(at!(a) != at!(b)),
                Op::Or { to, a, b } => at!(to) = at!(a) | at!(b),
                Op::Remainder { to, a, b } => {
                    let remainder = at!(a).checked_rem(at!(b));
                    at!(to) = remainder.unwrap_or_default();
                    self.state.counters.divisions_by_zero += u64::from(remainder.is_none());
                }
                Op::Select {
                    to,
                    condition,
                    a,
                    b,
                } => {
                    at!(to) = if at!(condition) != 0 { at!(a) } else { at!(b) };
                }
                Op::ShiftLeft {
                    to,
                    a,
                    amount,
                    bits,
                } => {
                    let amount = at!(amount);
                    let shifted = if amount < 64 { at!(a) << amount } else { 0 };
                    at!(to) = shifted & low(bits);
                }
                Op::ShiftLeftBy {
                    to,
                    a,
                    amount,
                    bits,
                } => {
                    let shifted = at!(a).checked_shl(amount.into()).unwrap_or_default();
                    at!(to) = shifted & low(bits);
                }
                Op::ShiftRight { to, a, amount } => {
                    let amount = at!(amount);
                    at!(to) = if amount < 64 { at!(a) >> amount } else { 0 };
                }
                Op::ShiftRightBy {
                    to,
                    a,
                    amount,
                    bits,
                } => {
                    let shifted = at!(a).checked_shr(amount.into()).unwrap_or_default();
                    at!(to) = shifted & low(bits);
                }
                Op::SignExtend { to, from, bits } => {
                    let unused = 64 - u32::from(bits);
                    at!(to) = ((at!(from) << unused) as i64 >> unused) as u64;
                }
                Op::Subtract { to, a, b, bits } => {
                    at!(to) = at!(a).wrapping_sub(at!(b)) & low(bits);
                }
                Op::Xor { to, a, b } => at!(to) = at!(a) ^ at!(b),
                Op::AndNot { to, a, b } => at!(to) = at!(a) & !at!(b),
                Op::OrAndNot { to, a, b, c } => at!(to) = at!(a) | at!(b) & !at!(c),
                Op::MultiplyShiftRight {
                    to,
                    a,
                    b,
                    amount,
                    bits,
                } => {
                    at!(to) = at!(a).wrapping_mul(at!(b)) >> (amount & 63) & low(bits);
                }
                Op::ShiftLeftByField {
                    to,
                    a,
                    from,
                    shift,
                    amount_bits,
                    bits,
                } => {
                    let amount = at!(from) >> (shift & 63) & low(amount_bits);
                    let shifted = if amount < 64 { at!(a) << amount } else { 0 };
                    at!(to) = shifted & low(bits);
                }
                Op::ShiftLeftOr { to, a, amount, b } => at!(to) = at!(a) << (amount & 63) | at!(b),
                Op::XorShiftMultiply {
                    to,
                    a,
                    b,
                    amount,
                    c,
                } => {
                    let mixed = at!(a) ^ at!(b) >> (amount & 63);
                    at!(to) = mixed.wrapping_mul(at!(c));
                }
                Op::XorShiftRight { to, a, b, amount } => {
                    at!(to) = at!(a) ^ at!(b) >> (amount & 63);
                }
                Op::ClampUnsigned { to, from, bits } => at!(to) = at!(from).min(low(bits)),
                Op::RemoveHeader { valid, .. } if at!(valid) == 0 => {}
                Op::RemoveHeaders { access } => {
                    let Access::Headers(headers) = &program.accesses[usize::from(access)] else {
                        continue;
                    };
                    if headers.iter().any(|(_, valid)| at!(*valid) != 0) {
                        self.rare(op)?;
                    }
                }
                Op::Count { counter, index } => {
                    let index = at!(index);
                    self.count(counter, index);
                }
                Op::Hash { calculation, to } => {
                    let hash = self.hash(calculation);
                    self.slots[usize::from(to)] = hash;
                }
                Op::HashRange {
                    calculation,
                    to,
                    base,
                    size,
                } => {
                    let (base, size) = (at!(base), at!(size).max(1));
                    let hash = self.hash(calculation) % size;
                    self.slots[usize::from(to)] = hash.wrapping_add(base);
                }
                Op::RegisterRead {
                    register,
                    index,
                    to,
                    bits,
                } => match self.state.registers[usize::from(register)].read(at!(index)) {
                    Some(value) => at!(to) = value & low(bits),
                    None => self.state.counters.registers_out_of_range += 1,
                },
                Op::RegisterWrite {
                    register,
                    index,
                    from,
                } => {
                    let cells = &mut self.state.registers[usize::from(register)];
                    let index = at!(index);
                    let is_written = if cells.bits <= 64 {
                        cells.write(index, at!(from))
                    } else {
                        let limbs = cells.limbs();
                        let from = usize::from(from);
                        cells.write_wide(index, slots.get(from..from + limbs).unwrap_or_default())
                    };
                    self.state.counters.registers_out_of_range += u64::from(!is_written);
                }
                Op::Extract { header } => self.extract(header)?,
                Op::Transition { state } => {
                    parser_steps += 1;
                    let state = self.transition(state);
                    if state == ACCEPT {
                        return Ok(());
                    }
                    if parser_steps >= MAX_PARSER_STEPS {
                        self.state.counters.parser_loops += 1;
                        return Err(program.errors.parser_timeout);
                    }
                    next = from(program.parser.states[usize::from(state)].start);
                }
                ref other => self.rare(other)?,
            }
        }
        Ok(())
    }

    /// Instructions that few packets meet.
    #[cold]
    fn rare(&mut self, op: &Op) -> Result<(), u64> {
        match op {
            Op::Advance { .. }
            | Op::ExtractStack { .. }
            | Op::ExtractVariable { .. }
            | Op::ExtractVariableStack { .. }
            | Op::Lookahead { .. }
            | Op::Verify { .. } => return self.parser_op(op),
            Op::AddHeader { .. }
            | Op::AssignHeader { .. }
            | Op::AssignStack { .. }
            | Op::AssignVariable { .. }
            | Op::EqualHeaders { .. }
            | Op::LastOfStack { .. }
            | Op::LoadIndexed { .. }
            | Op::PopStack { .. }
            | Op::PushStack { .. }
            | Op::RemoveHeader { .. }
            | Op::RemoveHeaders { .. }
            | Op::StoreIndexed { .. }
            | Op::ValidateHeader { .. } => self.header_op(op),
            Op::Clamp { .. }
            | Op::Extend { .. }
            | Op::SelectWide { .. }
            | Op::Wide { .. }
            | Op::WideBits { .. } => self.wide(op),
            _ => self.effect(op),
        }
        Ok(())
    }

    fn count(&mut self, counter: u16, index: u64) {
        let cells = &mut self.state.indirect_counters[usize::from(counter)];
        match usize::try_from(index)
            .ok()
            .and_then(|index| cells.get_mut(index))
        {
            Some(cell) => {
                cell.packets += 1;
                cell.bytes += self.frame.ingress_length;
            }
            None => self.state.counters.counters_out_of_range += 1,
        }
    }

    pub(super) fn hash(&mut self, calculation: u16) -> u64 {
        let index = usize::from(calculation);
        let calculation = &self.program.objects.calculations[index];
        let payload = self.frame.padded.get(self.frame.parsed..self.frame.length);
        let payload = payload.unwrap_or_default();
        let layout = &self.program.layout;
        hash::gather(calculation, layout, self.slots, payload, self.scratch);
        hash::hash(
            calculation.algorithm,
            self.scratch,
            &mut self.state.hash_calls[index],
        )
    }
}
