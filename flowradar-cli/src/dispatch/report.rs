//! The experiment's results: tables, figures and a page.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use flowradar_balancer::dispatch::simulate::{ServerWindow, Window, imbalance};
use maud::{Markup, PreEscaped, html};
use plotters::style::RGBColor;

use super::experiment::{Compared, ComparedPolicy};
use crate::figures::{
    Axis, BLACK, BLUE, Figure, GREEN, GREY, Line, LineChart, ORANGE, PURPLE, Panel, SKY,
    SmallMultiples, Stroke, VERMILLION,
};
use crate::outcome::CommandError;
use crate::output::write_file;
use crate::page::{Page, Section, folded};
use crate::result_table::{ResultTable, Value};
use crate::text::grouped;

pub(crate) const SERVER_COLOURS: [RGBColor; 8] =
    [BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, GREY, BLACK];
/// Points of a line at most.
const POINTS_MAX: usize = 400;

/// Two policies whose imbalance differs by less are as good as each other.
const DIFFERENCE_MIN: f64 = 0.05;

/// The results of all scenarios.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    compared: &'a [Compared],
    /// Names of the scenarios' folders.
    folders: Vec<String>,
    /// What was simulated, in a sentence.
    pub(crate) method: String,
    pub(crate) scenarios: ResultTable,
    pub(crate) policies: ResultTable,
}

impl<'a> Report<'a> {
    pub(crate) fn new(compared: &'a [Compared], method: String) -> Self {
        Self {
            folders: folder_names(compared),
            scenarios: scenario_table(compared),
            policies: policy_table(compared),
            compared,
            method,
        }
    }

    /// Writes the page, tables and figures.
    pub(crate) fn write_to(&self, out: &Path) -> Result<(), CommandError> {
        fs::create_dir_all(out).map_err(CommandError::file("create", out))?;
        self.scenarios.write_to(out)?;
        self.policies.write_to(out)?;
        let mut sections = vec![];
        for (compared, name) in self.compared.iter().zip(&self.folders) {
            let folder = out.join(name);
            fs::create_dir_all(&folder).map_err(CommandError::file("create", &folder))?;
            load_table(compared).write_to(&folder)?;
            imbalance_table(compared).write_to(&folder)?;
            let figures = [
                (
                    load_figure(compared),
                    "The load of each server over time, by policy.",
                ),
                (
                    imbalance_figure(compared),
                    "How uneven the servers' loads are over time, by policy.",
                ),
            ];
            for (figure, _) in &figures {
                figure.write_to(&folder)?;
            }
            sections.push(section(compared, name, &figures));
        }
        let page = Page {
            title: "Policies compared over the same packets",
            introduction: self.introduction(),
            sections,
        };
        write_file(&out.join("report.html"), page.html().as_bytes())
    }

    /// The results in lines.
    pub(crate) fn text(&self, out: &Path) -> String {
        let mut text = format!("{}\n", self.method);
        for compared in self.compared {
            let shape = &compared.scenario.shape;
            text.push_str(&format!(
                "\n{}: {} packets of {} flows in {:.1} s; no flow-affine policy can be more even \
                 than {:.3}\n  {:<16} {:>9} {:>9} {:>8} {:>12} {:>12}\n",
                compared.scenario.name,
                grouped(compared.scenario.packets.len() as u64),
                grouped(shape.flows),
                shape.duration.as_secs_f64(),
                compared.bound,
                "imbalance in",
                "packets",
                "bytes",
                "lost",
                "mean delay",
                "max delay",
            ));
            for (policy, result) in &compared.results {
                text.push_str(&format!(
                    "  {:<16} {:>9.3} {:>9} {:>8} {:>9.1} ms {:>9.1} ms\n",
                    policy.name(),
                    result.packet_imbalance(),
                    if shape.bytes == 0 {
                        "-".into()
                    } else {
                        format!("{:.3}", result.byte_imbalance())
                    },
                    grouped(result.lost()),
                    result.delay_mean.as_secs_f64() * 1e3,
                    result.delay_max.as_secs_f64() * 1e3,
                ));
            }
            text.push_str(&format!("  {}\n", verdict(compared)));
        }
        text.push_str(&format!(
            "\nReport: {}\n",
            out.join("report.html").display()
        ));
        text
    }

    fn introduction(&self) -> Markup {
        html! {
            p {
                "The experiment of Lee, Park, Sanadidi and Gerla, \"Flow Based Dynamic Load Balancing "
                "for Passive Network Monitoring\": a dispatcher sends the packets of each flow to one "
                "of several servers, which are token buckets. " (self.method)
            }
            p {
                "Imbalance is the load of the most loaded server over the mean of all, in each window "
                "of time, averaged over windows by their load: 1 is even; with three servers, 3 is "
                "everything on one. Counted are packets and bytes, not flows: servers with equal "
                "numbers of flows may differ by any factor in work. The bound is what the largest flow "
                "of each window forces on every policy that keeps flows together."
            }
            (self.scenarios.html())
            (self.policies.html())
        }
    }
}

/// What the figures say, in a sentence.
pub(crate) fn verdict(compared: &Compared) -> String {
    let find = |wanted: ComparedPolicy| {
        let mut results = compared.results.iter();
        results
            .find(|(policy, _)| *policy == wanted)
            .map(|(_, result)| result.packet_imbalance())
    };
    let best = compared
        .results
        .iter()
        .map(|(_, result)| result.packet_imbalance())
        .fold(f64::INFINITY, f64::min);
    let largest = compared.scenario.shape.largest_flow_share;
    let fair = 1.0
        / compared.results.first().map_or(1, |(_, result)| {
            result
                .windows
                .first()
                .map_or(1, |window| window.servers.len())
        }) as f64;
    if largest > fair && compared.bound > 1.0 + DIFFERENCE_MIN {
        return format!(
            "One flow has {:.0} % of all packets, more than a server's share: no policy that keeps \
             flows together can be even (bound {:.3}, best here {best:.3}).",
            largest * 100.0,
            compared.bound,
        );
    }
    let (Some(round_robin), Some(estimated)) = (
        find(ComparedPolicy::RoundRobin),
        find(ComparedPolicy::Estimated),
    ) else {
        return format!("Best: {best:.3}; bound: {:.3}.", compared.bound);
    };
    if round_robin - estimated > DIFFERENCE_MIN {
        format!(
            "The estimate is more even than round robin: {estimated:.3} against {round_robin:.3}."
        )
    } else if estimated - round_robin > DIFFERENCE_MIN {
        format!(
            "Round robin is more even than the estimate: {round_robin:.3} against {estimated:.3}."
        )
    } else {
        format!("Round robin is enough: {round_robin:.3}, and {estimated:.3} with the estimate.")
    }
}

fn scenario_table(compared: &[Compared]) -> ResultTable {
    let mut table = ResultTable::new(
        "scenarios",
        "The traffic of each scenario, and the servers that were simulated with it",
        [
            "scenario",
            "packets",
            "ip_bytes",
            "flows",
            "duration_s",
            "flow_packets_mean",
            "flow_packets_variation",
            "flow_duration_mean_s",
            "largest_flow_percent",
            "service_time_us",
            "window_ms",
            "imbalance_bound",
        ],
    );
    for each in compared {
        let shape = &each.scenario.shape;
        table.push([
            each.scenario.name.as_str().into(),
            each.scenario.packets.len().into(),
            shape.bytes.into(),
            shape.flows.into(),
            Value::Real(shape.duration.as_secs_f64(), 1),
            Value::Real(shape.flow_packets_mean, 1),
            Value::Real(shape.flow_packets_variation, 2),
            Value::Real(shape.flow_duration_mean.as_secs_f64(), 2),
            Value::Real(shape.largest_flow_share * 100.0, 1),
            Value::Real(each.service_time.as_secs_f64() * 1e6, 1),
            Value::Real(each.window.as_secs_f64() * 1e3, 0),
            Value::Real(each.bound, 3),
        ]);
    }
    table
}

fn policy_table(compared: &[Compared]) -> ResultTable {
    let mut table = ResultTable::new(
        "policies",
        "How even each policy is, and what follows: packets lost, and time from arrival to the end \
         of service",
        [
            "scenario",
            "policy",
            "packet_imbalance",
            "byte_imbalance",
            "packets_lost",
            "waiting_max",
            "delay_mean_ms",
            "delay_max_ms",
            "round_trip_ms",
            "affinity_breaks",
        ],
    );
    for each in compared {
        for (policy, result) in &each.results {
            table.push([
                each.scenario.name.as_str().into(),
                policy.name().into(),
                Value::Real(result.packet_imbalance(), 3),
                if each.scenario.shape.bytes == 0 {
                    Value::Missing
                } else {
                    Value::Real(result.byte_imbalance(), 3)
                },
                result.lost().into(),
                result.waiting_max.into(),
                milliseconds(result.delay_mean),
                milliseconds(result.delay_max),
                if result.counters.round_trips == 0 {
                    Value::Missing
                } else {
                    milliseconds(result.round_trip)
                },
                result.counters.affinity_breaks.into(),
            ]);
        }
    }
    table
}

fn milliseconds(duration: Duration) -> Value {
    Value::Real(duration.as_secs_f64() * 1e3, 2)
}

fn load_table(compared: &Compared) -> ResultTable {
    let mut table = ResultTable::new(
        "loads",
        "The load of each server in each window",
        [
            "policy",
            "start_s",
            "server",
            "packets",
            "ip_bytes",
            "packets_lost",
            "waiting",
            "utilisation_percent",
        ],
    );
    for (policy, result) in &compared.results {
        for window in &result.windows {
            for (index, server) in window.servers.iter().enumerate() {
                table.push([
                    policy.name().into(),
                    Value::Real(window.start.as_secs_f64(), 3),
                    (index + 1).into(),
                    server.packets.into(),
                    server.bytes.into(),
                    server.lost.into(),
                    server.waiting.into(),
                    Value::Real(server.utilisation * 100.0, 1),
                ]);
            }
        }
    }
    table
}

fn imbalance_table(compared: &Compared) -> ResultTable {
    let mut table = ResultTable::new(
        "imbalance",
        "The most loaded server over the mean of all, in each window",
        ["policy", "start_s", "packets", "ip_bytes"],
    );
    for (policy, result) in &compared.results {
        for window in &result.windows {
            let one = std::slice::from_ref(window);
            let total =
                |load: fn(&ServerWindow) -> u64| -> u64 { window.servers.iter().map(load).sum() };
            let bytes = if total(|server| server.bytes) == 0 {
                Value::Missing
            } else {
                Value::Real(imbalance(one, |server| server.bytes), 3)
            };
            table.push([
                policy.name().into(),
                Value::Real(window.start.as_secs_f64(), 3),
                Value::Real(imbalance(one, |server| server.packets), 3),
                bytes,
            ]);
        }
    }
    table
}

fn load_figure(compared: &Compared) -> Figure {
    let servers = servers(compared);
    let window_seconds = compared.window.as_secs_f64().max(f64::MIN_POSITIVE);
    let panels = compared.results.iter().map(|(policy, result)| {
        let windows = thinned(&result.windows);
        let line = |server: usize| {
            let points = windows.iter().map(|window| {
                let packets = window
                    .servers
                    .get(server)
                    .map_or(0, |server| server.packets);
                (window.start.as_secs_f64(), packets as f64 / window_seconds)
            });
            points.collect()
        };
        Panel {
            title: format!("{}: {:.3}", policy.name(), result.packet_imbalance()),
            lines: (0..servers).map(line).collect(),
        }
    });
    let legend = (0..servers).map(|server| {
        let colour = SERVER_COLOURS[server % SERVER_COLOURS.len()];
        (format!("server {}", server + 1), colour)
    });
    let capacity = 1.0 / compared.service_time.as_secs_f64().max(1e-9);
    SmallMultiples {
        name: "loads",
        title: format!("Load of each server: {}", compared.scenario.name),
        subtitle: format!(
            "packets a second, in windows of {:?}; behind each name its imbalance",
            compared.window
        ),
        x_label: "s",
        legend: legend.collect(),
        panels: panels.collect(),
        level: Some((capacity, "what a server can do".into())),
    }
    .draw()
}

fn imbalance_figure(compared: &Compared) -> Figure {
    let servers = servers(compared) as f64;
    let end = compared.scenario.shape.duration.as_secs_f64().max(1e-3);
    let lines = compared.results.iter().map(|(policy, result)| Line {
        label: policy.name().into(),
        colour: policy_colour(*policy),
        stroke: match policy {
            ComparedPolicy::EstimatedReports => Stroke::Dashed,
            _ => Stroke::Solid,
        },
        points: thinned(&result.windows)
            .iter()
            .map(|window| {
                let one = std::slice::from_ref(*window);
                (
                    window.start.as_secs_f64(),
                    imbalance(one, |server| server.packets),
                )
            })
            .collect(),
    });
    let step = (servers - 1.0).max(1.0) / 4.0;
    LineChart {
        name: "imbalance",
        title: format!("Imbalance over time: {}", compared.scenario.name),
        subtitle: format!(
            "packets of the most loaded server over the mean, in windows of {:?}",
            compared.window
        ),
        x: Axis::linear("s", (0..=4).map(|tick| end * f64::from(tick) / 4.0), |s| {
            format!("{s:.1}")
        }),
        y: Axis::linear(
            "imbalance",
            (0..=4).map(|tick| 1.0 + step * f64::from(tick)),
            |y| format!("{y:.2}"),
        ),
        lines: lines.collect(),
        marks: vec![],
    }
    .draw()
}

fn policy_colour(policy: ComparedPolicy) -> RGBColor {
    match policy {
        ComparedPolicy::FixedIp => GREY,
        ComparedPolicy::RoundRobin => ORANGE,
        ComparedPolicy::LeastLoaded => SKY,
        ComparedPolicy::Estimated => VERMILLION,
        ComparedPolicy::EstimatedReports => BLACK,
        ComparedPolicy::ConsistentHash => GREEN,
    }
}

fn section(compared: &Compared, folder: &str, figures: &[(Figure, &str)]) -> Section {
    let file = |name: &str, extension: &str| format!("{folder}/{name}.{extension}");
    Section {
        // The page keeps ids for as long as the program runs; there are as many as scenarios.
        id: Box::leak(folder.to_owned().into_boxed_str()),
        title: compared.scenario.name.clone(),
        content: html! {
            p { strong { (verdict(compared)) } }
            @if compared.scenario.is_partial {
                p { "Parts of this trace are missing: see what the command said." }
            }
            @for (figure, caption) in figures {
                figure {
                    div.drawing role="img" aria-label=(caption) { (PreEscaped(figure.svg())) }
                    figcaption {
                        (caption) " (" a href=(file(figure.name, "svg")) { "SVG" } ", "
                        a href=(file(figure.name, "png")) { "PNG" } ")"
                    }
                }
            }
            (folded("Numbers of these figures", &html! {
                p {
                    a href=(file("loads", "csv")) { "loads.csv" } " · "
                    a href=(file("imbalance", "csv")) { "imbalance.csv" }
                }
            }))
        },
    }
}

fn servers(compared: &Compared) -> usize {
    let first = compared.results.first();
    let window = first.and_then(|(_, result)| result.windows.first());
    window.map_or(0, |window| window.servers.len())
}

/// Every so many-th window, so that lines can be drawn; the tables have all.
fn thinned(windows: &[Window]) -> Vec<&Window> {
    let step = windows.len().div_ceil(POINTS_MAX).max(1);
    windows.iter().step_by(step).collect()
}

/// Names that are good for folders, and different.
fn folder_names(compared: &[Compared]) -> Vec<String> {
    let mut taken = HashSet::new();
    let name = |compared: &Compared| {
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c.to_ascii_lowercase()
            } else {
                '_'
            }
        };
        let stem: String = compared.scenario.name.chars().map(plain).take(60).collect();
        let mut name = stem.clone();
        let mut number = 1;
        while !taken.insert(name.clone()) {
            number += 1;
            name = format!("{stem}-{number}");
        }
        name
    };
    compared.iter().map(name).collect()
}
