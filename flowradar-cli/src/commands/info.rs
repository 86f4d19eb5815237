//! `info`: what a flowset is made of.

use std::path::PathBuf;

use flowradar_core::Flowset;
use flowradar_core::flowset::{FORMAT_VERSION, FlowsetHeader};
use flowradar_core::layout::{Coupling, FilterLayout};
use serde::Serialize;

use crate::flowset_files::{self, BadFlowset, Catalog};
use crate::outcome::{CommandError, Completeness};
use crate::output;
use crate::text::{grouped, note, percent, size};
use crate::units;

/// Show what flowsets are made of: switch, epoch, layout, sizes, fill
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  flowradar info flowsets/switch-1-0-v4.flowset
  flowradar info flowsets --json")]
pub(crate) struct InfoArgs {
    /// Flowsets, or folders with flowsets
    #[arg(required = true, value_name = "FLOWSET|DIR")]
    flowsets: Vec<PathBuf>,

    /// Print a JSON array with an object for each flowset
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &InfoArgs) -> Result<Completeness, CommandError> {
    let catalog = Catalog::open(&args.flowsets)?;
    let mut bad = catalog.bad;
    let mut infos = vec![];
    for entry in catalog.entries {
        match flowset_files::read(&entry.path) {
            Ok(flowset) => {
                let info = FlowsetInfo::new(entry.path.display().to_string(), &flowset);
                if args.json {
                    infos.push(info);
                } else {
                    output::print_text(&info.text())?;
                }
            }
            Err(error) => bad.push(BadFlowset {
                path: entry.path,
                error,
            }),
        }
    }
    if args.json {
        output::print_json(&infos)?;
    }
    for flowset in &bad {
        note!("error: {flowset}");
    }
    Ok(Completeness::of(bad.is_empty()))
}

/// Everything about a flowset but its flows.
#[derive(Debug, Serialize)]
struct FlowsetInfo {
    path: String,
    file_bytes: u64,
    format_version: u16,
    switch: String,
    epoch: u64,
    /// Nanoseconds since 1970; 0 if unknown.
    epoch_start_ns: u64,
    /// 0 if unknown or unlimited.
    epoch_length_ns: u64,
    keys: String,
    hash_family: String,
    seed: u64,
    switch_memory_bytes: u64,
    totals: Option<TotalsInfo>,
    table: TableInfo,
    filter: FilterInfo,
}

/// What the switch counted apart from filter and table.
#[derive(Debug, Serialize)]
struct TotalsInfo {
    packets: u64,
    bytes: u64,
    new_flows: u64,
}

/// The counting table and how full it is.
#[derive(Debug, Serialize)]
struct TableInfo {
    subtables: usize,
    cells_of_subtable: u32,
    cells: usize,
    /// None if each cell is uniform in its subtable.
    window_cells: Option<u32>,
    flow_count_bits: u8,
    packet_count_bits: u8,
    byte_count_bits: u8,
    /// From the switch's total if there is one, otherwise from the first subtable.
    cells_per_flow: Option<f64>,
    empty_cells: usize,
    pure_cells: usize,
    cells_of_more_flows: usize,
    flow_count_highest: u32,
    packet_count_highest: u32,
    saturated_flow_counts: usize,
    saturated_packet_counts: usize,
    saturated_byte_counts: usize,
}

/// The flow filter and how full it is.
#[derive(Debug, Serialize)]
struct FilterInfo {
    kind: &'static str,
    hashes: u8,
    bits: u64,
    bits_set: u64,
    /// The chance that a flow which was never added seems to be there.
    false_positive_probability: f64,
}

impl FlowsetInfo {
    fn new(path: String, flowset: &Flowset<Vec<u8>>) -> Self {
        let FlowsetHeader {
            switch,
            epoch,
            key,
            layout,
            totals,
        } = flowset.header();
        Self {
            path,
            file_bytes: flowset.as_bytes().len() as u64,
            format_version: FORMAT_VERSION,
            switch: switch.to_string(),
            epoch: epoch.number,
            epoch_start_ns: epoch.start_ns,
            epoch_length_ns: epoch.length_ns,
            keys: key.to_string(),
            hash_family: layout.family().to_string(),
            seed: layout.seed(),
            switch_memory_bytes: layout.switch_memory_bits(*key).div_ceil(8),
            totals: totals.map(|totals| TotalsInfo {
                packets: totals.packets,
                bytes: totals.bytes,
                new_flows: totals.new_flows,
            }),
            table: TableInfo::new(flowset),
            filter: FilterInfo::new(flowset),
        }
    }

    fn text(&self) -> String {
        let mut lines = vec![self.path.clone()];
        let mut line = |name: &str, value: String| lines.push(format!("  {name:<16} {value}"));
        line("file", size(self.file_bytes));
        line("format version", self.format_version.to_string());
        line("switch", self.switch.clone());
        line("epoch", self.epoch_text());
        line("flow keys", self.keys.clone());
        line(
            "hash family",
            format!("{}, seed {}", self.hash_family, self.seed),
        );
        line(
            "switch memory",
            format!("{} a bank", size(self.switch_memory_bytes)),
        );
        line(
            "totals",
            self.totals.as_ref().map_or_else(
                || "not reported".into(),
                |totals| {
                    format!(
                        "{} packets, {} bytes, {} new flows",
                        grouped(totals.packets),
                        grouped(totals.bytes),
                        grouped(totals.new_flows)
                    )
                },
            ),
        );
        self.table.lines(&mut line);
        self.filter.lines(&mut line);
        lines.push(String::new());
        lines.join("\n")
    }

    fn epoch_text(&self) -> String {
        let mut text = self.epoch.to_string();
        if self.epoch_start_ns > 0 {
            let start =
                std::time::UNIX_EPOCH + std::time::Duration::from_nanos(self.epoch_start_ns);
            text.push_str(&format!(
                ", from {}",
                humantime::format_rfc3339_nanos(start)
            ));
        }
        if self.epoch_length_ns > 0 {
            text.push_str(&format!(", {} long", units::duration(self.epoch_length_ns)));
        }
        text
    }
}

impl TableInfo {
    fn new(flowset: &Flowset<Vec<u8>>) -> Self {
        let table = flowset.layout().table();
        let widths = table.widths();
        let flows = flowset.header().totals.map_or_else(
            || {
                let subtable = flowset.flow_counts().take(table.subtable_cells() as usize);
                subtable.map(u64::from).sum()
            },
            |totals| totals.new_flows,
        );
        let flow_counts =
            |wanted: fn(u32) -> bool| flowset.flow_counts().filter(|&count| wanted(count)).count();
        let flow_saturated = widths.flow_count_saturated();
        let packet_saturated = widths.packet_count_saturated();
        let byte_saturated = widths.byte_count_saturated();
        Self {
            subtables: table.hashes(),
            cells_of_subtable: table.subtable_cells(),
            cells: table.cells(),
            window_cells: match table.coupling() {
                Coupling::Plain => None,
                Coupling::Window { cells } => Some(cells),
            },
            flow_count_bits: widths.flow_count_bits(),
            packet_count_bits: widths.packet_count_bits(),
            byte_count_bits: widths.byte_count_bits(),
            cells_per_flow: (flows > 0).then(|| table.cells() as f64 / flows as f64),
            empty_cells: flow_counts(|count| count == 0),
            pure_cells: flow_counts(|count| count == 1),
            cells_of_more_flows: flow_counts(|count| count > 1),
            flow_count_highest: flowset.flow_counts().max().unwrap_or(0),
            packet_count_highest: flowset.packet_counts().max().unwrap_or(0),
            saturated_flow_counts: flowset
                .flow_counts()
                .filter(|&count| count == flow_saturated)
                .count(),
            saturated_packet_counts: flowset
                .packet_counts()
                .filter(|&count| count == packet_saturated)
                .count(),
            saturated_byte_counts: flowset.byte_counts().map_or(0, |counts| {
                counts.filter(|&count| count == byte_saturated).count()
            }),
        }
    }

    fn lines(&self, line: &mut impl FnMut(&str, String)) {
        let placing = self.window_cells.map_or_else(
            || "plain".into(),
            |cells| format!("coupled in windows of {} cells", grouped(cells.into())),
        );
        line(
            "table",
            format!(
                "{} subtables of {} cells, {} in all, {placing}",
                self.subtables,
                grouped(self.cells_of_subtable.into()),
                grouped(self.cells as u64),
            ),
        );
        let bytes = match self.byte_count_bits {
            0 => "no ByteCount".into(),
            bits => format!("ByteCount {bits}"),
        };
        line(
            "widths in bits",
            format!(
                "FlowCount {}, PacketCount {}, {bytes}",
                self.flow_count_bits, self.packet_count_bits
            ),
        );
        let share = |cells: usize| percent(cells as u64, self.cells as u64);
        line(
            "cells",
            format!(
                "{} empty, {} with one flow, {} with more",
                share(self.empty_cells),
                share(self.pure_cells),
                share(self.cells_of_more_flows)
            ),
        );
        if let Some(cells_per_flow) = self.cells_per_flow {
            line("cells a flow", format!("{cells_per_flow:.3}"));
        }
        line(
            "highest counts",
            format!(
                "FlowCount {}, PacketCount {}",
                grouped(self.flow_count_highest.into()),
                grouped(self.packet_count_highest.into())
            ),
        );
        line(
            "saturated cells",
            format!(
                "{} FlowCounts, {} PacketCounts, {} ByteCounts",
                grouped(self.saturated_flow_counts as u64),
                grouped(self.saturated_packet_counts as u64),
                grouped(self.saturated_byte_counts as u64),
            ),
        );
    }
}

impl FilterInfo {
    fn new(flowset: &Flowset<Vec<u8>>) -> Self {
        let layout = *flowset.layout().filter();
        Self {
            kind: match layout {
                FilterLayout::Partitioned { .. } => "partitioned",
                FilterLayout::Blocked { .. } => "blocked",
            },
            hashes: layout.hashes(),
            bits: layout.bits(),
            bits_set: filter_bits_set(flowset),
            false_positive_probability: flowset.filter().false_positive_probability(),
        }
    }

    fn lines(&self, line: &mut impl FnMut(&str, String)) {
        line(
            "flow filter",
            format!(
                "{}, {} hashes, {} bits, {} set, false positives {:.1e}",
                self.kind,
                self.hashes,
                grouped(self.bits),
                percent(self.bits_set, self.bits),
                self.false_positive_probability,
            ),
        );
    }
}

/// Bits set in the flow filter, which follows the header (docs/flowset-format.md).
fn filter_bits_set(flowset: &Flowset<Vec<u8>>) -> u64 {
    let bytes = flowset.as_bytes();
    let header_bytes = usize::from(u16::from_le_bytes([bytes[10], bytes[11]]));
    let filter_bytes = flowset.layout().filter().words() * 8;
    bytes[header_bytes..header_bytes + filter_bytes]
        .iter()
        .map(|byte| u64::from(byte.count_ones()))
        .sum()
}
