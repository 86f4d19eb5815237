//! Reading by packet-outs and packet-ins.

use std::time::Duration;

use super::{FlowsetReader, PacketExchange, ReadError, drain_error};
use crate::client::Session;
use crate::config::ProgramConfig;
use crate::drain::{
    Bank, BankReader, DrainTiming, DrainedBank, ExchangeCounters, ReadPlan, Step, SwitchState, Task,
};
use crate::packet::ControllerPacket;

/// Lets the data plane read its own cells into packets: needs nothing but packet I/O.
#[derive(Debug)]
pub struct PacketReader {
    exchange: PacketExchange,
}

impl PacketReader {
    /// A reader for switches that run `program`.
    pub fn new(program: ProgramConfig, timing: DrainTiming) -> Self {
        Self {
            exchange: PacketExchange::new(program, timing),
        }
    }
}

impl FlowsetReader for PacketReader {
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
        let exchange = &mut self.exchange;
        let task = BankReader::new(&exchange.program, exchange.timing, state, plan);
        let task = task.map_err(|error| drain_error(session, error))?;
        exchange.run(session, task).await
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

impl PacketExchange {
    /// Does a task by packets.
    pub(super) async fn run<T: Task>(
        &mut self,
        session: &mut Session,
        mut task: T,
    ) -> Result<T::Output, ReadError> {
        loop {
            let step = task.poll(self.now());
            self.counters = task.counters();
            match step.map_err(|error| drain_error(session, error))? {
                Step::Send(frame) => {
                    session.send_packet(&ControllerPacket::new(frame)).await?;
                }
                Step::Wait(until) => {
                    let patience = until.saturating_sub(self.now());
                    let packet = tokio::time::timeout(patience, session.next_packet()).await;
                    // Otherwise it is time to look again at what has not been answered.
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
}
