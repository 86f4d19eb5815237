//! Entities in a few words, for messages and listings.

use std::fmt;

use super::{ActionCall, Entity, EntryKey, Match, TableAction};

/// Which entity it is, not what it holds.
impl fmt::Display for Entity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ActionProfileGroup(group) => {
                write!(formatter, "group {} of {}", group.group, group.profile)
            }
            Self::ActionProfileMember(member) => {
                write!(formatter, "member {} of {}", member.member, member.profile)
            }
            Self::CloneSession(session) => write!(formatter, "clone session {}", session.session),
            Self::Counter(entry) => cell(formatter, "counter", &entry.counter, entry.index),
            Self::Digest(entry) => write!(formatter, "digest {}", entry.digest),
            Self::DirectCounter(entry) => {
                write!(formatter, "counter of {}: {}", entry.table, entry.key)
            }
            Self::DirectMeter(entry) => {
                write!(formatter, "meter of {}: {}", entry.table, entry.key)
            }
            Self::Meter(entry) => cell(formatter, "meter", &entry.meter, entry.index),
            Self::MulticastGroup(group) => write!(formatter, "multicast group {}", group.group),
            Self::Register(entry) => cell(formatter, "register", &entry.register, entry.index),
            Self::Table(entry) => write!(formatter, "entry of {}: {}", entry.table, entry.key),
            Self::ValueSet(entry) => write!(formatter, "value set {}", entry.value_set),
        }
    }
}

impl fmt::Display for EntryKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Match { fields, priority } = self else {
            return formatter.write_str("default");
        };
        if fields.is_empty() {
            formatter.write_str("anything")?;
        }
        for (position, (name, value)) in fields.iter().enumerate() {
            let comma = if position == 0 { "" } else { ", " };
            write!(formatter, "{comma}{name} = {value}")?;
        }
        if *priority != 0 {
            write!(formatter, " (priority {priority})")?;
        }
        Ok(())
    }
}

impl fmt::Display for Match {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(value) | Self::Optional(value) => write!(formatter, "{value}"),
            Self::Lpm { value, prefix_bits } => write!(formatter, "{value}/{prefix_bits}"),
            Self::Range { low, high } => write!(formatter, "{low}..{high}"),
            Self::Ternary { value, mask } => write!(formatter, "{value}&{mask}"),
        }
    }
}

impl fmt::Display for TableAction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(call) => call.fmt(formatter),
            Self::Group(group) => write!(formatter, "group {group}"),
            Self::Member(member) => write!(formatter, "member {member}"),
            Self::OneShot(calls) => {
                for (position, weighted) in calls.iter().enumerate() {
                    let or = if position == 0 { "" } else { " or " };
                    write!(formatter, "{or}{} × {}", weighted.weight, weighted.call)?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for ActionCall {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}(", self.action)?;
        for (position, (name, value)) in self.arguments.iter().enumerate() {
            let comma = if position == 0 { "" } else { ", " };
            write!(formatter, "{comma}{name} = {value}")?;
        }
        formatter.write_str(")")
    }
}

fn cell(
    formatter: &mut fmt::Formatter<'_>,
    kind: &str,
    name: &str,
    index: Option<u64>,
) -> fmt::Result {
    match index {
        Some(index) => write!(formatter, "{kind} {name}[{index}]"),
        None => write!(formatter, "{kind} {name}, all cells"),
    }
}
