//! Action profiles: members, and groups of members that a selector chooses from.

use thiserror::Error;

/// A member's place in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// The member's number.
    pub member: u32,
    /// Its share of the packets; at least 1.
    pub weight: u32,
    /// Not chosen while this port is down.
    pub watch_port: Option<u16>,
}

/// A group of members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Its members; each once.
    pub members: Vec<GroupMember>,
    /// The largest sum of weights the group may have; zero for as much as the profile allows.
    pub max_size: u32,
}

/// Why an action profile could not be read or changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProfileError {
    /// The action does not exist or none of the profile's tables has it.
    #[error("action profile {profile}: no action {action} to use in a member")]
    ActionUnknown {
        /// The profile.
        profile: String,
        /// What was asked for.
        action: String,
    },
    /// The arguments do not fit the action's parameters.
    #[error("action profile {profile}, action {action}: {what}")]
    Arguments {
        /// The profile.
        profile: String,
        /// The action.
        action: String,
        /// What does not fit.
        what: String,
    },
    /// The member or group is there already.
    #[error("action profile {profile} has {what} {id} already; modify it instead")]
    Exists {
        /// The profile.
        profile: String,
        /// Member or group.
        what: &'static str,
        /// Its number.
        id: u32,
    },
    /// The profile holds as many members or groups as it may, or a group as much weight.
    #[error("action profile {profile} is full: at most {capacity} {what}")]
    Full {
        /// The profile.
        profile: String,
        /// Of what.
        what: &'static str,
        /// How many it may hold.
        capacity: usize,
    },
    /// A group names a member twice or with a weight of zero.
    #[error("action profile {profile}, group {group}: {what}")]
    GroupMember {
        /// The profile.
        profile: String,
        /// The group.
        group: u32,
        /// What is wrong.
        what: &'static str,
    },
    /// A table's entry or a group still uses it.
    #[error("action profile {profile}: {what} {id} is still in use; remove what uses it first")]
    InUse {
        /// The profile.
        profile: String,
        /// Member or group.
        what: &'static str,
        /// Its number.
        id: u32,
    },
    /// The profile has no selector, so it has no groups.
    #[error("action profile {profile} has no selector, so it cannot have groups")]
    NoSelector {
        /// The profile.
        profile: String,
    },
    /// The program has no such profile.
    #[error("the program has no action profile {profile}")]
    ProfileUnknown {
        /// What was asked for.
        profile: String,
    },
    /// The profile has no such member or group.
    #[error("action profile {profile} has no {what} {id}")]
    Unknown {
        /// The profile.
        profile: String,
        /// Member or group.
        what: &'static str,
        /// Its number.
        id: u32,
    },
}
