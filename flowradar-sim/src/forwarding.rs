//! The way of a flow's packets through the network, with all that happens to them.
//!
//! The packets that a flow sends in an epoch travel together, as a train: where some of them fare
//! differently (loss, a loop, another epoch), the train is thinned or split. This is exact, not an
//! approximation: what a FlowRadar switch holds at the end of an epoch depends on how many packets
//! of a flow it saw, not on how those of different flows were mixed. (Only which of two flows
//! first meets a false positive of the flow filter depends on the order; it is the order of
//! flows.)

use flowradar_core::FlowKeyV4;

use crate::faults::{FaultKind, Faults, LoopEnd, Misforwarded, TTL_DEFAULT};
use crate::flow_size::PacketTrain;
use crate::random::{Purpose, Seed, Stream};
use crate::routing::{Ecmp, NextHop, Routing};
use crate::topology::{HostId, LinkDirection, Node, SwitchId, Topology};
use crate::traffic::FlowId;

/// Something that happened to packets of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FaultEvent {
    /// The epoch in which the packets were sent. With clock skew or packets in flight, −1 and the
    /// number of epochs stand for traffic just before and after the run.
    pub sent_epoch: i64,
    /// The flow.
    pub flow: FlowId,
    /// What happened.
    pub what: Happening,
    /// To how many packets.
    pub packets: u64,
}

/// What happened to packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Happening {
    /// Dropped by a blackhole.
    Blackholed {
        /// The switch.
        at: SwitchId,
        /// Whether it counted them before.
        counted: bool,
    },
    /// Not a loss: counted in this epoch as far as one switch, and in the next one from another
    /// (by clocks without offset).
    InFlight {
        /// The first switch of the path, from 0, that counts them in the next epoch.
        from_hop: u32,
    },
    /// Went around a loop.
    Looped {
        /// Where they entered it.
        entry: SwitchId,
        /// The loop's place among the planted faults.
        fault: u32,
    },
    /// Lost on a link.
    LostOnLink {
        /// The link.
        link: LinkDirection,
    },
    /// Lost on a link as one of the lossy flows.
    LostOfFlow {
        /// The link.
        link: LinkDirection,
    },
    /// Sent to a wrong switch.
    Misforwarded {
        /// By this switch.
        at: SwitchId,
        /// To this one.
        to: SwitchId,
    },
    /// Dropped by the switch to which they were sent wrongly.
    MisforwardedDropped {
        /// The switch.
        at: SwitchId,
    },
    /// Dropped because their TTL was used up.
    TtlExpired {
        /// The switch.
        at: SwitchId,
    },
}

impl Happening {
    /// Whether the packets were gone after this.
    pub fn is_loss(self) -> bool {
        match self {
            Self::Blackholed { .. }
            | Self::LostOfFlow { .. }
            | Self::LostOnLink { .. }
            | Self::MisforwardedDropped { .. }
            | Self::TtlExpired { .. } => true,
            Self::InFlight { .. } | Self::Looped { .. } | Self::Misforwarded { .. } => false,
        }
    }
}

/// Packets of the two sizes of a train.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Packets {
    pub(crate) large: u64,
    pub(crate) small: u64,
}

impl Packets {
    pub(crate) fn total(self) -> u64 {
        self.large + self.small
    }

    fn minus(self, other: Self) -> Self {
        Self {
            large: self.large - other.large,
            small: self.small - other.small,
        }
    }

    /// The first ones; large packets are sent before small ones.
    fn first(self, packets: u64) -> Self {
        let large = self.large.min(packets);
        Self {
            large,
            small: self.small.min(packets - large),
        }
    }

    /// So many at random.
    fn pick(self, packets: u64, stream: &mut Stream) -> Self {
        let mut picked = Self::default();
        for _ in 0..packets.min(self.total()) {
            let left = self.minus(picked);
            if stream.below(left.total()) < left.large {
                picked.large += 1;
            } else {
                picked.small += 1;
            }
        }
        picked
    }
}

/// What a walk through the network reports.
pub(crate) trait Witness {
    /// Packets were counted by a switch, by its clock in this epoch.
    fn counted(&mut self, switch: SwitchId, epoch: i64, packets: Packets);
    /// Packets entered a link; some were lost on it.
    fn crossed(&mut self, _link: LinkDirection, _entered: u64, _lost: u64) {}
    /// Something happened to packets.
    fn happened(&mut self, _what: Happening, _packets: u64) {}
    /// Packets arrived at their destination.
    fn delivered(&mut self, _packets: u64) {}
}

/// A flow in one epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FlowEpoch {
    pub(crate) flow: FlowId,
    pub(crate) key: FlowKeyV4,
    pub(crate) from: HostId,
    pub(crate) to: HostId,
    /// The path dealt to the flow; `None` leaves it to the hashes. See
    /// [`crate::traffic::InterPodRoute`].
    pub(crate) path_number: Option<u32>,
    pub(crate) sent_epoch: i64,
    pub(crate) train: PacketTrain,
}

/// The network with its faults, ready to forward.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) seed: Seed,
    pub(crate) topology: Topology,
    pub(crate) routing: Routing,
    pub(crate) ecmp: Ecmp,
    pub(crate) faults: Faults,
    /// By link direction.
    pub(crate) loss: Vec<f64>,
    /// By switch, in epochs.
    pub(crate) clock_offsets: Vec<f64>,
    /// By switch: the planted faults that may happen there.
    pub(crate) planted_at: Vec<Vec<u32>>,
}

impl Network {
    pub(crate) fn new(seed: Seed, topology: Topology, routing: Routing, faults: Faults) -> Self {
        let salt = |switch: SwitchId| {
            let owner = if faults.ecmp_polarised {
                0
            } else {
                u64::from(switch.0)
            };
            seed.bits(Purpose::EcmpSalt, owner, 0)
        };
        let mut ecmp = Ecmp {
            salts: topology.switch_ids().map(salt).collect(),
            weights: vec![None; topology.switches().len()],
        };
        for imbalance in &faults.ecmp_imbalance {
            ecmp.weights[imbalance.at.index()] = Some(imbalance.weights.clone());
        }
        let mut loss: Vec<f64> = topology
            .links()
            .iter()
            .flat_map(|ends| {
                let switches = ends.iter().all(|end| matches!(end, Node::Switch(_)));
                [if switches { faults.link_loss } else { 0.0 }; 2]
            })
            .collect();
        for link in &faults.lossy_links {
            let direction = topology
                .link_between(link.from, link.to)
                .expect("faults were checked against the topology");
            loss[direction.index()] = link.fraction;
        }
        let mut planted_at = vec![Vec::new(); topology.switches().len()];
        for (number, fault) in faults.planted.iter().enumerate() {
            let places = match &fault.kind {
                FaultKind::Blackhole { at, .. } | FaultKind::WrongForwarding { at, .. } => {
                    std::slice::from_ref(at)
                }
                FaultKind::Loop { cycle, .. } => cycle,
            };
            for at in places {
                planted_at[at.index()].push(number as u32);
            }
        }
        Self {
            clock_offsets: faults.clock_offsets(seed, &topology),
            seed,
            topology,
            routing,
            ecmp,
            faults,
            loss,
            planted_at,
        }
    }

    /// Sends a flow's packets of an epoch.
    pub(crate) fn forward(&self, flow: &FlowEpoch, witness: &mut impl Witness) {
        let first_hop = self.first_hop(flow);
        let links = u32::from(self.routing.distance(first_hop.switch, flow.to));
        let names = (flow.flow.0.into(), epoch_bits(flow.sent_epoch));
        let mut stream = self.seed.stream(Purpose::PathLosses, names.0, names.1);

        let lossy = links > 0
            && self.seed.chance(
                self.faults.lossy_flows,
                Purpose::LossyFlow,
                names.0,
                names.1,
            );
        let mut journey = Journey {
            network: self,
            flow,
            lossy_hop: None,
            to_lose: 0,
            stream: &mut stream,
            lossless: false,
        };
        if lossy {
            journey.lossy_hop = Some(journey.stream.below(links.into()) as u32);
            journey.to_lose = 1 + journey.stream.below((flow.train.packets() / 10).max(1));
        }
        for part in self.parts(flow, links) {
            if let Some(from_hop) = part.in_flight_from {
                witness.happened(Happening::InFlight { from_hop }, part.packets.total());
            }
            journey.depart(part, first_hop, witness);
        }
    }

    /// The switches of the path on which routing alone would send the flow.
    pub(crate) fn intended_path(&self, flow: &FlowEpoch) -> Vec<SwitchId> {
        let mut at = self.first_hop(flow).switch;
        let mut choice = PathChoice::of(flow);
        let mut path = vec![at];
        while let Some(hop) = self.next_hop(flow, at, &mut choice) {
            at = hop.switch;
            path.push(at);
        }
        path
    }

    fn first_hop(&self, flow: &FlowEpoch) -> NextHop {
        let hops = self.routing.first_hops(flow.from);
        if let [only] = hops {
            return *only;
        }
        let distance = |hop: &NextHop| self.routing.distance(hop.switch, flow.to);
        let least = hops.iter().map(distance).min();
        let nearest: Vec<&NextHop> = hops
            .iter()
            .filter(|hop| Some(distance(hop)) == least)
            .collect();
        // Hosts choose by the hash of their first switch; it has its own choice still to make, but
        // of another number of hops.
        let salt = !self.ecmp.salts[nearest[0].switch.index()];
        let bits = crate::routing::hash_key(&flow.key, salt);
        *nearest[crate::random::scale(bits, nearest.len() as u64) as usize]
    }

    fn next_hop(&self, flow: &FlowEpoch, at: SwitchId, choice: &mut PathChoice) -> Option<NextHop> {
        let group = self.routing.next_hops(at, flow.to);
        match group {
            [] => None,
            [only] => Some(*only),
            _ => {
                let weighted = self.ecmp.weights[at.index()].is_some();
                let dealt = choice.take(group.len()).filter(|_| !weighted);
                Some(group[dealt.unwrap_or_else(|| self.ecmp.choose(at, &flow.key, group.len()))])
            }
        }
    }

    /// Splits a flow's packets by time, so that each switch counts all packets of a part in one
    /// epoch.
    fn parts(&self, flow: &FlowEpoch, links: u32) -> Vec<Part> {
        let all = Packets {
            large: flow.train.large,
            small: flow.train.small,
        };
        let whole = Part {
            packets: all,
            begin: 0.0,
            in_flight_from: None,
        };
        if !self.faults.displace_packets() {
            return vec![whole];
        }
        let mut parts = Vec::new();
        let mut left = all;
        let packets = all.total() as f64;
        let phase = self
            .seed
            .stream(
                Purpose::Pacing,
                flow.flow.0.into(),
                epoch_bits(flow.sent_epoch),
            )
            .unit();
        let mut boundaries = self.boundaries(flow);
        boundaries.push(1.0);
        let mut begin = 0.0;
        for end in boundaries {
            // Packet i is sent at (i + phase) / packets, so as many are sent before `end`.
            let sent_before = libm::ceil(packets * end - phase).clamp(0.0, packets) as u64;
            let packets = left.first(sent_before - (all.total() - left.total()));
            left = left.minus(packets);
            if packets.total() > 0 {
                parts.push(Part {
                    packets,
                    begin,
                    in_flight_from: None,
                });
            }
            begin = end;
        }
        self.put_in_flight(flow, links, &mut parts);
        parts
    }

    /// Takes packets in flight from the end of the last part.
    fn put_in_flight(&self, flow: &FlowEpoch, links: u32, parts: &mut Vec<Part>) {
        let names = (flow.flow.0.into(), epoch_bits(flow.sent_epoch));
        let fraction = self.faults.in_flight.flows;
        if links == 0
            || !self
                .seed
                .chance(fraction, Purpose::InFlight, names.0, names.1)
        {
            return;
        }
        let Some(last) = parts.last_mut() else {
            return;
        };
        // Another stream than the one that decided whether.
        let mut stream = self.seed.stream(Purpose::InFlight, !names.0, names.1);
        let wished = 1 + stream.below(self.faults.in_flight.packets_max.into());
        let staying = last
            .packets
            .first(last.packets.total().saturating_sub(wished));
        let flying = Part {
            packets: last.packets.minus(staying),
            // Sent just before the epoch's end, after all clocks of the path went on.
            begin: 1.0,
            in_flight_from: Some(1 + stream.below(links.into()) as u32),
        };
        last.packets = staying;
        if staying.total() == 0 {
            parts.pop();
        }
        parts.push(flying);
    }

    /// Times within the epoch, ascending, at which a switch on the flow's way goes on to another
    /// epoch.
    fn boundaries(&self, flow: &FlowEpoch) -> Vec<f64> {
        if self.faults.clock_skew == crate::faults::ClockSkew::None {
            return Vec::new();
        }
        // Faults may lead packets off their path: try, losing none.
        let mut visited = Visited::default();
        let mut stream = self.seed.stream(Purpose::PathLosses, 0, 0);
        let mut journey = Journey {
            network: self,
            flow,
            lossy_hop: None,
            to_lose: 0,
            stream: &mut stream,
            lossless: true,
        };
        let whole = Part {
            packets: Packets {
                large: flow.train.large,
                small: flow.train.small,
            },
            begin: 0.0,
            in_flight_from: None,
        };
        journey.depart(whole, self.first_hop(flow), &mut visited);
        let mut boundaries: Vec<f64> = visited
            .0
            .iter()
            .map(|switch| boundary(self.clock_offsets[switch.index()]))
            .filter(|&time| time > 0.0 && time < 1.0)
            .collect();
        boundaries.sort_unstable_by(f64::total_cmp);
        boundaries.dedup();
        boundaries
    }
}

/// Packets that every switch counts in one epoch.
#[derive(Clone, Copy, Debug)]
struct Part {
    packets: Packets,
    /// Sent at this time of the epoch or later, before the next boundary.
    begin: f64,
    /// The hop from which on it is past the epoch's end.
    in_flight_from: Option<u32>,
}

/// Which of equal next hops a flow still has to take.
#[derive(Clone, Copy, Debug)]
struct PathChoice {
    number: Option<u32>,
}

impl PathChoice {
    fn of(flow: &FlowEpoch) -> Self {
        Self {
            number: flow.path_number,
        }
    }

    fn take(&mut self, choices: usize) -> Option<usize> {
        let number = self.number?;
        let choices = choices as u32;
        self.number = Some(number / choices);
        Some((number % choices) as usize)
    }
}

/// One flow's packets of an epoch on their way.
struct Journey<'a> {
    network: &'a Network,
    flow: &'a FlowEpoch,
    /// The hop after which a lossy flow loses packets, and how many it still has to lose.
    lossy_hop: Option<u32>,
    to_lose: u64,
    stream: &'a mut Stream,
    /// Links lose nothing: to find out which way packets go.
    lossless: bool,
}

/// Where a part of the packets is.
#[derive(Clone, Copy, Debug)]
struct Position {
    at: SwitchId,
    /// Switches passed before this one.
    hop: u32,
    choice: PathChoice,
    /// Whether these packets have met a loop before.
    looped: bool,
    /// Whether this switch drops them because they were sent to it wrongly.
    dropped_here: bool,
}

impl Journey<'_> {
    /// From the host to the first switch and on.
    fn depart(&mut self, mut part: Part, first_hop: NextHop, witness: &mut impl Witness) {
        self.cross(first_hop.link, &mut part, None, witness);
        let position = Position {
            at: first_hop.switch,
            hop: 0,
            choice: PathChoice::of(self.flow),
            looped: false,
            dropped_here: false,
        };
        self.arrive(part, position, witness);
    }

    /// From the arrival at a switch to the end of the journey.
    fn arrive(&mut self, mut part: Part, mut position: Position, witness: &mut impl Witness) {
        while part.packets.total() > 0 {
            let at = position.at;
            if self.blackholed(at, false) {
                let what = Happening::Blackholed { at, counted: false };
                return witness.happened(what, part.packets.total());
            }
            self.count(&part, position, witness);
            if position.dropped_here {
                let what = Happening::MisforwardedDropped { at };
                return witness.happened(what, part.packets.total());
            }
            if self.blackholed(at, true) {
                let what = Happening::Blackholed { at, counted: true };
                return witness.happened(what, part.packets.total());
            }
            if !position.looped {
                position.looped = self.enter_loop(&mut part, position, witness);
            }
            if !self.leave(&mut part, &mut position, witness) {
                return;
            }
        }
    }

    /// From a switch that has counted the packets over the link to the next; false where their
    /// journey ends.
    fn leave(
        &mut self,
        part: &mut Part,
        position: &mut Position,
        witness: &mut impl Witness,
    ) -> bool {
        let at = position.at;
        if part.packets.total() == 0 {
            return false;
        }
        if position.hop + 1 >= TTL_DEFAULT {
            witness.happened(Happening::TtlExpired { at }, part.packets.total());
            return false;
        }
        let intended = self.network.next_hop(self.flow, at, &mut position.choice);
        let hop = match self.misforwarded(at, intended) {
            Some((wrong, then)) => {
                let what = Happening::Misforwarded {
                    at,
                    to: wrong.switch,
                };
                witness.happened(what, part.packets.total());
                position.dropped_here = then == Misforwarded::Drop;
                // What was dealt for the intended path says nothing about this one.
                position.choice = PathChoice { number: None };
                wrong
            }
            None => match intended {
                Some(hop) => hop,
                None => {
                    self.deliver(part, at, witness);
                    return false;
                }
            },
        };
        self.cross(hop.link, part, Some(position.hop), witness);
        position.at = hop.switch;
        position.hop += 1;
        true
    }

    /// Crosses a link and loses packets; `hop` is that of the switch before it.
    fn cross(
        &mut self,
        link: LinkDirection,
        part: &mut Part,
        hop: Option<u32>,
        witness: &mut impl Witness,
    ) {
        let entered = part.packets.total();
        let fraction = self.network.loss[link.index()];
        if fraction > 0.0 && !self.lossless {
            let lost = Packets {
                large: self.stream.binomial(part.packets.large, fraction),
                small: self.stream.binomial(part.packets.small, fraction),
            };
            part.packets = part.packets.minus(lost);
            if lost.total() > 0 {
                witness.happened(Happening::LostOnLink { link }, lost.total());
            }
        }
        if hop.is_some() && hop == self.lossy_hop && self.to_lose > 0 {
            let lost = part.packets.pick(self.to_lose, self.stream);
            part.packets = part.packets.minus(lost);
            self.to_lose -= lost.total();
            if lost.total() > 0 {
                witness.happened(Happening::LostOfFlow { link }, lost.total());
            }
        }
        witness.crossed(link, entered, entered - part.packets.total());
    }

    fn deliver(&mut self, part: &mut Part, at: SwitchId, witness: &mut impl Witness) {
        let link = self.network.routing.delivery(at, self.flow.to);
        let link = link.expect("the last switch of a route is joined to the destination");
        self.cross(link, part, None, witness);
        witness.delivered(part.packets.total());
    }

    fn count(&self, part: &Part, position: Position, witness: &mut impl Witness) {
        let offset = self.network.clock_offsets[position.at.index()];
        let displaced = match part.in_flight_from {
            // Just past the end of the epoch: a clock that is late does not know yet.
            Some(from) if position.hop >= from => i64::from(offset >= 0.0),
            _ if offset > 0.0 => i64::from(part.begin >= boundary(offset)),
            _ if offset < 0.0 => -i64::from(part.begin < boundary(offset)),
            _ => 0,
        };
        let epoch = self.flow.sent_epoch + displaced;
        witness.counted(position.at, epoch, part.packets);
    }

    /// Sends packets around a loop that catches them here; whether there is one.
    fn enter_loop(
        &mut self,
        part: &mut Part,
        position: Position,
        witness: &mut impl Witness,
    ) -> bool {
        let faults = &self.network.faults.planted;
        let caught =
            self.planted(position.at)
                .find_map(|number| match &faults[number as usize].kind {
                    FaultKind::Loop {
                        cycle,
                        turns,
                        packets_fraction,
                        end,
                    } => Some((number, cycle, *turns, *packets_fraction, *end)),
                    _ => None,
                });
        let Some((fault, cycle, turns, packets_fraction, end)) = caught else {
            return false;
        };
        let wished = libm::ceil(part.packets.total() as f64 * packets_fraction) as u64;
        let mut looping = Part {
            packets: part.packets.first(wished),
            ..*part
        };
        part.packets = part.packets.minus(looping.packets);
        if looping.packets.total() == 0 {
            return true;
        }
        let entry = position.at;
        witness.happened(Happening::Looped { entry, fault }, looping.packets.total());
        let place = cycle.iter().position(|&switch| switch == entry);
        let place = place.expect("the loop is listed at the switches of its cycle");
        let passes = cycle
            .iter()
            .cycle()
            .skip(place + 1)
            .take(cycle.len() * turns as usize);
        let mut looper = Position {
            looped: true,
            ..position
        };
        for &next in passes {
            let link = self.network.topology.link_between(looper.at, next);
            let link = link.expect("a loop's switches were checked to be joined");
            // A lossy flow loses on its path, not in a loop.
            self.cross(link, &mut looping, None, witness);
            if looping.packets.total() == 0 {
                return true;
            }
            looper.at = next;
            looper.hop += 1;
            self.count(&looping, looper, witness);
        }
        match end {
            LoopEnd::TtlExpires => {
                witness.happened(Happening::TtlExpired { at: entry }, looping.packets.total());
            }
            LoopEnd::Heals => {
                // As far from the destination as before; the TTL is not used up twice.
                looper.hop = position.hop;
                if self.leave(&mut looping, &mut looper, witness) {
                    self.arrive(looping, looper, witness);
                }
            }
        }
        true
    }

    fn blackholed(&self, at: SwitchId, counting: bool) -> bool {
        self.planted(at).any(|number| {
            matches!(
                self.network.faults.planted[number as usize].kind,
                FaultKind::Blackhole { counted, .. } if counted == counting
            )
        })
    }

    fn misforwarded(
        &self,
        at: SwitchId,
        intended: Option<NextHop>,
    ) -> Option<(NextHop, Misforwarded)> {
        self.planted(at).find_map(|number| {
            match self.network.faults.planted[number as usize].kind {
                // The right way is not wrong, though the entry says so too.
                FaultKind::WrongForwarding { to, then, .. }
                    if intended.is_none_or(|hop| hop.switch != to) =>
                {
                    let link = self.network.topology.link_between(at, to)?;
                    Some((NextHop { switch: to, link }, then))
                }
                _ => None,
            }
        })
    }

    /// The planted faults at a switch that hit this flow.
    fn planted(&self, at: SwitchId) -> impl Iterator<Item = u32> + use<'_> {
        let network = self.network;
        let flow = self.flow;
        network.planted_at[at.index()]
            .iter()
            .copied()
            .filter(move |&number| {
                network.faults.planted[number as usize].hits(
                    network.seed,
                    number as usize,
                    flow.flow,
                    (flow.from, flow.to),
                    flow.sent_epoch,
                )
            })
    }
}

#[derive(Default)]
struct Visited(std::collections::BTreeSet<SwitchId>);

impl Witness for Visited {
    fn counted(&mut self, switch: SwitchId, _epoch: i64, _packets: Packets) {
        self.0.insert(switch);
    }
}

/// When, in the epoch of a clock without offset, a switch's clock goes on to another epoch.
fn boundary(offset: f64) -> f64 {
    if offset > 0.0 { 1.0 - offset } else { -offset }
}

/// An epoch as a stream's name; −1 is one too.
fn epoch_bits(epoch: i64) -> u64 {
    epoch as u64
}
