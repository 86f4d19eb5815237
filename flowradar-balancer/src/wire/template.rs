//! Templates: how a data set is cut into records.

use super::bytes::{u16_at, u32_at};
use super::flow_hash::{FlowHashPlan, KeyRole};
use super::sets::SetKind;
use super::{Protocol, WireError, WireReason};

/// Length that says that a field's length is in the record (IPFIX).
pub const VARIABLE_LENGTH: u16 = 0xffff;

/// A field of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldSpecifier {
    /// Information element, without IPFIX's enterprise bit.
    pub id: u16,
    /// Bytes in a record, or [`VARIABLE_LENGTH`].
    pub length: u16,
    /// Private enterprise number.
    pub enterprise: Option<u32>,
}

/// What a template record does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateAction<'a> {
    /// Defines a template, or redefines it.
    Define(TemplateRecord<'a>),
    /// IPFIX: withdraws the template with this id.
    Withdraw(u16),
    /// IPFIX: withdraws all templates, or all options templates.
    WithdrawAll,
}

/// A template record as it is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateRecord<'a> {
    /// The set id of its data.
    pub id: u16,
    /// Fields that are the scope; none for templates that are not options templates.
    pub scope_fields: u16,
    /// Whether it is an options template.
    pub is_options: bool,
    /// The whole record, with its header.
    pub raw: &'a [u8],
    protocol: Protocol,
    fields_offset: usize,
}

impl<'a> TemplateRecord<'a> {
    /// The fields, scope first.
    pub fn fields(&self) -> impl Iterator<Item = FieldSpecifier> + use<'a> {
        let (raw, protocol) = (self.raw, self.protocol);
        let mut offset = self.fields_offset;
        std::iter::from_fn(move || {
            let (field, length) = read_field(raw, offset, protocol).ok()?;
            offset += length;
            Some(field)
        })
    }
}

/// Walks the records of a (options) template set; ends after the first error.
#[derive(Clone, Debug)]
pub struct TemplateRecords<'a> {
    body: &'a [u8],
    body_offset: usize,
    offset: usize,
    protocol: Protocol,
    is_options: bool,
}

impl<'a> TemplateRecords<'a> {
    /// The records of a set of this kind, which begins at `body_offset` of its datagram.
    pub fn new(protocol: Protocol, kind: SetKind, body: &'a [u8], body_offset: usize) -> Self {
        Self {
            body,
            body_offset,
            offset: 0,
            protocol,
            is_options: kind == SetKind::OptionsTemplates,
        }
    }

    fn error(&self, offset: usize, reason: WireReason) -> WireError {
        WireError::new(self.body_offset + offset, reason)
    }

    fn field(&self, offset: usize) -> Result<u16, WireError> {
        u16_at(self.body, offset)
            .map_err(|error| self.error(error.offset, WireReason::TemplateBeyondSet))
    }

    fn read(&mut self) -> Result<TemplateAction<'a>, WireError> {
        let start = self.offset;
        let id = self.field(start)?;
        let second = self.field(start + 2)?;
        if self.protocol == Protocol::Ipfix && second == 0 {
            self.offset = start + 4;
            return match id {
                2 | 3 => Ok(TemplateAction::WithdrawAll),
                256.. => Ok(TemplateAction::Withdraw(id)),
                _ => Err(self.error(start, WireReason::TemplateId)),
            };
        }
        if id < 256 {
            return Err(self.error(start, WireReason::TemplateId));
        }
        let (fields_offset, fields, scope_fields) = self.counts(start, second)?;
        if fields == 0 {
            return Err(self.error(start + 2, WireReason::NoFields));
        }
        if scope_fields > fields {
            return Err(self.error(start + 4, WireReason::Scope));
        }
        let mut end = fields_offset;
        for _ in 0..fields {
            let (_, length) = read_field(self.body, end, self.protocol)
                .map_err(|error| self.error(error.offset, WireReason::TemplateBeyondSet))?;
            end += length;
        }
        self.offset = end;
        Ok(TemplateAction::Define(TemplateRecord {
            id,
            scope_fields,
            is_options: self.is_options,
            raw: self.body.get(start..end).unwrap_or(&[]),
            protocol: self.protocol,
            fields_offset: fields_offset - start,
        }))
    }

    /// Where the fields begin, how many there are, and how many of them are the scope.
    fn counts(&self, start: usize, second: u16) -> Result<(usize, u16, u16), WireError> {
        match (self.is_options, self.protocol) {
            (false, _) => Ok((start + 4, second, 0)),
            (true, Protocol::Ipfix) => {
                let scope_fields = self.field(start + 4)?;
                // RFC 7011 section 3.4.2.2: the scope must not be empty.
                if scope_fields == 0 {
                    return Err(self.error(start + 4, WireReason::Scope));
                }
                Ok((start + 6, second, scope_fields))
            }
            (true, _) => {
                // NetFlow v9 gives bytes of specifiers, of four bytes each.
                let options_length = self.field(start + 4)?;
                if !second.is_multiple_of(4) || !options_length.is_multiple_of(4) {
                    return Err(self.error(start + 2, WireReason::Scope));
                }
                let fields = second / 4 + options_length / 4;
                Ok((start + 6, fields, second / 4))
            }
        }
    }
}

impl<'a> Iterator for TemplateRecords<'a> {
    type Item = Result<TemplateAction<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        // Fewer than four bytes, or zeros to the end, are padding.
        let rest = self.body.get(self.offset..).unwrap_or(&[]);
        if rest.len() < 4 || rest.iter().all(|byte| *byte == 0) {
            return None;
        }
        let record = self.read();
        if record.is_err() {
            self.offset = self.body.len();
        }
        Some(record)
    }
}

fn read_field(
    bytes: &[u8],
    offset: usize,
    protocol: Protocol,
) -> Result<(FieldSpecifier, usize), WireError> {
    let id = u16_at(bytes, offset)?;
    let length = u16_at(bytes, offset + 2)?;
    if protocol == Protocol::Ipfix && id & 0x8000 != 0 {
        let field = FieldSpecifier {
            id: id & 0x7fff,
            length,
            enterprise: Some(u32_at(bytes, offset + 4)?),
        };
        return Ok((field, 8));
    }
    let field = FieldSpecifier {
        id,
        length,
        enterprise: None,
    };
    Ok((field, 4))
}

/// A template as it is kept: enough to cut data sets, and its own bytes to pass on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The set id of its data.
    pub id: u16,
    /// Whether its data are options.
    pub is_options: bool,
    /// The template record.
    pub raw: Box<[u8]>,
    layout: RecordLayout,
    /// Lengths of all fields; empty where records of fixed length need no walk.
    lengths: Box<[u16]>,
    flow_hash: FlowHashPlan,
    /// Fields that identify an options record among those of its template.
    options_key: Box<[u16]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum RecordLayout {
    Fixed {
        length: usize,
    },
    /// The least that a record can have.
    Variable {
        minimum: usize,
    },
}

/// Information elements that tell apart options records of equal scope: sampler, selector,
/// interfaces, application, VRFs.
const OPTIONS_KEYS: [u16; 8] = [48, 302, 10, 14, 95, 234, 235, 149];

impl Template {
    /// Keeps a template record.
    ///
    /// # Errors
    ///
    /// [`WireReason::EmptyRecord`] if its records would have no bytes: a data set of it would hold
    /// them without end.
    pub fn new(record: &TemplateRecord<'_>) -> Result<Self, WireError> {
        let fields: Vec<FieldSpecifier> = record.fields().collect();
        let is_variable = |field: &FieldSpecifier| {
            record.protocol == Protocol::Ipfix && field.length == VARIABLE_LENGTH
        };
        let least = |field: &FieldSpecifier| {
            if is_variable(field) {
                1
            } else {
                usize::from(field.length)
            }
        };
        let minimum: usize = fields.iter().map(least).sum();
        if minimum == 0 {
            return Err(WireError::new(0, WireReason::EmptyRecord));
        }
        let has_variable = fields.iter().any(is_variable);
        let layout = if has_variable {
            RecordLayout::Variable { minimum }
        } else {
            RecordLayout::Fixed { length: minimum }
        };
        let lengths = if has_variable || record.is_options {
            fields.iter().map(|field| field.length).collect()
        } else {
            Box::default()
        };
        let is_key = |(index, field): (usize, &FieldSpecifier)| {
            let in_scope = index < usize::from(record.scope_fields);
            let telling = field.enterprise.is_none() && OPTIONS_KEYS.contains(&field.id);
            (in_scope || telling).then_some(index as u16)
        };
        Ok(Self {
            id: record.id,
            is_options: record.is_options,
            raw: record.raw.into(),
            flow_hash: FlowHashPlan::new(&fields, has_variable),
            options_key: if record.is_options {
                fields.iter().enumerate().filter_map(is_key).collect()
            } else {
                Box::default()
            },
            layout,
            lengths,
        })
    }

    /// The records of a data set of this template, which begins at `body_offset` of its datagram.
    pub fn records<'a>(&'a self, body: &'a [u8], body_offset: usize) -> DataRecords<'a> {
        DataRecords {
            template: self,
            body,
            body_offset,
            offset: 0,
        }
    }

    /// How many records a data set of this template holds, and what ends it early. Constant time
    /// if all fields have fixed lengths.
    pub fn count(&self, body: &[u8], body_offset: usize) -> (u32, Option<WireError>) {
        if let RecordLayout::Fixed { length } = self.layout {
            // A set has less than 2^16 bytes.
            return ((body.len() / length) as u32, None);
        }
        let mut count = 0;
        for record in self.records(body, body_offset) {
            match record {
                Ok(_) => count += 1,
                Err(error) => return (count, Some(error)),
            }
        }
        (count, None)
    }

    /// The least length that a record can have.
    pub fn shortest_record(&self) -> usize {
        match self.layout {
            RecordLayout::Fixed { length } => length,
            RecordLayout::Variable { minimum } => minimum,
        }
    }

    /// The flow that a record is about, direction-independent; none if it names no addresses.
    pub fn flow_hash(&self, record: &[u8]) -> Option<u64> {
        match &self.layout {
            RecordLayout::Fixed { .. } => self.flow_hash.hash_fixed(record),
            RecordLayout::Variable { .. } => self.flow_hash.hash_variable(record, &self.lengths),
        }
    }

    /// The bytes that identify an options record among those of its template: its scope, and
    /// fields such as the sampler's id. The whole record if it has neither.
    pub fn options_key(&self, record: &[u8]) -> Vec<u8> {
        let mut key = Vec::new();
        let mut offset = 0;
        for (index, length) in self.lengths.iter().enumerate() {
            let Some(value) = field_range(record, offset, *length) else {
                break;
            };
            if self.options_key.contains(&(index as u16)) {
                key.extend_from_slice(record.get(value.clone()).unwrap_or(&[]));
            }
            offset = value.end;
        }
        if key.is_empty() { record.to_vec() } else { key }
    }

    /// Heap memory that the template takes, to be held against a budget.
    pub fn memory_bytes(&self) -> usize {
        let numbers = self.lengths.len() + self.options_key.len();
        size_of::<Self>() + self.raw.len() + numbers * size_of::<u16>()
    }
}

/// Walks the data records of a set; ends after the first error.
#[derive(Clone, Debug)]
pub struct DataRecords<'a> {
    template: &'a Template,
    body: &'a [u8],
    body_offset: usize,
    offset: usize,
}

impl<'a> Iterator for DataRecords<'a> {
    type Item = Result<&'a [u8], WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.body.get(self.offset..)?;
        let length = match &self.template.layout {
            RecordLayout::Fixed { length } => *length,
            RecordLayout::Variable { minimum } => {
                if rest.len() < *minimum {
                    return None;
                }
                let mut end = 0;
                for length in &self.template.lengths {
                    match field_range(rest, end, *length) {
                        Some(range) => end = range.end,
                        None => {
                            let offset = self.body_offset + self.offset + end;
                            self.offset = self.body.len();
                            return Some(Err(WireError::new(offset, WireReason::RecordBeyondSet)));
                        }
                    }
                }
                end
            }
        };
        // What is shorter than a record is padding.
        let record = rest.get(..length)?;
        self.offset += length;
        Some(Ok(record))
    }
}

/// Where a field's value is in a record, if it is whole.
pub(crate) fn field_range(
    record: &[u8],
    offset: usize,
    length: u16,
) -> Option<std::ops::Range<usize>> {
    let (start, length) = if length == VARIABLE_LENGTH {
        match *record.get(offset)? {
            255 => (offset + 3, usize::from(u16_at(record, offset + 1).ok()?)),
            short => (offset + 1, usize::from(short)),
        }
    } else {
        (offset, usize::from(length))
    };
    let end = start + length;
    (end <= record.len()).then_some(start..end)
}

impl FieldSpecifier {
    pub(crate) fn key_role(&self) -> Option<KeyRole> {
        if self.enterprise.is_some() {
            return None;
        }
        match self.id {
            8 | 27 => Some(KeyRole::SourceAddress),
            12 | 28 => Some(KeyRole::DestinationAddress),
            7 => Some(KeyRole::SourcePort),
            11 => Some(KeyRole::DestinationPort),
            4 => Some(KeyRole::Protocol),
            _ => None,
        }
    }
}
