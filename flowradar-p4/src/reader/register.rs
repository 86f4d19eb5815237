//! Reading by P4Runtime's RegisterEntry.
//!
//! Only rows of cells and filters are read this way; epochs are changed, banks cleared and totals taken
//! by packets, each of which the program does at one moment. Requests for rows are answered from the
//! registers in the form in which the program itself would have answered, so that everything that is
//! checked of its answers is checked of the registers too.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use flowradar_core::KeyKind;

use super::{FlowsetReader, PacketExchange, ReadError, drain_error};
use crate::P4Info;
use crate::client::Session;
use crate::config::{ProgramConfig, Section, TableConfig};
use crate::drain::{
    Bank, BankReader, DrainTiming, DrainedBank, ExchangeCounters, Operation, ReadPlan, Step,
    SwitchState, Task,
};
use crate::p4info::{DataType, DataValue};
use crate::packet::ControllerPacket;

/// Where fields of the drain header are in a frame (`docs/p4-drain-format.md`).
const OPERATION_AT: usize = 14 + 3;
const SEED_AT: usize = 14 + 24;
const TABLE_AT: usize = 14 + 33;
const SECTION_AT: usize = 14 + 34;
const CHUNK_AT: usize = 14 + 36;
const HEADER_END: usize = 14 + 40;
const REPLY: u8 = 128;

/// Reads registers where the target can (bmv2 cannot: it answers UNIMPLEMENTED).
#[derive(Debug)]
pub struct RegisterReader {
    exchange: PacketExchange,
}

/// What the registers of a FlowRadar program are called in a program that includes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterNames {
    /// What stands before the names that `p4src/flowradar.p4` gives, with its dot.
    prefix: String,
}

/// The arrays of one section of one table, whole, as the rows of a reply have them.
struct SectionRows {
    /// For each array, bytes of a value, and the values of the bank, one after the other.
    arrays: Vec<(usize, Vec<u8>)>,
    chunk_rows: usize,
}

impl RegisterReader {
    /// A reader for switches that run `program`.
    pub fn new(program: ProgramConfig, timing: DrainTiming) -> Self {
        Self {
            exchange: PacketExchange::new(program, timing),
        }
    }

    async fn section_rows(
        &self,
        session: &Session,
        names: &RegisterNames,
        table: &TableConfig,
        section: Section,
        bank: Bank,
    ) -> Result<SectionRows, ReadError> {
        let info = std::sync::Arc::clone(session.info()?);
        let chunk_rows = table.chunk_rows(section) as usize;
        let bank_rows = chunk_rows * table.chunks(section) as usize;
        let mut arrays = Vec::new();
        for name in names.arrays(table, section) {
            let register = info.registers().by_name(&name);
            let register = register.map_err(|error| registers_error(session, error.to_string()))?;
            let DataType::Bits { width_bits } = register.data_type else {
                return Err(registers_error(
                    session,
                    format!("`{name}` is not an array of numbers"),
                ));
            };
            if register.size != 2 * bank_rows as u64 {
                let reason = format!(
                    "`{name}` has {} cells, not {}: the program has another configuration",
                    register.size,
                    2 * bank_rows
                );
                return Err(registers_error(session, reason));
            }
            let value_bytes = (width_bits / 8) as usize;
            let first = match bank {
                Bank::Zero => 0,
                Bank::One => bank_rows as u64,
            };
            let mut values = vec![0; bank_rows * value_bytes];
            let mut seen = vec![false; bank_rows];
            for (index, value) in session.read_register(&name).await? {
                let row = index
                    .checked_sub(first)
                    .and_then(|row| usize::try_from(row).ok());
                let Some(row) = row.filter(|row| *row < bank_rows) else {
                    continue;
                };
                let start = row * value_bytes;
                let place = values.get_mut(start..start + value_bytes);
                if let (Some(place), DataValue::Bits(number)) = (place, value) {
                    place.copy_from_slice(&number.to_padded_bytes(value_bytes));
                    if let Some(seen) = seen.get_mut(row) {
                        *seen = true;
                    }
                }
            }
            if let Some(row) = seen.iter().position(|seen| !seen) {
                let reason = format!(
                    "cell {} of `{name}` was not in the answer",
                    row as u64 + first
                );
                return Err(registers_error(session, reason));
            }
            arrays.push((value_bytes, values));
        }
        Ok(SectionRows { arrays, chunk_rows })
    }
}

impl FlowsetReader for RegisterReader {
    async fn state(&mut self, session: &mut Session) -> Result<SwitchState, ReadError> {
        self.exchange.state(session).await
    }

    async fn switch_epoch(
        &mut self,
        session: &mut Session,
        bank: Bank,
        epoch: u64,
        seed: u64,
    ) -> Result<SwitchState, ReadError> {
        self.exchange.switch_epoch(session, bank, epoch, seed).await
    }

    async fn read(
        &mut self,
        session: &mut Session,
        state: &SwitchState,
        plan: ReadPlan,
    ) -> Result<DrainedBank, ReadError> {
        let names = RegisterNames::find(session.info()?)
            .map_err(|reason| registers_error(session, reason))?;
        let bank = plan.bank;
        let seed = state.bank(bank).seed;
        let exchange = &self.exchange;
        let task = BankReader::new(&exchange.program, exchange.timing, state, plan);
        let mut task = task.map_err(|error| drain_error(session, error))?;
        let mut rows: HashMap<(u8, u8), SectionRows> = HashMap::new();
        loop {
            let step = task.poll(self.exchange.now());
            self.exchange.counters = task.counters();
            match step.map_err(|error| drain_error(session, error))? {
                Step::Send(frame) => {
                    if frame.get(OPERATION_AT) != Some(&(Operation::Read as u8)) {
                        session.send_packet(&ControllerPacket::new(frame)).await?;
                        continue;
                    }
                    let place = (byte(&frame, TABLE_AT), byte(&frame, SECTION_AT));
                    let section = match rows.entry(place) {
                        Entry::Occupied(section) => section.into_mut(),
                        Entry::Vacant(vacant) => {
                            let program = self.exchange.program;
                            let Some((table, section)) = table_section(&program, place) else {
                                let reason = "a request for a table that is not there".to_owned();
                                return Err(registers_error(session, reason));
                            };
                            let rows = self.section_rows(session, &names, &table, section, bank);
                            vacant.insert(rows.await?)
                        }
                    };
                    let handled = task.handle(&section.reply(&frame, seed));
                    handled.map_err(|error| drain_error(session, error))?;
                }
                Step::Wait(until) => {
                    // A new round reads the registers again.
                    rows.clear();
                    let patience = until.saturating_sub(self.exchange.now());
                    let packet = tokio::time::timeout(patience, session.next_packet()).await;
                    if let Ok(packet) = packet {
                        let handled = task.handle(&packet?.payload);
                        handled.map_err(|error| drain_error(session, error))?;
                    }
                }
                Step::Done => {
                    return Ok(task
                        .output()
                        .expect("a task that says it is done has its output"));
                }
            }
        }
    }

    async fn clear(
        &mut self,
        session: &mut Session,
        state: &SwitchState,
        bank: Bank,
    ) -> Result<SwitchState, ReadError> {
        self.exchange.clear(session, state, bank).await
    }

    fn counters(&self) -> ExchangeCounters {
        self.exchange.counters
    }

    fn now(&self) -> Duration {
        self.exchange.now()
    }
}

impl RegisterNames {
    /// Finds the registers of the one FlowRadar control in a program.
    ///
    /// # Errors
    ///
    /// If there is none, or more than one.
    pub fn find(info: &P4Info) -> Result<Self, String> {
        const MARK: &str = "bank_epoch";

        let registers = info.registers().iter();
        let mut prefixes = registers.filter_map(|register| {
            let prefix = register.preamble.name.strip_suffix(MARK)?;
            (prefix.is_empty() || prefix.ends_with('.')).then(|| prefix.to_owned())
        });
        match (prefixes.next(), prefixes.next()) {
            (Some(prefix), None) => Ok(Self { prefix }),
            (Some(_), Some(_)) => Err("the program has more than one FlowRadar control".into()),
            (None, _) => Err(format!(
                "the program has no register `{MARK}`: FlowRadar is not in it"
            )),
        }
    }

    /// The registers of a section, in the order of the drain format's rows.
    fn arrays(&self, table: &TableConfig, section: Section) -> Vec<String> {
        let layout = table.layout().table();
        let kind = match table.key() {
            KeyKind::V4 => "v4",
            KeyKind::V6 => "v6",
        };
        let name = |part: &str, number: usize| format!("{}{kind}_{part}_{number}", self.prefix);
        match section {
            Section::Filter => {
                let words = table.row_bytes(Section::Filter) / 8;
                (0..words).map(|number| name("filter", number)).collect()
            }
            Section::Cells => {
                let addresses: &[&str] = match table.key() {
                    KeyKind::V4 => &["addresses"],
                    KeyKind::V6 => &[
                        "source_high",
                        "source_low",
                        "destination_high",
                        "destination_low",
                    ],
                };
                let counts = ["flow_count_and_ports", "packet_count"];
                let bytes = layout.widths().counts_bytes().then_some("byte_count");
                let parts = addresses.iter().copied().chain(counts).chain(bytes);
                let subtables = 0..layout.hashes();
                subtables
                    .flat_map(|number| parts.clone().map(move |part| (part, number)))
                    .map(|(part, number)| name(part, number))
                    .collect()
            }
        }
    }
}

impl SectionRows {
    /// What the program would have answered.
    fn reply(&self, request: &[u8], seed: u64) -> Vec<u8> {
        let mut reply = request.get(..HEADER_END).unwrap_or_default().to_vec();
        if let Some(operation) = reply.get_mut(OPERATION_AT) {
            *operation |= REPLY;
        }
        if let Some(place) = reply.get_mut(SEED_AT..SEED_AT + 8) {
            place.copy_from_slice(&seed.to_be_bytes());
        }
        let chunk = request.get(CHUNK_AT..).and_then(<[u8]>::first_chunk);
        let chunk = chunk.map_or(0, |bytes| u32::from_be_bytes(*bytes) as usize);
        for row in chunk * self.chunk_rows..(chunk + 1) * self.chunk_rows {
            for (value_bytes, values) in &self.arrays {
                let start = row * value_bytes;
                let value = values.get(start..start + value_bytes);
                reply.extend_from_slice(value.unwrap_or_default());
            }
        }
        reply
    }
}

fn table_section(program: &ProgramConfig, place: (u8, u8)) -> Option<(TableConfig, Section)> {
    let key = match place.0 {
        4 => KeyKind::V4,
        6 => KeyKind::V6,
        _ => return None,
    };
    let section = match place.1 {
        1 => Section::Filter,
        2 => Section::Cells,
        _ => return None,
    };
    Some((*program.table(key)?, section))
}

fn byte(frame: &[u8], at: usize) -> u8 {
    frame.get(at).copied().unwrap_or_default()
}

fn registers_error(session: &Session, reason: String) -> ReadError {
    ReadError::Registers {
        switch: session.target().name.clone(),
        reason,
    }
}
