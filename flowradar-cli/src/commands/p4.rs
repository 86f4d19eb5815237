//! `p4`: FlowRadar on P4 switches.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::ValueEnum;
use flowradar_core::KeyKind;
use flowradar_core::flowset::SwitchName;
use flowradar_core::hash::HashFamilyId;
use flowradar_core::plan::{CouplingChoice, PlanRequest};
use flowradar_p4::agent::{
    AgentEvent, AgentEventKind, AgentOptions, DirectorySink, FlowsetSink, ReaderKind, TcpSink,
};
use flowradar_p4::client::{PipelineOutcome, SessionOptions};
use flowradar_p4::config::ProgramConfig;
use flowradar_p4::drain::{Bank, DrainTiming, SwitchState};
use flowradar_p4::epoch::EpochClock;
use flowradar_p4::fleet::{Fleet, ForEachSwitch};
use flowradar_p4::topology::{EPOCH_LENGTH, SwitchSpec, Topology};
use flowradar_server::agent::{AgentProgress, SpoolOptions, SpoolSink, ship};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::commands::agent::ProofArgs;
use crate::layout_options::{self, FilterArgument};
use crate::outcome::{CommandError, Completeness};
use crate::output;
use crate::text::{counted, grouped, note, short_size};
use crate::units;

/// Events that wait to be printed; more let agents wait.
const EVENTS_MAX: usize = 1024;
/// Shortest time until a collector that is away is tried again.
const SHIPPING_RETRY: Duration = Duration::from_millis(250);
/// Widths of the counters in a switch's cells.
const FLOW_COUNT_BITS: u8 = 8;
const PACKET_COUNT_BITS: u8 = 32;
const BYTE_COUNT_BITS: u8 = 48;

/// FlowRadar on P4 switches, through P4Runtime: load, route, read
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Switches are named one by one, or by a topology file (docs/p4.md).

Examples:
  flowradar p4 deploy --switch s1=127.0.0.1:9559    load the reference program
  flowradar p4 read --switch s1=127.0.0.1:9559 --out flowsets
                                                    end an epoch and read it
  flowradar p4 agent --topology net.toml --out flowsets
                                                    do so every epoch, on all switches
  flowradar p4 agent --topology net.toml --collector http://127.0.0.1:4741
                                                    the same, shipped to a collector
  flowradar decode flowsets                         the flows")]
pub(crate) struct P4Args {
    #[command(subcommand)]
    command: P4Command,
}

#[derive(Debug, clap::Subcommand)]
enum P4Command {
    Agent(Box<AgentArgs>),
    Config(ConfigArgs),
    Deploy(DeployArgs),
    Epoch(EpochArgs),
    Read(ReadArgs),
    Tables(TablesArgs),
    Watch(WatchArgs),
}

/// Which switches
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Switches")]
struct SwitchesArgs {
    /// File that names switches, their program and their tables
    #[arg(long, value_name = "FILE", required_unless_present = "switch")]
    topology: Option<PathBuf>,

    /// A switch that runs the reference program; may be given more than once
    #[arg(long, value_name = "NAME=HOST:PORT", conflicts_with = "topology")]
    switch: Vec<String>,

    /// Length of epochs, aligned to the time of day [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, conflicts_with = "topology")]
    epoch: Option<Duration>,

    /// The controller with the highest one is primary
    #[arg(long, value_name = "ID", default_value_t = 1)]
    election_id: u128,

    /// Become primary in the place of whoever is
    #[arg(long)]
    take_over: bool,

    /// How long a switch may take to answer
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, default_value = "10s")]
    timeout: Duration,
}

/// Generate the header that a P4 program is compiled with
#[derive(Debug, clap::Args)]
struct ConfigArgs {
    /// IPv4 flows in an epoch
    #[arg(long, value_name = "N", value_parser = units::parse_count, required_unless_present = "flows_v6")]
    flows: Option<u64>,

    /// IPv6 flows in an epoch, in a table of their own
    #[arg(long, value_name = "N", value_parser = units::parse_count)]
    flows_v6: Option<u64>,

    /// Leave bytes out: count packets only
    #[arg(long)]
    no_bytes: bool,

    /// Arrangement of the flow filter
    #[arg(long, value_enum, default_value_t = FilterArgument::Blocked)]
    filter: FilterArgument,

    /// Let the first switch stamp the epoch's lowest bit into packets
    #[arg(long)]
    stamp_epoch: bool,

    /// File to write [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Load the program, and write tables
#[derive(Debug, clap::Args)]
struct DeployArgs {
    #[command(flatten)]
    switches: SwitchesArgs,
}

/// Show what is in the switches' tables
#[derive(Debug, clap::Args)]
struct TablesArgs {
    /// One table, with its counters [default: all]
    table: Option<String>,

    #[command(flatten)]
    switches: SwitchesArgs,
}

/// Show which epoch the switches count, and what they have counted
#[derive(Debug, clap::Args)]
struct EpochArgs {
    #[command(flatten)]
    switches: SwitchesArgs,
}

/// Show it again and again
#[derive(Debug, clap::Args)]
struct WatchArgs {
    #[command(flatten)]
    switches: SwitchesArgs,

    /// How often
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, default_value = "1s")]
    every: Duration,

    /// Stop after so many times
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

#[derive(Debug, clap::Args)]
struct DrainArgs {
    /// How cells are read out
    #[arg(long, value_enum, default_value_t = ReaderArgument::Packets)]
    reader: ReaderArgument,

    /// Requests under way at a time
    #[arg(long, value_name = "N", default_value_t = DrainTiming::default().window)]
    window: usize,

    /// How long packets may take through a switch
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, default_value = "10ms")]
    settle: Duration,

    /// How long to wait for an answer before asking again
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, default_value = "250ms")]
    retry: Duration,

    /// What the epochs' hash seeds are derived from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ReaderArgument {
    /// Packets in which the switch reads its own cells: every target can
    Packets,
    /// Reads of registers by P4Runtime: bmv2 cannot
    Registers,
}

/// End an epoch, read it, and write its flowsets
#[derive(Debug, clap::Args)]
struct ReadArgs {
    #[command(flatten)]
    switches: SwitchesArgs,

    #[command(flatten)]
    drain: DrainArgs,

    /// Folder for the flowsets
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Keep switches running the program, and read every epoch
#[derive(Debug, clap::Args)]
struct AgentArgs {
    #[command(flatten)]
    switches: SwitchesArgs,

    #[command(flatten)]
    drain: DrainArgs,

    /// Folder for the flowsets
    #[arg(long, value_name = "DIR", required_unless_present_any = ["collector", "to"])]
    out: Option<PathBuf>,

    /// Send the flowsets to this address, over TCP, as they are
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "out")]
    to: Option<String>,

    #[command(flatten)]
    shipping: ShippingArgs,

    /// Stop after so many epochs of each switch [default: go on]
    #[arg(long, value_name = "N")]
    epochs: Option<u64>,
}

/// How flowsets come to a collector
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Collector")]
struct ShippingArgs {
    /// Ship the flowsets to this collector ("flowradar collect"), from spools on disk: none is lost, and
    /// none is taken twice
    #[arg(long, value_name = "URL", conflicts_with_all = ["out", "to"])]
    collector: Option<String>,

    /// Folder for the spools, one for each switch
    #[arg(
        long,
        value_name = "DIR",
        default_value = "flowradar-spool",
        requires = "collector"
    )]
    spool: PathBuf,

    /// Bytes that wait for the collector at most, for each switch; then its epochs wait in the switch
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, default_value = "1GiB")]
    spool_size: u64,

    #[command(flatten)]
    proof: ProofArgs,
}

pub(crate) fn run(args: &P4Args) -> Result<Completeness, CommandError> {
    match &args.command {
        P4Command::Agent(args) => run_agent(args),
        P4Command::Config(args) => run_config(args),
        P4Command::Deploy(args) => run_deploy(args),
        P4Command::Epoch(args) => run_epoch(args),
        P4Command::Read(args) => run_read(args),
        P4Command::Tables(args) => run_tables(args),
        P4Command::Watch(args) => run_watch(args),
    }
}

impl SwitchesArgs {
    fn fleet(&self) -> Result<Fleet, CommandError> {
        let topology = match &self.topology {
            Some(path) => Topology::read(path).map_err(failed)?,
            None => self.topology_of_arguments()?,
        };
        Fleet::new(topology).map_err(failed)
    }

    fn topology_of_arguments(&self) -> Result<Topology, CommandError> {
        let usage = |error: &dyn std::error::Error| CommandError::Usage(error.to_string());
        let length = self.epoch.unwrap_or(EPOCH_LENGTH);
        let clock = EpochClock::new(length).map_err(|error| usage(&error))?;
        let mut switches = Vec::with_capacity(self.switch.len());
        for argument in &self.switch {
            let Some((name, address)) = argument.split_once('=') else {
                let message = format!("--switch {argument}: give NAME=HOST:PORT");
                return Err(CommandError::Usage(message));
            };
            let name: SwitchName = name.parse().map_err(|error| usage(&error))?;
            switches.push(SwitchSpec::new(name, address, clock));
        }
        Topology::of_switches(clock, switches).map_err(|error| usage(&error))
    }

    fn session_options(&self) -> SessionOptions {
        SessionOptions {
            election_id: self.election_id,
            connect_timeout: self.timeout,
            request_timeout: self.timeout,
            ..SessionOptions::default()
        }
    }
}

impl DrainArgs {
    fn agent_options(&self, switches: &SwitchesArgs) -> AgentOptions {
        AgentOptions {
            session: switches.session_options(),
            takes_over: switches.take_over,
            timing: DrainTiming {
                window: self.window.max(1),
                retry_after: self.retry,
                settle: self.settle,
                ..DrainTiming::default()
            },
            reader: match self.reader {
                ReaderArgument::Packets => ReaderKind::Packets,
                ReaderArgument::Registers => ReaderKind::Registers,
            },
            seed: self.seed,
            ..AgentOptions::default()
        }
    }
}

fn run_config(args: &ConfigArgs) -> Result<Completeness, CommandError> {
    let byte_count_bits = if args.no_bytes { 0 } else { BYTE_COUNT_BITS };
    let widths = flowradar_core::layout::CellWidths::new(
        FLOW_COUNT_BITS,
        PACKET_COUNT_BITS,
        byte_count_bits,
    );
    let widths = widths.map_err(|error| CommandError::Usage(error.to_string()))?;
    let layout = |flows: Option<u64>, key| {
        let plan = flows.map(|flows| {
            let request = PlanRequest::flows(flows)
                .key(key)
                .family(HashFamilyId::Mix64)
                .filter(args.filter.kind())
                .coupling(CouplingChoice::Plain)
                .widths(widths);
            layout_options::plan(&request).map(|plan| plan.layout)
        });
        plan.transpose()
    };
    let program = ProgramConfig::new(
        layout(args.flows, KeyKind::V4)?,
        layout(args.flows_v6, KeyKind::V6)?,
    );
    let program = program.map_err(|error| CommandError::Usage(error.to_string()))?;
    let header = program.with_epoch_stamp(args.stamp_epoch).to_p4();
    match &args.out {
        Some(path) => output::write_file(path, header.as_bytes())?,
        None => output::print_text(&header)?,
    }
    Ok(Completeness::Complete)
}

fn run_deploy(args: &DeployArgs) -> Result<Completeness, CommandError> {
    let fleet = args.switches.fleet()?;
    let options = args.switches.session_options();
    let outcomes = runtime()?.block_on(fleet.deploy(&options, args.switches.take_over));
    report(outcomes, |switch, deployed| {
        let program = program_words(deployed.pipeline);
        let tables = deployed.tables;
        format!(
            "{switch}: {program}; entries: {} added, {} changed, {} removed, {} as they were\n",
            tables.inserted, tables.modified, tables.deleted, tables.kept
        )
    })
}

fn run_tables(args: &TablesArgs) -> Result<Completeness, CommandError> {
    let fleet = args.switches.fleet()?;
    let options = args.switches.session_options();
    let outcomes = runtime()?.block_on(fleet.tables(&options, args.table.clone()));
    report(outcomes, |switch, entries| {
        let lines = entries.iter().map(|entry| {
            let action = entry.action.as_ref();
            let action = action.map_or_else(|| "nothing".to_owned(), ToString::to_string);
            let counted = entry.counter.map(|counter| {
                let packets = self::counted(counter.packets, "packet");
                format!("  {packets}, {}", short_size(counter.bytes))
            });
            let fixed = if entry.is_const { "  (fixed)" } else { "" };
            format!(
                "{switch}  {}  {} -> {action}{}{fixed}\n",
                entry.table,
                entry.key,
                counted.unwrap_or_default()
            )
        });
        lines.collect()
    })
}

fn run_epoch(args: &EpochArgs) -> Result<Completeness, CommandError> {
    let fleet = args.switches.fleet()?;
    show_states(&runtime()?, &fleet, &args.switches)
}

fn run_watch(args: &WatchArgs) -> Result<Completeness, CommandError> {
    let fleet = args.switches.fleet()?;
    let runtime = runtime()?;
    let mut shown = 0;
    loop {
        let completeness = show_states(&runtime, &fleet, &args.switches)?;
        shown += 1;
        if args.count.is_some_and(|count| shown >= count) {
            return Ok(completeness);
        }
        runtime.block_on(tokio::time::sleep(args.every));
    }
}

fn run_read(args: &ReadArgs) -> Result<Completeness, CommandError> {
    let fleet = args.switches.fleet()?;
    let options = AgentOptions {
        epochs_max: Some(1),
        failures_max: Some(1),
        waits_as_standby: false,
        ..args.drain.agent_options(&args.switches)
    };
    let sink = directory(&args.out)?;
    run_agents(&fleet, &options, |_| sink.clone())
}

fn run_agent(args: &AgentArgs) -> Result<Completeness, CommandError> {
    let fleet = args.switches.fleet()?;
    let options = AgentOptions {
        epochs_max: args.epochs,
        ..args.drain.agent_options(&args.switches)
    };
    match (&args.out, &args.to, &args.shipping.collector) {
        (_, _, Some(url)) => runtime()?.block_on(ship_to(url, args, &fleet, &options)),
        (_, Some(address), None) => {
            let timeout = args.switches.timeout;
            run_agents(&fleet, &options, |_| TcpSink::new(address, timeout))
        }
        (Some(folder), None, None) => {
            let sink = directory(folder)?;
            run_agents(&fleet, &options, |_| sink.clone())
        }
        (None, None, None) => Err(CommandError::Usage(
            "give --out, --to or --collector".into(),
        )),
    }
}

/// Runs agents whose flowsets go into spools, and ships these. When the agents have ended by themselves,
/// all is shipped; otherwise the rest stays in the spools until the next time.
async fn ship_to(
    url: &str,
    args: &AgentArgs,
    fleet: &Fleet,
    options: &AgentOptions,
) -> Result<Completeness, CommandError> {
    let shipping = &args.shipping;
    let names: Vec<&SwitchName> = fleet.switches().map(|switch| &switch.name).collect();
    let spool_options = SpoolOptions {
        bytes_max: shipping.spool_size,
        ..SpoolOptions::default()
    };
    let sink = SpoolSink::open(&shipping.spool, names, spool_options)
        .map_err(CommandError::file("open the spools in", &shipping.spool))?;
    let channel = shipping.proof.channel(url)?;
    let rejected = Arc::new(AtomicU64::new(0));
    let mut shippers: JoinSet<Result<(), CommandError>> = JoinSet::new();
    for (switch, spool) in sink.spools() {
        let agent = flowradar_server::agent::AgentOptions {
            switch: switch.clone(),
            token: shipping.proof.token(switch)?,
            description: format!("flowradar p4 agent {}", env!("CARGO_PKG_VERSION")),
            links: vec![],
            retry: SHIPPING_RETRY,
        };
        let name = switch.clone();
        let rejected = Arc::clone(&rejected);
        let shipped = ship(
            channel.clone(),
            agent,
            spool.clone(),
            move |progress| match progress {
                AgentProgress::Registered { .. } | AgentProgress::Acknowledged { .. } => {}
                AgentProgress::Rejected { sequence, reason } => {
                    rejected.fetch_add(1, Ordering::Relaxed);
                    note!("{name}: the collector rejects flowset {sequence}: {reason}");
                }
                AgentProgress::Failed { error, retry_in } => {
                    note!("{name}: {error}; trying again in {retry_in:.1?}");
                }
            },
        );
        let name = switch.clone();
        shippers.spawn(async move {
            let refused = |error| CommandError::Failed(format!("{name}: {error}"));
            shipped.await.map_err(refused)
        });
    }
    let all = async {
        let ended = agents_ended(fleet, options, |_| sink.clone()).await?;
        let emptied = async {
            for (_, spool) in sink.spools() {
                spool.emptied().await;
            }
        };
        if !ended.interrupted {
            tokio::select! {
                () = emptied => {}
                stop = tokio::signal::ctrl_c() => stop.map_err(|error| failed(&error))?,
            }
        }
        Ok::<_, CommandError>(ended.completeness())
    };
    let completeness = tokio::select! {
        ended = all => ended?,
        Some(refused) = shippers.join_next() => {
            return match refused {
                Ok(Err(error)) => Err(error),
                Ok(Ok(())) => Err(CommandError::Failed("a spool is not shipped any more".into())),
                Err(error) => Err(failed(error)),
            };
        }
    };
    shippers.shutdown().await;
    let waiting: usize = sink.spools().map(|(_, spool)| spool.holds().0).sum();
    if waiting > 0 {
        note!(
            "{} wait in {}: they are shipped the next time",
            counted(waiting as u64, "flowset"),
            shipping.spool.display()
        );
    }
    Ok(match rejected.load(Ordering::Relaxed) {
        0 => completeness,
        _ => Completeness::Partial,
    })
}

/// How agents ended.
#[derive(Clone, Copy, Debug, Default)]
struct AgentsEnded {
    failures: usize,
    /// Some epochs were read as one.
    merged: bool,
    /// The user ended it.
    interrupted: bool,
}

impl AgentsEnded {
    fn completeness(self) -> Completeness {
        Completeness::of(self.failures == 0 && !self.merged)
    }
}

fn run_agents<S: FlowsetSink + 'static>(
    fleet: &Fleet,
    options: &AgentOptions,
    sink: impl FnMut(&SwitchName) -> S,
) -> Result<Completeness, CommandError> {
    let ended = runtime()?.block_on(agents_ended(fleet, options, sink))?;
    Ok(ended.completeness())
}

/// Runs agents until they end, or the user ends them.
async fn agents_ended<S: FlowsetSink + 'static>(
    fleet: &Fleet,
    options: &AgentOptions,
    sink: impl FnMut(&SwitchName) -> S,
) -> Result<AgentsEnded, CommandError> {
    let (sender, mut events) = mpsc::channel(EVENTS_MAX);
    let mut agents = fleet.agents(options, sink, &sender);
    // The agents have senders of their own: events end with them.
    drop(sender);
    let mut ended = AgentsEnded::default();
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => {
                    let drained = &event.kind;
                    ended.merged |= matches!(drained, AgentEventKind::EpochDrained(epoch) if epoch.merged > 1);
                    note!("{}", event_words(&event));
                }
                None => break,
            },
            stop = tokio::signal::ctrl_c() => {
                stop.map_err(|error| failed(&error))?;
                ended.interrupted = true;
                break;
            }
        }
    }
    while let Some(outcome) = agents.try_join_next() {
        if let Ok(Err(error)) = outcome {
            note!("{}: {error}", error.switch);
            ended.failures += 1;
        }
    }
    Ok(ended)
}

fn show_states(
    runtime: &Runtime,
    fleet: &Fleet,
    switches: &SwitchesArgs,
) -> Result<Completeness, CommandError> {
    let options = switches.session_options();
    let timing = DrainTiming::default();
    let outcomes = runtime.block_on(fleet.states(&options, timing, switches.take_over));
    report(outcomes, |switch, state| state_words(switch, &state))
}

fn state_words(switch: &SwitchName, state: &SwitchState) -> String {
    let bank_words = |bank: Bank| {
        let bank_state = state.bank(bank);
        format!(
            "{switch}  bank {bank}  {:<14}  epoch {}  IPv4 {} in {}  IPv6 {} in {}  not IP {}  malformed {}\n",
            bank_state.condition,
            bank_state.epoch,
            counted(bank_state.v4.packets, "packet"),
            counted(bank_state.v4.new_flows, "flow"),
            counted(bank_state.v6.packets, "packet"),
            counted(bank_state.v6.new_flows, "flow"),
            grouped(bank_state.not_ip),
            grouped(bank_state.malformed),
        )
    };
    bank_words(Bank::Zero) + &bank_words(Bank::One)
}

fn event_words(event: &AgentEvent) -> String {
    let switch = &event.switch;
    match &event.kind {
        AgentEventKind::Connected { election_id } => {
            format!("{switch}: connected, primary with election id {election_id}")
        }
        AgentEventKind::Standby { highest } => {
            let highest = highest.unwrap_or(0);
            format!("{switch}: another controller is primary (election id {highest}); waiting")
        }
        AgentEventKind::Deployed { pipeline, tables } => format!(
            "{switch}: {}; entries: {} added, {} changed, {} removed, {} as they were",
            program_words(*pipeline),
            tables.inserted,
            tables.modified,
            tables.deleted,
            tables.kept
        ),
        AgentEventKind::BankLeft { epoch } => {
            format!("{switch}: epoch {epoch} was left by a controller before; reading it")
        }
        AgentEventKind::BankCleared { epoch } => {
            format!("{switch}: cleared the rest of epoch {epoch}, which was read before")
        }
        AgentEventKind::EpochDrained(drained) => {
            let flowsets: usize = drained.flowsets.iter().map(|(_, bytes)| bytes).sum();
            let merged = if drained.merged > 1 {
                format!(
                    " MERGED {} epochs: draining takes longer than an epoch;",
                    drained.merged
                )
            } else {
                String::new()
            };
            let again = match drained.requests.1 {
                0 => String::new(),
                again => format!(", {} sent again", counted(again, "request")),
            };
            format!(
                "{switch}: epoch {}:{merged} {}, {} of flowsets, read in {:.0?}, clean after {:.0?}{again}",
                drained.epoch,
                counted(drained.packets, "packet"),
                short_size(flowsets as u64),
                drained.read_time,
                drained.drain_time,
            )
        }
        AgentEventKind::Failed { error, retry_in } => {
            format!("{switch}: {error}; trying again in {retry_in:.1?}")
        }
    }
}

fn program_words(pipeline: PipelineOutcome) -> &'static str {
    match pipeline {
        PipelineOutcome::Committed => "program loaded",
        PipelineOutcome::Kept => "runs the program already",
    }
}

/// Prints what came of it for each switch; what failed goes to standard error.
fn report<T, E: std::fmt::Display>(
    outcomes: ForEachSwitch<T, E>,
    words: impl Fn(&SwitchName, T) -> String,
) -> Result<Completeness, CommandError> {
    let mut failures = 0;
    let switches = outcomes.len();
    for (switch, outcome) in outcomes {
        match outcome {
            Ok(value) => output::print_text(&words(&switch, value))?,
            Err(error) => {
                note!("{error}");
                failures += 1;
            }
        }
    }
    if failures == switches {
        return Err(CommandError::Failed(
            "no switch could be reached or used".into(),
        ));
    }
    Ok(Completeness::of(failures == 0))
}

fn directory(folder: &PathBuf) -> Result<DirectorySink, CommandError> {
    DirectorySink::new(folder).map_err(CommandError::file("make the folder", folder))
}

fn runtime() -> Result<Runtime, CommandError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    runtime.map_err(|error| CommandError::Failed(format!("cannot start threads: {error}")))
}

fn failed(error: impl std::fmt::Display) -> CommandError {
    CommandError::Failed(error.to_string())
}
