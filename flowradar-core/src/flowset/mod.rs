//! The encoded flowset: what a switch reports for one epoch.
//!
//! A flowset explains itself: it carries the switch, the epoch, the layout with hash family and
//! seed, the totals, the flow filter and the counting table, each under a checksum. The format is
//! specified in `docs/flowset-format.md`; all numbers are little-endian.
//!
//! [`Flowset::new_checked`] checks everything about the bytes once and borrows them from then on.
//! Bytes may come from anywhere: whatever they hold, the outcome is a flowset or a
//! [`FlowsetError`] that says where and why, and nothing is allocated beyond the switch's name.

mod read;
mod write;

use alloc::string::String;
use core::fmt::{self, Display, Formatter};
use core::str::FromStr;

pub use read::{Flowset, FlowsetError, FlowsetErrorKind};
pub(crate) use write::write_flowset;
pub use write::{SwitchCell, WriteFlowsetError, flowset_of_switch};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::key::KeyKind;
use crate::layout::Layout;

/// The stretch of time that a flowset covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch {
    /// Counts epochs. Flowsets of different switches with the same number belong together.
    pub number: u64,
    /// When the epoch began, in nanoseconds since 1970; 0 if unknown.
    pub start_ns: u64,
    /// How long the epoch was, in nanoseconds; 0 if unknown or unlimited.
    pub length_ns: u64,
}

impl Epoch {
    /// An epoch with a number but no known time.
    pub const fn number(number: u64) -> Self {
        Self {
            number,
            start_ns: 0,
            length_ns: 0,
        }
    }
}

/// What a switch counted in an epoch, apart from filter and table: the other side of the
/// conservation check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Totals {
    /// Packets encoded.
    pub packets: u64,
    /// Bytes of these packets, from the IP header on.
    pub bytes: u64,
    /// Packets whose flow was new to the flow filter: flows in the table.
    pub new_flows: u64,
}

impl Totals {
    #[inline]
    pub(crate) fn add(&mut self, new_flows: u64, packets: u64, bytes: u64) {
        self.packets += packets;
        self.bytes = self.bytes.wrapping_add(bytes);
        self.new_flows += new_flows;
    }
}

/// A flowset's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowsetHeader {
    /// The switch that reports.
    pub switch: SwitchName,
    /// The epoch reported.
    pub epoch: Epoch,
    /// Kind of flow key in the table.
    pub key: KeyKind,
    /// Sizes, hash functions and widths.
    pub layout: Layout,
    /// Totals, where the switch counts them.
    pub totals: Option<Totals>,
}

/// The name of a switch: 1 to 128 bytes of letters, digits and `-_.:@#+`, not beginning with a dot,
/// so that it can stand in a file name, a CSV field and a metric label.
///
/// ```
/// use flowradar_core::flowset::{SwitchName, SwitchNameError};
/// assert_eq!("agg-1-0".parse::<SwitchName>()?.as_str(), "agg-1-0");
/// assert_eq!("../etc".parse::<SwitchName>(), Err(SwitchNameError::Character { position: 0, found: '.' }));
/// # Ok::<(), SwitchNameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SwitchName(String);

/// Why a text is no switch name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SwitchNameError {
    /// A character that cannot be in a switch name, or a dot at the beginning.
    #[error(
        "{found:?} at byte {position}: use letters, digits and -_.:@#+, and no dot at the beginning"
    )]
    Character {
        /// Byte offset in the name.
        position: usize,
        /// What is there.
        found: char,
    },
    /// Empty or too long.
    #[error("a switch name of {0} bytes: use 1 to {max}", max = SwitchName::BYTES_MAX)]
    Length(usize),
}

impl SwitchName {
    /// Longest name in bytes.
    pub const BYTES_MAX: usize = 128;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SwitchName {
    type Err = SwitchNameError;

    fn from_str(name: &str) -> Result<Self, SwitchNameError> {
        if name.is_empty() || name.len() > Self::BYTES_MAX {
            return Err(SwitchNameError::Length(name.len()));
        }
        let bad = name.char_indices().find(|&(position, found)| {
            !(found.is_alphanumeric() || "-_.:@#+".contains(found))
                || (position == 0 && found == '.')
        });
        match bad {
            Some((position, found)) => Err(SwitchNameError::Character { position, found }),
            None => Ok(Self(name.into())),
        }
    }
}

impl Display for SwitchName {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Where each field of the fixed header is. `docs/flowset-format.md` has the same table.
mod field {
    use core::ops::Range;

    pub(super) const MAGIC: Range<usize> = 0..8;
    pub(super) const VERSION: Range<usize> = 8..10;
    pub(super) const HEADER_BYTES: Range<usize> = 10..12;
    pub(super) const FLAGS: Range<usize> = 12..16;
    pub(super) const TOTAL_BYTES: Range<usize> = 16..24;
    pub(super) const EPOCH_NUMBER: Range<usize> = 24..32;
    pub(super) const EPOCH_START_NS: Range<usize> = 32..40;
    pub(super) const EPOCH_LENGTH_NS: Range<usize> = 40..48;
    pub(super) const KEY_KIND: usize = 48;
    pub(super) const HASH_FAMILY: usize = 49;
    pub(super) const HASHES: usize = 50;
    pub(super) const FLOW_COUNT_BITS: usize = 51;
    pub(super) const PACKET_COUNT_BITS: usize = 52;
    pub(super) const BYTE_COUNT_BITS: usize = 53;
    pub(super) const FILTER_KIND: usize = 54;
    pub(super) const FILTER_HASHES: usize = 55;
    pub(super) const SEED: Range<usize> = 56..64;
    pub(super) const SUBTABLE_CELLS: Range<usize> = 64..68;
    pub(super) const WINDOW_CELLS: Range<usize> = 68..72;
    pub(super) const FILTER_SIZE: Range<usize> = 72..76;
    pub(super) const RESERVED_1: Range<usize> = 76..80;
    pub(super) const TOTAL_PACKETS: Range<usize> = 80..88;
    pub(super) const TOTAL_IP_BYTES: Range<usize> = 88..96;
    pub(super) const TOTAL_NEW_FLOWS: Range<usize> = 96..104;
    pub(super) const NAME_BYTES: usize = 104;
    pub(super) const RESERVED_2: Range<usize> = 105..112;
    pub(super) const NAME: usize = 112;
}

/// Like PNG's: a byte that is no text, a name, and line ends that show a transfer in text mode.
const MAGIC: [u8; 8] = *b"\x89FLOWR\r\n";

/// The format's version.
pub const FORMAT_VERSION: u16 = 1;

const FLAG_TOTALS: u32 = 1;
const FILTER_PARTITIONED: u8 = 1;
const FILTER_BLOCKED: u8 = 2;

/// Sections and header end on multiples of this many bytes.
const ALIGNMENT: usize = 8;
const CHECKSUM_BYTES: usize = 8;

/// Offsets of a flowset's sections, computed from its layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sections {
    /// Size of the header with name and checksum; the filter begins here.
    header_bytes: usize,
    filter_bytes: usize,
    flow_xor: usize,
    flow_count: usize,
    packet_count: usize,
    byte_count: usize,
    checksum: usize,
    total_bytes: usize,
}

impl Sections {
    /// None if the sizes do not fit in memory.
    fn new(name_bytes: usize, key: KeyKind, layout: &Layout) -> Option<Self> {
        let cells = layout.table().cells();
        let widths = layout.table().widths();
        let header_bytes = (field::NAME + name_bytes).next_multiple_of(ALIGNMENT) + CHECKSUM_BYTES;
        let filter_bytes = layout.filter().words().checked_mul(8)?;
        let column = |start: usize, bytes: usize| {
            start.checked_add(
                cells
                    .checked_mul(bytes)?
                    .checked_next_multiple_of(ALIGNMENT)?,
            )
        };
        let flow_xor = header_bytes.checked_add(filter_bytes)?;
        let flow_count = column(flow_xor, key.bytes())?;
        let packet_count = column(flow_count, field_bytes(widths.flow_count_bits()))?;
        let byte_count = column(packet_count, field_bytes(widths.packet_count_bits()))?;
        let checksum = column(byte_count, field_bytes(widths.byte_count_bits()))?;
        Some(Self {
            header_bytes,
            filter_bytes,
            flow_xor,
            flow_count,
            packet_count,
            byte_count,
            checksum,
            total_bytes: checksum.checked_add(CHECKSUM_BYTES)?,
        })
    }
}

/// The checksum of filter and columns. The header's checksum, which stands just before them, is its
/// seed, so that they fit no other header.
fn payload_checksum(flowset: &[u8], sections: &Sections) -> u64 {
    let (header, payload) = flowset[..sections.checksum].split_at(sections.header_bytes);
    let seed = header
        .last_chunk()
        .expect("a header ends with its checksum");
    xxh3_64_with_seed(payload, u64::from_le_bytes(*seed))
}

/// Bytes that a field of this many bits takes in a flowset.
const fn field_bytes(bits: u8) -> usize {
    bits.div_ceil(8) as usize
}

/// Size in bytes of a flowset with this layout, for a switch name of `name_bytes` bytes; None if it
/// does not fit in memory.
pub fn flowset_bytes(name_bytes: usize, key: KeyKind, layout: &Layout) -> Option<usize> {
    Sections::new(name_bytes, key, layout).map(|sections| sections.total_bytes)
}
