//! NetFlow versions 5, 7 and 9, NetStream (which has the same formats), and IPFIX.
//!
//! Templates are kept by exporter address and observation domain, sampling rates from options data
//! likewise (they may come from another port). A record's own sampling rate goes before that of its
//! sampler, and that before the exporter's only one; if an exporter has several and the record names
//! none, its rate is not known.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::LazyLock;

use flowradar_collector::analysis::FiveTuple;
use hashbrown::HashMap;
use netflow_parser::variable_versions::ipfix::lookup::{IANAIPFixField, IPFixField};
use netflow_parser::variable_versions::{ipfix, v9};
use netflow_parser::{AutoScopedParser, FieldValue, NetflowPacket, V9Field};

use super::{ClassicRecord, ClassicSource, Decoded};

/// Exporters (address and domain) whose sampling rates are kept.
const EXPORTERS_MAX: usize = 4096;
/// Samplers of an exporter that are kept.
const SAMPLERS_MAX: usize = 256;

/// Information elements by the number that IANA gives them; NetFlow version 9 has the same.
mod element {
    pub(super) const OCTET_DELTA_COUNT: u16 = 1;
    pub(super) const PACKET_DELTA_COUNT: u16 = 2;
    pub(super) const PROTOCOL_IDENTIFIER: u16 = 4;
    pub(super) const SOURCE_TRANSPORT_PORT: u16 = 7;
    pub(super) const SOURCE_IPV4_ADDRESS: u16 = 8;
    pub(super) const DESTINATION_TRANSPORT_PORT: u16 = 11;
    pub(super) const DESTINATION_IPV4_ADDRESS: u16 = 12;
    pub(super) const FLOW_END_SYS_UP_TIME: u16 = 21;
    pub(super) const FLOW_START_SYS_UP_TIME: u16 = 22;
    pub(super) const POST_OCTET_DELTA_COUNT: u16 = 23;
    pub(super) const POST_PACKET_DELTA_COUNT: u16 = 24;
    pub(super) const SOURCE_IPV6_ADDRESS: u16 = 27;
    pub(super) const DESTINATION_IPV6_ADDRESS: u16 = 28;
    pub(super) const ICMP_TYPE_CODE_IPV4: u16 = 32;
    pub(super) const SAMPLING_INTERVAL: u16 = 34;
    pub(super) const SAMPLER_ID: u16 = 48;
    pub(super) const SAMPLER_RANDOM_INTERVAL: u16 = 50;
    pub(super) const OCTET_TOTAL_COUNT: u16 = 85;
    pub(super) const PACKET_TOTAL_COUNT: u16 = 86;
    pub(super) const ICMP_TYPE_CODE_IPV6: u16 = 139;
    pub(super) const FLOW_START_SECONDS: u16 = 150;
    pub(super) const FLOW_END_SECONDS: u16 = 151;
    pub(super) const FLOW_START_MILLISECONDS: u16 = 152;
    pub(super) const FLOW_END_MILLISECONDS: u16 = 153;
    pub(super) const FLOW_START_MICROSECONDS: u16 = 154;
    pub(super) const FLOW_END_MICROSECONDS: u16 = 155;
    pub(super) const FLOW_START_NANOSECONDS: u16 = 156;
    pub(super) const FLOW_END_NANOSECONDS: u16 = 157;
    pub(super) const SYSTEM_INIT_TIME_MILLISECONDS: u16 = 160;
    pub(super) const INITIATOR_OCTETS: u16 = 231;
    pub(super) const INITIATOR_PACKETS: u16 = 298;
    pub(super) const SELECTOR_ID: u16 = 302;
    pub(super) const SAMPLING_PACKET_INTERVAL: u16 = 305;
    pub(super) const SAMPLING_PACKET_SPACE: u16 = 306;
}

/// Decodes datagrams of any number of exporters. Bounded: the parser keeps 10,000 exporters, and limits
/// what each may make it keep.
#[derive(Debug, Default)]
pub struct NetflowDecoder {
    parser: Parser,
    sampling: HashMap<(IpAddr, u32), Sampling>,
}

#[derive(Default)]
struct Parser(AutoScopedParser);

impl std::fmt::Debug for Parser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parser").finish_non_exhaustive()
    }
}

/// Sampling rates of an exporter.
#[derive(Clone, Debug, Default)]
struct Sampling {
    by_sampler: HashMap<u64, u32>,
    /// The rate of options data that name no sampler.
    common: Option<u32>,
}

/// The message that records come in.
#[derive(Clone, Copy, Debug)]
struct Context {
    source: ClassicSource,
    exporter: IpAddr,
    domain: u32,
    /// When the exporter booted, in milliseconds since 1970, where the message says so.
    boot_ms: Option<u64>,
    now_ns: u64,
}

/// What a record says, of what is looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Fields {
    src: Option<IpAddr>,
    dst: Option<IpAddr>,
    src_port: u16,
    dst_port: u16,
    icmp_type_code: Option<u16>,
    protocol: u8,
    packets: Option<u64>,
    bytes: Option<u64>,
    start_ms: Option<u64>,
    end_ms: Option<u64>,
    start_up_ms: Option<u64>,
    end_up_ms: Option<u64>,
    boot_ms: Option<u64>,
    rate: Option<u32>,
    packet_interval: Option<u64>,
    packet_space: Option<u64>,
    sampler: Option<u64>,
}

impl NetflowDecoder {
    /// Decodes a datagram that came from an address at `now_ns` nanoseconds since 1970.
    pub fn decode(&mut self, from: SocketAddr, datagram: &[u8], now_ns: u64) -> Decoded {
        let result = self.parser.0.parse_from_source(from, datagram);
        let mut decoded = Decoded {
            // The parser says nothing of what it makes nothing of.
            malformed: result.error.is_some() || result.packets.is_empty(),
            ..Decoded::default()
        };
        for packet in result.packets {
            self.packet(&packet, from.ip(), now_ns, &mut decoded);
        }
        decoded
    }

    fn packet(
        &mut self,
        packet: &NetflowPacket,
        exporter: IpAddr,
        now_ns: u64,
        decoded: &mut Decoded,
    ) {
        let context = |source, domain, boot_ms| Context {
            source,
            exporter,
            domain,
            boot_ms,
            now_ns,
        };
        match packet {
            NetflowPacket::V5(packet) => {
                let header = &packet.header;
                let sent_ms =
                    u64::from(header.unix_secs) * 1000 + u64::from(header.unix_nsecs) / 1_000_000;
                let boot_ms = sent_ms.checked_sub(header.sys_up_time.into());
                let context = context(ClassicSource::Netflow5, 0, boot_ms);
                // The first two bits are the mode; 0 or 1 is no sampling.
                let rate = u32::from(header.sampling_interval & 0x3fff);
                for flow in &packet.flowsets {
                    let fields = Fields {
                        src: Some(flow.src_addr.into()),
                        dst: Some(flow.dst_addr.into()),
                        src_port: flow.src_port,
                        dst_port: flow.dst_port,
                        protocol: flow.protocol_number,
                        packets: Some(flow.d_pkts.into()),
                        bytes: Some(flow.d_octets.into()),
                        start_up_ms: Some(flow.first.into()),
                        end_up_ms: Some(flow.last.into()),
                        rate: (rate > 0).then_some(rate),
                        ..Fields::default()
                    };
                    self.record(&fields, &context, decoded);
                }
            }
            NetflowPacket::V7(packet) => {
                let header = &packet.header;
                let sent_ms =
                    u64::from(header.unix_secs) * 1000 + u64::from(header.unix_nsecs) / 1_000_000;
                let boot_ms = sent_ms.checked_sub(header.sys_up_time.into());
                let context = context(ClassicSource::Netflow7, 0, boot_ms);
                for flow in &packet.flowsets {
                    let fields = Fields {
                        src: Some(flow.src_addr.into()),
                        dst: Some(flow.dst_addr.into()),
                        src_port: flow.src_port,
                        dst_port: flow.dst_port,
                        protocol: flow.protocol_number,
                        packets: Some(flow.d_pkts.into()),
                        bytes: Some(flow.d_octets.into()),
                        start_up_ms: Some(flow.first.into()),
                        end_up_ms: Some(flow.last.into()),
                        ..Fields::default()
                    };
                    self.record(&fields, &context, decoded);
                }
            }
            NetflowPacket::V9(packet) => {
                let header = &packet.header;
                let boot_ms =
                    (u64::from(header.unix_secs) * 1000).checked_sub(header.sys_up_time.into());
                let context = context(ClassicSource::Netflow9, header.source_id, boot_ms);
                for set in &packet.flowsets {
                    self.v9_set(&set.body, &context, decoded);
                }
            }
            NetflowPacket::IPFix(packet) => {
                let domain = packet.header.observation_domain_id;
                let context = context(ClassicSource::Ipfix, domain, None);
                for set in &packet.flowsets {
                    self.ipfix_set(&set.body, &context, decoded);
                }
            }
            _ => decoded.other_records += 1,
        }
    }

    fn v9_set(&mut self, set: &v9::FlowSetBody, context: &Context, decoded: &mut Decoded) {
        match set {
            v9::FlowSetBody::Data(data) => {
                decoded.other_records += u64::from(data.fields.is_empty());
                for record in &data.fields {
                    self.record(&v9_fields(record), context, decoded);
                }
            }
            v9::FlowSetBody::OptionsData(data) => {
                for record in &data.fields {
                    self.options(&v9_fields(&record.options_fields), context);
                }
            }
            v9::FlowSetBody::NoTemplate(_) => decoded.without_template += 1,
            v9::FlowSetBody::Empty => decoded.other_records += 1,
            _ => {}
        }
    }

    fn ipfix_set(&mut self, set: &ipfix::FlowSetBody, context: &Context, decoded: &mut Decoded) {
        match set {
            ipfix::FlowSetBody::Data(data) => {
                decoded.other_records += u64::from(data.fields.is_empty());
                for record in &data.fields {
                    self.record(&ipfix_fields(record), context, decoded);
                }
            }
            ipfix::FlowSetBody::OptionsData(data) => {
                for record in &data.fields {
                    self.options(&ipfix_fields(record), context);
                }
            }
            ipfix::FlowSetBody::V9Data(data) => {
                for record in &data.fields {
                    self.record(&v9_fields(record), context, decoded);
                }
            }
            ipfix::FlowSetBody::NoTemplate(_) => decoded.without_template += 1,
            ipfix::FlowSetBody::Empty => decoded.other_records += 1,
            _ => {}
        }
    }

    /// Takes a sampling rate from options data, if there is one.
    fn options(&mut self, fields: &Fields, context: &Context) {
        let Some(rate) = fields.rate() else {
            return;
        };
        let exporter = (context.exporter, context.domain);
        if self.sampling.len() >= EXPORTERS_MAX && !self.sampling.contains_key(&exporter) {
            return;
        }
        let sampling = self.sampling.entry(exporter).or_default();
        match fields.sampler {
            Some(sampler)
                if sampling.by_sampler.len() < SAMPLERS_MAX
                    || sampling.by_sampler.contains_key(&sampler) =>
            {
                sampling.by_sampler.insert(sampler, rate);
            }
            Some(_) => {}
            None => sampling.common = Some(rate),
        }
    }

    fn record(&self, fields: &Fields, context: &Context, decoded: &mut Decoded) {
        let (Some(src), Some(dst)) = (fields.src, fields.dst) else {
            decoded.other_records += 1;
            return;
        };
        let rate = fields.rate().or_else(|| {
            self.sampling
                .get(&(context.exporter, context.domain))?
                .of(fields.sampler)
        });
        let boot_ms = fields.boot_ms.or(context.boot_ms);
        let absolute = |ms: Option<u64>, up_ms: Option<u64>| {
            ms.or_else(|| Some(up_time_ms(boot_ms?, up_ms?, context.now_ns / 1_000_000)))
        };
        let start_ms = absolute(fields.start_ms, fields.start_up_ms);
        let end_ms = absolute(fields.end_ms, fields.end_up_ms);
        let ns = |ms: u64| ms.saturating_mul(1_000_000);
        let start_ns = start_ms.or(end_ms).map_or(context.now_ns, ns);
        let end_ns = end_ms.map_or(start_ns, ns);
        decoded.records.push(ClassicRecord {
            source: context.source,
            exporter: context.exporter,
            flow: FiveTuple {
                src,
                dst,
                src_port: fields.src_port,
                dst_port: fields.icmp_type_code.unwrap_or(fields.dst_port),
                protocol: fields.protocol,
            },
            start_ns,
            length_ns: end_ns.saturating_sub(start_ns),
            packets: fields.packets.unwrap_or(0),
            bytes: fields.bytes.unwrap_or(0),
            sampling_rate: rate,
        });
    }
}

impl Sampling {
    fn of(&self, sampler: Option<u64>) -> Option<u32> {
        if let Some(rate) = sampler.and_then(|sampler| self.by_sampler.get(&sampler)) {
            return Some(*rate);
        }
        if sampler.is_some() || self.common.is_some() {
            return self.common;
        }
        let mut rates = self.by_sampler.values();
        let first = rates.next()?;
        rates.all(|rate| rate == first).then_some(*first)
    }
}

impl Fields {
    /// One packet of so many, in whichever way it is said.
    fn rate(&self) -> Option<u32> {
        if let Some(rate) = self.rate.filter(|rate| *rate > 0) {
            return Some(rate);
        }
        let interval = self.packet_interval.filter(|interval| *interval > 0)?;
        let of = interval.saturating_add(self.packet_space.unwrap_or(0));
        u32::try_from(of / interval).ok()
    }

    fn take(&mut self, number: u16, value: &FieldValue) {
        let short = || unsigned(value).and_then(|value| u16::try_from(value).ok());
        let rate = || unsigned(value).and_then(|value| u32::try_from(value).ok());
        match number {
            element::SOURCE_IPV4_ADDRESS | element::SOURCE_IPV6_ADDRESS => {
                set_address(&mut self.src, value);
            }
            element::DESTINATION_IPV4_ADDRESS | element::DESTINATION_IPV6_ADDRESS => {
                set_address(&mut self.dst, value);
            }
            element::SOURCE_TRANSPORT_PORT => self.src_port = short().unwrap_or(0),
            element::DESTINATION_TRANSPORT_PORT => self.dst_port = short().unwrap_or(0),
            element::ICMP_TYPE_CODE_IPV4 | element::ICMP_TYPE_CODE_IPV6 => {
                self.icmp_type_code = short().filter(|code| *code > 0);
            }
            element::PROTOCOL_IDENTIFIER => {
                self.protocol = short()
                    .and_then(|number| number.try_into().ok())
                    .unwrap_or(0);
            }
            element::PACKET_DELTA_COUNT
            | element::POST_PACKET_DELTA_COUNT
            | element::PACKET_TOTAL_COUNT
            | element::INITIATOR_PACKETS => set_first(&mut self.packets, value),
            element::OCTET_DELTA_COUNT
            | element::POST_OCTET_DELTA_COUNT
            | element::OCTET_TOTAL_COUNT
            | element::INITIATOR_OCTETS => set_first(&mut self.bytes, value),
            element::FLOW_START_SYS_UP_TIME => self.start_up_ms = milliseconds(value, 1),
            element::FLOW_END_SYS_UP_TIME => self.end_up_ms = milliseconds(value, 1),
            element::FLOW_START_SECONDS => self.start_ms = milliseconds(value, 1000),
            element::FLOW_END_SECONDS => self.end_ms = milliseconds(value, 1000),
            element::FLOW_START_MILLISECONDS
            | element::FLOW_START_MICROSECONDS
            | element::FLOW_START_NANOSECONDS => self.start_ms = milliseconds(value, 1),
            element::FLOW_END_MILLISECONDS
            | element::FLOW_END_MICROSECONDS
            | element::FLOW_END_NANOSECONDS => self.end_ms = milliseconds(value, 1),
            element::SYSTEM_INIT_TIME_MILLISECONDS => self.boot_ms = milliseconds(value, 1),
            element::SAMPLING_INTERVAL | element::SAMPLER_RANDOM_INTERVAL => self.rate = rate(),
            element::SAMPLING_PACKET_INTERVAL => self.packet_interval = unsigned(value),
            element::SAMPLING_PACKET_SPACE => self.packet_space = unsigned(value),
            element::SAMPLER_ID | element::SELECTOR_ID => self.sampler = unsigned(value),
            _ => {}
        }
    }
}

/// The wanted elements by the parser's names.
static IPFIX_NUMBERS: LazyLock<HashMap<IANAIPFixField, u16>> = LazyLock::new(|| {
    (1..=element::SAMPLING_PACKET_SPACE)
        .map(|number| (IANAIPFixField::from(number), number))
        .collect()
});

fn v9_fields(record: &[(V9Field, FieldValue)]) -> Fields {
    let mut fields = Fields::default();
    for (field, value) in record {
        fields.take(u16::from(*field), value);
    }
    fields
}

fn ipfix_fields(record: &[(IPFixField, FieldValue)]) -> Fields {
    let mut fields = Fields::default();
    for (field, value) in record {
        if let IPFixField::IANA(field) = field
            && let Some(number) = IPFIX_NUMBERS.get(field)
        {
            fields.take(*number, value);
        }
    }
    fields
}

/// The first that is not zero counts: records may have an address or counter in several ways.
fn set_address(address: &mut Option<IpAddr>, value: &FieldValue) {
    let found = match value {
        FieldValue::Ip4Addr(found) => IpAddr::V4(*found),
        FieldValue::Ip6Addr(found) => IpAddr::V6(*found),
        _ => return,
    };
    let none = [
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    ];
    if address.is_none_or(|address| none.contains(&address)) {
        *address = Some(found);
    }
}

fn set_first(counter: &mut Option<u64>, value: &FieldValue) {
    if counter.is_none_or(|counter| counter == 0) {
        *counter = unsigned(value).or(*counter);
    }
}

fn unsigned(value: &FieldValue) -> Option<u64> {
    match value {
        FieldValue::DataNumber(number) => number.as_u64(),
        FieldValue::ProtocolType(protocol) => Some(u8::from(*protocol).into()),
        FieldValue::Duration(duration) => u64::try_from(duration.as_duration().as_millis()).ok(),
        FieldValue::Vec(bytes) if bytes.len() <= 8 => Some(
            bytes
                .iter()
                .fold(0, |value, byte| value << 8 | u64::from(*byte)),
        ),
        _ => None,
    }
}

/// A time in milliseconds; the parser knows the unit of most.
fn milliseconds(value: &FieldValue, unit_ms: u64) -> Option<u64> {
    match value {
        FieldValue::Duration(_) => unsigned(value),
        other => unsigned(other)?.checked_mul(unit_ms),
    }
}

/// Milliseconds since 1970 of a time since boot, which wraps every 49 days: the one not after now.
fn up_time_ms(boot_ms: u64, up_ms: u64, now_ms: u64) -> u64 {
    let time = boot_ms.saturating_add(up_ms);
    // An hour for clocks that are off.
    if time > now_ms.saturating_add(3_600_000) {
        time.checked_sub(1 << 32).unwrap_or(time)
    } else {
        time
    }
}
