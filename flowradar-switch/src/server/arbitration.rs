//! Which controller may write: P4Runtime's client arbitration, without I/O.
//!
//! P4Runtime specification, "Rules for Handling MasterArbitrationUpdate Messages". Every stream belongs
//! to one role; in each role the stream with the highest election id ever seen there is primary.

use std::collections::BTreeMap;

use thiserror::Error;

/// Roles that are remembered; their highest election ids must never be forgotten.
const ROLES_MAX: usize = 64;
/// Live controllers, over all roles.
const CONTROLLERS_MAX: usize = 256;

/// A controller's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamId(pub(super) u64);

/// Who is primary, for all roles.
#[derive(Debug, Default)]
pub(super) struct Arbitration {
    roles: BTreeMap<String, RoleState>,
    controllers: BTreeMap<StreamId, Controller>,
}

/// What a controller is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notification {
    /// Whom to tell.
    pub(super) stream: StreamId,
    /// Its role.
    pub(super) role: String,
    /// The highest election id seen; none if there was never a primary.
    pub(super) election_id: Option<u128>,
    /// What it is now.
    pub(super) standing: Standing,
}

/// What a controller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It may write.
    Primary,
    /// Another one may.
    Backup,
    /// Nobody may.
    BackupWithoutPrimary,
}

/// Why a stream is ended.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum ArbitrationError {
    #[error("election id {election_id} is that of another live controller; choose another one")]
    ElectionIdUsed { election_id: u128 },
    #[error("this stream's role is `{role}`; open another stream for another role")]
    RoleChanged { role: String },
    #[error("at most {limit} {what} are served")]
    TooMany { what: &'static str, limit: usize },
}

/// Why a controller may not write.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum WriteRefused {
    #[error("only the primary of role `{role}` may do this, and its election id is another one")]
    NotPrimary { role: String },
    #[error("there is no role `{role}`: no controller ever opened a stream for it")]
    UnknownRole { role: String },
}

#[derive(Debug, Default)]
struct RoleState {
    highest: Option<u128>,
    primary: Option<StreamId>,
}

#[derive(Debug)]
struct Controller {
    role: String,
    election_id: Option<u128>,
}

impl Arbitration {
    /// A controller asks for an election id, first or again.
    pub(super) fn update(
        &mut self,
        stream: StreamId,
        role: &str,
        election_id: Option<u128>,
    ) -> Result<Vec<Notification>, ArbitrationError> {
        self.check(stream, role, election_id)?;
        let state = self.roles.entry(role.into()).or_default();
        let was_primary = state.primary == Some(stream);
        self.controllers.insert(
            stream,
            Controller {
                role: role.into(),
                election_id,
            },
        );
        // None is less than any id.
        if election_id.is_some() && election_id >= state.highest {
            state.highest = election_id;
            state.primary = Some(stream);
            return Ok(self.notify_role(role));
        }
        if was_primary {
            state.primary = None;
            return Ok(self.notify_role(role));
        }
        let own = self.notify_role(role).into_iter();
        Ok(own
            .filter(|notification| notification.stream == stream)
            .collect())
    }

    /// A controller's stream has ended.
    pub(super) fn leave(&mut self, stream: StreamId) -> Vec<Notification> {
        let Some(controller) = self.controllers.remove(&stream) else {
            return Vec::new();
        };
        match self.roles.get_mut(&controller.role) {
            Some(state) if state.primary == Some(stream) => {
                state.primary = None;
                self.notify_role(&controller.role)
            }
            Some(_) | None => Vec::new(),
        }
    }

    /// Whether a request of a role with this election id may change something.
    pub(super) fn check_write(
        &self,
        role: &str,
        election_id: Option<u128>,
    ) -> Result<(), WriteRefused> {
        let Some(state) = self.roles.get(role) else {
            // Nobody has opened a stream for the default role yet: it is a role all the same.
            return Err(if role.is_empty() {
                WriteRefused::NotPrimary { role: role.into() }
            } else {
                WriteRefused::UnknownRole { role: role.into() }
            });
        };
        let primary = state
            .primary
            .and_then(|stream| self.controllers.get(&stream));
        match primary {
            Some(primary) if primary.election_id == election_id => Ok(()),
            Some(_) | None => Err(WriteRefused::NotPrimary { role: role.into() }),
        }
    }

    /// Whether a stream is its role's primary.
    pub(super) fn is_primary(&self, stream: StreamId) -> bool {
        self.primaries().any(|primary| primary == stream)
    }

    /// The primaries of all roles.
    pub(super) fn primaries(&self) -> impl Iterator<Item = StreamId> {
        self.roles.values().filter_map(|state| state.primary)
    }

    fn check(
        &self,
        stream: StreamId,
        role: &str,
        election_id: Option<u128>,
    ) -> Result<(), ArbitrationError> {
        match self.controllers.get(&stream) {
            Some(known) if known.role != role => {
                return Err(ArbitrationError::RoleChanged {
                    role: known.role.clone(),
                });
            }
            Some(_) => {}
            None if self.controllers.len() >= CONTROLLERS_MAX => {
                return Err(ArbitrationError::TooMany {
                    what: "controllers",
                    limit: CONTROLLERS_MAX,
                });
            }
            None if !self.roles.contains_key(role) && self.roles.len() >= ROLES_MAX => {
                return Err(ArbitrationError::TooMany {
                    what: "roles",
                    limit: ROLES_MAX,
                });
            }
            None => {}
        }
        let mut others = self
            .controllers
            .iter()
            .filter(|(other, controller)| **other != stream && controller.role == role);
        match election_id {
            Some(id) if others.any(|(_, controller)| controller.election_id == Some(id)) => {
                Err(ArbitrationError::ElectionIdUsed { election_id: id })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Backups first, so that whoever was primary knows before the new one does.
    fn notify_role(&self, role: &str) -> Vec<Notification> {
        let Some(state) = self.roles.get(role) else {
            return Vec::new();
        };
        let members = self.controllers.iter();
        let mut notifications: Vec<Notification> = members
            .filter(|(_, controller)| controller.role == role)
            .map(|(stream, _)| Notification {
                stream: *stream,
                role: role.into(),
                election_id: state.highest,
                standing: match state.primary {
                    Some(primary) if primary == *stream => Standing::Primary,
                    Some(_) => Standing::Backup,
                    None => Standing::BackupWithoutPrimary,
                },
            })
            .collect();
        notifications.sort_by_key(|notification| notification.standing == Standing::Primary);
        notifications
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: StreamId = StreamId(1);
    const B: StreamId = StreamId(2);
    const C: StreamId = StreamId(3);

    fn standings(notifications: Vec<Notification>) -> Vec<(StreamId, Standing)> {
        let pairs = notifications.into_iter();
        pairs
            .map(|notification| (notification.stream, notification.standing))
            .collect()
    }

    #[test]
    fn a_higher_election_id_takes_over() {
        let mut arbitration = Arbitration::default();
        let told = arbitration.update(A, "", Some(1)).expect("accepted");
        assert_eq!(standings(told), [(A, Standing::Primary)]);
        let told = arbitration.update(B, "", Some(2)).expect("accepted");
        assert_eq!(
            standings(told),
            [(A, Standing::Backup), (B, Standing::Primary)]
        );
        assert_eq!(arbitration.check_write("", Some(2)), Ok(()));
        assert!(arbitration.check_write("", Some(1)).is_err());
        assert!(arbitration.check_write("", None).is_err());
    }

    #[test]
    fn a_lower_election_id_is_only_told() {
        let mut arbitration = Arbitration::default();
        arbitration.update(A, "", Some(5)).expect("accepted");
        let told = arbitration.update(B, "", Some(4)).expect("accepted");
        assert_eq!(standings(told), [(B, Standing::Backup)]);
        let told = arbitration.update(C, "", None).expect("accepted");
        assert_eq!(standings(told), [(C, Standing::Backup)]);
    }

    /// "In fact, a full restart is the only way to reset the election_id."
    #[test]
    fn nobody_follows_a_primary_without_its_election_id() {
        let mut arbitration = Arbitration::default();
        arbitration.update(A, "", Some(5)).expect("accepted");
        arbitration.update(B, "", Some(4)).expect("accepted");
        let told = arbitration.leave(A);
        assert_eq!(
            standings(told.clone()),
            [(B, Standing::BackupWithoutPrimary)]
        );
        assert_eq!(told[0].election_id, Some(5));
        assert!(arbitration.check_write("", Some(4)).is_err());
        let told = arbitration.update(B, "", Some(5)).expect("accepted");
        assert_eq!(standings(told), [(B, Standing::Primary)]);
    }

    #[test]
    fn a_primary_may_step_down() {
        let mut arbitration = Arbitration::default();
        arbitration.update(A, "", Some(5)).expect("accepted");
        arbitration.update(B, "", Some(4)).expect("accepted");
        let told = arbitration.update(A, "", Some(3)).expect("accepted");
        let nobody = Standing::BackupWithoutPrimary;
        assert_eq!(standings(told), [(A, nobody), (B, nobody)]);
    }

    #[test]
    fn an_election_id_is_one_controllers_within_a_role() {
        let mut arbitration = Arbitration::default();
        arbitration.update(A, "", Some(5)).expect("accepted");
        let refused = arbitration.update(B, "", Some(5));
        assert_eq!(
            refused,
            Err(ArbitrationError::ElectionIdUsed { election_id: 5 })
        );
        assert!(arbitration.update(B, "routes", Some(5)).is_ok());
        assert_eq!(arbitration.primaries().count(), 2);
        let refused = arbitration.update(B, "", Some(6));
        assert_eq!(
            refused,
            Err(ArbitrationError::RoleChanged {
                role: "routes".into()
            })
        );
    }

    #[test]
    fn controllers_and_roles_are_bounded() {
        let mut arbitration = Arbitration::default();
        for number in 0..ROLES_MAX as u64 {
            let role = format!("role{number}");
            arbitration
                .update(StreamId(number), &role, None)
                .expect("accepted");
        }
        let refused = arbitration.update(StreamId(1000), "one more", None);
        assert_eq!(
            refused,
            Err(ArbitrationError::TooMany {
                what: "roles",
                limit: ROLES_MAX
            })
        );
        for number in ROLES_MAX as u64..CONTROLLERS_MAX as u64 {
            arbitration
                .update(StreamId(number), "role0", None)
                .expect("accepted");
        }
        assert!(arbitration.update(StreamId(1000), "role0", None).is_err());
    }
}
