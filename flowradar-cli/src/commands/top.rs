//! `top`: a collector in the terminal.

use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph, Row, Table};
use ratatui::{DefaultTerminal, Frame};
use serde_json::Value;

use crate::outcome::{CommandError, Completeness};
use crate::output;
use crate::text::{grouped, short_size};

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Flows and events shown.
const ROWS: usize = 50;

/// Watch a collector: switches, flows, losses, events
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Keys: q or Esc to end.

Examples:
  flowradar top
  flowradar top --api http://127.0.0.1:4780 --interval 500ms
  flowradar top --once | head                   what it shows now, as text")]
pub(crate) struct TopArgs {
    /// The collector's API
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4780")]
    api: String,

    /// How often to look
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "1s")]
    interval: Duration,

    /// Flows of the last so long
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "10s")]
    window: Duration,

    /// Print what there is now, and end
    #[arg(long)]
    once: bool,

    /// With --once: as JSON
    #[arg(long, requires = "once")]
    json: bool,
}

/// What is shown.
#[derive(Debug, Default, PartialEq)]
struct View {
    header: Vec<String>,
    switches: Vec<Vec<String>>,
    flows: Vec<Vec<String>>,
    losses: Vec<Vec<String>>,
    events: Vec<(String, String)>,
}

/// Titles of the columns.
const SWITCHES: [&str; 5] = ["switch", "", "epoch", "flows", "packets"];
const FLOWS: [&str; 4] = ["flow", "packets", "bytes", "records"];
const LOSSES: [&str; 3] = ["link", "lost", "of"];

/// Runs the command.
pub(crate) fn run(args: &TopArgs) -> Result<Completeness, CommandError> {
    let api = Api::new(args);
    let answers = api.answers(args.window)?;
    if args.once {
        if args.json {
            output::print_json(&answers)?;
        } else {
            output::print_text(&view(&answers).text())?;
        }
        return Ok(Completeness::Complete);
    }
    let failed = |error: std::io::Error| CommandError::Failed(format!("the terminal: {error}"));
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let outcome = watch(&mut terminal, args, &api, view(&answers));
    ratatui::restore();
    outcome.map_err(failed)?;
    Ok(Completeness::Complete)
}

fn watch(
    terminal: &mut DefaultTerminal,
    args: &TopArgs,
    api: &Api,
    mut shown: View,
) -> std::io::Result<()> {
    let mut trouble = None;
    loop {
        terminal.draw(|frame| draw(frame, &shown, trouble.as_deref()))?;
        if event::poll(args.interval)? {
            if let Event::Key(key) = event::read()?
                && key.kind == KeyEventKind::Press
                && matches!(key.code, KeyCode::Char('q' | 'c') | KeyCode::Esc)
            {
                return Ok(());
            }
            continue;
        }
        match api.answers(args.window) {
            Ok(answers) => (shown, trouble) = (view(&answers), None),
            Err(error) => trouble = Some(error.to_string()),
        }
    }
}

/// The collector's API.
struct Api {
    agent: ureq::Agent,
    url: String,
}

impl Api {
    fn new(args: &TopArgs) -> Self {
        let config = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT));
        Self {
            agent: config.build().into(),
            url: args.api.trim_end_matches('/').to_owned(),
        }
    }

    /// All that is shown, as the API answers it.
    fn answers(&self, window: Duration) -> Result<Value, CommandError> {
        let window = humantime::format_duration(window)
            .to_string()
            .replace(' ', "");
        Ok(serde_json::json!({
            "status": self.get("/api/v1/status")?,
            "switches": self.get("/api/v1/switches")?,
            "flows": self.get(&format!(
                "/api/v1/flows/top?from=-{window}&group_by=src,dst,src_port,dst_port,protocol&n={ROWS}"
            ))?,
            "analyses": self.get("/api/v1/analyses")?,
            "events": self.get("/api/v1/events")?,
        }))
    }

    fn get(&self, path: &str) -> Result<Value, CommandError> {
        let failed = |error: ureq::Error| {
            CommandError::Failed(format!(
                "no collector answers at {}: {error}. Is \"flowradar collect\" running?",
                self.url
            ))
        };
        let mut answer = self
            .agent
            .get(format!("{}{path}", self.url))
            .call()
            .map_err(failed)?;
        let text = answer.body_mut().read_to_string().map_err(failed)?;
        serde_json::from_str(&text).map_err(|error| {
            CommandError::Failed(format!("{}{path} is no collector's: {error}", self.url))
        })
    }
}

/// What is shown of the API's answers. What they lack is left out.
fn view(answers: &Value) -> View {
    let status = &answers["status"];
    let last = &status["last_epoch"];
    let epoch = |name: &str| number(&last[name]);
    let header = vec![
        format!(
            "epoch {}: {} switches, {} flow records: {} exact, {} joint, {} unresolved{}",
            epoch("epoch"),
            last["switches"].as_array().map_or(0, Vec::len),
            epoch("records"),
            epoch("exact"),
            epoch("joint"),
            epoch("unresolved"),
            if last["complete"].as_bool() == Some(false) {
                ", incomplete"
            } else {
                ""
            },
        ),
        format!(
            "lag {:.3} s; {} of {} switches connected; {} events open; journal {}; {} rows stored in {}",
            status["lag_seconds"].as_f64().unwrap_or(0.0),
            number(&status["switches_connected"]),
            number(&status["switches"]),
            number(&status["open_events"]),
            size(&status["journal_bytes"]),
            number(&status["store"]["rows"]),
            size(&status["store"]["bytes"]),
        ),
    ];
    let in_epoch = |name: &Value| items(&last["switches"]).find(move |of| of["switch"] == *name);
    let switches = items(&answers["switches"]).map(|switch| {
        let found = in_epoch(&switch["switch"]);
        let of = |name: &str| found.map_or(String::new(), |found| number(&found[name]));
        let state = match (switch["connected"].as_bool(), found) {
            (_, Some(found)) if found["complete"].as_bool() == Some(false) => "incomplete",
            (Some(true), _) => "connected",
            _ => "",
        };
        vec![
            word(&switch["switch"]),
            state.to_owned(),
            number(&switch["last_epoch"]),
            of("flows"),
            of("packets"),
        ]
    });
    let flows = items(&answers["flows"]["rows"]).map(|row| {
        let group = &row["group"];
        vec![
            format!(
                "{}:{} > {}:{} proto {}",
                word(&group["src"]),
                word(&group["src_port"]),
                word(&group["dst"]),
                word(&group["dst_port"]),
                word(&group["protocol"])
            ),
            number(&row["packets"]),
            number(&row["bytes"]),
            number(&row["records"]),
        ]
    });
    let links = items(&answers["analyses"]["losses"]["links"]);
    let losses = links.filter_map(|link| {
        let lost = link["lost"]
            .as_u64()
            .or_else(|| link["lost"]["least"].as_u64())?;
        (lost > 0).then(|| {
            vec![
                format!("{} > {}", word(&link["from"]), word(&link["to"])),
                grouped(lost),
                number(&link["packets"]),
            ]
        })
    });
    let events: Vec<_> = items(&answers["events"]).collect();
    let events = events.into_iter().rev().take(ROWS);
    View {
        header,
        switches: switches.collect(),
        flows: flows.collect(),
        losses: losses.collect(),
        events: events
            .map(|event| (word(&event["severity"]), word(&event["message"])))
            .collect(),
    }
}

impl View {
    fn text(&self) -> String {
        let mut text = self.header.join("\n");
        let tables: [(&[&str], &Vec<Vec<String>>); 3] = [
            (&SWITCHES, &self.switches),
            (&FLOWS, &self.flows),
            (&LOSSES, &self.losses),
        ];
        for (titles, rows) in tables {
            text += "\n\n";
            text += &titles.join("\t");
            for row in rows {
                text += "\n";
                text += &row.join("\t");
            }
        }
        text += "\n\nevents";
        for (severity, message) in &self.events {
            text += &format!("\n{severity}\t{message}");
        }
        text + "\n"
    }
}

fn draw(frame: &mut Frame<'_>, view: &View, trouble: Option<&str>) {
    let [header, middle, events] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Fill(2),
        Constraint::Fill(1),
    ])
    .areas(frame.area());
    let [left, right] =
        Layout::horizontal([Constraint::Percentage(45), Constraint::Percentage(55)]).areas(middle);
    let [flows, losses] = Layout::vertical([Constraint::Fill(2), Constraint::Fill(1)]).areas(right);
    let mut lines: Vec<Line<'_>> = view
        .header
        .iter()
        .map(|line| Line::raw(line.as_str()))
        .collect();
    if let Some(trouble) = trouble {
        lines.push(Line::styled(trouble, Style::new().fg(Color::Red)));
    }
    frame.render_widget(Paragraph::new(lines), header);
    let widths = |first: u16, rest: usize| {
        let mut widths = vec![Constraint::Min(first)];
        widths.resize(rest + 1, Constraint::Length(9));
        widths
    };
    table(
        frame,
        left,
        "switches",
        &SWITCHES,
        &view.switches,
        widths(12, 4),
    );
    table(
        frame,
        flows,
        "top flows",
        &FLOWS,
        &view.flows,
        widths(30, 3),
    );
    table(
        frame,
        losses,
        "losses",
        &LOSSES,
        &view.losses,
        widths(20, 2),
    );
    let lines: Vec<Line<'_>> = view
        .events
        .iter()
        .map(|(severity, message)| {
            let colour = match severity.as_str() {
                "critical" => Color::Red,
                "warning" => Color::Yellow,
                _ => Color::Reset,
            };
            Line::styled(format!("{severity:9} {message}"), Style::new().fg(colour))
        })
        .collect();
    let block = Block::bordered().title("events, newest first");
    frame.render_widget(Paragraph::new(lines).block(block), events);
}

fn table(
    frame: &mut Frame<'_>,
    area: Rect,
    title: &str,
    titles: &[&str],
    rows: &[Vec<String>],
    widths: Vec<Constraint>,
) {
    let header = Row::new(titles.iter().copied()).style(Style::new().add_modifier(Modifier::BOLD));
    let rows = rows
        .iter()
        .map(|row| Row::new(row.iter().map(String::as_str)));
    let table = Table::new(rows, widths)
        .header(header)
        .block(Block::bordered().title(title));
    frame.render_widget(table, area);
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// A number that fits its column: whole up to ten millions, then in millions or more.
fn number(value: &Value) -> String {
    let Some(value) = value.as_u64() else {
        return String::new();
    };
    match value {
        0..10_000_000 => grouped(value),
        10_000_000..100_000_000_000 => format!("{:.1} M", value as f64 / 1e6),
        _ => format!("{:.1} T", value as f64 / 1e12),
    }
}

fn size(value: &Value) -> String {
    value.as_u64().map_or(String::new(), short_size)
}

/// A text without quotes, or anything else as it is written; nothing for null. Control characters, which
/// could move the cursor, are left out.
fn word(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn answers() -> Value {
        serde_json::json!({
            "status": {
                "last_epoch": {"epoch": 7, "records": 12000, "exact": 11999, "joint": 1, "unresolved": 0,
                    "complete": true, "switches": [{"switch": "leaf-1", "flows": 600, "packets": 5000, "complete": true}]},
                "lag_seconds": 0.012, "switches": 2, "switches_connected": 1, "open_events": 1,
                "journal_bytes": 1000000, "store": {"rows": 5, "bytes": 10}
            },
            "switches": [
                {"switch": "leaf-1", "connected": true, "last_epoch": 7},
                {"switch": "leaf-2", "connected": false, "last_epoch": null}
            ],
            "flows": {"rows": [{"group": {"src": "10.0.0.1", "dst": "10.0.0.2", "src_port": 9, "dst_port": 443,
                "protocol": 6}, "packets": 77, "bytes": 0, "records": 5}]},
            "analyses": {"losses": {"links": [
                {"from": "leaf-1", "to": "spine-1", "lost": 3, "packets": 100},
                {"from": "leaf-2", "to": "spine-1", "lost": 0, "packets": 100}
            ]}},
            "events": [{"severity": "warning", "message": "packets lost\u{1b}[2J"}]
        })
    }

    #[test]
    fn all_parts_are_shown() {
        let view = view(&answers());
        let mut terminal = Terminal::new(TestBackend::new(120, 40)).expect("a terminal");
        terminal
            .draw(|frame| draw(frame, &view, Some("no collector")))
            .expect("it draws");
        let shown = terminal.backend().to_string();
        for part in [
            "epoch 7: 1 switches, 12,000 flow records: 11,999 exact, 1 joint, 0 unresolved",
            "lag 0.012 s; 1 of 2 switches connected",
            "connected",
            "10.0.0.1:9 > 10.0.0.2:443 proto 6",
            "leaf-1 > spine-1",
            "packets lost[2J",
            "no collector",
        ] {
            assert!(shown.contains(part), "{part:?} is not in\n{shown}");
        }
        assert!(!shown.contains("leaf-2 > spine-1"));
        assert!(view.text().contains("warning\tpackets lost[2J"));
    }

    #[test]
    fn answers_of_something_else_show_nothing() {
        let view = view(&Value::Null);
        assert!(view.switches.is_empty() && view.events.is_empty());
    }
}
