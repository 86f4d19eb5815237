//! Switches, their program and their tables, in a file.
//!
//! A topology file is TOML:
//!
//! ```toml
//! [program]
//! json = "switch.json"
//! p4info = "switch.p4info.txtpb"
//! header = "flowradar_config.p4"
//!
//! [epoch]
//! length = "1s"
//!
//! [[switch]]
//! name = "s1"
//! address = "127.0.0.1:9559"
//!
//! [[switch.entry]]
//! table = "ipv4_routes"
//! match = { dst = "10.0.1.0/24" }
//! action = "forward"
//! arguments = { port = 1 }
//! ```
//!
//! Without `[program]` it is the reference program of this project ([`Program::reference`]), without
//! `[epoch]` epochs are a second long. Paths are relative to the file. Everything that can be checked without a switch is checked when the
//! file is read; names of tables and actions when a switch's entities are made
//! ([`SwitchSpec::entities`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flowradar_core::flowset::SwitchName;
use serde::Deserialize;
use thiserror::Error;

use crate::entity::{
    ActionCall, ActionProfileGroup, ActionProfileMember, CloneSession, Entity, EntityError,
    GroupMember, Match, MatchTextError, MulticastGroup, Replica, TableAction, TableEntry,
};
use crate::epoch::{EpochClock, EpochLengthError};
use crate::p4info::LookupError;
#[cfg(doc)]
use crate::program::Program;
use crate::{Bytestring, BytestringError, P4Info};

/// Larger files are refused.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// How long epochs are if nothing else is said.
pub const EPOCH_LENGTH: Duration = Duration::from_secs(1);

/// What a topology file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    /// The compiled program; none is the reference program.
    pub program: Option<ProgramFiles>,
    /// How long epochs are, where a switch does not say otherwise.
    pub epoch: EpochClock,
    /// The switches, in the order of the file.
    pub switches: Vec<SwitchSpec>,
}

/// Where a program is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramFiles {
    /// What the target runs.
    pub json: PathBuf,
    /// P4Info in text format.
    pub p4info: PathBuf,
    /// The generated header that it was compiled with.
    pub header: PathBuf,
}

/// A switch.
#[derive(Clone, Debug, PartialEq)]
pub struct SwitchSpec {
    /// Unique in the file.
    pub name: SwitchName,
    /// `host:port`.
    pub address: String,
    /// What the switch calls itself.
    pub device_id: u64,
    /// How long its epochs are.
    pub epoch: EpochClock,
    /// How long an answer may take, if not as long as usual.
    pub request_timeout: Option<Duration>,
    /// Files for TLS, if it is used.
    pub tls: Option<TlsFiles>,
    entries: Vec<EntrySpec>,
    members: Vec<MemberSpec>,
    groups: Vec<GroupSpec>,
    multicasts: Vec<MulticastSpec>,
    clones: Vec<CloneSpec>,
}

/// Files for TLS, all PEM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Who may have signed the switch's certificate.
    pub ca: PathBuf,
    /// The name in the switch's certificate, if it is not that of the address.
    #[serde(default)]
    pub server_name: Option<String>,
    /// Our own certificate.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// The key of our own certificate.
    #[serde(default)]
    pub key: Option<PathBuf>,
}

/// Why a topology file cannot be used.
#[derive(Debug, Error)]
pub enum TopologyError {
    /// Two switches have one name, or one address and device.
    #[error("switch {name}: its name, or its address and device, is that of another switch")]
    Duplicate {
        /// The later one.
        name: SwitchName,
    },
    /// An epoch of no length.
    #[error(transparent)]
    Epoch(#[from] EpochLengthError),
    /// No switches.
    #[error("the file names no switch: add a [[switch]] with name and address")]
    NoSwitches,
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Not TOML, or not of the form that topology files have.
    #[error("{reason}")]
    Syntax {
        /// The parser's words, with line and column.
        reason: String,
    },
    /// The file is larger than any topology.
    #[error("{} has more than {FILE_BYTES_MAX} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

/// Why a switch's tables cannot be made of what the file says.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("switch {switch}, {place}: {reason}")]
pub struct EntitySpecError {
    /// The switch.
    pub switch: SwitchName,
    /// Which entry, by its place in the file.
    pub place: String,
    /// What is wrong.
    pub reason: EntitySpecErrorReason,
}

/// What is wrong with an entry of a topology file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EntitySpecErrorReason {
    /// Not exactly one of action, member and group.
    #[error("give one of action, member and group")]
    Action,
    /// It contradicts the program.
    #[error(transparent)]
    Entity(#[from] EntityError),
    /// A match that cannot be read.
    #[error(transparent)]
    Match(#[from] MatchTextError),
    /// A table, action or field that the program does not have.
    #[error(transparent)]
    Name(#[from] LookupError),
    /// A number or address that cannot be read.
    #[error(transparent)]
    Value(#[from] BytestringError),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TopologyFile {
    #[serde(default)]
    program: Option<ProgramSection>,
    #[serde(default)]
    epoch: EpochSection,
    #[serde(default)]
    switch: Vec<SwitchSection>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProgramSection {
    json: PathBuf,
    p4info: PathBuf,
    header: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EpochSection {
    length: DurationText,
}

impl Default for EpochSection {
    fn default() -> Self {
        Self {
            length: DurationText(EPOCH_LENGTH),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SwitchSection {
    name: NameText,
    address: String,
    #[serde(default = "first_device")]
    device_id: u64,
    #[serde(default)]
    epoch: Option<DurationText>,
    #[serde(default)]
    request_timeout: Option<DurationText>,
    #[serde(default)]
    tls: Option<TlsFiles>,
    #[serde(default)]
    entry: Vec<EntrySpec>,
    #[serde(default)]
    member: Vec<MemberSpec>,
    #[serde(default)]
    group: Vec<GroupSpec>,
    #[serde(default)]
    multicast: Vec<MulticastSpec>,
    #[serde(default)]
    clone: Vec<CloneSpec>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntrySpec {
    table: String,
    /// None: what the table does if nothing matches.
    #[serde(default)]
    default: bool,
    #[serde(default, rename = "match")]
    fields: BTreeMap<String, NumberText>,
    #[serde(default)]
    priority: i32,
    #[serde(default)]
    action: Option<String>,
    #[serde(default)]
    arguments: BTreeMap<String, NumberText>,
    #[serde(default)]
    member: Option<u32>,
    #[serde(default)]
    group: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberSpec {
    profile: String,
    member: u32,
    action: String,
    #[serde(default)]
    arguments: BTreeMap<String, NumberText>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupSpec {
    profile: String,
    group: u32,
    members: Vec<u32>,
    #[serde(default)]
    max_size: u32,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct MulticastSpec {
    group: u32,
    ports: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct CloneSpec {
    session: u32,
    ports: Vec<u32>,
}

/// A number, address, prefix or range: TOML's own integers, or text.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum NumberText {
    Number(u64),
    Text(String),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
struct NameText(SwitchName);

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
struct DurationText(Duration);

impl Topology {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or as for [`Self::parse`].
    pub fn read(path: &Path) -> Result<Self, TopologyError> {
        let read_error = |source| TopologyError::Read {
            path: path.into(),
            source,
        };
        let file = fs::File::open(path).map_err(read_error)?;
        let mut text = String::new();
        let mut limited = file.take(FILE_BYTES_MAX + 1);
        limited.read_to_string(&mut text).map_err(read_error)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(TopologyError::TooLarge { path: path.into() });
        }
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        Self::parse(&text, folder).map_err(|error| match error {
            TopologyError::Syntax { reason } => TopologyError::Syntax {
                reason: format!("{}: {reason}", path.display()),
            },
            other => other,
        })
    }

    /// Reads text; paths in it are relative to `folder`.
    ///
    /// # Errors
    ///
    /// If it is not TOML of the form that topology files have, names no switch or one twice.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, TopologyError> {
        let file: TopologyFile = toml::from_str(text).map_err(|error| TopologyError::Syntax {
            reason: error.to_string(),
        })?;
        let epoch = EpochClock::new(file.epoch.length.0)?;
        let switches = file.switch.into_iter();
        let switches = switches.map(|section| section.into_spec(epoch, folder));
        let topology = Self {
            program: file.program.map(|program| ProgramFiles {
                json: folder.join(program.json),
                p4info: folder.join(program.p4info),
                header: folder.join(program.header),
            }),
            epoch,
            switches: switches.collect::<Result<_, _>>()?,
        };
        topology.check()?;
        Ok(topology)
    }
}

impl Topology {
    /// Switches without tables that run the reference program.
    ///
    /// # Errors
    ///
    /// If there is none, or two have one name or one address.
    pub fn of_switches(
        epoch: EpochClock,
        switches: Vec<SwitchSpec>,
    ) -> Result<Self, TopologyError> {
        let topology = Self {
            program: None,
            epoch,
            switches,
        };
        topology.check()?;
        Ok(topology)
    }

    fn check(&self) -> Result<(), TopologyError> {
        if self.switches.is_empty() {
            return Err(TopologyError::NoSwitches);
        }
        let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for switch in &self.switches {
            let is_new = names.insert(&switch.name);
            if !is_new || !addresses.insert((&switch.address, switch.device_id)) {
                return Err(TopologyError::Duplicate {
                    name: switch.name.clone(),
                });
            }
        }
        Ok(())
    }
}

impl SwitchSpec {
    /// A switch without tables.
    pub fn new(name: SwitchName, address: impl Into<String>, epoch: EpochClock) -> Self {
        Self {
            name,
            address: address.into(),
            device_id: first_device(),
            epoch,
            request_timeout: None,
            tls: None,
            entries: Vec::new(),
            members: Vec::new(),
            groups: Vec::new(),
            multicasts: Vec::new(),
            clones: Vec::new(),
        }
    }

    /// What the switch's tables shall hold, in an order in which it can be written: members before groups
    /// before entries.
    ///
    /// # Errors
    ///
    /// If the program has no such table, field or action, or a value does not fit.
    pub fn entities(&self, info: &P4Info) -> Result<Vec<Entity>, EntitySpecError> {
        let mut entities = Vec::new();
        let mut add =
            |kind: &str, position: usize, entity: Result<Entity, EntitySpecErrorReason>| {
                let checked = entity.and_then(|entity| {
                    info.encode(&entity)?;
                    Ok(entity)
                });
                entities.push(checked.map_err(|reason| EntitySpecError {
                    switch: self.name.clone(),
                    place: format!("{kind} {}", position + 1),
                    reason,
                })?);
                Ok(())
            };
        for (position, member) in self.members.iter().enumerate() {
            add("member", position, member.entity(info))?;
        }
        for (position, group) in self.groups.iter().enumerate() {
            add("group", position, Ok(group.entity()))?;
        }
        for (position, entry) in self.entries.iter().enumerate() {
            add("entry", position, entry.entity(info))?;
        }
        for (position, group) in self.multicasts.iter().enumerate() {
            let entity = Entity::MulticastGroup(MulticastGroup {
                group: group.group,
                replicas: replicas(&group.ports),
                metadata: Vec::new(),
            });
            add("multicast", position, Ok(entity))?;
        }
        for (position, session) in self.clones.iter().enumerate() {
            let entity = Entity::CloneSession(CloneSession {
                session: session.session,
                replicas: replicas(&session.ports),
                class_of_service: 0,
                packet_length_bytes: 0,
            });
            add("clone", position, Ok(entity))?;
        }
        Ok(entities)
    }
}

impl SwitchSection {
    fn into_spec(self, epoch: EpochClock, folder: &Path) -> Result<SwitchSpec, TopologyError> {
        let tls = self.tls.map(|tls| TlsFiles {
            ca: folder.join(tls.ca),
            server_name: tls.server_name,
            certificate: tls.certificate.map(|path| folder.join(path)),
            key: tls.key.map(|path| folder.join(path)),
        });
        Ok(SwitchSpec {
            name: self.name.0,
            address: self.address,
            device_id: self.device_id,
            epoch: match self.epoch {
                Some(length) => EpochClock::new(length.0)?,
                None => epoch,
            },
            request_timeout: self.request_timeout.map(|timeout| timeout.0),
            tls,
            entries: self.entry,
            members: self.member,
            groups: self.group,
            multicasts: self.multicast,
            clones: self.clone,
        })
    }
}

impl EntrySpec {
    fn entity(&self, info: &P4Info) -> Result<Entity, EntitySpecErrorReason> {
        let table = info.tables().by_name(&self.table)?;
        let name = table.preamble.name.as_str();
        let mut entry = if self.default {
            TableEntry::default_of(name)
        } else {
            TableEntry::new(name).with_priority(self.priority)
        };
        for (field_name, text) in &self.fields {
            let field = table.field(field_name).ok_or_else(|| EntityError::Match {
                place: name.into(),
                field: field_name.clone(),
                reason: "is not a field of it",
            })?;
            entry = entry.matching(field_name, Match::from_text(field, &text.text())?);
        }
        let action = match (&self.action, self.member, self.group) {
            (Some(action), None, None) => TableAction::Call(call(info, action, &self.arguments)?),
            (None, Some(member), None) => TableAction::Member(member),
            (None, None, Some(group)) => TableAction::Group(group),
            _ => return Err(EntitySpecErrorReason::Action),
        };
        Ok(Entity::Table(entry.with_action(action)))
    }
}

impl MemberSpec {
    fn entity(&self, info: &P4Info) -> Result<Entity, EntitySpecErrorReason> {
        let profile = info.action_profiles().by_name(&self.profile)?;
        Ok(Entity::ActionProfileMember(ActionProfileMember {
            profile: profile.preamble.name.clone(),
            member: self.member,
            call: Some(call(info, &self.action, &self.arguments)?),
        }))
    }
}

impl GroupSpec {
    fn entity(&self) -> Entity {
        let members = self.members.iter();
        let members = members.map(|member| GroupMember {
            member: *member,
            weight: 1,
            watch_port: None,
        });
        Entity::ActionProfileGroup(ActionProfileGroup {
            profile: self.profile.clone(),
            group: self.group,
            members: members.collect(),
            max_size: self.max_size,
        })
    }
}

impl NumberText {
    fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

impl TryFrom<String> for NameText {
    type Error = flowradar_core::flowset::SwitchNameError;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse().map(Self)
    }
}

impl TryFrom<String> for DurationText {
    type Error = humantime::DurationError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        humantime::parse_duration(&text).map(Self)
    }
}

fn call(
    info: &P4Info,
    action: &str,
    arguments: &BTreeMap<String, NumberText>,
) -> Result<ActionCall, EntitySpecErrorReason> {
    let action = info.actions().by_name(action)?;
    let arguments = arguments.iter().map(|(name, value)| {
        let value: Bytestring = value.text().parse()?;
        Ok((name.clone(), value))
    });
    Ok(ActionCall {
        action: action.preamble.name.clone(),
        arguments: arguments.collect::<Result<_, BytestringError>>()?,
    })
}

/// Copies to the same port are told apart by their instance.
fn replicas(ports: &[u32]) -> Vec<Replica> {
    let number = |position| u32::try_from(position).unwrap_or(u32::MAX);
    let ports = ports.iter().enumerate();
    ports
        .map(|(position, port)| Replica {
            port: *port,
            instance: number(position + 1),
        })
        .collect()
}

fn first_device() -> u64 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: &str = r#"
        [program]
        json = "a.json"
        p4info = "a.txtpb"
        header = "config.p4"

        [epoch]
        length = "500ms"
    "#;

    fn parse(switches: &str) -> Result<Topology, TopologyError> {
        Topology::parse(&format!("{PROGRAM}\n{switches}"), Path::new("/nets/one"))
    }

    fn info() -> P4Info {
        let text = r#"
            tables {
              preamble { id: 1 name: "ingress.routes" alias: "routes" }
              match_fields { id: 1 name: "dst" bitwidth: 32 match_type: LPM }
              action_refs { id: 2 }
              size: 16
            }
            actions {
              preamble { id: 2 name: "ingress.forward" alias: "forward" }
              params { id: 1 name: "port" bitwidth: 9 }
            }
        "#;
        P4Info::from_text(text).expect("a good P4Info")
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let topology = parse("[[switch]]\nname = 's1'\naddress = 'localhost:9559'").expect("good");
        let program = topology.program.expect("the file names one");
        assert_eq!(program.json, Path::new("/nets/one/a.json"));
        let switch = &topology.switches[0];
        assert_eq!(switch.device_id, 1);
        assert_eq!(switch.epoch.length(), Duration::from_millis(500));
    }

    #[test]
    fn entries_are_read_by_name() {
        let topology = parse(
            "[[switch]]\nname = 's1'\naddress = 'a:1'\n\
             [[switch.entry]]\ntable = 'routes'\nmatch = { dst = '10.0.0.0/8' }\n\
             action = 'forward'\narguments = { port = 3 }\n",
        )
        .expect("good");
        let entities = topology.switches[0]
            .entities(&info())
            .expect("fits the program");
        let expected = TableEntry::new("ingress.routes")
            .matching("dst", Match::lpm(0x0a00_0000_u32, 8))
            .call("ingress.forward", [("port", 3_u8)]);
        assert_eq!(entities, [Entity::Table(expected)]);
    }

    #[test]
    fn what_the_program_does_not_have_is_refused_by_place() {
        for (entry, expected) in [
            ("table = 'router'\naction = 'forward'", "no table `router`"),
            ("table = 'routes'\naction = 'fly'", "no action `fly`"),
            (
                "table = 'routes'\nmatch = { src = '1' }\naction = 'forward'",
                "field `src`",
            ),
            (
                "table = 'routes'\naction = 'forward'\narguments = { port = 512 }",
                "9 bits",
            ),
            ("table = 'routes'", "one of action, member and group"),
        ] {
            let switch =
                format!("[[switch]]\nname = 's1'\naddress = 'a:1'\n[[switch.entry]]\n{entry}\n");
            let topology = parse(&switch).expect("good TOML");
            let error = topology.switches[0].entities(&info()).expect_err(entry);
            let message = error.to_string();
            assert!(message.contains("switch s1, entry 1"), "{message}");
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn files_that_contradict_themselves_are_refused() {
        assert!(matches!(parse(""), Err(TopologyError::NoSwitches)));
        let twice =
            "[[switch]]\nname = 's1'\naddress = 'a:1'\n[[switch]]\nname = 's2'\naddress = 'a:1'";
        assert!(matches!(parse(twice), Err(TopologyError::Duplicate { .. })));
        for syntax in [
            "[[switch]]\nname = '../s1'\naddress = 'a:1'",
            "[[switch]]\nname = 's1'\naddress = 'a:1'\nepoch = 'soon'",
            "[[switch]]\nname = 's1'\naddress = 'a:1'\ncolour = 'red'",
        ] {
            assert!(
                matches!(parse(syntax), Err(TopologyError::Syntax { .. })),
                "{syntax}"
            );
        }
        let no_time = "[[switch]]\nname = 's1'\naddress = 'a:1'\nepoch = '0s'";
        assert!(matches!(parse(no_time), Err(TopologyError::Epoch(_))));
    }
}
