//! Requests for entries, and what is taken of the answers: sans I/O. Nothing in an answer is believed before
//! it is checked.

use std::ops::Range;

use thiserror::Error;

use super::schema::{CounterTable, EpochTable, RegisterTable, Table};
use super::{PIPES_MAX, shortened};
use crate::drain::Bank;
use crate::proto::bfrt::data_field::Value;
use crate::proto::bfrt::entity::Entity as EntityKind;
use crate::proto::bfrt::key_field::{Exact, MatchType};
use crate::proto::bfrt::{
    DataField, Entity, Error as EntryError, KeyField, TableData, TableEntry, TableFlags, TableKey,
    TableOperation,
};
use crate::tofino::{BankRegisters, RegistersError};

/// An answer that is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the switch's answer for table `{table}`: {reason}")]
pub struct AnswerError {
    /// The table that was asked for.
    pub table: String,
    /// What is wrong.
    pub reason: AnswerReason,
}

/// What is wrong with an answer. Indices are those of the whole array, with both banks.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AnswerReason {
    /// It is of another table.
    #[error("an entry of table {found_id}")]
    OtherTable {
        /// The table's number.
        found_id: u32,
    },
    /// It is no entry of a table.
    #[error("something that is no entry")]
    NoEntry,
    /// An entry without key, or with a key of another form.
    #[error("an entry without an index of four bytes")]
    NoIndex,
    /// An entry that was not asked for.
    #[error("entry {index} was not asked for")]
    NotAsked {
        /// Its index.
        index: u32,
    },
    /// An entry that was asked for is not there.
    #[error("entry {index} is missing")]
    Missing {
        /// Its index.
        index: u32,
    },
    /// A field that the table does not have.
    #[error("entry {index} has a field {field_id}, which the table has not")]
    UnknownField {
        /// The entry's index.
        index: u32,
        /// The field's number.
        field_id: u32,
    },
    /// A value of another length, or none.
    #[error("entry {index} has a value of {found} bytes in field {field_id}, not {expected}")]
    ValueBytes {
        /// The entry's index.
        index: u32,
        /// The field's number.
        field_id: u32,
        /// Bytes of the field.
        expected: usize,
        /// Bytes in the answer.
        found: usize,
    },
    /// Values for more or fewer pipes than the chip has.
    #[error("entry {index} has values of {found} pipes, not {expected}")]
    Pipes {
        /// The entry's index.
        index: u32,
        /// Pipes of the chip; at first, at most as many as any chip has.
        expected: usize,
        /// Pipes in the answer.
        found: usize,
    },
    /// An action that the table does not have.
    #[error("action {found_id} is not `Ingress.set_bank`")]
    OtherAction {
        /// The action's number.
        found_id: u32,
    },
    /// A bank that does not exist.
    #[error("there is no bank {0}")]
    Bank(u8),
    /// An entry is doubled, or has bits that its array has not.
    #[error(transparent)]
    Registers(#[from] RegistersError),
    /// The switch could not read or write something of it.
    #[error("status {code}: {message}")]
    Status {
        /// gRPC's code.
        code: i32,
        /// The switch's reason.
        message: String,
    },
}

/// Fails if one of the statuses that come with an answer is an error.
pub(super) fn check_statuses(statuses: &[EntryError]) -> Result<(), AnswerReason> {
    match statuses.iter().find(|status| status.canonical_code != 0) {
        None => Ok(()),
        Some(status) => Err(AnswerReason::Status {
            code: status.canonical_code,
            message: shortened(&status.message),
        }),
    }
}

impl Table {
    /// An entry, as it stands in requests.
    pub(super) fn entry(&self, index: u32, data: Option<TableData>, from_hw: bool) -> Entity {
        entity(TableEntry {
            table_id: self.id,
            key: Some(TableKey {
                fields: vec![KeyField {
                    field_id: self.index_field,
                    match_type: Some(MatchType::Exact(Exact {
                        value: index.to_be_bytes().to_vec(),
                    })),
                }],
            }),
            data,
            is_default_entry: false,
            table_flags: Some(TableFlags { from_hw }),
        })
    }

    /// Brings the chip's values into the driver's copy.
    pub(super) fn sync(&self) -> Entity {
        Entity {
            entity: Some(EntityKind::TableOperation(TableOperation {
                table_id: self.id,
                table_operations_type: self.sync_operation.clone(),
            })),
        }
    }

    /// Index and data of an entry in an answer.
    fn open(&self, entity: Entity) -> Result<(u32, Vec<DataField>), AnswerReason> {
        let entry = table_entry(entity, self.id)?;
        let [key] = entry
            .key
            .unwrap_or_default()
            .fields
            .try_into()
            .map_err(|_| AnswerReason::NoIndex)?;
        let KeyField {
            field_id,
            match_type: Some(MatchType::Exact(exact)),
        } = key
        else {
            return Err(AnswerReason::NoIndex);
        };
        let index = exact.value.try_into().map(u32::from_be_bytes);
        match index {
            Ok(index) if field_id == self.index_field => {
                Ok((index, entry.data.unwrap_or_default().fields))
            }
            _ => Err(AnswerReason::NoIndex),
        }
    }
}

impl RegisterTable {
    /// How many pipes have values in an entry.
    pub(super) fn count_pipes(&self, entity: Entity) -> Result<usize, AnswerReason> {
        let (index, fields) = self.table.open(entity)?;
        let first = self.value_fields.first();
        let values = fields.iter().filter(|field| Some(&field.field_id) == first);
        match values.count() {
            found @ 1..=PIPES_MAX => Ok(found),
            found => Err(AnswerReason::Pipes {
                index,
                expected: PIPES_MAX,
                found,
            }),
        }
    }

    /// Takes an entry of those that were asked for, `bank_first` being the first of the bank.
    pub(super) fn take(
        &self,
        entity: Entity,
        asked: &Range<u32>,
        bank_first: u32,
        pipes: &mut [BankRegisters],
    ) -> Result<(), AnswerReason> {
        let (index, fields) = self.table.open(entity)?;
        let in_bank = index.checked_sub(bank_first);
        let Some(in_bank) = in_bank.filter(|_| asked.contains(&index)) else {
            return Err(AnswerReason::NotAsked { index });
        };
        let widths = self.array.widths_bits();
        let mut values = [[0; 2]; PIPES_MAX];
        let mut found = [0; 2];
        for field in fields {
            let field_id = field.field_id;
            let place = self.value_fields.iter().position(|id| *id == field_id);
            let Some((place, found)) = place.and_then(|place| Some((place, found.get_mut(place)?)))
            else {
                return Err(AnswerReason::UnknownField { index, field_id });
            };
            let bits = widths.get(place).copied().unwrap_or_default();
            let number = number(&field, index, bits.div_ceil(8) as usize)?;
            if let Some(value) = values.get_mut(*found).and_then(|pair| pair.get_mut(place)) {
                // At most 32 bits, by the schema.
                *value = number as u32;
            }
            *found += 1;
        }
        let differs = found.iter().take(widths.len());
        if let Some(&found) = differs.clone().find(|found| **found != pipes.len()) {
            return Err(AnswerReason::Pipes {
                index,
                expected: pipes.len(),
                found,
            });
        }
        for (pipe, pair) in pipes.iter_mut().zip(&values) {
            let numbers = pair.get(..widths.len()).unwrap_or(pair);
            pipe.put(self.array, in_bank, numbers)?;
        }
        Ok(())
    }

    /// An entry of zeros, in all pipes.
    pub(super) fn zero(&self, index: u32) -> Entity {
        let widths = self.array.widths_bits();
        let fields = self
            .value_fields
            .iter()
            .zip(widths)
            .map(|(field_id, bits)| {
                let bytes = bits.div_ceil(8) as usize;
                stream(*field_id, vec![0; bytes])
            });
        let data = TableData {
            action_id: 0,
            fields: fields.collect(),
        };
        self.table.entry(index, Some(data), false)
    }
}

impl CounterTable {
    /// Packets of the entry that was asked for.
    pub(super) fn packets(&self, entity: Entity, asked: u32) -> Result<u64, AnswerReason> {
        let (index, fields) = self.table.open(entity)?;
        if index != asked {
            return Err(AnswerReason::NotAsked { index });
        }
        let mut packets = None;
        for field in &fields {
            let field_id = field.field_id;
            if field_id == self.packets_field && packets.is_none() {
                packets = Some(number(field, index, 8)?);
            } else if Some(field_id) != self.bytes_field {
                return Err(AnswerReason::UnknownField { index, field_id });
            }
        }
        packets.ok_or(AnswerReason::Missing { index })
    }

    /// An entry of zeros.
    pub(super) fn zero(&self, index: u32) -> Entity {
        let fields = [Some(self.packets_field), self.bytes_field];
        let fields = fields.into_iter().flatten();
        let data = TableData {
            action_id: 0,
            fields: fields.map(|id| stream(id, vec![0; 8])).collect(),
        };
        self.table.entry(index, Some(data), false)
    }
}

impl EpochTable {
    /// The default entry: as a question, or to be written.
    pub(super) fn default_entry(&self, bank: Option<Bank>) -> Entity {
        let data = bank.map(|bank| TableData {
            action_id: self.action_id,
            fields: vec![stream(self.bank_field, vec![bank as u8])],
        });
        entity(TableEntry {
            table_id: self.id,
            data,
            is_default_entry: true,
            ..TableEntry::default()
        })
    }

    /// The bank that the default entry sets.
    pub(super) fn bank(&self, entity: Entity) -> Result<Bank, AnswerReason> {
        const INDEX: u32 = 0;

        let entry = table_entry(entity, self.id)?;
        let data = entry.data.unwrap_or_default();
        if data.action_id != self.action_id {
            return Err(AnswerReason::OtherAction {
                found_id: data.action_id,
            });
        }
        let [field] = data.fields.as_slice() else {
            return Err(AnswerReason::Missing { index: INDEX });
        };
        if field.field_id != self.bank_field {
            return Err(AnswerReason::UnknownField {
                index: INDEX,
                field_id: field.field_id,
            });
        }
        match number(field, INDEX, 1)? {
            0 => Ok(Bank::Zero),
            1 => Ok(Bank::One),
            bank => Err(AnswerReason::Bank(bank as u8)),
        }
    }
}

fn entity(entry: TableEntry) -> Entity {
    Entity {
        entity: Some(EntityKind::TableEntry(entry)),
    }
}

fn table_entry(entity: Entity, table_id: u32) -> Result<TableEntry, AnswerReason> {
    match entity.entity {
        Some(EntityKind::TableEntry(entry)) if entry.table_id == table_id => Ok(entry),
        Some(EntityKind::TableEntry(entry)) => Err(AnswerReason::OtherTable {
            found_id: entry.table_id,
        }),
        Some(EntityKind::TableOperation(_)) | None => Err(AnswerReason::NoEntry),
    }
}

fn stream(field_id: u32, bytes: Vec<u8>) -> DataField {
    DataField {
        field_id,
        value: Some(Value::Stream(bytes)),
    }
}

/// A number of as many bytes, in network order.
fn number(field: &DataField, index: u32, expected: usize) -> Result<u64, AnswerReason> {
    let bytes: &[u8] = match &field.value {
        Some(Value::Stream(bytes)) => bytes,
        None => &[],
    };
    if bytes.len() != expected {
        return Err(AnswerReason::ValueBytes {
            index,
            field_id: field.field_id,
            expected,
            found: bytes.len(),
        });
    }
    let number = bytes.iter();
    Ok(number.fold(0, |number, &byte| number << 8 | u64::from(byte)))
}
