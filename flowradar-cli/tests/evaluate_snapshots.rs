//! The evaluation's tables, as snapshots: a change in decode rate, memory or losses found shows up
//! as a diff. Tables of times are left out.
//!
//! To accept a change: `INSTA_UPDATE=always cargo test -p flowradar-cli --test evaluate_snapshots`,
//! then look at the diff.

use std::fs;
use std::process::Command;

#[test]
fn the_quick_evaluation_gives_the_committed_tables() {
    let folder = tempfile::TempDir::new().expect("a temporary folder can be made");
    let out = folder.path().join("evaluation");
    let ran = Command::new(env!("CARGO_BIN_EXE_flowradar"))
        .args(["evaluate", "--quick", "--json", "--seed", "1", "--out"])
        .arg(&out)
        .output()
        .expect("the binary runs");
    assert!(ran.status.success(), "{ran:#?}");
    let report: serde_json::Value =
        serde_json::from_slice(&ran.stdout).expect("--json prints JSON");
    let tables = report["tables"].as_array().expect("a list of tables");
    let mut compared = 0;
    for table in tables {
        let name = table["name"].as_str().expect("tables have names");
        let csv = fs::read_to_string(out.join(format!("{name}.csv"))).expect("tables are written");
        let rows = table["rows"].as_array().expect("tables have rows");
        assert_eq!(csv.lines().count(), rows.len() + 1, "{name}");
        if table["timed"] == false {
            insta::assert_snapshot!(name, csv);
            compared += 1;
        }
    }
    assert_eq!(
        compared, 10,
        "every table but those of times has a snapshot"
    );

    let page = fs::read_to_string(out.join("report.html")).expect("the page is written");
    for figure in [
        "memory",
        "decode_success",
        "network_3_hashes",
        "bandwidth",
        "loss",
        "loss_delay",
    ] {
        let svg = fs::read_to_string(out.join(format!("{figure}.svg"))).expect("drawn");
        assert!(page.contains(&svg), "{figure} is in the page");
        let png = fs::read(out.join(format!("{figure}.png"))).expect("drawn");
        assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"), "{figure}");
    }
    // The page needs nothing but itself.
    for outside in ["<script", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
}

/// Nothing decoded may be wrong, whatever the snapshots say.
#[test]
fn no_network_of_the_evaluation_is_decoded_wrongly() {
    let folder = tempfile::TempDir::new().expect("a temporary folder can be made");
    let ran = Command::new(env!("CARGO_BIN_EXE_flowradar"))
        .args([
            "evaluate", "network", "--quick", "--json", "--seed", "2", "--out",
        ])
        .arg(folder.path())
        .output()
        .expect("the binary runs");
    assert!(ran.status.success(), "{ran:#?}");
    let report: serde_json::Value =
        serde_json::from_slice(&ran.stdout).expect("--json prints JSON");
    let tables = report["tables"].as_array().expect("a list of tables");
    let network = tables.iter().find(|table| table["name"] == "network");
    let rows = network.expect("the network's table")["rows"]
        .as_array()
        .expect("rows");
    assert_eq!(rows.len(), 20);
    let sum = |column: &str| -> u64 {
        rows.iter()
            .map(|row| row[column].as_u64().expect("a count"))
            .sum()
    };
    assert_eq!((sum("net_wrong_exact"), sum("net_invented")), (0, 0));
    assert!(
        sum("net_wrong_joint") * 10_000 <= sum("net_joint"),
        "{rows:#?}"
    );
}
