use flowradar_collector::analysis::{FiveTuple, FlowRecord};
use flowradar_core::{Counter, CounterStatus};
use tempfile::TempDir;

use super::*;
use crate::classic::ClassicSource;
use crate::epoch::{GroupId, Quality, SwitchOutcome};

const HOUR_NS: u64 = 3_600_000_000_000;
/// The begin of an hour: 2023-11-14T22:00:00Z.
const BEGIN_NS: u64 = 1_699_999_200_000_000_000;

const KEEP_ALL: StoreOptions = StoreOptions {
    keep_ns: 0,
    bytes_max: 0,
};

fn flow(port: u16, packets: u64) -> FlowRecord {
    FlowRecord {
        flow: FiveTuple {
            src: [10, 0, 0, 1].into(),
            dst: [10, 0, 0, 2].into(),
            src_port: port,
            dst_port: 443,
            protocol: 6,
        },
        packets: Counter::exact(packets),
        bytes: None,
    }
}

fn epoch(number: u64, time_ns: u64, switches: &[(&str, u64)]) -> DecodedEpoch {
    DecodedEpoch {
        group: GroupId(number + 1),
        revision: 0,
        epoch: number,
        time_ns,
        length_ns: 1_000_000_000,
        quality: Quality::Network,
        too_late: false,
        implausible: false,
        may_be_stored: false,
        missing: vec![],
        switches: switches
            .iter()
            .map(|(switch, packets)| SwitchOutcome {
                switch: (*switch).to_owned(),
                flows: (1..=3).map(|port| flow(port, *packets)).collect(),
                all_v4: true,
                all_v6: false,
                flows_not_found: 0,
                flows_unconfirmed: 0,
                failure: None,
            })
            .collect(),
        decode_ns: 1,
    }
}

fn open(folder: &TempDir) -> ParquetStore {
    ParquetStore::open(folder.path(), KEEP_ALL).expect("a store")
}

/// Epoch, switch and packets of all rows, sorted.
fn rows(store: &ParquetStore) -> Vec<(u64, String, u64)> {
    let mut rows = vec![];
    store
        .reader()
        .scan(
            TimeRange::ALL,
            &["time", "epoch", "switch", "packets"],
            &mut |batch| {
                let epochs = batch.column_by_name("epoch").expect("a column");
                let epochs = epochs.as_primitive::<UInt64Type>();
                let packets = batch.column_by_name("packets").expect("a column");
                let packets = packets.as_primitive::<UInt64Type>();
                let switches = batch.column_by_name("switch").expect("a column");
                let switches = switches.as_dictionary::<arrow_array::types::Int32Type>();
                let switches = switches
                    .downcast_dict::<arrow_array::StringArray>()
                    .expect("texts");
                for (row, switch) in switches.into_iter().enumerate() {
                    let switch = switch.expect("not null").to_owned();
                    rows.push((epochs.value(row), switch, packets.value(row)));
                }
                ControlFlow::Continue(())
            },
        )
        .expect("a scan");
    rows.sort_unstable();
    rows
}

fn of(epoch: u64, switch: &str, packets: u64) -> Vec<(u64, String, u64)> {
    vec![(epoch, switch.to_owned(), packets); 3]
}

#[test]
fn rows_are_seen_at_once_and_durable_after_a_flush() {
    let folder = TempDir::new().expect("a folder");
    let mut store = open(&folder);
    store.append_epoch(&epoch(1, BEGIN_NS, &[("a", 5), ("b", 6)]));
    let all = [of(1, "a", 5), of(1, "b", 6)].concat();
    assert_eq!(rows(&store), all);
    assert_eq!(store.reader().sizes().pending_rows, 6);
    drop(store);
    let mut store = open(&folder);
    assert_eq!(rows(&store), []);
    store.append_epoch(&epoch(1, BEGIN_NS, &[("a", 5), ("b", 6)]));
    let feedback = store.flush().expect("space");
    let stored = Feedback::Stored {
        group: GroupId(2),
        revision: 0,
    };
    assert_eq!(feedback, [stored]);
    drop(store);
    let store = open(&folder);
    assert_eq!(rows(&store), all);
    assert_eq!(store.reader().sizes().files, 1);
    assert!(folder.path().join("day=2023-11-14/hour=22").is_dir());
}

#[test]
fn an_epoch_decoded_again_takes_the_place_of_its_rows() {
    let folder = TempDir::new().expect("a folder");
    let mut store = open(&folder);
    store.append_epoch(&epoch(1, BEGIN_NS, &[("a", 5)]));
    store.append_epoch(&epoch(2, BEGIN_NS + 1, &[("a", 7)]));
    store.flush().expect("space");
    let again = |number, time_ns, switches: &[_]| DecodedEpoch {
        may_be_stored: true,
        revision: 1,
        ..epoch(number, time_ns, switches)
    };
    // Twice, before and after it is in a file, and one that was not stored at all.
    store.append_epoch(&again(1, BEGIN_NS, &[("a", 50)]));
    store.append_epoch(&again(1, BEGIN_NS, &[("a", 5), ("b", 6)]));
    store.append_epoch(&again(3, BEGIN_NS + 2, &[("c", 1)]));
    // The same number at another time is another epoch.
    store.append_epoch(&again(2, BEGIN_NS + HOUR_NS, &[("a", 8)]));
    let before = rows(&store);
    store.flush().expect("space");
    let all = [
        of(1, "a", 5),
        of(1, "b", 6),
        of(2, "a", 7),
        of(2, "a", 8),
        of(3, "c", 1),
    ]
    .concat();
    assert_eq!(rows(&store), all);
    assert_eq!(
        before, all,
        "readers see no row twice while it is in memory and in a file"
    );
    drop(store);
    assert_eq!(rows(&open(&folder)), all);
}

#[test]
fn what_comes_too_late_is_stored_beside_its_epoch_once() {
    let folder = TempDir::new().expect("a folder");
    let mut store = open(&folder);
    store.append_epoch(&epoch(1, BEGIN_NS, &[("a", 5)]));
    store.flush().expect("space");
    for _ in 0..2 {
        let late = DecodedEpoch {
            too_late: true,
            ..epoch(1, BEGIN_NS, &[("a", 50), ("b", 6)])
        };
        store.append_epoch(&late);
        store.flush().expect("space");
    }
    assert_eq!(rows(&store), [of(1, "a", 5), of(1, "b", 6)].concat());
}

#[test]
fn a_crash_leaves_the_store_as_before_or_after() {
    let folder = TempDir::new().expect("a folder");
    let mut store = open(&folder);
    store.append_epoch(&epoch(1, BEGIN_NS, &[("a", 5)]));
    store.flush().expect("space");
    // Files of a flush that did not come to its end.
    let partition = folder.path().join("day=2023-11-14/hour=22");
    for name in ["00000000000000000009.parquet", "00000000000000000009.part"] {
        fs::write(partition.join(name), b"PAR1").expect("space");
    }
    fs::write(folder.path().join("manifest.part"), b"{").expect("space");
    drop(store);
    let mut store = open(&folder);
    assert_eq!(rows(&store), of(1, "a", 5));
    assert_eq!(fs::read_dir(&partition).expect("a folder").count(), 1);
    store.append_epoch(&epoch(2, BEGIN_NS, &[("a", 5)]));
    store.flush().expect("space");
    assert_eq!(rows(&store).len(), 6);
}

#[test]
fn small_files_are_merged_and_old_ones_removed() {
    let folder = TempDir::new().expect("a folder");
    let mut store = open(&folder);
    for number in 0..20 {
        store.append_epoch(&epoch(number, BEGIN_NS + number, &[("a", number)]));
        store.flush().expect("space");
    }
    store.append_epoch(&epoch(100, BEGIN_NS + 2 * HOUR_NS, &[("a", 1)]));
    store.flush().expect("space");
    let before = rows(&store);
    let now = (BEGIN_NS + 2 * HOUR_NS) as i64;
    let done = store.maintain(now).expect("space");
    assert_eq!(done.merged_files, 20);
    assert_eq!((store.reader().sizes().files, rows(&store)), (2, before));

    store.set_options(StoreOptions {
        keep_ns: HOUR_NS,
        bytes_max: 0,
    });
    let done = store.maintain(now).expect("space");
    assert_eq!((done.removed_files, done.removed_rows), (1, 60));
    assert_eq!(rows(&store), of(100, "a", 1));
    store.set_options(StoreOptions {
        keep_ns: 0,
        bytes_max: 1,
    });
    store.maintain(now).expect("space");
    drop(store);
    assert_eq!(rows(&open(&folder)), []);
}

#[test]
fn bounds_and_sampling_are_kept() {
    let folder = TempDir::new().expect("a folder");
    let mut store = open(&folder);
    let mut decoded = epoch(1, BEGIN_NS, &[("a", 5)]);
    decoded.switches[0].flows.truncate(2);
    decoded.switches[0].flows[1].packets.status = CounterStatus::Unresolved {
        least: 2,
        most: u64::MAX,
    };
    store.append_epoch(&decoded);
    store.append_classic(&[ClassicRecord {
        source: ClassicSource::Netflow9,
        exporter: [192, 0, 2, 1].into(),
        flow: flow(9, 0).flow,
        start_ns: BEGIN_NS,
        length_ns: 0,
        packets: 3,
        bytes: 300,
        sampling_rate: Some(100),
    }]);
    store.flush().expect("space");
    let mut found = vec![];
    let columns = [
        "packets",
        "bytes",
        "status",
        "packets_least",
        "packets_most",
        "sampling_rate",
    ];
    store
        .reader()
        .scan(TimeRange::ALL, &columns, &mut |batch| {
            let number = |name: &str, row| {
                let column = batch.column_by_name(name).expect("a column");
                let column = column.as_primitive::<UInt64Type>();
                column.is_valid(row).then(|| column.value(row))
            };
            let rates = batch.column_by_name("sampling_rate").expect("a column");
            let rates = rates.as_primitive::<arrow_array::types::UInt32Type>();
            for row in 0..batch.num_rows() {
                found.push((
                    number("packets", row),
                    number("bytes", row),
                    number("packets_least", row),
                    number("packets_most", row),
                    rates.is_valid(row).then(|| rates.value(row)),
                ));
            }
            ControlFlow::Continue(())
        })
        .expect("a scan");
    let expected = [
        (Some(5), None, None, None, None),
        (Some(5), None, Some(2), None, None),
        (Some(300), Some(30_000), None, None, Some(100)),
    ];
    assert_eq!(found, expected);
}

#[test]
fn lists_of_files_lead_nowhere_else() {
    let list = |path: &str| {
        format!(
            r#"{{"version": 1, "next_file": 2, "files": [{{"path": "{path}", "rows": 1, "bytes": 1, "time_min_ns": 0, "time_max_ns": 0}}]}}"#
        )
    };
    assert!(Manifest::parse(list("day=1/hour=2/a.parquet").as_bytes()).is_ok());
    for path in ["../a.parquet", "/etc/passwd", "a/../../b", ""] {
        assert!(Manifest::parse(list(path).as_bytes()).is_err(), "{path}");
    }
    assert!(Manifest::parse(b"{\"version\": 2, \"next_file\": 1, \"files\": []}").is_err());
}
