//! What a run of the dispatcher came to: words, a table and a picture.

use flowradar_balancer::dispatch::simulate::{ServerWindow, imbalance};

use super::report::SERVER_COLOURS;
use super::runner::RunResult;
use crate::figures::{Axis, Figure, Line, LineChart, Stroke};
use crate::result_table::{ResultTable, Value};
use crate::text::{grouped, percent, short_size};

/// The loads in each window.
pub(crate) fn load_table(result: &RunResult) -> ResultTable {
    let mut table = ResultTable::new(
        "loads",
        "What each back end got in each window",
        ["start_s", "back_end", "frames", "bytes"],
    );
    for window in &result.windows {
        for ((name, _), server) in result.back_ends.iter().zip(&window.servers) {
            table.push([
                Value::Real(window.start.as_secs_f64(), 3),
                name.as_str().into(),
                server.packets.into(),
                server.bytes.into(),
            ]);
        }
    }
    table
}

/// Frames a second of each back end over time.
pub(crate) fn load_figure(result: &RunResult, policy: &str) -> Figure {
    let window = result.window.as_secs_f64();
    let rate = |server: &ServerWindow| server.packets as f64 / window;
    let servers = result.windows.iter().flat_map(|window| &window.servers);
    let most = nice_most(servers.map(rate).fold(1.0, f64::max));
    let end = nice_most(window * result.windows.len().max(1) as f64);
    let lines = result
        .back_ends
        .iter()
        .enumerate()
        .map(|(index, (name, _))| Line {
            label: name.clone(),
            colour: SERVER_COLOURS[index % SERVER_COLOURS.len()],
            stroke: Stroke::Solid,
            points: result
                .windows
                .iter()
                .filter_map(|window| {
                    let server = window.servers.get(index)?;
                    Some((window.start.as_secs_f64(), rate(server)))
                })
                .collect(),
        });
    let quarters = |most: f64| (0..=4).map(move |tick| most * f64::from(tick) / 4.0);
    LineChart {
        name: "loads",
        title: format!("What each back end got: {policy}"),
        subtitle: format!(
            "frames a second, in windows of {:?}; imbalance {:.3} in frames, {:.3} in bytes",
            result.window,
            imbalance(&result.windows, |server| server.packets),
            imbalance(&result.windows, |server| server.bytes),
        ),
        x: Axis::linear("s", quarters(end), |x| format!("{x}")),
        y: Axis::linear("frames a second", quarters(most), |y| grouped(y as u64)),
        lines: lines.collect(),
        marks: vec![],
    }
    .draw()
}

/// The result in lines.
pub(crate) fn text(result: &RunResult) -> String {
    let total: u64 = result
        .back_ends
        .iter()
        .map(|(_, totals)| totals.frames)
        .sum();
    let width = result.back_ends.iter().map(|(name, _)| name.len()).max();
    let width = width.unwrap_or(0).max(8);
    let mut text = format!(
        "{:<width$} {:>14} {:>7} {:>10}\n",
        "back end", "frames", "", "bytes"
    );
    for (name, totals) in &result.back_ends {
        text.push_str(&format!(
            "{name:<width$} {:>14} {:>7} {:>10}{}\n",
            grouped(totals.frames),
            percent(totals.frames, total),
            short_size(totals.bytes),
            if totals.failures > 0 {
                format!(
                    "  failed {} times, {} frames lost",
                    totals.failures,
                    grouped(totals.lost_frames)
                )
            } else {
                String::new()
            }
        ));
    }
    let counters = &result.counters;
    text.push_str(&format!(
        "{} flows; imbalance {:.3} in frames, {:.3} in bytes (1 is even); packets that left their \
         flow's back end: {}, and {} flows moved by failures\n",
        grouped(counters.flows),
        imbalance(&result.windows, |server| server.packets),
        imbalance(&result.windows, |server| server.bytes),
        grouped(counters.affinity_breaks),
        grouped(counters.flows_moved_by_failure),
    ));
    for (count, what) in remarks(result) {
        if count > 0 {
            text.push_str(&format!("{:>14} {what}\n", grouped(count)));
        }
    }
    text
}

/// What deserves a remark if it is not 0.
fn remarks(result: &RunResult) -> [(u64, &'static str); 14] {
    let (totals, counters, lost) = (&result.totals, &result.counters, &result.lost);
    [
        (
            lost.dropped,
            "frames were dropped by the kernel: the ring was full (see --ring)",
        ),
        (
            lost.unread,
            "frames were left in the ring when the capture ended",
        ),
        (
            lost.cut_off,
            "frames were longer than a block of the ring: what was captured of them was dispatched",
        ),
        (
            totals.too_long,
            "frames were longer than their back end can be sent: turn off receive offload (ethtool -K)",
        ),
        (
            lost.unsupported,
            "frames of link types that are not supported were left out",
        ),
        (totals.undeliverable, "frames could be given to no back end"),
        (
            totals.not_ip,
            "frames are not IP: they went to the first back end",
        ),
        (
            totals.malformed,
            "frames are malformed or cut off: they went to the first back end",
        ),
        (
            counters.flows_from_their_middle,
            "TCP flows were seen from their middle on: earlier packets may be elsewhere",
        ),
        (
            counters.untracked_packets,
            "packets found no room in the flow table: dispatched by hash",
        ),
        (
            counters.fragments_before_their_first,
            "fragments came before their first: dispatched by addresses",
        ),
        (
            counters.datagrams_split,
            "fragmented datagrams were split over two back ends",
        ),
        (
            counters.packets_with_ports_cut_off,
            "packets were captured without their ports: dispatched by addresses",
        ),
        (
            totals.unreadable_load_reports,
            "load reports could not be read",
        ),
    ]
}

/// The next larger number that is easy to divide by four.
fn nice_most(most: f64) -> f64 {
    let power = 10_f64.powf(most.max(1e-9).log10().floor());
    let factors = [1.0, 2.0, 4.0, 6.0, 8.0];
    let fits = factors.iter().find(|&&factor| most <= factor * power);
    fits.map_or(10.0 * power, |factor| factor * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_hold_what_they_are_for() {
        let nice = [0.9, 1.0, 1.1, 3.0, 450.0, 8100.0].map(nice_most);
        assert_eq!(nice, [1.0, 1.0, 2.0, 4.0, 600.0, 10_000.0]);
    }
}
