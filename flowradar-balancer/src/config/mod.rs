//! The configuration: one TOML file.
//!
//! [`Config::parse`] reads it, and [`Config::compile`] checks it as a whole and makes of it what the
//! engine and the senders need. `contrib/balancer.example.toml` has every section with comments;
//! `docs/balancing.md` explains them.

mod compile;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::engine::AssignmentUnit;
use crate::wire::Protocol;
#[cfg(feature = "io")]
pub(crate) use compile::http_target;
pub use compile::{Compiled, DestinationIds, DestinationKind, DestinationPlan};

/// Everything that can be configured.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where exports arrive.
    #[serde(default)]
    pub listen: ListenConfig,
    /// The HTTP interface; none without this section.
    pub api: Option<ApiConfig>,
    /// How collectors are watched.
    #[serde(default)]
    pub health: HealthConfig,
    /// Streams, templates and sequence numbers.
    #[serde(default)]
    pub streams: StreamsConfig,
    /// What may be kept.
    #[serde(default)]
    pub limits: LimitsConfig,
    /// Collectors.
    #[serde(default, rename = "collector")]
    pub collectors: Vec<CollectorConfig>,
    /// Groups of collectors.
    #[serde(default, rename = "collector_group")]
    pub collector_groups: Vec<CollectorGroupConfig>,
    /// Groups of routers.
    #[serde(default, rename = "router_group")]
    pub router_groups: Vec<RouterGroupConfig>,
    /// Copies.
    #[serde(default, rename = "copy")]
    pub copies: Vec<CopyConfig>,
}

/// Where exports arrive.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenConfig {
    /// Addresses and ports. The protocol shows in each datagram: ports do not matter.
    pub addresses: Vec<SocketAddr>,
    /// Threads that receive, each with a socket for each address; an exporter always has the same.
    /// 0 for one a processor, at most four.
    pub workers: usize,
    /// Socket buffer of each; the kernel's limit is `net.core.rmem_max`.
    pub receive_buffer_bytes: usize,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            workers: 0,
            receive_buffer_bytes: 32 << 20,
        }
    }
}

/// The HTTP interface.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ApiConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// A file whose first line is the bearer token for requests that change something. Without it
    /// there are none.
    pub token_file: Option<PathBuf>,
    /// Whether reading needs the token too, metrics included.
    #[serde(default)]
    pub token_for_reading: bool,
}

/// How collectors are watched.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct HealthConfig {
    /// Between probes.
    pub interval_ms: u64,
    /// For the answer of a probe.
    pub timeout_ms: u64,
    /// A collector is down after so many failures in a row.
    pub fall: u32,
    /// And up again after so many successes in a row.
    pub rise: u32,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            interval_ms: 250,
            timeout_ms: 200,
            fall: 3,
            rise: 4,
        }
    }
}

/// Streams, templates and sequence numbers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamsConfig {
    /// Whether two source ports of one exporter are two streams.
    pub source_port: bool,
    /// A collector gets templates and options again after this time without them.
    pub refresh_seconds: u64,
    /// Data without template waits so long before it is sent without.
    pub wait_seconds: u64,
    /// What was sent to a collector so shortly before it failed goes to others too; 0 for off.
    pub replay_ms: u64,
    /// Whether IPFIX sequence numbers made here count options records: RFC 7011 says so, nfcapd does
    /// not expect it.
    pub ipfix_counts_options: bool,
    /// Made messages are no longer than this.
    pub message_bytes: usize,
    /// A file in which templates, options and substitute domains outlive a restart; none for off.
    pub state_file: Option<PathBuf>,
    /// How often it is written; it is written at the end, too.
    pub state_save_seconds: u64,
    /// What is saved of a stream that was silent for so long is not taken any more.
    pub state_most_age_seconds: u64,
}

impl Default for StreamsConfig {
    fn default() -> Self {
        Self {
            source_port: false,
            refresh_seconds: 600,
            wait_seconds: 60,
            replay_ms: 0,
            ipfix_counts_options: true,
            message_bytes: 1400,
            state_file: None,
            state_save_seconds: 60,
            state_most_age_seconds: 3600,
        }
    }
}

/// What may be kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Exporters.
    pub exporters: usize,
    /// Streams of one exporter.
    pub streams_per_exporter: usize,
    /// Streams of all exporters.
    pub streams: usize,
    /// Templates of one stream.
    pub templates_per_stream: usize,
    /// Options records of one stream.
    pub options_per_stream: usize,
    /// Memory for templates and options.
    pub state_bytes: usize,
    /// Memory for data that waits for templates.
    pub waiting_bytes: usize,
    /// Of that, for one stream.
    pub waiting_bytes_per_stream: usize,
    /// Memory for replay.
    pub replay_bytes: usize,
    /// Queue of each collector and each receiver of copies.
    pub queue_bytes: usize,
    /// An exporter silent for so long is forgotten.
    pub idle_seconds: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            exporters: 10_000,
            streams_per_exporter: 256,
            streams: 65_536,
            templates_per_stream: 1024,
            options_per_stream: 8192,
            state_bytes: 256 << 20,
            waiting_bytes: 64 << 20,
            waiting_bytes_per_stream: 4 << 20,
            replay_bytes: 64 << 20,
            queue_bytes: 32 << 20,
            idle_seconds: 6 * 3600,
        }
    }
}

/// From which address a receiver sees what it is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceAddress {
    /// The balancer's.
    #[default]
    Balancer,
    /// The exporter's address and port, by a raw socket. Needs CAP_NET_RAW, and a network that does
    /// not filter by source.
    Exporter,
}

/// How a collector is watched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase", tag = "type", deny_unknown_fields)]
pub enum ProbeConfig {
    /// By ICMP refusals of what is sent, and of empty datagrams while nothing is.
    #[default]
    Icmp,
    /// By connecting.
    Tcp {
        /// Where; the collector's own address if not given.
        address: Option<SocketAddr>,
    },
    /// By a GET request that must be answered with 2xx.
    Http {
        /// `http://host:port/path`, the host as an address.
        url: String,
        /// A field of the JSON answer with the collector's load as a fraction of its capacity.
        load_field: Option<String>,
    },
    /// Not at all: always up.
    None,
}

/// A collector.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CollectorConfig {
    /// Its name; assignments by hash depend on it.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share in proportion to the others'.
    #[serde(default = "one")]
    pub weight: f64,
    /// What it can take; if unknown, in proportion to its weight.
    pub records_per_second: Option<f64>,
    /// From which address it sees exports.
    #[serde(default)]
    pub source: SourceAddress,
    /// How it is watched.
    #[serde(default)]
    pub probe: ProbeConfig,
}

fn one() -> f64 {
    1.0
}

/// The policies by name; see [`crate::policy::Policy`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyName {
    /// By exporter prefix.
    Fixed,
    /// In turn.
    RoundRobin,
    /// Rendezvous hash with bounded load.
    #[default]
    Rendezvous,
    /// Largest residual capacity now.
    LeastLoaded,
    /// Largest residual capacity soon.
    EstimatedLoad,
}

/// A group of collectors.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CollectorGroupConfig {
    /// Its name.
    pub name: String,
    /// Names of its collectors.
    pub collectors: Vec<String>,
    /// What stays together.
    #[serde(default = "stream")]
    pub unit: AssignmentUnit,
    /// How collectors are chosen.
    #[serde(default)]
    pub policy: PolicyName,
    /// `rendezvous`: allowed excess over the fair share, or `false` for none.
    #[serde(default)]
    pub load_bound: LoadBound,
    /// `fixed`: prefixes of exporters and their collectors, in order of preference.
    #[serde(default)]
    pub fixed: Vec<FixedConfig>,
    /// `estimated_load`: how far to look ahead.
    #[serde(default = "second")]
    pub horizon_ms: u64,
    /// Time constant of rates: K of the paper's equation 2.
    #[serde(default = "ten_seconds")]
    pub rate_time_constant_ms: u64,
    /// A unit that is silent for so long is idle.
    #[serde(default = "five_seconds")]
    pub idle_after_ms: u64,
    /// A collector that comes back or is new has its full share after this time.
    #[serde(default = "half_a_minute")]
    pub ramp_seconds: u64,
}

fn stream() -> AssignmentUnit {
    AssignmentUnit::Stream
}

fn second() -> u64 {
    1000
}

fn ten_seconds() -> u64 {
    10_000
}

fn five_seconds() -> u64 {
    5000
}

fn half_a_minute() -> u64 {
    30
}

/// A bound of load, or none.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum LoadBound {
    /// `false`: no bound; `true`: a quarter.
    Switch(bool),
    /// Allowed excess over the fair share.
    Excess(f64),
}

impl Default for LoadBound {
    fn default() -> Self {
        Self::Switch(true)
    }
}

/// Exporters with collectors of their own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FixedConfig {
    /// The exporters.
    pub prefix: IpNet,
    /// Names of collectors of the group, in order of preference.
    pub collectors: Vec<String>,
}

/// A group of routers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RouterGroupConfig {
    /// Its name.
    pub name: String,
    /// The routers' addresses.
    pub prefixes: Vec<IpNet>,
    /// Name of the group of collectors; none for routers that are only copied.
    pub collectors: Option<String>,
}

/// Copies for another collector.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CopyConfig {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// From which address it sees exports.
    #[serde(default)]
    pub source: SourceAddress,
    /// Exporters to copy; all if empty.
    #[serde(default)]
    pub exporters: Vec<IpNet>,
    /// Names of groups of routers to copy, together with `exporters`.
    #[serde(default)]
    pub router_groups: Vec<String>,
    /// Protocols to copy; all if empty.
    #[serde(default)]
    pub protocols: Vec<Protocol>,
    /// One of so many data messages; templates and options always.
    #[serde(default = "every")]
    pub one_in: u32,
}

fn every() -> u32 {
    1
}

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// Not TOML, or not these sections and keys; with line and column.
    #[error("{0}")]
    Syntax(String),
    /// Nothing to listen on.
    #[error("no address to listen on: give listen.addresses, such as [\"0.0.0.0:2055\"]")]
    NoAddress,
    /// No group of routers and no copy.
    #[error("nothing to do: give a router_group with collectors, or a copy")]
    NothingToDo,
    /// A name is used twice.
    #[error("two entries of {kind} are called \"{name}\": names must differ")]
    Duplicate {
        /// The section.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// A name refers to nothing.
    #[error("{place} names the {kind} \"{name}\", which does not exist; there are: {known}")]
    Unknown {
        /// Where it is named.
        place: String,
        /// What it should be.
        kind: &'static str,
        /// The name.
        name: String,
        /// What there is.
        known: String,
    },
    /// A value that makes no sense.
    #[error("{place}: {reason}")]
    Value {
        /// Where.
        place: String,
        /// Why.
        reason: String,
    },
}

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Syntax`]; everything else shows in [`Config::compile`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| ConfigError::Syntax(error.to_string()))
    }

    /// A configuration for a first try: one group of collectors, everything goes to it.
    pub fn simple(
        listen: Vec<SocketAddr>,
        collectors: &[SocketAddr],
        copies: &[SocketAddr],
        unit: AssignmentUnit,
        policy: PolicyName,
    ) -> Self {
        let named = |(index, address): (usize, &SocketAddr)| CollectorConfig {
            name: format!("collector-{}", index + 1),
            address: *address,
            weight: 1.0,
            records_per_second: None,
            source: SourceAddress::Balancer,
            probe: ProbeConfig::Icmp,
        };
        let collectors: Vec<CollectorConfig> = collectors.iter().enumerate().map(named).collect();
        let group = CollectorGroupConfig {
            name: "collectors".to_owned(),
            collectors: collectors
                .iter()
                .map(|collector| collector.name.clone())
                .collect(),
            unit,
            policy,
            load_bound: LoadBound::default(),
            fixed: Vec::new(),
            horizon_ms: second(),
            rate_time_constant_ms: ten_seconds(),
            idle_after_ms: five_seconds(),
            ramp_seconds: half_a_minute(),
        };
        let copies = copies
            .iter()
            .enumerate()
            .map(|(index, address)| CopyConfig {
                name: format!("copy-{}", index + 1),
                address: *address,
                source: SourceAddress::Balancer,
                exporters: Vec::new(),
                router_groups: Vec::new(),
                protocols: Vec::new(),
                one_in: 1,
            });
        let everything = [
            IpNet::V4(ipnet::Ipv4Net::default()),
            IpNet::V6(ipnet::Ipv6Net::default()),
        ];
        Self {
            listen: ListenConfig {
                addresses: listen,
                ..ListenConfig::default()
            },
            router_groups: vec![RouterGroupConfig {
                name: "routers".to_owned(),
                prefixes: everything.to_vec(),
                collectors: (!collectors.is_empty()).then(|| group.name.clone()),
            }],
            collector_groups: if collectors.is_empty() {
                Vec::new()
            } else {
                vec![group]
            },
            collectors,
            copies: copies.collect(),
            ..Self::default()
        }
    }

    /// Time between probes.
    pub fn probe_interval(&self) -> Duration {
        Duration::from_millis(self.health.interval_ms)
    }

    /// Adds a collector to groups, as the HTTP interface does.
    ///
    /// # Errors
    ///
    /// If the name is taken or a group does not exist.
    pub fn add_collector(
        &mut self,
        collector: CollectorConfig,
        groups: &[String],
    ) -> Result<(), ConfigError> {
        if self
            .collectors
            .iter()
            .any(|known| known.name == collector.name)
        {
            return Err(ConfigError::Duplicate {
                kind: "collector",
                name: collector.name,
            });
        }
        let mut changed = self.clone();
        for name in groups {
            let group = changed
                .collector_groups
                .iter_mut()
                .find(|group| group.name == *name);
            let group = group.ok_or_else(|| ConfigError::Unknown {
                place: "the request".to_owned(),
                kind: "collector_group",
                name: name.clone(),
                known: names(self.collector_groups.iter().map(|group| &group.name)),
            })?;
            group.collectors.push(collector.name.clone());
        }
        changed.collectors.push(collector);
        *self = changed;
        Ok(())
    }

    /// Removes a collector from all groups. Whether there was one.
    pub fn remove_collector(&mut self, name: &str) -> bool {
        let before = self.collectors.len();
        self.collectors.retain(|collector| collector.name != name);
        for group in &mut self.collector_groups {
            group.collectors.retain(|member| member != name);
            for fixed in &mut group.fixed {
                fixed.collectors.retain(|member| member != name);
            }
        }
        self.collectors.len() != before
    }
}

pub(crate) fn names<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.map(String::as_str).collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

/// Names that occur twice.
pub(crate) fn unique<'a>(
    kind: &'static str,
    names: impl Iterator<Item = &'a String>,
) -> Result<(), ConfigError> {
    let mut seen = BTreeMap::new();
    for name in names {
        if seen.insert(name, ()).is_some() {
            return Err(ConfigError::Duplicate {
                kind,
                name: name.clone(),
            });
        }
    }
    Ok(())
}
