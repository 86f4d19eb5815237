//! Copies for other collectors and vendors.

use super::distribute::for_each_state_set;
use super::table::{Exporter, Stream};
use super::{Core, Message, Outgoing, Output};
use crate::time::Timestamp;
use crate::wire::build::MessageBuilder;

impl Core {
    /// Sends a message to all who want a copy.
    ///
    /// A whole copy is what the exporter sent, as if it had sent it there. A copy of one in N is a
    /// split stream with sequence numbers of its own: nobody mistakes what was left out for a loss.
    pub(super) fn copy(
        &mut self,
        exporter: &Exporter,
        stream: &mut Stream,
        message: &Message<'_>,
        now: Timestamp,
        output: &mut impl Output,
    ) {
        if self.plan.copies.is_empty() {
            return;
        }
        let summary = &message.summary;
        let has_data = summary.has_data() || !summary.has_state();
        for index in 0..self.plan.copies.len() {
            let Some(copy) = self.plan.copies.get(index) else {
                continue;
            };
            if !copy.wants(exporter.address, message.header.protocol) {
                continue;
            }
            let (to, one_in) = (copy.destination, u64::from(copy.one_in.max(1)));
            if one_in == 1 {
                let is_first = !stream
                    .deliveries
                    .iter()
                    .any(|delivery| delivery.destination == to);
                self.send_whole(to, is_first, stream, message, now, output);
            } else if has_data && stream.data_messages.is_multiple_of(one_in) {
                self.bring_up_to_date(to, stream, message, now, output);
                let units =
                    summary.units_sent(message.header.protocol, self.plan.ipfix_counts_options);
                let number = self.deliver(to, stream, message, units, now);
                let sequence = Some((message.header.sequence_offset, number));
                self.send_copy(
                    to,
                    message.datagram,
                    sequence,
                    summary.records,
                    message,
                    output,
                );
            } else {
                self.counters.copies_thinned += u64::from(has_data);
                if summary.has_state() {
                    let mut builder = MessageBuilder::default();
                    builder.begin(message.datagram, &message.header);
                    for_each_state_set(
                        message,
                        stream,
                        self.plan.ipfix_counts_options,
                        |raw, records, data_records| {
                            builder.push_set(raw, records, data_records);
                        },
                    );
                    self.bring_up_to_date(to, stream, message, now, output);
                    let number = self.deliver(to, stream, message, builder.units(), now);
                    self.send_copy(to, builder.finish(number), None, 0, message, output);
                }
            }
        }
        stream.data_messages += u64::from(has_data);
    }

    fn send_copy(
        &mut self,
        to: crate::policy::BackEndId,
        bytes: &[u8],
        sequence: Option<(usize, u32)>,
        records: u32,
        message: &Message<'_>,
        output: &mut impl Output,
    ) {
        let destination = self.destination(to);
        destination.messages += 1;
        destination.bytes += bytes.len() as u64;
        destination.records += u64::from(records);
        output.send(
            to,
            Outgoing {
                bytes,
                sequence,
                domain: message.domain_for(to, &self.plan),
                source: message.source,
                records,
            },
        );
    }
}
