//! The file in which templates and options outlive the process: a line of JSON about the file, then one
//! for each stream. It is replaced in one step, and taken whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::engine::SavedStream;

const FORMAT: &str = "flowradar-balancer-state";
const VERSION: u32 = 1;

/// Why a state file was not written, or not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateFileError {
    /// Opening, reading, writing.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// More than the limits allow.
    #[error(
        "{path}: {bytes} bytes are more than the {limit} that limits.state_bytes allows",
        path = path.display()
    )]
    TooLong {
        /// The file.
        path: PathBuf,
        /// How many.
        bytes: u64,
        /// How many there may be.
        limit: u64,
    },
    /// Not such a file, of another version, or damaged.
    #[error("{path}: {reason}", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct FileHeader {
    format: String,
    version: u32,
    streams: usize,
    /// XXH3 of all that follows, in hexadecimal.
    xxh3: String,
}

/// Writes the streams; how many bytes that took.
pub(crate) fn write(
    path: &Path,
    streams: &[SavedStream],
    limit: u64,
) -> Result<u64, StateFileError> {
    let failed = |source| StateFileError::File {
        path: path.to_owned(),
        source,
    };
    let mut body = Vec::new();
    for stream in streams {
        serde_json::to_writer(&mut body, stream).map_err(|error| failed(error.into()))?;
        body.push(b'\n');
        if body.len() as u64 > limit {
            return Err(StateFileError::TooLong {
                path: path.to_owned(),
                bytes: body.len() as u64,
                limit,
            });
        }
    }
    let header = FileHeader {
        format: FORMAT.to_owned(),
        version: VERSION,
        streams: streams.len(),
        xxh3: checksum(&body),
    };
    let mut bytes = serde_json::to_vec(&header).map_err(|error| failed(error.into()))?;
    bytes.push(b'\n');
    bytes.append(&mut body);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let written = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    written().map_err(failed)?;
    Ok(bytes.len() as u64)
}

/// Reads the streams; none if there is no file yet.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<SavedStream>, StateFileError> {
    let failed = |source| StateFileError::File {
        path: path.to_owned(),
        source,
    };
    let wrong = |reason: String| StateFileError::Format {
        path: path.to_owned(),
        reason,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(StateFileError::TooLong {
            path: path.to_owned(),
            bytes: bytes.len() as u64,
            limit,
        });
    }
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (header, body) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
    let header: FileHeader = serde_json::from_slice(header)
        .map_err(|error| wrong(format!("not a state file of the balancer: {error}")))?;
    if header.format != FORMAT || header.version != VERSION {
        return Err(wrong(format!(
            "{} of version {}, not {FORMAT} of version {VERSION}",
            header.format, header.version
        )));
    }
    if header.xxh3 != checksum(body) {
        return Err(wrong("damaged: its checksum is another".to_owned()));
    }
    let lines = body.split(|byte| *byte == b'\n');
    let streams: Result<Vec<SavedStream>, _> = lines
        .filter(|line| !line.is_empty())
        .map(serde_json::from_slice)
        .collect();
    let streams = streams.map_err(|error| wrong(error.to_string()))?;
    if streams.len() != header.streams {
        return Err(wrong(format!(
            "{} streams instead of {}",
            streams.len(),
            header.streams
        )));
    }
    Ok(streams)
}

fn checksum(bytes: &[u8]) -> String {
    format!("{:016x}", xxh3_64(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::SavedRecord;
    use crate::stream::StreamKey;
    use crate::wire::Protocol;

    const LIMIT: u64 = 1 << 20;

    fn streams() -> Vec<SavedStream> {
        let stream = |domain| SavedStream {
            key: StreamKey {
                source: "2001:db8::1".parse().expect("an address"),
                source_port: Some(4739),
                protocol: Protocol::Ipfix,
                domain,
                agent: None,
            },
            substitute_domain: (domain > 1).then_some(77),
            last_seen_unix_seconds: 1_700_000_000,
            next_sequence: Some(u32::MAX),
            records: vec![
                SavedRecord::Template(vec![1, 0, 0, 1, 0, 8, 0, 4]),
                SavedRecord::OptionsTemplate((0..=255).collect()),
                SavedRecord::Options(256, vec![]),
            ],
        };
        (0..3).map(stream).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        assert_eq!(read(&path, LIMIT).expect("nothing yet"), []);
        for streams in [streams(), vec![]] {
            let bytes = write(&path, &streams, LIMIT).expect("written");
            assert_eq!(fs::metadata(&path).expect("there").len(), bytes);
            assert_eq!(read(&path, LIMIT).expect("read"), streams);
        }
        let entries = fs::read_dir(folder.path()).expect("a folder");
        assert_eq!(entries.count(), 1, "nothing else is left");
    }

    #[test]
    fn damage_is_noticed_wherever_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        write(&path, &streams(), LIMIT).expect("written");
        let good = fs::read(&path).expect("there");
        for place in 0..good.len() {
            let mut bad = good.clone();
            bad[place] ^= 0x15;
            fs::write(&path, &bad).expect("written");
            assert!(
                matches!(read(&path, LIMIT), Err(StateFileError::Format { .. })),
                "byte {place}"
            );
        }
        for length in [0, 1, good.len() / 2, good.len() - 1] {
            fs::write(&path, &good[..length]).expect("written");
            assert!(read(&path, LIMIT).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn both_ways_are_limited() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        assert!(matches!(
            write(&path, &streams(), 100),
            Err(StateFileError::TooLong { limit: 100, .. })
        ));
        assert!(!path.exists());
        write(&path, &streams(), LIMIT).expect("written");
        assert!(matches!(
            read(&path, 100),
            Err(StateFileError::TooLong { bytes: 101, .. })
        ));
        let nowhere = folder.path().join("no").join("state");
        let error = write(&nowhere, &[], LIMIT).expect_err("no such folder");
        assert!(error.to_string().starts_with(&*nowhere.to_string_lossy()));
    }
}
