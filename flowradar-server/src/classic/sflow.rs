//! sFlow version 5.

use super::Decoded;

/// Decodes a datagram.
pub fn decode_sflow(_datagram: &[u8], _now_ns: u64) -> Decoded {
    Decoded::default()
}
