//! What sending the reports takes of a network's capacity.

use flowradar_core::plan::{DecodeGoal, PlanRequest};
use maud::html;

use super::{Chapter, Comparison, PAPER_EPOCH_MS, PAPER_MEMORY_BYTES};
use crate::figures::{Axis, BLACK, BLUE, GREEN, Line, LineChart, Mark, Stroke, VERMILLION};
use crate::layout_options;
use crate::outcome::CommandError;
use crate::result_table::{ResultTable, Value};
use crate::text::grouped;

const FLOWS: [u64; 3] = [10_000, 30_000, 100_000];
const EPOCHS_MS: [f64; 6] = [1.0, 5.0, 10.0, 20.0, 50.0, 100.0];
/// Ports and speed of the switch whose capacity is shared in the chart.
const PORTS: u64 = 32;
const PORT_GBIT_PER_S: u64 = 40;
/// Capacities in the table, in Gbit/s: 32 ports of 10, 40 and 100.
const CAPACITIES: [u64; 3] = [320, 1_280, 3_200];
/// The paper's share for the topology and traffic of Facebook's data centers.
const PAPER_SHARE: f64 = 0.0052;

pub(super) fn evaluate() -> Result<Chapter, CommandError> {
    let mut table = ResultTable::new(
        "bandwidth",
        "Bandwidth of one switch's reports, and its share of the capacity of a switch",
        [
            "flows",
            "decoding",
            "epoch_ms",
            "report_bytes",
            "report_gbit_per_s",
            "share_of_320_gbit_per_s_percent",
            "share_of_1280_gbit_per_s_percent",
            "share_of_3200_gbit_per_s_percent",
        ],
    );
    let capacity = PORTS * PORT_GBIT_PER_S;
    let mut lines = vec![];
    let colours = [GREEN, BLUE, VERMILLION];
    let mut ours = String::new();
    for (flows, colour) in FLOWS.into_iter().zip(colours) {
        for (goal, decoding) in [
            (DecodeGoal::Single, "alone"),
            (DecodeGoal::Network, "together"),
        ] {
            let request = PlanRequest::flows(flows)
                .expected_false_positives(0.99)
                .goal(goal);
            let plan = layout_options::plan(&request)?;
            let bytes = plan.flowset_bytes().ok_or_else(|| {
                CommandError::Failed(format!("a report of {flows} flows fits no memory"))
            })?;
            let mut points = vec![];
            for epoch_ms in EPOCHS_MS {
                let gbit_per_s = bytes as f64 * 8.0 / (epoch_ms * 1e6);
                let mut row: Vec<Value> = vec![
                    flows.into(),
                    decoding.into(),
                    Value::Real(epoch_ms, 0),
                    bytes.into(),
                    Value::Real(gbit_per_s, 4),
                ];
                let share = |capacity: u64| gbit_per_s / capacity as f64;
                row.extend(CAPACITIES.map(|capacity| Value::Real(share(capacity) * 100.0, 4)));
                table.push(row);
                points.push((epoch_ms, share(capacity)));
                if flows == 100_000 && epoch_ms == PAPER_EPOCH_MS {
                    ours.push_str(&format!(
                        "{}{:.2} % of {} Gbit/s decoded {decoding}",
                        if ours.is_empty() { "" } else { ", " },
                        share(capacity) * 100.0,
                        grouped(capacity),
                    ));
                }
            }
            lines.push(Line {
                label: format!("{} flows, {decoding}", grouped(flows)),
                colour,
                stroke: match goal {
                    DecodeGoal::Single => Stroke::Solid,
                    DecodeGoal::Network => Stroke::Dashed,
                },
                points,
            });
        }
    }
    let paper_gbit_per_s = PAPER_MEMORY_BYTES as f64 * 8.0 / (PAPER_EPOCH_MS * 1e6);
    let chart = LineChart {
        name: "bandwidth",
        title: "Reports take a fraction of a percent of a switch's capacity".into(),
        subtitle: format!("share of {PORTS} ports of {PORT_GBIT_PER_S} Gbit/s"),
        x: Axis::logarithmic("length of an epoch (ms)", 1.0..100.0, |ms| format!("{ms}")),
        y: Axis::logarithmic("share of capacity", 1e-5..0.02, |share| {
            format!("{} %", share * 100.0)
        }),
        lines,
        marks: vec![Mark {
            label: "paper: 0.52 %".into(),
            colour: BLACK,
            at: (PAPER_EPOCH_MS, PAPER_SHARE),
            below: false,
        }],
    };
    let caption = format!(
        "A report of 100,000 flows every 10 ms takes {ours}; the paper says 0.52 % for the topology \
         and traffic of Facebook's data centers."
    );
    Ok(Chapter {
        id: "bandwidth",
        title: "Bandwidth of the reports",
        method: html! {
            p {
                "A switch sends its whole report in every epoch, whatever is in it: bytes of the "
                "report × 8 / length of the epoch, divided by the capacity of the switch. Reports are "
                "as this implementation writes them: flow filter, table, header and checksums, "
                "without the transport's headers."
            }
            p {
                "How the paper comes to its 0.52 % depends on the number of ports, their speed and "
                "the flows in an epoch at each tier, which its slides do not give. For orientation: "
                "its 2.36 MB every 10 ms are " (format!("{paper_gbit_per_s:.2}")) " Gbit/s, which are "
                (format!("{:.2} %", PAPER_SHARE * 100.0)) " of "
                (format!("{:.0}", paper_gbit_per_s / PAPER_SHARE)) " Gbit/s."
            }
        },
        figures: vec![(chart.draw(), caption)],
        tables: vec![table],
        comparisons: vec![Comparison {
            what: "Bandwidth of the reports, epochs of 10 ms".into(),
            paper: "0.52 % (topology and traffic of Facebook's data centers)".into(),
            ours: format!("100,000 flows: {ours}"),
        }],
    })
}
