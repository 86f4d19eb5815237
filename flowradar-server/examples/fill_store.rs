//! Fills a store with made-up flow records, by the store's own writer: to measure queries.
//!
//! ```sh
//! cargo run --release -p flowradar-server --example fill_store -- big 100000000
//! flowradar query --data-folder big "select switch, sum(packets) from flows where dst_port = 443 group by switch"
//! ```

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use flowradar_collector::analysis::{FiveTuple, FlowRecord};
use flowradar_core::Counter;
use flowradar_server::epoch::{DecodedEpoch, GroupId, Quality, SwitchOutcome};
use flowradar_server::store::{FlowStore, MaintenanceOptions, ParquetStore};

const SWITCHES: u64 = 20;
const FLOWS_OF_A_SWITCH: u64 = 5_000;
const HOSTS: u64 = 4_096;
const SERVICES: [u16; 8] = [443, 80, 53, 22, 3306, 8080, 9092, 6379];
/// Epochs of a second, from then on.
const BEGIN_NS: u64 = 1_700_000_000_000_000_000;
const LENGTH_NS: u64 = 1_000_000_000;
const FLUSH_ROWS: usize = 1 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder: PathBuf = arguments.next().ok_or("name a data folder")?.into();
    let rows: u64 = arguments.next().ok_or("say how many rows")?.parse()?;
    let mut store = ParquetStore::open(folder.join("flows"))?;
    let mut maintainer = store.maintainer();
    let mut maintain = || match maintainer
        .maintain(0, MaintenanceOptions::default(), &|| false)
        .failures
        .pop()
    {
        Some(error) => Err(error),
        None => Ok(()),
    };
    let begin = Instant::now();
    let mut written = 0;
    let mut number = 0;
    while written < rows {
        let epoch = epoch(number);
        number += 1;
        written += epoch.flow_records() as u64;
        store.append_epoch(&epoch);
        if store.pending_rows() >= FLUSH_ROWS {
            store.flush()?;
            // As a collector does while it runs.
            maintain()?;
        }
    }
    store.flush()?;
    maintain()?;
    let sizes = store.reader().sizes();
    println!(
        "{} rows in {} files of {:.1} MB together, in {:.1} s",
        sizes.rows,
        sizes.files,
        sizes.bytes as f64 / 1e6,
        begin.elapsed().as_secs_f64()
    );
    Ok(())
}

fn epoch(number: u64) -> DecodedEpoch {
    let switches = (0..SWITCHES).map(|switch| SwitchOutcome {
        switch: format!("switch-{switch}"),
        // Flows last for ten epochs, and are at the same switches meanwhile.
        flows: (0..FLOWS_OF_A_SWITCH)
            .map(|flow| record(number, mix(((number / 10) << 32) | (switch << 24) | flow)))
            .collect(),
        all_v4: true,
        all_v6: false,
        flows_not_found: 0,
        flows_unconfirmed: 0,
        failure: None,
    });
    DecodedEpoch {
        group: GroupId(number),
        revision: 0,
        epoch: number,
        time_ns: BEGIN_NS + number * LENGTH_NS,
        length_ns: LENGTH_NS,
        quality: Quality::Network,
        too_late: false,
        implausible: false,
        may_be_stored: false,
        missing: vec![],
        switches: switches.collect(),
        decode_ns: 0,
    }
}

fn record(epoch: u64, flow: u64) -> FlowRecord {
    let host = |number: u64| {
        let [.., high, low] = (number % HOSTS).to_be_bytes();
        [10, 0, high, low].into()
    };
    // One packet is the most frequent, and every other is half as frequent as one that is half as long.
    let packets = 1 << mix(flow ^ epoch).leading_zeros().min(20);
    FlowRecord {
        flow: FiveTuple {
            src: host(flow),
            dst: host(flow >> 16),
            src_port: 32_768 + (flow >> 32) as u16 % 28_000,
            dst_port: SERVICES[(flow >> 48) as usize % SERVICES.len()],
            protocol: if (flow >> 51) & 3 == 0 { 17 } else { 6 },
        },
        packets: Counter::exact(packets),
        bytes: Some(Counter::exact(packets * 700)),
    }
}

/// Numbers that look random (the finalizer of SplitMix64).
fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
