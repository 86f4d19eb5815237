//! How fast this machine balances, beside others in the same run.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use flowradar_balancer::Timestamp;
use flowradar_balancer::config::{Config, DestinationIds, PolicyName};
use flowradar_balancer::engine::{AssignmentUnit, Engine, Outgoing, Output};
use flowradar_balancer::io::bench::{
    Exports, RECORDS, Sink, family, generate, processor_time, socket_drops,
};
use flowradar_balancer::policy::BackEndId;
use flowradar_balancer::wire::Protocol;
use serde::Serialize;

use super::failed;
use crate::commands::balance::BenchArgs;
use crate::outcome::{CommandError, Completeness};
use crate::output::{print_json, print_text};
use crate::text::{grouped, note};

#[derive(Debug, Serialize)]
struct Report {
    engine: Vec<EngineResult>,
    relays: Vec<RelayResult>,
}

#[derive(Debug, Serialize)]
struct EngineResult {
    unit: AssignmentUnit,
    records_per_second: f64,
    nanoseconds_per_datagram: f64,
}

#[derive(Debug, Serialize)]
struct RelayResult {
    what: String,
    offered_records_per_second: u64,
    datagrams_offered: u64,
    datagrams_delivered: u64,
    datagrams_dropped_at_socket: u64,
    processor_microseconds_per_datagram_in: f64,
    processor_microseconds_per_datagram_out: f64,
}

pub(crate) fn run(args: &BenchArgs) -> Result<Completeness, CommandError> {
    let protocol = Protocol::from(args.protocol);
    let engine_time = args.time.min(Duration::from_secs(2));
    let units = [
        AssignmentUnit::Stream,
        AssignmentUnit::Message,
        AssignmentUnit::Record,
    ];
    let mut report = Report {
        engine: units
            .iter()
            .map(|unit| engine(*unit, protocol, args.collectors, engine_time))
            .collect::<Result<_, _>>()?,
        relays: Vec::new(),
    };
    if !args.engine_only {
        for unit in [AssignmentUnit::Message, AssignmentUnit::Record] {
            report.relays.push(balance(args, unit, true)?);
        }
        if args.compare {
            report
                .relays
                .push(balance(args, AssignmentUnit::Message, false)?);
            compare(args, &mut report)?;
        }
    }
    if args.json {
        print_json(&report)?;
    } else {
        print_text(&text(&report))?;
    }
    Ok(Completeness::Complete)
}

/// Touches what it is given as a sender would: copies it.
struct Copies(Vec<u8>);

impl Output for Copies {
    fn send(&mut self, _: BackEndId, message: Outgoing<'_>) {
        self.0.clear();
        message.append_to(&mut self.0);
    }
}

fn engine(
    unit: AssignmentUnit,
    protocol: Protocol,
    collectors: u16,
    time: Duration,
) -> Result<EngineResult, CommandError> {
    let collectors: Vec<SocketAddr> = (0..collectors)
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, 9000 + port)))
        .collect();
    let listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 2055))];
    let config = Config::simple(listen, &collectors, &[], unit, PolicyName::Rendezvous);
    let compiled = config
        .compile(&mut DestinationIds::default())
        .map_err(failed)?;
    let mut engine = Engine::new(compiled.plan, Timestamp::ZERO);
    let mut output = Copies(Vec::new());
    let source = SocketAddr::from(([192, 0, 2, 1], 4242));
    let mut exports = Exports::new(protocol);
    if let Some(template) = exports.template() {
        engine.handle(&template, source, Timestamp::ZERO, &mut output);
    }
    // Made beforehand: the generator is not what is measured.
    let datagrams: Vec<Vec<u8>> = (0..1024)
        .map(|_| exports.next_datagram().to_vec())
        .collect();
    let started = Instant::now();
    let mut count = 0_u64;
    while started.elapsed() < time {
        for datagram in &datagrams {
            let now = Timestamp::from_nanos(started.elapsed().as_nanos() as u64);
            engine.handle(datagram, source, now, &mut output);
        }
        count += datagrams.len() as u64;
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok(EngineResult {
        unit,
        records_per_second: count as f64 * f64::from(RECORDS) / seconds,
        nanoseconds_per_datagram: seconds * 1e9 / count as f64,
    })
}

/// What is measured: a process that listens, and what it should deliver of each datagram.
struct Relay {
    what: String,
    child: Child,
    listen: SocketAddr,
    sinks: Vec<Sink>,
    /// Datagrams out for each in.
    fan_out: f64,
    /// Templates that all collectors get, and the like.
    extra: u64,
}

impl Drop for Relay {
    fn drop(&mut self) {
        for process in family(self.child.id()).into_iter().skip(1) {
            // Only what this process started itself; nobody to tell if it is gone.
            let _ = Command::new("kill")
                .arg(process.to_string())
                .stderr(Stdio::null())
                .status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> Result<SocketAddr, CommandError> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    socket.local_addr().map_err(failed)
}

fn sinks(count: u16) -> Result<Vec<Sink>, CommandError> {
    (0..count)
        .map(|_| Sink::open())
        .collect::<Result<_, _>>()
        .map_err(failed)
}

fn balance(
    args: &BenchArgs,
    unit: AssignmentUnit,
    with_copy: bool,
) -> Result<RelayResult, CommandError> {
    let sinks = sinks(args.collectors + u16::from(with_copy))?;
    let listen = free_port()?;
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    let unit_name = format!("{unit:?}").to_lowercase();
    command.args([
        "balance",
        "--listen",
        &listen.to_string(),
        "--unit",
        &unit_name,
    ]);
    if unit == AssignmentUnit::Message {
        command.args(["--policy", "round-robin"]);
    }
    for (index, sink) in sinks.iter().enumerate() {
        let option = if with_copy && index == usize::from(args.collectors) {
            "--copy-to"
        } else {
            "--to"
        };
        command.args([option, &sink.address().map_err(failed)?.to_string()]);
    }
    let mut child = command.stderr(Stdio::piped()).spawn().map_err(failed)?;
    let mut lines = BufReader::new(
        child
            .stderr
            .take()
            .ok_or_else(|| failed("no standard error"))?,
    )
    .lines();
    let started = lines
        .by_ref()
        .map_while(Result::ok)
        .find(|line| line.contains("listening on"));
    if started.is_none() {
        return Err(failed("the balancer did not start"));
    }
    // Whatever it says must not fill its pipe.
    thread::spawn(move || lines.for_each(drop));
    let out = match unit {
        AssignmentUnit::Record => f64::from(args.collectors),
        _ => 1.0,
    };
    let what = format!(
        "flowradar balance, unit {unit_name}{}",
        if with_copy { ", and one copy" } else { "" }
    );
    measure(
        args,
        Relay {
            what,
            child,
            listen,
            sinks,
            fan_out: out + f64::from(u8::from(with_copy)),
            extra: 0,
        },
    )
}

/// Others, where they are installed.
fn compare(args: &BenchArgs, report: &mut Report) -> Result<(), CommandError> {
    match nfacctd(args)? {
        Some(relay) => report.relays.push(measure(args, relay)?),
        None => note!("SKIPPED: nfacctd (Debian package pmacct) is not on PATH"),
    }
    match samplicate(args)? {
        Some(relay) => report.relays.push(measure(args, relay)?),
        None => note!("SKIPPED: samplicate is not on PATH"),
    }
    Ok(())
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = [
        Path::new("/usr/sbin").to_path_buf(),
        Path::new("/usr/local/sbin").to_path_buf(),
    ];
    std::env::split_paths(&path)
        .chain(extra)
        .any(|folder| folder.join(program).is_file())
}

fn nfacctd(args: &BenchArgs) -> Result<Option<Relay>, CommandError> {
    if !on_path("nfacctd") {
        return Ok(None);
    }
    let sinks = sinks(args.collectors)?;
    let listen = free_port()?;
    let folder = std::env::temp_dir().join(format!("flowradar-bench-{}", std::process::id()));
    fs::create_dir_all(&folder).map_err(CommandError::file("create", &folder))?;
    let addresses: Result<Vec<String>, CommandError> = sinks
        .iter()
        .map(|sink| Ok(sink.address().map_err(failed)?.to_string()))
        .collect();
    let receivers = format!("id=1 ip={} balance-alg=rr\n", addresses?.join(","));
    let receivers_path = folder.join("receivers.lst");
    fs::write(&receivers_path, receivers).map_err(CommandError::file("write", &receivers_path))?;
    let config = format!(
        "daemonize: false\nnfacctd_ip: {}\nnfacctd_port: {}\nnfacctd_pipe_size: 33554432\nplugins: tee[a]\n\
         tee_receivers[a]: {}\nplugin_buffer_size: 1024000\nplugin_pipe_size: 102400000\ntee_pipe_size: 33554432\n",
        listen.ip(),
        listen.port(),
        receivers_path.display()
    );
    let config_path = folder.join("nfacctd.conf");
    fs::write(&config_path, config).map_err(CommandError::file("write", &config_path))?;
    let child = Command::new("nfacctd")
        .arg("-f")
        .arg(&config_path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let child = child.map_err(failed)?;
    thread::sleep(Duration::from_secs(2));
    Ok(Some(Relay {
        what: format!("nfacctd (pmacct) tee, round robin over {}", args.collectors),
        child,
        listen,
        sinks,
        fan_out: 1.0,
        extra: 0,
    }))
}

fn samplicate(args: &BenchArgs) -> Result<Option<Relay>, CommandError> {
    if !on_path("samplicate") {
        return Ok(None);
    }
    let sinks = sinks(2)?;
    let listen = free_port()?;
    let mut command = Command::new("samplicate");
    command.args([
        "-s",
        &listen.ip().to_string(),
        "-p",
        &listen.port().to_string(),
        "-b",
        "33554432",
    ]);
    for sink in &sinks {
        let address = sink.address().map_err(failed)?;
        command.arg(format!("{}/{}", address.ip(), address.port()));
    }
    let child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    thread::sleep(Duration::from_secs(1));
    let _ = args;
    Ok(Some(Relay {
        what: "samplicate, two copies".to_owned(),
        child,
        listen,
        sinks,
        fan_out: 2.0,
        extra: 0,
    }))
}

fn measure(args: &BenchArgs, relay: Relay) -> Result<RelayResult, CommandError> {
    let arrived = |relay: &Relay| {
        let arrived: Result<Vec<u64>, std::io::Error> =
            relay.sinks.iter().map(Sink::arrived).collect();
        arrived
            .map(|arrived| arrived.iter().sum::<u64>())
            .map_err(failed)
    };
    let rate = (args.records_per_second / u64::from(RECORDS)).max(1) as u32;
    let protocol = Protocol::from(args.protocol);
    // Warm up: sinks fill, templates arrive, memory is there.
    generate(
        relay.listen,
        protocol,
        args.exporters,
        rate.min(20_000),
        Duration::from_millis(500),
    )
    .map_err(failed)?;
    thread::sleep(Duration::from_millis(500));
    let processes = family(relay.child.id());
    let before = (
        arrived(&relay)?,
        processor_time(&processes),
        socket_drops(relay.listen).map_err(failed)?,
    );
    let offered =
        generate(relay.listen, protocol, args.exporters, rate, args.time).map_err(failed)?;
    // What is queued goes out.
    thread::sleep(Duration::from_millis(800));
    let delivered = arrived(&relay)?.saturating_sub(before.0 + relay.extra);
    let time = processor_time(&processes).saturating_sub(before.1);
    let dropped = socket_drops(relay.listen).map_err(failed)? - before.2;
    let taken = offered.saturating_sub(dropped).max(1);
    let microseconds = time.as_secs_f64() * 1e6;
    Ok(RelayResult {
        what: relay.what.clone(),
        offered_records_per_second: (offered as f64 * f64::from(RECORDS) / args.time.as_secs_f64())
            as u64,
        datagrams_offered: offered,
        datagrams_delivered: delivered,
        datagrams_dropped_at_socket: dropped,
        processor_microseconds_per_datagram_in: microseconds / taken as f64,
        processor_microseconds_per_datagram_out: microseconds / (taken as f64 * relay.fan_out),
    })
}

fn text(report: &Report) -> String {
    let mut text = String::from("engine alone, one thread:\n");
    // Writing to a string does not fail.
    for result in &report.engine {
        let _ = writeln!(
            text,
            "  unit {:<8} {:>14} records/s  {:>7.0} ns a datagram of {RECORDS} records",
            format!("{:?}", result.unit).to_lowercase(),
            grouped(result.records_per_second as u64),
            result.nanoseconds_per_datagram
        );
    }
    if report.relays.is_empty() {
        return text;
    }
    text.push_str(
        "over the loopback (processor time of all its processes; compare within this run):\n",
    );
    for result in &report.relays {
        let _ = writeln!(
            text,
            "  {}\n    {} records/s offered, {} datagrams in, {} delivered, {} dropped at its socket\n    {:.2} us of processor time a datagram in, {:.2} us a datagram out",
            result.what,
            grouped(result.offered_records_per_second),
            grouped(result.datagrams_offered),
            grouped(result.datagrams_delivered),
            grouped(result.datagrams_dropped_at_socket),
            result.processor_microseconds_per_datagram_in,
            result.processor_microseconds_per_datagram_out
        );
    }
    text
}
