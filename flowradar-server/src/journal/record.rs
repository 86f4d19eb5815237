//! Records: what is appended.
//!
//! A record is its kind (one byte), the length of its description (four bytes, little-endian), the
//! description (a protobuf message of its kind) and, for a report, the flowset's bytes.

use flowradar_core::KeyKind;
use flowradar_core::flowset::{Epoch, SwitchName};
use prost::Message;

use super::state::State;

const KIND_STATE: u8 = 1;
const KIND_REPORT: u8 = 2;
const KIND_NOT_TAKEN: u8 = 3;
const KIND_REGISTERED: u8 = 4;
const KIND_CLOSED: u8 = 5;

/// Something appended.
#[derive(Clone, Debug, PartialEq)]
pub enum Record<'a> {
    /// All that is known when a segment begins.
    State(State),
    /// A flowset was reported.
    Report(Report<'a>),
    /// A number of an agent's spool was used for nothing: its flowset was rejected, or lost by the agent.
    NotTaken {
        /// The switch.
        switch: SwitchName,
        /// Where it came from.
        source: ReportSource,
        /// Why it was not taken.
        reason: String,
    },
    /// An epoch was decoded, stored and closed: its reports are needed no more.
    Closed(Closed),
    /// An agent registered a switch.
    Registered {
        /// The switch.
        switch: SwitchName,
        /// What the agent says of it.
        registration: super::SwitchState,
    },
}

/// A reported flowset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report<'a> {
    /// The switch.
    pub switch: SwitchName,
    /// Its epoch.
    pub epoch: Epoch,
    /// Kind of its keys.
    pub key: KeyKind,
    /// Where it came from.
    pub source: ReportSource,
    /// When it was received, in nanoseconds since 1970.
    pub received_ns: u64,
    /// The flowset.
    pub flowset: &'a [u8],
}

/// An epoch that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Its number.
    pub epoch: u64,
    /// When it began, in nanoseconds since 1970; 0 if unknown.
    pub start_ns: u64,
    /// Segment and offset of its reports.
    pub reports: Vec<(u64, u64)>,
}

/// Where a report came from, so that it is not taken twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReportSource {
    /// An agent's spool.
    Agent {
        /// The spool.
        spool: u64,
        /// The number in it.
        sequence: u64,
    },
    /// A file in the drop folder.
    File {
        /// Its name.
        name: String,
        /// Hash of its contents.
        digest: u64,
    },
}

/// Why bytes are no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes end too early.
    #[error("the record is cut off")]
    CutOff,
    /// The description is no protobuf message of its kind.
    #[error("the record's description is malformed: {0}")]
    Description(String),
    /// A field of the description makes no sense.
    #[error("the record's {0} is not valid")]
    Field(&'static str),
    /// A kind that this version does not know.
    #[error("a record of kind {0}: written by a newer version?")]
    Kind(u8),
    /// Bytes follow a record that has none.
    #[error("{0} bytes follow the record")]
    TrailingBytes(usize),
}

impl<'a> Record<'a> {
    /// Reads a record.
    ///
    /// # Errors
    /// If the bytes make none.
    pub fn read(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let (&kind, rest) = bytes.split_first().ok_or(RecordError::CutOff)?;
        let (length, rest) = rest.split_first_chunk().ok_or(RecordError::CutOff)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (description, contents) = rest.split_at_checked(length).ok_or(RecordError::CutOff)?;
        let record = match kind {
            KIND_REPORT => {
                return ReportDescription::decode(description)
                    .map_err(malformed)?
                    .report(contents)
                    .map(Self::Report);
            }
            KIND_STATE => Self::State(State::read(description)?),
            KIND_NOT_TAKEN => {
                let message = NotTakenDescription::decode(description).map_err(malformed)?;
                Self::NotTaken {
                    switch: switch_name(&message.switch)?,
                    source: source(
                        message.spool,
                        message.sequence,
                        message.file,
                        message.digest,
                    ),
                    reason: message.reason,
                }
            }
            KIND_CLOSED => {
                let message = ClosedDescription::decode(description).map_err(malformed)?;
                if message.segments.len() != message.offsets.len() {
                    return Err(RecordError::Field("list of reports"));
                }
                Self::Closed(Closed {
                    epoch: message.epoch,
                    start_ns: message.start_ns,
                    reports: message.segments.into_iter().zip(message.offsets).collect(),
                })
            }
            KIND_REGISTERED => {
                let (switch, registration) = State::read_switch(description)?;
                Self::Registered {
                    switch,
                    registration,
                }
            }
            kind => return Err(RecordError::Kind(kind)),
        };
        if contents.is_empty() {
            Ok(record)
        } else {
            Err(RecordError::TrailingBytes(contents.len()))
        }
    }

    /// The record's bytes.
    pub fn write(&self) -> Vec<u8> {
        match self {
            Self::State(state) => framed(KIND_STATE, &state.write(), &[]),
            Self::Report(report) => framed(
                KIND_REPORT,
                &ReportDescription::new(report).encode_to_vec(),
                report.flowset,
            ),
            Self::NotTaken {
                switch,
                source,
                reason,
            } => {
                let (spool, sequence, file, digest) = source.fields();
                let message = NotTakenDescription {
                    switch: switch.to_string(),
                    spool,
                    sequence,
                    file,
                    digest,
                    reason: reason.clone(),
                };
                framed(KIND_NOT_TAKEN, &message.encode_to_vec(), &[])
            }
            Self::Closed(closed) => {
                let (segments, offsets) = closed.reports.iter().copied().unzip();
                let message = ClosedDescription {
                    epoch: closed.epoch,
                    start_ns: closed.start_ns,
                    segments,
                    offsets,
                };
                framed(KIND_CLOSED, &message.encode_to_vec(), &[])
            }
            Self::Registered {
                switch,
                registration,
            } => framed(
                KIND_REGISTERED,
                &State::write_switch(switch, registration),
                &[],
            ),
        }
    }
}

impl ReportSource {
    fn fields(&self) -> (u64, u64, String, u64) {
        match self {
            Self::Agent { spool, sequence } => (*spool, *sequence, String::new(), 0),
            Self::File { name, digest } => (0, 0, name.clone(), *digest),
        }
    }
}

fn source(spool: u64, sequence: u64, file: String, digest: u64) -> ReportSource {
    if file.is_empty() {
        ReportSource::Agent { spool, sequence }
    } else {
        ReportSource::File { name: file, digest }
    }
}

fn framed(kind: u8, description: &[u8], contents: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(5 + description.len() + contents.len());
    bytes.push(kind);
    bytes.extend_from_slice(&(description.len() as u32).to_le_bytes());
    bytes.extend_from_slice(description);
    bytes.extend_from_slice(contents);
    bytes
}

pub(super) fn malformed(error: prost::DecodeError) -> RecordError {
    RecordError::Description(error.to_string())
}

pub(super) fn switch_name(name: &str) -> Result<SwitchName, RecordError> {
    name.parse().map_err(|_| RecordError::Field("switch name"))
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReportDescription {
    #[prost(string, tag = "1")]
    switch: String,
    #[prost(uint64, tag = "2")]
    epoch: u64,
    #[prost(uint64, tag = "3")]
    start_ns: u64,
    #[prost(uint64, tag = "4")]
    length_ns: u64,
    #[prost(uint32, tag = "5")]
    key: u32,
    #[prost(uint64, tag = "6")]
    spool: u64,
    #[prost(uint64, tag = "7")]
    sequence: u64,
    #[prost(string, tag = "8")]
    file: String,
    #[prost(uint64, tag = "9")]
    digest: u64,
    #[prost(uint64, tag = "10")]
    received_ns: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NotTakenDescription {
    #[prost(string, tag = "1")]
    switch: String,
    #[prost(uint64, tag = "2")]
    spool: u64,
    #[prost(uint64, tag = "3")]
    sequence: u64,
    #[prost(string, tag = "4")]
    file: String,
    #[prost(uint64, tag = "5")]
    digest: u64,
    #[prost(string, tag = "6")]
    reason: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ClosedDescription {
    #[prost(uint64, tag = "1")]
    epoch: u64,
    #[prost(uint64, tag = "2")]
    start_ns: u64,
    #[prost(uint64, repeated, tag = "3")]
    segments: Vec<u64>,
    #[prost(uint64, repeated, tag = "4")]
    offsets: Vec<u64>,
}

impl ReportDescription {
    fn new(report: &Report<'_>) -> Self {
        let (spool, sequence, file, digest) = report.source.fields();
        Self {
            switch: report.switch.to_string(),
            epoch: report.epoch.number,
            start_ns: report.epoch.start_ns,
            length_ns: report.epoch.length_ns,
            key: report.key as u32,
            spool,
            sequence,
            file,
            digest,
            received_ns: report.received_ns,
        }
    }

    fn report(self, flowset: &[u8]) -> Result<Report<'_>, RecordError> {
        Ok(Report {
            switch: switch_name(&self.switch)?,
            epoch: Epoch {
                number: self.epoch,
                start_ns: self.start_ns,
                length_ns: self.length_ns,
            },
            key: match self.key {
                4 => KeyKind::V4,
                6 => KeyKind::V6,
                _ => return Err(RecordError::Field("kind of key")),
            },
            source: source(self.spool, self.sequence, self.file, self.digest),
            received_ns: self.received_ns,
            flowset,
        })
    }
}
