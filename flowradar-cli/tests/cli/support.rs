//! Running the binary, and making captures whose flows are known.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// The header that CSV files must have.
pub(crate) const CSV_HEADER: &str =
    "epoch,switch,src,dst,src_port,dst_port,protocol,packets,bytes,status";

/// What a run of the command gave.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("not JSON: {error}: {self:#?}"))
    }

    /// The rows of CSV on standard output, after its header.
    #[track_caller]
    pub(crate) fn csv_rows(&self) -> Vec<String> {
        let mut lines = self.stdout.lines().map(String::from);
        assert_eq!(lines.next().as_deref(), Some(CSV_HEADER), "{self:#?}");
        lines.collect()
    }
}

/// The command, not yet run.
pub(crate) fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_flowradar"))
}

/// Runs the command.
pub(crate) fn flowradar<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Ran {
    ran(&command().args(arguments).output().expect("the binary runs"))
}

/// Runs the command with bytes on standard input.
pub(crate) fn flowradar_with_input(arguments: &[&str], input: &[u8]) -> Ran {
    let mut child = command()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut stdin = child.stdin.take().expect("standard input is piped");
    stdin.write_all(input).expect("the command reads its input");
    drop(stdin);
    ran(&child.wait_with_output().expect("the command ends"))
}

pub(crate) fn ran(output: &Output) -> Ran {
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A folder that is removed at the end of the test.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().expect("a temporary folder can be made"))
    }

    /// A path in it, as text.
    pub(crate) fn path(&self, name: &str) -> String {
        let path = self.0.path().join(name);
        path.to_str()
            .expect("temporary folders have plain names")
            .into()
    }

    /// Writes a file in it; returns its path.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path(name);
        fs::write(&path, bytes).expect("a temporary file can be written");
        path
    }

    /// Names of the files in a folder in it, sorted.
    pub(crate) fn names(&self, name: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path(name))
            .expect("the folder is there")
            .map(|entry| {
                let name = entry.expect("the folder can be read").file_name();
                name.into_string().expect("names are plain")
            })
            .collect();
        names.sort();
        names
    }
}

/// A flow, sorted as rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Flow {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    pub(crate) protocol: u8,
}

impl Flow {
    /// An IPv4 flow that is different for every number.
    pub(crate) fn v4(number: u32) -> Self {
        Self {
            src: Ipv4Addr::from_bits(0x0A00_0000 + number % 251).into(),
            dst: Ipv4Addr::from_bits(0xC0A8_0000 + number / 251).into(),
            src_port: (number * 7919) as u16,
            dst_port: 443,
            protocol: [6, 17][number as usize % 2],
        }
    }

    /// An IPv6 flow that is different for every number.
    pub(crate) fn v6(number: u32) -> Self {
        Self {
            src: Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(number)).into(),
            dst: Ipv6Addr::from_bits(0x2001_0db8 << 96 | 0xffff).into(),
            src_port: 5353,
            dst_port: (number * 31) as u16,
            protocol: 17,
        }
    }
}

/// Counts flows by hand and writes the packets into a capture.
#[derive(Clone, Debug, Default)]
pub(crate) struct Capture {
    records: Vec<u8>,
    packets: u64,
}

impl Capture {
    /// Adds a packet with this much payload behind the ports. Returns its length from the IP header
    /// on.
    pub(crate) fn packet(&mut self, time_us: u64, flow: &Flow, payload_bytes: usize) -> u64 {
        let mut upper = vec![];
        upper.extend(flow.src_port.to_be_bytes());
        upper.extend(flow.dst_port.to_be_bytes());
        upper.resize(upper.len() + payload_bytes, 0);
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        let ip_bytes = match (flow.src, flow.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let total = 20 + upper.len();
                frame.extend([0x08, 0x00, 0x45, 0]);
                frame.extend((total as u16).to_be_bytes());
                frame.extend([0, 0, 0, 0, 64, flow.protocol, 0, 0]);
                frame.extend(src.octets());
                frame.extend(dst.octets());
                total
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend((upper.len() as u16).to_be_bytes());
                frame.extend([flow.protocol, 64]);
                frame.extend(src.octets());
                frame.extend(dst.octets());
                40 + upper.len()
            }
            _ => panic!("addresses of two kinds: {flow:?}"),
        };
        frame.extend(upper);
        self.frame(time_us, &frame);
        ip_bytes as u64
    }

    /// Adds any frame.
    pub(crate) fn frame(&mut self, time_us: u64, frame: &[u8]) {
        for field in [
            (time_us / 1_000_000) as u32,
            (time_us % 1_000_000) as u32,
            frame.len() as u32,
            frame.len() as u32,
        ] {
            self.records.extend(field.to_le_bytes());
        }
        self.records.extend(frame);
        self.packets += 1;
    }

    /// The capture as a pcap file (version 2.4, microseconds, Ethernet).
    pub(crate) fn pcap(&self) -> Vec<u8> {
        let mut file = vec![];
        file.extend(0xa1b2_c3d4_u32.to_le_bytes());
        file.extend([2, 0, 4, 0]);
        file.extend([0; 8]);
        file.extend(65_535_u32.to_le_bytes());
        file.extend(1_u32.to_le_bytes());
        file.extend(&self.records);
        file
    }
}

/// Packets and bytes of each flow.
pub(crate) type Counts = BTreeMap<Flow, (u64, u64)>;

/// A capture of many flows of both kinds with different counts, and the counts.
pub(crate) fn many_flows(flows: u32) -> (Capture, Counts) {
    let mut capture = Capture::default();
    let mut counts = Counts::new();
    // Interleaved: each round has a packet of all flows that still have some.
    for round in 0..9 {
        for number in (0..flows).filter(|number| number % 9 >= round) {
            let flow = if number % 3 == 0 {
                Flow::v6(number)
            } else {
                Flow::v4(number)
            };
            let payload = 20 + (number * 13 + round * 57) as usize % 1200;
            let bytes = capture.packet(u64::from(round), &flow, payload);
            let count = counts.entry(flow).or_default();
            *count = (count.0 + 1, count.1 + bytes);
        }
    }
    (capture, counts)
}

/// The rows that a complete decode of these counts prints.
pub(crate) fn expected_rows(
    epoch: u64,
    switch: &str,
    counts: &Counts,
    with_bytes: bool,
) -> Vec<String> {
    counts
        .iter()
        .map(|(flow, (packets, bytes))| {
            let Flow {
                src,
                dst,
                src_port,
                dst_port,
                protocol,
            } = flow;
            let bytes = if with_bytes { bytes.to_string() } else { String::new() };
            format!(
                "{epoch},{switch},{src},{dst},{src_port},{dst_port},{protocol},{packets},{bytes},exact"
            )
        })
        .collect()
}

/// Encodes into the folder `flowsets`; returns its path.
pub(crate) fn encode(folder: &Folder, trace: &[u8], options: &[&str]) -> String {
    let trace = folder.write("trace.pcap", trace);
    let flowsets = folder.path("flowsets");
    let arguments = ["encode", &trace, "--out", &flowsets];
    flowradar(arguments.iter().chain(options)).expect(0);
    flowsets
}

/// A folder beside the repository with traces that are not part of it.
pub(crate) fn shared(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/data")
        .join(path)
}
