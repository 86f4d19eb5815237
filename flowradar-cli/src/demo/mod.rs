//! The demonstration: a network in ordinary times, in a burst, and in trouble; decoded, watched, and
//! checked.

pub(crate) mod p4;
mod page;
mod troubles;

use std::fs;
use std::path::Path;
use std::time::Instant;

use flowradar_core::plan::{DecodeGoal, Plan, PlanRequest};
use flowradar_core::{FlowKey, FlowKeyV4, KeyKind};
use flowradar_sim::{Faults, LossyLink, Node, Simulation, Topology, Truth};
use serde::Serialize;

use self::troubles::TroublesReport;
use crate::commands::collect::runtime;
use crate::experiment::losses::{self, Hops, LossScore, Losses};
use crate::experiment::{EpochReports, Tally, encode_epoch};
use crate::flowset_files;
use crate::layout_options;
use crate::outcome::CommandError;
use crate::output::write_file;
use crate::progress::Progress;
use crate::text::{counted, grouped, percent, short_size};

const PORTS_OF_A_SWITCH: u32 = 4;
const ORDINARY_FLOWS: u32 = 10_000;
const BURST_FLOWS: u32 = 18_000;
/// How often a switch with ordinary traffic may fail to decode on its own.
const FAILURE_PROBABILITY: f64 = 0.002;
/// Links that lose packets during the burst, and how many of them.
const LOSSY_LINKS: [(&str, &str, f64); 2] =
    [("agg-1-1", "core-3", 0.05), ("edge-2-0", "agg-2-1", 0.02)];
/// Flows that lose packets somewhere on their way, besides.
const LOSSY_FLOWS: f64 = 0.005;
/// Flows shown with their counters at each switch.
const FLOWS_SHOWN: usize = 3;

/// What the demonstration found.
#[derive(Debug, Serialize)]
pub(crate) struct DemoReport {
    /// Whether everything came out as it really was.
    pub(crate) everything_right: bool,
    folder: String,
    switches: usize,
    hosts: usize,
    memory: Memory,
    ordinary: Stage,
    burst: Stage,
    /// The burst's flows that one switch alone finds, at all switches.
    burst_single: Tally,
    burst_single_switches_complete: usize,
    losses: LossReport,
    largest_flows: Vec<FlowOnItsWay>,
    lossy_flows: Vec<FlowOnItsWay>,
    troubles: TroublesReport,
    seconds: f64,
}

/// Memory of one bank of a switch, and what else the same flows would take.
#[derive(Clone, Copy, Debug, Serialize)]
struct Memory {
    flowradar_bytes: u64,
    cells: usize,
    /// An exact table with one slot for each flow of the burst, and no collision ever.
    perfect_hash_table_bytes: u64,
    /// FlowRadar, if each switch had to decode the burst on its own.
    flowradar_for_burst_alone_bytes: u64,
}

/// One epoch of traffic.
#[derive(Clone, Copy, Debug, Serialize)]
struct Stage {
    flows_per_switch: u32,
    flows: u64,
    packets: u64,
    packets_lost: u64,
    result: Tally,
    decode_seconds: f64,
}

/// Losses found and those that there were.
#[derive(Clone, Copy, Debug, Serialize)]
struct LossReport {
    packets_lost: u64,
    packets_found: u64,
    #[serde(flatten)]
    score: LossScore,
}

/// A flow's counters along its path.
#[derive(Clone, Debug, Serialize)]
struct FlowOnItsWay {
    flow: String,
    hops: Vec<Hop>,
}

/// A flow's counter at a switch.
#[derive(Clone, Debug, Serialize)]
struct Hop {
    switch: String,
    packets: u64,
    status: &'static str,
}

/// What the burst's reports said, for the pictures.
struct Burst {
    topology: Topology,
    losses: Losses,
}

/// Runs the demonstration and writes its folder.
pub(crate) fn run(folder: &Path, seed: u64) -> Result<DemoReport, CommandError> {
    let start = Instant::now();
    fs::create_dir_all(folder).map_err(CommandError::file("create", folder))?;
    let progress = Progress::steps("demonstration", 7);
    let topology = Topology::fat_tree(PORTS_OF_A_SWITCH).map_err(failed)?;
    let plan = plan()?;

    let simulation = simulate(&topology, ORDINARY_FLOWS, Faults::default(), seed)?;
    let reports = encode_epoch(&simulation, &plan.layout);
    progress.set(1);
    let (single, time) = reports.single_decode();
    let truth = Truth::of(&simulation);
    let tallies = reports.tally(&truth, single.iter().map(|single| &single.flows[..]));
    let ordinary = stage(&simulation, ORDINARY_FLOWS, tallies, time.as_secs_f64());
    progress.set(2);

    let simulation = simulate(&topology, BURST_FLOWS, burst_faults(&topology)?, seed)?;
    let reports = encode_epoch(&simulation, &plan.layout);
    progress.set(3);
    let truth = Truth::of(&simulation);
    let (single, _) = reports.single_decode();
    let single = reports.tally(&truth, single.iter().map(|single| &single.flows[..]));
    let (decoded, time) = reports.net_decode()?;
    progress.set(4);
    let tallies = reports.tally(
        &truth,
        decoded.switches.iter().map(|switch| &switch.flows[..]),
    );
    let burst = stage(&simulation, BURST_FLOWS, tallies, time.as_secs_f64());
    let paths = losses::paths(&topology, &reports.switches, &decoded);
    let found = losses::find(&topology, &paths);
    let score = LossScore::of(&found, &topology, &truth, reports.epoch);
    let losses = LossReport {
        packets_lost: burst.packets_lost,
        packets_found: found.losses.iter().map(|loss| loss.packets).sum(),
        score,
    };
    let (largest_flows, lossy_flows) = notable_flows(&topology, &paths, &found);
    write_flowsets(&reports, folder)?;
    progress.set(5);
    let troubles = runtime()?.block_on(troubles::run(folder, seed))?;
    progress.set(6);

    let mut report = DemoReport {
        everything_right: ordinary.result.is_complete()
            && ordinary.result.wrong() == 0
            && decoded.is_complete()
            && burst.result.is_complete()
            && burst.result.wrong() == 0
            && losses.score.is_right()
            && losses.packets_found == losses.packets_lost
            && troubles.everything_right,
        folder: folder.display().to_string(),
        switches: topology.switches().len(),
        hosts: topology.hosts().len(),
        memory: memory(&plan)?,
        ordinary,
        burst,
        burst_single: single.iter().copied().sum(),
        burst_single_switches_complete: single.iter().filter(|tally| tally.is_complete()).count(),
        losses,
        largest_flows,
        lossy_flows,
        troubles,
        seconds: 0.0,
    };
    page::write(
        &report,
        &Burst {
            topology,
            losses: found,
        },
        folder,
    )?;
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

impl DemoReport {
    /// The report in words.
    pub(crate) fn text(&self) -> String {
        let Self {
            ordinary,
            burst,
            memory,
            losses,
            ..
        } = self;
        let mut text = format!(
            "A data-centre network of {} switches and {} hosts. Every switch encodes every packet it \
             sees\ninto {} of memory ({} cells and a flow filter), whatever comes.\n\n",
            self.switches,
            self.hosts,
            short_size(memory.flowradar_bytes),
            grouped(memory.cells as u64),
        );
        let mut line = |name: &str, value: String| {
            text.push_str(&format!("  {name:<26}{value}\n"));
        };
        let at_switches = |stage: &Stage| {
            format!(
                "{} of {}, {} at each switch",
                counted(stage.packets, "packet"),
                counted(stage.flows, "flow"),
                counted(stage.flows_per_switch.into(), "flow"),
            )
        };
        line("1. ORDINARY TRAFFIC", at_switches(ordinary));
        line(
            "each switch alone",
            counters(&ordinary.result, ordinary.decode_seconds),
        );
        line("", String::new());
        line("2. A BURST", at_switches(burst));
        line(
            "",
            format!(
                "in the same memory, while links lose {}",
                counted(burst.packets_lost, "packet")
            ),
        );
        line(
            "each switch alone",
            format!(
                "{} of its flows; {} of {} switches complete",
                percent(
                    self.burst_single.exact + self.burst_single.unresolved,
                    self.burst_single.flows
                ),
                self.burst_single_switches_complete,
                self.switches,
            ),
        );
        line(
            "all switches together",
            counters(&burst.result, burst.decode_seconds),
        );
        line("", String::new());
        line(
            "3. LOSSES",
            format!(
                "{} of {} lost packets found",
                grouped(losses.packets_found),
                grouped(losses.packets_lost)
            ),
        );
        line(
            "",
            format!(
                "{} losses of a flow: {} on the right link, {} behind the right switch (the flow \
             ended there)",
                grouped(losses.score.losses),
                grouped(losses.score.on_the_link),
                grouped(losses.score.behind_the_switch),
            ),
        );
        line(
            "",
            format!("{} false alarms", grouped(losses.score.false_alarms)),
        );
        line("", String::new());
        line(
            "4. MEMORY OF A SWITCH",
            format!(
                "{} FlowRadar (for {} flows alone, {} together)",
                short_size(memory.flowradar_bytes),
                grouped(ORDINARY_FLOWS.into()),
                grouped(BURST_FLOWS.into()),
            ),
        );
        line(
            "",
            format!(
                "{} FlowRadar, if each switch had to decode the burst alone",
                short_size(memory.flowradar_for_burst_alone_bytes)
            ),
        );
        line(
            "",
            format!(
                "{} an exact table for the burst with a perfect hash, which nobody has",
                short_size(memory.perfect_hash_table_bytes)
            ),
        );
        line("", String::new());
        line(
            "5. SOME FLOWS",
            "packets counted at each switch on the way".into(),
        );
        for flow in self.largest_flows.iter().chain(&self.lossy_flows) {
            line("", flow.flow.clone());
            line("", format!("  {}", flow.way()));
        }
        line("", String::new());
        for (title, value) in self.troubles.lines() {
            line(title, value);
        }
        text.push_str(&format!(
            "\nPictures and explanations: {folder}/report.html\n\
             Decode the burst yourself: flowradar net-decode {folder}/flowsets\n\
             {verdict} ({seconds:.1} s)\n",
            folder = self.folder,
            seconds = self.seconds,
            verdict = if self.everything_right {
                "Everything decoded is what was really sent, and everything planted was found."
            } else {
                "NOT everything came out right: see the numbers above."
            },
        ));
        text.lines()
            .map(|line| format!("{}\n", line.trim_end()))
            .collect()
    }
}

impl FlowOnItsWay {
    fn new(topology: &Topology, key: &FlowKeyV4, hops: &Hops) -> Self {
        let hop = |&(switch, counter): &(_, flowradar_core::Counter)| Hop {
            switch: topology.name(Node::Switch(switch)).into(),
            packets: counter.value,
            status: counter.status.word(),
        };
        Self {
            flow: key.to_string(),
            hops: hops.iter().map(hop).collect(),
        }
    }

    /// The counters in a line, with what was lost in between.
    fn way(&self) -> String {
        let mut way = String::new();
        let mut before = None;
        for hop in &self.hops {
            if let Some(before) = before.filter(|&before| before > hop.packets) {
                way.push_str(&format!(" -{}-", grouped(before - hop.packets)));
            }
            let gap = if way.is_empty() { "" } else { "> " };
            way.push_str(&format!("{gap}{} {} ", hop.switch, grouped(hop.packets)));
            before = Some(hop.packets);
        }
        way
    }
}

fn counters(tally: &Tally, seconds: f64) -> String {
    format!(
        "{} of {} counters: {} exact, {} joint, {} unresolved, {} wrong ({:.2} s)",
        grouped(tally.resolved() + tally.unresolved),
        grouped(tally.flows),
        grouped(tally.exact),
        grouped(tally.joint),
        grouped(tally.unresolved),
        grouped(tally.wrong()),
        seconds,
    )
}

/// Memory for ordinary traffic alone, with which the network together decodes the burst.
fn plan() -> Result<Plan, CommandError> {
    let request = PlanRequest::flows(ORDINARY_FLOWS.into())
        .flows_max(BURST_FLOWS.into())
        .goal(DecodeGoal::Network)
        .failure_probability(FAILURE_PROBABILITY);
    layout_options::plan(&request)
}

fn memory(plan: &Plan) -> Result<Memory, CommandError> {
    let alone = PlanRequest::flows(BURST_FLOWS.into()).failure_probability(FAILURE_PROBABILITY);
    let alone = layout_options::plan(&alone)?;
    let table = plan.layout.table();
    let slot_bits = KeyKind::V4.bits() + u32::from(table.widths().packet_count_bits());
    Ok(Memory {
        flowradar_bytes: plan.switch_memory_bits().div_ceil(8),
        cells: table.cells(),
        perfect_hash_table_bytes: u64::from(BURST_FLOWS) * u64::from(slot_bits) / 8,
        flowradar_for_burst_alone_bytes: alone.switch_memory_bits().div_ceil(8),
    })
}

fn burst_faults(topology: &Topology) -> Result<Faults, CommandError> {
    let node = |name: &str| {
        let switch = topology.switch(name).map(Node::Switch);
        switch.ok_or_else(|| CommandError::Failed(format!("no switch {name}")))
    };
    let link = |&(from, to, fraction): &(&str, &str, f64)| {
        Ok(LossyLink {
            from: node(from)?,
            to: node(to)?,
            fraction,
        })
    };
    Ok(Faults {
        lossy_links: LOSSY_LINKS
            .iter()
            .map(link)
            .collect::<Result<_, CommandError>>()?,
        lossy_flows: LOSSY_FLOWS,
        ..Faults::default()
    })
}

fn simulate(
    topology: &Topology,
    flows_per_switch: u32,
    faults: Faults,
    seed: u64,
) -> Result<Simulation, CommandError> {
    Simulation::builder(topology.clone())
        .flows_per_switch(flows_per_switch)
        .faults(faults)
        .seed(seed)
        .build()
        .map_err(failed)
}

fn stage(
    simulation: &Simulation,
    flows_per_switch: u32,
    tallies: Vec<Tally>,
    decode_seconds: f64,
) -> Stage {
    let summary = simulation.summary();
    Stage {
        flows_per_switch,
        flows: summary.flow_epochs,
        packets: summary.packets_sent,
        packets_lost: summary.packets_lost(),
        result: tallies.into_iter().sum(),
        decode_seconds,
    }
}

/// The flows with most packets, and those that lost most.
fn notable_flows(
    topology: &Topology,
    paths: &std::collections::BTreeMap<FlowKeyV4, Hops>,
    losses: &Losses,
) -> (Vec<FlowOnItsWay>, Vec<FlowOnItsWay>) {
    let mut largest: Vec<_> = paths.iter().collect();
    largest.sort_by_key(|(_, hops)| std::cmp::Reverse(hops[0].1.value));
    let mut lossy: Vec<_> = losses
        .losses
        .iter()
        .filter(|loss| loss.to.is_some())
        .collect();
    lossy.sort_by_key(|loss| std::cmp::Reverse(loss.packets));
    let shown = |key: &FlowKeyV4| FlowOnItsWay::new(topology, key, &paths[key]);
    (
        largest
            .iter()
            .take(FLOWS_SHOWN)
            .map(|(key, _)| shown(key))
            .collect(),
        lossy
            .iter()
            .take(FLOWS_SHOWN)
            .map(|loss| shown(&loss.key))
            .collect(),
    )
}

/// The reports of the burst, so that a user can decode them.
fn write_flowsets(reports: &EpochReports, folder: &Path) -> Result<(), CommandError> {
    let folder = folder.join("flowsets");
    fs::create_dir_all(&folder).map_err(CommandError::file("create", &folder))?;
    for flowset in &reports.flowsets {
        let header = flowset.header();
        let name = flowset_files::file_name(&header.switch, header.epoch.number, FlowKeyV4::KIND);
        write_file(&folder.join(name), flowset.as_bytes())?;
    }
    Ok(())
}

fn failed(error: impl std::error::Error) -> CommandError {
    CommandError::Failed(error.to_string())
}
