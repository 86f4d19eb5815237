//! What readers of the store see: the list of its files, and the rows that are in none yet.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use arrow_array::RecordBatch;
use arrow_select::filter::filter_record_batch;

use super::manifest::{Manifest, StoredFile};
use super::parquet_files::{self, file_error};
use super::rows::{Replaced, is_replaced, select};
use super::schema::SCHEMA;
use super::{FlowReader, Scanned, StoreError, StoreSizes, TimeRange};

/// How often a scan begins anew since a file was replaced just then.
const OPEN_ATTEMPTS_MAX: u32 = 10;

/// What storing, maintenance and readers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) folder: PathBuf,
    view: RwLock<View>,
    /// Number of the next file.
    next_file: AtomicU64,
    /// Held by whoever replaces the list of files, from reading it on.
    list: Mutex<()>,
}

/// What readers see.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub(super) manifest: Arc<Manifest>,
    pub(super) pending: Vec<RecordBatch>,
    /// Rows in files that pending ones take the place of.
    pub(super) replaced: Arc<Replaced>,
}

/// The right to replace the list of files.
#[derive(Debug)]
pub(super) struct ListLock<'a> {
    shared: &'a Shared,
    _guard: MutexGuard<'a, ()>,
}

impl Shared {
    pub(super) fn new(folder: PathBuf, manifest: Manifest) -> Self {
        Self {
            folder,
            next_file: AtomicU64::new(manifest.next_file),
            view: RwLock::new(View {
                manifest: Arc::new(manifest),
                ..View::default()
            }),
            list: Mutex::new(()),
        }
    }

    pub(super) fn view(&self) -> View {
        self.view
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut View)) {
        change(&mut self.view.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// A number that no other file has or will have.
    pub(super) fn next_file(&self) -> u64 {
        self.next_file.fetch_add(1, Ordering::Relaxed)
    }

    /// Removes files that were written for nothing: each attempt has new names, and on a full disk what the
    /// last one left would keep it full. After an error nobody knows whether the list on disk was replaced,
    /// so that is looked at.
    pub(super) fn discard(&self, files: &[StoredFile]) {
        let Ok(list) = Manifest::read(&self.folder) else {
            return;
        };
        let is_listed = |file: &&StoredFile| list.files.iter().any(|other| other.path == file.path);
        for file in files.iter().filter(|file| !is_listed(file)) {
            // One that stays is removed when the store is opened.
            _ = fs::remove_file(self.folder.join(&file.path));
        }
    }

    pub(super) fn lock_list(&self) -> ListLock<'_> {
        ListLock {
            shared: self,
            _guard: self.list.lock().unwrap_or_else(PoisonError::into_inner),
        }
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
}

impl ListLock<'_> {
    /// The list as it is; nobody else changes it meanwhile.
    pub(super) fn manifest(&self) -> Manifest {
        Manifest::clone(&self.shared.view().manifest)
    }

    /// Makes a list the store's, then removes the files that are not on it any more.
    ///
    /// `flushed`: it has all rows that were pending, and none of those that they replace.
    pub(super) fn commit(
        self,
        mut manifest: Manifest,
        flushed: bool,
        removed: &[String],
    ) -> Result<(), StoreError> {
        let folder = &self.shared.folder;
        manifest.next_file = self.shared.next_file.load(Ordering::Relaxed);
        manifest
            .write(folder)
            .map_err(file_error("write the list of files in", folder))?;
        self.shared.change(|view| {
            view.manifest = Arc::new(manifest);
            if flushed {
                view.pending = vec![];
                view.replaced = Arc::default();
            }
        });
        for path in removed {
            // One that stays is removed when the store is opened.
            _ = fs::remove_file(folder.join(path));
        }
        Ok(())
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
