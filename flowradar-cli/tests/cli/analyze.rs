//! `analyze`: what simulated and encoded flowsets say.

use std::fs;

use serde_json::Value;

use crate::support::{Folder, flowradar};

fn simulate(folder: &Folder, options: &[&str]) -> String {
    let net = folder.path("net");
    let arguments = [
        "simulate",
        "fat-tree",
        "--k",
        "4",
        "--flows-per-switch",
        "150",
        "--bytes",
    ];
    flowradar(arguments.iter().chain(options).chain(&["--out", &net])).expect(0);
    net
}

fn kinds(report: &Value) -> Vec<String> {
    let events = report["events"]
        .as_array()
        .expect("a list of events")
        .iter();
    events
        .map(|event| event["kind"].as_str().expect("a kind").to_owned())
        .collect()
}

#[test]
fn a_network_without_faults_has_no_events() {
    let folder = Folder::new();
    let net = simulate(&folder, &["--epochs", "3"]);
    let ran = flowradar(["analyze", &net, "--json"]).expect(0);
    let report = ran.json();
    assert_eq!(kinds(&report), [""; 0]);
    assert_eq!(report["epochs"], 3);
    assert_eq!(report["network_known"], true);
    assert_eq!(report["losses"]["packets_lost"], 0);
    assert_eq!(report["losses"]["undecided"], 0);
    // As many packets as hosts sent: each is counted at five switches.
    let truth = fs::read_to_string(folder.path("net/truth.csv")).expect("it was written");
    let column = |row: &str, column: usize| -> u64 {
        row.split(',')
            .nth(column)
            .expect("a cell")
            .parse()
            .expect("a number")
    };
    let (packets, bytes) = truth.lines().skip(1).fold((0, 0), |(packets, bytes), row| {
        (packets + column(row, 7), bytes + column(row, 8))
    });
    assert_eq!(report["traffic"]["total"]["packets"], packets / 5);
    assert_eq!(report["traffic"]["total"]["bytes"], bytes / 5);
}

#[test]
fn faults_become_events_in_every_form() {
    let folder = Folder::new();
    let options = ["--epochs", "5", "--planted", "3", "--lossy-flows", "1%"];
    let net = simulate(&folder, &options);
    let (html, series) = (folder.path("report.html"), folder.path("series.jsonl"));
    let arguments = [
        "analyze", &net, "--json", "--html", &html, "--series", &series,
    ];
    let report = flowradar(arguments).expect(0).json();
    let kinds = kinds(&report);
    for kind in ["blackhole", "link_loss"] {
        assert!(kinds.iter().any(|found| found == kind), "{kinds:?}");
    }
    let text = flowradar(["analyze", &net]).expect(0).stdout;
    assert!(text.contains("flows end"), "{text}");
    let page = fs::read_to_string(&html).expect("it was written");
    assert!(page.contains("flows end"), "the page tells the events");
    for outside in ["<script", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    let lines = fs::read_to_string(&series).expect("it was written");
    let epochs: Vec<u64> = lines
        .lines()
        .map(|line| {
            let findings: Value = serde_json::from_str(line).expect("a line is JSON");
            findings["epoch"].as_u64().expect("a number")
        })
        .collect();
    assert_eq!(epochs, [0, 1, 2, 3, 4]);
}

#[test]
fn intended_forwarding_is_taken_from_a_file() {
    let folder = Folder::new();
    let net = simulate(&folder, &["--epochs", "3"]);
    let intended = folder.path("intended.toml");
    // All that edge-0-0 does is said to be wrong but the half of it.
    fs::write(
        &intended,
        "version = 1\n[[switch]]\nname = \"edge-0-0\"\ndefault = \"unknown\"\n\
         [[switch.route]]\ndst = \"10.0.0.0/8\"\nnext = [\"agg-0-0\"]\n",
    )
    .expect("can be written");
    let report = flowradar(["analyze", &net, "--intended", &intended, "--json"])
        .expect(0)
        .json();
    let events = report["events"].as_array().expect("a list");
    let wrong: Vec<_> = events
        .iter()
        .filter(|event| event["kind"] == "wrong_forwarding")
        .map(|event| (event["at"].as_str(), event["to"].as_str()))
        .collect();
    assert_eq!(wrong, [(Some("edge-0-0"), Some("agg-0-1"))]);
}

#[test]
fn wrong_usage_says_what_to_do() {
    let folder = Folder::new();
    let net = simulate(&folder, &[]);
    fs::remove_file(folder.path("net/topology.json")).expect("it is there");
    let intended = folder.path("intended.toml");
    fs::write(&intended, "version = 1\n").expect("can be written");
    let ran = flowradar(["analyze", &net, "--intended", &intended]).expect(2);
    assert!(ran.stderr.contains("--topology"), "{}", ran.stderr);
    let ran = flowradar(["analyze", &net, "--topology", &intended]).expect(1);
    assert!(
        ran.stderr.contains("intended.toml: network: "),
        "{}",
        ran.stderr
    );
    // Without a network there are traffic and attacks.
    let text = flowradar(["analyze", &net]).expect(0).stdout;
    assert!(text.contains("The network is not known"), "{text}");
}
