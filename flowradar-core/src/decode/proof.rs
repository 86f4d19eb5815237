//! Whether decoded counters are proved by their switch's own equations.

use alloc::vec;
use alloc::vec::Vec;

use bitvec::vec::BitVec;

use super::Found;
use super::peel::{PeelTable, cells_of};
use crate::counter::{Counter, CounterStatus};
use crate::flowset::Flowset;
use crate::key::FlowKey;
use crate::layout::Layout;

/// Most hidden flows expected to go undetected in a flowset whose counters are called exact.
pub const UNDETECTED_HIDDEN_FLOWS_MAX: f64 = 1e-4;

/// Outcome of the attempt to prove the counters of one column (packets or bytes) of a flowset.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Proof {
    /// Some equations fail: flow-filter false positives counted in cells that do not know them, or
    /// the report is damaged.
    HiddenFlows {
        /// Equations that fail.
        unsatisfied_cells: usize,
    },
    /// Sums that must agree do not: the report is damaged, or was read while it changed.
    NotConserved {
        /// Subtable whose sum differs.
        subtable: usize,
        /// Its sum.
        sum: u64,
        /// Sum that it should have: the switch's total, or else that of the first subtable.
        expected: u64,
    },
    /// Every counter that is known is proved.
    Proved,
    /// All equations that can be checked hold, but too few can: with this many flows unknown, a
    /// hidden flow could go unnoticed.
    TooFewEquations {
        /// Expected number of hidden flows that would go unnoticed.
        undetected_hidden_flows: f64,
    },
}

/// Marks a residual that a saturated cell leaves open.
const OPEN: i64 = 1 << 60;

/// The packets or the bytes of all cells.
pub(super) struct Column<L> {
    /// Of each cell, after all flows found were taken out; none if unknown, or if flows are left.
    left: L,
    /// Cells where something is left, but no flow. A pivot comes out at zero because it was used, so
    /// it need not be told apart here.
    unsatisfied_cells: usize,
    /// Cells where something is unknown.
    pub(super) unknown_cells: usize,
    /// Flows whose counter no flow can have.
    impossible: usize,
    /// Of each subtable, before; `None` if a cell was saturated.
    sums: Vec<Option<u64>>,
    /// FlowCount likewise.
    flow_sums: Vec<Option<u64>>,
    /// Total that the switch states.
    total: Option<u64>,
}

impl Column<()> {
    pub(super) fn of_packets<K: FlowKey, B: AsRef<[u8]>>(
        flowset: &Flowset<B>,
        table: &PeelTable<'_, K>,
        impossible: usize,
    ) -> Column<impl Iterator<Item = Option<i64>> + Clone> {
        let left = table
            .residuals()
            .map(|(known, packets)| packets.filter(|_| known));
        Column::new(
            left,
            impossible,
            table.packet_sums(),
            table.flow_sums(),
            flowset.header().totals.map(|totals| totals.packets),
        )
    }
}

/// The bytes of all flows and cells, from the peeling replayed on ByteCount.
pub(super) struct ByteColumn {
    /// Of each cell, after all flows found were taken out; [`OPEN`] if unknown, or if flows are left.
    left: Vec<i64>,
    /// Flows whose counter a saturated cell leaves open, in rising order.
    pub(super) open: Vec<usize>,
    impossible: usize,
    sums: Vec<Option<u64>>,
    flow_sums: Vec<Option<u64>>,
}

impl ByteColumn {
    /// Sets the flows' byte counters. None if the switch does not count bytes.
    pub(super) fn replay<K: FlowKey, B: AsRef<[u8]>>(
        flowset: &Flowset<B>,
        table: &PeelTable<'_, K>,
        found: &mut Found<K>,
    ) -> Option<Self> {
        let layout = flowset.layout();
        let saturated = layout.table().widths().byte_count_saturated();
        let mut left: Vec<i64> = flowset
            .byte_counts()?
            .map(|count| {
                if count == saturated {
                    OPEN
                } else {
                    count as i64
                }
            })
            .collect();
        let (mut open, mut impossible) = (vec![], 0);
        let flows = found.flows.iter_mut().zip(&found.pivots);
        for (number, (flow, &pivot)) in flows.enumerate() {
            let value = Some(left[pivot as usize]).filter(|&value| value < OPEN / 2);
            for &cell in &cells_of(layout, &flow.key)[..layout.table().hashes()] {
                let left = &mut left[cell as usize];
                *left = match value {
                    // In a damaged report the errors can grow from flow to flow.
                    Some(value) => left.saturating_sub(value),
                    None => OPEN,
                };
            }
            if value.is_none() {
                open.push(number);
            }
            let value = value.unwrap_or(0);
            impossible += usize::from(value < 0);
            flow.bytes = Some(Counter::exact(value.max(0) as u64));
        }
        for (left, (known, _)) in left.iter_mut().zip(table.residuals()) {
            if !known {
                *left = OPEN;
            }
        }
        let counts = flowset.byte_counts()?;
        Some(Self {
            left,
            open,
            impossible,
            sums: subtable_sums(counts, layout.table().subtable_cells(), saturated),
            flow_sums: table.flow_sums(),
        })
    }

    pub(super) fn column<B: AsRef<[u8]>>(
        &self,
        flowset: &Flowset<B>,
    ) -> Column<impl Iterator<Item = Option<i64>> + Clone> {
        let left = self.left.iter();
        Column::new(
            left.map(|&left| Some(left).filter(|&left| left < OPEN / 2)),
            self.impossible,
            self.sums.clone(),
            self.flow_sums.clone(),
            flowset.header().totals.map(|totals| totals.bytes),
        )
    }
}

impl<L: Iterator<Item = Option<i64>> + Clone> Column<L> {
    fn new(
        left: L,
        impossible: usize,
        sums: Vec<Option<u64>>,
        flow_sums: Vec<Option<u64>>,
        total: Option<u64>,
    ) -> Self {
        let (mut unsatisfied_cells, mut unknown_cells) = (0, 0);
        for left in left.clone() {
            unsatisfied_cells += usize::from(left.is_some_and(|left| left != 0));
            unknown_cells += usize::from(left.is_none());
        }
        Self {
            left,
            unsatisfied_cells,
            unknown_cells,
            impossible,
            sums,
            flow_sums,
            total,
        }
    }

    pub(super) fn prove<K: FlowKey, B: AsRef<[u8]>>(
        &self,
        flowset: &Flowset<B>,
        found: &Found<K>,
    ) -> Proof {
        if let Some(not_conserved) = self.conserve(flowset) {
            return not_conserved;
        }
        let unsatisfied_cells = self.unsatisfied_cells + self.impossible;
        if unsatisfied_cells > 0 {
            return Proof::HiddenFlows { unsatisfied_cells };
        }
        let (hidden, merged) = expected_hidden_flows(flowset);
        if self.unknown_cells == 0 && merged <= UNDETECTED_HIDDEN_FLOWS_MAX {
            // Every error ends in a cell that was checked (module documentation, 3).
            return Proof::Proved;
        }
        // Whether an error in the cell would have been noticed at once.
        let mut seen: BitVec = self.left.clone().map(|left| left.is_some()).collect();
        for &pivot in &found.pivots {
            seen.set(pivot as usize, false);
        }
        let undetected_hidden_flows =
            merged + undetected_hidden_flows(flowset.layout(), found, seen, hidden);
        if undetected_hidden_flows <= UNDETECTED_HIDDEN_FLOWS_MAX {
            Proof::Proved
        } else {
            Proof::TooFewEquations {
                undetected_hidden_flows,
            }
        }
    }

    /// Every packet is counted in one cell of each subtable, and every new flow too.
    fn conserve<B: AsRef<[u8]>>(&self, flowset: &Flowset<B>) -> Option<Proof> {
        let new_flows = flowset.header().totals.map(|totals| totals.new_flows);
        differing_sum(&self.sums, self.total).or_else(|| differing_sum(&self.flow_sums, new_flows))
    }
}

/// Upper bounds on the expected number of flows that the filter hid from the table, and of those among
/// them that share all cells with a flow of the table, whose counter no equation can tell apart.
pub fn expected_hidden_flows<B: AsRef<[u8]>>(flowset: &Flowset<B>) -> (f64, f64) {
    let table = flowset.layout().table();
    let subtable = flowset.flow_counts().take(table.subtable_cells() as usize);
    let recorded = subtable.map(u64::from).sum::<u64>() as f64;
    let probability = flowset.filter().false_positive_probability();
    // Of all flows that came, at most this share was taken for known; the others are recorded.
    let hidden = if recorded == 0.0 {
        0.0
    } else if probability < 1.0 {
        recorded * probability / (1.0 - probability)
    } else {
        f64::INFINITY
    };
    let merged = if hidden > 0.0 {
        hidden * table.confusable_share(recorded)
    } else {
        0.0
    };
    (hidden, merged)
}

/// Expected number of hidden flows all of whose cells are blind. `seen` marks the cells where an error
/// shows at once.
fn undetected_hidden_flows<K: FlowKey>(
    layout: &Layout,
    found: &Found<K>,
    mut seen: BitVec,
    hidden: f64,
) -> f64 {
    let hashes = layout.table().hashes();
    // Backwards: the other cells of a flow are checked, or pivots of flows found later.
    for (flow, &pivot) in found.flows.iter().zip(&found.pivots).rev() {
        let cells = cells_of(layout, &flow.key);
        let spreads = cells[..hashes]
            .iter()
            .any(|&cell| cell != pivot && seen[cell as usize]);
        if spreads {
            seen.set(pivot as usize, true);
        }
    }
    let subtable_cells = layout.table().subtable_cells() as usize;
    let blind: f64 = seen
        .chunks_exact(subtable_cells)
        .map(|subtable| subtable.count_zeros() as f64 / subtable_cells as f64)
        .product();
    if blind == 0.0 { 0.0 } else { hidden * blind }
}

/// Bounds that hold for a counter whatever else is unknown: a hidden flow only ever adds to a cell.
#[derive(Debug)]
pub(super) struct Bounds {
    /// Of each cell: the highest value that one flow in it can have.
    most: Vec<u64>,
    least: u64,
}

impl Bounds {
    pub(super) fn of_packets<B: AsRef<[u8]>>(flowset: &Flowset<B>) -> Self {
        let saturated = flowset.layout().table().widths().packet_count_saturated();
        let most = flowset
            .packet_counts()
            .zip(flowset.flow_counts())
            .map(|(packets, flows)| {
                if packets == saturated {
                    u64::MAX
                } else {
                    // Every other flow in the cell has a packet at least.
                    (packets as u64).saturating_sub((flows as u64).saturating_sub(1))
                }
            })
            .collect();
        Self { most, least: 1 }
    }

    pub(super) fn of_bytes<B: AsRef<[u8]>>(flowset: &Flowset<B>) -> Option<Self> {
        let saturated = flowset.layout().table().widths().byte_count_saturated();
        let most = flowset
            .byte_counts()?
            .map(|bytes| if bytes == saturated { u64::MAX } else { bytes })
            .collect();
        Some(Self { most, least: 0 })
    }

    /// Keeps a counter as an estimate, within its bounds.
    pub(super) fn mark_unresolved<K: FlowKey>(
        &self,
        layout: &Layout,
        key: &K,
        counter: &mut Counter,
    ) {
        let most = cells_of(layout, key)[..layout.table().hashes()]
            .iter()
            .map(|&cell| self.most[cell as usize])
            .min();
        let least = self.least;
        let most = most.unwrap_or(u64::MAX).max(least);
        *counter = Counter {
            value: counter.value.clamp(least, most),
            status: CounterStatus::Unresolved { least, most },
        };
    }
}

/// The sum of each subtable, or none where a cell is saturated.
fn subtable_sums(
    mut counts: impl ExactSizeIterator<Item = u64>,
    subtable_cells: u32,
    saturated: u64,
) -> Vec<Option<u64>> {
    let mut sums = vec![];
    while counts.len() > 0 {
        let (mut sum, mut open) = (0, false);
        for count in counts.by_ref().take(subtable_cells as usize) {
            open |= count == saturated;
            // Modulo 2^64, as the switch counts.
            sum = u64::wrapping_add(sum, count);
        }
        sums.push((!open).then_some(sum));
    }
    sums
}

fn differing_sum(sums: &[Option<u64>], total: Option<u64>) -> Option<Proof> {
    let expected = total.or_else(|| sums.iter().find_map(|&sum| sum))?;
    sums.iter().enumerate().find_map(|(subtable, &sum)| {
        sum.filter(|&sum| sum != expected)
            .map(|sum| Proof::NotConserved {
                subtable,
                sum,
                expected,
            })
    })
}
