//! Which flows there are, between which hosts, in which epochs.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use flowradar_core::FlowKeyV4;
use thiserror::Error;

use crate::flow_size::{FLOW_PACKETS_MAX, PacketTrain};
use crate::random::{Purpose, Seed, permute_30_bits, scale};
use crate::topology::{FatTree, HostId, Topology};

/// Most flows of a run: their port pairs are distinct 30-bit numbers.
pub const FLOWS_MAX: u64 = 1 << 30;

/// A flow of a run, numbered from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(pub u32);

/// The flows that cross the network.
///
/// # Inter-pod traffic and its arithmetic
/// An inter-pod flow in a k-ary fat tree visits 2 of k²/2 edge switches, 2 of k²/2 aggregation
/// switches and 1 of k²/4 core switches. F flows so load every switch, whatever its tier, with
/// 4F/k² on average: N flows at each switch are F = N·k²/4 flows, 16 N for k = 8.
///
/// With [`Spread::Even`] it is not an average: every switch carries exactly N flows in every epoch.
/// The flows are dealt in N rounds of k/2 × k/2, one for each aggregation place `a` and pair `v`:
/// - a perfect matching of the k pods (one of the k − 1 of a round-robin tournament, at random)
///   makes k/2 pairs of pods, so `agg-P-a` of every pod has one flow of each round;
/// - pair `v` goes over core port `v` (rotated at random) of place `a`, so every core has one;
/// - within a pod, the k/2 flow ends of a round (one for each `a`) fall on different edge switches.
///
/// Direction, rotation and hosts are random.
#[derive(Clone, Debug, PartialEq)]
pub enum Traffic {
    /// The paper's worst case, on a fat tree: no flow stays inside a pod, and all switches carry
    /// the same number of flows.
    InterPod {
        /// Flows at each switch in each epoch.
        flows_per_switch: u32,
        /// Exactly, or by the switches' ECMP hashes.
        spread: Spread,
    },
    /// Random pairs of different hosts, on any topology; in a fat tree paths have 1, 3 and 5
    /// switches.
    Uniform {
        /// Mean over switches of the flows at a switch in an epoch.
        flows_per_switch: u32,
    },
    /// Flows of a recording.
    Trace(Trace),
}

/// How inter-pod flows choose among equal paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spread {
    /// Dealt out, so that every switch carries exactly the same number of flows.
    #[default]
    Even,
    /// By the switches' ECMP hashes: numbers vary as they do in a real network.
    Hashed,
}

/// What flow keys look like. In every style, no two flows of a run have the same key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyStyle {
    /// Addresses of the hosts, random ports; one flow in eight is UDP, the others TCP.
    #[default]
    RandomPorts,
    /// Addresses of the hosts, ports counted up, all TCP: keys that differ in few bits.
    SequentialPorts,
    /// Random addresses, as of virtual machines behind the hosts, and random ports.
    RandomAddresses,
}

/// Flows of a recording: who sent how much in which epoch.
///
/// Addresses are not those of the topology: each is given a host, by a hash and the simulation's
/// seed; flows whose ends would meet on one host have their destination moved to the next.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    keys: Vec<FlowKeyV4>,
    /// By flow, ascending: epoch, packets and bytes.
    activity: Vec<Vec<(u64, PacketTrain)>>,
    epochs: u64,
}

/// What a flow of a recording sent in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceRecord {
    /// From 0.
    pub epoch: u64,
    /// The flow.
    pub key: FlowKeyV4,
    /// Packets, at least 1.
    pub packets: u32,
    /// Bytes of IP packets.
    pub bytes: u64,
}

/// Why a recording was refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TraceError {
    /// There is nothing to send.
    #[error("trace: there are no records")]
    Empty,
    /// No packets, or more than a flow may send.
    #[error("trace record {record}: {packets} packets, must be from 1 to {FLOW_PACKETS_MAX}")]
    Packets {
        /// The record's place, from 0.
        record: usize,
        /// The packets found.
        packets: u32,
    },
    /// More bytes than packets can have.
    #[error("trace record {record}: {bytes} bytes in {packets} packets, at most 65,535 each")]
    Bytes {
        /// The record's place, from 0.
        record: usize,
        /// The packets found.
        packets: u32,
        /// The bytes found.
        bytes: u64,
    },
    /// The same flow twice in an epoch.
    #[error("trace record {record}: {key} has another record in epoch {epoch}; add them up")]
    Duplicate {
        /// The record's place, from 0.
        record: usize,
        /// The flow.
        key: FlowKeyV4,
        /// The epoch.
        epoch: u64,
    },
    /// More flows than can be numbered.
    #[error("trace: {flows} flows, at most {FLOWS_MAX} are supported")]
    TooManyFlows {
        /// The flows found.
        flows: usize,
    },
    /// An epoch beyond what a run may have.
    #[error("trace record {record}: epoch {epoch}, must be below {EPOCHS_MAX}")]
    Epoch {
        /// The record's place, from 0.
        record: usize,
        /// The epoch.
        epoch: u64,
    },
}

/// Most epochs of a run.
pub const EPOCHS_MAX: u64 = 65_536;

impl Trace {
    /// Collects records of any order; flows are numbered in the order of their first record.
    ///
    /// # Errors
    /// [`TraceError`], with the record's place.
    pub fn new(records: impl IntoIterator<Item = TraceRecord>) -> Result<Self, TraceError> {
        let mut flow_of_key: HashMap<FlowKeyV4, usize> = HashMap::new();
        let mut trace = Self {
            keys: Vec::new(),
            activity: Vec::new(),
            epochs: 0,
        };
        for (record, found) in records.into_iter().enumerate() {
            let TraceRecord {
                epoch,
                key,
                packets,
                bytes,
            } = found;
            if packets == 0 || packets > FLOW_PACKETS_MAX {
                return Err(TraceError::Packets { record, packets });
            }
            if bytes > u64::from(packets) * 65_535 {
                return Err(TraceError::Bytes {
                    record,
                    packets,
                    bytes,
                });
            }
            if epoch >= EPOCHS_MAX {
                return Err(TraceError::Epoch { record, epoch });
            }
            let flow = *flow_of_key.entry(key).or_insert_with(|| {
                trace.keys.push(key);
                trace.activity.push(Vec::new());
                trace.keys.len() - 1
            });
            let activity = &mut trace.activity[flow];
            match activity.binary_search_by_key(&epoch, |&(epoch, _)| epoch) {
                Ok(_) => return Err(TraceError::Duplicate { record, key, epoch }),
                Err(place) => activity.insert(place, (epoch, PacketTrain::even(packets, bytes))),
            }
            trace.epochs = trace.epochs.max(epoch + 1);
        }
        match trace.keys.len() {
            0 => Err(TraceError::Empty),
            flows if flows as u64 > FLOWS_MAX => Err(TraceError::TooManyFlows { flows }),
            _ => Ok(trace),
        }
    }

    /// Distinct flows.
    pub fn flows(&self) -> usize {
        self.keys.len()
    }

    /// One more than the last epoch.
    pub fn epochs(&self) -> u64 {
        self.epochs
    }

    pub(crate) fn key(&self, flow: FlowId) -> FlowKeyV4 {
        self.keys[flow.0 as usize]
    }

    pub(crate) fn sent(&self, flow: FlowId, epoch: u64) -> Option<PacketTrain> {
        let activity = &self.activity[flow.0 as usize];
        let place = activity.binary_search_by_key(&epoch, |&(epoch, _)| epoch);
        place.ok().map(|place| activity[place].1)
    }

    pub(crate) fn hosts(&self, seed: Seed, topology: &Topology, flow: FlowId) -> (HostId, HostId) {
        let hosts = topology.hosts().len() as u64;
        let key = self.key(flow);
        let host_of = |address: Ipv4Addr| {
            scale(
                seed.bits(Purpose::TraceHost, address.to_bits().into(), 0),
                hosts,
            )
        };
        let (from, mut to) = (host_of(key.src_v4()), host_of(key.dst_v4()));
        if from == to {
            to = (to + 1) % hosts;
        }
        (HostId(from as u32), HostId(to as u32))
    }
}

/// Where an inter-pod flow of a slot goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InterPodRoute {
    pub(crate) from: HostId,
    pub(crate) to: HostId,
    /// The mixed-radix number of the path: at each choice among n next hops take this modulo n
    /// and divide it by n.
    pub(crate) path_number: u32,
}

/// Flows in an epoch that give each switch N of them.
pub(crate) fn inter_pod_flows(tree: FatTree, flows_per_switch: u32) -> u64 {
    u64::from(flows_per_switch) * u64::from(tree.half() * tree.half())
}

/// See [`Traffic`] for why this is even.
pub(crate) fn inter_pod_route(seed: Seed, tree: FatTree, slot: u32, flow: FlowId) -> InterPodRoute {
    let (k, half) = (tree.k(), tree.half());
    let (round, within) = (slot / (half * half), slot % (half * half));
    let (aggregation, pair) = (within / half, within % half);

    let matching = seed.bits(Purpose::PodMatching, round.into(), aggregation.into());
    let (mut from_pod, mut to_pod) =
        pods_of_pair(k, scale(matching, u64::from(k) - 1) as u32, pair);
    // Other bits of the same draw: the upper ones chose the matching.
    if matching >> pair & 1 == 1 {
        std::mem::swap(&mut from_pod, &mut to_pod);
    }
    let core_port = (pair + (matching >> 16) as u32 % half) % half;

    let host = |pod: u32, end: u64| {
        let rotation = seed.bits(Purpose::PodEdge, round.into(), pod.into());
        let edge = (aggregation + scale(rotation, half.into()) as u32) % half;
        let place = scale(
            seed.bits(Purpose::HostPair, flow.0.into(), end),
            half.into(),
        );
        tree.host(pod, edge, place as u32)
    };
    InterPodRoute {
        from: host(from_pod, 0),
        to: host(to_pod, 1),
        path_number: aggregation + half * core_port,
    }
}

/// Two different hosts, each pair as likely as any other.
pub(crate) fn random_hosts(seed: Seed, hosts: usize, flow: FlowId) -> (HostId, HostId) {
    let mut stream = seed.stream(Purpose::HostPair, flow.0.into(), 0);
    let from = stream.below(hosts as u64);
    let to = stream.below(hosts as u64 - 1);
    let to = to + u64::from(to >= from);
    (HostId(from as u32), HostId(to as u32))
}

/// The key of a flow between two hosts; distinct for distinct flows below [`FLOWS_MAX`].
pub(crate) fn flow_key(
    seed: Seed,
    style: KeyStyle,
    topology: &Topology,
    flow: FlowId,
    (from, to): (HostId, HostId),
) -> FlowKeyV4 {
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    let (mut src, mut dst) = (
        topology.hosts()[from.index()].address,
        topology.hosts()[to.index()].address,
    );
    let bits = seed.bits(Purpose::FlowKey, flow.0.into(), 0);
    let number = match style {
        KeyStyle::SequentialPorts => flow.0,
        KeyStyle::RandomPorts | KeyStyle::RandomAddresses => permute_30_bits(seed, flow.0),
    };
    if style == KeyStyle::RandomAddresses {
        src = Ipv4Addr::from_bits(seed.bits(Purpose::FlowKey, flow.0.into(), 1) as u32);
        dst = Ipv4Addr::from_bits((bits >> 32) as u32);
    }
    let (src_port, dst_port) = match style {
        // Of two flows that follow each other, mostly the source ports differ, by one.
        KeyStyle::SequentialPorts => (number as u16, (number >> 16) as u16),
        // Source ports of the dynamic range 49,152 to 65,535 (RFC 6335, section 6).
        KeyStyle::RandomPorts | KeyStyle::RandomAddresses => {
            (0xc000 | (number >> 16) as u16, number as u16)
        }
    };
    let udp = style != KeyStyle::SequentialPorts && bits.is_multiple_of(8);
    FlowKeyV4::new(src, dst, src_port, dst_port, if udp { UDP } else { TCP })
}

/// The pair-th pair of a round-robin tournament's matching: the last pod stays, the others turn.
fn pods_of_pair(k: u32, matching: u32, pair: u32) -> (u32, u32) {
    let turning = k - 1;
    if pair == 0 {
        (turning, matching)
    } else {
        (
            (matching + pair) % turning,
            (matching + turning - pair) % turning,
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn matchings_pair_every_pod_once_and_all_pods_with_each_other() {
        for k in (4..=16).step_by(2) {
            let mut pairs = HashSet::new();
            for matching in 0..k - 1 {
                let mut pods = HashSet::new();
                for pair in 0..k / 2 {
                    let (a, b) = pods_of_pair(k, matching, pair);
                    assert!(
                        pods.insert(a) && pods.insert(b),
                        "k {k}, matching {matching}"
                    );
                    pairs.insert((a.min(b), a.max(b)));
                }
                assert_eq!(pods.len(), k as usize);
            }
            assert_eq!(pairs.len(), (k * (k - 1) / 2) as usize);
        }
    }

    #[test]
    fn keys_are_distinct_in_every_style() {
        let tree = Topology::fat_tree(4).expect("4 is even");
        let hosts = (HostId(0), HostId(9));
        for style in [
            KeyStyle::RandomPorts,
            KeyStyle::SequentialPorts,
            KeyStyle::RandomAddresses,
        ] {
            let keys: HashSet<FlowKeyV4> = (0..200_000)
                .map(|flow| flow_key(Seed(1), style, &tree, FlowId(flow), hosts))
                .collect();
            assert_eq!(keys.len(), 200_000, "{style:?}");
        }
    }

    #[test]
    fn trace_records_are_grouped_and_checked() {
        let key = |port| FlowKeyV4::new([1, 1, 1, 1].into(), [2, 2, 2, 2].into(), port, 80, 6);
        let record = |epoch, port, packets, bytes| TraceRecord {
            epoch,
            key: key(port),
            packets,
            bytes,
        };
        let trace = Trace::new([
            record(2, 1, 3, 300),
            record(0, 2, 1, 40),
            record(0, 1, 1, 60),
        ])
        .expect("is valid");
        assert_eq!((trace.flows(), trace.epochs()), (2, 3));
        assert_eq!(trace.sent(FlowId(0), 2), Some(PacketTrain::even(3, 300)));
        assert_eq!(trace.sent(FlowId(0), 1), None);
        assert_eq!(trace.sent(FlowId(1), 0), Some(PacketTrain::even(1, 40)));

        let refusal = |record| Trace::new([first_record(key(1)), record]).expect_err("bad");
        assert_eq!(
            refusal(record(0, 1, 5, 500)),
            TraceError::Duplicate {
                record: 1,
                key: key(1),
                epoch: 0
            }
        );
        assert_eq!(
            refusal(record(0, 2, 0, 0)),
            TraceError::Packets {
                record: 1,
                packets: 0
            }
        );
        assert_eq!(
            refusal(record(0, 2, 1, 65_536)),
            TraceError::Bytes {
                record: 1,
                packets: 1,
                bytes: 65_536
            }
        );
        assert!(matches!(
            refusal(record(u64::MAX, 2, 1, 1)),
            TraceError::Epoch { record: 1, .. }
        ));
        assert_eq!(Trace::new([]), Err(TraceError::Empty));
    }

    fn first_record(key: FlowKeyV4) -> TraceRecord {
        TraceRecord {
            epoch: 0,
            key,
            packets: 1,
            bytes: 40,
        }
    }
}
