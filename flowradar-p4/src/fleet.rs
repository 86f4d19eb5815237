//! All switches of a topology: what is done to one is done to all, at the same time.

use std::io;
use std::sync::Arc;

use flowradar_core::flowset::SwitchName;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::agent::{AgentError, AgentEvent, AgentOptions, FlowsetSink, SwitchAgent};
use crate::client::{
    ClientError, PipelineOutcome, ReconcileSummary, Session, SessionOptions, Standing, SwitchTarget,
};
use crate::drain::{DrainTiming, SwitchState};
use crate::entity::{Entity, TableEntry};
use crate::program::{Program, ReadProgramError};
use crate::reader::{FlowsetReader, PacketReader, ReadError};
use crate::topology::{EntitySpecError, SwitchSpec, Topology};

/// The switches of a topology, with what they are to run and to hold.
#[derive(Clone, Debug)]
pub struct Fleet {
    program: Program,
    switches: Vec<Arc<FleetSwitch>>,
}

/// A topology that cannot be used.
#[derive(Debug, Error)]
pub enum FleetError {
    /// An entry does not fit the program.
    #[error(transparent)]
    Entity(#[from] EntitySpecError),
    /// The program cannot be read.
    #[error(transparent)]
    Program(#[from] ReadProgramError),
    /// A switch's certificates cannot be read.
    #[error("switch {switch}: {source}")]
    Tls {
        /// The switch.
        switch: SwitchName,
        /// The system's reason.
        source: io::Error,
    },
}

/// What was needed to let a switch run the program with its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deployed {
    /// Whether the program was set, or ran already.
    pub pipeline: PipelineOutcome,
    /// What was changed in the tables.
    pub tables: ReconcileSummary,
}

/// What came of something for each switch, in the order of the topology.
pub type ForEachSwitch<T, E> = Vec<(SwitchName, Result<T, E>)>;

#[derive(Debug)]
struct FleetSwitch {
    spec: SwitchSpec,
    target: Arc<SwitchTarget>,
    entities: Vec<Entity>,
}

impl Fleet {
    /// Reads the program, and checks the tables of every switch against it.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, or an entry does not fit the program.
    pub fn new(topology: Topology) -> Result<Self, FleetError> {
        let program = match &topology.program {
            Some(files) => Program::read(files)?,
            None => Program::reference(),
        };
        let switches = topology.switches.into_iter().map(|spec| {
            let target = SwitchTarget::from_spec(&spec).map_err(|source| FleetError::Tls {
                switch: spec.name.clone(),
                source,
            })?;
            Ok(Arc::new(FleetSwitch {
                entities: spec.entities(program.pipeline.info())?,
                target: Arc::new(target),
                spec,
            }))
        });
        let switches = switches.collect::<Result<_, FleetError>>()?;
        Ok(Self { program, switches })
    }

    /// What the switches run.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The switches.
    pub fn switches(&self) -> impl ExactSizeIterator<Item = &SwitchSpec> {
        self.switches.iter().map(|switch| &switch.spec)
    }

    /// Lets all switches run the program, with their tables, touching only what is otherwise.
    ///
    /// `takes_over` makes this controller primary in the place of whoever is.
    pub async fn deploy(
        &self,
        options: &SessionOptions,
        takes_over: bool,
    ) -> ForEachSwitch<Deployed, ClientError> {
        let pipeline = self.program.pipeline.clone();
        self.for_each(options, move |switch, options| {
            let pipeline = pipeline.clone();
            async move {
                let mut session = primary(&switch, options, takes_over).await?;
                Ok(Deployed {
                    pipeline: session.ensure_pipeline(&pipeline).await?,
                    tables: session.reconcile(&switch.entities).await?,
                })
            }
        })
        .await
    }

    /// The entries of one table, or of all tables that have some, of all switches.
    pub async fn tables(
        &self,
        options: &SessionOptions,
        table: Option<String>,
    ) -> ForEachSwitch<Vec<TableEntry>, ClientError> {
        self.for_each(options, move |switch, options| {
            let table = table.clone();
            async move {
                // Reading needs no primary.
                let mut session = Session::connect(
                    Arc::clone(&switch.target),
                    SessionOptions {
                        joins_as_backup: true,
                        ..options
                    },
                )
                .await?;
                session.fetch_info().await?;
                session.read_table(table.as_deref()).await
            }
        })
        .await
    }

    /// Which epoch all switches are in, and what they have counted.
    ///
    /// Needs to be primary for a moment: only primaries may send packets.
    pub async fn states(
        &self,
        options: &SessionOptions,
        timing: DrainTiming,
        takes_over: bool,
    ) -> ForEachSwitch<SwitchState, ReadError> {
        let program = self.program.clone();
        self.for_each(options, move |switch, options| {
            let program = program.clone();
            async move {
                let mut session = primary(&switch, options, takes_over).await?;
                session.fetch_info().await?;
                let mut reader = PacketReader::new(program.config, timing);
                reader.state(&mut session).await
            }
        })
        .await
    }

    /// Starts an agent for every switch. They stop when the set is dropped.
    pub fn agents<S: FlowsetSink + 'static>(
        &self,
        options: &AgentOptions,
        mut sink: impl FnMut(&SwitchName) -> S,
        events: &mpsc::Sender<AgentEvent>,
    ) -> JoinSet<Result<(), AgentError>> {
        let mut agents = JoinSet::new();
        for switch in &self.switches {
            let spec = &switch.spec;
            let options = AgentOptions {
                session: session_options(spec, &options.session),
                ..options.clone()
            };
            let agent = SwitchAgent::new(
                spec.name.clone(),
                (*switch.target).clone(),
                self.program.config,
                self.program.pipeline.clone(),
                switch.entities.clone(),
                spec.epoch,
                options,
                sink(&spec.name),
                events.clone(),
            );
            agents.spawn(agent.run());
        }
        agents
    }

    async fn for_each<T, E, F>(
        &self,
        options: &SessionOptions,
        task: impl Fn(Arc<FleetSwitch>, SessionOptions) -> F,
    ) -> ForEachSwitch<T, E>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let mut tasks = Vec::with_capacity(self.switches.len());
        for switch in &self.switches {
            let options = session_options(&switch.spec, options);
            tasks.push(tokio::spawn(task(Arc::clone(switch), options)));
        }
        let mut outcomes = Vec::with_capacity(tasks.len());
        for (switch, task) in self.switches.iter().zip(tasks) {
            match task.await {
                Ok(outcome) => outcomes.push((switch.spec.name.clone(), outcome)),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        outcomes
    }
}

fn session_options(spec: &SwitchSpec, options: &SessionOptions) -> SessionOptions {
    SessionOptions {
        request_timeout: spec.request_timeout.unwrap_or(options.request_timeout),
        ..options.clone()
    }
}

async fn primary(
    switch: &FleetSwitch,
    options: SessionOptions,
    takes_over: bool,
) -> Result<Session, ClientError> {
    let options = SessionOptions {
        // The own election id may be that of whoever is primary now.
        joins_as_backup: takes_over,
        ..options
    };
    let mut session = Session::connect(Arc::clone(&switch.target), options).await?;
    let may_follow = matches!(
        session.standing(),
        Standing::Backup {
            has_primary: false,
            ..
        }
    );
    if may_follow || takes_over {
        session.take_over().await?;
    }
    session.check_primary()?;
    Ok(session)
}
