//! Writing a flowset.

use alloc::vec;
use alloc::vec::Vec;

use xxhash_rust::xxh3::xxh3_64;

use super::{
    CHECKSUM_BYTES, FILTER_BLOCKED, FILTER_PARTITIONED, FLAG_TOTALS, FORMAT_VERSION, FlowsetHeader,
    MAGIC, Sections, field, field_bytes,
};
use crate::encoder::Cell;
use crate::key::FlowKey;
use crate::layout::{Coupling, FilterLayout};

/// A flowset of a filter and a table that exist in memory.
///
/// Counters beyond their layout's width are written as the highest value, which means "at least".
pub(crate) fn write_flowset<K: FlowKey>(
    header: &FlowsetHeader,
    filter: &[u64],
    cells: &[Cell<K::Words>],
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
        K::from_words(cell.flow_xor).write_bytes(chunk);
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
            cell.byte_count.min(widths.byte_count_saturated())
        });
    }
    let checksum = xxh3_64(&out[sections.header_bytes..sections.checksum]);
    out[sections.checksum..].copy_from_slice(&checksum.to_le_bytes());
    out
}

fn write_column<W>(out: &mut [u8], bits: u8, cells: &[Cell<W>], value: impl Fn(&Cell<W>) -> u64) {
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
