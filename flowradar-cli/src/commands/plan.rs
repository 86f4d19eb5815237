//! `plan`: from a number of flows to a layout and its costs, and from memory to a number of flows.

use flowradar_core::KeyKind;
use flowradar_core::layout::{Coupling, FilterLayout};
use flowradar_core::plan::{DecodeGoal, FAILURE_PROBABILITY_DEFAULT, Plan, PlanRequest};
use serde::Serialize;

use crate::layout_options::{self, FilterArgument, LayoutOptions, PACKET_COUNT_BITS};
use crate::outcome::{CommandError, Completeness};
use crate::output;
use crate::text::{grouped, probability, short_size, size};
use crate::units::{self, EpochLength};

/// Plan a layout: what memory and bandwidth so many flows take, or how many flows fit in a memory
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  flowradar plan --flows 100000                      memory for 100,000 flows in an epoch
  flowradar plan --flows 50000 --flows-max 100000 --network
                                                     one switch alone decodes 50,000, the network
                                                     together 100,000
  flowradar plan --memory 2MB --epoch 10ms           how many flows fit, and the export bandwidth
  flowradar plan --flows 100000 --keys v6 --bytes --json")]
pub(crate) struct PlanArgs {
    /// Flows expected in an epoch [default: 100000]
    #[arg(long, value_name = "N", value_parser = units::parse_count)]
    flows: Option<u64>,

    /// Most flows of an epoch that must still decode [default: as many as expected]
    #[arg(long, value_name = "M", value_parser = units::parse_count)]
    flows_max: Option<u64>,

    /// Memory of one bank on the switch, flow filter and counting table, such as 2MB or 2MiB;
    /// chooses the number of flows
    #[arg(
        long,
        value_name = "BYTES",
        value_parser = units::parse_size,
        conflicts_with_all = ["flows", "flows_max"]
    )]
    memory: Option<u64>,

    /// How often an epoch with the most flows may turn out incomplete
    #[arg(long, value_name = "P", value_parser = units::parse_fraction, default_value_t = FAILURE_PROBABILITY_DEFAULT)]
    failure: f64,

    /// Flow-filter false positives expected in a whole epoch [default: half of --failure]; the
    /// paper's figures have 1
    #[arg(long, value_name = "N", value_parser = units::parse_ratio)]
    false_positives: Option<f64>,

    /// Length of an epoch, for the export bandwidth
    #[arg(long, value_name = "LENGTH", default_value = "10ms")]
    epoch: EpochLength,

    /// Let the switches of a network decode together (net-decode): about half the cells
    #[arg(long)]
    network: bool,

    /// Kind of flow key: v4 (104 bits) or v6 (296 bits)
    #[arg(long, value_name = "KIND", value_parser = parse_key, default_value = "v4")]
    keys: KeyKind,

    /// Arrangement of the flow filter
    #[arg(long, value_enum, default_value_t = FilterArgument::Partitioned, help_heading = "Layout")]
    filter: FilterArgument,

    /// Print a JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    layout: LayoutOptions,
}

/// Flows that are planned for if nobody says.
const FLOWS_DEFAULT: u64 = 100_000;

/// Runs the command.
pub(crate) fn run(args: &PlanArgs) -> Result<Completeness, CommandError> {
    let EpochLength::Nanoseconds(epoch_length_ns) = args.epoch else {
        return Err(CommandError::Usage(
            "an epoch of a length is needed for the export bandwidth: --epoch 10ms".into(),
        ));
    };
    if args.network && args.layout.cells_per_flow.is_some() {
        return Err(CommandError::Usage(
            "--network chooses the cells a flow: leave out --cells-per-flow".into(),
        ));
    }
    let request = match args.memory {
        // More than 2^64 bits is more than any layout has.
        Some(bytes) => PlanRequest::for_memory(bytes.saturating_mul(8)),
        None => PlanRequest::flows(args.flows.or(args.flows_max).unwrap_or(FLOWS_DEFAULT)),
    };
    let mut request = args
        .layout
        .shape(request, args.keys, PACKET_COUNT_BITS)?
        .filter(args.filter.kind())
        .failure_probability(args.failure);
    if let Some(flows_max) = args.flows_max {
        request = request.flows_max(flows_max);
    }
    if let Some(false_positives) = args.false_positives {
        request = request.expected_false_positives(false_positives);
    }
    if args.network {
        request = request.goal(DecodeGoal::Network);
    }
    let report = PlanReport::new(
        &layout_options::plan(&request)?,
        epoch_length_ns,
        args.network,
    );
    if args.json {
        output::print_json(&report)?;
    } else {
        output::print_text(&report.text())?;
    }
    Ok(Completeness::Complete)
}

/// A plan and its costs.
#[derive(Debug, Serialize)]
struct PlanReport {
    keys: String,
    flows: u64,
    flows_max: u64,
    /// Whether the switches of a network must decode together to find `flows_max`.
    network: bool,
    hashes: usize,
    subtable_cells: u32,
    cells: usize,
    cells_per_flow: f64,
    window_cells: Option<u32>,
    cell_bits: u32,
    table_bits: u64,
    filter: &'static str,
    filter_hashes: u8,
    filter_bits: u64,
    hash_family: String,
    /// Of one bank.
    switch_memory_bits: u64,
    switch_memory_bytes: u64,
    switch_memory_bytes_two_banks: u64,
    expected_false_positives: f64,
    /// Of SingleDecode with `flows_max` flows.
    single_decode_failure_probability: f64,
    flowset_bytes: Option<usize>,
    epoch_length_ns: u64,
    export_bits_per_second: f64,
}

impl PlanReport {
    fn new(plan: &Plan, epoch_length_ns: u64, network: bool) -> Self {
        let table = plan.layout.table();
        let filter = plan.layout.filter();
        Self {
            keys: plan.key.to_string(),
            flows: plan.flows,
            flows_max: plan.flows_max,
            network,
            hashes: table.hashes(),
            subtable_cells: table.subtable_cells(),
            cells: table.cells(),
            cells_per_flow: plan.cells_per_flow,
            window_cells: match table.coupling() {
                Coupling::Plain => None,
                Coupling::Window { cells } => Some(cells),
            },
            cell_bits: table.widths().cell_bits(plan.key),
            table_bits: plan.switch_memory_bits() - filter.bits(),
            filter: match filter {
                FilterLayout::Partitioned { .. } => "partitioned",
                FilterLayout::Blocked { .. } => "blocked",
            },
            filter_hashes: filter.hashes(),
            filter_bits: filter.bits(),
            hash_family: plan.layout.family().to_string(),
            switch_memory_bits: plan.switch_memory_bits(),
            switch_memory_bytes: plan.switch_memory_bits().div_ceil(8),
            switch_memory_bytes_two_banks: plan.switch_memory_bits_two_banks().div_ceil(8),
            expected_false_positives: plan.expected_false_positives,
            single_decode_failure_probability: plan.failure_probability,
            flowset_bytes: plan.flowset_bytes(),
            epoch_length_ns,
            export_bits_per_second: plan.export_bits_per_second(epoch_length_ns),
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            text.push_str(&format!("{name:<24} {value}\n"));
        };
        line(
            "flows",
            format!(
                "{} expected, {} at most, {} keys",
                grouped(self.flows),
                grouped(self.flows_max),
                self.keys
            ),
        );
        let placing = self.window_cells.map_or_else(
            || "plain".into(),
            |cells| format!("coupled in windows of {}", grouped(cells.into())),
        );
        line(
            "counting table",
            format!(
                "{} subtables of {} cells ({:.3} cells a flow), {placing}",
                self.hashes,
                grouped(self.subtable_cells.into()),
                self.cells_per_flow,
            ),
        );
        line(
            "flow filter",
            format!(
                "{}, {} hashes, {} bits ({:.1} a flow)",
                self.filter,
                self.filter_hashes,
                grouped(self.filter_bits),
                self.filter_bits as f64 / self.flows_max.max(1) as f64,
            ),
        );
        line(
            "switch memory, one bank",
            format!(
                "{}: table {}, filter {}",
                size(self.switch_memory_bytes),
                short_size(self.table_bits.div_ceil(8)),
                short_size(self.filter_bits.div_ceil(8)),
            ),
        );
        line(
            "switch memory, two banks",
            size(self.switch_memory_bytes_two_banks),
        );
        if let Some(bytes) = self.flowset_bytes {
            line(
                "export",
                format!(
                    "{} every {}: {:.1} Mbit/s",
                    short_size(bytes as u64),
                    units::duration(self.epoch_length_ns),
                    self.export_bits_per_second / 1e6,
                ),
            );
        }
        line(
            "false positives",
            format!(
                "{:.4} expected in an epoch with {} flows",
                self.expected_false_positives,
                grouped(self.flows_max)
            ),
        );
        let single = format!(
            "in {} of epochs with {} flows",
            probability(self.single_decode_failure_probability),
            grouped(self.flows_max)
        );
        if self.network {
            line(
                "decoding",
                "by the switches of a network together (net-decode)".into(),
            );
            line("one switch alone fails", single);
        } else {
            line("decoding fails", single);
        }
        text
    }
}

/// A kind of flow key.
fn parse_key(text: &str) -> Result<KeyKind, String> {
    match text {
        "v4" => Ok(KeyKind::V4),
        "v6" => Ok(KeyKind::V6),
        _ => Err("use v4 or v6".into()),
    }
}
