//! `decode` and `info`: formats, marks, damaged flowsets.

use std::fs::{self, File};
use std::io::Read as _;
use std::process::Stdio;

use parquet::basic::LogicalType;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::Value;

use crate::support::{
    CSV_HEADER, Flow, Folder, command, encode, expected_rows, flowradar, many_flows,
};

/// A folder with flowsets of far more flows than they are made for.
fn overloaded(folder: &Folder) -> String {
    let (capture, _) = many_flows(3000);
    encode(folder, &capture.pcap(), &["--flows", "600", "--bytes"])
}

#[test]
fn csv_has_its_header() {
    let folder = Folder::new();
    let flowsets = encode(&folder, &many_flows(10).0.pcap(), &[]);
    let ran = flowradar(["decode", &flowsets, "--format", "csv"]).expect(0);
    assert_eq!(ran.stdout.lines().next(), Some(CSV_HEADER));
    let out = folder.path("rows.csv");
    let by_name = flowradar(["decode", &flowsets, "--out", &out]).expect(0);
    assert_eq!(by_name.stdout, "");
    assert_eq!(
        fs::read_to_string(&out).expect("it was written"),
        ran.stdout
    );
}

#[test]
fn the_table_shows_every_flow() {
    let folder = Folder::new();
    let (capture, counts) = many_flows(100);
    let flowsets = encode(&folder, &capture.pcap(), &[]);
    let ran = flowradar(["decode", &flowsets]).expect(0);
    let rows: Vec<Vec<&str>> = ran
        .stdout
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let header: Vec<&str> = CSV_HEADER.split(',').collect();
    assert_eq!(rows[0], header);
    let cells = |row: String| -> Vec<String> {
        let filled = row.split(',').filter(|cell| !cell.is_empty());
        filled.map(String::from).collect()
    };
    let expected: Vec<Vec<String>> = expected_rows(0, "switch-1", &counts, false)
        .into_iter()
        .map(cells)
        .collect();
    assert_eq!(rows[1..], expected);
}

#[test]
fn json_lines_are_json_and_so_is_the_summary() {
    let folder = Folder::new();
    let (capture, counts) = many_flows(300);
    let flowsets = encode(&folder, &capture.pcap(), &["--bytes"]);
    let ran = flowradar(["decode", &flowsets, "--json"]).expect(0);
    let rows: Vec<Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect();
    assert_eq!(rows.len(), counts.len());
    for (row, (flow, (packets, bytes))) in rows.iter().zip(&counts) {
        let expected = serde_json::json!({
            "epoch": 0,
            "switch": "switch-1",
            "src": flow.src,
            "dst": flow.dst,
            "src_port": flow.src_port,
            "dst_port": flow.dst_port,
            "protocol": flow.protocol,
            "packets": packets,
            "bytes": bytes,
            "status": "exact",
        });
        assert_eq!(*row, expected);
    }
    let summary: Value = serde_json::from_str(&ran.stderr).expect("one line of JSON");
    assert_eq!(summary["complete"], true);
    assert_eq!(summary["flows"], counts.len());

    let out = folder.path("rows.jsonl");
    let summary = flowradar(["decode", &flowsets, "--json", "--out", &out])
        .expect(0)
        .json();
    assert_eq!(summary["exact"], counts.len());
    assert_eq!(
        fs::read_to_string(&out).expect("it was written"),
        ran.stdout
    );
}

#[test]
fn parquet_reads_back() {
    let folder = Folder::new();
    let (capture, counts) = many_flows(300);
    for (options, with_bytes) in [(&["--bytes"][..], true), (&["--overwrite"], false)] {
        let flowsets = encode(&folder, &capture.pcap(), options);
        let out = folder.path("rows.parquet");
        flowradar(["decode", &flowsets, "--out", &out]).expect(0);
        let file = File::open(&out).expect("it was written");
        let reader = SerializedFileReader::new(file).expect("it is Parquet");
        let schema = reader.metadata().file_metadata().schema_descr_ptr();
        let names: Vec<&str> = schema
            .columns()
            .iter()
            .map(|column| column.name())
            .collect();
        assert_eq!(names[..10].join(","), CSV_HEADER);
        assert_eq!(
            schema.column(7).logical_type_ref(),
            Some(&LogicalType::integer(64, false))
        );
        let mut rows = vec![];
        for row in reader.get_row_iter(None).expect("rows can be read") {
            let row = row.expect("each row can be read");
            let columns: Vec<Field> = row
                .get_column_iter()
                .map(|(_, field)| field.clone())
                .collect();
            assert_eq!(
                columns[10..],
                [Field::Null, Field::Null, Field::Null, Field::Null]
            );
            let text = |field: &Field| match field {
                Field::Null => String::new(),
                Field::Str(text) => text.clone(),
                number => number.to_string(),
            };
            let cells: Vec<String> = columns[..10].iter().map(text).collect();
            rows.push(cells.join(","));
        }
        assert_eq!(rows, expected_rows(0, "switch-1", &counts, with_bytes));
    }
}

#[test]
fn parquet_needs_a_file() {
    let folder = Folder::new();
    let flowsets = encode(&folder, &many_flows(10).0.pcap(), &[]);
    flowradar(["decode", &flowsets, "--format", "parquet"]).expect(2);
}

#[test]
fn what_cannot_be_decoded_is_marked_and_told() {
    let folder = Folder::new();
    let flowsets = overloaded(&folder);
    let (_, counts) = many_flows(3000);
    let ran = flowradar(["decode", &flowsets, "--json"]).expect(3);
    let summary: Value = serde_json::from_str(&ran.stderr).expect("one line of JSON");
    assert_eq!(summary["complete"], false);
    let number = |name: &str| summary[name].as_u64().expect("a number");
    assert!(number("flows_not_found") > 0, "{summary:#}");
    // Found or told, all but the few that the filter took for known ones: it is overloaded too.
    let infos = flowradar(["info", &flowsets, "--json"]).expect(0).json();
    let new_flows = |info: &Value| info["totals"]["new_flows"].as_u64().expect("a number");
    let recorded: u64 = infos
        .as_array()
        .expect("an array")
        .iter()
        .map(new_flows)
        .sum();
    assert_eq!(number("flows") + number("flows_not_found"), recorded);
    assert!(recorded <= counts.len() as u64);
    assert_eq!(number("exact") + number("unresolved"), number("flows"));

    // Nothing that is reported is wrong.
    for line in ran.stdout.lines() {
        let row: Value = serde_json::from_str(line).expect("each line is JSON");
        let field = |name: &str| {
            row[name]
                .as_str()
                .expect("text")
                .parse()
                .expect("an address")
        };
        let small = |name: &str| row[name].as_u64().expect("a number") as u16;
        let flow = Flow {
            src: field("src"),
            dst: field("dst"),
            src_port: small("src_port"),
            dst_port: small("dst_port"),
            protocol: small("protocol") as u8,
        };
        let &(packets, bytes) = counts.get(&flow).expect("no flow is invented");
        if row["status"] == "exact" {
            assert_eq!(
                (row["packets"].as_u64(), row["bytes"].as_u64()),
                (Some(packets), Some(bytes))
            );
            assert!(row["packets_bounds"].is_null() && row["bytes_bounds"].is_null());
            continue;
        }
        assert_eq!(row["status"], "unresolved");
        for (name, truth) in [("packets_bounds", packets), ("bytes_bounds", bytes)] {
            if let Some(bounds) = row[name].as_object() {
                assert!(bounds["least"].as_u64() <= Some(truth), "{row}");
                assert!(
                    bounds["most"].as_u64().is_none_or(|most| truth <= most),
                    "{row}"
                );
            }
        }
    }

    let text = flowradar(["decode", &flowsets]).expect(3);
    assert!(text.stderr.contains("not found"), "{}", text.stderr);
    assert!(text.stderr.contains("--flows"), "{}", text.stderr);
}

#[test]
fn a_damaged_flowset_does_not_stop_the_others() {
    let folder = Folder::new();
    let (capture, counts) = many_flows(100);
    let flowsets = encode(&folder, &capture.pcap(), &[]);
    let path = format!("{flowsets}/switch-1-0-v4.flowset");
    let mut bytes = fs::read(&path).expect("it was written");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).expect("it can be written");

    let ran = flowradar(["decode", &flowsets, "--format", "csv"]).expect(3);
    assert!(
        ran.stderr.contains("switch-1-0-v4.flowset: at byte "),
        "{}",
        ran.stderr
    );
    let v6: Vec<String> = expected_rows(0, "switch-1", &counts, false)
        .into_iter()
        .filter(|row| row.contains("2001:db8"))
        .collect();
    assert_eq!(ran.csv_rows(), v6);
    flowradar(["info", &flowsets]).expect(3);

    // Nothing left to decode: an error, not a partial result; and no file of rows.
    let out = folder.path("rows.csv");
    flowradar(["decode", &path, "--out", &out]).expect(1);
    assert!(!fs::exists(&out).expect("the folder can be read"));
    for cut in [0, 5, 100, 200, bytes.len() - 1] {
        let cut = folder.write("cut.flowset", &bytes[..cut]);
        flowradar(["decode", &cut]).expect(1);
    }
}

#[test]
fn two_reports_of_the_same_are_told() {
    let folder = Folder::new();
    let flowsets = encode(&folder, &many_flows(10).0.pcap(), &[]);
    let path = format!("{flowsets}/switch-1-0-v4.flowset");
    // The same file twice is one file.
    flowradar(["decode", &path, &path, &flowsets]).expect(0);
    fs::copy(&path, format!("{flowsets}/copy.flowset")).expect("it can be copied");
    let ran = flowradar(["decode", &flowsets]).expect(3);
    assert!(ran.stderr.contains("same switch, epoch"), "{}", ran.stderr);
}

#[test]
fn missing_files_are_errors() {
    let folder = Folder::new();
    flowradar(["decode", &folder.path("nothing")]).expect(1);
    fs::create_dir(folder.path("empty")).expect("it can be made");
    let ran = flowradar(["decode", &folder.path("empty")]).expect(1);
    assert!(ran.stderr.contains("holds no flowset"), "{}", ran.stderr);
    flowradar(["decode"]).expect(2);
    let flowsets = encode(&folder, &many_flows(10).0.pcap(), &[]);
    flowradar(["decode", &flowsets, "--out", "/no/such/folder/rows.csv"]).expect(1);
}

#[test]
fn a_reader_that_leaves_is_no_panic() {
    let folder = Folder::new();
    // More than a pipe holds.
    let flowsets = encode(&folder, &many_flows(20_000).0.pcap(), &[]);
    let mut child = command()
        .args(["decode", &flowsets])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut stdout = child.stdout.take().expect("standard output is piped");
    stdout.read_exact(&mut [0; 100]).expect("rows come");
    drop(stdout);
    let output = child.wait_with_output().expect("the command ends");
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn info_tells_what_a_flowset_is() {
    let folder = Folder::new();
    let (capture, counts) = many_flows(300);
    let options = [
        "--switch", "leaf-1", "--bytes", "--hashes", "4", "--seed", "9",
    ];
    let flowsets = encode(&folder, &capture.pcap(), &options);
    let infos = flowradar(["info", &flowsets, "--json"]).expect(0).json();
    let flows: u64 = infos
        .as_array()
        .expect("an array")
        .iter()
        .map(|info| info["totals"]["new_flows"].as_u64().expect("a number"))
        .sum();
    assert_eq!(flows, counts.len() as u64);
    let v4 = &infos[0];
    assert_eq!(v4["switch"], "leaf-1");
    assert_eq!(v4["keys"], "IPv4");
    assert_eq!(v4["seed"], 9);
    assert_eq!(v4["table"]["subtables"], 4);
    let cells = |name: &str| v4["table"][name].as_u64().expect("a number");
    assert_eq!(
        cells("empty_cells") + cells("pure_cells") + cells("cells_of_more_flows"),
        cells("cells")
    );
    // Each flow sets at most as many bits as there are hashes.
    let filter = |name: &str| v4["filter"][name].as_u64().expect("a number");
    let v4_flows = v4["totals"]["new_flows"].as_u64().expect("a number");
    assert!((1..=v4_flows * filter("hashes")).contains(&filter("bits_set")));

    let text = flowradar(["info", &flowsets]).expect(0).stdout;
    for word in [
        "leaf-1",
        "IPv4",
        "IPv6",
        "4 subtables",
        "ByteCount 48",
        "seed 9",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
}
