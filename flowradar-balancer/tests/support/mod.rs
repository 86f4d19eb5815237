//! What tests share: captures, a collector that trusts nobody, and an output that keeps everything.
#![allow(dead_code, unreachable_pub)]

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use flowradar_balancer::engine::{Outgoing, Output};
use flowradar_balancer::policy::BackEndId;
use pcap_parser::{Linktype, PcapBlockOwned, PcapError, create_reader};

/// A datagram and where it came from.
pub type Datagram = (SocketAddr, Vec<u8>);

/// The folder of export captures, or a loud word that it is absent.
pub fn captures(test: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/2_export");
    if folder.is_dir() {
        return Some(folder);
    }
    skipped(test, "../shared/data/2_export is absent");
    None
}

/// Says that a test does nothing, past cargo's capture.
pub fn skipped(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {why}");
}

/// All captures by name, their datagrams in order.
pub fn all_captures(test: &str) -> Vec<(String, Vec<Datagram>)> {
    let Some(folder) = captures(test) else {
        return Vec::new();
    };
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    let read = paths.into_iter().map(|path| {
        let name = path
            .file_name()
            .expect("a file")
            .to_string_lossy()
            .into_owned();
        let datagrams = if name.ends_with(".ipfix") {
            read_ipfix_file(&path)
        } else {
            read_pcap(&path)
        };
        assert!(!datagrams.is_empty(), "{name} holds no datagrams");
        (name, datagrams)
    });
    read.collect()
}

/// UDP payloads of a capture that are export datagrams; fragments put together.
pub fn read_pcap(path: &Path) -> Vec<Datagram> {
    let file = std::fs::File::open(path).expect("a capture");
    let mut reader = create_reader(1 << 20, file).expect("a pcap header");
    let mut link = Linktype::ETHERNET;
    let mut fragments: HashMap<(IpAddr, u32), Vec<u8>> = HashMap::new();
    let mut datagrams = Vec::new();
    loop {
        match reader.next() {
            Ok((used, block)) => {
                if let PcapBlockOwned::LegacyHeader(header) = &block {
                    link = header.network;
                }
                if let PcapBlockOwned::Legacy(packet) = &block {
                    take_packet(link, packet.data, &mut fragments, &mut datagrams);
                }
                reader.consume(used);
            }
            Err(PcapError::Eof) => return datagrams,
            Err(PcapError::Incomplete(_)) => reader.refill().expect("readable"),
            Err(error) => panic!("{}: {error:?}", path.display()),
        }
    }
}

fn take_packet(
    link: Linktype,
    data: &[u8],
    fragments: &mut HashMap<(IpAddr, u32), Vec<u8>>,
    datagrams: &mut Vec<Datagram>,
) {
    use etherparse::{NetSlice, SlicedPacket};
    let sliced = match link {
        Linktype::ETHERNET => SlicedPacket::from_ethernet(data),
        Linktype::RAW | Linktype::IPV4 | Linktype::IPV6 => SlicedPacket::from_ip(data),
        Linktype::NULL => SlicedPacket::from_ip(&data[4..]),
        Linktype::LINUX_SLL => SlicedPacket::from_ip(&data[16..]),
        other => panic!("link type {other}"),
    };
    let Ok(sliced) = sliced else { return };
    let (source, payload, fragment) = match &sliced.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let fragment = (header.more_fragments() || header.fragments_offset().value() > 0)
                .then(|| (u32::from(header.identification()), header.more_fragments()));
            (
                IpAddr::V4(header.source_addr()),
                ip.payload().payload,
                fragment,
            )
        }
        Some(NetSlice::Ipv6(ip)) => (
            IpAddr::V6(ip.header().source_addr()),
            ip.payload().payload,
            None,
        ),
        _ => return,
    };
    let udp = match fragment {
        None => payload.to_vec(),
        Some((id, more)) => {
            let whole = fragments.entry((source, id)).or_default();
            whole.extend_from_slice(payload);
            if more {
                return;
            }
            fragments.remove(&(source, id)).expect("just there")
        }
    };
    if udp.len() > 8 {
        let port = u16::from_be_bytes([udp[0], udp[1]]);
        let payload = udp[8..].to_vec();
        let version = u16::from_be_bytes([payload[0], *payload.get(1).unwrap_or(&0)]);
        if matches!(version, 5 | 9 | 10) || payload.starts_with(&[0, 0, 0, 5]) {
            datagrams.push((SocketAddr::new(source, port), payload));
        }
    }
}

/// Messages back to back.
fn read_ipfix_file(path: &Path) -> Vec<Datagram> {
    let bytes = std::fs::read(path).expect("a file");
    let mut rest = bytes.as_slice();
    let mut datagrams = Vec::new();
    while rest.len() >= 4 {
        let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        let (message, after) = rest.split_at(length);
        datagrams.push((
            "192.0.2.200:4739".parse().expect("an address"),
            message.to_vec(),
        ));
        rest = after;
    }
    datagrams
}

/// Keeps what is sent.
#[derive(Default)]
pub struct Sent {
    /// In order, with its destination.
    pub datagrams: Vec<(BackEndId, SocketAddr, Vec<u8>)>,
}

impl Output for Sent {
    fn send(&mut self, destination: BackEndId, message: Outgoing<'_>) {
        self.datagrams
            .push((destination, message.source, message.to_vec()));
    }
}

/// Counts what is sent.
#[derive(Default)]
pub struct Counted(pub BTreeMap<BackEndId, u64>);

impl Output for Counted {
    fn send(&mut self, destination: BackEndId, _: Outgoing<'_>) {
        *self.0.entry(destination).or_default() += 1;
    }
}

/// A record as a collector understands it: exporter, protocol, domain, fields, values.
pub type Record = (IpAddr, u16, u32, Vec<u8>, Vec<u8>);

type StreamId = (IpAddr, u16, u32);

/// Whether the template is one of options, and element, length, enterprise of its fields.
type Fields = (bool, Vec<(u16, u16, u32)>);

/// A collector written for tests, on its own reading of the RFCs: it keeps what it can decode and
/// complains of all else.
#[derive(Default)]
pub struct Collector {
    templates: HashMap<(StreamId, u16), Fields>,
    expected: HashMap<StreamId, u32>,
    undecoded: Vec<(StreamId, u16, Vec<u8>)>,
    /// Whether data is kept until its template comes.
    pub is_patient: bool,
    /// Flow records and how often they came.
    pub records: BTreeMap<Record, usize>,
    /// Options records.
    pub options: BTreeMap<Record, usize>,
    /// Breaks in sequence numbers.
    pub sequence_failures: usize,
    /// Data sets without template.
    pub missing_templates: usize,
    /// Messages taken in.
    pub messages: usize,
}

fn be(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | usize::from(*byte))
}

impl Collector {
    pub fn patient() -> Self {
        Self {
            is_patient: true,
            ..Self::default()
        }
    }

    pub fn record_count(&self) -> usize {
        self.records.values().sum()
    }

    pub fn take(&mut self, source: SocketAddr, bytes: &[u8]) {
        self.messages += 1;
        let source = source.ip();
        let version = be(&bytes[..2]) as u16;
        let (stream, sequence, units) = match version {
            5 => {
                let stream = (source, 5, be(&bytes[20..22]) as u32);
                let count = be(&bytes[2..4]);
                for record in bytes[24..].chunks_exact(48).take(count) {
                    self.keep(stream, Vec::new(), record, false);
                }
                (stream, be(&bytes[16..20]), count)
            }
            0 => return self.take_sflow(bytes),
            9 | 10 => {
                let domain = if version == 9 {
                    be(&bytes[16..20])
                } else {
                    be(&bytes[12..16])
                };
                let stream = (source, version, domain as u32);
                let start = if version == 9 { 20 } else { 16 };
                let end = if version == 9 {
                    bytes.len()
                } else {
                    be(&bytes[2..4])
                };
                let data_records = self.take_sets(stream, &bytes[start..end]);
                let sequence = if version == 9 {
                    be(&bytes[12..16])
                } else {
                    be(&bytes[8..12])
                };
                (
                    stream,
                    sequence,
                    if version == 9 { 1 } else { data_records },
                )
            }
            other => panic!("version {other}"),
        };
        self.check_sequence(stream, sequence as u32, units as u32);
    }

    fn check_sequence(&mut self, stream: StreamId, sequence: u32, units: u32) {
        if self
            .expected
            .get(&stream)
            .is_some_and(|expected| *expected != sequence)
        {
            self.sequence_failures += 1;
        }
        self.expected.insert(stream, sequence.wrapping_add(units));
    }

    fn take_sflow(&mut self, bytes: &[u8]) {
        let after = if be(&bytes[4..8]) == 1 { 12 } else { 24 };
        // The agent is the exporter.
        let agent: IpAddr = match <[u8; 4]>::try_from(&bytes[8..after]) {
            Ok(octets) => octets.into(),
            Err(_) => <[u8; 16]>::try_from(&bytes[8..after])
                .expect("16 bytes")
                .into(),
        };
        let stream = (agent, 0, be(&bytes[after..after + 4]) as u32);
        self.check_sequence(stream, be(&bytes[after + 4..after + 8]) as u32, 1);
        let mut offset = after + 16;
        for _ in 0..be(&bytes[after + 12..after + 16]) {
            let length = 8 + be(&bytes[offset + 4..offset + 8]);
            self.keep(stream, Vec::new(), &bytes[offset..offset + length], false);
            offset += length;
        }
    }

    fn keep(&mut self, stream: StreamId, fields: Vec<u8>, record: &[u8], is_options: bool) {
        let kept = (stream.0, stream.1, stream.2, fields, record.to_vec());
        let records = if is_options {
            &mut self.options
        } else {
            &mut self.records
        };
        *records.entry(kept).or_default() += 1;
    }

    fn take_sets(&mut self, stream: StreamId, mut rest: &[u8]) -> usize {
        let mut data_records = 0;
        while rest.len() >= 4 {
            let (id, length) = (be(&rest[..2]), be(&rest[2..4]));
            if length < 4 || length > rest.len() {
                break;
            }
            let (set, after) = rest.split_at(length);
            rest = after;
            match (stream.1, id) {
                (9, 0) | (10, 2) => self.take_templates(stream, &set[4..], false),
                (9, 1) | (10, 3) => self.take_templates(stream, &set[4..], true),
                (_, 256..) => match self.take_data(stream, id as u16, &set[4..]) {
                    Some(count) => data_records += count,
                    None if self.is_patient => {
                        self.undecoded.push((stream, id as u16, set[4..].to_vec()))
                    }
                    None => self.missing_templates += 1,
                },
                _ => break,
            }
        }
        data_records
    }

    fn take_templates(&mut self, stream: StreamId, mut rest: &[u8], is_options: bool) {
        while rest.len() >= 4 && rest.iter().any(|byte| *byte != 0) {
            let id = be(&rest[..2]) as u16;
            let mut count = be(&rest[2..4]);
            let mut offset = 4;
            if is_options {
                offset = 6;
                if stream.1 == 9 {
                    count = (count + be(&rest[4..6])) / 4;
                }
            }
            if count == 0 {
                self.templates.remove(&(stream, id));
                rest = &rest[4..];
                continue;
            }
            let mut fields = Vec::new();
            for _ in 0..count {
                if offset + 4 > rest.len() {
                    return;
                }
                let (mut element, length) = (
                    be(&rest[offset..offset + 2]) as u16,
                    be(&rest[offset + 2..offset + 4]) as u16,
                );
                offset += 4;
                let mut enterprise = 0;
                if stream.1 == 10 && element & 0x8000 != 0 {
                    element &= 0x7fff;
                    enterprise = be(&rest[offset..offset + 4]) as u32;
                    offset += 4;
                }
                fields.push((element, length, enterprise));
            }
            rest = &rest[offset..];
            self.templates.insert((stream, id), (is_options, fields));
            let waiting = std::mem::take(&mut self.undecoded);
            for (stream, id, body) in waiting {
                if self.take_data(stream, id, &body).is_none() {
                    self.undecoded.push((stream, id, body));
                }
            }
        }
    }

    fn take_data(&mut self, stream: StreamId, id: u16, mut rest: &[u8]) -> Option<usize> {
        let (is_options, fields) = self.templates.get(&(stream, id))?.clone();
        let is_variable = |length: u16| stream.1 == 10 && length == 0xffff;
        let least: usize = fields
            .iter()
            .map(|(_, length, _)| {
                if is_variable(*length) {
                    1
                } else {
                    usize::from(*length)
                }
            })
            .sum();
        let names: Vec<u8> = fields
            .iter()
            .flat_map(|(element, length, enterprise)| {
                [
                    element.to_be_bytes().to_vec(),
                    length.to_be_bytes().to_vec(),
                    enterprise.to_be_bytes().to_vec(),
                ]
                .concat()
            })
            .collect();
        let mut count = 0;
        while least > 0 && rest.len() >= least {
            let mut end = 0;
            for (_, length, _) in &fields {
                end += if !is_variable(*length) {
                    usize::from(*length)
                } else if *rest.get(end)? == 255 {
                    3 + be(rest.get(end + 1..end + 3)?)
                } else {
                    1 + usize::from(rest[end])
                };
            }
            if end > rest.len() {
                break;
            }
            self.keep(stream, names.clone(), &rest[..end], is_options);
            count += 1;
            rest = &rest[end..];
        }
        Some(count)
    }
}

/// A plan with one group of so many collectors, and everything in it.
pub fn plan(
    collectors: u16,
    unit: flowradar_balancer::engine::AssignmentUnit,
) -> flowradar_balancer::engine::EnginePlan {
    use flowradar_balancer::engine::{EnginePlan, GroupPlan, RoutePlan};
    use flowradar_balancer::policy::{BackEndSettings, BalancerSettings};
    EnginePlan {
        groups: vec![GroupPlan {
            name: "core".to_owned(),
            balancer: BalancerSettings::default(),
            unit,
            members: (0..collectors)
                .map(|id| BackEndSettings::new(BackEndId(id), format!("collector {id}")))
                .collect(),
        }],
        routes: vec![RoutePlan {
            name: "all".to_owned(),
            prefixes: vec![
                "0.0.0.0/0".parse().expect("a prefix"),
                "::/0".parse().expect("a prefix"),
            ],
            group: Some(0),
        }],
        // The collectors of tests see the exporters' addresses.
        keeps_source: (0..64).map(BackEndId).collect(),
        ..EnginePlan::default()
    }
}

/// A child process that does not outlive its test.
pub struct Process(pub std::process::Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether a program is installed.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(extra)
        .any(|folder| folder.join(program).is_file())
}

/// Waits for something that other processes do, at most half a minute.
pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !is_so() {
        assert!(started.elapsed().as_secs() < 30, "waited in vain: {what}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Puts data behind the template that it needs, as far as there is one.
pub fn with_templates_first(datagrams: &[Datagram]) -> Vec<Datagram> {
    let mut known = std::collections::HashSet::new();
    let mut ordered = Vec::new();
    let mut late: Vec<Datagram> = Vec::new();
    for (source, bytes) in datagrams {
        let version = be(&bytes[..2]);
        if !matches!(version, 9 | 10) {
            ordered.push((*source, bytes.clone()));
            continue;
        }
        let is_ready = |bytes: &[u8],
                        known: &std::collections::HashSet<(IpAddr, usize, usize, usize)>,
                        source: IpAddr| {
            let (_, needs, domain, version) = ids(bytes);
            needs
                .iter()
                .all(|id| known.contains(&(source, version, domain, *id)))
        };
        let (defines, _, domain, _) = ids(bytes);
        let mut is_new = false;
        for id in &defines {
            is_new |= known.insert((source.ip(), version, domain, *id));
        }
        if is_ready(bytes, &known, source.ip()) {
            ordered.push((*source, bytes.clone()));
        } else {
            late.push((*source, bytes.clone()));
        }
        if is_new {
            let (ready, still) = late
                .into_iter()
                .partition(|(source, bytes)| is_ready(bytes, &known, source.ip()));
            ordered.extend::<Vec<Datagram>>(ready);
            late = still;
        }
    }
    ordered.extend(late);
    ordered
}

/// Templates that a message defines, and those that it needs beyond these; its domain and version.
fn ids(bytes: &[u8]) -> (Vec<usize>, Vec<usize>, usize, usize) {
    let version = be(&bytes[..2]);
    let (domain, mut rest) = if version == 9 {
        (be(&bytes[16..20]), &bytes[20..])
    } else {
        (be(&bytes[12..16]), &bytes[16..be(&bytes[2..4])])
    };
    let (mut defines, mut needs) = (Vec::new(), Vec::new());
    while rest.len() >= 4 {
        let (id, length) = (be(&rest[..2]), be(&rest[2..4]));
        if length < 4 || length > rest.len() {
            break;
        }
        let mut body = &rest[4..length];
        rest = &rest[length..];
        if id >= 256 {
            needs.push(id);
            continue;
        }
        let is_options = matches!(id, 1 | 3);
        while body.len() >= 4 && body.iter().any(|byte| *byte != 0) {
            defines.push(be(&body[..2]));
            let mut count = be(&body[2..4]);
            let mut offset = 4;
            if is_options {
                offset = 6;
                if version == 9 {
                    count = (count + be(&body[4..6])) / 4;
                }
            }
            for _ in 0..count {
                offset += if version == 10 && body.get(offset).is_some_and(|byte| byte & 0x80 != 0)
                {
                    8
                } else {
                    4
                };
            }
            body = body.get(offset..).unwrap_or(&[]);
        }
    }
    (defines, needs, domain, version)
}
