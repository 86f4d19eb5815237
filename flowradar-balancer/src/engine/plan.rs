//! What the engine is to do: the configuration without names of files, sockets and clocks.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::policy::{BackEndId, BackEndSettings, BalancerSettings};
use crate::stream::{StateLimits, StreamKeyPolicy};
use crate::wire::Protocol;

/// What must stay together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AssignmentUnit {
    /// All streams of an exporter go to one collector.
    Exporter,
    /// A stream goes to one collector.
    Stream,
    /// Each message goes to any collector: the stream is split.
    Message,
    /// Each flow goes to one collector, whoever reports it: messages are split.
    Record,
}

impl AssignmentUnit {
    /// Whether one stream goes to several collectors, which then see sequence numbers of their own.
    pub fn splits_streams(self) -> bool {
        matches!(self, Self::Message | Self::Record)
    }
}

/// What happens to data whose template is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitingSettings {
    /// How long it waits for the template before it is passed on without.
    pub at_most: Duration,
    /// All that waits, in bytes.
    pub bytes: usize,
    /// What waits for one stream, in bytes.
    pub bytes_per_stream: usize,
}

/// What may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Exporters known at a time.
    pub exporters: usize,
    /// Streams of one exporter.
    pub streams_per_exporter: usize,
    /// Streams of all exporters.
    pub streams: usize,
    /// Templates and options of one stream.
    pub state: StateLimits,
    /// Templates and options of all streams, in bytes.
    pub state_bytes: usize,
    /// An exporter that has sent fewer messages is the first to be forgotten when there is no room:
    /// a flood of forged sources pushes out only itself.
    pub established_after_messages: u64,
    /// An exporter silent for so long is forgotten.
    pub idle: Duration,
}

/// A group of collectors.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupPlan {
    /// Its name.
    pub name: String,
    /// The policy and its settings.
    pub balancer: BalancerSettings,
    /// What is assigned.
    pub unit: AssignmentUnit,
    /// Its collectors.
    pub members: Vec<BackEndSettings>,
}

/// A group of routers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutePlan {
    /// Its name.
    pub name: String,
    /// The exporters that belong to it; the longest prefix of all groups decides.
    pub prefixes: Vec<IpNet>,
    /// Its group of collectors, as an index; none for exporters that are only copied.
    pub group: Option<usize>,
}

/// A receiver of copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyPlan {
    /// Its name.
    pub name: String,
    /// Who receives.
    pub destination: BackEndId,
    /// Exporters that are copied; empty for all.
    pub prefixes: Vec<IpNet>,
    /// Protocols that are copied; empty for all.
    pub protocols: Vec<Protocol>,
    /// One of so many data messages is copied; templates and options always are.
    pub one_in: u32,
}

impl CopyPlan {
    /// Whether this exporter and protocol are copied.
    pub fn wants(&self, exporter: IpAddr, protocol: Protocol) -> bool {
        let exporter_wanted = self.prefixes.is_empty()
            || self
                .prefixes
                .iter()
                .any(|prefix| prefix.contains(&exporter));
        exporter_wanted && (self.protocols.is_empty() || self.protocols.contains(&protocol))
    }
}

/// What the engine is to do.
#[derive(Clone, Debug, PartialEq)]
pub struct EnginePlan {
    /// What makes a stream.
    pub stream_key: StreamKeyPolicy,
    /// What may be kept.
    pub limits: Limits,
    /// Data without template.
    pub waiting: WaitingSettings,
    /// A collector that was not given a stream's templates for so long gets them again.
    pub refresh: Duration,
    /// Whether the IPFIX sequence numbers made here count options records, as RFC 7011 says and as
    /// some collectors (nfcapd among them) do not expect.
    pub ipfix_counts_options: bool,
    /// Messages with templates are made no longer than this.
    pub message_bytes: usize,
    /// What was sent to a collector so shortly before it failed is sent to others again: each
    /// record at least once, rather than at most once. Zero for off.
    pub replay: Duration,
    /// Memory for that, in bytes.
    pub replay_bytes: usize,
    /// Groups of collectors.
    pub groups: Vec<GroupPlan>,
    /// Groups of routers.
    pub routes: Vec<RoutePlan>,
    /// Receivers of copies.
    pub copies: Vec<CopyPlan>,
    /// Destinations that see the exporters' addresses. All others see one address for all exporters:
    /// to them, streams of different exporters with the same observation domain would be one, with
    /// mixed templates and broken sequences. All but the first of these streams get another domain.
    pub keeps_source: Vec<BackEndId>,
}

impl Default for EnginePlan {
    fn default() -> Self {
        Self {
            stream_key: StreamKeyPolicy::default(),
            limits: Limits {
                exporters: 10_000,
                streams_per_exporter: 256,
                streams: 65_536,
                state: StateLimits {
                    templates: 1024,
                    options_records: 8192,
                },
                state_bytes: 256 << 20,
                established_after_messages: 4,
                idle: Duration::from_secs(6 * 3600),
            },
            waiting: WaitingSettings {
                at_most: Duration::from_secs(60),
                bytes: 64 << 20,
                bytes_per_stream: 4 << 20,
            },
            refresh: Duration::from_secs(600),
            ipfix_counts_options: true,
            message_bytes: 1400,
            replay: Duration::ZERO,
            replay_bytes: 64 << 20,
            groups: Vec::new(),
            routes: Vec::new(),
            copies: Vec::new(),
            keeps_source: Vec::new(),
        }
    }
}

impl EnginePlan {
    /// The group of routers that an exporter belongs to.
    pub fn route_of(&self, exporter: IpAddr) -> Option<usize> {
        let lengths = self.routes.iter().enumerate().flat_map(|(index, route)| {
            let matching = route
                .prefixes
                .iter()
                .filter(|prefix| prefix.contains(&exporter));
            matching.map(move |prefix| (prefix.prefix_len(), std::cmp::Reverse(index)))
        });
        lengths.max().map(|(_, std::cmp::Reverse(index))| index)
    }
}
