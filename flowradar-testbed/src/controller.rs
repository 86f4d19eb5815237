//! A P4Runtime session, and draining.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use flowradar_core::flowset::SwitchName;
use flowradar_p4::Program;
use flowradar_p4::client::{PipelineOutcome, Session, SessionOptions, SwitchTarget};
use flowradar_p4::drain::{DrainTiming, DrainedBank, ReadPlan};
use flowradar_p4::entity::Entity;
use flowradar_p4::reader::{FlowsetReader, PacketReader};

use crate::TestbedError;

/// Longer than anything takes, even on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Controls one switch, and drains it by packets.
#[derive(Debug)]
pub struct Controller {
    name: SwitchName,
    /// The session.
    pub session: Session,
    reader: PacketReader,
    next_epoch: u64,
}

impl Controller {
    /// Connects as primary, loads the reference program and the entities, whatever was there before.
    ///
    /// # Errors
    ///
    /// If the switch cannot be reached, or refuses something.
    pub async fn deploy(
        address: SocketAddr,
        name: &str,
        entities: &[Entity],
    ) -> Result<Self, TestbedError> {
        let mut controller = Self::connect(address, name, 1).await?;
        controller.load().await?;
        controller.session.reconcile(entities).await?;
        Ok(controller)
    }

    /// Connects with an election id, to a switch that runs the reference program or is to run it.
    ///
    /// # Errors
    ///
    /// If the switch cannot be reached.
    pub async fn connect(
        address: SocketAddr,
        name: &str,
        election_id: u128,
    ) -> Result<Self, TestbedError> {
        let options = SessionOptions {
            election_id,
            connect_timeout: PATIENCE,
            request_timeout: PATIENCE,
            ..SessionOptions::default()
        };
        let target = Arc::new(SwitchTarget::new(name, address.to_string()));
        let mut session = Session::connect(target, options).await?;
        let program = Program::reference();
        session.set_info(Arc::clone(program.pipeline.info()));
        Ok(Self {
            name: name.parse()?,
            session,
            reader: PacketReader::new(program.config, timing()),
            next_epoch: 1,
        })
    }

    /// Sees to it that the switch runs the reference program.
    ///
    /// # Errors
    ///
    /// If the switch refuses it.
    pub async fn load(&mut self) -> Result<PipelineOutcome, TestbedError> {
        let program = Program::reference();
        Ok(self.session.ensure_pipeline(&program.pipeline).await?)
    }

    /// Ends the epoch and reads it out; clears the bank.
    ///
    /// # Errors
    ///
    /// If the switch does not answer, or not as its program would.
    pub async fn drain(&mut self) -> Result<DrainedBank, TestbedError> {
        let drained = self.end_epoch_and_read().await?;
        let state = self.reader.state(&mut self.session).await?;
        let cleared = self.reader.clear(&mut self.session, &state, state.idle());
        cleared.await?;
        Ok(drained)
    }

    /// Ends the epoch and reads it out; leaves the bank as it is.
    ///
    /// # Errors
    ///
    /// If the switch does not answer, or not as its program would.
    pub async fn end_epoch_and_read(&mut self) -> Result<DrainedBank, TestbedError> {
        let Self {
            session, reader, ..
        } = self;
        let state = reader.state(session).await?;
        let ended = state.active;
        let epoch = self.next_epoch.max(state.active_epoch() + 1);
        self.next_epoch = epoch + 1;
        let seed = seed(self.name.as_str(), epoch);
        let switched = reader.switch_epoch(session, ended.other(), epoch, seed);
        let state = switched.await?;
        let plan = ReadPlan {
            switch: self.name.clone(),
            bank: ended,
            start_ns: 0,
            length_ns: 0,
            sealed_at: reader.now(),
        };
        Ok(reader.read(session, &state, plan).await?)
    }
}

/// Patient: machines with many switches are slow.
fn timing() -> DrainTiming {
    DrainTiming {
        retry_after: Duration::from_secs(2),
        ..DrainTiming::default()
    }
}

/// Different for each switch and epoch.
fn seed(name: &str, epoch: u64) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash ^ epoch
}
