//! What is decided outside the workers: configuration, health, and what is told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Sender as CommandSender;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::clock::Clock;
use super::probe::ProbeResult;
use super::sender::{Destination, Sender};
use super::status::{DestinationStatus, Event, ExporterStatus, SocketStatus, Status};
use super::worker::{Command, WorkerShared};
use crate::config::{
    CollectorConfig, Compiled, Config, ConfigError, DestinationIds, DestinationKind, ProbeConfig,
};
use crate::engine::{Counters, EngineSnapshot, GroupSnapshot};
use crate::health::{Health, HealthChange};
use crate::policy::{Availability, BackEndId};
use crate::time::Timestamp;

/// Hosts send few refusals, Linux one a second (icmp_ratelimit): after one, silence means nothing for a
/// while.
const REFUSAL_HOLDS: Duration = Duration::from_secs(3);
/// Events that are kept.
const EVENTS: usize = 500;

/// Why an order was not followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrderError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("there is no collector \"{0}\"")]
    NoCollector(String),
    #[error("{0} cannot change while the balancer runs: restart it")]
    NeedsRestart(&'static str),
    #[error("started without a configuration file: there is nothing to read again")]
    NoFile,
    #[error("cannot read {path}: {source}", path = path.display())]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot open a socket for {name}: {source}{hint}")]
    Socket {
        name: String,
        source: std::io::Error,
        hint: &'static str,
    },
}

/// A worker, from outside.
pub(crate) struct WorkerHandle {
    pub(crate) commands: CommandSender<Command>,
    pub(crate) shared: Arc<WorkerShared>,
    pub(crate) thread: Option<JoinHandle<()>>,
}

struct Watched {
    destination: Arc<Destination>,
    health: Health,
    refused: u64,
    accepted: u64,
    last_refused: Option<Timestamp>,
    reported_load: Option<f64>,
    availability: Availability,
    thread: Option<JoinHandle<()>>,
}

/// See the [module](self).
pub(crate) struct Control {
    pub(crate) config: Config,
    pub(crate) config_path: Option<PathBuf>,
    ids: DestinationIds,
    watched: BTreeMap<BackEndId, Watched>,
    /// Removed; their queues are closed at the time given, when no worker uses them any more.
    leaving: Vec<(Watched, Timestamp)>,
    draining: BTreeSet<String>,
    pub(crate) workers: Vec<WorkerHandle>,
    pub(crate) sockets: Vec<SocketStatus>,
    events: VecDeque<Event>,
    rates: Rates,
    clock: Clock,
    last_kernel_drops: u64,
}

/// Sums as of some seconds ago.
#[derive(Default)]
struct Rates {
    at: Timestamp,
    records: u64,
    datagrams: u64,
    exporters: BTreeMap<IpAddr, u64>,
    destinations: BTreeMap<u16, u64>,
    records_per_second: f64,
    datagrams_per_second: f64,
    exporter_rates: BTreeMap<IpAddr, f64>,
    destination_rates: BTreeMap<u16, f64>,
}

impl Control {
    pub(crate) fn new(config: Config, config_path: Option<PathBuf>, clock: Clock) -> Self {
        Self {
            config,
            config_path,
            ids: DestinationIds::default(),
            watched: BTreeMap::new(),
            leaving: Vec::new(),
            draining: BTreeSet::new(),
            workers: Vec::new(),
            sockets: Vec::new(),
            events: VecDeque::new(),
            rates: Rates::default(),
            clock,
            last_kernel_drops: 0,
        }
    }

    pub(crate) fn compile(&mut self) -> Result<Compiled, ConfigError> {
        self.config.compile(&mut self.ids)
    }

    pub(crate) fn event(&mut self, text: impl Into<String>) {
        if self.events.len() >= EVENTS {
            self.events.pop_front();
        }
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        self.events.push_back(Event {
            unix_seconds: since_1970.map_or(0, |duration| duration.as_secs()),
            text: text.into(),
        });
    }

    /// Opens what is new and lets go what is gone. Returns all destinations.
    pub(crate) fn open_destinations(
        &mut self,
        compiled: &Compiled,
    ) -> Result<Vec<Arc<Destination>>, OrderError> {
        let mut opened = Vec::new();
        for plan in &compiled.destinations {
            // Another source or probe is another sender; the address is part of the id.
            let same = self
                .watched
                .get(&plan.id)
                .is_some_and(|watched| watched.destination.plan == *plan);
            if same {
                continue;
            }
            let destination = Destination::new(plan.clone());
            let sender =
                Sender::open(Arc::clone(&destination)).map_err(|source| OrderError::Socket {
                    name: plan.name.clone(),
                    hint: if source.kind() == std::io::ErrorKind::PermissionDenied {
                        ": source = \"exporter\" needs CAP_NET_RAW"
                    } else {
                        ""
                    },
                    source,
                })?;
            opened.push((destination, sender));
        }
        let interval = self.config.probe_interval();
        for (destination, sender) in opened {
            let id = destination.plan.id;
            let name = format!("send {}", destination.plan.name);
            let thread = std::thread::Builder::new()
                .name(name.chars().take(15).collect())
                .spawn(move || sender.run(interval));
            let mut watched = Watched {
                destination,
                health: Health::default(),
                refused: 0,
                accepted: 0,
                last_refused: None,
                reported_load: None,
                availability: Availability::Up,
                thread: thread.ok(),
            };
            if let Some(known) = self.watched.remove(&id) {
                watched.health = known.health;
                watched.availability = known.availability;
                self.leave(known);
            }
            self.watched.insert(id, watched);
        }
        let stays = |id: &BackEndId| compiled.destinations.iter().any(|plan| plan.id == *id);
        let gone: Vec<BackEndId> = self
            .watched
            .keys()
            .filter(|id| !stays(id))
            .copied()
            .collect();
        for id in gone {
            if let Some(watched) = self.watched.remove(&id) {
                self.leave(watched);
            }
        }
        Ok(self
            .watched
            .values()
            .map(|watched| Arc::clone(&watched.destination))
            .collect())
    }

    fn leave(&mut self, watched: Watched) {
        let now = self.clock.now();
        self.leaving.push((watched, now + Duration::from_secs(2)));
    }

    /// Goes over to another configuration.
    pub(crate) fn apply(&mut self, config: Config) -> Result<(), OrderError> {
        if config.listen != self.config.listen {
            return Err(OrderError::NeedsRestart("listen"));
        }
        if config.api != self.config.api {
            return Err(OrderError::NeedsRestart("api"));
        }
        let compiled = config.compile(&mut self.ids)?;
        let destinations = self.open_destinations(&compiled)?;
        self.config = config;
        for worker in &self.workers {
            let plan = Box::new(compiled.plan.clone());
            // A worker that is gone is noticed elsewhere.
            let _ = worker
                .commands
                .send(Command::Plan(plan, destinations.clone()));
        }
        self.draining
            .retain(|name| compiled.destinations.iter().any(|plan| plan.name == *name));
        let ids: Vec<BackEndId> = self.watched.keys().copied().collect();
        for id in ids {
            // New groups know nothing of who is down.
            self.announce(id, true);
        }
        Ok(())
    }

    /// Reads the configuration file again.
    pub(crate) fn reload(&mut self) -> Result<(), OrderError> {
        let path = self.config_path.clone().ok_or(OrderError::NoFile)?;
        let text =
            std::fs::read_to_string(&path).map_err(|source| OrderError::File { path, source })?;
        self.apply(Config::parse(&text)?)?;
        self.event("configuration read again");
        Ok(())
    }

    pub(crate) fn add_collector(
        &mut self,
        collector: CollectorConfig,
        groups: &[String],
    ) -> Result<(), OrderError> {
        let mut config = self.config.clone();
        let text = format!(
            "collector {} added at {}",
            collector.name, collector.address
        );
        config.add_collector(collector, groups)?;
        self.apply(config)?;
        self.event(text);
        Ok(())
    }

    pub(crate) fn remove_collector(&mut self, name: &str) -> Result<(), OrderError> {
        let mut config = self.config.clone();
        if !config.remove_collector(name) {
            return Err(OrderError::NoCollector(name.to_owned()));
        }
        self.apply(config)?;
        self.event(format!("collector {name} removed"));
        Ok(())
    }

    pub(crate) fn set_draining(&mut self, name: &str, draining: bool) -> Result<(), OrderError> {
        let found = self.watched.iter().find(|(_, watched)| {
            watched.destination.plan.name == name
                && watched.destination.plan.kind == DestinationKind::Collector
        });
        let id = found
            .map(|(id, _)| *id)
            .ok_or_else(|| OrderError::NoCollector(name.to_owned()))?;
        if draining {
            self.draining.insert(name.to_owned());
        } else {
            self.draining.remove(name);
        }
        self.announce(id, false);
        self.event(format!(
            "collector {name} {}",
            if draining {
                "draining"
            } else {
                "takes its share again"
            }
        ));
        Ok(())
    }

    /// Tells workers whether a destination takes traffic, if that has changed.
    fn announce(&mut self, id: BackEndId, always: bool) {
        let Some(watched) = self.watched.get_mut(&id) else {
            return;
        };
        let availability = if !watched.health.is_up() {
            Availability::Down
        } else if self.draining.contains(&watched.destination.plan.name) {
            Availability::Draining
        } else {
            Availability::Up
        };
        if availability == watched.availability && !(always && availability != Availability::Up) {
            return;
        }
        watched.availability = availability;
        for worker in &self.workers {
            let _ = worker
                .commands
                .send(Command::Availability(id, availability));
        }
    }

    /// The probes to make now.
    pub(crate) fn probes(&self) -> Vec<(BackEndId, ProbeConfig, SocketAddr)> {
        let watched = self.watched.iter().filter(|(_, watched)| {
            matches!(
                watched.destination.plan.probe,
                ProbeConfig::Tcp { .. } | ProbeConfig::Http { .. }
            )
        });
        let probes = watched.map(|(id, watched)| {
            let plan = &watched.destination.plan;
            (*id, plan.probe.clone(), plan.address)
        });
        probes.collect()
    }

    /// Takes the result of a probe.
    pub(crate) fn probed(&mut self, id: BackEndId, result: ProbeResult) {
        if let Some(watched) = self.watched.get_mut(&id) {
            if watched.reported_load != result.load {
                watched.reported_load = result.load;
                for worker in &self.workers {
                    let _ = worker.commands.send(Command::ReportedLoad(id, result.load));
                }
            }
            self.observe(id, result.is_good, 1);
        }
    }

    /// Looks at what senders met since the last time.
    pub(crate) fn watch_refusals(&mut self) {
        let now = self.clock.now();
        let ids: Vec<BackEndId> = self.watched.keys().copied().collect();
        for id in ids {
            let Some(watched) = self.watched.get_mut(&id) else {
                continue;
            };
            if watched.destination.plan.probe != ProbeConfig::Icmp {
                continue;
            }
            let counters = &watched.destination.counters;
            let refused = counters.refused.load(Relaxed);
            let accepted = counters.accepted.load(Relaxed);
            let new_refused = refused - std::mem::replace(&mut watched.refused, refused);
            let new_accepted = accepted - std::mem::replace(&mut watched.accepted, accepted);
            let is_trusted = watched
                .last_refused
                .is_none_or(|at| now.since(at) >= REFUSAL_HOLDS);
            // A datagram is refused only after it was accepted for sending.
            if new_refused > 0 {
                watched.last_refused = Some(now);
                self.observe(id, false, new_refused.min(u64::from(u32::MAX)) as u32);
                for worker in &self.workers {
                    // Nobody was there: whoever comes knows no templates.
                    let _ = worker.commands.send(Command::ForgetMemory(id));
                }
            } else if new_accepted > 0 && is_trusted {
                self.observe(id, true, 1);
            }
        }
    }

    fn observe(&mut self, id: BackEndId, is_good: bool, count: u32) {
        let (fall, rise) = (self.config.health.fall, self.config.health.rise);
        let Some(watched) = self.watched.get_mut(&id) else {
            return;
        };
        let change = watched.health.observe(is_good, count, fall, rise);
        let name = watched.destination.plan.name.clone();
        match change {
            Some(HealthChange::Fell) => self.event(format!(
                "collector {name} is down; its share goes to the others"
            )),
            Some(HealthChange::Rose) => self.event(format!(
                "collector {name} is up again; its share grows back"
            )),
            None => return,
        }
        self.announce(id, false);
    }

    /// Ends senders whose destinations were removed, and brings rates up to date.
    pub(crate) fn keep_house(&mut self) {
        let now = self.clock.now();
        let mut left = Vec::new();
        for (watched, at) in std::mem::take(&mut self.leaving) {
            if now < at {
                self.leaving.push((watched, at));
            } else {
                watched.destination.queue.close();
                left.push(watched);
            }
        }
        // Their threads end by themselves once their queues are empty.
        drop(left);
        self.exchange_loads();
        self.update_rates(now);
        let drops = self.kernel_drops().iter().sum::<u64>();
        if drops > self.last_kernel_drops {
            let text = format!(
                "the kernel dropped {} datagrams: receive buffers were full",
                drops - self.last_kernel_drops
            );
            self.last_kernel_drops = drops;
            self.event(text);
        }
    }

    /// Tells each worker what the others send.
    fn exchange_loads(&self) {
        if self.workers.len() < 2 {
            return;
        }
        let loads: Vec<Vec<(BackEndId, f64)>> = self
            .workers
            .iter()
            .map(|worker| worker.shared.loads.lock().clone())
            .collect();
        for (index, worker) in self.workers.iter().enumerate() {
            let mut others = BTreeMap::<BackEndId, f64>::new();
            for (_, loads) in loads
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != index)
            {
                for (id, load) in loads {
                    *others.entry(*id).or_default() += load;
                }
            }
            let _ = worker
                .commands
                .send(Command::ExternalLoads(others.into_iter().collect()));
        }
    }

    fn snapshots(&self) -> Vec<EngineSnapshot> {
        self.workers
            .iter()
            .map(|worker| worker.shared.snapshot.lock().clone())
            .collect()
    }

    fn kernel_drops(&self) -> Vec<u64> {
        let drops = self.workers.iter().flat_map(|worker| {
            worker
                .shared
                .dropped
                .iter()
                .map(|drops| drops.load(Relaxed))
        });
        drops.collect()
    }

    fn update_rates(&mut self, now: Timestamp) {
        let seconds = now.seconds_since(self.rates.at);
        if seconds < 1.0 {
            return;
        }
        let snapshots = self.snapshots();
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        let mut new = Rates {
            at: now,
            ..Rates::default()
        };
        for snapshot in &snapshots {
            new.records += snapshot.counters.records;
            new.datagrams += snapshot.counters.datagrams;
            for exporter in &snapshot.exporters {
                *new.exporters.entry(exporter.address).or_default() += exporter.records;
            }
            for destination in &snapshot.destinations {
                *new.destinations.entry(destination.id).or_default() += destination.records;
            }
        }
        let old = &self.rates;
        new.records_per_second = rate(new.records, old.records);
        new.datagrams_per_second = rate(new.datagrams, old.datagrams);
        let exporters = new.exporters.iter();
        new.exporter_rates = exporters
            .map(|(key, sum)| {
                (
                    *key,
                    rate(*sum, old.exporters.get(key).copied().unwrap_or(0)),
                )
            })
            .collect();
        let destinations = new.destinations.iter();
        new.destination_rates = destinations
            .map(|(key, sum)| {
                (
                    *key,
                    rate(*sum, old.destinations.get(key).copied().unwrap_or(0)),
                )
            })
            .collect();
        self.rates = new;
    }

    /// Everything there is to see.
    pub(crate) fn status(&self) -> Status {
        let snapshots = self.snapshots();
        let mut counters = Counters::default();
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.clock.now().seconds_since(Timestamp::ZERO),
            workers: self.workers.len(),
            records_per_second: self.rates.records_per_second,
            datagrams_per_second: self.rates.datagrams_per_second,
            sockets: self.sockets.clone(),
            events: self.events.iter().cloned().collect(),
            ..Status::default()
        };
        for (socket, drops) in status.sockets.iter_mut().zip(self.kernel_drops()) {
            socket.kernel_drops = drops;
        }
        let name_of = |id: u16| {
            let watched = self.watched.get(&BackEndId(id));
            watched.map_or_else(
                || format!("#{id}"),
                |watched| watched.destination.plan.name.clone(),
            )
        };
        let mut records = BTreeMap::<u16, (u64, u64, u64)>::new();
        for snapshot in snapshots {
            counters.add(&snapshot.counters);
            status.known_exporters += snapshot.known_exporters;
            status.known_streams += snapshot.known_streams;
            status.state_bytes += snapshot.state_bytes;
            status.waiting_bytes += snapshot.waiting_bytes;
            status.replay_bytes += snapshot.replay_bytes;
            for destination in snapshot.destinations {
                let sums = records.entry(destination.id).or_default();
                sums.0 += destination.records;
                sums.1 += destination.streams;
                sums.2 += destination.streams_up_to_date;
            }
            for exporter in snapshot.exporters {
                let ids: BTreeSet<u16> = exporter
                    .streams
                    .iter()
                    .flat_map(|stream| stream.collectors.iter().copied())
                    .collect();
                status.exporters.push(ExporterStatus {
                    address: exporter.address,
                    router_group: exporter.router_group,
                    messages: exporter.messages,
                    bytes: exporter.bytes,
                    records: exporter.records,
                    records_per_second: self
                        .rates
                        .exporter_rates
                        .get(&exporter.address)
                        .copied()
                        .unwrap_or(0.0),
                    silent_seconds: exporter.silent_seconds,
                    lost: exporter.streams.iter().map(|stream| stream.lost).sum(),
                    collectors: ids.into_iter().map(name_of).collect(),
                    streams: exporter.streams,
                });
            }
            merge_groups(&mut status.groups, snapshot.groups);
        }
        status.exporters.sort_by(|a, b| {
            b.records_per_second
                .total_cmp(&a.records_per_second)
                .then(b.records.cmp(&a.records))
        });
        status.counters = counters;
        status.destinations = self
            .watched
            .values()
            .map(|watched| self.destination_status(watched, &status.groups, &records))
            .collect();
        status
    }

    fn destination_status(
        &self,
        watched: &Watched,
        groups: &[GroupSnapshot],
        records: &BTreeMap<u16, (u64, u64, u64)>,
    ) -> DestinationStatus {
        let plan = &watched.destination.plan;
        let counters = &watched.destination.counters;
        let queue = &watched.destination.queue;
        let (queue_dropped_datagrams, queue_dropped_records) = queue.dropped();
        let (records, streams, streams_up_to_date) =
            records.get(&plan.id.0).copied().unwrap_or_default();
        let members = groups
            .iter()
            .flat_map(|group| &group.members)
            .filter(|member| member.id == plan.id.0);
        DestinationStatus {
            id: plan.id.0,
            name: plan.name.clone(),
            address: plan.address,
            kind: plan.kind,
            state: match watched.availability {
                Availability::Up => "up",
                Availability::Draining => "draining",
                Availability::Down => "down",
            }
            .to_owned(),
            datagrams: counters.datagrams.load(Relaxed),
            bytes: counters.bytes.load(Relaxed),
            records,
            records_per_second: self
                .rates
                .destination_rates
                .get(&plan.id.0)
                .copied()
                .unwrap_or(0.0),
            utilisation: members.map(|member| member.utilisation).fold(0.0, f64::max),
            queue_bytes: queue.bytes(),
            queue_limit_bytes: queue.limit_bytes(),
            queue_dropped_datagrams,
            queue_dropped_records,
            refused: counters.refused.load(Relaxed),
            failed: counters.failed.load(Relaxed),
            not_spoofed: counters.not_spoofed.load(Relaxed),
            reported_load: watched.reported_load,
            streams,
            streams_up_to_date,
        }
    }

    /// Tells workers to end; their threads.
    pub(crate) fn stop_workers(&mut self) -> Vec<JoinHandle<()>> {
        let threads = self.workers.iter_mut().filter_map(|worker| {
            let _ = worker.commands.send(Command::Stop);
            worker.thread.take()
        });
        threads.collect()
    }

    /// Closes all queues; the senders' threads, which end when they are empty.
    pub(crate) fn stop_senders(&mut self) -> Vec<JoinHandle<()>> {
        let leaving = std::mem::take(&mut self.leaving)
            .into_iter()
            .map(|(watched, _)| watched);
        let mut threads = Vec::new();
        for mut watched in leaving {
            watched.destination.queue.close();
            threads.extend(watched.thread.take());
        }
        for watched in self.watched.values_mut() {
            watched.destination.queue.close();
            threads.extend(watched.thread.take());
        }
        threads
    }
}

/// Sums of workers for groups of the same name; all workers have the same members.
fn merge_groups(groups: &mut Vec<GroupSnapshot>, more: Vec<GroupSnapshot>) {
    for group in more {
        let Some(known) = groups.iter_mut().find(|known| known.name == group.name) else {
            groups.push(group);
            continue;
        };
        for member in group.members {
            if let Some(known) = known.members.iter_mut().find(|known| known.id == member.id) {
                known.records_per_second += member.records_per_second;
                known.units += member.units;
                // Each worker knows of the others' load.
                known.utilisation = known.utilisation.max(member.utilisation);
            } else {
                known.members.push(member);
            }
        }
    }
}
