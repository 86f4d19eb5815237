//! Ports that are pcap files.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{LegacyPcapReader, PcapBlockOwned, PcapError as ParseError};
use thiserror::Error;

use super::{PortCounters, PortSender};

/// More than the longest frame with its header.
const READ_BUFFER_BYTES: usize = 1 << 18;

/// LINKTYPE_ETHERNET.
const ETHERNET: u32 = 1;

/// Why a pcap file cannot be read or written.
#[derive(Debug, Error)]
pub enum PcapError {
    /// The file is not pcap, or ends within a frame.
    #[error("{}: not a pcap file, or cut off: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The file cannot be opened.
    #[error("{}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A port that writes what is sent to a pcap file; a frame that cannot be written is counted as dropped.
///
/// Times are zero: a switch's time is not that of a calendar.
#[derive(Debug)]
pub struct PcapSender {
    writer: BufWriter<File>,
    counters: PortCounters,
}

/// Reads a pcap file: one frame after the other, each with its time.
///
/// # Errors
///
/// If it cannot be opened or is not a pcap file; the iterator yields an error and ends where it is cut
/// off.
pub fn read_pcap(
    path: &Path,
) -> Result<impl Iterator<Item = Result<(Duration, Vec<u8>), PcapError>> + use<>, PcapError> {
    let file = File::open(path).map_err(|source| PcapError::Open {
        path: path.to_owned(),
        source,
    })?;
    let path = path.to_owned();
    let format = move |error: ParseError<&[u8]>| PcapError::Format {
        path: path.clone(),
        reason: match error {
            ParseError::HeaderNotRecognized => "no pcap header".to_owned(),
            ParseError::Incomplete(_) | ParseError::UnexpectedEof => "it ends too early".to_owned(),
            other => format!("{other:?}"),
        },
    };
    let mut reader = LegacyPcapReader::new(READ_BUFFER_BYTES, file).map_err(&format)?;
    let mut has_ended = false;
    Ok(std::iter::from_fn(move || {
        while !has_ended {
            let (length, frame) = match reader.next() {
                Ok((length, PcapBlockOwned::Legacy(block))) => {
                    let seconds = Duration::from_secs(block.ts_sec.into());
                    let time = seconds + Duration::from_micros(block.ts_usec.into());
                    (length, Some((time, block.data.to_vec())))
                }
                Ok((length, _)) => (length, None),
                Err(ParseError::Eof) => break,
                Err(ParseError::Incomplete(_)) => match reader.refill() {
                    Ok(()) => continue,
                    Err(error) => {
                        has_ended = true;
                        return Some(Err(format(error)));
                    }
                },
                Err(error) => {
                    has_ended = true;
                    return Some(Err(format(error)));
                }
            };
            reader.consume(length);
            if let Some(frame) = frame {
                return Some(Ok(frame));
            }
        }
        has_ended = true;
        None
    }))
}

impl PcapSender {
    /// Makes the file, or empties it.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub fn create(path: &Path) -> Result<Self, PcapError> {
        let create = || {
            let mut writer = BufWriter::new(File::create(path)?);
            // Magic number (times in microseconds), version 2.4, zone, accuracy, longest frame, link.
            for word in [0xa1b2_c3d4, 4 << 16 | 2, 0, 0, 65_535, ETHERNET] {
                writer.write_all(&u32::to_le_bytes(word))?;
            }
            Ok(writer)
        };
        let writer = create().map_err(|source| PcapError::Open {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            writer,
            counters: PortCounters::default(),
        })
    }

    /// What was written and what could not be.
    pub fn counters(&self) -> &PortCounters {
        &self.counters
    }

    fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
        for word in [0, 0, length, length] {
            self.writer.write_all(&word.to_le_bytes())?;
        }
        self.writer.write_all(frame)
    }
}

impl PortSender for PcapSender {
    fn send(&mut self, frame: &[u8]) {
        match self.write(frame) {
            Ok(()) => self.counters.count_out(frame.len()),
            Err(_) => self.counters.count_dropped_out(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("out.pcap");
        let mut sender = PcapSender::create(&path).expect("the folder can be written");
        let frames: Vec<Vec<u8>> = [5, 0, 1500, 65_535]
            .iter()
            .cycle()
            .take(20)
            .map(|length| vec![7; *length])
            .collect();
        for frame in &frames {
            sender.send(frame);
        }
        assert_eq!(sender.counters().statistics().frames_out, 20);
        drop(sender);
        let read: Vec<_> = read_pcap(&path)
            .expect("the file is there")
            .map(|frame| frame.expect("the file is whole").1)
            .collect();
        assert_eq!(read, frames);

        let whole = std::fs::read(&path).expect("the file is there");
        std::fs::write(&path, &whole[..whole.len() - 1]).expect("it can be written");
        let read: Vec<_> = read_pcap(&path).expect("its header is whole").collect();
        assert_eq!(read.len(), 20);
        assert!(matches!(read.last(), Some(Err(PcapError::Format { .. }))));
    }

    #[test]
    fn what_is_not_pcap_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("text");
        std::fs::write(&path, "not pcap at all, but long enough").expect("it can be written");
        assert!(matches!(
            read_pcap(&path).map(|_| ()),
            Err(PcapError::Format { .. })
        ));
        let missing = folder.path().join("missing");
        assert!(matches!(
            read_pcap(&missing).map(|_| ()),
            Err(PcapError::Open { .. })
        ));
    }
}
