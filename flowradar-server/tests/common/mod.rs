//! A simulated network, its flowsets, and what is true of them.
#![allow(dead_code, unreachable_pub, reason = "not every test uses all of it")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, UInt16Type, UInt64Type};
use flowradar_core::FlowKey;
use flowradar_core::flowset::SwitchName;
use flowradar_core::hash::Xxh3;
use flowradar_core::plan::PlanRequest;
use flowradar_server::agent::{AgentOptions, AgentProgress, Spool, SpoolOptions, SpoolSync, ship};
use flowradar_server::ingest::Secret;
use flowradar_server::store::{FlowReader, TimeRange};
use flowradar_sim::encode::Encoders;
use flowradar_sim::{Simulation, Topology, Truth};
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

/// Epochs of the networks here begin then, and are ten milliseconds long.
pub const BEGIN_NS: u64 = 1_700_000_000_000_000_000;
pub const EPOCH_NS: u64 = 10_000_000;

/// Epoch, switch, addresses and ports of a flow; how often it is there, and its packets.
pub type Rows = BTreeMap<(u64, String, String, String, u16, u16), (u32, u64)>;

/// A network's flowsets by epoch, and what its switches counted.
pub struct Network {
    pub switches: Vec<SwitchName>,
    /// By epoch: switch and flowset.
    pub epochs: Vec<Vec<(SwitchName, Vec<u8>)>>,
    pub truth: Rows,
}

impl Network {
    /// A fat tree of 20 switches.
    pub fn new(flows_per_switch: u32, epochs: u64) -> Self {
        let simulation =
            Simulation::builder(Topology::fat_tree(4).expect("an even number of ports"))
                .flows_per_switch(flows_per_switch)
                .epochs(epochs)
                .seed(7)
                .build()
                .expect("a small network");
        let layout = PlanRequest::flows(u64::from(flows_per_switch) * 2)
            .failure_probability(1e-6)
            .plan()
            .expect("a small layout")
            .layout;
        let names = simulation.topology().switches().to_vec();
        let encoders = Encoders::<Xxh3>::new(&simulation, &layout).with_times(BEGIN_NS, EPOCH_NS);
        let mut by_epoch = vec![];
        let mut truth = Rows::new();
        let counted = Truth::of(&simulation);
        for (epoch, reports) in encoders {
            let mut flowsets = vec![];
            for report in reports {
                let name = &names[report.switch.index()];
                for record in counted.records_of(epoch, report.switch) {
                    let key = simulation.key(record.flow);
                    let row = (
                        epoch,
                        name.to_string(),
                        key.src().to_string(),
                        key.dst().to_string(),
                        key.src_port(),
                        key.dst_port(),
                    );
                    truth.insert(row, (1, record.packets));
                }
                flowsets.push((name.clone(), report.flowset));
            }
            by_epoch.push(flowsets);
        }
        Self {
            switches: names,
            epochs: by_epoch,
            truth,
        }
    }

    /// What is true if only some reports arrive.
    pub fn truth_of(&self, reports: impl Fn(u64, &str) -> bool) -> Rows {
        let truth = self.truth.iter();
        truth
            .filter(|((epoch, switch, ..), _)| reports(*epoch, switch))
            .map(|(row, counts)| (row.clone(), *counts))
            .collect()
    }
}

/// A flowset as if it were of another epoch: header and checksums as docs/flowset-format.md has them.
pub fn in_epoch(flowset: &[u8], number: u64, start_ns: u64) -> Vec<u8> {
    use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};
    let mut bytes = flowset.to_vec();
    bytes[24..32].copy_from_slice(&number.to_le_bytes());
    bytes[32..40].copy_from_slice(&start_ns.to_le_bytes());
    let header_bytes = usize::from(u16::from_le_bytes([bytes[10], bytes[11]]));
    let checksum = xxh3_64(&bytes[..header_bytes - 8]);
    bytes[header_bytes - 8..header_bytes].copy_from_slice(&checksum.to_le_bytes());
    let end = bytes.len() - 8;
    let checksum = xxh3_64_with_seed(&bytes[header_bytes..end], checksum);
    bytes[end..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// All rows of a store.
pub fn stored(reader: &Arc<dyn FlowReader>) -> Rows {
    let mut rows = Rows::new();
    let columns = [
        "time", "epoch", "switch", "src", "dst", "src_port", "dst_port", "packets",
    ];
    let scan = reader.scan(TimeRange::ALL, &columns, &mut |batch| {
        let column = |name: &str| batch.column_by_name(name).expect("a column of the schema");
        let longs = |name: &str| column(name).as_primitive::<UInt64Type>().clone();
        let shorts = |name: &str| column(name).as_primitive::<UInt16Type>().clone();
        let texts = |name: &str| -> Vec<String> {
            let column = column(name).as_dictionary::<Int32Type>();
            let values = column
                .downcast_dict::<arrow_array::StringArray>()
                .expect("texts");
            values
                .into_iter()
                .map(|text| text.expect("not null").to_owned())
                .collect()
        };
        let (epochs, packets) = (longs("epoch"), longs("packets"));
        let (switches, srcs, dsts) = (texts("switch"), texts("src"), texts("dst"));
        let (src_ports, dst_ports) = (shorts("src_port"), shorts("dst_port"));
        for row in 0..batch.num_rows() {
            let key = (
                epochs.value(row),
                switches[row].clone(),
                srcs[row].clone(),
                dsts[row].clone(),
                src_ports.value(row),
                dst_ports.value(row),
            );
            let found = rows.entry(key).or_insert((0, 0));
            found.0 += 1;
            found.1 += packets.value(row);
        }
        std::ops::ControlFlow::Continue(())
    });
    assert_eq!(scan.expect("a scan").unreadable_files, 0);
    rows
}

/// Says where two tables differ, without printing them whole.
pub fn compare(found: &Rows, expected: &Rows) -> Result<(), String> {
    let missing: Vec<_> = expected
        .keys()
        .filter(|row| !found.contains_key(*row))
        .collect();
    let invented: Vec<_> = found
        .keys()
        .filter(|row| !expected.contains_key(*row))
        .collect();
    let other: Vec<_> = expected
        .iter()
        .filter(|(row, counts)| found.get(*row).is_some_and(|found| found != *counts))
        .map(|(row, counts)| (row, counts, found.get(row)))
        .collect();
    if missing.is_empty() && invented.is_empty() && other.is_empty() {
        return Ok(());
    }
    Err(format!(
        "of {} rows {} are missing (such as {:?}), {} are invented ({:?}), {} differ ({:?})",
        expected.len(),
        missing.len(),
        missing.first(),
        invented.len(),
        invented.first(),
        other.len(),
        other.first(),
    ))
}

/// Waits for a condition, which is a matter of other threads' time.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> Result<(), String>) {
    let begin = Instant::now();
    loop {
        match holds() {
            Ok(()) => return,
            Err(error) if begin.elapsed() > Duration::from_secs(120) => {
                panic!("{what}: not after two minutes: {error}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Agents of a network's switches, each with a spool.
pub struct Agents {
    pub spools: BTreeMap<SwitchName, Spool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Agents {
    /// Begins to ship to a collector at `http://ADDRESS`.
    pub fn start(folder: &Path, switches: &[SwitchName], to: &str) -> Self {
        let mut agents = Self {
            spools: BTreeMap::new(),
            tasks: vec![],
        };
        let channel = Endpoint::from_shared(to.to_owned())
            .expect("an address")
            .connect_lazy();
        for switch in switches {
            let options = SpoolOptions {
                bytes_max: 1 << 30,
                sync: SpoolSync::Never,
            };
            let spool = Spool::open(folder.join(switch.as_str()), options, None).expect("a spool");
            let (task, _) = agent(channel.clone(), switch, None, spool.clone());
            agents.tasks.push(task);
            agents.spools.insert(switch.clone(), spool);
        }
        agents
    }

    pub fn put(&self, switch: &SwitchName, flowset: &[u8]) {
        let spool = self.spools.get(switch).expect("a switch of the network");
        spool.put(flowset).expect("space");
    }

    pub async fn emptied(&self) {
        for spool in self.spools.values() {
            tokio::time::timeout(Duration::from_secs(120), spool.emptied())
                .await
                .expect("the collector takes what agents have");
        }
    }

    pub fn stop(self) {
        for task in self.tasks {
            task.abort();
        }
    }
}

/// What an agent told.
pub type Progress = tokio::sync::mpsc::UnboundedReceiver<Result<AgentProgress, String>>;

/// Begins to ship one spool.
pub fn agent(
    channel: Channel,
    switch: &SwitchName,
    token: Option<&str>,
    spool: Spool,
) -> (JoinHandle<()>, Progress) {
    let options = AgentOptions {
        switch: switch.clone(),
        token: token.map(Secret::new),
        description: "a test".into(),
        links: vec![],
        retry: Duration::from_millis(5),
    };
    let (told, progress) = tokio::sync::mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        let tell = told.clone();
        let ended = ship(channel, options, spool, move |event| {
            _ = tell.send(Ok(event));
        })
        .await;
        if let Err(error) = ended {
            _ = told.send(Err(error.to_string()));
        }
    });
    (task, progress)
}

/// Says that a test did not run. Cargo hides what `eprintln!` writes.
pub fn skipped(why: &str) {
    _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// Fetches a path of an API as JSON.
pub fn fetch(api: std::net::SocketAddr, path: &str) -> serde_json::Value {
    let mut answer = ureq::get(format!("http://{api}{path}"))
        .call()
        .unwrap_or_else(|error| panic!("{path}: {error}"));
    let text = answer.body_mut().read_to_string().expect("text");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
}
