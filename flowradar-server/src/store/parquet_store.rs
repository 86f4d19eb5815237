//! The store that needs no server: Parquet files by hour, and a list of them.
//!
//! Rows wait in memory until [`FlowStore::flush`]. A flush writes new files, forces them to disk, and
//! then replaces the list in one step: after a crash the store is as before the flush or as after it,
//! and files that are on no list are removed. An epoch that is decoded again takes the place of its
//! former rows in the same step; [maintenance](super::maintenance) works the same way, beside it.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_select::filter::filter_record_batch;

use super::maintenance::ParquetMaintainer;
use super::manifest::{Manifest, StoredFile};
use super::parquet_files::{self, FileWriter, file_error, partition};
use super::rows::{Replaced, is_replaced, select};
use super::view::Shared;
use super::{FlowReader, FlowStore, Maintainer, StoreError, TimeRange, classic_batch, epoch_batch};
use crate::classic::ClassicRecord;
use crate::epoch::{DecodedEpoch, Feedback};

/// Stores flow records in Parquet files.
#[derive(Debug)]
pub struct ParquetStore {
    shared: Arc<Shared>,
    pending: Vec<Pending>,
    pending_rows: usize,
    /// What is decoded again: rows in files that are replaced by the next flush.
    replaced: Arc<Replaced>,
    /// What grouping hears after the next flush.
    feedback: Vec<Feedback>,
}

#[derive(Debug)]
struct Pending {
    /// Of a decoded epoch: time and number.
    epoch: Option<(i64, u64)>,
    batch: RecordBatch,
}

impl ParquetStore {
    /// Opens the store in a folder, which is made if it is not there. Files that are on no list, left by
    /// a crash, are removed.
    ///
    /// # Errors
    /// If the folder cannot be read or written, or its list of files is damaged.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let folder = folder.into();
        fs::create_dir_all(&folder).map_err(file_error("make", &folder))?;
        let manifest = Manifest::read(&folder).map_err(|source| StoreError::Manifest {
            path: folder.join(Manifest::NAME),
            source,
        })?;
        remove_unlisted(&folder, &manifest)?;
        Ok(Self {
            shared: Arc::new(Shared::new(folder, manifest)),
            pending: vec![],
            pending_rows: 0,
            replaced: Arc::default(),
            feedback: vec![],
        })
    }

    /// Switches of which rows of an epoch are stored.
    fn switches_stored(&self, time_ns: i64, epoch: u64) -> HashSet<String> {
        let mut switches = HashSet::new();
        let range = TimeRange {
            from_ns: time_ns,
            to_ns: time_ns.saturating_add(1),
        };
        let scanned = self.shared.scan(
            range,
            &["time", "epoch", "switch"],
            &mut |batch: &RecordBatch| {
                _ = select(batch, false, |of, switch| {
                    let wanted = of == (time_ns, epoch);
                    if wanted && !switches.contains(switch) {
                        switches.insert(switch.to_owned());
                    }
                    wanted
                });
                ControlFlow::Continue(())
            },
        );
        if let Err(error) = scanned {
            tracing::warn!(%error, "the store cannot be searched for an epoch");
        }
        switches
    }

    fn push(&mut self, epoch: Option<(i64, u64)>, batch: RecordBatch) {
        self.pending_rows += batch.num_rows();
        if batch.num_rows() > 0 {
            self.pending.push(Pending {
                epoch,
                batch: batch.clone(),
            });
            self.shared.change(|view| view.pending.push(batch));
        }
    }

    /// Takes rows of an epoch out of memory.
    fn forget_pending(&mut self, epoch: (i64, u64), switches: &HashSet<String>) {
        let mut changed = false;
        for pending in &mut self.pending {
            if pending.epoch == Some(epoch) {
                let kept = select(&pending.batch, true, |of, switch| {
                    of != epoch || !switches.contains(switch)
                });
                // Only rows of other lengths could fail, and these are the batch's own.
                if let Ok(batch) = filter_record_batch(&pending.batch, &kept) {
                    pending.batch = batch;
                    changed = true;
                }
            }
        }
        if changed {
            self.pending.retain(|pending| pending.batch.num_rows() > 0);
            self.pending_rows = self.pending.iter().map(|p| p.batch.num_rows()).sum();
            let batches = self.pending.iter().map(|p| p.batch.clone()).collect();
            self.shared.change(|view| view.pending = batches);
        }
    }

    /// Writes the pending rows, by hour, and appends the files to `written`.
    fn write_pending(&self, written: &mut Vec<StoredFile>) -> Result<(), StoreError> {
        let mut writers: BTreeMap<String, FileWriter> = BTreeMap::new();
        for pending in &self.pending {
            // A batch of classic records may span hours; it goes with its first.
            let (time_ns, _) = parquet_files::times(&pending.batch).unwrap_or_default();
            let partition = partition(time_ns);
            let writer = match writers.entry(partition) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    let number = self.shared.next_file();
                    entry.insert(FileWriter::new(&self.shared.folder, number, time_ns)?)
                }
            };
            writer.write(&pending.batch)?;
        }
        for writer in writers.into_values() {
            written.extend(writer.finish()?);
        }
        Ok(())
    }

    /// Makes a list with the pending rows and without those that they replace. Files are appended to
    /// `written` as they are written.
    fn replace_list(&self, written: &mut Vec<StoredFile>) -> Result<(), StoreError> {
        let list = self.shared.lock_list();
        let mut manifest = list.manifest();
        let mut removed = vec![];
        let mut files = vec![];
        for file in std::mem::take(&mut manifest.files) {
            match self.rewrite(&file)? {
                None => files.push(file),
                Some(rewritten) => {
                    removed.push(file.path);
                    written.extend(rewritten);
                }
            }
        }
        self.write_pending(written)?;
        files.extend_from_slice(written);
        manifest.files = files;
        list.commit(manifest, true, &removed)
    }

    /// Copies a file without the rows of the epochs replaced; none if it has none of them.
    fn rewrite(&self, file: &StoredFile) -> Result<Option<Option<StoredFile>>, StoreError> {
        let (from, to) = (file.time_min_ns, file.time_max_ns);
        if !self
            .replaced
            .keys()
            .any(|(time, _)| (from..=to).contains(time))
        {
            return Ok(None);
        }
        let path = self.shared.folder.join(&file.path);
        let mut hit = false;
        let search = &mut |batch: &RecordBatch| {
            hit |= select(batch, false, |of, switch| {
                is_replaced(&self.replaced, of, switch)
            })
            .true_count()
                > 0;
            if hit {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let columns = ["time", "epoch", "switch"];
        _ = parquet_files::scan(&path, TimeRange::ALL, Some(&columns), search)?;
        if !hit {
            return Ok(None);
        }
        let mut writer = FileWriter::new(&self.shared.folder, self.shared.next_file(), from)?;
        let open = File::open(&path).map_err(file_error("open", &path))?;
        _ = writer.copy(open, &path, |batch| {
            let kept = select(batch, true, |of, switch| {
                !is_replaced(&self.replaced, of, switch)
            });
            filter_record_batch(batch, &kept)
                .map(ControlFlow::Continue)
                .map_err(|error| parquet_files::parquet_error("copy", &path)(error.into()))
        })?;
        writer.finish().map(Some)
    }
}

impl FlowStore for ParquetStore {
    fn append_epoch(&mut self, epoch: &DecodedEpoch) {
        let time_ns = i64::try_from(epoch.time_ns).unwrap_or(i64::MAX);
        let of = (time_ns, epoch.epoch);
        let batch = if epoch.too_late {
            let stored = self.switches_stored(time_ns, epoch.epoch);
            epoch_batch::batch(epoch, |switch| !stored.contains(switch))
        } else {
            if epoch.may_be_stored {
                let switches = epoch.switches.iter();
                let switches: HashSet<String> =
                    switches.map(|outcome| outcome.switch.clone()).collect();
                self.forget_pending(of, &switches);
                let replaced = Arc::make_mut(&mut self.replaced);
                replaced.entry(of).or_default().extend(switches);
                let replaced = Arc::clone(&self.replaced);
                self.shared.change(|view| view.replaced = replaced);
            }
            epoch_batch::batch(epoch, |_| true)
        };
        // What came too late stands beside the rows of its epoch, and is replaced by nobody.
        self.push((!epoch.too_late).then_some(of), batch);
        self.feedback.push(Feedback::Stored {
            group: epoch.group,
            revision: epoch.revision,
        });
    }

    fn append_classic(&mut self, records: &[ClassicRecord]) {
        self.push(None, classic_batch::batch(records));
    }

    fn pending_rows(&self) -> usize {
        self.pending_rows
    }

    fn flush(&mut self) -> Result<Vec<Feedback>, StoreError> {
        if self.pending.is_empty() && self.replaced.is_empty() {
            return Ok(std::mem::take(&mut self.feedback));
        }
        let mut written = vec![];
        if let Err(error) = self.replace_list(&mut written) {
            self.shared.discard(&written);
            return Err(error);
        }
        self.pending.clear();
        self.pending_rows = 0;
        self.replaced = Arc::default();
        Ok(std::mem::take(&mut self.feedback))
    }

    fn maintainer(&self) -> Box<dyn Maintainer> {
        Box::new(ParquetMaintainer::new(Arc::clone(&self.shared)))
    }

    fn reader(&self) -> Arc<dyn FlowReader> {
        Arc::clone(&self.shared) as Arc<dyn FlowReader>
    }
}

/// Removes files that are on no list.
fn remove_unlisted(folder: &Path, manifest: &Manifest) -> Result<(), StoreError> {
    let listed: HashSet<PathBuf> = manifest
        .files()
        .iter()
        .map(|file| folder.join(&file.path))
        .collect();
    for path in subfolders(folder)?
        .iter()
        .map(|day| subfolders(day))
        .collect::<Result<Vec<_>, _>>()?
        .iter()
        .flatten()
    {
        for entry in fs::read_dir(path).map_err(file_error("read", path))? {
            let file = entry.map_err(file_error("read", path))?.path();
            let ours = file
                .extension()
                .is_some_and(|end| end == "parquet" || end == "part");
            if ours && !listed.contains(&file) {
                fs::remove_file(&file).map_err(file_error("remove", &file))?;
            }
        }
    }
    Ok(())
}

fn subfolders(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut folders = vec![];
    for entry in fs::read_dir(folder).map_err(file_error("read", folder))? {
        let path = entry.map_err(file_error("read", folder))?.path();
        if path.is_dir() {
            folders.push(path);
        }
    }
    Ok(folders)
}

#[cfg(test)]
#[path = "parquet_store_tests.rs"]
mod tests;
