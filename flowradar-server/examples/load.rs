//! Loads a collector: a fat tree of 20 switches reports in real time, and what the collector makes of it is
//! compared with what was sent.
//!
//! ```sh
//! cargo run --release -p flowradar-server --example load -- --flows 1000 --epoch 10ms --seconds 600
//! cargo run --release -p flowradar-server --example load -- --flows 10000 --epoch 200ms --seconds 600
//! ```
//!
//! The collector runs in a process of its own, with its default settings. A few epochs are encoded beforehand
//! and sent again and again under new numbers, so that this process takes little of the machine. It speaks
//! the agents' protocol without a spool. `docs/collector.md` has figures.

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use flowradar_core::hash::Xxh3;
use flowradar_core::plan::PlanRequest;
use flowradar_server::ingest::PROTOCOL_VERSION;
use flowradar_server::ingest::proto::collector_client::CollectorClient;
use flowradar_server::ingest::proto::{
    AgentMessage, FlowsetChunk, FlowsetStart, Register, agent_message, collector_message,
};
use flowradar_server::{Collector, Config};
use flowradar_sim::encode::Encoders;
use flowradar_sim::{Simulation, Topology};
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Flowsets of a switch that wait to be sent; more make the simulated time stand still, which is told.
const WAITING_MAX: usize = 256;
/// Bytes of a flowset in one message.
const CHUNK_BYTES: usize = 256 << 10;
/// How often the collector is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How long the collector may take to finish when all is sent.
const PATIENCE: Duration = Duration::from_secs(60);

/// Load a collector, and see whether it keeps up
#[derive(Debug, Parser)]
struct Arguments {
    /// Flows at each switch in each epoch
    #[arg(long, default_value_t = 1_000)]
    flows: u32,

    /// Length of an epoch
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10ms")]
    epoch: Duration,

    /// How long
    #[arg(long, default_value_t = 60)]
    seconds: u64,

    /// Epochs that are encoded, and sent again and again
    #[arg(long, default_value_t = 16)]
    pool: u64,

    /// Follow flows through the network, too
    #[arg(long)]
    network: bool,

    /// More settings of the collector, as TOML
    #[arg(long, default_value = "")]
    settings: String,

    /// Folder for the collector's data [default: a temporary one, removed afterwards]
    #[arg(long)]
    folder: Option<PathBuf>,

    /// Be the collector, with the configuration in this file
    #[arg(long, hide = true)]
    collector: Option<PathBuf>,
}

fn main() -> Outcome<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Runtime::new()?;
    match &arguments.collector {
        Some(config) => runtime.block_on(collect(config)),
        None => runtime.block_on(load(&arguments)),
    }
}

/// Runs a collector until standard input ends.
async fn collect(config: &Path) -> Outcome<()> {
    let collector = Collector::start(Config::read(config)?).await?;
    println!("{} {}", collector.ingest_address(), collector.api_address());
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut vec![])).await??;
    collector.stop().await;
    Ok(())
}

/// A collector in a process of its own.
struct Subject {
    child: Child,
    ingest: String,
    api: String,
}

impl Subject {
    fn start(folder: &Path, arguments: &Arguments, topology: &Topology) -> Outcome<Self> {
        let mut settings = format!(
            "data_folder = {:?}\ningest.listen = \"127.0.0.1:0\"\napi.listen = \"127.0.0.1:0\"\n{}\n",
            folder.join("data"),
            arguments.settings
        );
        if arguments.network {
            let network = folder.join("network.json");
            fs::write(&network, topology.to_json())?;
            settings += &format!("analysis.network = {network:?}\n");
        }
        let config = folder.join("collector.toml");
        fs::write(&config, settings)?;
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--collector")
            .arg(&config)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let (ingest, api) = line
            .trim()
            .split_once(' ')
            .ok_or("the collector did not start")?;
        Ok(Self {
            ingest: format!("http://{ingest}"),
            api: format!("http://{api}"),
            child,
        })
    }

    fn get(&self, path: &str) -> Outcome<String> {
        let mut answer = ureq::get(format!("{}{path}", self.api)).call()?;
        let body = answer.body_mut().with_config().limit(1 << 30);
        Ok(body.read_to_string()?)
    }

    /// All metrics, by name and labels.
    fn metrics(&self) -> Outcome<HashMap<String, f64>> {
        let text = self.get("/metrics")?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| line.rsplit_once(' '));
        Ok(pairs
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect())
    }

    fn stop(mut self) -> Outcome<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        if !status.success() {
            return Err(format!("the collector ended with {status}").into());
        }
        Ok(())
    }
}

/// Encoded epochs: by epoch, then by switch.
struct Pool {
    epochs: Vec<Vec<Vec<u8>>>,
    /// Flow records of each.
    records: Vec<u64>,
}

impl Pool {
    fn new(arguments: &Arguments, topology: Topology) -> Outcome<Self> {
        let simulation = Simulation::builder(topology)
            .flows_per_switch(arguments.flows)
            .epochs(arguments.pool)
            .seed(1)
            .build()?;
        let truth = flowradar_sim::Truth::of(&simulation);
        let switches = || simulation.topology().switch_ids();
        let flows = |epoch| switches().map(move |switch| (epoch, switch));
        let count = |(epoch, switch)| truth.records_of(epoch, switch).len() as u64;
        let most = (0..arguments.pool).flat_map(flows).map(count).max();
        let layout = PlanRequest::flows(most.unwrap_or(1))
            .failure_probability(1e-6)
            .seed(1)
            .plan()?
            .layout;
        let mut pool = Self {
            epochs: vec![],
            records: vec![],
        };
        for (epoch, reports) in Encoders::<Xxh3>::new(&simulation, &layout) {
            pool.records.push(flows(epoch).map(count).sum());
            pool.epochs
                .push(reports.into_iter().map(|report| report.flowset).collect());
        }
        Ok(pool)
    }
}

/// Gives a flowset another epoch: header and checksums as docs/flowset-format.md has them.
fn stamp(flowset: &[u8], number: u64, start_ns: u64, length_ns: u64) -> Vec<u8> {
    let mut bytes = flowset.to_vec();
    for (place, value) in [(24, number), (32, start_ns), (40, length_ns)] {
        bytes[place..place + 8].copy_from_slice(&value.to_le_bytes());
    }
    let header_bytes = usize::from(u16::from_le_bytes([bytes[10], bytes[11]]));
    let checksum = xxh3_64(&bytes[..header_bytes - 8]);
    bytes[header_bytes - 8..header_bytes].copy_from_slice(&checksum.to_le_bytes());
    let end = bytes.len() - 8;
    let checksum = xxh3_64_with_seed(&bytes[header_bytes..end], checksum);
    bytes[end..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// What all switches have sent, and what was acknowledged.
#[derive(Debug, Default)]
struct Sent {
    registered: AtomicU64,
    acknowledged: AtomicU64,
    rejected: AtomicU64,
}

/// A switch's agent: takes flowsets, and ships them over a stream of its own.
async fn agent(
    channel: Channel,
    switch: String,
    mut flowsets: mpsc::Receiver<Vec<u8>>,
    sent: Arc<Sent>,
) -> Outcome<()> {
    let (messages, receiver) = mpsc::channel(4);
    let register = Register {
        version: PROTOCOL_VERSION,
        switch,
        spool: 1,
        first_sequence: 1,
        description: "load".into(),
        links: vec![],
    };
    let message = |message| AgentMessage {
        message: Some(message),
    };
    messages
        .send(message(agent_message::Message::Register(register)))
        .await?;
    let mut client = CollectorClient::new(channel);
    let request = Request::new(ReceiverStream::new(receiver));
    let mut answers = client.ship(request).await?.into_inner();
    let window = Semaphore::new(0);
    let receive = async {
        while let Some(answer) = answers.message().await? {
            match answer.message {
                Some(collector_message::Message::Registered(registered)) => {
                    window.add_permits(registered.window as usize);
                    sent.registered.fetch_add(1, Ordering::Relaxed);
                }
                Some(collector_message::Message::Rejected(_)) => {
                    window.add_permits(1);
                    sent.rejected.fetch_add(1, Ordering::Relaxed);
                }
                _ => {
                    window.add_permits(1);
                    sent.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Outcome::Ok(())
    };
    let send = async {
        let mut sequence = 0;
        while let Some(flowset) = flowsets.recv().await {
            window.acquire().await?.forget();
            sequence += 1;
            let start = FlowsetStart {
                sequence,
                bytes: flowset.len() as u64,
            };
            messages
                .send(message(agent_message::Message::Start(start)))
                .await?;
            for chunk in flowset.chunks(CHUNK_BYTES) {
                let bytes = chunk.to_vec().into();
                let chunk = agent_message::Message::Chunk(FlowsetChunk { bytes });
                messages.send(message(chunk)).await?;
            }
        }
        drop(messages);
        Outcome::Ok(())
    };
    let (received, ended) = tokio::join!(receive, send);
    received.and(ended)
}

/// What was seen of the collector while it ran.
#[derive(Debug, Default)]
struct Watch {
    /// Seconds, resident bytes, seconds of processor time, epochs decoded.
    samples: Vec<(f64, u64, f64, f64)>,
    /// Of each epoch, in nanoseconds.
    lags: Vec<u64>,
    incomplete: u64,
    single: u64,
    next_epoch: u64,
}

impl Watch {
    fn look(&mut self, subject: &Subject, begin: Instant) -> Outcome<()> {
        let id = subject.child.id();
        let metrics = subject.metrics()?;
        let decoded: f64 = metrics
            .iter()
            .filter(|(name, _)| name.starts_with("flowradar_epochs_decoded_total"))
            .map(|(_, value)| value)
            .sum();
        let sample = (
            begin.elapsed().as_secs_f64(),
            resident_bytes(id)?,
            processor_seconds(id)?,
            decoded,
        );
        self.samples.push(sample);
        let get = |name: &str| metrics.get(name).copied().unwrap_or_default();
        println!(
            "{:6.1} s: {:5.0} MB resident, {:6.1} s of processor time, {decoded:.0} epochs decoded; journal {:.0} MB, \
             store {:.0} MB in {:.0} files",
            sample.0,
            sample.1 as f64 / 1e6,
            sample.2,
            get("flowradar_journal{kind=\"bytes\"}") / 1e6,
            get("flowradar_store{kind=\"bytes\"}") / 1e6,
            get("flowradar_store{kind=\"files\"}"),
        );
        // All those since the last look: the newest come first.
        let text = subject.get("/api/v1/epochs?limit=8192&from=-15s")?;
        let epochs: Vec<Value> = serde_json::from_str(&text)?;
        for epoch in epochs.iter().rev() {
            let number = epoch["epoch"].as_u64().unwrap_or_default();
            if number < self.next_epoch {
                continue;
            }
            self.next_epoch = number + 1;
            self.lags.push(epoch["lag_ns"].as_u64().unwrap_or(u64::MAX));
            self.incomplete += u64::from(epoch["complete"] != true);
            self.single += u64::from(epoch["quality"] != "network");
        }
        Ok(())
    }
}

async fn load(arguments: &Arguments) -> Outcome<()> {
    let topology = Topology::fat_tree(4)?;
    let switches: Vec<String> = topology
        .switches()
        .iter()
        .map(ToString::to_string)
        .collect();
    let folder = match &arguments.folder {
        Some(folder) => folder.clone(),
        None => std::env::temp_dir().join(format!("flowradar-load-{}", std::process::id())),
    };
    fs::create_dir_all(&folder)?;
    let pool = Pool::new(arguments, topology.clone())?;
    let subject = Subject::start(&folder, arguments, &topology)?;
    let sent = Arc::new(Sent::default());
    let mut queues = vec![];
    let mut agents = tokio::task::JoinSet::new();
    for switch in &switches {
        let (queue, flowsets) = mpsc::channel(WAITING_MAX);
        let channel = Endpoint::from_shared(subject.ingest.clone())?
            .tcp_nodelay(true)
            .connect()
            .await?;
        agents.spawn(agent(channel, switch.clone(), flowsets, Arc::clone(&sent)));
        queues.push(queue);
    }
    while sent.registered.load(Ordering::Relaxed) < switches.len() as u64 {
        if let Some(ended) = agents.try_join_next() {
            ended??;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    let begin = Instant::now();
    let start_ns = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)?
        .as_nanos() as u64;
    let length_ns = arguments.epoch.as_nanos() as u64;
    let epochs = Duration::from_secs(arguments.seconds).as_nanos() as u64 / length_ns;
    let flowset_bytes = pool.epochs[0][0].len();
    println!(
        "{epochs} epochs of {:?}, 20 switches, {} flows at each: flowsets of {flowset_bytes} bytes",
        arguments.epoch, arguments.flows
    );
    let (mut watch, mut records, mut late_ms) = (Watch::default(), 0, 0u128);
    let (done, mut over) = tokio::sync::oneshot::channel::<()>();
    let watching = {
        let subject = Arc::new(subject);
        let watched = Arc::clone(&subject);
        let task = tokio::task::spawn_blocking(move || {
            while over.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty) {
                watch.look(&watched, begin)?;
                std::thread::sleep(LOOK);
            }
            Outcome::Ok(watch)
        });
        (subject, task)
    };
    for epoch in 0..epochs {
        let end = begin + arguments.epoch * u32::try_from(epoch + 1)?;
        tokio::time::sleep_until(end.into()).await;
        late_ms = late_ms.max(end.elapsed().as_millis());
        let place = (epoch % arguments.pool) as usize;
        records += pool.records[place];
        for (flowset, queue) in pool.epochs[place].iter().zip(&queues) {
            let stamped = stamp(flowset, epoch, start_ns + epoch * length_ns, length_ns);
            queue.send(stamped).await?;
        }
    }
    drop(queues);
    while let Some(ended) = agents.join_next().await {
        ended??;
    }
    let (subject, task) = watching;
    let finished = finished(&subject, records).await?;
    _ = done.send(());
    let mut watch = task.await??;
    watch.look(&subject, begin)?;
    report(arguments, &watch, &subject, records, &sent)?;
    println!(
        "the sender was {late_ms} ms late at most; the collector had all rows stored: {finished}"
    );
    let subject = Arc::into_inner(subject).ok_or("nobody else looks at it")?;
    subject.stop()?;
    if arguments.folder.is_none() {
        fs::remove_dir_all(&folder)?;
    }
    Ok(())
}

/// Waits until all records are stored; whether it came to that.
async fn finished(subject: &Subject, records: u64) -> Outcome<bool> {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        let stored = subject
            .metrics()?
            .get("flowradar_rows_stored_total")
            .copied();
        if stored.unwrap_or_default() >= records as f64 {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(false)
}

fn report(
    arguments: &Arguments,
    watch: &Watch,
    subject: &Subject,
    records: u64,
    sent: &Sent,
) -> Outcome<()> {
    let metrics = subject.metrics()?;
    let mut out = std::io::stdout().lock();
    for name in [
        "flowradar_flow_records_total{kind=\"exact\"}",
        "flowradar_flow_records_total{kind=\"joint\"}",
        "flowradar_flow_records_total{kind=\"unresolved\"}",
        "flowradar_flows_not_found_total",
        "flowradar_rows_stored_total",
        "flowradar_epochs_decoded_total{kind=\"network\"}",
        "flowradar_epochs_decoded_total{kind=\"single\"}",
        "flowradar_epochs_decoded_total{kind=\"again\"}",
        "flowradar_epochs_incomplete_total",
        "flowradar_reports_missing_total",
        "flowradar_ingest_stalls_total",
        "flowradar_analyses_total{kind=\"analysed\"}",
        "flowradar_analyses_total{kind=\"out_of_order\"}",
    ] {
        let value = metrics.get(name).copied().unwrap_or_default();
        writeln!(out, "{name} {value}")?;
    }
    let acknowledged = sent.acknowledged.load(Ordering::Relaxed);
    let rejected = sent.rejected.load(Ordering::Relaxed);
    writeln!(
        out,
        "{records} flow records in {acknowledged} flowsets acknowledged, {rejected} rejected"
    )?;
    let mut lags = watch.lags.clone();
    lags.sort_unstable();
    let epochs_of = |lag: u64| lag as f64 / arguments.epoch.as_nanos() as f64;
    let lag = |share: f64| {
        let place = (lags.len() as f64 * share) as usize;
        lags.get(place.min(lags.len().saturating_sub(1)))
            .map_or(f64::NAN, |lag| epochs_of(*lag))
    };
    let within = lags.iter().filter(|lag| epochs_of(**lag) < 3.0).count();
    writeln!(
        out,
        "lag in epochs, from an epoch's end to its decode: median {:.2}, 99 % {:.2}, 99.9 % {:.2}, most {:.2}; \
         under 3: {within} of {} seen; {} incomplete, {} decoded switch by switch",
        lag(0.5),
        lag(0.99),
        lag(0.999),
        lag(1.0),
        lags.len(),
        watch.incomplete,
        watch.single,
    )?;
    // The first quarter is for filling buffers.
    let settled = &watch.samples[watch.samples.len() / 4..];
    let resident = || settled.iter().map(|sample| sample.1 as f64 / 1e6);
    let half = settled.len() / 2;
    let mean = |samples: &[(f64, u64, f64, f64)]| {
        samples
            .iter()
            .map(|sample| sample.1 as f64 / 1e6)
            .sum::<f64>()
            / samples.len().max(1) as f64
    };
    if let (Some(first), Some(last)) = (settled.first(), settled.last()) {
        let seconds = last.0 - first.0;
        writeln!(
            out,
            "after {:.0} s: {:.1} flowsets a second decoded; {:.2} processors for the collector; {:.0} to {:.0} MB \
             resident, {:.0} on average in the first half and {:.0} in the second",
            first.0,
            (last.3 - first.3) * 20.0 / seconds,
            (last.2 - first.2) / seconds,
            resident().fold(f64::MAX, f64::min),
            resident().fold(0.0, f64::max),
            mean(&settled[..half]),
            mean(&settled[half..]),
        )?;
    }
    let own = processor_seconds(std::process::id())?;
    writeln!(out, "the sender took {own:.1} s of processor time")?;
    Ok(())
}

fn resident_bytes(process: u32) -> Outcome<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    Ok(kilobytes.unwrap_or_default().parse::<u64>()? * 1024)
}

/// User and system time, in ticks of a hundredth of a second, which Linux has everywhere.
fn processor_seconds(process: u32) -> Outcome<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks = ticks.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(ticks as f64 / 100.0)
}
