//! A bank's registers as they arrive, row by row, and the flowset that they make.

use flowradar_core::flowset::{FlowsetHeader, SwitchCell, WriteFlowsetError, flowset_of_switch};
use flowradar_core::layout::FilterLayout;
use flowradar_core::{FlowKey, FlowKeyV4, FlowKeyV6, KeyKind};

use crate::config::{Section, TableConfig};

/// A table of one bank, being read.
#[derive(Clone, Debug)]
pub(super) struct TableRows {
    table: TableConfig,
    filter: Vec<u64>,
    cells: Cells,
}

#[derive(Clone, Debug)]
enum Cells {
    V4(Vec<SwitchCell<FlowKeyV4>>),
    V6(Vec<SwitchCell<FlowKeyV6>>),
}

/// A row that no program of this layout can have: its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ImpossibleRow(pub(super) u32);

impl TableRows {
    /// Allocates the whole table, all zero.
    pub(super) fn new(table: &TableConfig) -> Self {
        let cells = table.layout().table().cells();
        Self {
            table: *table,
            filter: vec![0; table.layout().filter().words()],
            cells: match table.key() {
                KeyKind::V4 => Cells::V4(vec![empty_cell(&[0; 13]); cells]),
                KeyKind::V6 => Cells::V6(vec![empty_cell(&[0; 37]); cells]),
            },
        }
    }

    /// Takes the rows of a chunk, as they are in an answer.
    pub(super) fn take(
        &mut self,
        section: Section,
        chunk: u32,
        rows: &[u8],
    ) -> Result<(), ImpossibleRow> {
        let first = chunk * self.table.chunk_rows(section);
        let last = self.table.rows(section);
        let rows = rows.chunks_exact(self.table.row_bytes(section));
        for (row, bytes) in (first..last)
            .zip(rows)
            .take(self.table.chunk_rows(section) as usize)
        {
            match section {
                Section::Cells => self.take_cells(row, bytes),
                Section::Filter => self.take_filter_words(row, bytes)?,
            }
        }
        Ok(())
    }

    fn take_cells(&mut self, row: u32, bytes: &[u8]) {
        let subtable_cells = self.table.layout().table().subtable_cells() as usize;
        let counts_bytes = self.table.layout().table().widths().counts_bytes();
        let cell_bytes = self.table.cell_bytes();
        for (subtable, cell) in bytes.chunks_exact(cell_bytes).enumerate() {
            let index = subtable * subtable_cells + row as usize;
            match &mut self.cells {
                Cells::V4(cells) => {
                    cells[index] = parse_cell::<FlowKeyV4, 8, 13>(cell, counts_bytes)
                }
                Cells::V6(cells) => {
                    cells[index] = parse_cell::<FlowKeyV6, 32, 37>(cell, counts_bytes);
                }
            }
        }
    }

    fn take_filter_words(&mut self, row: u32, bytes: &[u8]) -> Result<(), ImpossibleRow> {
        let words = bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|word| u64::from_be_bytes(*word));
        match *self.table.layout().filter() {
            FilterLayout::Partitioned { partition_bits, .. } => {
                for (partition, word) in (0_u64..).zip(words) {
                    let in_partition = u64::from(row) * 64;
                    let bits = (u64::from(partition_bits) - in_partition).min(64);
                    if bits < 64 && word >> bits != 0 {
                        return Err(ImpossibleRow(row));
                    }
                    let first = partition * u64::from(partition_bits) + in_partition;
                    self.set_bits(first, bits, word);
                }
            }
            FilterLayout::Blocked { .. } => {
                for (index, word) in words.enumerate() {
                    self.filter[row as usize * 8 + index] = word;
                }
            }
        }
        Ok(())
    }

    /// Writes the lowest `bits` bits of `word` to the filter's bits from `first` on.
    fn set_bits(&mut self, first: u64, bits: u64, word: u64) {
        let mask = u64::MAX >> (64 - bits);
        let (index, shift) = ((first / 64) as usize, first % 64);
        self.filter[index] = self.filter[index] & !(mask << shift) | word << shift;
        if shift + bits > 64 {
            let rest = 64 - shift;
            self.filter[index + 1] = self.filter[index + 1] & !(mask >> rest) | word >> rest;
        }
    }

    /// The encoded flowset.
    pub(super) fn to_flowset(&self, header: &FlowsetHeader) -> Result<Vec<u8>, WriteFlowsetError> {
        match &self.cells {
            Cells::V4(cells) => flowset_of_switch(header, &self.filter, cells),
            Cells::V6(cells) => flowset_of_switch(header, &self.filter, cells),
        }
    }
}

fn empty_cell<K: FlowKey>(key: &[u8]) -> SwitchCell<K> {
    SwitchCell {
        flow_xor: K::from_bytes(key),
        flow_count: 0,
        packet_count: 0,
        byte_count: 0,
    }
}

/// A cell of `ADDRESS_BYTES` of addresses, three of FlowCount, five of ports and protocol, four of
/// PacketCount, and eight of ByteCount if bytes are counted.
fn parse_cell<K: FlowKey, const ADDRESS_BYTES: usize, const KEY_BYTES: usize>(
    bytes: &[u8],
    counts_bytes: bool,
) -> SwitchCell<K> {
    let mut key = [0; KEY_BYTES];
    key[..ADDRESS_BYTES].copy_from_slice(&bytes[..ADDRESS_BYTES]);
    key[ADDRESS_BYTES..].copy_from_slice(&bytes[ADDRESS_BYTES + 3..ADDRESS_BYTES + 8]);
    let number = |range: std::ops::Range<usize>| {
        bytes[range]
            .iter()
            .fold(0, |number, &byte| number << 8 | u64::from(byte))
    };
    let counts_at = ADDRESS_BYTES + 8;
    SwitchCell {
        flow_xor: K::from_bytes(&key),
        flow_count: number(ADDRESS_BYTES..ADDRESS_BYTES + 3) as u32,
        packet_count: number(counts_at..counts_at + 4) as u32,
        byte_count: if counts_bytes {
            number(counts_at + 4..counts_at + 12)
        } else {
            0
        },
    }
}
