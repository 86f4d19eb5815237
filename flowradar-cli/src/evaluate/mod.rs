//! The paper's evaluation, done again: one module for each topic, which makes a chapter of the
//! report.

mod bandwidth;
mod decode;
mod loss;
mod loss_delay;
mod memory;
mod network;

use std::fs;
use std::path::Path;
use std::time::Instant;

use maud::{Markup, html};

use crate::figures::Figure;
use crate::outcome::CommandError;
use crate::output::write_file;
use crate::page::{Page, Section, figure, folded};
use crate::progress::Progress;
use crate::result_table::ResultTable;
use crate::text::note;

/// Flows that the paper's memory figure is for.
const PAPER_FLOWS: u64 = 100_000;
/// Memory of a switch for [`PAPER_FLOWS`] flows (the authors' slides at NSDI 2016).
const PAPER_MEMORY_BYTES: u64 = 2_360_000;
/// Length of the paper's epochs, in milliseconds.
const PAPER_EPOCH_MS: f64 = 10.0;

/// Expected false positives of each switch's filter in an epoch where networks are compared: so few
/// that none is expected at all switches and in all epochs together, and the table alone decides.
const NETWORK_FALSE_POSITIVES: f64 = 2e-4;

/// What can be evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topic {
    Memory,
    Decode,
    Network,
    Bandwidth,
    Loss,
}

/// How to evaluate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Smaller networks and fewer trials.
    pub(crate) quick: bool,
    pub(crate) seed: u64,
}

/// The results of a topic.
#[derive(Clone, Debug)]
pub(crate) struct Chapter {
    id: &'static str,
    title: &'static str,
    /// What was done, and under which assumptions.
    method: Markup,
    figures: Vec<(Figure, String)>,
    pub(crate) tables: Vec<ResultTable>,
    comparisons: Vec<Comparison>,
}

/// A figure of the paper and ours.
#[derive(Clone, Debug)]
struct Comparison {
    what: String,
    paper: String,
    ours: String,
}

impl Topic {
    /// All topics, in the order of the report.
    pub(crate) const ALL: [Self; 5] = [
        Self::Memory,
        Self::Decode,
        Self::Network,
        Self::Bandwidth,
        Self::Loss,
    ];

    fn run(self, settings: &Settings) -> Result<Chapter, CommandError> {
        match self {
            Self::Memory => memory::evaluate(),
            Self::Decode => decode::evaluate(settings),
            Self::Network => network::evaluate(settings),
            Self::Bandwidth => bandwidth::evaluate(),
            Self::Loss => loss::evaluate(settings),
        }
    }
}

/// Evaluates and writes the folder.
pub(crate) fn run(
    topics: &[Topic],
    settings: &Settings,
    folder: &Path,
) -> Result<Vec<Chapter>, CommandError> {
    fs::create_dir_all(folder).map_err(CommandError::file("create", folder))?;
    let mut chapters = vec![];
    for topic in topics {
        let start = Instant::now();
        let chapter = topic.run(settings)?;
        for table in &chapter.tables {
            table.write_to(folder)?;
        }
        for (figure, _) in &chapter.figures {
            figure.write_to(folder)?;
        }
        note!("{} ({:.1} s)", chapter.title, start.elapsed().as_secs_f64());
        chapters.push(chapter);
    }
    let page = page(&chapters, settings);
    write_file(&folder.join("report.html"), page.html().as_bytes())?;
    Ok(chapters)
}

/// The comparisons in words.
pub(crate) fn text(chapters: &[Chapter], folder: &Path) -> String {
    let mut text = String::new();
    for comparison in chapters.iter().flat_map(|chapter| &chapter.comparisons) {
        text.push_str(&format!(
            "{}\n  paper: {}\n  here:  {}\n",
            comparison.what, comparison.paper, comparison.ours
        ));
    }
    text.push_str(&format!(
        "Report: {}\n",
        folder.join("report.html").display()
    ));
    text
}

/// Progress of a topic's runs.
fn progress(topic: &'static str, runs: usize) -> Progress {
    Progress::steps(topic, runs as u64)
}

fn page(chapters: &[Chapter], settings: &Settings) -> Page {
    let overview = html! {
        p {
            "FlowRadar was presented by Li, Miao, Kim and Yu at NSDI 2016. This report does their "
            "evaluation again with this implementation; the paper's figures are those that the "
            "authors showed. "
            @if settings.quick {
                "It is the quick variant: smaller networks and fewer trials than the full one."
            }
        }
        div.table {
            table {
                thead { tr { th { "" } th { "paper" } th { "here" } } }
                tbody {
                    @for comparison in chapters.iter().flat_map(|chapter| &chapter.comparisons) {
                        tr {
                            td { (comparison.what) }
                            td { (comparison.paper) }
                            td { (comparison.ours) }
                        }
                    }
                }
            }
        }
        p {
            "Seed " (settings.seed) ": the same seed gives the same tables on every machine, but for "
            "times, which were measured on this one."
        }
    };
    let section = |chapter: &Chapter| Section {
        id: chapter.id,
        title: chapter.title.into(),
        content: html! {
            (chapter.method)
            @for (drawing, caption) in &chapter.figures {
                (figure(drawing, caption))
            }
            @for table in &chapter.tables {
                (folded(&table.caption, &table.html()))
            }
        },
    };
    Page {
        title: "FlowRadar evaluated",
        introduction: overview,
        sections: chapters.iter().map(section).collect(),
    }
}

/// A number of flows as a label: `100k`.
fn short_count(count: f64) -> String {
    match count {
        count if count >= 1e6 => format!("{}M", count / 1e6),
        count if count >= 1e3 => format!("{}k", count / 1e3),
        count => format!("{count}"),
    }
}

/// A share as a label: `40 %`.
fn percent_label(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}
