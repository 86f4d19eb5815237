//! Real collectors, and a balancer in front of them.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::Duration;

use flowradar_balancer::config::{ApiConfig, Config, PolicyName};
use flowradar_balancer::engine::AssignmentUnit;
use flowradar_balancer::io::{Service, ServiceOptions, Status};
use tempfile::TempDir;

use crate::namespaces::Namespace;
use crate::support::{Datagram, Process, all_captures, is_installed, skipped, wait_for};

/// A collector of the nfdump tools.
pub struct Nfcapd {
    process: Process,
    folder: TempDir,
    log: PathBuf,
    /// Where it listens.
    pub address: SocketAddr,
    /// The namespace that it runs in, if it does.
    namespace: Option<Rc<Namespace>>,
}

/// What a collector has stored.
#[derive(Debug, Default)]
pub struct Stored {
    /// Records without what depends on who sent them and when, and how often they came.
    pub records: BTreeMap<String, usize>,
    /// As the collector counts them.
    pub sequence_errors: u64,
}

impl Stored {
    pub fn add(&mut self, other: Self) {
        for (record, count) in other.records {
            *self.records.entry(record).or_default() += count;
        }
        self.sequence_errors += other.sequence_errors;
    }

    /// The same without the times of flows.
    pub fn without_times(&self) -> Self {
        let mut without = Self {
            sequence_errors: self.sequence_errors,
            ..Self::default()
        };
        for (record, count) in &self.records {
            let lines: Vec<&str> = record
                .lines()
                .filter(|line| !line.starts_with("\"first\"") && !line.starts_with("\"last\""))
                .collect();
            *without.records.entry(lines.join("\n")).or_default() += count;
        }
        without
    }

    pub fn count(&self) -> usize {
        self.records.values().sum()
    }
}

pub fn free_port() -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.local_addr().expect("an address")
}

impl Nfcapd {
    pub fn start() -> Self {
        Self::start_at(free_port(), None)
    }

    /// In a namespace.
    pub fn start_in(namespace: &Rc<Namespace>) -> Self {
        let address = SocketAddr::new(namespace.address_there(), 9995);
        Self::start_at(address, Some(Rc::clone(namespace)))
    }

    pub fn start_at(address: SocketAddr, namespace: Option<Rc<Namespace>>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let flows = folder.path().join("flows");
        fs::create_dir(&flows).expect("a folder");
        let log = folder.path().join("log");
        let output = fs::File::create(&log).expect("a log");
        let command = match &namespace {
            // `ip netns exec` becomes the command: signals reach it.
            Some(namespace) => namespace.command("nfcapd"),
            None => Command::new("nfcapd"),
        };
        let process = { command }
            .args(["-t", "86400", "-B", "16000000", "-b"])
            .arg(address.ip().to_string())
            .arg("-p")
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
            namespace,
        };
        wait_for("nfcapd starts", || started.log().contains("Startup"));
        started
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it as an operator would, and reads what it stored.
    pub fn finish(mut self) -> Stored {
        self.wait_until_idle();
        self.terminate();
        self.stored()
    }

    /// Waits until it has read what was sent to it.
    pub fn wait_until_idle(&self) {
        wait_until_idle(self.address, self.namespace.as_deref());
    }

    pub fn terminate(&mut self) {
        let id = self.process.0.id().to_string();
        let killed = Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .expect("kill");
        assert!(killed.success());
        self.process.0.wait().expect("nfcapd ends");
    }

    pub fn stored(&self) -> Stored {
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
    pub fn stored_but(&self, volatile: &[&str]) -> Stored {
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
pub fn wait_until_idle(address: SocketAddr, namespace: Option<&Namespace>) {
    let port = format!(":{:04X}", address.port());
    wait_for("the socket is read", || {
        let table = match namespace {
            None => fs::read_to_string("/proc/net/udp").expect("a table"),
            Some(namespace) => {
                let table = namespace.command("cat").arg("/proc/net/udp").output();
                String::from_utf8_lossy(&table.expect("a table").stdout).into_owned()
            }
        };
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
pub struct Balancer {
    pub address: SocketAddr,
    pub api: SocketAddr,
    thread: JoinHandle<Status>,
    stop: tokio::sync::oneshot::Sender<()>,
    _token: TempDir,
}

const TOKEN: &str = "a token for tests only";

impl Balancer {
    pub fn start(mut config: Config) -> Self {
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

    pub fn request(&self, method: &str, path: &str, body: &str) -> (u16, String) {
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

    pub fn status(&self) -> Status {
        let (code, body) = self.request("GET", "/api/v1/status", "");
        assert_eq!(code, 200);
        serde_json::from_str(&body).expect("a status")
    }

    pub fn finish(self) -> Status {
        self.stop.send(()).expect("it runs");
        self.thread.join().expect("it ends")
    }
}

/// Sends datagrams, each exporter from a loopback address of its own, slowly enough for anybody.
pub fn send(datagrams: &[Datagram], to: SocketAddr) {
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
pub fn netflow_captures(test: &str) -> Vec<Datagram> {
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
pub fn may_spoof() -> bool {
    let raw = socket2::Socket::new(
        socket2::Domain::IPV4,
        socket2::Type::RAW,
        Some(socket2::Protocol::UDP),
    );
    raw.is_ok()
}

pub fn config(collectors: &[&Nfcapd], unit: AssignmentUnit) -> Config {
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

pub fn missing(test: &str, programs: &[&str]) -> bool {
    for program in programs {
        if !is_installed(program) {
            skipped(test, &format!("{program} is not installed"));
            return true;
        }
    }
    false
}

pub fn stored_directly(datagrams: &[Datagram]) -> Stored {
    let collector = Nfcapd::start();
    send(datagrams, collector.address);
    collector.finish()
}

pub fn difference(left: &Stored, right: &Stored) -> Vec<String> {
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
