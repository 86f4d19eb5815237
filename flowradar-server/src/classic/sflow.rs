//! sFlow version 5: each sampled packet is a flow record of one packet.

use std::net::{IpAddr, Ipv4Addr};

use flowradar_collector::analysis::FiveTuple;
use flowradar_core::FlowKey;
use flowradar_core::packet::{IpPacket, LinkType, Parsed, parse};
use sflow_parser::models::core::{Address, FlowData, FlowRecord};
use sflow_parser::models::record_flows::HeaderProtocol;
use sflow_parser::{SampleData, parse_datagram};

use super::{ClassicRecord, ClassicSource, Decoded};

/// Decodes a datagram, received at `now_ns` nanoseconds since 1970: sFlow carries no time of day.
///
/// Of a sample with several descriptions of its packet the first that names a flow counts.
pub fn decode_sflow(datagram: &[u8], now_ns: u64) -> Decoded {
    let mut decoded = Decoded::default();
    let Ok(datagram) = parse_datagram(datagram) else {
        decoded.malformed = true;
        return decoded;
    };
    let exporter = match datagram.agent_address {
        Address::IPv4(address) => address.into(),
        Address::IPv6(address) => address.into(),
        Address::Unknown => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    for sample in datagram.samples {
        let (rate, records) = match sample.sample_data {
            SampleData::FlowSample(sample) => (sample.sampling_rate, sample.flow_records),
            SampleData::FlowSampleExpanded(sample) => (sample.sampling_rate, sample.flow_records),
            _ => continue,
        };
        let Some((flow, bytes)) = records.iter().find_map(sampled_packet) else {
            decoded.other_records += 1;
            continue;
        };
        decoded.records.push(ClassicRecord {
            source: ClassicSource::Sflow,
            exporter,
            flow,
            start_ns: now_ns,
            length_ns: 0,
            packets: 1,
            bytes,
            sampling_rate: (rate > 0).then_some(rate),
        });
    }
    decoded
}

/// Flow and bytes from the IP header on.
fn sampled_packet(record: &FlowRecord) -> Option<(FiveTuple, u64)> {
    match &record.flow_data {
        FlowData::SampledHeader(header) => {
            let link_type = match header.protocol {
                HeaderProtocol::EthernetIso88023 => LinkType::Ethernet,
                HeaderProtocol::Ipv4 => LinkType::RawIpv4,
                HeaderProtocol::Ipv6 => LinkType::RawIpv6,
                _ => return None,
            };
            match parse(link_type, &header.header, header.frame_length) {
                Ok(Parsed::V4(packet)) => Some(flow_of(&packet)),
                Ok(Parsed::V6(packet)) => Some(flow_of(&packet)),
                Ok(Parsed::NotIp { .. }) | Err(_) => None,
            }
        }
        FlowData::SampledIpv4(packet) => {
            let flow = FiveTuple {
                src: packet.src_ip.into(),
                dst: packet.dst_ip.into(),
                src_port: u16::try_from(packet.src_port).ok()?,
                dst_port: u16::try_from(packet.dst_port).ok()?,
                protocol: u8::try_from(packet.protocol).ok()?,
            };
            Some((flow, packet.length.into()))
        }
        FlowData::SampledIpv6(packet) => {
            let flow = FiveTuple {
                src: packet.src_ip.into(),
                dst: packet.dst_ip.into(),
                src_port: u16::try_from(packet.src_port).ok()?,
                dst_port: u16::try_from(packet.dst_port).ok()?,
                protocol: u8::try_from(packet.protocol).ok()?,
            };
            Some((flow, packet.length.into()))
        }
        _ => None,
    }
}

fn flow_of<K: FlowKey>(packet: &IpPacket<K>) -> (FiveTuple, u64) {
    (FiveTuple::from(&packet.key), packet.ip_bytes.into())
}
