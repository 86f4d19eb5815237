//! `simulate`: a network of switches with traffic, faults and ground truth.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::ValueEnum;
use flowradar_core::plan::PlanRequest;
use flowradar_core::{Counter, FlowKey, FlowKeyV4, KeyKind};
use flowradar_sim::encode::{Report, encode};
use flowradar_sim::{
    ClockSkew, Fault, Faults, FlowSizeCdf, FlowSizes, InFlight, KeyStyle, Simulation, Spread,
    Topology, Traffic, Truth,
};
use serde::Serialize;

use crate::flowset_files;
use crate::layout_options::{
    self, FAILURE_PROBABILITY, FilterArgument, LayoutOptions, PACKET_COUNT_BITS,
};
use crate::outcome::{CommandError, Completeness};
use crate::output::{self, Output};
use crate::progress::Progress;
use crate::rows::{FlowRow, RowFormat, RowWriter};
use crate::text::{counted, grouped, note, short_size};
use crate::units;

/// Simulate a network: flowsets of every switch, and the truth to compare with
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Writes to the folder DIR:
  SWITCH-EPOCH-v4.flowset   what each switch reports of each epoch
  topology.json             the network
  truth.csv                 what each switch really counted: the rows of a complete decode

Examples:
  flowradar simulate fat-tree --k 4 --flows-per-switch 1000 --out net
  flowradar simulate fat-tree --k 8 --flows-per-switch 10000 --cells-per-flow 0.68 --lossy-flows 1% \\
      --out tight
  flowradar simulate topology mine.json --flows-per-switch 500 --out mine
  flowradar net-decode net --format csv | diff - net/truth.csv")]
pub(crate) struct SimulateArgs {
    #[command(subcommand)]
    network: NetworkArgs,
}

#[derive(Debug, clap::Subcommand)]
enum NetworkArgs {
    /// A k-ary fat tree: 5k²/4 switches and k³/4 hosts
    FatTree {
        /// Ports of a switch, an even number; 4 makes 20 switches, 8 makes 80
        #[arg(long, value_name = "K", default_value_t = 8)]
        k: u32,

        /// Which pairs of hosts talk: inter-pod gives every switch the same number of flows, the
        /// paper's worst case; uniform draws random pairs [default: inter-pod]
        #[arg(long, value_enum, default_value_t = TrafficKind::InterPod, hide_default_value = true)]
        traffic: TrafficKind,

        /// Let switches spread inter-pod flows over equal paths by hash, as real ones do, so that
        /// some carry more than others
        #[arg(long)]
        hashed_ecmp: bool,

        #[command(flatten)]
        run: RunArgs,
    },
    /// The network of a topology.json file
    Topology {
        /// Topology: JSON with switches, hosts and links; "simulate fat-tree" writes an example
        #[arg(value_name = "FILE")]
        file: PathBuf,

        #[command(flatten)]
        run: RunArgs,
    },
}

/// Which pairs of hosts talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TrafficKind {
    /// Every switch carries the same number of flows; none stays in its pod
    InterPod,
    /// Random pairs of hosts
    Uniform,
}

/// What flow keys look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum KeyKindChoice {
    /// Addresses of the hosts, random ports
    RandomPorts,
    /// Addresses of the hosts, ports counted up
    SequentialPorts,
    /// Random addresses, as of virtual machines, and random ports
    RandomAddresses,
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// Folder for the flowsets, topology.json and truth.csv; made if it does not exist
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Replace an earlier simulation in the folder
    #[arg(long)]
    overwrite: bool,

    /// Flows at each switch in each epoch; the tables are made for as many
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    flows_per_switch: u32,

    /// Epochs
    #[arg(long, value_name = "N", default_value_t = 1)]
    epochs: u64,

    /// Fraction of flows that go on into the next epoch
    #[arg(long, value_name = "FRACTION", value_parser = units::parse_fraction, default_value = "0.5")]
    persistence: f64,

    /// Flow sizes: a file with lines of payload bytes and cumulated per cent, as published for
    /// data centres [default: 1 to 50,000 packets, heavy-tailed]
    #[arg(long, value_name = "FILE")]
    flow_sizes: Option<PathBuf>,

    /// What flow keys look like
    #[arg(long, value_enum, default_value_t = KeyKindChoice::RandomPorts)]
    keys: KeyKindChoice,

    /// Seed of everything random, hash functions included
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,

    /// Print the summary as JSON to standard output
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    faults: FaultArgs,

    /// Arrangement of the flow filter
    #[arg(long, value_enum, default_value_t = FilterArgument::Partitioned, help_heading = "Layout")]
    filter: FilterArgument,

    #[command(flatten)]
    layout: LayoutOptions,
}

/// What goes wrong in the network.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Faults")]
struct FaultArgs {
    /// Fraction of packets lost on every link between switches
    #[arg(long, value_name = "FRACTION", value_parser = units::parse_fraction, default_value = "0")]
    loss: f64,

    /// Fraction of flows that lose up to a tenth of their packets at one hop
    #[arg(long, value_name = "FRACTION", value_parser = units::parse_fraction, default_value = "0")]
    lossy_flows: f64,

    /// Fraction of flows with packets in flight when an epoch ends
    #[arg(long, value_name = "FRACTION", value_parser = units::parse_fraction, default_value = "0")]
    in_flight: f64,

    /// Most packets that such a flow has in flight
    #[arg(long, value_name = "N", default_value_t = 1)]
    in_flight_packets: u32,

    /// How far switches' clocks are off at most, as a fraction of an epoch
    #[arg(long, value_name = "FRACTION", value_parser = units::parse_fraction, default_value = "0")]
    clock_skew: f64,

    /// Blackholes, loops and wrong forwarding entries, in turn, at random places
    #[arg(long, value_name = "N", default_value_t = 0)]
    planted: usize,

    /// Fraction of the flows at such a place that are hit
    #[arg(long, value_name = "FRACTION", value_parser = units::parse_fraction, default_value = "0.1")]
    planted_flows: f64,

    /// Fraction of reports that never arrive
    #[arg(long, value_name = "FRACTION", value_parser = units::parse_fraction, default_value = "0")]
    silent: f64,
}

/// Runs the command.
pub(crate) fn run(args: &SimulateArgs) -> Result<Completeness, CommandError> {
    let start = Instant::now();
    let (topology, run) = match &args.network {
        NetworkArgs::FatTree { k, run, .. } => (
            Topology::fat_tree(*k).map_err(|error| usage(format!("--k {k}: {error}")))?,
            run,
        ),
        NetworkArgs::Topology { file, run } => (read_topology(file)?, run),
    };
    let faults = faults(&run.faults, &topology, run.seed);
    let mut builder = Simulation::builder(topology)
        .flows_per_switch(run.flows_per_switch)
        .epochs(run.epochs)
        .persistence(run.persistence)
        .flow_sizes(flow_sizes(run.flow_sizes.as_deref())?)
        .keys(run.keys.style())
        .faults(faults)
        .seed(run.seed);
    if let Some(traffic) = traffic(&args.network, run.flows_per_switch)? {
        builder = builder.traffic(traffic);
    }
    let simulation = builder.build().map_err(|error| usage(error.to_string()))?;
    let request = PlanRequest::flows(run.flows_per_switch.into())
        .filter(run.filter.kind())
        .failure_probability(FAILURE_PROBABILITY)
        .seed(run.seed);
    let request = run.layout.shape(request, KeyKind::V4, PACKET_COUNT_BITS)?;
    let layout = layout_options::plan(&request)?.layout;
    prepare_folder(&run.out, run.overwrite)?;

    output::write_file(
        &run.out.join("topology.json"),
        simulation.topology().to_json().as_bytes(),
    )?;
    let (files, file_bytes) = write_flowsets(&simulation, &layout, &run.out)?;
    let truth_rows = write_truth(&simulation, &run.out.join("truth.csv"), run.layout.bytes)?;
    let sums = simulation.summary();
    let summary = SimulateSummary {
        folder: run.out.display().to_string(),
        switches: simulation.topology().switches().len(),
        hosts: simulation.topology().hosts().len(),
        epochs: simulation.epochs(),
        flows_per_epoch: simulation.flows_per_epoch(),
        flows_per_switch: run.flows_per_switch,
        cells: layout.table().cells(),
        switch_memory_bytes: layout.switch_memory_bits(KeyKind::V4).div_ceil(8),
        packets_sent: sums.packets_sent,
        packets_lost: sums.packets_lost(),
        packets_in_flight: sums.packets_in_flight,
        packets_looped: sums.packets_looped,
        packets_misforwarded: sums.packets_misforwarded,
        missing_reports: simulation.epochs() * simulation.topology().switches().len() as u64
            - files,
        files,
        file_bytes,
        truth_rows,
        seconds: start.elapsed().as_secs_f64(),
    };
    if run.json {
        output::print_json(&summary)?;
    } else {
        summary.print();
    }
    Ok(Completeness::Complete)
}

fn usage(message: String) -> CommandError {
    CommandError::Usage(message)
}

fn read_topology(file: &Path) -> Result<Topology, CommandError> {
    let text = fs::read_to_string(file).map_err(CommandError::file("read", file))?;
    Topology::from_json(&text)
        .map_err(|error| CommandError::Failed(format!("{}: {error}", file.display())))
}

fn flow_sizes(file: Option<&Path>) -> Result<FlowSizes, CommandError> {
    let Some(file) = file else {
        return Ok(FlowSizes::DEFAULT);
    };
    let text = fs::read_to_string(file).map_err(CommandError::file("read", file))?;
    FlowSizeCdf::parse(&text)
        .map(FlowSizes::Bytes)
        .map_err(|error| CommandError::Failed(format!("{}: {error}", file.display())))
}

/// The traffic that was asked for; none for the simulation's default.
fn traffic(network: &NetworkArgs, flows_per_switch: u32) -> Result<Option<Traffic>, CommandError> {
    let NetworkArgs::FatTree {
        traffic,
        hashed_ecmp,
        ..
    } = network
    else {
        return Ok(None);
    };
    match traffic {
        TrafficKind::InterPod => {
            let spread = if *hashed_ecmp {
                Spread::Hashed
            } else {
                Spread::Even
            };
            Ok(Some(Traffic::InterPod {
                flows_per_switch,
                spread,
            }))
        }
        TrafficKind::Uniform if *hashed_ecmp => Err(usage(
            "--hashed-ecmp goes with --traffic inter-pod; uniform traffic is always hashed".into(),
        )),
        TrafficKind::Uniform => Ok(Some(Traffic::Uniform { flows_per_switch })),
    }
}

fn faults(args: &FaultArgs, topology: &Topology, seed: u64) -> Faults {
    Faults {
        link_loss: args.loss,
        lossy_flows: args.lossy_flows,
        in_flight: InFlight {
            flows: args.in_flight,
            packets_max: args.in_flight_packets,
        },
        clock_skew: if args.clock_skew > 0.0 {
            ClockSkew::Random {
                offset_max: args.clock_skew,
            }
        } else {
            ClockSkew::None
        },
        planted: Fault::random(topology, args.planted, args.planted_flows, seed),
        silent_fraction: args.silent,
        ..Faults::default()
    }
}

/// Makes the folder. Flowsets that are there already would be taken for part of this network.
fn prepare_folder(folder: &Path, overwrite: bool) -> Result<(), CommandError> {
    fs::create_dir_all(folder).map_err(CommandError::file("make", folder))?;
    let mut old = vec![];
    for entry in fs::read_dir(folder).map_err(CommandError::file("read", folder))? {
        let path = entry.map_err(CommandError::file("read", folder))?.path();
        if flowset_files::has_flowset_name(&path) {
            old.push(path);
        }
    }
    if !old.is_empty() && !overwrite {
        return Err(CommandError::Failed(format!(
            "{} already holds flowsets: use another folder, or --overwrite to remove them",
            folder.display()
        )));
    }
    for path in old {
        fs::remove_file(&path).map_err(CommandError::file("remove", &path))?;
    }
    Ok(())
}

/// Writes all reports; returns how many, and their bytes.
fn write_flowsets(
    simulation: &Simulation,
    layout: &flowradar_core::layout::Layout,
    folder: &Path,
) -> Result<(u64, u64), CommandError> {
    let progress = if simulation.epochs() > 1 {
        Progress::steps("simulating epochs", simulation.epochs())
    } else {
        Progress::spinner("simulating")
    };
    let (mut files, mut file_bytes) = (0, 0);
    let mut failed = None;
    let write = |report: &Report| {
        let switch = &simulation.topology().switches()[report.switch.index()];
        let name = flowset_files::file_name(switch, report.epoch, KeyKind::V4);
        output::write_file(&folder.join(name), &report.flowset)
    };
    encode(simulation, layout, |epoch, reports| {
        progress.set(epoch + 1);
        for report in reports {
            if failed.is_none() {
                failed = write(&report).err();
                files += 1;
                file_bytes += report.flowset.len() as u64;
            }
        }
    });
    match failed {
        Some(error) => Err(error),
        None => Ok((files, file_bytes)),
    }
}

/// Writes what every switch counted, in the order of a decode's rows; returns the number of rows.
fn write_truth(
    simulation: &Simulation,
    path: &Path,
    with_bytes: bool,
) -> Result<u64, CommandError> {
    let topology = simulation.topology();
    let mut switches: Vec<_> = topology.switch_ids().collect();
    switches.sort_by_key(|switch| &topology.switches()[switch.index()]);
    let output = Output::open(Some(path))?;
    let mut rows = RowWriter::new(RowFormat::Csv, output, Some(path.to_path_buf()))?;
    let progress = Progress::steps("writing the truth", simulation.epochs());
    let mut written = 0;
    for epoch in 0..simulation.epochs() {
        let truth = Truth::of_epoch(simulation, epoch);
        for &switch in &switches {
            let mut records: Vec<(FlowKeyV4, u64, u64)> = truth
                .records_of(epoch, switch)
                .iter()
                .map(|record| (simulation.key(record.flow), record.packets, record.bytes))
                .collect();
            records.sort_unstable();
            let switch_rows: Vec<FlowRow<'_>> = records
                .iter()
                .map(|(key, packets, bytes)| FlowRow {
                    epoch,
                    switch: topology.switches()[switch.index()].as_str(),
                    src: key.src(),
                    dst: key.dst(),
                    src_port: key.src_port(),
                    dst_port: key.dst_port(),
                    protocol: key.protocol(),
                    packets: Counter::exact(*packets),
                    bytes: with_bytes.then_some(Counter::exact(*bytes)),
                })
                .collect();
            rows.write(&switch_rows)?;
            written += switch_rows.len() as u64;
        }
        progress.set(epoch + 1);
    }
    rows.finish()?;
    Ok(written)
}

impl KeyKindChoice {
    fn style(self) -> KeyStyle {
        match self {
            Self::RandomPorts => KeyStyle::RandomPorts,
            Self::SequentialPorts => KeyStyle::SequentialPorts,
            Self::RandomAddresses => KeyStyle::RandomAddresses,
        }
    }
}

/// What was simulated.
#[derive(Debug, Serialize)]
struct SimulateSummary {
    folder: String,
    switches: usize,
    hosts: usize,
    epochs: u64,
    flows_per_epoch: u32,
    flows_per_switch: u32,
    /// Of one switch.
    cells: usize,
    /// Of one bank of one switch.
    switch_memory_bytes: u64,
    packets_sent: u64,
    packets_lost: u64,
    packets_in_flight: u64,
    packets_looped: u64,
    packets_misforwarded: u64,
    missing_reports: u64,
    files: u64,
    file_bytes: u64,
    truth_rows: u64,
    seconds: f64,
}

impl SimulateSummary {
    fn print(&self) {
        note!(
            "{}, {}, {} with {} each at {} a switch ({:.2} s)",
            counted(self.switches as u64, "switch").replace("switchs", "switches"),
            counted(self.hosts as u64, "host"),
            counted(self.epochs, "epoch"),
            counted(self.flows_per_epoch.into(), "flow"),
            grouped(self.flows_per_switch.into()),
            self.seconds,
        );
        note!(
            "  {} sent, {} lost, {} in flight at the end of an epoch, {} looped, {} misforwarded",
            counted(self.packets_sent, "packet"),
            grouped(self.packets_lost),
            grouped(self.packets_in_flight),
            grouped(self.packets_looped),
            grouped(self.packets_misforwarded),
        );
        note!(
            "  {} of {} a switch, {} in all; {} missing",
            counted(self.files, "flowset"),
            short_size(self.switch_memory_bytes),
            short_size(self.file_bytes),
            counted(self.missing_reports, "report"),
        );
        note!(
            "{} with {}; next: flowradar net-decode {}",
            Path::new(&self.folder).join("truth.csv").display(),
            counted(self.truth_rows, "row"),
            self.folder,
        );
    }
}
