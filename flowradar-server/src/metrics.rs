//! Metrics, in Prometheus' words.

use std::sync::atomic::AtomicU64;

use flowradar_core::flowset::SwitchName;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::epoch::{DecodedEpoch, GrouperStatus, Outcome, Quality};
use crate::journal::Gauges;
use crate::store::Maintenance;

/// Labels of what is counted by switch. Bounded by the number of switches that are taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfSwitch {
    switch: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOutcome {
    switch: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: String,
}

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    flowsets: Family<OfSwitch, Counter>,
    flowset_bytes: Family<OfSwitch, Counter>,
    reports: Family<OfOutcome, Counter>,
    stalls: Counter,
    streams_failed: Counter,
    epochs: Family<OfKind, Counter>,
    epochs_incomplete: Counter,
    epochs_implausible: Counter,
    reports_missing: Counter,
    flow_records: Family<OfKind, Counter>,
    flows_not_found: Counter,
    decode_seconds: Histogram,
    lag_seconds: Gauge<f64, AtomicU64>,
    groups: Family<OfKind, Gauge>,
    queues: Family<OfKind, Gauge>,
    journal: Family<OfKind, Gauge>,
    store: Family<OfKind, Gauge>,
    rows_stored: Counter,
    store_files: Family<OfKind, Counter>,
    store_failures: Counter,
    classic: Family<OfKind, Counter>,
    events: Family<OfKind, Counter>,
    webhook: Family<OfKind, Counter>,
    exported: Family<OfKind, Counter>,
    analyses: Family<OfKind, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("flowradar");
        let metrics = Self {
            flowsets: Family::default(),
            flowset_bytes: Family::default(),
            reports: Family::default(),
            stalls: Counter::default(),
            streams_failed: Counter::default(),
            epochs: Family::default(),
            epochs_incomplete: Counter::default(),
            epochs_implausible: Counter::default(),
            reports_missing: Counter::default(),
            flow_records: Family::default(),
            flows_not_found: Counter::default(),
            decode_seconds: Histogram::new(exponential_buckets(0.000_25, 2.0, 16)),
            lag_seconds: Gauge::default(),
            groups: Family::default(),
            queues: Family::default(),
            journal: Family::default(),
            store: Family::default(),
            rows_stored: Counter::default(),
            store_files: Family::default(),
            store_failures: Counter::default(),
            classic: Family::default(),
            events: Family::default(),
            webhook: Family::default(),
            exported: Family::default(),
            analyses: Family::default(),
            registry: Registry::default(),
        };
        let r = &mut registry;
        r.register(
            "flowsets",
            "Flowsets made durable",
            metrics.flowsets.clone(),
        );
        r.register_with_unit(
            "flowset",
            "Bytes of flowsets made durable",
            Unit::Bytes,
            metrics.flowset_bytes.clone(),
        );
        r.register(
            "reports",
            "Reports by what became of them",
            metrics.reports.clone(),
        );
        r.register(
            "ingest_stalls",
            "How often a stream had to wait for the journal or its rate",
            metrics.stalls.clone(),
        );
        r.register(
            "ingest_streams_failed",
            "Agents' streams that were ended by the collector or broke",
            metrics.streams_failed.clone(),
        );
        r.register(
            "epochs_decoded",
            "Epochs decoded, by how: network, single or again",
            metrics.epochs.clone(),
        );
        r.register(
            "epochs_incomplete",
            "Decoded epochs in which reports, flows or counters are missing",
            metrics.epochs_incomplete.clone(),
        );
        r.register(
            "epochs_implausible",
            "Epochs that only one switch reported, far from those of all others: not analysed",
            metrics.epochs_implausible.clone(),
        );
        r.register(
            "reports_missing",
            "Reports that were expected and did not come in time",
            metrics.reports_missing.clone(),
        );
        r.register(
            "flow_records",
            "Flow records decoded, by status of their counters",
            metrics.flow_records.clone(),
        );
        r.register(
            "flows_not_found",
            "Flows that tables counted and nobody could find",
            metrics.flows_not_found.clone(),
        );
        r.register_with_unit(
            "decode",
            "Time to decode an epoch",
            Unit::Seconds,
            metrics.decode_seconds.clone(),
        );
        r.register_with_unit(
            "lag",
            "From the first report of the epoch decoded last to its decode",
            Unit::Seconds,
            metrics.lag_seconds.clone(),
        );
        r.register(
            "epochs_open",
            "Epochs gathering reports, waiting, decoding, or decoded and open",
            metrics.groups.clone(),
        );
        r.register(
            "queue_messages",
            "Messages between stages",
            metrics.queues.clone(),
        );
        r.register(
            "journal",
            "Bytes, segments, appends, refusals, syncs",
            metrics.journal.clone(),
        );
        r.register(
            "store",
            "Files, bytes and rows stored",
            metrics.store.clone(),
        );
        r.register(
            "rows_stored",
            "Flow records stored",
            metrics.rows_stored.clone(),
        );
        r.register(
            "store_files",
            "Files of the store by what became of them: merged, removed; merge_given_up is tried again",
            metrics.store_files.clone(),
        );
        r.register(
            "store_failures",
            "How often storing failed and was tried again",
            metrics.store_failures.clone(),
        );
        r.register(
            "classic",
            "NetFlow, NetStream, IPFIX and sFlow: datagrams, records and what was wrong with them",
            metrics.classic.clone(),
        );
        r.register(
            "events",
            "Changes of events, by kind",
            metrics.events.clone(),
        );
        r.register(
            "webhook",
            "Webhook calls by result",
            metrics.webhook.clone(),
        );
        r.register(
            "exported",
            "IPFIX records and messages sent",
            metrics.exported.clone(),
        );
        r.register(
            "analyses",
            "Epochs analysed, and skipped since they came out of order",
            metrics.analyses.clone(),
        );
        Self {
            registry,
            ..metrics
        }
    }
}

impl Metrics {
    /// All metrics in the text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        _ = encode(&mut text, &self.registry);
        text
    }

    pub(crate) fn ingested(&self, switch: &SwitchName, bytes: u64) {
        let labels = OfSwitch {
            switch: switch.to_string(),
        };
        self.flowsets.get_or_create(&labels).inc();
        self.flowset_bytes.get_or_create(&labels).inc_by(bytes);
    }

    pub(crate) fn outcome(&self, switch: &str, outcome: Outcome) {
        let labels = OfOutcome {
            switch: switch.to_owned(),
            outcome: outcome.word(),
        };
        self.reports.get_or_create(&labels).inc();
    }

    pub(crate) fn stalled(&self) {
        self.stalls.inc();
    }

    pub(crate) fn stream_failed(&self) {
        self.streams_failed.inc();
    }

    pub(crate) fn implausible(&self) {
        self.epochs_implausible.inc();
    }

    pub(crate) fn missing(&self, switches: usize) {
        self.reports_missing.inc_by(switches as u64);
    }

    pub(crate) fn decoded(&self, epoch: &DecodedEpoch, statuses: [u64; 3], complete: bool) {
        let kind = match epoch.quality {
            _ if epoch.revision > 0 => "again",
            Quality::Network => "network",
            Quality::Single => "single",
        };
        self.epochs.get_or_create(&of_kind(kind)).inc();
        if !complete {
            self.epochs_incomplete.inc();
        }
        for (status, count) in ["exact", "joint", "unresolved"].into_iter().zip(statuses) {
            self.flow_records
                .get_or_create(&of_kind(status))
                .inc_by(count);
        }
        let not_found = epoch.switches.iter().map(|switch| switch.flows_not_found);
        self.flows_not_found.inc_by(not_found.sum());
        self.decode_seconds.observe(epoch.decode_ns as f64 / 1e9);
    }

    pub(crate) fn lag(&self, seconds: f64) {
        self.lag_seconds.set(seconds);
    }

    pub(crate) fn grouper(&self, status: &GrouperStatus) {
        let gauges = [
            ("gathering", status.gathering),
            ("waiting", status.waiting),
            ("decoding", status.decoding),
            ("decoded", status.open),
        ];
        for (kind, value) in gauges {
            set(&self.groups, kind, value as u64);
        }
    }

    pub(crate) fn queue(&self, name: &str, messages: usize) {
        set(&self.queues, name, messages as u64);
    }

    pub(crate) fn journal(&self, gauges: &Gauges) {
        use std::sync::atomic::Ordering::Relaxed;
        let values = [
            ("bytes", &gauges.bytes),
            ("segments", &gauges.segments),
            ("appended", &gauges.appended),
            ("refused", &gauges.refused),
            ("syncs", &gauges.syncs),
        ];
        for (kind, value) in values {
            set(&self.journal, kind, value.load(Relaxed));
        }
    }

    pub(crate) fn store(&self, files: u64, bytes: u64, rows: u64) {
        set(&self.store, "files", files);
        set(&self.store, "bytes", bytes);
        set(&self.store, "rows", rows);
    }

    pub(crate) fn stored(&self, rows: u64) {
        self.rows_stored.inc_by(rows);
    }

    pub(crate) fn maintained(&self, done: &Maintenance) {
        let counts = [
            ("merged", done.merged_files),
            ("merge_given_up", done.merges_given_up),
            ("removed", done.removed_files),
        ];
        for (kind, count) in counts {
            self.store_files
                .get_or_create(&of_kind(kind))
                .inc_by(count as u64);
        }
    }

    pub(crate) fn store_failed(&self) {
        self.store_failures.inc();
    }

    pub(crate) fn classic(&self, kind: &str, count: u64) {
        self.classic.get_or_create(&of_kind(kind)).inc_by(count);
    }

    pub(crate) fn event(&self, kind: &str) {
        self.events.get_or_create(&of_kind(kind)).inc();
    }

    pub(crate) fn webhook(&self, result: &str) {
        self.webhook.get_or_create(&of_kind(result)).inc();
    }

    pub(crate) fn exported(&self, kind: &str, count: u64) {
        self.exported.get_or_create(&of_kind(kind)).inc_by(count);
    }

    pub(crate) fn analysed(&self, kind: &str) {
        self.analyses.get_or_create(&of_kind(kind)).inc();
    }
}

fn of_kind(kind: &str) -> OfKind {
    OfKind {
        kind: kind.to_owned(),
    }
}

fn set(gauges: &Family<OfKind, Gauge>, kind: &str, value: u64) {
    gauges
        .get_or_create(&of_kind(kind))
        .set(i64::try_from(value).unwrap_or(i64::MAX));
}
