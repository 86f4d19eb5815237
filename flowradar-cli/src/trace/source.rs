//! Bytes of a trace: from a file or standard input, decompressed, in a bounded buffer.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

use super::error::{Fault, TraceProblem};
use super::zstd::ZstdReader;

/// No record or block that has to be in memory as a whole may be longer, in bytes. Captures keep
/// at most 256 KiB of a packet.
pub const MAX_RECORD_BYTES: usize = 16 << 20;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Which compression to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    /// None: the bytes are what they are.
    None,
    /// gzip or zstd if the first bytes say so.
    ByMagic,
}

/// A forward-only window on the decompressed input.
///
/// The buffer grows with the bytes that arrive, never by a length that the input claims, and not
/// beyond [`MAX_RECORD_BYTES`] and a chunk.
pub(super) struct Source {
    reader: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    /// The bytes of `buffer` that are read but not taken.
    start: usize,
    end: usize,
    /// Offset of `start` in the decompressed input.
    offset: u64,
    decompressed: bool,
    input_bytes: Arc<AtomicU64>,
    input_bytes_total: Option<u64>,
}

impl Source {
    /// Opens a file, or standard input for `-`.
    pub(super) fn open(path: &Path, compression: Compression) -> Result<Self, Fault> {
        if path == Path::new("-") {
            return Self::new(io::stdin(), compression);
        }
        let file = File::open(path).map_err(|error| io_fault(0, &error))?;
        let metadata = file.metadata().map_err(|error| io_fault(0, &error))?;
        if metadata.is_dir() {
            return Err(io_fault(0, &io::ErrorKind::IsADirectory.into()));
        }
        let mut source = Self::new(file, compression)?;
        source.input_bytes_total = metadata.is_file().then_some(metadata.len());
        Ok(source)
    }

    /// Reads from any source of bytes.
    pub(super) fn new(
        reader: impl Read + Send + 'static,
        compression: Compression,
    ) -> Result<Self, Fault> {
        let input_bytes = Arc::new(AtomicU64::new(0));
        let mut reader = BufReader::with_capacity(
            CHUNK_BYTES,
            CountingReader {
                reader,
                bytes: Arc::clone(&input_bytes),
            },
        );
        // A pipe may deliver the magic in pieces, so it is put before the rest again.
        let mut magic = Vec::with_capacity(4);
        if compression == Compression::ByMagic {
            reader
                .by_ref()
                .take(4)
                .read_to_end(&mut magic)
                .map_err(|error| io_fault(0, &error))?;
        }
        let kind = CompressionKind::of(&magic);
        let whole = Cursor::new(magic).chain(reader);
        let reader: Box<dyn Read + Send> = match kind {
            None => Box::new(whole),
            Some(CompressionKind::Gzip) => Box::new(MultiGzDecoder::new(whole)),
            Some(CompressionKind::Zstd) => Box::new(ZstdReader::new(whole)),
        };
        Ok(Self {
            reader,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            offset: 0,
            decompressed: kind.is_some(),
            input_bytes,
            input_bytes_total: None,
        })
    }

    /// Where the next byte to take is, in the decompressed input.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn decompressed(&self) -> bool {
        self.decompressed
    }

    /// Bytes read of the input as it is stored.
    pub(super) fn input_bytes(&self) -> u64 {
        self.input_bytes.load(Ordering::Relaxed)
    }

    /// Length of the input as it is stored, if it is a file.
    pub(super) fn input_bytes_total(&self) -> Option<u64> {
        self.input_bytes_total
    }

    /// What is in the buffer.
    pub(super) fn buffered(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Reads until at least `bytes` are in the buffer or the input ends; returns how many are
    /// there.
    pub(super) fn fill(&mut self, bytes: usize) -> Result<usize, Fault> {
        if bytes > MAX_RECORD_BYTES {
            return Err(Fault::new(
                self.offset,
                TraceProblem::RecordTooLong {
                    bytes: bytes as u64,
                    limit: MAX_RECORD_BYTES as u64,
                },
            ));
        }
        while self.end - self.start < bytes {
            if self.read_chunk()? == 0 {
                break;
            }
        }
        Ok(self.end - self.start)
    }

    /// Like [`Source::fill`], but it is an error if the input ends before `bytes` are there;
    /// `part` is what they are part of.
    pub(super) fn require(&mut self, bytes: usize, part: &'static str) -> Result<&[u8], Fault> {
        let present = self.fill(bytes)?;
        if present < bytes {
            return Err(Fault::truncated(
                self.offset,
                part,
                present as u64,
                bytes as u64,
            ));
        }
        Ok(&self.buffer[self.start..self.start + bytes])
    }

    /// Takes `bytes` that [`Source::fill`] or [`Source::require`] have brought into the buffer.
    pub(super) fn take(&mut self, bytes: usize) -> &[u8] {
        let start = self.start;
        assert!(bytes <= self.end - start, "only buffered bytes are taken");
        self.start += bytes;
        self.offset += bytes as u64;
        &self.buffer[start..self.start]
    }

    /// Passes over bytes without keeping them; returns how many there were.
    pub(super) fn skip(&mut self, bytes: u64) -> Result<u64, Fault> {
        let mut left = bytes;
        while left > 0 {
            let step = left.min((self.end - self.start) as u64);
            self.take(step as usize);
            left -= step;
            if left > 0 && self.read_chunk()? == 0 {
                break;
            }
        }
        Ok(bytes - left)
    }

    fn read_chunk(&mut self) -> Result<usize, Fault> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.buffer.len() - self.end < CHUNK_BYTES {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            // Doubling keeps the copying proportional to the length of a long record.
            let wanted =
                (self.end + CHUNK_BYTES).max((2 * self.end).min(MAX_RECORD_BYTES + CHUNK_BYTES));
            if self.buffer.len() < wanted {
                self.buffer.resize(wanted, 0);
            }
        }
        loop {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(bytes) => {
                    self.end += bytes;
                    return Ok(bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.read_fault(&error)),
            }
        }
    }

    fn read_fault(&self, error: &io::Error) -> Fault {
        // Errors of the operating system come through the decompressors as they are.
        if !self.decompressed || error.raw_os_error().is_some() {
            return io_fault(self.offset, error);
        }
        let problem = match error.kind() {
            io::ErrorKind::UnexpectedEof => TraceProblem::CompressedInputEndsEarly,
            _ => TraceProblem::Decompress {
                message: error.to_string(),
            },
        };
        Fault::new(self.offset, problem)
    }
}

#[derive(Clone, Copy)]
enum CompressionKind {
    Gzip,
    Zstd,
}

impl CompressionKind {
    /// RFC 1952 §2.3.1; RFC 8878 §3.1.1 and §3.1.2 (a skippable frame may come first).
    fn of(magic: &[u8]) -> Option<Self> {
        match magic {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Counts what is read, for progress bars.
struct CountingReader<R> {
    reader: R,
    bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.reader.read(buffer)?;
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}

fn io_fault(offset: u64, error: &io::Error) -> Fault {
    Fault::new(
        offset,
        TraceProblem::Io {
            kind: error.kind(),
            message: error.to_string(),
        },
    )
}
