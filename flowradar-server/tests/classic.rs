//! Real exports, decoded here and by tshark.

mod common;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;

use common::skipped;
use flowradar_server::classic::{ClassicRecord, ClassicSource, NetflowDecoder, decode_sflow};
use pcap_parser::{Block, PcapBlockOwned, PcapError, create_reader};

const NOW_NS: u64 = 1_700_000_000_000_000_000;

/// Captures whose records are read as tshark reads them; of sFlow, as many. `docs/collector.md` says what
/// is known of the others.
const SAME: [&str; 11] = [
    "ipfix_juniper_nokia_barracuda.pcap",
    "ipfix_mikrotik_vmware.pcap",
    "ipfix_netscaler_varlen.pcap",
    "ipfix_pmacct100_cisco.pcap",
    "ipfix_pmacct104_cisco_ipv6_sampling.pcap",
    "nf9_akvorado_template_options_data.pcap",
    "nf9_cisco_asr9k.pcap",
    "nf9_fortigate_521.pcap",
    "sflow_akvorado_basic.pcap",
    "sflow_ndpi.pcap",
    "sflow_tcpdump_v6_agent.pcap",
];

/// The UDP datagrams of a capture: where they come from, their destination port, and their contents.
fn datagrams(path: &Path) -> Vec<(SocketAddr, u16, Vec<u8>)> {
    let file = std::fs::File::open(path).expect("it is there");
    let mut reader = create_reader(1 << 20, file).expect("a capture");
    let mut found = vec![];
    let mut ethernet = true;
    loop {
        match reader.next() {
            Ok((offset, block)) => {
                let frame = match &block {
                    PcapBlockOwned::LegacyHeader(header) => {
                        ethernet = header.network.0 == 1;
                        None
                    }
                    PcapBlockOwned::Legacy(block) => Some(block.data),
                    PcapBlockOwned::NG(Block::EnhancedPacket(block)) => Some(block.data),
                    PcapBlockOwned::NG(_) => None,
                };
                found.extend(frame.and_then(|frame| datagram(frame, ethernet)));
                reader.consume(offset);
            }
            Err(PcapError::Eof) => return found,
            Err(PcapError::Incomplete(_)) => reader.refill().expect("it can be read"),
            Err(error) => panic!("{}: {error:?}", path.display()),
        }
    }
}

fn datagram(frame: &[u8], ethernet: bool) -> Option<(SocketAddr, u16, Vec<u8>)> {
    let packet = if ethernet {
        etherparse::SlicedPacket::from_ethernet(frame)
    } else {
        etherparse::SlicedPacket::from_ip(frame)
    };
    let packet = packet.ok()?;
    let etherparse::TransportSlice::Udp(udp) = packet.transport? else {
        return None;
    };
    let from: IpAddr = match packet.net? {
        etherparse::NetSlice::Ipv4(ip) => ip.header().source_addr().into(),
        etherparse::NetSlice::Ipv6(ip) => ip.header().source_addr().into(),
        etherparse::NetSlice::Arp(_) => return None,
    };
    let from = SocketAddr::new(from, udp.source_port());
    Some((from, udp.destination_port(), udp.payload().to_vec()))
}

/// What tshark reads of the flow records in a capture: source addresses, sorted.
fn by_tshark(path: &Path, ports: &[u16], protocol: &str, fields: &[&str]) -> Vec<String> {
    let mut command = Command::new("tshark");
    command.arg("-n").arg("-r").arg(path);
    for port in ports {
        command
            .arg("-d")
            .arg(format!("udp.port=={port},{protocol}"));
    }
    command.args(["-T", "fields", "-E", "separator=,", "-E", "aggregator=,"]);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command.output().expect("it is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    let addresses = text
        .split([',', '\n', '\t'])
        .filter(|address| !address.is_empty());
    let mut addresses: Vec<String> = addresses.map(str::to_owned).collect();
    addresses.sort_unstable();
    addresses
}

fn records(
    datagrams: &[(SocketAddr, u16, Vec<u8>)],
    sflow: bool,
) -> (Vec<ClassicRecord>, u64, u64) {
    let mut netflow = NetflowDecoder::default();
    let (mut records, mut without_template, mut malformed) = (vec![], 0, 0);
    for (from, _, datagram) in datagrams {
        let decoded = if sflow {
            decode_sflow(datagram, NOW_NS)
        } else {
            netflow.decode(*from, datagram, NOW_NS)
        };
        records.extend(decoded.records);
        without_template += decoded.without_template;
        malformed += u64::from(decoded.malformed);
    }
    (records, without_template, malformed)
}

#[test]
fn real_exports_are_read_as_tshark_reads_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/2_export");
    if !folder.is_dir() {
        skipped("../shared/data/2_export is absent: real exports are not tried");
        return;
    }
    if Command::new("tshark").arg("-v").output().is_err() {
        skipped("tshark is not installed: real exports are not compared with it");
        return;
    }
    let mut table = vec![];
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .expect("a folder")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|end| end == "pcap"))
        .collect();
    paths.sort();
    for path in paths {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name")
            .to_owned();
        let datagrams = datagrams(&path);
        let sflow = name.starts_with("sflow");
        let (records, without_template, malformed) = records(&datagrams, sflow);
        let mut ports: Vec<u16> = datagrams.iter().map(|(_, port, _)| *port).collect();
        ports.sort_unstable();
        ports.dedup();
        let expected = if sflow {
            by_tshark(
                &path,
                &ports,
                "sflow",
                &["sflow.flow_sample.sequence_number"],
            )
        } else {
            by_tshark(
                &path,
                &ports,
                "cflow",
                &["cflow.srcaddr", "cflow.srcaddrv6"],
            )
        };
        if SAME.contains(&name.as_str()) {
            assert!(!expected.is_empty(), "{name}");
            let mut found: Vec<String> = records.iter().map(|r| r.flow.src.to_string()).collect();
            found.sort_unstable();
            if sflow {
                assert_eq!(found.len(), expected.len(), "{name}");
            } else {
                assert_eq!(found, expected, "{name}");
            }
        }
        let expected = expected.len();
        let sampled = records
            .iter()
            .filter(|record| record.sampling_rate.is_some())
            .count();
        table.push(format!(
            "| {name} | {} | {} | {expected} | {without_template} | {malformed} | {sampled} |",
            datagrams.len(),
            records.len(),
        ));
        for record in &records {
            assert_eq!(record.source == ClassicSource::Sflow, sflow);
        }
    }
    if std::env::var_os("FLOWRADAR_PRINT").is_some() {
        use std::io::Write;
        _ = writeln!(std::io::stderr(), "{}", table.join("\n"));
    }
}
