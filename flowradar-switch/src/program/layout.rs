//! Where a packet's fields lie: in slots while a program runs, in bytes on the wire.

use std::collections::HashMap;

use super::json::{self, Document};
use super::op::Slot;
use super::{LoadError, invalid, too_large, unsupported};

/// The widest field, in bits.
pub(super) const MAX_FIELD_BITS: u64 = 4096;

/// The longest header, in bytes.
const MAX_HEADER_BYTES: u64 = 8192;

/// The first slots are the engine's own; they are part of a packet's state.
pub(crate) mod internal {
    use super::Slot;

    /// Length of the packet as `simple_switch` keeps it: what came in, plus added, less removed headers.
    pub(crate) const PACKET_LENGTH: Slot = 0;
    /// Clone session, with `0x8000`; zero if no clone was asked for.
    pub(crate) const CLONE_SESSION: Slot = 1;
    /// Field list that a clone keeps.
    pub(crate) const CLONE_FIELD_LIST: Slot = 2;
    /// Learn list to send; zero for none.
    pub(crate) const DIGEST: Slot = 3;
    /// Field list that a resubmitted packet keeps; zero for no resubmission.
    pub(crate) const RESUBMIT: Slot = 4;
    /// Field list that a recirculated packet keeps; zero for no recirculation.
    pub(crate) const RECIRCULATE: Slot = 5;
    /// Length to cut the packet to, plus one; zero leaves it whole.
    pub(crate) const TRUNCATE: Slot = 6;
    /// How many there are.
    pub(crate) const COUNT: Slot = 7;
}

/// All headers, metadata and stacks of a program.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    pub(crate) headers: Vec<HeaderLayout>,
    pub(crate) stacks: Vec<StackLayout>,
    pub(crate) unions: Vec<UnionLayout>,
    /// Slots below are cleared for every packet: validity, stacks, metadata. Those of headers follow.
    pub(crate) metadata_end: Slot,
    /// The slots that say that metadata is valid, which it always is.
    pub(crate) metadata_valid: Vec<Slot>,
    /// Slots below are a packet's; constants, arguments and temporaries follow.
    pub(crate) packet_slots: Slot,
    header_by_name: HashMap<String, usize>,
    header_by_id: HashMap<u64, usize>,
    aliases: HashMap<String, (String, String)>,
}

/// A header or metadata instance.
#[derive(Debug)]
pub(crate) struct HeaderLayout {
    pub(crate) name: String,
    pub(crate) header_type: String,
    pub(crate) is_metadata: bool,
    /// One if the header is valid; always one for metadata.
    pub(crate) valid: Slot,
    /// The slots of all fields, without [`Self::valid`].
    pub(crate) slots: std::ops::Range<Slot>,
    pub(crate) fields: Vec<FieldLayout>,
    /// Length on the wire in bytes, without the variable field.
    pub(crate) fixed_bytes: u16,
    pub(crate) variable: Option<VariableField>,
    /// What is on the wire before the variable field, or all of it.
    pub(crate) head: BitGroups,
    /// What is on the wire after the variable field.
    pub(crate) tail: BitGroups,
    /// Other members of the same header union.
    pub(crate) siblings: Vec<u16>,
}

/// A field of a header or metadata.
#[derive(Clone, Debug)]
pub(crate) struct FieldLayout {
    pub(crate) name: String,
    /// Zero for the variable field.
    pub(crate) bits: u32,
    pub(crate) is_signed: bool,
    pub(crate) slot: Slot,
    pub(crate) limbs: u8,
    pub(crate) is_variable: bool,
}

/// A field of variable length: its bytes in slots, eight a slot, the first byte most significant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VariableField {
    /// Its current length in bytes.
    pub(crate) length: Slot,
    pub(crate) first_slot: Slot,
    pub(crate) max_bytes: u16,
    /// What precedes it in the header, in bytes.
    pub(crate) offset: u16,
}

/// A header stack.
#[derive(Debug)]
pub(crate) struct StackLayout {
    pub(crate) name: String,
    pub(crate) header_type: String,
    pub(crate) headers: Vec<u16>,
    /// How many were pushed: the index that is extracted to next.
    pub(crate) next: Slot,
}

/// A header union.
#[derive(Debug)]
pub(crate) struct UnionLayout {
    pub(crate) name: String,
    pub(crate) headers: Vec<u16>,
}

/// How bytes on the wire map to slots: windows of up to eight bytes, each with parts of fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BitGroups {
    pub(crate) groups: Vec<BitGroup>,
    pub(crate) parts: Vec<BitPart>,
    pub(crate) bytes: u16,
}

/// Up to eight bytes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BitGroup {
    pub(crate) byte_offset: u16,
    pub(crate) bytes: u8,
    pub(crate) parts: u8,
}

/// A field, or a part of it, within a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BitPart {
    pub(crate) slot: Slot,
    /// Where its least significant bit is in the slot.
    pub(crate) slot_shift: u8,
    /// Where its least significant bit is in the window.
    pub(crate) window_shift: u8,
    pub(crate) bits: u8,
    /// Whether an earlier part of the same slot was in the window before.
    pub(crate) continues: bool,
}

impl Layout {
    pub(super) fn new(document: &Document) -> Result<Self, LoadError> {
        let mut layout = Self {
            packet_slots: internal::COUNT,
            ..Self::default()
        };
        let mut types = HashMap::new();
        for header_type in &document.header_types {
            if types
                .insert(header_type.name.as_str(), header_type)
                .is_some()
            {
                return Err(invalid("header type", &header_type.name, "is there twice"));
            }
        }
        let first_valid = layout.allocate("the program", document.headers.len() as u64)?;
        let first_next = layout.allocate("the program", document.header_stacks.len() as u64)?;
        // Metadata first: it is cleared for every packet, fields of headers only after they were used.
        let mut headers: Vec<_> = document
            .headers
            .iter()
            .zip(first_valid..)
            .enumerate()
            .collect();
        headers.sort_by_key(|(_, (header, _))| !header.metadata);
        let mut layouts = Vec::with_capacity(headers.len());
        for (position, (header, valid)) in headers {
            let Some(header_type) = types.get(header.header_type.as_str()) else {
                let reason = format!("its type {} is not there", header.header_type);
                return Err(invalid("header", &header.name, &reason));
            };
            layouts.push((position, layout.header_layout(header, header_type, valid)?));
            if header.metadata {
                layout.metadata_valid.push(valid);
                layout.metadata_end = layout.packet_slots;
            }
        }
        layout.metadata_end = layout
            .metadata_end
            .max(first_next + document.header_stacks.len() as Slot);
        layouts.sort_by_key(|(position, _)| *position);
        for ((_, header_layout), header) in layouts.into_iter().zip(&document.headers) {
            let index = layout.headers.len();
            if layout
                .header_by_name
                .insert(header.name.clone(), index)
                .is_some()
                || layout.header_by_id.insert(header.id, index).is_some()
            {
                return Err(invalid(
                    "header",
                    &header.name,
                    "is there twice, by name or id",
                ));
            }
            layout.headers.push(header_layout);
        }
        layout.add_stacks(document, first_next)?;
        layout.add_unions(document)?;
        for (alias, target) in &document.field_aliases {
            layout.aliases.insert(alias.clone(), target.clone());
        }
        Ok(layout)
    }

    pub(super) fn header_index(&self, place: &str, name: &str) -> Result<u16, LoadError> {
        match self.header_by_name.get(name) {
            Some(index) => Ok(u16::try_from(*index).unwrap_or(u16::MAX)),
            None => Err(LoadError::Invalid {
                place: place.to_owned(),
                reason: format!("there is no header {name}"),
            }),
        }
    }

    pub(super) fn header(&self, place: &str, name: &str) -> Result<&HeaderLayout, LoadError> {
        let index = self.header_index(place, name)?;
        Ok(&self.headers[usize::from(index)])
    }

    pub(super) fn field(
        &self,
        place: &str,
        header: &str,
        field: &str,
    ) -> Result<FieldLayout, LoadError> {
        let layout = self.header(place, header)?;
        if field == "$valid$" {
            return Ok(layout.valid_field());
        }
        layout
            .field(field)
            .cloned()
            .ok_or_else(|| LoadError::Invalid {
                place: place.to_owned(),
                reason: format!("header {header} has no field {field}"),
            })
    }

    pub(super) fn stack_index(&self, place: &str, name: &str) -> Result<u16, LoadError> {
        let position = self.stacks.iter().position(|stack| stack.name == name);
        let index = position.and_then(|position| u16::try_from(position).ok());
        index.ok_or_else(|| LoadError::Invalid {
            place: place.to_owned(),
            reason: format!("there is no header stack {name}"),
        })
    }

    pub(super) fn union(&self, place: &str, name: &str) -> Result<&UnionLayout, LoadError> {
        self.unions
            .iter()
            .find(|union| union.name == name)
            .ok_or_else(|| LoadError::Invalid {
                place: place.to_owned(),
                reason: format!("there is no header union {name}"),
            })
    }

    /// A field by the name that `simple_switch` has for it, if the program has it.
    pub(super) fn aliased(&self, header: &str, field: &str) -> Option<FieldLayout> {
        let (header, field) = match self.aliases.get(&format!("{header}.{field}")) {
            Some((header, field)) => (header.as_str(), field.as_str()),
            None => (header, field),
        };
        let index = *self.header_by_name.get(header)?;
        self.headers.get(index)?.field(field).cloned()
    }

    /// Slots that follow each other.
    pub(super) fn allocate(&mut self, place: &str, count: u64) -> Result<Slot, LoadError> {
        let first = self.packet_slots;
        let end = u64::from(first) + count;
        match Slot::try_from(end) {
            Ok(end) => {
                self.packet_slots = end;
                Ok(first)
            }
            Err(_) => Err(too_large(
                place,
                "slots for fields",
                end,
                u64::from(Slot::MAX),
            )),
        }
    }

    fn header_layout(
        &mut self,
        header: &json::Header,
        header_type: &json::HeaderType,
        valid: Slot,
    ) -> Result<HeaderLayout, LoadError> {
        let place = format!("header type {}", header_type.name);
        if header_type
            .length_exp
            .as_ref()
            .is_some_and(|expression| !expression.is_null())
        {
            return Err(unsupported(
                &place,
                "a length expression of the type (P4_14)",
            ));
        }
        let first_slot = self.packet_slots;
        let mut fields: Vec<FieldLayout> = Vec::with_capacity(header_type.fields.len());
        let mut variable = None;
        let mut bits_so_far = 0;
        for field in &header_type.fields {
            let field = FieldType::new(&place, field)?;
            if fields.iter().any(|other| other.name == field.name) {
                return Err(invalid(
                    "header type",
                    &header_type.name,
                    "has a field twice",
                ));
            }
            let Some(bits) = field.bits else {
                if variable.is_some() {
                    return Err(unsupported(
                        &place,
                        "more than one field of variable length",
                    ));
                }
                variable = Some((fields.len(), bits_so_far));
                fields.push(FieldLayout {
                    name: field.name,
                    bits: 0,
                    is_signed: false,
                    slot: 0,
                    limbs: 0,
                    is_variable: true,
                });
                continue;
            };
            bits_so_far += u64::from(bits);
            let limbs = bits.div_ceil(64);
            let slot = self.allocate(&place, u64::from(limbs))?;
            fields.push(FieldLayout {
                name: field.name,
                bits,
                is_signed: field.is_signed,
                slot,
                limbs: limbs as u8,
                is_variable: false,
            });
        }
        if bits_so_far > MAX_HEADER_BYTES * 8 {
            return Err(too_large(&place, "bits", bits_so_far, MAX_HEADER_BYTES * 8));
        }
        if !header.metadata && !bits_so_far.is_multiple_of(8) {
            return Err(unsupported(
                &place,
                "a header whose length is not a multiple of 8 bits",
            ));
        }
        let fixed_bytes = bits_so_far.div_ceil(8);
        let variable = match variable {
            Some((index, bits_before)) => {
                let field =
                    self.add_variable(&place, header_type.max_length, fixed_bytes, bits_before)?;
                fields[index].slot = field.first_slot;
                Some((index, field))
            }
            None => None,
        };
        let split = variable.map_or(fields.len(), |(index, _)| index);
        let (head, tail) = if header.metadata {
            <_>::default()
        } else {
            let offset = variable.map_or(0, |(_, field)| usize::from(field.offset));
            (
                BitGroups::new(&fields[..split], 0),
                BitGroups::new(&fields[split..], offset),
            )
        };
        Ok(HeaderLayout {
            name: header.name.clone(),
            header_type: header_type.name.clone(),
            is_metadata: header.metadata,
            valid,
            slots: first_slot..self.packet_slots,
            fields,
            fixed_bytes: fixed_bytes as u16,
            variable: variable.map(|(_, field)| field),
            head,
            tail,
            siblings: Vec::new(),
        })
    }

    fn add_variable(
        &mut self,
        place: &str,
        max_length: Option<u64>,
        fixed_bytes: u64,
        bits_before: u64,
    ) -> Result<VariableField, LoadError> {
        let Some(max_length) = max_length else {
            return Err(LoadError::Invalid {
                place: place.to_owned(),
                reason: "it has a field of variable length but no max_length".to_owned(),
            });
        };
        if !bits_before.is_multiple_of(8) {
            return Err(unsupported(
                place,
                "a field of variable length that does not start a byte",
            ));
        }
        if max_length > MAX_HEADER_BYTES {
            return Err(too_large(place, "bytes", max_length, MAX_HEADER_BYTES));
        }
        let max_bytes = max_length.saturating_sub(fixed_bytes);
        let length = self.allocate(place, 1)?;
        let first_slot = self.allocate(place, max_bytes.div_ceil(8))?;
        let offset = (bits_before / 8) as u16;
        Ok(VariableField {
            length,
            first_slot,
            max_bytes: max_bytes as u16,
            offset,
        })
    }

    fn add_stacks(&mut self, document: &Document, first_next: Slot) -> Result<(), LoadError> {
        if let Some(stack) = document.header_union_stacks.first() {
            return Err(unsupported(&stack.name, "a stack of header unions"));
        }
        for (stack, next) in document.header_stacks.iter().zip(first_next..) {
            let place = format!("header stack {}", stack.name);
            let headers = self.members(&place, &stack.header_ids)?;
            for header in &headers {
                if self.headers[usize::from(*header)].header_type != stack.header_type {
                    return Err(LoadError::Invalid {
                        place,
                        reason: "its headers are not of its type".to_owned(),
                    });
                }
            }
            self.stacks.push(StackLayout {
                name: stack.name.clone(),
                header_type: stack.header_type.clone(),
                headers,
                next,
            });
        }
        Ok(())
    }

    fn add_unions(&mut self, document: &Document) -> Result<(), LoadError> {
        for union in &document.header_unions {
            let headers =
                self.members(&format!("header union {}", union.name), &union.header_ids)?;
            for header in &headers {
                let siblings = headers.iter().copied().filter(|other| other != header);
                self.headers[usize::from(*header)].siblings = siblings.collect();
            }
            self.unions.push(UnionLayout {
                name: union.name.clone(),
                headers,
            });
        }
        Ok(())
    }

    fn members(&self, place: &str, ids: &[u64]) -> Result<Vec<u16>, LoadError> {
        let index = |id| {
            let position = self.header_by_id.get(id)?;
            u16::try_from(*position).ok()
        };
        ids.iter()
            .map(index)
            .collect::<Option<Vec<_>>>()
            .filter(|ids| !ids.is_empty())
            .ok_or_else(|| LoadError::Invalid {
                place: place.to_owned(),
                reason: "it has no headers, or one that is not there".to_owned(),
            })
    }
}

impl HeaderLayout {
    pub(super) fn field(&self, name: &str) -> Option<&FieldLayout> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The hidden field that says whether the header is valid.
    pub(super) fn valid_field(&self) -> FieldLayout {
        FieldLayout {
            name: "$valid$".to_owned(),
            bits: 1,
            is_signed: false,
            slot: self.valid,
            limbs: 1,
            is_variable: false,
        }
    }
}

impl BitGroups {
    /// The windows for fields that follow each other on the wire, from `byte_offset` on.
    pub(super) fn new(fields: &[FieldLayout], byte_offset: usize) -> Self {
        let parts = fields
            .iter()
            .filter(|field| !field.is_variable)
            .flat_map(|field| {
                (0..field.limbs).rev().map(|limb| {
                    let bits = (field.bits - u32::from(limb) * 64).min(64) as u8;
                    (field.slot + Slot::from(limb), bits)
                })
            });
        Self::of_parts(parts, byte_offset)
    }

    /// The windows for the low bits of slots.
    pub(super) fn of_parts(slots: impl Iterator<Item = (Slot, u8)>, byte_offset: usize) -> Self {
        let mut groups = Self::default();
        let mut pending: Vec<BitPart> = Vec::new();
        let mut pending_bits = 0;
        let mut offset = byte_offset;
        for (slot, bits) in slots {
            let mut left = u32::from(bits);
            let mut continues = false;
            while left > 0 {
                let bits = left.min(64 - pending_bits);
                left -= bits;
                pending_bits += bits;
                pending.push(BitPart {
                    slot,
                    slot_shift: left as u8,
                    window_shift: (64 - pending_bits) as u8,
                    bits: bits as u8,
                    continues,
                });
                continues = true;
                if pending_bits == 64 {
                    groups.close(&mut pending, &mut pending_bits, &mut offset);
                }
            }
        }
        groups.close(&mut pending, &mut pending_bits, &mut offset);
        groups.bytes = (offset - byte_offset) as u16;
        groups
    }

    fn close(&mut self, pending: &mut Vec<BitPart>, pending_bits: &mut u32, offset: &mut usize) {
        if pending.is_empty() {
            return;
        }
        let bytes = pending_bits.div_ceil(8);
        self.groups.push(BitGroup {
            byte_offset: *offset as u16,
            bytes: bytes as u8,
            parts: pending.len() as u8,
        });
        self.parts.append(pending);
        *offset += bytes as usize;
        *pending_bits = 0;
    }
}

/// One entry of a header type's fields: name, width, whether signed.
struct FieldType {
    name: String,
    /// `None` for a field of variable length.
    bits: Option<u32>,
    is_signed: bool,
}

impl FieldType {
    fn new(place: &str, tuple: &[serde_json::Value]) -> Result<Self, LoadError> {
        let wrong = || LoadError::Invalid {
            place: place.to_owned(),
            reason: "a field is not a name, a width and optionally whether it is signed".to_owned(),
        };
        let name = tuple
            .first()
            .and_then(|name| name.as_str())
            .ok_or_else(wrong)?
            .to_owned();
        let width = tuple.get(1).ok_or_else(wrong)?;
        let is_signed = tuple
            .get(2)
            .and_then(serde_json::Value::as_bool)
            .unwrap_or_default();
        if tuple
            .get(3)
            .and_then(serde_json::Value::as_bool)
            .unwrap_or_default()
        {
            return Err(unsupported(place, "a saturating field (P4_14)"));
        }
        if width.as_str() == Some("*") {
            return Ok(Self {
                name,
                bits: None,
                is_signed: false,
            });
        }
        let bits = width.as_u64().filter(|bits| *bits > 0).ok_or_else(wrong)?;
        if bits > MAX_FIELD_BITS {
            return Err(too_large(
                &format!("{place}, field {name}"),
                "bits",
                bits,
                MAX_FIELD_BITS,
            ));
        }
        Ok(Self {
            name,
            bits: Some(bits as u32),
            is_signed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(bits: u32, slot: Slot) -> FieldLayout {
        FieldLayout {
            name: String::new(),
            bits,
            is_signed: false,
            slot,
            limbs: bits.div_ceil(64) as u8,
            is_variable: false,
        }
    }

    #[test]
    fn ethernet_takes_two_windows() {
        let groups = BitGroups::new(&[field(48, 10), field(48, 11), field(16, 12)], 0);
        let windows: Vec<_> = groups
            .groups
            .iter()
            .map(|group| (group.byte_offset, group.bytes))
            .collect();
        assert_eq!(windows, [(0, 8), (8, 6)]);
        let parts: Vec<_> = groups
            .parts
            .iter()
            .map(|part| {
                (
                    part.slot,
                    part.slot_shift,
                    part.window_shift,
                    part.bits,
                    part.continues,
                )
            })
            .collect();
        // The source address lies across both: its upper 16 bits, then its lower 32.
        assert_eq!(
            parts,
            [
                (10, 0, 16, 48, false),
                (11, 32, 0, 16, false),
                (11, 0, 32, 32, true),
                (12, 0, 16, 16, false)
            ]
        );
        assert_eq!(groups.bytes, 14);
    }

    #[test]
    fn wide_fields_start_with_their_most_significant_slot() {
        let groups = BitGroups::new(&[field(128, 20)], 4);
        let slots: Vec<_> = groups.parts.iter().map(|part| part.slot).collect();
        assert_eq!(slots, [21, 20]);
        assert_eq!(groups.groups[1].byte_offset, 12);
    }
}
