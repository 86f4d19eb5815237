//! Decoded epochs as columns.

use std::hash::Hash;
use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{
    Array, ArrayRef, DictionaryArray, Int32Array, RecordBatch, StringArray,
    TimestampNanosecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use flowradar_core::{Counter, CounterStatus};
use hashbrown::HashMap;

use super::schema::SCHEMA;
use crate::epoch::{DecodedEpoch, weaker_status};

/// Words of a record's status, by [`weaker_status`].
const STATUSES: [&str; 3] = ["exact", "joint", "unresolved"];

/// A column of texts of which many are equal.
pub(super) struct Texts<T> {
    keys: Vec<i32>,
    known: HashMap<T, i32>,
    values: Vec<String>,
}

impl<T: Eq + Hash + Copy + ToString> Texts<T> {
    pub(super) fn with_capacity(rows: usize) -> Self {
        Self {
            keys: Vec::with_capacity(rows),
            known: HashMap::new(),
            values: vec![],
        }
    }

    pub(super) fn push(&mut self, value: T) {
        let next = self.values.len() as i32;
        let key = *self.known.entry(value).or_insert_with(|| {
            self.values.push(value.to_string());
            next
        });
        self.keys.push(key);
    }

    pub(super) fn column(self) -> ArrayRef {
        dictionary(self.keys, self.values)
    }
}

/// A column of texts from keys into values.
pub(super) fn dictionary(keys: Vec<i32>, values: Vec<String>) -> ArrayRef {
    let array = DictionaryArray::<Int32Type>::new(
        Int32Array::from(keys),
        Arc::new(StringArray::from(values)),
    );
    Arc::new(array)
}

/// A column with the same text in all rows.
pub(super) fn constant(text: &str, rows: usize) -> ArrayRef {
    dictionary(vec![0; rows], vec![text.to_owned()])
}

/// The rows of an epoch; switches that `keep` refuses are left out.
pub(super) fn batch(epoch: &DecodedEpoch, keep: impl Fn(&str) -> bool) -> RecordBatch {
    let kept = || epoch.switches.iter().filter(|switch| keep(&switch.switch));
    let rows: usize = kept().map(|switch| switch.flows.len()).sum();
    let flows = || kept().flat_map(|switch| &switch.flows);
    let (mut switch_keys, mut switch_names) = (Vec::with_capacity(rows), vec![]);
    for switch in kept() {
        let key = switch_names.len() as i32;
        switch_keys.resize(switch_keys.len() + switch.flows.len(), key);
        switch_names.push(switch.switch.clone());
    }
    let mut src = Texts::with_capacity(rows);
    let mut dst = Texts::with_capacity(rows);
    let mut statuses = Vec::with_capacity(rows);
    for record in flows() {
        src.push(record.flow.src);
        dst.push(record.flow.dst);
        statuses.push(weaker_status(record) as i32);
    }
    let unresolved = statuses.contains(&2);
    let bounds = |counter: fn(&flowradar_collector::analysis::FlowRecord) -> Option<Counter>| {
        if !unresolved {
            let nulls: ArrayRef = Arc::new(UInt64Array::new_null(rows));
            return (Arc::clone(&nulls), nulls);
        }
        let bounds = |record| match counter(record)?.status {
            CounterStatus::Unresolved { least, most } => Some((least, most)),
            _ => None,
        };
        let least = flows().map(|record| bounds(record).map(|(least, _)| least));
        let most = flows().map(|record| {
            bounds(record)
                .map(|(_, most)| most)
                .filter(|most| *most != u64::MAX)
        });
        let column = |values: UInt64Array| Arc::new(values) as ArrayRef;
        (column(least.collect()), column(most.collect()))
    };
    let (packets_least, packets_most) = bounds(|record| Some(record.packets));
    let (bytes_least, bytes_most) = bounds(|record| record.bytes);
    let time_ns = i64::try_from(epoch.time_ns).unwrap_or(i64::MAX);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampNanosecondArray::from_value(time_ns, rows).with_timezone("UTC")),
        Arc::new(UInt64Array::from_value(epoch.length_ns, rows)),
        Arc::new(UInt64Array::from_value(epoch.epoch, rows)),
        constant("flowradar", rows),
        dictionary(switch_keys, switch_names),
        src.column(),
        dst.column(),
        Arc::new(UInt16Array::from_iter_values(
            flows().map(|record| record.flow.src_port),
        )),
        Arc::new(UInt16Array::from_iter_values(
            flows().map(|record| record.flow.dst_port),
        )),
        Arc::new(UInt8Array::from_iter_values(
            flows().map(|record| record.flow.protocol),
        )),
        Arc::new(UInt64Array::from_iter_values(
            flows().map(|record| record.packets.value),
        )),
        Arc::new(
            flows()
                .map(|record| record.bytes.map(|bytes| bytes.value))
                .collect::<UInt64Array>(),
        ),
        dictionary(statuses, STATUSES.map(str::to_owned).to_vec()),
        packets_least,
        packets_most,
        bytes_least,
        bytes_most,
        Arc::new(UInt32Array::new_null(rows)),
    ];
    debug_assert!(columns.iter().all(|column| column.len() == rows));
    RecordBatch::try_new(Arc::clone(&SCHEMA), columns).expect("the columns are those of the schema")
}
