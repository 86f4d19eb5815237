//! `plan`: what it says fits what the other commands do.

use serde_json::Value;

use crate::support::{Folder, flowradar, many_flows};

fn plan(options: &[&str]) -> Value {
    flowradar(["plan", "--json"].iter().chain(options))
        .expect(0)
        .json()
}

fn number(plan: &Value, name: &str) -> u64 {
    plan[name]
        .as_u64()
        .unwrap_or_else(|| panic!("{name}: {plan:#}"))
}

#[test]
fn costs_are_those_of_the_layout() {
    let plan = plan(&["--flows", "100000", "--epoch", "10ms"]);
    let cells = number(&plan, "cells");
    assert_eq!(
        cells,
        number(&plan, "hashes") * number(&plan, "subtable_cells")
    );
    let bits = cells * number(&plan, "cell_bits") + number(&plan, "filter_bits");
    assert_eq!(number(&plan, "switch_memory_bits"), bits);
    // The paper's 2.36 MB with one false positive expected (NSDI 2016 §3.1), and no more.
    let paper = self::plan(&["--flows", "100000", "--false-positives", "1"]);
    assert!(
        number(&paper, "switch_memory_bytes") <= 2_360_000,
        "{paper:#}"
    );
    let export = plan["export_bits_per_second"].as_f64().expect("a number");
    let bytes = number(&plan, "flowset_bytes") as f64;
    assert!(
        (export / (bytes * 8.0 / 0.010) - 1.0).abs() < 1e-9,
        "{plan:#}"
    );
}

#[test]
fn memory_and_flows_are_inverse() {
    let by_memory = plan(&["--memory", "500kB", "--keys", "v6", "--bytes"]);
    let flows = number(&by_memory, "flows");
    assert!(number(&by_memory, "switch_memory_bytes") <= 500_000);
    let by_flows = plan(&["--flows", &flows.to_string(), "--keys", "v6", "--bytes"]);
    assert_eq!(
        number(&by_flows, "switch_memory_bits"),
        number(&by_memory, "switch_memory_bits")
    );
}

#[test]
fn a_network_needs_less_than_one_switch() {
    let single = plan(&["--flows", "50000"]);
    let network = plan(&["--flows", "50000", "--network"]);
    assert!(2 * number(&network, "cells") < 3 * number(&single, "cells"));
    let text = flowradar(["plan", "--flows", "50000", "--network"])
        .expect(0)
        .stdout;
    assert!(text.contains("net-decode"), "{text}");
}

#[test]
fn a_table_of_the_planned_memory_decodes() {
    let folder = Folder::new();
    let trace = folder.write("trace.pcap", &many_flows(3000).0.pcap());
    let memory = number(
        &plan(&["--flows", "3000", "--keys", "v4", "--filter", "blocked"]),
        "switch_memory_bytes",
    );
    let flowsets = folder.path("flowsets");
    let arguments = [
        "encode",
        &trace,
        "--out",
        &flowsets,
        "--memory",
        &(2 * memory).to_string(),
    ];
    flowradar(arguments).expect(0);
    flowradar(["decode", &flowsets, "--format", "csv"]).expect(0);
}

#[test]
fn impossible_plans_are_refused() {
    let wrong: [&[&str]; 10] = [
        &["--flows", "20", "--flows-max", "10"],
        &["--flows", "20", "--memory", "1MB"],
        &["--flows", "0"],
        &["--flows", "1000000000000"],
        &["--memory", "1B"],
        &["--failure", "0"],
        &["--failure", "1"],
        &["--epoch", "whole"],
        &["--network", "--cells-per-flow", "1"],
        &["--flows", "100", "--coupling", "coupled"],
    ];
    for options in wrong {
        let ran = flowradar(["plan"].iter().chain(options)).expect(2);
        assert!(ran.stderr.contains("error:"), "{options:?}: {}", ran.stderr);
    }
}
