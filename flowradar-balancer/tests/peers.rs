//! Real collectors and exporters: nfcapd and softflowd, where they are installed.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use flowradar_balancer::config::{ApiConfig, Config, PolicyName};
use flowradar_balancer::engine::AssignmentUnit;
use flowradar_balancer::io::{Service, ServiceOptions, Status};
use support::{
    Datagram, Process, all_captures, is_installed, skipped, wait_for, with_templates_first,
};
use tempfile::TempDir;

/// A collector of the nfdump tools.
struct Nfcapd {
    process: Process,
    folder: TempDir,
    log: PathBuf,
    address: SocketAddr,
}

/// What a collector has stored.
#[derive(Debug, Default)]
struct Stored {
    /// Records without what depends on who sent them and when, and how often they came.
    records: BTreeMap<String, usize>,
    sequence_errors: u64,
}

impl Stored {
    fn add(&mut self, other: Self) {
        for (record, count) in other.records {
            *self.records.entry(record).or_default() += count;
        }
        self.sequence_errors += other.sequence_errors;
    }

    fn count(&self) -> usize {
        self.records.values().sum()
    }
}

fn free_port() -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.local_addr().expect("an address")
}

impl Nfcapd {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let flows = folder.path().join("flows");
        fs::create_dir(&flows).expect("a folder");
        let log = folder.path().join("log");
        let address = free_port();
        let output = fs::File::create(&log).expect("a log");
        let process = Command::new("nfcapd")
            .args(["-b", "127.0.0.1", "-t", "86400", "-B", "16000000", "-p"])
            .arg(address.port().to_string())
            .arg("-w")
            .arg(&flows)
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .expect("nfcapd starts");
        let started = Self {
            process: Process(process),
            folder,
            log,
            address,
        };
        wait_for("nfcapd starts", || started.log().contains("Startup"));
        started
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it as an operator would, and reads what it stored.
    fn finish(mut self) -> Stored {
        wait_until_idle(self.address);
        self.terminate();
        self.stored()
    }

    fn terminate(&mut self) {
        let id = self.process.0.id().to_string();
        let killed = Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .expect("kill");
        assert!(killed.success());
        self.process.0.wait().expect("nfcapd ends");
    }

    fn stored(&self) -> Stored {
        self.stored_but(&[
            "\"received\"",
            "\"export_sysid\"",
            "\"ip4_router\"",
            "\"ip6_router\"",
            "\"engine_",
            // A substitute where exporters share the balancer's address.
            "\"observationDoaminID\"",
        ])
    }

    /// What is stored, without these fields.
    fn stored_but(&self, volatile: &[&str]) -> Stored {
        let log = self.log();
        let errors = log.split("Sequence Errors: ").skip(1);
        let errors = errors.map(|rest| {
            rest.split(',')
                .next()
                .unwrap_or("")
                .parse::<u64>()
                .expect("a number")
        });
        let output = Command::new("nfdump")
            .arg("-R")
            .arg(self.folder.path().join("flows"))
            .args(["-o", "json"])
            .output()
            .expect("nfdump runs");
        let mut stored = Stored {
            sequence_errors: errors.sum(),
            ..Stored::default()
        };
        let text = String::from_utf8_lossy(&output.stdout);
        for record in text.split("\n{").skip(1) {
            let lines = record
                .lines()
                .filter(|line| !volatile.iter().any(|name| line.contains(name)));
            let lines: Vec<&str> = lines
                .map(|line| line.trim().trim_end_matches(','))
                .filter(|line| line.contains(':'))
                .collect();
            *stored.records.entry(lines.join("\n")).or_default() += 1;
        }
        stored
    }
}

/// Waits until a socket's receive queue is empty.
fn wait_until_idle(address: SocketAddr) {
    let port = format!(":{:04X}", address.port());
    wait_for("nfcapd reads its socket", || {
        let table = fs::read_to_string("/proc/net/udp").expect("a table");
        let queues = table.lines().filter(|line| {
            line.split_whitespace()
                .nth(1)
                .is_some_and(|local| local.ends_with(&port))
        });
        let mut queues = queues.filter_map(|line| line.split_whitespace().nth(4));
        queues.all(|queue| queue.ends_with(":00000000"))
    });
    std::thread::sleep(Duration::from_millis(300));
}

/// A balancer in this process.
struct Balancer {
    address: SocketAddr,
    api: SocketAddr,
    thread: JoinHandle<Status>,
    stop: tokio::sync::oneshot::Sender<()>,
    _token: TempDir,
}

const TOKEN: &str = "a token for tests only";

impl Balancer {
    fn start(mut config: Config) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let token_file = folder.path().join("token");
        fs::write(&token_file, TOKEN).expect("written");
        config.api = Some(ApiConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            token_file: Some(token_file),
            token_for_reading: false,
        });
        config.listen.workers = 2;
        let service = Service::start(ServiceOptions {
            config,
            config_path: None,
        });
        let service = service.expect("the balancer starts");
        let address = service.addresses()[0];
        let api = service.api_address().expect("an interface");
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let stopped = async {
                let _ = stopped.await;
            };
            runtime.block_on(service.run(stopped)).expect("it runs")
        });
        Self {
            address,
            api,
            thread,
            stop,
            _token: folder,
        }
    }

    fn request(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.api).expect("connected");
        let request = format!(
            "{method} {path} HTTP/1.0\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        (
            head.split_whitespace()
                .nth(1)
                .expect("a status")
                .parse()
                .expect("a number"),
            body.to_owned(),
        )
    }

    fn status(&self) -> Status {
        let (code, body) = self.request("GET", "/api/v1/status", "");
        assert_eq!(code, 200);
        serde_json::from_str(&body).expect("a status")
    }

    fn finish(self) -> Status {
        self.stop.send(()).expect("it runs");
        self.thread.join().expect("it ends")
    }
}

/// Sends datagrams, each exporter from a loopback address of its own, slowly enough for anybody.
fn send(datagrams: &[Datagram], to: SocketAddr) {
    let mut sockets = BTreeMap::new();
    for (index, (source, bytes)) in datagrams.iter().enumerate() {
        let socket = sockets.entry(*source).or_insert_with(|| {
            let socket = UdpSocket::bind((source.ip(), 0)).expect("a loopback address");
            socket.connect(to).expect("connected");
            socket
        });
        socket.send(bytes).expect("sent");
        if index % 16 == 15 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// All captures that nfcapd understands, one after the other; each exporter of each capture has a
/// loopback address of its own.
fn netflow_captures(test: &str) -> Vec<Datagram> {
    let mut all = Vec::new();
    for (number, (name, datagrams)) in all_captures(test).into_iter().enumerate() {
        if name.starts_with("sflow") {
            continue;
        }
        let mut exporters = BTreeMap::new();
        for (mut source, mut bytes) in datagrams {
            // nfcapd goes by the length of the datagram where the header says less. By record, what is
            // behind the end is not there: one v5 datagram announces 2 records and holds 35, one
            // IPFIX message is two bytes shorter than its last set.
            let announced = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
            match bytes[1] {
                5 => bytes.truncate(24 + 48 * announced),
                10 if announced != bytes.len() => continue,
                _ => {}
            }
            let count = exporters.len() as u8;
            let own = *exporters.entry(source.ip()).or_insert(count);
            source.set_ip(Ipv4Addr::new(127, 100, number as u8, own + 1).into());
            all.push((source, bytes));
        }
    }
    all
}

/// Raw sockets need privileges.
fn may_spoof() -> bool {
    let raw = socket2::Socket::new(
        socket2::Domain::IPV4,
        socket2::Type::RAW,
        Some(socket2::Protocol::UDP),
    );
    raw.is_ok()
}

fn config(collectors: &[&Nfcapd], unit: AssignmentUnit) -> Config {
    let addresses: Vec<SocketAddr> = collectors
        .iter()
        .map(|collector| collector.address)
        .collect();
    let listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
    let mut config = Config::simple(listen, &addresses, &[], unit, PolicyName::Rendezvous);
    // nfcapd's own count leaves options out.
    config.streams.ipfix_counts_options = false;
    config
}

fn missing(test: &str, programs: &[&str]) -> bool {
    for program in programs {
        if !is_installed(program) {
            skipped(test, &format!("{program} is not installed"));
            return true;
        }
    }
    false
}

fn stored_directly(datagrams: &[Datagram]) -> Stored {
    let collector = Nfcapd::start();
    send(datagrams, collector.address);
    collector.finish()
}

fn difference(left: &Stored, right: &Stored) -> Vec<String> {
    let more = left
        .records
        .iter()
        .filter(|(record, count)| right.records.get(*record).copied().unwrap_or(0) < **count);
    more.take(2)
        .map(|(record, count)| {
            format!(
                "{count} times, not {}: {record}",
                right.records.get(record).copied().unwrap_or(0)
            )
        })
        .collect()
}

#[test]
fn three_nfcapd_store_what_one_does() {
    let test = "three_nfcapd_store_what_one_does";
    if missing(test, &["nfcapd", "nfdump"]) {
        return;
    }
    let datagrams = netflow_captures(test);
    if datagrams.is_empty() {
        return;
    }
    let reference = stored_directly(&datagrams);
    let patient = stored_directly(&with_templates_first(&datagrams));
    assert!(
        patient.count() > reference.count() && reference.count() > 10_000,
        "{} {}",
        patient.count(),
        reference.count()
    );
    for unit in [
        AssignmentUnit::Exporter,
        AssignmentUnit::Stream,
        AssignmentUnit::Message,
        AssignmentUnit::Record,
    ] {
        let collectors = [Nfcapd::start(), Nfcapd::start(), Nfcapd::start()];
        let balancer = Balancer::start(config(&collectors.each_ref(), unit));
        send(&datagrams, balancer.address);
        wait_for("all datagrams are taken in", || {
            balancer.status().counters.datagrams >= datagrams.len() as u64
        });
        let status = balancer.finish();
        for destination in &status.destinations {
            assert_eq!(
                (
                    destination.refused,
                    destination.failed,
                    destination.queue_dropped_datagrams
                ),
                (0, 0, 0)
            );
            assert!(
                destination.records > 0,
                "{unit:?}: {} got nothing",
                destination.name
            );
        }
        let mut union = Stored::default();
        for collector in collectors {
            let stored = collector.finish();
            if unit.splits_streams() {
                assert_eq!(stored.sequence_errors, 0, "{unit:?}");
            }
            union.add(stored);
        }
        let expected = if unit.splits_streams() {
            &patient
        } else {
            &reference
        };
        assert!(
            union.records == expected.records,
            "{unit:?}: {} records instead of {}; missing {:#?}; too many {:#?}",
            union.count(),
            expected.count(),
            difference(expected, &union),
            difference(&union, expected)
        );
        if !unit.splits_streams() {
            assert_eq!(
                union.sequence_errors, reference.sequence_errors,
                "{unit:?}: gaps stay what they are"
            );
        }
    }
}

/// With the exporters' addresses, nothing at all differs: addresses, domains, numbers.
#[test]
fn spoofed_exports_are_stored_as_if_they_came_from_the_exporters() {
    let test = "spoofed_exports_are_stored_as_if_they_came_from_the_exporters";
    if missing(test, &["nfcapd", "nfdump"]) {
        return;
    }
    if !may_spoof() {
        skipped(test, "raw sockets need CAP_NET_RAW");
        return;
    }
    let datagrams = netflow_captures(test);
    if datagrams.is_empty() {
        return;
    }
    let all = |collector: Nfcapd| {
        wait_until_idle(collector.address);
        let mut collector = collector;
        collector.terminate();
        let stored = collector.stored_but(&["\"received\"", "\"export_sysid\""]);
        assert!(stored.count() > 10_000, "{}", collector.log());
        stored
    };
    let collector = Nfcapd::start();
    send(&datagrams, collector.address);
    let reference = all(collector);
    let collector = Nfcapd::start();
    let mut config = config(&[&collector], AssignmentUnit::Stream);
    config.collectors[0].source = flowradar_balancer::config::SourceAddress::Exporter;
    let balancer = Balancer::start(config);
    send(&datagrams, balancer.address);
    wait_for("all datagrams are taken in", || {
        balancer.status().counters.datagrams >= datagrams.len() as u64
    });
    let status = balancer.finish();
    assert_eq!(
        (
            status.destinations[0].failed,
            status.destinations[0].not_spoofed
        ),
        (0, 0)
    );
    let stored = all(collector);
    assert!(
        stored.records == reference.records,
        "{:#?}",
        difference(&reference, &stored)
    );
    assert_eq!(stored.sequence_errors, reference.sequence_errors);
}

/// While datagrams flow, one collector dies, one is added and one removed through the HTTP interface.
/// With replay, every record is stored at least once.
#[test]
fn nothing_is_lost_when_a_collector_dies() {
    let test = "nothing_is_lost_when_a_collector_dies";
    if missing(test, &["nfcapd", "nfdump"]) {
        return;
    }
    let datagrams = with_templates_first(&netflow_captures(test));
    if datagrams.is_empty() {
        return;
    }
    let reference = stored_directly(&datagrams);
    for unit in [
        AssignmentUnit::Stream,
        AssignmentUnit::Message,
        AssignmentUnit::Record,
    ] {
        let [removed, mut dies, stays, added] = [(); 4].map(|()| Nfcapd::start());
        let mut config = config(&[&removed, &dies, &stays], unit);
        config.streams.replay_ms = 3000;
        let balancer = Balancer::start(config);
        let quarter = datagrams.len() / 4;
        send(&datagrams[..quarter], balancer.address);
        wait_until_idle(balancer.address);
        dies.terminate();
        send(&datagrams[quarter..2 * quarter], balancer.address);
        wait_for("the failure is noticed", || {
            balancer.status().destinations[1].state == "down"
        });
        let body = format!(
            r#"{{"name": "added", "address": "{}", "groups": ["collectors"]}}"#,
            added.address
        );
        let (code, text) = balancer.request("POST", "/api/v1/collectors", &body);
        assert_eq!(code, 204, "{text}");
        send(&datagrams[2 * quarter..3 * quarter], balancer.address);
        let (code, text) = balancer.request("DELETE", "/api/v1/collectors/collector-1", "");
        assert_eq!(code, 204, "{text}");
        send(&datagrams[3 * quarter..], balancer.address);
        wait_for("all datagrams are taken in", || {
            balancer.status().counters.datagrams >= datagrams.len() as u64
        });
        let status = balancer.finish();
        assert!(
            status
                .events
                .iter()
                .any(|event| event.text.contains("is down")),
            "{:?}",
            status.events
        );
        let mut union = dies.stored();
        for collector in [removed, stays, added] {
            let stored = collector.finish();
            if unit.splits_streams() {
                assert_eq!(stored.sequence_errors, 0, "{unit:?}");
            }
            union.add(stored);
        }
        let lost = difference(&reference, &union);
        assert!(lost.is_empty(), "{unit:?}: {lost:#?}");
    }
}

/// Flows of a packet trace, exported by softflowd, in each of its formats.
#[test]
fn softflowd_through_the_balancer() {
    let test = "softflowd_through_the_balancer";
    if missing(test, &["nfcapd", "nfdump", "softflowd"]) {
        return;
    }
    let trace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/3_tcp/netflix.pcap");
    if !trace.is_file() {
        skipped(test, "../shared/data/3_tcp is absent");
        return;
    }
    let export = |version: &str, to: SocketAddr| {
        let exported = Command::new("softflowd")
            .args(["-d", "-v", version, "-n", &to.to_string(), "-r"])
            .arg(&trace)
            .output();
        assert!(exported.expect("softflowd runs").status.success());
    };
    for version in ["5", "9", "10"] {
        let collector = Nfcapd::start();
        export(version, collector.address);
        let reference = collector.finish();
        assert!(
            reference.count() > 50,
            "softflowd -v {version}: {} records",
            reference.count()
        );
        let collectors = [Nfcapd::start(), Nfcapd::start(), Nfcapd::start()];
        let balancer = Balancer::start(config(&collectors.each_ref(), AssignmentUnit::Record));
        export(version, balancer.address);
        wait_for("records are taken in", || {
            balancer.status().counters.records >= reference.count() as u64
        });
        balancer.finish();
        let mut union = Stored::default();
        for collector in collectors {
            let stored = collector.finish();
            assert!(stored.count() > 0, "one collector got nothing");
            assert_eq!(stored.sequence_errors, 0, "softflowd -v {version}");
            union.add(stored);
        }
        // Start times are relative to when softflowd began: flows are compared without.
        let timeless = |stored: &Stored| {
            let mut flows = BTreeMap::new();
            for (record, count) in &stored.records {
                let lines: Vec<&str> = record
                    .lines()
                    .filter(|line| !line.starts_with("\"first\"") && !line.starts_with("\"last\""))
                    .collect();
                *flows.entry(lines.join("\n")).or_insert(0) += count;
            }
            flows
        };
        assert!(
            timeless(&union) == timeless(&reference),
            "softflowd -v {version}"
        );
    }
}

/// Metrics are well-formed, and what changes something needs the token.
#[test]
fn the_interface_tells_and_guards() {
    let collector = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let address = collector.local_addr().expect("an address");
    let listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
    let config = Config::simple(
        listen,
        &[address],
        &[],
        AssignmentUnit::Stream,
        PolicyName::LeastLoaded,
    );
    let balancer = Balancer::start(config);
    let (code, text) = balancer.request("GET", "/metrics", "");
    assert_eq!(code, 200);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').expect("a sample");
        assert!(name.starts_with("flowradar_balancer_"), "{line}");
        value.parse::<f64>().expect("a number");
    }
    assert!(text.contains("flowradar_balancer_kernel_drops_total{"));
    let mut stream = TcpStream::connect(balancer.api).expect("connected");
    stream
        .write_all(b"POST /api/v1/reload HTTP/1.0\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
        .expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(
        answer.starts_with("HTTP/1.0 401") || answer.starts_with("HTTP/1.1 401"),
        "{answer}"
    );
    assert_eq!(
        balancer.request("POST", "/api/v1/reload", "").0,
        409,
        "there is no file"
    );
    assert_eq!(
        balancer
            .request("POST", "/api/v1/collectors/nobody/drain", "")
            .0,
        404
    );
    assert_eq!(
        balancer
            .request("POST", "/api/v1/collectors/collector-1/drain", "")
            .0,
        204
    );
    assert_eq!(balancer.status().destinations[0].state, "draining");
    balancer.finish();
}
