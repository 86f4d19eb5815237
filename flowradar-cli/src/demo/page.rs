//! The demonstration's page and pictures.

use std::path::Path;

use flowradar_sim::Topology;
use maud::{Markup, html};

use super::{BURST_FLOWS, Burst, DemoReport, FlowOnItsWay, LOSSY_LINKS, ORDINARY_FLOWS};
use crate::experiment::Tally;
use crate::experiment::losses::{Losses, by_link};
use crate::figures::{BLUE, Bar, BarChart, BarPart, FatTreeMap, Figure, GREEN, GREY, ORANGE, SKY};
use crate::outcome::CommandError;
use crate::output::write_file;
use crate::page::{Page, Section, figure};
use crate::text::{grouped, percent, short_size};

/// Writes the page and the pictures.
pub(super) fn write(report: &DemoReport, burst: &Burst, folder: &Path) -> Result<(), CommandError> {
    let decoding = decoding_figure(report);
    let memory = memory_figure(report);
    let map = map_figure(&burst.topology, &burst.losses);
    for figure in [&decoding, &memory].into_iter().chain(&map) {
        figure.write_to(folder)?;
    }
    let page = Page {
        title: "FlowRadar demonstration",
        introduction: introduction(report),
        sections: vec![
            Section {
                id: "decoding",
                title: "Every flow, with its packets".into(),
                content: decoding_section(report, &decoding),
            },
            Section {
                id: "losses",
                title: "Where packets got lost".into(),
                content: loss_section(report, map.as_ref()),
            },
            Section {
                id: "memory",
                title: "What it takes".into(),
                content: memory_section(report, &memory),
            },
        ],
    };
    write_file(&folder.join("report.html"), page.html().as_bytes())
}

fn introduction(report: &DemoReport) -> Markup {
    html! {
        p {
            (report.switches) " switches of a data-centre network encoded every packet they saw into "
            (short_size(report.memory.flowradar_bytes)) " of memory each. From these reports alone "
            "the flows and their packets were decoded, and then compared with what the simulated "
            "hosts had really sent. "
            @if report.everything_right {
                span.good { "Everything decoded was right." }
            } @else {
                span.bad { "Not everything came out right; the numbers below say what." }
            }
        }
    }
}

fn decoding_section(report: &DemoReport, decoding: &Figure) -> Markup {
    let tally = |tally: &Tally| {
        html! {
            td.number { (grouped(tally.flows)) }
            td.number { (grouped(tally.exact)) }
            td.number { (grouped(tally.joint)) }
            td.number { (grouped(tally.unresolved)) }
            td.number { (grouped(tally.missing)) }
            td.number { (grouped(tally.wrong())) }
        }
    };
    html! {
        p {
            "A flow is counted at every switch on its way, so that a flow over five switches has five "
            "counters. " b { "Exact" } " means proved by the switch's own report; " b { "joint" }
            " means that it satisfies the equations of all switches together; " b { "unresolved" }
            " means that only bounds are known."
        }
        (figure(decoding, "Flow counters decoded, of all that there were. The burst overloads every \
                           switch alone; together they decode all of it."))
        div.table {
            table {
                thead { tr {
                    th { "" } th { "counters" } th { "exact" } th { "joint" } th { "unresolved" }
                    th { "not found" } th { "wrong" }
                } }
                tbody {
                    tr { td { "ordinary traffic, each switch alone" } (tally(&report.ordinary.result)) }
                    tr { td { "burst, each switch alone" } (tally(&report.burst_single)) }
                    tr { td { "burst, all switches together" } (tally(&report.burst.result)) }
                }
            }
        }
        h3 { "The largest flows" }
        (flow_table(&report.largest_flows))
    }
}

fn loss_section(report: &DemoReport, map: Option<&Figure>) -> Markup {
    let score = &report.losses.score;
    html! {
        p {
            "A flow has the same counter at all switches on its way unless packets got lost in "
            "between. During the burst "
            @for (place, (from, to, fraction)) in LOSSY_LINKS.iter().enumerate() {
                @if place > 0 { " and " }
                "the link from " (from) " to " (to) " lost " (format!("{:.0} %", fraction * 100.0))
            }
            " of its packets, and some flows lost packets elsewhere. The decoded counters show "
            b { (grouped(report.losses.packets_found)) " of " (grouped(report.losses.packets_lost)) }
            " lost packets, in " (grouped(score.losses)) " losses of a flow: "
            (grouped(score.on_the_link)) " on the very link, " (grouped(score.behind_the_switch))
            " behind the very switch (no packet of these flows came further), and "
            (grouped(score.false_alarms)) " where there was none."
        }
        @if let Some(map) = map {
            (figure(map, "The network with the losses that decoding found; the two lossy links stand \
                          out."))
        }
        h3 { "Flows that lost most" }
        (flow_table(&report.lossy_flows))
    }
}

fn memory_section(report: &DemoReport, memory: &Figure) -> Markup {
    html! {
        p {
            "Memory was chosen so that each switch alone decodes its ordinary "
            (grouped(ORDINARY_FLOWS.into())) " flows. All switches together then decode bursts of "
            (grouped(BURST_FLOWS.into())) " without a byte more."
        }
        (figure(memory, "Memory of one switch for one epoch. Perfect hashing without any collision is \
                         a lower bound that no switch can build."))
        p {
            "To decode the burst yourself: " code { "flowradar net-decode " (report.folder) "/flowsets" }
        }
    }
}

fn flow_table(flows: &[FlowOnItsWay]) -> Markup {
    html! {
        div.table {
            table {
                thead { tr { th { "flow" } th { "packets at each switch on its way" } } }
                tbody {
                    @for flow in flows {
                        tr { td { (flow.flow) } td { (flow.way()) } }
                    }
                }
            }
        }
    }
}

fn decoding_figure(report: &DemoReport) -> Figure {
    let bar = |label: &str, tally: &Tally| {
        let part = |value: u64, colour, name: &str| BarPart {
            value: value as f64 / tally.flows as f64,
            colour,
            text: format!("{} {name}", percent(value, tally.flows)),
        };
        Bar {
            label: label.into(),
            parts: vec![
                part(tally.exact, BLUE, "exact"),
                part(tally.joint, GREEN, "joint"),
                part(tally.unresolved, ORANGE, "unresolved"),
                part(tally.missing, GREY, "not found"),
            ],
            note: format!("{} wrong", grouped(tally.wrong())),
        }
    };
    let chart = BarChart {
        name: "decoding",
        title: "All flows, also when every switch is overloaded".into(),
        subtitle: format!(
            "counters decoded; {} flows at each switch, then {}, in the same memory",
            grouped(ORDINARY_FLOWS.into()),
            grouped(BURST_FLOWS.into())
        ),
        bars: vec![
            bar("ordinary, each switch alone", &report.ordinary.result),
            bar("burst, each switch alone", &report.burst_single),
            bar("burst, all together", &report.burst.result),
        ],
        legend: vec![
            (BLUE, "exact"),
            (GREEN, "joint"),
            (ORANGE, "unresolved"),
            (GREY, "not found"),
        ],
    };
    chart.draw()
}

fn memory_figure(report: &DemoReport) -> Figure {
    let bar = |label: &str, bytes: u64, colour| {
        Bar::plain(label, bytes as f64, colour, short_size(bytes))
    };
    let memory = &report.memory;
    let chart = BarChart {
        name: "memory",
        title: "Memory of a switch".into(),
        subtitle: format!(
            "for bursts of {} flows in an epoch",
            grouped(BURST_FLOWS.into())
        ),
        bars: vec![
            bar(
                "FlowRadar, all switches together",
                memory.flowradar_bytes,
                BLUE,
            ),
            bar(
                "FlowRadar, each switch alone",
                memory.flowradar_for_burst_alone_bytes,
                SKY,
            ),
            bar(
                "exact table, perfect hash (unreachable)",
                memory.perfect_hash_table_bytes,
                GREY,
            ),
        ],
        legend: vec![],
    };
    chart.draw()
}

/// The network with its losses.
pub(super) fn map_figure(topology: &Topology, losses: &Losses) -> Option<Figure> {
    let (losses, _) = by_link(losses);
    let map = FatTreeMap {
        name: "losses",
        title: "Losses found in the decoded counters".into(),
        subtitle: format!(
            "{} links lost packets; the {} worst are named",
            losses.len(),
            LOSSY_LINKS.len()
        ),
        topology,
        losses,
        labelled: LOSSY_LINKS.len(),
    };
    map.draw()
}
