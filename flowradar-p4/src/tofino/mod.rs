//! Flowsets of Tofino's registers, sans I/O.
//!
//! The program `p4src/tofino/switch.p4` keeps a bank in 24 register arrays (`docs/tofino.md`). They have no
//! header, no epoch and no seed, and every pipe of the chip has its own. [`BankRegisters`] takes what one
//! pipe's arrays hold, entry by entry in any order, and makes a flowset of it that the decoders read.
//!
//! One flowset for each pipe, never a sum over pipes: a flow whose packets leave through two pipes is new in
//! both filters and XORed into the same cells in both, so that in the sum it would vanish from FlowXOR,
//! while FlowCount said two. To the decoders each pipe is a switch of its own ([`pipe_switch_name`]).

mod registers;

use std::fmt::{self, Display, Formatter};

use flowradar_core::flowset::{SwitchName, SwitchNameError};
use flowradar_core::hash::HashFamilyId;
use flowradar_core::layout::{
    CellWidths, Coupling, FilterLayout, Layout, LayoutError, TableLayout,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::config::Fingerprint;

pub use registers::{
    BankCounters, BankRegisters, EntryReason, PipeSums, RegistersError, SumKind, check_counters,
};

/// Arrays of single bits: one for each hash of the flow filter.
pub const FILTER_ARRAYS: u8 = 8;

/// Subtables of the counting table.
pub const SUBTABLES: u8 = 4;

/// Widest index of a filter array, in bits: more than a chip has room for.
const FILTER_INDEX_BITS_MAX: u8 = 24;

/// Widest index of a cell, in bits: the program keeps the top half of a table lane.
const CELL_INDEX_BITS_MAX: u8 = 16;

/// A Tofino program's sizes: the `#define`s of `p4src/tofino/switch.p4`.
///
/// ```
/// use flowradar_p4::tofino::TofinoProgram;
///
/// let layout = *TofinoProgram::default().layout();
/// assert_eq!(layout.table().cells(), 4 * 32_768);
/// assert_eq!(layout.filter().bits(), 8 * 524_288);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TofinoProgram {
    filter_index_bits: u8,
    cell_index_bits: u8,
    layout: Layout,
}

impl TofinoProgram {
    /// A program with other sizes, two banks: `FILTER_INDEX_BITS`, `CELL_INDEX_BITS`, and the seed that
    /// `SEED_HIGH` and `SEED_LOW` are mixed from.
    ///
    /// # Errors
    /// If no layout has these sizes.
    pub fn new(
        filter_index_bits: u8,
        cell_index_bits: u8,
        seed: u64,
    ) -> Result<Self, TofinoProgramError> {
        if filter_index_bits > FILTER_INDEX_BITS_MAX || cell_index_bits > CELL_INDEX_BITS_MAX {
            return Err(TofinoProgramError::IndexBits {
                filter: filter_index_bits,
                cell: cell_index_bits,
            });
        }
        let widths = CellWidths::new(8, 32, 32)?;
        let cells = 1 << cell_index_bits;
        let table = TableLayout::new(SUBTABLES, cells, Coupling::Plain, widths)?;
        let filter = FilterLayout::partitioned(FILTER_ARRAYS, 1 << filter_index_bits)?;
        Ok(Self {
            filter_index_bits,
            cell_index_bits,
            layout: Layout::new(HashFamilyId::CrcAdd, seed, table, filter)?,
        })
    }

    /// How filter and cells are laid out: crc-add, four plain subtables, a partitioned filter.
    ///
    /// Counters are as wide as in the registers, so that what saturates there says so here.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Entries of one bank of an array. The whole array has twice as many, bank 1 after bank 0.
    pub const fn bank_entries(&self, array: Array) -> u32 {
        match array {
            Array::Filter(_) => 1 << self.filter_index_bits,
            _ => 1 << self.cell_index_bits,
        }
    }

    /// What stands for the program where others report a fingerprint of their own: the switch's program
    /// reports none.
    pub fn fingerprint(&self) -> Fingerprint {
        let Self {
            filter_index_bits,
            cell_index_bits,
            layout,
        } = self;
        let seed = layout.seed();
        let text = format!("flowradar tofino 1\n{filter_index_bits} {cell_index_bits} {seed}\n");
        Fingerprint(xxh3_64(text.as_bytes()))
    }
}

impl Default for TofinoProgram {
    /// The program as it is in `p4src/tofino/switch.p4`.
    fn default() -> Self {
        Self::new(19, 15, 1).expect("the sizes of the program have a layout")
    }
}

/// Why a program has no layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TofinoProgramError {
    /// More index bits than a lane or a chip has.
    #[error(
        "indices of {filter} bits for the filter and {cell} bits for cells: use at most \
         {FILTER_INDEX_BITS_MAX} and {CELL_INDEX_BITS_MAX}"
    )]
    IndexBits {
        /// Of the filter.
        filter: u8,
        /// Of the cells.
        cell: u8,
    },
    /// The sizes are none of a layout.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

/// A register array of the program, by the number of its hash or subtable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Array {
    /// Bits of the flow filter.
    Filter(u8),
    /// XOR of source and of destination addresses.
    Addresses(u8),
    /// XOR of source and destination ports.
    Ports(u8),
    /// XOR of protocols, and FlowCount.
    ProtocolAndFlows(u8),
    /// PacketCount and ByteCount.
    Counts(u8),
}

impl Array {
    /// All arrays of the program.
    pub fn all() -> impl Iterator<Item = Self> {
        let filter = (0..FILTER_ARRAYS).map(Self::Filter);
        let cells = (0..SUBTABLES).flat_map(|subtable| {
            [
                Self::Addresses(subtable),
                Self::Ports(subtable),
                Self::ProtocolAndFlows(subtable),
                Self::Counts(subtable),
            ]
        });
        filter.chain(cells)
    }

    /// Widths in bits of what an entry holds: one number, or a pair.
    pub const fn widths_bits(self) -> &'static [u32] {
        match self {
            Self::Filter(_) => &[1],
            Self::Ports(_) => &[32],
            Self::ProtocolAndFlows(_) => &[8, 8],
            Self::Addresses(_) | Self::Counts(_) => &[32, 32],
        }
    }
}

impl Display for Array {
    /// The name in the program, as in `addresses_0`.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (name, number) = match self {
            Self::Filter(number) => ("filter", number),
            Self::Addresses(number) => ("addresses", number),
            Self::Ports(number) => ("ports", number),
            Self::ProtocolAndFlows(number) => ("protocol_and_flows", number),
            Self::Counts(number) => ("counts", number),
        };
        write!(f, "{name}_{number}")
    }
}

/// What a pipe is called in its flowsets, where the chip is called `switch`: as in `leaf-1:pipe-0`.
///
/// # Errors
/// If the name becomes too long.
pub fn pipe_switch_name(switch: &SwitchName, pipe: usize) -> Result<SwitchName, SwitchNameError> {
    format!("{switch}:pipe-{pipe}").parse()
}

#[cfg(test)]
pub(crate) mod model;
#[cfg(test)]
pub(crate) mod tests;
