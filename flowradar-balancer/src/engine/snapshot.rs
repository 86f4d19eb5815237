//! The engine's state for people and monitoring, as plain data.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::counters::Counters;
use super::{AssignmentUnit, Engine};
use crate::policy::{Availability, BackEndId};
use crate::time::Timestamp;
use crate::wire::Protocol;

/// Everything that an engine tells about itself.
#[derive(Clone, Debug, Default, Serialize)]
pub struct EngineSnapshot {
    /// Sums.
    pub counters: Counters,
    /// Exporters, those with the most records first, at most as many as were asked for.
    pub exporters: Vec<ExporterSnapshot>,
    /// Exporters known.
    pub known_exporters: usize,
    /// Streams known.
    pub known_streams: usize,
    /// Groups of collectors.
    pub groups: Vec<GroupSnapshot>,
    /// By destination.
    pub destinations: Vec<DestinationSnapshot>,
    /// Bytes of templates and options kept.
    pub state_bytes: usize,
    /// Bytes of data that wait for templates.
    pub waiting_bytes: usize,
    /// Bytes kept for replay.
    pub replay_bytes: usize,
}

/// An exporter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExporterSnapshot {
    /// Its address.
    pub address: IpAddr,
    /// Its group of routers.
    pub router_group: Option<String>,
    /// Messages received.
    pub messages: u64,
    /// Bytes received.
    pub bytes: u64,
    /// Flow records received.
    pub records: u64,
    /// Seconds since the last message.
    pub silent_seconds: f64,
    /// Its streams.
    pub streams: Vec<StreamSnapshot>,
}

/// A stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamSnapshot {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its observation domain.
    pub domain: u32,
    /// The observation domain that collectors see where they do not see the exporter's address and
    /// another exporter has the same; see [`super::EnginePlan::keeps_source`].
    pub substitute_domain: Option<u32>,
    /// Source port, if that is part of its identity.
    pub source_port: Option<u16>,
    /// Messages received.
    pub messages: u64,
    /// Flow records received.
    pub records: u64,
    /// Templates known.
    pub templates: usize,
    /// Options records known.
    pub options_records: usize,
    /// Datagrams that wait for a template.
    pub waiting: usize,
    /// Sequence units lost before they arrived.
    pub lost: u64,
    /// Ids of the collectors that it goes to.
    pub collectors: Vec<u16>,
    /// Of these, those that have all templates and options.
    pub collectors_up_to_date: usize,
}

/// A group of collectors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupSnapshot {
    /// Its name.
    pub name: String,
    /// What is assigned.
    pub unit: AssignmentUnit,
    /// Its collectors.
    pub members: Vec<MemberSnapshot>,
}

/// A collector as a member of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberSnapshot {
    /// Its id.
    pub id: u16,
    /// `up`, `draining` or `down`.
    pub availability: String,
    /// Records per second sent to it.
    pub records_per_second: f64,
    /// Units assigned to it.
    pub units: u64,
    /// Load over capacity.
    pub utilisation: f64,
    /// Weight, with the ramp after a recovery.
    pub weight: f64,
}

/// What was sent to a destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationSnapshot {
    /// Its id.
    pub id: u16,
    /// Messages, made templates messages left out.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Flow records in them.
    pub records: u64,
    /// Streams that go to it and have templates.
    pub streams: u64,
    /// Of these, those of which it has all templates and options.
    pub streams_up_to_date: u64,
}

impl Engine {
    /// The state now. Takes time in proportion to the number of streams.
    pub fn snapshot(&self, most_exporters: usize, now: Timestamp) -> EngineSnapshot {
        let core = &self.core;
        let mut destinations: Vec<DestinationSnapshot> = Vec::new();
        for (index, known) in core.destinations.iter().enumerate() {
            destinations.push(DestinationSnapshot {
                id: index as u16,
                messages: known.messages,
                bytes: known.bytes,
                records: known.records,
                ..DestinationSnapshot::default()
            });
        }
        for (_, stream) in &self.table.streams {
            if stream.cache.version() == 0 {
                continue;
            }
            for delivery in &stream.deliveries {
                if let Some(destination) = destinations.get_mut(usize::from(delivery.destination.0))
                {
                    destination.streams += 1;
                    let is_current = delivery.version == stream.cache.version();
                    destination.streams_up_to_date += u64::from(is_current);
                }
            }
        }
        let mut order: Vec<usize> = self
            .table
            .exporters
            .iter()
            .map(|(index, _)| index)
            .collect();
        order.sort_unstable_by_key(|index| {
            let exporter = self.table.exporters.get(*index);
            std::cmp::Reverse(exporter.map_or(0, |exporter| exporter.records))
        });
        let exporters = order
            .iter()
            .take(most_exporters)
            .filter_map(|index| self.exporter_snapshot(*index, now));
        EngineSnapshot {
            counters: core.counters.clone(),
            exporters: exporters.collect(),
            known_exporters: self.table.exporters.len(),
            known_streams: self.table.streams.len(),
            groups: self.group_snapshots(now),
            destinations,
            state_bytes: core.budget.used_bytes(),
            waiting_bytes: core.waiting_bytes,
            replay_bytes: core.replay.bytes(),
        }
    }

    /// Records per second that each destination is sent, for other engines.
    pub fn loads(&self) -> Vec<(BackEndId, f64)> {
        let mut loads = vec![0.0; self.core.destinations.len()];
        for group in &self.core.groups {
            for (id, load) in group.balancer.assigned_loads() {
                if let Some(sum) = loads.get_mut(usize::from(id.0)) {
                    *sum += load;
                }
            }
        }
        let pairs = loads.into_iter().enumerate();
        pairs
            .map(|(id, load)| (BackEndId(id as u16), load))
            .collect()
    }

    fn exporter_snapshot(&self, index: usize, now: Timestamp) -> Option<ExporterSnapshot> {
        let exporter = self.table.exporters.get(index)?;
        let streams = exporter
            .streams
            .iter()
            .filter_map(|index| self.table.streams.get(*index));
        let streams = streams.map(|stream| {
            let deliveries = &stream.deliveries;
            let is_current =
                |delivery: &&crate::stream::Delivery| delivery.version == stream.cache.version();
            StreamSnapshot {
                protocol: stream.key.protocol,
                domain: stream.key.domain,
                substitute_domain: stream.substitute_domain,
                source_port: stream.key.source_port,
                messages: stream.messages,
                records: stream.records,
                templates: stream.cache.templates(),
                options_records: stream.cache.options_records(),
                waiting: stream.waiting.len(),
                lost: stream.upstream.lost(),
                collectors: deliveries
                    .iter()
                    .map(|delivery| delivery.destination.0)
                    .collect(),
                collectors_up_to_date: deliveries.iter().filter(is_current).count(),
            }
        });
        let route = exporter
            .route
            .and_then(|route| self.core.plan.routes.get(route));
        Some(ExporterSnapshot {
            address: exporter.address,
            router_group: route.map(|route| route.name.clone()),
            messages: exporter.messages,
            bytes: exporter.bytes,
            records: exporter.records,
            silent_seconds: now.seconds_since(exporter.last_seen),
            streams: streams.collect(),
        })
    }

    fn group_snapshots(&self, now: Timestamp) -> Vec<GroupSnapshot> {
        let groups = self.core.groups.iter().map(|group| {
            let members = group
                .balancer
                .status(now)
                .into_iter()
                .map(|status| MemberSnapshot {
                    id: status.id.0,
                    availability: match status.availability {
                        Availability::Up => "up",
                        Availability::Draining => "draining",
                        Availability::Down => "down",
                    }
                    .to_owned(),
                    records_per_second: status.rate_per_second,
                    units: status.units,
                    utilisation: status.utilisation,
                    weight: status.weight,
                });
            GroupSnapshot {
                name: group.name.clone(),
                unit: group.unit,
                members: members.collect(),
            }
        });
        groups.collect()
    }
}
