//! Digests on their way to the control plane.

use std::collections::{BTreeMap, HashSet};

use crate::runtime::{DigestConfig, DigestList};
use crate::{Timestamp, Value};

/// How many digests may wait for their acknowledgement.
const MAX_UNACKNOWLEDGED: usize = 65_536;

/// The largest list.
const MAX_LIST: u32 = 4096;

/// The state of one digest.
#[derive(Debug)]
pub(super) struct DigestState {
    pub(super) name: String,
    pub(super) config: Option<DigestConfig>,
    pending: Vec<Vec<Value>>,
    pending_since: Timestamp,
    last_list: u64,
    /// Lists that were sent, with when and what they held.
    sent: BTreeMap<u64, (Timestamp, Vec<Vec<Value>>)>,
    /// What is pending or sent: not sent again until it is acknowledged.
    known: HashSet<Vec<Value>>,
}

/// What became of a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DigestOutcome {
    /// Nobody asked for it, or too many wait for their acknowledgement.
    Dropped,
    /// It will be sent.
    Kept,
    /// An equal one waits for its acknowledgement.
    Suppressed,
}

impl DigestState {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            config: None,
            pending: Vec::new(),
            pending_since: Timestamp::ZERO,
            last_list: 0,
            sent: BTreeMap::new(),
            known: HashSet::new(),
        }
    }

    /// Starts, changes or stops sending.
    pub(super) fn configure(&mut self, config: Option<DigestConfig>) {
        if config.is_none() {
            self.pending.clear();
            self.sent.clear();
            self.known.clear();
        }
        self.config = config;
    }

    pub(super) fn add(
        &mut self,
        digest: Vec<Value>,
        now: Timestamp,
        lists: &mut Vec<DigestList>,
    ) -> DigestOutcome {
        let Some(config) = self.config else {
            return DigestOutcome::Dropped;
        };
        self.expire(config, now);
        if self.known.contains(&digest) {
            return DigestOutcome::Suppressed;
        }
        if self.known.len() >= MAX_UNACKNOWLEDGED {
            return DigestOutcome::Dropped;
        }
        self.known.insert(digest.clone());
        if self.pending.is_empty() {
            self.pending_since = now;
        }
        self.pending.push(digest);
        let is_full = self.pending.len() >= config.max_list_size.clamp(1, MAX_LIST) as usize;
        if is_full || config.max_timeout.is_zero() {
            self.close(now, lists);
        }
        DigestOutcome::Kept
    }

    pub(super) fn tick(&mut self, now: Timestamp, lists: &mut Vec<DigestList>) {
        let Some(config) = self.config else { return };
        self.expire(config, now);
        if !self.pending.is_empty() && now.since(self.pending_since) >= config.max_timeout {
            self.close(now, lists);
        }
    }

    pub(super) fn acknowledge(&mut self, list_id: u64) {
        if let Some((_, digests)) = self.sent.remove(&list_id) {
            for digest in digests {
                self.known.remove(&digest);
            }
        }
    }

    fn close(&mut self, now: Timestamp, lists: &mut Vec<DigestList>) {
        self.last_list += 1;
        let digests = std::mem::take(&mut self.pending);
        self.sent.insert(self.last_list, (now, digests.clone()));
        let digest = self.name.clone();
        lists.push(DigestList {
            digest,
            list_id: self.last_list,
            digests,
            at: now,
        });
    }

    /// Forgets lists that were not acknowledged in time.
    fn expire(&mut self, config: DigestConfig, now: Timestamp) {
        while let Some(oldest) = self.sent.first_entry() {
            if now.since(oldest.get().0) < config.ack_timeout {
                break;
            }
            let (_, digests) = oldest.remove();
            for digest in digests {
                self.known.remove(&digest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn digest(number: u64) -> Vec<Value> {
        vec![Value::from(number)]
    }

    #[test]
    fn equal_digests_wait_for_their_acknowledgement() {
        let mut state = DigestState::new("d");
        let mut lists = Vec::new();
        assert_eq!(
            state.add(digest(1), Timestamp::ZERO, &mut lists),
            DigestOutcome::Dropped
        );
        state.configure(Some(DigestConfig {
            max_timeout: Duration::from_millis(10),
            max_list_size: 2,
            ack_timeout: Duration::from_secs(1),
        }));
        let at = Timestamp::from_microseconds;
        assert_eq!(state.add(digest(1), at(0), &mut lists), DigestOutcome::Kept);
        assert_eq!(
            state.add(digest(1), at(1), &mut lists),
            DigestOutcome::Suppressed
        );
        assert!(lists.is_empty());
        state.tick(at(9_999), &mut lists);
        assert!(lists.is_empty());
        state.tick(at(10_000), &mut lists);
        assert_eq!(lists.len(), 1);
        assert_eq!(
            (lists[0].list_id, lists[0].digests.clone()),
            (1, vec![digest(1)])
        );
        assert_eq!(
            state.add(digest(1), at(11_000), &mut lists),
            DigestOutcome::Suppressed
        );
        state.acknowledge(1);
        assert_eq!(
            state.add(digest(1), at(12_000), &mut lists),
            DigestOutcome::Kept
        );
        assert_eq!(
            state.add(digest(2), at(13_000), &mut lists),
            DigestOutcome::Kept
        );
        assert_eq!(lists.last().map(|list| list.digests.len()), Some(2));
        // Not acknowledged within a second: it may come again.
        assert_eq!(
            state.add(digest(2), at(1_013_000), &mut lists),
            DigestOutcome::Kept
        );
    }
}
