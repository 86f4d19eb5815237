//! Reading a sealed bank.

use std::time::Duration;

use flowradar_core::KeyKind;
use flowradar_core::flowset::{Epoch, FlowsetHeader, SwitchName};

use super::bank::TableRows;
use super::exchange::Exchange;
use super::wire::{Bank, BankCondition, BankState, Chunk, Reply, Request, SwitchState};
use super::{DrainError, DrainTiming, ExchangeCounters, Operation, Step, Task};
use crate::config::ProgramConfig;

/// How often a bank is read before giving up on packets that still arrive in it.
const ROUNDS_MAX: u32 = 3;

/// What to read, and what the flowsets are to say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadPlan {
    /// The switch's name.
    pub switch: SwitchName,
    /// The bank, which must be sealed.
    pub bank: Bank,
    /// When the epoch began, in nanoseconds since 1970; 0 if unknown.
    pub start_ns: u64,
    /// How long it was, in nanoseconds; 0 if unknown.
    pub length_ns: u64,
    /// When it ended, by the clock that [`Task::poll`] is given.
    pub sealed_at: Duration,
}

/// What a bank held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainedBank {
    /// The flowset of every table of the program, IPv4 first; of a Tofino switch, that of every pipe.
    pub flowsets: Vec<DrainedFlowset>,
    /// What the switch said of the bank, with what was counted in no flowset.
    pub state: BankState,
    /// How often the bank was read: more than once if packets were still arriving in it.
    pub rounds: u32,
}

/// One encoded flowset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainedFlowset {
    /// Kind of its keys.
    pub key: KeyKind,
    /// The flowset (`docs/flowset-format.md`).
    pub bytes: Vec<u8>,
}

/// Reads a sealed bank, whole, and clears nothing.
///
/// The bank's totals are read before and after; if they differ, packets were still being counted,
/// and it is read again.
#[derive(Clone, Debug)]
pub struct BankReader {
    program: ProgramConfig,
    plan: ReadPlan,
    exchange: Exchange,
    phase: Phase,
    /// The bank's state before this round; of no meaning before the first answer.
    before: BankState,
    tables: Vec<TableRows>,
    rounds: u32,
}

#[derive(Clone, Debug)]
enum Phase {
    Settling(Duration),
    AskingBefore,
    Reading,
    AskingAfter,
    Done(Box<DrainedBank>),
    Failed(DrainError),
}

impl BankReader {
    /// A task that reads the bank of `plan`, which `state` must show as sealed. Allocates the tables'
    /// size.
    ///
    /// # Errors
    /// If the bank is not sealed, or the switch runs another program.
    pub fn new(
        program: &ProgramConfig,
        timing: DrainTiming,
        state: &SwitchState,
        plan: ReadPlan,
    ) -> Result<Self, DrainError> {
        let before = *state.bank(plan.bank);
        if state.fingerprint != program.fingerprint() {
            return Err(DrainError::OtherProgram {
                expected: program.fingerprint(),
                found: state.fingerprint,
            });
        }
        if before.condition != BankCondition::Sealed {
            return Err(DrainError::Condition {
                bank: plan.bank,
                condition: before.condition,
                hint: "only a sealed bank is read: change the epoch first",
            });
        }
        Ok(Self {
            program: *program,
            exchange: Exchange::new(program.fingerprint(), timing),
            phase: Phase::Settling(plan.sealed_at + timing.settle),
            plan,
            before,
            tables: program.tables().map(TableRows::new).collect(),
            rounds: 0,
        })
    }

    fn ask_state(&mut self) {
        self.exchange
            .ask(Request::new(Operation::Query, self.plan.bank));
    }

    fn ask_rows(&mut self) {
        for (chunk, room_bytes) in Chunk::all(&self.program) {
            self.exchange.ask(Request {
                epoch: self.before.epoch,
                chunk: Some(chunk),
                room_bytes,
                ..Request::new(Operation::Read, self.plan.bank)
            });
        }
    }

    fn take(&mut self, request: &Request, reply: &Reply<'_>) -> Result<(), DrainError> {
        if reply.epoch != self.before.epoch {
            return Err(DrainError::OtherEpoch {
                bank: self.plan.bank,
                expected: self.before.epoch,
                found: reply.epoch,
            });
        }
        if reply.seed != self.before.seed {
            return Err(DrainError::OtherSeed {
                bank: self.plan.bank,
                expected: self.before.seed,
                found: reply.seed,
            });
        }
        if let Some(state) = reply.state() {
            return self.take_state(state.bank(self.plan.bank));
        }
        let Some(chunk) = request.chunk else {
            return Ok(());
        };
        let table = self
            .program
            .tables()
            .zip(&mut self.tables)
            .find(|(table, _)| table.key() == chunk.key);
        if let Some((table, rows)) = table {
            rows.take(chunk.section, chunk.number, reply.body())
                .map_err(|row| DrainError::Row {
                    key: table.key(),
                    section: chunk.section,
                    row: row.0,
                })?;
        }
        if self.exchange.is_idle() {
            self.ask_state();
            self.phase = Phase::AskingAfter;
        }
        Ok(())
    }

    fn take_state(&mut self, state: &BankState) -> Result<(), DrainError> {
        if state.condition != BankCondition::Sealed {
            return Err(DrainError::Condition {
                bank: self.plan.bank,
                condition: state.condition,
                hint: "it was sealed before: is there another controller?",
            });
        }
        let is_settled = matches!(self.phase, Phase::AskingAfter) && *state == self.before;
        self.before = *state;
        if is_settled {
            self.phase = Phase::Done(Box::new(self.drained()?));
        } else if self.rounds == ROUNDS_MAX {
            return Err(DrainError::Unsettled {
                bank: self.plan.bank,
                rounds: self.rounds,
            });
        } else {
            self.rounds += 1;
            self.ask_rows();
            self.phase = Phase::Reading;
        }
        Ok(())
    }

    fn drained(&self) -> Result<DrainedBank, DrainError> {
        let mut flowsets = Vec::with_capacity(self.tables.len());
        for (table, rows) in self.program.tables().zip(&self.tables) {
            let key = table.key();
            let header = FlowsetHeader {
                switch: self.plan.switch.clone(),
                epoch: Epoch {
                    number: self.before.epoch,
                    start_ns: self.plan.start_ns,
                    length_ns: self.plan.length_ns,
                },
                key,
                layout: table.layout().with_seed(self.before.seed),
                totals: Some(*self.before.totals(key)),
            };
            let bytes = rows
                .to_flowset(&header)
                .map_err(|source| DrainError::Flowset {
                    bank: self.plan.bank,
                    key,
                    source,
                })?;
            flowsets.push(DrainedFlowset { key, bytes });
        }
        Ok(DrainedBank {
            flowsets,
            state: self.before,
            rounds: self.rounds,
        })
    }
}

impl Task for BankReader {
    type Output = DrainedBank;

    fn poll(&mut self, now: Duration) -> Result<Step, DrainError> {
        match &self.phase {
            Phase::Settling(until) if now < *until => return Ok(Step::Wait(*until)),
            Phase::Settling(_) => {
                self.ask_state();
                self.phase = Phase::AskingBefore;
            }
            Phase::AskingBefore | Phase::Reading | Phase::AskingAfter => {}
            Phase::Done(_) => return Ok(Step::Done),
            Phase::Failed(error) => return Err(error.clone()),
        }
        self.exchange.poll(now).inspect_err(|error| {
            self.phase = Phase::Failed(error.clone());
        })
    }

    fn handle(&mut self, frame: &[u8]) -> Result<(), DrainError> {
        if matches!(self.phase, Phase::Done(_) | Phase::Failed(_)) {
            return Ok(());
        }
        let outcome = match self.exchange.take(frame) {
            Ok(None) => Ok(()),
            Ok(Some((request, reply))) => self.take(&request, &reply),
            Err(error) => Err(error),
        };
        outcome.inspect_err(|error| self.phase = Phase::Failed(error.clone()))
    }

    fn output(self) -> Option<DrainedBank> {
        match self.phase {
            Phase::Done(drained) => Some(*drained),
            _ => None,
        }
    }

    fn counters(&self) -> ExchangeCounters {
        self.exchange.counters()
    }
}
