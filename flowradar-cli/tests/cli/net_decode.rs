//! `net-decode`: a simulated network short of memory, against its truth.

use std::collections::HashMap;
use std::fs;

use serde_json::Value;

use crate::support::{Folder, encode, expected_rows, flowradar, many_flows};

/// Simulates a k = 4 fat tree; returns the folder's path.
fn simulate(folder: &Folder, options: &[&str]) -> String {
    let net = folder.path("net");
    let arguments = [
        "simulate",
        "fat-tree",
        "--k",
        "4",
        "--flows-per-switch",
        "800",
    ];
    flowradar(arguments.iter().chain(options).chain(&["--out", &net])).expect(0);
    net
}

/// Packets by everything that names a row.
fn truth(folder: &Folder) -> HashMap<String, u64> {
    let text = fs::read_to_string(folder.path("net/truth.csv")).expect("it was written");
    text.lines()
        .skip(1)
        .map(|row| {
            let cells: Vec<&str> = row.split(',').collect();
            (cells[..7].join(","), cells[7].parse().expect("a number"))
        })
        .collect()
}

#[test]
fn switches_together_find_what_none_can_alone() {
    let folder = Folder::new();
    let net = simulate(&folder, &["--cells-per-flow", "0.75", "--epochs", "2"]);
    flowradar(["decode", &net, "--format", "csv"]).expect(3);
    let ran = flowradar(["net-decode", &net, "--format", "csv", "--json"]).expect(0);
    let truth = truth(&folder);
    let rows = ran.csv_rows();
    assert_eq!(rows.len(), truth.len());
    for row in &rows {
        let cells: Vec<&str> = row.split(',').collect();
        let packets: u64 = cells[7].parse().expect("a number");
        assert_eq!(truth.get(&cells[..7].join(",")), Some(&packets), "{row}");
        assert!(["exact", "joint"].contains(&cells[9]), "{row}");
    }
    let in_order = |row: &&String| {
        let mut cells = row.split(',').map(String::from);
        let epoch: u64 = cells.next().expect("an epoch").parse().expect("a number");
        (epoch, cells.next())
    };
    assert!(rows.iter().collect::<Vec<_>>().is_sorted_by_key(in_order));

    let summary: Value = serde_json::from_str(&ran.stderr).expect("one line of JSON");
    assert_eq!(summary["complete"], true);
    assert_eq!(summary["counters"], truth.len());
    assert_eq!(summary["epochs"], 2);
    let number = |name: &str| summary[name].as_u64().expect("a number");
    assert_eq!(number("exact") + number("joint"), truth.len() as u64);
    assert!(number("joint") > 0, "{summary:#}");
}

#[test]
fn too_little_memory_is_marked_and_told() {
    let folder = Folder::new();
    let net = simulate(&folder, &["--cells-per-flow", "0.4", "--lossy-flows", "5%"]);
    let ran = flowradar(["net-decode", &net, "--format", "json"]).expect(3);
    assert!(ran.stderr.contains("not found"), "{}", ran.stderr);
    let truth = truth(&folder);
    for line in ran.stdout.lines() {
        let row: Value = serde_json::from_str(line).expect("each line is JSON");
        let cell = |name: &str| row[name].to_string().trim_matches('"').to_owned();
        let names = [
            "epoch", "switch", "src", "dst", "src_port", "dst_port", "protocol",
        ];
        let packets = *truth
            .get(&names.map(cell).join(","))
            .expect("no flow is invented");
        match row["status"].as_str() {
            Some("exact") => assert_eq!(row["packets"], packets, "{row}"),
            Some("joint") => {}
            Some("unresolved") => {
                let bounds = &row["packets_bounds"];
                assert!(bounds["least"].as_u64() <= Some(packets), "{row}");
                assert!(
                    bounds["most"].as_u64().is_none_or(|most| packets <= most),
                    "{row}"
                );
            }
            other => panic!("status {other:?}"),
        }
    }
}

#[test]
fn a_capture_of_one_switch_is_a_network_too() {
    let folder = Folder::new();
    let (capture, counts) = many_flows(500);
    let flowsets = encode(&folder, &capture.pcap(), &["--bytes"]);
    let ran = flowradar(["net-decode", &flowsets, "--format", "csv"]).expect(0);
    // IPv4 before IPv6, as in a decode.
    assert_eq!(ran.csv_rows(), expected_rows(0, "switch-1", &counts, true));
}

#[test]
fn a_damaged_report_is_told() {
    let folder = Folder::new();
    let net = simulate(&folder, &["--cells-per-flow", "2"]);
    let path = folder.path("net/core-0-0-v4.flowset");
    let bytes = fs::read(&path).unwrap_or_else(|_| panic!("{:?}", folder.names("net")));
    fs::write(&path, &bytes[..bytes.len() - 1]).expect("it can be written");
    let ran = flowradar(["net-decode", &net, "--format", "csv"]).expect(3);
    assert!(
        ran.stderr.contains("core-0-0-v4.flowset: at byte"),
        "{}",
        ran.stderr
    );
    assert_eq!(ran.csv_rows().len(), 19 * 800);
    flowradar(["net-decode", &path]).expect(1);
}
