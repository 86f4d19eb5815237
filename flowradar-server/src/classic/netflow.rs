//! NetFlow, NetStream and IPFIX.

use std::net::SocketAddr;

use super::Decoded;

/// Decodes datagrams of any number of exporters, bounded.
#[derive(Debug, Default)]
pub struct NetflowDecoder {}

impl NetflowDecoder {
    /// Decodes a datagram.
    pub fn decode(&mut self, _from: SocketAddr, _datagram: &[u8], _now_ns: u64) -> Decoded {
        Decoded::default()
    }
}
