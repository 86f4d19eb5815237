//! Reading a flowset: check once, then borrow.

use core::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use super::{
    CHECKSUM_BYTES, Epoch, FILTER_BLOCKED, FILTER_PARTITIONED, FLAG_TOTALS, FORMAT_VERSION,
    FlowsetHeader, MAGIC, Sections, SwitchName, SwitchNameError, Totals, field, field_bytes,
    payload_checksum,
};
use crate::filter::FilterView;
use crate::hash::HashFamilyId;
use crate::key::{FlowKey, KeyKind};
use crate::layout::{CellWidths, Coupling, FilterLayout, Layout, LayoutError, TableLayout};

/// Why bytes are no flowset, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {offset}: {kind}")]
pub struct FlowsetError {
    /// Offset of the offending field from the flowset's beginning.
    pub offset: usize,
    /// What is wrong with it.
    pub kind: FlowsetErrorKind,
}

/// What is wrong with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlowsetErrorKind {
    /// A counter is higher than its width allows.
    #[error(
        "a counter of {value} in a field of {bits} bits: the flowset was not written by an encoder"
    )]
    Counter {
        /// The counter.
        value: u64,
        /// Width of the field.
        bits: u8,
    },
    /// The bytes end too early.
    #[error("{found} bytes where {needed} are needed: the flowset was cut off")]
    CutOff {
        /// Bytes there are.
        found: usize,
        /// Bytes needed.
        needed: u64,
    },
    /// Hash families have numbers 1 to 3.
    #[error("hash family {0} is unknown: written by a newer version?")]
    HashFamily(u8),
    /// Header and checksum do not match.
    #[error(
        "the header's checksum is {computed:016x}, {stated:016x} is stated: the header was damaged"
    )]
    HeaderChecksum {
        /// Checksum of the bytes.
        computed: u64,
        /// Checksum in the bytes.
        stated: u64,
    },
    /// The filter's kind is unknown, or the number of its hashes does not fit the kind.
    #[error("filter kind {kind} with {hashes} hashes is unknown: written by a newer version?")]
    FilterKind {
        /// Number of the kind.
        kind: u8,
        /// Number of hashes.
        hashes: u8,
    },
    /// Flags that this version does not know.
    #[error("unknown flags {0:#x}: written by a newer version?")]
    Flags(u32),
    /// Keys are of kind 4 or 6.
    #[error("key kind {0}: use 4 or 6")]
    KeyKind(u8),
    /// The sizes are not those of a layout.
    #[error("impossible layout: {0}")]
    Layout(LayoutError),
    /// A length does not follow from the layout.
    #[error("a length of {stated} where the layout gives {needed}")]
    Length {
        /// Length in the header.
        stated: u64,
        /// Length that follows from the other fields.
        needed: u64,
    },
    /// The first bytes are not those of a flowset.
    #[error("not a flowset: the first bytes are not 89 46 4c 4f 57 52 0d 0a")]
    Magic,
    /// Bytes that must be zero are not.
    #[error("bytes that must be zero are not: written by a newer version, or damaged")]
    NotZero,
    /// Filter or table and their checksum do not match.
    #[error(
        "the checksum of filter and table is {computed:016x}, {stated:016x} is stated: the flowset was damaged"
    )]
    PayloadChecksum {
        /// Checksum of the bytes.
        computed: u64,
        /// Checksum in the bytes.
        stated: u64,
    },
    /// The name is no switch name.
    #[error("bad switch name: {0}")]
    SwitchName(SwitchNameError),
    /// The name is not UTF-8.
    #[error("the switch name is not UTF-8")]
    SwitchNameUtf8,
    /// There are bytes after the flowset.
    #[error("{0} bytes follow the flowset")]
    TrailingBytes(usize),
    /// A version of the format that this version does not read.
    #[error("format version {0}: this reads version {FORMAT_VERSION}")]
    Version(u16),
}

/// A checked flowset over any bytes: borrowed, owned or mapped.
///
/// ```
/// use flowradar_core::flowset::{Flowset, FlowsetError, FlowsetErrorKind};
/// let error = Flowset::new_checked(&b"GIF89a......"[..]).unwrap_err();
/// assert_eq!(error, FlowsetError { offset: 0, kind: FlowsetErrorKind::Magic });
/// ```
#[derive(Clone, Debug)]
pub struct Flowset<B> {
    bytes: B,
    header: FlowsetHeader,
    sections: Sections,
}

impl<B: AsRef<[u8]>> Flowset<B> {
    /// Checks that `bytes` are exactly one flowset: form, sizes and checksums. O(bytes), and nothing
    /// is copied but the switch's name.
    ///
    /// # Errors
    /// [`FlowsetError`], with the offset of what is wrong.
    pub fn new_checked(bytes: B) -> Result<Self, FlowsetError> {
        let (header, sections) = check(bytes.as_ref())?;
        let trailing = bytes.as_ref().len() - sections.total_bytes;
        if trailing > 0 {
            return Err(FlowsetError {
                offset: sections.total_bytes,
                kind: FlowsetErrorKind::TrailingBytes(trailing),
            });
        }
        Ok(Self {
            bytes,
            header,
            sections,
        })
    }

    /// The header.
    pub fn header(&self) -> &FlowsetHeader {
        &self.header
    }

    /// The layout.
    pub fn layout(&self) -> &Layout {
        &self.header.layout
    }

    /// The flow filter.
    pub fn filter(&self) -> FilterView<'_> {
        let (words, rest) = self
            .section(self.sections.header_bytes..self.sections.flow_xor)
            .as_chunks();
        debug_assert!(rest.is_empty());
        FilterView::new(*self.layout().filter(), words)
    }

    /// FlowXOR of each cell, in network order, subtable after subtable.
    pub fn flow_xors(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let key_bytes = self.header.key.bytes();
        let cells = self.layout().table().cells();
        self.section(self.sections.flow_xor..self.sections.flow_count)[..cells * key_bytes]
            .chunks_exact(key_bytes)
    }

    /// FlowXOR of the cells from `first` on, in a flowset with keys of kind `K`.
    #[inline]
    pub(crate) fn flow_xors_from<K: FlowKey>(&self, first: usize) -> impl Iterator<Item = &[u8]> {
        let key_bytes = K::KIND.bytes();
        let section = self.section(self.sections.flow_xor..self.sections.flow_count);
        section[first * key_bytes..].chunks_exact(key_bytes)
    }

    /// FlowCount of each cell. The highest value that fits its width means "at least this".
    pub fn flow_counts(&self) -> impl ExactSizeIterator<Item = u32> {
        let bits = self.layout().table().widths().flow_count_bits();
        self.column(self.sections.flow_count..self.sections.packet_count, bits)
            .map(|value| value as u32)
    }

    /// PacketCount of each cell. The highest value that fits its width means "at least this".
    pub fn packet_counts(&self) -> impl ExactSizeIterator<Item = u32> {
        let bits = self.layout().table().widths().packet_count_bits();
        self.column(self.sections.packet_count..self.sections.byte_count, bits)
            .map(|value| value as u32)
    }

    /// FlowCount and PacketCount of the cells from `first` on: of equally many.
    #[inline]
    pub(crate) fn read_counts(&self, first: usize, flows: &mut [u32], packets: &mut [u32]) {
        let widths = self.layout().table().widths();
        let flow_counts = self.section(self.sections.flow_count..self.sections.packet_count);
        let packet_counts = self.section(self.sections.packet_count..self.sections.byte_count);
        read_counts(flow_counts, widths.flow_count_bits(), first, flows);
        read_counts(packet_counts, widths.packet_count_bits(), first, packets);
    }

    /// ByteCount of each cell, if bytes are counted. The highest value that fits its width means "at
    /// least this".
    pub fn byte_counts(&self) -> Option<impl ExactSizeIterator<Item = u64>> {
        let bits = self.layout().table().widths().byte_count_bits();
        (bits > 0).then(|| self.column(self.sections.byte_count..self.sections.checksum, bits))
    }

    /// The flowset's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    /// The bytes, given back.
    pub fn into_inner(self) -> B {
        self.bytes
    }

    fn section(&self, range: Range<usize>) -> &[u8] {
        // In range: new_checked compared the length with the sections.
        &self.bytes.as_ref()[range]
    }

    fn column(&self, range: Range<usize>, bits: u8) -> impl ExactSizeIterator<Item = u64> {
        let cells = self.layout().table().cells();
        column_values(self.section(range), bits, cells)
    }
}

impl<'a> Flowset<&'a [u8]> {
    /// Takes the first flowset off bytes that hold several, one after the other.
    ///
    /// # Errors
    /// Like [`Flowset::new_checked`], but bytes may follow.
    pub fn split_first(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), FlowsetError> {
        let (header, sections) = check(bytes)?;
        let (bytes, rest) = bytes.split_at(sections.total_bytes);
        let flowset = Self {
            bytes,
            header,
            sections,
        };
        Ok((flowset, rest))
    }
}

/// Checks everything up to the end of the flowset.
fn check(bytes: &[u8]) -> Result<(FlowsetHeader, Sections), FlowsetError> {
    let (header, sections) = check_header(bytes)?;
    let stated = u64_at(bytes, field::TOTAL_BYTES);
    let needed = sections.total_bytes as u64;
    if stated != needed {
        return Err(length_error(field::TOTAL_BYTES.start, stated, needed));
    }
    if (bytes.len() as u64) < needed {
        return Err(cut_off(bytes.len(), needed));
    }
    let computed = payload_checksum(bytes, &sections);
    let stated = u64_at(bytes, sections.checksum..sections.total_bytes);
    if computed != stated {
        return Err(FlowsetError {
            offset: sections.checksum,
            kind: FlowsetErrorKind::PayloadChecksum { computed, stated },
        });
    }
    check_payload(bytes, &header, &sections)?;
    Ok((header, sections))
}

fn check_header(bytes: &[u8]) -> Result<(FlowsetHeader, Sections), FlowsetError> {
    let magic = &bytes[..bytes.len().min(MAGIC.len())];
    if magic != &MAGIC[..magic.len()] {
        return Err(error(0, FlowsetErrorKind::Magic));
    }
    if bytes.len() < field::NAME {
        return Err(cut_off(bytes.len(), field::NAME as u64));
    }
    let version = u16_at(bytes, field::VERSION);
    if version != FORMAT_VERSION {
        return Err(error(
            field::VERSION.start,
            FlowsetErrorKind::Version(version),
        ));
    }
    let header_bytes = u16_at(bytes, field::HEADER_BYTES) as usize;
    let name_bytes = bytes[field::NAME_BYTES] as usize;
    let needed = (field::NAME + name_bytes).next_multiple_of(super::ALIGNMENT) + CHECKSUM_BYTES;
    if header_bytes != needed {
        return Err(length_error(
            field::HEADER_BYTES.start,
            header_bytes as u64,
            needed as u64,
        ));
    }
    if bytes.len() < header_bytes {
        return Err(cut_off(bytes.len(), header_bytes as u64));
    }
    let checked = header_bytes - CHECKSUM_BYTES;
    let computed = xxh3_64(&bytes[..checked]);
    let stated = u64_at(bytes, checked..header_bytes);
    if computed != stated {
        return Err(error(
            checked,
            FlowsetErrorKind::HeaderChecksum { computed, stated },
        ));
    }

    let flags = u32_at(bytes, field::FLAGS);
    if flags & !FLAG_TOTALS != 0 {
        return Err(error(field::FLAGS.start, FlowsetErrorKind::Flags(flags)));
    }
    for reserved in [
        field::RESERVED_1,
        field::RESERVED_2,
        field::NAME + name_bytes..checked,
    ] {
        check_zero(bytes, reserved)?;
    }
    let key = match bytes[field::KEY_KIND] {
        4 => KeyKind::V4,
        6 => KeyKind::V6,
        other => return Err(error(field::KEY_KIND, FlowsetErrorKind::KeyKind(other))),
    };
    let layout = read_layout(bytes)?;
    let switch = read_name(&bytes[field::NAME..field::NAME + name_bytes])?;
    let totals = if flags & FLAG_TOTALS != 0 {
        Some(Totals {
            packets: u64_at(bytes, field::TOTAL_PACKETS),
            bytes: u64_at(bytes, field::TOTAL_IP_BYTES),
            new_flows: u64_at(bytes, field::TOTAL_NEW_FLOWS),
        })
    } else {
        check_zero(
            bytes,
            field::TOTAL_PACKETS.start..field::TOTAL_NEW_FLOWS.end,
        )?;
        None
    };
    let sections =
        Sections::new(name_bytes, key, &layout).ok_or_else(|| cut_off(bytes.len(), u64::MAX))?;
    let header = FlowsetHeader {
        switch,
        epoch: Epoch {
            number: u64_at(bytes, field::EPOCH_NUMBER),
            start_ns: u64_at(bytes, field::EPOCH_START_NS),
            length_ns: u64_at(bytes, field::EPOCH_LENGTH_NS),
        },
        key,
        layout,
        totals,
    };
    Ok((header, sections))
}

fn read_name(bytes: &[u8]) -> Result<SwitchName, FlowsetError> {
    let name = core::str::from_utf8(bytes).map_err(|utf8| {
        error(
            field::NAME + utf8.valid_up_to(),
            FlowsetErrorKind::SwitchNameUtf8,
        )
    })?;
    name.parse().map_err(|reason| {
        let offset = match reason {
            SwitchNameError::Character { position, .. } => field::NAME + position,
            SwitchNameError::Length(_) => field::NAME_BYTES,
        };
        error(offset, FlowsetErrorKind::SwitchName(reason))
    })
}

fn read_layout(bytes: &[u8]) -> Result<Layout, FlowsetError> {
    let family = bytes[field::HASH_FAMILY];
    let family = HashFamilyId::from_number(family)
        .ok_or_else(|| error(field::HASH_FAMILY, FlowsetErrorKind::HashFamily(family)))?;
    let widths = CellWidths::new(
        bytes[field::FLOW_COUNT_BITS],
        bytes[field::PACKET_COUNT_BITS],
        bytes[field::BYTE_COUNT_BITS],
    )
    .map_err(layout_error)?;
    let coupling = match u32_at(bytes, field::WINDOW_CELLS) {
        0 => Coupling::Plain,
        cells => Coupling::Window { cells },
    };
    let subtable_cells = u32_at(bytes, field::SUBTABLE_CELLS);
    let table = TableLayout::new(bytes[field::HASHES], subtable_cells, coupling, widths)
        .map_err(layout_error)?;
    let filter_size = u32_at(bytes, field::FILTER_SIZE);
    let (kind, hashes) = (bytes[field::FILTER_KIND], bytes[field::FILTER_HASHES]);
    let filter = match kind {
        FILTER_PARTITIONED => FilterLayout::partitioned(hashes, filter_size),
        FILTER_BLOCKED if hashes == crate::layout::BLOCK_HASHES => {
            FilterLayout::blocked(filter_size)
        }
        _ => {
            let kind = FlowsetErrorKind::FilterKind { kind, hashes };
            return Err(error(field::FILTER_KIND, kind));
        }
    }
    .map_err(layout_error)?;
    Layout::new(family, u64_at(bytes, field::SEED), table, filter).map_err(layout_error)
}

/// The error of an impossible layout, at the field that makes it so.
fn layout_error(reason: LayoutError) -> FlowsetError {
    let offset = match reason {
        LayoutError::ByteCountBits(_) => field::BYTE_COUNT_BITS,
        LayoutError::Cells(_) => field::SUBTABLE_CELLS.start,
        LayoutError::FilterBits(_) => field::FILTER_SIZE.start,
        LayoutError::FilterHashes { .. } => field::FILTER_HASHES,
        LayoutError::FlowCountBits(_) => field::FLOW_COUNT_BITS,
        LayoutError::Hashes(_) => field::HASHES,
        LayoutError::PacketCountBits(_) => field::PACKET_COUNT_BITS,
        LayoutError::Window { .. } => field::WINDOW_CELLS.start,
    };
    error(offset, FlowsetErrorKind::Layout(reason))
}

/// What checksums cannot show: padding that is not zero, counters beyond their widths.
fn check_payload(
    bytes: &[u8],
    header: &FlowsetHeader,
    sections: &Sections,
) -> Result<(), FlowsetError> {
    let table = header.layout.table();
    let (cells, widths) = (table.cells(), table.widths());
    let filter_bits = header.layout.filter().bits();
    if !filter_bits.is_multiple_of(64) {
        let last = sections.flow_xor - 8..sections.flow_xor;
        if u64_at(bytes, last.clone()) >> (filter_bits % 64) != 0 {
            return Err(error(last.start, FlowsetErrorKind::NotZero));
        }
    }
    debug_assert_eq!(
        sections.filter_bytes,
        sections.flow_xor - sections.header_bytes
    );
    check_zero(
        bytes,
        sections.flow_xor + cells * header.key.bytes()..sections.flow_count,
    )?;
    let columns = [
        (
            sections.flow_count..sections.packet_count,
            widths.flow_count_bits(),
        ),
        (
            sections.packet_count..sections.byte_count,
            widths.packet_count_bits(),
        ),
        (
            sections.byte_count..sections.checksum,
            widths.byte_count_bits(),
        ),
    ];
    for (range, bits) in columns {
        let width = field_bytes(bits);
        check_zero(bytes, range.start + cells * width..range.end)?;
        if bits % 8 != 0 {
            let section = &bytes[range.clone()];
            for (cell, value) in column_values(section, bits, cells).enumerate() {
                if value >> bits != 0 {
                    return Err(error(
                        range.start + cell * width,
                        FlowsetErrorKind::Counter { value, bits },
                    ));
                }
            }
        }
    }
    Ok(())
}

fn check_zero(bytes: &[u8], range: Range<usize>) -> Result<(), FlowsetError> {
    match bytes[range.clone()].iter().position(|&byte| byte != 0) {
        Some(position) => Err(error(range.start + position, FlowsetErrorKind::NotZero)),
        None => Ok(()),
    }
}

/// The values of a column, each in as many bytes as its width needs.
fn column_values(section: &[u8], bits: u8, cells: usize) -> impl ExactSizeIterator<Item = u64> {
    let width = field_bytes(bits);
    section[..cells * width]
        .chunks_exact(width.max(1))
        .map(|chunk| match *chunk {
            // The usual widths, without a copy of unknown length.
            [a] => a as u64,
            [a, b] => u16::from_le_bytes([a, b]) as u64,
            [a, b, c] => u32::from_le_bytes([a, b, c, 0]) as u64,
            [a, b, c, d] => u32::from_le_bytes([a, b, c, d]) as u64,
            _ => {
                let mut value = [0; 8];
                value[..chunk.len()].copy_from_slice(chunk);
                u64::from_le_bytes(value)
            }
        })
}

/// The values of a column of at most 32 bits from number `first` on.
#[inline]
fn read_counts(section: &[u8], bits: u8, first: usize, counts: &mut [u32]) {
    match field_bytes(bits) {
        1 => read_counts_of::<1>(section, first, counts),
        2 => read_counts_of::<2>(section, first, counts),
        3 => read_counts_of::<3>(section, first, counts),
        _ => read_counts_of::<4>(section, first, counts),
    }
}

#[inline]
fn read_counts_of<const WIDTH: usize>(section: &[u8], first: usize, counts: &mut [u32]) {
    let (values, _) = section.as_chunks::<WIDTH>();
    for (count, value) in counts.iter_mut().zip(&values[first..]) {
        let mut bytes = [0; 4];
        bytes[..WIDTH].copy_from_slice(value);
        *count = u32::from_le_bytes(bytes);
    }
}

fn error(offset: usize, kind: FlowsetErrorKind) -> FlowsetError {
    FlowsetError { offset, kind }
}

fn cut_off(found: usize, needed: u64) -> FlowsetError {
    error(found, FlowsetErrorKind::CutOff { found, needed })
}

fn length_error(offset: usize, stated: u64, needed: u64) -> FlowsetError {
    error(offset, FlowsetErrorKind::Length { stated, needed })
}

fn u16_at(bytes: &[u8], range: Range<usize>) -> u16 {
    u64_at(bytes, range) as u16
}

fn u32_at(bytes: &[u8], range: Range<usize>) -> u32 {
    u64_at(bytes, range) as u32
}

/// The little-endian number in at most eight bytes that the caller knows to be there.
fn u64_at(bytes: &[u8], range: Range<usize>) -> u64 {
    let mut value = [0; 8];
    value[..range.len()].copy_from_slice(&bytes[range]);
    u64::from_le_bytes(value)
}
