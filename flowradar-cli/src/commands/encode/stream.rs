//! The packets of all inputs, one after the other or merged by time.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use crate::trace::{InputFormat, TraceError, TracePacket, TraceReader, TraceStats};

/// Most inputs that are merged by time: all of them are open at once, with a buffer each.
pub(super) const INPUTS_MAX: usize = 500;

/// Packets of one or more traces. Memory is bounded by the number of inputs.
///
/// What goes wrong in an input ends that input, not the stream; [`PacketStream::finish`] tells.
pub(super) struct PacketStream {
    format: InputFormat,
    timestamps: Option<PathBuf>,
    /// Inputs that are not open yet.
    waiting: VecDeque<PathBuf>,
    /// Inputs that are open; none at the place of one that has ended.
    readers: Vec<Option<TraceReader>>,
    /// The next packet of each reader, if the inputs are merged by time.
    merge: Option<BinaryHeap<Reverse<Next>>>,
    outcomes: Vec<InputOutcome>,
    finished_bytes: u64,
    input_bytes_total: u64,
}

/// The next packet of a reader: ordered by time, and by the order of inputs where that is equal.
struct Next {
    time_ns: u64,
    reader: usize,
    packet: TracePacket,
}

/// What became of an input.
#[derive(Debug)]
pub(super) struct InputOutcome {
    pub(super) name: String,
    /// None if it could not be opened.
    pub(super) format: Option<InputFormat>,
    pub(super) stats: TraceStats,
    /// Why it was not read to its end.
    pub(super) error: Option<TraceError>,
}

impl PacketStream {
    /// A stream of inputs, merged by time if `by_time`.
    pub(super) fn new(
        inputs: &[PathBuf],
        format: InputFormat,
        timestamps: Option<&Path>,
        by_time: bool,
    ) -> Self {
        let mut stream = Self {
            format,
            timestamps: timestamps.map(Path::to_path_buf),
            waiting: inputs.iter().cloned().collect(),
            readers: vec![],
            merge: (by_time && inputs.len() > 1).then(BinaryHeap::new),
            outcomes: vec![],
            finished_bytes: 0,
            input_bytes_total: total_bytes(inputs),
        };
        if stream.merge.is_some() {
            while let Some(reader) = stream.open_next() {
                stream.readers.push(Some(reader));
                stream.refill(stream.readers.len() - 1, 0);
            }
        }
        stream
    }

    /// The next packet; none when all inputs have ended.
    pub(super) fn next_packet(&mut self) -> Option<TracePacket> {
        if let Some(merge) = &mut self.merge {
            let Reverse(next) = merge.pop()?;
            self.refill(next.reader, next.time_ns);
            return Some(next.packet);
        }
        loop {
            if self.readers.is_empty() {
                let reader = self.open_next()?;
                self.readers.push(Some(reader));
            }
            match self.read(0) {
                Some(packet) => return Some(packet),
                None => self.readers.clear(),
            }
        }
    }

    /// Bytes read of the inputs so far, as they are stored.
    pub(super) fn input_bytes(&self) -> u64 {
        let open = self.readers.iter().flatten();
        self.finished_bytes + open.map(TraceReader::input_bytes).sum::<u64>()
    }

    /// Bytes of all inputs, as they are stored; 0 if that is not known.
    pub(super) fn input_bytes_total(&self) -> u64 {
        self.input_bytes_total
    }

    /// What became of each input that was read or could not be.
    pub(super) fn finish(mut self) -> Vec<InputOutcome> {
        for index in 0..self.readers.len() {
            self.close(index, None);
        }
        self.outcomes
    }

    /// Opens the next input that can be opened.
    fn open_next(&mut self) -> Option<TraceReader> {
        while let Some(path) = self.waiting.pop_front() {
            let opened = TraceReader::open(&path, self.format);
            let opened = match &self.timestamps {
                Some(timestamps) => opened.and_then(|reader| reader.with_timestamps(timestamps)),
                None => opened,
            };
            match opened {
                Ok(reader) => return Some(reader),
                Err(error) => self.outcomes.push(InputOutcome {
                    name: path.display().to_string(),
                    format: None,
                    stats: TraceStats::default(),
                    error: Some(error),
                }),
            }
        }
        None
    }

    /// The next packet of a reader; when it has ended it is closed.
    fn read(&mut self, index: usize) -> Option<TracePacket> {
        match self.readers[index].as_mut()?.next() {
            Some(Ok(packet)) => Some(packet),
            Some(Err(error)) => {
                self.close(index, Some(error));
                None
            }
            None => {
                self.close(index, None);
                None
            }
        }
    }

    /// Puts the next packet of a reader into the merge. A packet without a timestamp comes right
    /// after the one before.
    fn refill(&mut self, reader: usize, before_ns: u64) {
        let packet = self.read(reader);
        if let (Some(packet), Some(merge)) = (packet, &mut self.merge) {
            merge.push(Reverse(Next {
                time_ns: packet.timestamp_ns.unwrap_or(before_ns),
                reader,
                packet,
            }));
        }
    }

    fn close(&mut self, index: usize, error: Option<TraceError>) {
        if let Some(reader) = self.readers[index].take() {
            self.finished_bytes += reader.input_bytes();
            self.outcomes.push(InputOutcome {
                name: reader.name().into(),
                format: Some(reader.format()),
                stats: reader.stats().clone(),
                error,
            });
        }
    }
}

impl PartialEq for Next {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Next {}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Next {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.time_ns, self.reader).cmp(&(other.time_ns, other.reader))
    }
}

/// Bytes of all inputs; 0 if one of them is not a file.
fn total_bytes(inputs: &[PathBuf]) -> u64 {
    let sizes = inputs.iter().map(|path| {
        let metadata = fs::metadata(path).ok()?;
        metadata.is_file().then_some(metadata.len())
    });
    sizes.sum::<Option<u64>>().unwrap_or(0)
}
