//! Rows as JSON lines.

use std::io::{self, Write};
use std::net::IpAddr;

use flowradar_core::Counter;
use serde::Serialize;

use super::{FlowRow, bounds};

/// A row as a JSON object. Bounds are there only for counters that are unresolved; `most` is null
/// where a saturated cell leaves it open.
#[derive(Serialize)]
struct JsonRow<'a> {
    epoch: u64,
    switch: &'a str,
    src: IpAddr,
    dst: IpAddr,
    src_port: u16,
    dst_port: u16,
    protocol: u8,
    packets: u64,
    bytes: Option<u64>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    packets_bounds: Option<JsonBounds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_bounds: Option<JsonBounds>,
}

#[derive(Serialize)]
struct JsonBounds {
    least: u64,
    most: Option<u64>,
}

pub(super) fn write_row(out: &mut impl Write, row: &FlowRow<'_>) -> io::Result<()> {
    let json_bounds =
        |counter: Counter| bounds(counter).map(|(least, most)| JsonBounds { least, most });
    let row = JsonRow {
        epoch: row.epoch,
        switch: row.switch,
        src: row.src,
        dst: row.dst,
        src_port: row.src_port,
        dst_port: row.dst_port,
        protocol: row.protocol,
        packets: row.packets.value,
        bytes: row.bytes.map(|bytes| bytes.value),
        status: row.status(),
        packets_bounds: json_bounds(row.packets),
        bytes_bounds: row.bytes.and_then(json_bounds),
    };
    serde_json::to_writer(&mut *out, &row)?;
    out.write_all(b"\n")
}
