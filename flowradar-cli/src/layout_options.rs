//! Arguments that choose a layout.

use clap::ValueEnum;
use flowradar_core::KeyKind;
use flowradar_core::hash::HashFamilyId;
use flowradar_core::layout::{
    BLOCK_BITS, CellWidths, Coupling, FilterLayout, HASHES_MAX, HASHES_MIN, Layout, TableLayout,
};

use crate::outcome::CommandError;
use crate::units;

/// Arrangement of the flow filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum FilterKind {
    /// Blocks of one cache line: fast in software.
    #[default]
    Blocked,
    /// One array for each hash, as P4 switches have: the fewest bits.
    Partitioned,
}

/// Arguments that choose a layout.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Layout")]
pub(crate) struct LayoutOptions {
    /// Flows of one epoch (of IPv4, and as many of IPv6) that must be decodable
    #[arg(long, value_name = "N", value_parser = units::parse_count, conflicts_with = "memory")]
    pub(crate) flows: Option<u64>,

    /// Memory of one bank (for IPv4, and as much for IPv6) as on a switch: flow filter and counting
    /// table, such as 2MB or 2MiB; chooses the number of flows
    #[arg(long, value_name = "BYTES", value_parser = units::parse_size)]
    pub(crate) memory: Option<u64>,

    /// Count bytes (from the IP header on) too
    #[arg(long)]
    pub(crate) bytes: bool,

    /// Cells of a flow, that is subtables: k in the paper, 2 to 6
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u8).range(HASHES_MIN as i64..=HASHES_MAX as i64))]
    pub(crate) hashes: Option<u8>,

    /// Cells of the counting table for each flow
    #[arg(long, value_name = "X", value_parser = units::parse_ratio, conflicts_with = "memory")]
    pub(crate) cells_per_flow: Option<f64>,

    /// Arrangement of the flow filter
    #[arg(long, value_enum, default_value_t = FilterKind::Blocked)]
    pub(crate) filter: FilterKind,

    /// Hash family: xxh3 (software), mix64 (bmv2 and other targets that multiply) or crc-add
    /// (Tofino)
    #[arg(long, value_name = "FAMILY", value_parser = parse_family, default_value = "xxh3")]
    pub(crate) family: HashFamilyId,

    /// Seed of the hash functions; without it, one that follows from the switch's name
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
}

impl LayoutOptions {
    /// A layout for flows of this kind.
    pub(crate) fn layout(
        &self,
        _key: KeyKind,
        flows: u64,
        seed: u64,
        packet_count_bits: u8,
    ) -> Result<Layout, CommandError> {
        let hashes = self.hashes.unwrap_or(3);
        let cells_per_flow = self.cells_per_flow.unwrap_or(1.35);
        let subtable = (flows as f64 * cells_per_flow / f64::from(hashes)) as u32 + 32;
        let widths = CellWidths::new(8, packet_count_bits, if self.bytes { 48 } else { 0 })?;
        let table = TableLayout::new(hashes, subtable, Coupling::Plain, widths)?;
        let filter = match self.filter {
            FilterKind::Blocked => FilterLayout::blocked((flows * 64 / BLOCK_BITS + 16) as u32)?,
            FilterKind::Partitioned => FilterLayout::partitioned(16, (flows * 2 + 64) as u32)?,
        };
        Ok(Layout::new(self.family, seed, table, filter)?)
    }

    /// How many flows of this kind fit in so much memory.
    pub(crate) fn flows_in(&self, key: KeyKind, memory_bytes: u64) -> Result<u64, CommandError> {
        let bits = |flows| -> Result<u64, CommandError> {
            Ok(self.layout(key, flows, 0, 24)?.switch_memory_bits(key))
        };
        let (mut least, mut most) = (1, memory_bytes);
        if bits(least)? > memory_bytes * 8 {
            return Err(CommandError::Usage(format!(
                "{memory_bytes} bytes of memory hold no flow"
            )));
        }
        while most - least > 1 {
            let middle = least + (most - least) / 2;
            if bits(middle).is_ok_and(|bits| bits <= memory_bytes * 8) {
                least = middle;
            } else {
                most = middle;
            }
        }
        Ok(least)
    }
}

/// A hash family by its name.
fn parse_family(name: &str) -> Result<HashFamilyId, String> {
    HashFamilyId::from_name(name).ok_or_else(|| "use xxh3, mix64 or crc-add".into())
}
