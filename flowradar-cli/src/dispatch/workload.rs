//! Traffic to try policies on: made up, or from a list of flow sizes.
//!
//! Flows are TCP connections as a server's side of a web makes them: a handshake, a request, and a
//! response that comes in windows, one a round trip, which double from ten packets up to a width
//! that is the connection's own; each second packet is acknowledged.

use std::net::Ipv4Addr;
use std::time::Duration;

use flowradar_balancer::Timestamp;
use flowradar_balancer::dispatch::{Packet, TcpFlags};
use flowradar_core::FlowKeyV4;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

const SYN: TcpFlags = TcpFlags::from_bits(0x02);
const SYN_ACK: TcpFlags = TcpFlags::from_bits(0x12);
const ACK: TcpFlags = TcpFlags::from_bits(0x10);
const FIN_ACK: TcpFlags = TcpFlags::from_bits(0x11);

/// Bytes of a full packet, of what it carries, and of a packet that carries nothing.
const FULL_BYTES: u32 = 1500;
const SEGMENT_BYTES: u64 = 1448;
const EMPTY_BYTES: u32 = 52;
const REQUEST_BYTES: u32 = 400;
/// RFC 6928.
const INITIAL_WINDOW: u64 = 10;
/// Sizes above are artefacts of sequence gaps in the lists that the project knows.
const FLOW_BYTES_MAX: u64 = 1_000_000_000;

/// Made-up traffic of a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Workload {
    /// Many short connections of nearly the same size
    Web,
    /// Few long connections whose sizes follow a power law
    Bulk,
    /// Both together
    Mixed,
    /// Short connections and one that has most of all packets
    Elephant,
}

impl Workload {
    /// The name as on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Bulk => "bulk",
            Self::Mixed => "mixed",
            Self::Elephant => "elephant",
        }
    }

    /// The packets, by time.
    pub(crate) fn packets(self, seed: u64) -> Vec<(Packet, Timestamp)> {
        let mut traffic = Traffic::new(seed);
        match self {
            Self::Web => traffic.web(4_000),
            Self::Bulk => traffic.bulk(300),
            Self::Mixed => {
                traffic.web(2_000);
                traffic.bulk(150);
            }
            Self::Elephant => {
                traffic.web(2_000);
                traffic.elephant();
            }
        }
        traffic.finish()
    }
}

/// What was made of a list of flow sizes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ListedFlows {
    pub(crate) packets: Vec<(Packet, Timestamp)>,
    /// Flows used.
    pub(crate) flows: u64,
    /// Flows of the list that were passed over to stay within the limit: all but one of so many.
    pub(crate) one_of: u64,
    /// Flows left out because their sizes cannot be true.
    pub(crate) too_large: u64,
    /// Lines that are no flow.
    pub(crate) unreadable_lines: u64,
}

/// Packets of a list with a flow a line: milliseconds since the flow before, protocol, bytes. Takes
/// as few of the flows as make at most `packets_max` packets, evenly.
pub(crate) fn from_flow_list(text: &str, packets_max: u64, seed: u64) -> ListedFlows {
    let mut unreadable_lines = 0;
    let mut too_large = 0;
    let mut at_ms = 0.0;
    let mut flows = vec![];
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let mut fields = line.split_whitespace();
        let pause: Option<f64> = fields.next().and_then(|field| field.parse().ok());
        let bytes: Option<u64> = fields.nth(1).and_then(|field| field.parse().ok());
        let (Some(pause), Some(bytes)) = (pause.filter(|ms| *ms >= 0.0 && *ms < 1e9), bytes) else {
            unreadable_lines += 1;
            continue;
        };
        at_ms += pause;
        if bytes >= FLOW_BYTES_MAX {
            too_large += 1;
        } else {
            flows.push((Timestamp::from_nanos((at_ms * 1e6) as u64), bytes));
        }
    }
    let all: u64 = flows.iter().map(|(_, bytes)| packets_of(*bytes)).sum();
    let one_of = all.div_ceil(packets_max.max(1)).max(1);
    let mut traffic = Traffic::new(seed);
    let mut used = 0;
    let mut left = packets_max;
    for (at, bytes) in flows.into_iter().step_by(one_of as usize) {
        // One giant alone may be more than the limit.
        let Some(rest) = left.checked_sub(packets_of(bytes)) else {
            too_large += 1;
            continue;
        };
        left = rest;
        let window = 10 << traffic.below(4);
        traffic.connection(at, bytes.div_ceil(SEGMENT_BYTES), window);
        used += 1;
    }
    ListedFlows {
        packets: traffic.finish(),
        flows: used,
        one_of,
        too_large,
        unreadable_lines,
    }
}

/// Packets both ways, about.
fn packets_of(bytes: u64) -> u64 {
    let segments = bytes.div_ceil(SEGMENT_BYTES);
    8 + segments + segments / 2
}

struct Traffic {
    random: Xoshiro256PlusPlus,
    packets: Vec<(Packet, Timestamp)>,
    connections: u32,
}

impl Traffic {
    /// How long flows begin.
    const LENGTH_NS: u64 = 60_000_000_000;

    fn new(seed: u64) -> Self {
        Self {
            random: Xoshiro256PlusPlus::seed_from_u64(seed),
            packets: vec![],
            connections: 0,
        }
    }

    fn finish(mut self) -> Vec<(Packet, Timestamp)> {
        self.packets.sort_by_key(|&(_, at)| at);
        self.packets
    }

    /// Responses of 10 to 20 packets.
    fn web(&mut self, connections: u32) {
        for _ in 0..connections {
            let at = Timestamp::from_nanos(self.below(Self::LENGTH_NS));
            let segments = 10 + self.below(11);
            self.connection(at, segments, 20);
        }
    }

    /// Sizes after Pareto with exponent 1.1 from 100 packets up; windows from 4 to 32 packets, so
    /// that connections last for seconds, at rates that differ.
    fn bulk(&mut self, connections: u32) {
        for _ in 0..connections {
            let at = Timestamp::from_nanos(self.below(Self::LENGTH_NS));
            let segments = (100.0 / self.uniform().powf(1.0 / 1.1)).min(10_000.0) as u64;
            let window = 4 << self.below(4);
            self.connection(at, segments, window);
        }
    }

    /// 120,000 packets one way, more than all else together.
    fn elephant(&mut self) {
        self.connection(Timestamp::from_millis(2_000), 120_000, 160);
    }

    /// A connection from its handshake to its end.
    fn connection(&mut self, at: Timestamp, segments: u64, window_max: u64) {
        let number = self.connections;
        self.connections += 1;
        let client = Ipv4Addr::from_bits(0x0a00_0000 | self.below(200) as u32);
        let server = Ipv4Addr::from_bits(0xc633_6400 | self.below(50) as u32);
        let client_port = 1024 + (number % 60_000) as u16;
        let request = FlowKeyV4::new(client, server, client_port, 443, 6);
        let response = FlowKeyV4::new(server, client, 443, client_port, 6);
        // 20 to 80 ms, more often short.
        let round_trip_ns = 20_000_000 + self.below(60_000_000).min(self.below(60_000_000));
        let round_trip = Duration::from_nanos(round_trip_ns);
        let mut send = |key: &FlowKeyV4, flags, bytes, at| {
            let packet = Packet::of_key_v4(key, bytes).with_tcp(flags);
            self.packets.push((packet, at));
        };
        send(&request, SYN, EMPTY_BYTES, at);
        send(&response, SYN_ACK, EMPTY_BYTES, at + round_trip / 2);
        let mut now = at + round_trip;
        send(&request, ACK, EMPTY_BYTES, now);
        send(&request, ACK, REQUEST_BYTES, now);
        now = now + round_trip;
        let mut left = segments;
        let mut window = INITIAL_WINDOW.min(window_max);
        while left > 0 {
            let burst = left.min(window);
            // A window's packets come over half of a round trip.
            let gap = round_trip / 2 / burst as u32;
            for index in 0..burst {
                let at = now + gap * index as u32;
                send(&response, ACK, FULL_BYTES, at);
                if index % 2 == 1 {
                    send(&request, ACK, EMPTY_BYTES, at + gap / 2);
                }
            }
            left -= burst;
            window = (window * 2).min(window_max);
            now = now + round_trip;
        }
        send(&response, FIN_ACK, EMPTY_BYTES, now);
        send(&request, FIN_ACK, EMPTY_BYTES, now + round_trip / 2);
        send(&response, ACK, EMPTY_BYTES, now + round_trip);
    }

    /// A number below a limit, evenly but for a bias that nobody can see.
    fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.random.next_u64()) * u128::from(limit)) >> 64) as u64
    }

    /// In (0, 1].
    fn uniform(&mut self) -> f64 {
        ((self.random.next_u64() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_are_what_they_say() {
        let sizes = |workload: Workload| {
            let mut sizes = std::collections::HashMap::new();
            for (packet, _) in workload.packets(1) {
                *sizes.entry(packet.flow).or_insert(0_u64) += 1;
            }
            let mut sizes: Vec<u64> = sizes.into_values().collect();
            sizes.sort_unstable();
            sizes
        };
        let web = sizes(Workload::Web);
        assert_eq!(web.len(), 4_000);
        assert!(web[0] >= 20 && web[3_999] <= 45, "{:?}", web.last());
        let bulk = sizes(Workload::Bulk);
        let total: u64 = bulk.iter().sum();
        let largest: u64 = bulk.iter().rev().take(30).sum();
        assert!(
            largest * 10 > total * 4,
            "a tenth of the flows has much of the packets: {largest} of {total}"
        );
        let elephant = sizes(Workload::Elephant);
        let total: u64 = elephant.iter().sum();
        assert!(elephant.last().is_some_and(|largest| largest * 2 > total));
        for workload in [Workload::Web, Workload::Mixed] {
            let packets = workload.packets(1);
            assert!(packets.is_sorted_by_key(|&(_, at)| at));
            assert_eq!(packets, workload.packets(1));
            assert_ne!(packets, workload.packets(2));
        }
    }

    #[test]
    fn lists_are_read_thinned_and_cleaned() {
        let text = "0.5 tcp 1448\n\n1.5 tcp 14480\nnonsense\n2 tcp 2000000000\n0 tcp 100\n";
        let listed = from_flow_list(text, 1000, 1);
        assert_eq!((listed.flows, listed.one_of), (3, 1));
        assert_eq!((listed.too_large, listed.unreadable_lines), (1, 1));
        // Seven packets for the connection, 1, 10 and 1 segments, and 5 acknowledgements.
        assert_eq!(listed.packets.len(), 3 * 7 + 12 + 5);
        assert_eq!(listed.packets[0].1, Timestamp::from_nanos(500_000));
        let thinned = from_flow_list(text, 20, 1);
        assert_eq!((thinned.flows, thinned.one_of), (1, 3));
        assert!(thinned.packets.len() <= 20);
    }
}
