//! The live view.

use std::fmt::Write;
use std::fs;
use std::time::Duration;

use flowradar_balancer::config::DestinationKind;
use flowradar_balancer::io::{DestinationStatus, ExporterStatus, Status};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph, Row, Table, TableState};
use ratatui::{DefaultTerminal, Frame};

use super::failed;
use super::http_client::Client;
use crate::commands::balance::TopArgs;
use crate::outcome::{CommandError, Completeness};
use crate::output::print_text;
use crate::text::{grouped, percent, short_size};

pub(crate) fn run(args: &TopArgs) -> Result<Completeness, CommandError> {
    let token = match &args.token_file {
        Some(path) => {
            let text = fs::read_to_string(path).map_err(CommandError::file("read", path))?;
            text.lines().next().map(|line| line.trim().to_owned())
        }
        None => None,
    };
    let client = Client::new(&args.url, token)?;
    let status = fetch(&client)?;
    if args.once {
        print_text(&as_text(&status))?;
        return Ok(Completeness::Complete);
    }
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let result = watch(&mut terminal, &client, status, args.interval);
    ratatui::restore();
    result?;
    Ok(Completeness::Complete)
}

fn fetch(client: &Client) -> Result<Status, CommandError> {
    let body = client.request("GET", "/api/v1/status")?;
    serde_json::from_str(&body)
        .map_err(|error| failed(format!("the balancer's answer makes no sense: {error}")))
}

fn watch(
    terminal: &mut DefaultTerminal,
    client: &Client,
    mut status: Status,
    interval: Duration,
) -> Result<(), CommandError> {
    let mut cursor = TableState::default().with_selected(0);
    let mut message = String::new();
    loop {
        terminal
            .draw(|frame| draw(frame, &status, &mut cursor, &message))
            .map_err(failed)?;
        if event::poll(interval).map_err(failed)? {
            let Event::Key(key) = event::read().map_err(failed)? else {
                continue;
            };
            match action(key) {
                Action::End => return Ok(()),
                Action::Up => cursor.select_previous(),
                Action::Down => cursor.select_next(),
                Action::Drain => message = drain(client, &status, cursor.selected()),
                Action::Nothing => {}
            }
            continue;
        }
        match fetch(client) {
            Ok(new) => {
                status = new;
                message.clear();
            }
            // The view stays, with a word that it is old.
            Err(error) => message = error.to_string(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    End,
    Up,
    Down,
    Drain,
    Nothing,
}

fn action(key: KeyEvent) -> Action {
    if key.kind == KeyEventKind::Release {
        return Action::Nothing;
    }
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => Action::End,
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Action::End,
        KeyCode::Up | KeyCode::Char('k') => Action::Up,
        KeyCode::Down | KeyCode::Char('j') => Action::Down,
        KeyCode::Char('d') => Action::Drain,
        _ => Action::Nothing,
    }
}

fn drain(client: &Client, status: &Status, selected: Option<usize>) -> String {
    let Some(destination) = selected.and_then(|index| status.destinations.get(index)) else {
        return "no collector under the cursor".to_owned();
    };
    let order = if destination.state == "draining" {
        "undrain"
    } else {
        "drain"
    };
    match client.request(
        "POST",
        &format!("/api/v1/collectors/{}/{order}", destination.name),
    ) {
        Ok(_) => format!("{order} {}", destination.name),
        Err(error) => error.to_string(),
    }
}

const COLLECTOR_COLUMNS: [&str; 10] = [
    "collector",
    "address",
    "state",
    "records/s",
    "util",
    "queue",
    "lost",
    "streams",
    "templates",
    "records",
];
const EXPORTER_COLUMNS: [&str; 8] = [
    "exporter",
    "group",
    "records/s",
    "messages",
    "lost upstream",
    "templates",
    "waiting",
    "goes to",
];

fn draw(frame: &mut Frame<'_>, status: &Status, cursor: &mut TableState, message: &str) {
    let collectors = status.destinations.len() as u16 + 3;
    let areas = Layout::vertical([
        Constraint::Length(3),
        Constraint::Length(collectors.min(frame.area().height / 3).max(4)),
        Constraint::Min(5),
        Constraint::Length(8),
        Constraint::Length(1),
    ]);
    let [summary, destinations, exporters, events, foot] = areas.areas(frame.area());
    let lines: Vec<Line<'_>> = summary_lines(status).into_iter().map(Line::from).collect();
    frame.render_widget(Paragraph::new(lines), summary);

    let bold = Style::new().add_modifier(Modifier::BOLD);
    let rows = status.destinations.iter().map(|destination| {
        let colour = match destination.state.as_str() {
            "up" => Color::Green,
            "draining" => Color::Yellow,
            _ => Color::Red,
        };
        Row::new(collector_cells(destination)).style(Style::new().fg(colour))
    });
    let widths = [18, 22, 9, 12, 7, 10, 10, 8, 10, 14].map(Constraint::Length);
    let table = Table::new(rows, widths)
        .header(Row::new(COLLECTOR_COLUMNS).style(bold))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .block(Block::bordered().title(" collectors and copies "));
    frame.render_stateful_widget(table, destinations, cursor);

    let rows = status
        .exporters
        .iter()
        .map(|exporter| Row::new(exporter_cells(exporter)));
    let widths = [
        Constraint::Length(24),
        Constraint::Length(14),
        Constraint::Length(12),
        Constraint::Length(14),
        Constraint::Length(14),
        Constraint::Length(10),
        Constraint::Length(8),
        Constraint::Min(10),
    ];
    let table = Table::new(rows, widths)
        .header(Row::new(EXPORTER_COLUMNS).style(bold))
        .block(Block::bordered().title(format!(
            " exporters ({}) ",
            grouped(status.known_exporters as u64)
        )));
    frame.render_widget(table, exporters);

    let lines: Vec<Line<'_>> = status
        .events
        .iter()
        .rev()
        .take(6)
        .map(|event| Line::from(event_line(event)))
        .collect();
    frame.render_widget(
        Paragraph::new(lines).block(Block::bordered().title(" events, latest first ")),
        events,
    );
    let foot_text = if message.is_empty() {
        "q end   arrows move   d drain or undrain"
    } else {
        message
    };
    frame.render_widget(Paragraph::new(foot_text), foot);
}

fn summary_lines(status: &Status) -> Vec<String> {
    let counters = &status.counters;
    let kernel_drops: u64 = status
        .sockets
        .iter()
        .map(|socket| socket.kernel_drops)
        .sum();
    vec![
        format!(
            "flowradar balance {}   up {}   {} records/s   {} datagrams/s   {} records in all",
            status.version,
            humantime::format_duration(Duration::from_secs(status.uptime_seconds as u64)),
            grouped(status.records_per_second as u64),
            grouped(status.datagrams_per_second as u64),
            grouped(counters.records)
        ),
        format!(
            "kernel drops {}   malformed {}   unknown exporters {}   no collector {}   no room {}",
            grouped(kernel_drops),
            grouped(counters.bad_headers + counters.bad_bodies),
            grouped(counters.unknown_exporters),
            grouped(counters.no_collector),
            grouped(counters.no_room)
        ),
        format!(
            "templates and options {}   waiting {}   moves {}   lost upstream {}",
            short_size(status.state_bytes as u64),
            short_size(status.waiting_bytes as u64),
            grouped(counters.moves),
            grouped(counters.upstream_lost)
        ),
    ]
}

fn collector_cells(destination: &DestinationStatus) -> Vec<String> {
    let name = match destination.kind {
        DestinationKind::Collector => destination.name.clone(),
        DestinationKind::Copy => format!("{} (copy)", destination.name),
    };
    let lost = destination.queue_dropped_datagrams + destination.failed + destination.refused;
    vec![
        name,
        destination.address.to_string(),
        destination.state.clone(),
        grouped(destination.records_per_second as u64),
        format!("{:.0} %", destination.utilisation * 100.0),
        percent(
            destination.queue_bytes as u64,
            destination.queue_limit_bytes as u64,
        ),
        grouped(lost),
        grouped(destination.streams),
        percent(destination.streams_up_to_date, destination.streams),
        grouped(destination.records),
    ]
}

fn exporter_cells(exporter: &ExporterStatus) -> Vec<String> {
    let streams = &exporter.streams;
    vec![
        exporter.address.to_string(),
        exporter.router_group.clone().unwrap_or_default(),
        grouped(exporter.records_per_second as u64),
        grouped(exporter.messages),
        grouped(exporter.lost),
        grouped(streams.iter().map(|stream| stream.templates as u64).sum()),
        grouped(streams.iter().map(|stream| stream.waiting as u64).sum()),
        exporter.collectors.join(", "),
    ]
}

fn event_line(event: &flowradar_balancer::io::Event) -> String {
    let time = std::time::UNIX_EPOCH + Duration::from_secs(event.unix_seconds);
    format!("{} {}", humantime::format_rfc3339_seconds(time), event.text)
}

/// One screen without a terminal.
fn as_text(status: &Status) -> String {
    let mut text = summary_lines(status).join("\n");
    let table = |text: &mut String, columns: &[&str], rows: Vec<Vec<String>>| {
        let mut widths: Vec<usize> = columns.iter().map(|column| column.len()).collect();
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let head: Vec<String> = columns.iter().map(ToString::to_string).collect();
        for row in std::iter::once(&head).chain(&rows) {
            let cells = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"));
            let line = cells.collect::<Vec<String>>().join("  ");
            // Writing to a string does not fail.
            let _ = writeln!(text, "{}", line.trim_end());
        }
    };
    text.push_str("\n\n");
    table(
        &mut text,
        &COLLECTOR_COLUMNS,
        status.destinations.iter().map(collector_cells).collect(),
    );
    text.push('\n');
    table(
        &mut text,
        &EXPORTER_COLUMNS,
        status.exporters.iter().map(exporter_cells).collect(),
    );
    text.push('\n');
    for event in &status.events {
        let _ = writeln!(text, "{}", event_line(event));
    }
    text
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn status() -> Status {
        let json = r#"{
            "version": "1", "uptime_seconds": 61.5, "workers": 1, "sockets": [],
            "counters": {"records": 1234567}, "records_per_second": 1000.0, "datagrams_per_second": 40.0,
            "exporters": [{"address": "192.0.2.1", "router_group": "edge", "messages": 7, "bytes": 9000,
                "records": 210, "records_per_second": 30.0, "silent_seconds": 0.5, "lost": 3,
                "collectors": ["a", "b"], "streams": []}],
            "known_exporters": 1, "known_streams": 1, "groups": [],
            "destinations": [{"id": 0, "name": "a", "address": "198.51.100.1:2055", "kind": "collector",
                "state": "down", "datagrams": 5, "bytes": 7000, "records": 150, "records_per_second": 0.0,
                "utilisation": 0.25, "queue_bytes": 0, "queue_limit_bytes": 100,
                "queue_dropped_datagrams": 1, "queue_dropped_records": 30, "refused": 2, "failed": 0,
                "not_spoofed": 0, "reported_load": null, "streams": 2, "streams_up_to_date": 1}],
            "state_bytes": 2000, "waiting_bytes": 0, "replay_bytes": 0,
            "events": [{"unix_seconds": 0, "text": "collector a is down"}]
        }"#;
        serde_json::from_str(json).expect("a status")
    }

    #[test]
    fn the_view_shows_collectors_exporters_and_events() {
        let mut terminal = Terminal::new(TestBackend::new(130, 30)).expect("a terminal in memory");
        let mut cursor = TableState::default().with_selected(0);
        terminal
            .draw(|frame| draw(frame, &status(), &mut cursor, ""))
            .expect("drawn");
        let screen = terminal.backend().to_string();
        for text in [
            "1,234,567",
            "198.51.100.1:2055",
            "down",
            "50.0 %",
            "192.0.2.1",
            "a, b",
            "collector a is down",
        ] {
            assert!(screen.contains(text), "{text} is missing:\n{screen}");
        }
    }

    #[test]
    fn the_view_fits_small_terminals() {
        for (width, height) in [(1, 1), (20, 5), (80, 12)] {
            let mut terminal =
                Terminal::new(TestBackend::new(width, height)).expect("a terminal in memory");
            terminal
                .draw(|frame| draw(frame, &status(), &mut TableState::default(), ""))
                .expect("drawn");
        }
    }

    #[test]
    fn text_has_the_same() {
        let text = as_text(&status());
        for part in [
            "1,234,567",
            "198.51.100.1:2055",
            "a, b",
            "1970-01-01T00:00:00Z collector a is down",
        ] {
            assert!(text.contains(part), "{part} is missing:\n{text}");
        }
    }
}
