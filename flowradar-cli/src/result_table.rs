//! Tables of results: as CSV, JSON and on a page.

use std::path::Path;

use maud::{Markup, html};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::outcome::CommandError;
use crate::output::write_file;
use crate::text::grouped;

/// A table with a name, which its files have too.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ResultTable {
    pub(crate) name: &'static str,
    /// What a row is, in a sentence.
    pub(crate) caption: String,
    /// Whether it holds times, which differ from run to run and machine to machine.
    pub(crate) timed: bool,
    columns: Vec<&'static str>,
    rows: Vec<Vec<Value>>,
}

/// A value of a table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// Nothing known, or not applicable.
    Missing,
    Integer(u64),
    /// With so many decimals.
    Real(f64, usize),
    Text(String),
}

impl ResultTable {
    /// A table without rows. Column names end with their unit.
    pub(crate) fn new(
        name: &'static str,
        caption: impl Into<String>,
        columns: impl Into<Vec<&'static str>>,
    ) -> Self {
        Self {
            name,
            caption: caption.into(),
            timed: false,
            columns: columns.into(),
            rows: vec![],
        }
    }

    /// Says that the table holds times.
    pub(crate) fn timed(mut self) -> Self {
        self.timed = true;
        self
    }

    /// Adds a row.
    ///
    /// # Panics
    /// If it has another number of values than there are columns.
    pub(crate) fn push(&mut self, row: impl Into<Vec<Value>>) {
        let row = row.into();
        assert_eq!(row.len(), self.columns.len(), "a row of {}", self.name);
        self.rows.push(row);
    }

    /// Writes the table as CSV.
    pub(crate) fn write_to(&self, folder: &Path) -> Result<(), CommandError> {
        write_file(
            &folder.join(format!("{}.csv", self.name)),
            self.csv().as_bytes(),
        )
    }

    /// The table as CSV.
    pub(crate) fn csv(&self) -> String {
        let mut writer = csv::Writer::from_writer(vec![]);
        let rows = self
            .rows
            .iter()
            .map(|row| row.iter().map(Value::plain).collect());
        let header = self
            .columns
            .iter()
            .map(|&column| column.to_owned())
            .collect();
        for record in std::iter::once(header).chain(rows) {
            let record: Vec<String> = record;
            writer
                .write_record(record)
                .expect("all rows are as long as the header");
        }
        let bytes = writer
            .into_inner()
            .expect("memory takes whatever is written");
        String::from_utf8(bytes).expect("text makes text")
    }

    /// The table for a page.
    pub(crate) fn html(&self) -> Markup {
        html! {
            div.table {
                table {
                    caption { (self.caption) " (" a href={ (self.name) ".csv" } { (self.name) ".csv" } ")" }
                    thead {
                        tr { @for column in &self.columns { th { (column.replace('_', " ")) } } }
                    }
                    tbody {
                        @for row in &self.rows {
                            tr {
                                @for value in row {
                                    td.number[!matches!(value, Value::Text(_))] { (value.pretty()) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

impl Serialize for ResultTable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Row<'a>(&'a [&'static str], &'a [Value]);
        impl Serialize for Row<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.iter().zip(self.1))
            }
        }
        let rows: Vec<Row<'_>> = self
            .rows
            .iter()
            .map(|row| Row(&self.columns, row))
            .collect();
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("name", self.name)?;
        map.serialize_entry("caption", &self.caption)?;
        map.serialize_entry("timed", &self.timed)?;
        map.serialize_entry("rows", &rows)?;
        map.end()
    }
}

impl Value {
    fn plain(&self) -> String {
        match self {
            Self::Missing => String::new(),
            Self::Integer(value) => value.to_string(),
            Self::Real(value, decimals) => format!("{value:.decimals$}"),
            Self::Text(text) => text.clone(),
        }
    }

    fn pretty(&self) -> String {
        match self {
            Self::Missing => "–".into(),
            Self::Integer(value) => grouped(*value),
            Self::Real(..) | Self::Text(_) => self.plain(),
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Missing => serializer.serialize_none(),
            Self::Integer(value) => serializer.serialize_u64(*value),
            // Rounded as in the other formats.
            Self::Real(value, decimals) => {
                let scale = 10_f64.powi(*decimals as i32);
                serializer.serialize_f64((value * scale).round() / scale)
            }
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Integer(value)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Integer(value as u64)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl<V: Into<Self>> From<Option<V>> for Value {
    fn from(value: Option<V>) -> Self {
        value.map_or(Self::Missing, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_table_three_formats() {
        let mut table = ResultTable::new("sizes", "What things take", ["thing", "bytes", "share"]);
        table.push(["a, b".into(), 1_500_u64.into(), Value::Real(0.12345, 3)]);
        table.push(["c".into(), Value::Missing, Value::Real(2.0, 3)]);
        assert_eq!(
            table.csv(),
            "thing,bytes,share\n\"a, b\",1500,0.123\nc,,2.000\n"
        );
        let json = serde_json::to_value(&table).expect("tables have text keys");
        assert_eq!(json["rows"][0]["share"], 0.123);
        assert_eq!(json["rows"][1]["bytes"], serde_json::Value::Null);
        let html = table.html().into_string();
        assert!(html.contains("<td class=\"number\">1,500</td>"), "{html}");
    }
}
