//! The classic capture file format (draft-ietf-opsawg-pcap).

use flowradar_core::packet::LinkType;
use pcap_parser::nom::{Err, IResult, Needed};
use pcap_parser::{
    LegacyPcapBlock, PcapError, parse_pcap_frame, parse_pcap_frame_be, parse_pcap_frame_modified,
    parse_pcap_header,
};

use super::error::{Fault, TraceProblem};
use super::source::Source;
use super::{Frame, InputFormat};

/// Bytes of the file header.
const FILE_HEADER_BYTES: usize = 24;

/// Reads the records of a pcap file, one at a time.
pub(super) struct PcapReader {
    link_type: LinkType,
    /// Nanoseconds in a unit of the fractional part of timestamps.
    fraction_unit_ns: u64,
    record_header_bytes: usize,
    parse_record: ParseRecord,
}

type ParseRecord = fn(&[u8]) -> IResult<&[u8], LegacyPcapBlock<'_>, PcapError<&[u8]>>;

impl PcapReader {
    /// Whether a file that begins so is a pcap file: either byte order, microseconds or
    /// nanoseconds, or the longer records of old Linux patches.
    pub(super) fn is_magic(magic: [u8; 4]) -> bool {
        matches!(
            magic,
            [0xd4, 0xc3, 0xb2, 0xa1]
                | [0xa1, 0xb2, 0xc3, 0xd4]
                | [0x4d, 0x3c, 0xb2, 0xa1]
                | [0xa1, 0xb2, 0x3c, 0x4d]
                | [0x34, 0xcd, 0xb2, 0xa1]
        )
    }

    /// Reads the file header.
    pub(super) fn begin(source: &mut Source) -> Result<Self, Fault> {
        let bytes = source.require(FILE_HEADER_BYTES, "file header")?;
        let Ok((_, header)) = parse_pcap_header(bytes) else {
            let first_bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
            return Err(Fault::new(0, TraceProblem::UnknownFormat { first_bytes }));
        };
        // Before version 2.4 the two lengths of a record came in the other order.
        if header.version_major != 2 || header.version_minor < 4 {
            return Err(Fault::new(
                4,
                TraceProblem::UnsupportedVersion {
                    format: InputFormat::Pcap,
                    major: header.version_major,
                    minor: header.version_minor,
                },
            ));
        }
        // The highest six bits say whether frames end with a checksum: nothing that is looked at.
        let number = header.network.0 as u32 & 0x03ff_ffff;
        let link_type = LinkType::from_pcap(number)
            .ok_or_else(|| Fault::new(20, TraceProblem::UnsupportedLinkType { number }))?;
        let (parse_record, record_header_bytes): (ParseRecord, usize) =
            if header.is_modified_format() {
                (parse_pcap_frame_modified, 24)
            } else if header.is_bigendian() {
                (parse_pcap_frame_be, 16)
            } else {
                (parse_pcap_frame, 16)
            };
        let fraction_unit_ns = if header.is_nanosecond_precision() {
            1
        } else {
            1000
        };
        source.take(FILE_HEADER_BYTES);
        Ok(Self {
            link_type,
            fraction_unit_ns,
            record_header_bytes,
            parse_record,
        })
    }

    /// The next record; `None` if the input ends with the previous one.
    pub(super) fn next_frame<'a>(
        &self,
        source: &'a mut Source,
    ) -> Result<Option<Frame<'a>>, Fault> {
        let offset = source.offset();
        let mut expected = self.record_header_bytes;
        let (timestamp_ns, wire_bytes, captured_bytes) = loop {
            let present = source.fill(expected)?;
            if present == 0 {
                return Ok(None);
            }
            if present < expected {
                return Err(Fault::truncated(
                    offset,
                    "packet record",
                    present as u64,
                    expected as u64,
                ));
            }
            match (self.parse_record)(source.buffered()) {
                Ok((_, record)) => {
                    let timestamp_ns = u64::from(record.ts_sec) * 1_000_000_000
                        + u64::from(record.ts_usec) * self.fraction_unit_ns;
                    break (timestamp_ns, record.origlen, record.data.len());
                }
                Err(Err::Incomplete(Needed::Size(missing))) => expected = present + missing.get(),
                Err(_) => unreachable!("any bytes are a record header"),
            }
        };
        let record = source.take(self.record_header_bytes + captured_bytes);
        Ok(Some(Frame {
            offset,
            timestamp_ns: Some(timestamp_ns),
            link_type: Some(self.link_type),
            captured: &record[self.record_header_bytes..],
            wire_bytes,
        }))
    }
}
