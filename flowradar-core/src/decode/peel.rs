//! Peeling: take flows out of a counting table, one pure cell after the other.

use alloc::vec::Vec;

use crate::decode::WrongKeyKind;
use crate::filter::FilterView;
use crate::flowset::Flowset;
use crate::hash::{HashFamily, KeyHash};
use crate::key::FlowKey;
use crate::layout::{HASHES_MAX, Layout, TableLayout};
use crate::processor::prefetch;
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
}

impl<'a, K: FlowKey> PeelTable<'a, K> {
    /// The table of a flowset. O(cells) time and memory.
    ///
    /// # Errors
    /// If the flowset has another kind of flow key than `K`.
    pub fn new<B: AsRef<[u8]>>(flowset: &'a Flowset<B>) -> Result<Self, WrongKeyKind> {
        WrongKeyKind::check::<K>(flowset.header().key)?;
        let widths = flowset.layout().table().widths();
        let flow_open = widths.flow_count_saturated();
        let packets_open = widths.packet_count_saturated();
        let cells = flowset
            .flow_xors()
            .zip(flowset.flow_counts())
            .zip(flowset.packet_counts())
            .map(|((flow_xor, flow_count), packet_count)| PeelCell {
                flow_xor: *K::from_bytes(flow_xor).words(),
                flow_count: flow_count as i32
                    + if flow_count == flow_open {
                        FLOW_COUNT_OPEN
                    } else {
                        0
                    },
                packets: packet_count as i64
                    + if packet_count == packets_open {
                        PACKETS_OPEN
                    } else {
                        0
                    },
            })
            .collect();
        Ok(Self {
            layout: flowset.layout(),
            filter: flowset.filter(),
            cells,
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

    /// Takes out of the table those of `flows` that the flow filter says were seen, and appends their
    /// numbers to `taken`. Each may or may not have been in the table. PacketCounts stay.
    pub fn subtract_seen<'k>(
        &mut self,
        flows: impl IntoIterator<Item = (u32, &'k K)>,
        taken: &mut Vec<u32>,
    ) where
        K: 'k,
    {
        let table = self.layout.table();
        with_hash_family!(self.layout.family(), H => for (number, key) in flows {
            let hash = H::hash(key.words(), self.layout.seed());
            if self.filter.contains(&hash) {
                taken.push(number);
                for &cell in &table.cells_of_any(&hash)[..table.hashes()] {
                    self.cells[cell as usize].remove::<K, true>(key, 1, None);
                }
            }
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

    /// Of each cell, whether no flow is left in it, and its packets like
    /// [`PeelTable::packets_left`].
    pub(crate) fn residuals(&self) -> impl ExactSizeIterator<Item = (bool, Option<i64>)> {
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
        mut found: impl FnMut(Peeled<K>),
    ) {
        // Without subtraction every flow empties a cell for good. With it, keys that only look
        // genuine could come and go for ever.
        let mut flows_left = if DIFFERENCE {
            2 * self.cells.len()
        } else {
            usize::MAX
        };
        let mut wave = self.pure_cells::<DIFFERENCE>();
        let mut next_wave = Vec::with_capacity(wave.len());
        let mut candidates = [Candidate::<H::Hash, HASHES>::default(); BATCH];
        while !wave.is_empty() {
            for (number, batch) in wave.chunks(BATCH).enumerate() {
                for &cell in wave.iter().skip((number + 1) * BATCH).take(BATCH) {
                    prefetch(&self.cells, cell as usize);
                }
                for (&cell, candidate) in batch.iter().zip(&mut candidates) {
                    *candidate = self.candidate::<H, HASHES>(cell);
                }
                for (&pivot, candidate) in batch.iter().zip(&candidates) {
                    let Some(peeled) = self.verified::<H, HASHES, DIFFERENCE>(pivot, candidate)
                    else {
                        continue;
                    };
                    let Some(left) = flows_left.checked_sub(1) else {
                        return;
                    };
                    flows_left = left;
                    self.remove::<HASHES, DIFFERENCE>(&peeled, candidate, &mut next_wave);
                    found(peeled);
                }
            }
            wave.clear();
            core::mem::swap(&mut wave, &mut next_wave);
        }
    }

    fn pure_cells<const DIFFERENCE: bool>(&self) -> Vec<u32> {
        let mut pure = Vec::with_capacity(self.cells.len() / 3);
        for (index, cell) in self.cells.iter().enumerate() {
            if cell.is_pure::<DIFFERENCE>() {
                pure.push(index as u32);
            }
        }
        pure
    }

    /// Hashes the key of a cell that seems pure, and starts loading what verifying and removing it
    /// will touch.
    #[inline]
    fn candidate<H: HashFamily, const HASHES: usize>(
        &self,
        cell: u32,
    ) -> Candidate<H::Hash, HASHES> {
        let key = K::from_words(self.cells[cell as usize].flow_xor);
        let hash = H::hash(key.words(), self.layout.seed());
        let cells: [u32; HASHES] = self.layout.table().cells_of(&hash);
        self.filter.prefetch(&hash);
        for &cell in &cells {
            prefetch(&self.cells, cell as usize);
        }
        Candidate { hash, cells }
    }

    /// The flow in a cell, if the cell is still pure and its key hashes to it and is in the filter.
    #[inline]
    fn verified<H: HashFamily, const HASHES: usize, const DIFFERENCE: bool>(
        &self,
        pivot: u32,
        candidate: &Candidate<H::Hash, HASHES>,
    ) -> Option<Peeled<K>> {
        let cell = &self.cells[pivot as usize];
        // The cell may have lost its flow since the candidate was hashed; then it is not pure. In a
        // difference it may hold another one: its key then hardly ever hashes to the cells of the
        // first, but "hardly" is not enough.
        if !cell.is_pure::<DIFFERENCE>() || !candidate.cells.contains(&pivot) {
            return None;
        }
        let key = K::from_words(cell.flow_xor);
        let hash = if DIFFERENCE {
            let hash = H::hash(key.words(), self.layout.seed());
            let cells: [u32; HASHES] = self.layout.table().cells_of(&hash);
            if cells != candidate.cells {
                return None;
            }
            hash
        } else {
            candidate.hash
        };
        if !self.filter.contains(&hash) {
            return None;
        }
        Some(Peeled {
            key,
            pivot,
            packets: self.packets_left(pivot as usize).filter(|_| !DIFFERENCE),
            present: cell.flow_count > 0,
        })
    }

    #[inline]
    fn remove<const HASHES: usize, const DIFFERENCE: bool>(
        &mut self,
        peeled: &Peeled<K>,
        candidate: &Candidate<impl KeyHash, HASHES>,
        next_wave: &mut Vec<u32>,
    ) {
        let flows = if peeled.present { 1 } else { -1 };
        for &index in &candidate.cells {
            let cell = &mut self.cells[index as usize];
            cell.remove::<K, DIFFERENCE>(&peeled.key, flows, peeled.packets);
            if cell.is_pure::<DIFFERENCE>() {
                next_wave.push(index);
            }
        }
    }
}

/// A cell's key, hashed.
#[derive(Clone, Copy, Debug)]
struct Candidate<H, const HASHES: usize> {
    hash: H,
    cells: [u32; HASHES],
}

impl<H: Default, const HASHES: usize> Default for Candidate<H, HASHES> {
    fn default() -> Self {
        Self {
            hash: H::default(),
            cells: [0; HASHES],
        }
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

#[inline]
fn cells_of_with<K: FlowKey, H: HashFamily>(
    table: &TableLayout,
    seed: u64,
    key: &K,
) -> [u32; HASHES_MAX] {
    table.cells_of_any(&H::hash(key.words(), seed))
}
