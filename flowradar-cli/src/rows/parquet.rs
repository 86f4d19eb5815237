//! Rows as an Apache Parquet file.
//!
//! The columns of every format, and four more with the bounds of unresolved counters: null where a
//! counter is resolved or not counted, and `..._most` also where a saturated cell leaves it open.
//! Counts are unsigned 64-bit, addresses and words are strings.

use std::fmt::{self, Debug, Formatter};
use std::io;
use std::sync::Arc;

use flowradar_core::Counter;
use parquet::basic::{Compression, LogicalType, Repetition, Type as PhysicalType};
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{Type, TypePtr};

use super::{FlowRow, bounds};
use crate::output::Output;

/// Rows of a row group: what is kept in memory, some 10 MB.
const ROW_GROUP_ROWS: usize = 1 << 16;

/// Writes rows, in row groups of [`ROW_GROUP_ROWS`].
pub(super) struct ParquetWriter {
    writer: SerializedFileWriter<Output>,
    columns: Columns,
}

/// The rows of a row group by columns.
#[derive(Default)]
struct Columns {
    epoch: Vec<i64>,
    switch: Vec<ByteArray>,
    src: Vec<ByteArray>,
    dst: Vec<ByteArray>,
    src_port: Vec<i32>,
    dst_port: Vec<i32>,
    protocol: Vec<i32>,
    packets: Vec<i64>,
    bytes: Nullable,
    status: Vec<ByteArray>,
    packets_least: Nullable,
    packets_most: Nullable,
    bytes_least: Nullable,
    bytes_most: Nullable,
}

/// A column that may be null: values, and for each row whether there is one.
#[derive(Default)]
struct Nullable {
    values: Vec<i64>,
    definition_levels: Vec<i16>,
}

impl ParquetWriter {
    pub(super) fn new(output: Output) -> io::Result<Self> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by(concat!("flowradar ", env!("CARGO_PKG_VERSION")).into())
            .build();
        let schema = schema().map_err(io_error)?;
        let writer =
            SerializedFileWriter::new(output, schema, Arc::new(properties)).map_err(io_error)?;
        Ok(Self {
            writer,
            columns: Columns::default(),
        })
    }

    pub(super) fn write(&mut self, rows: &[FlowRow<'_>]) -> io::Result<()> {
        for row in rows {
            self.columns.push(row);
            if self.columns.epoch.len() == ROW_GROUP_ROWS {
                self.write_row_group().map_err(io_error)?;
            }
        }
        Ok(())
    }

    /// Completes the file, and gives the output back.
    pub(super) fn finish(mut self) -> io::Result<Output> {
        if !self.columns.epoch.is_empty() {
            self.write_row_group().map_err(io_error)?;
        }
        self.writer.into_inner().map_err(io_error)
    }

    fn write_row_group(&mut self) -> Result<(), ParquetError> {
        let mut group = self.writer.next_row_group()?;
        std::mem::take(&mut self.columns).write(&mut group)?;
        group.close()?;
        Ok(())
    }
}

impl Debug for ParquetWriter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParquetWriter").finish_non_exhaustive()
    }
}

impl Columns {
    fn push(&mut self, row: &FlowRow<'_>) {
        let text = |text: String| ByteArray::from(text.into_bytes());
        self.epoch.push(row.epoch as i64);
        self.switch.push(text(row.switch.into()));
        self.src.push(text(row.src.to_string()));
        self.dst.push(text(row.dst.to_string()));
        self.src_port.push(row.src_port.into());
        self.dst_port.push(row.dst_port.into());
        self.protocol.push(row.protocol.into());
        self.packets.push(row.packets.value as i64);
        self.bytes.push(row.bytes.map(|bytes| bytes.value));
        self.status.push(text(row.status().into()));
        let push_bounds = |counter: Option<Counter>, least: &mut Nullable, most: &mut Nullable| {
            let bounds = counter.and_then(bounds);
            least.push(bounds.map(|(least, _)| least));
            most.push(bounds.and_then(|(_, most)| most));
        };
        push_bounds(
            Some(row.packets),
            &mut self.packets_least,
            &mut self.packets_most,
        );
        push_bounds(row.bytes, &mut self.bytes_least, &mut self.bytes_most);
    }

    /// Writes the columns in the order of [`schema`].
    fn write(&self, group: &mut SerializedRowGroupWriter<'_, Output>) -> Result<(), ParquetError> {
        write_longs(group, &self.epoch)?;
        write_texts(group, &self.switch)?;
        write_texts(group, &self.src)?;
        write_texts(group, &self.dst)?;
        write_ints(group, &self.src_port)?;
        write_ints(group, &self.dst_port)?;
        write_ints(group, &self.protocol)?;
        write_longs(group, &self.packets)?;
        write_nullable(group, &self.bytes)?;
        write_texts(group, &self.status)?;
        write_nullable(group, &self.packets_least)?;
        write_nullable(group, &self.packets_most)?;
        write_nullable(group, &self.bytes_least)?;
        write_nullable(group, &self.bytes_most)
    }
}

impl Nullable {
    fn push(&mut self, value: Option<u64>) {
        self.values.extend(value.map(|value| value as i64));
        self.definition_levels.push(value.is_some().into());
    }
}

/// Unsigned numbers are stored in the signed type of the same width, with a logical type that says
/// so: that is what Parquet prescribes.
fn schema() -> Result<TypePtr, ParquetError> {
    let unsigned = |name: &str, bits: i8, repetition: Repetition| {
        let physical = if bits == 64 {
            PhysicalType::INT64
        } else {
            PhysicalType::INT32
        };
        Type::primitive_type_builder(name, physical)
            .with_logical_type(Some(LogicalType::integer(bits, false)))
            .with_repetition(repetition)
            .build()
            .map(Arc::new)
    };
    let text = |name: &str| {
        Type::primitive_type_builder(name, PhysicalType::BYTE_ARRAY)
            .with_logical_type(Some(LogicalType::String))
            .with_repetition(Repetition::REQUIRED)
            .build()
            .map(Arc::new)
    };
    let fields = vec![
        unsigned("epoch", 64, Repetition::REQUIRED)?,
        text("switch")?,
        text("src")?,
        text("dst")?,
        unsigned("src_port", 16, Repetition::REQUIRED)?,
        unsigned("dst_port", 16, Repetition::REQUIRED)?,
        unsigned("protocol", 8, Repetition::REQUIRED)?,
        unsigned("packets", 64, Repetition::REQUIRED)?,
        unsigned("bytes", 64, Repetition::OPTIONAL)?,
        text("status")?,
        unsigned("packets_least", 64, Repetition::OPTIONAL)?,
        unsigned("packets_most", 64, Repetition::OPTIONAL)?,
        unsigned("bytes_least", 64, Repetition::OPTIONAL)?,
        unsigned("bytes_most", 64, Repetition::OPTIONAL)?,
    ];
    Type::group_type_builder("flows")
        .with_fields(fields)
        .build()
        .map(Arc::new)
}

type RowGroup<'a, 'b> = &'a mut SerializedRowGroupWriter<'b, Output>;

fn write_longs(group: RowGroup<'_, '_>, values: &[i64]) -> Result<(), ParquetError> {
    write_column::<Int64Type>(group, values, None)
}

fn write_ints(group: RowGroup<'_, '_>, values: &[i32]) -> Result<(), ParquetError> {
    write_column::<Int32Type>(group, values, None)
}

fn write_texts(group: RowGroup<'_, '_>, values: &[ByteArray]) -> Result<(), ParquetError> {
    write_column::<ByteArrayType>(group, values, None)
}

fn write_nullable(group: RowGroup<'_, '_>, column: &Nullable) -> Result<(), ParquetError> {
    write_column::<Int64Type>(group, &column.values, Some(&column.definition_levels))
}

fn write_column<T: parquet::data_type::DataType>(
    group: RowGroup<'_, '_>,
    values: &[T::T],
    definition_levels: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let mut column = group.next_column()?.ok_or_else(|| {
        ParquetError::General("more columns are written than the schema has".into())
    })?;
    column
        .typed::<T>()
        .write_batch(values, definition_levels, None)?;
    column.close()
}

/// The writer's errors are those of the file beneath, and a pipe that broke must stay one.
fn io_error(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(other) => io::Error::other(other),
        },
        other => io::Error::other(other),
    }
}
