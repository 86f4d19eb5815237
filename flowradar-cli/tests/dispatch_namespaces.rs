//! A capture replayed to four servers in network namespaces, with none lost. Needs root and `ip`.
//!
//! The rate is said, not asserted. For a figure that means something, on an idle machine:
//! `FLOWRADAR_FRAMES=5000000 cargo test --release -p flowradar-cli --test dispatch_namespaces --
//! --nocapture`

use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

const SERVERS: usize = 4;
const FLOWS: u32 = 1000;

/// Namespaces with an interface each, which go when it is dropped.
struct Namespaces {
    prefix: String,
}

impl Namespaces {
    /// None if they cannot be made here, which is said.
    fn new() -> Option<Self> {
        let prefix = format!("fr{}", std::process::id() % 100_000);
        let namespaces = Self { prefix };
        for server in 0..SERVERS {
            let (namespace, here, there) = namespaces.names(server);
            let made = ip(&["netns", "add", &namespace])
                && ip(&["link", "add", &here, "type", "veth", "peer", "name", &there])
                && ip(&["link", "set", &there, "netns", &namespace])
                // Nothing but what is dispatched: no neighbour discovery.
                && ip(&["link", "set", &here, "addrgenmode", "none"])
                && ip(&["-n", &namespace, "link", "set", &there, "addrgenmode", "none"])
                && ip(&["-n", &namespace, "link", "set", &there, "up"])
                && ip(&["link", "set", &here, "up"]);
            if !made {
                let _ = writeln!(
                    std::io::stderr(),
                    "SKIPPED: network namespaces cannot be made here (root and ip are needed)"
                );
                return None;
            }
        }
        Some(namespaces)
    }

    fn names(&self, server: usize) -> (String, String, String) {
        let prefix = &self.prefix;
        (
            format!("{prefix}n{server}"),
            format!("{prefix}h{server}"),
            format!("{prefix}p{server}"),
        )
    }

    /// A counter of the interface in a namespace.
    fn counter(&self, server: usize, name: &str) -> u64 {
        let (namespace, _, there) = self.names(server);
        let path = format!("/sys/class/net/{there}/statistics/{name}");
        let read = Command::new("ip")
            .args(["netns", "exec", &namespace, "cat", &path])
            .output()
            .expect("ip was there before");
        let text = String::from_utf8_lossy(&read.stdout);
        text.trim().parse().expect("a number")
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for server in 0..SERVERS {
            let (namespace, here, _) = self.names(server);
            ip(&["link", "del", &here]);
            ip(&["netns", "del", &namespace]);
        }
    }
}

fn ip(arguments: &[&str]) -> bool {
    let ran = Command::new("ip").args(arguments).output();
    ran.is_ok_and(|output| output.status.success())
}

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
    let Some(namespaces) = Namespaces::new() else {
        return;
    };
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
    for server in 0..SERVERS {
        let (_, here, _) = namespaces.names(server);
        command.args(["--to", &format!("server-{server}=interface:{here}")]);
    }
    let ran = command.output().expect("the binary runs");
    assert!(ran.status.success(), "{ran:#?}");
    let report: Value = serde_json::from_slice(&ran.stdout).expect("--json prints JSON");
    let mut arrived = 0;
    for server in 0..SERVERS {
        let received = namespaces.counter(server, "rx_packets");
        assert_eq!(namespaces.counter(server, "rx_dropped"), 0);
        assert_eq!(
            report["back_ends"][server]["frames"], received,
            "server {server}"
        );
        assert!(received > 0, "server {server} got nothing");
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
