//! Expressions to instructions.
//!
//! bmv2 computes with unbounded integers and cuts off only where a value is stored. To give the same
//! results in fixed slots, every number here carries the range its value can have, and whoever uses it
//! says how much of it matters: all of it (a comparison), or only the low bits (an assignment, a mask).
//! Low bits of sums, products and the like depend on low bits only, so they are computed modulo.
//!
//! Here: code, constants and temporaries. [`values`]: numbers and their ranges. [`expressions`]: what they
//! are made of. [`arithmetic`] and [`bits`]: operators. [`fusion`]: two instructions in one.

mod arithmetic;
mod bits;
mod expressions;
mod fusion;
mod values;

use std::collections::HashMap;

use super::expression::Scope;
use super::layout::{FieldLayout, Layout};
use super::op::{Label, Op, Slot};
use super::{LoadError, too_large};

pub(super) use values::Need;
pub(crate) use values::{Number, Range};

/// The widest intermediate result, in bits.
const MAX_BITS: u32 = 8192;

/// How many instructions a program may have.
const MAX_CODE: usize = 1 << 22;

/// Code under construction.
#[derive(Debug)]
pub(in crate::program) struct Assembler {
    pub(in crate::program) code: Vec<Op>,
    /// Slots with what they hold for good.
    pub(in crate::program) constants: Vec<(Slot, u64)>,
    /// What `LoadIndexed`, `StoreIndexed`, `RemoveHeaders` and wide register reads refer to.
    pub(in crate::program) accesses: Vec<Access>,
    next_slot: u32,
    constant_slots: HashMap<Vec<u64>, Slot>,
    free: HashMap<u8, Vec<Slot>>,
    taken: Vec<(Slot, u8)>,
    statement: usize,
    /// Nothing jumps to what is between here and the next instruction.
    block: usize,
}

/// Where something of several slots is read from or written to.
#[derive(Clone, Debug)]
pub(crate) enum Access {
    /// One of these fields, by index.
    Fields { fields: Vec<FieldLayout>, limbs: u8 },
    /// All of these headers, each with the slot that says whether it is valid.
    Headers(Vec<(u16, Slot)>),
    /// A register, to or from a field.
    Register { register: u16, to: FieldLayout },
}

impl Assembler {
    pub(in crate::program) fn new(layout: &Layout) -> Self {
        Self {
            code: Vec::new(),
            constants: Vec::new(),
            accesses: Vec::new(),
            next_slot: u32::from(layout.packet_slots),
            constant_slots: HashMap::new(),
            free: HashMap::new(),
            taken: Vec::new(),
            statement: 0,
            block: 0,
        }
    }

    /// The next instruction's place.
    pub(in crate::program) fn here(&self) -> Label {
        self.code.len() as Label
    }

    pub(in crate::program) fn push(&mut self, place: &str, op: Op) -> Result<(), LoadError> {
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
    pub(in crate::program) fn jump_if_false(
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
    pub(in crate::program) fn patch(&mut self, from: Label, target: Label) {
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
        self.begin_block();
    }

    /// Something may jump to the next instruction.
    pub(in crate::program) fn begin_block(&mut self) {
        self.block = self.code.len();
    }

    /// Ends a statement: temporaries are free again.
    pub(in crate::program) fn end_statement(&mut self) {
        for (slot, limbs) in self.taken.drain(..) {
            self.free.entry(limbs).or_default().push(slot);
        }
        self.statement = self.code.len();
    }

    /// A slot that holds this number for good.
    pub(in crate::program) fn constant(
        &mut self,
        place: &str,
        number: u64,
    ) -> Result<Slot, LoadError> {
        self.wide_constant(place, vec![number])
    }

    /// Slots that nothing else uses.
    pub(in crate::program) fn reserve(
        &mut self,
        place: &str,
        count: u32,
    ) -> Result<Slot, LoadError> {
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

    /// Slots for the rest of the statement.
    pub(in crate::program) fn temporary(
        &mut self,
        scope: Scope<'_>,
        limbs: u32,
    ) -> Result<Slot, LoadError> {
        let count = limbs as u8;
        let slot = match self.free.get_mut(&count).and_then(Vec::pop) {
            Some(slot) => slot,
            None => self.reserve(scope.place, limbs)?,
        };
        self.taken.push((slot, count));
        Ok(slot)
    }

    fn access(&mut self, place: &str, access: Access) -> Result<u16, LoadError> {
        let index = self.accesses.len();
        let limit = u64::from(u16::MAX);
        let number = u16::try_from(index)
            .map_err(|_| too_large(place, "indirect accesses", index as u64, limit))?;
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
}
