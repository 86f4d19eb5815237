//! Frames sent by tcpreplay in one network namespace, captured live, and what servers in another get.
//! tshark is the judge of both. Needs root, `ip`, tcpreplay and tshark.

#[path = "../../flowradar-balancer/tests/namespaces/mod.rs"]
mod namespaces;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use namespaces::{Namespace, signal};
use serde_json::Value;

const TEST: &str = "dispatch_live";
const SERVER_ADDRESS: &str = "FLOWRADAR_TEST_ADDRESS";
/// Ethernet, IPv4, UDP and VXLAN around each frame.
const ENCAPSULATION_BYTES: &str = "50";

fn is_missing(programs: &[&str]) -> bool {
    for program in programs {
        if Command::new(program).arg("--version").output().is_err() {
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: {TEST}: {program} is not installed"
            );
            return true;
        }
    }
    false
}

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Waits for a line on standard error.
    fn wait_for(&mut self, words: &str) -> BufReader<std::process::ChildStderr> {
        let mut lines = BufReader::new(self.0.stderr.take().expect("piped"));
        let mut line = String::new();
        loop {
            line.clear();
            let length = lines.read_line(&mut line).expect("readable");
            assert!(length > 0, "it ended without a word of {words:?}");
            if line.contains(words) {
                return lines;
            }
        }
    }
}

/// Frames of many kinds: UDP and TCP, IPv4 and IPv6, fragments, ARP; every seventh with a VLAN tag, every
/// eleventh with two.
fn made_frames() -> Vec<Vec<u8>> {
    let frame = |number: u32| {
        let flow = number % 97;
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        if number.is_multiple_of(11) {
            frame.extend([0x88, 0xa8, 0x00, 0x64]);
        }
        if number.is_multiple_of(7) || number.is_multiple_of(11) {
            frame.extend([0x81, 0x00, 0x60, flow as u8]);
        }
        let payload = [
            number.to_be_bytes().to_vec(),
            vec![7; (number % 1200) as usize],
        ]
        .concat();
        let ports = [(1024 + flow as u16).to_be_bytes(), 443_u16.to_be_bytes()].concat();
        if number.is_multiple_of(50) {
            frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
            frame.extend(number.to_be_bytes());
            frame.extend([0; 24]);
        } else if flow.is_multiple_of(5) {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((8 + payload.len() as u16).to_be_bytes());
            frame.extend([17, 64]);
            frame.extend([
                0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, flow as u8,
            ]);
            frame.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
            frame.extend(&ports);
            frame.extend((8 + payload.len() as u16).to_be_bytes());
            frame.extend([0, 0]);
            frame.extend(&payload);
        } else {
            let is_tcp = flow.is_multiple_of(2);
            frame.extend([0x08, 0x00, 0x45, 0]);
            let header_bytes = if is_tcp { 40 } else { 28 };
            frame.extend((header_bytes + payload.len() as u16).to_be_bytes());
            frame.extend((number as u16).to_be_bytes());
            // Some are first fragments.
            frame.extend(if number.is_multiple_of(13) {
                [0x20, 0]
            } else {
                [0x40, 0]
            });
            frame.extend([64, if is_tcp { 6 } else { 17 }, 0, 0]);
            frame.extend([10, 1, 0, flow as u8, 10, 2, 0, 1]);
            frame.extend(&ports);
            if is_tcp {
                frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
            } else {
                frame.extend((8 + payload.len() as u16).to_be_bytes());
                frame.extend([0, 0]);
            }
            frame.extend(&payload);
        }
        frame.resize(frame.len().max(60), 0);
        frame
    };
    (0..3000).map(frame).collect()
}

fn write_pcap(path: &Path, frames: &[Vec<u8>]) {
    let mut bytes = vec![];
    for word in [0xa1b2_c3d4_u32, 4 << 16 | 2, 0, 0, 65_535, 1] {
        bytes.extend(word.to_le_bytes());
    }
    for (number, frame) in frames.iter().enumerate() {
        let length = frame.len() as u32;
        let number = number as u32;
        for word in [
            1_700_000_000 + number / 1000,
            number % 1000 * 1000,
            length,
            length,
        ] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(frame);
    }
    fs::write(path, bytes).expect("it can be written");
}

fn tshark(path: &Path, arguments: &[&str]) -> Vec<String> {
    let ran = Command::new("tshark")
        .args(["-o", "frame.generate_md5_hash:TRUE", "-r"])
        .arg(path)
        .args(["-T", "fields"])
        .args(arguments)
        .output()
        .expect("tshark runs");
    assert!(ran.status.success(), "{ran:?}");
    let text = String::from_utf8_lossy(&ran.stdout);
    text.lines().map(str::to_owned).collect()
}

/// How often each frame is in a capture, by its MD5.
fn frames_in(path: &Path) -> BTreeMap<String, usize> {
    let mut frames = BTreeMap::new();
    for hash in tshark(path, &["-e", "frame.md5_hash"]) {
        assert_eq!(hash.len(), 32, "{hash:?}");
        *frames.entry(hash).or_insert(0) += 1;
    }
    frames
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "waited in vain: {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Replays a trace to a dispatcher that captures live: two servers get VXLAN, one a file.
fn check(trace: &Path) {
    let Some(source) = Namespace::new(TEST) else {
        return;
    };
    let Some(server) = Namespace::with_addresses(TEST) else {
        return;
    };
    // Between namespaces nothing cuts up what is sent as one with segmentation offload: tshark would see
    // many datagrams as one.
    assert!(namespaces::ip(&[
        "link",
        "set",
        &server.here,
        "gso_max_segs",
        "1"
    ]));
    let to = server.address_there();
    let program = std::env::current_exe().expect("this test");
    let listener = server
        .command(&program.to_string_lossy())
        .args(["--exact", "analysis_server", "--ignored", "--nocapture"])
        .env(SERVER_ADDRESS, SocketAddr::new(to, 4789).to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _listener = Running(listener.expect("it starts"));
    let folder = tempfile::tempdir().expect("a folder");
    let received = folder.path().join("received.pcap");
    let file = folder.path().join("file.pcap");
    let capture = server
        .command("tshark")
        .args([
            "-i",
            &server.there,
            "-f",
            "udp port 4789",
            "-F",
            "pcap",
            "-w",
        ])
        .arg(&received)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut capture = Running(capture.expect("tshark starts"));
    let _capture_words = capture.wait_for("Capturing on");
    wait_for("tshark captures", || {
        fs::metadata(&received).is_ok_and(|file| file.len() >= 24)
    });
    let dispatcher = Command::new(env!("CARGO_BIN_EXE_flowradar"))
        .args(["dispatch", "run", "--json", "--policy", "round-robin"])
        .args(["--ring", "16MiB", "--interface", &source.here])
        .args(["--to", &format!("a=vxlan:{to},vni=11")])
        .args(["--to", &format!("b=vxlan:{to},vni=22")])
        .args(["--to", &format!("c=pcap:{}", file.display())])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut dispatcher = Running(dispatcher.expect("the binary starts"));
    let _dispatcher_words = dispatcher.wait_for("Capturing from");
    let replayed = source
        .command("tcpreplay")
        .args(["-q", "-p", "20000", "-i", &source.there])
        .arg(trace)
        .output()
        .expect("tcpreplay runs");
    assert!(replayed.status.success(), "{replayed:?}");
    // What has arrived when it is told to end is still dispatched.
    signal(&dispatcher.0, "INT");
    let mut output = dispatcher.0.stdout.take().expect("piped");
    let report: Value = serde_json::from_reader(&mut output).expect("--json prints JSON");
    assert!(
        dispatcher.0.wait().expect("it ends").success(),
        "{report:#}"
    );

    let sent = frames_in(trace);
    let count: usize = sent.values().sum();
    assert_eq!(report["totals"]["frames"], count, "{report:#}");
    for zero in [
        "dropped_by_kernel",
        "left_in_ring",
        "cut_off",
        "affinity_breaks",
    ] {
        assert_eq!(report[zero], 0, "{zero}");
    }
    let frames = |server: usize| -> u64 {
        let frames = report["back_ends"][server]["frames"].as_u64();
        frames.expect("a number")
    };
    for server in 0..3 {
        assert!(frames(server) > 0, "server {server} got nothing");
    }
    let expected = usize::try_from(frames(0) + frames(1)).expect("few");
    wait_for("the servers get all", || {
        server.counter("rx_packets") >= expected as u64
    });
    wait_for("tshark writes all", || {
        fs::metadata(&received).is_ok_and(|file| {
            file.len() >= 24 + 66 * expected as u64 && {
                // Not to read it more often than needed.
                std::thread::sleep(Duration::from_millis(500));
                tshark(&received, &["-e", "frame.number"]).len() >= expected
            }
        })
    });
    signal(&capture.0, "INT");
    let _ = capture.0.wait();

    // tshark decodes the encapsulation by itself.
    let networks = tshark(&received, &["-e", "vxlan.vni"]);
    for (network, server) in [("11", 0), ("22", 1)] {
        let found = networks.iter().filter(|found| *found == network).count();
        assert_eq!(found as u64, frames(server), "VNI {network}");
    }
    let inner = folder.path().join("inner.pcap");
    let cut = Command::new("editcap")
        .args(["-F", "pcap", "-L", "-C", ENCAPSULATION_BYTES])
        .args([&received, &inner])
        .output()
        .expect("editcap comes with tshark");
    assert!(cut.status.success(), "{cut:?}");
    let mut arrived = frames_in(&inner);
    for (hash, count) in frames_in(&file) {
        *arrived.entry(hash).or_insert(0) += count;
    }
    assert!(
        arrived == sent,
        "{} different frames instead of {}",
        arrived.len(),
        sent.len()
    );
}

/// The port must be open: a host that refuses datagrams has failed.
#[test]
#[ignore = "serves the other tests: an analysis server's port"]
fn analysis_server() {
    let Ok(address) = std::env::var(SERVER_ADDRESS) else {
        return;
    };
    let socket = UdpSocket::bind(address).expect("the address is there");
    let mut buffer = vec![0; 70_000];
    while socket.recv(&mut buffer).is_ok() {}
}

#[test]
fn what_is_sent_is_what_servers_decode() {
    if is_missing(&["ip", "tcpreplay", "tshark", "editcap"]) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("trace.pcap");
    write_pcap(&trace, &made_frames());
    check(&trace);
}

#[test]
fn a_real_capture_as_well() {
    if is_missing(&["ip", "tcpreplay", "tshark", "editcap"]) {
        return;
    }
    let trace: PathBuf =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/3_tcp/sv_ftp_data.pcap");
    if !trace.is_file() {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: {TEST}: {} is absent",
            trace.display()
        );
        return;
    }
    check(&trace);
}

#[test]
fn an_interface_that_is_not_there_is_said() {
    let ran = Command::new(env!("CARGO_BIN_EXE_flowradar"))
        .args(["dispatch", "run", "--interface", "nothing0"])
        .args(["--to", "a=pcap:/dev/null", "--overwrite"])
        .output()
        .expect("the binary runs");
    assert_eq!(ran.status.code(), Some(1));
    let words = String::from_utf8_lossy(&ran.stderr);
    assert!(words.contains("no network interface nothing0"), "{words}");
}
