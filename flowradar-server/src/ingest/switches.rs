//! The switches that agents are connected for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use flowradar_core::flowset::SwitchName;
use tokio::sync::{Notify, OwnedMutexGuard};

use crate::journal::{Link, State};

/// More switches than are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} switches are known already, the most that are taken ([ingest] switches_max)")]
pub struct TooManySwitches(pub usize);

/// All switches that are known.
#[derive(Clone, Debug)]
pub struct Switches {
    inner: Arc<Mutex<HashMap<SwitchName, Arc<Entry>>>>,
    switches_max: usize,
}

#[derive(Debug, Default)]
struct Entry {
    /// Held by the stream that reports for the switch.
    progress: Arc<tokio::sync::Mutex<Progress>>,
    /// Tells that stream that another one has come.
    replaced: Notify,
    status: Mutex<SwitchStatus>,
}

/// How far an agent's spool was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) spool: u64,
    pub(super) sequence: u64,
}

/// What is known of a switch.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct SwitchStatus {
    /// Its name.
    pub switch: String,
    /// Whether an agent is connected.
    pub connected: bool,
    /// The agent's description.
    pub description: String,
    /// Where its ports lead.
    pub links: Vec<Link>,
    /// Flowsets taken since the collector started.
    pub flowsets: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Flowsets rejected since.
    pub rejected: u64,
    /// Number of the last epoch reported.
    pub last_epoch: Option<u64>,
    /// When the last flowset came, in nanoseconds since 1970.
    pub last_report_ns: Option<u64>,
}

/// A stream's hold on its switch.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) progress: OwnedMutexGuard<Progress>,
    entry: Arc<Entry>,
}

impl Switches {
    /// The switches of a journal's state.
    pub fn new(state: &State, switches_max: usize) -> Self {
        let entries = state.switches().iter().map(|(name, known)| {
            let progress = Progress {
                spool: known.spool,
                sequence: known.sequence,
            };
            let status = SwitchStatus {
                switch: name.to_string(),
                description: known.description.clone(),
                links: known.links.clone(),
                ..SwitchStatus::default()
            };
            let entry = Entry {
                progress: Arc::new(tokio::sync::Mutex::new(progress)),
                replaced: Notify::new(),
                status: Mutex::new(status),
            };
            (name.clone(), Arc::new(entry))
        });
        Self {
            inner: Arc::new(Mutex::new(entries.collect())),
            switches_max,
        }
    }

    /// What is known of each switch, by name.
    pub fn statuses(&self) -> Vec<SwitchStatus> {
        let entries = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut statuses: Vec<SwitchStatus> =
            entries.values().map(|entry| entry.status()).collect();
        drop(entries);
        statuses.sort_by(|a, b| a.switch.cmp(&b.switch));
        statuses
    }

    /// Notes a report that came otherwise than by a stream.
    ///
    /// # Errors
    /// If the switch is new and there are too many.
    pub fn note_report(
        &self,
        switch: &SwitchName,
        epoch: u64,
        bytes: u64,
        received_ns: u64,
    ) -> Result<(), TooManySwitches> {
        let entry = self.entry(switch)?;
        entry.note_report(epoch, bytes, received_ns);
        Ok(())
    }

    /// Takes hold of a switch for a new stream: an older one is told to end, and waited for.
    pub(super) async fn hold(&self, switch: &SwitchName) -> Result<Hold, TooManySwitches> {
        let entry = self.entry(switch)?;
        // Stays notified if the older stream is not listening just now.
        if entry.progress.try_lock().is_err() {
            entry.replaced.notify_one();
        }
        let progress = Arc::clone(&entry.progress).lock_owned().await;
        Ok(Hold { progress, entry })
    }

    fn entry(&self, switch: &SwitchName) -> Result<Arc<Entry>, TooManySwitches> {
        let mut entries = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(switch) {
            return Ok(Arc::clone(entry));
        }
        if entries.len() >= self.switches_max {
            return Err(TooManySwitches(entries.len()));
        }
        let entry = Arc::new(Entry::default());
        entry.change(|status| status.switch = switch.to_string());
        entries.insert(switch.clone(), Arc::clone(&entry));
        Ok(entry)
    }
}

impl Entry {
    fn status(&self) -> SwitchStatus {
        self.status
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn change(&self, change: impl FnOnce(&mut SwitchStatus)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn note_report(&self, epoch: u64, bytes: u64, received_ns: u64) {
        self.change(|status| {
            status.flowsets += 1;
            status.bytes += bytes;
            status.last_epoch = Some(epoch);
            status.last_report_ns = Some(received_ns);
        });
    }
}

impl Hold {
    /// Waits until another stream wants the switch.
    pub(super) async fn replaced(&self) {
        self.entry.replaced.notified().await;
    }

    pub(super) fn connected(&self, description: &str, links: &[Link]) {
        self.entry.change(|status| {
            status.connected = true;
            description.clone_into(&mut status.description);
            status.links = links.to_vec();
        });
    }

    pub(super) fn note_report(&self, epoch: u64, bytes: u64, received_ns: u64) {
        self.entry.note_report(epoch, bytes, received_ns);
    }

    pub(super) fn note_rejected(&self) {
        self.entry.change(|status| status.rejected += 1);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.entry.change(|status| status.connected = false);
    }
}
