//! The demonstration, run as a newcomer runs it.

use std::fs;
use std::process::Command;

#[test]
fn the_demonstration_proves_itself() {
    let folder = tempfile::TempDir::new().expect("a temporary folder can be made");
    let ran = Command::new(env!("CARGO_BIN_EXE_flowradar"))
        .args(["demo", "--json", "--out"])
        .arg(folder.path())
        .output()
        .expect("the binary runs");
    assert_eq!(ran.status.code(), Some(0), "{ran:#?}");
    let report: serde_json::Value =
        serde_json::from_slice(&ran.stdout).expect("--json prints JSON");
    assert_eq!(report["everything_right"], true);
    let count = |place: &str| report.pointer(place).and_then(|value| value.as_u64());
    // Each switch alone finds all of the ordinary traffic and little of the burst.
    assert_eq!(
        count("/ordinary/result/exact"),
        count("/ordinary/result/flows")
    );
    assert_eq!(count("/burst_single_switches_complete"), Some(0));
    for missing in [
        "missing",
        "unresolved",
        "wrong_exact",
        "wrong_joint",
        "invented",
    ] {
        assert_eq!(
            count(&format!("/burst/result/{missing}")),
            Some(0),
            "{missing}"
        );
    }
    assert!(count("/losses/packets_lost") > Some(0));
    assert_eq!(
        count("/losses/packets_lost"),
        count("/losses/packets_found")
    );
    assert_eq!(count("/losses/false_alarms"), Some(0));
    planted_is_found(&report["troubles"]);
    for name in [
        "report.html",
        "decoding.svg",
        "decoding.png",
        "losses.png",
        "memory.png",
    ] {
        let bytes = fs::metadata(folder.path().join(name))
            .expect("written")
            .len();
        assert!(bytes > 1_000, "{name}: {bytes} bytes");
    }
    let flowsets = fs::read_dir(folder.path().join("flowsets")).expect("written");
    assert_eq!(flowsets.count(), 20);
}

/// Checks that the collector found each trouble, where it was, and not before it was there.
fn planted_is_found(troubles: &serde_json::Value) {
    let planted = [
        (
            "prefers one of its next hops",
            "agg-3-0 loads core-0, core-1 unevenly",
        ),
        (
            "loses 2 % of packets",
            "packets lost from agg-1-1 to core-3",
        ),
        (
            "a loop between",
            "packets go around between agg-0-0, core-0",
        ),
        ("drops some hosts' flows", "flows end at agg-2-1"),
        ("sends flows wrongly", "core-1 sends flows to agg-3-0"),
        ("scans ports", "10.0.1.2 tries many ports of 10.3.1.3"),
        (
            "a SYN flood",
            "flood of one-packet flows to 10.1.0.2 port 443",
        ),
    ];
    let rows = troubles["planted"].as_array().expect("a list");
    assert_eq!(rows.len(), planted.len(), "{troubles:#}");
    for (what, event) in planted {
        let row = rows.iter().find(|row| {
            row["planted"]
                .as_str()
                .is_some_and(|text| text.contains(what))
        });
        let row = row.unwrap_or_else(|| panic!("{what}: {troubles:#}"));
        let found = &row["found"];
        assert!(
            found["event"]
                .as_str()
                .is_some_and(|text| text.starts_with(event)),
            "{what}: {row:#}"
        );
        let (first, last) = (row["first_epoch"].as_u64(), row["last_epoch"].as_u64());
        let known = found["known_from_epoch"].as_u64();
        assert!(
            known >= first && known <= last.map(|last| last + 1),
            "{row:#}"
        );
    }
    assert_eq!(troubles["stored"], troubles["counted"]);
    assert!(troubles["stored"]["flow_records"].as_u64() > Some(100_000));
    assert_eq!(troubles["besides"], serde_json::json!([]));
}

/// The same on switches that run the P4 program, driven through P4Runtime.
#[test]
fn the_demonstration_on_p4_switches_proves_itself() {
    let folder = tempfile::TempDir::new().expect("a temporary folder can be made");
    let ran = Command::new(env!("CARGO_BIN_EXE_flowradar"))
        .args(["demo", "--p4", "--json", "--out"])
        .arg(folder.path())
        .output()
        .expect("the binary runs");
    assert_eq!(ran.status.code(), Some(0), "{ran:#?}");
    let report: serde_json::Value =
        serde_json::from_slice(&ran.stdout).expect("--json prints JSON");
    let count = |place: &str| report.pointer(place).and_then(|value| value.as_u64());
    assert!(count("/packets_lost") > Some(0));
    assert_eq!(count("/packets_lost"), count("/packets_found"));
    assert_eq!(count("/losses/false_alarms"), Some(0));
    for missing in [
        "missing",
        "unresolved",
        "wrong_exact",
        "wrong_joint",
        "invented",
    ] {
        assert_eq!(count(&format!("/together/{missing}")), Some(0), "{missing}");
    }
    let flowsets = fs::read_dir(folder.path().join("flowsets")).expect("written");
    assert_eq!(flowsets.count(), 20);
}
