//! Where the program's registers are in a switch: the numbers of tables, fields and actions by their names.
//!
//! A switch says so in JSON, the same that the compiler writes (`p4c-barefoot --bf-rt-schema`).

use serde::Deserialize;
use thiserror::Error;

use super::shortened;
use crate::tofino::{Array, TofinoProgram};

/// Operations that bring registers or counters from the chip into the driver's copy: the compiler's name for
/// it, and names of other versions.
const SYNC_OPERATIONS: [&str; 3] = ["Sync", "SyncRegisters", "SyncCounters"];

/// The tables that are read and written.
#[derive(Clone, Debug)]
pub(super) struct ProgramTables {
    pub(super) registers: Vec<RegisterTable>,
    pub(super) total: CounterTable,
    pub(super) total_new_flows: CounterTable,
    pub(super) epoch: EpochTable,
}

/// A register array.
#[derive(Clone, Debug)]
pub(super) struct RegisterTable {
    pub(super) array: Array,
    pub(super) table: Table,
    /// In the order of [`Array::widths_bits`].
    pub(super) value_fields: Vec<u32>,
}

/// A counter of both banks.
#[derive(Clone, Debug)]
pub(super) struct CounterTable {
    pub(super) table: Table,
    pub(super) packets_field: u32,
    /// Where it counts bytes too, they are cleared with the packets.
    pub(super) bytes_field: Option<u32>,
}

/// What registers and counters have in common.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) id: u32,
    pub(super) index_field: u32,
    pub(super) sync_operation: String,
}

/// The table whose default action says which bank is active.
#[derive(Clone, Debug)]
pub(super) struct EpochTable {
    pub(super) name: String,
    pub(super) id: u32,
    pub(super) action_id: u32,
    pub(super) bank_field: u32,
}

/// Why a program's description cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SchemaError {
    /// It is none.
    #[error("the program's schema cannot be read: {reason}")]
    Json {
        /// Why not.
        reason: String,
    },
    /// A table is not as in `p4src/tofino/switch.p4`.
    #[error("table `{table}` {reason}: the switch runs another program, or one of other sizes")]
    Table {
        /// The table.
        table: String,
        /// What is wrong with it.
        reason: SchemaReason,
    },
}

/// What is wrong with a table.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SchemaReason {
    /// There is no such table.
    #[error("is not in the program")]
    Missing,
    /// It is something else.
    #[error("is a {found}, not a {expected}")]
    Kind {
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// It has more or fewer entries.
    #[error("has {found} entries, not {expected}")]
    Entries {
        /// By the program's sizes.
        expected: u64,
        /// Of the table.
        found: u64,
    },
    /// It lacks a field or action.
    #[error("has no `{0}`")]
    NoField(&'static str),
    /// A field has another type.
    #[error("has a `{field}` that is not a number of {expected_bits} bits")]
    Field {
        /// The field.
        field: &'static str,
        /// Bits that it should have.
        expected_bits: u32,
    },
    /// There is no operation that reads it from the chip.
    #[error("cannot be synchronised")]
    NoSync,
}

#[derive(Deserialize)]
struct Schema {
    #[serde(default)]
    tables: Vec<TableSchema>,
}

#[derive(Deserialize)]
struct TableSchema {
    name: String,
    id: u32,
    #[serde(default)]
    table_type: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    key: Vec<FieldSchema>,
    #[serde(default)]
    data: Vec<DataSchema>,
    #[serde(default)]
    action_specs: Vec<ActionSchema>,
    #[serde(default)]
    supported_operations: Vec<String>,
}

#[derive(Deserialize)]
struct DataSchema {
    /// Other kinds are of tables that are not looked at.
    singleton: Option<FieldSchema>,
}

#[derive(Deserialize)]
struct ActionSchema {
    name: String,
    id: u32,
    #[serde(default)]
    data: Vec<FieldSchema>,
}

#[derive(Deserialize)]
struct FieldSchema {
    name: String,
    id: u32,
    r#type: Option<TypeSchema>,
}

#[derive(Deserialize)]
struct TypeSchema {
    r#type: String,
    width: Option<u32>,
}

impl ProgramTables {
    /// Finds everything in the schema of a running program.
    pub(super) fn new(json: &[u8], program: &TofinoProgram) -> Result<Self, SchemaError> {
        let schema: Schema = serde_json::from_slice(json).map_err(|error| SchemaError::Json {
            reason: shortened(&error.to_string()),
        })?;
        let registers = Array::all()
            .map(|array| {
                schema.find(&format!("pipe.Egress.{array}"), |table| {
                    register(table, array, program)
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            registers,
            total: schema.find("pipe.Egress.total", counter)?,
            total_new_flows: schema.find("pipe.Egress.total_new_flows", counter)?,
            epoch: schema.find("pipe.Ingress.epoch", epoch)?,
        })
    }

    /// Name, number and operation of everything that is synchronised.
    pub(super) fn synchronised(&self) -> impl Iterator<Item = &Table> {
        let registers = self.registers.iter().map(|register| &register.table);
        registers.chain([&self.total.table, &self.total_new_flows.table])
    }
}

impl Schema {
    fn find<T>(
        &self,
        name: &str,
        take: impl FnOnce(&TableSchema) -> Result<T, SchemaReason>,
    ) -> Result<T, SchemaError> {
        let table = self.tables.iter().find(|table| table.name == name);
        let found = table.ok_or(SchemaReason::Missing).and_then(take);
        found.map_err(|reason| SchemaError::Table {
            table: name.to_owned(),
            reason,
        })
    }
}

fn register(
    table: &TableSchema,
    array: Array,
    program: &TofinoProgram,
) -> Result<RegisterTable, SchemaReason> {
    table.check("Register", 2 * u64::from(program.bank_entries(array)))?;
    let widths = array.widths_bits();
    let names: &[&'static str] = if widths.len() == 1 {
        &["f1"]
    } else {
        &["first", "second"]
    };
    let fields = names.iter().zip(widths);
    Ok(RegisterTable {
        array,
        table: table.common("$REGISTER_INDEX")?,
        value_fields: fields
            .map(|(name, bits)| table.value(name, *bits))
            .collect::<Result<_, _>>()?,
    })
}

fn counter(table: &TableSchema) -> Result<CounterTable, SchemaReason> {
    table.check("Counter", 2)?;
    Ok(CounterTable {
        table: table.common("$COUNTER_INDEX")?,
        packets_field: table.value("$COUNTER_SPEC_PKTS", 64)?,
        bytes_field: table.value("$COUNTER_SPEC_BYTES", 64).ok(),
    })
}

fn epoch(table: &TableSchema) -> Result<EpochTable, SchemaReason> {
    const ACTION: &str = "Ingress.set_bank";

    let mut actions = table.action_specs.iter();
    let action = actions.find(|action| action.name == ACTION);
    let action = action.ok_or(SchemaReason::NoField(ACTION))?;
    Ok(EpochTable {
        name: table.name.clone(),
        id: table.id,
        action_id: action.id,
        bank_field: number_field(action.data.iter(), "bank", 1)?,
    })
}

impl TableSchema {
    fn check(&self, kind: &'static str, entries: u64) -> Result<(), SchemaReason> {
        if self.table_type != kind {
            return Err(SchemaReason::Kind {
                expected: kind,
                found: shortened(&self.table_type),
            });
        }
        if self.size != entries {
            return Err(SchemaReason::Entries {
                expected: entries,
                found: self.size,
            });
        }
        Ok(())
    }

    fn common(&self, index: &'static str) -> Result<Table, SchemaReason> {
        let mut operations = self.supported_operations.iter();
        let sync = operations.find(|name| SYNC_OPERATIONS.contains(&name.as_str()));
        Ok(Table {
            name: self.name.clone(),
            id: self.id,
            index_field: number_field(self.key.iter(), index, 32)?,
            sync_operation: sync.ok_or(SchemaReason::NoSync)?.clone(),
        })
    }

    fn value(&self, name: &'static str, bits: u32) -> Result<u32, SchemaReason> {
        let fields = self.data.iter();
        number_field(
            fields.filter_map(|data| data.singleton.as_ref()),
            name,
            bits,
        )
    }
}

/// The number of a field of this many bits, whose name may follow that of its table.
fn number_field<'a>(
    mut fields: impl Iterator<Item = &'a FieldSchema>,
    name: &'static str,
    bits: u32,
) -> Result<u32, SchemaReason> {
    let field = fields.find(|field| field.name.rsplit('.').next() == Some(name));
    let field = field.ok_or(SchemaReason::NoField(name))?;
    let found = field
        .r#type
        .as_ref()
        .and_then(|of| match of.r#type.as_str() {
            "bytes" => of.width,
            "uint8" => Some(8),
            "uint16" => Some(16),
            "uint32" => Some(32),
            "uint64" => Some(64),
            _ => None,
        });
    if found == Some(bits) {
        Ok(field.id)
    } else {
        Err(SchemaReason::Field {
            field: name,
            expected_bits: bits,
        })
    }
}
