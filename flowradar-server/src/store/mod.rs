//! The flow store: what was decoded, and what classic exporters reported, kept by time.
//!
//! [`FlowStore`] is what the collector writes to and [`FlowReader`] what the API reads from;
//! [`ParquetStore`] serves both with files that any tool for Parquet reads ([`schema`]).

mod classic_batch;
mod epoch_batch;
mod maintenance;
mod manifest;
mod parquet_files;
mod parquet_store;
mod rows;
pub mod schema;
mod view;

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::RecordBatch;

pub use manifest::{Manifest, ManifestError, StoredFile};
pub use parquet_store::ParquetStore;

use crate::classic::ClassicRecord;
use crate::epoch::{DecodedEpoch, Feedback};

/// Times from `from_ns` up to, but not including, `to_ns`, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    /// The first time.
    pub from_ns: i64,
    /// The first time that is beyond.
    pub to_ns: i64,
}

/// How a store is kept in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaintenanceOptions {
    /// Files whose newest row is older are removed; 0: never.
    pub keep_ns: u64,
    /// The oldest files are removed while all together are larger; 0: never.
    pub bytes_max: u64,
    /// Files with younger rows are not merged yet: what is decoded again would replace rows of large files.
    pub settle_ns: u64,
}

/// What was removed or merged.
#[derive(Debug, Default)]
pub struct Maintenance {
    /// Files merged into others.
    pub merged_files: usize,
    /// Merged files thrown away, since rows were replaced meanwhile: that is tried again next time.
    pub merges_given_up: usize,
    /// Files removed since they were too old, or all of them too large.
    pub removed_files: usize,
    /// Rows in these.
    pub removed_rows: u64,
    /// What could not be done. No row is lost or there twice.
    pub failures: Vec<StoreError>,
}

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct StoreSizes {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their rows.
    pub rows: u64,
    /// Rows in memory, not in files yet.
    pub pending_rows: u64,
}

/// How far a scan came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Rows looked at.
    pub rows: u64,
    /// Files that could not be read: they were removed or merged meanwhile, or are damaged.
    pub unreadable_files: u64,
}

/// Why rows could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// The list of files is damaged.
    #[error("{}: {source}", path.display())]
    Manifest {
        /// The list.
        path: PathBuf,
        /// What is wrong.
        source: ManifestError,
    },
    /// A Parquet file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Parquet {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: parquet::errors::ParquetError,
    },
}

/// Takes flow records.
pub trait FlowStore: Send {
    /// Takes a decoded epoch, instead of what was decoded of it before. It is durable after the next
    /// [`FlowStore::flush`].
    fn append_epoch(&mut self, epoch: &DecodedEpoch);

    /// Takes records of classic exporters.
    fn append_classic(&mut self, records: &[ClassicRecord]);

    /// Rows that are not durable yet.
    fn pending_rows(&self) -> usize;

    /// Makes everything durable. Returns what grouping has to hear.
    ///
    /// # Errors
    /// If it could not be written: nothing has changed, and it can be tried again.
    fn flush(&mut self) -> Result<Vec<Feedback>, StoreError>;

    /// Reads what the store holds.
    fn reader(&self) -> Arc<dyn FlowReader>;

    /// Keeps the store in order, beside all this.
    fn maintainer(&self) -> Box<dyn Maintainer>;
}

/// Keeps a store in order while rows are stored and read. One at a time for each store.
pub trait Maintainer: Send {
    /// Removes what is too old or too much; merges small files. May take long: when `stopped` says yes it
    /// ends soon, without what it was about to do.
    fn maintain(
        &mut self,
        now_ns: i64,
        options: MaintenanceOptions,
        stopped: &dyn Fn() -> bool,
    ) -> Maintenance;
}

/// Reads flow records.
pub trait FlowReader: Send + Sync {
    /// Shows all rows of a time range, the oldest files first, with the named columns of [`schema`] in
    /// the order of the schema, until `visit` breaks off. May block.
    ///
    /// Whole batches are shown: rows beyond the range may be among them.
    ///
    /// # Errors
    /// If a column does not exist.
    fn scan(
        &self,
        range: TimeRange,
        columns: &[&str],
        visit: &mut dyn FnMut(&RecordBatch) -> ControlFlow<()>,
    ) -> Result<Scanned, StoreError>;

    /// What the store holds.
    fn sizes(&self) -> StoreSizes;
}

impl TimeRange {
    /// All times.
    pub const ALL: Self = Self {
        from_ns: i64::MIN,
        to_ns: i64::MAX,
    };

    /// Whether it overlaps the times from `min` to `max`, both included.
    pub fn overlaps(&self, min: i64, max: i64) -> bool {
        self.from_ns <= max && min < self.to_ns
    }
}
