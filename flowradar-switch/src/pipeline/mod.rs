//! A program with its state: frames go in, frames and notifications come out.

mod arrays;
mod control;
mod digest;
mod execute;
mod hash;
mod profile;
mod state;
mod table;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::program::layout::{BitGroups, FieldLayout, internal};
use crate::program::objects::ListElement;
use crate::program::op::{Label, low, ones};
use crate::program::parser::ACCEPT;
use crate::runtime::{DigestList, IdleNotification};
use crate::{Program, Timestamp, Value};

pub(crate) use control::check_program_entries;
use digest::DigestOutcome;
use execute::{Frame, Machine, PADDING};
pub use state::PipelineCounters;
use state::State;
use table::Slots;

/// The longest frame that is taken, in bytes.
pub const MAX_FRAME_BYTES: usize = 65_535;

/// How often parts of one frame may pass through ingress or egress.
const MAX_PASSES: u32 = 65_536;

/// How many packets may wait inside.
const MAX_WAITING: usize = 65_536;

/// How many buffers of packets that waited are kept.
const MAX_SPARE: usize = 64;

/// `standard_metadata.instance_type`, as `simple_switch` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InstanceType {
    Normal = 0,
    IngressClone = 1,
    EgressClone = 2,
    Recirculated = 4,
    Replication = 5,
    Resubmitted = 6,
}

/// A program with its forwarding state. No clock, no I/O.
///
/// The control plane's operations (tables, action profiles, counters, meters, registers, multicast
/// groups, clone sessions, digests, value sets) are further down among the methods.
#[derive(Debug)]
pub struct Pipeline {
    program: Arc<Program>,
    config: PipelineConfig,
    state: State,
    slots: Box<Slots>,
    /// The packet in work: its bytes and what follows them, see [`PADDING`].
    buffer: Vec<u8>,
    length: usize,
    ingress_length: u64,
    parsed: usize,
    /// What the packet in work came in on.
    ingress_port: u16,
    /// Set when a packet's state was brought back: any header's fields may not be zero.
    is_all_touched: bool,
    waiting: VecDeque<Packet>,
    spare: Vec<Packet>,
    scratch: Vec<u8>,
    /// Where touched headers are in the deparser.
    order: Vec<u16>,
}

/// What a pipeline wants to be sent; reuse one to allocate nothing per packet.
#[derive(Debug, Default)]
pub struct Outputs {
    bytes: Vec<u8>,
    frames: Vec<(u16, Range<usize>)>,
    digests: Vec<DigestList>,
    idle: Vec<IdleNotification>,
}

/// What a pipeline is told about its switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PipelineConfig {
    /// Packets to this port are dropped: `mark_to_drop` sets `egress_spec` to it. 511 on bmv2.
    pub drop_port: u16,
}

/// A packet that waits for ingress or egress.
#[derive(Debug, Default)]
struct Packet {
    slots: Vec<u64>,
    buffer: Vec<u8>,
    length: usize,
    ingress_length: u64,
    parsed: usize,
    ingress_port: u16,
    /// `None` for ingress.
    egress_port: Option<u16>,
}

impl Pipeline {
    /// The program with empty tables but for the entries that are part of it, and zeros everywhere.
    pub fn new(program: Arc<Program>, config: PipelineConfig) -> Self {
        let state = State::new(&program);
        let slots: Box<[u64]> = vec![0; 1 << 16].into();
        let mut slots: Box<Slots> = slots.try_into().expect("there are 65,536 slots");
        for (slot, value) in &program.constants {
            slots[usize::from(*slot)] = *value;
        }
        slots[usize::from(program.drop_port)] = config.drop_port.into();
        let mut pipeline = Self {
            program,
            config,
            state,
            slots,
            buffer: Vec::new(),
            length: 0,
            ingress_length: 0,
            parsed: 0,
            ingress_port: 0,
            is_all_touched: false,
            waiting: VecDeque::new(),
            spare: Vec::new(),
            scratch: Vec::new(),
            order: Vec::new(),
        };
        pipeline.add_program_entries();
        pipeline
    }

    /// The program.
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// What the pipeline did so far.
    pub fn counters(&self) -> PipelineCounters {
        self.state.counters
    }

    /// Messages that the program logged since the last call.
    pub fn take_log(&mut self) -> impl Iterator<Item = String> {
        self.state.take_log()
    }

    /// Runs a frame that came in on `port` through the program, with all its copies, until nothing of it
    /// is left inside; what is sent is added to `outputs`.
    pub fn process(&mut self, port: u16, frame: &[u8], now: Timestamp, outputs: &mut Outputs) {
        self.state.counters.frames_in += 1;
        if frame.len() > MAX_FRAME_BYTES {
            self.state.counters.frames_too_long += 1;
            return;
        }
        self.buffer.clear();
        self.buffer.extend_from_slice(frame);
        self.buffer.extend_from_slice(&[0; PADDING]);
        self.length = frame.len();
        self.ingress_length = frame.len() as u64;
        self.ingress_port = port;
        self.reset();
        let standard = &self.program.standard;
        set(&mut self.slots, &standard.ingress_port, port.into());
        self.slots[usize::from(internal::PACKET_LENGTH)] = frame.len() as u64;
        set(&mut self.slots, &standard.packet_length, frame.len() as u64);
        if let Some(field) = &standard.ingress_global_timestamp {
            set(&mut self.slots, field, now.microseconds());
        }
        let program = Arc::clone(&self.program);
        let mut passes = 0;
        let mut stage = Some(None);
        loop {
            let next = match stage {
                Some(None) => self.ingress(&program, now, outputs),
                Some(Some(port)) => self.egress(&program, port, now, outputs),
                None => None,
            };
            passes += 1;
            stage = match next {
                // The packet goes straight on if nothing is before it.
                Some(port) if self.waiting.is_empty() => Some(Some(port)),
                Some(port) => {
                    self.wait(Some(port));
                    self.take_next()
                }
                None => self.take_next(),
            };
            if stage.is_none() {
                return;
            }
            if passes >= MAX_PASSES {
                self.state.counters.passes_exceeded += 1 + self.waiting.len() as u64;
                self.waiting.clear();
                return;
            }
        }
    }

    /// Lets time pass: digest lists and idle entries whose time is up are added to `outputs`.
    pub fn tick(&mut self, now: Timestamp, outputs: &mut Outputs) {
        for digest in &mut self.state.digests {
            digest.tick(now, &mut outputs.digests);
        }
        for (table, state) in self.program.tables.iter().zip(&mut self.state.tables) {
            if state.with_timeout == 0 {
                continue;
            }
            for (entry, description) in state.entries.iter().zip(&mut state.descriptions) {
                let Some(description) = description else {
                    continue;
                };
                let Some(timeout) = description.entry.idle_timeout else {
                    continue;
                };
                if now.since(entry.last_hit) < timeout {
                    description.idle_notified = false;
                } else if !description.idle_notified {
                    description.idle_notified = true;
                    outputs.idle.push(IdleNotification {
                        table: table.name.clone(),
                        entry: description.entry.clone(),
                        at: now,
                    });
                }
            }
        }
    }

    /// Runs ingress; yields where the packet goes on to egress for, if it does.
    fn ingress(&mut self, program: &Program, now: Timestamp, outputs: &mut Outputs) -> Option<u16> {
        self.parse(program, now);
        self.state.assertion_failed = false;
        // Only parsers fail.
        let _ = self.run(program, program.ingress, now);
        if self.state.assertion_failed {
            return None;
        }
        let session = self.slots[usize::from(internal::CLONE_SESSION)];
        if session != 0 {
            self.clone_at_ingress(program, (session & 0x7fff) as u32, now);
        }
        let digest = self.slots[usize::from(internal::DIGEST)];
        if digest != 0 {
            self.send_digest(program, digest, now, outputs);
            self.slots[usize::from(internal::DIGEST)] = 0;
        }
        let standard = &program.standard;
        let resubmit = self.slots[usize::from(internal::RESUBMIT)];
        if resubmit != 0 {
            let length = self.length as u64;
            self.keep_only(program, resubmit, InstanceType::Resubmitted);
            self.slots[usize::from(internal::PACKET_LENGTH)] = length;
            set(&mut self.slots, &standard.packet_length, length);
            self.parsed = 0;
            self.wait(None);
            return None;
        }
        let group = standard
            .mcast_grp
            .as_ref()
            .map_or(0, |field| get(&self.slots, field));
        if group != 0 {
            set(
                &mut self.slots,
                &standard.instance_type,
                InstanceType::Replication as u64,
            );
            self.multicast(program, group as u32, now);
            return None;
        }
        let port = get(&self.slots, &standard.egress_spec);
        if port == u64::from(self.config.drop_port) {
            self.state.counters.dropped += 1;
            return None;
        }
        set(
            &mut self.slots,
            &standard.instance_type,
            InstanceType::Normal as u64,
        );
        self.enqueue_metadata(program, now);
        Some(port.min(u64::from(u16::MAX)) as u16)
    }

    /// Runs egress, and sends the packet unless it is dropped or recirculated.
    fn egress(
        &mut self,
        program: &Program,
        port: u16,
        now: Timestamp,
        outputs: &mut Outputs,
    ) -> Option<u16> {
        let standard = &program.standard;
        if let Some(field) = &standard.egress_global_timestamp {
            set(&mut self.slots, field, now.microseconds());
        }
        if let (Some(enqueued), Some(waited)) = (&standard.enq_timestamp, &standard.deq_timedelta) {
            let since = now
                .microseconds()
                .saturating_sub(get(&self.slots, enqueued));
            set(&mut self.slots, waited, since);
        }
        if let Some(field) = &standard.deq_qdepth {
            set(&mut self.slots, field, 0);
        }
        set(&mut self.slots, &standard.egress_port, port.into());
        // Anything but the port that drops.
        let not_drop = u64::from(self.config.drop_port) + 1;
        set(&mut self.slots, &standard.egress_spec, not_drop);
        let length = self.slots[usize::from(internal::PACKET_LENGTH)];
        set(&mut self.slots, &standard.packet_length, length);
        self.state.assertion_failed = false;
        // Only parsers fail.
        let _ = self.run(program, program.egress, now);
        if self.state.assertion_failed {
            return None;
        }
        let session = self.slots[usize::from(internal::CLONE_SESSION)];
        if session != 0 {
            self.clone_at_egress(program, (session & 0x7fff) as u32, now);
        }
        if get(&self.slots, &standard.egress_spec) == u64::from(self.config.drop_port) {
            self.state.counters.dropped += 1;
            return None;
        }
        let recirculate = self.slots[usize::from(internal::RECIRCULATE)];
        if recirculate == 0 {
            let start = outputs.bytes.len();
            self.deparse(program, now, &mut outputs.bytes);
            outputs.frames.push((port, start..outputs.bytes.len()));
            self.state.counters.frames_out += 1;
            return None;
        }
        let mut bytes = Vec::new();
        self.deparse(program, now, &mut bytes);
        self.length = bytes.len();
        self.ingress_length = bytes.len() as u64;
        bytes.extend_from_slice(&[0; PADDING]);
        self.buffer = bytes;
        self.parsed = 0;
        self.keep_only(program, recirculate, InstanceType::Recirculated);
        let length = self.length as u64;
        self.slots[usize::from(internal::PACKET_LENGTH)] = length;
        set(&mut self.slots, &standard.packet_length, length);
        self.wait(None);
        None
    }

    fn parse(&mut self, program: &Program, now: Timestamp) {
        self.parsed = 0;
        let mut error = program.errors.no_error;
        if program.parser.first != ACCEPT {
            let start = program.parser.states[usize::from(program.parser.first)].start;
            if let Err(number) = self.run(program, start, now) {
                self.state.counters.parser_errors += 1;
                error = number;
            }
        }
        if let Some(field) = &program.standard.parser_error {
            set(&mut self.slots, field, error);
        }
        let mut is_wrong = false;
        for checksum in program.checksums.iter().filter(|checksum| checksum.verify) {
            if self.slots[usize::from(checksum.valid)] == 0
                || !self.is_meant(program, checksum.condition, now)
            {
                continue;
            }
            let sum = self.machine(program, now).hash(checksum.calculation);
            is_wrong |= sum != get(&self.slots, &checksum.target);
        }
        if let Some(field) = &program.standard.checksum_error {
            set(&mut self.slots, field, is_wrong.into());
        }
    }

    /// Whether a checksum's condition holds.
    fn is_meant(
        &mut self,
        program: &Program,
        condition: Option<(Label, u16)>,
        now: Timestamp,
    ) -> bool {
        let Some((start, slot)) = condition else {
            return true;
        };
        let _ = self.run(program, start, now);
        self.slots[usize::from(slot)] != 0
    }

    fn deparse(&mut self, program: &Program, now: Timestamp, bytes: &mut Vec<u8>) {
        for checksum in program.checksums.iter().filter(|checksum| checksum.update) {
            if self.is_meant(program, checksum.condition, now) {
                let sum = self.machine(program, now).hash(checksum.calculation);
                set(&mut self.slots, &checksum.target, sum);
            }
        }
        let start = bytes.len();
        if self.is_all_touched {
            for position in 0..program.deparser.len() {
                self.deparse_header(program, position, bytes);
            }
        } else {
            // Only what was touched can be valid; there are far fewer of them than headers.
            let mut order = std::mem::take(&mut self.order);
            let positions = self.state.touched.iter();
            order.extend(
                positions
                    .filter_map(|header| *program.deparser_positions.get(usize::from(*header))?),
            );
            order.sort_unstable();
            order.dedup();
            for position in order.drain(..) {
                self.deparse_header(program, position.into(), bytes);
            }
            self.order = order;
        }
        bytes.extend_from_slice(
            self.buffer
                .get(self.parsed..self.length)
                .unwrap_or_default(),
        );
        let truncate = self.slots[usize::from(internal::TRUNCATE)];
        if truncate != 0 {
            let length = usize::try_from(truncate - 1).unwrap_or(usize::MAX);
            bytes.truncate(start.saturating_add(length));
        }
    }

    /// Appends a header if it is valid.
    fn deparse_header(&self, program: &Program, position: usize, bytes: &mut Vec<u8>) {
        let (valid, header) = program.deparser[position];
        if self.slots[usize::from(valid)] == 0 {
            return;
        }
        let header = &program.layout.headers[usize::from(header)];
        store(&self.slots, &header.head, bytes);
        if let Some(variable) = header.variable {
            let length = self.slots[usize::from(variable.length)];
            let first = usize::from(variable.first_slot);
            let end = bytes.len() + length.min(variable.max_bytes.into()) as usize;
            for word in &self.slots[first..first + length.div_ceil(8) as usize] {
                bytes.extend_from_slice(&word.to_be_bytes());
            }
            bytes.truncate(end);
            store(&self.slots, &header.tail, bytes);
        }
    }

    fn run(&mut self, program: &Program, start: Label, now: Timestamp) -> Result<(), u64> {
        let mut machine = self.machine(program, now);
        let result = machine.run(start);
        let parsed = machine.frame.parsed;
        self.parsed = parsed;
        result
    }

    fn machine<'a>(&'a mut self, program: &'a Program, now: Timestamp) -> Machine<'a> {
        Machine {
            program,
            slots: &mut self.slots,
            state: &mut self.state,
            frame: Frame {
                padded: &self.buffer,
                length: self.length,
                parsed: self.parsed,
                ingress_length: self.ingress_length,
            },
            now,
            scratch: &mut self.scratch,
        }
    }

    /// Clears the packet's state.
    fn reset(&mut self) {
        let layout = &self.program.layout;
        let cleared = if self.is_all_touched {
            layout.packet_slots
        } else {
            layout.metadata_end
        };
        self.slots[..usize::from(cleared)].fill(0);
        for header in self.state.touched.drain(..) {
            let slots = &layout.headers[usize::from(header)].slots;
            self.slots[usize::from(slots.start)..usize::from(slots.end)].fill(0);
        }
        self.is_all_touched = false;
        for valid in &layout.metadata_valid {
            self.slots[usize::from(*valid)] = 1;
        }
        self.parsed = 0;
    }

    /// Clears the packet's state but for the fields of a list.
    fn keep_only(&mut self, program: &Program, list: u64, kind: InstanceType) {
        let before = self.slots[..usize::from(program.layout.packet_slots)].to_vec();
        self.reset();
        self.restore(program, list, &before);
        set(
            &mut self.slots,
            &program.standard.instance_type,
            kind as u64,
        );
    }

    /// Takes the fields of a list from an earlier state.
    fn restore(&mut self, program: &Program, list: u64, before: &[u64]) {
        let lists = &program.objects.field_lists;
        let Some(list) = lists.iter().find(|other| other.id == list) else {
            return;
        };
        for element in &list.fields {
            if let ListElement::Field(field) = element {
                let range =
                    usize::from(field.slot)..usize::from(field.slot + u16::from(field.limbs));
                if let Some(value) = before.get(range.clone()) {
                    self.slots[range].copy_from_slice(value);
                }
            }
        }
    }

    /// Copies the packet as it came in to a session's ports. The packet in work stays as it is.
    fn clone_at_ingress(&mut self, program: &Program, session: u32, now: Timestamp) {
        let list = self.slots[usize::from(internal::CLONE_FIELD_LIST)];
        self.slots[usize::from(internal::CLONE_SESSION)] = 0;
        self.slots[usize::from(internal::CLONE_FIELD_LIST)] = 0;
        let Some(session) = self.state.clone_sessions.get(&session).cloned() else {
            self.state.counters.clones_without_session += 1;
            return;
        };
        let slots = self.slots[..usize::from(program.layout.packet_slots)].to_vec();
        let parsed = self.parsed;
        self.reset();
        let standard = &program.standard;
        set(
            &mut self.slots,
            &standard.ingress_port,
            self.ingress_port.into(),
        );
        self.parse(program, now);
        for header in program
            .layout
            .headers
            .iter()
            .filter(|header| header.is_metadata)
        {
            self.slots[usize::from(header.slots.start)..usize::from(header.slots.end)].fill(0);
        }
        self.restore(program, list, &slots);
        set(
            &mut self.slots,
            &standard.instance_type,
            InstanceType::IngressClone as u64,
        );
        self.slots[usize::from(internal::PACKET_LENGTH)] = self.length as u64;
        self.send_clones(program, &session, now);
        self.slots[..slots.len()].copy_from_slice(&slots);
        self.is_all_touched = true;
        self.parsed = parsed;
    }

    /// Copies the packet as egress leaves it to a session's ports, for another egress.
    fn clone_at_egress(&mut self, program: &Program, session: u32, now: Timestamp) {
        let list = self.slots[usize::from(internal::CLONE_FIELD_LIST)];
        self.slots[usize::from(internal::CLONE_SESSION)] = 0;
        self.slots[usize::from(internal::CLONE_FIELD_LIST)] = 0;
        let Some(session) = self.state.clone_sessions.get(&session).cloned() else {
            self.state.counters.clones_without_session += 1;
            return;
        };
        let slots = self.slots[..usize::from(program.layout.packet_slots)].to_vec();
        for header in program
            .layout
            .headers
            .iter()
            .filter(|header| header.is_metadata)
        {
            self.slots[usize::from(header.slots.start)..usize::from(header.slots.end)].fill(0);
        }
        for slot in [internal::DIGEST, internal::RESUBMIT, internal::RECIRCULATE] {
            self.slots[usize::from(slot)] = 0;
        }
        self.restore(program, list, &slots);
        let instance_type = &program.standard.instance_type;
        set(
            &mut self.slots,
            instance_type,
            InstanceType::EgressClone as u64,
        );
        self.send_clones(program, &session, now);
        self.slots[..slots.len()].copy_from_slice(&slots);
        self.is_all_touched = true;
    }

    fn send_clones(
        &mut self,
        program: &Program,
        session: &crate::runtime::CloneSession,
        now: Timestamp,
    ) {
        if session.packet_length_bytes > 0 {
            let length = u64::from(session.packet_length_bytes) + 1;
            self.slots[usize::from(internal::TRUNCATE)] = length;
        }
        for replica in &session.replicas {
            if let Some(field) = &program.standard.egress_rid {
                set(&mut self.slots, field, replica.instance.into());
            }
            self.enqueue_metadata(program, now);
            self.wait(Some(replica.port));
        }
    }

    fn multicast(&mut self, program: &Program, group: u32, now: Timestamp) {
        for slot in [internal::DIGEST, internal::RESUBMIT, internal::RECIRCULATE] {
            self.slots[usize::from(slot)] = 0;
        }
        let Some(replicas) = self.state.multicast_groups.get(&group).cloned() else {
            self.state.counters.multicast_without_group += 1;
            return;
        };
        for replica in replicas {
            if let Some(field) = &program.standard.egress_rid {
                set(&mut self.slots, field, replica.instance.into());
            }
            self.enqueue_metadata(program, now);
            self.wait(Some(replica.port));
        }
    }

    fn enqueue_metadata(&mut self, program: &Program, now: Timestamp) {
        if let Some(field) = &program.standard.enq_timestamp {
            set(&mut self.slots, field, now.microseconds());
        }
        if let Some(field) = &program.standard.enq_qdepth {
            set(&mut self.slots, field, 0);
        }
    }

    fn send_digest(&mut self, program: &Program, id: u64, now: Timestamp, outputs: &mut Outputs) {
        let lists = &program.objects.digests;
        let Some(position) = lists.iter().position(|list| list.id == id) else {
            self.state.counters.digests_dropped += 1;
            return;
        };
        let element = |element: &ListElement| match element {
            ListElement::Constant { limbs } => Value::from_limbs(limbs),
            ListElement::Field(field) => {
                let start = usize::from(field.slot);
                Value::from_limbs(&self.slots[start..start + usize::from(field.limbs)])
            }
        };
        let values = lists[position].fields.iter().map(element).collect();
        match self.state.digests[position].add(values, now, &mut outputs.digests) {
            DigestOutcome::Kept => {}
            DigestOutcome::Dropped => self.state.counters.digests_dropped += 1,
            DigestOutcome::Suppressed => self.state.counters.digests_suppressed += 1,
        }
    }

    /// Lets a copy of the packet in work wait for ingress, or for egress to a port.
    fn wait(&mut self, egress_port: Option<u16>) {
        if self.waiting.len() >= MAX_WAITING {
            self.state.counters.passes_exceeded += 1;
            return;
        }
        let mut packet = self.spare.pop().unwrap_or_default();
        packet.slots.clear();
        let slots = &self.slots[..usize::from(self.program.layout.packet_slots)];
        packet.slots.extend_from_slice(slots);
        packet.buffer.clear();
        packet.buffer.extend_from_slice(&self.buffer);
        packet.length = self.length;
        packet.ingress_length = self.ingress_length;
        packet.parsed = self.parsed;
        packet.ingress_port = self.ingress_port;
        packet.egress_port = egress_port;
        self.waiting.push_back(packet);
    }

    /// Takes up the packet that waits longest; yields what it waits for.
    fn take_next(&mut self) -> Option<Option<u16>> {
        let mut packet = self.waiting.pop_front()?;
        self.slots[..packet.slots.len()].copy_from_slice(&packet.slots);
        self.is_all_touched = true;
        std::mem::swap(&mut self.buffer, &mut packet.buffer);
        self.length = packet.length;
        self.ingress_length = packet.ingress_length;
        self.parsed = packet.parsed;
        self.ingress_port = packet.ingress_port;
        let stage = packet.egress_port;
        if self.spare.len() < MAX_SPARE {
            self.spare.push(packet);
        }
        Some(stage)
    }
}

impl Default for PipelineConfig {
    fn default() -> Self {
        Self { drop_port: 511 }
    }
}

impl Outputs {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Frames in the order in which they are sent, each with its port.
    pub fn frames(&self) -> impl Iterator<Item = (u16, &[u8])> {
        self.frames
            .iter()
            .map(|(port, range)| (*port, self.bytes.get(range.clone()).unwrap_or_default()))
    }

    /// Digest lists that are ready; takes them out.
    pub fn take_digests(&mut self) -> impl Iterator<Item = DigestList> {
        self.digests.drain(..)
    }

    /// Entries whose idle timeout passed; takes them out.
    pub fn take_idle_notifications(&mut self) -> impl Iterator<Item = IdleNotification> {
        self.idle.drain(..)
    }

    /// Empties everything, and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.frames.clear();
        self.digests.clear();
        self.idle.clear();
    }
}

/// A field of one slot.
fn get(slots: &Slots, field: &FieldLayout) -> u64 {
    slots[usize::from(field.slot)]
}

/// Sets a field of one slot, cut off to its width.
fn set(slots: &mut Slots, field: &FieldLayout, value: u64) {
    slots[usize::from(field.slot)] = value & ones(field.bits);
}

/// Writes fields to the wire.
fn store(slots: &Slots, groups: &BitGroups, bytes: &mut Vec<u8>) {
    let mut parts = groups.parts.as_slice();
    for group in &groups.groups {
        let (those, others) = parts.split_at(usize::from(group.parts).min(parts.len()));
        parts = others;
        let mut window = 0;
        for part in those {
            let value = slots[usize::from(part.slot)] >> part.slot_shift & low(part.bits);
            window |= value << part.window_shift;
        }
        store_window(window, group.bytes, bytes);
    }
}

/// Appends the first `count` of eight bytes: in parts of constant length, which need no call.
fn store_window(mut window: u64, count: u8, bytes: &mut Vec<u8>) {
    if count >= 8 {
        return bytes.extend_from_slice(&window.to_be_bytes());
    }
    if count & 4 != 0 {
        bytes.extend_from_slice(&((window >> 32) as u32).to_be_bytes());
        window <<= 32;
    }
    if count & 2 != 0 {
        bytes.extend_from_slice(&((window >> 48) as u16).to_be_bytes());
        window <<= 16;
    }
    if count & 1 != 0 {
        bytes.push((window >> 56) as u8);
    }
}
