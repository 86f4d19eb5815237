//! Rows of files: which are of an epoch and switch.

use std::collections::{HashMap, HashSet};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, TimestampNanosecondType, UInt64Type};
use arrow_array::{Array, BooleanArray, RecordBatch};

/// Rows that are replaced: of epochs, by time and number, and of these switches.
pub(super) type Replaced = HashMap<(i64, u64), HashSet<String>>;

pub(super) fn is_replaced(replaced: &Replaced, epoch: (i64, u64), switch: &str) -> bool {
    let switches = replaced.get(&epoch);
    switches.is_some_and(|switches| switches.contains(switch))
}

/// Which rows a question says yes to, from the columns `time`, `epoch` and `switch`; for rows without an
/// epoch, which are not of switches, the answer is given.
pub(super) fn select(
    batch: &RecordBatch,
    without_epoch: bool,
    mut ask: impl FnMut((i64, u64), &str) -> bool,
) -> BooleanArray {
    let times = batch
        .column_by_name("time")
        .and_then(|column| column.as_primitive_opt::<TimestampNanosecondType>());
    let numbers = batch
        .column_by_name("epoch")
        .and_then(|column| column.as_primitive_opt::<UInt64Type>());
    let switches = batch
        .column_by_name("switch")
        .and_then(|column| column.as_dictionary_opt::<Int32Type>());
    let names = switches.and_then(|column| column.values().as_string_opt::<i32>());
    let (Some(times), Some(numbers), Some(switches), Some(names)) =
        (times, numbers, switches, names)
    else {
        return BooleanArray::from(vec![without_epoch; batch.num_rows()]);
    };
    // Rows of an epoch and switch stand together: each run of them is asked about once.
    let mut last = (None, without_epoch);
    let rows = times
        .values()
        .iter()
        .zip(numbers.iter())
        .zip(switches.keys().values());
    rows.map(|((&time, number), &key)| {
        let of = number.map(|number| ((time, number), key));
        if last.0 != Some(of) {
            let answer = of.map_or(without_epoch, |(epoch, key)| {
                let name = usize::try_from(key).ok().filter(|key| *key < names.len());
                ask(epoch, name.map_or("", |key| names.value(key)))
            });
            last = (Some(of), answer);
        }
        Some(last.1)
    })
    .collect()
}
