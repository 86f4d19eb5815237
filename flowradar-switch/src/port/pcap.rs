//! Ports that are pcap files.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcap_file::PcapError as FileError;
use pcap_file::pcap::{PcapPacket, PcapReader, PcapWriter};
use thiserror::Error;

use super::{PortCounters, PortSender};

/// Why a pcap file cannot be read or written.
#[derive(Debug, Error)]
pub enum PcapError {
    /// The file cannot be opened.
    #[error("{}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not pcap, or ends within a packet.
    #[error("{}: not a pcap file, or cut off: {source}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        source: FileError,
    },
}

/// A port that writes what is sent to a pcap file; a frame that cannot be written is counted as dropped.
///
/// Timestamps are zero: a switch's time is not that of a calendar.
#[derive(Debug)]
pub struct PcapSender {
    writer: PcapWriter<BufWriter<File>>,
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
    let mut reader = PcapReader::new(BufReader::new(file)).map_err(|source| PcapError::Format {
        path: path.clone(),
        source,
    })?;
    let mut has_failed = false;
    Ok(std::iter::from_fn(move || {
        if has_failed {
            return None;
        }
        let packet = reader.next_packet()?;
        has_failed = packet.is_err();
        Some(
            packet
                .map(|packet| (packet.timestamp, packet.data.into_owned()))
                .map_err(|source| PcapError::Format {
                    path: path.clone(),
                    source,
                }),
        )
    }))
}

impl PcapSender {
    /// Makes the file, or empties it.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub fn create(path: &Path) -> Result<Self, PcapError> {
        let file = File::create(path).map_err(|source| PcapError::Open {
            path: path.to_owned(),
            source,
        })?;
        let writer = PcapWriter::new(BufWriter::new(file)).map_err(|source| PcapError::Format {
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
}

impl PortSender for PcapSender {
    fn send(&mut self, frame: &[u8]) {
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let packet = PcapPacket {
            timestamp: Duration::ZERO,
            orig_len: length,
            data: Cow::Borrowed(frame),
        };
        match self.writer.write_packet(&packet) {
            Ok(_) => self.counters.count_out(frame.len()),
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
        let frames: [&[u8]; 3] = [b"first", b"", &[7; 1500]];
        for frame in frames {
            sender.send(frame);
        }
        assert_eq!(sender.counters().statistics().frames_out, 3);
        drop(sender);
        let read: Vec<_> = read_pcap(&path)
            .expect("the file is there")
            .map(|frame| frame.expect("the file is whole").1)
            .collect();
        assert_eq!(read, frames);
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
