//! Peeling: take flows out of a counting table, one pure cell after the other.

use alloc::vec;
use alloc::vec::Vec;
use core::marker::PhantomData;

use crate::decode::WrongKeyKind;
use crate::filter::{Arrangement, FilterView, with_arrangement};
use crate::flowset::Flowset;
use crate::hash::HashFamily;
use crate::key::FlowKey;
use crate::layout::{HASHES_MAX, Layout, TableLayout};
use crate::processor::{self, Instructions, Loop, prefetch};
use crate::with_hash_family;

/// A cell while it is decoded: what the flows in it that are not known yet add up to.
///
/// FlowCount is signed, because FlowDecode subtracts flows that only might be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(align(32))]
struct PeelCell<W> {
    flow_xor: W,
    flow_count: i32,
    packets: i64,
}

/// Added to a saturated FlowCount, so that no number of flows brings it near one.
const FLOW_COUNT_OPEN: i32 = 1 << 30;

/// Added to a PacketCount that is only known as "at least": no sum of packets comes near it.
const PACKETS_OPEN: i64 = 1 << 60;

/// Cells handled together, so that the memory of all is on its way before the first is needed.
const BATCH: usize = 16;

/// Cells whose counts are read together, so that their widths are looked at once for all of them.
const READ_TOGETHER: usize = 64;

/// Flows looked up together.
const LOOK_UP_BATCH: usize = 64;

/// A flow taken out of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peeled<K> {
    /// The flow.
    pub key: K,
    /// The pure cell it was found in.
    pub pivot: u32,
    /// What the cell's PacketCount had left; `None` if it was saturated. Zero or negative if a
    /// flow-filter false positive spoiled counters.
    pub packets: Option<i64>,
    /// False if the flow had been subtracted ([`PeelTable::subtract_seen`]) but was never in the table.
    pub present: bool,
}

/// What peeling left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leftover {
    /// Flows left, from FlowCount: the highest sum of one subtable (saturated cells count as their
    /// highest value).
    pub flows: u64,
    /// Packets left in cells with flows that are not known: the highest sum of one subtable.
    pub packets: u64,
    /// Cells with flows that are not known.
    pub cells: usize,
    /// Cells of these whose FlowCount was saturated.
    pub saturated_cells: usize,
    /// Cells that look pure, but whose key does not hash to the cell or is not in the filter: more
    /// flows than the table was made for, or a damaged report.
    pub rejected_cells: usize,
}

/// A counting table in the course of decoding.
///
/// [`crate::decode::single_decode`] is built on it, and so is the collector's FlowDecode.
#[derive(Clone, Debug)]
pub struct PeelTable<'a, K: FlowKey> {
    layout: &'a Layout,
    filter: FilterView<'a>,
    cells: Vec<PeelCell<K::Words>>,
    sums: Vec<SubtableSum>,
}

/// What the counts of a subtable's cells add up to. At most 2^28 cells of 32 bits: it cannot overflow.
#[derive(Clone, Copy, Debug, Default)]
struct SubtableSum {
    flows: u64,
    packets: u64,
    flows_saturated: bool,
    packets_saturated: bool,
}

impl<'a, K: FlowKey> PeelTable<'a, K> {
    /// The table of a flowset. O(cells) time and memory.
    ///
    /// # Errors
    /// If the flowset has another kind of flow key than `K`.
    pub fn new<B: AsRef<[u8]>>(flowset: &'a Flowset<B>) -> Result<Self, WrongKeyKind> {
        WrongKeyKind::check::<K>(flowset.header().key)?;
        let table = flowset.layout().table();
        let widths = table.widths();
        let flow_open = widths.flow_count_saturated();
        let packets_open = widths.packet_count_saturated();
        let mut cells = Vec::with_capacity(table.cells());
        let mut sums = Vec::with_capacity(table.hashes());
        let (mut flow_counts, mut packet_counts) = ([0; READ_TOGETHER], [0; READ_TOGETHER]);
        for _ in 0..table.hashes() {
            let mut sum = SubtableSum::default();
            let mut left = table.subtable_cells() as usize;
            while left > 0 {
                let read = left.min(READ_TOGETHER);
                let (flow_counts, packet_counts) =
                    (&mut flow_counts[..read], &mut packet_counts[..read]);
                flowset.read_counts(cells.len(), flow_counts, packet_counts);
                let counts = flow_counts.iter().zip(packet_counts.iter());
                let keys = flowset.flow_xors_from::<K>(cells.len());
                cells.extend(counts.zip(keys).map(|((&flows, &packets), flow_xor)| {
                    let flows_saturated = flows == flow_open;
                    let packets_saturated = packets == packets_open;
                    sum.flows += flows as u64;
                    sum.packets += packets as u64;
                    sum.flows_saturated |= flows_saturated;
                    sum.packets_saturated |= packets_saturated;
                    PeelCell {
                        flow_xor: *K::from_bytes(flow_xor).words(),
                        flow_count: flows as i32 + FLOW_COUNT_OPEN * flows_saturated as i32,
                        packets: packets as i64 + PACKETS_OPEN * packets_saturated as i64,
                    }
                }));
                left -= read;
            }
            sums.push(sum);
        }
        Ok(Self {
            layout: flowset.layout(),
            filter: flowset.filter(),
            cells,
            sums,
        })
    }

    /// The layout.
    pub fn layout(&self) -> &'a Layout {
        self.layout
    }

    /// Peels until no pure cell is left, and hands each flow to `found`. O(cells + flows).
    pub fn peel(&mut self, found: impl FnMut(Peeled<K>)) {
        self.dispatch::<false>(found);
    }

    /// Like [`PeelTable::peel`], after flows were subtracted that only might be in the table: finds
    /// flows that are there and were not subtracted, and flows that were subtracted and are not
    /// there. Leaves PacketCounts alone, and reports none.
    pub fn peel_difference(&mut self, found: impl FnMut(Peeled<K>)) {
        self.dispatch::<true>(found);
    }

    /// Takes out of the table those of `flows` that the flow filter says were seen and that are
    /// `wanted`, and appends their numbers to `taken`: `first` for the first flow, and so on. Each may
    /// or may not have been in the table. PacketCounts stay.
    pub fn subtract_seen(
        &mut self,
        flows: &[K],
        first: u32,
        wanted: impl Fn(u32) -> bool,
        taken: &mut Vec<u32>,
    ) {
        with_hash_family!(self.layout.family(), H => {
            with_arrangement!(self.filter.layout(), arrangement => {
                processor::run(Subtraction::<K, H, _, _> {
                    cells: &mut self.cells,
                    filter: self.filter.words(),
                    arrangement,
                    layout: self.layout,
                    flows,
                    first,
                    wanted,
                    taken,
                    family: PhantomData,
                });
            });
        });
    }

    /// Whether the flow filter says that this flow was seen.
    pub fn may_contain(&self, key: &K) -> bool {
        with_hash_family!(self.layout.family(), H => {
            self.filter.contains(&H::hash(key.words(), self.layout.seed()))
        })
    }

    /// Whether no flow is left in this cell.
    pub fn is_known(&self, cell: usize) -> bool {
        let cell = &self.cells[cell];
        cell.flow_count == 0 && cell.flow_xor == K::Words::default()
    }

    /// The sum of FlowCount of each subtable as reported; none where a cell is saturated.
    pub(crate) fn flow_sums(&self) -> Vec<Option<u64>> {
        let sums = self.sums.iter();
        sums.map(|sum| (!sum.flows_saturated).then_some(sum.flows))
            .collect()
    }

    /// The sum of PacketCount of each subtable as reported; none where a cell is saturated.
    pub(crate) fn packet_sums(&self) -> Vec<Option<u64>> {
        let sums = self.sums.iter();
        sums.map(|sum| (!sum.packets_saturated).then_some(sum.packets))
            .collect()
    }

    /// Of each cell, whether no flow is left in it, and its packets like
    /// [`PeelTable::packets_left`].
    pub(crate) fn residuals(&self) -> impl ExactSizeIterator<Item = (bool, Option<i64>)> + Clone {
        self.cells.iter().map(|cell| {
            let known = cell.flow_count == 0 && cell.flow_xor == K::Words::default();
            (
                known,
                Some(cell.packets).filter(|&packets| packets < PACKETS_OPEN / 2),
            )
        })
    }

    /// Packets left in this cell; `None` if the cell's PacketCount was saturated, or that of a cell
    /// which a flow here was found in.
    pub fn packets_left(&self, cell: usize) -> Option<i64> {
        let packets = self.cells[cell].packets;
        (packets < PACKETS_OPEN / 2).then_some(packets)
    }

    /// What is left.
    pub fn leftover(&self) -> Leftover {
        let table = self.layout.table();
        let widths = table.widths();
        let mut leftover = Leftover::default();
        for subtable in self.cells.chunks_exact(table.subtable_cells() as usize) {
            let (mut flows, mut packets) = (0, 0);
            for cell in subtable {
                if cell.flow_count == 0 && cell.flow_xor == K::Words::default() {
                    continue;
                }
                leftover.cells += 1;
                leftover.rejected_cells += usize::from(matches!(cell.flow_count, -1 | 1));
                if cell.flow_count >= FLOW_COUNT_OPEN / 2 {
                    leftover.saturated_cells += 1;
                    flows += widths.flow_count_saturated() as u64;
                } else {
                    flows += cell.flow_count.max(0) as u64;
                }
                let cell_packets = match cell.packets {
                    open if open >= PACKETS_OPEN / 2 => widths.packet_count_saturated() as u64,
                    packets => packets.max(0) as u64,
                };
                packets = u64::saturating_add(packets, cell_packets);
            }
            leftover.flows = leftover.flows.max(flows);
            leftover.packets = leftover.packets.max(packets);
        }
        leftover
    }

    fn dispatch<const DIFFERENCE: bool>(&mut self, found: impl FnMut(Peeled<K>)) {
        with_hash_family!(self.layout.family(), H => match self.layout.table().hashes() {
            2 => self.peel_with::<H, 2, DIFFERENCE>(found),
            3 => self.peel_with::<H, 3, DIFFERENCE>(found),
            4 => self.peel_with::<H, 4, DIFFERENCE>(found),
            5 => self.peel_with::<H, 5, DIFFERENCE>(found),
            _ => self.peel_with::<H, 6, DIFFERENCE>(found),
        });
    }

    fn peel_with<H: HashFamily, const HASHES: usize, const DIFFERENCE: bool>(
        &mut self,
        found: impl FnMut(Peeled<K>),
    ) {
        with_arrangement!(self.filter.layout(), arrangement => {
            processor::run(Peeling::<K, H, _, _, HASHES, DIFFERENCE> {
                cells: &mut self.cells,
                filter: self.filter.words(),
                arrangement,
                table: *self.layout.table(),
                seed: self.layout.seed(),
                found,
                family: PhantomData,
            });
        });
    }
}

/// The loop that subtracts flows that were seen.
struct Subtraction<'t, K: FlowKey, H, A, F> {
    cells: &'t mut [PeelCell<K::Words>],
    filter: &'t [[u8; 8]],
    arrangement: A,
    layout: &'t Layout,
    flows: &'t [K],
    first: u32,
    wanted: F,
    taken: &'t mut Vec<u32>,
    family: PhantomData<H>,
}

impl<K, H, A, F> Loop for Subtraction<'_, K, H, A, F>
where
    K: FlowKey,
    H: HashFamily,
    A: Arrangement,
    F: Fn(u32) -> bool,
{
    #[inline(always)]
    fn run<I: Instructions>(self) {
        let (table, seed) = (*self.layout.table(), self.layout.seed());
        let (filter, arrangement) = (self.filter, self.arrangement);
        let mut places = [A::Place::<H::Hash>::default(); LOOK_UP_BATCH];
        let mut left = [0; LOOK_UP_BATCH];
        let mut hits = [(0, [0; HASHES_MAX]); LOOK_UP_BATCH];
        let firsts = (self.first..).step_by(LOOK_UP_BATCH);
        for (first, batch) in firsts.zip(self.flows.chunks(LOOK_UP_BATCH)) {
            for (key, place) in batch.iter().zip(&mut places) {
                *place = arrangement.place(&H::hash(key.words(), seed));
                arrangement.prefetch::<H::Hash, _>(filter, place);
            }
            // Most flows were not here: those that may have been are gathered without a branch.
            let mut count = 0;
            for (slot, place) in (0_u8..).zip(&places[..batch.len()]) {
                left[count] = slot;
                let may = arrangement.may_contain::<H::Hash, I, _, 0>(filter, place);
                count += usize::from(may);
            }
            let mut remaining = 0;
            for index in 0..count {
                let slot = left[index];
                left[remaining] = slot;
                let place = &places[usize::from(slot)];
                let may = arrangement.may_contain::<H::Hash, I, _, 1>(filter, place);
                remaining += usize::from(may);
            }
            // The cells of those that have been are on their way before the first is needed.
            let mut found = 0;
            for &slot in &left[..remaining] {
                let (place, key) = (&places[usize::from(slot)], &batch[usize::from(slot)]);
                if arrangement.may_contain::<H::Hash, I, _, 2>(filter, place)
                    && arrangement.may_contain::<H::Hash, I, _, 3>(filter, place)
                    && (self.wanted)(first + u32::from(slot))
                {
                    let cells = table.cells_of_any(&H::hash(key.words(), seed));
                    for &cell in &cells[..table.hashes()] {
                        prefetch(self.cells, cell as usize);
                    }
                    hits[found] = (slot, cells);
                    found += 1;
                }
            }
            for (slot, cells) in &hits[..found] {
                self.taken.push(first + u32::from(*slot));
                let key = &batch[usize::from(*slot)];
                for &cell in &cells[..table.hashes()] {
                    self.cells[cell as usize].remove::<K, true>(key, 1, None);
                }
            }
        }
    }
}

/// The loop that peels.
struct Peeling<'t, K: FlowKey, H, A, F, const HASHES: usize, const DIFFERENCE: bool> {
    cells: &'t mut [PeelCell<K::Words>],
    filter: &'t [[u8; 8]],
    arrangement: A,
    table: TableLayout,
    seed: u64,
    found: F,
    family: PhantomData<H>,
}

/// Where a cell's key belongs.
#[derive(Clone, Copy, Debug)]
struct Candidate<P, const HASHES: usize> {
    place: P,
    cells: [u32; HASHES],
}

impl<P: Default, const HASHES: usize> Default for Candidate<P, HASHES> {
    fn default() -> Self {
        Self {
            place: P::default(),
            cells: [0; HASHES],
        }
    }
}

impl<K, H, A, F, const HASHES: usize, const DIFFERENCE: bool> Loop
    for Peeling<'_, K, H, A, F, HASHES, DIFFERENCE>
where
    K: FlowKey,
    H: HashFamily,
    A: Arrangement,
    F: FnMut(Peeled<K>),
{
    #[inline(always)]
    fn run<I: Instructions>(mut self) {
        // Without subtraction every flow empties a cell for good. With it, keys that only look
        // genuine could come and go for ever.
        let mut flows_left = if DIFFERENCE {
            2 * self.cells.len()
        } else {
            usize::MAX
        };
        let mut wave = self.pure_cells();
        let mut next_wave = vec![];
        let mut pivots = [0; BATCH];
        let mut candidates = [Candidate::<A::Place<H::Hash>, HASHES>::default(); BATCH];
        while !wave.is_empty() {
            // Room for all cells of all flows, so that a cell can be written down before it is known
            // whether it counts: that is hard to predict.
            next_wave.resize(HASHES * wave.len(), 0);
            let mut next_cells = 0;
            for (number, batch) in wave.chunks(BATCH).enumerate() {
                for &cell in wave.iter().skip((number + 1) * BATCH).take(BATCH) {
                    prefetch(self.cells, cell as usize);
                }
                // A flow in several pure cells is found in the first: the others are not hashed for
                // nothing. In a difference they may yet become pure again.
                let mut pure = 0;
                for &cell in batch {
                    pivots[pure] = cell;
                    let cell = &self.cells[cell as usize];
                    pure += usize::from(DIFFERENCE || cell.is_pure::<DIFFERENCE>());
                }
                let pivots = &pivots[..pure];
                for (&cell, candidate) in pivots.iter().zip(&mut candidates) {
                    *candidate = self.candidate(&self.cells[cell as usize].flow_xor);
                    self.arrangement
                        .prefetch::<H::Hash, _>(self.filter, &candidate.place);
                    for &cell in &candidate.cells {
                        prefetch(self.cells, cell as usize);
                    }
                }
                for (&pivot, candidate) in pivots.iter().zip(&candidates) {
                    let Some(peeled) = self.verified::<I>(pivot, candidate) else {
                        continue;
                    };
                    let Some(left) = flows_left.checked_sub(1) else {
                        return;
                    };
                    flows_left = left;
                    next_cells = self.remove(&peeled, candidate, &mut next_wave, next_cells);
                    (self.found)(peeled);
                }
            }
            next_wave.truncate(next_cells);
            core::mem::swap(&mut wave, &mut next_wave);
        }
    }
}

impl<K, H, A, F, const HASHES: usize, const DIFFERENCE: bool>
    Peeling<'_, K, H, A, F, HASHES, DIFFERENCE>
where
    K: FlowKey,
    H: HashFamily,
    A: Arrangement,
{
    fn pure_cells(&self) -> Vec<u32> {
        // Room for all cells, so that one can be written down before it is known whether it counts:
        // a fifth of them do, in no order.
        let mut pure = vec![0; self.cells.len()];
        let mut count = 0;
        for (index, cell) in (0..).zip(&*self.cells) {
            pure[count] = index;
            count += usize::from(cell.is_pure::<DIFFERENCE>());
        }
        pure.truncate(count);
        pure
    }

    #[inline(always)]
    fn candidate(&self, key: &K::Words) -> Candidate<A::Place<H::Hash>, HASHES> {
        // A key as the keys' constructors make it: other bits can only come from a damaged report.
        let key = K::from_words(*key);
        let hash = H::hash(key.words(), self.seed);
        Candidate {
            place: self.arrangement.place(&hash),
            cells: self.table.cells_of(&hash),
        }
    }

    /// The flow in a cell, if the cell is still pure and its key hashes to it and is in the filter.
    #[inline(always)]
    fn verified<I: Instructions>(
        &self,
        pivot: u32,
        candidate: &Candidate<A::Place<H::Hash>, HASHES>,
    ) -> Option<Peeled<K>> {
        let cell = &self.cells[pivot as usize];
        // The cell may have lost its flow since the candidate was hashed; then it is not pure. In a
        // difference it may hold another one: its key then hardly ever hashes to the cells of the
        // first, but "hardly" is not enough.
        if !cell.is_pure::<DIFFERENCE>() || !candidate.cells.contains(&pivot) {
            return None;
        }
        let mut place = candidate.place;
        if DIFFERENCE {
            let anew = self.candidate(&cell.flow_xor);
            if anew.cells != candidate.cells {
                return None;
            }
            place = anew.place;
        }
        if !self
            .arrangement
            .contains::<H::Hash, I, _>(self.filter, &place)
        {
            return None;
        }
        Some(Peeled {
            key: K::from_words(cell.flow_xor),
            pivot,
            packets: Some(cell.packets)
                .filter(|&packets| !DIFFERENCE && packets < PACKETS_OPEN / 2),
            present: cell.flow_count > 0,
        })
    }

    /// Takes a flow out of its cells, and writes those that became pure to `next_wave` from
    /// `next_cells` on; where the next ones go is returned.
    #[inline(always)]
    fn remove(
        &mut self,
        peeled: &Peeled<K>,
        candidate: &Candidate<A::Place<H::Hash>, HASHES>,
        next_wave: &mut [u32],
        mut next_cells: usize,
    ) -> usize {
        let flows = if peeled.present { 1 } else { -1 };
        for &index in &candidate.cells {
            let cell = &mut self.cells[index as usize];
            cell.remove::<K, DIFFERENCE>(&peeled.key, flows, peeled.packets);
            next_wave[next_cells] = index;
            next_cells += usize::from(cell.is_pure::<DIFFERENCE>());
        }
        next_cells
    }
}

impl<W> PeelCell<W> {
    #[inline]
    fn is_pure<const DIFFERENCE: bool>(&self) -> bool {
        self.flow_count == 1 || (DIFFERENCE && self.flow_count == -1)
    }

    /// Takes a flow out (`flows` is 1) or puts it back (-1). An unknown number of packets makes the
    /// cell's packets unknown too.
    #[inline]
    fn remove<K: FlowKey<Words = W>, const DIFFERENCE: bool>(
        &mut self,
        key: &K,
        flows: i32,
        packets: Option<i64>,
    ) where
        W: crate::key::KeyWords,
    {
        for (xor, word) in self.flow_xor.as_mut().iter_mut().zip(key.words().as_ref()) {
            *xor ^= word;
        }
        self.flow_count -= flows;
        if !DIFFERENCE {
            // In a damaged report the errors can grow from flow to flow. They leave impossible
            // counters behind, so that nothing is called exact.
            self.packets = match packets {
                Some(packets) => self.packets.saturating_sub(packets),
                None => PACKETS_OPEN,
            };
        }
    }
}

/// The cells of a flow in a layout whose family is known only at run time.
pub fn cells_of<K: FlowKey>(layout: &Layout, key: &K) -> [u32; HASHES_MAX] {
    with_hash_family!(layout.family(), H => {
        cells_of_with::<K, H>(layout.table(), layout.seed(), key)
    })
}

/// Appends the cells of flows to `cells`: [`TableLayout::hashes`] for each, like the first of
/// [`cells_of`].
pub fn append_cells<'k, K: FlowKey>(
    layout: &Layout,
    keys: impl IntoIterator<Item = &'k K>,
    cells: &mut Vec<u32>,
) {
    with_hash_family!(layout.family(), H => {
        processor::run(CellsOf::<K, H, _> {
            table: *layout.table(),
            seed: layout.seed(),
            keys: keys.into_iter(),
            cells,
            family: PhantomData,
        });
    });
}

/// The loop that finds flows' cells.
struct CellsOf<'t, K, H, F> {
    table: TableLayout,
    seed: u64,
    keys: F,
    cells: &'t mut Vec<u32>,
    family: PhantomData<(K, H)>,
}

impl<'k, K: FlowKey, H: HashFamily, F: Iterator<Item = &'k K>> Loop for CellsOf<'_, K, H, F> {
    #[inline(always)]
    fn run<I: Instructions>(self) {
        for key in self.keys {
            let cells = self.table.cells_of_any(&H::hash(key.words(), self.seed));
            self.cells.extend_from_slice(&cells[..self.table.hashes()]);
        }
    }
}

#[inline]
fn cells_of_with<K: FlowKey, H: HashFamily>(
    table: &TableLayout,
    seed: u64,
    key: &K,
) -> [u32; HASHES_MAX] {
    table.cells_of_any(&H::hash(key.words(), seed))
}
