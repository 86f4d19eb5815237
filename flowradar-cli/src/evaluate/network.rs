//! What the switches of a fat tree decode together, for less and less memory.

use flowradar_core::KeyKind;
use flowradar_core::layout::Layout;
use flowradar_core::plan::{CouplingChoice, PlanRequest};
use flowradar_sim::{Faults, FlowSizes, Simulation, Topology, Truth};
use maud::html;

use super::{Chapter, Comparison, Settings, percent_label, progress};
use crate::experiment::{Tally, encode_epoch};
use crate::figures::{
    Axis, BLUE, Figure, GREEN, GREY, Line, LineChart, ORANGE, Stroke, VERMILLION,
};
use crate::layout_options;
use crate::outcome::CommandError;
use crate::result_table::{ResultTable, Value};
use crate::text::{counted, grouped};

/// Flows that lose packets on one link of their way.
const LOSSY_FLOWS: f64 = 0.02;
/// Switches that must decode completely for "SingleDecode suffices".
const COMPLETE_SHARE: f64 = 0.98;
/// Counters that must be known for "this method suffices".
const KNOWN_SHARE: f64 = 0.999;
/// Flows of ten packets or more. By default most flows have one packet, and a cell in which all flows
/// have just one gives all their counters away: easier than theory says for counters of any size.
const LONG_FLOWS: FlowSizes = FlowSizes::Pareto {
    alpha: 1.1,
    packets_min: 10,
    packets_max: 50_000,
};
/// The paper's gain over SingleDecode.
const PAPER_GAIN: &str = "26.8 % more flows";

const SINGLE: &str = "SingleDecode";
const PER_SWITCH: &str = "FlowDecode + CounterDecode of each switch";
const JOINT: &str = "FlowDecode + joint CounterDecode";

/// A network whose decoding is tried with many layouts.
struct Network {
    simulation: Simulation,
    truth: Truth,
    flows_per_switch: u32,
}

/// What came out with one layout.
struct Outcome {
    single: Tally,
    single_complete: usize,
    single_seconds: f64,
    together: Tally,
    seconds: f64,
    rounds: usize,
    switches: usize,
}

/// Least memory with which a method suffices.
struct Threshold {
    method: &'static str,
    hashes: u8,
    /// Packets of the smallest flows.
    packets_min: u64,
    hundredths: Option<u32>,
}

pub(super) fn evaluate(settings: &Settings) -> Result<Chapter, CommandError> {
    let (k, flows_per_switch) = if settings.quick {
        (4, 1_000)
    } else {
        (8, 4_000)
    };
    let network = Network::new(k, flows_per_switch, FlowSizes::DEFAULT, settings.seed)?;
    let step = if settings.quick { 10 } else { 5 };
    let grid: Vec<u32> = (50..=140).step_by(step).collect();
    // Two numbers of hashes, and some steps for each threshold.
    let bar = progress("decoding networks", 2 * grid.len() + 35);
    let mut table = ResultTable::new(
        "network",
        "Flow counters of a fat tree (a flow at five switches has five) that SingleDecode and \
         NetDecode find, by cells for each flow at a switch",
        [
            "hashes",
            "cells_per_flow",
            "counters",
            "single_found",
            "single_exact",
            "single_complete_switches",
            "net_found",
            "net_exact",
            "net_joint",
            "net_unresolved",
            "net_wrong_exact",
            "net_wrong_joint",
            "net_invented",
        ],
    );
    let mut times = ResultTable::new(
        "network_time",
        "Time of decoding, on all threads of this machine",
        [
            "hashes",
            "cells_per_flow",
            "single_decode_s",
            "net_decode_s",
            "counter_rounds",
        ],
    )
    .timed();
    let mut done = 0;
    let mut step = || {
        done += 1;
        bar.set(done);
    };
    let mut figures = vec![];
    let mut wrong = 0;
    for hashes in [3, 4] {
        let mut outcomes = vec![];
        for &hundredths in &grid {
            let outcome = network.decode(hashes, hundredths)?;
            outcome.add_to(hashes, hundredths, &mut table, &mut times);
            wrong += outcome.together.wrong() + outcome.single.wrong();
            outcomes.push((f64::from(hundredths) / 100.0, outcome));
            step();
        }
        figures.push((
            chart(hashes, &outcomes, &network),
            if hashes == 3 {
                "With three subtables every flow is found in less than half the cells that \
                 SingleDecode needs, and joint CounterDecode knows the counters from there on; \
                 about one cell a flow is enough for the switches' own equations to prove them all."
                    .to_owned()
            } else {
                "With four subtables SingleDecode needs some 1.3 cells a flow; the paper's 26.8 % \
                 more flows with CounterDecode of each switch are 1.025."
                    .to_owned()
            },
        ));
    }
    let mut thresholds = vec![];
    for hashes in [3, 4] {
        let complete = |outcome: &Outcome| {
            outcome.single_complete as f64 >= COMPLETE_SHARE * outcome.switches as f64
        };
        thresholds.push(Threshold {
            method: SINGLE,
            hashes,
            packets_min: 1,
            hundredths: network.least(hashes, 110..170, complete, &mut step)?,
        });
    }
    let long = Network::new(k, flows_per_switch, LONG_FLOWS, settings.seed)?;
    for (network, packets_min) in [(&network, 1), (&long, 10)] {
        for (method, hashes, range) in [(PER_SWITCH, 4, 70..130), (JOINT, 3, 50..100)] {
            let known = |outcome: &Outcome| {
                let known = match method {
                    JOINT => outcome.together.resolved(),
                    _ => outcome.together.exact,
                };
                known as f64 >= KNOWN_SHARE * outcome.together.flows as f64
            };
            thresholds.push(Threshold {
                method,
                hashes,
                packets_min,
                hundredths: network.least(hashes, range, known, &mut step)?,
            });
        }
    }
    drop(bar);
    let (gains, comparisons) = gains(&network, &thresholds)?;
    let switches = network.simulation.topology().switches().len();
    let comparisons = comparisons.into_iter().chain([Comparison {
        what: format!(
            "Wrong flows and counters in all {} networks decoded",
            2 * grid.len()
        ),
        paper: "not said".into(),
        ours: grouped(wrong),
    }]);
    Ok(Chapter {
        id: "network",
        title: "The switches of a network together",
        method: html! {
            p {
                "A fat tree of " (switches) " switches with inter-pod traffic, so that every switch "
                "carries the same number of flows, " (grouped(flows_per_switch.into())) ": the paper's "
                "worst case. " (percent_label(LOSSY_FLOWS)) " of the flows lose packets on one link. "
                "Every switch has the same number of cells and hash functions of its own, and a filter "
                "with " (super::NETWORK_FALSE_POSITIVES) " expected false positives. "
                "Every flow and counter decoded is compared with the truth."
            }
            p {
                "By default most flows have a single packet, as in data centers with many short "
                "flows. Where all flows of a cell have one packet the cell gives them all away, so that "
                "fewer cells suffice than theory says for counters of any size (1.023 at k = 4). The "
                "gains are therefore shown for flows of ten packets and more as well."
            }
            p {
                "The paper compares cells, with the flow filter left aside; so do we, and show what "
                "remains of the gain if the filter's memory counts too."
            }
        },
        figures,
        tables: vec![gains, table, times],
        comparisons: comparisons.collect(),
    })
}

impl Network {
    fn new(
        k: u32,
        flows_per_switch: u32,
        sizes: FlowSizes,
        seed: u64,
    ) -> Result<Self, CommandError> {
        let failed = |error: &dyn std::error::Error| CommandError::Failed(error.to_string());
        let topology = Topology::fat_tree(k).map_err(|error| failed(&error))?;
        let simulation = Simulation::builder(topology)
            .flows_per_switch(flows_per_switch)
            .flow_sizes(sizes)
            .faults(Faults {
                lossy_flows: LOSSY_FLOWS,
                ..Faults::default()
            })
            .seed(seed)
            .build()
            .map_err(|error| failed(&error))?;
        let truth = Truth::of(&simulation);
        Ok(Self {
            simulation,
            truth,
            flows_per_switch,
        })
    }

    fn layout(&self, hashes: u8, hundredths: u32) -> Result<Layout, CommandError> {
        let request = PlanRequest::flows(self.flows_per_switch.into())
            .hashes(hashes)
            .coupling(CouplingChoice::Plain)
            .cells_per_flow(f64::from(hundredths) / 100.0)
            .expected_false_positives(super::NETWORK_FALSE_POSITIVES);
        Ok(layout_options::plan(&request)?.layout)
    }

    fn decode(&self, hashes: u8, hundredths: u32) -> Result<Outcome, CommandError> {
        let layout = self.layout(hashes, hundredths)?;
        let reports = encode_epoch(&self.simulation, &layout);
        let (single, single_time) = reports.single_decode();
        let single = reports.tally(&self.truth, single.iter().map(|single| &single.flows[..]));
        let (decoded, time) = reports.net_decode()?;
        let flows = decoded.switches.iter().map(|switch| &switch.flows[..]);
        let together = reports.tally(&self.truth, flows);
        Ok(Outcome {
            single_complete: single.iter().filter(|tally| tally.is_complete()).count(),
            single: single.into_iter().sum(),
            single_seconds: single_time.as_secs_f64(),
            together: together.into_iter().sum(),
            seconds: time.as_secs_f64(),
            rounds: decoded.summary.packet_counters.rounds,
            switches: reports.switches.len(),
        })
    }

    /// The fewest hundredths of a cell a flow that suffice, by halving: more suffice too, but for
    /// chance near the threshold.
    fn least(
        &self,
        hashes: u8,
        range: std::ops::Range<u32>,
        suffices: impl Fn(&Outcome) -> bool,
        step: &mut impl FnMut(),
    ) -> Result<Option<u32>, CommandError> {
        let (mut too_few, mut enough) = (range.start, range.end);
        let mut found = None;
        while enough - too_few > 1 {
            let middle = too_few + (enough - too_few) / 2;
            if suffices(&self.decode(hashes, middle)?) {
                enough = middle;
                found = Some(middle);
            } else {
                too_few = middle;
            }
            step();
        }
        Ok(found)
    }
}

impl Outcome {
    fn add_to(
        &self,
        hashes: u8,
        hundredths: u32,
        table: &mut ResultTable,
        times: &mut ResultTable,
    ) {
        let found = |tally: &Tally| tally.resolved() + tally.unresolved;
        let setting: [Value; 2] = [
            u64::from(hashes).into(),
            Value::Real(f64::from(hundredths) / 100.0, 2),
        ];
        let [a, b] = setting.clone();
        table.push([
            a,
            b,
            self.together.flows.into(),
            found(&self.single).into(),
            self.single.exact.into(),
            self.single_complete.into(),
            found(&self.together).into(),
            self.together.exact.into(),
            self.together.joint.into(),
            self.together.unresolved.into(),
            (self.together.wrong_exact + self.single.wrong_exact).into(),
            self.together.wrong_joint.into(),
            (self.together.invented + self.single.invented).into(),
        ]);
        let [a, b] = setting;
        times.push([
            a,
            b,
            Value::Real(self.single_seconds, 3),
            Value::Real(self.seconds, 3),
            self.rounds.into(),
        ]);
    }
}

/// What each method decodes in the memory in which SingleDecode decodes one flow.
fn gains(
    network: &Network,
    thresholds: &[Threshold],
) -> Result<(ResultTable, Vec<Comparison>), CommandError> {
    let mut table = ResultTable::new(
        "network_gain",
        "Fewest cells a flow with which each method suffices (SingleDecode: 98 % of switches \
         complete; CounterDecode: 99.9 % of all counters known), and how many more \
         flows than SingleDecode it decodes in the same memory",
        [
            "method",
            "hashes",
            "packets_of_smallest_flow",
            "cells_per_flow",
            "more_flows_than_single_same_hashes_percent",
            "more_flows_than_single_3_hashes_percent",
            "bytes_per_flow_with_filter",
            "more_flows_with_filter_percent",
        ],
    );
    let single = |hashes: u8| {
        let single = thresholds
            .iter()
            .find(|t| t.method == SINGLE && t.hashes == hashes);
        single.and_then(|threshold| threshold.hundredths)
    };
    let bytes = |hashes: u8, hundredths: Option<u32>| -> Result<Option<f64>, CommandError> {
        let Some(hundredths) = hundredths else {
            return Ok(None);
        };
        let bits = network
            .layout(hashes, hundredths)?
            .switch_memory_bits(KeyKind::V4);
        Ok(Some(
            bits as f64 / 8.0 / f64::from(network.flows_per_switch),
        ))
    };
    let more = |than: Option<f64>, this: Option<f64>| Some((than? / this? - 1.0) * 100.0);
    let real = |value: Option<f64>, decimals| {
        value.map_or(Value::Missing, |value| Value::Real(value, decimals))
    };
    let single_bytes = bytes(3, single(3))?;
    let mut comparisons = vec![];
    for threshold in thresholds {
        let Threshold {
            method,
            hashes,
            packets_min,
            hundredths,
        } = *threshold;
        let cells = hundredths.map(f64::from);
        let same = more(single(hashes).map(f64::from), cells);
        let best = more(single(3).map(f64::from), cells);
        let own_bytes = bytes(hashes, hundredths)?;
        table.push([
            method.into(),
            u64::from(hashes).into(),
            packets_min.into(),
            real(cells.map(|hundredths| hundredths / 100.0), 2),
            real(same, 1),
            real(best, 1),
            real(own_bytes, 2),
            real(more(single_bytes, own_bytes), 1),
        ]);
        if method != SINGLE {
            let ours = match (cells, same) {
                (Some(cells), Some(same)) => format!(
                    "{same:.1} % more flows ({:.2} cells a flow, k = {hashes})",
                    cells / 100.0
                ),
                _ => "not reached".into(),
            };
            let joint = method == JOINT;
            comparisons.push(Comparison {
                what: format!(
                    "{method}, beside SingleDecode in the same cells (smallest flows: {})",
                    counted(packets_min, "packet")
                ),
                paper: if joint {
                    "not done".into()
                } else {
                    PAPER_GAIN.into()
                },
                ours,
            });
        }
    }
    Ok((table, comparisons))
}

fn chart(hashes: u8, outcomes: &[(f64, Outcome)], network: &Network) -> Figure {
    let line = |label: &str, colour, stroke, share: &dyn Fn(&Outcome) -> u64| Line {
        label: label.into(),
        colour,
        stroke,
        points: outcomes
            .iter()
            .map(|(cells, outcome)| {
                (
                    *cells,
                    share(outcome) as f64 / outcome.together.flows.max(1) as f64,
                )
            })
            .collect(),
    };
    let found = |tally: &Tally| tally.resolved() + tally.unresolved;
    let chart = LineChart {
        name: if hashes == 3 {
            "network_3_hashes"
        } else {
            "network_4_hashes"
        },
        title: format!("Together, switches decode in half the memory (k = {hashes})"),
        subtitle: format!(
            "share of all flow counters, {} with {} each, {} of flows lossy",
            counted(
                network.simulation.topology().switches().len() as u64,
                "switch"
            )
            .replace("switchs", "switches"),
            counted(network.flows_per_switch.into(), "flow"),
            percent_label(LOSSY_FLOWS),
        ),
        x: Axis::linear(
            "cells for each flow",
            (5..=14).map(|tenths| f64::from(tenths) / 10.0),
            |cells| format!("{cells:.1}"),
        ),
        y: Axis::linear(
            "counters",
            (0..=5).map(|fifth| f64::from(fifth) / 5.0),
            percent_label,
        )
        .with_room(0.03),
        lines: vec![
            line(
                "flow found: FlowDecode",
                GREEN,
                Stroke::Dashed,
                &|outcome| found(&outcome.together),
            ),
            line(
                "known: joint CounterDecode",
                VERMILLION,
                Stroke::Solid,
                &|outcome| outcome.together.resolved(),
            ),
            line(
                "exact: CounterDecode per switch",
                BLUE,
                Stroke::Solid,
                &|outcome| outcome.together.exact,
            ),
            line(
                "flow found: SingleDecode",
                GREY,
                Stroke::Dashed,
                &|outcome| found(&outcome.single),
            ),
            line("exact: SingleDecode", ORANGE, Stroke::Solid, &|outcome| {
                outcome.single.exact
            }),
        ],
        marks: vec![],
    };
    chart.draw()
}
