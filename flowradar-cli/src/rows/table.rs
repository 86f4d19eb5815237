//! Rows as aligned columns for people.

use std::fmt::Write as _;
use std::io::{self, Write};

use flowradar_core::{Counter, CounterStatus};

use super::{COLUMNS, FlowRow, bounds};

/// Columns aligned left: switch, source, destination and status; numbers are aligned right.
const LEFT: [bool; COLUMNS.len()] = [
    false, true, true, true, false, false, false, false, false, true,
];

/// Writes a header, and rows under it. Columns are as wide as the widest cell so far: rows are not
/// kept to look for a wider one that follows.
#[derive(Debug, Default)]
pub(super) struct TableWriter {
    widths: Option<[usize; COLUMNS.len()]>,
}

impl TableWriter {
    pub(super) fn write(&mut self, out: &mut impl Write, rows: &[FlowRow<'_>]) -> io::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let rows: Vec<[String; COLUMNS.len()]> = rows.iter().map(cells).collect();
        let is_first = self.widths.is_none();
        let mut widths = self.widths.unwrap_or_else(|| COLUMNS.map(str::len));
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.len());
            }
        }
        self.widths = Some(widths);
        let mut line = String::new();
        if is_first {
            write_line(out, &mut line, &widths, &COLUMNS)?;
        }
        rows.iter()
            .try_for_each(|row| write_line(out, &mut line, &widths, row))
    }
}

fn cells(row: &FlowRow<'_>) -> [String; COLUMNS.len()] {
    [
        row.epoch.to_string(),
        row.switch.into(),
        row.src.to_string(),
        row.dst.to_string(),
        row.src_port.to_string(),
        row.dst_port.to_string(),
        row.protocol.to_string(),
        row.packets.value.to_string(),
        row.bytes
            .map_or(String::new(), |bytes| bytes.value.to_string()),
        status(row),
    ]
}

/// The word, and for unresolved counters between which values they are.
fn status(row: &FlowRow<'_>) -> String {
    let range = |name: &str, counter: Counter| {
        let (least, most) = bounds(counter)?;
        Some(match most {
            Some(most) => format!("{name} {least} to {most}"),
            None => format!("{name} at least {least}"),
        })
    };
    let ranges: Vec<String> = [
        range("packets", row.packets),
        row.bytes.and_then(|bytes| range("bytes", bytes)),
    ]
    .into_iter()
    .flatten()
    .collect();
    if ranges.is_empty() {
        row.status().into()
    } else {
        let word = CounterStatus::Unresolved { least: 0, most: 0 }.word();
        format!("{word}: {}", ranges.join(", "))
    }
}

fn write_line(
    out: &mut impl Write,
    line: &mut String,
    widths: &[usize; COLUMNS.len()],
    cells: &[impl AsRef<str>; COLUMNS.len()],
) -> io::Result<()> {
    line.clear();
    for ((cell, &width), left) in cells.iter().zip(widths).zip(LEFT) {
        let cell = cell.as_ref();
        // Writing to a string cannot fail.
        let _ = if left {
            write!(line, "{cell:<width$}  ")
        } else {
            write!(line, "{cell:>width$}  ")
        };
    }
    writeln!(out, "{}", line.trim_end())
}
