//! `flowradar dispatch`: the paper's experiment as snapshots, and pcap files that hold every packet
//! once.
//!
//! To accept a change of the tables: `INSTA_UPDATE=always cargo test -p flowradar-cli --test
//! dispatch`, then look at the diff.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use flowradar_cli::trace::{InputFormat, TraceKey, TraceReader};
use flowradar_core::FlowKey;
use serde_json::Value;

fn flowradar(arguments: &[&str], paths: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_flowradar"))
        .arg("dispatch")
        .args(arguments)
        .args(paths)
        .output()
        .expect("the binary runs")
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{output:#?}");
    serde_json::from_slice(&output.stdout).expect("--json prints JSON")
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

/// A folder of real traces; none if it is absent, which is said.
fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/data")
        .join(name);
    if path.exists() {
        return Some(path);
    }
    let _ = writeln!(std::io::stderr(), "SKIPPED: {} is absent", path.display());
    None
}

/// Imbalance in packets by scenario and policy.
fn imbalances(report: &Value) -> HashMap<(String, String), f64> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rows = report["tables"][1]["rows"].as_array().expect("rows");
    rows.iter()
        .map(|row| {
            assert_eq!(row["affinity_breaks"], 0, "{row}");
            let key = (text(&row["scenario"]), text(&row["policy"]));
            (key, row["packet_imbalance"].as_f64().expect("a number"))
        })
        .collect()
}

#[test]
fn both_halves_of_the_claim_and_the_elephant() {
    let folder = folder();
    let out = folder.path().join("out");
    let ran = flowradar(
        &[
            "simulate",
            "--workload",
            "web",
            "--workload",
            "bulk",
            "--workload",
            "mixed",
            "--workload",
            "elephant",
            "--json",
            "--out",
        ],
        &[&out],
    );
    let report = json(&ran);
    for table in ["scenarios", "policies"] {
        let csv = fs::read_to_string(out.join(format!("{table}.csv"))).expect("tables are written");
        insta::assert_snapshot!(table, csv);
    }
    let imbalance = imbalances(&report);
    let of = |scenario: &str, policy: &str| imbalance[&(scenario.to_owned(), policy.to_owned())];
    // Short flows of small variance: round robin is enough.
    assert!(of("web", "FB_RR") < of("web", "FB_EST") + 0.05);
    assert!(of("web", "FB_RR") < 1.15);
    // Long flows of large variance: the estimate wins.
    assert!(of("bulk", "FB_EST") < of("bulk", "FB_RR") - 0.05);
    // An elephant: nobody comes below the bound, and the bound is far from even.
    let scenarios = report["tables"][0]["rows"].as_array().expect("rows");
    for row in scenarios {
        let bound = row["imbalance_bound"].as_f64().expect("a number");
        let name = row["scenario"].as_str().expect("a name");
        for ((scenario, policy), imbalance) in &imbalance {
            assert!(
                scenario != name || *imbalance >= bound - 1e-3,
                "{scenario} {policy}"
            );
        }
        assert!(name != "elephant" || bound > 1.3, "{row}");
    }
    let page = fs::read_to_string(out.join("report.html")).expect("the page is written");
    for scenario in ["web", "bulk", "mixed", "elephant"] {
        for figure in ["loads", "imbalance"] {
            let stem = out.join(scenario).join(figure);
            let svg = fs::read_to_string(stem.with_extension("svg")).expect("drawn");
            assert!(page.contains(&svg), "{scenario} {figure} is in the page");
            let png = fs::read(stem.with_extension("png")).expect("drawn");
            assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"), "{scenario} {figure}");
            let csv = fs::read_to_string(stem.with_extension("csv")).expect("written");
            assert!(csv.lines().count() > 60, "{scenario} {figure}");
        }
    }
    for outside in ["<script", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
}

/// On the real captures that there are: what holds for all of them.
#[test]
fn real_traces_stay_above_the_bound_and_keep_flows_together() {
    let Some(traces) = shared("3_tcp") else {
        return;
    };
    let folder = folder();
    let out = folder.path().join("out");
    let names = [
        "WebattackXSS.pcap",
        "sv_ftp_data.pcap",
        "netflix.pcap",
        "reddit.pcap",
    ];
    let traces: Vec<PathBuf> = names.iter().map(|name| traces.join(name)).collect();
    let mut paths: Vec<&Path> = vec![&out];
    paths.extend(traces.iter().map(PathBuf::as_path));
    let report = json(&flowradar(&["simulate", "--json", "--out"], &paths));
    let imbalance = imbalances(&report);
    assert_eq!(imbalance.len(), names.len() * 6);
    for row in report["tables"][0]["rows"].as_array().expect("rows") {
        let bound = row["imbalance_bound"].as_f64().expect("a number");
        for ((scenario, policy), imbalance) in &imbalance {
            let same = row["scenario"] == scenario.as_str();
            assert!(!same || *imbalance >= bound - 1e-3, "{scenario} {policy}");
        }
    }
}

/// Packets of a pcap file by flow without direction, with their times.
fn packets(path: &Path) -> Vec<(String, u64, Option<u32>)> {
    let mut reader = TraceReader::open(path, InputFormat::Auto).expect("a capture file");
    let packets = (&mut reader).map(|packet| {
        let packet = packet.expect("whole");
        let name = |ends: [(std::net::IpAddr, u16); 2], protocol: u8| {
            let mut ends = ends;
            ends.sort();
            format!("{ends:?} {protocol}")
        };
        let flow = match packet.key {
            TraceKey::V4(key) => name(
                [(key.src(), key.src_port()), (key.dst(), key.dst_port())],
                key.protocol(),
            ),
            TraceKey::V6(key) => name(
                [(key.src(), key.src_port()), (key.dst(), key.dst_port())],
                key.protocol(),
            ),
        };
        (flow, packet.timestamp_ns.unwrap_or(0), packet.ip_bytes)
    });
    packets.collect()
}

/// A pcap file of UDP packets both ways, some of flows that come back again and again, and a frame
/// that is not IP.
fn write_trace(path: &Path, count: u32) {
    let mut bytes = vec![];
    for word in [0xa1b2_c3d4_u32, 4 << 16 | 2, 0, 0, 65_535, 1] {
        bytes.extend(word.to_le_bytes());
    }
    for number in 0..count {
        let mut frame = vec![0; 60];
        let flow = (number * number) % 97;
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        frame[14] = 0x45;
        frame[16..18].copy_from_slice(&46_u16.to_be_bytes());
        frame[23] = 17;
        let client = [10, 0, 0, flow as u8, 0x90, flow as u8];
        let server = [192, 0, 2, 1, 0, 53];
        let (from, to) = if number % 2 == 0 {
            (client, server)
        } else {
            (server, client)
        };
        frame[26..30].copy_from_slice(&from[..4]);
        frame[30..34].copy_from_slice(&to[..4]);
        frame[34..36].copy_from_slice(&from[4..]);
        frame[36..38].copy_from_slice(&to[4..]);
        if number == 5 {
            frame[12..14].copy_from_slice(&[0x08, 0x06]);
        }
        for word in [1_700_000_000 + number / 100, number % 100 * 10_000, 60, 60] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(frame);
    }
    fs::write(path, bytes).expect("it can be written");
}

#[test]
fn every_packet_is_in_one_file_and_every_flow_in_one() {
    let folder = folder();
    let trace = folder.path().join("trace.pcap");
    write_trace(&trace, 3000);
    let mut traces = vec![trace];
    if let Some(real) = shared("3_tcp") {
        traces.push(real.join("reddit.pcap"));
        traces.push(real.join("http_espn.pcapng"));
    }
    for (index, trace) in traces.iter().enumerate() {
        let before = packets(trace);
        for policy in [
            "estimated",
            "round-robin",
            "least-loaded",
            "consistent-hash",
        ] {
            let out = folder.path().join(format!("{index}-{policy}"));
            let ran = flowradar(
                &[
                    "run",
                    "--servers",
                    "3",
                    "--policy",
                    policy,
                    "--json",
                    "--out",
                ],
                &[&out, trace],
            );
            let report = json(&ran);
            assert_eq!(report["affinity_breaks"], 0);
            let mut after = vec![];
            let mut homes: HashMap<String, usize> = HashMap::new();
            for server in 1..=3 {
                let part = packets(&out.join(format!("server-{server}.pcap")));
                assert!(part.is_sorted_by_key(|packet| packet.1) || index > 0);
                for packet in &part {
                    let home = *homes.entry(packet.0.clone()).or_insert(server);
                    // Connections that follow each other between the same ports may be apart.
                    assert!(home == server || index > 0, "{} is torn apart", packet.0);
                }
                after.extend(part);
            }
            let mut before = before.clone();
            before.sort();
            after.sort();
            assert!(before == after, "{}: {policy}", trace.display());
            let frames: u64 = report["back_ends"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|back_end| back_end["frames"].as_u64().expect("a count"))
                .sum();
            assert_eq!(report["totals"]["frames"], frames);
            for file in ["loads.csv", "loads.svg", "loads.png"] {
                assert!(out.join(file).exists(), "{file}");
            }
        }
    }
}

#[test]
fn wrong_usage_is_refused_with_a_hint() {
    let folder = folder();
    let trace = folder.path().join("trace.pcap");
    write_trace(&trace, 10);
    let trace = trace.to_str().expect("a plain path");
    let out = folder.path().join("out");
    let out = out.to_str().expect("a plain path");
    for (arguments, hint) in [
        (vec!["run", trace], "--servers 3 --out DIR"),
        (vec!["run", trace, "--to", "a=b"], "NAME=pcap:FILE"),
        (
            vec![
                "run",
                trace,
                "--servers",
                "2",
                "--out",
                out,
                "--policy",
                "fixed-ip",
            ],
            "--fixed 10.0.0.0/9=1",
        ),
        (
            vec![
                "run",
                trace,
                "--servers",
                "2",
                "--out",
                out,
                "--policy",
                "fixed-ip",
                "--fixed",
                "10.0.0.0/8=3",
            ],
            "numbered from 1 to 2",
        ),
        (vec!["simulate", "--out", out], "--workload web"),
        (
            vec!["simulate", trace, "--out", out, "--format", "tuple13"],
            "--timestamps",
        ),
    ] {
        let ran = flowradar(&arguments, &[]);
        let words = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(2), "{arguments:?}: {words}");
        assert!(words.contains(hint), "{arguments:?}: {words}");
    }
    let twice = ["run", trace, "--servers", "2", "--out", out];
    assert!(flowradar(&twice, &[]).status.success());
    let again = flowradar(&twice, &[]);
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("--overwrite"));
}

/// A trace that is cut off: what there is is dispatched, and the exit code says that it is not all.
#[test]
fn a_name_mistyped_leaves_nothing_behind() {
    let folder = folder();
    let out = folder.path().join("parts");
    let absent = folder.path().join("absent.pcap");
    let out_text = out.to_str().expect("text");
    let output = flowradar(&["run", "--servers", "2", "--out", out_text], &[&absent]);
    assert_eq!(output.status.code(), Some(1), "{output:#?}");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("absent.pcap"), "{message}");
    assert!(!out.exists());
}

#[test]
fn a_damaged_trace_is_a_partial_result() {
    let folder = folder();
    let trace = folder.path().join("trace.pcap");
    write_trace(&trace, 100);
    let whole = fs::read(&trace).expect("it was written");
    fs::write(&trace, &whole[..whole.len() - 10]).expect("it can be written");
    let out = folder.path().join("out");
    let ran = flowradar(
        &["run", "--servers", "2", "--json", "--out"],
        &[&out, &trace],
    );
    assert_eq!(ran.status.code(), Some(3), "{ran:#?}");
    let report: Value = serde_json::from_slice(&ran.stdout).expect("JSON all the same");
    assert_eq!(report["totals"]["frames"], 99);
    assert_eq!(report["totals"]["not_ip"], 1);
}
