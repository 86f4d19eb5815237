//! Notices: what the collector itself has to say. To the log, to the API, and counted.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use flowradar_collector::analysis::{Event, EventChange, Severity};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::epoch::Outcome;
use crate::ingest::unix_now_ns;

/// Notices and events kept for those who ask later.
const RECENT_MAX: usize = 4096;
/// Notices of a kind that are told in a second at most; the next one says how many there were.
const TOLD_PER_SECOND_MAX: u32 = 5;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// Ascending over all runs of a collector: the run's number times 1,000,000,000, and a count from 1.
    pub id: u64,
    /// When it happened, in nanoseconds since 1970.
    pub time_ns: u64,
    /// How bad it is: `info`, `warning` or `critical`.
    pub severity: Severity,
    /// What, in a word, such as `late` or `link_loss`.
    pub kind: String,
    /// The same in a sentence.
    pub message: String,
    /// The switch, where it is about one.
    pub switch: Option<String>,
    /// The epoch, where it is about one.
    pub epoch: Option<u64>,
    /// Of an analysis: `opened`, `updated` or `closed`, and the event with its evidence.
    pub event: Option<EventChange>,
}

/// Where notices go. Clones share it.
#[derive(Clone, Debug)]
pub struct Notices {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    live: broadcast::Sender<Notice>,
    recent: Mutex<Recent>,
}

#[derive(Debug, Default)]
struct Recent {
    last_id: u64,
    /// By kind: the second, notices told in it, and notices since then that were not told.
    told: HashMap<String, (u64, u32, u64)>,
    notices: VecDeque<Notice>,
}

impl Recent {
    /// How many of this kind were not told since one was, or none if this is not told, either.
    fn limit(&mut self, kind: &str, second: u64) -> Option<u64> {
        let told = self.told.entry(kind.to_owned()).or_default();
        if told.0 != second {
            *told = (second, 0, told.2);
        }
        if told.1 == TOLD_PER_SECOND_MAX {
            told.2 += 1;
            return None;
        }
        told.1 += 1;
        Some(std::mem::take(&mut told.2))
    }
}

/// A notice before it has number and time.
struct Draft {
    severity: Severity,
    kind: String,
    message: String,
    switch: Option<String>,
    epoch: Option<u64>,
    event: Option<EventChange>,
}

impl Default for Notices {
    fn default() -> Self {
        Self::after_id(0)
    }
}

impl Notices {
    /// Notices whose numbers come after this one.
    pub fn after_id(id: u64) -> Self {
        let (live, _) = broadcast::channel(RECENT_MAX);
        let recent = Recent {
            last_id: id,
            ..Recent::default()
        };
        Self {
            inner: Arc::new(Inner {
                live,
                recent: Mutex::new(recent),
            }),
        }
    }

    /// Notices from now on. A listener that is too slow misses some, and is told how many.
    pub fn listen(&self) -> broadcast::Receiver<Notice> {
        self.inner.live.subscribe()
    }

    /// The notices that are kept after this number, oldest first.
    pub fn after(&self, id: u64) -> Vec<Notice> {
        let recent = self.recent();
        let notices = recent.notices.iter();
        notices.filter(|notice| notice.id > id).cloned().collect()
    }

    /// A change of an event that an analysis found.
    pub fn event(&self, change: EventChange) {
        let event: &Event = change.event();
        self.tell(Draft {
            severity: event.severity,
            kind: event.kind.word().to_owned(),
            message: event.to_string(),
            switch: None,
            epoch: Some(event.last_epoch),
            event: Some(change),
        });
    }

    /// Something that the operator should know.
    pub fn warn(&self, kind: &str, message: impl Into<String>) {
        self.simple(Severity::Warning, kind, message.into(), None, None);
    }

    /// Something worth knowing.
    pub fn info(&self, kind: &str, message: impl Into<String>) {
        self.simple(Severity::Info, kind, message.into(), None, None);
    }

    /// What became of a report, if it is not what should.
    pub(crate) fn report(&self, outcome: Outcome, switch: &str, epoch: Option<u64>, reason: &str) {
        let severity = match outcome {
            Outcome::OnTime | Outcome::Late => return,
            Outcome::Duplicate | Outcome::TooLate => Severity::Info,
            Outcome::Conflict | Outcome::Corrupt | Outcome::Foreign => Severity::Warning,
        };
        let of_epoch = epoch.map_or(String::new(), |epoch| format!(" of epoch {epoch}"));
        let message = format!("report of {switch}{of_epoch}: {reason}");
        self.simple(
            severity,
            outcome.word(),
            message,
            Some(switch.to_owned()),
            epoch,
        );
    }

    pub(crate) fn implausible(&self, epoch: u64, switch: &str) {
        let message = format!(
            "epoch {epoch} was reported by {switch} alone, and is far from the epochs of all other switches \
             ([epochs] apart_max): it is stored, and not analysed"
        );
        self.simple(
            Severity::Warning,
            "implausible",
            message,
            Some(switch.to_owned()),
            Some(epoch),
        );
    }

    pub(crate) fn missing(&self, epoch: u64, switches: &[String]) {
        let named = switches.iter().take(5).cloned().collect::<Vec<_>>();
        let more = match switches.len().saturating_sub(named.len()) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let message = format!(
            "epoch {epoch}: no report in time from {}{more}",
            named.join(", ")
        );
        self.simple(Severity::Warning, "missing", message, None, Some(epoch));
    }

    pub(crate) fn gap(&self, switch: &str, first: u64, last: u64) {
        let message = format!(
            "flowsets {first} to {last} of {switch}'s spool are not in the journal: they were acknowledged \
             by another collector, or the journal was lost"
        );
        self.simple(
            Severity::Critical,
            "gap",
            message,
            Some(switch.to_owned()),
            None,
        );
    }

    pub(crate) fn refusing(&self, reason: &str) {
        let message = format!("flowsets are refused, and wait in agents' spools: {reason}");
        self.simple(Severity::Critical, "refusing", message, None, None);
    }

    fn simple(
        &self,
        severity: Severity,
        kind: &str,
        message: String,
        switch: Option<String>,
        epoch: Option<u64>,
    ) {
        self.tell(Draft {
            severity,
            kind: kind.to_owned(),
            message,
            switch,
            epoch,
            event: None,
        });
    }

    fn tell(&self, mut draft: Draft) {
        let time_ns = unix_now_ns();
        // Events are limited by the analyses; all else may come with every report.
        if draft.event.is_none() {
            match self.recent().limit(&draft.kind, time_ns / 1_000_000_000) {
                None => return,
                Some(0) => {}
                Some(untold) => draft.message += &format!(" (and {untold} more like this)"),
            }
        }
        match draft.severity {
            Severity::Info => tracing::info!(kind = draft.kind, "{}", draft.message),
            Severity::Warning => tracing::warn!(kind = draft.kind, "{}", draft.message),
            Severity::Critical => tracing::error!(kind = draft.kind, "{}", draft.message),
        }
        let mut recent = self.recent();
        recent.last_id += 1;
        let notice = Notice {
            id: recent.last_id,
            time_ns,
            severity: draft.severity,
            kind: draft.kind,
            message: draft.message,
            switch: draft.switch,
            epoch: draft.epoch,
            event: draft.event,
        };
        if recent.notices.len() == RECENT_MAX {
            recent.notices.pop_front();
        }
        recent.notices.push_back(notice.clone());
        // Sent in order; nobody may be listening.
        _ = self.inner.live.send(notice);
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, Recent> {
        self.inner
            .recent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
