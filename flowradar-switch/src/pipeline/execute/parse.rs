//! Parsing: states, and what is taken from the packet.

use super::Machine;
use crate::program::layout::BitGroups;
use crate::program::op::{Op, Slot, low, ones};
use crate::program::parser::{Case, Cases};

impl Machine<'_> {
    #[inline]
    pub(super) fn transition(&self, state: u16) -> u16 {
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
    pub(super) fn extract(&mut self, index: u16) -> Result<(), u64> {
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

    /// What fewer packets meet in the parser.
    pub(super) fn parser_op(&mut self, op: &Op) -> Result<(), u64> {
        let program = self.program;
        let layout = &program.layout;
        match *op {
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
            ref other => unreachable!("{other:?} is no instruction of the parser"),
        }
        Ok(())
    }

    /// Reads fields from the wire.
    #[inline]
    fn load(&mut self, groups: &BitGroups, start: usize) {
        let mut parts = groups.parts.as_slice();
        for group in &groups.groups {
            let at = start + usize::from(group.byte_offset);
            let bytes = self.frame.padded.get(at..).and_then(<[u8]>::first_chunk);
            let window = bytes.map_or(0, |bytes| u64::from_be_bytes(*bytes));
            let (those, others) = parts.split_at(usize::from(group.parts).min(parts.len()));
            parts = others;
            for part in those {
                let bits = (window >> part.window_shift & low(part.bits)) << part.slot_shift;
                let slot = &mut self.slots[usize::from(part.slot)];
                *slot = if part.continues { *slot | bits } else { bits };
            }
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
}
