//! FlowDecode: find the flows of every switch with the help of the others.
//!
//! A flow that one switch reveals is looked up in the flow filter of every other. Where the filter
//! knows it, it is subtracted from the counting table, which makes more cells pure; flows found there
//! are looked up elsewhere in turn, until nothing changes (NSDI 2016 §4.2).
//!
//! # Filters err
//!
//! A filter takes a few flows for known that never came; a network has many times more flows than a
//! switch, so some wrong ones are subtracted from every table. What is left in the table then is a
//! *difference*: flows that are there minus flows that are not. It is peeled as such: a cell with
//! FlowCount 1 holds a flow that was missing, one with −1 a flow that was subtracted wrongly. So the
//! order of things does not matter, and errors of filters correct themselves.
//!
//! # When is a flow there?
//!
//! A flow found in a cell before anything was subtracted is there. Any other is there if a cell that
//! it shares came out at zero (FlowCount and all 104 or 296 bits of FlowXOR) without having been made
//! so: flows that are not there do not cancel by chance. In a table that comes out at zero
//! altogether that holds for all flows. In one that does not, what errors add up to may come out at
//! zero too: there a flow needs two such cells, and must have been found at some switch before
//! anything was subtracted. Other flows are [`SwitchFlows::unconfirmed`], and not reported.
//!
//! Keys are not random, though: two flows A→X and B→Y have the same XOR as A→Y and B→X. If all four
//! share all their cells, nothing tells one pair from the other. That is hopelessly unlikely except in
//! tables of a few dozen cells; there ([`CONFUSIONS_MAX`]) only flows found in a cell before anything
//! was subtracted are reported.

mod registry;

use bitvec::vec::BitVec;
use flowradar_core::decode::{Leftover, PeelTable, Peeled, WrongKeyKind, cells_of};
use flowradar_core::layout::Layout;
use flowradar_core::{FlowKey, Flowset};
use hashbrown::HashMap;
use rayon::prelude::*;

use registry::{NO_FLOW, Registry};

/// Rounds after which FlowDecode stops even if flows are still found. A network is decoded in less
/// than ten; this bounds the work on reports made to never end.
pub const ROUNDS_MAX: usize = 64;

/// Cells that must show that a flow is there, in a table that does not come out at zero altogether.
const EVIDENCE_CELLS: usize = 2;

/// Most pairs of flows per switch, by expectation, that could be taken for other pairs, for cells that
/// came out at zero to count as evidence.
pub const CONFUSIONS_MAX: f64 = 1e-6;

/// The flows of all switches of one epoch.
#[derive(Clone, Debug)]
pub struct FlowDecode<'a, K: FlowKey> {
    /// Every key seen anywhere, sorted: a flow's network-wide number is its place here. Some may be at no
    /// switch: see [`SwitchFlows::present`].
    pub keys: Vec<K>,
    /// One entry for each flowset, in the order given.
    pub switches: Vec<SwitchFlows<'a, K>>,
    /// Rounds of looking up flows at other switches.
    pub rounds: usize,
    /// Whether [`ROUNDS_MAX`] ended it.
    pub cut_short: bool,
}

/// The flows of one switch, by their network-wide numbers.
#[derive(Clone, Debug)]
pub struct SwitchFlows<'a, K: FlowKey> {
    /// Flows that are there, sorted.
    pub present: Vec<u32>,
    /// Flows that the filter knows but the table does not, sorted: false positives of the filter. Not
    /// there as far as FlowCount goes, but if they came, their packets were counted.
    pub absent: Vec<u32>,
    /// Flows that the filter knows, where too much else is unknown to tell, sorted.
    pub unconfirmed: Vec<u32>,
    /// How many flows the switch revealed on its own.
    pub found_alone: usize,
    /// Flows that the table counts beyond those found.
    pub leftover: Leftover,
    /// The table with all flows taken out.
    pub table: PeelTable<'a, K>,
}

/// Finds the flows of all switches. One flowset for each switch, all of one epoch.
///
/// O(flows in the network × switches) filter look-ups, O(cells) else.
///
/// # Errors
/// If a flowset has another kind of flow key than `K`.
pub fn flow_decode<K: FlowKey, B: AsRef<[u8]> + Sync>(
    flowsets: &[Flowset<B>],
) -> Result<FlowDecode<'_, K>, WrongKeyKind> {
    let mut switches = flowsets
        .par_iter()
        .map(Search::alone)
        .collect::<Result<Vec<_>, _>>()?;
    let mut registry = Registry::default();
    let mut rounds = 0;
    let mut found_alone = 0;
    let cut_short =
        loop {
            let first_new = registry.keys.len();
            let found: Vec<_> = switches
                .iter_mut()
                .map(|switch| core::mem::take(&mut switch.found))
                .collect();
            let numbers = registry.number(&found);
            switches.par_iter_mut().zip(found).zip(numbers).for_each(
                |((switch, found), numbers)| {
                    switch.register(&found, &numbers, registry.keys.len());
                },
            );
            if rounds == 0 {
                found_alone = registry.keys.len();
            }
            if registry.keys.len() == first_new || rounds == ROUNDS_MAX {
                break registry.keys.len() > first_new;
            }
            rounds += 1;
            switches
                .par_iter_mut()
                .for_each(|switch| switch.look_up(&registry, first_new));
        };
    let found = registry.keys;
    let (keys, places) = sorted(&found);
    let switches = switches
        .into_par_iter()
        .map(|switch| switch.finish(&found, found_alone, &places))
        .collect();
    Ok(FlowDecode {
        keys,
        switches,
        rounds,
        cut_short,
    })
}

/// The keys in order, and the place there of each. Sorted once here, they need not be at every switch.
fn sorted<K: FlowKey>(keys: &[K]) -> (Vec<K>, Vec<u32>) {
    let mut order: Vec<(K, u32)> = keys.iter().copied().zip(0..).collect();
    order.par_sort_unstable();
    let mut places = vec![0; keys.len()];
    for (place, &(_, number)) in (0..).zip(&order) {
        places[number as usize] = place;
    }
    (order.into_iter().map(|(key, _)| key).collect(), places)
}

/// What was found in a cell.
#[derive(Clone, Copy, Debug)]
struct InCell<K> {
    key: K,
    pivot: u32,
    present: bool,
}

impl<K> From<Peeled<K>> for InCell<K> {
    fn from(peeled: Peeled<K>) -> Self {
        Self {
            key: peeled.key,
            pivot: peeled.pivot,
            present: peeled.present,
        }
    }
}

/// A flow found in a cell: what it takes to judge it later.
#[derive(Clone, Copy, Debug)]
struct Found {
    flow: u32,
    pivot: u32,
    present: bool,
}

/// One switch in the course of FlowDecode.
#[derive(Debug)]
struct Search<'a, K: FlowKey> {
    table: PeelTable<'a, K>,
    /// Found since the last round.
    found: Vec<InCell<K>>,
    /// Flows found before anything was subtracted.
    alone: Vec<u32>,
    /// Flows found afterwards, in order.
    with_help: Vec<Found>,
    /// Flows that were subtracted.
    subtracted: Vec<u32>,
    /// Cells that came out at zero only because something was taken out that is no flow.
    spoiled: Vec<u32>,
    /// Marks the flows in `alone` and `with_help`, by number.
    known: BitVec,
    looked_up: bool,
}

impl<'a, K: FlowKey> Search<'a, K> {
    fn alone<B: AsRef<[u8]>>(flowset: &'a Flowset<B>) -> Result<Self, WrongKeyKind> {
        let mut table = PeelTable::new(flowset)?;
        let mut found = Vec::new();
        table.peel(|flow| found.push(flow.into()));
        Ok(Self {
            table,
            found,
            alone: Vec::new(),
            with_help: Vec::new(),
            subtracted: Vec::new(),
            spoiled: Vec::new(),
            known: BitVec::new(),
            looked_up: false,
        })
    }

    /// Takes down what was found last, and has these numbers among `flows`.
    fn register(&mut self, found: &[InCell<K>], numbers: &[u32], flows: usize) {
        self.known.resize(flows, false);
        for (found, &flow) in found.iter().zip(numbers) {
            if flow == NO_FLOW {
                self.spoiled.push(found.pivot);
                continue;
            }
            self.known.set(flow as usize, true);
            if self.looked_up {
                self.with_help.push(Found {
                    flow,
                    pivot: found.pivot,
                    present: found.present,
                });
            } else {
                self.alone.push(flow);
            }
        }
    }

    /// Subtracts the flows from number `first_new` on that were found elsewhere, and peels what is
    /// left.
    fn look_up(&mut self, registry: &Registry<K>, first_new: usize) {
        self.looked_up = true;
        let known = &self.known;
        let wanted = |flow: u32| !known[flow as usize];
        self.table.subtract_seen(
            &registry.keys[first_new..],
            first_new as u32,
            wanted,
            &mut self.subtracted,
        );
        let found = &mut self.found;
        self.table.peel_difference(|flow| found.push(flow.into()));
    }

    /// Tells what is there, what is not, and what cannot be told. The first `found_alone` keys were
    /// found in a table before anything was subtracted, and so exist. `places` are the numbers to give
    /// the flows from now on.
    fn finish(self, keys: &[K], found_alone: usize, places: &[u32]) -> SwitchFlows<'a, K> {
        let leftover = self.table.leftover();
        let evidence = (leftover.cells > 0).then(|| self.evidence(keys));
        let layout = self.table.layout();
        let candidates = self.alone.len() + self.with_help.len() + self.subtracted.len();
        let confusable = expected_confusions(layout, candidates) > CONFUSIONS_MAX;
        let confirmed = |flow: u32, pivot: Option<u32>| {
            let Some(evidence) = &evidence else {
                return !confusable;
            };
            let cells = cells_of(layout, &keys[flow as usize]);
            let shows = |&&cell: &&u32| Some(cell) != pivot && evidence[cell as usize];
            !confusable
                && (flow as usize) < found_alone
                && cells[..layout.table().hashes()]
                    .iter()
                    .filter(shows)
                    .count()
                    >= EVIDENCE_CELLS
        };
        let (mut present, mut absent, mut unconfirmed) = (Vec::new(), Vec::new(), Vec::new());
        let mut judge = |flow: u32, verdict: Verdict| {
            let place = places[flow as usize];
            match verdict {
                Verdict::Present => present.push(place),
                Verdict::Absent => absent.push(place),
                Verdict::Unconfirmed => unconfirmed.push(place),
            }
        };
        let (irregular, mut times_taken) = self.taken_irregularly(keys.len());
        for &flow in &self.alone {
            if irregular[flow as usize] {
                times_taken.remove(&flow);
            }
            judge(flow, Verdict::Present);
        }
        for &flow in &self.subtracted {
            if irregular[flow as usize]
                && let Some(times) = times_taken.get_mut(&flow)
            {
                *times += 1;
            } else if confirmed(flow, None) {
                judge(flow, Verdict::Present);
            } else {
                judge(flow, Verdict::Unconfirmed);
            }
        }
        // The last cell that a flow was found in is the one that shows nothing about it.
        for found in self.with_help.iter().rev() {
            let times = if irregular[found.flow as usize] {
                times_taken.remove(&found.flow)
            } else {
                Some(1)
            };
            let verdict = match times {
                None => continue,
                Some(0 | 1) if !confirmed(found.flow, Some(found.pivot)) => Verdict::Unconfirmed,
                Some(1) => Verdict::Present,
                Some(0) => Verdict::Absent,
                Some(_) => Verdict::Unconfirmed,
            };
            judge(found.flow, verdict);
        }
        for flows in [&mut present, &mut absent, &mut unconfirmed] {
            sort_flows(flows, keys.len());
        }
        SwitchFlows {
            present,
            absent,
            unconfirmed,
            found_alone: self.alone.len(),
            leftover,
            table: self.table,
        }
    }

    /// Marks flows, of `flows`, that were found with help and otherwise too, or not just once, or were put
    /// back: few. Of each of them, how many times it was taken out, less how many times it was put back.
    fn taken_irregularly(&self, flows: usize) -> (BitVec, HashMap<u32, i32>) {
        let mut with_help: BitVec = BitVec::repeat(false, flows);
        let mut irregular: BitVec = BitVec::repeat(false, flows);
        for found in &self.with_help {
            if with_help.replace(found.flow as usize, true) || !found.present {
                irregular.set(found.flow as usize, true);
            }
        }
        for &flow in self.alone.iter().chain(&self.subtracted) {
            if with_help[flow as usize] {
                irregular.set(flow as usize, true);
            }
        }
        let mut times_taken = HashMap::new();
        for found in &self.with_help {
            if irregular[found.flow as usize] {
                *times_taken.entry(found.flow).or_default() += if found.present { 1 } else { -1 };
            }
        }
        (irregular, times_taken)
    }

    /// Marks the cells that show that what was taken out of them was there: those that came out at
    /// zero of themselves, and those that a flow was found in which shares another such cell.
    fn evidence(&self, keys: &[K]) -> BitVec {
        let layout = self.table.layout();
        let mut evidence: BitVec = (0..layout.table().cells())
            .map(|cell| self.table.is_known(cell))
            .collect();
        for found in &self.with_help {
            evidence.set(found.pivot as usize, false);
        }
        let mut spoiled: BitVec = BitVec::repeat(false, evidence.len());
        for &cell in &self.spoiled {
            evidence.set(cell as usize, false);
            spoiled.set(cell as usize, true);
        }
        // Backwards: the other cells of a flow are settled by the flows found after it.
        for found in self.with_help.iter().rev() {
            let cells = cells_of(layout, &keys[found.flow as usize]);
            let confirmed = cells[..layout.table().hashes()]
                .iter()
                .any(|&cell| cell != found.pivot && evidence[cell as usize]);
            let pivot = found.pivot as usize;
            if confirmed && self.table.is_known(pivot) && !spoiled[pivot] {
                evidence.set(pivot, true);
            }
        }
        evidence
    }
}

/// Sorts flows, whose numbers are below `bound`.
fn sort_flows(flows: &mut Vec<u32>, bound: usize) {
    if flows.len() < bound / u64::BITS as usize {
        flows.sort_unstable();
        return;
    }
    // A bit for each number takes less time than comparing.
    let mut words = vec![0_u64; bound.div_ceil(u64::BITS as usize)];
    let mut repeated = false;
    for &flow in &*flows {
        let (word, bit) = (
            &mut words[(flow / u64::BITS) as usize],
            1 << (flow % u64::BITS),
        );
        repeated |= *word & bit != 0;
        *word |= bit;
    }
    if repeated {
        flows.sort_unstable();
        return;
    }
    flows.clear();
    for (first, mut word) in (0..).step_by(u64::BITS as usize).zip(words) {
        while word != 0 {
            flows.push(first + word.trailing_zeros());
            word &= word - 1;
        }
    }
}

/// Expected number of quadruples of flows that have a common XOR of zero and share all their cells, if
/// any three flows were completed to such a quadruple.
fn expected_confusions(layout: &Layout, flows: usize) -> f64 {
    (flows as f64 / layout.table().places()).powi(3)
}

/// What became of a flow at a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Present,
    Absent,
    Unconfirmed,
}
