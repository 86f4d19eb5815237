//! The engine: datagrams in, datagrams for collectors out.
//!
//! [`Engine::handle`] takes one datagram with its source and the time, and gives what is to be sent to
//! an [`Output`]. It opens no sockets, reads no clock and knows no addresses of collectors: only their
//! ids. Everything it keeps has a limit in the [`EnginePlan`], and everything that does not go its
//! plain way has a number in [`Counters`].
//!
//! # Streams that are not split
//!
//! With the units [`AssignmentUnit::Exporter`] and [`AssignmentUnit::Stream`] a datagram is passed on
//! as it is. When a stream moves, its new collector is first given the templates and the last options
//! data, in messages whose sequence numbers lie just before the next: the exporter's numbers stay
//! what they are, and its gaps stay gaps.
//!
//! # Streams that are split
//!
//! With [`AssignmentUnit::Message`] and [`AssignmentUnit::Record`] each collector sees sequence
//! numbers of its own, without gaps, counted in the protocol's own unit. Templates and options data
//! go to all collectors of the group, data to one. Data whose template is not known waits.
//!
//! # Cost
//!
//! Constant time for each set of a message in the units other than record, without allocation; for
//! each record and collector in record mode.

mod analysis;
mod copies;
mod counters;
mod distribute;
mod domains;
mod keeper;
mod plan;
mod replay;
mod snapshot;
mod table;

use std::net::SocketAddr;

use crate::policy::{Availability, BackEndId, Balancer, Unit};
use crate::stream::{SequenceEvent, StateBudget};
use crate::time::Timestamp;
use crate::wire::Header;
use crate::wire::build::MessageBuilder;

use analysis::{Summary, analyse};
pub use counters::Counters;
pub use domains::Domains;
use keeper::KeeperPart;
pub use keeper::{SavedRecord, SavedStream, StateKeeper};
pub use plan::{
    AssignmentUnit, CopyPlan, EnginePlan, GroupPlan, Limits, RoutePlan, WaitingSettings,
};
use replay::ReplayBuffer;
pub use snapshot::{
    DestinationSnapshot, EngineSnapshot, ExporterSnapshot, GroupSnapshot, MemberSnapshot,
    StreamSnapshot,
};
use table::{Exporter, NoRoom, Removed, Stream, Table, Waiting};

/// Units that are looked at for better balance in one tick.
const REBALANCED_PER_TICK: usize = 2048;
/// A tick looks for silent exporters so often.
const IDLE_CHECK_NANOS: u64 = 10_000_000_000;

/// Takes what the engine sends.
pub trait Output {
    /// Sends a message to a collector or to the receiver of a copy.
    fn send(&mut self, destination: BackEndId, message: Outgoing<'_>);
}

/// A message to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing<'a> {
    /// The bytes, but for the sequence number.
    pub bytes: &'a [u8],
    /// Where another sequence number is to be written, and which.
    pub sequence: Option<(usize, u32)>,
    /// Where another observation domain is to be written, and which; see
    /// [`EnginePlan::keeps_source`].
    pub domain: Option<DomainPatch>,
    /// The exporter's address and port, for receivers that are to see it.
    pub source: SocketAddr,
    /// Flow records in it.
    pub records: u32,
}

/// An observation domain to be written into a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainPatch {
    /// Where.
    pub offset: usize,
    /// Two bytes (v5) or four.
    pub length: usize,
    /// Which.
    pub domain: u32,
}

impl Outgoing<'_> {
    /// Appends the message as it is to be sent.
    pub fn append_to(&self, buffer: &mut Vec<u8>) {
        let start = buffer.len();
        buffer.extend_from_slice(self.bytes);
        if let Some(patch) = self.domain
            && let Some(place) =
                buffer.get_mut(start + patch.offset..start + patch.offset + patch.length)
        {
            let value = patch.domain.to_be_bytes();
            place.copy_from_slice(&value[4 - patch.length.min(4)..]);
        }
        if let Some((offset, sequence)) = self.sequence
            && let Some(place) = buffer.get_mut(start + offset..start + offset + 4)
        {
            place.copy_from_slice(&sequence.to_be_bytes());
        }
    }

    /// The message as it is to be sent.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bytes.len());
        self.append_to(&mut bytes);
        bytes
    }
}

/// What decides where exports go; see the [module](self).
#[derive(Debug)]
pub struct Engine {
    table: Table,
    core: Core,
}

/// Everything but the table, so that a stream of the table can be worked on with it.
#[derive(Debug)]
struct Core {
    plan: EnginePlan,
    plan_version: u64,
    groups: Vec<Group>,
    budget: StateBudget,
    waiting_bytes: usize,
    counters: Counters,
    replay: ReplayBuffer,
    destinations: Vec<Destination>,
    domains: Domains,
    keeper: Option<KeeperPart>,
    /// Messages under construction in record mode, used again and again.
    parts: Vec<Part>,
    rebalance_cursor: usize,
    idle_checked: Timestamp,
}

#[derive(Debug)]
struct Group {
    name: String,
    unit: AssignmentUnit,
    balancer: Balancer,
}

/// What is known of a destination apart from any stream, by its id.
#[derive(Clone, Copy, Debug, Default)]
struct Destination {
    /// See `Delivery::memory`.
    memory: u32,
    messages: u64,
    bytes: u64,
    records: u64,
    /// What others send there, records per second.
    external_per_second: f64,
}

#[derive(Debug)]
struct Part {
    destination: BackEndId,
    builder: MessageBuilder,
    records: u32,
    has_data: bool,
}

/// A message on its way.
#[derive(Clone, Copy, Debug)]
struct Message<'a> {
    datagram: &'a [u8],
    header: Header,
    source: SocketAddr,
    summary: Summary,
    /// Version of the stream's templates and options before this message.
    version_before: u64,
    /// The stream's substitute for its observation domain.
    domain: Option<u32>,
    /// Sent before, to a collector that failed.
    is_replay: bool,
}

impl Message<'_> {
    /// The observation domain that a destination is to see, if it is not the exporter's.
    fn domain_for(&self, to: BackEndId, plan: &EnginePlan) -> Option<DomainPatch> {
        let domain = self.domain.filter(|_| !plan.keeps_source.contains(&to))?;
        let (offset, length) = self.header.domain_place();
        Some(DomainPatch {
            offset,
            length,
            domain,
        })
    }
}

impl Engine {
    /// An engine that has seen nothing yet.
    pub fn new(plan: EnginePlan, now: Timestamp) -> Self {
        Self::with_domains(plan, Domains::default(), now)
    }

    /// An engine that shares observation domains with others, as all that send to the same
    /// collectors must.
    pub fn with_domains(plan: EnginePlan, domains: Domains, now: Timestamp) -> Self {
        let budget = StateBudget::new(plan.limits.state_bytes);
        let mut engine = Self {
            table: Table::default(),
            core: Core {
                plan: EnginePlan::default(),
                plan_version: 0,
                groups: Vec::new(),
                budget,
                waiting_bytes: 0,
                counters: Counters::default(),
                replay: ReplayBuffer::default(),
                destinations: Vec::new(),
                domains,
                keeper: None,
                parts: Vec::new(),
                rebalance_cursor: 0,
                idle_checked: now,
            },
        };
        engine.apply_plan(plan, None);
        engine
    }

    /// Lays down templates and options in a keeper when it asks for them, and takes up what it
    /// remembers.
    pub fn use_keeper(&mut self, keeper: &StateKeeper) {
        self.core.keeper = Some(keeper.part());
    }

    /// What was counted so far.
    pub fn counters(&self) -> &Counters {
        &self.core.counters
    }

    /// Bytes that templates, waiting data and the replay buffer take.
    pub fn memory_bytes(&self) -> usize {
        self.core.budget.used_bytes() + self.core.waiting_bytes + self.core.replay.bytes()
    }

    /// Exporters and streams known.
    pub fn known(&self) -> (usize, usize) {
        (self.table.exporters.len(), self.table.streams.len())
    }

    /// Takes one datagram in.
    pub fn handle(
        &mut self,
        datagram: &[u8],
        source: SocketAddr,
        now: Timestamp,
        output: &mut impl Output,
    ) {
        let core = &mut self.core;
        core.counters.datagrams += 1;
        core.counters.bytes += datagram.len() as u64;
        let header = match Header::read(datagram) {
            Ok(header) => header,
            Err(error) => {
                core.counters.bad_headers += 1;
                core.counters.error(error.reason);
                return;
            }
        };
        let Some(index) = self.stream_of(source, &header, now) else {
            return;
        };
        let core = &mut self.core;
        let Some(stream) = self.table.streams.get_mut(index) else {
            return;
        };
        let Some(exporter) = self.table.exporters.get_mut(stream.exporter) else {
            return;
        };
        let version_before = stream.cache.version();
        let limits = core.plan.limits.state;
        let summary = analyse(
            datagram,
            &header,
            &mut stream.cache,
            limits,
            &mut core.budget,
            &mut core.counters,
        );
        if let Some(error) = summary.error {
            core.counters.bad_bodies += 1;
            core.counters.error(error.reason);
        }
        exporter.last_seen = now;
        exporter.messages += 1;
        exporter.bytes += datagram.len() as u64;
        exporter.records += u64::from(summary.records);
        let establishes = !exporter.is_established
            && exporter.messages >= core.plan.limits.established_after_messages
            && summary.error.is_none();
        core.watch_sequence(stream, &header, &summary);
        let message = Message {
            datagram,
            header,
            source,
            summary,
            version_before,
            domain: stream.substitute_domain,
            is_replay: false,
        };
        core.copy(exporter, stream, &message, now, output);
        if !core.waits(exporter, stream, &message, now) {
            core.account(stream, &summary);
            core.distribute(exporter, stream, &message, now, output);
        }
        if summary.learned && !stream.waiting.is_empty() {
            core.release_waiting(exporter, stream, None, now, output);
        }
        if establishes {
            let exporter = stream.exporter;
            self.table.establish(exporter);
        }
    }

    /// To be called every tenth of a second or so: lets go what has waited too long, forgets what
    /// is silent, and moves units for better balance.
    pub fn tick(&mut self, now: Timestamp, output: &mut impl Output) {
        self.core.exchange_loads();
        if self.core.waiting_bytes > 0 {
            for (_, stream) in &mut self.table.streams {
                let at_most = self.core.plan.waiting.at_most;
                let is_over = |first: &Waiting| now.since(first.since) >= at_most;
                if stream.waiting.front().is_some_and(is_over)
                    && let Some(exporter) = self.table.exporters.get_mut(stream.exporter)
                {
                    let until = Some(at_most);
                    self.core
                        .release_waiting(exporter, stream, until, now, output);
                }
            }
        }
        self.rebalance(now);
        self.lay_down(now);
        if now.since(self.core.idle_checked).as_nanos() as u64 >= IDLE_CHECK_NANOS {
            self.core.idle_checked = now;
            let idle = self.core.plan.limits.idle;
            let silent = self
                .table
                .exporters
                .iter()
                .filter(|(_, exporter)| now.since(exporter.last_seen) >= idle);
            let silent: Vec<usize> = silent.map(|(index, _)| index).collect();
            for index in silent {
                self.core.counters.idle_exporters += 1;
                let removed = self.table.remove_exporter(index);
                self.core.clear_up(removed);
            }
        }
    }

    /// Takes note that a collector failed, came back or is to be drained. On failure, what was sent to
    /// it lately goes to others if the plan has a replay time.
    pub fn set_availability(
        &mut self,
        id: BackEndId,
        availability: Availability,
        now: Timestamp,
        output: &mut impl Output,
    ) {
        for group in &mut self.core.groups {
            group.balancer.set_availability(id, availability, now);
        }
        if availability == Availability::Down {
            self.forget_memory(id);
            self.replay(id, now, output);
        }
    }

    /// Takes note that a collector may have lost its memory, as after a restart: it is given templates
    /// and options again before its next data.
    pub fn forget_memory(&mut self, id: BackEndId) {
        let destination = self.core.destination(id);
        destination.memory = destination.memory.wrapping_add(1);
    }

    /// Takes a collector's own word about its load: a fraction of its capacity, or none if it does
    /// not say.
    pub fn set_reported_load(&mut self, id: BackEndId, load: Option<f64>) {
        for group in &mut self.core.groups {
            group.balancer.set_reported_load(id, load);
        }
    }

    /// Takes note of what other engines send to a collector, records per second.
    pub fn set_external_load(&mut self, id: BackEndId, per_second: f64) {
        self.core.destination(id).external_per_second = per_second;
    }

    /// Goes over to another plan. Streams and their templates stay; units stay at their collectors
    /// as far as group, unit and policy allow. New collectors start small.
    pub fn set_plan(&mut self, plan: EnginePlan, now: Timestamp) {
        self.apply_plan(plan, Some(now));
    }

    /// The plan in force.
    pub fn plan(&self) -> &EnginePlan {
        &self.core.plan
    }

    fn apply_plan(&mut self, plan: EnginePlan, now: Option<Timestamp>) {
        let core = &mut self.core;
        let old_plan = std::mem::replace(&mut core.plan, plan);
        core.plan_version += 1;
        core.budget.set_limit(core.plan.limits.state_bytes);
        let mut old_groups = std::mem::take(&mut core.groups);
        for group in &core.plan.groups {
            let known = old_groups
                .iter()
                .position(|old| old.name == group.name && old.unit == group.unit);
            let balancer = match known {
                Some(place) => {
                    let mut balancer = old_groups.swap_remove(place).balancer;
                    balancer.set_settings(group.balancer.clone());
                    let stays =
                        |id: &BackEndId| group.members.iter().any(|member| member.id == *id);
                    let gone: Vec<BackEndId> = balancer.ids().filter(|id| !stays(id)).collect();
                    for id in gone {
                        balancer.remove(id);
                    }
                    for member in &group.members {
                        balancer.add(member.clone(), now);
                    }
                    balancer
                }
                None => Balancer::new(group.balancer.clone(), group.members.iter().cloned()),
            };
            core.groups.push(Group {
                name: group.name.clone(),
                unit: group.unit,
                balancer,
            });
        }
        let plan = &core.plan;
        let known = |id: BackEndId| {
            let members = plan.groups.iter().flat_map(|group| &group.members);
            members
                .map(|member| member.id)
                .chain(plan.copies.iter().map(|copy| copy.destination))
                .any(|other| other == id)
        };
        for (_, stream) in &mut self.table.streams {
            stream
                .deliveries
                .retain(|delivery| known(delivery.destination));
            stream.current = stream.current.filter(|id| known(*id));
        }
        let now = now.unwrap_or_default();
        for (_, exporter) in &mut self.table.exporters {
            let identity = |plan: &EnginePlan, route: Option<usize>| {
                let group = plan.routes.get(route?)?.group?;
                plan.groups
                    .get(group)
                    .map(|group| (group.name.clone(), group.unit))
            };
            let before = identity(&old_plan, exporter.route);
            exporter.route = core.plan.route_of(exporter.address);
            exporter.plan_version = core.plan_version;
            if before == identity(&core.plan, exporter.route) {
                continue;
            }
            let old_group = core.groups.iter_mut().find(|group| {
                Some((&group.name, group.unit)) == before.as_ref().map(|(name, unit)| (name, *unit))
            });
            let mut units = vec![std::mem::replace(&mut exporter.unit, Unit::new(now))];
            for stream in &exporter.streams {
                if let Some(stream) = self.table.streams.get_mut(*stream) {
                    units.push(std::mem::replace(&mut stream.unit, Unit::new(now)));
                }
            }
            if let Some(group) = old_group {
                units
                    .into_iter()
                    .for_each(|unit| group.balancer.release(unit));
            }
        }
    }

    /// The stream of a message; made if there is room and the exporter belongs to anything.
    fn stream_of(&mut self, source: SocketAddr, header: &Header, now: Timestamp) -> Option<usize> {
        let core = &mut self.core;
        let key = core.plan.stream_key.key(source, header);
        if let Some(index) = self.table.stream_index(&key) {
            return Some(index);
        }
        let exporter = match self.table.exporter_index(key.source) {
            Some(index) => index,
            None => {
                let route = core.plan.route_of(key.source);
                let copied = || {
                    core.plan
                        .copies
                        .iter()
                        .any(|copy| copy.wants(key.source, key.protocol))
                };
                if route.is_none() && !copied() {
                    core.counters.unknown_exporters += 1;
                    return None;
                }
                let added = self.table.add_exporter(
                    key.source,
                    route,
                    core.plan_version,
                    &core.plan.limits,
                    now,
                );
                core.made_room(added)?
            }
        };
        let added = self.table.add_stream(key, exporter, &core.plan.limits, now);
        let index = core.made_room(added)?;
        if let Some(stream) = self.table.streams.get_mut(index) {
            core.begin(stream, header);
        }
        Some(index)
    }

    /// Gives the keeper what it asks for.
    fn lay_down(&mut self, now: Timestamp) {
        let Some(keeper) = &mut self.core.keeper else {
            return;
        };
        let Some(unix_seconds) = keeper.requested() else {
            return;
        };
        let streams = self.table.streams.iter().filter_map(|(_, stream)| {
            let exporter = self.table.exporters.get(stream.exporter)?;
            SavedStream::of(stream, exporter.last_seen, now, unix_seconds)
        });
        keeper.lay_down(streams.collect());
    }

    fn rebalance(&mut self, now: Timestamp) {
        let core = &mut self.core;
        let slots = self.table.streams.capacity();
        if slots == 0 {
            return;
        }
        for _ in 0..slots.min(REBALANCED_PER_TICK) {
            core.rebalance_cursor = (core.rebalance_cursor + 1) % slots;
            let Some(stream) = self.table.streams.get_mut(core.rebalance_cursor) else {
                continue;
            };
            let Some(exporter) = self.table.exporters.get_mut(stream.exporter) else {
                continue;
            };
            let Some(group) = core
                .plan
                .routes
                .get(exporter.route.unwrap_or(usize::MAX))
                .and_then(|route| core.groups.get_mut(route.group?))
            else {
                continue;
            };
            let moved = match group.unit {
                AssignmentUnit::Stream => {
                    let key = stream.unit_key();
                    group.balancer.rebalance(&mut stream.unit, key, now)
                }
                // Once for each exporter, with its first stream.
                AssignmentUnit::Exporter
                    if exporter.streams.first() == Some(&core.rebalance_cursor) =>
                {
                    let key = exporter.unit_key();
                    group.balancer.rebalance(&mut exporter.unit, key, now)
                }
                _ => None,
            };
            core.counters.moves += u64::from(moved.is_some());
        }
    }

    fn replay(&mut self, failed: BackEndId, now: Timestamp, output: &mut impl Output) {
        let core = &mut self.core;
        if core.plan.replay.is_zero() {
            return;
        }
        let oldest = Timestamp::from_nanos(
            now.as_nanos()
                .saturating_sub(core.plan.replay.as_nanos() as u64),
        );
        for sent in core.replay.take(failed, oldest) {
            let stream = self
                .table
                .stream_index(&sent.stream)
                .and_then(|index| self.table.streams.get_mut(index));
            let found = stream.and_then(|stream| {
                let exporter = self.table.exporters.get_mut(stream.exporter)?;
                Some((exporter, stream))
            });
            let (Some((exporter, stream)), Ok(header)) = (found, Header::read(&sent.bytes)) else {
                core.counters.replay_overflow += 1;
                continue;
            };
            let version_before = stream.cache.version();
            let limits = core.plan.limits.state;
            let summary = analyse(
                &sent.bytes,
                &header,
                &mut stream.cache,
                limits,
                &mut core.budget,
                &mut core.counters,
            );
            let message = Message {
                datagram: &sent.bytes,
                header,
                source: sent.source,
                summary,
                version_before,
                domain: stream.substitute_domain,
                is_replay: true,
            };
            core.counters.replayed += 1;
            core.distribute(exporter, stream, &message, now, output);
        }
    }
}

impl Core {
    /// Gives a new stream its observation domain, and what is remembered of it.
    fn begin(&mut self, stream: &mut Stream, header: &Header) {
        let saved = self
            .keeper
            .as_ref()
            .and_then(|keeper| keeper.recall(&stream.key));
        let before = saved.as_ref().and_then(|saved| saved.substitute_domain);
        stream.substitute_domain = self.domains.enter(&stream.key, stream.hash, before);
        let Some(saved) = saved else {
            return;
        };
        if !saved.goes_on_with(header) {
            self.counters.outdated_saved_streams += 1;
            return;
        }
        let limits = self.plan.limits.state;
        for record in &saved.records {
            let is_kept = stream.cache.restore(
                stream.key.protocol,
                record.as_record(),
                limits,
                &mut self.budget,
            );
            self.counters.state_refused += u64::from(!is_kept);
        }
        self.counters.restored_streams += 1;
    }

    fn group_index(&self, exporter: &Exporter) -> Option<usize> {
        self.plan.routes.get(exporter.route?)?.group
    }

    fn destination(&mut self, id: BackEndId) -> &mut Destination {
        let place = usize::from(id.0);
        if self.destinations.len() <= place {
            self.destinations
                .resize_with(place + 1, Destination::default);
        }
        &mut self.destinations[place]
    }

    fn watch_sequence(&mut self, stream: &mut Stream, header: &Header, summary: &Summary) {
        stream.messages += 1;
        let before = stream.upstream;
        let event = stream
            .upstream
            .observe(header.sequence, summary.units(header.protocol));
        // Lateness takes back what was counted as lost.
        self.counters.upstream_lost =
            (self.counters.upstream_lost + stream.upstream.lost()).saturating_sub(before.lost());
        match event {
            SequenceEvent::Late => self.counters.upstream_late += 1,
            SequenceEvent::Restart => self.counters.upstream_restarts += 1,
            _ => {}
        }
    }

    /// Counts what a message holds, once.
    fn account(&mut self, stream: &mut Stream, summary: &Summary) {
        stream.records += u64::from(summary.records);
        self.counters.records += u64::from(summary.records);
        self.counters.options_records += u64::from(summary.options_records);
    }

    /// Keeps a message whose template is unknown, if it must be split and there is room.
    fn waits(
        &mut self,
        exporter: &Exporter,
        stream: &mut Stream,
        message: &Message<'_>,
        now: Timestamp,
    ) -> bool {
        let splits = self
            .group_index(exporter)
            .and_then(|group| self.groups.get(group))
            .is_some_and(|group| group.unit.splits_streams());
        if message.summary.unknown_sets == 0 || !splits {
            return false;
        }
        let length = message.datagram.len();
        let settings = &self.plan.waiting;
        // Newcomers, who may be forged, have a quarter.
        let room = if exporter.is_established {
            settings.bytes
        } else {
            settings.bytes / 4
        };
        let fits = self.waiting_bytes + length <= room
            && stream.waiting_bytes + length <= settings.bytes_per_stream;
        if !fits || settings.at_most.is_zero() {
            self.counters.sent_without_template += 1;
            return false;
        }
        self.counters.waited += 1;
        self.waiting_bytes += length;
        stream.waiting_bytes += length;
        stream.waiting.push_back(Waiting {
            since: now,
            source: message.source,
            bytes: message.datagram.into(),
        });
        true
    }

    /// Sends on what waits for templates that are now known; with a time, also what has waited so
    /// long.
    fn release_waiting(
        &mut self,
        exporter: &mut Exporter,
        stream: &mut Stream,
        over_after: Option<std::time::Duration>,
        now: Timestamp,
        output: &mut impl Output,
    ) {
        for _ in 0..stream.waiting.len() {
            let Some(waiting) = stream.waiting.pop_front() else {
                break;
            };
            let Ok(header) = Header::read(&waiting.bytes) else {
                continue;
            };
            let version_before = stream.cache.version();
            let limits = self.plan.limits.state;
            let summary = analyse(
                &waiting.bytes,
                &header,
                &mut stream.cache,
                limits,
                &mut self.budget,
                &mut self.counters,
            );
            let is_over = over_after.is_some_and(|time| now.since(waiting.since) >= time);
            if summary.unknown_sets > 0 && !is_over {
                stream.waiting.push_back(waiting);
                continue;
            }
            self.waiting_bytes -= waiting.bytes.len();
            stream.waiting_bytes -= waiting.bytes.len();
            if summary.unknown_sets > 0 {
                self.counters.sent_without_template += 1;
            } else {
                self.counters.waited_released += 1;
            }
            let message = Message {
                datagram: &waiting.bytes,
                header,
                source: waiting.source,
                summary,
                version_before,
                domain: stream.substitute_domain,
                is_replay: false,
            };
            self.account(stream, &summary);
            self.distribute(exporter, stream, &message, now, output);
        }
    }

    fn made_room(&mut self, added: Result<(usize, Removed), NoRoom>) -> Option<usize> {
        let Ok((index, removed)) = added else {
            self.counters.no_room += 1;
            return None;
        };
        self.counters.evicted_exporters += removed.exporters.len() as u64;
        self.clear_up(removed);
        Some(index)
    }

    /// Gives back what the removed had.
    fn clear_up(&mut self, removed: Removed) {
        let mut group = None;
        for exporter in removed.exporters {
            group = self.group_index(&exporter);
            if let Some(group) = group.and_then(|index| self.groups.get_mut(index)) {
                group.balancer.release(exporter.unit);
            }
        }
        for mut stream in removed.streams {
            self.domains.leave(&stream.key, stream.substitute_domain);
            stream.cache.clear(&mut self.budget);
            self.waiting_bytes -= stream.waiting_bytes;
            if let Some(group) = group.and_then(|index| self.groups.get_mut(index)) {
                group.balancer.release(stream.unit);
            }
        }
    }

    /// Tells each group what its members get from elsewhere.
    fn exchange_loads(&mut self) {
        if self.groups.len() < 2
            && self
                .destinations
                .iter()
                .all(|known| known.external_per_second == 0.0)
        {
            return;
        }
        let mut totals = vec![0.0; self.destinations.len()];
        for (total, destination) in totals.iter_mut().zip(&self.destinations) {
            *total = destination.external_per_second;
        }
        for group in &self.groups {
            for (id, load) in group.balancer.assigned_loads() {
                if let Some(total) = totals.get_mut(usize::from(id.0)) {
                    *total += load;
                }
            }
        }
        for group in &mut self.groups {
            let own: Vec<(BackEndId, f64)> = group.balancer.assigned_loads().collect();
            for (id, load) in own {
                let total = totals.get(usize::from(id.0)).copied().unwrap_or(0.0);
                group.balancer.set_external_load(id, total - load);
            }
        }
    }
}
