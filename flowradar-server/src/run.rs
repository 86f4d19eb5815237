//! The stages at work: what moves messages between them, reads clocks and waits.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flowradar_collector::analysis::{AnalysisError, Analyzer, Event, EventChange};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use crate::classic::ClassicRecord;
use crate::collector::Shared;
use crate::config::Config;
use crate::epoch::decode::Fetched;
use crate::epoch::{
    Action, DecodeRequest, DecodedEpoch, Feedback, Grouper, GroupingInput, Outcome, decode as epoch,
};
use crate::ingest::{DropFolder, Ingest, unix_now_ns};
use crate::journal::{Journal, State};
use crate::live::EpochSummary;
use crate::stage::{Giver, QueueDepth, QueueGiver, QueueTaker, Taker};
use crate::store::{FlowStore, Maintainer, StoreError};

/// How long storing waits before it tries again.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// How often gauges are set.
const GAUGE_INTERVAL: Duration = Duration::from_secs(1);

/// Where decoded epochs go.
#[derive(Clone, Debug)]
pub(crate) struct Outputs {
    pub(crate) store: QueueGiver<Arc<DecodedEpoch>>,
    pub(crate) analysis: Option<QueueGiver<Arc<DecodedEpoch>>>,
    pub(crate) export: Option<QueueGiver<Arc<DecodedEpoch>>>,
}

/// The grouping stage.
pub(crate) struct Grouping {
    pub(crate) grouper: Grouper,
    pub(crate) begin: Instant,
    pub(crate) inputs: QueueTaker<GroupingInput>,
    pub(crate) feedback: QueueTaker<Feedback>,
    pub(crate) requests: QueueGiver<DecodeRequest>,
    pub(crate) journal: Journal,
    pub(crate) shared: Shared,
    pub(crate) reloads: watch::Receiver<Arc<Config>>,
}

impl Grouping {
    pub(crate) async fn run(mut self) {
        loop {
            if !self.act().await {
                return;
            }
            let timeout = self.grouper.next_timeout();
            let tick = async {
                match timeout {
                    Some(at) => tokio::time::sleep_until((self.begin + at).into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                input = self.inputs.take() => {
                    let Some(input) = input else { return };
                    let appended = match &input {
                        GroupingInput::Arrived(arrived) if !arrived.replayed => Some(arrived.position),
                        _ => None,
                    };
                    self.grouper.input(self.begin.elapsed(), input);
                    if let Some(position) = appended {
                        self.journal.handed_over(position);
                    }
                }
                feedback = self.feedback.take() => {
                    let Some(feedback) = feedback else { return };
                    self.grouper.feedback(self.begin.elapsed(), feedback);
                }
                () = tick => self.grouper.tick(self.begin.elapsed()),
                changed = self.reloads.changed() => {
                    if changed.is_ok() {
                        let options = self.reloads.borrow_and_update().grouper_options();
                        self.grouper.set_options(options);
                    }
                }
            }
        }
    }

    /// Does what is to be done; false if decoding has ended.
    async fn act(&mut self) -> bool {
        while let Some(action) = self.grouper.poll_action() {
            let shared = &self.shared;
            match action {
                Action::Decode(request) => {
                    if self.requests.give(request).await.is_err() {
                        return false;
                    }
                }
                Action::Outcome {
                    switch,
                    epoch,
                    outcome,
                } => {
                    shared.metrics.outcome(&switch, outcome);
                    let reason = match outcome {
                        Outcome::Duplicate => "it was reported before",
                        Outcome::Conflict => "another flowset was reported before, and counts",
                        Outcome::TooLate => "its epoch is closed; it is decoded alone",
                        _ => continue,
                    };
                    shared.notices.report(outcome, &switch, Some(epoch), reason);
                }
                Action::Missing { epoch, switches } => {
                    shared.metrics.missing(switches.len());
                    shared.notices.missing(epoch, &switches);
                }
                Action::Implausible { epoch, switch } => {
                    shared.metrics.implausible();
                    shared.notices.implausible(epoch, &switch);
                }
                Action::ClosedEarly { epoch } => shared.notices.warn(
                    "closed_early",
                    format!("epoch {epoch} takes no late reports any more: [epochs] groups_max are known"),
                ),
                Action::Closed(closed) => self.journal.close(closed),
                Action::RemoveJournalBefore(segment) => self.journal.remove_before(segment),
            }
        }
        self.shared.metrics.grouper(&self.grouper.status());
        true
    }
}

/// The decode stage: so many epochs at a time, given on in the order they came.
pub(crate) async fn decode(
    mut requests: QueueTaker<DecodeRequest>,
    decodes_max: usize,
    shared: Shared,
    feedback: QueueGiver<Feedback>,
    outputs: Outputs,
) {
    let permits = Arc::new(Semaphore::new(decodes_max));
    let (running, mut in_order) = mpsc::channel::<JoinHandle<Arc<DecodedEpoch>>>(decodes_max);
    let give_on = {
        let shared = shared.clone();
        async move {
            while let Some(decoded) = in_order.recv().await {
                let Ok(decoded) = decoded.await else {
                    shared.notices.warn(
                        "decode_failed",
                        "an epoch's decode failed: this is a fault of the program",
                    );
                    continue;
                };
                let group = decoded.group;
                note(&shared, &decoded);
                if let Some(analysis) = &outputs.analysis {
                    _ = analysis.give(Arc::clone(&decoded)).await;
                }
                if let Some(export) = &outputs.export {
                    _ = export.give(Arc::clone(&decoded)).await;
                }
                // Storing may wait for the disk: whatever waits behind it waits in the journal.
                _ = outputs.store.give(decoded).await;
                _ = feedback.give(Feedback::Decoded(group)).await;
            }
        }
    };
    let take = async move {
        while let Some(request) = requests.take().await {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                return;
            };
            let journal = shared.journal.clone();
            let decoding = tokio::task::spawn_blocking(move || {
                let decoded = decode_one(&request, &journal);
                drop(permit);
                Arc::new(decoded)
            });
            if running.send(decoding).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(take, give_on);
}

/// Decodes an epoch. If that panics the epoch is given on all the same, as one that could not be decoded:
/// else it would stay open, with its part of the journal, and nobody would see that it is missing.
fn decode_one(request: &DecodeRequest, journal: &Journal) -> DecodedEpoch {
    let decode = || epoch::decode(request, fetch(journal, request));
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(decode)).unwrap_or_else(|_| {
        let failed = request.reports.iter().map(|report| Fetched {
            switch: report.switch.clone(),
            flowset: Err("decoding its epoch failed: this is a fault of the program".into()),
        });
        epoch::decode(request, failed.collect())
    })
}

/// Reads the reports of a request from the journal.
fn fetch(journal: &Journal, request: &DecodeRequest) -> Vec<Fetched> {
    let reports = request.reports.iter();
    reports
        .map(|report| {
            let read = journal.read(report.position, |record| match record {
                crate::journal::Record::Report(report) => Ok(report.flowset.to_vec()),
                _ => Err("the journal holds something else in its place".to_owned()),
            });
            Fetched {
                switch: report.switch.clone(),
                flowset: read.unwrap_or_else(|error| Err(error.to_string())),
            }
        })
        .collect()
}

/// Notes a decoded epoch where operators look.
fn note(shared: &Shared, decoded: &DecodedEpoch) {
    let summary = EpochSummary::new(decoded, unix_now_ns());
    let statuses = [summary.exact, summary.joint, summary.unresolved];
    shared.metrics.decoded(decoded, statuses, summary.complete);
    shared.metrics.lag(summary.lag_ns as f64 / 1e9);
    for switch in &decoded.switches {
        if let Some(failure) = &switch.failure {
            shared.notices.warn(
                "undecoded",
                format!("epoch {} of {}: {failure}", decoded.epoch, switch.switch),
            );
        }
    }
    shared.live.put_epoch(summary);
}

/// The storing stage. Runs on a thread of its own: it blocks.
pub(crate) struct Storing {
    pub(crate) store: Box<dyn FlowStore>,
    pub(crate) epochs: QueueTaker<Arc<DecodedEpoch>>,
    pub(crate) classic: QueueTaker<Vec<ClassicRecord>>,
    pub(crate) feedback: QueueGiver<Feedback>,
    pub(crate) shared: Shared,
    pub(crate) config: watch::Receiver<Arc<Config>>,
    pub(crate) stopped: watch::Receiver<bool>,
}

impl Storing {
    pub(crate) async fn run(mut self) {
        let mut flushed = Instant::now();
        let (mut epochs_end, mut classic_end) = (false, false);
        loop {
            let options = self.config.borrow().store;
            let flush_at = flushed + Duration::from_millis(options.flush_ms);
            let mut stop = false;
            tokio::select! {
                epoch = self.epochs.take(), if !epochs_end => match epoch {
                    Some(epoch) => self.store.append_epoch(&epoch),
                    None => epochs_end = true,
                },
                records = self.classic.take(), if !classic_end => match records {
                    Some(records) => self.store.append_classic(&records),
                    None => classic_end = true,
                },
                () = tokio::time::sleep_until(flush_at.into()) => {}
                stopped = self.stopped.changed() => stop = stopped.is_err() || *self.stopped.borrow(),
            }
            let due = flush_at <= Instant::now();
            if due || stop || self.store.pending_rows() >= options.flush_rows {
                self.flush().await;
                flushed = Instant::now();
            }
            if stop || (epochs_end && classic_end) {
                return;
            }
        }
    }

    /// Makes rows durable; tries until it is done.
    async fn flush(&mut self) {
        let rows = self.store.pending_rows() as u64;
        loop {
            match self.store.flush() {
                Ok(feedback) => {
                    self.shared.metrics.stored(rows);
                    let sizes = self.shared.reader.sizes();
                    self.shared
                        .metrics
                        .store(sizes.files, sizes.bytes, sizes.rows);
                    for feedback in feedback {
                        _ = self.feedback.give(feedback).await;
                    }
                    return;
                }
                Err(error) => store_failed(&self.shared, "storing", &error),
            }
            tokio::select! {
                () = tokio::time::sleep(STORE_RETRY) => {}
                // The journal has it all.
                _ = self.stopped.changed() => return,
            }
        }
    }
}

/// Keeps the store in order. Runs on a thread of its own: it blocks, and storing need not wait for it.
pub(crate) struct Maintaining {
    pub(crate) maintainer: Box<dyn Maintainer>,
    pub(crate) shared: Shared,
    pub(crate) config: watch::Receiver<Arc<Config>>,
    pub(crate) stopped: watch::Receiver<bool>,
}

impl Maintaining {
    pub(crate) async fn run(mut self) {
        loop {
            let wait = Duration::from_millis(self.config.borrow().store.maintain_ms);
            tokio::select! {
                () = tokio::time::sleep(wait) => self.maintain(),
                _ = self.stopped.changed() => {}
            }
            if is_stopped(&self.stopped) {
                return;
            }
        }
    }

    fn maintain(&mut self) {
        let now_ns = i64::try_from(unix_now_ns()).unwrap_or(i64::MAX);
        let options = self.config.borrow().maintenance_options();
        let stopped = || is_stopped(&self.stopped);
        let done = self.maintainer.maintain(now_ns, options, &stopped);
        self.shared.metrics.maintained(&done);
        if done.removed_files > 0 {
            self.shared.notices.info(
                "retention",
                format!(
                    "{} files with {} rows were removed from the store, by [store] keep_hours and bytes_max",
                    done.removed_files, done.removed_rows
                ),
            );
        }
        for error in &done.failures {
            store_failed(&self.shared, "maintaining the store", error);
        }
    }
}

/// Whether it was said, or nobody is left to say it.
fn is_stopped(stopped: &watch::Receiver<bool>) -> bool {
    *stopped.borrow() || stopped.has_changed().is_err()
}

fn store_failed(shared: &Shared, what: &str, error: &StoreError) {
    shared.metrics.store_failed();
    shared.notices.warn(
        "store_failed",
        format!("{what}: {error}; it is tried again"),
    );
}

/// Numbers of events: an analyzer counts its own from 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventNumbers {
    first: u64,
}

impl EventNumbers {
    /// Numbers from `first` on.
    pub(crate) fn from(first: u64) -> Self {
        Self { first }
    }

    fn renumber(&self, event: &mut Event) {
        event.id = self.first.saturating_add(event.id);
    }

    fn renumber_change(&self, change: &mut EventChange) {
        let (EventChange::Opened(event) | EventChange::Updated(event) | EventChange::Closed(event)) =
            change;
        self.renumber(event);
    }

    /// The next analyzer begins anew, after so many events.
    fn skip(&mut self, events: u64) {
        self.first = self.first.saturating_add(events);
    }
}

/// The analysis stage. Runs on a thread of its own: it computes.
pub(crate) async fn analyse(
    mut analyzer: Analyzer,
    mut epochs: QueueTaker<Arc<DecodedEpoch>>,
    shared: Shared,
    mut numbers: EventNumbers,
) {
    while let Some(decoded) = epochs.take().await {
        // Late reports improve what is stored; what was concluded before stands.
        if decoded.revision > 0 || decoded.too_late {
            shared.metrics.analysed("late");
            continue;
        }
        // All that comes after it would be out of order.
        if decoded.implausible {
            shared.metrics.analysed("implausible");
            continue;
        }
        let switches = decoded.switch_views();
        let mut findings = analyzer.epoch_of(decoded.epoch, &switches);
        if let Err(AnalysisError::OutOfOrder { epoch, last }) = findings {
            shared.metrics.analysed("out_of_order");
            // A network that begins anew has epochs from 0 on.
            if epoch >= last / 2 {
                continue;
            }
            shared.notices.info(
                "epochs_restarted",
                format!("epoch {epoch} comes after {last}: analyses begin anew"),
            );
            for mut change in analyzer.finish() {
                numbers.renumber_change(&mut change);
                shared.notices.event(change);
            }
            numbers.skip(analyzer.counters().events_opened);
            let model = analyzer.model().cloned();
            analyzer = Analyzer::new(*analyzer.options(), model);
            findings = analyzer.epoch_of(decoded.epoch, &switches);
        }
        // An analyzer that has seen no epoch takes any.
        let Ok(mut findings) = findings else {
            continue;
        };
        shared.metrics.analysed("analysed");
        for change in &mut findings.events {
            numbers.renumber_change(change);
            shared.metrics.event(change.event().kind.word());
            shared.notices.event(change.clone());
        }
        let mut open: Vec<Event> = analyzer.open_events().cloned().collect();
        for event in &mut open {
            numbers.renumber(event);
        }
        let counters = analyzer.counters();
        shared.live.put_findings(findings, open, counters);
    }
}

/// Takes flowsets from the drop folder as they come.
pub(crate) async fn watch_folder(folder: DropFolder, poll: Duration, state: State, ingest: Ingest) {
    let mut failing = HashSet::new();
    loop {
        let listed = {
            let folder = folder.clone();
            tokio::task::spawn_blocking(move || folder.files()).await
        };
        let files = match listed {
            Ok(Ok(files)) => files,
            Ok(Err(error)) => {
                if failing.insert(error.kind()) {
                    ingest.notices().warn("drop_folder", error.to_string());
                }
                vec![]
            }
            Err(_) => return,
        };
        let idle = files.is_empty();
        for file in files {
            if state.file_taken(file.name(), file.digest()) {
                // The process before this one took it and died before it could move it.
                folder.put_away(&file, "taken");
            } else if let Err(error) = folder.take(file, &ingest).await {
                ingest.notices().refusing(&error.to_string());
                tokio::time::sleep(poll).await;
            }
        }
        if idle {
            tokio::time::sleep(poll).await;
        }
    }
}

/// Takes identities from configurations read again.
pub(crate) async fn reload_ingest(mut reloads: watch::Receiver<Arc<Config>>, ingest: Ingest) {
    while reloads.changed().await.is_ok() {
        ingest.set_identities(reloads.borrow_and_update().identities());
    }
}

/// Sets the gauges that nobody else sets.
pub(crate) async fn gauge(queues: Vec<(&'static str, QueueDepth)>, shared: Shared) {
    loop {
        for (name, depth) in &queues {
            shared.metrics.queue(name, depth.messages());
        }
        shared.metrics.journal(shared.journal.gauges());
        tokio::time::sleep(GAUGE_INTERVAL).await;
    }
}
