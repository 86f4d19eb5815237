//! Fine-grained traffic: who sends how much to whom (NSDI 2016 §6.1: all flows, not the large ones of
//! a sample).
//!
//! # Definition
//! Every flow of an epoch once, whatever number of switches saw it: with the counters of the first
//! switch on its way where the network is known, else with the largest. From these: totals; lists of the
//! largest flows, addresses, prefixes and services (by the lower port) by packets; the matrix of traffic
//! between the places where hosts are joined, or between prefixes; flows by packets and by bytes in
//! powers of two. A flow is followed over epochs; without packets for [`TrafficOptions::idle_epochs`]
//! it is over, and counted by its duration and size.
//!
//! # Evidence
//! Sums of decoded counters. [`Volume::unresolved_flows`] says how many of the flows in a sum have
//! bounds only; the sums take their best estimates.
//!
//! # Limits
//! - Flows that no decode found are not in the sums; the decode says how many there are.
//! - Lists hold [`TrafficOptions::top`] entries; sums behind them are complete.
//! - Flows beyond [`TrafficOptions::flows_max`] are counted in every epoch, but not followed.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use hashbrown::HashMap;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::flows::{Ends, EpochFlows, Sighting};
use super::network::{HostIndex, SwitchIndex};
use super::record::{FiveTuple, FlowRecord};
use super::{AnalysisCounters, NetworkModel};

/// Entries of the traffic matrix at least, if there are as many.
const MATRIX_MAX: usize = 1_024;

/// Limits of the traffic analysis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrafficOptions {
    /// Entries of each list.
    pub top: usize,
    /// Length of IPv4 prefixes.
    pub prefix_v4_bits: u8,
    /// Length of IPv6 prefixes.
    pub prefix_v6_bits: u8,
    /// Epochs without packets after which a flow is over.
    pub idle_epochs: u64,
    /// Flows followed over epochs at most.
    pub flows_max: usize,
}

/// The traffic of an epoch: every flow once, with what the first switch on its way counted (where
/// that is not known: the switch that counted most).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrafficSummary {
    /// The epoch.
    pub epoch: u64,
    /// All flows.
    pub total: Volume,
    /// By packets, the largest first.
    pub top_flows: Vec<FlowVolume>,
    /// Source addresses by packets.
    pub top_sources: Vec<AddressVolume>,
    /// Destination addresses by packets.
    pub top_destinations: Vec<AddressVolume>,
    /// Source prefixes by packets.
    pub top_source_prefixes: Vec<PrefixVolume>,
    /// Destination prefixes by packets.
    pub top_destination_prefixes: Vec<PrefixVolume>,
    /// Services by packets.
    pub top_services: Vec<ServiceVolume>,
    /// Traffic between places, by packets: switches that hosts are joined to where the network is
    /// known, else prefixes.
    pub matrix: Vec<MatrixVolume>,
    /// Flows by packets in this epoch: entry i counts those with 2^i to 2^(i+1) − 1 packets.
    pub packets_histogram: Vec<u64>,
    /// Flows by bytes in this epoch, in the same way; 0 and 1 bytes are entry 0.
    pub bytes_histogram: Vec<u64>,
    /// Flows that began in this epoch.
    pub flows_begun: u64,
    /// Flows that turned out to be over in this epoch.
    pub flows_ended: u64,
    /// The flows that ended by epochs from first to last, in powers of two as above.
    pub duration_epochs_histogram: Vec<u64>,
    /// The flows that ended by packets in all their epochs, in powers of two as above.
    pub lifetime_packets_histogram: Vec<u64>,
}

/// How much traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Flows.
    pub flows: u64,
    /// Packets; with estimates of unresolved flows.
    pub packets: u64,
    /// Bytes, where they are counted; with estimates of unresolved flows.
    pub bytes: u64,
    /// Flows of these whose packets or bytes are unresolved.
    pub unresolved_flows: u64,
}

/// Traffic of a flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowVolume {
    /// The flow.
    pub flow: FiveTuple,
    /// How much; `flows` is 1.
    #[serde(flatten)]
    pub volume: Volume,
}

/// Traffic of an address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AddressVolume {
    /// The address.
    pub address: IpAddr,
    /// How much.
    #[serde(flatten)]
    pub volume: Volume,
}

/// Traffic of a prefix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrefixVolume {
    /// The prefix.
    pub prefix: IpNet,
    /// How much.
    #[serde(flatten)]
    pub volume: Volume,
}

/// Traffic of a service: the lower of the two ports, as servers listen on low ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceVolume {
    /// IP protocol number.
    pub protocol: u8,
    /// The port.
    pub port: u16,
    /// How much, both ways.
    #[serde(flatten)]
    pub volume: Volume,
}

/// Traffic from one place to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MatrixVolume {
    /// Where it comes from.
    pub from: String,
    /// Where it goes.
    pub to: String,
    /// How much.
    #[serde(flatten)]
    pub volume: Volume,
}

impl Default for TrafficOptions {
    fn default() -> Self {
        Self {
            top: 20,
            prefix_v4_bits: 24,
            prefix_v6_bits: 48,
            idle_epochs: 10,
            flows_max: 1 << 20,
        }
    }
}

/// Follows the traffic.
#[derive(Debug, Default)]
pub(crate) struct TrafficWatch {
    lives: HashMap<FiveTuple, Life>,
}

/// A flow over its epochs.
#[derive(Clone, Copy, Debug)]
struct Life {
    first_epoch: u64,
    last_epoch: u64,
    packets: u64,
}

/// Where traffic comes from or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Place {
    Switch(SwitchIndex),
    Prefix(IpNet),
}

/// What stands for a flow in sums: the record of the first switch on its way, else the largest.
pub(crate) fn record_of<'a>(
    sightings: &[Sighting<'a>],
    ends: Ends,
    model: Option<&NetworkModel>,
) -> Option<&'a FlowRecord> {
    let access = model
        .zip(ends.0)
        .map(|(model, src)| &model.network.host(src).switches);
    let first = access.and_then(|access| {
        let first = sightings.iter().find(|seen| access.contains(&seen.switch));
        first.map(|first| first.record)
    });
    first.or_else(|| {
        let records = sightings.iter().map(|sighting| sighting.record);
        records.max_by_key(|record| record.packets.value)
    })
}

impl TrafficWatch {
    /// Whether a flow began in the last epoch; not said of flows that are not followed.
    pub(crate) fn began(&self, flow: &FiveTuple, epoch: u64) -> bool {
        self.lives
            .get(flow)
            .is_some_and(|life| life.first_epoch == epoch)
    }

    /// The traffic of an epoch; `records` are those that stand for the flows.
    pub(crate) fn epoch(
        &mut self,
        flows: &EpochFlows<'_>,
        records: &[&FlowRecord],
        model: Option<&NetworkModel>,
        options: &TrafficOptions,
        counters: &mut AnalysisCounters,
    ) -> TrafficSummary {
        let mut sums = Sums::default();
        let mut summary = TrafficSummary {
            epoch: flows.epoch,
            ..TrafficSummary::default()
        };
        for (&record, &ends) in records.iter().zip(flows.ends()) {
            sums.add(record, ends, options, model);
            let bytes = record.bytes.map_or(0, |bytes| bytes.value);
            count_in(&mut summary.packets_histogram, record.packets.value);
            if record.bytes.is_some() {
                count_in(&mut summary.bytes_histogram, bytes);
            }
            self.live(record, flows.epoch, &mut summary, options, counters);
        }
        self.bury(flows.epoch, &mut summary, options);
        sums.into_summary(&mut summary, records, options, model);
        summary
    }

    fn live(
        &mut self,
        record: &FlowRecord,
        epoch: u64,
        summary: &mut TrafficSummary,
        options: &TrafficOptions,
        counters: &mut AnalysisCounters,
    ) {
        if let Some(life) = self.lives.get_mut(&record.flow) {
            life.last_epoch = epoch;
            life.packets = life.packets.saturating_add(record.packets.value);
            return;
        }
        summary.flows_begun += 1;
        if self.lives.len() >= options.flows_max {
            counters.flows_not_followed += 1;
            return;
        }
        let life = Life {
            first_epoch: epoch,
            last_epoch: epoch,
            packets: record.packets.value,
        };
        self.lives.insert(record.flow, life);
    }

    /// Counts the flows that are over.
    fn bury(&mut self, epoch: u64, summary: &mut TrafficSummary, options: &TrafficOptions) {
        self.lives.retain(|_, life| {
            let over = epoch - life.last_epoch > options.idle_epochs;
            if over {
                summary.flows_ended += 1;
                let epochs = life.last_epoch - life.first_epoch + 1;
                count_in(&mut summary.duration_epochs_histogram, epochs);
                count_in(&mut summary.lifetime_packets_histogram, life.packets);
            }
            !over
        });
    }
}

/// Sums of an epoch's flows. Addresses and places have numbers, so that each is looked at closely only once.
#[derive(Debug, Default)]
struct Sums {
    total: Volume,
    numbers: HashMap<AddressKey, u32>,
    addresses: Vec<AddressSums>,
    place_numbers: HashMap<Place, u32>,
    places: Vec<Place>,
    services: HashMap<(u8, u16), Volume>,
    /// By numbers of places.
    matrix: HashMap<(u32, u32), Volume>,
}

/// Sums of an address.
#[derive(Clone, Copy, Debug)]
struct AddressSums {
    address: IpAddr,
    /// Number of its place.
    place: u32,
    sent: Volume,
    received: Volume,
}

/// An address as a key: its bits alone are hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AddressKey(IpAddr);

impl Hash for AddressKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.0 {
            IpAddr::V4(address) => state.write_u32(address.to_bits()),
            IpAddr::V6(address) => state.write_u128(address.to_bits()),
        }
    }
}

impl Sums {
    fn add(
        &mut self,
        record: &FlowRecord,
        ends: Ends,
        options: &TrafficOptions,
        model: Option<&NetworkModel>,
    ) {
        let volume = Volume::of(record);
        let flow = &record.flow;
        self.total.add(volume);
        let from = self.number_of(flow.src, ends.0, options, model);
        let to = self.number_of(flow.dst, ends.1, options, model);
        self.addresses[from].sent.add(volume);
        self.addresses[to].received.add(volume);
        let service = (flow.protocol, flow.src_port.min(flow.dst_port));
        self.services.entry(service).or_default().add(volume);
        let places = (self.addresses[from].place, self.addresses[to].place);
        self.matrix.entry(places).or_default().add(volume);
    }

    fn number_of(
        &mut self,
        address: IpAddr,
        host: Option<HostIndex>,
        options: &TrafficOptions,
        model: Option<&NetworkModel>,
    ) -> usize {
        let number = *self.numbers.entry(AddressKey(address)).or_insert_with(|| {
            let access = model
                .zip(host)
                .and_then(|(model, host)| model.network.host(host).switches.first().copied());
            let place = match access {
                Some(switch) => Place::Switch(switch),
                None => Place::Prefix(prefix_of(address, options)),
            };
            let place = *self.place_numbers.entry(place).or_insert_with(|| {
                self.places.push(place);
                self.places.len() as u32 - 1
            });
            self.addresses.push(AddressSums {
                address,
                place,
                sent: Volume::default(),
                received: Volume::default(),
            });
            self.addresses.len() as u32 - 1
        });
        number as usize
    }

    fn into_summary(
        self,
        summary: &mut TrafficSummary,
        records: &[&FlowRecord],
        options: &TrafficOptions,
        model: Option<&NetworkModel>,
    ) {
        let volumes = |volume: fn(&AddressSums) -> Volume| {
            let volumes = self
                .addresses
                .iter()
                .map(move |of| (of.address, volume(of)));
            volumes.filter(|(_, volume)| volume.flows > 0)
        };
        let (sent, received) = (volumes(|of| of.sent), volumes(|of| of.received));
        summary.top_source_prefixes = top_prefixes(sent.clone(), options);
        summary.top_destination_prefixes = top_prefixes(received.clone(), options);
        summary.top_sources = top_addresses(sent, options);
        summary.top_destinations = top_addresses(received, options);
        let name = |place| match (place, model) {
            (Place::Switch(switch), Some(model)) => model.network.switch_name(switch).to_owned(),
            (Place::Switch(switch), None) => switch.0.to_string(),
            (Place::Prefix(prefix), _) => prefix.to_string(),
        };
        summary.total = self.total;
        let services = top(self.services, options.top).into_iter();
        summary.top_services = services
            .map(|((protocol, port), volume)| ServiceVolume {
                protocol,
                port,
                volume,
            })
            .collect();
        // Small where the network is known: all of it then.
        let matrix_max = options.top.max(MATRIX_MAX);
        let place = |number: u32| self.places[number as usize];
        let matrix = self.matrix.into_iter();
        let matrix = matrix.map(|((from, to), volume)| ((place(from), place(to)), volume));
        let matrix = top(matrix, matrix_max).into_iter();
        summary.matrix = matrix
            .map(|((from, to), volume)| MatrixVolume {
                from: name(from),
                to: name(to),
                volume,
            })
            .collect();
        let flows = records
            .iter()
            .map(|&record| (record.flow, Volume::of(record)));
        summary.top_flows = top(flows, options.top)
            .into_iter()
            .map(|(flow, volume)| FlowVolume { flow, volume })
            .collect();
    }
}

impl Volume {
    fn of(record: &FlowRecord) -> Self {
        let bytes_resolved = record.bytes.is_none_or(|bytes| bytes.status.is_resolved());
        let resolved = record.packets.status.is_resolved() && bytes_resolved;
        Self {
            flows: 1,
            packets: record.packets.value,
            bytes: record.bytes.map_or(0, |bytes| bytes.value),
            unresolved_flows: u64::from(!resolved),
        }
    }

    fn add(&mut self, other: Self) {
        self.flows += other.flows;
        self.packets = self.packets.saturating_add(other.packets);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.unresolved_flows += other.unresolved_flows;
    }
}

/// The entries with most packets, then with most flows, then by key.
fn top<K: Ord + Copy>(
    entries: impl IntoIterator<Item = (K, Volume)>,
    most: usize,
) -> Vec<(K, Volume)> {
    let order = |a: &(K, Volume), b: &(K, Volume)| {
        let rank = |entry: &(K, Volume)| (entry.1.packets, entry.1.flows);
        rank(b).cmp(&rank(a)).then(a.0.cmp(&b.0))
    };
    let mut entries: Vec<(K, Volume)> = entries.into_iter().collect();
    if entries.len() > most && most > 0 {
        entries.select_nth_unstable_by(most - 1, order);
    }
    entries.truncate(most);
    entries.sort_unstable_by(order);
    entries
}

fn top_addresses(
    volumes: impl Iterator<Item = (IpAddr, Volume)>,
    options: &TrafficOptions,
) -> Vec<AddressVolume> {
    let volumes = top(volumes, options.top).into_iter();
    volumes
        .map(|(address, volume)| AddressVolume { address, volume })
        .collect()
}

fn top_prefixes(
    volumes: impl Iterator<Item = (IpAddr, Volume)>,
    options: &TrafficOptions,
) -> Vec<PrefixVolume> {
    let mut prefixes: HashMap<IpNet, Volume> = HashMap::new();
    for (address, volume) in volumes {
        let prefix = prefix_of(address, options);
        prefixes.entry(prefix).or_default().add(volume);
    }
    let prefixes = top(prefixes, options.top).into_iter();
    prefixes
        .map(|(prefix, volume)| PrefixVolume { prefix, volume })
        .collect()
}

/// Counts a value in the histogram of powers of two; 0 counts as 1.
fn count_in(histogram: &mut Vec<u64>, value: u64) {
    let place = value.max(1).ilog2() as usize;
    if histogram.len() <= place {
        histogram.resize(place + 1, 0);
    }
    histogram[place] += 1;
}

fn prefix_of(address: IpAddr, options: &TrafficOptions) -> IpNet {
    let bits = match address {
        IpAddr::V4(_) => options.prefix_v4_bits.min(32),
        IpAddr::V6(_) => options.prefix_v6_bits.min(128),
    };
    IpNet::new(address, bits)
        .expect("no longer than addresses are")
        .trunc()
}

#[cfg(test)]
mod tests {
    use flowradar_core::Counter;

    use super::super::record::{EpochRecords, SwitchView};
    use super::*;

    fn record(src: [u8; 4], src_port: u16, packets: u64) -> FlowRecord {
        FlowRecord {
            flow: FiveTuple {
                src: src.into(),
                dst: [10, 9, 0, 1].into(),
                src_port,
                dst_port: 443,
                protocol: 6,
            },
            packets: Counter::exact(packets),
            bytes: Some(Counter::exact(100 * packets)),
        }
    }

    fn summary(watch: &mut TrafficWatch, epoch: u64, records: &[FlowRecord]) -> TrafficSummary {
        let mut of_epoch = EpochRecords::new(epoch);
        for name in ["s1", "s2"] {
            let switch = of_epoch.switch(name.parse().expect("a good name"));
            switch.flows = records.to_vec();
        }
        let mut counters = AnalysisCounters::default();
        let switches: Vec<SwitchView<'_>> = of_epoch.switches().iter().map(Into::into).collect();
        let flows = EpochFlows::new(epoch, &switches, None, usize::MAX, &mut counters);
        let of_flows: Vec<&FlowRecord> = flows
            .iter()
            .zip(flows.ends())
            .filter_map(|((_, seen), &ends)| record_of(seen, ends, None))
            .collect();
        let options = TrafficOptions {
            top: 2,
            idle_epochs: 1,
            ..TrafficOptions::default()
        };
        watch.epoch(&flows, &of_flows, None, &options, &mut counters)
    }

    #[test]
    fn each_flow_counts_once() {
        let records = [
            record([10, 1, 0, 1], 1_000, 5),
            record([10, 1, 0, 2], 1_000, 1),
            record([10, 2, 0, 1], 1_000, 3),
        ];
        let found = summary(&mut TrafficWatch::default(), 0, &records);
        assert_eq!((found.total.flows, found.total.packets), (3, 9));
        assert_eq!(found.total.bytes, 900);
        assert_eq!(found.top_flows.len(), 2);
        assert_eq!(found.top_flows[0].volume.packets, 5);
        let prefixes: Vec<_> = found
            .top_source_prefixes
            .iter()
            .map(|entry| (entry.prefix.to_string(), entry.volume.packets))
            .collect();
        assert_eq!(
            prefixes,
            [("10.1.0.0/24".into(), 6), ("10.2.0.0/24".into(), 3)]
        );
        assert_eq!(found.top_services[0].port, 443);
        assert_eq!(found.top_destinations[0].volume.flows, 3);
        // 1 packet; 3 packets; 5 packets.
        assert_eq!(found.packets_histogram, [1, 1, 1]);
        assert_eq!(found.matrix[0].from, "10.1.0.0/24");
    }

    #[test]
    fn flows_live_and_end() {
        let mut watch = TrafficWatch::default();
        let first = record([10, 1, 0, 1], 1, 2);
        let second = record([10, 1, 0, 1], 2, 7);
        assert_eq!(summary(&mut watch, 0, &[first, second]).flows_begun, 2);
        assert_eq!(summary(&mut watch, 1, &[first]).flows_begun, 0);
        // The second one may still come back.
        let found = summary(&mut watch, 2, &[first]);
        assert_eq!((found.flows_begun, found.flows_ended), (0, 1));
        assert_eq!(found.duration_epochs_histogram, [1]);
        assert_eq!(found.lifetime_packets_histogram, [0, 0, 1]);
        let found = summary(&mut watch, 9, &[]);
        assert_eq!(found.duration_epochs_histogram, [0, 1]);
        assert_eq!(found.lifetime_packets_histogram, [0, 0, 1]);
    }
}
