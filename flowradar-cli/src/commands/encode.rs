//! `encode`: packet traces to flowsets, as a switch would encode them.

mod clock;
mod estimate;
mod report;
mod stream;
mod switch;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use flowradar_core::KeyKind;
use flowradar_core::flowset::SwitchName;
use flowradar_core::plan::PlanRequest;
use xxhash_rust::xxh3::xxh3_64;

use self::clock::EpochClock;
use self::estimate::FlowEstimate;
use self::report::EncodeSummary;
use self::stream::PacketStream;
use self::switch::SwitchEncoder;
use crate::flowset_files;
use crate::layout_options::{
    self, FAILURE_PROBABILITY, FilterArgument, LayoutOptions, PACKET_COUNT_BITS,
    PACKET_COUNT_BITS_UNLIMITED,
};
use crate::outcome::{CommandError, Completeness};
use crate::output;
use crate::progress::Progress;
use crate::text::note;
use crate::trace::InputFormat;
use crate::units::{self, EpochLength};

/// Flows that a table is made for if nobody says and the input cannot be read twice.
const FLOWS_DEFAULT: u64 = 100_000;

/// Most empty epochs one after the other that are written.
const EMPTY_EPOCHS_MAX: u64 = 10_000;

/// Packets between two looks at the clock of the progress bar.
const PROGRESS_PACKETS: u64 = 1 << 14;

/// Encode packet traces into flowsets, as a switch would
///
/// IPv4 and IPv6 flows get tables and files of their own: DIR/SWITCH-EPOCH-v4.flowset and
/// ...-v6.flowset. pcap and pcapng may be compressed with gzip or zstd; "-" is standard input.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
How large the tables are: as large as the flows need. Without --flows and --memory, files are read
twice, the first time to estimate how many flows an epoch has. Standard input and pipes cannot be
read twice: there it is 100,000 flows unless --flows or --memory says otherwise.

Epochs begin at multiples of their length since 1970, by the packets' timestamps. Several inputs are
merged by time. A packet that comes after its epoch has ended is counted in the current one, and
reported as late. Epochs without packets have no file.

Examples:
  flowradar encode trace.pcap --out flowsets
  flowradar encode mon.pcap.gz tue.pcap.gz --out flowsets --epoch 10ms --switch leaf-1 --bytes
  tcpdump -i eth0 -w - | flowradar encode - --out flowsets --flows 20000
  flowradar encode tuples.dat --input-format tuple13 --out flowsets
  flowradar encode trace.pcap --out flowsets --memory 2MB --filter partitioned --family crc-add

The exit code is 3 if an input was damaged or some packets could not be counted; what was read is
kept, and what is missing is said.")]
pub(crate) struct EncodeArgs {
    /// Packet traces
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,

    /// Folder for the flowsets; made if it does not exist
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Name of the switch that the flowsets shall report
    #[arg(long, value_name = "NAME", default_value = "switch-1")]
    switch: SwitchName,

    /// Length of an epoch, such as 10ms; or "whole" for one epoch of everything
    #[arg(long, value_name = "LENGTH", default_value_t)]
    epoch: EpochLength,

    /// Also write epochs without packets, if no more than 10,000 come one after the other
    #[arg(long)]
    empty_epochs: bool,

    /// Remove flowsets that the folder holds of the same switch
    #[arg(long)]
    overwrite: bool,

    /// Format of the inputs: auto (pcap or pcapng), pcap, pcapng, or tuple13 (records of 13 bytes:
    /// addresses, ports and protocol of an IPv4 packet)
    #[arg(long, value_name = "FORMAT", default_value_t)]
    input_format: InputFormat,

    /// Timestamps for a tuple13 input: one little-endian f64 a record, in seconds
    #[arg(long, value_name = "FILE")]
    timestamps: Option<PathBuf>,

    /// Print the summary as JSON to standard output
    #[arg(long)]
    json: bool,

    /// Flows of one epoch (of IPv4, and as many of IPv6) that must be decodable
    #[arg(long, value_name = "N", value_parser = units::parse_count, help_heading = "Layout")]
    flows: Option<u64>,

    /// Memory of one bank (for IPv4, and as much for IPv6) as on a switch: flow filter and counting
    /// table, such as 2MB or 2MiB; chooses the number of flows
    #[arg(
        long,
        value_name = "BYTES",
        value_parser = units::parse_size,
        conflicts_with_all = ["flows", "cells_per_flow"],
        help_heading = "Layout"
    )]
    memory: Option<u64>,

    /// Seed of the hash functions; without it, one that follows from the switch's name
    #[arg(long, value_name = "S", help_heading = "Layout")]
    seed: Option<u64>,

    /// Arrangement of the flow filter
    #[arg(long, value_enum, default_value_t = FilterArgument::Blocked, help_heading = "Layout")]
    filter: FilterArgument,

    #[command(flatten)]
    layout: LayoutOptions,
}

/// Flows to make tables for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PlannedFlows {
    v4: u64,
    v6: u64,
}

/// Runs the command.
pub(crate) fn run(args: &EncodeArgs) -> Result<Completeness, CommandError> {
    let start = Instant::now();
    check_arguments(args)?;
    check_inputs(&args.inputs)?;
    prepare_folder(&args.out, &args.switch, args.overwrite)?;

    let planned = planned_flows(args)?;
    let seed = args
        .seed
        .unwrap_or_else(|| xxh3_64(args.switch.as_str().as_bytes()));
    let layout = |key, size| -> Result<_, CommandError> {
        let request = request(args, key, size)?.seed(seed);
        Ok(layout_options::plan(&request)?.layout)
    };
    let mut encoder = SwitchEncoder::new(
        args.switch.clone(),
        &args.out,
        planned,
        layout(KeyKind::V4, PlanRequest::flows(planned.v4))?,
        layout(KeyKind::V6, PlanRequest::flows(planned.v6))?,
    );

    let mut stream = packet_stream(args);
    let mut clock = EpochClock::new(args.epoch);
    let progress = Progress::bytes("encoding", stream.input_bytes_total());
    let mut packets: u64 = 0;
    while let Some(packet) = stream.next_packet() {
        let (epoch, ended) = clock.advance(packet.timestamp_ns);
        if let Some(gap) = ended {
            end_epoch(args, &mut encoder, &mut clock, gap)?;
        }
        encoder.packet(epoch, &packet)?;
        packets += 1;
        if packets.is_multiple_of(PROGRESS_PACKETS) {
            progress.set(stream.input_bytes());
        }
    }
    encoder.end_epoch(clock.current(), false)?;
    drop(progress);

    let outcome = stream.finish();
    let errors = || outcome.iter().filter_map(|input| input.error.as_ref());
    if packets == 0 && errors().count() > 0 {
        for error in errors() {
            note!("error: {error}");
        }
        return Err(CommandError::Failed("no packet could be read".into()));
    }
    let summary = EncodeSummary::new(args, planned, &outcome, &encoder, &clock, start);
    if args.json {
        output::print_json(&summary)?;
    } else {
        summary.print();
    }
    Ok(Completeness::of(summary.complete))
}

fn check_arguments(args: &EncodeArgs) -> Result<(), CommandError> {
    let usage = |message: &str| Err(CommandError::Usage(message.into()));
    let is_tuple13 = args.input_format == InputFormat::Tuple13;
    if args.timestamps.is_some() && !is_tuple13 {
        return usage("--timestamps goes with --input-format tuple13 only");
    }
    if args.timestamps.is_some() && args.inputs.len() > 1 {
        return usage("--timestamps goes with a single input");
    }
    if is_tuple13 && args.timestamps.is_none() && args.epoch != EpochLength::Whole {
        return usage("tuple13 records have no time: leave out --epoch, or add --timestamps FILE");
    }
    if is_tuple13 && args.layout.bytes {
        return usage("tuple13 records have no lengths: leave out --bytes");
    }
    if args.empty_epochs && args.epoch == EpochLength::Whole {
        return usage(
            "--empty-epochs goes with epochs of a length: add --epoch, such as --epoch 10ms",
        );
    }
    if args
        .inputs
        .iter()
        .filter(|path| is_standard_input(path))
        .count()
        > 1
    {
        return usage("standard input (-) can be read only once");
    }
    if args.inputs.len() > stream::INPUTS_MAX && args.epoch != EpochLength::Whole {
        return Err(CommandError::Usage(format!(
            "{} inputs are too many to merge by time: use at most {}",
            args.inputs.len(),
            stream::INPUTS_MAX
        )));
    }
    Ok(())
}

fn is_standard_input(path: &Path) -> bool {
    path == Path::new("-")
}

/// A misspelt name shall not be found after an hour of reading others.
fn check_inputs(inputs: &[PathBuf]) -> Result<(), CommandError> {
    for path in inputs.iter().filter(|path| !is_standard_input(path)) {
        let metadata = fs::metadata(path).map_err(CommandError::file("read", path))?;
        if metadata.is_dir() {
            return Err(CommandError::Failed(format!(
                "{} is a folder: name the traces in it, as in {}/*.pcap",
                path.display(),
                path.display()
            )));
        }
    }
    Ok(())
}

/// Makes the folder. Flowsets of another run under the same name would be taken for part of this
/// one, so they must not be there.
fn prepare_folder(folder: &Path, switch: &SwitchName, overwrite: bool) -> Result<(), CommandError> {
    fs::create_dir_all(folder).map_err(CommandError::file("make", folder))?;
    let mut old = vec![];
    for entry in fs::read_dir(folder).map_err(CommandError::file("read", folder))? {
        let entry = entry.map_err(CommandError::file("read", folder))?;
        let name = entry.file_name();
        if name
            .to_str()
            .is_some_and(|name| flowset_files::is_of_switch(name, switch))
        {
            old.push(entry.path());
        }
    }
    if old.is_empty() {
        return Ok(());
    }
    if !overwrite {
        return Err(CommandError::Failed(format!(
            "{} already holds flowsets of the switch {switch}: use another folder, another --switch, \
             or --overwrite to remove them",
            folder.display()
        )));
    }
    for path in old {
        fs::remove_file(&path).map_err(CommandError::file("remove", &path))?;
    }
    Ok(())
}

fn packet_stream(args: &EncodeArgs) -> PacketStream {
    PacketStream::new(
        &args.inputs,
        args.input_format,
        args.timestamps.as_deref(),
        args.epoch != EpochLength::Whole,
    )
}

/// A request for a plan of this size for the flows of this kind.
fn request(
    args: &EncodeArgs,
    key: KeyKind,
    size: PlanRequest,
) -> Result<PlanRequest, CommandError> {
    let packet_count_bits = match args.epoch {
        EpochLength::Whole => PACKET_COUNT_BITS_UNLIMITED,
        EpochLength::Nanoseconds(_) => PACKET_COUNT_BITS,
    };
    let size = size
        .filter(args.filter.kind())
        .failure_probability(FAILURE_PROBABILITY);
    args.layout.shape(size, key, packet_count_bits)
}

/// As asked for, or as many as there are, or a default.
fn planned_flows(args: &EncodeArgs) -> Result<PlannedFlows, CommandError> {
    if let Some(flows) = args.flows {
        return Ok(PlannedFlows {
            v4: flows,
            v6: flows,
        });
    }
    if let Some(memory) = args.memory {
        let flows = |key| -> Result<u64, CommandError> {
            // More than 2^64 bits is more than any layout has.
            let size = PlanRequest::for_memory(memory.saturating_mul(8));
            Ok(layout_options::plan(&request(args, key, size)?)?.flows)
        };
        return Ok(PlannedFlows {
            v4: flows(KeyKind::V4)?,
            v6: flows(KeyKind::V6)?,
        });
    }
    let can_be_read_twice = |path: &PathBuf| fs::metadata(path).is_ok_and(|file| file.is_file());
    let files = args.inputs.iter().chain(&args.timestamps);
    if files.clone().all(can_be_read_twice) {
        return Ok(estimate_flows(args));
    }
    Ok(PlannedFlows {
        v4: FLOWS_DEFAULT,
        v6: FLOWS_DEFAULT,
    })
}

/// Reads everything once to estimate the most flows of an epoch. Errors in the inputs are left to
/// the second reading.
fn estimate_flows(args: &EncodeArgs) -> PlannedFlows {
    let mut stream = packet_stream(args);
    let progress = Progress::bytes("estimating flows", stream.input_bytes_total());
    let mut clock = EpochClock::new(args.epoch);
    let mut estimate = FlowEstimate::default();
    let mut packets: u64 = 0;
    while let Some(packet) = stream.next_packet() {
        let (_, ended) = clock.advance(packet.timestamp_ns);
        if ended.is_some() {
            estimate.end_epoch();
        }
        estimate.packet(&packet.key);
        packets += 1;
        if packets.is_multiple_of(PROGRESS_PACKETS) {
            progress.set(stream.input_bytes());
        }
    }
    estimate.end_epoch();
    estimate.most
}

/// Ends the current epoch after the clock went on, and writes or skips the empty ones that follow.
fn end_epoch(
    args: &EncodeArgs,
    encoder: &mut SwitchEncoder,
    clock: &mut EpochClock,
    gap: Range<u64>,
) -> Result<(), CommandError> {
    let empty_epochs = gap.end - gap.start;
    if !args.empty_epochs || empty_epochs > EMPTY_EPOCHS_MAX {
        clock.empty_epochs_skipped += empty_epochs;
        return encoder.end_epoch(clock.current(), false);
    }
    for number in gap {
        encoder.end_epoch(clock.epoch(number), args.empty_epochs)?;
    }
    encoder.end_epoch(clock.current(), args.empty_epochs)
}
