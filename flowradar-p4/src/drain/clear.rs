//! Clearing a bank that has been read.

use std::time::Duration;

use super::exchange::Exchange;
use super::wire::{Bank, BankCondition, Chunk, Request, SwitchState};
use super::{DrainError, DrainTiming, ExchangeCounters, Operation, Step, Task};
use crate::config::ProgramConfig;

/// Clears a bank and releases it, so that it may become active again.
///
/// What is in it is lost: see that its flowsets have arrived first. Goes on with what a controller
/// before has begun.
#[derive(Clone, Debug)]
pub struct BankCleaner {
    exchange: Exchange,
    bank: Bank,
    epoch: u64,
    next_seed: u64,
    phase: Phase,
}

#[derive(Clone, Debug)]
enum Phase {
    Clearing,
    Releasing,
    Done(SwitchState),
    Failed(DrainError),
}

impl BankCleaner {
    /// A task that clears `bank`, which `state` must show as sealed or partly cleared.
    ///
    /// # Errors
    /// If the bank is active or clean, or the switch runs another program.
    pub fn new(
        program: &ProgramConfig,
        timing: DrainTiming,
        state: &SwitchState,
        bank: Bank,
    ) -> Result<Self, DrainError> {
        if state.fingerprint != program.fingerprint() {
            return Err(DrainError::OtherProgram {
                expected: program.fingerprint(),
                found: state.fingerprint,
            });
        }
        let condition = state.bank(bank).condition;
        if !matches!(condition, BankCondition::Sealed | BankCondition::Clearing) {
            return Err(DrainError::Condition {
                bank,
                condition,
                hint: "there is nothing to clear",
            });
        }
        let epoch = state.bank(bank).epoch;
        let mut exchange = Exchange::new(program.fingerprint(), timing);
        for (chunk, _) in Chunk::all(program) {
            exchange.ask(Request {
                epoch,
                chunk: Some(chunk),
                ..Request::new(Operation::Clear, bank)
            });
        }
        Ok(Self {
            exchange,
            bank,
            epoch,
            next_seed: state.bank(bank).seed,
            phase: Phase::Clearing,
        })
    }

    /// Where packets are stamped: the seed of the bank's next epoch. By default it stays as it is.
    ///
    /// Packets of that epoch may arrive before [`Control::switch_epoch`](super::Control::switch_epoch)
    /// begins it, which therefore cannot set the seed there. Without stamps this has no effect.
    #[must_use]
    pub fn with_next_seed(self, next_seed: u64) -> Self {
        Self { next_seed, ..self }
    }
}

impl Task for BankCleaner {
    type Output = SwitchState;

    fn poll(&mut self, now: Duration) -> Result<Step, DrainError> {
        match &self.phase {
            Phase::Done(_) => Ok(Step::Done),
            Phase::Failed(error) => Err(error.clone()),
            Phase::Clearing | Phase::Releasing => self.exchange.poll(now).inspect_err(|error| {
                self.phase = Phase::Failed(error.clone());
            }),
        }
    }

    fn handle(&mut self, frame: &[u8]) -> Result<(), DrainError> {
        if matches!(self.phase, Phase::Done(_) | Phase::Failed(_)) {
            return Ok(());
        }
        match self.exchange.take(frame) {
            Ok(None) => Ok(()),
            Ok(Some((_, reply))) => {
                if let Some(state) = reply.state() {
                    self.phase = Phase::Done(state);
                } else if self.exchange.is_idle() {
                    self.exchange.ask(Request {
                        epoch: self.epoch,
                        seed: self.next_seed,
                        ..Request::new(Operation::Release, self.bank)
                    });
                    self.phase = Phase::Releasing;
                }
                Ok(())
            }
            Err(error) => {
                self.phase = Phase::Failed(error.clone());
                Err(error)
            }
        }
    }

    fn output(self) -> Option<SwitchState> {
        match self.phase {
            Phase::Done(state) => Some(state),
            _ => None,
        }
    }

    fn counters(&self) -> ExchangeCounters {
        self.exchange.counters()
    }
}
