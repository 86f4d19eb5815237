//! Exporters, balancer and collectors in network namespaces: tcpreplay sends real exports, nfcapd stores
//! them, and meanwhile a collector ends, its link goes down or its address goes away, another is added and
//! one removed. Needs root, `ip`, tcpreplay, nfcapd and nfdump.

mod namespaces;
mod peer;
mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Stdio};
use std::rc::Rc;
use std::time::Instant;

use etherparse::PacketBuilder;
use flowradar_balancer::config::{Config, PolicyName, ProbeConfig, SourceAddress};
use flowradar_balancer::engine::AssignmentUnit;
use namespaces::Namespace;
use peer::{Balancer, Nfcapd, Stored, config, difference, missing, netflow_captures};
use support::{Datagram, Process, wait_for, with_templates_first};

/// What the namespaces' interfaces carry, less the headers.
const LONGEST: usize = 8900;
const HEALTH_PORT: u16 = 7000;
/// Replays take some seconds at this rate.
const DATAGRAMS_PER_SECOND: &str = "400";
const HELPER_ADDRESS: &str = "FLOWRADAR_TEST_ADDRESS";
const HELPER_FILE: &str = "FLOWRADAR_TEST_FILE";
const HELPER_COUNT: &str = "FLOWRADAR_TEST_COUNT";

/// How a collector fails.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Failure {
    ProcessEnds,
    LinkGoesDown,
    AddressGoesAway,
}

/// A test of this binary that runs in a namespace and serves another.
fn helper(namespace: &Namespace, name: &str, variables: &[(&str, &str)]) -> Process {
    let program = std::env::current_exe().expect("this test");
    let process = namespace
        .command(&program.to_string_lossy())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .envs(variables.iter().copied())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Process(process.expect("it starts"))
}

#[test]
#[ignore = "serves the other tests: answers health probes"]
fn health_server() {
    let Ok(address) = std::env::var(HELPER_ADDRESS) else {
        return;
    };
    let listener = TcpListener::bind(address).expect("the address is there");
    for stream in listener.incoming() {
        let mut stream = stream.expect("a connection");
        let mut request = [0; 1000];
        let _ = stream.read(&mut request);
        let body = r#"{"load": 0.25}"#;
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
    }
}

#[test]
#[ignore = "serves the other tests: notes datagrams and where they came from"]
fn datagram_receiver() {
    let Ok(address) = std::env::var(HELPER_ADDRESS) else {
        return;
    };
    let count: usize = std::env::var(HELPER_COUNT)
        .expect("a number")
        .parse()
        .expect("a number");
    let file = std::env::var(HELPER_FILE).expect("a file");
    let socket = UdpSocket::bind(address).expect("the address is there");
    std::fs::write(format!("{file}.ready"), "").expect("written");
    let mut notes = String::new();
    let mut buffer = vec![0; 70_000];
    for _ in 0..count {
        let (length, source) = socket.recv_from(&mut buffer).expect("a datagram");
        notes.push_str(&note(source, &buffer[..length]));
    }
    std::fs::write(format!("{file}.new"), notes).expect("written");
    std::fs::rename(format!("{file}.new"), file).expect("renamed");
}

fn note(source: SocketAddr, bytes: &[u8]) -> String {
    let hash = xxhash_rust::xxh3::xxh3_64(bytes);
    format!("{source} {} {hash:016x}\n", bytes.len())
}

/// Gives each exporter an address of the namespace's network.
fn from_namespace(datagrams: Vec<Datagram>, exporter: &Namespace) -> Vec<Datagram> {
    let IpAddr::V4(first) = exporter.address_there() else {
        unreachable!("namespaces have IPv4 addresses");
    };
    let mut addresses = BTreeMap::new();
    let fitting = datagrams
        .into_iter()
        .filter(|(_, bytes)| bytes.len() <= LONGEST);
    let moved = fitting.map(|(source, bytes)| {
        let next = 10 + addresses.len();
        let last = *addresses.entry(source.ip()).or_insert(next);
        let last = u8::try_from(last).expect("not too many exporters");
        let [a, b, c, _] = first.octets();
        let address = Ipv4Addr::new(a, b, c, last);
        (SocketAddr::new(address.into(), source.port()), bytes)
    });
    moved.collect()
}

/// Writes the datagrams as frames to an address here.
fn write_frames(path: &Path, datagrams: &[Datagram], to: SocketAddr, to_hardware: [u8; 6]) {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 4 << 16 | 2, 0, 0, 65_535, 1] {
        file.extend(word.to_le_bytes());
    }
    for (source, bytes) in datagrams {
        let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], to_hardware);
        let ip = match (source.ip(), to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
            (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
            _ => panic!("one family"),
        };
        let mut frame = Vec::new();
        ip.udp(source.port(), to.port())
            .write(&mut frame, bytes)
            .expect("a packet");
        for word in [0, 0, frame.len() as u32, frame.len() as u32] {
            file.extend(word.to_le_bytes());
        }
        file.extend(frame);
    }
    std::fs::write(path, file).expect("written");
}

fn replay(exporter: &Namespace, path: &Path) -> Child {
    let replay = exporter
        .command("tcpreplay")
        .args(["-q", "-p", DATAGRAMS_PER_SECOND, "-i", &exporter.there])
        .arg(path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    replay.expect("tcpreplay starts")
}

fn finish(mut replay: Child) {
    assert!(replay.wait().expect("it ends").success(), "tcpreplay");
}

/// The whole story once; every record must be stored at least once, and none that a single collector
/// would not have.
fn check(test: &str, unit: AssignmentUnit, failure: Failure) {
    if missing(test, &["ip", "tcpreplay", "nfcapd", "nfdump"]) {
        return;
    }
    let captures = netflow_captures(test);
    if captures.is_empty() {
        return;
    }
    let namespace = || Namespace::with_addresses(test);
    let Some(exporter) = namespace() else { return };
    let places: Option<Vec<Rc<Namespace>>> = (0..4).map(|_| namespace().map(Rc::new)).collect();
    let Some(places) = places else { return };
    let datagrams = with_templates_first(&from_namespace(captures, &exporter));
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("exports.pcap");
    let listen = SocketAddr::new(exporter.address_here(), 2055);
    write_frames(&trace, &datagrams, listen, exporter.hardware_address_here());

    let direct = Nfcapd::start_at(listen, None);
    finish(replay(&exporter, &trace));
    let reference = direct.finish();
    assert!(reference.count() > 10_000, "{} records", reference.count());

    let [removed, mut fails, stays, added] =
        [0, 1, 2, 3].map(|place| Nfcapd::start_in(&places[place]));
    let health: Vec<Process> = places
        .iter()
        .map(|place| {
            let address = SocketAddr::new(place.address_there(), HEALTH_PORT).to_string();
            helper(place, "health_server", &[(HELPER_ADDRESS, &address)])
        })
        .collect();
    let mut config = config(&[&removed, &fails, &stays], unit);
    config.listen.addresses = vec![listen];
    config.streams.replay_ms = 4000;
    // Only what is really gone may look so, on a busy machine, too.
    config.health.timeout_ms = 700;
    if failure != Failure::ProcessEnds {
        for (collector, place) in config.collectors.iter_mut().zip(&places) {
            let health = SocketAddr::new(place.address_there(), HEALTH_PORT);
            collector.probe = match failure {
                Failure::LinkGoesDown => ProbeConfig::Tcp {
                    address: Some(health),
                },
                _ => ProbeConfig::Http {
                    url: format!("http://{health}/"),
                    load_field: Some("load".to_owned()),
                },
            };
        }
    }
    let balancer = Balancer::start(config);
    let all_are_up = || {
        let status = balancer.status();
        status.destinations.iter().all(|destination| {
            destination.state == "up"
                && (failure != Failure::AddressGoesAway || destination.reported_load == Some(0.25))
        })
    };
    wait_for("probes are answered", all_are_up);
    let taken_in = || balancer.status().counters.datagrams as usize;
    let part = |quarters: usize| datagrams.len() * quarters / 4;
    let replay = replay(&exporter, &trace);
    wait_for("a quarter is through", || taken_in() >= part(1));
    let failed_at = Instant::now();
    match failure {
        Failure::ProcessEnds => fails.terminate(),
        Failure::LinkGoesDown => {
            assert!(places[1].ip(&["link", "set", &places[1].there, "down"]));
        }
        Failure::AddressGoesAway => {
            assert!(places[1].ip(&["address", "flush", "dev", &places[1].there]));
        }
    }
    wait_for("the failure is noticed", || {
        balancer.status().destinations[1].state == "down"
    });
    let noticed = failed_at.elapsed();
    wait_for("half is through", || taken_in() >= part(2));
    let body = format!(
        r#"{{"name": "added", "address": "{}", "groups": ["collectors"]}}"#,
        added.address
    );
    let (code, text) = balancer.request("POST", "/api/v1/collectors", &body);
    assert_eq!(code, 204, "{text}");
    wait_for("three quarters are through", || taken_in() >= part(3));
    let (code, text) = balancer.request("DELETE", "/api/v1/collectors/collector-1", "");
    assert_eq!(code, 204, "{text}");
    finish(replay);
    wait_for("all is taken in", || taken_in() >= datagrams.len());
    let status = balancer.finish();
    let _ = writeln!(
        std::io::stderr(),
        "{unit:?}, {failure:?}: noticed after {} ms, {} messages sent again",
        noticed.as_millis(),
        status.counters.replayed
    );
    let up_again = (status.events.iter()).find(|event| event.text.contains("up again"));
    assert_eq!(up_again, None, "nothing came back");
    assert_eq!(status.counters.no_collector, 0, "{:#?}", status.events);
    let dropped = status.sockets.iter().map(|socket| socket.kernel_drops);
    assert_eq!(dropped.sum::<u64>(), 0);
    // How much is sent again depends on addresses, which differ from run to run: most of these captures'
    // records name no flow and go where their stream's hash says, all of them or none to the one that failed.
    // That nothing is lost is shown below.
    assert_eq!(status.counters.replay_overflow, 0);

    let mut union = Stored::default();
    if failure != Failure::ProcessEnds {
        fails.terminate();
    }
    union.add(fails.stored());
    for collector in [removed, stays, added] {
        let stored = collector.finish();
        if unit.splits_streams() {
            assert_eq!(stored.sequence_errors, 0, "{unit:?}");
        }
        union.add(stored);
    }
    // nfcapd reckons when an exporter of NetFlow v9 was started from the messages that it got before: with
    // other messages, times are off by a millisecond.
    let (reference, union) = (reference.without_times(), union.without_times());
    let strange = union
        .records
        .keys()
        .find(|record| !reference.records.contains_key(*record));
    let lost = difference(&reference, &union);
    assert!(
        lost.is_empty(),
        "{unit:?}: {lost:#?}; instead: {strange:#?}"
    );
    assert_eq!(strange, None, "{unit:?}");
    drop(health);
}

#[test]
fn a_collector_whose_process_ends() {
    check(
        "a_collector_whose_process_ends",
        AssignmentUnit::Record,
        Failure::ProcessEnds,
    );
}

#[test]
fn a_collector_whose_link_goes_down() {
    check(
        "a_collector_whose_link_goes_down",
        AssignmentUnit::Message,
        Failure::LinkGoesDown,
    );
}

#[test]
fn a_collector_whose_address_goes_away() {
    check(
        "a_collector_whose_address_goes_away",
        AssignmentUnit::Stream,
        Failure::AddressGoesAway,
    );
}

/// The receiver of a copy sees the exporters' addresses and ports, and datagrams of any length whole.
fn check_spoofed(test: &str, is_v6: bool) {
    if missing(test, &["ip", "tcpreplay"]) {
        return;
    }
    let namespace = || Namespace::with_addresses(test);
    let (Some(exporter), Some(receiver)) = (namespace(), namespace()) else {
        return;
    };
    // Smaller than what the exporter sends: the balancer must cut it up.
    assert!(namespaces::ip(&[
        "link",
        "set",
        &receiver.here,
        "mtu",
        "1500"
    ]));
    assert!(receiver.ip(&["link", "set", &receiver.there, "mtu", "1500"]));
    let address = |namespace: &Namespace, here: bool| match (is_v6, here) {
        (true, true) => namespace.v6_here(),
        (true, false) => namespace.v6_there(),
        (false, true) => namespace.address_here(),
        (false, false) => namespace.address_there(),
    };
    let listen = SocketAddr::new(address(&exporter, true), 2055);
    let to = SocketAddr::new(address(&receiver, false), 9996);
    let datagrams: Vec<Datagram> = [72, 73, 1400, 1453, 1473, 3000, LONGEST]
        .into_iter()
        .enumerate()
        .map(|(number, length)| {
            // NetFlow v5 with a record; whatever follows goes along.
            let mut bytes = vec![0, 5, 0, 1];
            bytes.extend((4..length).map(|place| (place * 7) as u8));
            let port = 40_000 + number as u16;
            (SocketAddr::new(address(&exporter, false), port), bytes)
        })
        .collect();
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("exports.pcap");
    write_frames(&trace, &datagrams, listen, exporter.hardware_address_here());
    let notes = folder.path().join("notes");
    let notes_text = notes.to_string_lossy().into_owned();
    let _receiver = helper(
        &receiver,
        "datagram_receiver",
        &[
            (HELPER_ADDRESS, &to.to_string()),
            (HELPER_FILE, &notes_text),
            (HELPER_COUNT, &datagrams.len().to_string()),
        ],
    );
    wait_for("the receiver listens", || {
        folder.path().join("notes.ready").exists()
    });
    let mut config = Config::simple(
        vec![listen],
        &[],
        &[to],
        AssignmentUnit::Stream,
        PolicyName::Rendezvous,
    );
    config.copies[0].source = SourceAddress::Exporter;
    let balancer = Balancer::start(config);
    finish(replay(&exporter, &trace));
    wait_for("all is taken in", || {
        balancer.status().counters.datagrams >= datagrams.len() as u64
    });
    let status = balancer.finish();
    let copy = &status.destinations[0];
    assert_eq!((copy.failed, copy.not_spoofed, copy.datagrams), (0, 0, 7));
    wait_for("all is received", || notes.exists());
    let received = std::fs::read_to_string(&notes).expect("there");
    let mut received: Vec<&str> = received.lines().collect();
    received.sort_unstable();
    let sent: String = datagrams
        .iter()
        .map(|(source, bytes)| note(*source, bytes))
        .collect();
    let mut sent: Vec<&str> = sent.lines().collect();
    sent.sort_unstable();
    assert_eq!(received, sent);
}

#[test]
fn a_copy_with_the_exporters_address_over_ipv6() {
    check_spoofed("a_copy_with_the_exporters_address_over_ipv6", true);
}

#[test]
fn a_copy_with_the_exporters_address_over_ipv4() {
    check_spoofed("a_copy_with_the_exporters_address_over_ipv4", false);
}
