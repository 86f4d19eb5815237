//! `query`: SQL over stored flows.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::outcome::{CommandError, Completeness};

/// Ask a collector's store in SQL
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The table is \"flows\"; docs/collector.md lists its columns. The store is read while the collector runs;
what it has not written yet (see [store] flush_ms) is not there. DuckDB and pandas read the same
files.

Examples:
  flowradar query \"select switch, sum(packets) from flows group by switch\"
  flowradar query \"select src, sum(packets) as packets from flows where dst_port = 443
                   group by src order by packets desc limit 10\"
  flowradar query --format parquet --out web.parquet \"select * from flows where dst_port = 80\"")]
pub(crate) struct QueryArgs {
    /// The question
    sql: String,

    /// The collector's data folder
    #[arg(long, value_name = "DIR", default_value = "flowradar-data")]
    data_folder: PathBuf,

    /// How to write the rows
    #[arg(long, value_enum, default_value_t = QueryFormat::Table)]
    format: QueryFormat,

    /// File for the rows [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum QueryFormat {
    /// Columns for people
    Table,
    /// Comma-separated values
    Csv,
    /// An object a line
    Json,
    /// A Parquet file
    Parquet,
}

/// Runs the command.
#[cfg(feature = "sql")]
pub(crate) fn run(args: &QueryArgs) -> Result<Completeness, CommandError> {
    use std::io::IsTerminal;

    use flowradar_query::{Format, QueryError, query};

    use crate::output::Output;
    use crate::text::{counted, note};

    let format = match args.format {
        _ if args.json => Format::Json,
        QueryFormat::Csv => Format::Csv,
        QueryFormat::Json => Format::Json,
        QueryFormat::Parquet => Format::Parquet,
        QueryFormat::Table => Format::Table,
    };
    if format == Format::Parquet && args.out.is_none() && std::io::stdout().is_terminal() {
        return Err(CommandError::Usage(
            "a Parquet file is nothing for a terminal: name one with --out".into(),
        ));
    }
    let mut out = Output::open(args.out.as_deref())?;
    let rows = query(&args.data_folder.join("flows"), &args.sql, format, &mut out);
    let rows = rows.map_err(|error| match error {
        QueryError::Write(error) => CommandError::Output(error),
        other => CommandError::Failed(other.to_string()),
    })?;
    out.commit().map_err(CommandError::Output)?;
    note!("{}", counted(rows, "row"));
    Ok(Completeness::Complete)
}

/// Says how to get the command.
#[cfg(not(feature = "sql"))]
pub(crate) fn run(args: &QueryArgs) -> Result<Completeness, CommandError> {
    let QueryArgs {
        sql,
        data_folder,
        format,
        out,
        json,
    } = args;
    Err(CommandError::Failed(format!(
        "this flowradar was built without SQL, which takes long to compile: build it with \"cargo build \
         --release --features sql\" to ask {sql:?} of {} ({format:?}{}{})",
        data_folder.display(),
        if *json { ", JSON" } else { "" },
        out.as_ref()
            .map_or(String::new(), |out| format!(", to {}", out.display())),
    )))
}
