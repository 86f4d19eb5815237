use std::hash::{Hash, Hasher};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, TimestampNanosecondType, UInt16Type, UInt64Type};
use arrow_array::{Array, ArrayAccessor, StringArray};
use flowradar_collector::analysis::{FiveTuple, FlowRecord};
use flowradar_core::{Counter, CounterStatus};
use tempfile::TempDir;

use super::super::{Maintenance, MaintenanceOptions};
use super::*;
use crate::classic::ClassicSource;
use crate::epoch::{GroupId, Quality, SwitchOutcome};

const HOUR_NS: u64 = 3_600_000_000_000;
/// The begin of an hour: 2023-11-14T22:00:00Z.
const BEGIN_NS: u64 = 1_699_999_200_000_000_000;

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

const KEEP_ALL: MaintenanceOptions = MaintenanceOptions {
    keep_ns: 0,
    bytes_max: 0,
    settle_ns: 0,
};

fn maintain(store: &ParquetStore, now_ns: i64, options: MaintenanceOptions) -> Maintenance {
    let done = store.maintainer().maintain(now_ns, options, &|| false);
    if options == KEEP_ALL && done.removed_files > 0 {
        panic!("nothing was to be removed");
    }
    done
}

/// All rows, as a number for each, sorted.
fn digests(store: &ParquetStore) -> Vec<u64> {
    let columns = [
        "time", "epoch", "switch", "src", "src_port", "packets", "bytes",
    ];
    let mut rows = vec![];
    let mut read = |batch: &RecordBatch| {
        let column = |name: &str| batch.column_by_name(name).expect("a column");
        let number = |name: &str| column(name).as_primitive::<UInt64Type>().clone();
        let text = |name: &str| column(name).as_dictionary::<Int32Type>().clone();
        let times = column("time").as_primitive::<TimestampNanosecondType>();
        let ports = column("src_port").as_primitive::<UInt16Type>();
        let (epochs, packets, bytes) = (number("epoch"), number("packets"), number("bytes"));
        let (switches, sources) = (text("switch"), text("src"));
        let switches = switches.downcast_dict::<StringArray>().expect("texts");
        let sources = sources.downcast_dict::<StringArray>().expect("texts");
        for row in 0..batch.num_rows() {
            let counts = (
                packets.value(row),
                bytes.is_valid(row).then(|| bytes.value(row)),
            );
            let place = (times.value(row), epochs.value(row), switches.value(row));
            let digest = (place, sources.value(row), ports.value(row), counts);
            let mut hasher = std::hash::DefaultHasher::new();
            digest.hash(&mut hasher);
            rows.push(hasher.finish());
        }
        ControlFlow::Continue(())
    };
    store
        .reader()
        .scan(TimeRange::ALL, &columns, &mut read)
        .expect("a scan");
    rows.sort_unstable();
    rows
}

fn open(folder: &TempDir) -> ParquetStore {
    ParquetStore::open(folder.path()).expect("a store")
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
    let done = maintain(&store, now, KEEP_ALL);
    assert_eq!(done.merged_files, 20);
    assert_eq!((store.reader().sizes().files, rows(&store)), (2, before));

    let old = MaintenanceOptions {
        keep_ns: HOUR_NS,
        ..KEEP_ALL
    };
    let done = maintain(&store, now, old);
    assert_eq!((done.removed_files, done.removed_rows), (1, 60));
    assert_eq!(rows(&store), of(100, "a", 1));
    let all = MaintenanceOptions {
        bytes_max: 1,
        ..KEEP_ALL
    };
    maintain(&store, now, all);
    drop(store);
    assert_eq!(rows(&open(&folder)), []);
}

#[test]
fn files_whose_epochs_may_be_decoded_again_are_not_merged() {
    let folder = TempDir::new().expect("a folder");
    let mut store = open(&folder);
    for number in 0..20 {
        store.append_epoch(&epoch(number, BEGIN_NS + number * 1000, &[("a", number)]));
        store.flush().expect("space");
    }
    let settle = MaintenanceOptions {
        settle_ns: 9_500,
        ..KEEP_ALL
    };
    let now = (BEGIN_NS + 20_000) as i64;
    assert_eq!(maintain(&store, now, settle).merged_files, 11);
    assert_eq!(store.reader().sizes().files, 10);
}

#[test]
fn large_row_groups_are_merged_as_they_are() {
    let folder = TempDir::new().expect("a folder");
    let mut store = open(&folder);
    // Texts have another order in the dictionaries of every other file.
    let switches: [&[&str]; 2] = [&["a", "b"], &["b", "c", "a"]];
    let mut written = 0;
    for number in 0..9_u64 {
        let mut large = epoch(number, BEGIN_NS + number, &[]);
        let switches = switches[number as usize % 2];
        for switch in switches {
            let mut outcome = epoch(number, 0, &[(switch, number)]).switches.remove(0);
            let flows = (0..150_000 / switches.len() as u32).map(|index| FlowRecord {
                flow: FiveTuple {
                    src: std::net::Ipv4Addr::from(index % 1000 + number as u32).into(),
                    ..flow((index >> 10) as u16, 0).flow
                },
                packets: Counter::exact(u64::from(index) + number),
                bytes: (index % 3 == 0).then(|| Counter::exact(u64::from(index) * 1500)),
            });
            outcome.flows = flows.collect();
            written += outcome.flows.len() as u64;
            large.switches.push(outcome);
        }
        store.append_epoch(&large);
        store.flush().expect("space");
    }
    let before = digests(&store);
    let done = maintain(&store, i64::MAX, KEEP_ALL);
    assert_eq!(done.merged_files, 9);
    let sizes = store.reader().sizes();
    assert_eq!((sizes.files, sizes.rows), (1, written));
    assert!(digests(&store) == before, "the same rows");
    // Its groups of rows can be chosen by time as before.
    let one = TimeRange {
        from_ns: BEGIN_NS as i64 + 3,
        to_ns: BEGIN_NS as i64 + 4,
    };
    let scanned = store
        .reader()
        .scan(one, &["time"], &mut |_| ControlFlow::Continue(()));
    assert_eq!(scanned.expect("a scan").rows, 150_000);
}

#[test]
fn merging_beside_storing_loses_nothing() {
    let folder = TempDir::new().expect("a folder");
    let mut store = open(&folder);
    let mut maintainer = store.maintainer();
    let ended = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::Relaxed;
    let (merged, given_up) = std::thread::scope(|scope| {
        let merging = scope.spawn(|| {
            let (mut merged, mut given_up) = (0, 0);
            while !ended.load(order) {
                let done = maintainer.maintain(0, KEEP_ALL, &|| false);
                assert!(done.failures.is_empty(), "{:?}", done.failures);
                merged += done.merged_files;
                given_up += done.merges_given_up;
            }
            (merged, given_up)
        });
        for number in 0..400 {
            store.append_epoch(&epoch(number, BEGIN_NS + number, &[("a", 1), ("b", 2)]));
            store.flush().expect("space");
            // Now and then what was decoded before is decoded again.
            if number % 16 == 15 {
                let again = epoch(number / 2, BEGIN_NS + number / 2, &[("a", 10 + number)]);
                store.append_epoch(&DecodedEpoch {
                    may_be_stored: true,
                    ..again
                });
            }
        }
        store.flush().expect("space");
        ended.store(true, order);
        merging.join().expect("no panic")
    });
    let mut expected = vec![];
    for number in 0..400_u64 {
        let again = (0..400).find(|later| later % 16 == 15 && later / 2 == number);
        expected.extend(of(number, "a", again.map_or(1, |again| 10 + again)));
        expected.extend(of(number, "b", 2));
    }
    assert_eq!(rows(&store), expected);
    drop(store);
    assert_eq!(rows(&open(&folder)), expected);
    assert!(
        merged > 0,
        "{merged} files merged, {given_up} merges given up"
    );
}

#[test]
fn a_merge_whose_files_are_replaced_meanwhile_is_given_up() {
    let folder = TempDir::new().expect("a folder");
    let mut store = open(&folder);
    for number in 0..10 {
        store.append_epoch(&epoch(number, BEGIN_NS + number, &[("a", 1)]));
        store.flush().expect("space");
    }
    let expected: Vec<_> = (0..10)
        .flat_map(|number| of(number, "a", 1 + u64::from(number == 5)))
        .collect();
    let mut maintainer = store.maintainer();
    let store = std::sync::Mutex::new(store);
    // Asked while it copies: an epoch is decoded again, and stored.
    let replace = || {
        let mut store = store.lock().expect("no panic");
        store.append_epoch(&DecodedEpoch {
            may_be_stored: true,
            ..epoch(5, BEGIN_NS + 5, &[("a", 2)])
        });
        store.flush().expect("space");
        false
    };
    let done = maintainer.maintain(0, KEEP_ALL, &replace);
    assert_eq!((done.merged_files, done.merges_given_up), (0, 1));
    let done = maintainer.maintain(0, KEEP_ALL, &|| true);
    assert_eq!((done.merged_files, done.merges_given_up), (0, 0), "stopped");
    let store = store.into_inner().expect("no panic");
    assert_eq!(rows(&store), expected);
    let partition = folder.path().join("day=2023-11-14/hour=22");
    assert_eq!(
        fs::read_dir(&partition).expect("a folder").count(),
        10,
        "nothing is left of it"
    );
    assert_eq!(maintain(&store, 0, KEEP_ALL).merged_files, 10);
    assert_eq!(rows(&store), expected);
}

#[test]
fn attempts_that_fail_leave_no_files() {
    let folder = TempDir::new().expect("a folder");
    let mut store = open(&folder);
    for number in 0..10 {
        store.append_epoch(&epoch(number, BEGIN_NS + number, &[("a", number)]));
        store.flush().expect("space");
    }
    // The list cannot be written: a folder has the name of its unfinished file.
    let in_the_way = folder.path().join("manifest.part");
    fs::create_dir(&in_the_way).expect("a folder");
    let partition = folder.path().join("day=2023-11-14/hour=22");
    let files = || fs::read_dir(&partition).expect("a folder").count();
    store.append_epoch(&DecodedEpoch {
        may_be_stored: true,
        ..epoch(5, BEGIN_NS + 5, &[("a", 50)])
    });
    let before = rows(&store);
    for _ in 0..3 {
        assert!(store.flush().is_err());
        let done = maintain(&store, 0, KEEP_ALL);
        assert_eq!((done.merged_files, done.failures.len()), (0, 1));
        assert_eq!((files(), rows(&store)), (10, before.clone()));
    }
    fs::remove_dir(&in_the_way).expect("it is there");
    store.flush().expect("space");
    // The file of epoch 5 had no other rows: the new one takes its place.
    assert_eq!(maintain(&store, 0, KEEP_ALL).merged_files, 10);
    assert_eq!((files(), rows(&store)), (1, before));
}

#[test]
fn what_cannot_be_merged_is_said_and_stays() {
    let folder = TempDir::new().expect("a folder");
    let mut store = open(&folder);
    for number in 0..10 {
        let begin = BEGIN_NS + number % 2 * HOUR_NS;
        for part in 0..2 {
            store.append_epoch(&epoch(number, begin + part, &[("a", 1)]));
            store.flush().expect("space");
        }
    }
    let partition = folder.path().join("day=2023-11-14/hour=22");
    let damaged = fs::read_dir(&partition)
        .expect("a folder")
        .next()
        .expect("a file")
        .expect("a name");
    fs::write(damaged.path(), b"PAR1 and no more").expect("space");
    let done = maintain(&store, 0, KEEP_ALL);
    assert_eq!(
        (done.merged_files, done.failures.len()),
        (10, 1),
        "the other hour is merged"
    );
    assert_eq!(fs::read_dir(&partition).expect("a folder").count(), 10);
    assert_eq!(rows(&store).len(), 10 * 2 * 3 - 3);
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
