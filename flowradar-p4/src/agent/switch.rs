//! One switch.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flowradar_core::flowset::SwitchName;
use tokio::sync::mpsc;

use super::{AgentEvent, AgentEventKind, Delivery, EpochDrained, FlowsetSink};
use crate::PipelineConfig;
use crate::client::{
    Backoff, BackoffPolicy, ClientError, Session, SessionOptions, Standing, SwitchTarget,
};
use crate::config::ProgramConfig;
use crate::drain::{Bank, BankCondition, DrainTiming, DrainedBank, ReadPlan, SwitchState};
use crate::entity::Entity;
use crate::epoch::{EpochClock, EpochSchedule, EpochStep};
use crate::reader::{FlowsetReader, PacketReader, ReadError, RegisterReader};

/// How a switch is looked after.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// How sessions behave.
    pub session: SessionOptions,
    /// Whether to become primary in the place of whoever is. Only once: an agent that is replaced itself
    /// waits until nobody is primary, so that two agents do not fight.
    pub takes_over: bool,
    /// How to come back after a failure.
    pub backoff: BackoffPolicy,
    /// How patient draining is.
    pub timing: DrainTiming,
    /// How flowsets are read.
    pub reader: ReaderKind,
    /// What seeds of epochs are derived from; switches and epochs get different ones.
    pub seed: u64,
    /// Stops after it has ended and drained this many epochs; none goes on.
    pub epochs_max: Option<u64>,
    /// Gives up after this many failures in a row; none goes on.
    pub failures_max: Option<u32>,
    /// Whether to wait while another controller is primary, instead of failing.
    pub waits_as_standby: bool,
}

/// How flowsets are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReaderKind {
    /// By packets: every target can.
    #[default]
    Packets,
    /// By reads of registers: not every target can.
    Registers,
}

/// Looks after one switch.
#[derive(Debug)]
pub struct SwitchAgent<S> {
    name: SwitchName,
    target: Arc<SwitchTarget>,
    program: ProgramConfig,
    pipeline: PipelineConfig,
    entities: Vec<Entity>,
    clock: EpochClock,
    options: AgentOptions,
    sink: Option<S>,
    events: mpsc::Sender<AgentEvent>,
    epochs_ended: u64,
    epochs_drained: u64,
    was_replaced: bool,
}

/// Why an agent has given up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct AgentError {
    /// The switch.
    pub switch: SwitchName,
    /// What went wrong last.
    pub reason: String,
}

/// Why a session of the agent ended.
#[derive(Debug, thiserror::Error)]
enum Interruption {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("a flowset could not be delivered: {0}")]
    Sink(#[from] std::io::Error),
    #[error("another controller has become primary")]
    Replaced,
}

#[derive(Debug)]
enum AnyReader {
    Packets(PacketReader),
    Registers(RegisterReader),
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self {
            session: SessionOptions::default(),
            takes_over: false,
            backoff: BackoffPolicy::default(),
            timing: DrainTiming::default(),
            reader: ReaderKind::default(),
            seed: 1,
            epochs_max: None,
            failures_max: None,
            waits_as_standby: true,
        }
    }
}

impl<S: FlowsetSink + 'static> SwitchAgent<S> {
    /// An agent for a switch that is to run `pipeline`, compiled with `program`, and to hold `entities`.
    /// Events go to `events`; what finds it full waits, so that none is lost.
    #[allow(
        clippy::too_many_arguments,
        reason = "each is a different thing, named by its type"
    )]
    pub fn new(
        name: SwitchName,
        target: SwitchTarget,
        program: ProgramConfig,
        pipeline: PipelineConfig,
        entities: Vec<Entity>,
        clock: EpochClock,
        options: AgentOptions,
        sink: S,
        events: mpsc::Sender<AgentEvent>,
    ) -> Self {
        Self {
            name,
            target: Arc::new(target),
            program,
            pipeline,
            entities,
            clock,
            options,
            sink: Some(sink),
            events,
            epochs_ended: 0,
            epochs_drained: 0,
            was_replaced: false,
        }
    }

    /// Looks after the switch until the future is dropped, or as many epochs are drained as were asked for.
    ///
    /// # Errors
    ///
    /// If it failed as often in a row as it may.
    pub async fn run(mut self) -> Result<(), AgentError> {
        let seed = self.options.seed ^ name_hash(&self.name);
        let mut backoff = Backoff::new(self.options.backoff, seed);
        let mut failures = 0;
        loop {
            let before = self.epochs_drained;
            let Err(interruption) = self.run_session().await else {
                return Ok(());
            };
            if self.epochs_drained > before {
                backoff.succeed();
                failures = 0;
            }
            failures += 1;
            self.was_replaced |= matches!(interruption, Interruption::Replaced);
            let error = interruption.to_string();
            if self.options.failures_max.is_some_and(|max| failures >= max) {
                return Err(AgentError {
                    switch: self.name,
                    reason: error,
                });
            }
            let retry_in = backoff.fail();
            self.tell(AgentEventKind::Failed { error, retry_in }).await;
            tokio::time::sleep(retry_in).await;
        }
    }

    async fn run_session(&mut self) -> Result<(), Interruption> {
        let mut session = self.connect().await?;
        let pipeline = session.ensure_pipeline(&self.pipeline).await?;
        let tables = session.reconcile(&self.entities).await?;
        self.tell(AgentEventKind::Deployed { pipeline, tables })
            .await;
        let mut reader = self.reader();
        let mut state = self.settle_what_was_left(&mut session, &mut reader).await?;
        let mut schedule = EpochSchedule::new(self.clock, state.stamps_epoch, state.active_epoch());
        while self
            .options
            .epochs_max
            .is_none_or(|max| self.epochs_ended < max)
        {
            if session.standing() != Standing::Primary {
                if let Standing::Ended { .. } = session.standing() {
                    session.check_primary()?;
                }
                return Err(Interruption::Replaced);
            }
            match schedule.step(unix_time()) {
                EpochStep::Wait { until } => {
                    let patience = until.saturating_sub(unix_time());
                    // Something has happened, or it is time: look again, either way.
                    let _ = tokio::time::timeout(patience, session.standing_changed()).await;
                }
                EpochStep::Switch { epoch, merged } => {
                    let ended = state.active;
                    let seed = epoch_seed(self.options.seed, &self.name, epoch);
                    let bank = ended.other();
                    state = reader.switch_epoch(&mut session, bank, epoch, seed).await?;
                    schedule.switched(epoch);
                    state = self
                        .drain(&mut session, &mut reader, &state, ended, merged)
                        .await?;
                    schedule.drained();
                    self.epochs_ended += 1;
                }
            }
        }
        Ok(())
    }

    async fn connect(&self) -> Result<Session, Interruption> {
        // As a backup at first: an election id that was ours may still be in use, by a connection that the
        // switch does not know to be dead.
        let options = SessionOptions {
            joins_as_backup: true,
            ..self.options.session.clone()
        };
        let mut session = Session::connect(Arc::clone(&self.target), options).await?;
        if self.options.takes_over && !self.was_replaced {
            session.take_over().await?;
        }
        let mut is_told = false;
        loop {
            match session.standing() {
                Standing::Primary => break,
                Standing::Backup {
                    has_primary: false, ..
                } => session.take_over().await?,
                Standing::Backup { highest, .. } => {
                    if !self.options.waits_as_standby {
                        session.check_primary()?;
                    }
                    if !is_told {
                        self.tell(AgentEventKind::Standby { highest }).await;
                        is_told = true;
                    }
                    session.standing_changed().await;
                }
                Standing::Unknown => {
                    session.standing_changed().await;
                }
                Standing::Ended { .. } => session.check_primary()?,
            }
        }
        let election_id = session.election_id().unwrap_or_default();
        self.tell(AgentEventKind::Connected { election_id }).await;
        Ok(session)
    }

    /// Reads a bank that was sealed before, finishes clearing one that was being cleared.
    async fn settle_what_was_left(
        &mut self,
        session: &mut Session,
        reader: &mut AnyReader,
    ) -> Result<SwitchState, Interruption> {
        let state = reader.state(session).await?;
        let bank = state.idle();
        let epoch = state.bank(bank).epoch;
        match state.bank(bank).condition {
            BankCondition::Active | BankCondition::Clean => Ok(state),
            BankCondition::Clearing => {
                let state = reader.clear(session, &state, bank).await?;
                self.tell(AgentEventKind::BankCleared { epoch }).await;
                Ok(state)
            }
            BankCondition::Sealed => {
                self.tell(AgentEventKind::BankLeft { epoch }).await;
                let merged = state.active_epoch().saturating_sub(epoch);
                self.drain(session, reader, &state, bank, merged).await
            }
        }
    }

    async fn drain(
        &mut self,
        session: &mut Session,
        reader: &mut AnyReader,
        state: &SwitchState,
        bank: Bank,
        merged: u64,
    ) -> Result<SwitchState, Interruption> {
        let epoch = state.bank(bank).epoch;
        let began = reader.now();
        let plan = ReadPlan {
            switch: self.name.clone(),
            bank,
            start_ns: self.start_ns(epoch),
            length_ns: self.length_ns(epoch, merged),
            sealed_at: began,
        };
        let drained = reader.read(session, state, plan).await?;
        let read_time = reader.now().saturating_sub(began);
        let requests = reader.counters();
        let drained = self.deliver(epoch, drained).await?;
        let state = reader.clear(session, state, bank).await?;
        self.epochs_drained += 1;
        let counted = &drained.state;
        let event = EpochDrained {
            epoch,
            merged: if epoch == 0 { 1 } else { merged },
            packets: counted.v4.packets + counted.v6.packets,
            not_encoded: counted.not_ip + counted.malformed,
            flowsets: drained
                .flowsets
                .iter()
                .map(|flowset| (flowset.key, flowset.bytes.len()))
                .collect(),
            read_time,
            drain_time: reader.now().saturating_sub(began),
            requests: (requests.sent, requests.sent_again),
            rounds: drained.rounds,
        };
        self.tell(AgentEventKind::EpochDrained(event)).await;
        Ok(state)
    }

    /// Hands flowsets over, on a thread that may wait for disks and collectors. The sink comes back with
    /// the outcome.
    async fn deliver(
        &mut self,
        epoch: u64,
        drained: DrainedBank,
    ) -> Result<DrainedBank, Interruption> {
        let Some(mut sink) = self.sink.take() else {
            return Err(Interruption::Sink(std::io::Error::other(
                "an earlier delivery has not come to an end",
            )));
        };
        let switch = self.name.clone();
        let delivering = tokio::task::spawn_blocking(move || {
            let mut outcome = Ok(());
            for flowset in &drained.flowsets {
                outcome = sink.deliver(Delivery {
                    switch: &switch,
                    epoch,
                    key: flowset.key,
                    bytes: &flowset.bytes,
                });
                if outcome.is_err() {
                    break;
                }
            }
            (sink, drained, outcome)
        });
        let (sink, drained, outcome) = delivering
            .await
            .map_err(|error| Interruption::Sink(std::io::Error::other(error)))?;
        self.sink = Some(sink);
        outcome?;
        Ok(drained)
    }

    fn reader(&self) -> AnyReader {
        match self.options.reader {
            ReaderKind::Packets => {
                AnyReader::Packets(PacketReader::new(self.program, self.options.timing))
            }
            ReaderKind::Registers => {
                AnyReader::Registers(RegisterReader::new(self.program, self.options.timing))
            }
        }
    }

    /// Epoch 0 is what a switch counts between its start and its first epoch: of no known time.
    fn start_ns(&self, epoch: u64) -> u64 {
        let start = self.clock.start_of(epoch).as_nanos();
        if epoch == 0 {
            return 0;
        }
        u64::try_from(start).unwrap_or(0)
    }

    fn length_ns(&self, epoch: u64, merged: u64) -> u64 {
        if epoch == 0 {
            return 0;
        }
        let length = self
            .clock
            .length()
            .as_nanos()
            .saturating_mul(u128::from(merged));
        u64::try_from(length).unwrap_or(0)
    }

    async fn tell(&self, kind: AgentEventKind) {
        let event = AgentEvent {
            switch: self.name.clone(),
            kind,
        };
        // Nobody may be listening.
        let _ = self.events.send(event).await;
    }
}

impl FlowsetReader for AnyReader {
    async fn state(&mut self, session: &mut Session) -> Result<SwitchState, ReadError> {
        match self {
            Self::Packets(reader) => reader.state(session).await,
            Self::Registers(reader) => reader.state(session).await,
        }
    }

    async fn switch_epoch(
        &mut self,
        session: &mut Session,
        bank: Bank,
        epoch: u64,
        seed: u64,
    ) -> Result<SwitchState, ReadError> {
        match self {
            Self::Packets(reader) => reader.switch_epoch(session, bank, epoch, seed).await,
            Self::Registers(reader) => reader.switch_epoch(session, bank, epoch, seed).await,
        }
    }

    async fn read(
        &mut self,
        session: &mut Session,
        state: &SwitchState,
        plan: ReadPlan,
    ) -> Result<DrainedBank, ReadError> {
        match self {
            Self::Packets(reader) => reader.read(session, state, plan).await,
            Self::Registers(reader) => reader.read(session, state, plan).await,
        }
    }

    async fn clear(
        &mut self,
        session: &mut Session,
        state: &SwitchState,
        bank: Bank,
    ) -> Result<SwitchState, ReadError> {
        match self {
            Self::Packets(reader) => reader.clear(session, state, bank).await,
            Self::Registers(reader) => reader.clear(session, state, bank).await,
        }
    }

    fn counters(&self) -> crate::drain::ExchangeCounters {
        match self {
            Self::Packets(reader) => reader.counters(),
            Self::Registers(reader) => reader.counters(),
        }
    }

    fn now(&self) -> Duration {
        match self {
            Self::Packets(reader) => reader.now(),
            Self::Registers(reader) => reader.now(),
        }
    }
}

/// Different for every switch and epoch: what collides in one flowset shall not collide in others.
pub(crate) fn epoch_seed(seed: u64, switch: &SwitchName, epoch: u64) -> u64 {
    let mut bytes = Vec::with_capacity(16 + switch.as_str().len());
    bytes.extend(seed.to_le_bytes());
    bytes.extend(epoch.to_le_bytes());
    bytes.extend(switch.as_str().bytes());
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

fn name_hash(name: &SwitchName) -> u64 {
    xxhash_rust::xxh3::xxh3_64(name.as_str().as_bytes())
}

fn unix_time() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
