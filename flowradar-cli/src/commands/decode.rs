//! `decode`: SingleDecode of each flowset on its own.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use flowradar_core::decode::{DecodedFlow, Leftover, Proof, SingleDecode, single_decode};
use flowradar_core::{CounterStatus, FlowKey, FlowKeyV4, FlowKeyV6, Flowset, KeyKind};
use serde::Serialize;

use crate::flowset_files::{self, BadFlowset, Catalog, CatalogEntry};
use crate::outcome::{CommandError, Completeness};
use crate::output;
use crate::progress::Progress;
use crate::rows::{FlowRow, RowOptions, RowWriter, weaker};
use crate::text::{counted, grouped, note};

/// Most flowsets for which a complete one gets a line of its own in the summary.
const LINES_FOR_COMPLETE_MAX: usize = 20;

/// Decode flowsets: every flow with its counters, each switch on its own
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Rows: epoch,switch,src,dst,src_port,dst_port,protocol,packets,bytes,status
  For ICMP, dst_port is type * 256 + code, as in NetFlow. bytes (from the IP header on) is empty if
  the flowset was encoded without --bytes.
  status is \"exact\" (proved by the switch's own equations) or \"unresolved\": then packets and bytes
  are estimates, and the formats table, json and parquet show between which bounds they lie.
  A row whose packets and bytes differ in status carries the weaker word.

Examples:
  flowradar decode flowsets                          a table of all flows
  flowradar decode flowsets --format csv | sort -t, -k8 -n | tail
  flowradar decode flowsets --out flows.parquet      for DuckDB, pandas, Spark, ...
  flowradar decode a.flowset b.flowset --json        rows and summary for machines

If a flowset does not decode completely, the summary says what is left and what would help, and the
exit code is 3.")]
pub(crate) struct DecodeArgs {
    /// Flowsets, or folders with flowsets (files whose name ends with .flowset)
    #[arg(required = true, value_name = "FLOWSET|DIR")]
    flowsets: Vec<PathBuf>,

    #[command(flatten)]
    rows: RowOptions,
}

/// Runs the command.
pub(crate) fn run(args: &DecodeArgs) -> Result<Completeness, CommandError> {
    let start = Instant::now();
    let catalog = Catalog::open(&args.flowsets)?;
    let mut bad = catalog.bad;
    let mut rows = args.rows.open()?;
    let progress = Progress::steps("decoding", catalog.entries.len() as u64);
    let mut reports = Vec::with_capacity(catalog.entries.len());
    for (number, entry) in catalog.entries.iter().enumerate() {
        match flowset_files::read(&entry.path) {
            Ok(flowset) => reports.push(decode_one(entry, &flowset, &mut rows)?),
            // It was good a moment ago, but files change.
            Err(error) => bad.push(BadFlowset {
                path: entry.path.clone(),
                error,
            }),
        }
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

    let summary = DecodeSummary::new(reports, &bad, start);
    if args.rows.json {
        print_summary_json(&summary, args.rows.rows_to_file())?;
    } else {
        summary.print();
    }
    Ok(Completeness::of(summary.complete))
}

/// Prints a summary as JSON: pretty to standard output if that is free, otherwise as one line to
/// standard error.
pub(crate) fn print_summary_json(
    summary: &impl Serialize,
    standard_output_is_free: bool,
) -> Result<(), CommandError> {
    if standard_output_is_free {
        return output::print_json(summary);
    }
    let mut line = serde_json::to_vec(summary)
        .map_err(|error| CommandError::Failed(format!("the summary has no JSON: {error}")))?;
    line.push(b'\n');
    // Nobody to tell if standard error is gone.
    let _ = std::io::stderr().lock().write_all(&line);
    Ok(())
}

fn decode_one(
    entry: &CatalogEntry,
    flowset: &Flowset<Vec<u8>>,
    rows: &mut RowWriter,
) -> Result<FlowsetReport, CommandError> {
    match entry.key {
        KeyKind::V4 => decode_with::<FlowKeyV4>(entry, flowset, rows),
        KeyKind::V6 => decode_with::<FlowKeyV6>(entry, flowset, rows),
    }
}

fn decode_with<K: FlowKey>(
    entry: &CatalogEntry,
    flowset: &Flowset<Vec<u8>>,
    rows: &mut RowWriter,
) -> Result<FlowsetReport, CommandError> {
    let mut decoded = single_decode::<K, _>(flowset)
        .map_err(|error| CommandError::Failed(format!("{}: {error}", entry.path.display())))?;
    decoded.flows.sort_unstable_by_key(|flow| flow.key);
    write_rows(entry, &decoded.flows, rows)?;
    Ok(FlowsetReport::new(entry, flowset, &decoded))
}

fn write_rows<K: FlowKey>(
    entry: &CatalogEntry,
    flows: &[DecodedFlow<K>],
    rows: &mut RowWriter,
) -> Result<(), CommandError> {
    let flow_rows: Vec<FlowRow<'_>> = flows
        .iter()
        .map(|flow| FlowRow::new(entry.epoch.number, entry.switch.as_str(), flow))
        .collect();
    rows.write(&flow_rows)
}

/// What the whole command found.
#[derive(Debug, Serialize)]
struct DecodeSummary {
    complete: bool,
    flowsets: usize,
    complete_flowsets: usize,
    /// Rows: flows found, counted for each switch and epoch.
    flows: u64,
    exact: u64,
    unresolved: u64,
    /// Flows that are in the tables but could not be found.
    flows_not_found: u64,
    packets_not_found: u64,
    bad_flowsets: Vec<BadFlowsetReport>,
    seconds: f64,
    reports: Vec<FlowsetReport>,
}

/// A file that could not be decoded at all.
#[derive(Debug, Serialize)]
pub(crate) struct BadFlowsetReport {
    path: String,
    error: String,
}

impl BadFlowsetReport {
    pub(crate) fn new(bad: &BadFlowset) -> Self {
        Self {
            path: bad.path.display().to_string(),
            error: bad.error.to_string(),
        }
    }

    pub(crate) fn print(&self) {
        note!("error: {}: {}", self.path, self.error);
    }
}

/// What SingleDecode found in one flowset.
#[derive(Debug, Serialize)]
struct FlowsetReport {
    path: String,
    switch: String,
    epoch: u64,
    keys: String,
    complete: bool,
    flows: u64,
    exact: u64,
    unresolved: u64,
    flows_not_found: u64,
    packets_not_found: u64,
    /// At most so many flows are expected to be in no table, because the flow filter took them for
    /// known ones.
    hidden_flows_expected: f64,
    /// What is missing, why, and what would help. Empty if the flowset was decoded completely.
    problems: Vec<String>,
}

impl DecodeSummary {
    fn new(reports: Vec<FlowsetReport>, bad: &[BadFlowset], start: Instant) -> Self {
        let sum = |value: fn(&FlowsetReport) -> u64| reports.iter().map(value).sum();
        let complete_flowsets = reports.iter().filter(|report| report.complete).count();
        Self {
            complete: complete_flowsets == reports.len() && bad.is_empty(),
            flowsets: reports.len() + bad.len(),
            complete_flowsets,
            flows: sum(|report| report.flows),
            exact: sum(|report| report.exact),
            unresolved: sum(|report| report.unresolved),
            flows_not_found: sum(|report| report.flows_not_found),
            packets_not_found: sum(|report| report.packets_not_found),
            bad_flowsets: bad.iter().map(BadFlowsetReport::new).collect(),
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
            "{} of {} decoded completely: {}, {} exact, {} unresolved, {} not found ({:.2} s)",
            grouped(self.complete_flowsets as u64),
            counted(self.flowsets as u64, "flowset"),
            counted(self.flows, "flow"),
            grouped(self.exact),
            grouped(self.unresolved),
            grouped(self.flows_not_found),
            self.seconds,
        );
    }
}

impl FlowsetReport {
    fn new<K: FlowKey>(
        entry: &CatalogEntry,
        flowset: &Flowset<Vec<u8>>,
        decoded: &SingleDecode<K>,
    ) -> Self {
        let flows = decoded.flows.len() as u64;
        let exact = decoded
            .flows
            .iter()
            .filter(|flow| weaker(flow.packets, flow.bytes) == CounterStatus::Exact)
            .count() as u64;
        Self {
            path: entry.path.display().to_string(),
            switch: entry.switch.to_string(),
            epoch: entry.epoch.number,
            keys: entry.key.to_string(),
            complete: decoded.is_complete(),
            flows,
            exact,
            unresolved: flows - exact,
            flows_not_found: decoded.leftover.flows,
            packets_not_found: decoded.leftover.packets,
            hidden_flows_expected: hidden_flows_expected(flowset, flows + decoded.leftover.flows),
            problems: problems(flowset, decoded),
        }
    }

    fn print(&self) {
        note!(
            "{} epoch {} {}: {}, {} exact, {} unresolved",
            self.switch,
            self.epoch,
            self.keys,
            counted(self.flows, "flow"),
            grouped(self.exact),
            grouped(self.unresolved),
        );
        for problem in &self.problems {
            note!("  {problem}");
        }
    }
}

/// What is missing, why, and what would help.
fn problems<K: FlowKey>(flowset: &Flowset<Vec<u8>>, decoded: &SingleDecode<K>) -> Vec<String> {
    let mut problems = vec![];
    if decoded.leftover.cells > 0 {
        problems.push(leftover_problem(
            flowset,
            decoded.flows.len() as u64,
            &decoded.leftover,
        ));
    }
    let unknown = |flow: &DecodedFlow<K>| !flow.packets.is_exact();
    problems.extend(column_problem(
        "packet",
        decoded.packets_proof,
        decoded.flows.iter().filter(|flow| unknown(flow)).count(),
    ));
    if let Some(proof) = decoded.bytes_proof {
        let unknown = |flow: &DecodedFlow<K>| flow.bytes.is_some_and(|bytes| !bytes.is_exact());
        problems.extend(column_problem(
            "byte",
            proof,
            decoded.flows.iter().filter(|flow| unknown(flow)).count(),
        ));
    }
    problems
}

/// Most flows expected to have been taken for known ones, among so many that the table knows, from
/// how full the filter was at the end of the epoch. Before it was emptier.
fn hidden_flows_expected(flowset: &Flowset<Vec<u8>>, recorded: u64) -> f64 {
    let probability = flowset.filter().false_positive_probability();
    recorded as f64 * probability / (1.0 - probability).max(f64::MIN_POSITIVE)
}

/// Flows that could not be found.
fn leftover_problem(flowset: &Flowset<Vec<u8>>, found: u64, leftover: &Leftover) -> String {
    let cells = flowset.layout().table().cells() as f64;
    let flows = match flowset.header().totals {
        Some(totals) => totals.new_flows,
        None => found + leftover.flows,
    };
    let mut problem = format!(
        "not found: {} with {} in {}. The table is too full: it has {:.2} cells a flow. Encode with \
         more memory (--flows {} or --memory), in shorter epochs, or decode this switch together \
         with others on the same paths (flowradar net-decode)",
        counted(leftover.flows, "flow"),
        counted(leftover.packets, "packet"),
        counted(leftover.cells as u64, "cell"),
        cells / flows.max(1) as f64,
        grouped(flows),
    );
    let hidden = hidden_flows_expected(flowset, found + leftover.flows);
    if hidden >= 0.5 {
        problem.push_str(&format!(
            ". The flow filter is too full too: up to about {hidden:.0} more may be hidden in other \
             flows' cells"
        ));
    }
    if leftover.saturated_cells > 0 {
        problem.push_str(&format!(
            ". The FlowCount of {} is saturated, so there may be more",
            counted(leftover.saturated_cells as u64, "cell")
        ));
    }
    if leftover.rejected_cells > 0 {
        problem.push_str(&format!(
            ". {} {} pure but failed verification: the flow filter is too full, or the report was \
             damaged before it got its checksum",
            counted(leftover.rejected_cells as u64, "cell"),
            if leftover.rejected_cells == 1 {
                "looked"
            } else {
                "look"
            },
        ));
    }
    problem
}

/// Counters that are not proved.
fn column_problem(counter: &str, proof: Proof, unknown: usize) -> Option<String> {
    if unknown == 0 && proof == Proof::Proved {
        return None;
    }
    let why = match proof {
        Proof::HiddenFlows { unsatisfied_cells } => format!(
            "{} not add up: the flow filter took a new flow for a known one (give it more memory: \
             --flows or --memory), or the report is damaged; net-decode may still resolve them",
            if unsatisfied_cells == 1 {
                "1 cell does".into()
            } else {
                format!("{} do", counted(unsatisfied_cells as u64, "cell"))
            },
        ),
        Proof::NotConserved {
            subtable,
            sum,
            expected,
        } => format!(
            "the sum over subtable {subtable} is {}, not {}: the report is damaged, or was read \
             while the switch still counted; read the idle bank only",
            grouped(sum),
            grouped(expected),
        ),
        Proof::TooFewEquations {
            undetected_hidden_flows,
        } => format!(
            "with so many flows not found, {undetected_hidden_flows:.1e} hidden flows are expected \
             to go unnoticed; more memory or net-decode would help"
        ),
        Proof::Proved => {
            "their cells are saturated: use shorter epochs, or wider counters on the switch".into()
        }
        other => format!("{other:?}"),
    };
    Some(format!(
        "unresolved: {}: {why}",
        counted(unknown as u64, &format!("{counter} counter"))
    ))
}
