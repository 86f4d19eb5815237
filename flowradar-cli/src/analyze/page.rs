//! The analyses on a page.

use flowradar_collector::analysis::{Bounds, Event, Severity};
use maud::{Markup, html};

use super::{Entry, Report, span};
use crate::page::{Page, Section};
use crate::text::{counted, grouped, percent, short_size};

/// Links and groups on the page.
const ROWS_MAX: usize = 50;

/// The page as HTML.
pub(crate) fn html(report: &Report) -> String {
    let mut sections = vec![Section {
        id: "events",
        title: format!("Events ({})", report.events.len()),
        content: events(report),
    }];
    if report.network_known {
        sections.push(Section {
            id: "losses",
            title: "Losses".into(),
            content: losses(report),
        });
        sections.push(Section {
            id: "load",
            title: "Load of ECMP groups".into(),
            content: load(report),
        });
    }
    sections.push(Section {
        id: "traffic",
        title: "Traffic".into(),
        content: traffic(report),
    });
    let page = Page {
        title: "FlowRadar: what the flows say",
        introduction: introduction(report),
        sections,
    };
    page.html()
}

fn introduction(report: &Report) -> Markup {
    html! {
        p {
            (counted(report.flowsets as u64, "flowset")) " of " (grouped(report.switches as u64))
            " switches, epochs " (report.first_epoch) " to " (report.last_epoch) "; "
            (grouped(report.epochs.saturating_sub(report.incomplete_epochs))) " of "
            (grouped(report.epochs)) " decoded completely. "
            @if !report.complete {
                span.bad {
                    (counted(report.flows_not_found, "flow")) " not found and "
                    (counted(report.unresolved, "counter")) " unresolved: "
                }
                "what depends on them is not said."
            }
        }
        @if !report.network_known {
            p { "The network is not known: there are traffic and attacks only." }
        }
    }
}

fn events(report: &Report) -> Markup {
    if report.events.is_empty() {
        return html! { p { "None." } };
    }
    html! {
        (timeline(report))
        div.table {
            table {
                thead { tr { th { "severity" } th { "what" } th { "epochs" } th { "known from" }
                    th { "flows" } th { "packets" } th { "evidence" } } }
                tbody {
                    @for event in &report.events {
                        tr {
                            td.bad[event.severity == Severity::Critical] { (event.severity) }
                            td { (event.kind.to_string()) }
                            td.number { (span(event)) }
                            td.number { (event.detected_epoch) }
                            td.number { (grouped(event.evidence.flows)) }
                            td.number { (grouped(event.evidence.packets)) }
                            td { (evidence(event)) }
                        }
                    }
                }
            }
        }
    }
}

/// A bar for each event.
fn timeline(report: &Report) -> Markup {
    const WIDTH: f64 = 900.0;
    const ROW: usize = 18;
    let epochs = (report.last_epoch - report.first_epoch + 1) as f64;
    let x = |epoch: u64| (epoch.saturating_sub(report.first_epoch)) as f64 / epochs * WIDTH;
    let height = ROW * report.events.len() + 4;
    html! {
        figure {
            div.drawing role="img" aria-label="Events over epochs" {
                svg viewBox={ "0 0 " (WIDTH) " " (height) } xmlns="http://www.w3.org/2000/svg" {
                    @for (row, event) in report.events.iter().enumerate() {
                        rect x=(format!("{:.1}", x(event.start_epoch))) y=(row * ROW + 3)
                            width=(format!("{:.1}", (x(event.last_epoch + 1) - x(event.start_epoch)).max(2.0)))
                            height=(ROW - 4) fill=(colour(event.severity)) {}
                        text x=(format!("{:.1}", x(event.start_epoch).min(WIDTH - 360.0) + 4.0)) y=(row * ROW + 15)
                            font-size="12" fill="#222222" { (event.kind.to_string()) }
                    }
                }
            }
            figcaption { "Events from their first epoch to their last, " (report.first_epoch) " to "
                (report.last_epoch) "." }
        }
    }
}

/// Light, as text stands on it.
fn colour(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "#f0a58a",
        Severity::Warning => "#f2d08a",
        Severity::Info => "#a9d3ee",
    }
}

fn evidence(event: &Event) -> Markup {
    let bounds = |packets: Bounds| {
        if packets.is_known() {
            grouped(packets.least)
        } else {
            format!("{} or more", grouped(packets.least))
        }
    };
    html! {
        @for measure in &event.evidence.measures {
            (measure.name.replace('_', " ")) " " (format!("{:.4}", measure.value)) br;
        }
        details {
            summary { "flows" }
            @for example in &event.evidence.examples {
                p {
                    "epoch " (example.epoch) ": " code { (example.flow.to_string()) } br;
                    @for (place, hop) in example.hops.iter().enumerate() {
                        @if place > 0 { " → " }
                        (hop.switch) " " (bounds(hop.packets))
                    }
                }
            }
        }
    }
}

fn losses(report: &Report) -> Markup {
    let losses = &report.losses;
    html! {
        p {
            (counted(losses.packets_lost, "packet")) " lost, "
            (grouped(losses.packets_in_flight)) " on their way at the end of an epoch. "
            (grouped(losses.undecided)) " of " (grouped(losses.compared + losses.undecided))
            " comparisons of two switches were not decided."
        }
        div.table {
            table {
                thead { tr { th { "from" } th { "to" } th { "packets" } th { "lost" } th { "" } } }
                tbody {
                    @for link in losses.links.iter().take(ROWS_MAX) {
                        tr {
                            td { (link.from) }
                            td { (link.to) }
                            td.number { (grouped(link.packets)) }
                            td.number { (grouped(link.lost)) }
                            td.number { (percent(link.lost, link.packets)) }
                        }
                    }
                }
            }
        }
        @if losses.links.len() > ROWS_MAX {
            p { "And " (losses.links.len() - ROWS_MAX) " more." }
        }
    }
}

fn load(report: &Report) -> Markup {
    html! {
        p { "The largest share of a member over its fair one, in packets: 1 is even." }
        div.table {
            table {
                thead { tr { th { "switch" } th { "ratio" } th { "worst epoch" } th { "next hop" }
                    th { "flows" } th { "packets" } th { "bytes" } } }
                tbody {
                    @for group in report.groups.iter().take(ROWS_MAX) {
                        @for (place, member) in group.members.iter().enumerate() {
                            tr {
                                @if place == 0 {
                                    td { (group.switch) }
                                    td.number { (format!("{:.2}", group.packet_ratio)) }
                                    td.number { (format!("{:.2}", group.worst_packet_ratio)) }
                                } @else {
                                    td {} td {} td {}
                                }
                                td { (member.to) }
                                td.number { (grouped(member.flows)) }
                                td.number { (grouped(member.packets)) }
                                td.number { (short_size(member.bytes)) }
                            }
                        }
                    }
                }
            }
        }
        @if report.groups.len() > ROWS_MAX {
            p { "And " (report.groups.len() - ROWS_MAX) " more." }
        }
    }
}

fn traffic(report: &Report) -> Markup {
    let traffic = &report.traffic;
    html! {
        p {
            (counted(traffic.total.packets, "packet")) ", " (short_size(traffic.total.bytes)) ", "
            (counted(traffic.total.flows, "flow")) " summed over epochs, "
            (grouped(traffic.total.unresolved_flows)) " of them with estimates."
        }
        @for (title, entries) in [
            ("Flows", &traffic.flows),
            ("Sources", &traffic.sources),
            ("Destinations", &traffic.destinations),
            ("Services", &traffic.services),
            ("From where to where", &traffic.matrix),
        ] {
            (list(title, entries))
        }
    }
}

fn list(title: &str, entries: &[Entry]) -> Markup {
    html! {
        div.table {
            table {
                caption { (title) }
                thead { tr { th { "" } th { "flows" } th { "packets" } th { "bytes" } } }
                tbody {
                    @for entry in entries {
                        tr {
                            td { (entry.name) }
                            td.number { (grouped(entry.volume.flows)) }
                            td.number { (grouped(entry.volume.packets)) }
                            td.number { (short_size(entry.volume.bytes)) }
                        }
                    }
                }
            }
        }
    }
}
