//! A configuration, checked and in words.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use flowradar_balancer::config::{
    Compiled, Config, DestinationIds, DestinationKind, SourceAddress,
};

use crate::outcome::{CommandError, Completeness};
use crate::output::{print_json, print_text};

/// Checks a configuration file, and prints what it means or, as JSON, with all defaults.
pub(crate) fn run_file(path: Option<&Path>, json: bool) -> Result<Completeness, CommandError> {
    let path = path.ok_or_else(|| CommandError::Usage("give the configuration file".to_owned()))?;
    let config = load(path)?;
    let compiled = compile(&config, path)?;
    if json {
        print_json(&config)?;
    } else {
        print_text(&describe(&config, &compiled))?;
    }
    Ok(Completeness::Complete)
}

/// Reads a configuration file.
pub(crate) fn load(path: &Path) -> Result<Config, CommandError> {
    let text = fs::read_to_string(path).map_err(CommandError::file("read", path))?;
    Config::parse(&text)
        .map_err(|error| CommandError::Failed(format!("{}: {error}", path.display())))
}

fn compile(config: &Config, path: &Path) -> Result<Compiled, CommandError> {
    let compiled = config.compile(&mut DestinationIds::default());
    compiled.map_err(|error| CommandError::Failed(format!("{}: {error}", path.display())))
}

fn describe(config: &Config, compiled: &Compiled) -> String {
    let mut text = String::from("The configuration is good.\n");
    let list = |items: Vec<String>| items.join(", ");
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "listens on {}",
        list(
            config
                .listen
                .addresses
                .iter()
                .map(ToString::to_string)
                .collect()
        )
    );
    for group in &config.router_groups {
        let prefixes = list(group.prefixes.iter().map(ToString::to_string).collect());
        let to = group.collectors.as_deref().unwrap_or("nobody but copies");
        let _ = writeln!(text, "routers {} ({prefixes}) -> {to}", group.name);
    }
    for group in &config.collector_groups {
        let _ = writeln!(
            text,
            "collectors {}: {:?} by {:?} over {}",
            group.name,
            group.policy,
            group.unit,
            group.collectors.join(", ")
        );
    }
    for destination in &compiled.destinations {
        let kind = match destination.kind {
            DestinationKind::Collector => "collector",
            DestinationKind::Copy => "copy",
        };
        let source = match destination.source {
            SourceAddress::Balancer => "",
            SourceAddress::Exporter => ", with the exporter's address",
        };
        let _ = writeln!(
            text,
            "{kind} {} at {}{source}",
            destination.name, destination.address
        );
    }
    let unused = config.collectors.iter().filter(|collector| {
        !config
            .collector_groups
            .iter()
            .any(|group| group.collectors.contains(&collector.name))
    });
    for collector in unused {
        let _ = writeln!(text, "note: collector {} is in no group", collector.name);
    }
    if config.api.is_none() {
        text.push_str("note: without [api] there are no metrics and no live view\n");
    }
    text
}
