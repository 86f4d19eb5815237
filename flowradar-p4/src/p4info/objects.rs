//! Objects of one kind, found by id or name.

use std::collections::HashMap;
use std::slice;

use thiserror::Error;

/// An object's id and names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preamble {
    /// Unique in the program.
    pub id: u32,
    /// Fully qualified.
    pub name: String,
    /// The shortest suffix of the name that is unique in the program, as the compiler found it.
    pub alias: String,
}

/// Objects of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Objects<T> {
    kind: &'static str,
    objects: Vec<T>,
    by_id: HashMap<u32, usize>,
    by_name: HashMap<String, Named>,
}

/// Why there is no object to be found.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LookupError {
    /// Several objects have it as alias.
    #[error("`{name}` is the alias of more than one {kind}; give the full name")]
    Ambiguous {
        /// Table, action, ….
        kind: &'static str,
        /// What was asked for.
        name: String,
    },
    /// No object of this kind has the id.
    #[error("the program has no {kind} with id {id:#010x}")]
    UnknownId {
        /// Table, action, ….
        kind: &'static str,
        /// What was asked for.
        id: u32,
    },
    /// No object of this kind has the name.
    #[error("the program has no {kind} `{name}`; it has {known}")]
    UnknownName {
        /// Table, action, ….
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// Some of the names there are.
        known: String,
    },
}

/// What has a preamble.
pub(super) trait HasPreamble {
    fn preamble(&self) -> &Preamble;
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Named {
    /// By alias, and several have it.
    Ambiguous,
    ByAlias(usize),
    ByName(usize),
}

impl<T> Objects<T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// All of them, in the program's order.
    pub fn iter(&self) -> slice::Iter<'_, T> {
        self.objects.iter()
    }

    /// The object with this id.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn by_id(&self, id: u32) -> Result<&T, LookupError> {
        let kind = self.kind;
        self.by_id
            .get(&id)
            .and_then(|position| self.objects.get(*position))
            .ok_or(LookupError::UnknownId { kind, id })
    }
}

#[allow(private_bounds, reason = "implemented for every object there is")]
impl<T: HasPreamble> Objects<T> {
    /// The object with this full name or, if there is none, with this alias.
    ///
    /// # Errors
    ///
    /// If there is none, or the alias is that of several.
    pub fn by_name(&self, name: &str) -> Result<&T, LookupError> {
        let position = match self.by_name.get(name) {
            Some(Named::ByName(position) | Named::ByAlias(position)) => Some(*position),
            Some(Named::Ambiguous) => {
                return Err(LookupError::Ambiguous {
                    kind: self.kind,
                    name: name.into(),
                });
            }
            None => None,
        };
        position
            .and_then(|position| self.objects.get(position))
            .ok_or_else(|| self.unknown(name))
    }

    pub(super) fn new(kind: &'static str, objects: Vec<T>) -> Result<Self, Preamble> {
        let mut by_id = HashMap::with_capacity(objects.len());
        let mut by_name = HashMap::with_capacity(objects.len() * 2);
        for (position, object) in objects.iter().enumerate() {
            let preamble = object.preamble();
            let id_is_new = by_id.insert(preamble.id, position).is_none();
            let name_is_new = by_name
                .insert(preamble.name.clone(), Named::ByName(position))
                .is_none();
            if !id_is_new || !name_is_new {
                return Err(preamble.clone());
            }
        }
        for (position, object) in objects.iter().enumerate() {
            let alias = &object.preamble().alias;
            if alias.is_empty() {
                continue;
            }
            by_name
                .entry(alias.clone())
                .and_modify(|named| {
                    if matches!(named, Named::ByAlias(_)) {
                        *named = Named::Ambiguous;
                    }
                })
                .or_insert(Named::ByAlias(position));
        }
        Ok(Self {
            kind,
            objects,
            by_id,
            by_name,
        })
    }

    fn unknown(&self, name: &str) -> LookupError {
        /// Enough to find a typing error.
        const NAMES_SHOWN: usize = 20;

        let mut names: Vec<&str> = self
            .objects
            .iter()
            .take(NAMES_SHOWN)
            .map(|object| object.preamble().name.as_str())
            .collect();
        if self.objects.len() > NAMES_SHOWN {
            names.push("…");
        }
        LookupError::UnknownName {
            kind: self.kind,
            name: name.into(),
            known: if names.is_empty() {
                "none".into()
            } else {
                names.join(", ")
            },
        }
    }
}

impl<'a, T> IntoIterator for &'a Objects<T> {
    type Item = &'a T;
    type IntoIter = slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
