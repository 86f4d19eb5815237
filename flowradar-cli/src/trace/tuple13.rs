//! The research format of 5-tuple records.

use flowradar_core::{FlowKey, FlowKeyV4};

use super::error::{Fault, TraceProblem};
use super::source::Source;

/// Bytes of a record: source and destination address, source and destination port, protocol, in
/// network byte order.
const RECORD_BYTES: usize = 13;

/// Reads records, and their timestamps from a file of their own if there is one.
#[derive(Default)]
pub(super) struct Tuple13Reader {
    pub(super) timestamps: Option<Source>,
}

impl Tuple13Reader {
    /// The next record; `None` if the input ends with the previous one.
    pub(super) fn next_record(
        &mut self,
        source: &mut Source,
    ) -> Result<Option<(FlowKeyV4, Option<u64>)>, Fault> {
        if source.fill(1)? == 0 {
            return match &mut self.timestamps {
                Some(timestamps) => no_more(timestamps).map_err(Fault::in_timestamps),
                None => Ok(None),
            };
        }
        // The layout is that of keys on the wire.
        let key = FlowKeyV4::from_bytes(source.require(RECORD_BYTES, "record")?);
        let timestamp_ns = match &mut self.timestamps {
            Some(timestamps) => Some(next_timestamp_ns(timestamps).map_err(Fault::in_timestamps)?),
            None => None,
        };
        source.take(RECORD_BYTES);
        Ok(Some((key, timestamp_ns)))
    }
}

fn no_more<T>(timestamps: &mut Source) -> Result<Option<T>, Fault> {
    if timestamps.fill(1)? == 0 {
        return Ok(None);
    }
    Err(Fault::new(
        timestamps.offset(),
        TraceProblem::TooManyTimestamps,
    ))
}

fn next_timestamp_ns(timestamps: &mut Source) -> Result<u64, Fault> {
    let offset = timestamps.offset();
    if timestamps.fill(1)? == 0 {
        return Err(Fault::new(offset, TraceProblem::TooFewTimestamps));
    }
    timestamps.require(8, "timestamp")?;
    let bytes = *timestamps
        .take(8)
        .first_chunk()
        .expect("eight bytes were taken");
    let nanoseconds = (f64::from_le_bytes(bytes) * 1e9).round();
    // The comparison is false for NaN.
    if (0.0..=u64::MAX as f64).contains(&nanoseconds) {
        Ok(nanoseconds as u64)
    } else {
        Err(Fault::new(offset, TraceProblem::InvalidTimestamp))
    }
}
