//! Rows of the store, read column by column.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Int32Type, TimestampNanosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, PrimitiveArray, RecordBatch, StringArray};

/// All columns, as rows have them.
pub(super) const COLUMNS: &[&str] = &[
    "time",
    "length_ns",
    "epoch",
    "source",
    "switch",
    "src",
    "dst",
    "src_port",
    "dst_port",
    "protocol",
    "packets",
    "bytes",
    "status",
    "packets_least",
    "packets_most",
    "bytes_least",
    "bytes_most",
    "sampling_rate",
];

/// A flow record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Row<'a> {
    pub(super) time_ns: i64,
    pub(super) length_ns: u64,
    pub(super) epoch: Option<u64>,
    pub(super) source: &'a str,
    pub(super) switch: &'a str,
    pub(super) src: &'a str,
    pub(super) dst: &'a str,
    pub(super) src_port: u16,
    pub(super) dst_port: u16,
    pub(super) protocol: u8,
    pub(super) packets: u64,
    pub(super) bytes: Option<u64>,
    pub(super) status: &'a str,
    pub(super) packets_bounds: (Option<u64>, Option<u64>),
    pub(super) bytes_bounds: (Option<u64>, Option<u64>),
    pub(super) sampling_rate: Option<u32>,
}

/// The columns of a batch.
pub(super) struct Rows<'a> {
    time: &'a PrimitiveArray<TimestampNanosecondType>,
    length_ns: &'a PrimitiveArray<UInt64Type>,
    epoch: &'a PrimitiveArray<UInt64Type>,
    source: Texts<'a>,
    switch: Texts<'a>,
    src: Texts<'a>,
    dst: Texts<'a>,
    src_port: &'a PrimitiveArray<UInt16Type>,
    dst_port: &'a PrimitiveArray<UInt16Type>,
    protocol: &'a PrimitiveArray<UInt8Type>,
    packets: &'a PrimitiveArray<UInt64Type>,
    bytes: &'a PrimitiveArray<UInt64Type>,
    status: Texts<'a>,
    bounds: [&'a PrimitiveArray<UInt64Type>; 4],
    sampling_rate: &'a PrimitiveArray<UInt32Type>,
}

#[derive(Clone, Copy)]
struct Texts<'a> {
    keys: &'a PrimitiveArray<Int32Type>,
    values: &'a StringArray,
}

impl<'a> Rows<'a> {
    /// The columns of a batch that has [`COLUMNS`]; none if the file is of another schema.
    pub(super) fn new(batch: &'a RecordBatch) -> Option<Self> {
        let longs = |name| batch.column_by_name(name)?.as_primitive_opt::<UInt64Type>();
        let texts = |name| {
            let column = batch.column_by_name(name)?;
            let column = column.as_dictionary_opt::<Int32Type>()?;
            Some(Texts {
                keys: column.keys(),
                values: column.values().as_string_opt::<i32>()?,
            })
        };
        Some(Self {
            time: batch.column_by_name("time")?.as_primitive_opt()?,
            length_ns: longs("length_ns")?,
            epoch: longs("epoch")?,
            source: texts("source")?,
            switch: texts("switch")?,
            src: texts("src")?,
            dst: texts("dst")?,
            src_port: batch.column_by_name("src_port")?.as_primitive_opt()?,
            dst_port: batch.column_by_name("dst_port")?.as_primitive_opt()?,
            protocol: batch.column_by_name("protocol")?.as_primitive_opt()?,
            packets: longs("packets")?,
            bytes: longs("bytes")?,
            status: texts("status")?,
            bounds: [
                longs("packets_least")?,
                longs("packets_most")?,
                longs("bytes_least")?,
                longs("bytes_most")?,
            ],
            sampling_rate: batch.column_by_name("sampling_rate")?.as_primitive_opt()?,
        })
    }

    /// The rows.
    pub(super) fn iter(&self) -> impl Iterator<Item = Row<'a>> + '_ {
        (0..self.time.len()).map(|row| self.row(row))
    }

    fn row(&self, row: usize) -> Row<'a> {
        let [packets_least, packets_most, bytes_least, bytes_most] =
            self.bounds.map(|column| optional(column, row));
        Row {
            time_ns: self.time.value(row),
            length_ns: self.length_ns.value(row),
            epoch: optional(self.epoch, row),
            source: self.source.value(row),
            switch: self.switch.value(row),
            src: self.src.value(row),
            dst: self.dst.value(row),
            src_port: self.src_port.value(row),
            dst_port: self.dst_port.value(row),
            protocol: self.protocol.value(row),
            packets: self.packets.value(row),
            bytes: optional(self.bytes, row),
            status: self.status.value(row),
            packets_bounds: (packets_least, packets_most),
            bytes_bounds: (bytes_least, bytes_most),
            sampling_rate: self
                .sampling_rate
                .is_valid(row)
                .then(|| self.sampling_rate.value(row)),
        }
    }
}

impl<'a> Texts<'a> {
    fn value(self, row: usize) -> &'a str {
        let key = usize::try_from(self.keys.value(row)).unwrap_or(usize::MAX);
        if key < self.values.len() {
            self.values.value(key)
        } else {
            ""
        }
    }
}

fn optional(column: &PrimitiveArray<UInt64Type>, row: usize) -> Option<u64> {
    column.is_valid(row).then(|| column.value(row))
}
