//! Packet traces: capture files and 5-tuple records, read as a stream of flow keys.
//!
//! [`TraceReader`] is an iterator of [`TracePacket`]s, in the order of the input:
//!
//! ```
//! use std::io::Cursor;
//! use flowradar_cli::trace::{InputFormat, TraceKey, TraceReader};
//!
//! let records = [10, 0, 0, 1, 10, 0, 0, 2, 0xc0, 0x00, 0x01, 0xbb, 6].repeat(3);
//! let mut reader = TraceReader::from_reader(Cursor::new(records), "memory", InputFormat::Tuple13)?;
//! for packet in &mut reader {
//!     let TraceKey::V4(key) = packet?.key else { unreachable!() };
//!     assert_eq!(key.to_string(), "10.0.0.1:49152 > 10.0.0.2:443 proto 6");
//! }
//! assert_eq!(reader.stats().ipv4_packets, 3);
//! # Ok::<(), flowradar_cli::trace::TraceError>(())
//! ```
//!
//! # Formats
//!
//! | format | detected | timestamps | lengths |
//! | --- | --- | --- | --- |
//! | pcap, version 2.4: either byte order, microseconds or nanoseconds, also the "modified" records of old Linux patches | by magic | yes | yes |
//! | pcapng, version 1: any number of sections and interfaces, either byte order, any if_tsresol and if_tsoffset; enhanced, simple and obsolete packet blocks; other blocks are passed over | by magic | yes, but for simple packets | yes |
//! | tuple13: records of 13 bytes, IPv4 source and destination address, source and destination port, protocol, in network byte order | never | from a second file, [`TraceReader::with_timestamps`] | no |
//!
//! pcap and pcapng may be compressed with gzip (of any number of members) or zstd (of any number of
//! frames), detected by their magic. The records of tuple13 may begin with any bytes, so these are
//! decompressed only if the name of the file ends with `.gz` or `.zst`.
//!
//! # What is counted, what is an error
//!
//! Every record of a trace is counted in [`TraceStats`]; records with a flow key are returned.
//! Frames that are not IP, that are malformed, or whose link type is not supported have no key:
//! they are counted by kind. These are problems of single packets, and the trace goes on.
//!
//! A trace that is itself damaged or cut short cannot be read on: the iterator returns all packets
//! before, then one [`TraceError`] with the offset and the reason, then nothing. What was returned
//! is right; the caller keeps it and says that the trace was not complete.
//!
//! Offsets in errors count from the start of the input, in compressed input from the start of the
//! decompressed data (and the error says so). If compressed input is cut short or damaged, the
//! packets in its last bytes may not be decompressible: for zstd, up to a window (often 2 to 8 MiB).
//!
//! # Limits
//!
//! Input is taken to be hostile. Memory is bounded whatever it says: a record is at most
//! [`MAX_RECORD_BYTES`] long (other pcapng blocks may have any length), a section has at most 65,536
//! interfaces, a zstd window is at most 128 MiB. Buffers grow with the bytes that arrive,
//! not by the lengths that they claim.
//!
//! # Why `pcap-parser`
//!
//! Both `pcap-parser` 0.17 and `pcap-file` 3.0-rc parse everything needed here. `pcap-parser` is a
//! stable release without unsafe code in its parsers, its functions parse one block
//! from a slice, and it is lenient about what does not matter for packets (options that are not
//! UTF-8, reserved fields that are not zero), where `pcap-file` gives up on the file. The stream
//! readers of both keep a buffer of fixed size and do not give the offset of an error, and
//! `pcap-file`'s transmutes lifetimes. So the fields are parsed by `pcap-parser`; where
//! records begin and end, and the limits, are checked here.

mod error;
mod pcap;
mod pcapng;
mod source;
mod tuple13;
mod zstd;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::{self, Debug, Display, Formatter};
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use flowradar_core::packet::{self, LinkType, MalformedReason, ParsePacketError, Parsed, Ports};
use flowradar_core::{FlowKeyV4, FlowKeyV6};
use thiserror::Error;

use self::error::Fault;
pub use self::error::{TraceError, TraceProblem};
use self::pcap::PcapReader;
use self::pcapng::PcapngReader;
pub use self::source::MAX_RECORD_BYTES;
use self::source::{Compression, Source};
use self::tuple13::Tuple13Reader;

/// How the input is to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum InputFormat {
    /// pcap or pcapng, whichever the first bytes say.
    #[default]
    Auto,
    /// The classic capture file format.
    Pcap,
    /// The newer capture file format.
    Pcapng,
    /// Records of 13 bytes.
    Tuple13,
}

impl InputFormat {
    /// All formats, in the order of a help text.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Pcap, Self::Pcapng, Self::Tuple13];
}

impl Display for InputFormat {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Pcap => "pcap",
            Self::Pcapng => "pcapng",
            Self::Tuple13 => "tuple13",
        })
    }
}

/// A name that is not one of an input format.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("unknown input format {name:?}: expected auto, pcap, pcapng or tuple13")]
pub struct UnknownInputFormat {
    /// The name.
    pub name: String,
}

impl FromStr for InputFormat {
    type Err = UnknownInputFormat;

    fn from_str(name: &str) -> Result<Self, UnknownInputFormat> {
        Self::ALL
            .into_iter()
            .find(|format| format.to_string() == name)
            .ok_or_else(|| UnknownInputFormat { name: name.into() })
    }
}

/// A packet of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracePacket {
    /// When it was captured, in nanoseconds since 1970 (of tuple13: since whatever its timestamps
    /// count from). `None` if the trace does not say.
    pub timestamp_ns: Option<u64>,
    /// The flow that it belongs to.
    pub key: TraceKey,
    /// Length of the IP packet in bytes, header included, as its header says (see
    /// [`flowradar_core::packet`]). `None` if the trace does not say: always for tuple13, never for
    /// the others.
    pub ip_bytes: Option<u32>,
}

/// The flow key of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TraceKey {
    /// An IPv4 flow.
    V4(FlowKeyV4),
    /// An IPv6 flow.
    V6(FlowKeyV6),
}

/// What was read of a trace so far.
///
/// `packets` is the sum of `ipv4_packets`, `ipv6_packets`, `not_ip_packets`,
/// `unsupported_link_packets` and all `malformed_packets`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceStats {
    /// All packet records.
    pub packets: u64,
    /// Returned with an IPv4 key.
    pub ipv4_packets: u64,
    /// Returned with an IPv6 key.
    pub ipv6_packets: u64,
    /// Frames that carry something else, such as ARP.
    pub not_ip_packets: u64,
    /// Frames of pcapng interfaces with a link type that cannot be parsed.
    pub unsupported_link_packets: u64,
    /// Frames without a key because they are malformed or captured too short, by reason.
    pub malformed_packets: BTreeMap<MalformedReason, u64>,
    /// The first of these.
    pub first_malformed: Option<MalformedPacket>,
    /// Returned packets whose ports are 0 because the capture ends before them
    /// ([`Ports::CutOff`]).
    pub ports_cut_off_packets: u64,
    /// Returned packets whose ports are 0 because the IP datagram ends before them
    /// ([`Ports::BeyondDatagram`]).
    pub ports_beyond_datagram_packets: u64,
    /// Captured bytes of all packets, link headers included. 0 for tuple13.
    pub captured_bytes: u64,
    /// Sum of [`TracePacket::ip_bytes`], in bytes.
    pub ip_bytes: u64,
}

impl TraceStats {
    /// All malformed packets, whatever the reason.
    pub fn malformed_packets_total(&self) -> u64 {
        self.malformed_packets.values().sum()
    }

    /// Packets without a key that should have had one: malformed, or of an unsupported link type.
    /// If this is not 0, the trace was not counted completely.
    pub fn uncounted_packets(&self) -> u64 {
        self.unsupported_link_packets + self.malformed_packets_total()
    }

    /// Counts a frame, and makes it a packet if it has a key.
    fn count_frame(&mut self, frame: &Frame<'_>) -> Option<TracePacket> {
        self.packets += 1;
        self.captured_bytes += frame.captured.len() as u64;
        let Some(link_type) = frame.link_type else {
            self.unsupported_link_packets += 1;
            return None;
        };
        let (key, ip_bytes, ports) =
            match packet::parse(link_type, frame.captured, frame.wire_bytes) {
                Ok(Parsed::V4(packet)) => {
                    self.ipv4_packets += 1;
                    (TraceKey::V4(packet.key), packet.ip_bytes, packet.ports)
                }
                Ok(Parsed::V6(packet)) => {
                    self.ipv6_packets += 1;
                    (TraceKey::V6(packet.key), packet.ip_bytes, packet.ports)
                }
                Ok(Parsed::NotIp { .. }) => {
                    self.not_ip_packets += 1;
                    return None;
                }
                Err(error) => {
                    *self.malformed_packets.entry(error.reason).or_default() += 1;
                    self.first_malformed.get_or_insert(MalformedPacket {
                        packet: self.packets,
                        offset: frame.offset,
                        error,
                    });
                    return None;
                }
            };
        match ports {
            Ports::CutOff => self.ports_cut_off_packets += 1,
            Ports::BeyondDatagram => self.ports_beyond_datagram_packets += 1,
            Ports::Read | Ports::NotCarried => {}
        }
        self.ip_bytes += u64::from(ip_bytes);
        Some(TracePacket {
            timestamp_ns: frame.timestamp_ns,
            key,
            ip_bytes: Some(ip_bytes),
        })
    }
}

/// Where a malformed packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("packet {packet} (its record begins at byte {offset}), {error}")]
pub struct MalformedPacket {
    /// Which packet of the trace, counted from 1.
    pub packet: u64,
    /// Where its record or block begins, as in [`TraceError::offset`].
    pub offset: u64,
    /// What is wrong with it.
    pub error: ParsePacketError,
}

/// A packet record of a capture file.
pub(crate) struct Frame<'a> {
    /// Where its record begins.
    offset: u64,
    pub(crate) timestamp_ns: Option<u64>,
    /// `None`: not supported.
    pub(crate) link_type: Option<LinkType>,
    pub(crate) captured: &'a [u8],
    pub(crate) wire_bytes: u32,
}

/// Reads a trace, one packet at a time.
///
/// An iterator that ends after the first error. Use it as `for packet in &mut reader`, and
/// [`TraceReader::stats`] afterwards (or in between). Constant memory, whatever the size of the
/// trace.
pub struct TraceReader {
    name: String,
    timestamps_name: String,
    source: Source,
    decoder: Decoder,
    stats: TraceStats,
    is_finished: bool,
}

enum Decoder {
    Pcap(PcapReader),
    Pcapng(PcapngReader),
    Tuple13(Tuple13Reader),
}

impl TraceReader {
    /// Opens a file, or standard input for the path `-`, and reads its header.
    ///
    /// # Errors
    /// [`TraceError`] if the input cannot be read, is of another format, or ends in its header.
    pub fn open(path: impl AsRef<Path>, format: InputFormat) -> Result<Self, TraceError> {
        let path = path.as_ref();
        let name = display_name(path);
        match Source::open(path, compression_of(path, format)) {
            Ok(source) => Self::begin(source, name, format),
            Err(fault) => Err(trace_error(name, false, fault)),
        }
    }

    /// Reads a trace from any source of bytes; `name` stands for it in errors. Of tuple13 the
    /// records must not be compressed.
    ///
    /// # Errors
    /// As [`TraceReader::open`].
    pub fn from_reader(
        reader: impl Read + Send + 'static,
        name: impl Into<String>,
        format: InputFormat,
    ) -> Result<Self, TraceError> {
        let name = name.into();
        match Source::new(reader, compression_of(Path::new(""), format)) {
            Ok(source) => Self::begin(source, name, format),
            Err(fault) => Err(trace_error(name, false, fault)),
        }
    }

    /// Takes the timestamps of a tuple13 trace from a second file: for each record one
    /// little-endian `f64`, in seconds. They are rounded to nanoseconds.
    ///
    /// The iterator returns an error if the file has fewer or more timestamps than the trace has
    /// records, or one that is negative or not finite.
    ///
    /// # Errors
    /// [`TraceError`] if the file cannot be opened, or the trace has timestamps of its own.
    pub fn with_timestamps(mut self, path: impl AsRef<Path>) -> Result<Self, TraceError> {
        let path = path.as_ref();
        let name = display_name(path);
        let Decoder::Tuple13(reader) = &mut self.decoder else {
            let fault = Fault::new(0, TraceProblem::TimestampsNotNeeded);
            return Err(trace_error(name, false, fault));
        };
        match Source::open(path, compression_of(path, InputFormat::Tuple13)) {
            Ok(source) => reader.timestamps = Some(source),
            Err(fault) => return Err(trace_error(name, false, fault)),
        }
        self.timestamps_name = name;
        Ok(self)
    }

    /// What was read so far; everything after the iterator has ended.
    pub fn stats(&self) -> &TraceStats {
        &self.stats
    }

    /// The format of the trace; never [`InputFormat::Auto`].
    pub fn format(&self) -> InputFormat {
        match self.decoder {
            Decoder::Pcap(_) => InputFormat::Pcap,
            Decoder::Pcapng(_) => InputFormat::Pcapng,
            Decoder::Tuple13(_) => InputFormat::Tuple13,
        }
    }

    /// The name of the input in errors: its path, or `standard input`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many bytes of the input were read, as it is stored, compressed or not; for progress
    /// bars. The reader is up to a few 64 KiB ahead of the packets that it returns.
    pub fn input_bytes(&self) -> u64 {
        self.source.input_bytes()
    }

    /// How many bytes the input has, as it is stored; `None` for pipes and devices.
    pub fn input_bytes_total(&self) -> Option<u64> {
        self.source.input_bytes_total()
    }

    /// The next frame as it was captured, for those who do more with it than count its flow. It is
    /// not counted in [`TraceReader::stats`]. `None` at the end, after an error, and for tuple13,
    /// which has no frames.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame<'_>>, TraceError> {
        if self.is_finished {
            return Ok(None);
        }
        let decompressed = self.source.decompressed();
        let frame = match &mut self.decoder {
            Decoder::Pcap(reader) => reader.next_frame(&mut self.source),
            Decoder::Pcapng(reader) => reader.next_frame(&mut self.source),
            Decoder::Tuple13(_) => Ok(None),
        };
        self.is_finished = !matches!(frame, Ok(Some(_)));
        frame.map_err(|fault| trace_error(self.name.clone(), decompressed, fault))
    }

    fn begin(mut source: Source, name: String, format: InputFormat) -> Result<Self, TraceError> {
        match begin_decoder(&mut source, format) {
            Ok(decoder) => Ok(Self {
                name,
                timestamps_name: String::new(),
                source,
                decoder,
                stats: TraceStats::default(),
                is_finished: false,
            }),
            Err(fault) => Err(trace_error(name, source.decompressed(), fault)),
        }
    }

    fn next_packet(&mut self) -> Result<Option<TracePacket>, Fault> {
        loop {
            let frame = match &mut self.decoder {
                Decoder::Pcap(reader) => reader.next_frame(&mut self.source)?,
                Decoder::Pcapng(reader) => reader.next_frame(&mut self.source)?,
                Decoder::Tuple13(reader) => {
                    let record = reader.next_record(&mut self.source)?;
                    return Ok(record.map(|(key, timestamp_ns)| {
                        self.stats.packets += 1;
                        self.stats.ipv4_packets += 1;
                        TracePacket {
                            timestamp_ns,
                            key: TraceKey::V4(key),
                            ip_bytes: None,
                        }
                    }));
                }
            };
            let Some(frame) = frame else {
                return Ok(None);
            };
            if let Some(packet) = self.stats.count_frame(&frame) {
                return Ok(Some(packet));
            }
        }
    }

    fn error(&self, fault: Fault) -> TraceError {
        let timestamps = match &self.decoder {
            Decoder::Tuple13(reader) if fault.in_timestamps => reader.timestamps.as_ref(),
            _ => None,
        };
        match timestamps {
            Some(source) => trace_error(self.timestamps_name.clone(), source.decompressed(), fault),
            None => trace_error(self.name.clone(), self.source.decompressed(), fault),
        }
    }
}

impl Iterator for TraceReader {
    type Item = Result<TracePacket, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_finished {
            return None;
        }
        match self.next_packet() {
            Ok(Some(packet)) => Some(Ok(packet)),
            Ok(None) => {
                self.is_finished = true;
                None
            }
            Err(fault) => {
                self.is_finished = true;
                Some(Err(self.error(fault)))
            }
        }
    }
}

impl std::iter::FusedIterator for TraceReader {}

impl Debug for TraceReader {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceReader")
            .field("name", &self.name)
            .field("format", &self.format())
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

/// Finds out the format and reads the file header.
fn begin_decoder(source: &mut Source, format: InputFormat) -> Result<Decoder, Fault> {
    if format == InputFormat::Tuple13 {
        return Ok(Decoder::Tuple13(Tuple13Reader::default()));
    }
    if source.fill(1)? == 0 {
        return Err(Fault::new(0, TraceProblem::Empty));
    }
    let magic = source.require(4, "file header")?;
    let magic: [u8; 4] = magic.try_into().expect("four bytes are required");
    let found = if PcapReader::is_magic(magic) {
        InputFormat::Pcap
    } else if PcapngReader::is_magic(magic) {
        InputFormat::Pcapng
    } else {
        let first_bytes = magic;
        return Err(Fault::new(0, TraceProblem::UnknownFormat { first_bytes }));
    };
    if format != InputFormat::Auto && format != found {
        let expected = format;
        return Err(Fault::new(0, TraceProblem::WrongFormat { expected, found }));
    }
    if found == InputFormat::Pcap {
        PcapReader::begin(source).map(Decoder::Pcap)
    } else {
        Ok(Decoder::Pcapng(PcapngReader::default()))
    }
}

/// Records of tuple13 may begin with the magic of a compressed file, so there the name decides.
fn compression_of(path: &Path, format: InputFormat) -> Compression {
    let has_compressed_name = path
        .extension()
        .and_then(OsStr::to_str)
        .is_some_and(|extension| matches!(extension, "gz" | "zst"));
    if format == InputFormat::Tuple13 && !has_compressed_name {
        Compression::None
    } else {
        Compression::ByMagic
    }
}

fn display_name(path: &Path) -> String {
    if path == Path::new("-") {
        "standard input".into()
    } else {
        path.display().to_string()
    }
}

fn trace_error(input: String, decompressed: bool, fault: Fault) -> TraceError {
    TraceError {
        input,
        offset: fault.offset,
        decompressed,
        problem: fault.problem,
    }
}
