//! `agent`: ships flowsets to a collector.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use clap::Subcommand;
use flowradar_core::Flowset;
use flowradar_core::flowset::SwitchName;
use flowradar_core::hash::Xxh3;
use flowradar_core::plan::PlanRequest;
use flowradar_server::agent::{
    AdoptError, AgentOptions, AgentProgress, PutError, Spool, SpoolOptions, SpoolSync, ship,
};
use flowradar_server::ingest::Secret;
use flowradar_server::journal::Link;
use flowradar_sim::encode::Encoders;
use flowradar_sim::{Faults, Simulation, Topology};
use serde::Serialize;
use tokio::task::JoinSet;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::commands::collect::runtime;
use crate::flowset_files;
use crate::outcome::{CommandError, Completeness};
use crate::output;
use crate::text::{counted, grouped, note};
use crate::units;

/// How often a folder is looked at.
const POLL: Duration = Duration::from_millis(200);
/// How long a full spool is waited for before it is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// Ship flowsets to a collector: from a folder, or from a simulated network in real time
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Flowsets wait in a spool on disk until the collector has them durably. The collector may be away or
restart at any time: none is lost, and none is taken twice. For flowsets of P4 switches see
\"flowradar p4 agent\".

Examples:
  flowradar simulate fat-tree --k 4 --flows-per-switch 1000 --epochs 10 --out net
  flowradar agent directory net
  flowradar agent fat-tree --k 4 --flows-per-switch 500 --epochs 20 --epoch 500ms

The exit code is 0 if all was shipped, 3 if the collector rejected flowsets.")]
pub(crate) struct AgentArgs {
    #[command(subcommand)]
    source: Source,
}

#[derive(Debug, Subcommand)]
enum Source {
    /// Ship the flowsets in a folder; what the collector has goes to the folder "shipped" in it
    Directory(DirectoryArgs),
    /// Simulate a k-ary fat tree and ship its switches' flowsets as epochs end
    FatTree(FatTreeArgs),
}

#[derive(Debug, clap::Args)]
struct DirectoryArgs {
    /// Folder with flowsets (files whose name ends with .flowset)
    folder: PathBuf,

    /// Go on, and ship flowsets that come into the folder
    #[arg(long)]
    watch: bool,

    /// Ship an epoch every so often [default: as fast as the collector takes them]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    interval: Option<Duration>,

    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Debug, clap::Args)]
struct FatTreeArgs {
    /// Ports of a switch
    #[arg(long, default_value_t = 4)]
    k: u32,

    /// Flows at each switch in each epoch; the tables are made for as many
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    flows_per_switch: u32,

    /// Epochs
    #[arg(long, value_name = "N", default_value_t = 60)]
    epochs: u64,

    /// Length of an epoch
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "1s")]
    epoch: Duration,

    /// Fraction of packets lost on every link between switches
    #[arg(long, value_name = "FRACTION", value_parser = units::parse_fraction, default_value = "0")]
    loss: f64,

    /// Seed of everything random
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,

    /// Folder for the spools [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,

    #[command(flatten)]
    connection: ConnectionArgs,
}

/// How to reach the collector.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Collector")]
struct ConnectionArgs {
    /// The collector
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4741")]
    to: String,

    #[command(flatten)]
    proof: ProofArgs,

    /// Bytes that wait for the collector at most, for each switch
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, default_value = "1GiB")]
    spool_size: u64,

    /// Print the summary as JSON to standard output
    #[arg(long)]
    json: bool,
}

/// How agent and collector prove who they are.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Collector")]
pub(crate) struct ProofArgs {
    /// Certificates that the collector's is signed by, PEM; for https
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// This agent's certificate, PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,

    /// Its key, PEM
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,

    /// Folder with a token for each switch, in a file of its name
    #[arg(long, value_name = "DIR")]
    tokens: Option<PathBuf>,

    /// File with the token, where all switches have the same
    #[arg(long, value_name = "FILE", conflicts_with = "tokens")]
    token_file: Option<PathBuf>,
}

/// What was shipped.
#[derive(Debug, Serialize)]
struct Summary {
    switches: usize,
    flowsets: u64,
    bytes: u64,
    rejected: u64,
    /// How often a connection had to be made again.
    reconnects: u64,
    seconds: f64,
}

/// Runs the command.
pub(crate) fn run(args: &AgentArgs) -> Result<Completeness, CommandError> {
    let runtime = runtime()?;
    match &args.source {
        Source::Directory(args) => runtime.block_on(directory(args)),
        Source::FatTree(args) => runtime.block_on(fat_tree(args)),
    }
}

/// Ships the spools of any number of switches.
struct Shipper<'a> {
    args: &'a ConnectionArgs,
    channel: Channel,
    spools: BTreeMap<SwitchName, Spool>,
    tasks: JoinSet<Result<(), String>>,
    counts: Arc<Counts>,
    begin: Instant,
}

#[derive(Debug, Default)]
struct Counts {
    flowsets: AtomicU64,
    bytes: AtomicU64,
    rejected: AtomicU64,
    reconnects: AtomicU64,
    /// The last failure told, so that it is told once.
    told: Mutex<String>,
}

impl<'a> Shipper<'a> {
    fn new(args: &'a ConnectionArgs) -> Result<Self, CommandError> {
        Ok(Self {
            args,
            channel: args.proof.channel(&args.to)?,
            spools: BTreeMap::new(),
            tasks: JoinSet::new(),
            counts: Arc::default(),
            begin: Instant::now(),
        })
    }

    /// Opens a switch's spool and begins to ship it.
    fn open(
        &mut self,
        switch: &SwitchName,
        folder: &Path,
        sync: SpoolSync,
        shipped: Option<PathBuf>,
        links: Vec<Link>,
    ) -> Result<&Spool, CommandError> {
        let folder = folder.join(switch.as_str());
        let options = SpoolOptions {
            bytes_max: self.args.spool_size,
            sync,
        };
        let spool = Spool::open(&folder, options, shipped)
            .map_err(CommandError::file("open the spool", &folder))?;
        let options = AgentOptions {
            switch: switch.clone(),
            token: self.args.proof.token(switch)?,
            description: format!("flowradar agent {}", env!("CARGO_PKG_VERSION")),
            links,
            retry: Duration::from_millis(100),
        };
        let counts = Arc::clone(&self.counts);
        let name = switch.clone();
        let shipping = ship(self.channel.clone(), options, spool.clone(), move |event| {
            counts.note(&name, &event);
        });
        let name = switch.clone();
        self.tasks.spawn(async move {
            shipping
                .await
                .map_err(|error| format!("switch {name}: {error}"))
        });
        Ok(self.spools.entry(switch.clone()).or_insert(spool))
    }

    /// Waits for something, unless shipping fails for good.
    async fn or_failure<T>(&mut self, wait: impl Future<Output = T>) -> Result<T, CommandError> {
        let failure = async {
            loop {
                match self.tasks.join_next().await {
                    Some(Ok(Err(error))) => return CommandError::Failed(error),
                    Some(Err(error)) => return CommandError::Failed(error.to_string()),
                    Some(Ok(Ok(()))) => {}
                    None => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            done = wait => Ok(done),
            error = failure => Err(error),
        }
    }

    /// Waits until all is shipped.
    async fn finish(mut self) -> Result<Completeness, CommandError> {
        let spools: Vec<Spool> = self.spools.values().cloned().collect();
        self.or_failure(async {
            for spool in &spools {
                spool.emptied().await;
            }
        })
        .await?;
        self.tasks.shutdown().await;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let summary = Summary {
            switches: self.spools.len(),
            flowsets: count(&self.counts.flowsets),
            bytes: count(&self.counts.bytes),
            rejected: count(&self.counts.rejected),
            reconnects: count(&self.counts.reconnects),
            seconds: self.begin.elapsed().as_secs_f64(),
        };
        if self.args.json {
            output::print_json(&summary)?;
        } else {
            note!(
                "{} of {} shipped to {} in {:.1} s; {} rejected, {}",
                counted(summary.flowsets, "flowset"),
                counted(summary.switches as u64, "switch").replace("switchs", "switches"),
                self.args.to,
                summary.seconds,
                grouped(summary.rejected),
                counted(summary.reconnects, "reconnect"),
            );
        }
        Ok(Completeness::of(summary.rejected == 0))
    }
}

impl Counts {
    fn note(&self, switch: &SwitchName, event: &AgentProgress) {
        match event {
            AgentProgress::Registered { .. } | AgentProgress::Acknowledged { .. } => {}
            AgentProgress::Rejected { sequence, reason } => {
                self.rejected.fetch_add(1, Ordering::Relaxed);
                note!("switch {switch}: the collector rejects flowset {sequence}: {reason}");
            }
            AgentProgress::Failed { error, .. } => {
                self.reconnects.fetch_add(1, Ordering::Relaxed);
                let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                if *told != *error {
                    note!("{error}; it is tried again until the collector is there");
                    told.clone_from(error);
                }
            }
        }
    }

    fn put(&self, bytes: u64) {
        self.flowsets.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

async fn directory(args: &DirectoryArgs) -> Result<Completeness, CommandError> {
    let mut shipper = Shipper::new(&args.connection)?;
    let spools = args.folder.join("spool");
    let shipped = args.folder.join("shipped");
    // What an earlier agent left in its spools goes first.
    if let Ok(entries) = fs::read_dir(&spools) {
        for entry in entries.flatten() {
            let name = entry.file_name();
            if let Some(Ok(switch)) = name.to_str().map(str::parse::<SwitchName>) {
                shipper.open(
                    &switch,
                    &spools,
                    SpoolSync::EachFlowset,
                    Some(shipped.clone()),
                    vec![],
                )?;
            }
        }
    }
    let mut bad: BTreeMap<PathBuf, String> = BTreeMap::new();
    loop {
        let mut epochs: BTreeMap<u64, Vec<(SwitchName, PathBuf)>> = BTreeMap::new();
        for path in flowset_paths(&args.folder)? {
            if bad.contains_key(&path) {
                continue;
            }
            match header_of(&path) {
                Ok((epoch, switch)) => epochs.entry(epoch).or_default().push((switch, path)),
                Err(error) => {
                    note!("{}: {error}", path.display());
                    bad.insert(path, error);
                }
            }
        }
        let idle = epochs.is_empty();
        for switch in epochs.values().flatten().map(|(switch, _)| switch) {
            if !shipper.spools.contains_key(switch) {
                let shipped = Some(shipped.clone());
                shipper.open(switch, &spools, SpoolSync::EachFlowset, shipped, vec![])?;
            }
        }
        for files in epochs.into_values() {
            for (switch, path) in files {
                adopt(&mut shipper, &switch, &path).await?;
            }
            if let Some(interval) = args.interval {
                shipper.or_failure(tokio::time::sleep(interval)).await?;
            }
        }
        if !args.watch {
            break;
        }
        if idle {
            shipper.or_failure(tokio::time::sleep(POLL)).await?;
        }
    }
    if shipper.spools.is_empty() {
        return Err(CommandError::Failed(format!(
            "{} holds no flowsets",
            args.folder.display()
        )));
    }
    let completeness = shipper.finish().await?;
    Ok(if bad.is_empty() {
        completeness
    } else {
        Completeness::Partial
    })
}

/// Moves a file into its switch's spool, when there is room.
async fn adopt(
    shipper: &mut Shipper<'_>,
    switch: &SwitchName,
    path: &Path,
) -> Result<(), CommandError> {
    let bytes = fs::metadata(path)
        .map_err(CommandError::file("read", path))?
        .len();
    loop {
        let spool = shipper.spools.get(switch).cloned().ok_or_else(|| {
            CommandError::Failed(format!("no spool was opened for switch {switch}"))
        })?;
        match spool.adopt(path) {
            Ok(_) => {
                shipper.counts.put(bytes);
                return Ok(());
            }
            Err(AdoptError::Full) => {
                shipper.or_failure(tokio::time::sleep(FULL_PAUSE)).await?;
            }
            Err(error @ AdoptError::Move { .. }) => {
                return Err(CommandError::Failed(error.to_string()));
            }
        }
    }
}

async fn fat_tree(args: &FatTreeArgs) -> Result<Completeness, CommandError> {
    let topology = Topology::fat_tree(args.k)
        .map_err(|error| CommandError::Usage(format!("--k {}: {error}", args.k)))?;
    let temporary;
    let folder = match &args.spool {
        Some(folder) => folder,
        None => {
            temporary =
                std::env::temp_dir().join(format!("flowradar-agent-{}", std::process::id()));
            &temporary
        }
    };
    let simulation = Simulation::builder(topology)
        .flows_per_switch(args.flows_per_switch)
        .epochs(args.epochs)
        .faults(Faults {
            link_loss: args.loss,
            ..Faults::default()
        })
        .seed(args.seed)
        .build()
        .map_err(|error| CommandError::Usage(error.to_string()))?;
    let layout = PlanRequest::flows(args.flows_per_switch.into())
        .failure_probability(1e-4)
        .seed(args.seed)
        .plan()
        .map_err(|error| CommandError::Usage(error.to_string()))?
        .layout;
    let mut shipper = Shipper::new(&args.connection)?;
    let topology = simulation.topology();
    for switch in topology.switches() {
        shipper.open(switch, folder, SpoolSync::Never, None, vec![])?;
    }
    let start_ns = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64);
    let begin = Instant::now();
    let encoders = Encoders::<Xxh3>::new(&simulation, &layout)
        .with_times(start_ns, args.epoch.as_nanos() as u64);
    let mut behind = 0u64;
    for (epoch, reports) in encoders {
        // An epoch is shipped when it has ended.
        let end = begin + args.epoch * u32::try_from(epoch + 1).unwrap_or(u32::MAX);
        let wait = end.saturating_duration_since(Instant::now());
        behind += u64::from(wait.is_zero());
        shipper.or_failure(tokio::time::sleep(wait)).await?;
        for report in reports {
            let switch = &topology.switches()[report.switch.index()];
            put(&mut shipper, switch, &report.flowset).await?;
        }
    }
    if behind > 0 {
        note!(
            "{} ended before they were simulated: use longer epochs, or fewer flows",
            counted(behind, "epoch")
        );
    }
    let outcome = shipper.finish().await;
    if args.spool.is_none() {
        // All is shipped, or it can be simulated again.
        _ = fs::remove_dir_all(folder);
    }
    outcome
}

/// Puts a flowset into its switch's spool, when there is room.
async fn put(
    shipper: &mut Shipper<'_>,
    switch: &SwitchName,
    flowset: &[u8],
) -> Result<(), CommandError> {
    let Some(spool) = shipper.spools.get(switch).cloned() else {
        return Ok(());
    };
    loop {
        match spool.put(flowset) {
            Ok(_) => {
                shipper.counts.put(flowset.len() as u64);
                return Ok(());
            }
            Err(PutError::Full { .. }) => {
                shipper.or_failure(tokio::time::sleep(FULL_PAUSE)).await?;
            }
            Err(error @ PutError::Write(_)) => return Err(CommandError::Failed(error.to_string())),
        }
    }
}

fn flowset_paths(folder: &Path) -> Result<Vec<PathBuf>, CommandError> {
    let mut paths = vec![];
    for entry in fs::read_dir(folder).map_err(CommandError::file("read", folder))? {
        let path = entry.map_err(CommandError::file("read", folder))?.path();
        if flowset_files::has_flowset_name(&path) && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

fn header_of(path: &Path) -> Result<(u64, SwitchName), String> {
    let flowset: Flowset<Vec<u8>> = flowset_files::read(path).map_err(|error| error.to_string())?;
    let header = flowset.header();
    Ok((header.epoch.number, header.switch.clone()))
}

impl ProofArgs {
    /// A channel to a collector, connected when it is used.
    pub(crate) fn channel(&self, to: &str) -> Result<Channel, CommandError> {
        let usage = |error: tonic::transport::Error| CommandError::Usage(format!("{to}: {error}"));
        let mut endpoint = Endpoint::from_shared(to.to_owned())
            .map_err(usage)?
            .connect_timeout(Duration::from_secs(10))
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        if to.starts_with("https:") {
            let read = |path: &PathBuf| fs::read(path).map_err(CommandError::file("read", path));
            let ca = self.ca.as_ref().ok_or_else(|| {
                CommandError::Usage(
                    "https wants --ca: the certificates that sign the collector's".into(),
                )
            })?;
            let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?));
            if let (Some(certificate), Some(key)) = (&self.certificate, &self.key) {
                tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
            }
            endpoint = endpoint.tls_config(tls).map_err(usage)?;
        }
        Ok(endpoint.connect_lazy())
    }

    /// The token of a switch, if there is one.
    pub(crate) fn token(&self, switch: &SwitchName) -> Result<Option<Secret>, CommandError> {
        let of_switch = self
            .tokens
            .as_ref()
            .map(|folder| folder.join(switch.as_str()));
        let Some(path) = of_switch.or_else(|| self.token_file.clone()) else {
            return Ok(None);
        };
        let text = fs::read_to_string(&path).map_err(CommandError::file("read", &path))?;
        Ok(Some(Secret::new(text.trim())))
    }
}
