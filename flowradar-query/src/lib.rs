//! SQL over the flow records that a collector stores, by DataFusion.
//!
//! The records are the table `flows`; `docs/collector.md` lists its columns. Only files on the store's
//! list are read, so that no epoch is there twice while the collector replaces or merges files.
//!
//! ```no_run
//! use flowradar_query::{Format, query};
//! let sql = "select switch, sum(packets) as packets from flows group by switch order by packets desc";
//! let mut out = std::io::stdout();
//! let rows = query(std::path::Path::new("flowradar-data/flows"), sql, Format::Table, &mut out)?;
//! eprintln!("{rows} rows");
//! # Ok::<(), flowradar_query::QueryError>(())
//! ```

use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{
    ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl,
};
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use serde::Deserialize;

/// Memory that a query takes at most, for sorting and grouping.
const MEMORY_BYTES_MAX: usize = 4 << 30;
/// Rows of a table whose columns are aligned; beyond, what came before is printed first.
const TABLE_ROWS: usize = 10_000;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values with a header.
    Csv,
    /// An object a line.
    Json,
    /// A Parquet file.
    Parquet,
    /// Columns for people.
    Table,
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The list of files is damaged.
    #[error("{}: {reason}", path.display())]
    Manifest {
        /// The list.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no store, or nothing in it yet.
    #[error("{} holds no stored flows: is it the folder \"flows\" of a collector's data folder?", .0.display())]
    NoFlows(PathBuf),
    /// DataFusion cannot answer it.
    #[error("{0}")]
    Query(String),
    /// The rows cannot be written.
    #[error("cannot write the rows: {0}")]
    Write(#[from] io::Error),
}

/// A store's list of files, of which the paths are needed.
#[derive(Debug, Deserialize)]
struct Manifest {
    files: Vec<ManifestFile>,
}

#[derive(Debug, Deserialize)]
struct ManifestFile {
    path: String,
}

/// Answers a query on the store in a folder, and writes the rows; returns how many.
///
/// Statements that change something are refused.
///
/// # Errors
/// If there is no store, the query is wrong, or the rows cannot be written.
pub fn query(
    store: &Path,
    sql: &str,
    format: Format,
    out: &mut (impl Write + Send),
) -> Result<u64, QueryError> {
    let runtime = tokio::runtime::Runtime::new()?;
    let files = stored_files(store)?;
    let (schema, batches) = runtime.block_on(answer(&files, sql))?;
    let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
    match format {
        Format::Csv => write_csv(out, &schema, &batches)?,
        Format::Json => write_json(out, &schema, &batches)?,
        Format::Parquet => write_parquet(out, schema, &batches)?,
        Format::Table => write_table(out, &schema, &batches)?,
    }
    out.flush()?;
    Ok(rows)
}

async fn answer(files: &[PathBuf], sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>), QueryError> {
    let context = context(files).await.map_err(failed)?;
    let options = SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false);
    let frame = context
        .sql_with_options(sql, options)
        .await
        .map_err(failed)?;
    let schema = Arc::new(frame.schema().as_arrow().clone());
    let batches = frame.collect().await.map_err(failed)?;
    Ok((schema, batches))
}

/// A context with the table `flows`.
async fn context(files: &[PathBuf]) -> Result<SessionContext, DataFusionError> {
    let mut config = SessionConfig::new().with_information_schema(true);
    let parquet = &mut config.options_mut().execution.parquet;
    parquet.pushdown_filters = true;
    parquet.reorder_filters = true;
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_limit(MEMORY_BYTES_MAX, 1.0)
        .build_arc()?;
    let context = SessionContext::new_with_config_rt(config, runtime);
    let urls = files
        .iter()
        .map(|file| ListingTableUrl::parse(file.to_string_lossy()))
        .collect::<Result<Vec<_>, _>>()?;
    let options = ListingOptions::new(Arc::new(ParquetFormat::default()));
    let config = ListingTableConfig::new_with_multi_paths(urls)
        .with_listing_options(options)
        .infer_schema(&context.state())
        .await?;
    context.register_table("flows", Arc::new(ListingTable::try_new(config)?))?;
    Ok(context)
}

/// The files on the list of a store.
fn stored_files(store: &Path) -> Result<Vec<PathBuf>, QueryError> {
    let path = store.join("manifest.json");
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(QueryError::NoFlows(store.to_path_buf()));
        }
        Err(error) => {
            return Err(QueryError::Manifest {
                path,
                reason: error.to_string(),
            });
        }
    };
    let damaged = |reason: String| QueryError::Manifest {
        path: path.clone(),
        reason,
    };
    let manifest: Manifest =
        serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    let folder = std::path::absolute(store)?;
    let mut files = vec![];
    for file in manifest.files {
        let mut parts = Path::new(&file.path).components();
        if !parts.all(|part| matches!(part, Component::Normal(_))) {
            return Err(damaged(format!("{:?} leads out of the store", file.path)));
        }
        files.push(folder.join(file.path));
    }
    if files.is_empty() {
        return Err(QueryError::NoFlows(store.to_path_buf()));
    }
    Ok(files)
}

fn write_csv(
    out: &mut impl Write,
    schema: &SchemaRef,
    batches: &[RecordBatch],
) -> Result<(), QueryError> {
    let names: Vec<String> = schema
        .fields()
        .iter()
        .map(|field| csv_text(field.name()))
        .collect();
    writeln!(out, "{}", names.join(","))?;
    for batch in batches {
        let columns = texts(batch)?;
        for row in 0..batch.num_rows() {
            for (index, column) in columns.iter().enumerate() {
                let comma = if index > 0 { "," } else { "" };
                write!(out, "{comma}{}", csv_text(&column.text(row)?))?;
            }
            writeln!(out)?;
        }
    }
    Ok(())
}

/// Quoted where it must be.
fn csv_text(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn write_json(
    out: &mut impl Write,
    schema: &SchemaRef,
    batches: &[RecordBatch],
) -> Result<(), QueryError> {
    for batch in batches {
        let columns = texts(batch)?;
        for row in 0..batch.num_rows() {
            let mut object = serde_json::Map::new();
            for (field, column) in schema.fields().iter().zip(&columns) {
                object.insert(field.name().clone(), column.json(row)?);
            }
            writeln!(out, "{}", serde_json::Value::Object(object))?;
        }
    }
    Ok(())
}

fn write_parquet(
    out: &mut (impl Write + Send),
    schema: SchemaRef,
    batches: &[RecordBatch],
) -> Result<(), QueryError> {
    use datafusion::parquet::arrow::ArrowWriter;
    let failed = |error: datafusion::parquet::errors::ParquetError| {
        QueryError::Write(io::Error::other(error))
    };
    let mut writer = ArrowWriter::try_new(out, schema, None).map_err(failed)?;
    for batch in batches {
        writer.write(batch).map_err(failed)?;
    }
    writer.close().map_err(failed)?;
    Ok(())
}

fn write_table(
    out: &mut impl Write,
    schema: &SchemaRef,
    batches: &[RecordBatch],
) -> Result<(), QueryError> {
    let names: Vec<&str> = schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    let right: Vec<bool> = schema
        .fields()
        .iter()
        .map(|field| field.data_type().is_numeric())
        .collect();
    let mut lines: Vec<Vec<String>> = vec![];
    for batch in batches {
        let columns = texts(batch)?;
        for row in 0..batch.num_rows() {
            let cells = columns.iter().map(|column| column.text(row));
            lines.push(cells.collect::<Result<_, _>>()?);
            if lines.len() == TABLE_ROWS {
                write_lines(out, &names, &right, &lines)?;
                lines.clear();
            }
        }
    }
    write_lines(out, &names, &right, &lines)?;
    Ok(())
}

fn write_lines(
    out: &mut impl Write,
    names: &[&str],
    right: &[bool],
    lines: &[Vec<String>],
) -> io::Result<()> {
    let mut widths: Vec<usize> = names.iter().map(|name| name.chars().count()).collect();
    for line in lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut line = |cells: &[&str]| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .zip(right)
            .map(|((cell, &width), right)| {
                if *right {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            })
            .collect();
        writeln!(out, "{}", padded.join("  ").trim_end())
    };
    line(names)?;
    for cells in lines {
        let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
        line(&cells)?;
    }
    Ok(())
}

/// A column whose values can be written.
struct Texts<'a> {
    column: &'a ArrayRef,
    formatter: ArrayFormatter<'a>,
    number: bool,
}

fn texts(batch: &RecordBatch) -> Result<Vec<Texts<'_>>, QueryError> {
    static OPTIONS: FormatOptions<'static> = FormatOptions::new();
    let columns = batch.columns().iter();
    columns
        .map(|column| {
            let formatter = ArrayFormatter::try_new(column, &OPTIONS).map_err(not_shown)?;
            Ok(Texts {
                column,
                formatter,
                number: column.data_type().is_numeric() || *column.data_type() == DataType::Boolean,
            })
        })
        .collect()
}

impl Texts<'_> {
    fn text(&self, row: usize) -> Result<String, QueryError> {
        self.formatter.value(row).try_to_string().map_err(not_shown)
    }

    fn json(&self, row: usize) -> Result<serde_json::Value, QueryError> {
        if self.column.is_null(row) {
            return Ok(serde_json::Value::Null);
        }
        let text = self.text(row)?;
        if self.number {
            // What JSON has no number for, such as NaN, is written as a text.
            if let Ok(number) = serde_json::from_str(&text) {
                return Ok(number);
            }
        }
        Ok(text.into())
    }
}

fn not_shown(error: ArrowError) -> QueryError {
    QueryError::Query(format!("a value cannot be shown: {error}"))
}

fn failed(error: DataFusionError) -> QueryError {
    QueryError::Query(error.strip_backtrace())
}
