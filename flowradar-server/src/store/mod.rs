//! The flow store: what was decoded, and what classic exporters reported, kept by time.
//!
//! [`FlowStore`] is what the collector writes to and [`FlowReader`] what the API reads from;
//! [`ParquetStore`] serves both with files that any tool for Parquet reads ([`schema`]).

mod classic_batch;
mod epoch_batch;
mod manifest;
mod parquet_files;
mod parquet_store;
pub mod schema;

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::RecordBatch;

pub use manifest::{Manifest, ManifestError, StoredFile};
pub use parquet_store::{ParquetStore, StoreOptions};

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

/// What was removed or merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintenance {
    /// Files merged into others.
    pub merged_files: usize,
    /// Files removed since they were too old, or all of them too large.
    pub removed_files: usize,
    /// Rows in these.
    pub removed_rows: u64,
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

    /// Merges small files; removes what is too old or too much.
    ///
    /// # Errors
    /// If files could not be read or written. What was done is done; no row is lost or there twice.
    fn maintain(&mut self, now_ns: i64) -> Result<Maintenance, StoreError>;

    /// Reads what the store holds.
    fn reader(&self) -> Arc<dyn FlowReader>;
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
