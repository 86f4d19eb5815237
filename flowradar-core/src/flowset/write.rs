//! Writing a flowset.

use alloc::vec;
use alloc::vec::Vec;

use xxhash_rust::xxh3::xxh3_64;

use super::{
    CHECKSUM_BYTES, FILTER_BLOCKED, FILTER_PARTITIONED, FLAG_TOTALS, FORMAT_VERSION, FlowsetHeader,
    MAGIC, Sections, field, field_bytes, payload_checksum,
};
use crate::encoder::Cell;
use crate::key::{FlowKey, KeyKind};
use crate::layout::{Coupling, FilterLayout};

/// A cell of a counting table that was kept elsewhere, such as in a switch's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwitchCell<K> {
    /// XOR of the keys of the cell's flows.
    pub flow_xor: K,
    /// Number of flows.
    pub flow_count: u32,
    /// Number of packets.
    pub packet_count: u32,
    /// Number of bytes. Ignored if the layout does not count them.
    pub byte_count: u64,
}

/// Why a filter and cells do not make a flowset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteFlowsetError {
    /// More or fewer cells than the layout has.
    #[error("{found} cells, but the layout has {expected}")]
    Cells {
        /// Cells of the layout.
        expected: usize,
        /// Cells given.
        found: usize,
    },
    /// A bit is set behind the filter's last.
    #[error("the filter has bits set behind its last one, {0}")]
    FilterBits(u64),
    /// More or fewer words than the layout's filter has.
    #[error("{found} words of the flow filter, but the layout has {expected}")]
    FilterWords {
        /// Words of the layout.
        expected: usize,
        /// Words given.
        found: usize,
    },
    /// The header names another kind of key than the cells have.
    #[error("the cells have {found} keys, but the header says {expected}")]
    KeyKind {
        /// Kind in the header.
        expected: KeyKind,
        /// Kind of the cells.
        found: KeyKind,
    },
    /// The flowset would not fit in memory.
    #[error("the flowset does not fit in memory")]
    TooLarge,
}

/// A flowset of a filter and a table that a switch has kept: `filter` as
/// [`FlowFilter::words`](crate::filter::FlowFilter::words), `cells` subtable after subtable.
///
/// Counters beyond their layout's width are written as the highest value, which means "at least".
///
/// # Errors
/// If the parts are not those of the header's layout.
pub fn flowset_of_switch<K: FlowKey>(
    header: &FlowsetHeader,
    filter: &[u64],
    cells: &[SwitchCell<K>],
) -> Result<Vec<u8>, WriteFlowsetError> {
    let layout = &header.layout;
    if header.key != K::KIND {
        return Err(WriteFlowsetError::KeyKind {
            expected: header.key,
            found: K::KIND,
        });
    }
    if cells.len() != layout.table().cells() {
        return Err(WriteFlowsetError::Cells {
            expected: layout.table().cells(),
            found: cells.len(),
        });
    }
    if filter.len() != layout.filter().words() {
        return Err(WriteFlowsetError::FilterWords {
            expected: layout.filter().words(),
            found: filter.len(),
        });
    }
    let bits = layout.filter().bits();
    let beyond = filter
        .last()
        .is_some_and(|word| !bits.is_multiple_of(64) && word >> (bits % 64) != 0);
    if beyond {
        return Err(WriteFlowsetError::FilterBits(bits));
    }
    Sections::new(header.switch.as_str().len(), K::KIND, layout)
        .ok_or(WriteFlowsetError::TooLarge)?;
    Ok(write_contents::<K, _>(header, filter, cells))
}

/// A flowset of a filter and a table that exist in memory.
///
/// Counters beyond their layout's width are written as the highest value, which means "at least".
pub(crate) fn write_flowset<K: FlowKey>(
    header: &FlowsetHeader,
    filter: &[u64],
    cells: &[Cell<K::Words>],
) -> Vec<u8> {
    write_contents::<K, _>(header, filter, cells)
}

/// What a flowset says of a cell.
trait CellContents<K: FlowKey> {
    fn flow_xor(&self) -> K;
    fn flow_count(&self) -> u32;
    fn packet_count(&self) -> u32;
    fn byte_count(&self) -> u64;
}

impl<K: FlowKey> CellContents<K> for Cell<K::Words> {
    fn flow_xor(&self) -> K {
        K::from_words(self.flow_xor)
    }

    fn flow_count(&self) -> u32 {
        self.flow_count()
    }

    fn packet_count(&self) -> u32 {
        self.packet_count()
    }

    fn byte_count(&self) -> u64 {
        self.byte_count
    }
}

impl<K: FlowKey> CellContents<K> for SwitchCell<K> {
    fn flow_xor(&self) -> K {
        self.flow_xor
    }

    fn flow_count(&self) -> u32 {
        self.flow_count
    }

    fn packet_count(&self) -> u32 {
        self.packet_count
    }

    fn byte_count(&self) -> u64 {
        self.byte_count
    }
}

fn write_contents<K: FlowKey, C: CellContents<K>>(
    header: &FlowsetHeader,
    filter: &[u64],
    cells: &[C],
) -> Vec<u8> {
    let name = header.switch.as_str();
    let sections = Sections::new(name.len(), K::KIND, &header.layout)
        .expect("a table that is in memory is no larger as a flowset");
    let mut out = vec![0; sections.total_bytes];

    write_header(header, &sections, &mut out[..sections.header_bytes]);
    let payload = &mut out[sections.header_bytes..];
    for (chunk, word) in payload.chunks_exact_mut(8).zip(filter) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    let widths = header.layout.table().widths();
    let key_bytes = K::KIND.bytes();
    let xors = &mut out[sections.flow_xor..sections.flow_count];
    for (chunk, cell) in xors.chunks_exact_mut(key_bytes).zip(cells) {
        cell.flow_xor().write_bytes(chunk);
    }
    let flow_counts = &mut out[sections.flow_count..sections.packet_count];
    write_column(flow_counts, widths.flow_count_bits(), cells, |cell| {
        cell.flow_count().min(widths.flow_count_saturated()) as u64
    });
    let packet_counts = &mut out[sections.packet_count..sections.byte_count];
    write_column(packet_counts, widths.packet_count_bits(), cells, |cell| {
        cell.packet_count().min(widths.packet_count_saturated()) as u64
    });
    if widths.counts_bytes() {
        let byte_counts = &mut out[sections.byte_count..sections.checksum];
        write_column(byte_counts, widths.byte_count_bits(), cells, |cell| {
            cell.byte_count().min(widths.byte_count_saturated())
        });
    }
    let checksum = payload_checksum(&out, &sections);
    out[sections.checksum..].copy_from_slice(&checksum.to_le_bytes());
    out
}

fn write_column<C>(out: &mut [u8], bits: u8, cells: &[C], value: impl Fn(&C) -> u64) {
    let bytes = field_bytes(bits);
    for (chunk, cell) in out.chunks_exact_mut(bytes).zip(cells) {
        chunk.copy_from_slice(&value(cell).to_le_bytes()[..bytes]);
    }
}

fn write_header(header: &FlowsetHeader, sections: &Sections, out: &mut [u8]) {
    let layout = &header.layout;
    let table = layout.table();
    let totals = header.totals.unwrap_or_default();
    let (filter_kind, filter_size) = match *layout.filter() {
        FilterLayout::Partitioned { partition_bits, .. } => (FILTER_PARTITIONED, partition_bits),
        FilterLayout::Blocked { blocks } => (FILTER_BLOCKED, blocks),
    };
    let window_cells = match table.coupling() {
        Coupling::Plain => 0,
        Coupling::Window { cells } => cells,
    };
    let flags = if header.totals.is_some() {
        FLAG_TOTALS
    } else {
        0
    };
    let header_bytes = sections.header_bytes as u16;
    let name = header.switch.as_str().as_bytes();

    out[field::MAGIC].copy_from_slice(&MAGIC);
    out[field::VERSION].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    out[field::HEADER_BYTES].copy_from_slice(&header_bytes.to_le_bytes());
    out[field::FLAGS].copy_from_slice(&flags.to_le_bytes());
    out[field::TOTAL_BYTES].copy_from_slice(&(sections.total_bytes as u64).to_le_bytes());
    out[field::EPOCH_NUMBER].copy_from_slice(&header.epoch.number.to_le_bytes());
    out[field::EPOCH_START_NS].copy_from_slice(&header.epoch.start_ns.to_le_bytes());
    out[field::EPOCH_LENGTH_NS].copy_from_slice(&header.epoch.length_ns.to_le_bytes());
    out[field::KEY_KIND] = header.key as u8;
    out[field::HASH_FAMILY] = layout.family() as u8;
    out[field::HASHES] = table.hashes() as u8;
    out[field::FLOW_COUNT_BITS] = table.widths().flow_count_bits();
    out[field::PACKET_COUNT_BITS] = table.widths().packet_count_bits();
    out[field::BYTE_COUNT_BITS] = table.widths().byte_count_bits();
    out[field::FILTER_KIND] = filter_kind;
    out[field::FILTER_HASHES] = layout.filter().hashes();
    out[field::SEED].copy_from_slice(&layout.seed().to_le_bytes());
    out[field::SUBTABLE_CELLS].copy_from_slice(&table.subtable_cells().to_le_bytes());
    out[field::WINDOW_CELLS].copy_from_slice(&window_cells.to_le_bytes());
    out[field::FILTER_SIZE].copy_from_slice(&filter_size.to_le_bytes());
    out[field::TOTAL_PACKETS].copy_from_slice(&totals.packets.to_le_bytes());
    out[field::TOTAL_IP_BYTES].copy_from_slice(&totals.bytes.to_le_bytes());
    out[field::TOTAL_NEW_FLOWS].copy_from_slice(&totals.new_flows.to_le_bytes());
    out[field::NAME_BYTES] = name.len() as u8;
    out[field::NAME..field::NAME + name.len()].copy_from_slice(name);

    let checked = out.len() - CHECKSUM_BYTES;
    let checksum = xxh3_64(&out[..checked]);
    out[checked..].copy_from_slice(&checksum.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::{Encoder, Packet};
    use crate::flowset::{Epoch, Flowset};
    use crate::key::{FlowKeyV4, FlowKeyV6};
    use crate::plan::PlanRequest;

    /// An encoder's flowset, and its header, filter and cells as a switch would hand them over.
    fn taken_apart() -> (Vec<u8>, FlowsetHeader, Vec<u64>, Vec<SwitchCell<FlowKeyV4>>) {
        let layout = PlanRequest::flows(100).plan().expect("a layout").layout;
        let switch = "leaf-1".parse().expect("a name");
        let mut encoder = Encoder::<FlowKeyV4>::new(switch, layout, Epoch::number(7)).expect("new");
        for host in 0..90 {
            let key = FlowKeyV4::new([10, 0, 0, host].into(), [10, 0, 1, 1].into(), 1, 2, 17);
            encoder.packet(&Packet { key, ip_bytes: 64 });
        }
        let bytes = encoder
            .end_epoch(Epoch::number(8))
            .expect("the first epoch")
            .to_flowset();
        let flowset = Flowset::new_checked(&bytes[..]).expect("a flowset");
        let filter_bytes = layout.filter().words() * 8;
        let header_bytes = Sections::new(6, KeyKind::V4, &layout)
            .expect("sizes")
            .header_bytes;
        let filter = bytes[header_bytes..header_bytes + filter_bytes]
            .as_chunks::<8>()
            .0
            .iter()
            .map(|word| u64::from_le_bytes(*word))
            .collect();
        let cells = flowset
            .flow_xors()
            .zip(flowset.flow_counts())
            .zip(flowset.packet_counts())
            .map(|((key, flow_count), packet_count)| SwitchCell {
                flow_xor: FlowKeyV4::from_bytes(key),
                flow_count,
                packet_count,
                byte_count: 1,
            })
            .collect();
        let header = flowset.header().clone();
        (bytes, header, filter, cells)
    }

    #[test]
    fn parts_of_a_switch_make_the_flowset_of_an_encoder() {
        let (bytes, header, filter, cells) = taken_apart();
        assert_eq!(flowset_of_switch(&header, &filter, &cells), Ok(bytes));
    }

    #[test]
    fn counters_beyond_their_width_are_saturated() {
        let (_, header, filter, mut cells) = taken_apart();
        cells[5].flow_count = 256;
        cells[5].packet_count = 1 << 24;
        let bytes = flowset_of_switch(&header, &filter, &cells).expect("fitting parts");
        let flowset = Flowset::new_checked(&bytes[..]).expect("a flowset");
        assert_eq!(flowset.flow_counts().nth(5), Some(255));
        assert_eq!(flowset.packet_counts().nth(5), Some((1 << 24) - 1));
    }

    #[test]
    fn parts_of_another_layout_are_refused() {
        let (_, header, filter, cells) = taken_apart();
        let (expected_cells, expected_words) = (cells.len(), filter.len());
        assert_eq!(
            flowset_of_switch(&header, &filter, &cells[1..]),
            Err(WriteFlowsetError::Cells {
                expected: expected_cells,
                found: expected_cells - 1
            })
        );
        assert_eq!(
            flowset_of_switch(&header, &filter[1..], &cells),
            Err(WriteFlowsetError::FilterWords {
                expected: expected_words,
                found: expected_words - 1
            })
        );
        assert_eq!(
            flowset_of_switch::<FlowKeyV6>(&header, &filter, &[]),
            Err(WriteFlowsetError::KeyKind {
                expected: KeyKind::V4,
                found: KeyKind::V6
            })
        );
        let mut beyond = filter;
        *beyond.last_mut().expect("a filter") |= 1 << 63;
        let bits = header.layout.filter().bits();
        assert!(
            !bits.is_multiple_of(64),
            "a layout with room behind the last bit"
        );
        assert_eq!(
            flowset_of_switch(&header, &beyond, &cells),
            Err(WriteFlowsetError::FilterBits(bits))
        );
    }
}
