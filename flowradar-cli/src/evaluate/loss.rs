//! Whether, when and where lost packets are found.

use std::collections::BTreeMap;

use flowradar_core::plan::{CouplingChoice, PlanRequest};
use flowradar_sim::{
    Faults, Happening, InFlight, LinkDirection, LossyLink, Node, Simulation, SwitchId, Topology,
    Truth,
};
use maud::html;

use super::{Chapter, Comparison, PAPER_EPOCH_MS, Settings, loss_delay, percent_label, progress};
use crate::experiment::for_each_epoch;
use crate::experiment::losses::{self, Link, LossScore};
use crate::figures::{BLUE, Bar, BarChart, BarPart, Figure, GREEN, GREY, VERMILLION};
use crate::layout_options;
use crate::outcome::CommandError;
use crate::result_table::{ResultTable, Value};
use crate::text::grouped;

/// How losses are found. Others (sampled NetFlow, for one) are further rows of the same tables.
const METHOD: &str = "FlowRadar";

/// A network with losses and the memory that its switches have.
struct Case {
    name: &'static str,
    cells_per_flow: f64,
    /// Flows that lose packets on one link of their way, in every epoch.
    lossy_flows: f64,
    /// Flows with packets between two switches when an epoch ends.
    in_flight: f64,
}

const CASES: [Case; 5] = [
    Case {
        name: "1 % lossy flows, memory for SingleDecode",
        cells_per_flow: 1.30,
        lossy_flows: 0.01,
        in_flight: 0.0,
    },
    Case {
        name: "1 % lossy flows, half the memory",
        cells_per_flow: 0.68,
        lossy_flows: 0.01,
        in_flight: 0.0,
    },
    Case {
        name: "2 % lossy flows, half the memory",
        cells_per_flow: 0.68,
        lossy_flows: 0.02,
        in_flight: 0.0,
    },
    Case {
        name: "5 % lossy flows, half the memory",
        cells_per_flow: 0.68,
        lossy_flows: 0.05,
        in_flight: 0.0,
    },
    Case {
        name: "1 % lossy, 2 % with packets in flight",
        cells_per_flow: 0.68,
        lossy_flows: 0.01,
        in_flight: 0.02,
    },
];

/// Loss of links that lose packets of all flows, in the second case.
const LINK_LOSSES: [f64; 4] = [0.0005, 0.002, 0.01, 0.05];
/// The case with lossy links.
const CASE_WITH_LINKS: usize = 1;

/// What happened on a lossy link.
#[derive(Clone, Copy, Debug, Default)]
struct LinkHistory {
    fraction: f64,
    packets_lost: u64,
    packets_found: u64,
    first_lost: Option<u64>,
    first_found: Option<u64>,
}

pub(super) fn evaluate(settings: &Settings) -> Result<Chapter, CommandError> {
    let (k, flows_per_switch, epochs) = if settings.quick {
        (4, 600, 4)
    } else {
        (8, 2_000, 10)
    };
    let topology = Topology::fat_tree(k).map_err(|error| failed(&error))?;
    let bar = progress("finding losses", CASES.len());
    let mut table = ResultTable::new(
        "loss",
        "Losses (of one flow on one link in one epoch) found in the decoded counters of that epoch",
        [
            "method",
            "case",
            "cells_per_flow",
            "lossy_flows_percent",
            "flows_in_flight_percent",
            "epochs",
            "losses",
            "found_on_the_link",
            "found_behind_the_switch",
            "found_with_other_number",
            "not_found",
            "false_alarms",
            "hops_undecided",
        ],
    );
    let mut links = ResultTable::new(
        "loss_links",
        "Lossy links, and after how many epochs a flow's counters first named them",
        [
            "method",
            "link",
            "loss_percent",
            "packets_lost",
            "packets_found_on_the_link",
            "first_loss_epoch",
            "first_found_epoch",
            "delay_ms",
        ],
    );
    let mut bars = vec![];
    let mut plain_score = LossScore::default();
    for (number, case) in CASES.iter().enumerate() {
        let lossy_links = match number {
            CASE_WITH_LINKS => lossy_links(&topology),
            _ => vec![],
        };
        let faults = Faults {
            lossy_flows: case.lossy_flows,
            lossy_links: lossy_links.clone(),
            in_flight: InFlight {
                flows: case.in_flight,
                packets_max: 3,
            },
            ..Faults::default()
        };
        let simulation = Simulation::builder(topology.clone())
            .flows_per_switch(flows_per_switch)
            .epochs(epochs)
            .faults(faults)
            .seed(settings.seed)
            .build()
            .map_err(|error| failed(&error))?;
        let mut histories: BTreeMap<Link, LinkHistory> = lossy_links
            .iter()
            .filter_map(|link| match (link.from, link.to) {
                (Node::Switch(from), Node::Switch(to)) => {
                    let history = LinkHistory {
                        fraction: link.fraction,
                        ..Default::default()
                    };
                    Some(((from, to), history))
                }
                _ => None,
            })
            .collect();
        let (score, undecided) = follow(&simulation, case, &mut histories)?;
        bar.set(number as u64 + 1);
        if case.in_flight == 0.0 && case.lossy_flows <= 0.02 {
            plain_score.add(score);
        }
        table.push([
            METHOD.into(),
            case.name.into(),
            Value::Real(case.cells_per_flow, 2),
            Value::Real(case.lossy_flows * 100.0, 0),
            Value::Real(case.in_flight * 100.0, 0),
            epochs.into(),
            score.losses.into(),
            score.on_the_link.into(),
            score.behind_the_switch.into(),
            score.other_number.into(),
            score.losses.saturating_sub(score.found()).into(),
            score.false_alarms.into(),
            undecided.into(),
        ]);
        for (&(from, to), history) in &histories {
            links.push(history.row(&topology, from, to));
        }
        bars.push(bar_of(case, &score));
    }
    drop(bar);
    let delays = loss_delay::measure(settings)?;
    let switches = topology.switches().len();
    let delay_caption = "Time from a loss to when it is known: FlowRadar compares the switches' counters \
                         when the next epoch has shown what was only on its way; NetFlow's counters \
                         can be compared when the records are exported.";
    let caption = "Losses found at the end of the very epoch in which they happened, 10 ms at most, \
                   and on which link; where packets are in flight at the end of an epoch, the \
                   difference between two switches is no longer a loss.";
    Ok(Chapter {
        id: "loss",
        title: "Losses of every flow",
        method: html! {
            p {
                "A fat tree of " (switches) " switches, " (grouped(flows_per_switch.into()))
                " flows at each, " (epochs) " epochs. Lossy flows lose up to a tenth of their packets "
                "(one at least) on one link of their way. The counters that NetDecode finds are "
                "put in the order of the flow's path, for which only the topology is needed, and a "
                "loss is where a switch counts fewer packets than the one before. Where no packet "
                "of a flow came further, the loss is known to be behind a switch, but not on which "
                "of its links."
            }
            p {
                "The half of the memory that SingleDecode needs is enough to see single lost "
                "packets. An epoch stamped into packets at the first switch would make packets in "
                "flight count in the same epoch everywhere; without it they look like losses, and in "
                "the next epoch like gains, which cancel over both."
            }
            p {
                "NetFlow beside it, on the same traffic (another, longer run: flows of 5 seconds on "
                "average, 2 % of them lossy in an epoch): a cache at each switch without sampling, exact "
                "counters, no limit of flows, exports that take no time, inactive timeout 15 s or the "
                "active timeout if that is less. What is left are the timeouts. Losses inside an epoch "
                "are counted from its beginning."
            }
        },
        figures: vec![
            (chart(bars), caption.into()),
            (delays.figure, delay_caption.into()),
        ],
        tables: vec![table, links, delays.table],
        comparisons: vec![
            Comparison {
                what: "Losses found on their link, up to 2 % of flows lossy, and how late".into(),
                paper: "every 10 ms, per flow (no share given)".into(),
                ours: format!(
                    "{} of {} (of which {} behind a switch), {} false, at the end of the same epoch of \
                 {PAPER_EPOCH_MS} ms",
                    grouped(plain_score.found()),
                    grouped(plain_score.losses),
                    grouped(plain_score.behind_the_switch),
                    grouped(plain_score.false_alarms),
                ),
            },
            Comparison {
                what: "How soon half of all losses are known".into(),
                paper: "faster than NetFlow (no figure given)".into(),
                ours: delays.summary,
            },
        ],
    })
}

/// Decodes all epochs and compares the losses; also the pairs of switches that could not be compared.
fn follow(
    simulation: &Simulation,
    case: &Case,
    histories: &mut BTreeMap<Link, LinkHistory>,
) -> Result<(LossScore, u64), CommandError> {
    let topology = simulation.topology();
    let flows = simulation.flows_per_epoch() as f64 * 5.0 / topology.switches().len() as f64;
    let request = PlanRequest::flows(flows as u64)
        .hashes(3)
        .coupling(CouplingChoice::Plain)
        .cells_per_flow(case.cells_per_flow)
        .expected_false_positives(super::NETWORK_FALSE_POSITIVES);
    let layout = layout_options::plan(&request)?.layout;
    let mut score = LossScore::default();
    let mut undecided = 0;
    let mut outcome = Ok(());
    for_each_epoch(simulation, &layout, |reports| {
        if outcome.is_err() {
            return;
        }
        let decoded = match reports.net_decode() {
            Ok((decoded, _)) => decoded,
            Err(error) => {
                outcome = Err(error);
                return;
            }
        };
        let truth = Truth::of_epoch(simulation, reports.epoch);
        let paths = losses::paths(topology, &reports.switches, &decoded);
        let found = losses::find(topology, &paths);
        score.add(LossScore::of(&found, topology, &truth, reports.epoch));
        undecided += found.undecided;
        let (by_link, _) = losses::by_link(&found);
        for (link, history) in histories.iter_mut() {
            let direction = topology.link_between(link.0, link.1);
            let lost = direction.map_or(0, |link| packets_lost(&truth, link, reports.epoch));
            history.add(reports.epoch, lost, by_link.get(link).copied().unwrap_or(0));
        }
    });
    outcome?;
    Ok((score, undecided))
}

impl LinkHistory {
    fn add(&mut self, epoch: u64, lost: u64, found: u64) {
        self.packets_lost += lost;
        self.packets_found += found;
        if lost > 0 {
            self.first_lost.get_or_insert(epoch);
        }
        if found > 0 {
            self.first_found.get_or_insert(epoch);
        }
    }

    fn row(&self, topology: &Topology, from: SwitchId, to: SwitchId) -> [Value; 8] {
        // Known at the end of the epoch.
        let delay = self
            .first_lost
            .zip(self.first_found)
            .map(|(lost, found)| (found + 1 - lost.min(found)) as f64 * PAPER_EPOCH_MS);
        [
            METHOD.into(),
            format!("{} > {}", topology.name(from), topology.name(to)).into(),
            Value::Real(self.fraction * 100.0, 2),
            self.packets_lost.into(),
            self.packets_found.into(),
            self.first_lost.into(),
            self.first_found.into(),
            delay.map_or(Value::Missing, |delay| Value::Real(delay, 0)),
        ]
    }
}

/// Packets that flows lost on a link in an epoch.
fn packets_lost(truth: &Truth, link: LinkDirection, epoch: u64) -> u64 {
    let here = |what: Happening| match what {
        Happening::LostOnLink { link: on } | Happening::LostOfFlow { link: on } => on == link,
        _ => false,
    };
    let events = truth.events().iter();
    events
        .filter(|event| event.sent_epoch == epoch as i64 && here(event.what))
        .map(|event| event.packets)
        .sum()
}

/// Links from aggregation to core switches, each in a pod of its own.
fn lossy_links(topology: &Topology) -> Vec<LossyLink> {
    let k = topology.fat_tree_k().expect("the network is a fat tree");
    let half = k / 2;
    let mut links = vec![];
    for (pod, fraction) in (0..k).zip(LINK_LOSSES) {
        let place = pod % half;
        let from = topology.switch(&format!("agg-{pod}-{place}"));
        let to = topology.switch(&format!("core-{}", place * half + pod % half));
        if let (Some(from), Some(to)) = (from, to) {
            links.push(LossyLink {
                from: from.into(),
                to: to.into(),
                fraction,
            });
        }
    }
    links
}

fn bar_of(case: &Case, score: &LossScore) -> Bar {
    let whole = score.losses.max(1) as f64;
    let part = |count: u64, colour| {
        let share = count as f64 / whole;
        BarPart {
            value: share,
            colour,
            text: percent_label(share),
        }
    };
    Bar {
        label: case.name.into(),
        parts: vec![
            part(score.on_the_link, BLUE),
            part(score.behind_the_switch, GREEN),
            part(score.other_number, VERMILLION),
            part(score.losses.saturating_sub(score.found()), GREY),
        ],
        note: format!("{} false", grouped(score.false_alarms)),
    }
}

fn chart(bars: Vec<Bar>) -> Figure {
    let chart = BarChart {
        name: "loss",
        title: "Losses are found within their epoch, and where they happened".into(),
        subtitle: "share of losses of a flow on a link".into(),
        bars,
        legend: vec![
            (BLUE, "on the link"),
            (GREEN, "behind the switch (flow ended)"),
            (VERMILLION, "other number of packets"),
            (GREY, "not found"),
        ],
    };
    chart.draw()
}

fn failed(error: &dyn std::error::Error) -> CommandError {
    CommandError::Failed(error.to_string())
}
