//! Packet and time in, back end out.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::IpNet;

use super::counters::DispatchCounters;
use super::flow_id::{Direction, FlowId};
use super::flow_state::{FlowEvent, FlowState, Timeouts};
use super::flow_table::{FlowTable, NOT_MEASURED};
use super::fragments::{Datagram, DatagramKey, Fragments};
use super::packet::{Fragment, Packet};
use crate::policy::estimate::EstimatorSettings;
use crate::policy::{
    Availability, BackEndId, BackEndSettings, BackEndStatus, Balancer, BalancerSettings, Policy,
    Unit, UnitKey,
};
use crate::time::Timestamp;

/// Packets whose memory accesses overlap.
const BATCH: usize = 32;
/// Flows looked at for timeouts and estimates for each packet, at most: each packet brings at most
/// one flow, so all are looked at in time.
const VISITS_PER_PACKET: usize = 8;
/// Longer than any round trip on Earth that a connection survives.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(10);
/// Bounds of the silence after which a flow is idle, whatever the round trip time.
const IDLE_AFTER_MIN: Duration = Duration::from_millis(100);
const IDLE_AFTER_MAX: Duration = Duration::from_secs(10);
/// The share of a new round trip in the average (as in RFC 6298 §2).
const ROUND_TRIP_GAIN: f64 = 0.125;

/// What a back end's load is counted in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoadUnit {
    /// Each packet is the same work, as in the paper.
    #[default]
    Packets,
    /// Work is in proportion to bytes.
    Bytes,
}

/// What a [`Dispatcher`] is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct DispatcherSettings {
    /// Policy and estimator. Flows stay where they are whatever it says about moving units.
    pub balancer: BalancerSettings,
    /// Flows in the table at most. Flows beyond are dispatched by hash.
    pub flows: usize,
    /// Datagrams at most of which fragments are awaited.
    pub datagrams: usize,
    /// How long fragments of a datagram are awaited (RFC 8200 §4.5: 60 s).
    pub fragment_timeout: Duration,
    /// When flows are forgotten.
    pub timeouts: Timeouts,
    /// What load is counted in.
    pub load: LoadUnit,
    /// The round trip time until one is measured.
    pub round_trip: Duration,
    /// N of the paper: a flow that is silent for so many round trips is idle.
    pub idle_round_trips: f64,
}

impl DispatcherSettings {
    /// The paper's settings with a policy: K = 200 ms.
    pub fn new(policy: Policy) -> Self {
        Self {
            balancer: BalancerSettings {
                policy,
                estimator: EstimatorSettings {
                    rate_time_constant: Duration::from_millis(200),
                    idle_after: Duration::from_secs(1),
                    busy_time_constant: Duration::from_secs(2),
                },
                recovery_ramp: Duration::from_secs(10),
                minimum_stay: Duration::MAX,
                improvement: 0.0,
                draining_keeps_units: true,
                seed: 0,
            },
            flows: 1 << 20,
            datagrams: 1 << 15,
            fragment_timeout: Duration::from_secs(60),
            timeouts: Timeouts::default(),
            load: LoadUnit::Packets,
            round_trip: Duration::from_millis(100),
            idle_round_trips: 10.0,
        }
    }
}

/// Assigns packets to back ends, all packets of a flow to one.
///
/// Constant time and no allocation for a packet (but for the number of back ends); memory in
/// proportion to the flows, at most as many as the settings say.
///
/// ```
/// use std::time::Duration;
/// use flowradar_balancer::Timestamp;
/// use flowradar_balancer::dispatch::{Dispatcher, DispatcherSettings, Packet};
/// use flowradar_balancer::policy::{BackEndId, BackEndSettings, Policy};
/// use flowradar_core::FlowKeyV4;
///
/// let servers = (0..3).map(|id| BackEndSettings::new(BackEndId(id), format!("server {id}")));
/// let settings = DispatcherSettings::new(Policy::RoundRobin);
/// let mut dispatcher = Dispatcher::new(settings, servers, Timestamp::ZERO);
///
/// let there = FlowKeyV4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 49152, 53, 17);
/// let back = FlowKeyV4::new([10, 0, 0, 2].into(), [10, 0, 0, 1].into(), 53, 49152, 17);
/// let server = dispatcher.dispatch(&Packet::of_key_v4(&there, 60), Timestamp::ZERO);
/// assert!(server.is_some());
/// let later = Timestamp::from_millis(20);
/// assert_eq!(dispatcher.dispatch(&Packet::of_key_v4(&back, 500), later), server);
/// ```
#[derive(Debug)]
pub struct Dispatcher {
    settings: DispatcherSettings,
    balancer: Balancer,
    table: FlowTable,
    fragments: Fragments,
    counters: DispatchCounters,
    /// Prefixes of the fixed policy.
    prefixes: Vec<IpNet>,
    /// Whether the policy goes by the loads of flows, also of those that fell silent.
    goes_by_load: bool,
    /// Until then flows that are new to the table may have had untracked packets.
    untracked_until: Timestamp,
    round_trip_seconds: f64,
    /// Time never goes back, even if traces do.
    latest: Timestamp,
}

impl Dispatcher {
    /// All back ends are up.
    pub fn new(
        mut settings: DispatcherSettings,
        back_ends: impl IntoIterator<Item = BackEndSettings>,
        now: Timestamp,
    ) -> Self {
        // Flows of packets never move for better balance.
        settings.balancer.minimum_stay = Duration::MAX;
        settings.balancer.draining_keeps_units = true;
        let policy = &settings.balancer.policy;
        let prefixes = match policy {
            Policy::Fixed { routes } => routes.iter().map(|(prefix, _)| *prefix).collect(),
            _ => Vec::new(),
        };
        let goes_by_load = match policy {
            Policy::LeastLoaded
            | Policy::EstimatedLoad { .. }
            | Policy::Rendezvous {
                load_bound: Some(_),
            } => true,
            Policy::Fixed { .. } | Policy::RoundRobin | Policy::Rendezvous { load_bound: None } => {
                false
            }
        };
        let mut dispatcher = Self {
            balancer: Balancer::new(settings.balancer.clone(), back_ends),
            table: FlowTable::new(settings.flows, settings.balancer.seed, now),
            fragments: Fragments::new(settings.datagrams, settings.fragment_timeout),
            counters: DispatchCounters::default(),
            prefixes,
            goes_by_load,
            untracked_until: Timestamp::ZERO,
            round_trip_seconds: settings.round_trip.as_secs_f64(),
            latest: now,
            settings,
        };
        dispatcher.set_time_scales();
        dispatcher
    }

    /// The back end for a packet; `None` if none is up.
    pub fn dispatch(&mut self, packet: &Packet, now: Timestamp) -> Option<BackEndId> {
        let flow = self.flow_of(packet, now);
        let hash = self.table.hash(&flow);
        self.dispatch_hashed(packet, flow, hash, None, now)
    }

    /// The back ends for packets, each with its time: as if each was dispatched after the other,
    /// but faster, since memory is waited for once for several.
    pub fn dispatch_batch(
        &mut self,
        packets: &[(Packet, Timestamp)],
        back_ends: &mut Vec<Option<BackEndId>>,
    ) {
        for packets in packets.chunks(BATCH) {
            let mut hashes = [0; BATCH];
            for ((packet, _), hash) in packets.iter().zip(&mut hashes) {
                *hash = self.table.hash(&packet.flow);
                self.table.prefetch_index(*hash);
            }
            let mut slots = [None; BATCH];
            for (hash, slot) in hashes.iter().zip(&mut slots).take(packets.len()) {
                *slot = self.table.prefetch_entry(*hash);
            }
            for (((packet, now), &hash), &slot) in packets.iter().zip(&hashes).zip(&slots) {
                let back_end = if packet.fragment == Fragment::Whole {
                    self.dispatch_hashed(packet, packet.flow, hash, slot, *now)
                } else {
                    self.dispatch(packet, *now)
                };
                back_ends.push(back_end);
            }
        }
    }

    /// Forgets what has been silent for too long, and brings estimates up to date: at most `flows`
    /// of them. Packets do the same in passing; without packets, call this from time to time.
    pub fn tick(&mut self, now: Timestamp, flows: usize) {
        self.latest = self.latest.max(now);
        for _ in 0..flows {
            let Some(slot) = self.table.pop_due(self.latest) else {
                return;
            };
            self.visit(slot, self.latest);
        }
    }

    /// Takes note that a back end failed, came back, or is to be drained: takes no new flows but
    /// keeps those it has. Flows of a failed one move with their next packets.
    pub fn set_availability(&mut self, id: BackEndId, availability: Availability, now: Timestamp) {
        self.balancer.set_availability(id, availability, now);
    }

    /// Takes a back end's own word about its load, as a fraction of its capacity.
    pub fn set_reported_load(&mut self, id: BackEndId, load: Option<f64>) {
        self.balancer.set_reported_load(id, load);
    }

    /// Takes the amount that a back end can take now, see [`Balancer::set_residual`].
    pub fn set_residual(&mut self, id: BackEndId, amount: Option<f64>) {
        self.balancer.set_residual(id, amount);
    }

    /// What was counted so far.
    pub fn counters(&self) -> DispatchCounters {
        DispatchCounters {
            datagrams_evicted: self.fragments.evicted(),
            ..self.counters
        }
    }

    /// Flows in the table.
    pub fn flows(&self) -> usize {
        self.table.len()
    }

    /// The round trip time of connections, averaged.
    pub fn round_trip(&self) -> Duration {
        Duration::from_secs_f64(self.round_trip_seconds)
    }

    /// All back ends as they are now.
    pub fn status(&self) -> Vec<BackEndStatus> {
        self.balancer.status(self.latest)
    }

    /// The flow of a packet: for a later fragment, that of its first if it was seen.
    fn flow_of(&self, packet: &Packet, now: Timestamp) -> FlowId {
        if let Fragment::Later { identification } = packet.fragment {
            let key = DatagramKey::new(&packet.flow, packet.direction, identification);
            if let Some(Datagram::Known(flow)) = self.fragments.find(&key, now.max(self.latest)) {
                return flow;
            }
        }
        packet.flow
    }

    fn dispatch_hashed(
        &mut self,
        packet: &Packet,
        flow: FlowId,
        hash: u64,
        slot: Option<u32>,
        now: Timestamp,
    ) -> Option<BackEndId> {
        let now = now.max(self.latest);
        self.latest = now;
        if self.table.is_due(now) {
            self.tick(now, VISITS_PER_PACKET);
        }
        self.counters.packets += 1;
        self.counters.ip_bytes += u64::from(packet.ip_bytes);
        self.counters.packets_with_ports_cut_off += u64::from(packet.ports_cut_off);
        let back_end = match packet.fragment {
            Fragment::Whole => self.dispatch_flow(packet, flow, (hash, slot), None, now),
            Fragment::First { identification } => {
                self.dispatch_first_fragment(packet, hash, identification, now)
            }
            Fragment::Later { identification } => {
                self.dispatch_later_fragment(packet, flow, hash, identification, now)
            }
        };
        if back_end.is_none() {
            self.counters.packets_without_back_end += 1;
        }
        back_end
    }

    fn dispatch_first_fragment(
        &mut self,
        packet: &Packet,
        hash: u64,
        identification: u32,
        now: Timestamp,
    ) -> Option<BackEndId> {
        let key = DatagramKey::new(&packet.flow, packet.direction, identification);
        let early = match self.fragments.find(&key, now) {
            Some(Datagram::Early(back_end)) => Some(back_end),
            _ => None,
        };
        let back_end = self.dispatch_flow(packet, packet.flow, (hash, None), early, now);
        if early.is_some() && early != back_end {
            self.counters.datagrams_split += 1;
        }
        self.fragments
            .remember(key, Datagram::Known(packet.flow), now);
        back_end
    }

    fn dispatch_later_fragment(
        &mut self,
        packet: &Packet,
        flow: FlowId,
        hash: u64,
        identification: u32,
        now: Timestamp,
    ) -> Option<BackEndId> {
        self.counters.later_fragments += 1;
        let back_end = self.dispatch_flow(packet, flow, (hash, None), None, now);
        let key = DatagramKey::new(&packet.flow, packet.direction, identification);
        if let Some(Datagram::Known(_)) = self.fragments.find(&key, now) {
            return back_end;
        }
        self.counters.fragments_before_their_first += 1;
        if let Some(back_end) = back_end {
            self.fragments.remember(key, Datagram::Early(back_end), now);
        }
        back_end
    }

    /// The back end of a flow, for a packet of it, by its hash and the slot that it may have. A new
    /// flow goes to `wished` if that is given.
    #[inline]
    fn dispatch_flow(
        &mut self,
        packet: &Packet,
        flow: FlowId,
        (hash, slot): (u64, Option<u32>),
        wished: Option<BackEndId>,
        now: Timestamp,
    ) -> Option<BackEndId> {
        if let Some(slot) = self.table.find(&flow, hash, slot) {
            let entry = self.table.entry_mut(slot);
            let timeout = (entry.state).timeout(flow.protocol(), &self.settings.timeouts);
            if now.since(entry.unit.estimate().last_arrival()) <= timeout {
                if self.advance_state(slot, packet, now) != FlowEvent::Reopened {
                    return self.dispatch_known(slot, packet, hash, now);
                }
            } else {
                self.counters.flows_expired += 1;
            }
            // Another flow between the same endpoints.
            self.forget(slot, now);
        }
        self.dispatch_new(packet, flow, hash, wished, now)
    }

    /// Takes the flags of a packet into account.
    #[inline]
    fn advance_state(&mut self, slot: u32, packet: &Packet, now: Timestamp) -> FlowEvent {
        let Some(flags) = packet.tcp else {
            return FlowEvent::None;
        };
        let entry = self.table.entry_mut(slot);
        let (state, event) = entry.state.after(packet.direction, flags);
        entry.state = state;
        match event {
            FlowEvent::None | FlowEvent::Reopened => {}
            FlowEvent::RoundTripBegins => entry.round_trip_began = now,
            FlowEvent::RoundTripEnds => {
                let began = std::mem::replace(&mut entry.round_trip_began, NOT_MEASURED);
                if began <= now {
                    self.take_round_trip(now.since(began));
                }
            }
            FlowEvent::Closed => {
                self.counters.connections_closed += 1;
                self.balancer.mute(&mut self.table.entry_mut(slot).unit);
                let due = now + self.settings.timeouts.tcp_closed;
                self.table.schedule(slot, due);
            }
        }
        event
    }

    #[inline]
    fn dispatch_known(
        &mut self,
        slot: u32,
        packet: &Packet,
        hash: u64,
        now: Timestamp,
    ) -> Option<BackEndId> {
        let amount = self.amount(packet);
        let entry = self.table.entry_mut(slot);
        let key = unit_key(&self.prefixes, &entry.flow, hash);
        let dispatched = self
            .balancer
            .dispatch(&mut entry.unit, key, amount, now)?
            .back_end;
        if entry.state == FlowState::Closed {
            // What comes after the end tells nothing about the future.
            self.balancer.mute(&mut entry.unit);
        }
        self.counters.tracked_packets += 1;
        let before = entry.back_end.replace(dispatched);
        if let Some(before) = before
            && before != dispatched
        {
            if self.balancer.keeps(before) {
                self.counters.affinity_breaks += 1;
            } else {
                self.counters.flows_moved_by_failure += 1;
            }
        }
        Some(dispatched)
    }

    fn dispatch_new(
        &mut self,
        packet: &Packet,
        flow: FlowId,
        hash: u64,
        wished: Option<BackEndId>,
        now: Timestamp,
    ) -> Option<BackEndId> {
        let (state, is_beginning) = FlowState::first(flow.protocol(), packet.direction, packet.tcp);
        let Some(slot) = self.table.insert(flow, hash, state, now) else {
            return self.dispatch_untracked(&flow, hash, now);
        };
        self.counters.flows += 1;
        self.counters.flows_from_their_middle += u64::from(!is_beginning);
        let by_hash = now < self.untracked_until;
        self.counters.flows_placed_by_hash += u64::from(by_hash);
        let wished = match wished {
            Some(back_end) => Some(back_end),
            None if by_hash => self.stateless(&flow, hash, now),
            None => None,
        };
        let entry = self.table.entry_mut(slot);
        if let Some(back_end) = wished {
            self.balancer.place(&mut entry.unit, back_end, now);
        }
        if matches!(state, FlowState::Opening { initiator } if initiator == packet.direction) {
            entry.round_trip_began = now;
        }
        let timeout = state.timeout(flow.protocol(), &self.settings.timeouts);
        let due = if self.goes_by_load {
            now + timeout.min(self.balancer.idle_after())
        } else {
            now + timeout
        };
        self.table.schedule(slot, due);
        self.dispatch_known(slot, packet, hash, now)
    }

    /// Without room in the table, the hash keeps flows together. From now on, for as long as any
    /// flow may live, flows that are new to the table are given to back ends by hash too: one of
    /// them may be this one.
    fn dispatch_untracked(
        &mut self,
        flow: &FlowId,
        hash: u64,
        now: Timestamp,
    ) -> Option<BackEndId> {
        self.untracked_until = now + self.settings.timeouts.longest();
        let back_end = self.stateless(flow, hash, now)?;
        self.counters.untracked_packets += 1;
        Some(back_end)
    }

    /// A back end that depends on the flow alone, and on which back ends are up.
    fn stateless(&self, flow: &FlowId, hash: u64, now: Timestamp) -> Option<BackEndId> {
        let key = unit_key(&self.prefixes, flow, hash);
        self.balancer.stateless(key, now)
    }

    /// Looks at a flow whose time has come: forgets it, or takes its silence into account.
    fn visit(&mut self, slot: u32, now: Timestamp) {
        let entry = self.table.entry_mut(slot);
        let timeout = (entry.state).timeout(entry.flow.protocol(), &self.settings.timeouts);
        let last = entry.unit.estimate().last_arrival();
        let silence = now.since(last);
        if silence > timeout {
            self.counters.flows_expired += 1;
            self.forget(slot, now);
            return;
        }
        // A tick of the wheel may end at the very moment of the timeout.
        let expires = (last + timeout).max(now + Duration::from_nanos(1));
        let due = if self.goes_by_load && entry.state != FlowState::Closed {
            let idle_after = self.balancer.idle_after();
            if silence > idle_after {
                self.balancer.refresh(&mut entry.unit, now);
            }
            // The longer the silence, the slower things change.
            let next = if silence > idle_after {
                now + silence
            } else {
                last + idle_after + Duration::from_nanos(1)
            };
            expires.min(next)
        } else {
            expires
        };
        self.table.schedule(slot, due);
    }

    fn forget(&mut self, slot: u32, now: Timestamp) {
        let unit: Unit = self.table.remove(slot, now);
        self.balancer.release(unit);
    }

    fn take_round_trip(&mut self, round_trip: Duration) {
        self.counters.round_trips += 1;
        let seconds = round_trip.min(ROUND_TRIP_MAX).as_secs_f64();
        if self.counters.round_trips == 1 {
            self.round_trip_seconds = seconds;
        } else {
            self.round_trip_seconds += ROUND_TRIP_GAIN * (seconds - self.round_trip_seconds);
        }
        self.set_time_scales();
    }

    fn set_time_scales(&mut self) {
        let round_trip = Duration::from_secs_f64(self.round_trip_seconds);
        let idle_after = round_trip.mul_f64(self.settings.idle_round_trips.clamp(1.0, 1e3));
        let idle_after = idle_after.clamp(IDLE_AFTER_MIN, IDLE_AFTER_MAX);
        self.balancer.set_time_scales(round_trip, idle_after);
    }

    #[inline]
    fn amount(&self, packet: &Packet) -> f64 {
        match self.settings.load {
            LoadUnit::Packets => 1.0,
            LoadUnit::Bytes => f64::from(packet.ip_bytes),
        }
    }
}

/// What the policies know of a flow. The fixed policy goes by the endpoint that its prefixes hold,
/// whichever way the packet goes; by the smaller address if they hold both.
#[inline]
fn unit_key(prefixes: &[IpNet], flow: &FlowId, hash: u64) -> UnitKey {
    let address = if prefixes.is_empty() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    } else {
        let (first, _) = flow.source(Direction::Ascending);
        if prefixes.iter().any(|prefix| prefix.contains(&first)) {
            first
        } else {
            flow.source(Direction::Descending).0
        }
    };
    UnitKey::new(address, hash)
}
