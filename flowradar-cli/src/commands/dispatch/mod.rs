//! `dispatch`: flow-based load balancing of captured packets.

mod run;
mod simulate;

use crate::outcome::{CommandError, Completeness};

/// Spread captured packets over analysis servers, all packets of a flow to one
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  flowradar dispatch run trace.pcap --servers 3 --out parts
                                     one pcap file for each of three servers
  flowradar dispatch simulate trace.pcap --out compared
                                     what each policy would make of a trace: tables and pictures")]
pub(crate) struct DispatchArgs {
    #[command(subcommand)]
    command: DispatchCommand,
}

#[derive(Debug, clap::Subcommand)]
enum DispatchCommand {
    Run(run::RunArgs),
    Simulate(simulate::SimulateArgs),
}

/// Runs the command.
pub(crate) fn run(args: &DispatchArgs) -> Result<Completeness, CommandError> {
    match &args.command {
        DispatchCommand::Run(args) => run::run(args),
        DispatchCommand::Simulate(args) => simulate::run(args),
    }
}
