//! Big-endian fields at offsets, never beyond the end.

use super::{WireError, WireReason};

pub(crate) fn array<const N: usize>(bytes: &[u8], offset: usize) -> Result<[u8; N], WireError> {
    let field = bytes.get(offset..).and_then(|rest| rest.first_chunk::<N>());
    field
        .copied()
        .ok_or_else(|| WireError::new(offset, WireReason::Truncated))
}

pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Result<u16, WireError> {
    array(bytes, offset).map(u16::from_be_bytes)
}

pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Result<u32, WireError> {
    array(bytes, offset).map(u32::from_be_bytes)
}
