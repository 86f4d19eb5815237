//! Layouts: the sizes, hash functions and field widths of a flow filter and a counting table.
//!
//! A layout is all that encoder and decoder must agree on. It travels in every flowset.
//! [`crate::plan`] chooses one for an expected number of flows.

use crate::hash::{HashFamilyId, KeyHash, OFFSET_LANE, reduce};
use crate::key::KeyKind;

/// Fewest subtables of a counting table, that is cells of a flow.
pub const HASHES_MIN: usize = 2;

/// Most subtables of a counting table, that is cells of a flow.
pub const HASHES_MAX: usize = 6;

/// Most cells of a counting table. At 32 bytes a cell in memory this is 8 GiB.
pub const CELLS_MAX: u64 = 1 << 28;

/// Most bits of a flow filter: 4 GiB.
pub const FILTER_BITS_MAX: u64 = 1 << 35;

/// Why a layout is impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// ByteCount has a width that no cell can hold.
    #[error("ByteCount of {0} bits: use 16 to 48, or 0 for no ByteCount")]
    ByteCountBits(u8),
    /// The table is empty or too large.
    #[error("{0} cells: use 1 to {CELLS_MAX}")]
    Cells(u64),
    /// The filter is empty or too large.
    #[error("a filter of {0} bits: use 1 to {FILTER_BITS_MAX}")]
    FilterBits(u64),
    /// The filter has no hash, or more than its family offers.
    #[error("{hashes} filter hashes: the hash family {family} offers 1 to {most}")]
    FilterHashes {
        /// Filter hashes asked for.
        hashes: u8,
        /// The hash family.
        family: HashFamilyId,
        /// Most that it offers.
        most: usize,
    },
    /// FlowCount has a width that no cell can hold.
    #[error("FlowCount of {0} bits: use 2 to 16")]
    FlowCountBits(u8),
    /// The number of subtables is out of range.
    #[error("{0} subtables: use {HASHES_MIN} to {HASHES_MAX}")]
    Hashes(u8),
    /// PacketCount has a width that no cell can hold.
    #[error("PacketCount of {0} bits: use 2 to 32")]
    PacketCountBits(u8),
    /// The window of a coupled table is empty or wider than a subtable.
    #[error("a window of {window_cells} cells: use 1 to the {subtable_cells} of a subtable")]
    Window {
        /// The window.
        window_cells: u32,
        /// Cells of one subtable.
        subtable_cells: u32,
    },
}

/// Everything that encoder and decoder must agree on, checked.
///
/// ```
/// use flowradar_core::layout::{CellWidths, Coupling, FilterLayout, Layout, TableLayout};
/// use flowradar_core::hash::HashFamilyId;
///
/// let table = TableLayout::new(3, 1250, Coupling::Plain, CellWidths::default())?;
/// let filter = FilterLayout::partitioned(10, 6000)?;
/// let layout = Layout::new(HashFamilyId::Xxh3, 42, table, filter)?;
/// assert_eq!(layout.table().cells(), 3750);
/// # Ok::<(), flowradar_core::layout::LayoutError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    family: HashFamilyId,
    seed: u64,
    table: TableLayout,
    filter: FilterLayout,
}

impl Layout {
    /// A layout of a table and a filter, hashed by `family` under `seed`.
    ///
    /// # Errors
    /// If the family does not offer as many filter hashes.
    pub const fn new(
        family: HashFamilyId,
        seed: u64,
        table: TableLayout,
        filter: FilterLayout,
    ) -> Result<Self, LayoutError> {
        let most = family.filter_lanes_max();
        if filter.lanes() > most {
            return Err(LayoutError::FilterHashes {
                hashes: filter.hashes(),
                family,
                most,
            });
        }
        Ok(Self {
            family,
            seed,
            table,
            filter,
        })
    }

    /// The same layout under another seed.
    pub const fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The hash family.
    pub const fn family(&self) -> HashFamilyId {
        self.family
    }

    /// The seed that chooses the functions of the family.
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// The counting table.
    pub const fn table(&self) -> &TableLayout {
        &self.table
    }

    /// The flow filter.
    pub const fn filter(&self) -> &FilterLayout {
        &self.filter
    }

    /// Memory that one bank takes on a switch, in bits: filter and table with the field widths as
    /// they are, without padding.
    pub const fn switch_memory_bits(&self, key: KeyKind) -> u64 {
        self.filter.bits() + self.table.cells() as u64 * self.table.widths.cell_bits(key) as u64
    }
}

/// How the cells of a flow lie in the subtables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Coupling {
    /// Each cell is uniform in its subtable (NSDI 2016).
    #[default]
    Plain,
    /// All cells of a flow lie in a window of this many cells, which starts at one random offset
    /// common to all subtables. Peeling then starts at the thin ends and runs through the table, so
    /// that fewer cells suffice: spatial coupling, as in Dietzfelbinger and Walzer, ESA 2019, and
    /// Walzer, SODA 2021. Pays from some 50,000 flows up.
    Window {
        /// Width of the window in each subtable, in cells.
        cells: u32,
    },
}

/// Widths of a cell's counters, in bits.
///
/// A counter that reaches its highest value stays there: the highest value means "at least this".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CellWidths {
    flow_count: u8,
    packet_count: u8,
    byte_count: u8,
}

impl CellWidths {
    /// Widths of FlowCount (2 to 16), PacketCount (2 to 32) and ByteCount (16 to 48, or 0 for none).
    ///
    /// # Errors
    /// If a width is out of its range.
    pub const fn new(
        flow_count_bits: u8,
        packet_count_bits: u8,
        byte_count_bits: u8,
    ) -> Result<Self, LayoutError> {
        if flow_count_bits < 2 || flow_count_bits > 16 {
            return Err(LayoutError::FlowCountBits(flow_count_bits));
        }
        if packet_count_bits < 2 || packet_count_bits > 32 {
            return Err(LayoutError::PacketCountBits(packet_count_bits));
        }
        if byte_count_bits != 0 && (byte_count_bits < 16 || byte_count_bits > 48) {
            return Err(LayoutError::ByteCountBits(byte_count_bits));
        }
        Ok(Self {
            flow_count: flow_count_bits,
            packet_count: packet_count_bits,
            byte_count: byte_count_bits,
        })
    }

    /// Width of FlowCount in bits.
    pub const fn flow_count_bits(&self) -> u8 {
        self.flow_count
    }

    /// Width of PacketCount in bits.
    pub const fn packet_count_bits(&self) -> u8 {
        self.packet_count
    }

    /// Width of ByteCount in bits; 0 where bytes are not counted.
    pub const fn byte_count_bits(&self) -> u8 {
        self.byte_count
    }

    /// Whether bytes are counted.
    pub const fn counts_bytes(&self) -> bool {
        self.byte_count > 0
    }

    /// FlowCount's highest value, which means "at least this".
    pub const fn flow_count_saturated(&self) -> u32 {
        saturated(self.flow_count) as u32
    }

    /// PacketCount's highest value, which means "at least this".
    pub const fn packet_count_saturated(&self) -> u32 {
        saturated(self.packet_count) as u32
    }

    /// ByteCount's highest value, which means "at least this".
    pub const fn byte_count_saturated(&self) -> u64 {
        saturated(self.byte_count)
    }

    /// Width of a cell in bits, with FlowXOR.
    pub const fn cell_bits(&self, key: KeyKind) -> u32 {
        key.bits() + self.flow_count as u32 + self.packet_count as u32 + self.byte_count as u32
    }
}

impl Default for CellWidths {
    /// 8 bits of FlowCount (a cell of a table that decodes holds two or three flows, and hardly ever
    /// twenty), 24 bits of PacketCount (100 ms of 64-byte packets at 100 Gbit/s), no ByteCount.
    fn default() -> Self {
        Self {
            flow_count: 8,
            packet_count: 24,
            byte_count: 0,
        }
    }
}

const fn saturated(bits: u8) -> u64 {
    (1 << bits) - 1
}

/// The counting table: `hashes` subtables of equally many cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TableLayout {
    hashes: u8,
    subtable_cells: u32,
    coupling: Coupling,
    widths: CellWidths,
}

impl TableLayout {
    /// A table of `hashes` subtables (k in the paper) of `subtable_cells` cells.
    ///
    /// # Errors
    /// If a size is out of range.
    pub const fn new(
        hashes: u8,
        subtable_cells: u32,
        coupling: Coupling,
        widths: CellWidths,
    ) -> Result<Self, LayoutError> {
        if (hashes as usize) < HASHES_MIN || hashes as usize > HASHES_MAX {
            return Err(LayoutError::Hashes(hashes));
        }
        let cells = hashes as u64 * subtable_cells as u64;
        if cells == 0 || cells > CELLS_MAX {
            return Err(LayoutError::Cells(cells));
        }
        if let Coupling::Window {
            cells: window_cells,
        } = coupling
            && (window_cells == 0 || window_cells > subtable_cells)
        {
            return Err(LayoutError::Window {
                window_cells,
                subtable_cells,
            });
        }
        Ok(Self {
            hashes,
            subtable_cells,
            coupling,
            widths,
        })
    }

    /// Number of subtables: k in the paper.
    pub const fn hashes(&self) -> usize {
        self.hashes as usize
    }

    /// Cells of one subtable.
    pub const fn subtable_cells(&self) -> u32 {
        self.subtable_cells
    }

    /// Cells of all subtables.
    pub const fn cells(&self) -> usize {
        self.hashes as usize * self.subtable_cells as usize
    }

    /// Number of places that a flow can have: one over the chance that two flows share all their
    /// cells.
    pub fn places(&self) -> f64 {
        // In a coupled table the first cell can be anywhere, and the others are near it.
        let width = match self.coupling {
            Coupling::Plain => self.subtable_cells,
            Coupling::Window { cells } => cells,
        };
        self.subtable_cells as f64 * libm::pow(width as f64, self.hashes as f64 - 1.0)
    }

    /// The chance that the packets of a hidden flow look like those of `flows` known ones to every
    /// equation.
    ///
    /// With three hashes or more: that it shares all cells with one of them. With two, flows that
    /// share a cell form a component whose equations hold as soon as both subtables' sums agree, which
    /// a hidden flow between two of its cells does not change: the chance that two random cells are of
    /// one component of a sparse random graph, doubled for being on the safe side.
    pub fn confusable_share(&self, flows: f64) -> f64 {
        if self.hashes() > 2 {
            return (flows / self.places()).min(1.0);
        }
        let cells = self.subtable_cells as f64;
        let load = flows / cells;
        if load > 0.9 {
            return 1.0;
        }
        (2.0 * load / (cells * (1.0 - load * load))).min(1.0)
    }

    /// How a flow's cells lie in the subtables.
    pub const fn coupling(&self) -> Coupling {
        self.coupling
    }

    /// Widths of a cell's counters.
    pub const fn widths(&self) -> &CellWidths {
        &self.widths
    }

    /// The cells of a flow, one in each subtable, as indices into the whole table (subtable after
    /// subtable). `HASHES` must be [`TableLayout::hashes`].
    #[inline(always)]
    pub fn cells_of<const HASHES: usize>(&self, hash: &impl KeyHash) -> [u32; HASHES] {
        debug_assert_eq!(HASHES, self.hashes());
        let (start, width) = self.window(hash);
        core::array::from_fn(|subtable| {
            subtable as u32 * self.subtable_cells + start + reduce(hash.table_lane(subtable), width)
        })
    }

    /// Like [`TableLayout::cells_of`], where the number of subtables is known only at run time: the
    /// first [`TableLayout::hashes`] elements are the cells, the others zero.
    #[inline(always)]
    pub fn cells_of_any(&self, hash: &impl KeyHash) -> [u32; HASHES_MAX] {
        let (start, width) = self.window(hash);
        let mut cells = [0; HASHES_MAX];
        for (subtable, cell) in cells.iter_mut().enumerate().take(self.hashes()) {
            *cell = subtable as u32 * self.subtable_cells
                + start
                + reduce(hash.table_lane(subtable), width);
        }
        cells
    }

    /// First cell and width of the stretch of each subtable that a flow may lie in.
    #[inline(always)]
    fn window(&self, hash: &impl KeyHash) -> (u32, u32) {
        match self.coupling {
            Coupling::Plain => (0, self.subtable_cells),
            Coupling::Window { cells } => (
                reduce(
                    hash.table_lane(OFFSET_LANE),
                    self.subtable_cells - cells + 1,
                ),
                cells,
            ),
        }
    }
}

/// The flow filter: a Bloom filter in one of two arrangements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FilterLayout {
    /// One array of bits for each hash: what P4 switches have, and the fewest bits.
    /// Made by [`FilterLayout::partitioned`].
    #[non_exhaustive]
    Partitioned {
        /// Number of arrays.
        hashes: u8,
        /// Bits of one array.
        partition_bits: u32,
    },
    /// Blocks of 512 bits, eight hashes: one cache line a flow, about a third more bits.
    /// Made by [`FilterLayout::blocked`].
    #[non_exhaustive]
    Blocked {
        /// Number of blocks.
        blocks: u32,
    },
}

/// Hashes of a blocked filter: one bit in each 64-bit word of its block.
pub const BLOCK_HASHES: u8 = 8;

/// Bits of one block of a blocked filter.
pub const BLOCK_BITS: u64 = 512;

impl FilterLayout {
    /// A filter of `hashes` arrays of `partition_bits` bits.
    ///
    /// # Errors
    /// If a size is out of range.
    pub const fn partitioned(hashes: u8, partition_bits: u32) -> Result<Self, LayoutError> {
        if hashes == 0 {
            return Err(LayoutError::FilterHashes {
                hashes,
                family: HashFamilyId::Xxh3,
                most: HashFamilyId::Xxh3.filter_lanes_max(),
            });
        }
        let bits = hashes as u64 * partition_bits as u64;
        if bits == 0 || bits > FILTER_BITS_MAX {
            return Err(LayoutError::FilterBits(bits));
        }
        Ok(Self::Partitioned {
            hashes,
            partition_bits,
        })
    }

    /// A filter of `blocks` blocks of 512 bits.
    ///
    /// # Errors
    /// If it is empty or too large.
    pub const fn blocked(blocks: u32) -> Result<Self, LayoutError> {
        let bits = blocks as u64 * BLOCK_BITS;
        if bits == 0 || bits > FILTER_BITS_MAX {
            return Err(LayoutError::FilterBits(bits));
        }
        Ok(Self::Blocked { blocks })
    }

    /// Size in bits.
    pub const fn bits(&self) -> u64 {
        match *self {
            Self::Partitioned {
                hashes,
                partition_bits,
            } => hashes as u64 * partition_bits as u64,
            Self::Blocked { blocks } => blocks as u64 * BLOCK_BITS,
        }
    }

    /// Bits set for each flow.
    pub const fn hashes(&self) -> u8 {
        match *self {
            Self::Partitioned { hashes, .. } => hashes,
            Self::Blocked { .. } => BLOCK_HASHES,
        }
    }

    /// Filter lanes that the hash family must offer.
    const fn lanes(&self) -> usize {
        match *self {
            Self::Partitioned { hashes, .. } => hashes as usize,
            // One for the block, two for the bits in it.
            Self::Blocked { .. } => 3,
        }
    }

    /// Size in 64-bit words.
    pub const fn words(&self) -> usize {
        self.bits().div_ceil(64) as usize
    }
}
