//! The switch side: encodes every packet in constant work.
//!
//! For each packet (NSDI 2016 §3.1, figure 3): the flow filter says whether its flow is new; in each
//! of the flow's k cells a new flow is XORed into FlowXOR and counted in FlowCount, and every packet
//! is counted in PacketCount (and its length in ByteCount). No packet allocates, loops over data of
//! variable length or waits for another.
//!
//! There are two banks. When an epoch ends the encoder goes on in the other bank at once, and the
//! sealed bank can be read out at leisure; it is cleared when the reader says so.

use alloc::vec;
use alloc::vec::Vec;
use core::marker::PhantomData;

use crate::filter::{Arrangement, FlowFilter, with_arrangement};
use crate::flowset::{Epoch, FlowsetHeader, SwitchName, Totals, write_flowset};
use crate::hash::{HashFamily, HashFamilyId, KeyHash, Xxh3};
use crate::key::{FlowKey, KeyWords};
use crate::layout::{Layout, TableLayout};
use crate::processor::{self, Instructions, Loop, prefetch};

/// One packet, as the encoder sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<K> {
    /// The flow it belongs to.
    pub key: K,
    /// Its length in bytes, from the IP header on. Used where bytes are counted.
    pub ip_bytes: u32,
}

/// A cell of the counting table, as the encoder keeps it.
///
/// Two (IPv4) or one (IPv6) in a cache line, never across two. Counters are at least as wide here as
/// any layout allows and are cut to the layout's widths when they are written out, so that the hot
/// path need not know the widths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(align(32))]
pub(crate) struct Cell<W> {
    pub(crate) flow_xor: W,
    /// PacketCount in the high half, FlowCount in the low one: one addition counts both.
    counts: u64,
    pub(crate) byte_count: u64,
}

impl<W> Cell<W> {
    pub(crate) fn flow_count(&self) -> u32 {
        self.counts as u32
    }

    pub(crate) fn packet_count(&self) -> u32 {
        (self.counts >> 32) as u32
    }
}

/// Filter, table and totals of one epoch.
#[derive(Clone, Debug)]
struct Bank<K: FlowKey> {
    epoch: Epoch,
    filter: FlowFilter,
    cells: Vec<Cell<K::Words>>,
    totals: Totals,
}

/// Why an encoder cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NewEncoderError {
    /// The layout names another hash family than the encoder's type.
    #[error("the layout is for the hash family {layout}, the encoder for {encoder}")]
    Family {
        /// Family of the layout.
        layout: HashFamilyId,
        /// Family of the encoder.
        encoder: HashFamilyId,
    },
}

/// Why an epoch cannot end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndEpochError {
    /// The bank of the epoch before has not been released.
    #[error("epoch {} has not been read out and released yet", .0.number)]
    BankNotReleased(Epoch),
}

/// Encodes the packets of one switch.
///
/// ```
/// use flowradar_core::{Encoder, FlowKeyV4, Flowset, Packet, flowset::Epoch, plan::PlanRequest};
/// use flowradar_core::decode::single_decode;
///
/// let layout = PlanRequest::flows(1_000).plan()?.layout;
/// let mut encoder = Encoder::<FlowKeyV4>::new("leaf-1".parse()?, layout, Epoch::number(0))?;
///
/// let key = FlowKeyV4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 49152, 443, 6);
/// for _ in 0..3 {
///     encoder.packet(&Packet { key, ip_bytes: 1500 });
/// }
///
/// let bytes = encoder.end_epoch(Epoch::number(1))?.to_flowset();
/// encoder.release();
///
/// let flowset = Flowset::new_checked(&bytes[..])?;
/// let decoded = single_decode::<FlowKeyV4, _>(&flowset)?;
/// assert!(decoded.is_complete());
/// assert_eq!(decoded.flows[0].key, key);
/// assert_eq!(decoded.flows[0].packets.value, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Encoder<K: FlowKey, H: HashFamily = Xxh3> {
    switch: SwitchName,
    layout: Layout,
    active: Bank<K>,
    idle: Bank<K>,
    /// The idle bank holds an epoch that nobody has released.
    sealed: bool,
    family: PhantomData<H>,
}

/// Packets whose memory is prefetched before the first of them is encoded.
const BATCH: usize = 16;

impl<K: FlowKey, H: HashFamily> Encoder<K, H> {
    /// An encoder with two empty banks, counting for `epoch`.
    ///
    /// Allocates both banks; nothing is allocated later.
    ///
    /// # Errors
    /// If the layout names another hash family than `H`.
    pub fn new(switch: SwitchName, layout: Layout, epoch: Epoch) -> Result<Self, NewEncoderError> {
        if layout.family() != H::ID {
            return Err(NewEncoderError::Family {
                layout: layout.family(),
                encoder: H::ID,
            });
        }
        let bank = Bank {
            epoch,
            filter: FlowFilter::new(*layout.filter()),
            cells: vec![Cell::default(); layout.table().cells()],
            totals: Totals::default(),
        };
        Ok(Self {
            switch,
            layout,
            active: bank.clone(),
            idle: bank,
            sealed: false,
            family: PhantomData,
        })
    }

    /// The layout.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The epoch that packets are counted in now.
    pub fn epoch(&self) -> Epoch {
        self.active.epoch
    }

    /// What was counted so far in this epoch.
    pub fn totals(&self) -> Totals {
        self.active.totals
    }

    /// Encodes one packet, in constant time.
    #[inline]
    pub fn packet(&mut self, packet: &Packet<K>) {
        let hash = H::hash(packet.key.words(), self.layout.seed());
        let table = self.layout.table();
        let bank = &mut self.active;
        let new = match table.hashes() {
            2 => bank.encode::<2>(packet, &hash, &table.cells_of(&hash)),
            3 => bank.encode::<3>(packet, &hash, &table.cells_of(&hash)),
            4 => bank.encode::<4>(packet, &hash, &table.cells_of(&hash)),
            5 => bank.encode::<5>(packet, &hash, &table.cells_of(&hash)),
            _ => bank.encode::<6>(packet, &hash, &table.cells_of(&hash)),
        };
        bank.totals.add(new as u64, 1, packet.ip_bytes as u64);
    }

    /// Encodes many packets, the same as one after the other.
    ///
    /// Memory that a packet will touch is prefetched while packets before it are encoded: several
    /// times faster than [`Encoder::packet`] once the banks are larger than the cache.
    pub fn packets(&mut self, packets: &[Packet<K>]) {
        match self.layout.table().hashes() {
            2 => self.packets_of::<2>(packets),
            3 => self.packets_of::<3>(packets),
            4 => self.packets_of::<4>(packets),
            5 => self.packets_of::<5>(packets),
            _ => self.packets_of::<6>(packets),
        }
    }

    fn packets_of<const HASHES: usize>(&mut self, packets: &[Packet<K>]) {
        let before = self.active.totals.packets;
        if before.saturating_add(packets.len() as u64) < u32::MAX as u64 {
            self.packets_in::<HASHES, false>(packets);
        } else {
            self.packets_in::<HASHES, true>(packets);
        }
    }

    fn packets_in<const HASHES: usize, const SATURATE: bool>(&mut self, packets: &[Packet<K>]) {
        with_arrangement!(*self.layout.filter(), arrangement => {
            self.batches::<_, HASHES, SATURATE>(arrangement, packets);
        });
    }

    fn batches<A: Arrangement, const HASHES: usize, const SATURATE: bool>(
        &mut self,
        arrangement: A,
        packets: &[Packet<K>],
    ) {
        let bank = &mut self.active;
        processor::run(Batches::<K, H, A, HASHES, SATURATE> {
            seed: self.layout.seed(),
            table: *self.layout.table(),
            arrangement,
            filter: bank.filter.words_mut(),
            cells: &mut bank.cells,
            totals: &mut bank.totals,
            packets,
            family: PhantomData,
        });
    }

    /// Encodes `count` packets of one flow that have `ip_bytes` bytes together, the same as one after
    /// the other. For simulators and for hardware that aggregates.
    pub fn packets_of_flow(&mut self, key: &K, count: u32, ip_bytes: u64) {
        if count == 0 {
            return;
        }
        let hash = H::hash(key.words(), self.layout.seed());
        let cells = self.layout.table().cells_of_any(&hash);
        let bank = &mut self.active;
        let new = !bank.filter.insert(&hash);
        for &cell in &cells[..self.layout.table().hashes()] {
            let cell = &mut bank.cells[cell as usize];
            cell.count::<true>(count, ip_bytes);
            if new {
                cell.add_flow(key.words());
            }
        }
        bank.totals.add(new as u64, count as u64, ip_bytes);
    }

    /// Ends the epoch: packets from now on count in `next`, in the other bank. Returns the sealed
    /// bank to read out; call [`Encoder::release`] once that has arrived where it should.
    ///
    /// # Errors
    /// If the epoch before has not been released: both banks would be in use. The epoch goes on.
    pub fn end_epoch(&mut self, next: Epoch) -> Result<SealedBank<'_, K>, EndEpochError> {
        if self.sealed {
            return Err(EndEpochError::BankNotReleased(self.idle.epoch));
        }
        core::mem::swap(&mut self.active, &mut self.idle);
        self.active.epoch = next;
        self.sealed = true;
        Ok(SealedBank {
            switch: &self.switch,
            layout: &self.layout,
            bank: &self.idle,
        })
    }

    /// The bank of the last epoch, until it is released.
    pub fn sealed(&self) -> Option<SealedBank<'_, K>> {
        self.sealed.then_some(SealedBank {
            switch: &self.switch,
            layout: &self.layout,
            bank: &self.idle,
        })
    }

    /// Clears the sealed bank, so that the next epoch can end. Does nothing if none is sealed.
    pub fn release(&mut self) {
        if self.sealed {
            self.idle.clear();
            self.sealed = false;
        }
    }
}

impl<K: FlowKey> Bank<K> {
    /// Encodes a packet that has been hashed; says whether its flow is new.
    #[inline]
    fn encode<const HASHES: usize>(
        &mut self,
        packet: &Packet<K>,
        hash: &impl KeyHash,
        cells: &[u32; HASHES],
    ) -> bool {
        let new = !self.filter.insert(hash);
        encode_cells::<K, HASHES, true>(&mut self.cells, packet, cells, new);
        new
    }

    fn clear(&mut self) {
        self.filter.clear();
        self.cells.fill(Cell::default());
        self.totals = Totals::default();
    }
}

/// The batch path: hashes a batch and has its memory prefetched, then encodes it.
struct Batches<'a, K: FlowKey, H, A, const HASHES: usize, const SATURATE: bool> {
    seed: u64,
    table: TableLayout,
    arrangement: A,
    filter: &'a mut [u64],
    cells: &'a mut [Cell<K::Words>],
    totals: &'a mut Totals,
    packets: &'a [Packet<K>],
    family: PhantomData<H>,
}

impl<K: FlowKey, H: HashFamily, A: Arrangement, const HASHES: usize, const SATURATE: bool> Loop
    for Batches<'_, K, H, A, HASHES, SATURATE>
{
    #[inline(always)]
    fn run<I: Instructions>(self) {
        let mut places = [(A::Place::<H::Hash>::default(), [0; HASHES]); BATCH];
        let (mut new_flows, mut bytes) = (0, 0);
        for batch in self.packets.chunks(BATCH) {
            for (packet, (place, cells)) in batch.iter().zip(&mut places) {
                let hash = H::hash(packet.key.words(), self.seed);
                *place = self.arrangement.place(&hash);
                self.arrangement.prefetch::<H::Hash, _>(self.filter, place);
                *cells = self.table.cells_of(&hash);
                for &cell in cells.iter() {
                    prefetch(self.cells, cell as usize);
                }
            }
            for (packet, (place, cells)) in batch.iter().zip(&places) {
                let new = !self.arrangement.insert::<H::Hash, I>(self.filter, place);
                encode_cells::<K, HASHES, SATURATE>(self.cells, packet, cells, new);
                new_flows += new as u64;
                bytes += packet.ip_bytes as u64;
            }
        }
        self.totals.add(new_flows, self.packets.len() as u64, bytes);
    }
}

/// Counts a packet in the cells of its flow.
#[inline(always)]
fn encode_cells<K: FlowKey, const HASHES: usize, const SATURATE: bool>(
    table_cells: &mut [Cell<K::Words>],
    packet: &Packet<K>,
    cells: &[u32; HASHES],
    new: bool,
) {
    for &cell in cells {
        let cell = &mut table_cells[cell as usize];
        cell.count::<SATURATE>(1, packet.ip_bytes as u64);
    }
    // The filter has just branched on this, so that the processor knows it here.
    if new {
        for &cell in cells {
            table_cells[cell as usize].add_flow(packet.key.words());
        }
    }
}

impl<W: KeyWords> Cell<W> {
    /// Counts packets.
    ///
    /// `SATURATE` may be left out only while fewer than 2^32 packets are in the bank: then no
    /// PacketCount can overflow, nor a FlowCount, as every flow has a packet.
    #[inline(always)]
    fn count<const SATURATE: bool>(&mut self, packets: u32, bytes: u64) {
        if SATURATE {
            let packet_count = self.packet_count().saturating_add(packets);
            self.counts = (packet_count as u64) << 32 | self.flow_count() as u64;
        } else {
            self.counts = self.counts.wrapping_add((packets as u64) << 32);
        }
        // 2^64 bytes take more than two weeks at 100 Tbit/s.
        self.byte_count = self.byte_count.wrapping_add(bytes);
    }

    /// Adds a new flow.
    #[inline(always)]
    fn add_flow(&mut self, key: &W) {
        for (xor, word) in self.flow_xor.as_mut().iter_mut().zip(key.as_ref()) {
            *xor ^= word;
        }
        let flow_count = self.flow_count().saturating_add(1);
        self.counts = self.counts & !(u32::MAX as u64) | flow_count as u64;
    }
}

/// The bank of an epoch that has ended.
#[derive(Clone, Copy, Debug)]
pub struct SealedBank<'a, K: FlowKey> {
    switch: &'a SwitchName,
    layout: &'a Layout,
    bank: &'a Bank<K>,
}

impl<K: FlowKey> SealedBank<'_, K> {
    /// The epoch.
    pub fn epoch(&self) -> Epoch {
        self.bank.epoch
    }

    /// What was counted in the epoch.
    pub fn totals(&self) -> Totals {
        self.bank.totals
    }

    /// The bank as an encoded flowset (`docs/flowset-format.md`).
    pub fn to_flowset(&self) -> Vec<u8> {
        let header = FlowsetHeader {
            switch: self.switch.clone(),
            epoch: self.bank.epoch,
            key: K::KIND,
            layout: *self.layout,
            totals: Some(self.bank.totals),
        };
        write_flowset::<K>(&header, self.bank.filter.words(), &self.bank.cells)
    }
}
