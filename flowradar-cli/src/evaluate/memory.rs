//! Memory of a switch, beside exact tables.

use flowradar_core::plan::{COUPLED_FLOWS_MIN, CouplingChoice, DecodeGoal, PlanRequest};
use maud::html;

use super::{Chapter, Comparison, PAPER_FLOWS, PAPER_MEMORY_BYTES, short_count};
use crate::figures::{
    Axis, BLACK, BLUE, GREEN, GREY, Line, LineChart, Mark, ORANGE, PURPLE, Stroke, VERMILLION,
};
use crate::layout_options;
use crate::outcome::CommandError;
use crate::result_table::{ResultTable, Value};

const FLOWS: [u64; 10] = [
    1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
];
/// Failures of SingleDecode that the plans allow.
const FAILURE_PROBABILITY: f64 = 0.01;
/// The paper compares memory with less than one false positive expected among all flows.
const FALSE_POSITIVES: f64 = 0.99;
/// Key and a packet counter as wide as FlowRadar's.
const EXACT_SLOT_BITS: u64 = 104 + 24;
/// What a NetFlow cache keeps at least: key, packets, bytes, first and last time of 32 bits each.
const NETFLOW_RECORD_BITS: u64 = 104 + 4 * 32;
/// Slots of a bucket, as switches and processors compare them at once.
const BUCKET_SLOTS: u64 = 4;
/// How full cuckoo tables with buckets of four get.
const CUCKOO_LOAD: f64 = 0.95;

pub(super) fn evaluate() -> Result<Chapter, CommandError> {
    let mut table = ResultTable::new(
        "memory",
        "Bytes of memory of a switch for one epoch, by number of flows",
        [
            "flows",
            "flowradar_plain_bytes",
            "flowradar_coupled_bytes",
            "flowradar_network_bytes",
            "exact_perfect_hash_bytes",
            "exact_cuckoo_bytes",
            "exact_fixed_buckets_bytes",
            "netflow_record_perfect_hash_bytes",
        ],
    );
    let mut lines = lines();
    for flows in FLOWS {
        let bytes = [
            Some(plan(flows, CouplingChoice::Plain, DecodeGoal::Single)?),
            match flows {
                COUPLED_FLOWS_MIN.. => {
                    Some(plan(flows, CouplingChoice::Coupled, DecodeGoal::Single)?)
                }
                _ => None,
            },
            Some(plan(flows, CouplingChoice::Plain, DecodeGoal::Network)?),
            Some(flows * EXACT_SLOT_BITS / 8),
            Some((flows as f64 / CUCKOO_LOAD) as u64 * EXACT_SLOT_BITS / 8),
            Some(fixed_bucket_slots(flows) * EXACT_SLOT_BITS / 8),
            Some(flows * NETFLOW_RECORD_BITS / 8),
        ];
        let mut row: Vec<Value> = vec![flows.into()];
        row.extend(bytes.map(Value::from));
        table.push(row);
        for (line, bytes) in lines.iter_mut().zip(bytes) {
            line.points
                .extend(bytes.map(|bytes| (flows as f64, bytes as f64 / 1e6)));
        }
    }
    let paper = |coupling, goal| {
        let bytes = plan(PAPER_FLOWS, coupling, goal)?;
        Ok::<String, CommandError>(format!("{:.2} MB", bytes as f64 / 1e6))
    };
    let single = format!(
        "{} plain, {} coupled",
        paper(CouplingChoice::Plain, DecodeGoal::Single)?,
        paper(CouplingChoice::Coupled, DecodeGoal::Single)?,
    );
    let network = paper(CouplingChoice::Plain, DecodeGoal::Network)?;
    let chart = LineChart {
        name: "memory",
        title: "Close to perfect hashing, without any collision to handle".into(),
        subtitle: "memory of a switch for one epoch, IPv4 keys".into(),
        x: Axis::logarithmic("flows in an epoch", 1e3..1e6, short_count),
        y: Axis::logarithmic("memory (MB)", 0.01..1000.0, |megabytes| {
            format!("{megabytes}")
        }),
        lines,
        marks: vec![Mark {
            label: "paper: 2.36 MB".into(),
            colour: BLACK,
            at: (PAPER_FLOWS as f64, PAPER_MEMORY_BYTES as f64 / 1e6),
            below: false,
        }],
    };
    let caption = format!(
        "For 100,000 flows FlowRadar takes {single}, and {network} where the switches of a network \
         decode together; the paper's figure is 2.36 MB."
    );
    Ok(Chapter {
        id: "memory",
        title: "Memory",
        method: html! {
            p {
                "Flow filter and counting table of one bank, as the planner lays them out: at most "
                "one epoch in a hundred in which a switch alone does not find every flow, and less "
                "than one false positive of the filter expected in an epoch. A cell is 136 bits "
                "(key 104, FlowCount 8, PacketCount 24)."
            }
            p {
                "Exact tables keep key and a 24-bit packet counter in 128 bits. With a perfect hash "
                "every slot is used and nothing ever collides: nobody can build that for flows not "
                "known beforehand. Cuckoo tables get 95 % full by moving entries around, which takes "
                "a number of steps that is not bounded; fixed buckets of four slots, like FlowRadar, "
                "take the same few steps for every packet, and need so many that less than one flow "
                "is expected to find its bucket full. A NetFlow record keeps bytes and two times as "
                "well."
            }
        },
        figures: vec![(chart.draw(), caption)],
        tables: vec![table],
        comparisons: vec![
            Comparison {
                what: "Memory for 100,000 flows, each switch decodes alone".into(),
                paper: "2.36 MB".into(),
                ours: single,
            },
            Comparison {
                what: "Memory for 100,000 flows, all switches decode together".into(),
                paper: "1.86 MB (26.8 % more flows in the same memory)".into(),
                ours: network,
            },
        ],
    })
}

fn plan(flows: u64, coupling: CouplingChoice, goal: DecodeGoal) -> Result<u64, CommandError> {
    let request = PlanRequest::flows(flows)
        .failure_probability(FAILURE_PROBABILITY)
        .expected_false_positives(FALSE_POSITIVES)
        .coupling(coupling)
        .goal(goal);
    Ok(layout_options::plan(&request)?
        .switch_memory_bits()
        .div_ceil(8))
}

/// The least slots of a table of fixed buckets in which less than one flow is expected to find no
/// room: buckets hold Poisson-distributed numbers of flows.
fn fixed_bucket_slots(flows: u64) -> u64 {
    let overflow = |buckets: u64| {
        let mean = flows as f64 / buckets as f64;
        let mut chance = (-mean).exp();
        let mut expected = 0.0;
        for count in 1..BUCKET_SLOTS + 200 {
            chance *= mean / count as f64;
            expected += chance * count.saturating_sub(BUCKET_SLOTS) as f64;
        }
        expected * buckets as f64
    };
    let (mut too_few, mut enough) = (0, flows * flows);
    while enough - too_few > 1 {
        let middle = too_few + (enough - too_few) / 2;
        if overflow(middle) < 1.0 {
            enough = middle;
        } else {
            too_few = middle;
        }
    }
    enough * BUCKET_SLOTS
}

/// The lines of the chart, still without points, in the order of the table's columns.
fn lines() -> Vec<Line> {
    [
        ("FlowRadar, plain", BLUE, Stroke::Solid),
        ("FlowRadar, coupled", GREEN, Stroke::Solid),
        ("FlowRadar, network-wide", VERMILLION, Stroke::Solid),
        ("exact, perfect hash", GREY, Stroke::Dashed),
        ("exact, cuckoo", ORANGE, Stroke::Dashed),
        ("exact, fixed buckets", PURPLE, Stroke::Dashed),
        ("NetFlow record, perfect hash", BLACK, Stroke::Dashed),
    ]
    .map(|(label, colour, stroke)| Line {
        label: label.into(),
        colour,
        stroke,
        points: vec![],
    })
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two flows never overflow a bucket of four; and with a bucket for each pair of a thousand
    /// flows, overflows can be counted by hand: about C(n, 5) / buckets^4.
    #[test]
    fn buckets_are_enough_and_no_more() {
        let slots = fixed_bucket_slots(100_000);
        let buckets = slots as f64 / 4.0;
        let mean: f64 = 100_000.0 / buckets;
        let leading = buckets * mean.powi(5) / 120.0 * (-mean).exp();
        assert!((0.5..1.0).contains(&leading), "{leading}");
    }
}
