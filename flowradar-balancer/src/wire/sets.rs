//! The sets (v9: flowsets) of a NetFlow v9 or IPFIX message.

use super::bytes::u16_at;
use super::{Header, Protocol, WireError, WireReason};

/// Bytes of a set's header.
pub const SET_HEADER_LEN: usize = 4;

/// What a set holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetKind {
    /// Template records.
    Templates,
    /// Options template records.
    OptionsTemplates,
    /// Data records of the template with this id.
    Data(u16),
}

/// A set within a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set<'a> {
    /// What it holds.
    pub kind: SetKind,
    /// Where in the datagram its records begin.
    pub body_offset: usize,
    /// Records and padding.
    pub body: &'a [u8],
    /// The set with its header.
    pub raw: &'a [u8],
}

/// Walks the sets of a message; ends after the first error.
///
/// Up to three bytes behind the last set are padding.
#[derive(Clone, Debug)]
pub struct Sets<'a> {
    message: &'a [u8],
    protocol: Protocol,
    offset: usize,
}

impl<'a> Sets<'a> {
    /// The sets of the message whose header was read from this datagram.
    pub fn new(datagram: &'a [u8], header: &Header) -> Self {
        Self {
            message: datagram.get(..header.end).unwrap_or(datagram),
            protocol: header.protocol,
            offset: header.body_offset,
        }
    }

    fn read(&mut self) -> Result<Set<'a>, WireError> {
        let offset = self.offset;
        let id = u16_at(self.message, offset)?;
        let length = usize::from(u16_at(self.message, offset + 2)?);
        if length < SET_HEADER_LEN {
            return Err(WireError::new(offset + 2, WireReason::SetLength));
        }
        let raw = self.message.get(offset..offset + length);
        let raw = raw.ok_or_else(|| WireError::new(offset + 2, WireReason::SetBeyondMessage))?;
        let kind = match (self.protocol, id) {
            (Protocol::NetflowV9, 0) | (Protocol::Ipfix, 2) => SetKind::Templates,
            (Protocol::NetflowV9, 1) | (Protocol::Ipfix, 3) => SetKind::OptionsTemplates,
            (_, 256..) => SetKind::Data(id),
            _ => return Err(WireError::new(offset, WireReason::ReservedSetId)),
        };
        self.offset += length;
        Ok(Set {
            kind,
            body_offset: offset + SET_HEADER_LEN,
            body: &raw[SET_HEADER_LEN..],
            raw,
        })
    }
}

impl<'a> Iterator for Sets<'a> {
    type Item = Result<Set<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.message.len().saturating_sub(self.offset) < SET_HEADER_LEN {
            return None;
        }
        let set = self.read();
        if set.is_err() {
            self.offset = self.message.len();
        }
        Some(set)
    }
}
