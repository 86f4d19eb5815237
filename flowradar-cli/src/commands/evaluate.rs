//! `evaluate`: FlowRadar's evaluation (NSDI 2016), done again.

use std::path::PathBuf;

use clap::ValueEnum;
use serde::Serialize;

use crate::evaluate::{self, Settings, Topic};
use crate::outcome::{CommandError, Completeness};
use crate::output::{print_json, print_text};
use crate::result_table::ResultTable;

/// Do the paper's evaluation again: tables, figures, and a page that compares them with the paper
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Topics:
  memory     memory of a switch for a number of flows, beside exact tables
  decode     how often, and how fast, one switch alone decodes
  network    what the switches of a fat tree decode together, for less and less memory
  bandwidth  what sending the reports takes of a network's capacity
  loss       whether and when lost packets are found, and on which link

Writes to the folder DIR: report.html (open it in a browser), each table as CSV, each figure as SVG
and PNG. The same seed gives the same tables, but for those with times.

Examples:
  flowradar evaluate --out evaluation
  flowradar evaluate network loss --out evaluation --quick
  flowradar evaluate memory --out evaluation --json")]
pub(crate) struct EvaluateArgs {
    /// What to evaluate [default: everything]
    #[arg(value_enum, value_name = "TOPIC")]
    topics: Vec<TopicArgument>,

    /// Folder for the page, the tables and the figures
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Smaller networks and fewer trials: seconds instead of minutes
    #[arg(long)]
    quick: bool,

    /// Other traffic and hash functions for another number
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,

    /// Print the tables as a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TopicArgument {
    Memory,
    Decode,
    Network,
    Bandwidth,
    Loss,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct EvaluateReport<'a> {
    folder: String,
    quick: bool,
    seed: u64,
    tables: Vec<&'a ResultTable>,
}

/// Runs the command.
pub(crate) fn run(args: &EvaluateArgs) -> Result<Completeness, CommandError> {
    let topics: Vec<Topic> = if args.topics.is_empty() {
        Topic::ALL.into()
    } else {
        // In the order of the report, each once.
        let wanted = |topic: &Topic| args.topics.iter().any(|wanted| wanted.topic() == *topic);
        Topic::ALL.into_iter().filter(wanted).collect()
    };
    let settings = Settings {
        quick: args.quick,
        seed: args.seed,
    };
    let chapters = evaluate::run(&topics, &settings, &args.out)?;
    if args.json {
        print_json(&EvaluateReport {
            folder: args.out.display().to_string(),
            quick: args.quick,
            seed: args.seed,
            tables: chapters
                .iter()
                .flat_map(|chapter| &chapter.tables)
                .collect(),
        })?;
    } else {
        print_text(&evaluate::text(&chapters, &args.out))?;
    }
    Ok(Completeness::Complete)
}

impl TopicArgument {
    fn topic(self) -> Topic {
        match self {
            Self::Memory => Topic::Memory,
            Self::Decode => Topic::Decode,
            Self::Network => Topic::Network,
            Self::Bandwidth => Topic::Bandwidth,
            Self::Loss => Topic::Loss,
        }
    }
}
