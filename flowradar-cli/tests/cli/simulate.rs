//! `simulate`: what it writes decodes to what it says.

use std::fs;

use crate::support::{CSV_HEADER, Folder, flowradar};

#[test]
fn the_truth_is_what_a_complete_decode_prints() {
    for options in [
        &["--epochs", "3", "--lossy-flows", "10%", "--bytes"][..],
        &[
            "--loss",
            "0.01",
            "--in-flight",
            "0.2",
            "--clock-skew",
            "0.1",
        ],
        &[
            "--traffic",
            "uniform",
            "--family",
            "mix64",
            "--planted",
            "5",
            "--keys",
            "sequential-ports",
        ],
    ] {
        let folder = Folder::new();
        let net = folder.path("net");
        let arguments = [
            "simulate",
            "fat-tree",
            "--k",
            "4",
            "--flows-per-switch",
            "300",
            "--cells-per-flow",
            "3",
            "--out",
            &net,
        ];
        flowradar(arguments.iter().chain(options)).expect(0);
        let decoded = flowradar(["decode", &net, "--format", "csv"]).expect(0);
        let truth = fs::read_to_string(folder.path("net/truth.csv")).expect("it was written");
        // Not assert_eq: on failure thousands of lines would be printed.
        assert!(decoded.stdout == truth, "{options:?}");
        assert!(truth.lines().count() > 20 * 200, "{options:?}");
        assert_eq!(truth.lines().next(), Some(CSV_HEADER));
    }
}

#[test]
fn a_topology_can_be_given_back() {
    let folder = Folder::new();
    let run = ["--flows-per-switch", "50", "--seed", "5", "--json", "--out"];
    let first = folder.path("first");
    let arguments = ["simulate", "fat-tree", "--k", "4", "--traffic", "uniform"];
    let summary = flowradar(arguments.iter().chain(&run).chain([&first.as_str()]))
        .expect(0)
        .json();
    assert_eq!(summary["switches"], 20);
    assert_eq!(summary["missing_reports"], 0);
    assert_eq!(folder.names("first").len(), 20 + 2);

    let file = folder.path("first/topology.json");
    let second = folder.path("second");
    let arguments = ["simulate", "topology", &file];
    flowradar(arguments.iter().chain(&run).chain([&second.as_str()])).expect(0);
    assert_eq!(folder.names("first"), folder.names("second"));
}

#[test]
fn missing_reports_are_missing() {
    let folder = Folder::new();
    let net = folder.path("net");
    let arguments = [
        "simulate",
        "fat-tree",
        "--k",
        "4",
        "--flows-per-switch",
        "20",
        "--silent",
        "0.5",
        "--json",
        "--out",
        &net,
    ];
    let summary = flowradar(arguments).expect(0).json();
    let missing = summary["missing_reports"].as_u64().expect("a number");
    assert!((1..20).contains(&missing), "{missing}");
    assert_eq!(folder.names("net").len() as u64, 20 - missing + 2);
}

#[test]
fn broken_networks_are_refused() {
    let folder = Folder::new();
    let net = folder.path("net");
    let wrong: [&[&str]; 6] = [
        &["fat-tree", "--k", "3"],
        &["fat-tree", "--k", "4", "--loss", "2"],
        &["fat-tree", "--k", "4", "--flows-per-switch", "0"],
        &["fat-tree", "--k", "4", "--epochs", "0"],
        &[
            "fat-tree",
            "--k",
            "4",
            "--traffic",
            "uniform",
            "--hashed-ecmp",
        ],
        &["fat-tree", "--k", "4", "--clock-skew", "0.9"],
    ];
    for options in wrong {
        let ran = flowradar(["simulate"].iter().chain(options).chain(&["--out", &net])).expect(2);
        assert!(!ran.stderr.is_empty(), "{options:?}");
    }
    let bad = folder.write("bad.json", b"{\"version\": 1, \"switches\": [");
    let ran = flowradar(["simulate", "topology", &bad, "--out", &net]).expect(1);
    assert!(ran.stderr.contains("bad.json"), "{}", ran.stderr);
}
