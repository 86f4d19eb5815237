//! The drop folder: flowsets in files, taken in the order of their epochs and put away.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use flowradar_core::Flowset;
use flowradar_core::flowset::SwitchName;
use xxhash_rust::xxh3::xxh3_64;

use super::Ingest;
use crate::epoch::Outcome;
use crate::journal::{AppendError, ReportSource};

/// Files taken in one go.
const BATCH_FILES_MAX: usize = 512;

/// A folder whose flowsets are taken.
///
/// Files whose name ends with `.flowset` are taken, then moved to its folder `taken`, or `rejected` if
/// they are no flowsets. To write a file safely, give it another name first and rename it.
#[derive(Clone, Debug)]
pub struct DropFolder {
    folder: PathBuf,
    flowset_bytes_max: u64,
}

/// A file in the drop folder.
#[derive(Debug)]
pub struct DroppedFile {
    path: PathBuf,
    name: String,
    contents: Result<Flowset<Vec<u8>>, String>,
    digest: u64,
}

impl DropFolder {
    /// A drop folder; made, with the folders for what was taken, if it is not there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(folder: impl Into<PathBuf>, flowset_bytes_max: u64) -> io::Result<Self> {
        let folder = folder.into();
        for part in ["taken", "rejected"] {
            fs::create_dir_all(folder.join(part))?;
        }
        Ok(Self {
            folder,
            flowset_bytes_max,
        })
    }

    /// Reads the files that are there now, up to a limit, in the order of epoch and switch. May block.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn files(&self) -> io::Result<Vec<DroppedFile>> {
        let mut paths = vec![];
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "flowset") && path.is_file() {
                paths.push(path);
            }
        }
        paths.sort_unstable();
        paths.truncate(BATCH_FILES_MAX);
        let mut files: Vec<DroppedFile> = paths
            .into_iter()
            .filter_map(|path| self.read(path))
            .collect();
        files.sort_by(|a, b| a.order().cmp(&b.order()));
        Ok(files)
    }

    /// Takes a file: into the journal, then away.
    ///
    /// # Errors
    /// If the journal refuses it. It stays where it is.
    pub async fn take(&self, file: DroppedFile, ingest: &Ingest) -> Result<(), AppendError> {
        let source = ReportSource::File {
            name: file.name.clone(),
            digest: file.digest,
        };
        let part = match &file.contents {
            Ok(flowset) => {
                let header = flowset.header();
                let bytes = flowset.as_bytes().len() as u64;
                let noted = ingest.switches().note_report(
                    &header.switch,
                    header.epoch.number,
                    bytes,
                    super::unix_now_ns(),
                );
                match noted {
                    Ok(()) => {
                        ingest.take(flowset, source).await?;
                        "taken"
                    }
                    Err(error) => {
                        self.reject(&file, source, error.to_string(), ingest)
                            .await?;
                        "rejected"
                    }
                }
            }
            Err(reason) => {
                self.reject(&file, source, reason.clone(), ingest).await?;
                "rejected"
            }
        };
        self.put_away(&file, part);
        Ok(())
    }

    /// Moves a file that was taken before, by a process that died before it could.
    pub fn put_away(&self, file: &DroppedFile, part: &str) {
        let to = self.folder.join(part).join(&file.name);
        if let Err(error) = fs::rename(&file.path, &to) {
            tracing::warn!(file = %file.path.display(), %error, "a file that was taken cannot be moved away");
        }
    }

    async fn reject(
        &self,
        file: &DroppedFile,
        source: ReportSource,
        reason: String,
        ingest: &Ingest,
    ) -> Result<(), AppendError> {
        let switch = file.switch();
        let reason = format!("{}: {reason}", file.name);
        ingest
            .not_taken(&switch, None, source, Outcome::Corrupt, reason)
            .await
    }

    /// None if it is gone, or cannot be read now and may be later.
    fn read(&self, path: PathBuf) -> Option<DroppedFile> {
        let name = path.file_name()?.to_str()?.to_owned();
        let length = fs::metadata(&path).ok()?.len();
        if length > self.flowset_bytes_max {
            let reason = format!(
                "{length} bytes: {} are the most that is taken",
                self.flowset_bytes_max
            );
            return Some(DroppedFile {
                path,
                name,
                contents: Err(reason),
                digest: length,
            });
        }
        let bytes = read_file(&path)?;
        let digest = xxh3_64(&bytes);
        Some(DroppedFile {
            path,
            name,
            contents: Flowset::new_checked(bytes).map_err(|error| error.to_string()),
            digest,
        })
    }
}

impl DroppedFile {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Hash of its contents.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The switch that it is of; for what is no flowset, the folder's own.
    fn switch(&self) -> SwitchName {
        match &self.contents {
            Ok(flowset) => flowset.header().switch.clone(),
            Err(_) => "drop-folder"
                .parse()
                .expect("letters and a hyphen make a switch name"),
        }
    }

    fn order(&self) -> (Option<(u64, &SwitchName)>, &str) {
        let header = self.contents.as_ref().ok().map(Flowset::header);
        let place = header.map(|header| (header.epoch.number, &header.switch));
        (place, &self.name)
    }
}

fn read_file(path: &Path) -> Option<Vec<u8>> {
    fs::read(path)
        .inspect_err(|error| {
            tracing::warn!(file = %path.display(), %error, "a dropped file cannot be read");
        })
        .ok()
}
