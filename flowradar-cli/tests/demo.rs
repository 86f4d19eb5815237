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
