//! How often, and how fast, one switch alone decodes.

use std::time::Instant;

use flowradar_core::decode::single_decode;
use flowradar_core::flowset::Epoch;
use flowradar_core::hash::Xxh3;
use flowradar_core::layout::Layout;
use flowradar_core::plan::{COUPLED_FLOWS_MIN, CouplingChoice, PlanRequest};
use flowradar_core::{Encoder, FlowKeyV4, Flowset, Packet};
use maud::html;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;

use super::{Chapter, Comparison, Settings, percent_label, progress, short_count};
use crate::figures::{
    Axis, BLACK, BLUE, Figure, GREEN, Line, LineChart, Mark, ORANGE, PURPLE, SKY, Stroke,
    VERMILLION,
};
use crate::layout_options;
use crate::outcome::CommandError;
use crate::result_table::{ResultTable, Value};
use crate::text::grouped;

/// Share of tables that must decode for the table of thresholds.
const THRESHOLD_SHARE: f64 = 0.95;
/// The setting whose speed is measured.
const TIMED_CELLS_PER_FLOW: f64 = 1.25;
const TIMED_ROUNDS: usize = 5;

/// A kind of table that is tried.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Shape {
    hashes: u8,
    coupling: CouplingChoice,
}

/// Share of tables that decoded, by cells for each flow.
struct Curve {
    flows: u64,
    shape: Shape,
    points: Vec<(f64, f64)>,
}

const SHAPES: [Shape; 5] = [
    Shape {
        hashes: 2,
        coupling: CouplingChoice::Plain,
    },
    Shape {
        hashes: 3,
        coupling: CouplingChoice::Plain,
    },
    Shape {
        hashes: 4,
        coupling: CouplingChoice::Plain,
    },
    Shape {
        hashes: 3,
        coupling: CouplingChoice::Coupled,
    },
    Shape {
        hashes: 4,
        coupling: CouplingChoice::Coupled,
    },
];

pub(super) fn evaluate(settings: &Settings) -> Result<Chapter, CommandError> {
    let flow_counts: &[u64] = if settings.quick {
        &[1_000, 10_000]
    } else {
        &[1_000, 10_000, 100_000]
    };
    let step = if settings.quick { 0.04 } else { 0.02 };
    let largest = *flow_counts.last().expect("there are some");
    let grid: Vec<f64> = (0..)
        .map(|place| 1.06 + step * f64::from(place))
        .take_while(|&cells_per_flow| cells_per_flow < 1.501)
        .collect();

    let runs = flow_counts.len() * SHAPES.len() * grid.len();
    let bar = progress("decoding tables", runs);
    let mut success = ResultTable::new(
        "decode_success",
        "Share of tables of which SingleDecode found every flow with an exact counter",
        [
            "flows",
            "hashes",
            "coupled",
            "cells_per_flow",
            "tables",
            "complete",
            "complete_share",
        ],
    );
    let mut thresholds = ResultTable::new(
        "decode_thresholds",
        "Fewest cells a flow tried from which on at least 95 % of tables decoded completely",
        ["flows", "hashes", "coupled", "cells_per_flow"],
    );
    let mut curves: Vec<Curve> = vec![];
    let mut done = 0;
    for &flows in flow_counts {
        let trials = trials(settings, flows);
        for shape in SHAPES {
            if shape.coupling == CouplingChoice::Coupled && flows < COUPLED_FLOWS_MIN {
                continue;
            }
            let mut points = vec![];
            for &cells_per_flow in &grid {
                let complete = count_complete(settings.seed, flows, shape, cells_per_flow, trials)?;
                let share = complete as f64 / trials as f64;
                success.push([
                    flows.into(),
                    u64::from(shape.hashes).into(),
                    shape.coupled().into(),
                    Value::Real(cells_per_flow, 2),
                    trials.into(),
                    complete.into(),
                    Value::Real(share, 3),
                ]);
                points.push((cells_per_flow, share));
                done += 1;
                bar.set(done);
            }
            thresholds.push([
                flows.into(),
                u64::from(shape.hashes).into(),
                shape.coupled().into(),
                threshold(&points).map_or(Value::Missing, |cells| Value::Real(cells, 2)),
            ]);
            curves.push(Curve {
                flows,
                shape,
                points,
            });
        }
    }
    drop(bar);
    let planned = planned(settings, largest)?;
    let (times, time_line) = times(settings)?;

    let figures = vec![
        (
            shapes_chart(&curves, largest),
            format!(
                "With {} flows plain tables of three subtables need some 1.23 cells a flow, coupled \
                 ones fewer from some ten thousand flows on; two subtables do not decode in this range.",
                grouped(largest)
            ),
        ),
        (
            sizes_chart(&curves),
            "The more flows, the sharper the threshold: tables for few flows need a reserve."
                .into(),
        ),
        (
            time_chart(&time_line),
            "SingleDecode takes time in proportion to the number of flows; the paper needed 10 ms \
             for 100,000."
                .into(),
        ),
    ];
    let paper_time = time_line.iter().find(|&&(flows, _)| flows == 1e5);
    let comparisons = paper_time.map(|&(_, milliseconds)| Comparison {
        what: "SingleDecode of 100,000 flows, 1.25 cells a flow, one thread".into(),
        paper: "10 ms".into(),
        ours: format!("{milliseconds:.1} ms (on this machine, as busy as it was)"),
    });
    Ok(Chapter {
        id: "decode",
        title: "One switch alone",
        method: html! {
            p {
                "Tables with random keys, one packet a flow and seeds of their own. A table counts as "
                "complete only if every flow was found and every counter proved exact, filter false "
                "positives included. Cells lie in k subtables, one cell of a flow in each; coupled "
                "means that a flow's cells lie in a window at a common random offset."
            }
        },
        figures,
        tables: vec![thresholds, success, planned, times],
        comparisons: comparisons.into_iter().collect(),
    })
}

impl Shape {
    fn coupled(self) -> &'static str {
        match self.coupling {
            CouplingChoice::Coupled => "yes",
            _ => "no",
        }
    }

    fn layout(self, flows: u64, cells_per_flow: f64) -> Result<Layout, CommandError> {
        let request = PlanRequest::flows(flows)
            .hashes(self.hashes)
            .coupling(self.coupling)
            .cells_per_flow(cells_per_flow);
        Ok(layout_options::plan(&request)?.layout)
    }
}

fn trials(settings: &Settings, flows: u64) -> u64 {
    match (settings.quick, flows) {
        (true, ..=1_000) => 40,
        (true, _) => 20,
        (false, ..=1_000) => 400,
        (false, ..=10_000) => 100,
        (false, _) => 20,
    }
}

fn count_complete(
    seed: u64,
    flows: u64,
    shape: Shape,
    cells_per_flow: f64,
    trials: u64,
) -> Result<u64, CommandError> {
    let layout = shape.layout(flows, cells_per_flow)?;
    let complete = (0..trials).into_par_iter().filter(|&trial| {
        let flowset = random_flowset(seed, trial, flows, &layout);
        let decoded = single_decode::<FlowKeyV4, _>(&flowset).expect("the keys are IPv4");
        decoded.is_complete() && decoded.flows.len() as u64 == flows
    });
    Ok(complete.count() as u64)
}

/// How often tables of planned size decode, as the paper compares memory: less than one false
/// positive expected.
fn planned(settings: &Settings, flows: u64) -> Result<ResultTable, CommandError> {
    let mut table = ResultTable::new(
        "decode_planned",
        "Tables of the size in the memory table: those of which SingleDecode found every flow that \
         the table knows, and those without a false positive of the filter besides",
        [
            "flows",
            "coupled",
            "hashes",
            "cells_per_flow",
            "memory_bytes",
            "tables",
            "all_flows_found",
            "complete",
        ],
    );
    let trials = if settings.quick { 50 } else { 200 };
    for coupling in [CouplingChoice::Plain, CouplingChoice::Coupled] {
        let request = PlanRequest::flows(flows)
            .expected_false_positives(0.99)
            .coupling(coupling);
        let plan = layout_options::plan(&request)?;
        let outcomes: Vec<(bool, bool)> = (0..trials)
            .into_par_iter()
            .map(|trial| {
                let flowset = random_flowset(settings.seed, trial, flows, &plan.layout);
                let decoded = single_decode::<FlowKeyV4, _>(&flowset).expect("the keys are IPv4");
                let complete = decoded.is_complete() && decoded.flows.len() as u64 == flows;
                (decoded.leftover.cells == 0, complete)
            })
            .collect();
        let shape = Shape {
            hashes: plan.layout.table().hashes() as u8,
            coupling,
        };
        table.push([
            flows.into(),
            shape.coupled().into(),
            u64::from(shape.hashes).into(),
            Value::Real(plan.cells_per_flow, 3),
            plan.switch_memory_bits().div_ceil(8).into(),
            trials.into(),
            outcomes.iter().filter(|(found, _)| *found).count().into(),
            outcomes
                .iter()
                .filter(|(_, complete)| *complete)
                .count()
                .into(),
        ]);
    }
    Ok(table)
}

fn times(settings: &Settings) -> Result<(ResultTable, Vec<(f64, f64)>), CommandError> {
    let mut table = ResultTable::new(
        "decode_time",
        "Time of SingleDecode on one thread, k = 3, 1.25 cells a flow: best of some rounds",
        ["flows", "rounds", "best_ms"],
    )
    .timed();
    let mut line = vec![];
    let most = if settings.quick { 100_000 } else { 1_000_000 };
    for flows in [1_000, 10_000, 30_000, 100_000, 300_000, 1_000_000] {
        if flows > most {
            break;
        }
        let layout = Shape {
            hashes: 3,
            coupling: CouplingChoice::Plain,
        }
        .layout(flows, TIMED_CELLS_PER_FLOW)?;
        let flowset = random_flowset(settings.seed, 0, flows, &layout);
        let round = || {
            let start = Instant::now();
            let decoded = single_decode::<FlowKeyV4, _>(&flowset).expect("the keys are IPv4");
            let milliseconds = start.elapsed().as_secs_f64() * 1e3;
            drop(decoded);
            milliseconds
        };
        let best = (0..TIMED_ROUNDS)
            .map(|_| round())
            .fold(f64::INFINITY, f64::min);
        table.push([flows.into(), TIMED_ROUNDS.into(), Value::Real(best, 3)]);
        line.push((flows as f64, best));
    }
    Ok((table, line))
}

/// One packet of each of so many random flows.
fn random_flowset(seed: u64, trial: u64, flows: u64, layout: &Layout) -> Flowset<Vec<u8>> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed ^ trial << 32 ^ flows);
    let packets: Vec<Packet<FlowKeyV4>> = (0..flows)
        .map(|_| {
            let (addresses, ports) = (random.next_u64(), random.next_u64());
            let key = FlowKeyV4::new(
                ((addresses >> 32) as u32).into(),
                (addresses as u32).into(),
                (ports >> 16) as u16,
                ports as u16,
                6,
            );
            Packet { key, ip_bytes: 64 }
        })
        .collect();
    let name = "switch".parse().expect("a good name");
    let mut encoder = Encoder::<FlowKeyV4, Xxh3>::new(
        name,
        layout.with_seed(random.next_u64()),
        Epoch::number(0),
    )
    .expect("plans are for this hash family");
    encoder.packets(&packets);
    let sealed = encoder
        .end_epoch(Epoch::number(1))
        .expect("no epoch ended before");
    Flowset::new_checked(sealed.to_flowset()).expect("encoders write good flowsets")
}

/// From where on enough tables decode.
fn threshold(curve: &[(f64, f64)]) -> Option<f64> {
    let good = curve
        .iter()
        .rev()
        .take_while(|(_, share)| *share >= THRESHOLD_SHARE);
    good.last().map(|&(cells_per_flow, _)| cells_per_flow)
}

fn shapes_chart(curves: &[Curve], flows: u64) -> Figure {
    let lines = curves.iter().filter(|curve| curve.flows == flows).map(
        |Curve { shape, points, .. }| {
            let (name, colour) = match (shape.hashes, shape.coupled()) {
                (2, _) => ("k = 2, plain", ORANGE),
                (3, "no") => ("k = 3, plain", BLUE),
                (4, "no") => ("k = 4, plain", VERMILLION),
                (3, _) => ("k = 3, coupled", SKY),
                _ => ("k = 4, coupled", PURPLE),
            };
            Line {
                label: name.into(),
                colour,
                stroke: if shape.coupled() == "yes" {
                    Stroke::Dashed
                } else {
                    Stroke::Solid
                },
                points: points.clone(),
            }
        },
    );
    let chart = LineChart {
        name: "decode_success",
        title: "One switch alone decodes from a sharp threshold on".into(),
        subtitle: format!(
            "share of tables with {} flows decoded completely",
            grouped(flows)
        ),
        x: Axis::linear("cells for each flow", cells_ticks(), |cells| {
            format!("{cells:.1}")
        }),
        y: share_axis(),
        lines: lines.collect(),
        marks: vec![],
    };
    chart.draw()
}

fn sizes_chart(curves: &[Curve]) -> Figure {
    let plain = curves
        .iter()
        .filter(|curve| curve.shape.hashes == 3 && curve.shape.coupled() == "no");
    let colours = [GREEN, BLUE, BLACK];
    let lines = plain.zip(colours).map(|(curve, colour)| Line {
        label: format!("{} flows", grouped(curve.flows)),
        colour,
        stroke: Stroke::Solid,
        points: curve.points.clone(),
    });
    let chart = LineChart {
        name: "decode_sizes",
        title: "The more flows, the sharper the threshold".into(),
        subtitle: "share of tables decoded completely, k = 3, plain".into(),
        x: Axis::linear("cells for each flow", cells_ticks(), |cells| {
            format!("{cells:.1}")
        }),
        y: share_axis(),
        lines: lines.collect(),
        marks: vec![],
    };
    chart.draw()
}

fn time_chart(line: &[(f64, f64)]) -> Figure {
    let chart = LineChart {
        name: "decode_time",
        title: "Decoding is linear in the number of flows".into(),
        subtitle: "SingleDecode on one thread, k = 3, 1.25 cells a flow".into(),
        x: Axis::logarithmic("flows", 1e3..1e6, short_count),
        y: Axis::logarithmic("time (ms)", 0.01..1e3, |milliseconds| {
            format!("{milliseconds}")
        }),
        lines: vec![Line {
            label: "this machine".into(),
            colour: BLUE,
            stroke: Stroke::Solid,
            points: line.to_vec(),
        }],
        marks: vec![Mark {
            label: "paper: 10 ms".into(),
            colour: BLACK,
            at: (1e5, 10.0),
            below: true,
        }],
    };
    chart.draw()
}

fn cells_ticks() -> impl Iterator<Item = f64> {
    (10..=15).map(|tenths| f64::from(tenths) / 10.0)
}

fn share_axis() -> Axis {
    Axis::linear(
        "complete",
        (0..=5).map(|fifth| f64::from(fifth) / 5.0),
        percent_label,
    )
    .with_room(0.03)
}
