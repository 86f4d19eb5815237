//! All that a program keeps from packet to packet.

use std::collections::{BTreeMap, HashSet, VecDeque};

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use super::arrays::{Meter, RegisterCells};
use super::digest::DigestState;
use super::profile::ProfileState;
use super::table::TableState;
use crate::Value;
use crate::program::Program;
use crate::runtime::{CloneSession, CounterData, Replica};

/// How many log messages are kept.
const MAX_LOG: usize = 1024;

/// What a pipeline did, and what it met that programs should not do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PipelineCounters {
    /// Frames that came in.
    pub frames_in: u64,
    /// Frames that were sent.
    pub frames_out: u64,
    /// Frames longer than is taken, dropped.
    pub frames_too_long: u64,
    /// Packets that the program dropped, after ingress or egress.
    pub dropped: u64,
    /// Packets whose parsing failed; the program goes on with them and sees the error.
    pub parser_errors: u64,
    /// Of these, packets that passed through too many parser states.
    pub parser_loops: u64,
    /// Packets dropped since they were resubmitted, recirculated or copied too often.
    pub passes_exceeded: u64,
    /// Clones to sessions that are not there.
    pub clones_without_session: u64,
    /// Packets to multicast groups that are not there.
    pub multicast_without_group: u64,
    /// Reads and writes beyond a register's end, which do nothing.
    pub registers_out_of_range: u64,
    /// Counts beyond a counter's end, which do nothing.
    pub counters_out_of_range: u64,
    /// Uses of meters beyond their end, which do nothing.
    pub meters_out_of_range: u64,
    /// Uses of header stacks beyond their ends; what is read is zero.
    pub stacks_out_of_range: u64,
    /// Divisions by zero; the result is zero.
    pub divisions_by_zero: u64,
    /// Fields of variable length that were assigned more than they hold; they stay as they are.
    pub variable_fields_too_long: u64,
    /// Groups without members that are up; nothing is done.
    pub empty_groups: u64,
    /// `assert` and `assume` that did not hold; the packet is dropped.
    pub assertions_failed: u64,
    /// Digests that nobody asked for or that are too many.
    pub digests_dropped: u64,
    /// Digests equal to one that waits for its acknowledgement.
    pub digests_suppressed: u64,
    /// Log messages that were dropped since nobody took them.
    pub log_messages_dropped: u64,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) registers: Vec<RegisterCells>,
    pub(super) indirect_counters: Vec<Vec<CounterData>>,
    pub(super) meters: Vec<Vec<Option<Box<Meter>>>>,
    pub(super) tables: Vec<TableState>,
    pub(super) profiles: Vec<ProfileState>,
    pub(super) digests: Vec<DigestState>,
    pub(super) value_sets: Vec<Vec<(Value, Vec<u64>)>>,
    pub(super) multicast_groups: BTreeMap<u32, Vec<Replica>>,
    pub(super) clone_sessions: BTreeMap<u32, CloneSession>,
    pub(super) ports_down: HashSet<u16>,
    pub(super) hash_calls: Vec<u64>,
    pub(super) counters: PipelineCounters,
    /// Headers that were valid at some time since the packet in work began: their fields are not zero.
    pub(super) touched: Vec<u16>,
    /// Set by a failed `assert` for the packet that is in work.
    pub(super) assertion_failed: bool,
    log: VecDeque<String>,
    random: Xoshiro256PlusPlus,
}

impl State {
    pub(super) fn new(program: &Program) -> Self {
        let objects = &program.objects;
        let registers = objects
            .registers
            .iter()
            .map(|array| RegisterCells::new(array.size, array.bits));
        let counters = objects
            .counters
            .iter()
            .map(|array| vec![CounterData::default(); array.size]);
        let meters = objects.meters.iter().map(|array| vec![None; array.size]);
        Self {
            registers: registers.collect(),
            indirect_counters: counters.collect(),
            meters: meters.collect(),
            tables: program.tables.iter().map(TableState::new).collect(),
            profiles: program
                .profiles
                .iter()
                .map(|_| ProfileState::default())
                .collect(),
            digests: objects
                .digests
                .iter()
                .map(|list| DigestState::new(&list.name))
                .collect(),
            value_sets: objects.value_sets.iter().map(|_| Vec::new()).collect(),
            multicast_groups: BTreeMap::new(),
            clone_sessions: BTreeMap::new(),
            ports_down: HashSet::new(),
            hash_calls: vec![0; objects.calculations.len()],
            counters: PipelineCounters::default(),
            touched: Vec::new(),
            assertion_failed: false,
            log: VecDeque::new(),
            random: Xoshiro256PlusPlus::seed_from_u64(0),
        }
    }

    /// A number between two, both included; each equally likely.
    pub(super) fn random_between(&mut self, low: u64, high: u64) -> u64 {
        let span = high - low;
        if span == u64::MAX {
            return self.random.next_u64();
        }
        // The upper half of a product with a uniform number; biased by less than 2^-64 times the span.
        let product = u128::from(self.random.next_u64()) * (u128::from(span) + 1);
        low + (product >> 64) as u64
    }

    pub(super) fn log(&mut self, text: String) {
        if self.log.len() >= MAX_LOG {
            self.log.pop_front();
            self.counters.log_messages_dropped += 1;
        }
        self.log.push_back(text);
    }

    pub(super) fn take_log(&mut self) -> impl Iterator<Item = String> {
        self.log.drain(..)
    }
}
