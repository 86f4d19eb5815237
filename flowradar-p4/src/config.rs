//! The generated header that ties a P4 program to its layouts.
//!
//! `p4src/flowradar.p4` takes all sizes from `flowradar_config.p4`, which [`ProgramConfig::to_p4`]
//! writes and [`ProgramConfig::from_p4`] reads back. Program and decoder can so never disagree: the
//! [`Fingerprint`] of the configuration is compiled into the program, and every answer that a switch
//! gives carries it (`docs/p4-drain-format.md`).

mod header;

use std::fmt::{self, Display, Formatter};

use flowradar_core::KeyKind;
use flowradar_core::hash::HashFamilyId;
use flowradar_core::layout::{CellWidths, Coupling, FilterLayout, Layout};
use flowradar_core::plan::{CouplingChoice, FilterKind, PlanRequest};
use xxhash_rust::xxh3::xxh3_64;

pub use header::ParseHeaderError;

/// Longest answer of a switch, in bytes, from the Ethernet header on.
pub const REPLY_BYTES_MAX: usize = 1400;

/// Bytes of an answer before its rows: Ethernet and the drain header.
pub(crate) const REPLY_HEADER_BYTES: usize = 54;

/// Most rows in a chunk: what the P4 sources can repeat.
const CHUNK_ROWS_MAX: u32 = 32;

/// Most rows of one bank: indices of both banks and products with them fit in 32 bits.
const BANK_ROWS_MAX: u32 = 1 << 30;

/// A FlowRadar P4 program: its tables and what goes with them.
///
/// ```
/// use flowradar_core::hash::HashFamilyId;
/// use flowradar_core::plan::{FilterKind, PlanRequest};
/// use flowradar_p4::config::ProgramConfig;
///
/// let layout = PlanRequest::flows(10_000)
///     .family(HashFamilyId::Mix64)
///     .filter(FilterKind::Blocked)
///     .plan()?
///     .layout;
/// let program = ProgramConfig::new(Some(layout), None)?;
/// let header = program.to_p4();
/// assert!(header.contains("#define FLOWRADAR_V4_HASHES 3\n"));
/// assert_eq!(ProgramConfig::from_p4(&header)?, program);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProgramConfig {
    v4: Option<TableConfig>,
    v6: Option<TableConfig>,
    seed: u64,
    stamps_epoch: bool,
}

impl ProgramConfig {
    /// A program with a table for IPv4, for IPv6, or for both.
    ///
    /// The seed of the layouts is that of the banks until the first epoch change sets another.
    ///
    /// # Errors
    /// If there is no table, seeds differ, or a layout is none that the program can have.
    pub fn new(v4: Option<Layout>, v6: Option<Layout>) -> Result<Self, ProgramConfigError> {
        let seed = match (&v4, &v6) {
            (None, None) => return Err(ProgramConfigError::NoTable),
            (Some(v4), Some(v6)) if v4.seed() != v6.seed() => {
                return Err(ProgramConfigError::Seeds {
                    v4: v4.seed(),
                    v6: v6.seed(),
                });
            }
            (Some(layout), _) | (_, Some(layout)) => layout.seed(),
        };
        let table = |key, layout: Option<Layout>| {
            layout
                .map(|layout| TableConfig::new(key, layout))
                .transpose()
        };
        Ok(Self {
            v4: table(KeyKind::V4, v4)?,
            v6: table(KeyKind::V6, v6)?,
            seed,
            stamps_epoch: false,
        })
    }

    /// The program that is in `p4src/v1model/compiled`: 10,000 IPv4 flows and 2,000 IPv6 flows, with
    /// packets and bytes counted.
    pub fn reference() -> Self {
        let layout = |flows, key| {
            let widths = CellWidths::new(8, 32, 48).expect("widths in their ranges");
            let plan = PlanRequest::flows(flows)
                .key(key)
                .family(HashFamilyId::Mix64)
                .filter(FilterKind::Blocked)
                .coupling(CouplingChoice::Plain)
                .widths(widths)
                .plan();
            plan.expect("a small number of flows has a layout").layout
        };
        Self::new(
            Some(layout(10_000, KeyKind::V4)),
            Some(layout(2_000, KeyKind::V6)),
        )
        .expect("two layouts of mix64 with the planner's seed are a program")
    }

    /// Whether the first switch of a packet stamps the epoch's lowest bit into it.
    pub const fn with_epoch_stamp(self, stamps_epoch: bool) -> Self {
        Self {
            stamps_epoch,
            ..self
        }
    }

    /// The table for keys of this kind.
    pub const fn table(&self, key: KeyKind) -> Option<&TableConfig> {
        match key {
            KeyKind::V4 => self.v4.as_ref(),
            KeyKind::V6 => self.v6.as_ref(),
        }
    }

    /// All tables.
    pub fn tables(&self) -> impl Iterator<Item = &TableConfig> {
        self.v4.iter().chain(&self.v6)
    }

    /// The seed of both banks before the first epoch change.
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// Whether the first switch of a packet stamps the epoch's lowest bit into it.
    pub const fn stamps_epoch(&self) -> bool {
        self.stamps_epoch
    }

    /// What a switch that runs this program identifies itself with. Does not depend on the seed.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(xxh3_64(self.description().as_bytes()))
    }

    /// The text whose hash is the fingerprint (`docs/p4-drain-format.md`).
    fn description(&self) -> String {
        let mut text = format!(
            "flowradar drain 1\nstamped {}\n",
            u8::from(self.stamps_epoch)
        );
        for table in self.tables() {
            text.push_str(&table.description());
            text.push('\n');
        }
        text
    }
}

/// One flow filter and counting table of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TableConfig {
    key: KeyKind,
    layout: Layout,
}

impl TableConfig {
    fn new(key: KeyKind, layout: Layout) -> Result<Self, ProgramConfigError> {
        if layout.family() != HashFamilyId::Mix64 {
            return Err(ProgramConfigError::Family {
                key,
                family: layout.family(),
            });
        }
        let table = Self { key, layout };
        for section in [Section::Cells, Section::Filter] {
            let rows = table.rows(section);
            if rows > BANK_ROWS_MAX {
                return Err(ProgramConfigError::TooLarge { key, section, rows });
            }
        }
        Ok(table)
    }

    /// Kind of the flow keys.
    pub const fn key(&self) -> KeyKind {
        self.key
    }

    /// The layout, under the seed that banks have before the first epoch change.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Rows of a section, in one bank.
    pub const fn rows(&self, section: Section) -> u32 {
        match section {
            Section::Cells => self.layout.table().subtable_cells(),
            Section::Filter => match *self.layout.filter() {
                FilterLayout::Partitioned { partition_bits, .. } => partition_bits.div_ceil(64),
                FilterLayout::Blocked { blocks, .. } => blocks,
            },
        }
    }

    /// Bytes of a row in an answer.
    pub const fn row_bytes(&self, section: Section) -> usize {
        match section {
            Section::Cells => self.layout.table().hashes() * self.cell_bytes(),
            Section::Filter => self.layout.filter().hashes() as usize * 8,
        }
    }

    /// Bytes of a cell in an answer.
    pub(crate) const fn cell_bytes(&self) -> usize {
        let address_bytes = match self.key {
            KeyKind::V4 => 8,
            KeyKind::V6 => 32,
        };
        let byte_count_bytes = if self.layout.table().widths().counts_bytes() {
            8
        } else {
            0
        };
        address_bytes + 8 + 4 + byte_count_bytes
    }

    /// Rows in a chunk: as many as fit in [`REPLY_BYTES_MAX`].
    pub const fn chunk_rows(&self, section: Section) -> u32 {
        let fitting = (REPLY_BYTES_MAX - REPLY_HEADER_BYTES) / self.row_bytes(section);
        if fitting < CHUNK_ROWS_MAX as usize {
            fitting as u32
        } else {
            CHUNK_ROWS_MAX
        }
    }

    /// Chunks of a section, in one bank.
    pub const fn chunks(&self, section: Section) -> u32 {
        self.rows(section).div_ceil(self.chunk_rows(section))
    }

    fn description(&self) -> String {
        let table = self.layout.table();
        let widths = table.widths();
        let window_cells = match table.coupling() {
            Coupling::Plain => 0,
            Coupling::Window { cells } => cells,
        };
        let (kind, size) = match *self.layout.filter() {
            FilterLayout::Partitioned { partition_bits, .. } => ("partitioned", partition_bits),
            FilterLayout::Blocked { blocks, .. } => ("blocked", blocks),
        };
        format!(
            "{} hash {} hashes {} cells {} window {} widths {} {} {} filter {} {} {} rows {} {}",
            match self.key {
                KeyKind::V4 => "v4",
                KeyKind::V6 => "v6",
            },
            self.layout.family(),
            table.hashes(),
            table.subtable_cells(),
            window_cells,
            widths.flow_count_bits(),
            widths.packet_count_bits(),
            widths.byte_count_bits(),
            kind,
            self.layout.filter().hashes(),
            size,
            self.chunk_rows(Section::Cells),
            self.chunk_rows(Section::Filter),
        )
    }
}

/// Part of a table that is read and cleared by chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Section {
    /// The flow filter.
    Filter = 1,
    /// The counting table's cells.
    Cells = 2,
}

impl Display for Section {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Filter => "flow filter",
            Self::Cells => "cells",
        })
    }
}

/// What a running program identifies itself with: a hash of its configuration without the seed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u64);

impl Display for Fingerprint {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Why there is no program of these layouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramConfigError {
    /// A layout is hashed by a family that the program does not have.
    #[error("the {key} layout is hashed by {family}: the P4 program hashes by mix64")]
    Family {
        /// Which table.
        key: KeyKind,
        /// Its family.
        family: HashFamilyId,
    },
    /// Neither an IPv4 nor an IPv6 layout.
    #[error("a program needs a layout for IPv4, IPv6 or both")]
    NoTable,
    /// The layouts have different seeds.
    #[error(
        "the IPv4 layout has the seed {v4}, the IPv6 layout {v6}: banks have one seed for both"
    )]
    Seeds {
        /// Seed of the IPv4 layout.
        v4: u64,
        /// Seed of the IPv6 layout.
        v6: u64,
    },
    /// A section has more rows than the program can index.
    #[error("the {key} {section} has {rows} rows: use at most {BANK_ROWS_MAX}")]
    TooLarge {
        /// Which table.
        key: KeyKind,
        /// Which section.
        section: Section,
        /// Its rows.
        rows: u32,
    },
}

#[cfg(test)]
pub(crate) mod tests;
