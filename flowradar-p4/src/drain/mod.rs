//! Reading encoded flowsets out of a switch by packets, sans I/O.
//!
//! The program in `p4src/` answers frames that come in through its CPU port: what it is and which epoch
//! it counts, the rows of a bank, and whether it has cleared them (`docs/p4-drain-format.md`). Here are
//! the tasks of the other side:
//!
//! | task | does | its output |
//! | --- | --- | --- |
//! | [`Control::query`] | asks | [`SwitchState`] |
//! | [`Control::switch_epoch`] | begins an epoch in the other bank | [`SwitchState`] |
//! | [`BankReader`] | reads a sealed bank | [`DrainedBank`]: encoded flowsets |
//! | [`BankCleaner`] | clears a bank that has been read, and releases it | [`SwitchState`] |
//!
//! A task opens no socket and reads no clock. It is asked what to do with [`Task::poll`], and given
//! what arrives with [`Task::handle`]; time is a [`Duration`] since any fixed moment. Lost frames are
//! sent for again, doubled and foreign ones are ignored and counted, order does not matter. A task that
//! is dropped half-way leaves nothing behind in the switch that a new one could not begin with.
//!
//! Reading clears nothing. So that no epoch is lost, make a [`BankCleaner`] only when the flowsets are
//! where they are safe.
//!
//! ```
//! use std::time::Duration;
//! use flowradar_p4::config::ProgramConfig;
//! use flowradar_p4::drain::{Control, DrainError, DrainTiming, Step, SwitchState, Task};
//!
//! /// `send` is a packet-out, `receive` waits for a packet-in until a time.
//! fn query(
//!     mut send: impl FnMut(Vec<u8>),
//!     mut receive: impl FnMut(Duration) -> Option<Vec<u8>>,
//!     now: impl Fn() -> Duration,
//! ) -> Result<SwitchState, DrainError> {
//!     let mut task = Control::query(&ProgramConfig::reference(), DrainTiming::default());
//!     loop {
//!         match task.poll(now())? {
//!             Step::Send(frame) => send(frame),
//!             Step::Wait(until) => {
//!                 if let Some(frame) = receive(until) {
//!                     task.handle(&frame)?;
//!                 }
//!             }
//!             Step::Done => return Ok(task.output().expect("a task that is done has its output")),
//!         }
//!     }
//! }
//! ```

mod bank;
mod clear;
mod control;
mod exchange;
mod read;
mod wire;

use std::time::Duration;

use flowradar_core::KeyKind;
use flowradar_core::flowset::WriteFlowsetError;

use crate::config::{Fingerprint, Section};

pub use clear::BankCleaner;
pub use control::Control;
pub use exchange::ExchangeCounters;
pub use read::{BankReader, DrainedBank, DrainedFlowset, ReadPlan};
pub use wire::{
    Bank, BankCondition, BankState, ETHER_TYPE, Operation, Reply, Request, Status, SwitchState,
    WireError,
};

/// Something that is done by sending frames to a switch and taking its answers.
pub trait Task {
    /// What there is when it is done.
    type Output;

    /// What to do now. Call it again after every [`Task::handle`], after every frame sent, and when
    /// the time that it said has come.
    ///
    /// # Errors
    /// When it cannot be done. Later calls give the same error.
    fn poll(&mut self, now: Duration) -> Result<Step, DrainError>;

    /// Takes a frame of the switch: the payload of a packet-in. Frames that answer no open request
    /// are ignored and counted.
    ///
    /// # Errors
    /// When the frame shows that it cannot be done.
    fn handle(&mut self, frame: &[u8]) -> Result<(), DrainError>;

    /// The outcome, once [`Task::poll`] has said [`Step::Done`].
    fn output(self) -> Option<Self::Output>;

    /// What has been sent, sent again and ignored so far.
    fn counters(&self) -> ExchangeCounters;
}

/// What a task wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing more: take [`Task::output`].
    Done,
    /// Send this frame to the switch, as the payload of a packet-out.
    Send(Vec<u8>),
    /// Wait for a frame, but not longer than until this time.
    Wait(Duration),
}

/// How patient and how pressing a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainTiming {
    /// Requests under way at a time; at least one.
    pub window: usize,
    /// A request that is not answered for so long is sent again.
    pub retry_after: Duration,
    /// How often a request is sent before the task fails; at least once.
    pub tries_max: u32,
    /// How long packets may take through the pipeline: a bank is read so long after it was sealed.
    pub settle: Duration,
}

impl Default for DrainTiming {
    /// 32 requests, sent again after 250 ms and up to 20 times, and 10 ms to settle.
    fn default() -> Self {
        Self {
            window: 32,
            retry_after: Duration::from_millis(250),
            tries_max: 20,
            settle: Duration::from_millis(10),
        }
    }
}

/// Why a task cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DrainError {
    /// The bank is not in a condition that allows it.
    #[error("bank {bank} is {condition}: {hint}")]
    Condition {
        /// Which bank.
        bank: Bank,
        /// What it is.
        condition: BankCondition,
        /// What would be needed.
        hint: &'static str,
    },
    /// What was read makes no flowset.
    #[error("{key} flowset of bank {bank}: {source}")]
    Flowset {
        /// Which bank.
        bank: Bank,
        /// Which table.
        key: KeyKind,
        /// Why not.
        source: WriteFlowsetError,
    },
    /// No answer after all tries.
    #[error(
        "no answer to {operation} after {tries} tries ({malformed} malformed answers): is the \
         switch up, and is this the primary controller?"
    )]
    NoAnswer {
        /// What was asked for.
        operation: Operation,
        /// How often.
        tries: u32,
        /// Answers that were too short or otherwise none.
        malformed: u64,
    },
    /// The bank holds another epoch than the one that is being read or cleared.
    #[error(
        "bank {bank} holds epoch {found}, not {expected}: the switch has been restarted, or \
         another controller has changed the epoch; begin with a query"
    )]
    OtherEpoch {
        /// Which bank.
        bank: Bank,
        /// The epoch that was asked for.
        expected: u64,
        /// The epoch that is there.
        found: u64,
    },
    /// The switch runs another program.
    #[error(
        "the switch runs a program with fingerprint {found}, not {expected}: deploy the program \
         again, or use the configuration that it was compiled with"
    )]
    OtherProgram {
        /// Fingerprint of the configuration.
        expected: Fingerprint,
        /// Fingerprint of the program.
        found: Fingerprint,
    },
    /// The bank's seed changed while it was read.
    #[error("bank {bank} has the seed {found:#x} now, and had {expected:#x} before")]
    OtherSeed {
        /// Which bank.
        bank: Bank,
        /// Its seed before.
        expected: u64,
        /// Its seed now.
        found: u64,
    },
    /// The switch refused.
    #[error("the switch refused {operation} of bank {bank}, epoch {epoch}: {status}")]
    Refused {
        /// What it refused.
        operation: Operation,
        /// For which bank.
        bank: Bank,
        /// The epoch in that bank.
        epoch: u64,
        /// Why.
        status: Status,
    },
    /// A row has bits that no program of this layout sets.
    #[error("row {row} of the {key} {section} has bits set behind the end of a partition")]
    Row {
        /// Which table.
        key: KeyKind,
        /// Which section.
        section: Section,
        /// Which row.
        row: u32,
    },
    /// Packets are still being counted in a bank that is not active.
    #[error(
        "bank {bank} was still counting packets after it had been read {rounds} times: give \
         packets more time to settle"
    )]
    Unsettled {
        /// Which bank.
        bank: Bank,
        /// How often it was read.
        rounds: u32,
    },
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
