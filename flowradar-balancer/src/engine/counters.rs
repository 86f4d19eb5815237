//! What is counted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::wire::WireReason;

/// Sums since the engine began. Everything that is not passed on as it came is in here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Datagrams taken in.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Flow records and flow samples in them, as far as their templates were known.
    pub records: u64,
    /// Options data records.
    pub options_records: u64,
    /// Datagrams whose header is not that of a known format: dropped.
    pub bad_headers: u64,
    /// Datagrams with a good header whose body ends in an error: what is before the error counts,
    /// and the datagram is passed on whole unless it is split by records.
    pub bad_bodies: u64,
    /// Errors of both kinds by reason.
    #[serde(serialize_with = "by_name", skip_deserializing)]
    pub errors: BTreeMap<WireReason, u64>,
    /// Datagrams of exporters in no group of routers, and not copied: dropped.
    pub unknown_exporters: u64,
    /// Datagrams for which no collector was up: dropped.
    pub no_collector: u64,
    /// Datagrams of new exporters or streams for which there was no room: dropped.
    pub no_room: u64,
    /// Exporters forgotten to make room for others.
    pub evicted_exporters: u64,
    /// Exporters forgotten after a long silence.
    pub idle_exporters: u64,
    /// Datagrams that waited for a template.
    pub waited: u64,
    /// Of these, sent on after their template came.
    pub waited_released: u64,
    /// Of these, sent on without, because the time was over or there was no room.
    pub sent_without_template: u64,
    /// Template records that were new or different.
    pub templates_learned: u64,
    /// Templates withdrawn.
    pub templates_withdrawn: u64,
    /// Templates and options records that found no room and are passed on, but not kept.
    pub state_refused: u64,
    /// Messages with templates and options that were made here.
    pub catch_up_messages: u64,
    /// Units that went to another back end than before.
    pub moves: u64,
    /// Messages sent again after a collector failed.
    pub replayed: u64,
    /// Messages that were no longer there to be sent again.
    pub replay_overflow: u64,
    /// Records that name no addresses: they follow their stream.
    pub records_without_flow: u64,
    /// Data messages left out of copies of one in N.
    pub copies_thinned: u64,
    /// Sequence units (records or messages) that exporters sent and that never arrived.
    pub upstream_lost: u64,
    /// Messages that were overtaken on their way from the exporter.
    pub upstream_late: u64,
    /// Exporters that began anew.
    pub upstream_restarts: u64,
}

impl Counters {
    pub(crate) fn error(&mut self, reason: WireReason) {
        *self.errors.entry(reason).or_default() += 1;
    }

    /// Adds another engine's counters.
    pub fn add(&mut self, other: &Self) {
        let pairs: [(&mut u64, u64); 26] = [
            (&mut self.datagrams, other.datagrams),
            (&mut self.bytes, other.bytes),
            (&mut self.records, other.records),
            (&mut self.options_records, other.options_records),
            (&mut self.bad_headers, other.bad_headers),
            (&mut self.bad_bodies, other.bad_bodies),
            (&mut self.unknown_exporters, other.unknown_exporters),
            (&mut self.no_collector, other.no_collector),
            (&mut self.no_room, other.no_room),
            (&mut self.evicted_exporters, other.evicted_exporters),
            (&mut self.idle_exporters, other.idle_exporters),
            (&mut self.waited, other.waited),
            (&mut self.waited_released, other.waited_released),
            (&mut self.sent_without_template, other.sent_without_template),
            (&mut self.templates_learned, other.templates_learned),
            (&mut self.templates_withdrawn, other.templates_withdrawn),
            (&mut self.state_refused, other.state_refused),
            (&mut self.catch_up_messages, other.catch_up_messages),
            (&mut self.moves, other.moves),
            (&mut self.replayed, other.replayed),
            (&mut self.replay_overflow, other.replay_overflow),
            (&mut self.records_without_flow, other.records_without_flow),
            (&mut self.copies_thinned, other.copies_thinned),
            (&mut self.upstream_lost, other.upstream_lost),
            (&mut self.upstream_late, other.upstream_late),
            (&mut self.upstream_restarts, other.upstream_restarts),
        ];
        for (sum, value) in pairs {
            *sum += value;
        }
        for (reason, count) in &other.errors {
            *self.errors.entry(*reason).or_default() += count;
        }
    }
}

fn by_name<S: serde::Serializer>(
    errors: &BTreeMap<WireReason, u64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(
        errors
            .iter()
            .map(|(reason, count)| (reason.to_string(), count)),
    )
}
