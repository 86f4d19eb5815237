//! The pcapng capture file format (draft-ietf-opsawg-pcapng).

use flowradar_core::packet::LinkType;
use pcap_parser::{
    InterfaceDescriptionBlock, OptionCode, parse_enhancedpacketblock_be,
    parse_enhancedpacketblock_le, parse_interfacedescriptionblock_be,
    parse_interfacedescriptionblock_le, parse_sectionheaderblock, parse_simplepacketblock_be,
    parse_simplepacketblock_le,
};

use super::error::{Fault, TraceProblem};
use super::source::{MAX_RECORD_BYTES, Source};
use super::{Frame, InputFormat};

/// How many interfaces of a section are kept.
pub(super) const MAX_INTERFACES: usize = 65_536;

/// The types of blocks that are looked into; all others are passed over.
mod block_type {
    pub(super) const SECTION_HEADER: u32 = 0x0a0d_0d0a;
    pub(super) const INTERFACE_DESCRIPTION: u32 = 1;
    /// Obsolete, but old captures have it.
    pub(super) const PACKET: u32 = 2;
    pub(super) const SIMPLE_PACKET: u32 = 3;
    pub(super) const ENHANCED_PACKET: u32 = 6;
}

/// Reads the packets of a pcapng file, one at a time.
#[derive(Default)]
pub(super) struct PcapngReader {
    /// Byte order of the section; `None` before the first.
    byte_order: Option<ByteOrder>,
    /// Interfaces that the section has described so far.
    interfaces: Vec<Interface>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ByteOrder {
    Little,
    Big,
}

#[derive(Clone, Copy)]
struct Interface {
    link_type: Option<LinkType>,
    /// Limit of captured bytes; 0 for none.
    snap_bytes: u32,
    clock: Clock,
}

/// How an interface's timestamps are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Clock {
    /// Option if_tsresol: a negative power of 2 if the highest bit is set, else of 10.
    resolution: u8,
    /// Option if_tsoffset, in seconds.
    offset_s: i64,
}

/// What the blocks with packets say of one.
struct PacketFields {
    interface: u32,
    /// In units of the interface; simple packets have none.
    timestamp: Option<u64>,
    wire_bytes: u32,
    /// Place of the captured bytes in the block.
    captured: std::ops::Range<usize>,
}

impl PcapngReader {
    pub(super) fn is_magic(magic: [u8; 4]) -> bool {
        magic == block_type::SECTION_HEADER.to_be_bytes()
    }

    /// The next packet; `None` if the input ends with the previous block.
    pub(super) fn next_frame<'a>(
        &mut self,
        source: &'a mut Source,
    ) -> Result<Option<Frame<'a>>, Fault> {
        loop {
            let offset = source.offset();
            let Some((block_type, block_bytes, byte_order)) = self.block_header(source)? else {
                return Ok(None);
            };
            let fault = |problem| Fault::new(offset, problem);
            match block_type {
                block_type::SECTION_HEADER => {
                    let block = require_block(source, block_bytes, byte_order)?;
                    self.begin_section(block, byte_order).map_err(fault)?;
                    source.take(block_bytes as usize);
                }
                block_type::INTERFACE_DESCRIPTION => {
                    let block = require_block(source, block_bytes, byte_order)?;
                    self.add_interface(block, byte_order).map_err(fault)?;
                    source.take(block_bytes as usize);
                }
                block_type::ENHANCED_PACKET | block_type::SIMPLE_PACKET | block_type::PACKET => {
                    let block = require_block(source, block_bytes, byte_order)?;
                    let fields = match block_type {
                        block_type::ENHANCED_PACKET => enhanced_packet(block, byte_order),
                        block_type::SIMPLE_PACKET => self.simple_packet(block, byte_order),
                        _ => obsolete_packet(block, byte_order),
                    };
                    let fields = fields
                        .ok_or_else(|| fault(TraceProblem::PacketBeyondBlock { block_type }))?;
                    let interface =
                        *self
                            .interfaces
                            .get(fields.interface as usize)
                            .ok_or_else(|| {
                                fault(TraceProblem::UnknownInterface {
                                    interface: fields.interface,
                                    described: self.interfaces.len() as u32,
                                })
                            })?;
                    return Ok(Some(Frame {
                        offset,
                        timestamp_ns: fields
                            .timestamp
                            .and_then(|timestamp| interface.clock.nanoseconds(timestamp)),
                        link_type: interface.link_type,
                        captured: &source.take(block_bytes as usize)[fields.captured],
                        wire_bytes: fields.wire_bytes,
                    }));
                }
                _ => skip_block(source, block_bytes, byte_order)?,
            }
        }
    }

    /// Type, length and byte order of the block at the front of the input.
    fn block_header(&self, source: &mut Source) -> Result<Option<(u32, u32, ByteOrder)>, Fault> {
        let offset = source.offset();
        if source.fill(1)? == 0 {
            return Ok(None);
        }
        let &[t0, t1, t2, t3, l0, l1, l2, l3, m0, m1, m2, m3] = source
            .require(12, "block")?
            .first_chunk()
            .expect("twelve bytes are required");
        let magic = [m0, m1, m2, m3];
        // The type of a section header reads the same in both byte orders.
        let is_section_header = u32::from_be_bytes([t0, t1, t2, t3]) == block_type::SECTION_HEADER;
        let byte_order = match (is_section_header, self.byte_order) {
            (true, _) if magic == [0x4d, 0x3c, 0x2b, 0x1a] => ByteOrder::Little,
            (true, _) if magic == [0x1a, 0x2b, 0x3c, 0x4d] => ByteOrder::Big,
            (false, Some(byte_order)) => byte_order,
            _ => return Err(Fault::new(offset, TraceProblem::NoSectionHeader)),
        };
        let block_type = byte_order.u32([t0, t1, t2, t3]);
        let bytes = byte_order.u32([l0, l1, l2, l3]);
        let least_bytes = match block_type {
            block_type::SECTION_HEADER => 28,
            block_type::INTERFACE_DESCRIPTION => 20,
            block_type::PACKET | block_type::ENHANCED_PACKET => 32,
            block_type::SIMPLE_PACKET => 16,
            _ => 12,
        };
        if bytes < least_bytes || bytes % 4 != 0 {
            return Err(Fault::new(
                offset,
                TraceProblem::BlockLength { block_type, bytes },
            ));
        }
        Ok(Some((block_type, bytes, byte_order)))
    }

    fn begin_section(&mut self, block: &[u8], byte_order: ByteOrder) -> Result<(), TraceProblem> {
        let Ok((_, header)) = parse_sectionheaderblock(block) else {
            return Err(TraceProblem::NoSectionHeader);
        };
        if header.major_version != 1 {
            return Err(TraceProblem::UnsupportedVersion {
                format: InputFormat::Pcapng,
                major: header.major_version,
                minor: header.minor_version,
            });
        }
        self.byte_order = Some(byte_order);
        self.interfaces.clear();
        Ok(())
    }

    fn add_interface(&mut self, block: &[u8], byte_order: ByteOrder) -> Result<(), TraceProblem> {
        if self.interfaces.len() == MAX_INTERFACES {
            return Err(TraceProblem::TooManyInterfaces {
                limit: MAX_INTERFACES as u32,
            });
        }
        let parsed = match byte_order {
            ByteOrder::Little => parse_interfacedescriptionblock_le(block),
            ByteOrder::Big => parse_interfacedescriptionblock_be(block),
        };
        let Ok((_, description)) = parsed else {
            return Err(TraceProblem::BlockLength {
                block_type: block_type::INTERFACE_DESCRIPTION,
                bytes: block.len() as u32,
            });
        };
        self.interfaces.push(Interface {
            link_type: LinkType::from_pcap(description.linktype.0 as u32),
            snap_bytes: description.snaplen,
            clock: Clock {
                resolution: description.if_tsresol,
                offset_s: timestamp_offset_s(&description, byte_order),
            },
        });
        Ok(())
    }

    /// A simple packet: of the first interface, without a captured length.
    fn simple_packet(&self, block: &[u8], byte_order: ByteOrder) -> Option<PacketFields> {
        let parsed = match byte_order {
            ByteOrder::Little => parse_simplepacketblock_le(block),
            ByteOrder::Big => parse_simplepacketblock_be(block),
        };
        let (_, packet) = parsed.ok()?;
        let snap_bytes = match self.interfaces.first() {
            Some(interface) if interface.snap_bytes > 0 => interface.snap_bytes,
            _ => u32::MAX,
        };
        let captured_bytes = packet.origlen.min(snap_bytes) as usize;
        if captured_bytes > packet.data.len() {
            return None;
        }
        Some(PacketFields {
            interface: 0,
            timestamp: None,
            wire_bytes: packet.origlen,
            captured: 12..12 + captured_bytes,
        })
    }
}

impl ByteOrder {
    fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::Little => u16::from_le_bytes(bytes),
            Self::Big => u16::from_be_bytes(bytes),
        }
    }

    fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }
}

impl Clock {
    /// Nanoseconds since 1970, rounded down; `None` before 1970 and after 2554.
    fn nanoseconds(self, timestamp: u64) -> Option<u64> {
        const SECOND_NS: i128 = 1_000_000_000;
        let exponent = u32::from(self.resolution & 0x7f);
        let timestamp = i128::from(timestamp);
        let nanoseconds = if self.resolution & 0x80 != 0 {
            (timestamp * SECOND_NS) >> exponent
        } else if exponent <= 9 {
            timestamp * 10_i128.pow(9 - exponent)
        } else {
            // 10^38 is the largest power in range, and far beyond any 64-bit timestamp.
            timestamp / 10_i128.pow((exponent - 9).min(38))
        };
        u64::try_from(nanoseconds + i128::from(self.offset_s) * SECOND_NS).ok()
    }
}

fn enhanced_packet(block: &[u8], byte_order: ByteOrder) -> Option<PacketFields> {
    let parsed = match byte_order {
        ByteOrder::Little => parse_enhancedpacketblock_le(block),
        ByteOrder::Big => parse_enhancedpacketblock_be(block),
    };
    let (_, packet) = parsed.ok()?;
    Some(PacketFields {
        interface: packet.if_id,
        timestamp: Some(u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low)),
        wire_bytes: packet.origlen,
        captured: captured_in(block, 28, packet.caplen)?,
    })
}

/// The obsolete packet block (appendix A of the draft), which `pcap-parser` does not know: like an
/// enhanced one, but a 16-bit interface and a 16-bit drop count in place of the interface.
fn obsolete_packet(block: &[u8], byte_order: ByteOrder) -> Option<PacketFields> {
    let (fields, _) = block.get(8..28)?.as_chunks::<4>();
    let &[[i0, i1, _, _], high, low, captured, wire] = fields else {
        return None;
    };
    Some(PacketFields {
        interface: u32::from(byte_order.u16([i0, i1])),
        timestamp: Some(u64::from(byte_order.u32(high)) << 32 | u64::from(byte_order.u32(low))),
        wire_bytes: byte_order.u32(wire),
        captured: captured_in(block, 28, byte_order.u32(captured))?,
    })
}

/// The place of a packet that begins at `start` of a block; the block's last four bytes are its
/// length.
fn captured_in(block: &[u8], start: usize, bytes: u32) -> Option<std::ops::Range<usize>> {
    let end = start.checked_add(bytes as usize)?;
    (end + 4 <= block.len()).then_some(start..end)
}

/// Option if_tsoffset. `pcap-parser` reads it as little-endian in either kind of section.
fn timestamp_offset_s(description: &InterfaceDescriptionBlock<'_>, byte_order: ByteOrder) -> i64 {
    let value = description
        .options
        .iter()
        .take_while(|option| option.code != OptionCode::EndOfOpt)
        .find(|option| option.code == OptionCode::IfTsoffset)
        .and_then(|option| option.value().first_chunk::<8>());
    match (value, byte_order) {
        (Some(bytes), ByteOrder::Little) => i64::from_le_bytes(*bytes),
        (Some(bytes), ByteOrder::Big) => i64::from_be_bytes(*bytes),
        (None, _) => 0,
    }
}

/// The whole block in the buffer, its second length field checked.
fn require_block(source: &mut Source, bytes: u32, byte_order: ByteOrder) -> Result<&[u8], Fault> {
    let offset = source.offset();
    let block = source.require(bytes as usize, "block")?;
    check_last_length(block, bytes, byte_order).map_err(|problem| Fault::new(offset, problem))?;
    Ok(block)
}

/// Passes over a block that is not looked into, and so may be of any length.
fn skip_block(source: &mut Source, bytes: u32, byte_order: ByteOrder) -> Result<(), Fault> {
    let offset = source.offset();
    if (bytes as usize) <= MAX_RECORD_BYTES {
        require_block(source, bytes, byte_order)?;
        source.take(bytes as usize);
        return Ok(());
    }
    let expected = u64::from(bytes);
    let skipped = source.skip(expected - 4)?;
    let present = skipped + source.fill(4)?.min(4) as u64;
    if skipped < expected - 4 || present < expected {
        return Err(Fault::truncated(offset, "block", present, expected));
    }
    check_last_length(source.take(4), bytes, byte_order)
        .map_err(|problem| Fault::new(offset, problem))
}

fn check_last_length(block: &[u8], first: u32, byte_order: ByteOrder) -> Result<(), TraceProblem> {
    match block.last_chunk().map(|bytes| byte_order.u32(*bytes)) {
        Some(last) if last == first => Ok(()),
        last => Err(TraceProblem::BlockLengthsDiffer {
            first,
            last: last.unwrap_or_default(),
        }),
    }
}
