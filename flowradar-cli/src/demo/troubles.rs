//! A network in trouble, and a collector that watches it: what was planted beside what was found.
//!
//! Everything goes the way that it goes with real switches: flowsets into spools, from there by gRPC to
//! the collector, into its journal, grouped, decoded, analysed and stored; what was found is asked of
//! its API.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use flowradar_collector::analysis::{Event, EventKind, Severity};
use flowradar_core::flowset::SwitchName;
use flowradar_core::hash::Xxh3;
use flowradar_core::plan::PlanRequest;
use flowradar_server::agent::{AgentOptions, AgentProgress, Spool, SpoolOptions, SpoolSync, ship};
use flowradar_server::epoch::Overload;
use flowradar_server::notice::Notice;
use flowradar_server::{Collector, Config};
use flowradar_sim::encode::Encoders;
use flowradar_sim::{HostId, Planted, Scenario, Topology, Trouble, Truth};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::transport::Endpoint;

use super::failed;
use crate::layout_options;
use crate::outcome::CommandError;
use crate::output::write_file;
use crate::text::{counted, grouped};

/// Flows at a switch, on average, besides those that are trouble.
const FLOWS_PER_SWITCH: u32 = 250;
/// All that is planted begins and is known by then.
const EPOCHS: u64 = 24;
/// Length of an epoch. They are simulated as fast as they can be, and end when that begins.
const EPOCH: Duration = Duration::from_secs(1);
/// How often a switch may fail to decode on its own.
const FAILURE_PROBABILITY: f64 = 1e-4;
/// Longest wait for the collector: on a machine that has nothing else to do it takes a second or two.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often the collector is looked at meanwhile.
const POLL: Duration = Duration::from_millis(20);

/// What was planted, and what the collector says.
#[derive(Debug, Serialize)]
pub(super) struct TroublesReport {
    /// Whether everything planted was found, and every flow record of every switch is stored.
    pub(super) everything_right: bool,
    /// The collector's data folder.
    folder: String,
    epochs: u64,
    flowsets: u64,
    flowset_bytes: u64,
    /// What the switches counted.
    counted: Sums,
    /// What the collector has stored.
    stored: Sums,
    planted: Vec<Finding>,
    /// Events, information aside, that nobody planted.
    besides: Vec<String>,
    seconds: f64,
}

/// Flow records and their packets: a flow at five switches counts five times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Sums {
    flow_records: u64,
    packets: u64,
}

/// Something planted, and the event that tells of it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    planted: String,
    first_epoch: u64,
    last_epoch: u64,
    found: Option<Found>,
}

/// How something planted shows.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Found {
    event: String,
    severity: Severity,
    /// The epoch whose reports made it known.
    known_from_epoch: u64,
}

/// Runs a network in trouble under the eyes of a collector, whose data are in a folder of `folder`.
pub(super) async fn run(folder: &Path, seed: u64) -> Result<TroublesReport, CommandError> {
    let start = Instant::now();
    let scenario = Scenario::troubled_fat_tree(FLOWS_PER_SWITCH, EPOCHS, seed).map_err(failed)?;
    let topology = scenario.simulation.topology();
    let truth = Truth::of(&scenario.simulation);
    let data_folder = folder.join("collector");
    make_anew(&data_folder)?;
    let network = folder.join("network.json");
    write_file(&network, topology.to_json().as_bytes())?;

    let mut config = Config::ephemeral(&data_folder);
    config.analysis.network = Some(network);
    // A machine that is busy with something else shall not lose anything.
    config.epochs.deadline_ms = PATIENCE.as_millis() as u64;
    config.epochs.expected_ms = PATIENCE.as_millis() as u64;
    config.epochs.overload = Overload::Spool;
    let collector = Collector::start(config).await.map_err(failed)?;
    let shipped = ship_all(&scenario, &truth, &collector, &data_folder.join("spools")).await?;
    analysed(&collector).await?;

    let stored = stored(&collector)?;
    let notices: Vec<Notice> = ask(&collector, "/api/v1/events?analyses=true")?;
    collector.stop().await;
    let changes = notices.iter().filter_map(|notice| notice.event.as_ref());
    let events: Vec<&Event> = changes.map(|change| change.event()).collect();
    let planted = compare(&scenario.planted, topology, &events);
    let counted = Sums {
        flow_records: truth.records().len() as u64,
        packets: truth.records().iter().map(|record| record.packets).sum(),
    };
    Ok(TroublesReport {
        everything_right: stored == counted && planted.iter().all(|row| row.found.is_some()),
        folder: data_folder.display().to_string(),
        epochs: EPOCHS,
        flowsets: shipped.flowsets,
        flowset_bytes: shipped.bytes,
        counted,
        stored,
        besides: not_planted(&scenario.planted, topology, &events),
        planted,
        seconds: start.elapsed().as_secs_f64(),
    })
}

impl TroublesReport {
    /// The report in lines: each has a title, which may be empty, and a text.
    pub(super) fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            (
                "6. TROUBLES",
                format!(
                    "{} of the same network, shipped to a collector by agents",
                    counted(self.epochs, "epoch")
                ),
            ),
            (
                "",
                format!(
                    "{}; {} stored, of {} that switches counted ({:.1} s)",
                    counted(self.flowsets, "flowset"),
                    counted(self.stored.flow_records, "flow record"),
                    grouped(self.counted.flow_records),
                    self.seconds,
                ),
            ),
        ];
        let title = ("planted", "epochs", "found");
        let rows: Vec<(&str, String, String)> = self.planted.iter().map(Finding::row).collect();
        let what = rows.iter().map(|row| row.0.len()).max().unwrap_or_default();
        let when = rows.iter().map(|row| row.1.len()).max().unwrap_or_default();
        lines.push((
            "",
            format!("{:what$}  {:when$}  {}", title.0, title.1, title.2),
        ));
        for (planted, epochs, found) in &rows {
            lines.push(("", format!("{planted:what$}  {epochs:when$}  {found}")));
        }
        for event in &self.besides {
            lines.push(("", format!("not planted: {event}")));
        }
        lines.push((
            "",
            format!(
                "Look around in it: flowradar collect --data-folder {}",
                self.folder
            ),
        ));
        lines.push(("", "                   flowradar top --window 10m".into()));
        lines
    }
}

impl Finding {
    /// The columns of a table.
    fn row(&self) -> (&str, String, String) {
        let found = match &self.found {
            Some(found) => format!("in epoch {}: {}", found.known_from_epoch, found.event),
            None => "NOT FOUND".to_owned(),
        };
        let epochs = format!("{} to {}", self.first_epoch, self.last_epoch);
        (&self.planted, epochs, found)
    }
}

/// Makes the collector's data folder, without what an earlier demonstration left there.
fn make_anew(folder: &Path) -> Result<(), CommandError> {
    for part in ["journal", "flows", "spools"] {
        let part = folder.join(part);
        match fs::remove_dir_all(&part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(CommandError::file("remove", &part)(error));
            }
            _ => {}
        }
    }
    fs::create_dir_all(folder).map_err(CommandError::file("create", folder))
}

/// What was shipped.
#[derive(Clone, Copy, Debug, Default)]
struct Shipped {
    flowsets: u64,
    bytes: u64,
}

/// Encodes all epochs and ships them, from a spool for each switch; waits until the collector has all.
async fn ship_all(
    scenario: &Scenario,
    truth: &Truth,
    collector: &Collector,
    spools: &Path,
) -> Result<Shipped, CommandError> {
    let simulation = &scenario.simulation;
    let switches = simulation.topology().switches();
    let layout = {
        let request = PlanRequest::flows(most_flows(scenario, truth))
            .failure_probability(FAILURE_PROBABILITY)
            .seed(1);
        layout_options::plan(&request)?.layout
    };
    let mut agents = Agents::start(switches, collector, spools).await?;
    let now_ns = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64);
    let length_ns = EPOCH.as_nanos() as u64;
    let start_ns = now_ns.saturating_sub(EPOCHS * length_ns);
    let mut shipped = Shipped::default();
    for (_, reports) in Encoders::<Xxh3>::new(simulation, &layout).with_times(start_ns, length_ns) {
        for report in reports {
            let spool = &agents.spools[report.switch.index()];
            spool.put(&report.flowset).map_err(failed)?;
            shipped.flowsets += 1;
            shipped.bytes += report.flowset.len() as u64;
        }
    }
    agents.finish().await?;
    // All is in the collector's journal.
    _ = fs::remove_dir_all(spools);
    Ok(shipped)
}

/// Flows of the busiest switch in its busiest epoch.
fn most_flows(scenario: &Scenario, truth: &Truth) -> u64 {
    let switches = || scenario.simulation.topology().switch_ids();
    let flows = (0..EPOCHS)
        .flat_map(|epoch| switches().map(move |switch| truth.records_of(epoch, switch).len()));
    flows.max().unwrap_or(0).max(1) as u64
}

/// An agent for each switch.
struct Agents {
    /// By switch.
    spools: Vec<Spool>,
    tasks: JoinSet<Result<(), CommandError>>,
}

impl Agents {
    /// Starts agents and waits until the collector knows them all: it does not wait for reports of
    /// switches that it never heard of.
    async fn start(
        switches: &[SwitchName],
        collector: &Collector,
        folder: &Path,
    ) -> Result<Self, CommandError> {
        let channel = Endpoint::from_shared(format!("http://{}", collector.ingest_address()))
            .map_err(failed)?
            .connect_lazy();
        let (told, mut registered) = mpsc::unbounded_channel();
        let mut agents = Self {
            spools: vec![],
            tasks: JoinSet::new(),
        };
        for switch in switches {
            let folder = folder.join(switch.as_str());
            let options = SpoolOptions {
                sync: SpoolSync::Never,
                ..SpoolOptions::default()
            };
            let spool = Spool::open(&folder, options, None)
                .map_err(CommandError::file("open the spool", &folder))?;
            let options = AgentOptions {
                switch: switch.clone(),
                token: None,
                description: "flowradar demo".into(),
                links: vec![],
                retry: Duration::from_millis(100),
            };
            let told = told.clone();
            let tell = move |progress| {
                if matches!(progress, AgentProgress::Registered { .. }) {
                    // Nobody listens any more when all are there.
                    _ = told.send(());
                }
            };
            let shipping = ship(channel.clone(), options, spool.clone(), tell);
            agents
                .tasks
                .spawn(async move { shipping.await.map_err(failed) });
            agents.spools.push(spool);
        }
        let all = async {
            for _ in switches {
                registered.recv().await;
            }
        };
        or_failure(&mut agents.tasks, all).await?;
        Ok(agents)
    }

    /// Waits until the collector has everything durably.
    async fn finish(&mut self) -> Result<(), CommandError> {
        let Self { spools, tasks } = self;
        let all = async {
            for spool in spools.iter() {
                spool.emptied().await;
            }
        };
        or_failure(tasks, all).await?;
        self.tasks.shutdown().await;
        Ok(())
    }
}

/// Waits for something, unless an agent fails for good, or it takes too long.
async fn or_failure(
    tasks: &mut JoinSet<Result<(), CommandError>>,
    wait: impl Future<Output = ()>,
) -> Result<(), CommandError> {
    tokio::select! {
        () = wait => Ok(()),
        Some(ended) = tasks.join_next() => match ended {
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) => Err(CommandError::Failed("an agent ended".into())),
            Err(error) => Err(failed(error)),
        },
        () = tokio::time::sleep(PATIENCE) => Err(too_long("take the reports")),
    }
}

/// Waits until all epochs are analysed and handed over to the store.
async fn analysed(collector: &Collector) -> Result<(), CommandError> {
    let begin = Instant::now();
    loop {
        let live = collector.live();
        let epochs = live.epochs(EPOCHS as usize, |_| true);
        let records: u64 = epochs.iter().map(|epoch| epoch.records).sum();
        let sizes = collector.reader().sizes();
        if live.analysis_counters().epochs == EPOCHS
            && epochs.len() as u64 == EPOCHS
            && sizes.rows + sizes.pending_rows >= records
        {
            return Ok(());
        }
        if begin.elapsed() > PATIENCE {
            return Err(too_long("decode and analyse them"));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn too_long(what: &str) -> CommandError {
    let seconds = PATIENCE.as_secs();
    CommandError::Failed(format!(
        "the collector took more than {seconds} s to {what}: is the machine busy, or its disk?"
    ))
}

/// What the collector's API says is stored.
fn stored(collector: &Collector) -> Result<Sums, CommandError> {
    let answer: serde_json::Value = ask(collector, "/api/v1/flows/top?group_by=source")?;
    let number = |name: &str| {
        let value = answer.pointer(&format!("/rows/0/{name}"));
        value.and_then(serde_json::Value::as_u64).unwrap_or(0)
    };
    Ok(Sums {
        flow_records: number("records"),
        packets: number("packets"),
    })
}

fn ask<T: DeserializeOwned>(collector: &Collector, path: &str) -> Result<T, CommandError> {
    let url = format!("http://{}{path}", collector.api_address());
    let text = ureq::get(&url)
        .call()
        .and_then(|mut answer| {
            answer
                .body_mut()
                .with_config()
                .limit(1 << 30)
                .read_to_string()
        })
        .map_err(|error| CommandError::Failed(format!("{url}: {error}")))?;
    serde_json::from_str(&text).map_err(|error| {
        CommandError::Failed(format!("{url}: an answer that is not known: {error}"))
    })
}

/// What was planted, each with the first event that tells of it.
fn compare(planted: &[Planted], topology: &Topology, events: &[&Event]) -> Vec<Finding> {
    let finding = |planted: &Planted| {
        let told = events
            .iter()
            .filter(|event| tells_of(&event.kind, &planted.trouble, topology))
            .min_by_key(|event| event.detected_epoch);
        Finding {
            planted: describe(&planted.trouble, topology),
            first_epoch: *planted.epochs.start(),
            last_epoch: *planted.epochs.end(),
            found: told.map(|event| Found {
                event: event.kind.to_string(),
                severity: event.severity,
                known_from_epoch: event.detected_epoch,
            }),
        }
    };
    planted.iter().map(finding).collect()
}

/// Events worth a warning that tell of nothing planted.
fn not_planted(planted: &[Planted], topology: &Topology, events: &[&Event]) -> Vec<String> {
    // As each was told last.
    let last: BTreeMap<u64, &&Event> = events.iter().map(|event| (event.id, event)).collect();
    let explained = |event: &Event| {
        planted
            .iter()
            .any(|planted| tells_of(&event.kind, &planted.trouble, topology))
    };
    last.into_values()
        .filter(|event| event.severity > Severity::Info && !explained(event))
        .map(ToString::to_string)
        .collect()
}

/// Whether an event is what a planted trouble must look like, at the right place.
fn tells_of(kind: &EventKind, trouble: &Trouble, topology: &Topology) -> bool {
    let name = |switch| topology.name(switch);
    let address = |host: HostId| topology.hosts()[host.index()].address;
    match (kind, trouble) {
        (EventKind::Blackhole { switch, .. }, Trouble::Blackhole { at })
        | (EventKind::EcmpImbalance { switch, .. }, Trouble::EcmpImbalance { at }) => {
            switch == name(*at)
        }
        (EventKind::LinkLoss { from, to }, Trouble::LossyLink { from: a, to: b, .. }) => {
            (from.as_str(), to.as_str()) == (name(*a), name(*b))
        }
        (EventKind::Loop { switches }, Trouble::Loop { switches: planted }) => {
            let mut names: Vec<&str> = planted.iter().map(|&at| name(at)).collect();
            names.sort_unstable();
            *switches == names
        }
        (EventKind::Scan { src, dst, .. }, Trouble::Scan { from, to }) => {
            *src == address(*from) && *dst == Some(address(*to).into())
        }
        (EventKind::SynFlood { dst, dst_port }, Trouble::SynFlood { to, dst_port: port }) => {
            *dst == address(*to) && dst_port == port
        }
        (EventKind::WrongForwarding { at, to }, Trouble::WrongForwarding { at: a, to: b }) => {
            (at.as_str(), to.as_str()) == (name(*a), name(*b))
        }
        _ => false,
    }
}

fn describe(trouble: &Trouble, topology: &Topology) -> String {
    let name = |switch| topology.name(switch);
    let address = |host: HostId| topology.hosts()[host.index()].address;
    match trouble {
        Trouble::Blackhole { at } => format!("{} drops some hosts' flows", name(*at)),
        Trouble::EcmpImbalance { at } => format!("{} prefers one of its next hops", name(*at)),
        Trouble::LossyLink { from, to, fraction } => format!(
            "{} to {} loses {:.0} % of packets",
            name(*from),
            name(*to),
            fraction * 100.0
        ),
        Trouble::Loop { switches } => {
            let names: Vec<&str> = switches.iter().map(|&at| name(at)).collect();
            format!("a loop between {}", names.join(" and "))
        }
        Trouble::Scan { from, to } => {
            format!("{} scans ports of {}", address(*from), address(*to))
        }
        Trouble::SynFlood { to, dst_port } => {
            format!("a SYN flood to {} port {dst_port}", address(*to))
        }
        Trouble::WrongForwarding { at, to } => {
            format!("{} sends flows wrongly to {}", name(*at), name(*to))
        }
    }
}

#[cfg(test)]
mod tests {
    use flowradar_collector::analysis::Evidence;

    use super::*;

    fn event(id: u64, kind: EventKind) -> Event {
        Event {
            id,
            kind,
            severity: Severity::Warning,
            start_epoch: 3,
            detected_epoch: 4,
            last_epoch: 5,
            end_epoch: None,
            evidence: Evidence::default(),
        }
    }

    #[test]
    fn what_is_not_told_of_is_not_found() {
        let scenario = Scenario::troubled_fat_tree(10, 20, 1).expect("the settings are fine");
        let topology = scenario.simulation.topology();
        let loss = |from: &str, to: &str| EventKind::LinkLoss {
            from: from.into(),
            to: to.into(),
        };
        // The right link, the other direction, and another link.
        let right = event(0, loss("agg-1-1", "core-3"));
        let others = [
            event(1, loss("core-3", "agg-1-1")),
            event(2, loss("agg-1-0", "core-0")),
        ];
        let mut events = vec![&right];
        events.extend(&others);
        let findings = compare(&scenario.planted, topology, &events);
        let found: Vec<&str> = findings
            .iter()
            .filter(|finding| finding.found.is_some())
            .map(|finding| finding.planted.as_str())
            .collect();
        assert_eq!(found, ["agg-1-1 to core-3 loses 2 % of packets"]);
        assert_eq!(findings.len(), 7);
        let missed = findings.iter().find(|finding| finding.found.is_none());
        assert_eq!(
            missed.map(|finding| finding.row().2).as_deref(),
            Some("NOT FOUND")
        );
        assert_eq!(not_planted(&scenario.planted, topology, &events).len(), 2);

        let wrong_way = compare(&scenario.planted, topology, &[&others[0]]);
        assert!(wrong_way.iter().all(|finding| finding.found.is_none()));
    }
}
