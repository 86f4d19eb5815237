//! Running a program's code.

use crate::Timestamp;
use crate::program::Program;
use crate::program::assembler::Access;
use crate::program::layout::{HeaderLayout, internal};
use crate::program::op::{Label, Op, Slot, WideBitsKind, WideKind, low, ones};
use crate::program::parser::{ACCEPT, Case, Cases};

use super::hash;
use super::state::State;
use super::table::{Resolved, Slots};

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
                Op::ShiftLeftOr { to, a, amount, b } => at!(to) = at!(a) << (amount & 63) | at!(b),
                Op::XorShiftRight { to, a, b, amount } => {
                    at!(to) = at!(a) ^ at!(b) >> (amount & 63);
                }
                Op::ClampUnsigned { to, from, bits } => at!(to) = at!(from).min(low(bits)),
                Op::RemoveHeader { valid, .. } if at!(valid) == 0 => {}
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

    /// Applies a table; yields the action's code, if any, and where to go on.
    #[inline]
    fn apply(&mut self, index: u16) -> (Option<Label>, Label) {
        let table = &self.program.tables[usize::from(index)];
        let state = &mut self.state.tables[usize::from(index)];
        let hit = state.lookup(table, self.slots);
        let (resolved, is_hit) = match hit {
            Some(entry) => {
                let entry = &mut state.entries[entry as usize];
                entry.last_hit = self.now;
                if table.with_counters {
                    entry.counter.packets += 1;
                    entry.counter.bytes += self.frame.ingress_length;
                }
                if let Some(meter) = table.direct_meter {
                    let meter = &self.program.objects.meters[usize::from(meter)];
                    let cost = if meter.counts_bytes {
                        self.frame.ingress_length
                    } else {
                        1
                    };
                    let color = entry
                        .meter
                        .as_mut()
                        .map_or(0, |state| state.execute(cost, self.now) as u64);
                    if let Some(target) = &meter.target {
                        self.slots[usize::from(target.slot)] = color & ones(target.bits);
                    }
                }
                (&entry.resolved, true)
            }
            None => {
                if table.with_counters {
                    state.default_counter.packets += 1;
                    state.default_counter.bytes += self.frame.ingress_length;
                }
                match &state.default {
                    Some((_, resolved)) => (resolved, false),
                    None => (&Resolved::Nothing, false),
                }
            }
        };
        let special = if is_hit { table.on_hit } else { table.on_miss };
        if let Resolved::Action {
            action,
            next,
            arguments,
        } = resolved
        {
            let action = &self.program.actions[usize::from(*action)];
            let first = usize::from(action.first_argument);
            if let Some(slots) = self.slots.get_mut(first..first + arguments.len()) {
                slots.copy_from_slice(arguments);
            }
            return (Some(action.start), special.unwrap_or(*next));
        }
        if matches!(resolved, Resolved::Nothing) {
            return (None, special.unwrap_or(table.otherwise));
        }
        let resolved = resolved.clone();
        self.apply_indirect(index, &resolved, special)
    }

    /// Applies a table whose action comes from a profile.
    fn apply_indirect(
        &mut self,
        index: u16,
        resolved: &Resolved,
        special: Option<Label>,
    ) -> (Option<Label>, Label) {
        let table = &self.program.tables[usize::from(index)];
        let nothing = (None, special.unwrap_or(table.otherwise));
        let Some(profile_index) = table.profile.map(usize::from) else {
            return nothing;
        };
        let hash = match resolved {
            Resolved::Group(_) | Resolved::OneShot(_) => {
                let selector = self.program.profiles[profile_index].selector;
                selector.map_or(0, |calculation| self.hash(calculation))
            }
            _ => 0,
        };
        let profile = &self.state.profiles[profile_index];
        let chosen = match resolved {
            Resolved::Group(group) => profile
                .groups
                .get(group)
                .and_then(|group| group.choice.choose(hash)),
            Resolved::OneShot(choice) => choice.choose(hash),
            other => Some(other),
        };
        let (action, arguments) = match chosen {
            Some(Resolved::Member(member)) => match profile.members.get(member) {
                Some(member) => (member.action, &member.arguments),
                None => return nothing,
            },
            Some(Resolved::Action {
                action, arguments, ..
            }) => (*action, arguments),
            _ => {
                self.state.counters.empty_groups += 1;
                return nothing;
            }
        };
        let next = table.actions.iter().find(|(other, _)| *other == action);
        let next = next.map_or(table.otherwise, |(_, next)| *next);
        let action = &self.program.actions[usize::from(action)];
        let first = usize::from(action.first_argument);
        if let Some(slots) = self.slots.get_mut(first..first + arguments.len()) {
            slots.copy_from_slice(arguments);
        }
        (Some(action.start), special.unwrap_or(next))
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

    #[inline]
    fn transition(&self, state: u16) -> u16 {
        let state = &self.program.parser.states[usize::from(state)];
        let next = match &state.cases {
            Cases::Narrow(cases) if cases.is_empty() => None,
            Cases::Narrow(cases) => {
                let key = match state.key.as_slice() {
                    [(slot, _)] => self.slots[usize::from(*slot)],
                    key => key.iter().fold(0, |key, (slot, bits)| {
                        key << (bits & 63) | self.slots[usize::from(*slot)]
                    }),
                };
                let mut cases = cases.iter();
                cases
                    .find(|(value, mask, _)| key & mask == *value)
                    .map(|(_, _, next)| *next)
            }
            Cases::Wide(cases) => {
                let bits: usize = state.key.iter().map(|(_, bits)| usize::from(*bits)).sum();
                let mut key = vec![0_u64; bits.div_ceil(64).max(1)];
                let mut position = bits;
                for (slot, bits) in &state.key {
                    position -= usize::from(*bits);
                    let value = self.slots[usize::from(*slot)];
                    let (limb, shift) = (position / 64, position % 64);
                    key[limb] |= value << shift;
                    if shift > 0
                        && let Some(above) = key.get_mut(limb + 1)
                    {
                        *above |= value >> (64 - shift);
                    }
                }
                cases.iter().find_map(|case| self.matched(case, &key))
            }
        };
        next.unwrap_or(state.otherwise)
    }

    fn matched(&self, case: &Case, key: &[u64]) -> Option<u16> {
        let is_equal = |value: &[u64], mask: &[u64]| {
            key.iter()
                .zip(value)
                .zip(mask)
                .all(|((key, value), mask)| key & mask == value & mask)
        };
        match case {
            Case::Value { value, mask, next } => is_equal(value, mask).then_some(*next),
            Case::Set {
                value_set,
                mask,
                next,
            } => {
                let mut members = self.state.value_sets[usize::from(*value_set)].iter();
                members
                    .any(|(_, limbs)| is_equal(limbs, mask))
                    .then_some(*next)
            }
        }
    }

    #[inline]
    fn extract(&mut self, index: u16) -> Result<(), u64> {
        let header = &self.program.layout.headers[usize::from(index)];
        let length = usize::from(header.fixed_bytes);
        let start = self.frame.parsed;
        if self.frame.length - start < length {
            return Err(self.program.errors.packet_too_short);
        }
        self.load(&header.head, start);
        self.frame.parsed += length;
        self.validate(index, header);
        Ok(())
    }

    /// Reads fields from the wire.
    #[inline]
    fn load(&mut self, groups: &crate::program::layout::BitGroups, start: usize) {
        let mut parts = groups.parts.iter();
        for group in &groups.groups {
            let at = start + usize::from(group.byte_offset);
            let bytes = self
                .frame
                .padded
                .get(at..at + 8)
                .and_then(|bytes| bytes.try_into().ok());
            let window = u64::from_be_bytes(bytes.unwrap_or_default());
            for part in parts.by_ref().take(group.parts.into()) {
                let bits = (window >> part.window_shift & low(part.bits)) << part.slot_shift;
                let slot = &mut self.slots[usize::from(part.slot)];
                *slot = if part.continues { *slot | bits } else { bits };
            }
        }
    }

    fn validate(&mut self, index: u16, header: &HeaderLayout) {
        self.state.touched.push(index);
        self.slots[usize::from(header.valid)] = 1;
        for sibling in &header.siblings {
            let sibling = &self.program.layout.headers[usize::from(*sibling)];
            self.slots[usize::from(sibling.valid)] = 0;
        }
    }

    /// How many bytes a header takes on the wire.
    fn wire_length(&self, header: &HeaderLayout) -> u64 {
        let variable = header
            .variable
            .map_or(0, |variable| self.slots[usize::from(variable.length)]);
        u64::from(header.fixed_bytes) + variable
    }

    /// Instructions that few packets meet.
    #[cold]
    fn rare(&mut self, op: &Op) -> Result<(), u64> {
        let program = self.program;
        let layout = &program.layout;
        let header = |index: u16| &layout.headers[usize::from(index)];
        match *op {
            Op::AddHeader { header: index } => {
                let header = header(index);
                if self.slots[usize::from(header.valid)] == 0 {
                    self.slots[usize::from(header.slots.start)..usize::from(header.slots.end)]
                        .fill(0);
                    self.validate(index, header);
                    self.slots[usize::from(internal::PACKET_LENGTH)] += self.wire_length(header);
                }
            }
            Op::ValidateHeader { header: index } => self.validate(index, header(index)),
            Op::RemoveHeader { header: index, .. } => {
                let header = header(index);
                if self.slots[usize::from(header.valid)] != 0 {
                    let length = self.wire_length(header);
                    let total = &mut self.slots[usize::from(internal::PACKET_LENGTH)];
                    *total = total.saturating_sub(length);
                    self.slots[usize::from(header.valid)] = 0;
                }
            }
            Op::AssignHeader { to, from } => self.assign_header(to, from),
            Op::AssignStack { to, from } => {
                let (to, from) = (
                    &layout.stacks[usize::from(to)],
                    &layout.stacks[usize::from(from)],
                );
                self.slots[usize::from(to.next)] = self.slots[usize::from(from.next)];
                for (to, from) in to.headers.iter().zip(&from.headers) {
                    self.assign_header(*to, *from);
                }
            }
            Op::AssignVariable { to, from } => {
                if let (Some(to), Some(from)) = (header(to).variable, header(from).variable) {
                    let length = self.slots[usize::from(from.length)];
                    if length > u64::from(to.max_bytes) {
                        self.state.counters.variable_fields_too_long += 1;
                        return Ok(());
                    }
                    let slots = length.div_ceil(8) as usize;
                    let start = usize::from(from.first_slot);
                    self.slots
                        .copy_within(start..start + slots, to.first_slot.into());
                    self.slots[usize::from(to.length)] = length;
                }
            }
            Op::EqualHeaders { to, a, b } => {
                let (a, b) = (header(a), header(b));
                let are_valid =
                    self.slots[usize::from(a.valid)] != 0 && self.slots[usize::from(b.valid)] != 0;
                let fields = |header: &HeaderLayout| {
                    &self.slots[usize::from(header.slots.start)..usize::from(header.slots.end)]
                };
                let is_equal = are_valid && fields(a) == fields(b);
                self.slots[usize::from(to)] = u64::from(is_equal);
            }
            Op::LastOfStack { to, stack, field } => {
                let stack = &layout.stacks[usize::from(stack)];
                let next = self.slots[usize::from(stack.next)] as usize;
                let last = next.checked_sub(1).and_then(|last| stack.headers.get(last));
                let index = last
                    .or_else(|| stack.headers.first())
                    .copied()
                    .unwrap_or_default();
                self.state.counters.stacks_out_of_range += u64::from(last.is_none());
                let field = &header(index).fields[usize::from(field)];
                let start = usize::from(field.slot);
                let end = start + usize::from(field.limbs);
                self.slots.copy_within(start..end, to.into());
                if last.is_none() {
                    let to = usize::from(to);
                    self.slots[to..to + usize::from(field.limbs)].fill(0);
                }
            }
            Op::PushStack { stack, count } => {
                self.shift_stack(stack, self.slots[usize::from(count)], true);
            }
            Op::PopStack { stack, count } => {
                self.shift_stack(stack, self.slots[usize::from(count)], false);
            }
            Op::Advance { bits } => {
                let bits = self.slots[usize::from(bits)];
                if !bits.is_multiple_of(8) {
                    return Err(program.errors.parser_invalid_argument);
                }
                let left = (self.frame.length - self.frame.parsed) as u64;
                if left < bits / 8 {
                    return Err(program.errors.packet_too_short);
                }
                self.frame.parsed += (bits / 8) as usize;
            }
            Op::ExtractStack { stack } => {
                let header = self.next_of_stack(stack)?;
                self.extract(header)?;
                self.slots[usize::from(layout.stacks[usize::from(stack)].next)] += 1;
            }
            Op::ExtractVariable { header, bits } => {
                self.extract_variable(header, self.slots[usize::from(bits)])?;
            }
            Op::ExtractVariableStack { stack, bits } => {
                let header = self.next_of_stack(stack)?;
                self.extract_variable(header, self.slots[usize::from(bits)])?;
                self.slots[usize::from(layout.stacks[usize::from(stack)].next)] += 1;
            }
            Op::Lookahead {
                to,
                bit_offset,
                bits,
            } => self.lookahead(to, bit_offset, bits)?,
            Op::Verify { condition, error } => {
                if self.slots[usize::from(condition)] == 0 {
                    return Err(self.slots[usize::from(error)]);
                }
            }
            Op::ExecuteMeter {
                meter,
                index,
                to,
                bits,
            } => {
                let index = self.slots[usize::from(index)];
                let counts_bytes = program.objects.meters[usize::from(meter)].counts_bytes;
                let cost = if counts_bytes {
                    self.frame.ingress_length
                } else {
                    1
                };
                let cells = &mut self.state.meters[usize::from(meter)];
                match usize::try_from(index)
                    .ok()
                    .and_then(|index| cells.get_mut(index))
                {
                    Some(cell) => {
                        let color = cell
                            .as_mut()
                            .map_or(0, |meter| meter.execute(cost, self.now) as u64);
                        self.slots[usize::from(to)] = color & low(bits);
                    }
                    None => self.state.counters.meters_out_of_range += 1,
                }
            }
            Op::Random {
                to,
                low: from,
                high,
                bits,
            } => {
                let (from, high) = (self.slots[usize::from(from)], self.slots[usize::from(high)]);
                if from <= high {
                    let value = self.state.random_between(from, high);
                    self.slots[usize::from(to)] = value & low(bits);
                }
            }
            Op::RegisterReadWide { access, index } => {
                let Access::Register { register, to } = &program.accesses[usize::from(access)]
                else {
                    return Ok(());
                };
                let cells = &self.state.registers[usize::from(*register)];
                match cells.read_wide(self.slots[usize::from(index)]) {
                    Some(cell) => {
                        for limb in 0..u32::from(to.limbs) {
                            let bits = (to.bits - limb * 64).min(64);
                            let slot = usize::from(to.slot) + limb as usize;
                            self.slots[slot] = cell.word(limb as usize) & ones(bits);
                        }
                    }
                    None => self.state.counters.registers_out_of_range += 1,
                }
            }
            Op::LoadIndexed { to, access, index } => {
                let Access::Fields { fields, limbs } = &program.accesses[usize::from(access)]
                else {
                    return Ok(());
                };
                let index = usize::try_from(self.slots[usize::from(index)]).unwrap_or(usize::MAX);
                let to = usize::from(to);
                match fields.get(index) {
                    Some(field) => {
                        let start = usize::from(field.slot);
                        self.slots
                            .copy_within(start..start + usize::from(*limbs), to);
                    }
                    None => {
                        self.slots[to..to + usize::from(*limbs)].fill(0);
                        self.state.counters.stacks_out_of_range += 1;
                    }
                }
            }
            Op::StoreIndexed {
                from,
                access,
                index,
            } => {
                let Access::Fields { fields, limbs } = &program.accesses[usize::from(access)]
                else {
                    return Ok(());
                };
                let index = usize::try_from(self.slots[usize::from(index)]).unwrap_or(usize::MAX);
                match fields.get(index) {
                    Some(field) => {
                        let start = usize::from(from);
                        let end = start + usize::from(*limbs);
                        self.slots.copy_within(start..end, field.slot.into());
                    }
                    None => self.state.counters.stacks_out_of_range += 1,
                }
            }
            Op::Assert { condition, .. } => {
                if self.slots[usize::from(condition)] == 0 {
                    self.state.counters.assertions_failed += 1;
                    self.state.assertion_failed = true;
                }
            }
            Op::Log { message } => {
                let message = &program.messages[usize::from(message)];
                let mut text = message.texts.first().cloned().unwrap_or_default();
                for (number, after) in message.values.iter().zip(message.texts.iter().skip(1)) {
                    text.push_str(&self.decimal(*number));
                    text.push_str(after);
                }
                self.state.log(text);
            }
            Op::Truncate { length } => {
                let length = self.slots[usize::from(length)].saturating_add(1);
                let slot = &mut self.slots[usize::from(internal::TRUNCATE)];
                *slot = if *slot == 0 {
                    length
                } else {
                    length.min(*slot)
                };
            }
            Op::Saturate {
                to,
                from,
                limbs,
                is_signed,
            } => {
                let from = usize::from(from);
                let value = &self.slots[from..from + usize::from(limbs)];
                let is_negative = is_signed && value.last().is_some_and(|limb| *limb >> 63 == 1);
                let low = value.first().copied().unwrap_or_default();
                let fits = value.iter().skip(1).all(|limb| *limb == 0);
                self.slots[usize::from(to)] = match (is_negative, fits) {
                    (true, _) => 0,
                    (false, true) => low,
                    (false, false) => u64::MAX,
                };
            }
            ref wide => self.wide(wide),
        }
        Ok(())
    }

    /// Arithmetic on several slots.
    fn wide(&mut self, op: &Op) {
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
                super::wide::clamp(value, from_signed, to_signed, bits.into());
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
                    WideBitsKind::Mask => super::wide::mask(slots, to, a, limbs, bits),
                    WideBitsKind::Not => {
                        for limb in 0..limbs {
                            slots[to + limb] = !slots[a + limb];
                        }
                        super::wide::mask(slots, to, to, limbs, bits);
                    }
                    WideBitsKind::ShiftLeft => super::wide::shift_left(slots, to, a, limbs, bits),
                    WideBitsKind::ShiftRightSigned => {
                        super::wide::shift_right(slots, to, a, limbs, bits, true);
                    }
                    WideBitsKind::ShiftRightUnsigned => {
                        super::wide::shift_right(slots, to, a, limbs, bits, false);
                    }
                    WideBitsKind::SignExtend => super::wide::sign_extend(slots, to, a, limbs, bits),
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
                    WideKind::Add => super::wide::add(slots, to, a, b, limbs),
                    WideKind::Subtract => super::wide::subtract(slots, to, a, b, limbs),
                    WideKind::Multiply => super::wide::multiply(slots, to, a, b, limbs),
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
                            super::wide::is_less(&slots[a..a + limbs], &slots[b..b + limbs], true);
                        slots[to] = u64::from(is_less);
                    }
                    WideKind::LessUnsigned => {
                        let is_less =
                            super::wide::is_less(&slots[a..a + limbs], &slots[b..b + limbs], false);
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
                    WideKind::ShiftLeft => super::wide::shift_left(slots, to, a, limbs, amount),
                    WideKind::ShiftRightSigned => {
                        super::wide::shift_right(slots, to, a, limbs, amount, true);
                    }
                    WideKind::ShiftRightUnsigned => {
                        super::wide::shift_right(slots, to, a, limbs, amount, false);
                    }
                }
            }
            other => unreachable!("every instruction is run somewhere, {other:?} is not"),
        }
    }

    fn assign_header(&mut self, index: u16, from: u16) {
        let layout = &self.program.layout;
        let (to, from) = (
            &layout.headers[usize::from(index)],
            &layout.headers[usize::from(from)],
        );
        if self.slots[usize::from(from.valid)] == 0 {
            self.slots[usize::from(to.valid)] = 0;
            return;
        }
        let range = usize::from(from.slots.start)..usize::from(from.slots.end);
        self.slots.copy_within(range, to.slots.start.into());
        self.validate(index, to);
    }

    /// Moves all of a stack's headers up (`push_front`) or down (`pop_front`).
    fn shift_stack(&mut self, stack: u16, count: u64, is_push: bool) {
        let stack = &self.program.layout.stacks[usize::from(stack)];
        let size = stack.headers.len();
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(size);
        let next = self.slots[usize::from(stack.next)] as usize;
        let new_next = if is_push {
            (next + count).min(size)
        } else {
            next.saturating_sub(count)
        };
        self.slots[usize::from(stack.next)] = new_next as u64;
        let invalidate = |slots: &mut Slots, position: usize| {
            let header = &self.program.layout.headers[usize::from(stack.headers[position])];
            slots[usize::from(header.valid)] = 0;
        };
        if is_push {
            for position in (count..size).rev() {
                self.assign_header(stack.headers[position], stack.headers[position - count]);
            }
            (0..count).for_each(|position| invalidate(self.slots, position));
        } else {
            for position in 0..size - count {
                self.assign_header(stack.headers[position], stack.headers[position + count]);
            }
            (size - count..size).for_each(|position| invalidate(self.slots, position));
        }
    }

    fn next_of_stack(&self, stack: u16) -> Result<u16, u64> {
        let stack = &self.program.layout.stacks[usize::from(stack)];
        let next = self.slots[usize::from(stack.next)] as usize;
        stack
            .headers
            .get(next)
            .copied()
            .ok_or(self.program.errors.stack_out_of_bounds)
    }

    fn extract_variable(&mut self, index: u16, bits: u64) -> Result<(), u64> {
        let header = &self.program.layout.headers[usize::from(index)];
        let Some(variable) = header.variable else {
            return Ok(());
        };
        if !bits.is_multiple_of(8) {
            return Err(self.program.errors.parser_invalid_argument);
        }
        let start = self.frame.parsed;
        let total = u64::from(header.fixed_bytes).saturating_add(bits / 8);
        if ((self.frame.length - start) as u64) < total {
            return Err(self.program.errors.packet_too_short);
        }
        if bits / 8 > u64::from(variable.max_bytes) {
            return Err(self.program.errors.header_too_short);
        }
        let length = (bits / 8) as usize;
        self.load(&header.head, start);
        let variable_start = start + usize::from(variable.offset);
        let bytes = self
            .frame
            .padded
            .get(variable_start..variable_start + length);
        for (position, chunk) in bytes.unwrap_or_default().chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.slots[usize::from(variable.first_slot) + position] = u64::from_be_bytes(word);
        }
        self.slots[usize::from(variable.length)] = length as u64;
        // Offsets in the tail count from the header's start without the variable field.
        self.load(&header.tail, start + length);
        self.frame.parsed += total as usize;
        self.validate(index, header);
        Ok(())
    }

    fn lookahead(&mut self, to: Slot, bit_offset: u16, bits: u16) -> Result<(), u64> {
        let (offset, bits) = (usize::from(bit_offset), usize::from(bits));
        let left = (self.frame.length - self.frame.parsed) * 8;
        if left < offset + bits {
            return Err(self.program.errors.packet_too_short);
        }
        let start = self.frame.parsed * 8 + offset;
        for limb in 0..bits.div_ceil(64) {
            // From the least significant limb on: the last bits on the wire.
            let end = start + bits - limb * 64;
            let first = end - (bits - limb * 64).min(64);
            let mut value = 0_u128;
            for byte in first / 8..end.div_ceil(8) {
                let byte = self.frame.padded.get(byte).copied().unwrap_or_default();
                value = value << 8 | u128::from(byte);
            }
            value >>= (8 - end % 8) % 8;
            self.slots[usize::from(to) + limb] = value as u64 & ones((end - first) as u32);
        }
        Ok(())
    }

    /// A number in decimal digits.
    fn decimal(&self, number: crate::program::assembler::Number) -> String {
        let start = usize::from(number.slot);
        let limbs = &self.slots[start..start + usize::from(number.limbs)];
        match (limbs, number.range.may_be_negative) {
            ([limb], false) => limb.to_string(),
            ([limb], true) => (*limb as i64).to_string(),
            ([low, high], false) => (u128::from(*high) << 64 | u128::from(*low)).to_string(),
            ([low, high], true) => {
                ((u128::from(*high) << 64 | u128::from(*low)) as i128).to_string()
            }
            _ => crate::Value::from_limbs(limbs).to_string(),
        }
    }
}
