//! What makes two messages belong to one stream.

use std::net::{IpAddr, SocketAddr};

use xxhash_rust::xxh3::Xxh3;

use crate::wire::{Header, Protocol};

/// Identity of a stream: templates and sequence numbers are valid within one stream.
///
/// By default the source address, the protocol and the observation domain. The source port is left
/// out although RFC 7011 section 8.4 counts it, because exporters send options and data from
/// different ports and change ports when they restart; see [`StreamKeyPolicy`].
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize, serde::Serialize,
)]
pub struct StreamKey {
    /// Source address of the datagrams.
    pub source: IpAddr,
    /// Source port, if it is part of the identity.
    pub source_port: Option<u16>,
    /// Ids and numbers of different protocols have nothing to do with each other.
    pub protocol: Protocol,
    /// Observation domain; see [`Header::domain`].
    pub domain: u32,
    /// sFlow: the agent, which may stand behind a proxy or a translated address.
    pub agent: Option<IpAddr>,
}

impl StreamKey {
    /// A hash that is the same in every process and on every machine.
    pub fn hash(&self) -> u64 {
        let mut hasher = Xxh3::new();
        let address = |hasher: &mut Xxh3, address: IpAddr| match address {
            IpAddr::V4(address) => hasher.update(&address.octets()),
            IpAddr::V6(address) => hasher.update(&address.octets()),
        };
        address(&mut hasher, self.source);
        if let Some(agent) = self.agent {
            address(&mut hasher, agent);
        }
        hasher.update(&self.source_port.unwrap_or(0).to_be_bytes());
        hasher.update(self.protocol.name().as_bytes());
        hasher.update(&self.domain.to_be_bytes());
        hasher.digest()
    }
}

/// What counts for a stream's identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamKeyPolicy {
    /// Whether two source ports are two streams: for several exporters behind one address that use
    /// the same observation domain.
    pub source_port: bool,
}

impl StreamKeyPolicy {
    /// The stream of a message.
    pub fn key(self, source: SocketAddr, header: &Header) -> StreamKey {
        StreamKey {
            source: source.ip().to_canonical(),
            source_port: self.source_port.then_some(source.port()),
            protocol: header.protocol,
            domain: header.domain,
            agent: header.agent,
        }
    }
}
