//! A balancer that runs until it is told to stop.

use std::time::Duration;

use flowradar_balancer::config::{ApiConfig, Config};
use flowradar_balancer::io::{Service, ServiceError, ServiceOptions, Status};
use tokio::signal::unix::{SignalKind, signal};

use super::{block_on, check, failed};
use crate::commands::balance::RunArgs;
use crate::outcome::{CommandError, Completeness};
use crate::output::print_json;
use crate::text::{counted, grouped, note};

pub(crate) fn run(args: &RunArgs) -> Result<Completeness, CommandError> {
    let config = match &args.config {
        Some(path) => check::load(path)?,
        None => simple(args)?,
    };
    let options = ServiceOptions {
        config,
        config_path: args.config.clone(),
    };
    let status = block_on(async {
        let service = Service::start(options).map_err(|error| match error {
            ServiceError::Config(error) => CommandError::Usage(error.to_string()),
            other => failed(other),
        })?;
        for warning in service.warnings() {
            note!("warning: {warning}");
        }
        let addresses: Vec<String> = service
            .addresses()
            .iter()
            .map(ToString::to_string)
            .collect();
        note!("listening on {}", addresses.join(", "));
        if let Some(address) = service.api_address() {
            note!(
                "metrics at http://{address}/metrics, live view: flowradar balance top --url http://{address}"
            );
        }
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let duration = args.duration;
        let stop = async move {
            let over = async {
                match duration {
                    Some(duration) => tokio::time::sleep(duration).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
                () = over => {}
            }
        };
        service.run(stop).await.map_err(failed)
    })?;
    if args.json {
        print_json(&status)?;
    }
    Ok(Completeness::of(report(&status)))
}

fn simple(args: &RunArgs) -> Result<Config, CommandError> {
    if args.to.is_empty() && args.copy_to.is_empty() {
        return Err(CommandError::Usage(
            "--listen needs collectors: give --to, or --copy-to".to_owned(),
        ));
    }
    let (unit, policy) = (args.unit.into(), args.policy.into());
    let mut config = Config::simple(args.listen.clone(), &args.to, &args.copy_to, unit, policy);
    if unit == flowradar_balancer::engine::AssignmentUnit::Record {
        config
            .collector_groups
            .iter_mut()
            .for_each(|group| group.policy = flowradar_balancer::config::PolicyName::Rendezvous);
    }
    config.api = args.api.map(|listen| ApiConfig {
        listen,
        token_file: None,
        token_for_reading: false,
    });
    // A first try should not wait a minute for templates that never come.
    config.streams.wait_seconds = config
        .streams
        .wait_seconds
        .min(Duration::from_secs(60).as_secs());
    Ok(config)
}

/// Says what happened; whether all that came in went out.
fn report(status: &Status) -> bool {
    let counters = &status.counters;
    note!(
        "{} with {} from {}",
        counted(counters.datagrams, "datagram"),
        counted(counters.records, "flow record"),
        counted(status.known_exporters as u64, "exporter")
    );
    let mut is_complete = true;
    for destination in &status.destinations {
        note!(
            "  {} {}: {}, {}",
            destination.name,
            destination.address,
            counted(destination.datagrams, "datagram"),
            counted(destination.records, "flow record")
        );
        let lost = destination.queue_dropped_datagrams + destination.failed + destination.refused;
        if lost > 0 {
            is_complete = false;
            note!(
                "    lost: {} refused, {} that could not be sent, {} that found its queue full",
                grouped(destination.refused),
                grouped(destination.failed),
                grouped(destination.queue_dropped_datagrams)
            );
        }
    }
    let kernel_drops: u64 = status
        .sockets
        .iter()
        .map(|socket| socket.kernel_drops)
        .sum();
    let losses = [
        (
            kernel_drops,
            "dropped by the kernel: the receive buffers were full",
        ),
        (counters.bad_headers, "of no known format"),
        (counters.bad_bodies, "with errors behind the header"),
        (
            counters.unknown_exporters,
            "from exporters in no router_group",
        ),
        (counters.no_collector, "that no collector was up for"),
        (counters.no_room, "that the tables had no room for"),
        (
            counters.sent_without_template,
            "sent on although their template never came",
        ),
    ];
    for (count, what) in losses {
        if count > 0 {
            is_complete = false;
            note!("  {} {what}", counted(count, "datagram"));
        }
    }
    if counters.upstream_lost > 0 {
        note!(
            "  {} lost before they arrived, by their sequence numbers",
            counted(counters.upstream_lost, "unit")
        );
    }
    is_complete
}
