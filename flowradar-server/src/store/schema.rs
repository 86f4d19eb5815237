//! The columns of the table `flows`.
//!
//! | column | type | what |
//! | --- | --- | --- |
//! | `time` | timestamp (ns, UTC) | when the epoch, or the exporter's flow, began; where a switch gives no time, when its epoch's first report came |
//! | `length_ns` | uint64 | how long; 0 if not known |
//! | `epoch` | uint64, null for classic exports | number of the epoch |
//! | `source` | string | `flowradar`, `netflow5`, `netflow7`, `netflow9`, `ipfix` or `sflow` |
//! | `switch` | string | switch or exporter |
//! | `src`, `dst` | string | addresses |
//! | `src_port`, `dst_port` | uint16 | ports |
//! | `protocol` | uint8 | IP protocol number |
//! | `packets` | uint64 | packets; sampled ones times the sampling rate |
//! | `bytes` | uint64, null where not counted | bytes, likewise |
//! | `status` | string | `exact`, `joint`, `unresolved`; of classic exports `reported` or `sampled` |
//! | `packets_least`, `packets_most`, `bytes_least`, `bytes_most` | uint64, null | bounds of unresolved counters |
//! | `sampling_rate` | uint32, null if not known | of classic exports: one packet of so many was counted |

use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// The columns.
pub static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let text = || DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let time = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("time", time, false),
        Field::new("length_ns", DataType::UInt64, false),
        Field::new("epoch", DataType::UInt64, true),
        Field::new("source", text(), false),
        Field::new("switch", text(), false),
        Field::new("src", text(), false),
        Field::new("dst", text(), false),
        Field::new("src_port", DataType::UInt16, false),
        Field::new("dst_port", DataType::UInt16, false),
        Field::new("protocol", DataType::UInt8, false),
        Field::new("packets", DataType::UInt64, false),
        Field::new("bytes", DataType::UInt64, true),
        Field::new("status", text(), false),
        Field::new("packets_least", DataType::UInt64, true),
        Field::new("packets_most", DataType::UInt64, true),
        Field::new("bytes_least", DataType::UInt64, true),
        Field::new("bytes_most", DataType::UInt64, true),
        Field::new("sampling_rate", DataType::UInt32, true),
    ]))
});
