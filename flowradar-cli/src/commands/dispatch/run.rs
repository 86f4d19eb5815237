//! `dispatch run`: the dispatcher.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use flowradar_balancer::dispatch::{DispatcherSettings, LoadUnit};
use flowradar_balancer::policy::{BackEndId, Policy};
use ipnet::IpNet;
use serde::Serialize;

use super::simulate::parse_route;
use crate::dispatch::back_end::{BackEndArgument, Target};
use crate::dispatch::run_report;
use crate::dispatch::runner::{BackEndTotals, RunResult, Runner, Totals};
use crate::dispatch::source::{Source, Speed};
use crate::outcome::{CommandError, Completeness};
use crate::output::{print_json, print_text};
use crate::text::note;
use crate::units;

/// Send each captured packet to one of several back ends, all packets of a flow to the same
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Back ends, with --to NAME=KIND:TARGET, or N pcap files in a folder with --servers N --out DIR:
  a=pcap:FILE                a pcap file, with times in nanoseconds
  b=interface:NAME           a network interface
  c=vxlan:HOST[:PORT][,vni=N]  UDP in VXLAN, which tcpdump and Wireshark decode; port 4789, VNI 1

Writes to the folder DIR of --out: loads.csv, loads.svg and loads.png, who got how much when.

A back end that fails loses its flows to the others; no other flow moves. One in the network is tried
again after five seconds. Frames that are not IP go to the first back end.

Back ends may report their load in datagrams to the address of --load-reports: a name and a fraction
of what it can do. Then \"estimated\" and \"least-loaded\" go by that too:
  echo 'c 0.85' | nc -u -w0 dispatcher.example 4790

Examples:
  flowradar dispatch run trace.pcap --servers 3 --out parts
  flowradar dispatch run trace.pcap --servers 3 --out parts --policy consistent-hash --overwrite
  flowradar dispatch run trace.pcapng --speed 2 --to a=vxlan:10.0.0.5 --to b=vxlan:10.0.0.6
  flowradar dispatch run --interface eth1 --to a=interface:eth2 --to b=interface:eth3")]
pub(crate) struct RunArgs {
    /// Capture files, replayed one after the other: pcap or pcapng, also compressed; - for standard
    /// input
    #[arg(value_name = "TRACE", required_unless_present = "interface")]
    traces: Vec<PathBuf>,

    /// Capture from a network interface instead, until a signal (needs CAP_NET_RAW)
    #[arg(long, value_name = "NAME", conflicts_with = "traces")]
    interface: Option<String>,

    /// Memory for frames that were captured and not read yet; held as long as the command runs
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, default_value = "64MiB", requires = "interface")]
    ring: u64,

    /// Capture for so long
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, requires = "interface")]
    duration: Option<Duration>,

    /// How fast traces are replayed: max, or how many times as fast as they were captured
    #[arg(long, value_name = "SPEED", value_parser = parse_speed, default_value = "max")]
    speed: Speed,

    /// A back end
    #[arg(long = "to", value_name = "NAME=KIND:TARGET")]
    to: Vec<BackEndArgument>,

    /// So many pcap files in the folder of --out: server-1.pcap, server-2.pcap, …
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), requires = "out", conflicts_with = "to")]
    servers: Option<u16>,

    /// Folder for the pcap files of --servers, and for the picture of the loads
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Replace files that exist
    #[arg(long)]
    overwrite: bool,

    /// How a new flow's back end is chosen
    #[arg(long, value_enum, default_value_t = PolicyArgument::Estimated)]
    policy: PolicyArgument,

    /// A prefix and the number of its back end, from 1; for fixed-ip. Other addresses go by hash
    #[arg(long, value_name = "PREFIX=NUMBER", value_parser = parse_route)]
    fixed: Vec<(IpNet, u16)>,

    /// What load is counted in
    #[arg(long, value_enum, default_value_t = LoadArgument::Packets)]
    load: LoadArgument,

    /// Flows that are remembered at once, at 200 bytes each; more go by hash
    #[arg(long, value_name = "N", value_parser = units::parse_count, default_value = "1048576")]
    flows: u64,

    /// Where back ends report their loads, as address:port
    #[arg(long, value_name = "ADDRESS")]
    load_reports: Option<SocketAddr>,

    /// Dispatchers with the same seed and back ends make the same choices by hash
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,

    /// Print the result as a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PolicyArgument {
    /// By address ranges
    FixedIp,
    /// Each new flow to the next back end
    RoundRobin,
    /// To the back end that gets least now
    LeastLoaded,
    /// To the back end that will get least soon, by the rates of its flows
    Estimated,
    /// By a hash of the flow
    ConsistentHash,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LoadArgument {
    Packets,
    Bytes,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct RunReport<'a> {
    totals: Totals,
    back_ends: Vec<BackEndReport<'a>>,
    flows: u64,
    flows_from_their_middle: u64,
    flows_moved_by_failure: u64,
    affinity_breaks: u64,
    untracked_packets: u64,
    dropped_by_kernel: u64,
    left_in_ring: u64,
    cut_off: u64,
    /// Average round trip time of handshakes; none if there were none.
    round_trip_ms: Option<f64>,
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct BackEndReport<'a> {
    name: &'a str,
    #[serde(flatten)]
    totals: BackEndTotals,
}

/// Runs the command.
pub(crate) fn run(args: &RunArgs) -> Result<Completeness, CommandError> {
    // A name mistyped leaves nothing behind that the next attempt would have to overwrite.
    for trace in args.traces.iter().filter(|trace| *trace != Path::new("-")) {
        fs::metadata(trace).map_err(CommandError::file("read", trace))?;
    }
    if let Some(out) = &args.out {
        fs::create_dir_all(out).map_err(CommandError::file("create", out))?;
    }
    let back_ends = back_ends(args)?;
    let reports = args.load_reports.map(listen).transpose()?;
    let stop = Arc::new(AtomicBool::new(false));
    let source = match &args.interface {
        Some(name) => {
            stop_on_signal(Arc::clone(&stop))?;
            Source::interface(name, ring_bytes(args.ring)?, args.duration, stop)?
        }
        None => Source::traces(args.traces.clone(), args.speed),
    };
    let runner = Runner::new(
        settings(args, back_ends.len())?,
        &back_ends,
        args.overwrite,
        reports,
    )?;
    if let Some(name) = &args.interface {
        note!("Capturing from {name}; Ctrl-C ends it.");
    }
    let start = Instant::now();
    let result = runner.run(source)?;
    let seconds = start.elapsed().as_secs_f64();
    if let Some(out) = &args.out {
        run_report::load_table(&result).write_to(out)?;
        let policy = args.policy.to_possible_value();
        let policy = policy.as_ref().map_or("", |value| value.get_name());
        run_report::load_figure(&result, policy).write_to(out)?;
    }
    if args.json {
        print_json(&json(&result, seconds))?;
    } else {
        print_text(&run_report::text(&result))?;
        note!(
            "{:.2} s, {:.0} frames a second",
            seconds,
            result.totals.frames as f64 / seconds.max(1e-9)
        );
    }
    Ok(Completeness::of(is_complete(&result)))
}

fn is_complete(result: &RunResult) -> bool {
    let lost: u64 = result
        .back_ends
        .iter()
        .map(|(_, totals)| totals.lost_frames + totals.failures)
        .sum();
    let source = &result.lost;
    lost == 0
        && source.dropped + source.unsupported + source.damaged_traces == 0
        && source.unread + source.cut_off == 0
        && result.totals.undeliverable + result.totals.too_long == 0
        && result.counters.affinity_breaks == 0
}

fn json(result: &RunResult, seconds: f64) -> RunReport<'_> {
    RunReport {
        totals: result.totals,
        back_ends: result
            .back_ends
            .iter()
            .map(|(name, totals)| BackEndReport {
                name,
                totals: *totals,
            })
            .collect(),
        flows: result.counters.flows,
        flows_from_their_middle: result.counters.flows_from_their_middle,
        flows_moved_by_failure: result.counters.flows_moved_by_failure,
        affinity_breaks: result.counters.affinity_breaks,
        untracked_packets: result.counters.untracked_packets,
        dropped_by_kernel: result.lost.dropped,
        left_in_ring: result.lost.unread,
        cut_off: result.lost.cut_off,
        round_trip_ms: (result.counters.round_trips > 0)
            .then_some(result.round_trip.as_secs_f64() * 1e3),
        seconds,
    }
}

fn ring_bytes(size: u64) -> Result<usize, CommandError> {
    match usize::try_from(size) {
        Ok(bytes) if (2 << 20..=16 << 30).contains(&bytes) => Ok(bytes),
        _ => Err(CommandError::Usage("--ring must be 2MiB to 16GiB".into())),
    }
}

fn back_ends(args: &RunArgs) -> Result<Vec<BackEndArgument>, CommandError> {
    if let (Some(servers), Some(out)) = (args.servers, &args.out) {
        let back_end = |number| {
            let name = format!("server-{number}");
            let target = Target::Pcap(out.join(format!("{name}.pcap")));
            BackEndArgument { name, target }
        };
        return Ok((1..=servers).map(back_end).collect());
    }
    if args.to.is_empty() {
        return Err(CommandError::Usage(
            "no back ends: --servers 3 --out DIR writes three pcap files; or name each with --to"
                .into(),
        ));
    }
    let mut names: Vec<&str> = args
        .to
        .iter()
        .map(|back_end| back_end.name.as_str())
        .collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(CommandError::Usage(format!(
            "two back ends are named {}: give each a name of its own",
            pair[0]
        )));
    }
    if names.len() > 1024 {
        return Err(CommandError::Usage("at most 1,024 back ends".into()));
    }
    Ok(args.to.clone())
}

fn settings(args: &RunArgs, back_ends: usize) -> Result<DispatcherSettings, CommandError> {
    let policy = match args.policy {
        PolicyArgument::FixedIp => {
            if args.fixed.is_empty() {
                return Err(CommandError::Usage(
                    "fixed-ip needs address ranges: --fixed 10.0.0.0/9=1 --fixed 10.128.0.0/9=2"
                        .into(),
                ));
            }
            let route = |&(prefix, number): &(IpNet, u16)| {
                if (1..=back_ends).contains(&usize::from(number)) {
                    Ok((prefix, vec![BackEndId(number - 1)]))
                } else {
                    Err(CommandError::Usage(format!(
                        "--fixed {prefix}={number}: back ends are numbered from 1 to {back_ends}"
                    )))
                }
            };
            let routes: Result<_, CommandError> = args.fixed.iter().map(route).collect();
            Policy::Fixed { routes: routes? }
        }
        PolicyArgument::RoundRobin => Policy::RoundRobin,
        PolicyArgument::LeastLoaded => Policy::LeastLoaded,
        PolicyArgument::Estimated => Policy::EstimatedLoad {
            horizon: Duration::from_millis(100),
        },
        PolicyArgument::ConsistentHash => Policy::Rendezvous { load_bound: None },
    };
    let mut settings = DispatcherSettings::new(policy);
    settings.flows = usize::try_from(args.flows)
        .unwrap_or(usize::MAX)
        .min(1 << 28);
    settings.balancer.seed = args.seed;
    settings.load = match args.load {
        LoadArgument::Packets => LoadUnit::Packets,
        LoadArgument::Bytes => LoadUnit::Bytes,
    };
    Ok(settings)
}

fn listen(address: SocketAddr) -> Result<UdpSocket, CommandError> {
    UdpSocket::bind(address)
        .and_then(|socket| {
            socket.set_nonblocking(true)?;
            Ok(socket)
        })
        .map_err(|error| CommandError::Failed(format!("load reports at {address}: {error}")))
}

/// Sets the flag on the first SIGINT or SIGTERM.
fn stop_on_signal(stop: Arc<AtomicBool>) -> Result<(), CommandError> {
    use tokio::signal::unix::{SignalKind, signal};

    let failed = |error| CommandError::Failed(format!("cannot wait for signals: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let (mut interrupt, mut terminate) = {
        let _context = runtime.enter();
        let interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        (interrupt, signal(SignalKind::terminate()).map_err(failed)?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        stop.store(true, Ordering::Relaxed);
    });
    Ok(())
}

/// `max`, or a factor such as `1` or `2.5`.
fn parse_speed(text: &str) -> Result<Speed, String> {
    if text == "max" {
        return Ok(Speed::Max);
    }
    match text.trim_end_matches('x').parse::<f64>() {
        Ok(times) if times.is_finite() && times > 0.0 => Ok(Speed::Times(times)),
        _ => Err("write max, or how many times as fast, such as 1 or 10".into()),
    }
}
