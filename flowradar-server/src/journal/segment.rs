//! Segments: files with consecutive numbers.

use std::fs;
use std::path::{Path, PathBuf};

use super::{OpenJournalError, file_error};

/// Number of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SegmentNumber(pub(super) u64);

impl SegmentNumber {
    pub(super) fn path(self, folder: &Path) -> PathBuf {
        folder.join(format!("{:020}.journal", self.0))
    }

    fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_suffix(".journal")?;
        (name.len() == 20)
            .then(|| name.parse().ok())
            .flatten()
            .map(Self)
    }
}

/// The segments in a folder, oldest first.
pub(super) fn list(folder: &Path) -> Result<Vec<SegmentNumber>, OpenJournalError> {
    let mut numbers = vec![];
    for entry in fs::read_dir(folder).map_err(file_error("read", folder))? {
        let entry = entry.map_err(file_error("read", folder))?;
        numbers.extend(SegmentNumber::of(&entry.path()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}
