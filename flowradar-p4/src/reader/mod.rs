//! Getting flowsets out of a switch: different ways behind one trait.
//!
//! | reader | needs | for |
//! | --- | --- | --- |
//! | [`PacketReader`] | packet I/O | every target that runs the program, bmv2 above all |
//! | [`RegisterReader`] | packet I/O, and reads of registers by P4Runtime | targets that implement them, as `flowradar-switch` does |
//! | `BfrtReader`, with feature `bfrt` | the BFRT service of a Tofino switch, in a session of its own (`bfrt`) | `p4src/tofino` |
//!
//! A Tofino switch has registers for every pipe, and gives a flowset for each: pipes are never added up
//! ([`crate::tofino`]).
//!
//! What [`RegisterReader`] cannot do by its own way (changing epochs must be one moment for all tables) it does
//! by packets. Readers clear nothing that they were not told to clear.

#[cfg(feature = "bfrt")]
mod bfrt;
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

#[cfg(feature = "bfrt")]
pub use bfrt::BfrtReader;
pub use packet::PacketReader;
pub use register::{RegisterNames, RegisterReader};

/// A way to get flowsets out of a switch, over a session of type `S`: P4Runtime's, if it is not named.
///
/// Every operation may be repeated, also by another controller, and leaves the switch in a state with which
/// the next one can begin.
pub trait FlowsetReader<S = Session>: Send {
    /// What the switch is doing.
    fn state(
        &mut self,
        session: &mut S,
    ) -> impl Future<Output = Result<SwitchState, ReadError>> + Send;

    /// Lets an epoch begin in the bank that is not active, which must be clean.
    fn switch_epoch(
        &mut self,
        session: &mut S,
        bank: Bank,
        epoch: u64,
        seed: u64,
    ) -> impl Future<Output = Result<SwitchState, ReadError>> + Send;

    /// Reads a sealed bank; clears nothing.
    fn read(
        &mut self,
        session: &mut S,
        state: &SwitchState,
        plan: ReadPlan,
    ) -> impl Future<Output = Result<DrainedBank, ReadError>> + Send;

    /// Clears a bank that was read, or that a controller before has begun to clear.
    fn clear(
        &mut self,
        session: &mut S,
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
    /// The session with a Tofino switch, or what its registers hold.
    #[cfg(feature = "bfrt")]
    #[error(transparent)]
    Bfrt(#[from] crate::bfrt::BfrtError),
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
            #[cfg(feature = "bfrt")]
            Self::Bfrt(error) => error.reason.is_connection_lost(),
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
