//! Flowsets in files: names, finding, reading.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flowradar_core::flowset::{Epoch, FlowsetError, SwitchName};
use flowradar_core::{Flowset, KeyKind};

use crate::outcome::CommandError;
use crate::progress::Progress;

/// Ending of a flowset's file name.
const EXTENSION: &str = "flowset";

/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 30;

/// File name of a flowset: `SWITCH-EPOCH-v4.flowset`.
pub(crate) fn file_name(switch: &SwitchName, epoch: u64, key: KeyKind) -> String {
    format!("{switch}-{epoch}-{}.{EXTENSION}", key_word(key))
}

/// `v4` or `v6`.
pub(crate) fn key_word(key: KeyKind) -> &'static str {
    match key {
        KeyKind::V4 => "v4",
        KeyKind::V6 => "v6",
    }
}

/// Whether a file name is one that [`file_name`] makes for this switch.
pub(crate) fn is_of_switch(name: &str, switch: &SwitchName) -> bool {
    let stem = name
        .strip_suffix("-v4.flowset")
        .or_else(|| name.strip_suffix("-v6.flowset"));
    let Some((found, epoch)) = stem.and_then(|stem| stem.rsplit_once('-')) else {
        return false;
    };
    found == switch.as_str() && !epoch.is_empty() && epoch.bytes().all(|b| b.is_ascii_digit())
}

/// Whether a file's name ends like a flowset's.
pub(crate) fn has_flowset_name(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == EXTENSION)
}

/// Why a file gave no flowset.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FlowsetFileError {
    /// The operating system could not read it.
    #[error("cannot read: {0}")]
    Read(#[from] io::Error),
    /// It is larger than anything that is read.
    #[error("{0} bytes are more than any flowset has")]
    TooLarge(u64),
    /// It is no flowset, or a damaged one.
    #[error(transparent)]
    Format(#[from] FlowsetError),
    /// Another file reports the same switch, epoch and kind of key.
    #[error(
        "reports the same switch, epoch and kind of key as {}, which was taken instead",
        .0.display()
    )]
    Duplicate(PathBuf),
}

/// A file that gave no flowset, and why.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
pub(crate) struct BadFlowset {
    pub(crate) path: PathBuf,
    pub(crate) error: FlowsetFileError,
}

/// Reads and checks a flowset.
pub(crate) fn read(path: &Path) -> Result<Flowset<Vec<u8>>, FlowsetFileError> {
    let mut file = File::open(path)?;
    // A file that does not begin like a flowset is not read into memory.
    let mut bytes = Vec::with_capacity(1 << 10);
    file.by_ref().take(8).read_to_end(&mut bytes)?;
    let length = file.metadata()?.len();
    let begins_well = Flowset::new_checked(&bytes[..])
        .is_err_and(|error| error.kind != flowradar_core::flowset::FlowsetErrorKind::Magic);
    if begins_well {
        if length > FILE_BYTES_MAX {
            return Err(FlowsetFileError::TooLarge(length));
        }
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    }
    Ok(Flowset::new_checked(bytes)?)
}

/// A good flowset in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CatalogEntry {
    pub(crate) path: PathBuf,
    pub(crate) switch: SwitchName,
    pub(crate) epoch: Epoch,
    pub(crate) key: KeyKind,
    pub(crate) file_bytes: u64,
}

/// All flowsets that were named, in the order of epoch, switch and kind of key.
#[derive(Debug)]
pub(crate) struct Catalog {
    pub(crate) entries: Vec<CatalogEntry>,
    pub(crate) bad: Vec<BadFlowset>,
}

impl Catalog {
    /// Finds the flowsets of files and folders and checks each of them. One is in memory at a time.
    ///
    /// # Errors
    /// If a path does not exist, or a folder holds no flowset.
    pub(crate) fn open(paths: &[PathBuf]) -> Result<Self, CommandError> {
        let files = find(paths)?;
        let progress = Progress::steps("checking flowsets", files.len() as u64);
        let mut found: BTreeMap<(u64, SwitchName, KeyKind), CatalogEntry> = BTreeMap::new();
        let mut bad = vec![];
        for (number, path) in files.into_iter().enumerate() {
            progress.set(number as u64);
            let flowset = match read(&path) {
                Ok(flowset) => flowset,
                Err(error) => {
                    bad.push(BadFlowset { path, error });
                    continue;
                }
            };
            let header = flowset.header();
            let identity = (header.epoch.number, header.switch.clone(), header.key);
            if let Some(first) = found.get(&identity) {
                let error = FlowsetFileError::Duplicate(first.path.clone());
                bad.push(BadFlowset { path, error });
                continue;
            }
            let entry = CatalogEntry {
                path,
                switch: header.switch.clone(),
                epoch: header.epoch,
                key: header.key,
                file_bytes: flowset.as_bytes().len() as u64,
            };
            found.insert(identity, entry);
        }
        Ok(Self {
            entries: found.into_values().collect(),
            bad,
        })
    }
}

/// The files named, and the flowsets in the folders named, each once.
fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>, CommandError> {
    let mut files = vec![];
    for path in paths {
        let metadata = fs::metadata(path).map_err(CommandError::file("read", path))?;
        if !metadata.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut in_folder = vec![];
        for entry in fs::read_dir(path).map_err(CommandError::file("read", path))? {
            let file = entry.map_err(CommandError::file("read", path))?.path();
            if has_flowset_name(&file) {
                in_folder.push(file);
            }
        }
        if in_folder.is_empty() {
            return Err(CommandError::Failed(format!(
                "{} holds no flowset (no file whose name ends with .{EXTENSION}); \
                 \"flowradar encode\" and \"flowradar simulate\" write some",
                path.display()
            )));
        }
        in_folder.sort();
        files.append(&mut in_folder);
    }
    let mut seen = std::collections::HashSet::new();
    files.retain(|file| seen.insert(fs::canonicalize(file).unwrap_or_else(|_| file.clone())));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_recognized_by_switch() {
        let switch: SwitchName = "leaf-1".parse().expect("a good name");
        let name = file_name(&switch, 42, KeyKind::V6);
        assert_eq!(name, "leaf-1-42-v6.flowset");
        assert!(is_of_switch(&name, &switch));
        let other: SwitchName = "leaf".parse().expect("a good name");
        for name in [
            "leaf-1-42-v6.flowset",
            "leaf-x-v4.flowset",
            "leaf--v4.flowset",
            "leaf-1.csv",
        ] {
            assert!(!is_of_switch(name, &other), "{name}");
        }
        assert!(is_of_switch("leaf-1-v4.flowset", &other));
    }
}
