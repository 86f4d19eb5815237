//! What a message says of itself, whatever its protocol.

use std::fmt;
use std::net::IpAddr;

use super::bytes::{array, u16_at, u32_at};
use super::{WireError, WireReason};

/// A protocol of flow exports.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize, serde::Serialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// NetFlow version 5, NetStream version 5.
    #[serde(rename = "netflow5")]
    NetflowV5,
    /// NetFlow version 9 (RFC 3954), NetStream version 9.
    #[serde(rename = "netflow9")]
    NetflowV9,
    /// IPFIX (RFC 7011).
    Ipfix,
    /// sFlow version 5.
    Sflow,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::NetflowV5, Self::NetflowV9, Self::Ipfix, Self::Sflow];

    /// What the protocol's sequence numbers count.
    pub const fn sequence_unit(self) -> SequenceUnit {
        match self {
            Self::NetflowV5 | Self::Ipfix => SequenceUnit::Records,
            Self::NetflowV9 | Self::Sflow => SequenceUnit::Messages,
        }
    }

    /// Whether records are described by templates.
    pub const fn has_templates(self) -> bool {
        matches!(self, Self::NetflowV9 | Self::Ipfix)
    }

    /// The name in configurations and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NetflowV5 => "netflow5",
            Self::NetflowV9 => "netflow9",
            Self::Ipfix => "ipfix",
            Self::Sflow => "sflow",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What sequence numbers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceUnit {
    /// Flow records before this message; IPFIX: data records, those of options included.
    Records,
    /// Messages.
    Messages,
}

/// The header of an export message, checked against the length of its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The protocol.
    pub protocol: Protocol,
    /// Sequence number, in [`Protocol::sequence_unit`].
    pub sequence: u32,
    /// Where the sequence number is, as four bytes.
    pub sequence_offset: usize,
    /// Observation domain: source id of v9, engine type and id of v5, sub-agent of sFlow.
    pub domain: u32,
    /// sFlow: the agent's address.
    pub agent: Option<IpAddr>,
    /// Records (v5, v9) or samples (sFlow) that the header announces; 0 for IPFIX.
    pub count: u32,
    /// Where sets, records or samples begin.
    pub body_offset: usize,
    /// Where the message ends: the datagram's end, for IPFIX the message's own length.
    pub end: usize,
}

impl Header {
    /// Length of a NetFlow v5 header.
    pub const V5_LEN: usize = 24;
    /// Length of a NetFlow v9 header.
    pub const V9_LEN: usize = 20;
    /// Length of an IPFIX header.
    pub const IPFIX_LEN: usize = 16;

    /// Reads the header.
    ///
    /// # Errors
    ///
    /// For a version that is not known, and for a datagram too short for the header or (v5, IPFIX)
    /// for the length that the header gives.
    pub fn read(datagram: &[u8]) -> Result<Self, WireError> {
        match u16_at(datagram, 0)? {
            5 => Self::read_v5(datagram),
            9 => Self::read_v9(datagram),
            10 => Self::read_ipfix(datagram),
            // sFlow's version has four bytes.
            0 if u32_at(datagram, 0)? == 5 => Self::read_sflow(datagram),
            _ => Err(WireError::new(0, WireReason::UnknownVersion)),
        }
    }

    /// Where the observation domain is, and how many bytes it has.
    pub const fn domain_place(&self) -> (usize, usize) {
        match self.protocol {
            Protocol::NetflowV5 => (20, 2),
            Protocol::NetflowV9 => (16, 4),
            Protocol::Ipfix => (12, 4),
            Protocol::Sflow => (self.sequence_offset - 4, 4),
        }
    }

    fn read_v5(datagram: &[u8]) -> Result<Self, WireError> {
        let count = u16_at(datagram, 2)?;
        let engine = u16_at(datagram, 20)?;
        // The sampling field ends the header.
        u16_at(datagram, 22)?;
        let end = Self::V5_LEN + usize::from(count) * super::v5::RECORD_LEN;
        if count == 0 || end > datagram.len() {
            return Err(WireError::new(2, WireReason::RecordCount));
        }
        Ok(Self {
            protocol: Protocol::NetflowV5,
            sequence: u32_at(datagram, 16)?,
            sequence_offset: 16,
            domain: u32::from(engine),
            agent: None,
            count: u32::from(count),
            body_offset: Self::V5_LEN,
            end,
        })
    }

    fn read_v9(datagram: &[u8]) -> Result<Self, WireError> {
        Ok(Self {
            protocol: Protocol::NetflowV9,
            count: u32::from(u16_at(datagram, 2)?),
            sequence: u32_at(datagram, 12)?,
            sequence_offset: 12,
            domain: u32_at(datagram, 16)?,
            agent: None,
            body_offset: Self::V9_LEN,
            end: datagram.len(),
        })
    }

    fn read_ipfix(datagram: &[u8]) -> Result<Self, WireError> {
        let length = usize::from(u16_at(datagram, 2)?);
        if length < Self::IPFIX_LEN || length > datagram.len() {
            return Err(WireError::new(2, WireReason::MessageLength));
        }
        Ok(Self {
            protocol: Protocol::Ipfix,
            count: 0,
            sequence: u32_at(datagram, 8)?,
            sequence_offset: 8,
            domain: u32_at(datagram, 12)?,
            agent: None,
            body_offset: Self::IPFIX_LEN,
            end: length,
        })
    }

    fn read_sflow(datagram: &[u8]) -> Result<Self, WireError> {
        let (agent, after): (IpAddr, usize) = match u32_at(datagram, 4)? {
            1 => (array::<4>(datagram, 8)?.into(), 12),
            2 => (array::<16>(datagram, 8)?.into(), 24),
            _ => return Err(WireError::new(4, WireReason::AddressType)),
        };
        Ok(Self {
            protocol: Protocol::Sflow,
            domain: u32_at(datagram, after)?,
            sequence: u32_at(datagram, after + 4)?,
            sequence_offset: after + 4,
            agent: Some(agent),
            count: u32_at(datagram, after + 12)?,
            body_offset: after + 16,
            end: datagram.len(),
        })
    }
}
