//! Getting flowsets out of a switch: different ways behind one trait.
//!
//! | reader | needs | for |
//! | --- | --- | --- |
//! | [`PacketReader`] | packet I/O | every target that runs the program, bmv2 above all |
//! | [`RegisterReader`] | packet I/O, and reads of registers by P4Runtime | targets that implement them, as `flowradar-switch` does |
//!
//! A third way, BFRT, is the gRPC of Tofino switches. It is not implemented here: crate `rbfrt` speaks it,
//! but without a switch or its model nothing could be held to it. A reader on
//! it implements [`FlowsetReader`], reads a register once per pipe, and adds the pipes up: XORs by XOR,
//! counts by addition.
//!
//! What a reader cannot do by its own way (changing epochs must be one moment for all tables) it does by
//! packets. Readers clear nothing that they were not told to clear.

mod packet;
mod register;

use std::time::{Duration, Instant};

use thiserror::Error;

use crate::client::{ClientError, Session};
use crate::config::ProgramConfig;
use crate::drain::{
    Bank, BankCleaner, Control, DrainError, DrainTiming, DrainedBank, ExchangeCounters, ReadPlan,
    SwitchState,
};

pub use packet::PacketReader;
pub use register::{RegisterNames, RegisterReader};

/// A way to get flowsets out of a switch.
///
/// Every operation may be repeated, also by another controller, and leaves the switch in a state with which
/// the next one can begin.
pub trait FlowsetReader: Send {
    /// What the switch is doing.
    fn state(
        &mut self,
        session: &mut Session,
    ) -> impl Future<Output = Result<SwitchState, ReadError>> + Send;

    /// Lets an epoch begin in the bank that is not active, which must be clean.
    fn switch_epoch(
        &mut self,
        session: &mut Session,
        bank: Bank,
        epoch: u64,
        seed: u64,
    ) -> impl Future<Output = Result<SwitchState, ReadError>> + Send;

    /// Reads a sealed bank; clears nothing.
    fn read(
        &mut self,
        session: &mut Session,
        state: &SwitchState,
        plan: ReadPlan,
    ) -> impl Future<Output = Result<DrainedBank, ReadError>> + Send;

    /// Clears a bank that was read, or that a controller before has begun to clear.
    fn clear(
        &mut self,
        session: &mut Session,
        state: &SwitchState,
        bank: Bank,
    ) -> impl Future<Output = Result<SwitchState, ReadError>> + Send;

    /// What the last operation has sent, and sent again.
    fn counters(&self) -> ExchangeCounters;

    /// The clock that plans are made by ([`ReadPlan::sealed_at`]).
    fn now(&self) -> Duration;
}

/// Why flowsets cannot be got out of a switch.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ReadError {
    /// The connection, or what was asked through it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The exchange by packets.
    #[error("switch {switch}: {source}")]
    Drain {
        /// The switch.
        switch: String,
        /// What is wrong.
        source: DrainError,
    },
    /// What registers hold makes no flowset.
    #[error("switch {switch}: {reason}")]
    Registers {
        /// The switch.
        switch: String,
        /// What is wrong.
        reason: String,
    },
}

impl ReadError {
    /// Whether a new session may help.
    pub fn is_connection_lost(&self) -> bool {
        match self {
            Self::Client(error) => error.reason.is_connection_lost(),
            // Silence may be that of a switch that has gone away.
            Self::Drain { source, .. } => matches!(source, DrainError::NoAnswer { .. }),
            Self::Registers { .. } => false,
        }
    }

    /// Whether the switch has lost its state, so that everything must begin again.
    pub fn is_restart(&self) -> bool {
        matches!(
            self,
            Self::Drain {
                source: DrainError::OtherEpoch { .. }
                    | DrainError::OtherSeed { .. }
                    | DrainError::OtherProgram { .. },
                ..
            }
        )
    }
}

/// What all readers do by packets.
#[derive(Debug)]
struct PacketExchange {
    program: ProgramConfig,
    timing: DrainTiming,
    started: Instant,
    counters: ExchangeCounters,
}

impl PacketExchange {
    fn new(program: ProgramConfig, timing: DrainTiming) -> Self {
        Self {
            program,
            timing,
            started: Instant::now(),
            counters: ExchangeCounters::default(),
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    async fn state(&mut self, session: &mut Session) -> Result<SwitchState, ReadError> {
        let task = Control::query(&self.program, self.timing);
        self.run(session, task).await
    }

    async fn switch_epoch(
        &mut self,
        session: &mut Session,
        bank: Bank,
        epoch: u64,
        seed: u64,
    ) -> Result<SwitchState, ReadError> {
        let task = Control::switch_epoch(&self.program, self.timing, bank, epoch, seed);
        self.run(session, task).await
    }

    async fn clear(
        &mut self,
        session: &mut Session,
        state: &SwitchState,
        bank: Bank,
    ) -> Result<SwitchState, ReadError> {
        let task = BankCleaner::new(&self.program, self.timing, state, bank);
        let task = task.map_err(|error| drain_error(session, error))?;
        self.run(session, task).await
    }
}

fn drain_error(session: &Session, source: DrainError) -> ReadError {
    ReadError::Drain {
        switch: session.target().name.clone(),
        source,
    }
}
