//! Records of classic exporters as columns.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, RecordBatch, TimestampNanosecondArray, UInt8Array, UInt16Array, UInt32Array,
    UInt64Array,
};

use super::epoch_batch::Texts;
use super::schema::SCHEMA;
use crate::classic::ClassicRecord;

/// The rows of classic records.
pub(super) fn batch(records: &[ClassicRecord]) -> RecordBatch {
    let rows = records.len();
    let mut source = Texts::with_capacity(rows);
    let mut exporter = Texts::with_capacity(rows);
    let mut src = Texts::with_capacity(rows);
    let mut dst = Texts::with_capacity(rows);
    let mut status = Texts::with_capacity(rows);
    for record in records {
        source.push(record.source.word());
        exporter.push(record.exporter);
        src.push(record.flow.src);
        dst.push(record.flow.dst);
        status.push(record.status());
    }
    let values = |value: fn(&ClassicRecord) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(records.iter().map(value)))
    };
    let nulls = || -> ArrayRef { Arc::new(UInt64Array::new_null(rows)) };
    let times = records.iter().map(|record| record.start_ns as i64);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampNanosecondArray::from_iter_values(times).with_timezone("UTC")),
        values(|record| record.length_ns),
        nulls(),
        source.column(),
        exporter.column(),
        src.column(),
        dst.column(),
        Arc::new(UInt16Array::from_iter_values(
            records.iter().map(|record| record.flow.src_port),
        )),
        Arc::new(UInt16Array::from_iter_values(
            records.iter().map(|record| record.flow.dst_port),
        )),
        Arc::new(UInt8Array::from_iter_values(
            records.iter().map(|record| record.flow.protocol),
        )),
        values(ClassicRecord::packets_estimated),
        values(ClassicRecord::bytes_estimated),
        status.column(),
        nulls(),
        nulls(),
        nulls(),
        nulls(),
        Arc::new(
            records
                .iter()
                .map(|record| record.sampling_rate)
                .collect::<UInt32Array>(),
        ),
    ];
    RecordBatch::try_new(Arc::clone(&SCHEMA), columns).expect("the columns are those of the schema")
}
