//! The thread that writes: takes all appends that wait, writes them, forces them to disk once.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use tokio::sync::oneshot;

use super::frame::{framed_bytes, write_frame};
use super::remover::Remover;
use super::segment::SegmentNumber;
use super::{
    AppendError, Gauges, InHand, JournalOptions, OpenJournalError, Position, Record, State,
    file_error, sync_folder,
};

/// Bytes that are written together at most, beyond a single record.
const BATCH_BYTES_MAX: usize = 8 << 20;

pub(super) enum Request {
    Append {
        record: Vec<u8>,
        reply: oneshot::Sender<Result<Position, AppendError>>,
    },
    /// Like an append, but whoever sent it does not wait.
    Close(Vec<u8>),
    RemoveBefore(SegmentNumber),
}

pub(super) struct Writer {
    folder: PathBuf,
    options: JournalOptions,
    /// All segments but the current one, oldest first, with their sizes.
    older: Vec<(SegmentNumber, u64)>,
    remover: Remover,
    current: Segment,
    state: State,
    gauges: Arc<Gauges>,
    in_hand: Arc<InHand>,
    /// Bytes of the batch being written, kept for the next one.
    buffer: Vec<u8>,
}

struct Segment {
    number: SegmentNumber,
    /// None if the segment could not be made, or was given up: the next append makes another.
    file: Option<File>,
    bytes: u64,
}

/// A record, and who waits for it.
type Append = (
    Vec<u8>,
    Option<oneshot::Sender<Result<Position, AppendError>>>,
);

impl Writer {
    pub(super) fn new(
        folder: PathBuf,
        options: JournalOptions,
        segments: Vec<SegmentNumber>,
        state: State,
        gauges: Arc<Gauges>,
        in_hand: Arc<InHand>,
    ) -> Result<Self, OpenJournalError> {
        let mut sized = vec![];
        for number in segments {
            let path = number.path(&folder);
            let length = fs::metadata(&path)
                .map_err(file_error("read", &path))?
                .len();
            sized.push((number, length));
        }
        // Each run begins a segment of its own: what was written before is not touched again.
        let next = sized.last().map_or(1, |(last, _)| last.0 + 1);
        let remover =
            Remover::start(folder.clone()).map_err(file_error("start a thread for", &folder))?;
        Ok(Self {
            folder,
            options,
            older: sized,
            remover,
            current: Segment {
                number: SegmentNumber(next),
                file: None,
                bytes: 0,
            },
            state,
            gauges,
            in_hand,
            buffer: vec![],
        })
    }

    pub(super) fn run(mut self, requests: &Receiver<Request>) {
        while let Ok(first) = requests.recv() {
            let mut appends = vec![];
            let mut bytes = 0;
            let mut next = Some(first);
            while let Some(request) = next {
                match request {
                    Request::Append { record, reply } => {
                        bytes += record.len();
                        appends.push((record, Some(reply)));
                    }
                    Request::Close(record) => appends.push((record, None)),
                    Request::RemoveBefore(segment) => {
                        // What was asked for before comes before.
                        self.append(std::mem::take(&mut appends));
                        self.remove_before(segment);
                    }
                }
                next = if bytes < BATCH_BYTES_MAX {
                    requests.try_recv().ok()
                } else {
                    None
                };
            }
            self.append(appends);
            self.publish();
        }
    }

    /// Writes records and confirms them, or refuses them.
    fn append(&mut self, appends: Vec<Append>) {
        let mut accepted = vec![];
        let mut total = self.bytes();
        for (record, reply) in appends {
            let needed = framed_bytes(record.len()) as u64;
            match reply {
                Some(reply) if total + needed > self.options.bytes_max => {
                    self.gauges.refused.fetch_add(1, Ordering::Relaxed);
                    _ = reply.send(Err(AppendError::Full {
                        bytes_max: self.options.bytes_max,
                    }));
                }
                reply => {
                    total += needed;
                    accepted.push((record, reply));
                }
            }
        }
        if accepted.is_empty() {
            return;
        }
        match self.write(&accepted) {
            Ok(positions) => {
                self.gauges
                    .appended
                    .fetch_add(accepted.len() as u64, Ordering::Relaxed);
                for ((record, reply), position) in accepted.into_iter().zip(positions) {
                    if let Ok(record) = Record::read(&record) {
                        self.state.apply(&record);
                        if matches!(record, Record::Report(_)) {
                            self.in_hand.add(position.segment);
                        }
                    }
                    // Whoever asked may be gone; the record is there all the same.
                    _ = reply.map(|reply| reply.send(Ok(position)));
                }
            }
            Err(error) => {
                self.gauges
                    .refused
                    .fetch_add(accepted.len() as u64, Ordering::Relaxed);
                let refused = AppendError::Disk {
                    kind: error.kind(),
                    message: error.to_string(),
                };
                for reply in accepted.into_iter().filter_map(|(_, reply)| reply) {
                    _ = reply.send(Err(refused.clone()));
                }
            }
        }
    }

    /// Writes a batch and forces it to disk. After an error nothing of it is in the journal.
    fn write(&mut self, batch: &[Append]) -> io::Result<Vec<Position>> {
        if self.current.file.is_some() && self.current.bytes >= self.options.segment_bytes {
            self.close_segment();
        }
        if self.current.file.is_none() {
            self.begin_segment()?;
        }
        let begin = self.current.bytes;
        self.buffer.clear();
        let mut positions = Vec::with_capacity(batch.len());
        for (record, _) in batch {
            let offset = begin + self.buffer.len() as u64;
            positions.push(Position {
                segment: self.current.number.0,
                offset,
                bytes: record.len() as u32,
            });
            write_frame(&mut self.buffer, record, self.current.number.0, offset);
        }
        self.write_buffer()?;
        self.buffer.shrink_to(BATCH_BYTES_MAX);
        Ok(positions)
    }

    /// Writes the buffer at the end of the segment, whole and durably, or not at all.
    fn write_buffer(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.current.file else {
            return Err(io::Error::other("no segment is open"));
        };
        if let Err(error) = file.write_all(&self.buffer) {
            let restored = file
                .set_len(self.current.bytes)
                .and_then(|()| file.seek(SeekFrom::Start(self.current.bytes)));
            if restored.is_err() {
                self.close_segment();
            }
            return Err(error);
        }
        self.gauges.syncs.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = file.sync_data() {
            // What the system holds of the file is unknown from now on: it is cut to what was forced to
            // disk before, and not written any more.
            _ = file.set_len(self.current.bytes);
            self.close_segment();
            return Err(error);
        }
        self.current.bytes += self.buffer.len() as u64;
        Ok(())
    }

    /// Makes the current segment's file, with the state at its beginning.
    fn begin_segment(&mut self) -> io::Result<()> {
        let path = self.current.number.path(&self.folder);
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)?;
        self.current.file = Some(file);
        self.current.bytes = 0;
        self.buffer.clear();
        let state = Record::State(self.state.clone()).write();
        write_frame(&mut self.buffer, &state, self.current.number.0, 0);
        let begun = self.write_buffer().and_then(|()| sync_folder(&self.folder));
        if begun.is_err() {
            // The same number is tried again, on a file made anew.
            self.current.file = None;
            self.current.bytes = 0;
            _ = fs::remove_file(&path);
        }
        begun
    }

    /// No more is written to the current segment; the next one begins with the next append.
    fn close_segment(&mut self) {
        self.older.push((self.current.number, self.current.bytes));
        self.current = Segment {
            number: SegmentNumber(self.current.number.0 + 1),
            file: None,
            bytes: 0,
        };
    }

    fn remove_before(&mut self, segment: SegmentNumber) {
        // The current segment's number has a state of its own only once it was begun.
        if self.current.file.is_none() && self.begin_segment().is_err() {
            return;
        }
        let in_hand = self.in_hand.first().map_or(segment, SegmentNumber);
        let before = segment.min(in_hand);
        while let Some(&(oldest, bytes)) = self.older.first()
            && oldest < before
        {
            self.remover.remove(oldest, bytes);
            self.older.remove(0);
        }
        self.publish();
    }

    fn bytes(&self) -> u64 {
        let older: u64 = self.older.iter().map(|(_, bytes)| bytes).sum();
        self.current.bytes + older + self.remover.stuck().1
    }

    fn publish(&self) {
        let segments = self.older.len() as u64
            + u64::from(self.current.file.is_some())
            + self.remover.stuck().0;
        self.gauges.bytes.store(self.bytes(), Ordering::Relaxed);
        self.gauges.segments.store(segments, Ordering::Relaxed);
    }
}
