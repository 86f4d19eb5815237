//! Asking for the state, and changing epochs.

use std::time::Duration;

use super::exchange::Exchange;
use super::wire::{Request, SwitchState};
use super::{Bank, DrainError, DrainTiming, ExchangeCounters, Operation, Step, Task};
use crate::config::ProgramConfig;

/// A task of one request that is answered with the switch's state.
#[derive(Clone, Debug)]
pub struct Control {
    exchange: Exchange,
    outcome: Option<Result<SwitchState, DrainError>>,
}

impl Control {
    /// Asks which epoch is active, what has been counted, and what the other bank is.
    pub fn query(program: &ProgramConfig, timing: DrainTiming) -> Self {
        Self::new(program, timing, Operation::Query, Bank::Zero, 0, 0)
    }

    /// Begins epoch `epoch` in `bank`, which must be clean: packets count there from now on, hashed
    /// with `seed`, and the other bank is sealed.
    ///
    /// Give each switch a seed of its own: network-wide decoding wants that. Where packets are stamped
    /// the seed is ignored: see [`BankCleaner::with_next_seed`](super::BankCleaner::with_next_seed).
    pub fn switch_epoch(
        program: &ProgramConfig,
        timing: DrainTiming,
        bank: Bank,
        epoch: u64,
        seed: u64,
    ) -> Self {
        Self::new(program, timing, Operation::Switch, bank, epoch, seed)
    }

    fn new(
        program: &ProgramConfig,
        timing: DrainTiming,
        operation: Operation,
        bank: Bank,
        epoch: u64,
        seed: u64,
    ) -> Self {
        let mut exchange = Exchange::new(program.fingerprint(), timing);
        exchange.ask(Request {
            epoch,
            seed,
            ..Request::new(operation, bank)
        });
        Self {
            exchange,
            outcome: None,
        }
    }
}

impl Task for Control {
    type Output = SwitchState;

    fn poll(&mut self, now: Duration) -> Result<Step, DrainError> {
        match &self.outcome {
            Some(Ok(_)) => Ok(Step::Done),
            Some(Err(error)) => Err(error.clone()),
            None => {
                let step = self.exchange.poll(now);
                if let Err(error) = &step {
                    self.outcome = Some(Err(error.clone()));
                }
                step
            }
        }
    }

    fn handle(&mut self, frame: &[u8]) -> Result<(), DrainError> {
        if self.outcome.is_some() {
            return Ok(());
        }
        match self.exchange.take(frame) {
            Ok(None) => Ok(()),
            Ok(Some((_, reply))) => {
                self.outcome = reply.state().map(Ok);
                Ok(())
            }
            Err(error) => {
                self.outcome = Some(Err(error.clone()));
                Err(error)
            }
        }
    }

    fn output(self) -> Option<SwitchState> {
        self.outcome?.ok()
    }

    fn counters(&self) -> ExchangeCounters {
        self.exchange.counters()
    }
}
