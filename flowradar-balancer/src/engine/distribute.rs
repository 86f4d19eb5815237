//! From a message to what each collector gets.

use super::plan::AssignmentUnit;
use super::replay::Sent;
use super::table::{Exporter, Stream, delivery_to};
use super::{Core, Message, Outgoing, Output, Part};
use crate::policy::{BackEndId, UnitKey};
use crate::time::Timestamp;
use crate::wire::build::MessageBuilder;
use crate::wire::sets::{SetKind, Sets};
use crate::wire::sflow::Samples;
use crate::wire::template::TemplateRecords;
use crate::wire::{Header, Protocol, flow_hash, v5};

impl Core {
    /// Sends a message to the collectors of its group.
    pub(super) fn distribute(
        &mut self,
        exporter: &mut Exporter,
        stream: &mut Stream,
        message: &Message<'_>,
        now: Timestamp,
        output: &mut impl Output,
    ) {
        let Some(group) = self.group_index(exporter) else {
            return;
        };
        let Some(unit) = self.groups.get(group).map(|group| group.unit) else {
            return;
        };
        match unit {
            AssignmentUnit::Exporter | AssignmentUnit::Stream => {
                self.send_unsplit(group, exporter, stream, message, now, output);
            }
            AssignmentUnit::Message => self.split_by_message(group, stream, message, now, output),
            AssignmentUnit::Record if message.summary.redefined_after_use => {
                self.split_by_message(group, stream, message, now, output);
            }
            AssignmentUnit::Record => self.split_by_record(group, stream, message, now, output),
        }
    }

    fn send_unsplit(
        &mut self,
        group: usize,
        exporter: &mut Exporter,
        stream: &mut Stream,
        message: &Message<'_>,
        now: Timestamp,
        output: &mut impl Output,
    ) {
        let Some(group) = self.groups.get_mut(group) else {
            return;
        };
        let (unit, key) = match group.unit {
            AssignmentUnit::Exporter => {
                let key = exporter.unit_key();
                (&mut exporter.unit, key)
            }
            _ => {
                let key = stream.unit_key();
                (&mut stream.unit, key)
            }
        };
        let amount = f64::from(message.summary.records.max(1));
        let Some(dispatch) = group.balancer.dispatch(unit, key, amount, now) else {
            self.counters.no_collector += 1;
            return;
        };
        self.counters.moves += u64::from(dispatch.previous.is_some());
        let moved = stream.current != Some(dispatch.back_end);
        stream.current = Some(dispatch.back_end);
        self.send_whole(dispatch.back_end, moved, stream, message, now, output);
    }

    /// Sends a message of a stream that is not split, behind whatever the receiver lacks.
    pub(super) fn send_whole(
        &mut self,
        to: BackEndId,
        moved: bool,
        stream: &mut Stream,
        message: &Message<'_>,
        now: Timestamp,
        output: &mut impl Output,
    ) {
        let memory = self.destination(to).memory;
        let (refresh, message_bytes) = (self.plan.refresh, self.plan.message_bytes);
        let counts_options = self.plan.ipfix_counts_options;
        let Stream {
            cache, deliveries, ..
        } = stream;
        let delivery = delivery_to(deliveries, to, now);
        let has_forgotten = delivery.memory != memory;
        delivery.memory = memory;
        let is_due = now.since(delivery.templates_at) >= refresh;
        let comes_back = moved && delivery.messages > 0;
        let since = if moved || has_forgotten || is_due {
            0
        } else {
            delivery.version
        };
        let upstream = message.header.sequence;
        if since < message.version_before {
            let missing = cache.catch_up(
                since,
                message.version_before,
                message.datagram,
                &message.header,
                message_bytes,
                counts_options,
            );
            let units = missing.iter().map(|message| message.units).sum();
            let mut number = delivery.make_room(upstream, units, comes_back);
            for catch_up in missing {
                output.send(
                    to,
                    Outgoing {
                        bytes: &catch_up.bytes,
                        sequence: Some((message.header.sequence_offset, number)),
                        domain: message.domain_for(to, &self.plan),
                        source: message.source,
                        records: 0,
                    },
                );
                self.counters.catch_up_messages += 1;
                number = number.wrapping_add(catch_up.units);
            }
            delivery.templates_at = now;
        } else if moved {
            delivery.make_room(upstream, 0, comes_back);
        }
        let summary = &message.summary;
        let units = summary.units_sent(message.header.protocol, self.plan.ipfix_counts_options);
        let number = delivery.shifted_number(upstream, units);
        delivery.version = cache.version();
        if summary.templates > 0 {
            delivery.templates_at = now;
        }
        delivery.messages += 1;
        delivery.last_sent = now;
        let sequence = (number != upstream).then_some((message.header.sequence_offset, number));
        self.send_data(
            to,
            stream,
            message,
            message.datagram,
            sequence,
            summary.records,
            now,
            output,
        );
    }

    fn split_by_message(
        &mut self,
        group: usize,
        stream: &mut Stream,
        message: &Message<'_>,
        now: Timestamp,
        output: &mut impl Output,
    ) {
        let summary = &message.summary;
        let Some(balancer) = self.groups.get_mut(group).map(|group| &mut group.balancer) else {
            return;
        };
        let mut chosen = None;
        if summary.has_data() || !summary.has_state() {
            let key = UnitKey::new(
                stream.key.source,
                stream.hash ^ u64::from(message.header.sequence) << 24,
            );
            chosen = balancer.dispatch_once(key, f64::from(summary.records.max(1)), now);
            if chosen.is_none() {
                self.counters.no_collector += 1;
                return;
            }
        }
        if summary.has_state() && !message.is_replay {
            self.begin_parts(group, message);
            self.parts.retain(|part| Some(part.destination) != chosen);
            let mut parts = std::mem::take(&mut self.parts);
            if chosen.is_none() && parts.is_empty() {
                self.counters.no_collector += 1;
            }
            for_each_state_set(
                message,
                stream,
                self.plan.ipfix_counts_options,
                |raw, records, data_records| {
                    for part in &mut parts {
                        part.builder.push_set(raw, records, data_records);
                    }
                },
            );
            self.send_parts(&mut parts, stream, message, now, output);
            self.parts = parts;
        }
        if let Some(to) = chosen {
            self.bring_up_to_date(to, stream, message, now, output);
            let units = summary.units_sent(message.header.protocol, self.plan.ipfix_counts_options);
            let number = self.deliver(to, stream, message, units, now);
            let sequence = Some((message.header.sequence_offset, number));
            let datagram = message.datagram;
            self.send_data(
                to,
                stream,
                message,
                datagram,
                sequence,
                summary.records,
                now,
                output,
            );
        }
    }

    fn split_by_record(
        &mut self,
        group: usize,
        stream: &mut Stream,
        message: &Message<'_>,
        now: Timestamp,
        output: &mut impl Output,
    ) {
        self.begin_parts(group, message);
        let mut parts = std::mem::take(&mut self.parts);
        let Some(balancer) = self.groups.get(group).map(|group| &group.balancer) else {
            return;
        };
        if parts.is_empty() {
            self.counters.no_collector += 1;
            self.parts = parts;
            return;
        }
        let counts_options = self.plan.ipfix_counts_options;
        let stream_hash = UnitKey::new(stream.key.source, stream.hash).hash;
        let mut without_flow = 0;
        // Parts are the back ends that are up, so the choice is among them; the first otherwise.
        let mut place = |parts: &[Part], hash: Option<u64>| {
            without_flow += u64::from(hash.is_none());
            let chosen = balancer.by_hash(hash.unwrap_or(stream_hash), now);
            let known = parts
                .iter()
                .position(|part| Some(part.destination) == chosen);
            known.unwrap_or(0)
        };
        match message.header.protocol {
            Protocol::NetflowV5 => {
                for record in v5::records(message.datagram, &message.header) {
                    let place = place(&parts, flow_hash::of_v5_record(record));
                    parts[place].push(|builder| builder.push_plain(record));
                }
            }
            Protocol::Sflow => {
                for sample in Samples::new(message.datagram, &message.header).map_while(Result::ok)
                {
                    // Counters are about interfaces: they stay with their agent.
                    let hash = if sample.is_flow() {
                        flow_hash::of_sflow_sample(sample.tag, sample.data)
                    } else {
                        Some(stream_hash)
                    };
                    let place = place(&parts, hash);
                    parts[place].push(|builder| builder.push_plain(sample.raw));
                }
            }
            Protocol::NetflowV9 | Protocol::Ipfix => {
                for set in Sets::new(message.datagram, &message.header).map_while(Result::ok) {
                    let SetKind::Data(id) = set.kind else {
                        let templates = templates_in(&message.header, &set);
                        for part in &mut parts {
                            part.builder.push_set(set.raw, templates, 0);
                        }
                        continue;
                    };
                    match stream.cache.template(id) {
                        Some(template) if template.is_options => {
                            let (count, _) = template.count(set.body, set.body_offset);
                            for part in &mut parts {
                                part.builder.push_set(
                                    set.raw,
                                    count,
                                    if counts_options { count } else { 0 },
                                );
                            }
                        }
                        Some(template) => {
                            let records = template.records(set.body, set.body_offset);
                            for record in records.map_while(Result::ok) {
                                let place = place(&parts, template.flow_hash(record));
                                parts[place].push(|builder| {
                                    builder.push_record(
                                        id,
                                        record,
                                        true,
                                        template.shortest_record(),
                                    )
                                });
                            }
                        }
                        None => {
                            let place = place(&parts, Some(stream_hash));
                            // How many records it holds, nobody knows.
                            parts[place].builder.push_set(set.raw, 1, 0);
                            parts[place].has_data = true;
                        }
                    }
                }
            }
        }
        self.counters.records_without_flow += without_flow;
        if message.is_replay {
            // Templates and options are at the others already.
            parts.retain(|part| part.has_data);
        }
        if let Some(group) = self.groups.get_mut(group) {
            for part in &parts {
                group
                    .balancer
                    .account_by_hash(part.destination, f64::from(part.records), now);
            }
        }
        self.send_parts(&mut parts, stream, message, now, output);
        self.parts = parts;
    }

    /// A message under construction for each collector that is up.
    fn begin_parts(&mut self, group: usize, message: &Message<'_>) {
        let Some(balancer) = self.groups.get(group).map(|group| &group.balancer) else {
            return;
        };
        let mut used = 0;
        for destination in balancer.up() {
            if self.parts.len() == used {
                self.parts.push(Part {
                    destination,
                    builder: MessageBuilder::default(),
                    records: 0,
                    has_data: false,
                });
            }
            let part = &mut self.parts[used];
            part.destination = destination;
            part.records = 0;
            part.has_data = false;
            part.builder.begin(message.datagram, &message.header);
            used += 1;
        }
        self.parts.truncate(used);
    }

    fn send_parts(
        &mut self,
        parts: &mut [Part],
        stream: &mut Stream,
        message: &Message<'_>,
        now: Timestamp,
        output: &mut impl Output,
    ) {
        for part in parts {
            if part.builder.is_empty() {
                continue;
            }
            self.bring_up_to_date(part.destination, stream, message, now, output);
            let units = part.builder.units();
            let number = self.deliver(part.destination, stream, message, units, now);
            let bytes = part.builder.finish(number);
            if part.has_data {
                self.send_data(
                    part.destination,
                    stream,
                    message,
                    bytes,
                    None,
                    part.records,
                    now,
                    output,
                );
            } else {
                self.count_sent(part.destination, bytes.len(), 0);
                output.send(
                    part.destination,
                    Outgoing {
                        bytes,
                        sequence: None,
                        domain: message.domain_for(part.destination, &self.plan),
                        source: message.source,
                        records: 0,
                    },
                );
            }
        }
    }

    /// Gives a collector of a split stream the templates and options that it lacks.
    pub(super) fn bring_up_to_date(
        &mut self,
        to: BackEndId,
        stream: &mut Stream,
        message: &Message<'_>,
        now: Timestamp,
        output: &mut impl Output,
    ) {
        let memory = self.destination(to).memory;
        let (refresh, message_bytes) = (self.plan.refresh, self.plan.message_bytes);
        let counts_options = self.plan.ipfix_counts_options;
        let Stream {
            cache, deliveries, ..
        } = stream;
        let delivery = delivery_to(deliveries, to, now);
        let has_forgotten =
            delivery.memory != memory || now.since(delivery.templates_at) >= refresh;
        delivery.memory = memory;
        let since = if has_forgotten { 0 } else { delivery.version };
        if since >= message.version_before {
            return;
        }
        for catch_up in cache.catch_up(
            since,
            message.version_before,
            message.datagram,
            &message.header,
            message_bytes,
            counts_options,
        ) {
            let number = delivery.own_number(message.header.sequence, catch_up.units);
            output.send(
                to,
                Outgoing {
                    bytes: &catch_up.bytes,
                    sequence: Some((message.header.sequence_offset, number)),
                    domain: message.domain_for(to, &self.plan),
                    source: message.source,
                    records: 0,
                },
            );
            self.counters.catch_up_messages += 1;
        }
        delivery.templates_at = now;
        delivery.version = message.version_before;
    }

    /// Takes note that a message of a split stream goes to a collector; its sequence number there.
    pub(super) fn deliver(
        &self,
        to: BackEndId,
        stream: &mut Stream,
        message: &Message<'_>,
        units: u32,
        now: Timestamp,
    ) -> u32 {
        let delivery = delivery_to(&mut stream.deliveries, to, now);
        // All parts of a message carry its templates and options.
        delivery.version = stream.cache.version();
        if message.summary.templates > 0 {
            delivery.templates_at = now;
        }
        delivery.messages += 1;
        delivery.last_sent = now;
        delivery.own_number(message.header.sequence, units)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "what is sent, whose it is, where it goes"
    )]
    fn send_data(
        &mut self,
        to: BackEndId,
        stream: &Stream,
        message: &Message<'_>,
        bytes: &[u8],
        sequence: Option<(usize, u32)>,
        records: u32,
        now: Timestamp,
        output: &mut impl Output,
    ) {
        self.count_sent(to, bytes.len(), records);
        let replay = self.plan.replay;
        if !replay.is_zero() && message.summary.has_data() {
            let oldest = now.as_nanos().saturating_sub(replay.as_nanos() as u64);
            let sent = Sent {
                at: now,
                destination: to,
                stream: stream.key,
                source: message.source,
                bytes: bytes.into(),
            };
            self.counters.replay_overflow +=
                self.replay
                    .keep(sent, Timestamp::from_nanos(oldest), self.plan.replay_bytes);
        }
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

    fn count_sent(&mut self, to: BackEndId, bytes: usize, records: u32) {
        let destination = self.destination(to);
        destination.messages += 1;
        destination.bytes += bytes as u64;
        destination.records += u64::from(records);
    }
}

impl Part {
    fn push(&mut self, push: impl FnOnce(&mut MessageBuilder)) {
        push(&mut self.builder);
        self.records += 1;
        self.has_data = true;
    }
}

/// Calls with each set that all collectors need: its bytes, its records, its data records.
pub(super) fn for_each_state_set(
    message: &Message<'_>,
    stream: &Stream,
    counts_options: bool,
    mut each: impl FnMut(&[u8], u32, u32),
) {
    for set in Sets::new(message.datagram, &message.header).map_while(Result::ok) {
        match set.kind {
            SetKind::Data(id) => {
                if let Some(template) = stream
                    .cache
                    .template(id)
                    .filter(|template| template.is_options)
                {
                    let (count, _) = template.count(set.body, set.body_offset);
                    each(set.raw, count, if counts_options { count } else { 0 });
                }
            }
            _ => each(set.raw, templates_in(&message.header, &set), 0),
        }
    }
}

fn templates_in(header: &Header, set: &crate::wire::sets::Set<'_>) -> u32 {
    let records = TemplateRecords::new(header.protocol, set.kind, set.body, set.body_offset);
    records.map_while(Result::ok).count() as u32
}
