//! The trace reader against two independent counts of real traces: what `tshark` reads from every
//! packet, and the numbers that came with the data.
//!
//! Needs `tshark` and the data in `../shared/data` (relative to the repository); says `SKIPPED`
//! where they are missing.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

use flowradar_cli::trace::{InputFormat, TraceKey, TracePacket, TraceProblem, TraceReader};
use flowradar_core::{FlowKeyV4, FlowKeyV6};

/// The fields that `tshark` is asked for: the first (outermost) occurrence of each in a packet.
const FIELDS: [&str; 27] = [
    "frame.time_epoch",
    "frame.protocols",
    "ip.src",
    "ip.dst",
    "ip.proto",
    "ip.len",
    "ip.frag_offset",
    "ipv6.src",
    "ipv6.dst",
    "ipv6.plen",
    "ipv6.nxt",
    "ipv6.hopopts.nxt",
    "ipv6.routing.nxt",
    "ipv6.dstopts.nxt",
    "ipv6.fraghdr.nxt",
    "ipv6.fraghdr.offset",
    "tcp.srcport",
    "tcp.dstport",
    "udp.srcport",
    "udp.dstport",
    "sctp.srcport",
    "sctp.dstport",
    "dccp.srcport",
    "dccp.dstport",
    "icmp.type",
    "icmp.code",
    "icmpv6.type",
];
const LAST_FIELD: &str = "icmpv6.code";

/// Traces with the packets and 5-tuple flows (over IPv4 and IPv6) that `INDEX.md` says they have.
const INDEX: [(&str, InputFormat, u64, Option<usize>); 10] = [
    (
        "1_traces/caida2012_10k.pcap",
        InputFormat::Auto,
        10_000,
        Some(4119),
    ),
    (
        "1_traces/caida2012_10k.5tuple.dat",
        InputFormat::Tuple13,
        9_999,
        Some(4118),
    ),
    (
        "1_traces/ndpi_mix_a.5tuple.dat",
        InputFormat::Tuple13,
        46_193,
        Some(1426),
    ),
    (
        "3_tcp/WebattackXSS.pcap",
        InputFormat::Auto,
        9_374,
        Some(1322),
    ),
    ("3_tcp/ftp.pcap", InputFormat::Auto, 1_192, Some(6)),
    ("3_tcp/http_espn.pcapng", InputFormat::Auto, 956, Some(78)),
    ("3_tcp/netflix.pcap", InputFormat::Auto, 6_999, Some(119)),
    ("3_tcp/reddit.pcap", InputFormat::Auto, 11_682, Some(120)),
    (
        "3_tcp/sv_ftp_data.pcap",
        InputFormat::Auto,
        1_350,
        Some(255),
    ),
    ("3_tcp/sv_http_long.pcap", InputFormat::Auto, 2_696, Some(2)),
];

/// This trace has one byte too many: the start of a record that is not there.
const CUT_SHORT: (&str, u64) = ("sv_http_long.pcap", 2_715_459);

#[test]
fn every_packet_of_the_real_traces_is_what_tshark_says() {
    let (Some(data), true) = (shared_data(), tshark_is_there()) else {
        return;
    };
    let mut traces = Vec::new();
    for folder in ["1_traces", "2_export", "3_tcp"] {
        let entries = std::fs::read_dir(data.join(folder)).expect("the data has this folder");
        for entry in entries {
            let path = entry.expect("the folder can be read").path();
            if path
                .extension()
                .is_some_and(|extension| extension == "pcap" || extension == "pcapng")
            {
                traces.push(path);
            }
        }
    }
    assert!(traces.len() >= 8, "{traces:?}");
    for trace in traces {
        compare(&trace);
    }
}

#[test]
fn every_packet_of_a_made_trace_is_what_tshark_says() {
    if !tshark_is_there() {
        return;
    }
    let name = format!("flowradar-made-{}.pcap", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, made_trace()).expect("the temporary directory can be written");
    compare(&path);
    std::fs::remove_file(&path).expect("the file was written");
}

#[test]
fn counts_are_those_of_the_index() {
    let Some(data) = shared_data() else {
        return;
    };
    for (name, format, packets, flows) in INDEX {
        let mut reader =
            TraceReader::open(data.join(name), format).unwrap_or_else(|error| panic!("{error}"));
        let mut counts: BTreeMap<TraceKey, u64> = BTreeMap::new();
        for packet in read_all(&mut reader) {
            *counts.entry(packet.key).or_default() += 1;
        }
        let stats = reader.stats();
        assert_eq!(stats.packets, packets, "{name}");
        assert_eq!(stats.uncounted_packets(), 0, "{name}");
        if let Some(flows) = flows {
            assert_eq!(counts.len(), flows, "{name}");
        }
    }
}

#[test]
fn timestamps_of_records_come_from_their_file() {
    let Some(data) = shared_data() else {
        return;
    };
    let folder = data.join("1_traces");
    let reader = TraceReader::open(folder.join("ndpi_mix_a.5tuple.dat"), InputFormat::Tuple13)
        .and_then(|reader| reader.with_timestamps(folder.join("ndpi_mix_a.ts.f64")))
        .unwrap_or_else(|error| panic!("{error}"));
    let timestamps: Vec<u64> = reader
        .map(|packet| {
            let packet = packet.unwrap_or_else(|error| panic!("{error}"));
            packet.timestamp_ns.expect("every record has a timestamp")
        })
        .collect();
    assert_eq!(timestamps.len(), 46_193);
    assert!(timestamps.is_sorted());
    // The first 60 s of captures.
    assert!(
        timestamps
            .iter()
            .all(|timestamp| *timestamp <= 60_000_000_000)
    );
}

/// Compares key, length and time of every packet, in order.
fn compare(trace: &Path) {
    let expected = read_with_tshark(trace);
    let mut reader =
        TraceReader::open(trace, InputFormat::Auto).unwrap_or_else(|error| panic!("{error}"));
    let packets = read_all(&mut reader);
    let trace = trace.display();
    let stats = reader.stats();
    assert_eq!(stats.packets, expected.len() as u64, "{trace}");
    assert_eq!(stats.malformed_packets_total(), 0, "{trace}");
    let (mut frame_numbers, mut expected_packets) = (Vec::new(), Vec::new());
    for (index, packet) in expected.into_iter().enumerate() {
        if let Some(packet) = packet {
            frame_numbers.push(index + 1);
            expected_packets.push(packet);
        }
    }
    for ((ours, theirs), frame) in packets.iter().zip(&expected_packets).zip(frame_numbers) {
        assert_eq!(ours, theirs, "{trace}, frame {frame}");
    }
    assert_eq!(packets.len(), expected_packets.len(), "{trace}");
    eprintln!(
        "{trace}: {} packets, {} with a key, as tshark says",
        stats.packets,
        packets.len()
    );
}

/// All packets; the trace must be whole, unless it is known not to be.
fn read_all(reader: &mut TraceReader) -> Vec<TracePacket> {
    let (mut packets, mut cut_at) = (Vec::new(), None);
    for packet in reader.by_ref() {
        match packet {
            Ok(packet) => packets.push(packet),
            Err(error) => {
                assert!(
                    matches!(error.problem, TraceProblem::Truncated { .. }),
                    "{error}"
                );
                cut_at = Some(error.offset);
            }
        }
    }
    let expected = is_cut_short(Path::new(reader.name())).then_some(CUT_SHORT.1);
    assert_eq!(cut_at, expected, "{}", reader.name());
    packets
}

fn is_cut_short(trace: &Path) -> bool {
    trace.file_name().is_some_and(|name| name == CUT_SHORT.0)
}

/// What `tshark` reads from each frame; `None` for frames that are not IP.
fn read_with_tshark(trace: &Path) -> Vec<Option<TracePacket>> {
    let mut command = Command::new("tshark");
    command.args([
        "-n",
        "-T",
        "fields",
        "-E",
        "occurrence=f",
        "-E",
        "separator=/t",
    ]);
    for preference in [
        "ip.defragment:FALSE",
        "ipv6.defragment:FALSE",
        "tcp.desegment_tcp_streams:FALSE",
    ] {
        command.args(["-o", preference]);
    }
    for field in FIELDS.iter().chain([&LAST_FIELD]) {
        command.args(["-e", field]);
    }
    let output = command
        .arg("-r")
        .arg(trace)
        .output()
        .expect("tshark can be run");
    let messages = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        messages.contains("cut short"),
        is_cut_short(trace),
        "{messages}"
    );
    assert_eq!(output.status.success(), !is_cut_short(trace), "{messages}");
    let text = String::from_utf8(output.stdout).expect("tshark writes UTF-8");
    text.lines().map(packet_of_fields).collect()
}

/// The rules of `flowradar_core::packet`, applied to the fields of a line.
fn packet_of_fields(line: &str) -> Option<TracePacket> {
    let values: BTreeMap<&str, &str> = FIELDS
        .into_iter()
        .chain([LAST_FIELD])
        .zip(line.split('\t'))
        .collect();
    let text = |name: &str| values[name];
    let number = |name: &str| -> u32 {
        let text = text(name);
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is {text:?} in {line:?}"))
    };
    let has = |name: &str| !text(name).is_empty();

    // The outermost IP header.
    let outer = text("frame.protocols")
        .split(':')
        .find(|protocol| *protocol == "ip" || *protocol == "ipv6")?;
    let (protocol, is_later_fragment) = if outer == "ip" {
        (number("ip.proto"), number("ip.frag_offset") != 0)
    } else {
        let mut protocol = number("ipv6.nxt");
        while let Some(header) = match protocol {
            0 => Some("ipv6.hopopts.nxt"),
            43 => Some("ipv6.routing.nxt"),
            44 => Some("ipv6.fraghdr.nxt"),
            60 => Some("ipv6.dstopts.nxt"),
            _ => None,
        } {
            protocol = number(header);
        }
        let is_later_fragment = has("ipv6.fraghdr.offset") && number("ipv6.fraghdr.offset") != 0;
        (protocol, is_later_fragment)
    };
    let ports = match (outer, protocol) {
        _ if is_later_fragment => None,
        (_, 6) => Some(("tcp.srcport", "tcp.dstport")),
        (_, 17 | 136) => Some(("udp.srcport", "udp.dstport")),
        (_, 33) => Some(("dccp.srcport", "dccp.dstport")),
        (_, 132) => Some(("sctp.srcport", "sctp.dstport")),
        _ => None,
    };
    let icmp = match (outer, protocol) {
        _ if is_later_fragment => None,
        ("ip", 1) => Some(("icmp.type", "icmp.code")),
        ("ipv6", 58) => Some(("icmpv6.type", "icmpv6.code")),
        _ => None,
    };
    let (src_port, dst_port) = match (ports, icmp) {
        (Some((src, dst)), _) => (number(src) as u16, number(dst) as u16),
        (_, Some((kind, code))) => (0, (number(kind) << 8 | number(code)) as u16),
        _ => (0, 0),
    };
    let (key, ip_bytes) = if outer == "ip" {
        let address = |name| -> Ipv4Addr { text(name).parse().expect("an IPv4 address") };
        let (src, dst) = (address("ip.src"), address("ip.dst"));
        let key = FlowKeyV4::new(src, dst, src_port, dst_port, protocol as u8);
        (TraceKey::V4(key), number("ip.len"))
    } else {
        let address = |name| -> Ipv6Addr { text(name).parse().expect("an IPv6 address") };
        let (src, dst) = (address("ipv6.src"), address("ipv6.dst"));
        let key = FlowKeyV6::new(src, dst, src_port, dst_port, protocol as u8);
        (TraceKey::V6(key), number("ipv6.plen") + 40)
    };
    let (seconds, nanoseconds) = text("frame.time_epoch")
        .split_once('.')
        .expect("seconds with a fraction");
    let seconds: u64 = seconds.parse().expect("seconds");
    let nanoseconds: u64 = nanoseconds.parse().expect("nine digits");
    Some(TracePacket {
        timestamp_ns: Some(seconds * 1_000_000_000 + nanoseconds),
        key,
        ip_bytes: Some(ip_bytes),
    })
}

/// An Ethernet trace of what real traces rarely have.
fn made_trace() -> Vec<u8> {
    let ports = [0x12, 0x34, 0x00, 0x50];
    let udp = [&ports[..], &[0, 12, 0, 0, 1, 2, 3, 4]].concat();
    let tcp = [&ports[..], &[0; 8], &[0x50, 0x02, 4, 0, 0, 0, 0, 0]].concat();
    let sctp = [&ports[..], &[0, 0, 0, 1, 0, 0, 0, 0, 11, 0, 0, 4]].concat();
    let dccp = [
        &ports[..],
        &[4, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0],
    ]
    .concat();
    let unreachable = [&[3, 3, 0, 0, 0, 0, 0, 0][..], &ipv4(17, 0, &udp)].concat();
    let too_big = [&[2, 0, 0, 0, 0, 0, 5, 0][..], &ipv6(17, &udp)].concat();
    let gre = [&[0, 0, 8, 0][..], &ipv4(6, 0, &tcp)].concat();
    let fragment = |offset: u8, more: u8, payload: &[u8]| {
        ipv6(
            44,
            &[&[17, 0, 0, offset << 3 | more, 0, 0, 0, 9], payload].concat(),
        )
    };
    let options = [&[60, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0][..], &tcp].concat();

    let mut frames = vec![
        ethernet(0x0800, &ipv4(17, 0, &udp)),
        ethernet(0x0800, &ipv4(6, 0x4000, &tcp)),
        ethernet(0x0800, &ipv4(132, 0, &sctp)),
        ethernet(0x0800, &ipv4(33, 0, &dccp)),
        ethernet(0x0800, &ipv4(136, 0, &udp)),
        ethernet(0x0800, &ipv4(1, 0, &[8, 0, 0, 0, 0, 1, 0, 1])),
        ethernet(0x0800, &ipv4(1, 0, &unreachable)),
        ethernet(0x0800, &ipv4(17, 0x2000, &udp)),
        ethernet(0x0800, &ipv4(17, 0x2001, &udp)),
        ethernet(0x0800, &ipv4(17, 0x0002, &udp)),
        ethernet(0x0800, &ipv4(1, 0x0002, &udp)),
        ethernet(0x0800, &ipv4(47, 0, &gre)),
        ethernet(0x0800, &ipv4(4, 0, &ipv4(17, 0, &udp))),
        ethernet(0x0800, &ipv4(41, 0, &ipv6(17, &udp))),
        ethernet(0x0800, &ipv4(50, 0, &[7; 24])),
        ethernet(0x0800, &ipv4(89, 0, &[2, 1, 0, 44, 10, 0, 0, 1])),
        ethernet(0x86dd, &ipv6(17, &udp)),
        ethernet(0x86dd, &ipv6(6, &tcp)),
        ethernet(0x86dd, &ipv6(0, &options)),
        ethernet(0x86dd, &ipv6(58, &[135, 0, 0, 0, 0, 0, 0, 0])),
        ethernet(0x86dd, &ipv6(58, &too_big)),
        ethernet(0x86dd, &ipv6(41, &ipv6(6, &tcp))),
        ethernet(0x86dd, &ipv6(4, &ipv4(6, 0, &tcp))),
        ethernet(0x86dd, &ipv6(59, &[])),
        ethernet(0x86dd, &ipv6(50, &[7; 24])),
        ethernet(0x86dd, &fragment(0, 1, &udp)),
        ethernet(0x86dd, &fragment(0, 0, &udp)),
        ethernet(0x86dd, &fragment(1, 1, &udp)),
        ethernet(0x86dd, &fragment(2, 0, &udp)),
        ethernet(0x0806, &[0, 1, 8, 0, 6, 4, 0, 1]),
        ethernet(0x88cc, &[2, 7, 4, 1, 2, 3, 4, 5, 6, 0, 0]),
    ];
    let tags: [&[u8]; 3] = [
        &[0x81, 0x00, 0, 7],
        &[0x88, 0xa8, 0, 7, 0x81, 0x00, 0, 8],
        &[0x91, 0x00, 0, 7, 0x81, 0x00, 0, 8],
    ];
    for tag in tags {
        frames.push([&[2; 12], tag, &[8, 0], &ipv4(6, 0, &tcp)].concat());
        frames.push([&[2; 12], tag, &[0x86, 0xdd], &ipv6(17, &udp)].concat());
    }

    let mut file = Vec::new();
    for field in [0xa1b2_3c4d, 0x0004_0002, 0, 0, 65535, 1] {
        file.extend(u32::to_le_bytes(field));
    }
    for (index, frame) in frames.iter().enumerate() {
        let length = frame.len() as u32;
        for field in [1_700_000_000, index as u32, length, length] {
            file.extend(field.to_le_bytes());
        }
        file.extend(frame);
    }
    file
}

fn ethernet(ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&[2; 12][..], &ether_type.to_be_bytes(), payload].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

fn ipv4(protocol: u8, flags_and_offset: u16, payload: &[u8]) -> Vec<u8> {
    let [flags, offset] = flags_and_offset.to_be_bytes();
    let length = 20 + payload.len() as u8;
    let header = [
        0x45, 0, 0, length, 0, 1, flags, offset, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ];
    [&header, payload].concat()
}

fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = [0x20; 40];
    header[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, payload.len() as u8, next_header, 64]);
    header[39] = 2;
    [&header, payload].concat()
}

fn shared_data() -> Option<PathBuf> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    if data.join("INDEX.md").is_file() {
        return Some(data);
    }
    let _ = writeln!(
        std::io::stderr(),
        "SKIPPED: no real traces in {}",
        data.display()
    );
    None
}

fn tshark_is_there() -> bool {
    let is_there = Command::new("tshark")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success());
    if !is_there {
        let _ = writeln!(std::io::stderr(), "SKIPPED: tshark is not installed");
    }
    is_there
}
