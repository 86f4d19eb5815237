//! SingleDecode: the flows and counters of one switch from one flowset.
//!
//! A cell whose FlowCount is one is *pure*: its FlowXOR is a flow's key and its PacketCount the
//! flow's counter. The flow is taken out of all its cells, which makes others pure, until none is
//! left (NSDI 2016 §4.1). A candidate is taken only if its key hashes to the cell it was found in and
//! is in the flow filter.
//!
//! # When is a counter exact?
//!
//! A flow-filter false positive (a *hidden flow*) adds its packets to k cells that do not know it.
//! Peeling would pass that on as a wrong counter. So counters are called exact only after a proof:
//!
//! 1. *Conservation*: the PacketCounts of every subtable have the same sum, and it is the number of
//!    packets observed where the switch reports that; likewise FlowCount and new flows.
//! 2. *Every other equation holds*: a flow's counter comes from its pivot, the cell it was found in. The
//!    other cells were not used, and must come out at zero once all their flows are known.
//! 3. *Nothing could hide*: an error in a pivot spreads to the flow's other cells, which are either
//!    checked (2) or pivots of flows found later. In a table that decodes fully every error ends in a
//!    checked cell. In one that does not, an error can vanish among unknown flows; and a hidden flow
//!    that shares all its cells with another changes nothing but that flow's counter. The expected
//!    number of hidden flows that go unnoticed in these two ways, from how full the filter is, must be
//!    below [`UNDETECTED_HIDDEN_FLOWS_MAX`].
//!
//! If the proof fails, every counter of the flowset is unresolved, with bounds. (The collector may
//! still resolve them with the help of other switches.)

mod peel;
mod proof;

use alloc::vec;
use alloc::vec::Vec;

pub use peel::{Leftover, PeelTable, Peeled, append_cells, cells_of};
pub use proof::{Proof, UNDETECTED_HIDDEN_FLOWS_MAX, expected_hidden_flows};

use crate::counter::Counter;
use crate::flowset::Flowset;
use crate::key::{FlowKey, KeyKind};
use proof::{Bounds, ByteColumn, Column};

/// A flowset has another kind of flow key than was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the flowset has {found} flow keys, not {wanted}")]
pub struct WrongKeyKind {
    /// Kind in the flowset.
    pub found: KeyKind,
    /// Kind asked for.
    pub wanted: KeyKind,
}

impl WrongKeyKind {
    fn check<K: FlowKey>(found: KeyKind) -> Result<(), Self> {
        let wanted = K::KIND;
        if found == wanted {
            Ok(())
        } else {
            Err(Self { found, wanted })
        }
    }
}

/// A decoded flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodedFlow<K> {
    /// The flow.
    pub key: K,
    /// Its packets.
    pub packets: Counter,
    /// Its bytes from the IP header on, where the switch counts bytes.
    pub bytes: Option<Counter>,
}

/// What SingleDecode found, and what it did not.
#[derive(Clone, Debug, PartialEq)]
pub struct SingleDecode<K> {
    /// The flows, in the order they were found.
    pub flows: Vec<DecodedFlow<K>>,
    /// What is left in the table.
    pub leftover: Leftover,
    /// Whether the packet counters are proved, or why not.
    pub packets_proof: Proof,
    /// Whether the byte counters are proved, or why not, where the switch counts bytes.
    pub bytes_proof: Option<Proof>,
}

impl<K> SingleDecode<K> {
    /// Whether every flow was found and every counter is exact.
    ///
    /// Not if a proof fails, even where no counter depends on it: packets without any flow are a
    /// damaged report.
    pub fn is_complete(&self) -> bool {
        self.leftover.cells == 0
            && self.packets_proof == Proof::Proved
            && self.bytes_proof.is_none_or(|proof| proof == Proof::Proved)
            && self.flows.iter().all(|flow| {
                flow.packets.is_exact() && flow.bytes.is_none_or(|bytes| bytes.is_exact())
            })
    }
}

/// Decodes one flowset on its own. O(cells + flows) time and memory.
///
/// # Errors
/// If the flowset has another kind of flow key than `K`. Whatever else is wrong with the contents is
/// not an error but part of the outcome.
///
/// See [`crate::Encoder`] for an example.
pub fn single_decode<K: FlowKey, B: AsRef<[u8]>>(
    flowset: &Flowset<B>,
) -> Result<SingleDecode<K>, WrongKeyKind> {
    let mut table = PeelTable::<K>::new(flowset)?;
    let expected = flowset.header().totals.map_or(0, |totals| totals.new_flows);
    // Not more than cells: the number of flows is the report's word.
    let mut found = Found::with_capacity((expected as usize).min(flowset.layout().table().cells()));
    // Flows whose counter a saturated cell leaves open.
    let mut open_packets = vec![];
    let mut impossible = 0;
    table.peel(|flow| {
        let value = flow.packets.unwrap_or_else(|| {
            open_packets.push(found.flows.len());
            1
        });
        impossible += usize::from(value < 1);
        found.push(flow.key, flow.pivot, value.max(0) as u64);
    });

    let packets = Column::of_packets(flowset, &table, impossible);
    let leftover = match packets.unknown_cells {
        0 => Leftover::default(),
        _ => table.leftover(),
    };
    let packets_proof = packets.prove(flowset, &found);
    if packets_proof != Proof::Proved || !open_packets.is_empty() {
        let bounds = Bounds::of_packets(flowset);
        let unresolved = unresolved(packets_proof, &open_packets, found.flows.len());
        for index in unresolved {
            let flow = &mut found.flows[index];
            bounds.mark_unresolved(flowset.layout(), &flow.key, &mut flow.packets);
        }
    }

    let mut bytes_proof = None;
    if let Some(bytes) = ByteColumn::replay(flowset, &table, &mut found) {
        let proof = bytes.column(flowset).prove(flowset, &found);
        bytes_proof = Some(proof);
        if (proof != Proof::Proved || !bytes.open.is_empty())
            && let Some(bounds) = Bounds::of_bytes(flowset)
        {
            for index in unresolved(proof, &bytes.open, found.flows.len()) {
                let flow = &mut found.flows[index];
                if let Some(counter) = &mut flow.bytes {
                    bounds.mark_unresolved(flowset.layout(), &flow.key, counter);
                }
            }
        }
    }
    Ok(SingleDecode {
        flows: found.flows,
        leftover,
        packets_proof,
        bytes_proof,
    })
}

/// Numbers of the flows whose counter is not exact: all of `flows`, or those left open.
fn unresolved(proof: Proof, open: &[usize], flows: usize) -> impl Iterator<Item = usize> {
    let all = if proof == Proof::Proved { 0 } else { flows };
    (0..all).chain(open.iter().copied().filter(move |_| all == 0))
}

/// The flows found so far, their counters called exact until a proof says otherwise.
struct Found<K> {
    flows: Vec<DecodedFlow<K>>,
    /// Of each, the pure cell it was found in.
    pivots: Vec<u32>,
}

impl<K: FlowKey> Found<K> {
    fn with_capacity(flows: usize) -> Self {
        Self {
            flows: Vec::with_capacity(flows),
            pivots: Vec::with_capacity(flows),
        }
    }

    #[inline]
    fn push(&mut self, key: K, pivot: u32, packets: u64) {
        self.flows.push(DecodedFlow {
            key,
            packets: Counter::exact(packets),
            bytes: None,
        });
        self.pivots.push(pivot);
    }
}
