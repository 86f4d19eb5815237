//! Flowsets of files, decoded and analysed.

pub(crate) mod page;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Instant;

use flowradar_collector::analysis::{
    AnalysisCounters, AnalysisOptions, Analyzer, EpochFindings, EpochRecords, Event, EventChange,
    FiveTuple, LossOptions, NetworkModel, TrafficOptions, Volume,
};
use flowradar_collector::{NetDecodeOptions, NetDecodeSummary, net_decode};
use flowradar_core::{FlowKey, FlowKeyV4, FlowKeyV6, Flowset, KeyKind};
use serde::Serialize;

use crate::commands::decode::BadFlowsetReport;
use crate::commands::net_decode::read_group;
use crate::flowset_files::Catalog;
use crate::outcome::CommandError;
use crate::output::Output;
use crate::progress::Progress;
use crate::text::{counted, grouped, percent, short_size};

/// Entries of an epoch's lists, so that sums over epochs leave nothing out that matters.
const LISTED_PER_EPOCH: usize = 100_000;

/// How to analyse.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Whether all switches count a packet in the same epoch.
    pub(crate) stamped: bool,
    pub(crate) top: usize,
    /// Where the findings of each epoch go.
    pub(crate) series: Option<PathBuf>,
}

/// What was found in all epochs.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Whether every flow was found and every counter is known.
    pub(crate) complete: bool,
    pub(crate) flowsets: usize,
    pub(crate) switches: usize,
    pub(crate) epochs: u64,
    pub(crate) first_epoch: u64,
    pub(crate) last_epoch: u64,
    /// Epochs in which something could not be decoded.
    pub(crate) incomplete_epochs: u64,
    pub(crate) flows_not_found: u64,
    pub(crate) unresolved: u64,
    bad_flowsets: Vec<BadFlowsetReport>,
    /// Whether the network was known: without it there are traffic and attacks only.
    pub(crate) network_known: bool,
    pub(crate) events: Vec<Event>,
    pub(crate) losses: Losses,
    pub(crate) groups: Vec<GroupSum>,
    pub(crate) traffic: Traffic,
    pub(crate) counters: AnalysisCounters,
    pub(crate) seconds: f64,
}

/// Losses of all epochs.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Losses {
    pub(crate) packets_lost: u64,
    pub(crate) packets_in_flight: u64,
    pub(crate) compared: u64,
    pub(crate) undecided: u64,
    /// Links that lost packets, the one that lost most first.
    pub(crate) links: Vec<LinkSum>,
}

/// A link over all epochs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LinkSum {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) packets: u64,
    pub(crate) lost: u64,
}

/// An ECMP group over all epochs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct GroupSum {
    pub(crate) switch: String,
    pub(crate) members: Vec<MemberSum>,
    /// Largest share in packets over the share that weights give it; 1 is even.
    pub(crate) packet_ratio: f64,
    /// The highest of one epoch.
    pub(crate) worst_packet_ratio: f64,
}

/// A member of an ECMP group over all epochs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MemberSum {
    pub(crate) to: String,
    pub(crate) weight: u32,
    pub(crate) flows: u64,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

/// Traffic of all epochs. Flows are counted once an epoch.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Traffic {
    pub(crate) total: Volume,
    /// Whether lists of some epoch were cut, so that sums are at least what they say.
    pub(crate) lists_cut: bool,
    pub(crate) flows: Vec<Entry>,
    pub(crate) sources: Vec<Entry>,
    pub(crate) destinations: Vec<Entry>,
    pub(crate) services: Vec<Entry>,
    pub(crate) matrix: Vec<Entry>,
}

/// An entry of a list.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Entry {
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) volume: Volume,
}

/// Decodes and analyses all flowsets.
pub(crate) fn run(
    catalog: Catalog,
    model: Option<NetworkModel>,
    settings: &Settings,
) -> Result<Report, CommandError> {
    let start = Instant::now();
    let mut series = match &settings.series {
        Some(path) => Some(Output::open(Some(path))?),
        None => None,
    };
    let mut bad = catalog.bad;
    let mut entries = catalog.entries;
    entries.sort_by_key(|entry| (entry.epoch.number, entry.key));
    let by_epoch: Vec<_> = entries
        .chunk_by(|a, b| a.epoch.number == b.epoch.number)
        .collect();
    let mut sums = Sums::new(model, settings);
    let progress = Progress::steps("analysing epochs", by_epoch.len() as u64);
    for (number, of_epoch) in by_epoch.iter().enumerate() {
        let epoch = of_epoch[0].epoch.number;
        let mut records = EpochRecords::new(epoch);
        for group in of_epoch.chunk_by(|a, b| a.key == b.key) {
            let flowsets = read_group(group, &mut bad);
            sums.flowsets += flowsets.len();
            match group[0].key {
                KeyKind::V4 => decode::<FlowKeyV4>(&flowsets, &mut records, &mut sums)?,
                KeyKind::V6 => decode::<FlowKeyV6>(&flowsets, &mut records, &mut sums)?,
            }
        }
        let findings = sums.add(&records)?;
        if let Some(series) = &mut series {
            serde_json::to_writer(&mut *series, &findings)
                .map_err(std::io::Error::from)
                .and_then(|()| series.write_all(b"\n"))
                .map_err(CommandError::Output)?;
        }
        progress.set(number as u64 + 1);
    }
    drop(progress);
    if let Some(series) = series {
        series.commit().map_err(CommandError::Output)?;
    }
    let bad: Vec<BadFlowsetReport> = bad.iter().map(BadFlowsetReport::new).collect();
    if sums.flowsets == 0 {
        for bad in &bad {
            bad.print();
        }
        return Err(CommandError::Failed("no flowset could be decoded".into()));
    }
    Ok(sums.report(bad, settings, start))
}

fn decode<K: FlowKey>(
    flowsets: &[Flowset<Vec<u8>>],
    records: &mut EpochRecords,
    sums: &mut Sums,
) -> Result<(), CommandError> {
    let epoch = records.epoch;
    let decoded = net_decode::<K, _>(flowsets, &NetDecodeOptions::default())
        .map_err(|error| CommandError::Failed(format!("epoch {epoch}: {error}")))?;
    records.add(&decoded);
    sums.decoded(decoded.is_complete(), &decoded.summary);
    Ok(())
}

/// Sums over epochs.
struct Sums {
    analyzer: Analyzer,
    events: BTreeMap<u64, Event>,
    flowsets: usize,
    switches: std::collections::BTreeSet<String>,
    epochs: Option<(u64, u64)>,
    incomplete: bool,
    incomplete_epochs: u64,
    flows_not_found: u64,
    unresolved: u64,
    losses: Losses,
    links: BTreeMap<(String, String), LinkSum>,
    groups: BTreeMap<(String, Vec<String>), GroupSum>,
    total: Volume,
    lists_cut: bool,
    flows: BTreeMap<FiveTuple, Volume>,
    sources: BTreeMap<IpAddr, Volume>,
    destinations: BTreeMap<IpAddr, Volume>,
    services: BTreeMap<(u8, u16), Volume>,
    matrix: BTreeMap<(String, String), Volume>,
}

impl Sums {
    fn new(model: Option<NetworkModel>, settings: &Settings) -> Self {
        let options = AnalysisOptions {
            loss: LossOptions {
                in_flight_epochs: u8::from(!settings.stamped),
                ..LossOptions::default()
            },
            traffic: TrafficOptions {
                top: LISTED_PER_EPOCH,
                ..TrafficOptions::default()
            },
            ..AnalysisOptions::default()
        };
        Self {
            analyzer: Analyzer::new(options, model),
            events: BTreeMap::new(),
            flowsets: 0,
            switches: Default::default(),
            epochs: None,
            incomplete: false,
            incomplete_epochs: 0,
            flows_not_found: 0,
            unresolved: 0,
            losses: Losses::default(),
            links: BTreeMap::new(),
            groups: BTreeMap::new(),
            total: Volume::default(),
            lists_cut: false,
            flows: BTreeMap::new(),
            sources: BTreeMap::new(),
            destinations: BTreeMap::new(),
            services: BTreeMap::new(),
            matrix: BTreeMap::new(),
        }
    }

    fn decoded(&mut self, complete: bool, summary: &NetDecodeSummary) {
        self.incomplete |= !complete;
        self.flows_not_found += summary.flows_left;
        self.unresolved += summary.unresolved as u64;
    }

    /// Analyses an epoch.
    fn add(&mut self, records: &EpochRecords) -> Result<EpochFindings, CommandError> {
        let names = records
            .switches()
            .iter()
            .map(|switch| switch.switch.to_string());
        self.switches.extend(names);
        let (first, _) = *self.epochs.get_or_insert((records.epoch, records.epoch));
        self.epochs = Some((first, records.epoch));
        self.incomplete_epochs += u64::from(std::mem::take(&mut self.incomplete));
        let findings = self
            .analyzer
            .epoch(records)
            .map_err(|error| CommandError::Failed(error.to_string()))?;
        self.keep(&findings.events);
        self.add_losses(&findings);
        self.add_groups(&findings);
        self.add_traffic(&findings);
        Ok(findings)
    }

    /// Events as they are in the end.
    fn keep(&mut self, changes: &[EventChange]) {
        for change in changes {
            let event = change.event();
            self.events.insert(event.id, event.clone());
        }
    }

    fn add_losses(&mut self, findings: &EpochFindings) {
        let Some(map) = &findings.losses else {
            return;
        };
        self.losses.packets_lost += map.packets_lost;
        self.losses.packets_in_flight += map.packets_in_flight;
        self.losses.compared += map.compared;
        self.losses.undecided += map.undecided;
        for link in &map.links {
            let key = (link.from.clone(), link.to.clone());
            let sum = self.links.entry(key).or_insert_with(|| LinkSum {
                from: link.from.clone(),
                to: link.to.clone(),
                packets: 0,
                lost: 0,
            });
            sum.packets += link.packets;
            sum.lost += link.lost;
        }
    }

    fn add_groups(&mut self, findings: &EpochFindings) {
        for group in &findings.groups {
            let members = group
                .members
                .iter()
                .map(|member| member.to.clone())
                .collect();
            let key = (group.switch.clone(), members);
            let sum = self.groups.entry(key).or_insert_with(|| GroupSum {
                switch: group.switch.clone(),
                members: group
                    .members
                    .iter()
                    .map(|member| MemberSum {
                        to: member.to.clone(),
                        weight: member.weight,
                        flows: 0,
                        packets: 0,
                        bytes: 0,
                    })
                    .collect(),
                packet_ratio: 0.0,
                worst_packet_ratio: 0.0,
            });
            for (sum, member) in sum.members.iter_mut().zip(&group.members) {
                sum.flows += member.flows;
                sum.packets += member.packets;
                sum.bytes += member.bytes;
            }
            sum.worst_packet_ratio = sum.worst_packet_ratio.max(group.packet_ratio);
        }
    }

    fn add_traffic(&mut self, findings: &EpochFindings) {
        let traffic = &findings.traffic;
        add(&mut self.total, traffic.total);
        self.lists_cut |= traffic.total.flows > LISTED_PER_EPOCH as u64;
        for entry in &traffic.top_flows {
            add(self.flows.entry(entry.flow).or_default(), entry.volume);
        }
        for entry in &traffic.top_sources {
            add(self.sources.entry(entry.address).or_default(), entry.volume);
        }
        for entry in &traffic.top_destinations {
            add(
                self.destinations.entry(entry.address).or_default(),
                entry.volume,
            );
        }
        for entry in &traffic.top_services {
            let service = (entry.protocol, entry.port);
            add(self.services.entry(service).or_default(), entry.volume);
        }
        for entry in &traffic.matrix {
            let places = (entry.from.clone(), entry.to.clone());
            add(self.matrix.entry(places).or_default(), entry.volume);
        }
    }

    fn report(mut self, bad: Vec<BadFlowsetReport>, settings: &Settings, start: Instant) -> Report {
        let changes = self.analyzer.finish();
        self.keep(&changes);
        let mut losses = self.losses;
        losses.links = self
            .links
            .into_values()
            .filter(|link| link.lost > 0)
            .collect();
        losses
            .links
            .sort_by_key(|link| std::cmp::Reverse(link.lost));
        let mut groups: Vec<GroupSum> = self.groups.into_values().collect();
        for group in &mut groups {
            group.packet_ratio = ratio(&group.members);
        }
        groups.sort_by(|a, b| b.packet_ratio.total_cmp(&a.packet_ratio));
        let (first_epoch, last_epoch) = self.epochs.unwrap_or_default();
        let top = settings.top;
        Report {
            complete: self.incomplete_epochs == 0 && bad.is_empty(),
            flowsets: self.flowsets,
            switches: self.switches.len(),
            epochs: self.analyzer.counters().epochs,
            first_epoch,
            last_epoch,
            incomplete_epochs: self.incomplete_epochs,
            flows_not_found: self.flows_not_found,
            unresolved: self.unresolved,
            bad_flowsets: bad,
            network_known: self.analyzer.model().is_some(),
            events: self.events.into_values().collect(),
            losses,
            groups,
            traffic: Traffic {
                total: self.total,
                lists_cut: self.lists_cut,
                flows: largest(self.flows, top, |flow| flow.to_string()),
                sources: largest(self.sources, top, |address| address.to_string()),
                destinations: largest(self.destinations, top, |address| address.to_string()),
                services: largest(self.services, top, |(protocol, port)| {
                    format!("protocol {protocol} port {port}")
                }),
                matrix: largest(self.matrix, top, |(from, to)| format!("{from} > {to}")),
            },
            counters: self.analyzer.counters(),
            seconds: start.elapsed().as_secs_f64(),
        }
    }
}

fn add(sum: &mut Volume, volume: Volume) {
    sum.flows += volume.flows;
    sum.packets = sum.packets.saturating_add(volume.packets);
    sum.bytes = sum.bytes.saturating_add(volume.bytes);
    sum.unresolved_flows += volume.unresolved_flows;
}

fn ratio(members: &[MemberSum]) -> f64 {
    let total: u64 = members.iter().map(|member| member.packets).sum();
    let weights: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
    let ratio = |member: &MemberSum| {
        let fair = total as f64 * f64::from(member.weight) / weights.max(1) as f64;
        if fair > 0.0 {
            member.packets as f64 / fair
        } else {
            0.0
        }
    };
    members.iter().map(ratio).fold(0.0, f64::max)
}

fn largest<K>(entries: BTreeMap<K, Volume>, top: usize, name: impl Fn(K) -> String) -> Vec<Entry> {
    let mut entries: Vec<(K, Volume)> = entries.into_iter().collect();
    // Stable: equals stay in the order of their keys.
    entries.sort_by_key(|(_, volume)| std::cmp::Reverse(volume.packets));
    entries.truncate(top);
    let entry = |(key, volume)| Entry {
        name: name(key),
        volume,
    };
    entries.into_iter().map(entry).collect()
}

impl Report {
    /// The report in words.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for bad in &self.bad_flowsets {
            bad.print();
        }
        if self.events.is_empty() {
            text.push_str("No events.\n");
        } else {
            text.push_str(&format!("EVENTS ({})\n", self.events.len()));
            let mut events: Vec<&Event> = self.events.iter().collect();
            events.sort_by_key(|event| (std::cmp::Reverse(event.severity), event.id));
            for event in events {
                text.push_str(&format!(
                    "  {:<9} {}\n            epoch {}, known from {}; {}, {}\n",
                    event.severity,
                    event.kind,
                    span(event),
                    event.detected_epoch,
                    counted(event.evidence.flows, "flow"),
                    counted(event.evidence.packets, "packet"),
                ));
            }
        }
        if self.network_known {
            text.push_str(&self.network_text());
        } else {
            text.push_str(
                "The network is not known (--topology): no losses, loops, forwarding and load.\n",
            );
        }
        text.push_str(&self.traffic_text());
        text.push_str(&format!(
            "{} of {} in {}, {} of {} decoded completely ({:.2} s)\n",
            counted(self.flowsets as u64, "flowset"),
            counted(self.switches as u64, "switch").replace("switchs", "switches"),
            counted(self.epochs, "epoch"),
            grouped(self.epochs - self.incomplete_epochs.min(self.epochs)),
            grouped(self.epochs),
            self.seconds,
        ));
        if !self.complete {
            text.push_str(&format!(
                "  {} not found, {} unresolved: what depends on them is not said\n",
                counted(self.flows_not_found, "flow"),
                counted(self.unresolved, "counter"),
            ));
        }
        text
    }

    fn network_text(&self) -> String {
        let losses = &self.losses;
        let mut text = format!(
            "LOSSES: {} lost, {} on their way at the end of an epoch; {} of {} not decided\n",
            counted(losses.packets_lost, "packet"),
            grouped(losses.packets_in_flight),
            grouped(losses.undecided),
            counted(losses.compared + losses.undecided, "comparison"),
        );
        for link in losses.links.iter().take(SHOWN) {
            text.push_str(&format!(
                "  {} > {}: {} of {} ({})\n",
                link.from,
                link.to,
                grouped(link.lost),
                counted(link.packets, "packet"),
                percent(link.lost, link.packets),
            ));
        }
        text.push_str("LOAD (largest share over the fair one, in packets)\n");
        for group in self.groups.iter().take(SHOWN) {
            let members = group.members.iter();
            let members =
                members.map(|member| format!("{} {}", member.to, grouped(member.packets)));
            text.push_str(&format!(
                "  {:.2}  {}: {}\n",
                group.packet_ratio,
                group.switch,
                members.collect::<Vec<_>>().join(", "),
            ));
        }
        text
    }

    fn traffic_text(&self) -> String {
        let traffic = &self.traffic;
        let mut text = format!(
            "TRAFFIC: {}, {}, {} ({} over epochs)\n",
            counted(traffic.total.packets, "packet"),
            short_size(traffic.total.bytes),
            counted(traffic.total.flows, "flow"),
            if traffic.lists_cut {
                "summed, lists cut,"
            } else {
                "summed"
            },
        );
        for (title, entries) in [
            ("flows", &traffic.flows),
            ("sources", &traffic.sources),
            ("destinations", &traffic.destinations),
            ("services", &traffic.services),
        ] {
            text.push_str(&format!("  {title}\n"));
            for entry in entries {
                text.push_str(&format!(
                    "    {:>12}  {}\n",
                    grouped(entry.volume.packets),
                    entry.name
                ));
            }
        }
        text
    }
}

/// Lines of a list in the text.
const SHOWN: usize = 5;

/// The epochs of an event.
pub(crate) fn span(event: &Event) -> String {
    if event.last_epoch == event.start_epoch {
        event.start_epoch.to_string()
    } else {
        format!("{} to {}", event.start_epoch, event.last_epoch)
    }
}
