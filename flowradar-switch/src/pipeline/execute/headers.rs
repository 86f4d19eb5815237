//! Headers and stacks of headers.

use super::super::table::Slots;
use super::Machine;
use crate::program::assembler::Access;
use crate::program::layout::{HeaderLayout, internal};
use crate::program::op::Op;

impl Machine<'_> {
    pub(super) fn header_op(&mut self, op: &Op) {
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
            Op::RemoveHeader { header, .. } => self.remove_header(header),
            Op::RemoveHeaders { access } => {
                if let Access::Headers(headers) = &program.accesses[usize::from(access)] {
                    headers
                        .iter()
                        .for_each(|(header, _)| self.remove_header(*header));
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
                        return;
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
            Op::LoadIndexed { to, access, index } => {
                let Access::Fields { fields, limbs } = &program.accesses[usize::from(access)]
                else {
                    return;
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
                    return;
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
            ref other => unreachable!("{other:?} is no instruction on headers"),
        }
    }

    pub(super) fn validate(&mut self, index: u16, header: &HeaderLayout) {
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

    fn remove_header(&mut self, index: u16) {
        let header = &self.program.layout.headers[usize::from(index)];
        if self.slots[usize::from(header.valid)] != 0 {
            let length = self.wire_length(header);
            let total = &mut self.slots[usize::from(internal::PACKET_LENGTH)];
            *total = total.saturating_sub(length);
            self.slots[usize::from(header.valid)] = 0;
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
}
