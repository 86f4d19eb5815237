//! What must outlive the segments: which flowsets were taken, and the switches.

use std::collections::{BTreeMap, VecDeque};

use flowradar_core::flowset::SwitchName;
use prost::Message;

use super::record::{Record, RecordError, ReportSource, malformed, switch_name};

/// Files of the drop folder that are remembered. At most one batch can be journaled and not yet moved
/// away when the process dies.
const FILES_REMEMBERED: usize = 1024;

/// The switches, and how far each one's reports were taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    switches: BTreeMap<SwitchName, SwitchState>,
    /// Name and digest of files taken from the drop folder, oldest first.
    files: VecDeque<(String, u64)>,
    /// The latest epoch that was closed and had a time: its number, and when it began.
    closed: Option<(u64, u64)>,
}

/// What is known of a switch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SwitchState {
    /// The agent's spool.
    pub spool: u64,
    /// Number of the last flowset taken from it.
    pub sequence: u64,
    /// The agent's description of the switch.
    pub description: String,
    /// Where its ports lead.
    pub links: Vec<Link>,
}

/// A port of a switch, and what it leads to.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Link {
    /// Number of the port.
    pub port: u32,
    /// Name of the switch or host at the other end.
    pub neighbor: String,
    /// Number of the port there.
    pub neighbor_port: u32,
}

impl State {
    /// The switches, by name.
    pub fn switches(&self) -> &BTreeMap<SwitchName, SwitchState> {
        &self.switches
    }

    /// Number up to which flowsets of a spool were taken.
    pub fn durable_sequence(&self, switch: &SwitchName, spool: u64) -> u64 {
        self.switches
            .get(switch)
            .filter(|state| state.spool == spool)
            .map_or(0, |state| state.sequence)
    }

    /// The latest epoch that was closed and had a time: its number, and when it began.
    pub fn closed(&self) -> Option<(u64, u64)> {
        self.closed
    }

    /// Whether this file of the drop folder was taken.
    pub fn file_taken(&self, name: &str, digest: u64) -> bool {
        self.files
            .iter()
            .any(|(taken, with)| taken == name && *with == digest)
    }

    /// Takes note of a record.
    pub fn apply(&mut self, record: &Record<'_>) {
        match record {
            Record::State(state) => self.clone_from(state),
            Record::Report(report) => self.take(&report.switch, &report.source),
            Record::NotTaken { switch, source, .. } => self.take(switch, source),
            Record::Closed(closed) => {
                let later = self
                    .closed
                    .is_none_or(|(_, start_ns)| start_ns < closed.start_ns);
                if closed.start_ns != 0 && later {
                    self.closed = Some((closed.epoch, closed.start_ns));
                }
            }
            Record::Registered {
                switch,
                registration,
            } => {
                let state = self.switches.entry(switch.clone()).or_default();
                // A spool that is known goes on where it was.
                if state.spool == registration.spool {
                    let sequence = state.sequence.max(registration.sequence);
                    state.clone_from(registration);
                    state.sequence = sequence;
                } else {
                    state.clone_from(registration);
                }
            }
        }
    }

    fn take(&mut self, switch: &SwitchName, source: &ReportSource) {
        match source {
            ReportSource::Agent { spool, sequence } => {
                let state = self.switches.entry(switch.clone()).or_default();
                if state.spool != *spool {
                    state.spool = *spool;
                    state.sequence = 0;
                }
                state.sequence = state.sequence.max(*sequence);
            }
            ReportSource::File { name, digest } => {
                if self.files.len() == FILES_REMEMBERED {
                    self.files.pop_front();
                }
                self.files.push_back((name.clone(), *digest));
            }
        }
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, RecordError> {
        let message = StateMessage::decode(bytes).map_err(malformed)?;
        let switches = message
            .switches
            .into_iter()
            .map(SwitchMessage::switch)
            .collect::<Result<_, _>>()?;
        let files = message.files.into_iter();
        Ok(Self {
            switches,
            files: files
                .map(|file| (file.name, file.digest))
                .take(FILES_REMEMBERED)
                .collect(),
            closed: (message.closed_start_ns != 0)
                .then_some((message.closed_epoch, message.closed_start_ns)),
        })
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let (closed_epoch, closed_start_ns) = self.closed.unwrap_or_default();
        let message = StateMessage {
            closed_epoch,
            closed_start_ns,
            switches: self
                .switches
                .iter()
                .map(|(name, state)| SwitchMessage::new(name, state))
                .collect(),
            files: self
                .files
                .iter()
                .map(|(name, digest)| FileMessage {
                    name: name.clone(),
                    digest: *digest,
                })
                .collect(),
        };
        message.encode_to_vec()
    }

    pub(super) fn read_switch(bytes: &[u8]) -> Result<(SwitchName, SwitchState), RecordError> {
        SwitchMessage::decode(bytes).map_err(malformed)?.switch()
    }

    pub(super) fn write_switch(name: &SwitchName, state: &SwitchState) -> Vec<u8> {
        SwitchMessage::new(name, state).encode_to_vec()
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct StateMessage {
    #[prost(message, repeated, tag = "1")]
    switches: Vec<SwitchMessage>,
    #[prost(message, repeated, tag = "2")]
    files: Vec<FileMessage>,
    #[prost(uint64, tag = "3")]
    closed_epoch: u64,
    #[prost(uint64, tag = "4")]
    closed_start_ns: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FileMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    digest: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SwitchMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    spool: u64,
    #[prost(uint64, tag = "3")]
    sequence: u64,
    #[prost(string, tag = "4")]
    description: String,
    #[prost(message, repeated, tag = "5")]
    links: Vec<LinkMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LinkMessage {
    #[prost(uint32, tag = "1")]
    port: u32,
    #[prost(string, tag = "2")]
    neighbor: String,
    #[prost(uint32, tag = "3")]
    neighbor_port: u32,
}

impl SwitchMessage {
    fn new(name: &SwitchName, state: &SwitchState) -> Self {
        Self {
            name: name.to_string(),
            spool: state.spool,
            sequence: state.sequence,
            description: state.description.clone(),
            links: state
                .links
                .iter()
                .map(|link| LinkMessage {
                    port: link.port,
                    neighbor: link.neighbor.clone(),
                    neighbor_port: link.neighbor_port,
                })
                .collect(),
        }
    }

    fn switch(self) -> Result<(SwitchName, SwitchState), RecordError> {
        let links = self.links.into_iter().map(|link| Link {
            port: link.port,
            neighbor: link.neighbor,
            neighbor_port: link.neighbor_port,
        });
        let state = SwitchState {
            spool: self.spool,
            sequence: self.sequence,
            description: self.description,
            links: links.collect(),
        };
        Ok((switch_name(&self.name)?, state))
    }
}
