//! The flow that a record is about, as a hash.
//!
//! Addresses, ports and protocol; both directions of a conversation have the same hash, and so has
//! the same flow in each of the formats, whichever router reports it.

use flowradar_core::FlowKey;
use flowradar_core::packet::{LinkType, Parsed, parse};

use super::bytes::{array, u32_at};
use super::template::{FieldSpecifier, field_range};
use crate::policy::mix;

/// What a field means for the flow key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyRole {
    SourceAddress,
    DestinationAddress,
    SourcePort,
    DestinationPort,
    Protocol,
}

/// Collects the fields of a flow key in any order.
#[derive(Clone, Copy, Debug, Default)]
struct KeyHasher {
    source: u64,
    destination: u64,
    ports: [u64; 2],
    protocol: u64,
}

impl KeyHasher {
    fn address(hash: u64, bytes: &[u8]) -> u64 {
        // Records with fields for both families leave one of them zero.
        if bytes.iter().all(|byte| *byte == 0) {
            return hash;
        }
        bytes
            .chunks(8)
            .fold(hash, |hash, chunk| mix(hash ^ number(chunk)))
    }

    fn take(&mut self, role: KeyRole, value: &[u8]) {
        match role {
            KeyRole::SourceAddress => self.source = Self::address(self.source, value),
            KeyRole::DestinationAddress => {
                self.destination = Self::address(self.destination, value)
            }
            KeyRole::SourcePort => self.ports[0] = number(value),
            KeyRole::DestinationPort => self.ports[1] = number(value),
            KeyRole::Protocol => self.protocol = number(value),
        }
    }

    fn finish(self) -> u64 {
        let [source_port, destination_port] = self.ports;
        // A sum does not know directions.
        let ends = mix(self.source ^ source_port << 40)
            .wrapping_add(mix(self.destination ^ destination_port << 40));
        mix(ends ^ self.protocol << 56)
    }
}

/// A big-endian number of up to eight bytes; of more, the last eight.
fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Which fields of a template's records make the flow key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FlowHashPlan {
    /// Role, index of the field, its offset (where all lengths are fixed), its length.
    fields: Box<[KeyField]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KeyField {
    role: KeyRole,
    index: u16,
    offset: u16,
    length: u16,
}

impl FlowHashPlan {
    pub(crate) fn new(fields: &[FieldSpecifier], has_variable: bool) -> Self {
        let mut offset = 0_usize;
        let mut key_fields = Vec::new();
        for (index, field) in fields.iter().enumerate() {
            if let (Some(role), Ok(start), Ok(index)) = (
                field.key_role(),
                u16::try_from(offset),
                u16::try_from(index),
            ) {
                key_fields.push(KeyField {
                    role,
                    index,
                    offset: start,
                    length: field.length,
                });
            }
            if !has_variable {
                offset += usize::from(field.length);
            }
        }
        let is_address = |field: &KeyField| {
            matches!(
                field.role,
                KeyRole::SourceAddress | KeyRole::DestinationAddress
            )
        };
        if !key_fields.iter().any(is_address) {
            key_fields.clear();
        }
        Self {
            fields: key_fields.into(),
        }
    }

    pub(crate) fn hash_fixed(&self, record: &[u8]) -> Option<u64> {
        if self.fields.is_empty() {
            return None;
        }
        let mut hasher = KeyHasher::default();
        for field in &self.fields {
            let start = usize::from(field.offset);
            hasher.take(
                field.role,
                record.get(start..start + usize::from(field.length))?,
            );
        }
        Some(hasher.finish())
    }

    pub(crate) fn hash_variable(&self, record: &[u8], lengths: &[u16]) -> Option<u64> {
        let mut wanted = self.fields.iter().peekable();
        wanted.peek()?;
        let mut hasher = KeyHasher::default();
        let mut offset = 0;
        for (index, length) in lengths.iter().enumerate() {
            let value = field_range(record, offset, *length)?;
            if let Some(field) = wanted.next_if(|field| usize::from(field.index) == index) {
                hasher.take(field.role, record.get(value.clone())?);
            }
            if wanted.peek().is_none() {
                break;
            }
            offset = value.end;
        }
        Some(hasher.finish())
    }
}

/// The flow of a NetFlow v5 record.
pub fn of_v5_record(record: &[u8]) -> Option<u64> {
    let mut hasher = KeyHasher::default();
    hasher.take(KeyRole::SourceAddress, record.get(0..4)?);
    hasher.take(KeyRole::DestinationAddress, record.get(4..8)?);
    hasher.take(KeyRole::SourcePort, record.get(32..34)?);
    hasher.take(KeyRole::DestinationPort, record.get(34..36)?);
    hasher.take(KeyRole::Protocol, record.get(38..39)?);
    Some(hasher.finish())
}

/// The flow of an sFlow flow sample, by the first of its records that tells: a sampled packet
/// header, or IPv4 or IPv6 data.
pub fn of_sflow_sample(tag: u32, sample: &[u8]) -> Option<u64> {
    // Where the number of records is: after the fields of a compact or an expanded flow sample.
    let (count_offset, first) = match tag {
        1 => (28, 32),
        3 => (40, 44),
        _ => return None,
    };
    let records = u32_at(sample, count_offset).ok()?;
    let mut offset = first;
    for _ in 0..records {
        let format = u32_at(sample, offset).ok()?;
        let length = u32_at(sample, offset + 4).ok()? as usize;
        let data = sample.get(offset + 8..)?.get(..length)?;
        if let Some(hash) = of_sflow_record(format, data) {
            return Some(hash);
        }
        // Lengths are multiples of four; at least the eight bytes of the header are passed.
        offset += 8 + length.next_multiple_of(4);
    }
    None
}

fn of_sflow_record(format: u32, data: &[u8]) -> Option<u64> {
    let mut hasher = KeyHasher::default();
    match format {
        1 => {
            let link = match u32_at(data, 0).ok()? {
                1 => LinkType::Ethernet,
                11 => LinkType::RawIpv4,
                12 => LinkType::RawIpv6,
                _ => return None,
            };
            let length = u32_at(data, 12).ok()? as usize;
            let header = data.get(16..)?;
            let header = header.get(..length).unwrap_or(header);
            match parse(link, header, u32_at(data, 4).ok()?).ok()? {
                Parsed::V4(packet) => {
                    let key = packet.key;
                    hasher.take(KeyRole::SourceAddress, &key.src_v4().octets());
                    hasher.take(KeyRole::DestinationAddress, &key.dst_v4().octets());
                    hasher.ports = [key.src_port(), key.dst_port()].map(u64::from);
                    hasher.protocol = u64::from(key.protocol());
                }
                Parsed::V6(packet) => {
                    let key = packet.key;
                    hasher.take(KeyRole::SourceAddress, &key.src_v6().octets());
                    hasher.take(KeyRole::DestinationAddress, &key.dst_v6().octets());
                    hasher.ports = [key.src_port(), key.dst_port()].map(u64::from);
                    hasher.protocol = u64::from(key.protocol());
                }
                _ => return None,
            }
        }
        3 | 4 => {
            // Length, protocol, addresses, ports.
            let address_len = if format == 3 { 4 } else { 16 };
            let ports = 8 + 2 * address_len;
            hasher.protocol = u64::from(u32_at(data, 4).ok()?);
            hasher.take(KeyRole::SourceAddress, data.get(8..8 + address_len)?);
            hasher.take(
                KeyRole::DestinationAddress,
                data.get(8 + address_len..ports)?,
            );
            hasher.ports = [
                u64::from(u32::from_be_bytes(array(data, ports).ok()?)),
                u64::from(u32::from_be_bytes(array(data, ports + 4).ok()?)),
            ];
        }
        _ => return None,
    }
    Some(hasher.finish())
}
