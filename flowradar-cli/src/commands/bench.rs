//! `bench`: how fast this machine encodes and decodes, beside an exact hash map in the same run.

use crate::bench::{self, BenchSettings};
use crate::outcome::{CommandError, Completeness};
use crate::output::{print_json, print_text};
use crate::units;

/// Measure how fast this machine encodes and decodes, next to an exact hash map in the same run
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Encoding is measured with 100,000 flows of Zipf-like sizes, in rounds that take turns with an exact
count in a hash map of the standard library: machines differ and are noisy, so compare the ratio.
Decoding of a network is measured at two settings: in memory where one switch alone does not decode
but its equations still prove every counter, and in about half of that.

Examples:
  flowradar bench
  flowradar bench --quick --json
  flowradar bench --flows-per-switch 100000")]
pub(crate) struct BenchArgs {
    /// Flows at each of the 80 switches of the network
    #[arg(long, value_name = "N", value_parser = units::parse_count, default_value_t = 10_000)]
    flows_per_switch: u64,

    /// Fewer rounds and a smaller network
    #[arg(long)]
    quick: bool,

    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Most flows at a switch for which the network fits in the memory of a common machine.
const FLOWS_PER_SWITCH_MAX: u64 = 1_000_000;

/// Runs the command.
pub(crate) fn run(args: &BenchArgs) -> Result<Completeness, CommandError> {
    if args.flows_per_switch > FLOWS_PER_SWITCH_MAX {
        return Err(CommandError::Usage(format!(
            "--flows-per-switch {}: use {FLOWS_PER_SWITCH_MAX} at most",
            args.flows_per_switch
        )));
    }
    let report = bench::run(&BenchSettings {
        flows_per_switch: args.flows_per_switch as u32,
        quick: args.quick,
    })?;
    if args.json {
        print_json(&report)?;
    } else {
        print_text(&report.text())?;
    }
    Ok(Completeness::Complete)
}
