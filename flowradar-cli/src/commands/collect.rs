//! `collect`: the collector as a service.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use flowradar_server::{Collector, Config};
use serde::Serialize;

use crate::outcome::{CommandError, Completeness};
use crate::output;
use crate::text::note;

/// Collect flowsets from agents, decode them network-wide, store and serve the flows
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without a configuration it listens on this machine only: for agents on 127.0.0.1:4741, and with its
API on 127.0.0.1:4780. Every setting has a default; docs/collector.md lists them.

Examples:
  flowradar collect --data-folder flows         collect into the folder flows
  flowradar agent directory net                 ship the flowsets in the folder net to it
  flowradar top                                 watch it
  flowradar query --data-folder flows \"select switch, sum(packets) from flows group by switch\"
  flowradar collect --config collector.toml --check-config

What was acknowledged is in the journal, and survives the process and the machine. SIGHUP reads the
configuration again; SIGINT and SIGTERM store what is decoded, and end.")]
pub(crate) struct CollectArgs {
    /// Configuration: a TOML file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Folder for journal and store [default: the configuration's, or flowradar-data]
    #[arg(long, value_name = "DIR")]
    data_folder: Option<PathBuf>,

    /// Check the configuration, and the files it names, and end
    #[arg(long)]
    check_config: bool,

    /// Print the addresses listened on as one line of JSON to standard output
    #[arg(long)]
    json: bool,
}

/// Where a collector listens.
#[derive(Debug, Serialize)]
struct Listening {
    ingest: String,
    api: String,
    netflow: Option<String>,
    sflow: Option<String>,
}

/// Runs the command.
pub(crate) fn run(args: &CollectArgs) -> Result<Completeness, CommandError> {
    let config = read_config(args)?;
    if args.check_config {
        note!("the configuration is good");
        return Ok(Completeness::Complete);
    }
    start_log();
    runtime()?.block_on(serve(args, config))
}

/// Reads the configuration that the arguments name.
fn read_config(args: &CollectArgs) -> Result<Config, CommandError> {
    let mut config = match &args.config {
        Some(path) => Config::read(path)
            .map_err(|error| CommandError::Failed(format!("{}: {error}", path.display())))?,
        None => Config::default(),
    };
    if let Some(folder) = &args.data_folder {
        config.data_folder.clone_from(folder);
    }
    Ok(config)
}

async fn serve(args: &CollectArgs, config: Config) -> Result<Completeness, CommandError> {
    let folder = config.data_folder.clone();
    let collector = Collector::start(config)
        .await
        .map_err(|error| CommandError::Failed(error.to_string()))?;
    tell_start(args, &collector, &folder)?;
    let mut signals = Signals::new()?;
    while let Signal::Reload = signals.next().await {
        reload(args, &collector);
    }
    note!("stopping: what is decoded is stored");
    collector.stop().await;
    Ok(Completeness::Complete)
}

fn tell_start(
    args: &CollectArgs,
    collector: &Collector,
    folder: &Path,
) -> Result<(), CommandError> {
    let recovery = collector.recovery();
    if recovery.records > 0 {
        note!(
            "the journal holds {} records of an earlier run; {} bytes of a write that was interrupted were cut off",
            recovery.records,
            recovery.torn_bytes
        );
    }
    let classic = collector.classic_addresses();
    let listening = Listening {
        ingest: collector.ingest_address().to_string(),
        api: collector.api_address().to_string(),
        netflow: classic.netflow.map(|address| address.to_string()),
        sflow: classic.sflow.map(|address| address.to_string()),
    };
    note!(
        "collecting into {}: agents at {}, API at http://{}/api/v1/status",
        folder.display(),
        listening.ingest,
        listening.api
    );
    if args.json {
        let line = serde_json::to_string(&listening)
            .map_err(|error| CommandError::Failed(error.to_string()))?;
        output::print_text(&format!("{line}\n"))?;
    }
    Ok(())
}

fn reload(args: &CollectArgs, collector: &Collector) {
    let outcome = read_config(args).map_err(|error| error.to_string());
    match outcome.and_then(|config| collector.reload(config).map_err(|error| error.to_string())) {
        Ok(waiting) if waiting.is_empty() => note!("the configuration was read again"),
        Ok(waiting) => note!(
            "the configuration was read again; changes of {} need a restart",
            waiting.join(", ")
        ),
        Err(error) => note!("the configuration is as before: {error}"),
    }
}

/// A log on standard error, with colours on a terminal.
pub(crate) fn start_log() {
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_max_level(tracing::Level::INFO);
    // One that exists already, as in tests, stays.
    _ = log.try_init();
}

/// Threads for what waits.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, CommandError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    runtime.map_err(|error| CommandError::Failed(format!("cannot start threads: {error}")))
}

enum Signal {
    Reload,
    Stop,
}

#[cfg(unix)]
struct Signals {
    hangup: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> Result<Self, CommandError> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| {
            signal(kind).map_err(|error| {
                CommandError::Failed(format!("cannot listen for signals: {error}"))
            })
        };
        Ok(Self {
            hangup: listen(SignalKind::hangup())?,
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.terminate.recv() => Signal::Stop,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> Result<Self, CommandError> {
        Ok(Self)
    }

    async fn next(&mut self) -> Signal {
        _ = tokio::signal::ctrl_c().await;
        Signal::Stop
    }
}
