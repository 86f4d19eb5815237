//! The control plane's operations.

mod arrays;
mod profiles;
mod replication;
mod tables;

pub(crate) use tables::check_program_entries;

use super::Pipeline;
use super::table::Choice;
use crate::Value;
use crate::program::Program;
use crate::program::action::Action;
use crate::runtime::{ActionCall, DigestConfig, DigestError, ValueSetError};

/// How many members a parser value set may have.
const MAX_VALUE_SET: usize = 65_536;

/// Why an action cannot be called like this.
enum CallError {
    Count { expected: usize },
    Unknown,
    Width { parameter: String, width: u32 },
}

/// # Digests and value sets
impl Pipeline {
    /// Starts sending a digest: until then what the program sends is dropped and counted.
    ///
    /// # Errors
    ///
    /// If there is no such digest, or it is sent already.
    pub fn insert_digest(&mut self, digest: &str, config: DigestConfig) -> Result<(), DigestError> {
        if self.digest_config(digest)?.is_some() {
            return Err(DigestError::Exists {
                digest: digest.to_owned(),
            });
        }
        self.configure_digest(digest, Some(config))
    }

    /// Changes how a digest is gathered.
    ///
    /// # Errors
    ///
    /// If there is no such digest, or it is not sent.
    pub fn modify_digest(&mut self, digest: &str, config: DigestConfig) -> Result<(), DigestError> {
        if self.digest_config(digest)?.is_none() {
            return Err(DigestError::NotConfigured {
                digest: digest.to_owned(),
            });
        }
        self.configure_digest(digest, Some(config))
    }

    /// Stops sending a digest.
    ///
    /// # Errors
    ///
    /// If there is no such digest, or it is not sent.
    pub fn delete_digest(&mut self, digest: &str) -> Result<(), DigestError> {
        if self.digest_config(digest)?.is_none() {
            return Err(DigestError::NotConfigured {
                digest: digest.to_owned(),
            });
        }
        self.configure_digest(digest, None)
    }

    /// How a digest is gathered; `None` if it is not sent.
    ///
    /// # Errors
    ///
    /// If there is no such digest.
    pub fn digest_config(&self, digest: &str) -> Result<Option<DigestConfig>, DigestError> {
        let mut digests = self.state.digests.iter();
        let found = digests.find(|state| state.name == digest);
        found
            .map(|state| state.config)
            .ok_or_else(|| DigestError::Unknown {
                digest: digest.to_owned(),
            })
    }

    /// Acknowledges a list: what it held may be sent again. Unknown lists are ignored, since their time
    /// may have been up.
    ///
    /// # Errors
    ///
    /// If there is no such digest.
    pub fn acknowledge_digest(&mut self, digest: &str, list_id: u64) -> Result<(), DigestError> {
        let mut digests = self.state.digests.iter_mut();
        let found = digests.find(|state| state.name == digest);
        let found = found.ok_or_else(|| DigestError::Unknown {
            digest: digest.to_owned(),
        })?;
        found.acknowledge(list_id);
        Ok(())
    }

    /// Replaces the members of a parser value set. Each is the concatenation of the set's components,
    /// without padding.
    ///
    /// # Errors
    ///
    /// If there is no such set, or the members are too many or too wide for it.
    pub fn set_value_set(
        &mut self,
        value_set: &str,
        members: Vec<Value>,
    ) -> Result<(), ValueSetError> {
        let index = self.value_set_index(value_set)?;
        if members.len() > MAX_VALUE_SET {
            return Err(ValueSetError::Full {
                value_set: value_set.to_owned(),
                capacity: MAX_VALUE_SET,
                given: members.len(),
            });
        }
        let width = self.program.objects.value_sets[index].bits;
        let limbs = width.div_ceil(64).max(1) as usize;
        let with_limbs = |member: Value| {
            let limbs = member
                .to_limbs(limbs)
                .filter(|_| member.bit_length() <= width);
            let limbs = limbs.ok_or_else(|| ValueSetError::Width {
                value_set: value_set.to_owned(),
                width,
            })?;
            Ok((member, limbs))
        };
        self.state.value_sets[index] = members
            .into_iter()
            .map(with_limbs)
            .collect::<Result<_, _>>()?;
        Ok(())
    }

    /// The members of a parser value set.
    ///
    /// # Errors
    ///
    /// If there is no such set.
    pub fn value_set(
        &self,
        value_set: &str,
    ) -> Result<impl Iterator<Item = &Value>, ValueSetError> {
        let index = self.value_set_index(value_set)?;
        Ok(self.state.value_sets[index]
            .iter()
            .map(|(member, _)| member))
    }

    fn configure_digest(
        &mut self,
        digest: &str,
        config: Option<DigestConfig>,
    ) -> Result<(), DigestError> {
        for state in self
            .state
            .digests
            .iter_mut()
            .filter(|state| state.name == digest)
        {
            state.configure(config);
        }
        Ok(())
    }

    fn value_set_index(&self, name: &str) -> Result<usize, ValueSetError> {
        let mut sets = self.program.objects.value_sets.iter();
        sets.position(|set| set.name == name)
            .ok_or_else(|| ValueSetError::Unknown {
                value_set: name.to_owned(),
            })
    }
}

impl Pipeline {
    /// Brings choices up to date after a port went down or came up.
    fn refresh_choices(&mut self) {
        let state = &mut self.state;
        let is_up = |port: u16| !state.ports_down.contains(&port);
        for profile in &mut state.profiles {
            for group in profile.groups.values_mut() {
                group.choice.refresh(is_up);
            }
        }
        for table in &mut state.tables {
            for entry in &mut table.entries {
                if let super::table::Resolved::OneShot(choice) = &mut entry.resolved {
                    Choice::refresh(choice, is_up);
                }
            }
        }
    }
}

/// An action of those allowed, with its arguments in slots.
fn resolve_call(
    program: &Program,
    allowed: impl Iterator<Item = u16>,
    call: &ActionCall,
) -> Result<(u16, Box<[u64]>), CallError> {
    let mut allowed = allowed.map(|index| (index, &program.actions[usize::from(index)]));
    let (index, action) = allowed
        .find(|(_, action)| action.name == call.action)
        .ok_or(CallError::Unknown)?;
    Ok((index, arguments(action, &call.arguments)?))
}

fn arguments(action: &Action, values: &[Value]) -> Result<Box<[u64]>, CallError> {
    let expected = action.parameters.len();
    if values.len() != expected {
        return Err(CallError::Count { expected });
    }
    let mut slots = Vec::with_capacity(action.argument_slots.into());
    for (parameter, value) in action.parameters.iter().zip(values) {
        let limbs = value.to_limbs(parameter.limbs.into());
        match limbs.filter(|_| value.bit_length() <= parameter.bits) {
            Some(limbs) => slots.extend(limbs),
            None => {
                let parameter_name = parameter.name.clone();
                return Err(CallError::Width {
                    parameter: parameter_name,
                    width: parameter.bits,
                });
            }
        }
    }
    Ok(slots.into())
}
