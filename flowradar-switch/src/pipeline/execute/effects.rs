//! What fewer packets do to a program's state and to themselves.

use super::Machine;
use crate::program::assembler::{Access, Number};
use crate::program::layout::internal;
use crate::program::op::{Op, low, ones};

impl Machine<'_> {
    pub(super) fn effect(&mut self, op: &Op) {
        let program = self.program;
        match *op {
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
                    return;
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
            ref other => unreachable!("every instruction is run somewhere, {other:?} is not"),
        }
    }

    /// A number in decimal digits.
    fn decimal(&self, number: Number) -> String {
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
