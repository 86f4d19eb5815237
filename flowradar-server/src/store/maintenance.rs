//! Merging small files and removing old ones, beside storing and reading.
//!
//! Files are never changed. A merge reads files of the list as it was when it began, writes a new one, and
//! only then asks for the list: if its files are all still there the new one takes their place, else the
//! new one is thrown away. So storing waits for one short write of the list at most.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::ops::ControlFlow;
use std::sync::Arc;

use parquet::file::metadata::ParquetMetaData;

use super::manifest::{Manifest, StoredFile};
use super::parquet_files::{self, FileWriter, RowGroupsWriter, file_error};
use super::view::Shared;
use super::{Maintainer, Maintenance, MaintenanceOptions, StoreError};

/// So many files of about the same size in an hour are merged.
const MERGE_FILES: usize = 8;
/// Each size class is so many times the one before; the first is up to a megabyte.
const MERGE_RATIO: u64 = 8;
/// A merged file is not larger.
const MERGED_BYTES_MAX: u64 = 512 << 20;
/// Row groups of so many rows, on average, are copied as they are; smaller ones are made to larger ones.
const GROUP_ROWS: usize = 1 << 17;

/// Keeps a [`ParquetStore`](super::ParquetStore) in order.
#[derive(Debug)]
pub(super) struct ParquetMaintainer {
    shared: Arc<Shared>,
}

/// How a merge ended.
enum Merged {
    Done,
    /// A file was replaced meanwhile.
    GivenUp,
    Stopped,
}

impl Maintainer for ParquetMaintainer {
    fn maintain(
        &mut self,
        now_ns: i64,
        options: MaintenanceOptions,
        stopped: &dyn Fn() -> bool,
    ) -> Maintenance {
        let mut done = Maintenance::default();
        // First: merging needs space.
        if let Err(error) = self.remove_old(now_ns, options, &mut done) {
            done.failures.push(error);
        }
        let manifest = self.shared.view().manifest;
        for files in to_merge(&manifest, now_ns, options.settle_ns) {
            match self.merge(&files, stopped) {
                Ok(Merged::Done) => done.merged_files += files.len(),
                Ok(Merged::GivenUp) => done.merges_given_up += 1,
                Ok(Merged::Stopped) => break,
                Err(error) => done.failures.push(error),
            }
        }
        done
    }
}

impl ParquetMaintainer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Removes the oldest files while there is too much of them.
    fn remove_old(
        &self,
        now_ns: i64,
        options: MaintenanceOptions,
        done: &mut Maintenance,
    ) -> Result<(), StoreError> {
        let list = self.shared.lock_list();
        let mut manifest = list.manifest();
        manifest.files.sort_by_key(|file| file.time_max_ns);
        let mut bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
        let keep_ns = i64::try_from(options.keep_ns).unwrap_or(i64::MAX);
        let (mut removed, mut rows) = (vec![], 0);
        manifest.files.retain(|file| {
            let old = keep_ns > 0 && file.time_max_ns < now_ns.saturating_sub(keep_ns);
            let much = options.bytes_max > 0 && bytes > options.bytes_max;
            if old || much {
                bytes -= file.bytes;
                rows += file.rows;
                removed.push(file.path.clone());
            }
            !(old || much)
        });
        if !removed.is_empty() {
            list.commit(manifest, false, &removed)?;
            done.removed_files = removed.len();
            done.removed_rows = rows;
        }
        Ok(())
    }

    /// Merges files into one, and puts it into their place.
    fn merge(
        &self,
        files: &[StoredFile],
        stopped: &dyn Fn() -> bool,
    ) -> Result<Merged, StoreError> {
        let merged = match self.write_merged(files, stopped) {
            Ok(Some(merged)) => merged,
            Ok(None) => return Ok(Merged::Stopped),
            // A file that was replaced may be gone before it was opened.
            Err(_) if !self.are_listed(files) => return Ok(Merged::GivenUp),
            Err(error) => return Err(error),
        };
        let list = self.shared.lock_list();
        let mut manifest = list.manifest();
        let replaced: HashSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
        let before = manifest.files.len();
        manifest
            .files
            .retain(|file| !replaced.contains(file.path.as_str()));
        if before - manifest.files.len() != files.len() {
            self.shared.discard(&[merged]);
            return Ok(Merged::GivenUp);
        }
        manifest.files.push(merged.clone());
        let removed: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
        list.commit(manifest, false, &removed)
            .inspect_err(|_| self.shared.discard(&[merged]))?;
        Ok(Merged::Done)
    }

    fn are_listed(&self, files: &[StoredFile]) -> bool {
        let manifest = self.shared.view().manifest;
        let listed: HashSet<&str> = manifest
            .files()
            .iter()
            .map(|file| file.path.as_str())
            .collect();
        files.iter().all(|file| listed.contains(file.path.as_str()))
    }

    /// Writes the file that is to stand for others; none if it was stopped.
    fn write_merged(
        &self,
        files: &[StoredFile],
        stopped: &dyn Fn() -> bool,
    ) -> Result<Option<StoredFile>, StoreError> {
        let mut sources = vec![];
        for file in files {
            let path = self.shared.folder.join(&file.path);
            let open = File::open(&path).map_err(file_error("open", &path))?;
            let metadata = parquet_files::metadata(&open, &path)?;
            sources.push((path, open, metadata));
        }
        let folder = &self.shared.folder;
        let number = self.shared.next_file();
        let first_ns = files.iter().map(|file| file.time_min_ns).min();
        let last_ns = files.iter().map(|file| file.time_max_ns).max();
        let times @ (first_ns, _) = (first_ns.unwrap_or_default(), last_ns.unwrap_or_default());
        if may_copy_groups(sources.iter().map(|(.., metadata)| metadata)) {
            let mut writer = RowGroupsWriter::new(folder, number, first_ns, &sources[0].2)?;
            for (_, open, metadata) in &sources {
                for group in 0..metadata.num_row_groups() {
                    if stopped() {
                        return Ok(None);
                    }
                    writer.copy(open, metadata, group)?;
                }
            }
            return writer.finish(times).map(Some);
        }
        let mut writer = FileWriter::new(folder, number, first_ns)?;
        for (path, open, _) in sources {
            let read = writer.copy(open, &path, |batch| {
                Ok(if stopped() {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(batch.clone())
                })
            })?;
            if read.is_break() {
                return Ok(None);
            }
        }
        writer.finish()
    }
}

/// Files to be merged into one each: of the same hour and about the same size, the oldest first.
fn to_merge(manifest: &Manifest, now_ns: i64, settle_ns: u64) -> Vec<Vec<StoredFile>> {
    let settle_ns = i64::try_from(settle_ns).unwrap_or(i64::MAX);
    let mut classes: BTreeMap<(&str, u32), Vec<&StoredFile>> = BTreeMap::new();
    for file in manifest.files() {
        let partition = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        if settle_ns == 0 || file.time_max_ns < now_ns.saturating_sub(settle_ns) {
            let class = (partition, size_class(file.bytes));
            classes.entry(class).or_default().push(file);
        }
    }
    let mut merges = vec![];
    for mut files in classes.into_values() {
        files.sort_by_key(|file| (file.time_min_ns, &file.path));
        let mut portion: Vec<StoredFile> = vec![];
        let mut bytes = 0;
        for file in files {
            if bytes + file.bytes > MERGED_BYTES_MAX {
                merges.push(std::mem::take(&mut portion));
                bytes = 0;
            }
            bytes += file.bytes;
            portion.push(file.clone());
        }
        merges.push(portion);
    }
    merges.retain(|files| files.len() >= MERGE_FILES);
    merges
}

/// Whether the row groups of these files can stand in one file as they are, and are worth keeping.
fn may_copy_groups<'a>(mut files: impl Iterator<Item = &'a ParquetMetaData> + Clone) -> bool {
    let groups: usize = files.clone().map(ParquetMetaData::num_row_groups).sum();
    let rows: i64 = files
        .clone()
        .map(|file| file.file_metadata().num_rows())
        .sum();
    let Some(first) = files.next().map(ParquetMetaData::file_metadata) else {
        return false;
    };
    files.all(|file| {
        let file = file.file_metadata();
        file.schema() == first.schema() && file.key_value_metadata() == first.key_value_metadata()
    }) && usize::try_from(rows).unwrap_or_default() >= groups * GROUP_ROWS
}

fn size_class(bytes: u64) -> u32 {
    (bytes >> 20).max(1).ilog(MERGE_RATIO)
}
