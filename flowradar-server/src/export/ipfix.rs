//! IPFIX messages (RFC 7011) of decoded flows, with information elements of IANA's registry (RFC 7012).
//!
//! Each record has the flow key, packets, bytes where they are counted, begin and end in milliseconds,
//! the observation point (the switch, by a number of its own) and the exporter's address. An options
//! record names the switch of each observation point (`observationPointId` → `interfaceName`, as no
//! element names an observation point).

use std::collections::HashMap;
use std::net::IpAddr;

use flowradar_collector::analysis::FlowRecord;

use crate::epoch::DecodedEpoch;

/// Messages over UDP: fit into an Ethernet frame, whatever tunnels add.
pub const UDP_MESSAGE_BYTES: usize = 1400;
/// Messages over TCP.
pub const TCP_MESSAGE_BYTES: usize = 32 << 10;

const VERSION: u16 = 10;
const HEADER_BYTES: usize = 16;
const SET_HEADER_BYTES: usize = 4;
const TEMPLATE_SET: u16 = 2;
const OPTIONS_TEMPLATE_SET: u16 = 3;
const TEMPLATE_V4: u16 = 256;
const TEMPLATE_V6: u16 = 257;
const TEMPLATE_V4_WITHOUT_BYTES: u16 = 258;
const TEMPLATE_V6_WITHOUT_BYTES: u16 = 259;
const TEMPLATE_OPTIONS: u16 = 260;
/// Switches whose names are sent at most; more are numbered all the same.
const POINTS_NAMED_MAX: usize = 4096;
const NAME_BYTES_MAX: usize = 128;

/// Information elements and their lengths, by the number that IANA gives them.
mod element {
    pub(super) const OCTET_DELTA_COUNT: (u16, u16) = (1, 8);
    pub(super) const PACKET_DELTA_COUNT: (u16, u16) = (2, 8);
    pub(super) const PROTOCOL_IDENTIFIER: (u16, u16) = (4, 1);
    pub(super) const SOURCE_TRANSPORT_PORT: (u16, u16) = (7, 2);
    pub(super) const SOURCE_IPV4_ADDRESS: (u16, u16) = (8, 4);
    pub(super) const DESTINATION_TRANSPORT_PORT: (u16, u16) = (11, 2);
    pub(super) const DESTINATION_IPV4_ADDRESS: (u16, u16) = (12, 4);
    pub(super) const SOURCE_IPV6_ADDRESS: (u16, u16) = (27, 16);
    pub(super) const DESTINATION_IPV6_ADDRESS: (u16, u16) = (28, 16);
    pub(super) const INTERFACE_NAME: (u16, u16) = (82, 65535);
    pub(super) const EXPORTER_IPV4_ADDRESS: (u16, u16) = (130, 4);
    pub(super) const EXPORTER_IPV6_ADDRESS: (u16, u16) = (131, 16);
    pub(super) const OBSERVATION_POINT_ID: (u16, u16) = (138, 4);
    pub(super) const FLOW_START_MILLISECONDS: (u16, u16) = (152, 8);
    pub(super) const FLOW_END_MILLISECONDS: (u16, u16) = (153, 8);
}

/// What messages are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExporterOptions {
    /// Observation domain.
    pub domain: u32,
    /// Exporter's address in every record, if any.
    pub exporter: Option<IpAddr>,
    /// Largest message.
    pub message_bytes_max: usize,
}

/// Makes messages.
#[derive(Clone, Debug)]
pub struct Exporter {
    options: ExporterOptions,
    /// Data records sent in this session, modulo 2³².
    sequence: u32,
    templates_due: bool,
    /// Number of each switch.
    points: HashMap<String, u32>,
    points_named: usize,
}

impl Exporter {
    /// An exporter that has sent nothing.
    pub fn new(options: ExporterOptions) -> Self {
        Self {
            options,
            sequence: 0,
            templates_due: true,
            points: HashMap::new(),
            points_named: 0,
        }
    }

    /// A new connection: the sequence begins anew, and templates come first.
    pub fn begin_session(&mut self) {
        self.sequence = 0;
        self.repeat_templates();
    }

    /// Sends templates and switches' names again before the next record.
    pub fn repeat_templates(&mut self) {
        self.templates_due = true;
        self.points_named = 0;
    }

    /// The messages for an epoch. The flows' end is the epoch's.
    pub fn messages(&mut self, epoch: &DecodedEpoch, export_seconds: u32) -> Vec<Vec<u8>> {
        for switch in &epoch.switches {
            let next = self.points.len() as u32 + 1;
            self.points.entry(switch.switch.clone()).or_insert(next);
        }
        let mut writer = MessageWriter::new(self.options, export_seconds, self.sequence);
        if self.templates_due {
            self.templates_due = false;
            writer.templates(self.options.exporter);
        }
        if self.points_named < self.points.len() {
            let mut points: Vec<_> = self.points.iter().collect();
            points.sort_by_key(|(_, point)| **point);
            for (name, point) in points
                .into_iter()
                .skip(self.points_named)
                .take(POINTS_NAMED_MAX)
            {
                writer.name(*point, name);
            }
            self.points_named = self.points.len();
        }
        let start_ms = epoch.time_ns / 1_000_000;
        let end_ms = (epoch.time_ns.saturating_add(epoch.length_ns)) / 1_000_000;
        for switch in &epoch.switches {
            let point = self.points.get(&switch.switch).copied().unwrap_or_default();
            for flow in &switch.flows {
                writer.flow(flow, point, start_ms, end_ms, self.options.exporter);
            }
        }
        let (messages, sequence) = writer.finish();
        self.sequence = sequence;
        messages
    }
}

/// Fills messages with sets and records.
struct MessageWriter {
    options: ExporterOptions,
    export_seconds: u32,
    sequence: u32,
    messages: Vec<Vec<u8>>,
    /// The message being filled, and where its last set begins.
    message: Vec<u8>,
    set: Option<(u16, usize)>,
    records: u32,
    record: Vec<u8>,
}

impl MessageWriter {
    fn new(options: ExporterOptions, export_seconds: u32, sequence: u32) -> Self {
        Self {
            options,
            export_seconds,
            sequence,
            messages: vec![],
            message: vec![],
            set: None,
            records: 0,
            record: vec![],
        }
    }

    fn templates(&mut self, exporter: Option<IpAddr>) {
        let v4 = [
            element::SOURCE_IPV4_ADDRESS,
            element::DESTINATION_IPV4_ADDRESS,
        ];
        let v6 = [
            element::SOURCE_IPV6_ADDRESS,
            element::DESTINATION_IPV6_ADDRESS,
        ];
        for (id, addresses, counts_bytes) in [
            (TEMPLATE_V4, v4, true),
            (TEMPLATE_V6, v6, true),
            (TEMPLATE_V4_WITHOUT_BYTES, v4, false),
            (TEMPLATE_V6_WITHOUT_BYTES, v6, false),
        ] {
            let mut fields = addresses.to_vec();
            fields.extend([
                element::SOURCE_TRANSPORT_PORT,
                element::DESTINATION_TRANSPORT_PORT,
                element::PROTOCOL_IDENTIFIER,
                element::PACKET_DELTA_COUNT,
            ]);
            fields.extend(counts_bytes.then_some(element::OCTET_DELTA_COUNT));
            fields.extend([
                element::FLOW_START_MILLISECONDS,
                element::FLOW_END_MILLISECONDS,
                element::OBSERVATION_POINT_ID,
            ]);
            fields.extend(exporter.map(|address| match address {
                IpAddr::V4(_) => element::EXPORTER_IPV4_ADDRESS,
                IpAddr::V6(_) => element::EXPORTER_IPV6_ADDRESS,
            }));
            self.record.clear();
            put16(&mut self.record, id);
            put16(&mut self.record, fields.len() as u16);
            for (number, length) in fields {
                put16(&mut self.record, number);
                put16(&mut self.record, length);
            }
            self.put(TEMPLATE_SET);
        }
        self.record.clear();
        put16(&mut self.record, TEMPLATE_OPTIONS);
        put16(&mut self.record, 2);
        // One of them is the scope.
        put16(&mut self.record, 1);
        for (number, length) in [element::OBSERVATION_POINT_ID, element::INTERFACE_NAME] {
            put16(&mut self.record, number);
            put16(&mut self.record, length);
        }
        self.put(OPTIONS_TEMPLATE_SET);
    }

    fn name(&mut self, point: u32, name: &str) {
        let name = &name.as_bytes()[..name.len().min(NAME_BYTES_MAX)];
        self.record.clear();
        self.record.extend_from_slice(&point.to_be_bytes());
        self.record.push(name.len() as u8);
        self.record.extend_from_slice(name);
        self.put(TEMPLATE_OPTIONS);
    }

    fn flow(
        &mut self,
        flow: &FlowRecord,
        point: u32,
        start_ms: u64,
        end_ms: u64,
        exporter: Option<IpAddr>,
    ) {
        self.record.clear();
        let template = match (flow.flow.src, flow.bytes) {
            (IpAddr::V4(_), Some(_)) => TEMPLATE_V4,
            (IpAddr::V6(_), Some(_)) => TEMPLATE_V6,
            (IpAddr::V4(_), None) => TEMPLATE_V4_WITHOUT_BYTES,
            (IpAddr::V6(_), None) => TEMPLATE_V6_WITHOUT_BYTES,
        };
        put_address(&mut self.record, flow.flow.src);
        put_address(&mut self.record, flow.flow.dst);
        put16(&mut self.record, flow.flow.src_port);
        put16(&mut self.record, flow.flow.dst_port);
        self.record.push(flow.flow.protocol);
        let bytes = flow.bytes.map(|bytes| bytes.value);
        let counters = [
            Some(flow.packets.value),
            bytes,
            Some(start_ms),
            Some(end_ms),
        ];
        for value in counters.into_iter().flatten() {
            self.record.extend_from_slice(&value.to_be_bytes());
        }
        self.record.extend_from_slice(&point.to_be_bytes());
        if let Some(exporter) = exporter {
            put_address(&mut self.record, exporter);
        }
        self.put(template);
    }

    /// Puts the record into a set, in a new message if it does not fit into this one.
    fn put(&mut self, set: u16) {
        let same = self.set.is_some_and(|(id, _)| id == set);
        let needed = self.record.len() + if same { 0 } else { SET_HEADER_BYTES };
        if !self.message.is_empty() && self.message.len() + needed > self.options.message_bytes_max
        {
            self.end_message();
        }
        if self.message.is_empty() {
            self.message.resize(HEADER_BYTES, 0);
        }
        if self.set.is_none_or(|(id, _)| id != set) {
            self.end_set();
            self.set = Some((set, self.message.len()));
            put16(&mut self.message, set);
            put16(&mut self.message, 0);
        }
        self.message.extend_from_slice(&self.record);
        self.records += u32::from(set >= 256);
    }

    fn end_set(&mut self) {
        if let Some((_, begin)) = self.set.take() {
            let length = (self.message.len() - begin) as u16;
            self.message[begin + 2..begin + 4].copy_from_slice(&length.to_be_bytes());
        }
    }

    fn end_message(&mut self) {
        self.end_set();
        if self.message.is_empty() {
            return;
        }
        let mut message = std::mem::take(&mut self.message);
        let length = message.len() as u16;
        message[0..2].copy_from_slice(&VERSION.to_be_bytes());
        message[2..4].copy_from_slice(&length.to_be_bytes());
        message[4..8].copy_from_slice(&self.export_seconds.to_be_bytes());
        message[8..12].copy_from_slice(&self.sequence.to_be_bytes());
        message[12..16].copy_from_slice(&self.options.domain.to_be_bytes());
        // The next message's: data records sent before it (RFC 7011 section 3.1).
        self.sequence = self
            .sequence
            .wrapping_add(std::mem::take(&mut self.records));
        self.messages.push(message);
    }

    fn finish(mut self) -> (Vec<Vec<u8>>, u32) {
        self.end_message();
        (self.messages, self.sequence)
    }
}

fn put16(bytes: &mut Vec<u8>, value: u16) {
    bytes.extend_from_slice(&value.to_be_bytes());
}

fn put_address(bytes: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => bytes.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => bytes.extend_from_slice(&address.octets()),
    }
}

#[cfg(test)]
mod tests {
    use flowradar_collector::analysis::FiveTuple;
    use flowradar_core::Counter;
    use netflow_parser::variable_versions::ipfix::FlowSetBody;
    use netflow_parser::{NetflowPacket, NetflowParser};

    use super::*;
    use crate::epoch::{GroupId, Quality, SwitchOutcome};

    fn flow(number: u16, v6: bool, bytes: Option<u64>) -> FlowRecord {
        let [src, dst]: [IpAddr; 2] = if v6 {
            [
                [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(),
                [0x2001, 0xdb8, 0, 0, 0, 0, 0, 2].into(),
            ]
        } else {
            [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()]
        };
        FlowRecord {
            flow: FiveTuple {
                src,
                dst,
                src_port: number,
                dst_port: 443,
                protocol: 6,
            },
            packets: Counter::exact(number.into()),
            bytes: bytes.map(Counter::exact),
        }
    }

    fn epoch(flows: Vec<FlowRecord>) -> DecodedEpoch {
        DecodedEpoch {
            group: GroupId(1),
            revision: 0,
            epoch: 1,
            time_ns: 1_700_000_000_000_000_000,
            length_ns: 1_000_000_000,
            quality: Quality::Network,
            too_late: false,
            implausible: false,
            may_be_stored: false,
            missing: vec![],
            switches: vec![SwitchOutcome {
                switch: "leaf-1".into(),
                flows,
                all_v4: true,
                all_v6: true,
                flows_not_found: 0,
                flows_unconfirmed: 0,
                failure: None,
            }],
            decode_ns: 0,
        }
    }

    /// What another implementation reads: sequence numbers, data records and options records.
    fn read(messages: &[Vec<u8>]) -> (Vec<u32>, Vec<usize>, usize) {
        let mut parser = NetflowParser::default();
        let (mut sequences, mut records, mut options) = (vec![], vec![], 0);
        for message in messages {
            let result = parser.parse_bytes(message);
            assert!(result.is_ok(), "{:?}", result.error);
            let [NetflowPacket::IPFix(packet)] = &result.packets[..] else {
                panic!("{:?}", result.packets);
            };
            assert_eq!(usize::from(packet.header.length), message.len());
            sequences.push(packet.header.sequence_number);
            let mut count = 0;
            for set in &packet.flowsets {
                match &set.body {
                    FlowSetBody::Data(data) => count += data.fields.len(),
                    FlowSetBody::OptionsData(data) => options += data.fields.len(),
                    FlowSetBody::NoTemplate(_) => panic!("data before its template"),
                    _ => {}
                }
            }
            records.push(count);
        }
        (sequences, records, options)
    }

    #[test]
    fn another_implementation_reads_all_records_in_sequence() {
        for (message_bytes_max, exporter) in [
            (UDP_MESSAGE_BYTES, None),
            (TCP_MESSAGE_BYTES, Some([192, 0, 2, 9].into())),
        ] {
            let mut exporter = Exporter::new(ExporterOptions {
                domain: 7,
                exporter,
                message_bytes_max,
            });
            let flows = (1..=1_000).map(|n| flow(n, n % 3 == 0, (n % 2 == 0).then_some(100)));
            let mut messages = exporter.messages(&epoch(flows.collect()), 1_700_000_001);
            messages.extend(exporter.messages(&epoch(vec![flow(9, false, None)]), 1_700_000_002));
            exporter.repeat_templates();
            messages.extend(exporter.messages(&epoch(vec![flow(9, true, None)]), 1_700_000_003));
            assert!(
                messages
                    .iter()
                    .all(|message| message.len() <= message_bytes_max)
            );
            let (sequences, records, options) = read(&messages);
            assert_eq!(records.iter().sum::<usize>(), 1_002);
            // The name of the switch, in the beginning and with the templates again.
            assert_eq!(options, 2);
            let mut sent = 0;
            for (message, (sequence, records)) in sequences.iter().zip(&records).enumerate() {
                assert_eq!(*sequence, sent, "message {message}");
                // Options records are data records, too (RFC 7011 section 3.1).
                let named = usize::from(message == 0 || message == messages.len() - 1);
                sent += (records + named) as u32;
            }
        }
    }
}
