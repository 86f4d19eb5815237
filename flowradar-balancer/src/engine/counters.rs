//! What is counted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::wire::WireReason;

/// Makes the struct of counters, their sum, and their names in metrics, from one list.
macro_rules! counters {
    ($($(#[doc = $text:literal])+ $field:ident: $metric:literal,)+) => {
        /// Sums since the engine began. Everything that is not passed on as it came is in here.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Counters {
            $($(#[doc = $text])+ pub $field: u64,)+
            /// Errors in headers and bodies by reason.
            #[serde(serialize_with = "by_name", skip_deserializing)]
            pub errors: BTreeMap<WireReason, u64>,
        }

        impl Counters {
            /// Adds another engine's counters.
            pub fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)+
                for (reason, count) in &other.errors {
                    *self.errors.entry(*reason).or_default() += count;
                }
            }

            /// All but the errors: name in metrics, what it counts, value.
            pub fn sums(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$(($metric, concat!($($text),+), self.$field),)+].into_iter()
            }
        }
    };
}

counters! {
    /// Datagrams taken in.
    datagrams: "datagrams_received_total",
    /// Bytes of datagrams taken in.
    bytes: "bytes_received_total",
    /// Flow records and flow samples in them, as far as their templates were known.
    records: "records_received_total",
    /// Options data records.
    options_records: "options_records_received_total",
    /// Datagrams whose header is not that of a known format: dropped.
    bad_headers: "bad_headers_total",
    /// Datagrams with a good header whose body ends in an error: what is before the error counts,
    /// and the datagram is passed on whole unless it is split by records.
    bad_bodies: "bad_bodies_total",
    /// Datagrams of exporters in no group of routers, and not copied: dropped.
    unknown_exporters: "unknown_exporters_total",
    /// Datagrams for which no collector was up: dropped.
    no_collector: "no_collector_total",
    /// Datagrams of new exporters or streams for which there was no room: dropped.
    no_room: "no_room_total",
    /// Exporters forgotten to make room for others.
    evicted_exporters: "evicted_exporters_total",
    /// Exporters forgotten after a long silence.
    idle_exporters: "idle_exporters_total",
    /// Datagrams that waited for a template.
    waited: "waited_total",
    /// Datagrams that waited and were sent on after their template came.
    waited_released: "waited_released_total",
    /// Datagrams sent on without their template, because the time was over or there was no room.
    sent_without_template: "sent_without_template_total",
    /// Template records that were new or different.
    templates_learned: "templates_learned_total",
    /// Templates withdrawn.
    templates_withdrawn: "templates_withdrawn_total",
    /// Templates and options records that found no room and are passed on, but not kept.
    state_refused: "state_refused_total",
    /// Messages with templates and options that were made here.
    catch_up_messages: "catch_up_messages_total",
    /// Units that went to another back end than before.
    moves: "moves_total",
    /// Messages sent again after a collector failed.
    replayed: "replayed_total",
    /// Messages that were no longer there to be sent again.
    replay_overflow: "replay_overflow_total",
    /// Records that name no addresses: they follow their stream.
    records_without_flow: "records_without_flow_total",
    /// Data messages left out of copies of one in N.
    copies_thinned: "copies_thinned_total",
    /// Sequence units (records or messages) that exporters sent and that never arrived.
    upstream_lost: "upstream_lost_total",
    /// Messages that were overtaken on their way from the exporter.
    upstream_late: "upstream_late_total",
    /// Exporters that began anew.
    upstream_restarts: "upstream_restarts_total",
    /// Streams whose templates and options came from what was saved before a restart.
    restored_streams: "restored_streams_total",
    /// Streams whose saved templates were not taken, because their exporters began anew.
    outdated_saved_streams: "outdated_saved_streams_total",
}

impl Counters {
    pub(crate) fn error(&mut self, reason: WireReason) {
        *self.errors.entry(reason).or_default() += 1;
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
