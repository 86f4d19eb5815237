//! What is simulated: the packets of a trace, of several laid over each other, or made-up ones.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use flowradar_balancer::Timestamp;
use flowradar_balancer::dispatch::Packet;

use crate::outcome::CommandError;
use crate::text::{counted, note};
use crate::trace::{InputFormat, TraceError, TraceKey, TraceReader};

/// Packets that are simulated at most: they are kept in memory, some 100 bytes each.
pub(crate) const PACKETS_MAX: u64 = 20_000_000;

/// Packets to dispatch.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    /// By time, from 0 on.
    pub(crate) packets: Vec<(Packet, Timestamp)>,
    /// Whether anything of the trace is missing; it was said.
    pub(crate) is_partial: bool,
    pub(crate) shape: Shape,
}

/// What a scenario's traffic is like.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Shape {
    pub(crate) flows: u64,
    pub(crate) bytes: u64,
    pub(crate) duration: Duration,
    /// Packets of a flow.
    pub(crate) flow_packets_mean: f64,
    /// Standard deviation over mean.
    pub(crate) flow_packets_variation: f64,
    /// Time from a flow's first packet to its last, on average.
    pub(crate) flow_duration_mean: Duration,
    /// Share of the largest flow in all packets.
    pub(crate) largest_flow_share: f64,
}

impl Scenario {
    /// A scenario of packets in any order of time.
    pub(crate) fn new(
        name: String,
        mut packets: Vec<(Packet, Timestamp)>,
        is_partial: bool,
    ) -> Self {
        packets.sort_by_key(|&(_, at)| at);
        let start = packets.first().map_or(Timestamp::ZERO, |&(_, at)| at);
        for (_, at) in &mut packets {
            *at = Timestamp::ZERO + at.since(start);
        }
        let shape = Shape::of(&packets);
        Self {
            name,
            packets,
            is_partial,
            shape,
        }
    }

    /// Reads a trace.
    pub(crate) fn read(
        path: &Path,
        format: InputFormat,
        timestamps: Option<&Path>,
    ) -> Result<Self, CommandError> {
        let name = path.file_name().unwrap_or(path.as_os_str());
        let name = name.to_string_lossy().into_owned();
        let failed = |error: TraceError| CommandError::Failed(error.to_string());
        let mut reader = TraceReader::open(path, format).map_err(failed)?;
        if let Some(timestamps) = timestamps {
            reader = reader.with_timestamps(timestamps).map_err(failed)?;
        }
        let mut read = Read::default();
        let ended = if reader.format() == InputFormat::Tuple13 {
            read.keys(&mut reader)
        } else {
            read.frames(&mut reader)
        };
        let mut is_partial = false;
        if let Err(error) = ended {
            note!("{error}\n{} goes on with the packets before.", name);
            is_partial = true;
        }
        is_partial |= read.tell(&name);
        if read.packets.is_empty() {
            return Err(CommandError::Failed(format!(
                "{}: no IP packets with times; is it the right file?",
                path.display()
            )));
        }
        Ok(Self::new(name, read.packets, is_partial))
    }

    /// Scenarios laid over each other, each from its own beginning.
    pub(crate) fn mixed(scenarios: Vec<Self>) -> Self {
        let names: Vec<&str> = scenarios.iter().map(|each| each.name.as_str()).collect();
        let name = names.join(" + ");
        let is_partial = scenarios.iter().any(|each| each.is_partial);
        let packets = scenarios.into_iter().flat_map(|each| each.packets);
        Self::new(name, packets.collect(), is_partial)
    }

    /// Addresses that began flows, in order.
    pub(crate) fn initiators(&self) -> Vec<IpAddr> {
        let mut seen = HashSet::new();
        let mut initiators: Vec<IpAddr> = vec![];
        for (packet, _) in &self.packets {
            if seen.insert(packet.flow) {
                // A SYN with an acknowledgement is the first packet seen of some flows.
                let is_answer = packet.tcp.is_some_and(|flags| flags.syn() && flags.ack());
                let direction = if is_answer {
                    packet.direction.reversed()
                } else {
                    packet.direction
                };
                initiators.push(packet.flow.source(direction).0);
            }
        }
        initiators.sort_unstable();
        initiators.dedup();
        initiators
    }
}

/// What was read of a trace.
#[derive(Debug, Default)]
struct Read {
    packets: Vec<(Packet, Timestamp)>,
    without_time: u64,
    not_ip: u64,
    malformed: u64,
    unsupported: u64,
    over_limit: u64,
}

impl Read {
    fn frames(&mut self, reader: &mut TraceReader) -> Result<(), TraceError> {
        while let Some(frame) = reader.next_frame()? {
            let Some(link_type) = frame.link_type else {
                self.unsupported += 1;
                continue;
            };
            let Some(timestamp_ns) = frame.timestamp_ns else {
                self.without_time += 1;
                continue;
            };
            match Packet::of_frame(link_type, frame.captured, frame.wire_bytes) {
                Ok(Some(packet)) => self.push(packet, timestamp_ns),
                Ok(None) => self.not_ip += 1,
                Err(_) => self.malformed += 1,
            }
        }
        Ok(())
    }

    fn keys(&mut self, reader: &mut TraceReader) -> Result<(), TraceError> {
        for packet in reader {
            let packet = packet?;
            let Some(timestamp_ns) = packet.timestamp_ns else {
                self.without_time += 1;
                continue;
            };
            let bytes = packet.ip_bytes.unwrap_or(0);
            let packet = match &packet.key {
                TraceKey::V4(key) => Packet::of_key_v4(key, bytes),
                TraceKey::V6(key) => Packet::of_key_v6(key, bytes),
            };
            self.push(packet, timestamp_ns);
        }
        Ok(())
    }

    fn push(&mut self, packet: Packet, timestamp_ns: u64) {
        if (self.packets.len() as u64) < PACKETS_MAX {
            (self.packets).push((packet, Timestamp::from_nanos(timestamp_ns)));
        } else {
            self.over_limit += 1;
        }
    }

    /// Says what is missing; whether anything is that should be there.
    fn tell(&self, name: &str) -> bool {
        let missing = [
            (self.malformed, "malformed or cut off before its addresses"),
            (self.unsupported, "of a link type that is not supported"),
            (self.without_time, "without a time"),
            (self.over_limit, "beyond the limit of 20,000,000"),
        ];
        for (count, what) in missing {
            if count > 0 {
                note!("{name}: left out {} {what}", counted(count, "packet"));
            }
        }
        if self.not_ip > 0 {
            note!("{name}: {} not IP", counted(self.not_ip, "frame"));
        }
        missing.iter().any(|(count, _)| *count > 0)
    }
}

impl Shape {
    fn of(packets: &[(Packet, Timestamp)]) -> Self {
        let mut flows: HashMap<_, (u64, Timestamp, Timestamp)> = HashMap::new();
        for &(packet, at) in packets {
            let flow = flows.entry(packet.flow).or_insert((0, at, at));
            flow.0 += 1;
            flow.2 = at;
        }
        let count = flows.len().max(1) as f64;
        let mean = packets.len() as f64 / count;
        // In a fixed order: sums of fractions depend on it.
        let mut sizes: Vec<u64> = flows.values().map(|flow| flow.0).collect();
        sizes.sort_unstable();
        let squares: f64 = sizes.iter().map(|&size| (size as f64 - mean).powi(2)).sum();
        let durations: u128 = flows
            .values()
            .map(|(_, first, last)| last.since(*first).as_nanos())
            .sum();
        let duration_mean_ns = durations / flows.len().max(1) as u128;
        Self {
            flows: flows.len() as u64,
            bytes: packets
                .iter()
                .map(|(packet, _)| u64::from(packet.ip_bytes))
                .sum(),
            duration: packets
                .last()
                .map_or(Duration::ZERO, |&(_, at)| at.since(Timestamp::ZERO)),
            flow_packets_mean: mean,
            flow_packets_variation: (squares / count).sqrt() / mean.max(f64::MIN_POSITIVE),
            flow_duration_mean: Duration::from_nanos(duration_mean_ns as u64),
            largest_flow_share: sizes.last().copied().unwrap_or(0) as f64
                / packets.len().max(1) as f64,
        }
    }
}
