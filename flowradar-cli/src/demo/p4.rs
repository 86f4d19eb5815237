//! The demonstration on P4 switches: the same network, with the program that goes into real ones.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use flowradar_core::decode::DecodedFlow;
use flowradar_core::{FlowKeyV4, KeyKind};
use flowradar_p4::Program;
use flowradar_sim::{
    FlowId, FlowSizes, HostId, LinkDirection, Node, Simulation, Topology, Traffic, Truth,
};
use flowradar_testbed::counts::flowset;
use flowradar_testbed::frames::of_flow;
use flowradar_testbed::{EmbeddedSwitch, Network, Wires};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use serde::Serialize;

use super::{LOSSY_LINKS, PORTS_OF_A_SWITCH, failed, page, write_flowsets};
use crate::experiment::losses::{self, Link, LossScore, Losses};
use crate::experiment::{EpochReports, Tally};
use crate::outcome::CommandError;
use crate::progress::Progress;
use crate::text::{counted, grouped, short_size};

/// Flows at a switch, on average; the program's table is for twice as many.
const FLOWS_PER_SWITCH: u32 = 5_000;
/// A heavy tail, but not so heavy that one flow's packets are most of the work.
const FLOW_SIZES: FlowSizes = FlowSizes::Pareto {
    alpha: 1.1,
    packets_min: 1,
    packets_max: 500,
};
/// What every packet has, IP header included.
const IP_BYTES: u16 = 120;

/// What the demonstration found.
#[derive(Debug, Serialize)]
pub(crate) struct P4DemoReport {
    /// Whether everything came out as it really was.
    pub(crate) everything_right: bool,
    folder: String,
    switches: usize,
    hosts: usize,
    program_bytes: usize,
    deploy_seconds: f64,
    flows: u64,
    packets: u64,
    /// How often a switch was given a packet.
    frames_forwarded: u64,
    forward_seconds: f64,
    flowset_bytes: u64,
    read_seconds: f64,
    single: Tally,
    together: Tally,
    decode_seconds: f64,
    packets_lost: u64,
    packets_found: u64,
    losses: LossScore,
    seconds: f64,
}

/// Runs the demonstration and writes its folder.
pub(crate) fn run(folder: &Path, seed: u64) -> Result<P4DemoReport, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.map_err(failed)?.block_on(demonstrate(folder, seed))
}

async fn demonstrate(folder: &Path, seed: u64) -> Result<P4DemoReport, CommandError> {
    let start = Instant::now();
    fs::create_dir_all(folder).map_err(CommandError::file("create", folder))?;
    let progress = Progress::steps("demonstration on P4 switches", 5);
    let topology = Topology::fat_tree(PORTS_OF_A_SWITCH).map_err(failed)?;
    let wires = lossy_wires(&topology, seed)?;
    let mut network = Network::start(topology.clone(), wires, EmbeddedSwitch::start)
        .await
        .map_err(failed)?;
    let deploy_seconds = start.elapsed().as_secs_f64();
    progress.set(1);

    let forwarding = Instant::now();
    let (flows, packets) = send_traffic(&mut network, seed)?;
    let forward_seconds = forwarding.elapsed().as_secs_f64();
    progress.set(2);

    let reading = Instant::now();
    let reports = read_out(&mut network).await?;
    let read_seconds = reading.elapsed().as_secs_f64();
    progress.set(3);

    let (single, _) = reports.single_decode();
    let single = tally(&network, single.iter().map(|switch| &switch.flows[..]));
    let (decoded, time) = reports.net_decode()?;
    let together = tally(
        &network,
        decoded.switches.iter().map(|switch| &switch.flows[..]),
    );
    let paths = losses::paths(&topology, &reports.switches, &decoded);
    let found = losses::find(&topology, &paths);
    let really = really_lost(&network);
    let score = LossScore::against(&found, &really);
    progress.set(4);

    write_flowsets(&reports, folder)?;
    let packets_found = found.losses.iter().map(|loss| loss.packets).sum();
    let packets_lost = really.values().sum();
    let mut report = P4DemoReport {
        everything_right: decoded.is_complete()
            && together.is_complete()
            && together.wrong() == 0
            && score.is_right()
            && packets_found == packets_lost,
        folder: folder.display().to_string(),
        switches: topology.switches().len(),
        hosts: topology.hosts().len(),
        program_bytes: Program::reference().pipeline.device_config().len(),
        deploy_seconds,
        flows,
        packets,
        frames_forwarded: network.seen.iter().map(|seen| seen.frames()).sum(),
        forward_seconds,
        flowset_bytes: reports
            .flowsets
            .iter()
            .map(|flowset| flowset.as_bytes().len() as u64)
            .sum(),
        read_seconds,
        single,
        together,
        decode_seconds: time.as_secs_f64(),
        packets_lost,
        packets_found,
        losses: score,
        seconds: 0.0,
    };
    write_map(&topology, found, folder)?;
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

impl P4DemoReport {
    /// The report in words.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "{} P4 switches in this process, each with a P4Runtime server of its own; {} hosts.\n\n",
            self.switches, self.hosts
        );
        let mut line = |name: &str, value: String| {
            text.push_str(format!("  {name:<22}{value}").trim_end());
            text.push('\n');
        };
        line(
            "1. LOADED",
            format!(
                "p4src/v1model ({} compiled) and routes into each, by P4Runtime ({:.1} s)",
                short_size(self.program_bytes as u64),
                self.deploy_seconds
            ),
        );
        line(
            "2. TRAFFIC",
            format!(
                "{} of {} between hosts, {} times through a P4 pipeline ({:.1} s)",
                counted(self.packets, "packet"),
                counted(self.flows, "flow"),
                grouped(self.frames_forwarded),
                self.forward_seconds
            ),
        );
        line(
            "3. EPOCH READ OUT",
            format!(
                "{} of flowsets, by packet-outs and packet-ins ({:.1} s)",
                short_size(self.flowset_bytes),
                self.read_seconds
            ),
        );
        let tally = |tally: &Tally| {
            format!(
                "{} of {} counters: {} exact, {} joint, {} unresolved, {} wrong",
                grouped(tally.resolved() + tally.unresolved),
                grouped(tally.flows),
                grouped(tally.exact),
                grouped(tally.joint),
                grouped(tally.unresolved),
                grouped(tally.wrong())
            )
        };
        line(
            "4. DECODED",
            format!("each switch alone: {}", tally(&self.single)),
        );
        line(
            "",
            format!(
                "all together:      {} ({:.2} s)",
                tally(&self.together),
                self.decode_seconds
            ),
        );
        line(
            "5. LOSSES",
            format!(
                "{} of {} lost packets found; {} losses of a flow, {} on the right link, {} behind \
                 the right switch, {} false alarms",
                grouped(self.packets_found),
                grouped(self.packets_lost),
                grouped(self.losses.losses),
                grouped(self.losses.on_the_link),
                grouped(self.losses.behind_the_switch),
                grouped(self.losses.false_alarms)
            ),
        );
        text.push_str(&format!(
            "\nPicture of the losses: {folder}/losses.svg\n\
             Decode it yourself: flowradar net-decode {folder}/flowsets\n\
             The same on switches of your own: docs/p4.md\n\
             {verdict} ({seconds:.1} s)\n",
            folder = self.folder,
            seconds = self.seconds,
            verdict = if self.everything_right {
                "Everything decoded is what the wires really carried."
            } else {
                "NOT everything came out right: see the numbers above."
            },
        ));
        text
    }
}

/// Wires of which some lose packets at random.
fn lossy_wires(topology: &Topology, seed: u64) -> Result<Wires, CommandError> {
    let mut lossy: HashMap<LinkDirection, u64> = HashMap::new();
    for (from, to, fraction) in LOSSY_LINKS {
        let end = |name: &str| {
            let switch = topology.switch(name).map(Node::Switch);
            switch.ok_or_else(|| CommandError::Failed(format!("no switch {name}")))
        };
        let link = topology.link_between(end(from)?, end(to)?);
        let link =
            link.ok_or_else(|| CommandError::Failed(format!("no link from {from} to {to}")))?;
        lossy.insert(link, (fraction * u64::MAX as f64) as u64);
    }
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    Ok(Wires::new(move |link, _| {
        lossy
            .get(&link)
            .is_some_and(|&below| random.next_u64() < below)
    }))
}

/// Sends the flows of a simulation, whose own network is not used: the switches forward. How many flows
/// and packets that was.
fn send_traffic(
    network: &mut Network<EmbeddedSwitch>,
    seed: u64,
) -> Result<(u64, u64), CommandError> {
    let simulation = Simulation::builder(network.topology().clone())
        .traffic(Traffic::Uniform {
            flows_per_switch: FLOWS_PER_SWITCH,
        })
        .flow_sizes(FLOW_SIZES)
        .seed(seed)
        .build()
        .map_err(failed)?;
    let truth = Truth::of(&simulation);
    let mut flows: Vec<(HostId, Vec<u8>, u64)> = vec![];
    for number in 0.. {
        let Some(flow) = simulation.flow(FlowId(number)) else {
            break;
        };
        let sent = flow
            .path
            .first()
            .and_then(|&first| truth.get(0, first, &flow.key));
        if let Some(sent) = sent {
            flows.push((flow.from, of_flow(&flow.key, IP_BYTES), sent.packets));
        }
    }
    let packets = flows.iter().map(|flow| flow.2).sum();
    let count = flows.len() as u64;
    // In turn, as flows share links.
    while !flows.is_empty() {
        for (host, frame, left) in &mut flows {
            network.send(*host, frame);
            *left -= 1;
        }
        flows.retain(|flow| flow.2 > 0);
    }
    network.settle();
    Ok((count, packets))
}

/// Ends the epoch at all switches and reads their flowsets.
async fn read_out(network: &mut Network<EmbeddedSwitch>) -> Result<EpochReports, CommandError> {
    let switches = network.topology().switch_ids().collect();
    let mut flowsets = vec![];
    for controller in network.controllers() {
        let bank = controller.drain().await.map_err(failed)?;
        flowsets.push(flowset(&bank, KeyKind::V4).map_err(failed)?);
    }
    let epoch = flowsets
        .first()
        .map_or(0, |flowset| flowset.header().epoch.number);
    Ok(EpochReports {
        epoch,
        switches,
        flowsets,
    })
}

/// Compares decoded flows, switch by switch, with what the wires carried to it.
fn tally<'a>(
    network: &Network<EmbeddedSwitch>,
    decoded: impl Iterator<Item = &'a [DecodedFlow<FlowKeyV4>]>,
) -> Tally {
    let tallies = network.seen.iter().zip(decoded).map(|(seen, decoded)| {
        Tally::compare(decoded, seen.v4.len() as u64, |key| {
            seen.v4.get(key).map(|counts| counts.0)
        })
    });
    tallies.sum()
}

/// What wires between switches have lost.
fn really_lost(network: &Network<EmbeddedSwitch>) -> HashMap<(FlowKeyV4, Link), u64> {
    let mut really = HashMap::new();
    for (&link, lost) in &network.lost {
        if let (Node::Switch(from), Node::Switch(to)) = network.topology().ends(link) {
            for (key, counts) in &lost.v4 {
                really.insert((*key, (from, to)), counts.0);
            }
        }
    }
    really
}

fn write_map(topology: &Topology, losses: Losses, folder: &Path) -> Result<(), CommandError> {
    page::map_figure(topology, &losses).map_or(Ok(()), |map| map.write_to(folder))
}
