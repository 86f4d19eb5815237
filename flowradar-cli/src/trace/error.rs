//! What can go wrong while reading a trace.

use std::fmt::{self, Display, Formatter};
use std::io;

use thiserror::Error;

use super::InputFormat;

/// Why reading a trace ended before its end.
///
/// All packets that the reader returned before are complete and in order; what the input holds from
/// [`offset`](Self::offset) on was not counted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct TraceError {
    /// Name of the input: its path, or `standard input`.
    pub input: String,
    /// Where in the input the record or block begins that could not be read, in bytes.
    pub offset: u64,
    /// Whether the input is compressed, so that `offset` counts bytes after decompression.
    pub decompressed: bool,
    /// What is wrong there.
    pub problem: TraceProblem,
}

impl Display for TraceError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: byte {}", self.input, self.offset)?;
        if self.decompressed {
            f.write_str(" of the decompressed data")?;
        }
        write!(f, ": {}", self.problem)
    }
}

/// What is wrong with a trace.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TraceProblem {
    /// The operating system could not open or read the input.
    #[error("cannot read: {message}")]
    Io {
        /// The kind of error.
        kind: io::ErrorKind,
        /// The operating system's words.
        message: String,
    },
    /// The input ends inside a header, record or block.
    #[error(
        "the input ends inside the {part} that begins here: {present_bytes} bytes of at least \
         {expected_bytes} are there; was the capture or the copy cut short?"
    )]
    Truncated {
        /// What is incomplete.
        part: &'static str,
        /// How many bytes of it there are.
        present_bytes: u64,
        /// How many it must have, as far as known.
        expected_bytes: u64,
    },
    /// Compressed input ends before the end of its compressed stream.
    #[error("the compressed input ends early; was the copy cut short?")]
    CompressedInputEndsEarly,
    /// Compressed input is damaged, or compressed in a way that is not supported.
    #[error("cannot decompress: {message}")]
    Decompress {
        /// The decompressor's words.
        message: String,
    },
    /// The input is empty.
    #[error("the input is empty")]
    Empty,
    /// The first bytes are not those of a known format.
    #[error(
        "neither pcap nor pcapng: the input begins with the bytes {first_bytes:02x?}; for 13-byte \
         5-tuple records say --input-format tuple13"
    )]
    UnknownFormat {
        /// The first bytes of the input.
        first_bytes: [u8; 4],
    },
    /// The input is of another format than the one asked for.
    #[error("the input is {found}, not {expected}: leave out --input-format, or set it to {found}")]
    WrongFormat {
        /// The format asked for.
        expected: InputFormat,
        /// The format of the input.
        found: InputFormat,
    },
    /// A version of the format that is not known.
    #[error("version {major}.{minor} of {format} is not supported")]
    UnsupportedVersion {
        /// The format.
        format: InputFormat,
        /// Major version.
        major: u16,
        /// Minor version.
        minor: u16,
    },
    /// A pcap file whose frames begin with a link header that cannot be parsed.
    #[error(
        "link type {number} is not supported: Ethernet (1), raw IP (101, 228, 229), Linux cooked \
         capture (113, 276) and BSD loopback (0, 108) are"
    )]
    UnsupportedLinkType {
        /// The LINKTYPE number, see <https://www.tcpdump.org/linktypes.html>.
        number: u32,
    },
    /// A record or block that is longer than any capture makes it.
    #[error("a record of {bytes} bytes is longer than the limit of {limit} bytes; damaged input?")]
    RecordTooLong {
        /// Length of the record, in bytes.
        bytes: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The input goes on with something that is not a section header, or a section header has no
    /// valid byte-order magic.
    #[error("no pcapng section header, or one without a valid byte-order magic")]
    NoSectionHeader,
    /// The length of a pcapng block is impossible.
    #[error("block type {block_type:#x} cannot have a length of {bytes} bytes")]
    BlockLength {
        /// Type of the block.
        block_type: u32,
        /// Its length field.
        bytes: u32,
    },
    /// The two length fields of a pcapng block differ.
    #[error("the block says at its start that it has {first} bytes, and at its end {last}")]
    BlockLengthsDiffer {
        /// Length field at the start of the block.
        first: u32,
        /// Length field at the end of the block.
        last: u32,
    },
    /// The captured length of a packet goes beyond its pcapng block.
    #[error("the packet in block type {block_type:#x} is longer than its block")]
    PacketBeyondBlock {
        /// Type of the block.
        block_type: u32,
    },
    /// A pcapng packet refers to an interface that was not described before.
    #[error("the packet was captured at interface {interface}, but {described} are described")]
    UnknownInterface {
        /// Index of the interface.
        interface: u32,
        /// How many interfaces the section has described so far.
        described: u32,
    },
    /// More interfaces in a section than are kept.
    #[error("a section with more than {limit} interfaces")]
    TooManyInterfaces {
        /// How many interfaces are kept.
        limit: u32,
    },
    /// Timestamps come from a file of their own, and only records without any need them.
    #[error("a timestamp file goes with the format tuple13 only")]
    TimestampsNotNeeded,
    /// The timestamp file holds fewer timestamps than the trace has records.
    #[error("the timestamp file ends here, but the trace has more records")]
    TooFewTimestamps,
    /// The timestamp file holds more timestamps than the trace has records.
    #[error("the timestamp file goes on here, but the trace has no more records")]
    TooManyTimestamps,
    /// A timestamp that is negative, not a number, or after the year 2554.
    #[error("not a valid timestamp: it must be 0 to 18446744073 seconds")]
    InvalidTimestamp,
}

/// A problem and where it is; [`super::TraceReader`] adds the name of the input.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) offset: u64,
    pub(super) problem: TraceProblem,
    /// Whether it is in the timestamp file, not in the trace.
    pub(super) in_timestamps: bool,
}

impl Fault {
    pub(super) fn new(offset: u64, problem: TraceProblem) -> Self {
        Self {
            offset,
            problem,
            in_timestamps: false,
        }
    }

    pub(super) fn in_timestamps(mut self) -> Self {
        self.in_timestamps = true;
        self
    }

    pub(super) fn truncated(offset: u64, part: &'static str, present: u64, expected: u64) -> Self {
        Self::new(
            offset,
            TraceProblem::Truncated {
                part,
                present_bytes: present,
                expected_bytes: expected,
            },
        )
    }
}
