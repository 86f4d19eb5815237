//! What really happened: the ground truth that decoding is checked against.

use flowradar_core::FlowKeyV4;
use rayon::prelude::*;

use crate::forwarding::{FaultEvent, FlowEpoch, Happening, Packets, Witness};
use crate::simulation::{Simulation, pieces};
use crate::topology::{LinkDirection, SwitchId};
use crate::traffic::FlowId;

/// Slots that one thread works out at a time.
const PIECE_SLOTS: u32 = 1 << 13;

/// What a switch counted of a flow in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TruthRecord {
    /// The epoch, by the switch's clock.
    pub epoch: u64,
    /// The switch.
    pub switch: SwitchId,
    /// The flow.
    pub flow: FlowId,
    /// Packets, at least 1.
    pub packets: u64,
    /// Bytes of IP packets.
    pub bytes: u64,
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Bytes of IP packets.
    pub bytes: u64,
}

/// The ground truth of a run, or of one of its epochs.
///
/// Takes about 40 bytes of memory a record and 24 a flow: 400 MB for 8 million records.
///
/// ```
/// use flowradar_sim::{Simulation, Topology, Truth};
/// let simulation = Simulation::builder(Topology::fat_tree(4)?).flows_per_switch(10).build()?;
/// let truth = Truth::of(&simulation);
/// // 20 switches, each with 10 flows.
/// assert_eq!(truth.records().len(), 200);
/// let first = truth.records()[0];
/// let found = truth.get(first.epoch, first.switch, &simulation.key(first.flow));
/// assert_eq!(found.map(|counters| counters.packets), Some(first.packets));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truth {
    records: Vec<TruthRecord>,
    events: Vec<FaultEvent>,
    flow_of_key: Vec<(FlowKeyV4, FlowId)>,
}

/// Sums over a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// (flow, epoch) pairs that sent packets.
    pub flow_epochs: u64,
    /// Packets that hosts sent.
    pub packets_sent: u64,
    /// Packets that arrived.
    pub packets_delivered: u64,
    /// Packets lost on links at random.
    pub packets_lost_on_links: u64,
    /// Packets lost by lossy flows.
    pub packets_lost_by_lossy_flows: u64,
    /// Packets dropped by blackholes.
    pub packets_blackholed: u64,
    /// Packets dropped by switches they were wrongly sent to.
    pub packets_misforwarded_dropped: u64,
    /// Packets whose TTL was used up.
    pub packets_ttl_expired: u64,
    /// Packets sent wrongly, each time; not a loss.
    pub packets_misforwarded: u64,
    /// Packets that went around a loop; not a loss.
    pub packets_looped: u64,
    /// Packets in flight at the end of an epoch; not a loss.
    pub packets_in_flight: u64,
    /// Packets counted by switches before the first or after the last epoch of the run.
    pub packets_counted_outside: u64,
    /// By [`SwitchId`].
    pub switches: Vec<SwitchSummary>,
    /// By [`LinkDirection`].
    pub links: Vec<LinkSummary>,
}

/// Sums of a switch over a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwitchSummary {
    /// Packets counted in epochs of the run.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets counted in any epoch.
    pub packets_ever: u64,
    /// Packets dropped without being counted.
    pub packets_dropped_uncounted: u64,
}

/// Sums of a link's direction over a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkSummary {
    /// Packets that entered it.
    pub entered: u64,
    /// Packets that did not leave it.
    pub lost: u64,
}

impl Summary {
    /// Packets that did not arrive, for whatever cause.
    pub fn packets_lost(&self) -> u64 {
        self.packets_lost_on_links
            + self.packets_lost_by_lossy_flows
            + self.packets_blackholed
            + self.packets_misforwarded_dropped
            + self.packets_ttl_expired
    }
}

impl Simulation {
    /// Sums over the run. Works everything out anew: keep the result.
    pub fn summary(&self) -> Summary {
        let empty = || Summary {
            switches: vec![SwitchSummary::default(); self.topology().switches().len()],
            links: vec![LinkSummary::default(); 2 * self.topology().links().len()],
            ..Summary::default()
        };
        let pieces: Vec<_> = pieces(self.slots(), PIECE_SLOTS).collect();
        pieces
            .into_par_iter()
            .fold(empty, |mut summary, piece| {
                for sent_epoch in self.sent_epochs() {
                    for slot in piece.clone() {
                        if let Some(flow) = self.flow_epoch(slot, sent_epoch) {
                            summary.flow_epochs += 1;
                            summary.packets_sent += flow.train.packets();
                            let mut sums = Sums {
                                flow: &flow,
                                epochs: self.epochs(),
                                summary: &mut summary,
                            };
                            self.network.forward(&flow, &mut sums);
                        }
                    }
                }
                summary
            })
            .reduce(empty, add)
    }
}

impl Truth {
    /// The truth of all epochs.
    pub fn of(simulation: &Simulation) -> Self {
        Self::collect(simulation, None)
    }

    /// The truth of one epoch; its events are those of packets that may be counted in it.
    pub fn of_epoch(simulation: &Simulation, epoch: u64) -> Self {
        Self::collect(simulation, Some(epoch))
    }

    /// Every (epoch, switch, flow) that counted packets, ascending.
    pub fn records(&self) -> &[TruthRecord] {
        &self.records
    }

    /// The records of one switch and epoch, by flow.
    pub fn records_of(&self, epoch: u64, switch: SwitchId) -> &[TruthRecord] {
        let place = |record: &TruthRecord| (record.epoch, record.switch);
        let begin = self.records.partition_point(|r| place(r) < (epoch, switch));
        let length = self.records[begin..].partition_point(|r| place(r) == (epoch, switch));
        &self.records[begin..begin + length]
    }

    /// What a switch counted of a flow in an epoch, `None` if nothing.
    pub fn get(&self, epoch: u64, switch: SwitchId, key: &FlowKeyV4) -> Option<Counters> {
        let flow = self.flow_of(key)?;
        let wanted = (epoch, switch, flow);
        let place = self
            .records
            .binary_search_by_key(&wanted, |r| (r.epoch, r.switch, r.flow))
            .ok()?;
        let TruthRecord { packets, bytes, .. } = self.records[place];
        Some(Counters { packets, bytes })
    }

    /// The flow of this key, if any switch counted it.
    pub fn flow_of(&self, key: &FlowKeyV4) -> Option<FlowId> {
        let place = self.flow_of_key.binary_search_by_key(key, |&(key, _)| key);
        place.ok().map(|place| self.flow_of_key[place].1)
    }

    /// The flows that any switch counted, with their keys, by key.
    pub fn flows(&self) -> &[(FlowKeyV4, FlowId)] {
        &self.flow_of_key
    }

    /// All that happened to packets, by epoch and flow. Missing reports, clock offsets and uneven
    /// ECMP are not events of packets: see [`Simulation::reports`], [`Simulation::clock_offset`]
    /// and [`Simulation::faults`].
    pub fn events(&self) -> &[FaultEvent] {
        &self.events
    }

    fn collect(simulation: &Simulation, only: Option<u64>) -> Self {
        let mut sent_epochs = simulation.sent_epochs();
        if let Some(epoch) = only {
            let epoch = epoch as i64;
            sent_epochs = sent_epochs.start.max(epoch - 1)..sent_epochs.end.min(epoch + 2);
            if !simulation.faults().displace_packets() {
                sent_epochs = sent_epochs.start.max(epoch)..sent_epochs.end.min(epoch + 1);
            }
        }
        let pieces: Vec<_> = pieces(simulation.slots(), PIECE_SLOTS).collect();
        let found: Vec<Piece> = pieces
            .into_par_iter()
            .map(|piece| {
                let mut found = Piece::default();
                for slot in piece {
                    let first = found.records.len();
                    for sent_epoch in sent_epochs.clone() {
                        let Some(flow) = simulation.flow_epoch(slot, sent_epoch) else {
                            continue;
                        };
                        let mut account = Account {
                            flow: &flow,
                            counted_epochs: match only {
                                Some(epoch) => epoch..epoch + 1,
                                None => 0..simulation.epochs(),
                            },
                            found: &mut found,
                        };
                        simulation.network.forward(&flow, &mut account);
                    }
                    found.merge_from(first, simulation);
                }
                found
            })
            .collect();

        let mut truth = Self {
            records: Vec::with_capacity(found.iter().map(|piece| piece.records.len()).sum()),
            events: Vec::with_capacity(found.iter().map(|piece| piece.events.len()).sum()),
            flow_of_key: Vec::with_capacity(found.iter().map(|piece| piece.flows.len()).sum()),
        };
        for piece in found {
            truth.records.extend(piece.records);
            truth.events.extend(piece.events);
            truth.flow_of_key.extend(piece.flows);
        }
        truth.records.par_sort_unstable();
        truth.flow_of_key.par_sort_unstable();
        // Stable: what happened to a flow in an epoch stays in order.
        truth
            .events
            .par_sort_by_key(|event| (event.sent_epoch, event.flow));
        truth
    }
}

/// The truth of some slots.
#[derive(Default)]
struct Piece {
    records: Vec<TruthRecord>,
    events: Vec<FaultEvent>,
    flows: Vec<(FlowKeyV4, FlowId)>,
}

impl Piece {
    /// Adds up the records of a slot: a flow may have been counted in an epoch in several parts.
    fn merge_from(&mut self, first: usize, simulation: &Simulation) {
        let place = |r: &TruthRecord| (r.flow, r.epoch, r.switch);
        self.records[first..].sort_unstable_by_key(place);
        let mut kept = first;
        for next in first..self.records.len() {
            let record = self.records[next];
            if kept > first && place(&self.records[kept - 1]) == place(&record) {
                self.records[kept - 1].packets += record.packets;
                self.records[kept - 1].bytes += record.bytes;
                continue;
            }
            if kept == first || self.records[kept - 1].flow != record.flow {
                self.flows.push((simulation.key(record.flow), record.flow));
            }
            self.records[kept] = record;
            kept += 1;
        }
        self.records.truncate(kept);
    }
}

struct Account<'a> {
    flow: &'a FlowEpoch,
    counted_epochs: std::ops::Range<u64>,
    found: &'a mut Piece,
}

impl Witness for Account<'_> {
    fn counted(&mut self, switch: SwitchId, epoch: i64, packets: Packets) {
        let Ok(epoch) = u64::try_from(epoch) else {
            return;
        };
        if self.counted_epochs.contains(&epoch) {
            self.found.records.push(TruthRecord {
                epoch,
                switch,
                flow: self.flow.flow,
                packets: packets.total(),
                bytes: bytes(self.flow, packets),
            });
        }
    }

    fn happened(&mut self, what: Happening, packets: u64) {
        self.found.events.push(FaultEvent {
            sent_epoch: self.flow.sent_epoch,
            flow: self.flow.flow,
            what,
            packets,
        });
    }
}

struct Sums<'a> {
    flow: &'a FlowEpoch,
    epochs: u64,
    summary: &'a mut Summary,
}

impl Witness for Sums<'_> {
    fn counted(&mut self, switch: SwitchId, epoch: i64, packets: Packets) {
        let sums = &mut self.summary.switches[switch.index()];
        sums.packets_ever += packets.total();
        if (0..self.epochs as i64).contains(&epoch) {
            sums.packets += packets.total();
            sums.bytes += bytes(self.flow, packets);
        } else {
            self.summary.packets_counted_outside += packets.total();
        }
    }

    fn crossed(&mut self, link: LinkDirection, entered: u64, lost: u64) {
        let sums = &mut self.summary.links[link.index()];
        sums.entered += entered;
        sums.lost += lost;
    }

    fn happened(&mut self, what: Happening, packets: u64) {
        let summary = &mut *self.summary;
        match what {
            Happening::Blackholed { at, counted } => {
                summary.packets_blackholed += packets;
                if !counted {
                    summary.switches[at.index()].packets_dropped_uncounted += packets;
                }
            }
            Happening::InFlight { .. } => summary.packets_in_flight += packets,
            Happening::Looped { .. } => summary.packets_looped += packets,
            Happening::LostOfFlow { .. } => summary.packets_lost_by_lossy_flows += packets,
            Happening::LostOnLink { .. } => summary.packets_lost_on_links += packets,
            Happening::Misforwarded { .. } => summary.packets_misforwarded += packets,
            Happening::MisforwardedDropped { .. } => {
                summary.packets_misforwarded_dropped += packets;
            }
            Happening::TtlExpired { .. } => summary.packets_ttl_expired += packets,
        }
    }

    fn delivered(&mut self, packets: u64) {
        self.summary.packets_delivered += packets;
    }
}

fn bytes(flow: &FlowEpoch, packets: Packets) -> u64 {
    packets.large * u64::from(flow.train.large_bytes)
        + packets.small * u64::from(flow.train.small_bytes)
}

fn add(mut left: Summary, right: Summary) -> Summary {
    left.flow_epochs += right.flow_epochs;
    left.packets_sent += right.packets_sent;
    left.packets_delivered += right.packets_delivered;
    left.packets_lost_on_links += right.packets_lost_on_links;
    left.packets_lost_by_lossy_flows += right.packets_lost_by_lossy_flows;
    left.packets_blackholed += right.packets_blackholed;
    left.packets_misforwarded_dropped += right.packets_misforwarded_dropped;
    left.packets_ttl_expired += right.packets_ttl_expired;
    left.packets_misforwarded += right.packets_misforwarded;
    left.packets_looped += right.packets_looped;
    left.packets_in_flight += right.packets_in_flight;
    left.packets_counted_outside += right.packets_counted_outside;
    for (sums, more) in left.switches.iter_mut().zip(right.switches) {
        sums.packets += more.packets;
        sums.bytes += more.bytes;
        sums.packets_ever += more.packets_ever;
        sums.packets_dropped_uncounted += more.packets_dropped_uncounted;
    }
    for (sums, more) in left.links.iter_mut().zip(right.links) {
        sums.entered += more.entered;
        sums.lost += more.lost;
    }
    left
}
