//! What the collector knows of the last epochs, in memory, for the API.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use flowradar_collector::analysis::{AnalysisCounters, EpochFindings, Event};
use serde::Serialize;

use crate::epoch::{DecodedEpoch, Quality};

/// Epochs kept.
const EPOCHS_MAX: usize = 8192;

/// An epoch in numbers.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct EpochSummary {
    /// Number of the epoch.
    pub epoch: u64,
    /// When it began, in nanoseconds since 1970; if no switch said, when its first report came.
    pub time_ns: u64,
    /// How long it was, in nanoseconds; 0 if unknown.
    pub length_ns: u64,
    /// How often it was decoded again since late reports came.
    pub revision: u32,
    /// How thoroughly it was decoded.
    pub quality: Quality,
    /// Whether its only report came when it was closed.
    pub too_late: bool,
    /// Whether only one switch reported it, and its number is far from those of all others: it was not
    /// analysed.
    pub implausible: bool,
    /// Whether every expected switch reported, every flow was found, and every counter is known.
    pub complete: bool,
    /// Switches that were expected and did not report.
    pub missing: Vec<String>,
    /// Flow records: a flow at five switches counts five times.
    pub records: u64,
    /// Records whose counters are proved.
    pub exact: u64,
    /// Records whose counters satisfy all equations of the network.
    pub joint: u64,
    /// Records with bounds.
    pub unresolved: u64,
    /// Flows that tables count and nobody could find.
    pub flows_not_found: u64,
    /// From its end to its decode, in nanoseconds; from its first report if it gives no time.
    pub lag_ns: u64,
    /// How long decoding took, in nanoseconds.
    pub decode_ns: u64,
    /// What was found at each switch.
    pub switches: Vec<SwitchSummary>,
}

/// A switch of an epoch in numbers.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct SwitchSummary {
    /// The switch.
    pub switch: String,
    /// Its flows.
    pub flows: u64,
    /// Packets of these; where a counter is not known, its best estimate.
    pub packets: u64,
    /// Whether every flow was found and every counter is known.
    pub complete: bool,
    /// Why not, where decoding failed.
    pub failure: Option<String>,
}

/// The last epochs.
#[derive(Debug, Default)]
pub struct Live {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    epochs: VecDeque<EpochSummary>,
    findings: Option<EpochFindings>,
    losses: Option<EpochFindings>,
    open_events: Vec<Event>,
    counters: AnalysisCounters,
}

impl EpochSummary {
    pub(crate) fn new(epoch: &DecodedEpoch, now_ns: u64) -> Self {
        let [exact, joint, unresolved] = epoch.statuses();
        let switches = epoch.switches.iter().map(|switch| SwitchSummary {
            switch: switch.switch.clone(),
            flows: switch.flows.len() as u64,
            packets: switch
                .flows
                .iter()
                .map(|flow| flow.packets.value)
                .fold(0, u64::saturating_add),
            complete: switch.is_complete(),
            failure: switch.failure.clone(),
        });
        Self {
            epoch: epoch.epoch,
            time_ns: epoch.time_ns,
            length_ns: epoch.length_ns,
            revision: epoch.revision,
            quality: epoch.quality,
            too_late: epoch.too_late,
            implausible: epoch.implausible,
            complete: epoch.is_complete(),
            missing: epoch.missing.clone(),
            records: exact + joint + unresolved,
            exact,
            joint,
            unresolved,
            flows_not_found: epoch.switches.iter().map(|s| s.flows_not_found).sum(),
            lag_ns: now_ns.saturating_sub(epoch.time_ns.saturating_add(epoch.length_ns)),
            decode_ns: epoch.decode_ns,
            switches: switches.collect(),
        }
    }
}

impl Live {
    /// The last epochs, newest first, of those that `wanted` says, up to a number.
    pub fn epochs(
        &self,
        epochs_max: usize,
        wanted: impl Fn(&EpochSummary) -> bool,
    ) -> Vec<EpochSummary> {
        let inner = self.inner();
        let epochs = inner.epochs.iter().rev();
        epochs
            .filter(|epoch| wanted(epoch))
            .take(epochs_max)
            .cloned()
            .collect()
    }

    /// What the analyses found in the last epoch, and in the last one whose losses are settled.
    pub fn findings(&self) -> (Option<EpochFindings>, Option<EpochFindings>) {
        let inner = self.inner();
        (inner.findings.clone(), inner.losses.clone())
    }

    /// Events that are not over.
    pub fn open_events(&self) -> Vec<Event> {
        self.inner().open_events.clone()
    }

    /// What the analyses did and left out.
    pub fn analysis_counters(&self) -> AnalysisCounters {
        self.inner().counters
    }

    /// Takes an epoch; one that was decoded again takes its former place.
    pub(crate) fn put_epoch(&self, summary: EpochSummary) {
        let mut inner = self.inner();
        let place = inner
            .epochs
            .iter()
            .rposition(|old| (old.epoch, old.time_ns) == (summary.epoch, summary.time_ns));
        match place.and_then(|place| inner.epochs.get_mut(place)) {
            Some(old) if !summary.too_late && summary.revision >= old.revision => *old = summary,
            Some(_) => {}
            None => {
                if inner.epochs.len() == EPOCHS_MAX {
                    inner.epochs.pop_front();
                }
                inner.epochs.push_back(summary);
            }
        }
    }

    pub(crate) fn put_findings(
        &self,
        findings: EpochFindings,
        open_events: Vec<Event>,
        counters: AnalysisCounters,
    ) {
        let mut inner = self.inner();
        if findings.losses.is_some() {
            inner.losses = Some(findings.clone());
        }
        inner.findings = Some(findings);
        inner.open_events = open_events;
        inner.counters = counters;
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
