//! Packets to and from the controller, with their headers by name.

use crate::entity::EntityError;
use crate::p4info::ControllerHeader;
use crate::proto::p4::v1 as p4;
use crate::{Bytestring, P4Info};

/// A packet to or from a switch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControllerPacket {
    /// The header's fields, by name.
    pub fields: Vec<(String, Bytestring)>,
    /// The frame.
    pub payload: Vec<u8>,
}

impl ControllerPacket {
    /// A packet without header fields.
    pub fn new(payload: Vec<u8>) -> Self {
        Self {
            fields: Vec::new(),
            payload,
        }
    }

    /// Sets a field of the header.
    #[must_use]
    pub fn with_field(mut self, name: impl Into<String>, value: impl Into<Bytestring>) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// A field of the header.
    pub fn field(&self, name: &str) -> Option<&Bytestring> {
        self.fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value)
    }
}

impl P4Info {
    /// The message for a packet to the switch. Fields that are not given are zero.
    ///
    /// # Errors
    ///
    /// If the program's header has no such field, or a value does not fit.
    pub fn encode_packet_out(
        &self,
        packet: &ControllerPacket,
    ) -> Result<p4::PacketOut, EntityError> {
        Ok(p4::PacketOut {
            payload: packet.payload.clone(),
            metadata: encode_fields("packet_out", self.packet_out(), &packet.fields)?,
        })
    }

    /// The message for a packet to the controller. Fields that are not given are zero.
    ///
    /// # Errors
    ///
    /// If the program's header has no such field, or a value does not fit.
    pub fn encode_packet_in(&self, packet: &ControllerPacket) -> Result<p4::PacketIn, EntityError> {
        Ok(p4::PacketIn {
            payload: packet.payload.clone(),
            metadata: encode_fields("packet_in", self.packet_in(), &packet.fields)?,
        })
    }

    /// The packet in a message to the switch.
    ///
    /// # Errors
    ///
    /// If the header's fields are not exactly those of the program, or a value does not fit.
    pub fn decode_packet_out(
        &self,
        message: p4::PacketOut,
    ) -> Result<ControllerPacket, EntityError> {
        Ok(ControllerPacket {
            fields: decode_fields("packet_out", self.packet_out(), &message.metadata)?,
            payload: message.payload,
        })
    }

    /// The packet in a message to the controller.
    ///
    /// # Errors
    ///
    /// If the header's fields are not exactly those of the program, or a value does not fit.
    pub fn decode_packet_in(&self, message: p4::PacketIn) -> Result<ControllerPacket, EntityError> {
        Ok(ControllerPacket {
            fields: decode_fields("packet_in", self.packet_in(), &message.metadata)?,
            payload: message.payload,
        })
    }
}

impl ControllerHeader {
    /// The header's bytes, as they stand before the frame on the CPU port. Fields that are not given
    /// are zero.
    pub fn pack(&self, fields: &[(String, Bytestring)]) -> Vec<u8> {
        let width_bits: u64 = self
            .fields
            .iter()
            .map(|field| u64::from(field.width_bits))
            .sum();
        let length = usize::try_from(width_bits.div_ceil(8)).unwrap_or_default();
        let mut bytes = vec![0; length];
        let mut end_bit = 0;
        for field in &self.fields {
            end_bit += field.width_bits as usize;
            let value = fields.iter().find(|(name, _)| *name == field.name);
            let Some((_, value)) = value else { continue };
            for (position, byte) in value.as_bytes().iter().rev().enumerate() {
                for bit in 0..8 {
                    let weight = position * 8 + bit;
                    if weight >= field.width_bits as usize || byte >> bit & 1 == 0 {
                        continue;
                    }
                    let place = end_bit - 1 - weight;
                    if let Some(target) = bytes.get_mut(place / 8) {
                        *target |= 0x80 >> (place % 8);
                    }
                }
            }
        }
        bytes
    }

    /// The packet in a frame of the CPU port; `None` if it is too short for the header.
    pub fn unpack(&self, frame: &[u8]) -> Option<ControllerPacket> {
        let width_bits: usize = self
            .fields
            .iter()
            .map(|field| field.width_bits as usize)
            .sum();
        let (header, payload) = frame.split_at_checked(width_bits.div_ceil(8))?;
        let mut first_bit = 0;
        let mut fields = Vec::with_capacity(self.fields.len());
        for field in &self.fields {
            let width = field.width_bits as usize;
            let mut value = vec![0_u8; width.div_ceil(8)];
            for bit in 0..width {
                let place = first_bit + width - 1 - bit;
                let is_one = header.get(place / 8)? >> (7 - place % 8) & 1 == 1;
                if let (true, Some(byte)) = (is_one, value.iter_mut().rev().nth(bit / 8)) {
                    *byte |= 1 << (bit % 8);
                }
            }
            first_bit += width;
            fields.push((field.name.clone(), Bytestring::from_be_bytes(&value)));
        }
        Some(ControllerPacket {
            fields,
            payload: payload.to_vec(),
        })
    }
}

fn encode_fields(
    header: &'static str,
    declared: Option<&ControllerHeader>,
    fields: &[(String, Bytestring)],
) -> Result<Vec<p4::PacketMetadata>, EntityError> {
    let declared = declared.map_or(&[][..], |header| &header.fields);
    for (position, (name, _)) in fields.iter().enumerate() {
        let twice = fields.iter().take(position).any(|(other, _)| other == name);
        if twice || declared.iter().all(|field| field.name != *name) {
            return Err(EntityError::HeaderField {
                header,
                field: format!("`{name}`"),
                reason: "is not declared, or given twice",
            });
        }
    }
    let encode = |field: &crate::p4info::Field| {
        let value = fields.iter().find(|(name, _)| *name == field.name);
        let value = value.map_or_else(Bytestring::zero, |(_, value)| value.clone());
        let value = value.fitting(field.width_bits);
        Ok(p4::PacketMetadata {
            metadata_id: field.id,
            value: value
                .map_err(|source| EntityError::Value {
                    place: format!("header `{header}`, field `{}`", field.name),
                    source,
                })?
                .into_bytes(),
        })
    };
    declared.iter().map(encode).collect()
}

fn decode_fields(
    header: &'static str,
    declared: Option<&ControllerHeader>,
    metadata: &[p4::PacketMetadata],
) -> Result<Vec<(String, Bytestring)>, EntityError> {
    let declared = declared.map_or(&[][..], |header| &header.fields);
    for (position, field) in metadata.iter().enumerate() {
        let id = field.metadata_id;
        let twice = metadata
            .iter()
            .take(position)
            .any(|other| other.metadata_id == id);
        if twice || declared.iter().all(|field| field.id != id) {
            return Err(EntityError::HeaderField {
                header,
                field: id.to_string(),
                reason: "is not declared, or given twice",
            });
        }
    }
    let decode = |field: &crate::p4info::Field| {
        let given = metadata.iter().find(|given| given.metadata_id == field.id);
        let given = given.ok_or_else(|| EntityError::HeaderField {
            header,
            field: format!("`{}`", field.name),
            reason: "is missing",
        })?;
        let value = Bytestring::from_wire(&given.value, field.width_bits);
        let value = value.map_err(|source| EntityError::Value {
            place: format!("header `{header}`, field `{}`", field.name),
            source,
        })?;
        Ok((field.name.clone(), value))
    };
    declared.iter().map(decode).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::p4info::{Field, Preamble};

    fn header(widths: &[u32]) -> ControllerHeader {
        let field = |(position, width_bits): (usize, &u32)| Field {
            id: u32::try_from(position + 1).expect("few fields"),
            name: format!("f{position}"),
            width_bits: *width_bits,
        };
        ControllerHeader {
            preamble: Preamble {
                id: 1,
                name: "packet_in".into(),
                alias: "packet_in".into(),
            },
            fields: widths.iter().enumerate().map(field).collect(),
        }
    }

    /// Nine bits of port and seven of padding, as in most programs.
    #[test]
    fn fields_stand_in_the_order_of_the_header() {
        let header = header(&[9, 7]);
        let fields = vec![("f0".into(), Bytestring::from(0x1ff_u16))];
        assert_eq!(header.pack(&fields), [0xff, 0x80]);
        let packet = header.unpack(&[0x01, 0x03, 0xaa]).expect("long enough");
        assert_eq!(packet.field("f0"), Some(&Bytestring::from(2_u8)));
        assert_eq!(packet.field("f1"), Some(&Bytestring::from(3_u8)));
        assert_eq!(packet.payload, [0xaa]);
        assert_eq!(header.unpack(&[0x01]), None);
    }

    proptest! {
        #[test]
        fn unpacking_undoes_packing(parts in proptest::collection::vec((1_u32..100, any::<u128>()), 0..6)) {
            let widths: Vec<u32> = parts.iter().map(|(width, _)| *width).collect();
            let header = header(&widths);
            let fields: Vec<(String, Bytestring)> = parts
                .iter()
                .enumerate()
                .map(|(position, (width, value))| {
                    let mask = Bytestring::ones(*width);
                    (format!("f{position}"), Bytestring::from(*value).and(&mask))
                })
                .collect();
            let mut frame = header.pack(&fields);
            frame.extend([1, 2, 3]);
            let unpacked = header.unpack(&frame);
            let packet = ControllerPacket { fields, payload: vec![1, 2, 3] };
            prop_assert_eq!(unpacked, Some(packet));
        }
    }
}
