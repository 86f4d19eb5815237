//! `encode`: packet traces to flowsets, as a switch would encode them.

mod report;
mod stream;
mod switch;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use flowradar_core::KeyKind;
use flowradar_core::flowset::{Epoch, SwitchName};
use hyperloglockless::HyperLogLogPlus;
use xxhash_rust::xxh3::xxh3_64;

use self::report::EncodeSummary;
use self::stream::PacketStream;
use self::switch::SwitchEncoder;
use crate::flowset_files;
use crate::layout_options::LayoutOptions;
use crate::outcome::{CommandError, Completeness};
use crate::output;
use crate::progress::Progress;
use crate::text::note;
use crate::trace::{InputFormat, TraceKey};
use crate::units::EpochLength;

/// Flows that a table is made for if nobody says and the input cannot be read twice.
const FLOWS_DEFAULT: u64 = 100_000;

/// Registers of the estimate of the number of flows, as a power of two: a standard error of 0.6 %.
const ESTIMATE_PRECISION: u8 = 15;

/// How much more flows than estimated a table is made for: five standard errors.
const ESTIMATE_MARGIN: f64 = 1.03;

/// Seed of the estimate's hashes, so that a trace gives the same flowsets every time.
const ESTIMATE_SEED: u128 = 0x5EED;

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
        .layout
        .seed
        .unwrap_or_else(|| xxh3_64(args.switch.as_str().as_bytes()));
    // An epoch without an end may hold any number of packets.
    let packet_count_bits = if args.epoch == EpochLength::Whole {
        32
    } else {
        24
    };
    let layout = |key, flows| args.layout.layout(key, flows, seed, packet_count_bits);
    let mut encoder = SwitchEncoder::new(
        args.switch.clone(),
        &args.out,
        planned,
        layout(KeyKind::V4, planned.v4)?,
        layout(KeyKind::V6, planned.v6)?,
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

/// As asked for, or as many as there are, or a default.
fn planned_flows(args: &EncodeArgs) -> Result<PlannedFlows, CommandError> {
    if let Some(flows) = args.layout.flows {
        return Ok(PlannedFlows {
            v4: flows,
            v6: flows,
        });
    }
    if let Some(memory) = args.layout.memory {
        return Ok(PlannedFlows {
            v4: args.layout.flows_in(KeyKind::V4, memory)?,
            v6: args.layout.flows_in(KeyKind::V6, memory)?,
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

/// Estimates the most flows of an epoch, by HyperLogLog: constant memory.
struct FlowEstimate {
    v4: HyperLogLogPlus,
    v6: HyperLogLogPlus,
    most: PlannedFlows,
}

impl FlowEstimate {
    fn packet(&mut self, key: &TraceKey) {
        match key {
            TraceKey::V4(key) => self.v4.insert(key),
            TraceKey::V6(key) => self.v6.insert(key),
        }
    }

    fn end_epoch(&mut self) {
        let flows = |estimate: &mut HyperLogLogPlus| {
            let count = std::mem::replace(estimate, new_estimate()).count();
            (count as f64 * ESTIMATE_MARGIN).ceil() as u64
        };
        self.most.v4 = self.most.v4.max(flows(&mut self.v4));
        self.most.v6 = self.most.v6.max(flows(&mut self.v6));
    }
}

impl Default for FlowEstimate {
    fn default() -> Self {
        Self {
            v4: new_estimate(),
            v6: new_estimate(),
            most: PlannedFlows { v4: 1, v6: 1 },
        }
    }
}

fn new_estimate() -> HyperLogLogPlus {
    HyperLogLogPlus::seeded(ESTIMATE_PRECISION, ESTIMATE_SEED)
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

/// Which epoch packets belong to.
#[derive(Debug)]
struct EpochClock {
    length: EpochLength,
    current: Option<Epoch>,
    /// Epochs with packets.
    epochs: u64,
    empty_epochs_skipped: u64,
    /// Packets counted in a later epoch than they belong to.
    late_packets: u64,
    /// Packets without a timestamp where one is needed: counted in the epoch of the packet before.
    packets_without_time: u64,
}

impl EpochClock {
    fn new(length: EpochLength) -> Self {
        Self {
            length,
            current: None,
            epochs: 0,
            empty_epochs_skipped: 0,
            late_packets: 0,
            packets_without_time: 0,
        }
    }

    /// The epoch to count a packet in; and if the epoch before has ended with it, the numbers of
    /// the empty epochs in between.
    fn advance(&mut self, timestamp_ns: Option<u64>) -> (Epoch, Option<Range<u64>>) {
        let wanted = match (self.length, timestamp_ns, self.current) {
            (EpochLength::Whole, _, Some(current)) => current,
            (EpochLength::Whole, start_ns, None) => Epoch {
                number: 0,
                start_ns: start_ns.unwrap_or(0),
                length_ns: 0,
            },
            (EpochLength::Nanoseconds(length_ns), Some(time_ns), _) => {
                self.epoch(time_ns / length_ns)
            }
            (EpochLength::Nanoseconds(_), None, current) => {
                self.packets_without_time += 1;
                current.unwrap_or_else(|| self.epoch(0))
            }
        };
        match self.current {
            Some(current) if wanted.number == current.number => (current, None),
            Some(current) if wanted.number < current.number => {
                self.late_packets += 1;
                (current, None)
            }
            before => {
                self.current = Some(wanted);
                self.epochs += 1;
                (
                    wanted,
                    before.map(|before| before.number + 1..wanted.number),
                )
            }
        }
    }

    /// The epoch of packets now.
    fn current(&self) -> Epoch {
        self.current.unwrap_or_default()
    }

    /// The epoch of this number.
    fn epoch(&self, number: u64) -> Epoch {
        let length_ns = match self.length {
            EpochLength::Whole => 0,
            EpochLength::Nanoseconds(length_ns) => length_ns,
        };
        Epoch {
            number,
            start_ns: number * length_ns,
            length_ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn epochs_begin_at_multiples_of_their_length() {
        let mut clock = EpochClock::new(EpochLength::Nanoseconds(10 * MS));
        let (epoch, ended) = clock.advance(Some(1_234 * MS + 567));
        let expected = Epoch {
            number: 123,
            start_ns: 1_230 * MS,
            length_ns: 10 * MS,
        };
        assert_eq!((epoch, ended), (expected, None));
        assert_eq!(clock.advance(Some(1_239 * MS + 999_999)), (expected, None));
        let (epoch, ended) = clock.advance(Some(1_240 * MS));
        assert_eq!((epoch.number, ended), (124, Some(124..124)));
        let (epoch, ended) = clock.advance(Some(1_300 * MS));
        assert_eq!((epoch.number, ended), (130, Some(125..130)));
        assert_eq!((clock.epochs, clock.late_packets), (3, 0));
    }

    #[test]
    fn time_never_goes_back() {
        let mut clock = EpochClock::new(EpochLength::Nanoseconds(10 * MS));
        clock.advance(Some(55 * MS));
        let (epoch, ended) = clock.advance(Some(49 * MS));
        assert_eq!((epoch.number, ended), (5, None));
        let (epoch, ended) = clock.advance(None);
        assert_eq!((epoch.number, ended), (5, None));
        // Late within the epoch is not late.
        clock.advance(Some(51 * MS));
        assert_eq!((clock.late_packets, clock.packets_without_time), (1, 1));
    }

    #[test]
    fn the_whole_trace_is_one_epoch() {
        let mut clock = EpochClock::new(EpochLength::Whole);
        for time in [Some(7 * MS), Some(3 * MS), None, Some(u64::MAX)] {
            let (epoch, ended) = clock.advance(time);
            let expected = Epoch {
                number: 0,
                start_ns: 7 * MS,
                length_ns: 0,
            };
            assert_eq!((epoch, ended), (expected, None));
        }
        assert_eq!((clock.epochs, clock.late_packets), (1, 0));
    }

    #[test]
    fn the_estimate_is_of_the_largest_epoch() {
        let mut estimate = FlowEstimate::default();
        for flows in [500_u16, 2000, 100] {
            for port in 0..flows {
                let key = flowradar_core::FlowKeyV4::new(
                    [10, 0, 0, 1].into(),
                    [10, 0, 0, 2].into(),
                    port,
                    80,
                    6,
                );
                estimate.packet(&TraceKey::V4(key));
            }
            estimate.end_epoch();
        }
        assert!(
            (2000..2200).contains(&estimate.most.v4),
            "{:?}",
            estimate.most
        );
        assert_eq!(estimate.most.v6, 1);
    }
}
