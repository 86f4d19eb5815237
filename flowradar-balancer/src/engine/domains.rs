//! Observation domains that are different even where addresses are not.
//!
//! A collector that sees the balancer's address tells exporters apart by their observation domains
//! alone, and these are mostly 0. The first stream with a domain keeps it; the others get a number
//! that follows from their key, so that it is the same after a restart.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

use crate::policy::mix;
use crate::stream::StreamKey;
use crate::wire::Protocol;

/// Who has which observation domain; shared by the engines of one balancer, which send to the same
/// collectors. Only new and forgotten streams look here.
#[derive(Clone, Debug, Default)]
pub struct Domains {
    owners: Arc<Mutex<HashMap<(Protocol, u32), StreamKey>>>,
}

/// Tries for a free number; with fewer streams than half of the numbers, one of them succeeds.
const TRIES: u64 = 64;

impl Domains {
    fn owners(&self) -> MutexGuard<'_, HashMap<(Protocol, u32), StreamKey>> {
        // A map is whole after any panic between its calls.
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a domain for a stream that had it before a restart: its own or a substitute.
    pub(super) fn reserve(&self, key: &StreamKey, substitute: Option<u32>) {
        if key.protocol != Protocol::Sflow {
            let place = (key.protocol, substitute.unwrap_or(key.domain));
            self.owners().entry(place).or_insert(*key);
        }
    }

    /// Gives a stream its domain: `None` if that is its own. `before` is the substitute that it had
    /// before a restart.
    pub(super) fn enter(&self, key: &StreamKey, hash: u64, before: Option<u32>) -> Option<u32> {
        // sFlow's identity is the agent's address, which is in the datagram.
        if key.protocol == Protocol::Sflow {
            return None;
        }
        let wanted = (key.protocol, key.domain);
        let mut owners = self.owners();
        if let Some(before) = before
            && owners.get(&(key.protocol, before)) == Some(key)
        {
            return Some(before);
        }
        if *owners.entry(wanted).or_insert(*key) == *key {
            return None;
        }
        let mut candidate = key.domain;
        for round in 0..TRIES {
            let number = mix(hash ^ round) as u32;
            candidate = if key.protocol == Protocol::NetflowV5 {
                number & 0xffff
            } else {
                number
            };
            let place = (key.protocol, candidate);
            if !owners.contains_key(&place) {
                owners.insert(place, *key);
                return Some(candidate);
            }
        }
        Some(candidate)
    }

    /// Takes a stream's domain back.
    pub(super) fn leave(&self, key: &StreamKey, substitute: Option<u32>) {
        let place = (key.protocol, substitute.unwrap_or(key.domain));
        let mut owners = self.owners();
        if owners.get(&place) == Some(key) {
            owners.remove(&place);
        }
    }
}
