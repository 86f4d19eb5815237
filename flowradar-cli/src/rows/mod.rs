//! Decoded flows as rows: the same columns in every format.

mod csv;
mod json;
mod parquet;
mod table;

use std::fmt::{self, Display, Formatter};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use flowradar_core::decode::DecodedFlow;
use flowradar_core::{Counter, CounterStatus, FlowKey};

use self::parquet::ParquetWriter;
use self::table::TableWriter;
use crate::outcome::CommandError;
use crate::output::Output;

/// The columns, and the header of a CSV file.
pub(crate) const COLUMNS: [&str; 10] = [
    "epoch", "switch", "src", "dst", "src_port", "dst_port", "protocol", "packets", "bytes",
    "status",
];

/// A flow at a switch in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowRow<'a> {
    pub(crate) epoch: u64,
    pub(crate) switch: &'a str,
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    pub(crate) protocol: u8,
    pub(crate) packets: Counter,
    pub(crate) bytes: Option<Counter>,
}

impl<'a> FlowRow<'a> {
    pub(crate) fn new<K: FlowKey>(epoch: u64, switch: &'a str, flow: &DecodedFlow<K>) -> Self {
        Self {
            epoch,
            switch,
            src: flow.key.src(),
            dst: flow.key.dst(),
            src_port: flow.key.src_port(),
            dst_port: flow.key.dst_port(),
            protocol: flow.key.protocol(),
            packets: flow.packets,
            bytes: flow.bytes,
        }
    }

    /// The word for the row: the weaker one of packets and bytes.
    pub(crate) fn status(&self) -> &'static str {
        weaker(self.packets, self.bytes).word()
    }
}

/// The status of a flow with these counters: the weaker one.
pub(crate) fn weaker(packets: Counter, bytes: Option<Counter>) -> CounterStatus {
    fn weakness(status: CounterStatus) -> u8 {
        match status {
            CounterStatus::Exact => 0,
            CounterStatus::Joint => 1,
            CounterStatus::Unresolved { .. } => 2,
        }
    }
    match bytes {
        Some(bytes) if weakness(bytes.status) > weakness(packets.status) => bytes.status,
        _ => packets.status,
    }
}

/// Bounds of an unresolved counter: the lowest value, and the highest if there is one.
fn bounds(counter: Counter) -> Option<(u64, Option<u64>)> {
    match counter.status {
        CounterStatus::Unresolved { least, most } => {
            Some((least, (most != u64::MAX).then_some(most)))
        }
        CounterStatus::Exact | CounterStatus::Joint => None,
    }
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RowFormat {
    /// Aligned columns for people.
    Table,
    /// Comma-separated values with a header line.
    Csv,
    /// JSON lines: one object a row, with the bounds of unresolved counters.
    Json,
    /// Apache Parquet, with the bounds of unresolved counters in columns of their own.
    Parquet,
}

impl Display for RowFormat {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Table => "table",
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Parquet => "parquet",
        })
    }
}

/// Where rows go and how.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct RowOptions {
    /// Format of the rows; without it, by the ending of --out's name (.csv, .json, .jsonl,
    /// .parquet), and otherwise a table.
    #[arg(long, value_enum)]
    pub(crate) format: Option<RowFormat>,

    /// File for the rows instead of standard output. It appears when it is complete.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,

    /// For machines: rows as JSON lines unless --format says otherwise, and the summary as a JSON
    /// object, on standard output if the rows go to a file, otherwise on standard error.
    #[arg(long)]
    pub(crate) json: bool,
}

impl RowOptions {
    /// Opens the output.
    pub(crate) fn open(&self) -> Result<RowWriter, CommandError> {
        let format = self.format();
        if format == RowFormat::Parquet && !self.rows_to_file() {
            return Err(CommandError::Usage(
                "--format parquet needs a file: add --out FILE".into(),
            ));
        }
        RowWriter::new(format, Output::open(self.out.as_deref())?, self.out.clone())
    }

    /// Whether standard output is free for the summary.
    pub(crate) fn rows_to_file(&self) -> bool {
        self.out.as_deref().is_some_and(|out| out != Path::new("-"))
    }

    fn format(&self) -> RowFormat {
        let by_name = || {
            let extension = self.out.as_deref()?.extension()?.to_str()?;
            Some(match extension {
                "csv" => RowFormat::Csv,
                "json" | "jsonl" | "ndjson" => RowFormat::Json,
                "parquet" => RowFormat::Parquet,
                _ => return None,
            })
        };
        self.format.or_else(by_name).unwrap_or(if self.json {
            RowFormat::Json
        } else {
            RowFormat::Table
        })
    }
}

/// Writes rows in one of the formats. Memory is bounded by one call's rows.
#[derive(Debug)]
pub(crate) struct RowWriter {
    path: Option<PathBuf>,
    writer: FormatWriter,
}

#[derive(Debug)]
enum FormatWriter {
    Table(Output, TableWriter),
    Csv(Output),
    Json(Output),
    Parquet(Box<ParquetWriter>),
}

impl RowWriter {
    pub(crate) fn new(
        format: RowFormat,
        mut output: Output,
        path: Option<PathBuf>,
    ) -> Result<Self, CommandError> {
        let writer = match format {
            RowFormat::Table => Ok(FormatWriter::Table(output, TableWriter::default())),
            RowFormat::Csv => csv::write_header(&mut output).map(|()| FormatWriter::Csv(output)),
            RowFormat::Json => Ok(FormatWriter::Json(output)),
            RowFormat::Parquet => {
                ParquetWriter::new(output).map(|writer| FormatWriter::Parquet(Box::new(writer)))
            }
        };
        match writer {
            Ok(writer) => Ok(Self { path, writer }),
            Err(source) => Err(write_error(path, source)),
        }
    }

    /// Writes rows, in their order.
    pub(crate) fn write(&mut self, rows: &[FlowRow<'_>]) -> Result<(), CommandError> {
        let written = match &mut self.writer {
            FormatWriter::Table(output, table) => table.write(output, rows),
            FormatWriter::Csv(output) => {
                rows.iter().try_for_each(|row| csv::write_row(output, row))
            }
            FormatWriter::Json(output) => {
                rows.iter().try_for_each(|row| json::write_row(output, row))
            }
            FormatWriter::Parquet(writer) => writer.write(rows),
        };
        written.map_err(|source| write_error(self.path.clone(), source))
    }

    /// Completes the output; a file appears under its name.
    pub(crate) fn finish(self) -> Result<(), CommandError> {
        let finished = match self.writer {
            FormatWriter::Table(output, _)
            | FormatWriter::Csv(output)
            | FormatWriter::Json(output) => output.commit(),
            FormatWriter::Parquet(writer) => writer.finish().and_then(Output::commit),
        };
        finished.map_err(|source| write_error(self.path, source))
    }
}

fn write_error(path: Option<PathBuf>, source: io::Error) -> CommandError {
    match path {
        Some(path) => CommandError::file("write", &path)(source),
        None => CommandError::Output(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weaker_word_names_the_row() {
        let exact = Counter::exact(3);
        let joint = Counter {
            value: 3,
            status: CounterStatus::Joint,
        };
        let unresolved = Counter {
            value: 3,
            status: CounterStatus::Unresolved { least: 1, most: 9 },
        };
        let cases = [
            (exact, None, "exact"),
            (exact, Some(exact), "exact"),
            (exact, Some(joint), "joint"),
            (joint, Some(exact), "joint"),
            (exact, Some(unresolved), "unresolved"),
            (unresolved, Some(joint), "unresolved"),
            (joint, None, "joint"),
        ];
        for (packets, bytes, word) in cases {
            assert_eq!(weaker(packets, bytes).word(), word);
        }
    }
}
