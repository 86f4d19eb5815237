//! The same packets through this switch and through bmv2's `simple_switch` give the same packets.
//!
//! Runs where `simple_switch` is on PATH. Entries are those of the programs themselves, so that nothing
//! but packets is needed; the control plane is compared elsewhere. Packets that make a program read what
//! P4 leaves undefined (fields of headers that are not there, indexes beyond an array) are left out: bmv2
//! reads whatever an earlier packet left, or stops.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flowradar_switch::port::{PcapSender, PortSender, read_pcap};
use flowradar_switch::{Outputs, Pipeline, PipelineConfig, Program, Timestamp};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// As many as fit into bmv2's queues, which drop what is more.
const FRAMES: usize = 60;

/// Where frames come in.
const INPUT_PORT: u16 = 5;

/// Ports that bmv2 has at least; it also has all that this switch sends to.
const PORTS: std::ops::Range<u16> = 0..20;

/// How long bmv2 may take for all frames.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn the_same_packets_come_out() {
    if Command::new("simple_switch")
        .arg("--version")
        .output()
        .is_err()
    {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: simple_switch is not on PATH, nothing to compare with"
        );
        return;
    }
    let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
    for (name, generate) in PROGRAMS {
        let frames: Vec<_> = (0..FRAMES)
            .map(|number| generate(&mut random, number))
            .collect();
        let ours = embedded(name, &frames);
        let count = ours.values().map(Vec::len).sum();
        let ports = PORTS.chain(ours.keys().copied()).collect();
        let theirs = bmv2(name, &frames, &ports, count);
        assert_eq!(
            ours.keys().collect::<Vec<_>>(),
            theirs.keys().collect::<Vec<_>>(),
            "{name}"
        );
        for (port, frames) in &ours {
            // Packets that pass twice may be overtaken on bmv2, which runs ingress and egress at once.
            let sorted = |frames: &[Vec<u8>]| {
                let mut frames = frames.to_vec();
                frames.sort();
                frames
            };
            let (ours, theirs) = (sorted(frames), sorted(&theirs[port]));
            let first = ours
                .iter()
                .zip(&theirs)
                .find(|(ours, theirs)| ours != theirs);
            assert_eq!(first, None, "{name}, port {port}: ours, bmv2's");
            assert_eq!(ours.len(), theirs.len(), "{name}, port {port}");
        }
        eprintln!("{name}: {count} frames out of {FRAMES} in, equal to bmv2's");
    }
}

type Generate = fn(&mut Xoshiro256PlusPlus, usize) -> Vec<u8>;

/// Programs, each with frames that reach all of it.
const PROGRAMS: [(&str, Generate); 16] = [
    ("action_run", |random, number| {
        [&[number as u8 % 7], bytes(random, 5).as_slice()].concat()
    }),
    ("arithmetic", |random, _| bytes(random, 70)),
    ("checksum", |random, number| {
        let mut frame = bytes(random, 28 + number % 9);
        frame[9] = if number % 3 == 0 { 6 } else { 17 };
        frame
    }),
    ("copies", |random, number| {
        let op = [0, 2, 4, 5, 6, 8][number % 6];
        let session = random.next_u64() as u8 % 14;
        [&[op, 0, 0, session], bytes(random, 10).as_slice()].concat()
    }),
    ("counters", |random, number| {
        [&[number as u8 % 4], bytes(random, 5).as_slice()].concat()
    }),
    ("hash", |random, _| bytes(random, 45)),
    ("registers", |random, number| {
        let index = random.next_u64() as u8 % 4;
        [
            &[number as u8 % 4, 0, 0, 0, index],
            bytes(random, 20).as_slice(),
        ]
        .concat()
    }),
    ("select", |random, number| {
        let version = 4 + number as u8 % 4;
        let kind = random.next_u64() as u8 % 4;
        let low = random.next_u64() as u8 % 5;
        let ahead = if number % 2 == 0 {
            [0xaa, 0xbb]
        } else {
            [0xaa, 0xbc]
        };
        let mut frame = vec![version << 4 | kind, low, ahead[0], ahead[1], number as u8];
        // Looking ahead beyond the end is an error in P4, and reads what lies there on bmv2.
        if version != 5 {
            frame.truncate(1 + random.next_u64() as usize % 5);
        }
        frame
    }),
    ("signed", |random, _| bytes(random, 30)),
    ("stack", |random, number| {
        let labels = 1 + random.next_u64() as usize % 4;
        let mut frame = vec![number as u8 % 4, random.next_u64() as u8 % 3, 0, 0];
        // What is not there must not be read.
        if frame[0] == 3 {
            frame[1] = random.next_u64() as u8 % labels.min(3) as u8;
        }
        frame.extend((1..labels).map(|_| random.next_u64() as u8 & 0xfe));
        frame.push(random.next_u64() as u8 | 1);
        frame.extend(bytes(random, 4));
        frame
    }),
    ("structure", |random, number| {
        let mut frame = vec![1 + number as u8 % 10, random.next_u64() as u8, 0, 0, 0];
        let items = 1 + random.next_u64() as usize % 4;
        frame.extend((1..items).map(|_| random.next_u64() as u8 | 0x80));
        frame.push(random.next_u64() as u8 & 0x7f);
        frame
    }),
    ("tables", |random, number| {
        let mut frame = bytes(random, 40);
        frame[0] = 6 + number as u8 % 4;
        frame[1] = 10;
        frame[2] = number as u8 % 3;
        frame[3] = 2;
        frame[4] = 2 + number as u8 % 2;
        frame[5] = number as u8 % 3;
        frame[7] = 0;
        frame[9] = 0;
        frame
    }),
    ("union", |random, number| {
        [&[number as u8 % 4], bytes(random, 4).as_slice()].concat()
    }),
    ("validity", |random, number| {
        let value = [0, 3, random.next_u64() as u8][number % 3];
        [&[number as u8 % 5, 0, value], bytes(random, 4).as_slice()].concat()
    }),
    ("varbit", |random, number| {
        let length = number as u8 % 11;
        let mut frame = bytes(random, 14);
        frame[0] = length;
        frame.truncate(if number % 5 == 0 { 4 } else { 14 });
        frame
    }),
    ("wide", |random, _| bytes(random, 200)),
];

fn bytes(random: &mut Xoshiro256PlusPlus, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    random.fill_bytes(&mut bytes);
    bytes
}

fn json(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/compiled");
    folder.join(format!("{name}.json"))
}

/// What this switch sends, by port.
fn embedded(name: &str, frames: &[Vec<u8>]) -> BTreeMap<u16, Vec<Vec<u8>>> {
    let json = std::fs::read(json(name)).expect("the compiled program is there");
    let program = Program::from_json(&json).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut pipeline = Pipeline::new(Arc::new(program), PipelineConfig::default());
    let mut outputs = Outputs::new();
    for frame in frames {
        pipeline.process(INPUT_PORT, frame, Timestamp::ZERO, &mut outputs);
    }
    let mut by_port = BTreeMap::<_, Vec<_>>::new();
    for (port, frame) in outputs.frames() {
        by_port.entry(port).or_default().push(frame.to_vec());
    }
    by_port
}

/// What bmv2 sends, by port.
fn bmv2(
    name: &str,
    frames: &[Vec<u8>],
    ports: &BTreeSet<u16>,
    expected: usize,
) -> BTreeMap<u16, Vec<Vec<u8>>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = |port: u16, direction: &str| folder.path().join(format!("p{port}_{direction}.pcap"));
    let mut command = Command::new("simple_switch");
    for &port in ports {
        let mut input = PcapSender::create(&file(port, "in")).expect("the folder can be written");
        if port == INPUT_PORT {
            frames.iter().for_each(|frame| input.send(frame));
        }
        let prefix = folder.path().join(format!("p{port}"));
        command.args(["-i", &format!("{port}@{}", prefix.display())]);
    }
    let notifications = format!("ipc://{}/notifications.ipc", folder.path().display());
    command.args(["--use-files", "0", "--notifications-addr", &notifications]);
    // It listens whether anyone wants it or not.
    let thrift_port = 20_000 + std::process::id() % 20_000;
    command
        .args(["--thrift-port", &thrift_port.to_string()])
        .arg(json(name));
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let _running = Running(child.expect("simple_switch starts"));
    let read = || -> BTreeMap<u16, Vec<Vec<u8>>> {
        let frames = |port: u16| -> Option<Vec<Vec<u8>>> {
            let frames = read_pcap(&file(port, "out")).ok()?;
            Some(frames.map_while(|frame| Some(frame.ok()?.1)).collect())
        };
        let ports = ports
            .iter()
            .filter_map(|port| Some((*port, frames(*port)?)));
        ports.filter(|(_, frames)| !frames.is_empty()).collect()
    };
    let start = Instant::now();
    while read().values().map(Vec::len).sum::<usize>() < expected && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
    // More than expected may be on its way.
    std::thread::sleep(Duration::from_millis(200));
    read()
}

/// Ends a process when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
