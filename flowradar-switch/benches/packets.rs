//! Packets a second through the reference program, on in-memory ports.
//!
//! `cargo bench -p flowradar-switch` times it; `cargo bench -p flowradar-switch -- --count 10000` runs that
//! many packets and nothing else, for tools that count instructions.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use flowradar_switch::runtime::{ActionCall, EntryAction, EntryKey, MatchValue, TableEntry};
use flowradar_switch::{Outputs, Pipeline, PipelineConfig, Program, Timestamp, Value};

/// Flows in turns, so that flow filter and counting table are met as in a network.
const FLOWS: u32 = 8_000;

/// Packets in one measurement.
const PACKETS: u32 = 500_000;

fn main() {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--count");
    let count = arguments.nth(1).and_then(|count| count.parse().ok());
    let mut pipeline = routing_pipeline();
    let frames: Vec<_> = (0..FLOWS).map(frame).collect();
    let mut outputs = Outputs::new();
    if let Some(count) = count {
        run(&mut pipeline, &frames, count, &mut outputs);
        return;
    }
    run(&mut pipeline, &frames, FLOWS, &mut outputs);
    let mut rates: Vec<f64> = (0..7)
        .map(|_| {
            let start = Instant::now();
            run(&mut pipeline, &frames, PACKETS, &mut outputs);
            f64::from(PACKETS) / start.elapsed().as_secs_f64()
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    let (median, best) = (rates[rates.len() / 2] / 1e6, rates[rates.len() - 1] / 1e6);
    println!("reference program, 64-byte packets, one thread: {median:.2} Mpps (best {best:.2})");
    let counters = pipeline.counters();
    assert_eq!(
        counters.frames_in, counters.frames_out,
        "every packet is routed"
    );
}

fn run(pipeline: &mut Pipeline, frames: &[[u8; 64]], count: u32, outputs: &mut Outputs) {
    for (number, frame) in (0..count).zip(frames.iter().cycle()) {
        let now = Timestamp::from_microseconds(number.into());
        pipeline.process(1, black_box(frame), now, outputs);
        black_box(outputs.frames().next());
        outputs.clear();
    }
}

/// The reference program with a route.
fn routing_pipeline() -> Pipeline {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../p4src/v1model/compiled/switch.json");
    let json = std::fs::read(&path).expect("the reference program is in the repository");
    let program = Program::from_json(&json).expect("the reference program is supported");
    let mut pipeline = Pipeline::new(Arc::new(program), PipelineConfig::default());
    let call = |action: &str, arguments: &[u64]| ActionCall {
        action: action.to_owned(),
        arguments: arguments
            .iter()
            .map(|argument| Value::from(*argument))
            .collect(),
    };
    let mut insert = |table: &str, value: MatchValue, action: EntryAction| {
        let entry = TableEntry {
            key: EntryKey {
                matches: vec![value],
                priority: 0,
            },
            action,
            idle_timeout: None,
            metadata: Vec::new(),
        };
        pipeline
            .insert_entry(table, entry, Timestamp::ZERO)
            .expect("the entry fits its table");
    };
    let station = MatchValue::Exact(Value::from(0x0200_0000_0001_u64));
    insert(
        "SwitchIngress.my_station",
        station,
        EntryAction::Call(call("SwitchIngress.route", &[])),
    );
    let hop = call(
        "SwitchIngress.to_next_hop",
        &[2, 0x0200_0000_0002, 0x0200_0000_0003],
    );
    pipeline
        .insert_member("SwitchIngress.ipv4_next_hops", 1, hop)
        .expect("the action is one of the profile's");
    let prefix = MatchValue::Lpm {
        value: Value::from(0x0a00_0000_u64),
        prefix_length: 8,
    };
    let entry = TableEntry {
        key: EntryKey {
            matches: vec![prefix],
            priority: 0,
        },
        action: EntryAction::Member(1),
        idle_timeout: None,
        metadata: Vec::new(),
    };
    pipeline
        .insert_entry("SwitchIngress.ipv4_lpm", entry, Timestamp::ZERO)
        .expect("the entry fits its table");
    pipeline
}

/// A 64-byte UDP packet of a flow.
fn frame(flow: u32) -> [u8; 64] {
    let mut frame = [0; 64];
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9]);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14..24].copy_from_slice(&[0x45, 0, 0, 50, 0, 0, 0, 0, 64, 17]);
    frame[26..30].copy_from_slice(&(0x0b00_0000 + flow / 16).to_be_bytes());
    frame[30..34].copy_from_slice(&(0x0a00_0000 + flow % 251).to_be_bytes());
    let mut sum: u32 = frame[14..34]
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    frame[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    frame[34..36].copy_from_slice(&(1024 + flow as u16).to_be_bytes());
    frame[36..42].copy_from_slice(&[0, 80, 0, 30, 0, 0]);
    frame
}
