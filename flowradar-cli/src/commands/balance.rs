//! `balance`: flow exports over groups of collectors.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use flowradar_balancer::config::PolicyName;
use flowradar_balancer::engine::AssignmentUnit;
use flowradar_balancer::wire::Protocol;

use crate::balance::{bench, check, replay, run, top};
use crate::outcome::{CommandError, Completeness};

/// Balance NetFlow, NetStream, IPFIX and sFlow over collectors, with copies for others
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Exports of all formats arrive on any port. Collectors are given the templates and options of what
they get, and those that fail are left out within a second. docs/balancing.md explains policies,
units and failover; contrib/balancer.example.toml is a configuration to start from. nfcapd shows sequence
errors for IPFIX with options, unless that has streams.ipfix_counts_options = false.

Examples:
  flowradar balance --listen 127.0.0.1:2055 --to 127.0.0.1:9001 --to 127.0.0.1:9002
                                        no configuration needed for a first try
  flowradar balance replay exports.pcap --to 127.0.0.1:2055
                                        exports to try it with
  flowradar balance balancer.toml --check-config
  flowradar balance balancer.toml       read again on SIGHUP
  flowradar balance top                 exporters, collectors and events, live
  flowradar balance bench               what this machine can do"
)]
pub(crate) struct BalanceArgs {
    #[command(subcommand)]
    action: Option<BalanceAction>,

    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, clap::Subcommand)]
enum BalanceAction {
    Check(CheckArgs),
    Replay(ReplayArgs),
    Top(TopArgs),
    Bench(BenchArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Configuration, TOML; none with --listen
    #[arg(value_name = "CONFIG", required_unless_present = "listen")]
    pub(crate) config: Option<PathBuf>,

    /// Check the configuration, say what it means, and end
    #[arg(long, requires = "config")]
    pub(crate) check_config: bool,

    /// Without configuration: where exports arrive; may be given more than once
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "config")]
    pub(crate) listen: Vec<SocketAddr>,

    /// Without configuration: a collector; may be given more than once
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "config")]
    pub(crate) to: Vec<SocketAddr>,

    /// Without configuration: a receiver of copies of everything
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "config")]
    pub(crate) copy_to: Vec<SocketAddr>,

    /// Without configuration: what stays together at one collector
    #[arg(long, value_enum, default_value_t = UnitArgument::Stream, conflicts_with = "config")]
    pub(crate) unit: UnitArgument,

    /// Without configuration: how collectors are chosen
    #[arg(long, value_enum, default_value_t = PolicyArgument::Rendezvous, conflicts_with = "config")]
    pub(crate) policy: PolicyArgument,

    /// Without configuration: where metrics and status are served
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "config")]
    pub(crate) api: Option<SocketAddr>,

    /// End after this time, such as 10s; without it on Ctrl-C or SIGTERM
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) duration: Option<Duration>,

    /// Print the last state as JSON to standard output at the end
    #[arg(long)]
    pub(crate) json: bool,
}

/// Check a configuration and say what it means
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// Configuration, TOML
    #[arg(value_name = "CONFIG")]
    pub(crate) config: PathBuf,

    /// Print it as JSON, with all defaults
    #[arg(long)]
    pub(crate) json: bool,
}

/// Send the exports of a capture file as their exporters would; needs no privileges
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Reads pcap, pcapng, and IPFIX files. Towards a loopback address each exporter gets a loopback address
of its own (127.0.1.1, 127.0.1.2, ...), so that exporters stay apart.

Example:
  flowradar balance replay exports.pcap --to 127.0.0.1:2055 --rate 1000")]
pub(crate) struct ReplayArgs {
    /// Capture
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// Where to
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) to: SocketAddr,

    /// Datagrams a second; 0 for as fast as it goes
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) rate: u32,

    /// So many times
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) times: u32,
}

/// Watch a running balancer: exporters, collectors, events
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Keys: q ends, d drains or undrains the collector under the cursor (needs --token-file), arrows move.

Examples:
  flowradar balance top
  flowradar balance top --url http://192.0.2.1:8955 --token-file token
  flowradar balance top --once          print once, for scripts and mail")]
pub(crate) struct TopArgs {
    /// The balancer's HTTP interface
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8955")]
    pub(crate) url: String,

    /// File with the bearer token
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// Between updates
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    pub(crate) interval: Duration,

    /// Print one screen as text and end
    #[arg(long)]
    pub(crate) once: bool,
}

/// Measure the engine alone, and the whole over the loopback
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Over the loopback, a generator sends made NetFlow v9 (30 records a datagram) to a balancer in a process
of its own, which sends it on to sinks that nobody reads: the kernel counts what arrives there. Where
nfacctd (pmacct) or samplicate are on PATH, --compare gives them the same. Compare figures of one run.

Examples:
  flowradar balance bench --engine-only
  flowradar balance bench --records-per-second 1000000 --compare")]
pub(crate) struct BenchArgs {
    /// The engine without sockets
    #[arg(long)]
    pub(crate) engine_only: bool,

    /// Load over the loopback
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = crate::units::parse_count)]
    pub(crate) records_per_second: u64,

    /// Length of each measurement
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    pub(crate) time: Duration,

    /// Collectors
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) collectors: u16,

    /// Exporters
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub(crate) exporters: u32,

    /// Protocol of the load
    #[arg(long, value_enum, default_value_t = ProtocolArgument::Netflow9)]
    pub(crate) protocol: ProtocolArgument,

    /// Also measure pmacct's nfacctd and samplicate where they are installed
    #[arg(long)]
    pub(crate) compare: bool,

    /// Print a JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum UnitArgument {
    Exporter,
    Stream,
    Message,
    Record,
}

impl From<UnitArgument> for AssignmentUnit {
    fn from(argument: UnitArgument) -> Self {
        match argument {
            UnitArgument::Exporter => Self::Exporter,
            UnitArgument::Stream => Self::Stream,
            UnitArgument::Message => Self::Message,
            UnitArgument::Record => Self::Record,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum PolicyArgument {
    RoundRobin,
    Rendezvous,
    LeastLoaded,
    EstimatedLoad,
}

impl From<PolicyArgument> for PolicyName {
    fn from(argument: PolicyArgument) -> Self {
        match argument {
            PolicyArgument::RoundRobin => Self::RoundRobin,
            PolicyArgument::Rendezvous => Self::Rendezvous,
            PolicyArgument::LeastLoaded => Self::LeastLoaded,
            PolicyArgument::EstimatedLoad => Self::EstimatedLoad,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ProtocolArgument {
    Netflow5,
    Netflow9,
    Ipfix,
}

impl From<ProtocolArgument> for Protocol {
    fn from(argument: ProtocolArgument) -> Self {
        match argument {
            ProtocolArgument::Netflow5 => Self::NetflowV5,
            ProtocolArgument::Netflow9 => Self::NetflowV9,
            ProtocolArgument::Ipfix => Self::Ipfix,
        }
    }
}

pub(crate) fn run(args: &BalanceArgs) -> Result<Completeness, CommandError> {
    match &args.action {
        None if args.run.check_config => check::run_file(args.run.config.as_deref(), args.run.json),
        None => run::run(&args.run),
        Some(BalanceAction::Check(args)) => check::run_file(Some(&args.config), args.json),
        Some(BalanceAction::Replay(args)) => replay::run(args),
        Some(BalanceAction::Top(args)) => top::run(args),
        Some(BalanceAction::Bench(args)) => bench::run(args),
    }
}
