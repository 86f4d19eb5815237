//! Two instructions that become one.
//!
//! Hash functions and Bloom filters are chains of few patterns, and every instruction costs about as much as
//! any other: fewer of them run faster.

use super::super::LoadError;
use super::super::op::{Op, Slot};
use super::{Access, Assembler};

impl Assembler {
    /// Appends an instruction, together with the one before it where one can do what both do: if that one
    /// computed a temporary of this statement, which nothing else looks at.
    pub(super) fn push_fused(&mut self, place: &str, op: Op) -> Result<(), LoadError> {
        let fused = self.code.last().and_then(|last| fused(*last, op));
        match fused {
            Some((temporary, fused)) if self.is_last_result(temporary) => {
                self.code.pop();
                self.push(place, fused)
            }
            Some(_) | None => self.push(place, op),
        }
    }

    /// Appends the removal of a header; several in a row are one instruction, which costs little if none of
    /// them is valid.
    pub(in crate::program) fn push_removal(
        &mut self,
        place: &str,
        header: u16,
        valid: Slot,
    ) -> Result<(), LoadError> {
        let removal = Op::RemoveHeader { header, valid };
        if self.code.len() <= self.block {
            return self.push(place, removal);
        }
        match self.code.last() {
            Some(&Op::RemoveHeaders { access }) => {
                if let Some(Access::Headers(headers)) = self.accesses.get_mut(usize::from(access)) {
                    headers.push((header, valid));
                }
                Ok(())
            }
            Some(&Op::RemoveHeader {
                header: first,
                valid: first_valid,
            }) => {
                let headers = vec![(first, first_valid), (header, valid)];
                let access = self.access(place, Access::Headers(headers))?;
                self.code.pop();
                self.push(place, Op::RemoveHeaders { access })
            }
            _ => self.push(place, removal),
        }
    }
}

/// What does the same as two instructions, and the slot between them.
fn fused(first: Op, second: Op) -> Option<(Slot, Op)> {
    Some(match (first, second) {
        (
            Op::ShiftRightBy {
                to: between,
                a: shifted,
                amount,
                bits: 64,
            },
            Op::Xor { to, a, b },
        ) if between == b && a != b && amount < 64 => {
            let b = shifted;
            (between, Op::XorShiftRight { to, a, b, amount })
        }
        (
            Op::ShiftLeftBy {
                to: between,
                a: shifted,
                amount,
                bits: 64,
            },
            Op::Or { to, a, b },
        ) if between == a && a != b && amount < 64 => {
            let a = shifted;
            (between, Op::ShiftLeftOr { to, a, amount, b })
        }
        (
            Op::XorShiftRight {
                to: between,
                a,
                b,
                amount,
            },
            Op::Multiply {
                to,
                a: left,
                b: c,
                bits: 64,
            },
        ) if between == left && left != c => {
            let op = Op::XorShiftMultiply {
                to,
                a,
                b,
                amount,
                c,
            };
            (between, op)
        }
        (
            Op::Not {
                to: between,
                from,
                bits: 64,
            },
            Op::And { to, a, b },
        ) if between == a && a != b => (between, Op::AndNot { to, a: b, b: from }),
        (
            Op::AndNot {
                to: between,
                a: b,
                b: c,
            },
            Op::Or { to, a, b: right },
        ) if between == right && a != right => (between, Op::OrAndNot { to, a, b, c }),
        (
            Op::Multiply {
                to: between,
                a,
                b,
                bits: 64,
            },
            Op::ShiftRightBy {
                to,
                a: shifted,
                amount,
                bits,
            },
        ) if between == shifted && amount < 64 => {
            let op = Op::MultiplyShiftRight {
                to,
                a,
                b,
                amount,
                bits,
            };
            (between, op)
        }
        (
            Op::ShiftRightBy {
                to: between,
                a: from,
                amount: shift,
                bits: amount_bits,
            },
            Op::ShiftLeft {
                to,
                a,
                amount,
                bits,
            },
        ) if between == amount && a != amount && shift < 64 => {
            let op = Op::ShiftLeftByField {
                to,
                a,
                from,
                shift,
                amount_bits,
                bits,
            };
            (between, op)
        }
        _ => return None,
    })
}
