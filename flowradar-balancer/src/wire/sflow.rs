//! The samples of an sFlow v5 datagram.

use super::bytes::u32_at;
use super::{Header, WireError, WireReason};

/// A flow or counter sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample<'a> {
    /// Enterprise (20 bits) and format: 1 flow, 2 counters, 3 and 4 the same expanded.
    pub tag: u32,
    /// What the sample holds.
    pub data: &'a [u8],
    /// The sample with its tag and length.
    pub raw: &'a [u8],
}

impl Sample<'_> {
    /// Whether it is a flow sample.
    pub fn is_flow(&self) -> bool {
        matches!(self.tag, 1 | 3)
    }
}

/// Walks the samples, as many as the header announces; ends after the first error.
#[derive(Clone, Debug)]
pub struct Samples<'a> {
    datagram: &'a [u8],
    offset: usize,
    left: u32,
}

impl<'a> Samples<'a> {
    /// The samples of the datagram whose header was read from these bytes.
    pub fn new(datagram: &'a [u8], header: &Header) -> Self {
        Self {
            datagram,
            offset: header.body_offset,
            left: header.count,
        }
    }

    fn read(&mut self) -> Result<Sample<'a>, WireError> {
        let offset = self.offset;
        let tag = u32_at(self.datagram, offset)?;
        let length = u32_at(self.datagram, offset + 4)? as usize;
        let raw = (self.datagram.get(offset..)).and_then(|rest| rest.get(..length.checked_add(8)?));
        let raw =
            raw.ok_or_else(|| WireError::new(offset + 4, WireReason::SampleBeyondDatagram))?;
        self.offset += raw.len();
        Ok(Sample {
            tag,
            data: raw.get(8..).unwrap_or(&[]),
            raw,
        })
    }
}

impl<'a> Iterator for Samples<'a> {
    type Item = Result<Sample<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let sample = self.read();
        if sample.is_err() {
            self.left = 0;
        }
        Some(sample)
    }
}
