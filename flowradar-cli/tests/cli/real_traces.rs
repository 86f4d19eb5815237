//! Real traces through `encode` and `decode`, against counts that share no code with them: the
//! packets as `tshark` prints them, and records cut into 13 bytes.
//!
//! Needs `../shared/data` (relative to the repository), and `tshark` for captures; says `SKIPPED`
//! where they are missing.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Folder, flowradar, shared};

/// Packets and bytes by `src,dst,src_port,dst_port,protocol`.
type Counts = BTreeMap<String, (u64, u64)>;

#[test]
fn captures_decode_to_what_tshark_counts() {
    let tshark = Command::new("tshark")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    if !tshark.is_ok_and(|status| status.success()) {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: tshark is not installed, so captures have no independent count"
        );
        return;
    }
    let mut traces = vec![shared("1_traces/caida2012_10k.pcap")];
    if let Ok(entries) = fs::read_dir(shared("3_tcp")) {
        traces.extend(entries.map(|entry| entry.expect("the folder can be read").path()));
    }
    for trace in traces {
        if !trace.exists() {
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: {} is not there",
                trace.display()
            );
            continue;
        }
        // One trace of the collection ends inside a record.
        let code = if trace.ends_with("sv_http_long.pcap") {
            3
        } else {
            0
        };
        let decoded = encode_and_decode(&trace, &["--bytes"], code);
        let counted = count_with_tshark(&trace);
        assert!(!counted.is_empty(), "{}", trace.display());
        assert!(
            decoded == counted,
            "{}: {}",
            trace.display(),
            difference(&decoded, &counted)
        );
        eprintln!(
            "{}: {} flows, as tshark counts",
            trace.display(),
            counted.len()
        );
    }
}

#[test]
fn records_decode_to_what_a_map_counts() {
    for name in ["caida2012_10k.5tuple.dat", "ndpi_mix_a.5tuple.dat"] {
        let trace = shared("1_traces").join(name);
        let Ok(bytes) = fs::read(&trace) else {
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: {} is not there",
                trace.display()
            );
            continue;
        };
        let mut counted = Counts::new();
        for record in bytes.chunks(13) {
            let address = |at: usize| {
                Ipv4Addr::new(record[at], record[at + 1], record[at + 2], record[at + 3])
            };
            let port = |at: usize| u16::from(record[at]) << 8 | u16::from(record[at + 1]);
            let (src, dst, protocol) = (address(0), address(4), record[12]);
            let key = format!("{src},{dst},{},{},{protocol}", port(8), port(10));
            counted.entry(key).or_default().0 += 1;
        }
        let decoded = encode_and_decode(&trace, &["--input-format", "tuple13"], 0);
        assert!(
            decoded == counted,
            "{name}: {}",
            difference(&decoded, &counted)
        );
    }
}

#[test]
fn epochs_of_a_real_trace_add_up() {
    let trace = shared("1_traces/ndpi_mix_a.5tuple.dat");
    if !trace.exists() {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: {} is not there",
            trace.display()
        );
        return;
    }
    let times = shared("1_traces/ndpi_mix_a.ts.f64");
    let options = [
        "--input-format",
        "tuple13",
        "--timestamps",
        &times.display().to_string(),
        "--epoch",
        "100ms",
    ]
    .map(String::from);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let by_epoch = encode_and_decode(&trace, &options, 0);
    let whole = encode_and_decode(&trace, &["--input-format", "tuple13"], 0);
    assert!(by_epoch == whole, "{}", difference(&by_epoch, &whole));
}

/// What `decode` prints of what `encode` writes, summed over epochs.
fn encode_and_decode(trace: &Path, options: &[&str], encode_code: i32) -> Counts {
    let folder = Folder::new();
    let flowsets = folder.path("flowsets");
    let trace = trace.display().to_string();
    let arguments = ["encode", &trace, "--out", &flowsets];
    flowradar(arguments.iter().chain(options)).expect(encode_code);
    let mut counts = Counts::new();
    for row in flowradar(["decode", &flowsets, "--format", "csv"])
        .expect(0)
        .csv_rows()
    {
        let cells: Vec<&str> = row.split(',').collect();
        assert_eq!(cells[9], "exact", "{row}");
        let count = counts.entry(cells[2..7].join(",")).or_default();
        count.0 += cells[7].parse::<u64>().expect("a number");
        count.1 += cells[8].parse::<u64>().unwrap_or(0);
    }
    counts
}

/// TCP, UDP and ICMP packets by 5-tuple, as `tshark` reads them; the outermost IP header counts.
fn count_with_tshark(trace: &Path) -> Counts {
    const FIELDS: [&str; 16] = [
        "ip.src",
        "ip.dst",
        "ip.proto",
        "ip.len",
        "ip.frag_offset",
        "ipv6.src",
        "ipv6.dst",
        "ipv6.nxt",
        "ipv6.plen",
        "tcp.srcport",
        "tcp.dstport",
        "udp.srcport",
        "udp.dstport",
        "icmp.type",
        "icmp.code",
        "icmpv6.type",
    ];
    let mut command = Command::new("tshark");
    command.args([
        "-n",
        "-T",
        "fields",
        "-E",
        "occurrence=f",
        "-E",
        "separator=,",
    ]);
    command.args(["-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE"]);
    for field in FIELDS.iter().chain(&["icmpv6.code", "ipv6.hopopts.nxt"]) {
        command.args(["-e", field]);
    }
    // A capture that is cut short makes it fail after everything was printed.
    let output = command.arg("-r").arg(trace).output().expect("tshark runs");
    let mut counts = Counts::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let f: Vec<&str> = line.split(',').collect();
        let number = |at: usize| f[at].parse::<u64>().unwrap_or(0);
        let (src, dst, protocol, bytes) = if !f[0].is_empty() {
            (f[0], f[1], f[2], number(3))
        } else if !f[5].is_empty() {
            // The only extension header in these traces: hop-by-hop options.
            let protocol = if f[7] == "0" { f[17] } else { f[7] };
            (f[5], f[6], protocol, number(8) + 40)
        } else {
            continue;
        };
        let (src_port, dst_port) = match protocol {
            _ if number(4) > 0 => (0, 0),
            "6" => (number(9), number(10)),
            "17" => (number(11), number(12)),
            "1" => (0, number(13) * 256 + number(14)),
            "58" => (0, number(15) * 256 + number(16)),
            _ => (0, 0),
        };
        let key = format!("{src},{dst},{src_port},{dst_port},{protocol}");
        let count = counts.entry(key).or_default();
        *count = (count.0 + 1, count.1 + bytes);
    }
    counts
}

/// The first flows that differ.
fn difference(decoded: &Counts, counted: &Counts) -> String {
    let keys = decoded.keys().chain(counted.keys());
    let differing = keys.filter(|key| decoded.get(*key) != counted.get(*key));
    let lines = differing.take(5).map(|key| {
        let (decoded, counted) = (decoded.get(key), counted.get(key));
        format!("{key}: decoded {decoded:?}, counted {counted:?}")
    });
    lines.collect::<Vec<_>>().join("\n")
}
