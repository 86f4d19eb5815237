//! The commands, one file each.
//!
//! To add one: a module with an `Args` struct (`clap::Args`) and a function `run` that takes it, a
//! variant of [`Command`], and a line in [`run`].

mod agent;
mod analyze;
pub(crate) mod balance;
mod bench;
pub(crate) mod collect;
pub(crate) mod decode;
mod demo;
mod dispatch;
mod encode;
mod evaluate;
mod info;
pub(crate) mod net_decode;
mod p4;
mod plan;
mod query;
mod simulate;
mod switch;
mod top;

use clap::{Parser, Subcommand};

use crate::outcome::{CommandError, Completeness};

/// Flow monitoring that sees every flow, from a few megabytes of switch memory.
#[derive(Debug, Parser)]
#[command(
    name = "flowradar",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    after_help = "\
Examples:
  flowradar demo                                see it all work in a few seconds
  flowradar encode trace.pcap --out flowsets    encode a packet trace as a switch would
  flowradar decode flowsets                     every flow of it, with exact counters
  flowradar info flowsets                       what the flowsets are made of
  flowradar simulate fat-tree --k 4 --cells-per-flow 0.7 --out net
                                                a network whose switches are short of memory
  flowradar net-decode net                      its flows, from all switches together
  flowradar analyze net                         what they say: losses, loops, load, attacks
  flowradar plan --flows 100000                 memory and bandwidth that so many flows take
  flowradar collect & flowradar agent fat-tree --epochs 30 & flowradar top
                                                a collector, switches that report to it, and a look at it
  flowradar dispatch run trace.pcap --servers 3 --out parts
                                                a capture spread over three analysis servers
  flowradar evaluate --out evaluation --quick   the paper's evaluation, done again

Exit codes: 0 the result is complete, 3 it is partial (and what is missing is said), 2 wrong usage,
1 other errors."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

// In the order of --help: as a newcomer comes to need them.
#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    Encode(encode::EncodeArgs),
    Decode(decode::DecodeArgs),
    NetDecode(net_decode::NetDecodeArgs),
    Info(info::InfoArgs),
    Analyze(analyze::AnalyzeArgs),
    Plan(plan::PlanArgs),
    Simulate(simulate::SimulateArgs),
    Collect(collect::CollectArgs),
    Agent(agent::AgentArgs),
    Top(top::TopArgs),
    Query(query::QueryArgs),
    P4(p4::P4Args),
    Switch(switch::SwitchArgs),
    Balance(balance::BalanceArgs),
    Dispatch(dispatch::DispatchArgs),
    Bench(bench::BenchArgs),
    Evaluate(evaluate::EvaluateArgs),
}

/// Runs the command that the arguments name.
pub(crate) fn run(cli: Cli) -> Result<Completeness, CommandError> {
    match cli.command {
        Command::Demo(args) => demo::run(&args),
        Command::Encode(args) => encode::run(&args),
        Command::Decode(args) => decode::run(&args),
        Command::NetDecode(args) => net_decode::run(&args),
        Command::Info(args) => info::run(&args),
        Command::Analyze(args) => analyze::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Collect(args) => collect::run(&args),
        Command::Agent(args) => agent::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Query(args) => query::run(&args),
        Command::P4(args) => p4::run(&args),
        Command::Switch(args) => switch::run(&args),
        Command::Balance(args) => balance::run(&args),
        Command::Dispatch(args) => dispatch::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
    }
}
