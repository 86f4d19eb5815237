//! `analyze`: what decoded flows say about the network.

use std::path::{Path, PathBuf};
use std::{fs, io};

use flowradar_collector::analysis::{Forwarding, Network, NetworkModel};

use crate::analyze::{self, Settings};
use crate::flowset_files::Catalog;
use crate::outcome::{CommandError, Completeness};
use crate::output::{print_json, print_text, write_file};

/// Largest description of a network, or of its forwarding, in bytes.
const DESCRIPTION_BYTES_MAX: u64 = 256 << 20;

/// Find losses, loops, blackholes, wrong forwarding, uneven load and attacks in flowsets
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Decodes the flowsets of all switches, epoch by epoch, follows every flow over switches and epochs, and
tells what it found as events: what, where, from which epoch to which, with the flows that show it.
Flowsets may come from \"simulate\", \"encode\", or a P4 switch (\"p4 agent\").

Losses, loops, blackholes, wrong forwarding and load balance need to know the network: a file with
switches, hosts and links (topology.json in the folder is taken by itself). Without it there are
traffic and attacks. Flows are meant to take shortest paths, or what --intended says.
docs/analyses.md describes both files, and each analysis with its limits.

Examples:
  flowradar simulate fat-tree --k 4 --flows-per-switch 1000 --epochs 12 --planted 3 --out net
  flowradar analyze net
  flowradar analyze net --html report.html --series series.jsonl
  flowradar encode trace.pcap --epoch 1s --out flowsets && flowradar analyze flowsets --json

The exit code is 0 if every flow was found and every counter is known, otherwise 3. Events do not change
it.")]
pub(crate) struct AnalyzeArgs {
    /// Folders with flowsets (files whose name ends with .flowset), or flowsets
    #[arg(required = true, value_name = "DIR|FLOWSET")]
    flowsets: Vec<PathBuf>,

    /// The network: JSON or TOML with switches, hosts and links [default: topology.json in the
    /// folder, if there is one]
    #[arg(long, value_name = "FILE")]
    topology: Option<PathBuf>,

    /// How switches are meant to forward: TOML or JSON with routes [default: shortest paths]
    #[arg(long, value_name = "FILE")]
    intended: Option<PathBuf>,

    /// Switches stamp the epoch into packets, so that all count a packet in the same epoch: losses are
    /// known at once
    #[arg(long)]
    stamped: bool,

    /// Entries of each list that is printed
    #[arg(long, value_name = "N", default_value_t = 5)]
    top: usize,

    /// Print everything as a JSON object
    #[arg(long)]
    json: bool,

    /// Write a page with events, losses and traffic
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Write the findings of each epoch, one JSON object a line
    #[arg(long, value_name = "FILE")]
    series: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &AnalyzeArgs) -> Result<Completeness, CommandError> {
    let model = model(args)?;
    let catalog = Catalog::open(&args.flowsets)?;
    let settings = Settings {
        stamped: args.stamped,
        top: args.top,
        series: args.series.clone(),
    };
    let report = analyze::run(catalog, model, &settings)?;
    if let Some(path) = &args.html {
        write_file(path, analyze::page::html(&report).as_bytes())?;
    }
    if args.json {
        print_json(&report)?;
    } else {
        print_text(&report.text())?;
    }
    Ok(Completeness::of(report.complete))
}

fn model(args: &AnalyzeArgs) -> Result<Option<NetworkModel>, CommandError> {
    let Some(path) = topology_file(args) else {
        return match &args.intended {
            None => Ok(None),
            Some(_) => Err(CommandError::Usage(
                "--intended needs to know the network: give it by --topology".into(),
            )),
        };
    };
    let failed = |path: &Path, error: &dyn std::error::Error| {
        CommandError::Failed(format!("{}: {error}", path.display()))
    };
    let network = Network::parse(&read(&path)?).map_err(|error| failed(&path, &error))?;
    let Some(intended) = &args.intended else {
        let model = NetworkModel::shortest_paths(network);
        return model.map(Some).map_err(|error| failed(&path, &error));
    };
    let forwarding = Forwarding::parse(&read(intended)?, &network);
    let forwarding = forwarding.map_err(|error| failed(intended, &error))?;
    Ok(Some(NetworkModel::new(network, forwarding)))
}

/// The file that was named, or the one that lies with the flowsets.
fn topology_file(args: &AnalyzeArgs) -> Option<PathBuf> {
    let beside = || {
        let folders = args.flowsets.iter().map(|path| path.join("topology.json"));
        folders.into_iter().find(|path| path.is_file())
    };
    args.topology.clone().or_else(beside)
}

fn read(path: &Path) -> Result<String, CommandError> {
    let metadata = fs::metadata(path).map_err(CommandError::file("read", path))?;
    if metadata.len() > DESCRIPTION_BYTES_MAX {
        let too_large = io::Error::from(io::ErrorKind::FileTooLarge);
        return Err(CommandError::file("read", path)(too_large));
    }
    fs::read_to_string(path).map_err(CommandError::file("read", path))
}
