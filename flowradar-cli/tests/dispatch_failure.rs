//! A server that ends while a trace is replayed: its flows move, and only its.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

const SERVERS: usize = 3;
const FLOWS: u32 = 60;
const ROUNDS: u32 = 60;
/// Between two packets of a flow.
const ROUND: Duration = Duration::from_millis(50);
const VXLAN_HEADER_BYTES: usize = 8;
/// Where the source address and the payload are in a frame.
const SOURCE: std::ops::Range<usize> = 26..30;
const NUMBER: std::ops::Range<usize> = 42..46;

/// A frame of 64 bytes: UDP of a flow, with a number.
fn frame(flow: u32, number: u32) -> [u8; 64] {
    let mut frame = [0; 64];
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&50_u16.to_be_bytes());
    frame[22] = 64;
    frame[23] = 17;
    frame[SOURCE].copy_from_slice(&(0x0a00_0001 + flow).to_be_bytes());
    frame[30..34].copy_from_slice(&[198, 51, 100, 1]);
    frame[34..40].copy_from_slice(&[0x10, 0, 0, 53, 0, 30]);
    frame[NUMBER].copy_from_slice(&number.to_be_bytes());
    frame
}

fn write_trace(path: &Path) {
    let mut bytes = vec![];
    for word in [0xa1b2_c3d4_u32, 4 << 16 | 2, 0, 0, 65_535, 1] {
        bytes.extend(word.to_le_bytes());
    }
    for round in 0..ROUNDS {
        for flow in 0..FLOWS {
            let at = ROUND * round + ROUND / FLOWS * flow;
            let seconds = 1_700_000_000 + at.as_secs() as u32;
            for word in [seconds, at.subsec_micros(), 64, 64] {
                bytes.extend(word.to_le_bytes());
            }
            bytes.extend(frame(flow, round * FLOWS + flow));
        }
    }
    fs::write(path, bytes).expect("it can be written");
}

/// Reads what is there, and ends.
const FINISH: u8 = 1;
/// Closes its port with packets on their way.
const DIE: u8 = 2;

/// A server, and what it got: numbers of packets by flow.
struct Server {
    port: u16,
    orders: Arc<AtomicU8>,
    thread: JoinHandle<BTreeMap<u32, Vec<u32>>>,
}

impl Server {
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        let port = socket.local_addr().expect("it is bound").port();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .expect("a timeout can be set");
        let orders = Arc::new(AtomicU8::new(0));
        let seen = Arc::clone(&orders);
        let thread = std::thread::spawn(move || {
            let mut flows = BTreeMap::<u32, Vec<u32>>::new();
            let mut buffer = [0; 2000];
            loop {
                let received = socket.recv(&mut buffer);
                let order = seen.load(Ordering::Relaxed);
                let Ok(length) = received else {
                    if order == FINISH {
                        return flows;
                    }
                    continue;
                };
                let frame = &buffer[VXLAN_HEADER_BYTES..length];
                let word = |range: std::ops::Range<usize>| {
                    u32::from_be_bytes(frame[range].try_into().expect("four bytes"))
                };
                let flow = word(SOURCE) - 0x0a00_0001;
                flows.entry(flow).or_default().push(word(NUMBER));
                if order == DIE {
                    return flows;
                }
            }
        });
        Self {
            port,
            orders,
            thread,
        }
    }

    fn order(self, order: u8) -> BTreeMap<u32, Vec<u32>> {
        self.orders.store(order, Ordering::Relaxed);
        self.thread.join().expect("it ends")
    }
}

#[test]
fn the_flows_of_a_server_that_ends_move_and_no_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("trace.pcap");
    write_trace(&trace);
    for policy in ["round-robin", "estimated", "consistent-hash"] {
        let mut servers: Vec<Server> = (0..SERVERS).map(|_| Server::start()).collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowradar"));
        command.args([
            "dispatch", "run", "--json", "--speed", "1", "--policy", policy,
        ]);
        for (number, server) in servers.iter().enumerate() {
            let to = format!("server-{number}=vxlan:127.0.0.1:{}", server.port);
            command.args(["--to", &to]);
        }
        let dispatcher = command
            .arg(&trace)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        std::thread::sleep(ROUND * ROUNDS / 2);
        let dead = servers.remove(1).order(DIE);
        let output = dispatcher.wait_with_output().expect("it ends");
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{words}");
        assert!(words.contains("back end server-1 failed"), "{words}");
        let report: Value = serde_json::from_slice(&output.stdout).expect("--json prints JSON");
        let alive: Vec<_> = servers
            .into_iter()
            .map(|server| server.order(FINISH))
            .collect();

        let flows_of_the_dead: BTreeSet<u32> = dead.keys().copied().collect();
        assert!(!flows_of_the_dead.is_empty());
        assert_eq!(report["affinity_breaks"], 0, "{policy}");
        assert_eq!(
            report["flows_moved_by_failure"],
            flows_of_the_dead.len(),
            "{policy}"
        );
        assert_eq!(report["back_ends"][1]["failures"], 1, "{policy}");
        let mut received = 0;
        for flow in 0..FLOWS {
            let homes: Vec<&Vec<u32>> = alive.iter().filter_map(|flows| flows.get(&flow)).collect();
            // Before and after the failure: one server each.
            assert_eq!(homes.len(), 1, "{policy}: flow {flow}");
            let after = homes[0];
            received += after.len() + dead.get(&flow).map_or(0, Vec::len);
            if flows_of_the_dead.contains(&flow) {
                let last_before = dead[&flow].last().expect("not empty");
                assert!(after[0] > *last_before, "{policy}: flow {flow}");
            } else {
                assert_eq!(after.len() as u32, ROUNDS, "{policy}: flow {flow}");
            }
        }
        // What was on its way to the dead when it ended, and no more.
        let sent = (FLOWS * ROUNDS) as usize;
        assert!(
            received <= sent && sent - received < 64,
            "{policy}: {received} of {sent}"
        );
        assert_eq!(report["totals"]["frames"], sent);
    }
}
