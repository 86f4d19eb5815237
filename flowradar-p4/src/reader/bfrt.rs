//! Reading the registers of a Tofino switch by BFRT.

use std::time::{Duration, Instant};

use flowradar_core::KeyKind;
use flowradar_core::flowset::{Epoch, SwitchName, Totals};

use super::{FlowsetReader, ReadError};
use crate::bfrt::BfrtSession;
use crate::drain::{
    Bank, BankCondition, BankState, DrainError, DrainTiming, DrainedBank, DrainedFlowset,
    ExchangeCounters, ReadPlan, SwitchState,
};
use crate::tofino::{
    BankCounters, BankRegisters, PipeSums, RegistersError, TofinoProgram, check_counters,
    pipe_switch_name,
};

/// How often a bank is read before giving up on registers that do not agree with the counters.
const ROUNDS_MAX: u32 = 3;

/// Reads the program of `p4src/tofino` out of a Tofino switch, a flowset for each pipe
/// ([`crate::tofino`]): all of the chip's flowsets are of one bank and have the names of
/// [`pipe_switch_name`].
///
/// The switch knows of its banks only which one is active. So this reader keeps the epochs' numbers, and that
/// an epoch has ended: use one reader for as long as a switch runs. One that is new to a switch finds epoch 0
/// in both banks, and takes a bank with packets that is not active for sealed. If that was being cleared,
/// its cells and counters disagree, and reading fails: clear it. A switch that has been restarted needs a
/// new reader, too.
///
/// - The seed is compiled into the program; that of [`FlowsetReader::switch_epoch`] is ignored.
/// - The totals of a [`BankState`] are those of all pipes; bytes are known after a read only.
/// - The fingerprint is that of the configuration ([`TofinoProgram::fingerprint`]). Whether the switch runs
///   this program is checked by tables and sizes when the session begins.
#[derive(Clone, Debug)]
pub struct BfrtReader {
    program: TofinoProgram,
    timing: DrainTiming,
    started: Instant,
    counters: ExchangeCounters,
    banks: [KeptBank; 2],
}

/// What the switch does not know of a bank.
#[derive(Clone, Copy, Debug, Default)]
struct KeptBank {
    epoch: u64,
    /// Sealed or partly cleared, whatever its counters say.
    left: Option<BankCondition>,
    /// Bytes of the last read.
    bytes: u64,
}

impl BfrtReader {
    /// A reader for a switch that runs `program`. Of `timing` it uses how long packets take to settle, and
    /// after what time registers are read again that did not agree.
    pub fn new(program: TofinoProgram, timing: DrainTiming) -> Self {
        Self {
            program,
            timing,
            started: Instant::now(),
            counters: ExchangeCounters::default(),
            banks: [KeptBank::default(); 2],
        }
    }

    /// Takes up the numbering of a reader before it: the epoch of the active bank, and that of the other.
    #[must_use]
    pub fn with_epochs(mut self, active: Bank, active_epoch: u64, other_epoch: u64) -> Self {
        self.kept(active).epoch = active_epoch;
        self.kept(active.other()).epoch = other_epoch;
        self
    }

    fn kept(&mut self, bank: Bank) -> &mut KeptBank {
        let [zero, one] = &mut self.banks;
        match bank {
            Bank::Zero => zero,
            Bank::One => one,
        }
    }

    /// What the switch and this reader together know.
    async fn look(&self, session: &mut BfrtSession) -> Result<SwitchState, ReadError> {
        let active = session.active_bank().await?;
        let zero = session.counters(Bank::Zero).await?;
        let one = session.counters(Bank::One).await?;
        let seed = self.program.layout().seed();
        let bank = |bank: Bank, counters: BankCounters, kept: KeptBank| BankState {
            condition: match kept.left {
                _ if bank == active => BankCondition::Active,
                Some(condition) => condition,
                // Counters are cleared last.
                None if counters == BankCounters::default() => BankCondition::Clean,
                None => BankCondition::Sealed,
            },
            epoch: kept.epoch,
            seed,
            v4: Totals {
                packets: counters.packets,
                bytes: kept.bytes,
                new_flows: counters.new_flows,
            },
            v6: Totals::default(),
            not_ip: 0,
            malformed: 0,
            ports_cut_off: 0,
        };
        let [kept_zero, kept_one] = self.banks;
        let banks = [
            bank(Bank::Zero, zero, kept_zero),
            bank(Bank::One, one, kept_one),
        ];
        Ok(SwitchState::new(
            self.program.fingerprint(),
            active,
            false,
            banks,
        ))
    }

    /// Fails unless the switch is seen to hold, in `bank`, the epoch that `state` says, in one of these
    /// conditions.
    async fn check(
        &self,
        session: &mut BfrtSession,
        state: &SwitchState,
        bank: Bank,
        conditions: &[BankCondition],
        hint: &'static str,
    ) -> Result<SwitchState, ReadError> {
        let expected = self.program.fingerprint();
        if state.fingerprint != expected {
            let found = state.fingerprint;
            return Err(drain_error(
                session,
                DrainError::OtherProgram { expected, found },
            ));
        }
        let now = self.look(session).await?;
        let (expected, found) = (state.bank(bank).epoch, now.bank(bank).epoch);
        if expected != found {
            let error = DrainError::OtherEpoch {
                bank,
                expected,
                found,
            };
            return Err(drain_error(session, error));
        }
        let condition = now.bank(bank).condition;
        if !conditions.contains(&condition) {
            let error = DrainError::Condition {
                bank,
                condition,
                hint,
            };
            return Err(drain_error(session, error));
        }
        Ok(now)
    }

    /// Reads until registers and counters are of one moment.
    async fn read_settled(
        &self,
        session: &mut BfrtSession,
        bank: Bank,
    ) -> Result<(Vec<BankRegisters>, Vec<PipeSums>, BankCounters, u32), ReadError> {
        let mut rounds = 0;
        loop {
            rounds += 1;
            let before = session.counters(bank).await?;
            session.sync().await?;
            let pipes = session.read_bank(bank).await?;
            let sums = agreeing(&pipes, &before);
            let after = session.counters(bank).await?;
            match sums {
                Ok(sums) if before == after => return Ok((pipes, sums, after, rounds)),
                Ok(_) if rounds == ROUNDS_MAX => {
                    return Err(drain_error(session, DrainError::Unsettled { bank, rounds }));
                }
                Err(error) if rounds == ROUNDS_MAX => return Err(session.error(error).into()),
                // Packets were still being counted, or the switch was not done with its copy.
                Ok(_) | Err(_) => tokio::time::sleep(self.timing.retry_after).await,
            }
        }
    }

    fn count(&mut self, session: &BfrtSession, requests_before: u64) {
        let requests = session.requests().saturating_sub(requests_before);
        self.counters = ExchangeCounters {
            sent: requests,
            answers: requests,
            ..ExchangeCounters::default()
        };
    }
}

impl FlowsetReader<BfrtSession> for BfrtReader {
    async fn state(&mut self, session: &mut BfrtSession) -> Result<SwitchState, ReadError> {
        let requests = session.requests();
        let state = self.look(session).await?;
        self.count(session, requests);
        Ok(state)
    }

    async fn switch_epoch(
        &mut self,
        session: &mut BfrtSession,
        bank: Bank,
        epoch: u64,
        _seed: u64,
    ) -> Result<SwitchState, ReadError> {
        let requests = session.requests();
        let state = self.look(session).await?;
        if state.active == bank && state.active_epoch() == epoch {
            // Done before.
            return Ok(state);
        }
        let condition = state.bank(bank).condition;
        if condition != BankCondition::Clean {
            let error = DrainError::Condition {
                bank,
                condition,
                hint: "an epoch begins in a clean bank only: read and clear it first",
            };
            return Err(drain_error(session, error));
        }
        // Before it is done: an answer that does not come may be to a request that was heard. Of the bank that
        // is active then, only the epoch counts.
        *self.kept(bank) = KeptBank {
            epoch,
            ..KeptBank::default()
        };
        self.kept(bank.other()).left = Some(BankCondition::Sealed);
        session.set_active_bank(bank).await?;
        let state = self.look(session).await?;
        self.count(session, requests);
        Ok(state)
    }

    async fn read(
        &mut self,
        session: &mut BfrtSession,
        state: &SwitchState,
        plan: ReadPlan,
    ) -> Result<DrainedBank, ReadError> {
        const HINT: &str = "only a sealed bank is read: change the epoch first";

        let requests = session.requests();
        let bank = plan.bank;
        let conditions = [BankCondition::Sealed];
        let now = self.check(session, state, bank, &conditions, HINT).await?;
        let settled_at = plan.sealed_at + self.timing.settle;
        tokio::time::sleep(settled_at.saturating_sub(self.now())).await;
        let (pipes, sums, counters, rounds) = self.read_settled(session, bank).await?;
        let epoch = Epoch {
            number: now.bank(bank).epoch,
            start_ns: plan.start_ns,
            length_ns: plan.length_ns,
        };
        let mut flowsets = Vec::with_capacity(pipes.len());
        for (number, pipe) in pipes.iter().enumerate() {
            let switch = pipe_name(session, &plan.switch, number)?;
            let bytes = pipe.to_flowset(&switch, epoch);
            flowsets.push(DrainedFlowset {
                key: KeyKind::V4,
                bytes: bytes.map_err(|error| session.error(error))?,
            });
        }
        let bytes = sums.iter().map(|pipe| pipe.bytes).sum::<Option<u64>>();
        self.kept(bank).bytes = bytes.unwrap_or_default();
        self.count(session, requests);
        let state = BankState {
            v4: Totals {
                packets: counters.packets,
                bytes: bytes.unwrap_or_default(),
                new_flows: counters.new_flows,
            },
            ..*now.bank(bank)
        };
        Ok(DrainedBank {
            flowsets,
            state,
            rounds,
        })
    }

    async fn clear(
        &mut self,
        session: &mut BfrtSession,
        state: &SwitchState,
        bank: Bank,
    ) -> Result<SwitchState, ReadError> {
        let requests = session.requests();
        let conditions = [BankCondition::Sealed, BankCondition::Clearing];
        self.check(
            session,
            state,
            bank,
            &conditions,
            "there is nothing to clear",
        )
        .await?;
        self.kept(bank).left = Some(BankCondition::Clearing);
        session.clear_bank(bank).await?;
        let kept = self.kept(bank);
        (kept.left, kept.bytes) = (None, 0);
        let state = self.look(session).await?;
        self.count(session, requests);
        Ok(state)
    }

    fn counters(&self) -> ExchangeCounters {
        self.counters
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

/// What each pipe has counted, if that is what the counters say.
fn agreeing(
    pipes: &[BankRegisters],
    counters: &BankCounters,
) -> Result<Vec<PipeSums>, RegistersError> {
    let sums: Vec<_> = pipes
        .iter()
        .map(BankRegisters::sums)
        .collect::<Result<_, _>>()?;
    check_counters(&sums, counters)?;
    Ok(sums)
}

fn pipe_name(
    session: &BfrtSession,
    switch: &SwitchName,
    pipe: usize,
) -> Result<SwitchName, ReadError> {
    pipe_switch_name(switch, pipe).map_err(|error| ReadError::Registers {
        switch: session.target().name.clone(),
        reason: format!("the name of pipe {pipe}: {error}"),
    })
}

fn drain_error(session: &BfrtSession, source: DrainError) -> ReadError {
    ReadError::Drain {
        switch: session.target().name.clone(),
        source,
    }
}
