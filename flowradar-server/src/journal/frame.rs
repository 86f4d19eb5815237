//! Frames around records: length and checksums, tied to the place in the segment.
//!
//! ```text
//! bytes  0..4   magic "FRJ1"
//!        4..8   length of the record in bytes, little-endian
//!        8..12  checksum of magic and length, seeded by segment and offset
//!       12..16  zero
//!       16..24  checksum of the record, seeded by segment and offset
//!       24..    the record, then zeros up to a multiple of 8
//! ```

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes before each record.
pub const FRAME_HEADER_BYTES: usize = 24;

/// Largest record.
pub const RECORD_BYTES_MAX: usize = 1 << 30;

const MAGIC: [u8; 4] = *b"FRJ1";
const ALIGNMENT: usize = 8;

/// While looking for the next valid record, at most so many times the segment's size is hashed in vain.
const SEARCH_EFFORT_MAX: usize = 4;

/// Why there is no valid frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The bytes end too early.
    #[error("the record is cut off")]
    CutOff,
    /// The header's checksum or magic does not fit.
    #[error("no record begins here")]
    Header,
    /// The record's checksum does not fit.
    #[error("the record is damaged")]
    Payload,
}

/// A record in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Offset of the frame.
    pub offset: u64,
    /// The record.
    pub payload: &'a [u8],
    /// Bytes before it that are no records.
    pub skipped_bytes: u64,
}

impl Frame<'_> {
    /// Offset of the next frame.
    pub fn end(&self) -> u64 {
        self.offset + framed_bytes(self.payload.len()) as u64
    }
}

/// Iterates over the valid frames of a segment; skips what is between them.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    bytes: &'a [u8],
    segment: u64,
    offset: usize,
    effort_left: usize,
}

impl<'a> Frames<'a> {
    /// Frames of a whole segment.
    pub fn new(bytes: &'a [u8], segment: u64) -> Self {
        Self {
            bytes,
            segment,
            offset: 0,
            effort_left: bytes.len().saturating_mul(SEARCH_EFFORT_MAX),
        }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let begin = self.offset;
        let mut offset = begin;
        while let Some(rest) = self.bytes.get(offset..).filter(|rest| !rest.is_empty()) {
            match read_frame(rest, self.segment, offset as u64) {
                Ok(payload) => {
                    self.offset = offset + framed_bytes(payload.len());
                    return Some(Frame {
                        offset: offset as u64,
                        payload,
                        skipped_bytes: (offset - begin) as u64,
                    });
                }
                Err(FrameError::Payload) => {
                    let hashed = stated_length(rest).unwrap_or_default();
                    self.effort_left = self.effort_left.checked_sub(hashed)?;
                }
                Err(FrameError::CutOff | FrameError::Header) => {}
            }
            offset += ALIGNMENT;
        }
        None
    }
}

/// Appends a frame with a record to `out`, for this place.
pub fn write_frame(out: &mut Vec<u8>, payload: &[u8], segment: u64, offset: u64) {
    debug_assert!(payload.len() <= RECORD_BYTES_MAX);
    let seed = place_seed(segment, offset);
    let mut header = [0; FRAME_HEADER_BYTES];
    header[..4].copy_from_slice(&MAGIC);
    header[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    let check = header_checksum(&header, seed);
    header[8..12].copy_from_slice(&check);
    header[16..].copy_from_slice(&xxh3_64_with_seed(payload, seed).to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(payload);
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
}

/// The record in the frame that `bytes` begin with.
pub(super) fn read_frame(bytes: &[u8], segment: u64, offset: u64) -> Result<&[u8], FrameError> {
    let seed = place_seed(segment, offset);
    let (header, rest) = bytes
        .split_first_chunk::<FRAME_HEADER_BYTES>()
        .ok_or(FrameError::CutOff)?;
    if header[..4] != MAGIC
        || header[8..12] != header_checksum(header, seed)
        || header[12..16] != [0; 4]
    {
        return Err(FrameError::Header);
    }
    let length = stated_length(bytes).ok_or(FrameError::CutOff)?;
    if length > RECORD_BYTES_MAX {
        return Err(FrameError::Header);
    }
    let payload = rest.get(..length).ok_or(FrameError::CutOff)?;
    if header[16..] != xxh3_64_with_seed(payload, seed).to_le_bytes() {
        return Err(FrameError::Payload);
    }
    Ok(payload)
}

/// Bytes that a record of this length takes in a segment.
pub(super) fn framed_bytes(payload_bytes: usize) -> usize {
    (FRAME_HEADER_BYTES + payload_bytes).next_multiple_of(ALIGNMENT)
}

fn stated_length(bytes: &[u8]) -> Option<usize> {
    let length = bytes.get(4..8)?.first_chunk()?;
    Some(u32::from_le_bytes(*length) as usize)
}

fn header_checksum(header: &[u8; FRAME_HEADER_BYTES], seed: u64) -> [u8; 4] {
    let [a, b, c, d, ..] = xxh3_64_with_seed(&header[..8], !seed).to_le_bytes();
    [a, b, c, d]
}

/// Differs from place to place, so that nothing left over from elsewhere passes for a record.
fn place_seed(segment: u64, offset: u64) -> u64 {
    segment.rotate_left(40) ^ offset
}
