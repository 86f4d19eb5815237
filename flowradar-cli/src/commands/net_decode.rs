//! `net-decode`: the switches of a network together, epoch by epoch.

use std::path::PathBuf;
use std::time::Instant;

use flowradar_collector::{NetDecode, NetDecodeOptions};
use flowradar_core::{CounterStatus, FlowKey, FlowKeyV4, FlowKeyV6, Flowset, KeyKind};
use serde::Serialize;

use crate::commands::decode::{BadFlowsetReport, print_summary_json};
use crate::flowset_files::{self, BadFlowset, Catalog, CatalogEntry};
use crate::outcome::{CommandError, Completeness};
use crate::progress::Progress;
use crate::rows::{FlowRow, RowOptions, RowWriter, weaker};
use crate::text::{counted, grouped, note};

/// Most epochs for which a complete one gets a line of its own in the summary.
const LINES_FOR_COMPLETE_MAX: usize = 20;

/// Decode the flowsets of a whole network, all switches of an epoch together
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Flows found at one switch are looked for at the others, and all switches' equations are solved
together: complete in about half the memory that decoding each switch alone needs. Routing need not
be known, and any subset of the switches may report. Flowsets with the same epoch number belong
together; the switches must have different seeds (as \"encode\" and \"simulate\" give them).

Rows: epoch,switch,src,dst,src_port,dst_port,protocol,packets,bytes,status
  status is \"exact\" (proved by the switch's own equations), \"joint\" (satisfies every equation of the
  network, assuming that losses are sparse) or \"unresolved\": then packets and bytes are estimates,
  and the formats table, json and parquet show between which bounds they lie.
  A row whose packets and bytes differ in status carries the weaker word.

Examples:
  flowradar simulate fat-tree --k 4 --flows-per-switch 1000 --cells-per-flow 0.7 --out net
  flowradar net-decode net
  flowradar net-decode net --format csv --out flows.csv --json

The exit code is 0 if every flow was found and every counter is exact or joint, otherwise 3.")]
pub(crate) struct NetDecodeArgs {
    /// Folders with flowsets (files whose name ends with .flowset), or flowsets
    #[arg(required = true, value_name = "DIR|FLOWSET")]
    flowsets: Vec<PathBuf>,

    #[command(flatten)]
    rows: RowOptions,
}

/// Runs the command.
pub(crate) fn run(args: &NetDecodeArgs) -> Result<Completeness, CommandError> {
    let start = Instant::now();
    let catalog = Catalog::open(&args.flowsets)?;
    let mut bad = catalog.bad;
    let mut entries = catalog.entries;
    // All switches of an epoch and kind of key together.
    entries.sort_by_key(|entry| (entry.epoch.number, entry.key));
    let groups: Vec<&[CatalogEntry]> = entries
        .chunk_by(|a, b| (a.epoch.number, a.key) == (b.epoch.number, b.key))
        .collect();
    let mut rows = args.rows.open()?;
    let progress = if groups.len() > 1 {
        Progress::steps("decoding epochs", groups.len() as u64)
    } else {
        Progress::spinner("decoding the network")
    };
    let mut reports = vec![];
    for (number, group) in groups.into_iter().enumerate() {
        let flowsets = read_group(group, &mut bad);
        let report = match group[0].key {
            KeyKind::V4 => decode_group::<FlowKeyV4>(&flowsets, &mut rows)?,
            KeyKind::V6 => decode_group::<FlowKeyV6>(&flowsets, &mut rows)?,
        };
        reports.extend(report);
        progress.set(number as u64 + 1);
    }
    drop(progress);
    if reports.is_empty() {
        for flowset in &bad {
            note!("error: {flowset}");
        }
        return Err(CommandError::Failed("no flowset could be decoded".into()));
    }
    rows.finish()?;

    let summary = NetSummary::new(reports, &bad, start);
    if args.rows.json {
        print_summary_json(&summary, args.rows.rows_to_file())?;
    } else {
        summary.print();
    }
    Ok(Completeness::of(summary.complete))
}

/// Reads the flowsets of an epoch; a file that changed since it was found joins the bad ones.
pub(crate) fn read_group(
    group: &[CatalogEntry],
    bad: &mut Vec<BadFlowset>,
) -> Vec<Flowset<Vec<u8>>> {
    let mut flowsets = Vec::with_capacity(group.len());
    for entry in group {
        match flowset_files::read(&entry.path) {
            Ok(flowset) => flowsets.push(flowset),
            Err(error) => bad.push(BadFlowset {
                path: entry.path.clone(),
                error,
            }),
        }
    }
    flowsets
}

/// Decodes the flowsets of an epoch and writes the rows; none if there are no flowsets.
fn decode_group<K: FlowKey>(
    flowsets: &[Flowset<Vec<u8>>],
    rows: &mut RowWriter,
) -> Result<Option<EpochReport>, CommandError> {
    let Some(first) = flowsets.first() else {
        return Ok(None);
    };
    let start = Instant::now();
    let epoch = first.header().epoch.number;
    let decoded = flowradar_collector::net_decode::<K, _>(flowsets, &NetDecodeOptions::default())
        .map_err(|error| CommandError::Failed(format!("epoch {epoch}: {error}")))?;
    let seconds = start.elapsed().as_secs_f64();
    for switch in &decoded.switches {
        let switch_rows: Vec<FlowRow<'_>> = switch
            .flows
            .iter()
            .map(|flow| FlowRow::new(epoch, switch.switch.as_str(), flow))
            .collect();
        rows.write(&switch_rows)?;
    }
    Ok(Some(EpochReport::new(epoch, K::KIND, &decoded, seconds)))
}

/// What the whole command found.
#[derive(Debug, Serialize)]
struct NetSummary {
    complete: bool,
    flowsets: usize,
    /// Epochs, counted for each kind of flow key.
    epochs: usize,
    complete_epochs: usize,
    /// Different flows, summed over epochs.
    flows: u64,
    /// Rows: flows at switches.
    counters: u64,
    exact: u64,
    joint: u64,
    unresolved: u64,
    flows_not_found: u64,
    unconfirmed_flows: u64,
    bad_flowsets: Vec<BadFlowsetReport>,
    /// Of decoding alone.
    decode_seconds: f64,
    seconds: f64,
    reports: Vec<EpochReport>,
}

/// What NetDecode found in one epoch.
#[derive(Debug, Serialize)]
struct EpochReport {
    epoch: u64,
    keys: String,
    complete: bool,
    switches: usize,
    flows: u64,
    counters: u64,
    exact: u64,
    joint: u64,
    unresolved: u64,
    /// Flows that tables count, but nobody could find, over all switches.
    flows_not_found: u64,
    /// Flows at switches that could neither be confirmed nor excluded; not reported.
    unconfirmed_flows: u64,
    flow_rounds: usize,
    counter_rounds: usize,
    seconds: f64,
    /// What is missing, why, and what would help. Empty if the epoch was decoded completely.
    problems: Vec<String>,
}

impl NetSummary {
    fn new(reports: Vec<EpochReport>, bad: &[BadFlowset], start: Instant) -> Self {
        let sum = |value: fn(&EpochReport) -> u64| reports.iter().map(value).sum();
        let complete_epochs = reports.iter().filter(|report| report.complete).count();
        let decoded: usize = reports.iter().map(|report| report.switches).sum();
        Self {
            complete: complete_epochs == reports.len() && bad.is_empty(),
            flowsets: decoded + bad.len(),
            epochs: reports.len(),
            complete_epochs,
            flows: sum(|report| report.flows),
            counters: sum(|report| report.counters),
            exact: sum(|report| report.exact),
            joint: sum(|report| report.joint),
            unresolved: sum(|report| report.unresolved),
            flows_not_found: sum(|report| report.flows_not_found),
            unconfirmed_flows: sum(|report| report.unconfirmed_flows),
            bad_flowsets: bad.iter().map(BadFlowsetReport::new).collect(),
            decode_seconds: reports.iter().map(|report| report.seconds).sum(),
            seconds: start.elapsed().as_secs_f64(),
            reports,
        }
    }

    fn print(&self) {
        for bad in &self.bad_flowsets {
            bad.print();
        }
        for report in &self.reports {
            if !report.complete || self.reports.len() <= LINES_FOR_COMPLETE_MAX {
                report.print();
            }
        }
        note!(
            "{} of {} decoded completely: {} at switches, {} exact, {} joint, {} unresolved, {} not \
             found ({:.2} s, of which decoding {:.2} s)",
            grouped(self.complete_epochs as u64),
            counted(self.epochs as u64, "epoch"),
            counted(self.counters, "flow"),
            grouped(self.exact),
            grouped(self.joint),
            grouped(self.unresolved),
            grouped(self.flows_not_found),
            self.seconds,
            self.decode_seconds,
        );
    }
}

impl EpochReport {
    fn new<K: FlowKey>(epoch: u64, key: KeyKind, decoded: &NetDecode<K>, seconds: f64) -> Self {
        let summary = &decoded.summary;
        let (mut exact, mut joint, mut unresolved) = (0, 0, 0);
        for flow in decoded.switches.iter().flat_map(|switch| &switch.flows) {
            match weaker(flow.packets, flow.bytes) {
                CounterStatus::Exact => exact += 1,
                CounterStatus::Joint => joint += 1,
                CounterStatus::Unresolved { .. } => unresolved += 1,
            }
        }
        let byte_rounds = summary.byte_counters.map_or(0, |bytes| bytes.rounds);
        let mut report = Self {
            epoch,
            keys: key.to_string(),
            complete: decoded.is_complete(),
            switches: decoded.switches.len(),
            flows: summary.flows as u64,
            counters: exact + joint + unresolved,
            exact,
            joint,
            unresolved,
            flows_not_found: summary.flows_left,
            unconfirmed_flows: summary.unconfirmed_flows as u64,
            flow_rounds: summary.flow_rounds,
            counter_rounds: summary.packet_counters.rounds + byte_rounds,
            seconds,
            problems: vec![],
        };
        report.problems = report.find_problems(decoded);
        report
    }

    fn find_problems<K>(&self, decoded: &NetDecode<K>) -> Vec<String> {
        let mut problems = vec![];
        let switches_with = |wanted: &dyn Fn(&flowradar_collector::SwitchDecode<K>) -> bool| {
            let switches = decoded.switches.iter().filter(|switch| wanted(switch));
            let names: Vec<&str> = switches.map(|switch| switch.switch.as_str()).collect();
            match names.as_slice() {
                few if few.len() <= 5 => few.join(", "),
                [a, b, c, rest @ ..] => format!("{a}, {b}, {c} and {} more", rest.len()),
                _ => String::new(),
            }
        };
        let with_leftover =
            |switch: &flowradar_collector::SwitchDecode<K>| switch.leftover.cells > 0;
        if decoded.switches.iter().any(with_leftover) {
            problems.push(format!(
                "not found: {} at {}. Their tables are too full even for decoding together: give \
                 the switches more memory, use shorter epochs, or add the reports of more switches \
                 on the same paths",
                counted(self.flows_not_found, "flow"),
                switches_with(&with_leftover),
            ));
        }
        if self.unconfirmed_flows > 0 {
            problems.push(format!(
                "not reported: {} known from other switches that {} may or may not have seen",
                counted(self.unconfirmed_flows, "flow"),
                switches_with(&|switch| switch.unconfirmed_flows > 0),
            ));
        }
        if self.unresolved > 0 {
            problems.push(format!(
                "unresolved: {}; their rows carry bounds (formats table, json and parquet). More \
                 memory a switch or shorter epochs would resolve them",
                counted(self.unresolved, "counter"),
            ));
        }
        if decoded.summary.flow_rounds_exhausted {
            problems.push("FlowDecode was stopped before it came to an end".into());
        }
        problems
    }

    fn print(&self) {
        note!(
            "epoch {} {}: {} at {}, {} at switches: {} exact, {} joint, {} unresolved ({} and {} \
             rounds, {:.2} s)",
            self.epoch,
            self.keys,
            counted(self.flows, "flow"),
            if self.switches == 1 {
                "1 switch".into()
            } else {
                format!("{} switches", grouped(self.switches as u64))
            },
            grouped(self.counters),
            grouped(self.exact),
            grouped(self.joint),
            grouped(self.unresolved),
            self.flow_rounds,
            self.counter_rounds,
            self.seconds,
        );
        for problem in &self.problems {
            note!("  {problem}");
        }
    }
}
