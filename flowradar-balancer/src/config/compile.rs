//! From a configuration to what the engine and the senders need.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::{
    CollectorGroupConfig, Config, ConfigError, LoadBound, PolicyName, ProbeConfig, SourceAddress,
    names, unique,
};
use crate::engine::{
    AssignmentUnit, CopyPlan, EnginePlan, GroupPlan, Limits, RoutePlan, WaitingSettings,
};
use crate::policy::estimate::EstimatorSettings;
use crate::policy::{BackEndId, BackEndSettings, BalancerSettings, Policy};
use crate::stream::{StateLimits, StreamKeyPolicy};

/// What a configuration means.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled {
    /// For the engine.
    pub plan: EnginePlan,
    /// For the senders.
    pub destinations: Vec<DestinationPlan>,
}

/// Whoever is sent something.
#[derive(Clone, Debug, PartialEq)]
pub struct DestinationPlan {
    /// Its id in the plan.
    pub id: BackEndId,
    /// Its name.
    pub name: String,
    /// Collector or receiver of copies.
    pub kind: DestinationKind,
    /// Where it listens.
    pub address: SocketAddr,
    /// From which address it sees exports.
    pub source: SourceAddress,
    /// How it is watched.
    pub probe: ProbeConfig,
    /// Its queue.
    pub queue_bytes: usize,
}

/// What a destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DestinationKind {
    /// A collector of groups.
    Collector,
    /// A receiver of copies.
    Copy,
}

/// Ids of destinations, which stay the same when the configuration changes.
///
/// A destination whose address changes is another one.
#[derive(Clone, Debug, Default)]
pub struct DestinationIds {
    known: BTreeMap<(String, SocketAddr), BackEndId>,
    next: u16,
}

impl DestinationIds {
    fn id(&mut self, name: &str, address: SocketAddr) -> Result<BackEndId, ConfigError> {
        let key = (name.to_owned(), address);
        if let Some(id) = self.known.get(&key) {
            return Ok(*id);
        }
        let id = BackEndId(self.next);
        self.next = self.next.checked_add(1).ok_or_else(|| ConfigError::Value {
            place: format!("collector \"{name}\""),
            reason: "65,535 collectors were added since the start: restart the balancer".to_owned(),
        })?;
        self.known.insert(key, id);
        Ok(id)
    }
}

impl Config {
    /// Checks the configuration as a whole.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, with its place and what to do.
    pub fn compile(&self, ids: &mut DestinationIds) -> Result<Compiled, ConfigError> {
        if self.listen.addresses.is_empty() {
            return Err(ConfigError::NoAddress);
        }
        unique(
            "collector",
            self.collectors.iter().map(|collector| &collector.name),
        )?;
        unique(
            "collector_group",
            self.collector_groups.iter().map(|group| &group.name),
        )?;
        unique(
            "router_group",
            self.router_groups.iter().map(|group| &group.name),
        )?;
        unique("copy", self.copies.iter().map(|copy| &copy.name))?;
        let any_group = self
            .router_groups
            .iter()
            .any(|group| group.collectors.is_some());
        if !any_group && self.copies.is_empty() {
            return Err(ConfigError::NothingToDo);
        }
        self.check_numbers()?;
        let mut destinations = Vec::new();
        for collector in &self.collectors {
            destinations.push(DestinationPlan {
                id: ids.id(&collector.name, collector.address)?,
                name: collector.name.clone(),
                kind: DestinationKind::Collector,
                address: collector.address,
                source: collector.source,
                probe: collector.probe.clone(),
                queue_bytes: self.limits.queue_bytes,
            });
        }
        let mut groups = Vec::new();
        for group in &self.collector_groups {
            groups.push(self.group(group, &destinations)?);
        }
        let mut routes = Vec::new();
        for router_group in &self.router_groups {
            let place = || format!("router_group \"{}\"", router_group.name);
            let find = |name: &String| {
                let group = groups
                    .iter()
                    .position(|group: &GroupPlan| group.name == *name);
                group.ok_or_else(|| ConfigError::Unknown {
                    place: place(),
                    kind: "collector_group",
                    name: name.clone(),
                    known: names(self.collector_groups.iter().map(|group| &group.name)),
                })
            };
            if router_group.prefixes.is_empty() {
                return Err(value(place(), "give prefixes, such as [\"10.0.0.0/8\"]"));
            }
            routes.push(RoutePlan {
                name: router_group.name.clone(),
                prefixes: router_group.prefixes.clone(),
                group: router_group.collectors.as_ref().map(find).transpose()?,
            });
        }
        let mut copies = Vec::new();
        for copy in &self.copies {
            let id = ids.id(&format!("copy {}", copy.name), copy.address)?;
            let mut prefixes = copy.exporters.clone();
            for name in &copy.router_groups {
                let group = self.router_groups.iter().find(|group| group.name == *name);
                let group = group.ok_or_else(|| ConfigError::Unknown {
                    place: format!("copy \"{}\"", copy.name),
                    kind: "router_group",
                    name: name.clone(),
                    known: names(self.router_groups.iter().map(|group| &group.name)),
                })?;
                prefixes.extend(&group.prefixes);
            }
            destinations.push(DestinationPlan {
                id,
                name: copy.name.clone(),
                kind: DestinationKind::Copy,
                address: copy.address,
                source: copy.source,
                probe: ProbeConfig::None,
                queue_bytes: self.limits.queue_bytes,
            });
            copies.push(CopyPlan {
                name: copy.name.clone(),
                destination: id,
                prefixes,
                protocols: copy.protocols.clone(),
                one_in: copy.one_in,
            });
        }
        let keeps_source = destinations
            .iter()
            .filter(|plan| plan.source == SourceAddress::Exporter);
        let keeps_source = keeps_source.map(|plan| plan.id).collect();
        Ok(Compiled {
            plan: EnginePlan {
                keeps_source,
                ..self.plan(groups, routes, copies)
            },
            destinations,
        })
    }

    fn plan(
        &self,
        groups: Vec<GroupPlan>,
        routes: Vec<RoutePlan>,
        copies: Vec<CopyPlan>,
    ) -> EnginePlan {
        let limits = &self.limits;
        EnginePlan {
            stream_key: StreamKeyPolicy {
                source_port: self.streams.source_port,
            },
            limits: Limits {
                exporters: limits.exporters,
                streams_per_exporter: limits.streams_per_exporter,
                streams: limits.streams,
                state: StateLimits {
                    templates: limits.templates_per_stream,
                    options_records: limits.options_per_stream,
                },
                state_bytes: limits.state_bytes,
                established_after_messages: 4,
                idle: Duration::from_secs(limits.idle_seconds),
            },
            waiting: WaitingSettings {
                at_most: Duration::from_secs(self.streams.wait_seconds),
                bytes: limits.waiting_bytes,
                bytes_per_stream: limits.waiting_bytes_per_stream,
            },
            refresh: Duration::from_secs(self.streams.refresh_seconds),
            ipfix_counts_options: self.streams.ipfix_counts_options,
            message_bytes: self.streams.message_bytes,
            replay: Duration::from_millis(self.streams.replay_ms),
            replay_bytes: limits.replay_bytes,
            groups,
            routes,
            copies,
            keeps_source: Vec::new(),
        }
    }

    fn group(
        &self,
        group: &CollectorGroupConfig,
        destinations: &[DestinationPlan],
    ) -> Result<GroupPlan, ConfigError> {
        let place = || format!("collector_group \"{}\"", group.name);
        let id_of = |name: &String| {
            let found = destinations
                .iter()
                .find(|destination| destination.name == *name);
            let found = found.map(|destination| destination.id);
            found.ok_or_else(|| ConfigError::Unknown {
                place: place(),
                kind: "collector",
                name: name.clone(),
                known: names(self.collectors.iter().map(|collector| &collector.name)),
            })
        };
        if group.collectors.is_empty() {
            return Err(value(
                place(),
                "has no collectors: add some, or remove the group",
            ));
        }
        unique("a group's collectors", group.collectors.iter())?;
        let mut members = Vec::new();
        for name in &group.collectors {
            let id = id_of(name)?;
            let collector = self
                .collectors
                .iter()
                .find(|collector| collector.name == *name);
            let (weight, capacity) = collector.map_or((1.0, None), |collector| {
                (collector.weight, collector.records_per_second)
            });
            members.push(BackEndSettings {
                id,
                name: name.clone(),
                weight,
                capacity_per_second: capacity,
            });
        }
        if group.unit == AssignmentUnit::Record && group.policy != PolicyName::Rendezvous {
            return Err(value(
                place(),
                "unit \"record\" keeps each flow at one collector by its hash: set policy = \"rendezvous\", or another unit",
            ));
        }
        if group.policy != PolicyName::Fixed && !group.fixed.is_empty() {
            return Err(value(
                place(),
                "has prefixes under fixed: set policy = \"fixed\"",
            ));
        }
        let policy = match group.policy {
            PolicyName::Fixed => {
                let mut routes: Vec<(IpNet, Vec<BackEndId>)> = Vec::new();
                for fixed in &group.fixed {
                    let stranger = (fixed.collectors.iter())
                        .find(|name| !group.collectors.contains(name) && id_of(name).is_ok());
                    if let Some(name) = stranger {
                        return Err(ConfigError::Value {
                            place: place(),
                            reason: format!(
                                "fixed {} names \"{name}\", which is not in the group: add it to collectors",
                                fixed.prefix
                            ),
                        });
                    }
                    let ids: Result<Vec<BackEndId>, ConfigError> =
                        fixed.collectors.iter().map(id_of).collect();
                    routes.push((fixed.prefix, ids?));
                }
                Policy::Fixed { routes }
            }
            PolicyName::RoundRobin => Policy::RoundRobin,
            PolicyName::Rendezvous => Policy::Rendezvous {
                load_bound: match group.load_bound {
                    LoadBound::Switch(false) => None,
                    LoadBound::Switch(true) => Some(0.25),
                    LoadBound::Excess(excess) if excess > 0.0 => Some(excess),
                    LoadBound::Excess(_) => {
                        return Err(value(place(), "load_bound must be above 0, or false"));
                    }
                },
            },
            PolicyName::LeastLoaded => Policy::LeastLoaded,
            PolicyName::EstimatedLoad => Policy::EstimatedLoad {
                horizon: Duration::from_millis(group.horizon_ms),
            },
        };
        Ok(GroupPlan {
            name: group.name.clone(),
            balancer: BalancerSettings {
                policy,
                estimator: EstimatorSettings {
                    rate_time_constant: Duration::from_millis(group.rate_time_constant_ms),
                    idle_after: Duration::from_millis(group.idle_after_ms),
                    ..EstimatorSettings::default()
                },
                recovery_ramp: Duration::from_secs(group.ramp_seconds),
                ..BalancerSettings::default()
            },
            unit: group.unit,
            members,
        })
    }

    fn check_numbers(&self) -> Result<(), ConfigError> {
        let health = &self.health;
        if health.interval_ms < 10 || health.timeout_ms == 0 || health.fall == 0 || health.rise == 0
        {
            return Err(value(
                "health",
                "interval_ms must be at least 10, timeout_ms, fall and rise at least 1",
            ));
        }
        if !(512..=65_000).contains(&self.streams.message_bytes) {
            return Err(value("streams", "message_bytes must be 512 to 65000"));
        }
        if self.streams.state_save_seconds == 0 {
            return Err(value("streams", "state_save_seconds must be at least 1"));
        }
        if self.limits.exporters == 0
            || self.limits.streams == 0
            || self.limits.streams_per_exporter == 0
        {
            return Err(value("limits", "exporters and streams must be at least 1"));
        }
        if self.limits.queue_bytes < 1 << 20 {
            return Err(value("limits", "queue_bytes must be at least 1048576"));
        }
        for collector in &self.collectors {
            let place = || format!("collector \"{}\"", collector.name);
            if !(collector.weight.is_finite() && collector.weight > 0.0) {
                return Err(value(place(), "weight must be above 0"));
            }
            if collector
                .records_per_second
                .is_some_and(|rate| !(rate.is_finite() && rate > 0.0))
            {
                return Err(value(place(), "records_per_second must be above 0"));
            }
            if let ProbeConfig::Http { url, .. } = &collector.probe
                && http_target(url).is_none()
            {
                return Err(value(
                    place(),
                    "the probe's url must be http://ADDRESS:PORT/PATH",
                ));
            }
        }
        for copy in &self.copies {
            if copy.one_in == 0 {
                return Err(value(
                    format!("copy \"{}\"", copy.name),
                    "one_in must be at least 1",
                ));
            }
        }
        Ok(())
    }
}

/// Address and path of a probe's URL.
pub(crate) fn http_target(url: &str) -> Option<(SocketAddr, String)> {
    let rest = url.strip_prefix("http://")?;
    let (host, path) = rest
        .find('/')
        .map_or((rest, "/"), |slash| rest.split_at(slash));
    Some((host.parse().ok()?, path.to_owned()))
}

fn value(place: impl Into<String>, reason: &str) -> ConfigError {
    ConfigError::Value {
        place: place.into(),
        reason: reason.to_owned(),
    }
}
