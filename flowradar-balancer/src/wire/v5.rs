//! NetFlow v5 records: 48 bytes each, right behind the header.

use super::Header;

/// Bytes of a record.
pub const RECORD_LEN: usize = 48;

/// The records of a message whose header was read from these bytes.
pub fn records<'a>(datagram: &'a [u8], header: &Header) -> impl Iterator<Item = &'a [u8]> {
    let body = datagram.get(header.body_offset..header.end).unwrap_or(&[]);
    body.chunks_exact(RECORD_LEN)
}
