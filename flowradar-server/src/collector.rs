//! The collector: all stages of it, in one process.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flowradar_collector::analysis::{AnalysisOptions, Analyzer, Network, NetworkModel};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, Identity as TlsIdentity, Server, ServerTlsConfig};
use xxhash_rust::xxh3::xxh3_64;

use crate::config::{Config, ConfigError, TlsConfig};
use crate::epoch::{Arrived, DecodedEpoch, Feedback, Grouper, GroupingInput};
use crate::ingest::proto::collector_server::CollectorServer;
use crate::ingest::{DropFolder, Ingest, Switches};
use crate::journal::{Journal, OpenJournalError, Position, Record, Recovery};
use crate::live::Live;
use crate::metrics::Metrics;
use crate::notice::Notices;
use crate::stage::{self, QueueGiver, QueueTaker};
use crate::store::{FlowReader, FlowStore, ParquetStore, StoreError};
use crate::{api, classic, export, run, run_number, webhook};

/// Inputs waiting for grouping at most.
const INPUTS_MAX: usize = 256;
/// Decoded epochs waiting for one of the last stages at most, while that writes a file, for example.
const DECODED_MAX: usize = 256;
/// Flow records of these, unless a single epoch has more: some 110 bytes each.
const DECODED_RECORDS_MAX: u32 = 2 << 20;
/// Largest message of an agent: a chunk of a flowset.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// What the stages that can wait leave to others (`nice`).
#[cfg(target_os = "linux")]
const STAGE_NICENESS: i32 = 5;

/// How long stopping waits for whatever still has the journal in hand.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// A running collector.
///
/// Dropping it stops it like a crash would; [`Collector::stop`] first stores what is decoded.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// use flowradar_server::{Collector, Config};
/// let folder = tempfile::TempDir::new()?;
/// let collector = Collector::start(Config::ephemeral(folder.path())).await?;
/// println!("agents: {}, API: {}", collector.ingest_address(), collector.api_address());
/// collector.stop().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Collector {
    ingest_address: SocketAddr,
    api_address: SocketAddr,
    classic_addresses: classic::Addresses,
    recovery: Recovery,
    shared: Shared,
    reload: watch::Sender<Arc<Config>>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    store: Vec<JoinHandle<()>>,
    /// Stages that end when the stage before them has.
    _stages: Vec<JoinHandle<()>>,
}

/// What stages and API look at together. No stage needs it to do its work.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) notices: Notices,
    pub(crate) live: Arc<Live>,
    pub(crate) switches: Switches,
    pub(crate) reader: Arc<dyn FlowReader>,
    pub(crate) journal: Journal,
}

/// Why a collector does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file named in the configuration cannot be used.
    #[error("{name}: {}: {reason}", path.display())]
    File {
        /// Which setting names it.
        name: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The journal cannot be opened.
    #[error("the journal: {0}")]
    Journal(#[from] OpenJournalError),
    /// An address cannot be listened on.
    #[error("{name}: cannot listen on {address}: {source}")]
    Listen {
        /// Which setting names it.
        name: &'static str,
        /// The address.
        address: SocketAddr,
        /// The operating system's words.
        source: io::Error,
    },
    /// The store cannot be opened.
    #[error("the store: {0}")]
    Store(#[from] StoreError),
    /// A thread or the TLS configuration could not be made.
    #[error("{0}")]
    System(String),
}

impl Config {
    /// A configuration for a collector in a folder, on free ports of this machine.
    pub fn ephemeral(folder: impl Into<PathBuf>) -> Self {
        let mut config = Self {
            data_folder: folder.into(),
            ..Self::default()
        };
        config.ingest.listen.set_port(0);
        config.api.listen.set_port(0);
        config
    }
}

impl Collector {
    /// Starts a collector: opens store and journal, goes on with what the journal holds, and listens.
    ///
    /// # Errors
    /// If a file or address cannot be used. Nothing runs then.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        config.check()?;
        let listen = |name, address| async move {
            TcpListener::bind(address)
                .await
                .map_err(|source| StartError::Listen {
                    name,
                    address,
                    source,
                })
        };
        let analyzer = analyzer(&config)?;
        let tls = config.ingest.tls.as_ref().map(server_tls).transpose()?;
        let metrics = Arc::new(Metrics::default());
        let begin = Instant::now();
        let mut grouper = Grouper::new(config.grouper_options());
        let (store, journal, state, recovery, first_id) = {
            let config = config.clone();
            let opened = tokio::task::spawn_blocking(move || {
                let store = ParquetStore::open(config.store_folder())?;
                let mut replayed = Replayed::default();
                let (journal, state, recovery) = Journal::open(
                    &config.journal_folder(),
                    config.journal_options(),
                    |position, record| replayed.take(position, &record),
                )?;
                grouper.set_closed(state.closed());
                for arrived in replayed.reports.into_values() {
                    grouper.input(begin.elapsed(), GroupingInput::Arrived(arrived));
                }
                // Nobody else has the journal, and so the folder.
                let run = run_number::begin_run(&config.data_folder).map_err(|error| {
                    StartError::File {
                        name: "data_folder",
                        path: config.data_folder.join(run_number::FILE),
                        reason: error.to_string(),
                    }
                })?;
                let first_id = run.saturating_mul(run_number::IDS_OF_A_RUN);
                Ok::<_, StartError>((store, journal, state, recovery, first_id, grouper))
            });
            let opened = opened
                .await
                .map_err(|error| StartError::System(error.to_string()))??;
            grouper = opened.5;
            (opened.0, opened.1, opened.2, opened.3, opened.4)
        };
        let notices = Notices::after_id(first_id);
        // From the first one on: what recovery found is told, too.
        let told = config.webhook.is_some().then(|| notices.listen());
        if recovery.damaged_stretches > 0 {
            notices.warn(
                "journal_damaged",
                format!(
                    "the journal is damaged in {} places ({} bytes): reports there are lost",
                    recovery.damaged_stretches, recovery.damaged_bytes
                ),
            );
        }
        let ingest_listener = listen("ingest.listen", config.ingest.listen).await?;
        let api_listener = listen("api.listen", config.api.listen).await?;
        let local = |listener: &TcpListener| {
            listener
                .local_addr()
                .map_err(|error| StartError::System(error.to_string()))
        };
        let (ingest_address, api_address) = (local(&ingest_listener)?, local(&api_listener)?);
        let sockets = classic::bind(&config.classic).map_err(|(name, address, source)| {
            StartError::Listen {
                name,
                address,
                source,
            }
        })?;
        let classic_addresses = sockets.addresses();

        let switches = Switches::new(&state, config.ingest.switches_max);
        let shared = Shared {
            metrics: Arc::clone(&metrics),
            notices: notices.clone(),
            live: Arc::new(Live::default()),
            switches: switches.clone(),
            reader: store.reader(),
            journal: journal.clone(),
        };
        let (inputs, inputs_taker) = stage::queue(INPUTS_MAX);
        let decodes = config.grouper_options().decodes_max;
        let (requests, requests_taker) = stage::queue(decodes + 1);
        let (feedback, feedback_taker) = stage::queue::<Feedback>(INPUTS_MAX);
        let (to_store, store_taker) = decoded_queue();
        let (to_analysis, analysis_taker) = decoded_queue();
        let (to_export, export_taker) = decoded_queue();
        let (to_classic, classic_taker) = stage::queue(INPUTS_MAX);
        let ingest = Ingest::new(
            journal.clone(),
            switches,
            config.identities(),
            inputs.clone(),
            config.ingest_options(),
            metrics,
            notices,
        );
        let queues = vec![
            ("grouping", inputs.depth()),
            ("decode", requests.depth()),
            ("store", to_store.depth()),
            ("analysis", to_analysis.depth()),
            ("export", to_export.depth()),
            ("classic", to_classic.depth()),
        ];
        let outputs = run::Outputs {
            store: to_store,
            analysis: config.analysis.enabled.then_some(to_analysis),
            export: config.export.is_some().then_some(to_export),
        };
        let (stop, stopped) = watch::channel(false);
        let config = Arc::new(config);
        let (reload, reloads) = watch::channel(Arc::clone(&config));

        let mut tasks = JoinSet::new();
        let grouping = run::Grouping {
            grouper,
            begin,
            inputs: inputs_taker,
            feedback: feedback_taker,
            requests,
            journal,
            shared: shared.clone(),
            reloads: reloads.clone(),
        };
        tasks.spawn(grouping.run());
        tasks.spawn(run::decode(
            requests_taker,
            decodes,
            shared.clone(),
            feedback.clone(),
            outputs,
        ));
        let maintaining = run::Maintaining {
            maintainer: store.maintainer(),
            shared: shared.clone(),
            config: reloads.clone(),
            stopped: stopped.clone(),
        };
        let storing = run::Storing {
            store: Box::new(store),
            epochs: store_taker,
            classic: classic_taker,
            feedback,
            shared: shared.clone(),
            config: reloads.clone(),
            stopped,
        };
        let store = vec![
            on_own_thread("store", storing.run())?,
            on_own_thread("maintain", maintaining.run())?,
        ];
        let mut stages = vec![];
        if let Some(analyzer) = analyzer {
            let analysing = run::analyse(
                analyzer,
                analysis_taker,
                shared.clone(),
                run::EventNumbers::from(first_id),
            );
            stages.push(on_own_thread("analysis", analysing)?);
        }
        if let Some(export) = &config.export {
            tasks.spawn(export::run(export.clone(), export_taker, shared.clone()));
        }
        if let Some(told) = told {
            tasks.spawn(webhook::run(reloads.clone(), told, shared.clone()));
        }
        tasks.spawn(serve_ingest(
            ingest.clone(),
            ingest_listener,
            tls,
            config.ingest.connections_max,
        ));
        tasks.spawn(api::serve(
            api_listener,
            shared.clone(),
            reloads.clone(),
            begin,
        ));
        if let Some(drop_folder) = &config.drop_folder {
            let folder = DropFolder::new(&drop_folder.path, config.ingest.flowset_bytes_max)
                .map_err(|error| StartError::File {
                    name: "drop_folder.path",
                    path: drop_folder.path.clone(),
                    reason: error.to_string(),
                })?;
            let poll = Duration::from_millis(drop_folder.poll_ms.max(10));
            tasks.spawn(run::watch_folder(folder, poll, state, ingest.clone()));
        }
        for listener in sockets.into_listeners() {
            tasks.spawn(classic::listen(
                listener,
                to_classic.clone(),
                shared.clone(),
            ));
        }
        tasks.spawn(run::reload_ingest(reloads, ingest));
        tasks.spawn(run::gauge(queues, shared.clone()));
        Ok(Self {
            ingest_address,
            api_address,
            classic_addresses,
            recovery,
            shared,
            reload,
            stop,
            tasks,
            store,
            _stages: stages,
        })
    }

    /// Where agents connect.
    pub fn ingest_address(&self) -> SocketAddr {
        self.ingest_address
    }

    /// Where the API is.
    pub fn api_address(&self) -> SocketAddr {
        self.api_address
    }

    /// Where classic exporters send to.
    pub fn classic_addresses(&self) -> classic::Addresses {
        self.classic_addresses
    }

    /// What was found in the journal.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// What the collector has to say.
    pub fn notices(&self) -> &Notices {
        &self.shared.notices
    }

    /// The last epochs, and what analyses found in them.
    pub fn live(&self) -> &Live {
        &self.shared.live
    }

    /// All metrics in Prometheus' text format.
    pub fn metrics(&self) -> String {
        self.shared.metrics.text()
    }

    /// The stored flow records.
    pub fn reader(&self) -> Arc<dyn FlowReader> {
        Arc::clone(&self.shared.reader)
    }

    /// Takes another configuration while running: identities, limits of epochs and store, webhook and
    /// API token. What differs otherwise needs a restart, and is told.
    ///
    /// # Errors
    /// If the configuration cannot be used; nothing changes then.
    pub fn reload(&self, config: Config) -> Result<Vec<&'static str>, ConfigError> {
        config.check()?;
        let old = self.reload.borrow().clone();
        let fixed = [
            ("data_folder", old.data_folder != config.data_folder),
            ("ingest.listen", old.ingest.listen != config.ingest.listen),
            ("ingest.tls", old.ingest.tls != config.ingest.tls),
            ("drop_folder", old.drop_folder != config.drop_folder),
            ("journal", old.journal != config.journal),
            ("api.listen", old.api.listen != config.api.listen),
            ("classic", old.classic != config.classic),
            ("analysis", old.analysis != config.analysis),
            ("export", old.export != config.export),
        ];
        self.reload.send_replace(Arc::new(config));
        let waiting = fixed.into_iter().filter(|(_, differs)| *differs);
        Ok(waiting.map(|(name, _)| name).collect())
    }

    /// Stores what is decoded, and stops. What is not decoded yet is in the journal, which another
    /// collector may open then: only connections that clients keep open can delay that.
    pub async fn stop(mut self) {
        _ = self.stop.send(true);
        for ended in std::mem::take(&mut self.store) {
            _ = ended.await;
        }
        self.tasks.shutdown().await;
        let journal = self.shared.journal.clone();
        drop(self);
        // A decode that has begun runs to its end, and reads from the journal.
        journal.closed(STOP_PATIENCE).await;
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// The reports of a journal whose epochs are not over, in their order.
#[derive(Debug, Default)]
struct Replayed {
    reports: BTreeMap<(u64, u64), Arrived>,
}

impl Replayed {
    fn take(&mut self, position: Position, record: &Record<'_>) {
        match record {
            Record::Report(report) => {
                let arrived = Arrived {
                    position,
                    switch: report.switch.to_string(),
                    epoch: report.epoch.number,
                    start_ns: report.epoch.start_ns,
                    length_ns: report.epoch.length_ns,
                    key: report.key as u8,
                    digest: xxh3_64(report.flowset),
                    received_ns: report.received_ns,
                    replayed: true,
                };
                self.reports
                    .insert((position.segment, position.offset), arrived);
            }
            Record::Closed(closed) => {
                for place in &closed.reports {
                    self.reports.remove(place);
                }
            }
            Record::State(_) | Record::NotTaken { .. } | Record::Registered { .. } => {}
        }
    }
}

async fn serve_ingest(
    ingest: Ingest,
    listener: TcpListener,
    tls: Option<ServerTlsConfig>,
    connections_max: usize,
) {
    let notices = ingest.notices().clone();
    let mut server = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .tcp_nodelay(true)
        .max_concurrent_streams(Some(u32::try_from(connections_max).unwrap_or(u32::MAX)));
    if let Some(tls) = tls {
        match server.tls_config(tls) {
            Ok(with_tls) => server = with_tls,
            Err(error) => {
                notices.warn("ingest_failed", format!("TLS: {error}"));
                return;
            }
        }
    }
    let service = CollectorServer::new(ingest).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let incoming = crate::ingest::limited(TcpListenerStream::new(listener), connections_max);
    if let Err(error) = server
        .add_service(service)
        .serve_with_incoming(incoming)
        .await
    {
        notices.warn("ingest_failed", error.to_string());
    }
}

fn server_tls(tls: &TlsConfig) -> Result<ServerTlsConfig, StartError> {
    let read = |name, path: &PathBuf| {
        std::fs::read(path).map_err(|error| StartError::File {
            name,
            path: path.clone(),
            reason: error.to_string(),
        })
    };
    let identity = TlsIdentity::from_pem(
        read("ingest.tls.certificate", &tls.certificate)?,
        read("ingest.tls.key", &tls.key)?,
    );
    let mut config = ServerTlsConfig::new().identity(identity);
    if let Some(client_ca) = &tls.client_ca {
        let authority = Certificate::from_pem(read("ingest.tls.client_ca", client_ca)?);
        config = config.client_ca_root(authority);
    }
    // Certificate and key are looked at only when a server is made of them.
    Server::builder()
        .tls_config(config.clone())
        .map_err(|error| StartError::File {
            name: "ingest.tls",
            path: tls.certificate.clone(),
            reason: format!("{error}: certificate and key must be PEM and belong together"),
        })?;
    Ok(config)
}

fn analyzer(config: &Config) -> Result<Option<Analyzer>, StartError> {
    if !config.analysis.enabled {
        return Ok(None);
    }
    let mut options = AnalysisOptions::default();
    if let Some(epochs) = config.analysis.in_flight_epochs {
        options.loss.in_flight_epochs = epochs;
    }
    let model = match &config.analysis.network {
        None => None,
        Some(path) => {
            let failed = |reason: String| StartError::File {
                name: "analysis.network",
                path: path.clone(),
                reason,
            };
            let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
            let network = Network::parse(&text).map_err(|error| failed(error.to_string()))?;
            let model =
                NetworkModel::shortest_paths(network).map_err(|error| failed(error.to_string()))?;
            Some(model)
        }
    };
    Ok(Some(Analyzer::new(options, model)))
}

/// A queue for decoded epochs, which may be large.
fn decoded_queue() -> (QueueGiver<Arc<DecodedEpoch>>, QueueTaker<Arc<DecodedEpoch>>) {
    stage::weighted_queue(DECODED_MAX, DECODED_RECORDS_MAX, |epoch| {
        epoch.flow_records()
    })
}

/// Runs a stage that computes or blocks on a thread of its own.
///
/// These stages have queues before them and can wait: where processors are short, an epoch that has just ended
/// is decoded first.
fn on_own_thread(
    name: &str,
    stage: impl Future<Output = ()> + Send + 'static,
) -> Result<JoinHandle<()>, StartError> {
    let runtime = tokio::runtime::Handle::current();
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    std::thread::Builder::new()
        .name(name.into())
        .spawn(move || {
            // On Linux this is the thread's own. Only less is asked for, which is always granted.
            #[cfg(target_os = "linux")]
            let _ = rustix::process::nice(STAGE_NICENESS);
            runtime.block_on(stage);
            drop(ended);
        })
        .map_err(|error| StartError::System(format!("cannot start a thread: {error}")))?;
    Ok(tokio::spawn(async move {
        _ = end.await;
    }))
}

// Named here so that the queues' types read well above.
pub(crate) type ToClassic = QueueGiver<Vec<crate::classic::ClassicRecord>>;
