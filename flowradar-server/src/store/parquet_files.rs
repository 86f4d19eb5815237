//! Writing and reading Parquet files, whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampNanosecondType;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, Encoding};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData,
};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::file::statistics::Statistics;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;

use super::schema::SCHEMA;
use super::{StoreError, StoredFile, TimeRange};
use crate::journal::sync_folder;

/// Rows of a row group at most.
const ROW_GROUP_ROWS: usize = 1 << 20;
/// So much of a file is written before it is forced to disk.
const SYNC_BYTES: usize = 1 << 20;
/// Rows read at a time.
const BATCH_ROWS: usize = 1 << 16;

/// A file being written. Not in the store before it is on the list.
pub(super) struct FileWriter {
    file: Unfinished,
    writer: ArrowWriter<PacedFile>,
    rows: u64,
    times: Option<(i64, i64)>,
}

impl FileWriter {
    /// Begins the file with a number, for rows of the hour of `time_ns`.
    pub(super) fn new(folder: &Path, number: u64, time_ns: i64) -> Result<Self, StoreError> {
        let (file, open) = Unfinished::create(folder, number, time_ns)?;
        let writer = ArrowWriter::try_new(open, Arc::clone(&SCHEMA), Some(properties().build()))
            .map_err(parquet_error("write", &file.unfinished))?;
        Ok(Self {
            file,
            writer,
            rows: 0,
            times: None,
        })
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), StoreError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        if let Some((min, max)) = times(batch) {
            let (first, last) = self.times.unwrap_or((min, max));
            self.times = Some((first.min(min), last.max(max)));
        }
        self.rows += batch.num_rows() as u64;
        self.writer
            .write(batch)
            .map_err(parquet_error("write", &self.file.unfinished))
    }

    /// Writes what `change` makes of the rows of a file, batch by batch, until it breaks off.
    pub(super) fn copy(
        &mut self,
        open: File,
        path: &Path,
        mut change: impl FnMut(&RecordBatch) -> Result<ControlFlow<(), RecordBatch>, StoreError>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let mut failed = None;
        let mut write = |batch: &RecordBatch| {
            let written = change(batch).and_then(|changed| match changed {
                ControlFlow::Continue(batch) => self.write(&batch).map(ControlFlow::Continue),
                ControlFlow::Break(()) => Ok(ControlFlow::Break(())),
            });
            written.unwrap_or_else(|error| {
                failed = Some(error);
                ControlFlow::Break(())
            })
        };
        let read = scan_open(open, path, TimeRange::ALL, None, &mut write)?;
        failed.map_or(Ok(read), Err)
    }

    /// Completes the file, durably; none if no rows were written.
    pub(super) fn finish(self) -> Result<Option<StoredFile>, StoreError> {
        let Some(times) = self.times else {
            return Ok(None);
        };
        let open = self
            .writer
            .into_inner()
            .map_err(parquet_error("write", &self.file.unfinished))?;
        self.file.finish(&open.file, self.rows, times).map(Some)
    }
}

/// The row groups of other files, one after the other, as they are: no value is read or written anew.
pub(super) struct RowGroupsWriter {
    file: Unfinished,
    writer: SerializedFileWriter<PacedFile>,
    rows: u64,
}

impl RowGroupsWriter {
    /// Begins the file with a number, for rows of the hour of `time_ns`, with the columns of `like`.
    pub(super) fn new(
        folder: &Path,
        number: u64,
        time_ns: i64,
        like: &ParquetMetaData,
    ) -> Result<Self, StoreError> {
        let (file, open) = Unfinished::create(folder, number, time_ns)?;
        let of_file = like.file_metadata();
        let properties = properties().set_key_value_metadata(of_file.key_value_metadata().cloned());
        let writer = SerializedFileWriter::new(
            open,
            of_file.schema_descr().root_schema_ptr(),
            Arc::new(properties.build()),
        )
        .map_err(parquet_error("write", &file.unfinished))?;
        Ok(Self {
            file,
            writer,
            rows: 0,
        })
    }

    /// Copies a row group of a file.
    pub(super) fn copy(
        &mut self,
        from: &File,
        metadata: &ParquetMetaData,
        group: usize,
    ) -> Result<(), StoreError> {
        self.try_copy(from, metadata, group)
            .map_err(parquet_error("write", &self.file.unfinished))
    }

    fn try_copy(
        &mut self,
        from: &File,
        metadata: &ParquetMetaData,
        group: usize,
    ) -> Result<(), ParquetError> {
        let rows = metadata.row_group(group);
        let mut writer = self.writer.next_row_group()?;
        for (index, column) in rows.columns().iter().enumerate() {
            let column_index = metadata
                .column_index()
                .and_then(|i| i.get(group)?.get(index));
            let offset_index = metadata
                .offset_index()
                .and_then(|i| i.get(group)?.get(index));
            let written = ColumnCloseResult {
                bytes_written: u64::try_from(column.compressed_size()).unwrap_or_default(),
                rows_written: u64::try_from(rows.num_rows()).unwrap_or_default(),
                metadata: column.clone(),
                bloom_filter: None,
                column_index: column_index.cloned(),
                offset_index: offset_index.cloned(),
            };
            writer.append_column(from, written)?;
        }
        writer.close()?;
        self.rows += u64::try_from(rows.num_rows()).unwrap_or_default();
        Ok(())
    }

    /// Completes the file, durably, with rows of these times.
    pub(super) fn finish(self, times: (i64, i64)) -> Result<StoredFile, StoreError> {
        let open = self
            .writer
            .into_inner()
            .map_err(parquet_error("write", &self.file.unfinished))?;
        self.file.finish(&open.file, self.rows, times)
    }
}

/// Forces what is written to disk now and then. All at once at the end, nobody else's writes would become
/// durable meanwhile, and reports wait until theirs are.
#[derive(Debug)]
struct PacedFile {
    file: File,
    unsynced: usize,
}

impl Write for PacedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(&bytes[..bytes.len().min(SYNC_BYTES)])?;
        self.unsynced += written;
        if self.unsynced >= SYNC_BYTES {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A file that has not its name yet. If it never gets it, it is removed.
#[derive(Debug)]
struct Unfinished {
    folder: PathBuf,
    /// Path from the folder, once it is finished.
    path: String,
    unfinished: PathBuf,
}

impl Unfinished {
    fn create(folder: &Path, number: u64, time_ns: i64) -> Result<(Self, PacedFile), StoreError> {
        let partition = partition(time_ns);
        let path = format!("{partition}/{number:020}.parquet");
        let unfinished = folder.join(&path).with_extension("part");
        fs::create_dir_all(folder.join(&partition)).map_err(file_error("make", folder))?;
        let file = File::create(&unfinished).map_err(file_error("make", &unfinished))?;
        let this = Self {
            folder: folder.to_path_buf(),
            path,
            unfinished,
        };
        Ok((this, PacedFile { file, unsynced: 0 }))
    }

    fn finish(
        self,
        file: &File,
        rows: u64,
        (time_min_ns, time_max_ns): (i64, i64),
    ) -> Result<StoredFile, StoreError> {
        let unfinished = &self.unfinished;
        file.sync_all().map_err(file_error("sync", unfinished))?;
        let bytes = file
            .metadata()
            .map_err(file_error("read", unfinished))?
            .len();
        let path = self.folder.join(&self.path);
        fs::rename(unfinished, &path).map_err(file_error("rename", unfinished))?;
        // The partition's folders may be new, too.
        for folder in path.ancestors().skip(1).take(3) {
            sync_folder(folder).map_err(file_error("sync", folder))?;
        }
        Ok(StoredFile {
            path: self.path.clone(),
            rows,
            bytes,
            time_min_ns,
            time_max_ns,
        })
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // A finished file has this name no more. What stays is removed when the store is opened.
        _ = fs::remove_file(&self.unfinished);
    }
}

fn properties() -> WriterPropertiesBuilder {
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_created_by(concat!("flowradar ", env!("CARGO_PKG_VERSION")).into());
    // Looking up every value in a dictionary is most of the work of writing. Numbers do without: they
    // are the same in many rows, different in nearly all, or small.
    let of_differences = [
        "time",
        "length_ns",
        "epoch",
        "src_port",
        "dst_port",
        "protocol",
        "packets",
        "bytes",
    ];
    // The least and the largest text of some thousand rows exclude hardly any question, and comparing texts
    // to find them is a seventh of the work of writing.
    let properties = ["source", "switch", "src", "dst", "status"]
        .into_iter()
        .fold(properties, |properties, name| {
            properties
                .set_column_statistics_enabled(ColumnPath::from(name), EnabledStatistics::None)
        });
    of_differences
        .into_iter()
        .fold(properties, |properties, name| {
            let column = ColumnPath::from(name);
            properties
                .set_column_dictionary_enabled(column.clone(), false)
                .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED)
        })
}

/// Shows the rows of a file that may be in a time range, with the columns named.
pub(super) fn scan(
    path: &Path,
    range: TimeRange,
    columns: Option<&[&str]>,
    visit: &mut dyn FnMut(&RecordBatch) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, StoreError> {
    let file = File::open(path).map_err(file_error("open", path))?;
    scan_open(file, path, range, columns, visit)
}

/// The same for a file that is open; it may have no name any more.
pub(super) fn scan_open(
    file: File,
    path: &Path,
    range: TimeRange,
    columns: Option<&[&str]>,
    visit: &mut dyn FnMut(&RecordBatch) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, StoreError> {
    let failed = parquet_error("read", path);
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(&failed)?;
    let groups = builder.metadata().row_groups().iter().enumerate();
    let wanted: Vec<usize> = groups
        .filter(|(_, group)| group_times(group).is_none_or(|(min, max)| range.overlaps(min, max)))
        .map(|(index, _)| index)
        .collect();
    let builder = match columns {
        Some(columns) => {
            let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
            builder.with_projection(mask)
        }
        None => builder,
    };
    let reader: ParquetRecordBatchReader = builder
        .with_row_groups(wanted)
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(&failed)?;
    for batch in reader {
        let batch = batch.map_err(|error| failed(error.into()))?;
        if visit(&batch).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// What a file says of its columns and row groups.
pub(super) fn metadata(file: &File, path: &Path) -> Result<ParquetMetaData, StoreError> {
    ParquetMetaDataReader::new()
        .with_page_index_policy(PageIndexPolicy::Optional)
        .parse_and_finish(file)
        .map_err(parquet_error("read", path))
}

/// Earliest and latest time in a batch with the column `time`.
pub(super) fn times(batch: &RecordBatch) -> Option<(i64, i64)> {
    let column = batch.column_by_name("time")?;
    let times = column.as_primitive_opt::<TimestampNanosecondType>()?;
    let min = times.values().iter().min()?;
    let max = times.values().iter().max()?;
    Some((*min, *max))
}

/// The folder for rows of a time: `day=2026-11-22/hour=18`.
pub(super) fn partition(time_ns: i64) -> String {
    let seconds = u64::try_from(time_ns).unwrap_or_default() / 1_000_000_000;
    let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds));
    let text = time.to_string();
    let (day, rest) = text.split_once('T').unwrap_or((&text, "00"));
    format!("day={day}/hour={}", rest.get(..2).unwrap_or("00"))
}

fn group_times(group: &RowGroupMetaData) -> Option<(i64, i64)> {
    match group.columns().first()?.statistics()? {
        Statistics::Int64(statistics) => Some((*statistics.min_opt()?, *statistics.max_opt()?)),
        _ => None,
    }
}

pub(super) fn file_error<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl Fn(io::Error) -> StoreError + 'a {
    move |source| StoreError::File {
        action,
        path: path.to_path_buf(),
        source,
    }
}

pub(super) fn parquet_error<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl Fn(parquet::errors::ParquetError) -> StoreError + 'a {
    move |source| StoreError::Parquet {
        action,
        path: path.to_path_buf(),
        source,
    }
}
