//! A capture replayed to four servers in network namespaces, with none lost. Needs root and `ip`.
//!
//! The rate is said, not asserted. For a figure that means something, on an idle machine:
//! `FLOWRADAR_FRAMES=5000000 cargo test --release -p flowradar-cli --test dispatch_namespaces --
//! --nocapture`

#[path = "../../flowradar-balancer/tests/namespaces/mod.rs"]
mod namespaces;

use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

use namespaces::Namespace;
use serde_json::Value;

const SERVERS: usize = 4;
const FLOWS: u32 = 1000;

/// Frames of 64 bytes, of flows that take turns.
fn write_trace(path: &Path, frames: u32) {
    let file = fs::File::create(path).expect("it can be written");
    let mut out = BufWriter::new(file);
    let mut write = |bytes: &[u8]| out.write_all(bytes).expect("it can be written");
    for word in [0xa1b2_c3d4_u32, 4 << 16 | 2, 0, 0, 65_535, 1] {
        write(&word.to_le_bytes());
    }
    let mut frame = [0; 64];
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&50_u16.to_be_bytes());
    frame[22] = 64;
    frame[23] = 17;
    frame[30..34].copy_from_slice(&[198, 51, 100, 1]);
    for number in 0..frames {
        let flow = number.wrapping_mul(0x9e37_79b1) % FLOWS;
        frame[26..30].copy_from_slice(&(0x0a00_0000 | flow).to_be_bytes());
        for word in [
            1_700_000_000 + number / 500_000,
            number % 500_000 * 2,
            64,
            64,
        ] {
            write(&word.to_le_bytes());
        }
        write(&frame);
    }
    out.flush().expect("it can be written");
}

#[test]
fn a_replay_to_four_namespaces_loses_nothing() {
    let mut servers = vec![];
    for _ in 0..SERVERS {
        match Namespace::new("dispatch_namespaces") {
            Some(server) => servers.push(server),
            None => return,
        }
    }
    let frames: u32 = std::env::var("FLOWRADAR_FRAMES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(200_000);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let trace = folder.path().join("trace.pcap");
    write_trace(&trace, frames);
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowradar"));
    command.args(["dispatch", "run", "--json", "--policy", "estimated"]);
    command.arg(&trace);
    for (number, server) in servers.iter().enumerate() {
        let to = format!("server-{number}=interface:{}", server.here);
        command.args(["--to", &to]);
    }
    let ran = command.output().expect("the binary runs");
    assert!(ran.status.success(), "{ran:#?}");
    let report: Value = serde_json::from_slice(&ran.stdout).expect("--json prints JSON");
    let mut arrived = 0;
    for (number, server) in servers.iter().enumerate() {
        let received = server.counter("rx_packets");
        assert_eq!(server.counter("rx_dropped"), 0);
        let told = &report["back_ends"][number]["frames"];
        assert_eq!(*told, received, "server {number}");
        assert!(received > 0, "server {number} got nothing");
        arrived += received;
    }
    assert_eq!(arrived, u64::from(frames));
    let seconds = report["seconds"].as_f64().expect("a number");
    let _ = writeln!(
        std::io::stderr(),
        "{frames} frames to {SERVERS} namespaces in {seconds:.2} s: {:.0} a second",
        f64::from(frames) / seconds
    );
}
