//! Queries over a small store.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray, UInt16Array, UInt64Array};
use datafusion::parquet::arrow::ArrowWriter;
use flowradar_query::{Format, QueryError, query};
use tempfile::TempDir;

/// A file with rows of switch, port and packets.
fn write(path: &Path, rows: &[(&str, u16, Option<u64>)]) {
    let switches: StringArray = rows.iter().map(|(switch, ..)| Some(*switch)).collect();
    let ports: UInt16Array = rows.iter().map(|(_, port, _)| Some(*port)).collect();
    let packets: UInt64Array = rows.iter().map(|(.., packets)| *packets).collect();
    // One schema for all files, as the store's have: a column may be null in some only.
    let columns: [(&str, ArrayRef, bool); 3] = [
        ("switch", Arc::new(switches), false),
        ("dst_port", Arc::new(ports), false),
        ("packets", Arc::new(packets), true),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns).expect("columns of one length");
    fs::create_dir_all(path.parent().expect("a folder")).expect("space");
    let file = fs::File::create(path).expect("space");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a schema");
    writer.write(&batch).expect("space");
    writer.close().expect("space");
}

/// A store of two files, and one that is not on its list.
fn store() -> TempDir {
    let folder = TempDir::new().expect("a folder");
    let part = |name: &str| folder.path().join("day=2026-11-22/hour=18").join(name);
    write(
        &part("1.parquet"),
        &[("a", 80, Some(5)), ("b, c", 443, Some(7))],
    );
    write(&part("2.parquet"), &[("a", 443, Some(1)), ("a", 443, None)]);
    write(&part("3.parquet"), &[("a", 443, Some(1_000))]);
    let list = r#"{"version": 1, "next_file": 4, "files": [
        {"path": "day=2026-11-22/hour=18/1.parquet", "rows": 2, "bytes": 1, "time_min_ns": 0, "time_max_ns": 0},
        {"path": "day=2026-11-22/hour=18/2.parquet", "rows": 2, "bytes": 1, "time_min_ns": 0, "time_max_ns": 0}]}"#;
    fs::write(folder.path().join("manifest.json"), list).expect("space");
    folder
}

fn ask(sql: &str, format: Format) -> String {
    let mut out = vec![];
    query(store().path(), sql, format, &mut out).expect("an answer");
    String::from_utf8(out).expect("text")
}

const BY_SWITCH: &str = "select switch, sum(packets) as packets, count(*) as n from flows group by switch order by switch";

#[test]
fn listed_files_are_grouped_and_written() {
    assert_eq!(
        ask(BY_SWITCH, Format::Csv),
        "switch,packets,n\na,6,3\n\"b, c\",7,1\n"
    );
    assert_eq!(
        ask(BY_SWITCH, Format::Table),
        "switch  packets  n\na             6  3\nb, c          7  1\n"
    );
    let lines = ask(
        "select switch, packets from flows where dst_port = 443 order by packets desc nulls last",
        Format::Json,
    );
    let rows: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(rows[0], serde_json::json!({"switch": "b, c", "packets": 7}));
    assert_eq!(rows[2], serde_json::json!({"switch": "a", "packets": null}));
}

#[test]
fn parquet_can_be_read_again() {
    let mut out = vec![];
    let rows = query(store().path(), BY_SWITCH, Format::Parquet, &mut out).expect("an answer");
    assert_eq!(
        (rows, &out[..4], &out[out.len() - 4..]),
        (2, &b"PAR1"[..], &b"PAR1"[..])
    );
}

#[test]
fn only_questions_are_answered() {
    let folder = store();
    let refused = |sql: &str| query(folder.path(), sql, Format::Csv, &mut vec![]);
    for sql in [
        "create table x as select 1",
        "insert into flows values ('a', 1, 1)",
        "copy flows to 'out.csv'",
        "set datafusion.execution.batch_size = 1",
        "select nothing from flows",
        "select",
    ] {
        assert!(matches!(refused(sql), Err(QueryError::Query(_))), "{sql}");
    }
    let empty = TempDir::new().expect("a folder");
    let nothing = query(empty.path(), "select 1", Format::Csv, &mut vec![]);
    assert!(matches!(nothing, Err(QueryError::NoFlows(_))));
    let list = r#"{"files": [{"path": "../secret.parquet"}]}"#;
    fs::write(empty.path().join("manifest.json"), list).expect("space");
    let outside = query(empty.path(), "select 1", Format::Csv, &mut vec![]);
    assert!(matches!(outside, Err(QueryError::Manifest { .. })));
}
