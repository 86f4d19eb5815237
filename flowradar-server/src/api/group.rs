//! Sums of flow records by any of their columns.

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ApiError;
use super::rows::Row;

/// Groups kept at the same time; records of more are counted and left out.
const GROUPS_MAX: usize = 1 << 20;

/// A column to group by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Source,
    Switch,
    Src,
    Dst,
    SrcPort,
    DstPort,
    Protocol,
    Status,
    Epoch,
}

/// What groups are ordered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Measure {
    /// Packets.
    #[default]
    Packets,
    /// Bytes.
    Bytes,
    /// Flow records.
    Records,
}

/// A group of flow records.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct GroupRow {
    /// Begin of the point in time, of a series.
    #[serde(skip_serializing_if = "Option::is_none")]
    time_ns: Option<i64>,
    /// Values of the columns that it is grouped by.
    #[schema(value_type = Object)]
    group: serde_json::Map<String, serde_json::Value>,
    packets: u64,
    bytes: u64,
    records: u64,
    /// Of the records, those whose counters are estimates with bounds.
    unresolved: u64,
    /// Of the records, those without a count of bytes.
    without_bytes: u64,
}

/// Groups being summed.
pub(super) struct Groups {
    columns: Vec<Column>,
    step_ns: Option<i64>,
    sums: HashMap<Key, Sums>,
    /// The texts of keys, each once.
    texts: HashMap<String, u32>,
    left_out: u64,
    records: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    time_ns: i64,
    values: [u64; COLUMNS_MAX],
}

/// Columns that can be grouped by at the same time.
const COLUMNS_MAX: usize = 9;

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    packets: u64,
    bytes: u64,
    records: u64,
    unresolved: u64,
    without_bytes: u64,
}

impl Groups {
    pub(super) fn new(columns: Vec<Column>, step_ns: Option<i64>) -> Self {
        Self {
            columns,
            step_ns,
            sums: HashMap::new(),
            texts: HashMap::new(),
            left_out: 0,
            records: 0,
        }
    }

    pub(super) fn add(&mut self, row: &Row<'_>) {
        self.records += 1;
        let mut key = Key {
            time_ns: self
                .step_ns
                .map_or(0, |step| row.time_ns.div_euclid(step).saturating_mul(step)),
            values: [0; COLUMNS_MAX],
        };
        for (value, column) in key.values.iter_mut().zip(&self.columns) {
            *value = match column.of(row) {
                Value::Number(number) => number,
                Value::Text(text) => match self.texts.get(text) {
                    Some(number) => (*number).into(),
                    None if self.texts.len() < 2 * GROUPS_MAX => {
                        let number = self.texts.len() as u32;
                        self.texts.insert(text.to_owned(), number);
                        number.into()
                    }
                    None => {
                        self.left_out += 1;
                        return;
                    }
                },
            };
        }
        if self.sums.len() >= GROUPS_MAX && !self.sums.contains_key(&key) {
            self.left_out += 1;
            return;
        }
        let sums = self.sums.entry(key).or_default();
        sums.packets = sums.packets.saturating_add(row.packets);
        sums.bytes = sums.bytes.saturating_add(row.bytes.unwrap_or(0));
        sums.records += 1;
        sums.unresolved += u64::from(row.status == "unresolved");
        sums.without_bytes += u64::from(row.bytes.is_none());
    }

    pub(super) fn records(&self) -> u64 {
        self.records
    }

    pub(super) fn missing(&self) -> Option<String> {
        (self.left_out > 0).then(|| {
            format!(
                "{} records are in groups beyond the first {GROUPS_MAX}: use a narrower filter",
                self.left_out
            )
        })
    }

    /// The largest groups, and how many there are.
    pub(super) fn largest(self, n: usize, by: Measure) -> (Vec<GroupRow>, usize) {
        let all = self.sums.len();
        let names = self.names();
        let mut sums: Vec<(Key, Sums)> = self.sums.into_iter().collect();
        // Equal ones in a fixed order.
        sums.sort_unstable_by(|(a_key, a), (b_key, b)| {
            let order = by.of(b).cmp(&by.of(a));
            order.then_with(|| a_key.values.cmp(&b_key.values))
        });
        sums.truncate(n);
        let rows = sums.into_iter();
        let rows = rows.map(|(key, sums)| row(&self.columns, &names, None, &key, sums));
        (rows.collect(), all)
    }

    /// All groups, by time.
    pub(super) fn by_time(self) -> Vec<GroupRow> {
        let names = self.names();
        let mut sums: Vec<(Key, Sums)> = self.sums.into_iter().collect();
        sums.sort_unstable_by_key(|(key, _)| (key.time_ns, key.values));
        let rows = sums.into_iter();
        rows.map(|(key, sums)| row(&self.columns, &names, Some(key.time_ns), &key, sums))
            .collect()
    }

    /// Texts by their numbers.
    fn names(&self) -> Vec<String> {
        let mut names = vec![String::new(); self.texts.len()];
        for (text, number) in &self.texts {
            if let Some(name) = names.get_mut(*number as usize) {
                name.clone_from(text);
            }
        }
        names
    }
}

enum Value<'a> {
    Number(u64),
    Text(&'a str),
}

impl Column {
    const ALL: [(&str, Self); COLUMNS_MAX] = [
        ("source", Self::Source),
        ("switch", Self::Switch),
        ("src", Self::Src),
        ("dst", Self::Dst),
        ("src_port", Self::SrcPort),
        ("dst_port", Self::DstPort),
        ("protocol", Self::Protocol),
        ("status", Self::Status),
        ("epoch", Self::Epoch),
    ];

    fn of<'a>(self, row: &Row<'a>) -> Value<'a> {
        match self {
            Self::Source => Value::Text(row.source),
            Self::Switch => Value::Text(row.switch),
            Self::Src => Value::Text(row.src),
            Self::Dst => Value::Text(row.dst),
            Self::SrcPort => Value::Number(row.src_port.into()),
            Self::DstPort => Value::Number(row.dst_port.into()),
            Self::Protocol => Value::Number(row.protocol.into()),
            Self::Status => Value::Text(row.status),
            Self::Epoch => Value::Number(row.epoch.unwrap_or(u64::MAX)),
        }
    }

    fn is_text(self) -> bool {
        matches!(
            self,
            Self::Source | Self::Switch | Self::Src | Self::Dst | Self::Status
        )
    }

    fn name(self) -> &'static str {
        let mut all = Self::ALL.iter();
        all.find(|(_, column)| *column == self)
            .map_or("", |(name, _)| name)
    }
}

impl Measure {
    fn of(self, sums: &Sums) -> u64 {
        match self {
            Self::Packets => sums.packets,
            Self::Bytes => sums.bytes,
            Self::Records => sums.records,
        }
    }
}

fn row(
    columns: &[Column],
    names: &[String],
    time_ns: Option<i64>,
    key: &Key,
    sums: Sums,
) -> GroupRow {
    let group = columns.iter().zip(key.values).map(|(column, value)| {
        let text = || names.get(value as usize).cloned().unwrap_or_default();
        let value = match column {
            Column::Epoch if value == u64::MAX => serde_json::Value::Null,
            column if column.is_text() => text().into(),
            _ => value.into(),
        };
        (column.name().to_owned(), value)
    });
    GroupRow {
        time_ns,
        group: group.collect(),
        packets: sums.packets,
        bytes: sums.bytes,
        records: sums.records,
        unresolved: sums.unresolved,
        without_bytes: sums.without_bytes,
    }
}

/// Columns from their names with commas between.
pub(super) fn parse_columns(text: &str) -> Result<Vec<Column>, ApiError> {
    let mut columns = vec![];
    for name in text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
    {
        let known = Column::ALL.iter().find(|(known, _)| *known == name);
        let Some((_, column)) = known else {
            let names: Vec<&str> = Column::ALL.iter().map(|(name, _)| *name).collect();
            return Err(ApiError::bad_request(format!(
                "group_by: {name:?} is none of {}",
                names.join(", ")
            )));
        };
        if !columns.contains(column) {
            columns.push(*column);
        }
    }
    Ok(columns)
}
