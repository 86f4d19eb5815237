//! The store that needs no server: Parquet files by hour, and a list of them.
//!
//! Rows wait in memory until [`FlowStore::flush`]. A flush writes new files, forces them to disk, and
//! then replaces the list in one step: after a crash the store is as before the flush or as after it,
//! and files that are on no list are removed. An epoch that is decoded again takes the place of its
//! former rows in the same step; merging files and removing old ones work the same way.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, TimestampNanosecondType, UInt64Type};
use arrow_array::{Array, BooleanArray, RecordBatch};
use arrow_select::filter::filter_record_batch;

use super::manifest::{Manifest, StoredFile};
use super::parquet_files::{self, FileWriter, file_error, partition};
use super::schema::SCHEMA;
use super::{
    FlowReader, FlowStore, Maintenance, Scanned, StoreError, StoreSizes, TimeRange, classic_batch,
    epoch_batch,
};
use crate::classic::ClassicRecord;
use crate::epoch::{DecodedEpoch, Feedback};

/// So many files of about the same size in an hour are merged.
const MERGE_FILES: usize = 8;
/// Each size class is so many times the one before; the first is up to a megabyte.
const MERGE_RATIO: u64 = 8;
/// Larger files are not merged any more.
const MERGED_BYTES_MAX: u64 = 512 << 20;

/// How often a scan begins anew since a file was replaced just then.
const OPEN_ATTEMPTS_MAX: u32 = 10;

/// How long rows are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// Files whose newest row is older are removed; 0: never.
    pub keep_ns: u64,
    /// The oldest files are removed while all together are larger; 0: never.
    pub bytes_max: u64,
}

/// Stores flow records in Parquet files.
#[derive(Debug)]
pub struct ParquetStore {
    folder: PathBuf,
    options: StoreOptions,
    shared: Arc<Shared>,
    pending: Vec<Pending>,
    pending_rows: usize,
    /// What is decoded again: rows in files that are replaced by the next flush.
    replaced: Arc<Replaced>,
    /// What grouping hears after the next flush.
    feedback: Vec<Feedback>,
}

/// Rows that are replaced: of epochs, by time and number, and of these switches.
type Replaced = HashMap<(i64, u64), HashSet<String>>;

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    view: RwLock<View>,
}

/// What readers see.
#[derive(Clone, Debug, Default)]
struct View {
    manifest: Arc<Manifest>,
    pending: Vec<RecordBatch>,
    /// Rows in files that pending ones take the place of.
    replaced: Arc<Replaced>,
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
    pub fn open(folder: impl Into<PathBuf>, options: StoreOptions) -> Result<Self, StoreError> {
        let folder = folder.into();
        fs::create_dir_all(&folder).map_err(file_error("make", &folder))?;
        let manifest = Manifest::read(&folder).map_err(|source| StoreError::Manifest {
            path: folder.join(Manifest::NAME),
            source,
        })?;
        remove_unlisted(&folder, &manifest)?;
        Ok(Self {
            shared: Arc::new(Shared {
                folder: folder.clone(),
                view: RwLock::new(View {
                    manifest: Arc::new(manifest),
                    pending: vec![],
                    replaced: Arc::default(),
                }),
            }),
            folder,
            options,
            pending: vec![],
            pending_rows: 0,
            replaced: Arc::default(),
            feedback: vec![],
        })
    }

    /// Takes other limits.
    pub fn set_options(&mut self, options: StoreOptions) {
        self.options = options;
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

    /// Writes the pending rows, by hour.
    fn write_pending(&self, next_file: &mut u64) -> Result<Vec<StoredFile>, StoreError> {
        let mut writers: BTreeMap<String, FileWriter> = BTreeMap::new();
        for pending in &self.pending {
            // A batch of classic records may span hours; it goes with its first.
            let (time_ns, _) = parquet_files::times(&pending.batch).unwrap_or_default();
            let partition = partition(time_ns);
            let writer = match writers.entry(partition) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    let number = *next_file;
                    *next_file += 1;
                    entry.insert(FileWriter::new(&self.folder, number, time_ns)?)
                }
            };
            writer.write(&pending.batch)?;
        }
        let mut files = vec![];
        for writer in writers.into_values() {
            files.extend(writer.finish()?);
        }
        Ok(files)
    }

    /// Copies a file without the rows of the epochs replaced; none if it has none of them.
    fn rewrite(
        &self,
        file: &StoredFile,
        next_file: &mut u64,
    ) -> Result<Option<Option<StoredFile>>, StoreError> {
        let (from, to) = (file.time_min_ns, file.time_max_ns);
        if !self
            .replaced
            .keys()
            .any(|(time, _)| (from..=to).contains(time))
        {
            return Ok(None);
        }
        let path = self.folder.join(&file.path);
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
        let number = *next_file;
        *next_file += 1;
        let mut writer = FileWriter::new(&self.folder, number, from)?;
        copy(&path, &mut writer, |batch| {
            select(batch, true, |of, switch| {
                !is_replaced(&self.replaced, of, switch)
            })
        })?;
        writer.finish().map(Some)
    }

    /// Makes a list the store's, then removes the files that are not on it any more.
    fn commit(
        &self,
        manifest: Manifest,
        pending: Vec<RecordBatch>,
        removed: &[String],
    ) -> Result<(), StoreError> {
        manifest
            .write(&self.folder)
            .map_err(file_error("write the list of files in", &self.folder))?;
        self.shared.change(|view| {
            view.manifest = Arc::new(manifest);
            // Pending rows that are in files now have replaced what they had to.
            if pending.is_empty() {
                view.replaced = Arc::default();
            }
            view.pending = pending;
        });
        for path in removed {
            // One that stays is removed when the store is opened.
            _ = fs::remove_file(self.folder.join(path));
        }
        Ok(())
    }

    /// Merges files of an hour and about the same size, where there are many.
    fn merge(&self) -> Result<usize, StoreError> {
        let manifest = self.shared.view().manifest;
        let mut classes: BTreeMap<(&str, u32), Vec<&StoredFile>> = BTreeMap::new();
        for file in manifest.files() {
            let partition = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            classes
                .entry((partition, size_class(file.bytes)))
                .or_default()
                .push(file);
        }
        let mut merged = 0;
        for files in classes.into_values() {
            let total: u64 = files.iter().map(|file| file.bytes).sum();
            if files.len() < MERGE_FILES || total > MERGED_BYTES_MAX {
                continue;
            }
            let mut manifest = Manifest::clone(&self.shared.view().manifest);
            let mut files = files;
            files.sort_by_key(|file| (file.time_min_ns, &file.path));
            let number = manifest.next_file;
            manifest.next_file += 1;
            let mut writer = FileWriter::new(&self.folder, number, files[0].time_min_ns)?;
            for file in &files {
                copy(&self.folder.join(&file.path), &mut writer, |batch| {
                    BooleanArray::from(vec![true; batch.num_rows()])
                })?;
            }
            let removed: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
            manifest.files.retain(|file| !removed.contains(&file.path));
            manifest.files.extend(writer.finish()?);
            let pending = self.shared.view().pending;
            self.commit(manifest, pending, &removed)?;
            merged += removed.len();
        }
        Ok(merged)
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
        let mut manifest = Manifest::clone(&self.shared.view().manifest);
        let mut next_file = manifest.next_file;
        let mut removed = vec![];
        let mut files = vec![];
        for file in std::mem::take(&mut manifest.files) {
            match self.rewrite(&file, &mut next_file)? {
                None => files.push(file),
                Some(rewritten) => {
                    removed.push(file.path);
                    files.extend(rewritten);
                }
            }
        }
        files.extend(self.write_pending(&mut next_file)?);
        manifest.files = files;
        manifest.next_file = next_file;
        self.commit(manifest, vec![], &removed)?;
        self.pending.clear();
        self.pending_rows = 0;
        self.replaced = Arc::default();
        Ok(std::mem::take(&mut self.feedback))
    }

    fn maintain(&mut self, now_ns: i64) -> Result<Maintenance, StoreError> {
        let mut done = Maintenance {
            merged_files: self.merge()?,
            ..Maintenance::default()
        };
        let mut manifest = Manifest::clone(&self.shared.view().manifest);
        manifest.files.sort_by_key(|file| file.time_max_ns);
        let mut bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
        let keep_ns = i64::try_from(self.options.keep_ns).unwrap_or(i64::MAX);
        let mut removed = vec![];
        manifest.files.retain(|file| {
            let old = keep_ns > 0 && file.time_max_ns < now_ns.saturating_sub(keep_ns);
            let much = self.options.bytes_max > 0 && bytes > self.options.bytes_max;
            if old || much {
                bytes -= file.bytes;
                done.removed_files += 1;
                done.removed_rows += file.rows;
                removed.push(file.path.clone());
            }
            !(old || much)
        });
        if !removed.is_empty() {
            let pending = self.shared.view().pending;
            self.commit(manifest, pending, &removed)?;
        }
        Ok(done)
    }

    fn reader(&self) -> Arc<dyn FlowReader> {
        Arc::clone(&self.shared) as Arc<dyn FlowReader>
    }
}

impl Shared {
    fn view(&self) -> View {
        self.view
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Opens the files of a time range, the oldest first, all of the same view: one may be replaced just
    /// now. Returns also how many could not be opened.
    fn open(&self, range: TimeRange) -> (View, Vec<(StoredFile, PathBuf, File)>, u64) {
        let mut attempts = 0;
        loop {
            let view = self.view();
            let mut files = vec![];
            let (mut gone, mut unreadable) = (false, 0);
            for file in view.manifest.files() {
                if !range.overlaps(file.time_min_ns, file.time_max_ns) {
                    continue;
                }
                let path = self.folder.join(&file.path);
                match File::open(&path) {
                    Ok(open) => files.push((file.clone(), path, open)),
                    Err(error) => {
                        gone |= error.kind() == std::io::ErrorKind::NotFound;
                        unreadable += 1;
                    }
                }
            }
            attempts += 1;
            if !gone || attempts == OPEN_ATTEMPTS_MAX {
                files.sort_by_key(|(file, ..)| file.time_min_ns);
                return (view, files, unreadable);
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut View)) {
        change(&mut self.view.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl FlowReader for Shared {
    fn scan(
        &self,
        range: TimeRange,
        columns: &[&str],
        visit: &mut dyn FnMut(&RecordBatch) -> ControlFlow<()>,
    ) -> Result<Scanned, StoreError> {
        let (view, files, mut unreadable) = self.open(range);
        let mut scanned = Scanned::default();
        let mut visit = |batch: &RecordBatch| {
            scanned.rows += batch.num_rows() as u64;
            visit(batch)
        };
        let with_place: Vec<&str> = columns
            .iter()
            .chain(&["time", "epoch", "switch"])
            .copied()
            .collect();
        for (file, path, open) in files {
            let times = file.time_min_ns..=file.time_max_ns;
            let hit = view.replaced.keys().any(|(time, _)| times.contains(time));
            let read = if hit {
                parquet_files::scan_open(open, &path, range, Some(&with_place), &mut |batch| {
                    let kept = select(batch, true, |of, switch| {
                        !is_replaced(&view.replaced, of, switch)
                    });
                    match filter_record_batch(batch, &kept) {
                        Ok(batch) => visit(&batch),
                        Err(_) => visit(batch),
                    }
                })
            } else {
                parquet_files::scan_open(open, &path, range, Some(columns), &mut visit)
            };
            match read {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return Ok(scanned),
                Err(error) => {
                    unreadable += 1;
                    tracing::warn!(%error, "a stored file cannot be read");
                }
            }
        }
        let indices: Vec<usize> = SCHEMA
            .fields()
            .iter()
            .enumerate()
            .filter(|(_, field)| columns.contains(&field.name().as_str()))
            .map(|(index, _)| index)
            .collect();
        for batch in &view.pending {
            let wanted =
                parquet_files::times(batch).is_some_and(|(min, max)| range.overlaps(min, max));
            if wanted
                && let Ok(batch) = batch.project(&indices)
                && visit(&batch).is_break()
            {
                break;
            }
        }
        scanned.unreadable_files = unreadable;
        Ok(scanned)
    }

    fn sizes(&self) -> StoreSizes {
        let view = self.view();
        let files = view.manifest.files();
        StoreSizes {
            files: files.len() as u64,
            bytes: files.iter().map(|file| file.bytes).sum(),
            rows: files.iter().map(|file| file.rows).sum(),
            pending_rows: view
                .pending
                .iter()
                .map(|batch| batch.num_rows() as u64)
                .sum(),
        }
    }
}

fn is_replaced(replaced: &Replaced, epoch: (i64, u64), switch: &str) -> bool {
    let switches = replaced.get(&epoch);
    switches.is_some_and(|switches| switches.contains(switch))
}

/// Which rows a question says yes to, from the columns `time`, `epoch` and `switch`; for rows without an
/// epoch, which are not of switches, the answer is given.
fn select(
    batch: &RecordBatch,
    without_epoch: bool,
    mut ask: impl FnMut((i64, u64), &str) -> bool,
) -> BooleanArray {
    let times = batch
        .column_by_name("time")
        .and_then(|column| column.as_primitive_opt::<TimestampNanosecondType>());
    let numbers = batch
        .column_by_name("epoch")
        .and_then(|column| column.as_primitive_opt::<UInt64Type>());
    let switches = batch
        .column_by_name("switch")
        .and_then(|column| column.as_dictionary_opt::<Int32Type>());
    let names = switches.and_then(|column| column.values().as_string_opt::<i32>());
    let (Some(times), Some(numbers), Some(switches), Some(names)) =
        (times, numbers, switches, names)
    else {
        return BooleanArray::from(vec![without_epoch; batch.num_rows()]);
    };
    // Rows of an epoch and switch stand together: each run of them is asked about once.
    let mut last = (None, without_epoch);
    let rows = times
        .values()
        .iter()
        .zip(numbers.iter())
        .zip(switches.keys().values());
    rows.map(|((&time, number), &key)| {
        let of = number.map(|number| ((time, number), key));
        if last.0 != Some(of) {
            let answer = of.map_or(without_epoch, |(epoch, key)| {
                let name = usize::try_from(key).ok().filter(|key| *key < names.len());
                ask(epoch, name.map_or("", |key| names.value(key)))
            });
            last = (Some(of), answer);
        }
        Some(last.1)
    })
    .collect()
}

/// Copies the rows of a file that `keep` says.
fn copy(
    path: &Path,
    writer: &mut FileWriter,
    keep: impl Fn(&RecordBatch) -> BooleanArray,
) -> Result<(), StoreError> {
    let mut failed = None;
    let mut write = |batch: &RecordBatch| {
        let kept = filter_record_batch(batch, &keep(batch))
            .map_err(|error| parquet_files::parquet_error("copy", path)(error.into()));
        match kept.and_then(|kept| writer.write(&kept)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    };
    _ = parquet_files::scan(path, TimeRange::ALL, None, &mut write)?;
    failed.map_or(Ok(()), Err)
}

fn size_class(bytes: u64) -> u32 {
    (bytes >> 20).max(1).ilog(MERGE_RATIO)
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
