//! `demo`: the main job, end to end.

use std::path::PathBuf;

use serde::Serialize;

use crate::demo;
use crate::outcome::{CommandError, Completeness};
use crate::output::{print_json, print_text};

/// See it all work in a few seconds: traffic, encoding, decoding, a collector, a check against the truth
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Simulates a data-centre network of 20 switches. First ordinary traffic, which each switch's report
decodes on its own; then a burst with lossy links, far too many flows for that, which all reports
together decode. Everything decoded is compared with what was really sent. At last the network has a
lossy link, a loop, a blackhole, a wrong entry, a skewed ECMP group, a scan and a SYN flood in it, and
agents ship its reports to a collector: what that found is printed beside what was planted. Writes a
page with pictures, the same pictures as SVG and PNG, the reports of the burst for you to decode, and
the collector's data folder.

With --p4 the network is of P4 switches: the program of p4src/v1model is loaded into 20 embedded
switches through P4Runtime, real frames go through it, two links lose some, and the epoch is read out
of the switches by packets.

Examples:
  flowradar demo
  flowradar demo --p4
  flowradar demo --out demo --seed 7

The exit code is 0 only if every flow, counter and loss came out right, and everything planted was
found.")]
pub(crate) struct DemoArgs {
    /// Folder for the page and the pictures [default: flowradar-demo in the system's folder for
    /// temporary files]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Another network traffic for another number
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,

    /// On P4 switches, embedded in this process
    #[arg(long)]
    p4: bool,

    /// Print a JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &DemoArgs) -> Result<Completeness, CommandError> {
    let folder = match &args.out {
        Some(folder) => folder.clone(),
        None => std::env::temp_dir().join("flowradar-demo"),
    };
    let everything_right = if args.p4 {
        let report = demo::p4::run(&folder, args.seed)?;
        print(&report, || report.text(), args.json)?;
        report.everything_right
    } else {
        let report = demo::run(&folder, args.seed)?;
        print(&report, || report.text(), args.json)?;
        report.everything_right
    };
    Ok(Completeness::of(everything_right))
}

fn print(
    report: &impl Serialize,
    text: impl Fn() -> String,
    json: bool,
) -> Result<(), CommandError> {
    if json {
        print_json(report)
    } else {
        print_text(&text())
    }
}
