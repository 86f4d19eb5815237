//! The journal: what was acknowledged is here, whatever happens next.
//!
//! A write-ahead log in segments. Everything that agents report is appended; appends are written
//! together and forced to disk once for all of them (*group commit*), and only then confirmed. When the
//! process or the machine comes back, [`Journal::open`] shows every record again, in order: nothing that
//! was confirmed is missing, and the [`State`] says which flowsets of which agent are there, so that
//! none is taken twice.
//!
//! - A record is valid only at its place: its checksum is over its bytes, seeded by segment and offset.
//! - The last write before a crash may be torn. It was never confirmed; it is cut off.
//! - Damage elsewhere is skipped, up to the next valid record, and reported in [`Recovery`].
//! - Segments are removed, oldest first, when nothing in them is needed any more. Each begins with a
//!   [`State`], so the numbers survive what they number.
//! - When the disk or the journal is full, appends are refused and change nothing: the caller waits or
//!   refuses in turn. If the disk fails while it is told to force writes, the segment is given up.

mod frame;
mod record;
mod remover;
mod segment;
mod state;
mod writer;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;

pub use frame::{FRAME_HEADER_BYTES, Frame, FrameError, Frames, RECORD_BYTES_MAX, write_frame};
pub use record::{Closed, Record, RecordError, Report, ReportSource};
pub use state::{Link, State, SwitchState};

use segment::SegmentNumber;
use writer::{Request, Writer};

/// Appends waiting for the writer, beyond which appending waits.
const APPENDS_WAITING_MAX: usize = 1024;

/// How often [`Journal::closed`] looks.
const CLOSE_POLL: Duration = Duration::from_millis(5);

/// Sizes of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalOptions {
    /// A new segment is begun when one has grown to this many bytes.
    pub segment_bytes: u64,
    /// Appends are refused when all segments together would be larger.
    pub bytes_max: u64,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            bytes_max: 4 << 30,
        }
    }
}

/// Where a record is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct Position {
    /// Number of the segment.
    pub segment: u64,
    /// Offset of the record's frame in it.
    pub offset: u64,
    /// Bytes of the record.
    pub bytes: u32,
}

/// Why a record was not appended. Nothing of it is in the journal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The journal is closed.
    #[error("the journal is closed")]
    Closed,
    /// The operating system refused.
    #[error("the journal cannot be written ({kind}): {message}")]
    Disk {
        /// What kind of error.
        kind: io::ErrorKind,
        /// The operating system's words.
        message: String,
    },
    /// The journal has reached its largest size.
    #[error(
        "the journal has reached its largest size, {bytes_max} bytes: decoding or storing lags behind, \
         or [journal] bytes_max is too small"
    )]
    Full {
        /// The largest size.
        bytes_max: u64,
    },
    /// The record is larger than any record may be.
    #[error("a record of {bytes} bytes: {RECORD_BYTES_MAX} are the most")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// Why a journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenJournalError {
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// Another process has the journal open.
    #[error("{} is in use by another collector", .0.display())]
    InUse(PathBuf),
}

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadRecordError {
    /// The operating system could not read it.
    #[error("cannot read the journal: {0}")]
    Read(#[from] io::Error),
    /// There is no valid record at this place.
    #[error("segment {} at byte {}: {source}", position.segment, position.offset)]
    Frame {
        /// The place.
        position: Position,
        /// What is wrong.
        source: FrameError,
    },
    /// The record's bytes make no record.
    #[error("segment {} at byte {}: {source}", position.segment, position.offset)]
    Record {
        /// The place.
        position: Position,
        /// What is wrong.
        source: RecordError,
    },
}

/// What was found when a journal was opened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recovery {
    /// Segments.
    pub segments: usize,
    /// Valid records.
    pub records: u64,
    /// Bytes cut off after the last valid record: a write that a crash interrupted.
    pub torn_bytes: u64,
    /// Stretches of bytes, between valid records, that are none: the disk or someone changed them.
    pub damaged_stretches: u64,
    /// Bytes of these.
    pub damaged_bytes: u64,
}

/// Appends to a journal and reads from it. Clones share it; the journal is closed when the last one is
/// dropped.
#[derive(Clone, Debug)]
pub struct Journal {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    requests: Option<SyncSender<Request>>,
    writer: Option<JoinHandle<()>>,
    gauges: Arc<Gauges>,
    in_hand: Arc<InHand>,
    /// Held so that no other process opens the journal.
    _lock: File,
}

/// Reports that were appended and of which grouping has not heard yet, by segment: it cannot know that
/// they are still needed.
#[derive(Debug, Default)]
struct InHand(Mutex<BTreeMap<u64, u64>>);

/// What a journal holds and does.
#[derive(Debug, Default)]
pub struct Gauges {
    /// Bytes in all segments.
    pub bytes: AtomicU64,
    /// Segments.
    pub segments: AtomicU64,
    /// Records appended since it was opened.
    pub appended: AtomicU64,
    /// Appends refused since.
    pub refused: AtomicU64,
    /// How often written bytes were forced to disk.
    pub syncs: AtomicU64,
}

impl Journal {
    /// Opens the journal in a folder, which is made if it is not there, and shows all its records to
    /// `replay`, oldest first, with the bytes of the record; returns the state after the last one.
    ///
    /// Reads a whole segment into memory at a time.
    ///
    /// # Errors
    /// If a file cannot be read or written, or another process has the journal open.
    pub fn open(
        folder: &Path,
        options: JournalOptions,
        mut replay: impl FnMut(Position, Record<'_>),
    ) -> Result<(Self, State, Recovery), OpenJournalError> {
        fs::create_dir_all(folder).map_err(file_error("make", folder))?;
        let lock = lock(folder)?;
        let mut recovery = Recovery::default();
        let mut state = State::default();
        let segments = segment::list(folder)?;
        let mut bytes = 0;
        for (index, &number) in segments.iter().enumerate() {
            let last = index + 1 == segments.len();
            bytes += recover(folder, number, last, &mut recovery, |position, record| {
                state.apply(&record);
                replay(position, record);
            })?;
        }
        recovery.segments = segments.len();
        let gauges = Arc::new(Gauges::default());
        gauges.bytes.store(bytes, Ordering::Relaxed);
        gauges
            .segments
            .store(segments.len() as u64, Ordering::Relaxed);
        let in_hand = Arc::new(InHand::default());
        let (requests, received) = std::sync::mpsc::sync_channel(APPENDS_WAITING_MAX);
        let writer = Writer::new(
            folder.to_path_buf(),
            options,
            segments,
            state.clone(),
            Arc::clone(&gauges),
            Arc::clone(&in_hand),
        )?;
        let writer = thread::Builder::new()
            .name("journal".into())
            .spawn(move || writer.run(&received))
            .map_err(file_error("start a thread for", folder))?;
        let shared = Shared {
            folder: folder.to_path_buf(),
            requests: Some(requests),
            writer: Some(writer),
            gauges,
            in_hand,
            _lock: lock,
        };
        let journal = Self {
            shared: Arc::new(shared),
        };
        Ok((journal, state, recovery))
    }

    /// Appends a record; the receiver hears of it when it is durable, or was refused.
    ///
    /// Waits while too many appends are waiting for the disk.
    pub fn append(&self, record: Vec<u8>) -> oneshot::Receiver<Result<Position, AppendError>> {
        self.hand_over(record, |requests, request| {
            // If the writer is gone, so is the reply, which the receiver sees.
            _ = requests.send(request);
            None
        })
        .unwrap_or_else(|_| oneshot::channel().1)
    }

    /// The same without waiting, for async code.
    ///
    /// # Errors
    /// Gives the record back while too many appends are waiting for the disk.
    pub fn try_append(
        &self,
        record: Vec<u8>,
    ) -> Result<oneshot::Receiver<Result<Position, AppendError>>, Vec<u8>> {
        self.hand_over(record, |requests, request| {
            match requests.try_send(request) {
                Err(TrySendError::Full(request)) => Some(request),
                Ok(()) | Err(TrySendError::Disconnected(_)) => None,
            }
        })
    }

    /// Gives an append to the writer by `send`, which gives it back if it cannot.
    fn hand_over(
        &self,
        record: Vec<u8>,
        send: impl FnOnce(&SyncSender<Request>, Request) -> Option<Request>,
    ) -> Result<oneshot::Receiver<Result<Position, AppendError>>, Vec<u8>> {
        let (reply, result) = oneshot::channel();
        let requests = self.shared.requests.as_ref();
        if record.len() > RECORD_BYTES_MAX {
            let bytes = record.len();
            _ = reply.send(Err(AppendError::TooLarge { bytes }));
        } else if let Some(requests) = requests
            && let Some(Request::Append { record, .. }) =
                send(requests, Request::Append { record, reply })
        {
            return Err(record);
        }
        Ok(result)
    }

    /// Appends a record and waits until it is durable. Not for use in async code.
    ///
    /// # Errors
    /// If it was refused.
    pub fn append_blocking(&self, record: Vec<u8>) -> Result<Position, AppendError> {
        self.append(record)
            .blocking_recv()
            .unwrap_or(Err(AppendError::Closed))
    }

    /// Notes that an epoch is over. Does not wait until that is durable, and is not refused when the
    /// journal has reached its largest size: what follows makes room.
    pub fn close(&self, closed: Closed) {
        if let Some(requests) = &self.shared.requests {
            _ = requests.send(Request::Close(Record::Closed(closed).write()));
        }
    }

    /// Says that grouping has heard of a report that was appended. Until then its segment is not removed.
    pub fn handed_over(&self, position: Position) {
        self.shared.in_hand.remove(position.segment);
    }

    /// Removes all segments before this one, oldest first: nothing in them is needed any more. Segments
    /// with reports that were not handed over stay.
    pub fn remove_before(&self, segment: u64) {
        if let Some(requests) = &self.shared.requests {
            _ = requests.send(Request::RemoveBefore(SegmentNumber(segment)));
        }
    }

    /// Reads a record and hands it over.
    ///
    /// # Errors
    /// If it cannot be read, or is not valid any more.
    pub fn read<T>(
        &self,
        position: Position,
        take: impl FnOnce(Record<'_>) -> T,
    ) -> Result<T, ReadRecordError> {
        let path = SegmentNumber(position.segment).path(&self.shared.folder);
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(position.offset))?;
        let mut bytes = vec![0; FRAME_HEADER_BYTES + position.bytes as usize];
        file.read_exact(&mut bytes)?;
        let payload = frame::read_frame(&bytes, position.segment, position.offset)
            .map_err(|source| ReadRecordError::Frame { position, source })?;
        let record =
            Record::read(payload).map_err(|source| ReadRecordError::Record { position, source })?;
        Ok(take(record))
    }

    /// Waits, for `patience` at most, until all clones but this one are dropped, and closes the journal;
    /// whether it came to that.
    pub async fn closed(self, patience: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + patience;
        while Arc::strong_count(&self.shared) > 1 {
            if tokio::time::Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(CLOSE_POLL).await;
        }
        // The last one waits for the writer.
        tokio::task::spawn_blocking(move || drop(self))
            .await
            .is_ok()
    }

    /// What the journal holds and does.
    pub fn gauges(&self) -> &Gauges {
        &self.shared.gauges
    }
}

impl InHand {
    fn add(&self, segment: u64) {
        *self.segments().entry(segment).or_default() += 1;
    }

    fn remove(&self, segment: u64) {
        let mut segments = self.segments();
        if let Some(reports) = segments.get_mut(&segment) {
            *reports -= 1;
            if *reports == 0 {
                segments.remove(&segment);
            }
        }
    }

    fn first(&self) -> Option<u64> {
        self.segments()
            .first_key_value()
            .map(|(segment, _)| *segment)
    }

    fn segments(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(writer) = self.writer.take() {
            // It can only have panicked, and said so.
            _ = writer.join();
        }
    }
}

/// Shows the records of a segment; cuts off what a crash left at the end of the last one. Returns the
/// segment's size.
fn recover(
    folder: &Path,
    number: SegmentNumber,
    last: bool,
    recovery: &mut Recovery,
    mut replay: impl FnMut(Position, Record<'_>),
) -> Result<u64, OpenJournalError> {
    let path = number.path(folder);
    let bytes = fs::read(&path).map_err(file_error("read", &path))?;
    let mut frames = Frames::new(&bytes, number.0);
    let mut end = 0;
    for frame in &mut frames {
        if frame.skipped_bytes > 0 {
            recovery.damaged_stretches += 1;
            recovery.damaged_bytes += frame.skipped_bytes;
        }
        // Padding at the end may be missing.
        end = frame.end().min(bytes.len() as u64);
        let Ok(record) = Record::read(frame.payload) else {
            recovery.damaged_stretches += 1;
            recovery.damaged_bytes += frame.payload.len() as u64;
            continue;
        };
        recovery.records += 1;
        let position = Position {
            segment: number.0,
            offset: frame.offset,
            bytes: frame.payload.len() as u32,
        };
        replay(position, record);
    }
    let rest = bytes.len() as u64 - end;
    if rest == 0 {
        return Ok(end);
    }
    if !last {
        recovery.damaged_stretches += 1;
        recovery.damaged_bytes += rest;
        return Ok(bytes.len() as u64);
    }
    recovery.torn_bytes += rest;
    let file = File::options()
        .write(true)
        .open(&path)
        .map_err(file_error("open", &path))?;
    file.set_len(end)
        .and_then(|()| file.sync_all())
        .map_err(file_error("cut the torn end off", &path))?;
    Ok(end)
}

fn lock(folder: &Path) -> Result<File, OpenJournalError> {
    let path = folder.join("lock");
    let file = File::create(&path).map_err(file_error("make", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(OpenJournalError::InUse(folder.to_path_buf())),
        Err(fs::TryLockError::Error(source)) => Err(file_error("lock", &path)(source)),
    }
}

fn file_error<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> OpenJournalError + 'a {
    move |source| OpenJournalError::File {
        action,
        path: path.to_path_buf(),
        source,
    }
}

/// So that a new name in a folder survives a loss of power.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
