//! `dispatch simulate`: the paper's experiment, on traces of one's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flowradar_balancer::policy::BackEndId;
use ipnet::IpNet;
use serde::Serialize;

use crate::dispatch::experiment::{Compared, ComparedPolicy, Experiment};
use crate::dispatch::report::{Report, verdict};
use crate::dispatch::scenario::{PACKETS_MAX, Scenario};
use crate::dispatch::workload::{self, Workload};
use crate::outcome::{CommandError, Completeness};
use crate::output::{print_json, print_text};
use crate::progress::Progress;
use crate::result_table::ResultTable;
use crate::text::{counted, grouped, note};
use crate::trace::InputFormat;
use crate::units;

/// Packets that are made from a list of flow sizes, at most.
const LISTED_PACKETS_MAX: u64 = 2_000_000;

/// Compare policies over the same packets, with servers that are token buckets
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Policies:
  fixed-ip           by address ranges: those of --fixed, or ranges with equal numbers of the hosts
                     that begin flows
  round-robin        each new flow to the next server
  least-loaded       to the server with most tokens now
  estimated          to the server with most tokens after a round trip, by the rates of its flows
  estimated-reports  the same, but knowing only what the servers report from time to time
  consistent-hash    by a hash of the flow

Writes to the folder DIR: report.html (open it in a browser), policies.csv and scenarios.csv, and for
each scenario a folder with loads.csv and imbalance.csv (per window) and the figures as SVG and PNG.

A server takes a token for each packet that comes and gives it back when the packet is done; a packet
that finds no token is lost. Without --service-time, packets take as long as keeps the servers working
for --utilisation of the time: 75 % unless said otherwise. (The 50 ms of the paper would need 46
servers for the paper's own trace.)

Examples:
  flowradar dispatch simulate trace.pcap --out compared
  flowradar dispatch simulate --workload web --workload bulk --workload elephant --out compared
  flowradar dispatch simulate web.pcap ftp.pcap --mix --servers 4 --utilisation 90% --out compared
  flowradar dispatch simulate trace.pcap --fixed 10.0.0.0/25=1 --fixed 10.0.0.128/25=2 --out compared")]
pub(crate) struct SimulateArgs {
    /// Capture files: pcap or pcapng, also compressed with gzip or zstd; each is a scenario
    #[arg(value_name = "TRACE")]
    traces: Vec<PathBuf>,

    /// Made-up traffic of a minute; a scenario each
    #[arg(long, value_enum, value_name = "KIND")]
    workload: Vec<Workload>,

    /// A list of flows, one a line: milliseconds since the one before, protocol, bytes; each list is
    /// a scenario
    #[arg(long, value_name = "FILE")]
    flow_sizes: Vec<PathBuf>,

    /// Lay all scenarios over each other, and simulate that
    #[arg(long)]
    mix: bool,

    /// Folder for the page, the tables and the figures
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Servers
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    servers: u16,

    /// Tokens of each server: packets that it can hold
    #[arg(long, value_name = "N", value_parser = units::parse_count, default_value = "1000000")]
    tokens: u64,

    /// Time that a server takes for a packet [default: what --utilisation needs]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, conflicts_with = "utilisation")]
    service_time: Option<Duration>,

    /// Part of the time that the servers work, on average over the trace
    #[arg(long, value_name = "FRACTION", value_parser = units::parse_fraction, default_value = "75%")]
    utilisation: f64,

    /// Length of the windows in which loads are compared [default: about a 60th of the trace]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    window: Option<Duration>,

    /// Time between reports, for estimated-reports
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, default_value = "1s")]
    report_every: Duration,

    /// K of equation 2: time over which arrival rates are averaged
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, default_value = "200ms")]
    rate_time_constant: Duration,

    /// A prefix and the number of its server, from 1; for fixed-ip
    #[arg(long, value_name = "PREFIX=SERVER", value_parser = parse_route)]
    fixed: Vec<(IpNet, u16)>,

    /// Policies to compare [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "POLICIES")]
    policies: Vec<ComparedPolicy>,

    /// How the traces are to be read: auto, pcap, pcapng or tuple13
    #[arg(long, value_name = "FORMAT", default_value_t)]
    format: InputFormat,

    /// The times of a tuple13 trace: a little-endian 64-bit float for each packet, in seconds
    #[arg(long, value_name = "FILE")]
    timestamps: Option<PathBuf>,

    /// Other traffic and hashes for another number
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,

    /// Print the tables as a JSON object
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct SimulateReport<'a> {
    folder: String,
    method: &'a str,
    verdicts: Vec<Verdict<'a>>,
    tables: [&'a ResultTable; 2],
}

#[derive(Debug, Serialize)]
struct Verdict<'a> {
    scenario: &'a str,
    verdict: String,
}

/// Runs the command.
pub(crate) fn run(args: &SimulateArgs) -> Result<Completeness, CommandError> {
    let scenarios = scenarios(args)?;
    let experiment = Experiment {
        servers: args.servers.into(),
        tokens: args.tokens,
        service_time: args.service_time,
        utilisation: args.utilisation,
        window: args.window.filter(|window| !window.is_zero()),
        report_every: args.report_every.max(Duration::from_millis(1)),
        routes: routes(args)?,
        rate_time_constant: args.rate_time_constant,
        seed: args.seed,
        policies: if args.policies.is_empty() {
            ComparedPolicy::ALL.into()
        } else {
            // In the order of the report, each once.
            let wanted = |policy: &ComparedPolicy| args.policies.contains(policy);
            ComparedPolicy::ALL.into_iter().filter(wanted).collect()
        },
    };
    let is_partial = scenarios.iter().any(|scenario| scenario.is_partial);
    let progress = Progress::steps("simulating", scenarios.len() as u64);
    let mut done = 0;
    let compared: Vec<Compared> = scenarios
        .into_iter()
        .map(|scenario| {
            let compared = experiment.run(scenario);
            done += 1;
            progress.set(done);
            compared
        })
        .collect();
    drop(progress);
    let report = Report::new(&compared, method(args));
    report.write_to(&args.out)?;
    if args.json {
        let verdicts = compared.iter().map(|compared| Verdict {
            scenario: &compared.scenario.name,
            verdict: verdict(compared),
        });
        print_json(&SimulateReport {
            folder: args.out.display().to_string(),
            method: &report.method,
            verdicts: verdicts.collect(),
            tables: [&report.scenarios, &report.policies],
        })?;
    } else {
        print_text(&report.text(&args.out))?;
    }
    Ok(Completeness::of(!is_partial))
}

fn scenarios(args: &SimulateArgs) -> Result<Vec<Scenario>, CommandError> {
    if args.timestamps.is_some() && args.traces.len() != 1 {
        return Err(CommandError::Usage(
            "--timestamps are the times of one trace: name just one".into(),
        ));
    }
    if args.format == InputFormat::Tuple13 && args.timestamps.is_none() {
        return Err(CommandError::Usage(
            "tuple13 has no times, and without times nothing can be simulated: give --timestamps \
             FILE"
                .into(),
        ));
    }
    let mut scenarios = vec![];
    for trace in &args.traces {
        let timestamps = args.timestamps.as_deref();
        scenarios.push(Scenario::read(trace, args.format, timestamps)?);
    }
    for list in &args.flow_sizes {
        scenarios.push(listed(list, args.seed)?);
    }
    for workload in &args.workload {
        let packets = workload.packets(args.seed);
        scenarios.push(Scenario::new(workload.name().into(), packets, false));
    }
    if scenarios.is_empty() {
        return Err(CommandError::Usage(
            "nothing to simulate: name a TRACE, or --workload web for made-up traffic".into(),
        ));
    }
    if args.mix {
        let total: u64 = scenarios.iter().map(|each| each.packets.len() as u64).sum();
        if total > PACKETS_MAX {
            return Err(CommandError::Usage(format!(
                "{} packets together, more than the {} that fit in memory: mix fewer",
                grouped(total),
                grouped(PACKETS_MAX)
            )));
        }
        return Ok(vec![Scenario::mixed(scenarios)]);
    }
    Ok(scenarios)
}

fn listed(path: &Path, seed: u64) -> Result<Scenario, CommandError> {
    let text = fs::read_to_string(path).map_err(CommandError::file("read", path))?;
    let listed = workload::from_flow_list(&text, LISTED_PACKETS_MAX, seed);
    let name = path.file_name().unwrap_or(path.as_os_str());
    let name = name.to_string_lossy().into_owned();
    if listed.packets.is_empty() {
        return Err(CommandError::Failed(format!(
            "{name}: no flows; a line must be like \"0.022 tcp 238\": milliseconds, protocol, bytes"
        )));
    }
    if listed.one_of > 1 {
        note!(
            "{name}: one of {} flows, to make at most {} packets",
            listed.one_of,
            grouped(LISTED_PACKETS_MAX)
        );
    }
    if listed.too_large > 0 {
        note!(
            "{name}: left out {} of 1 GB or more, or beyond the limit",
            counted(listed.too_large, "flow")
        );
    }
    if listed.unreadable_lines > 0 {
        note!(
            "{name}: {} that are no flow",
            counted(listed.unreadable_lines, "line")
        );
    }
    let is_partial = listed.unreadable_lines > 0;
    Ok(Scenario::new(name, listed.packets, is_partial))
}

fn routes(args: &SimulateArgs) -> Result<Vec<(IpNet, Vec<BackEndId>)>, CommandError> {
    let route = |&(prefix, server): &(IpNet, u16)| {
        if (1..=args.servers).contains(&server) {
            Ok((prefix, vec![BackEndId(server - 1)]))
        } else {
            Err(CommandError::Usage(format!(
                "--fixed {prefix}={server}: servers are numbered from 1 to {}",
                args.servers
            )))
        }
    };
    args.fixed.iter().map(route).collect()
}

fn method(args: &SimulateArgs) -> String {
    let service = match args.service_time {
        Some(time) => format!("{} a packet", units::duration(time.as_nanos() as u64)),
        None => format!(
            "as long a packet as keeps them working {:.0} % of the time",
            args.utilisation * 100.0
        ),
    };
    format!(
        "{} with {} tokens each, {service}; K = {}; reports every {}; seed {}.",
        counted(args.servers.into(), "server"),
        grouped(args.tokens),
        units::duration(args.rate_time_constant.as_nanos() as u64),
        units::duration(args.report_every.as_nanos() as u64),
        args.seed,
    )
}

/// `10.0.0.0/8=1`.
pub(super) fn parse_route(text: &str) -> Result<(IpNet, u16), String> {
    let example = "write a prefix and a server, such as 10.0.0.0/8=1";
    let (prefix, server) = text.split_once('=').ok_or(example)?;
    let prefix = prefix
        .parse::<IpNet>()
        .or_else(|_| prefix.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|error| format!("{error}; {example}"))?;
    let server = server
        .parse()
        .map_err(|error| format!("{error}; {example}"))?;
    Ok((prefix, server))
}
