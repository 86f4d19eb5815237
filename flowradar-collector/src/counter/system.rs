//! What goes into the counter solver and what comes out of it.

use flowradar_core::CounterStatus;
use thiserror::Error;

/// The fewest hash functions (and so subtables) a counting table may have here.
pub const MIN_HASHES: usize = 2;
/// The most hash functions (and so subtables) a counting table may have here.
pub const MAX_HASHES: usize = 6;

/// Count of a row that bounds nothing: more than all flows together may count.
pub(super) const NO_LIMIT: i64 = i64::MAX / 2;

/// One switch's counting table as linear equations: one row a cell, one column a flow.
///
/// The matrix is 0/1 with exactly `hashes` ones in a column, so it is stored as row indices only.
/// The counters may be packets or bytes: nothing here depends on the unit but the lower bounds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SwitchSystem {
    /// Cells that a flow occupies, one in each subtable; [`MIN_HASHES`]`..=`[`MAX_HASHES`].
    pub hashes: usize,
    /// What each cell counted; `u64::MAX` if the cell was full, so that it may have been more.
    pub counts: Vec<u64>,
    /// Whether all flows that count in a cell are among `flows`, as far as the caller knows. A
    /// cell with undecoded flows is no equation; it still bounds the flows that are known.
    pub known: Vec<bool>,
    /// Network-wide numbers of the flows at this switch, each at most once.
    pub flows: Vec<u32>,
    /// Rows of each flow, `hashes` after one another, in the order of the subtables.
    pub cells: Vec<u32>,
    /// What each flow counts at least here: 1 packet for a flow that is in the switch's FlowCount
    /// and FlowXOR, 0 for one that its flow filter only may have hidden.
    pub least: Vec<u64>,
    /// Likely counters, for example of SingleDecode; or empty. They save work; the solver proves a
    /// counter itself before it calls it exact.
    pub hints: Vec<Option<u64>>,
}

/// The counters of one switch, in the order of [`SwitchSystem::flows`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SwitchCounters {
    /// The counters; of unresolved ones the best estimate within the bounds.
    pub values: Vec<u64>,
    /// How well each counter is known. The upper bound of an unresolved one is `u64::MAX` if all
    /// its cells were full.
    pub statuses: Vec<CounterStatus>,
    /// Equations that the values leave unsatisfied: hidden flows, or losses that were not located.
    pub unexplained_rows: usize,
}

/// All counters of one epoch, with what it took to find them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CounterSolution {
    /// One entry a switch, in the order of the input.
    pub switches: Vec<SwitchCounters>,
    /// Totals and effort.
    pub summary: CounterSummary,
}

/// Totals of a [`CounterSolution`] and the effort behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterSummary {
    /// Counters proved by their switch's own equations.
    pub exact: usize,
    /// Counters that satisfy every equation of the network under sparse loss.
    pub joint: usize,
    /// Counters that have bounds only.
    pub unresolved: usize,
    /// Rounds of reweighting in the joint solve.
    pub rounds: usize,
    /// Conjugate-gradient steps in all rounds.
    pub gradient_steps: usize,
    /// Switch and flow pairs found to differ from the flow's counter at other switches.
    pub deviations: usize,
    /// Equations left unsatisfied, over all switches.
    pub unexplained_rows: usize,
    /// Switches whose elimination would have exceeded the limits of [`CounterOptions`].
    pub over_budget: usize,
}

/// Limits of the counter solver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterOptions {
    /// Memory that the dense part of one switch's elimination may take, in bytes. Each thread
    /// eliminates one switch at a time. Beyond the limit nothing in the core is called exact.
    pub dense_core_bytes: usize,
    /// Operations on 64-bit words that the dense parts of all switches' eliminations may take, an
    /// equal share each. Beyond it nothing in the core is called exact.
    pub dense_word_operations: u64,
    /// Rounds of reweighting over the whole network, before those over what is not settled.
    pub rounds: usize,
    /// Conjugate-gradient steps in one round.
    pub gradient_steps: usize,
}

impl Default for CounterOptions {
    fn default() -> Self {
        Self {
            dense_core_bytes: 1 << 28,
            dense_word_operations: 1 << 36,
            rounds: 3,
            gradient_steps: 60,
        }
    }
}

/// Why a system of equations was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CounterInputError {
    /// The number of hash functions is out of range.
    #[error(
        "switch {switch} has {hashes} hashes a flow: the solver takes {MIN_HASHES} to {MAX_HASHES}"
    )]
    Hashes {
        /// Position of the switch in the input.
        switch: usize,
        /// What was given.
        hashes: usize,
    },
    /// A column's length does not fit the others.
    #[error("switch {switch}: column `{column}` has {found} entries where {expected} are needed")]
    Length {
        /// Position of the switch in the input.
        switch: usize,
        /// Name of the column.
        column: &'static str,
        /// Its length.
        found: usize,
        /// The length that the other columns ask for.
        expected: usize,
    },
    /// A flow's row is not in the table, or twice in one flow.
    #[error("switch {switch}, flow at position {position}: row {row} is out of range or repeated")]
    Row {
        /// Position of the switch in the input.
        switch: usize,
        /// Position of the flow in the switch.
        position: usize,
        /// The row.
        row: u32,
    },
    /// A flow number is out of range, or twice at one switch.
    #[error("switch {switch}: flow number {flow} is not below the flow count or is repeated")]
    Flow {
        /// Position of the switch in the input.
        switch: usize,
        /// The flow number.
        flow: u32,
    },
    /// More rows or flow occurrences than 32-bit indices can hold.
    #[error("{entries} rows or flow occurrences in all are more than the solver can index")]
    TooLarge {
        /// How many there are.
        entries: usize,
    },
}

impl SwitchSystem {
    /// Largest count that is used: sums over all flows then stay within `i64`.
    pub(super) fn count_limit(&self) -> u64 {
        (i64::MAX as u64 / 4) / (self.flows.len() as u64 + 1)
    }

    /// The counts, and [`NO_LIMIT`] for those that say nothing.
    pub(super) fn signed_counts(&self) -> Vec<i64> {
        let limit = self.count_limit();
        let counts = self.counts.iter();
        counts
            .map(|&count| {
                if count <= limit {
                    count as i64
                } else {
                    NO_LIMIT
                }
            })
            .collect()
    }

    /// Whether each row is an equation.
    pub(super) fn equations(&self) -> Vec<bool> {
        let limit = self.count_limit();
        let rows = self.counts.iter().zip(&self.known);
        rows.map(|(&count, &known)| known && count <= limit)
            .collect()
    }

    /// Rows of the flow at `position`.
    #[inline]
    pub(super) fn rows_of(&self, position: usize) -> &[u32] {
        &self.cells[position * self.hashes..(position + 1) * self.hashes]
    }
}

/// Checks everything that the solver later indexes by.
pub(super) fn validate(
    flow_count: usize,
    systems: &[SwitchSystem],
) -> Result<(), CounterInputError> {
    let mut last_seen_at = vec![u32::MAX; flow_count];
    let mut entries = flow_count;
    for (switch, system) in systems.iter().enumerate() {
        let hashes = system.hashes;
        if !(MIN_HASHES..=MAX_HASHES).contains(&hashes) {
            return Err(CounterInputError::Hashes { switch, hashes });
        }
        let flows = system.flows.len();
        let rows = system.counts.len();
        entries = entries
            .saturating_add(rows)
            .saturating_add(flows.saturating_mul(hashes));
        for (column, found, expected) in [
            ("known", system.known.len(), rows),
            ("cells", system.cells.len(), flows.saturating_mul(hashes)),
            ("least", system.least.len(), flows),
            (
                "hints",
                system.hints.len(),
                if system.hints.is_empty() { 0 } else { flows },
            ),
        ] {
            if found != expected {
                return Err(CounterInputError::Length {
                    switch,
                    column,
                    found,
                    expected,
                });
            }
        }
        for (position, &flow) in system.flows.iter().enumerate() {
            match last_seen_at.get_mut(flow as usize) {
                Some(last) if *last != switch as u32 => *last = switch as u32,
                _ => return Err(CounterInputError::Flow { switch, flow }),
            }
            let cells = system.rows_of(position);
            for (place, &row) in cells.iter().enumerate() {
                if row as usize >= rows || cells[..place].contains(&row) {
                    return Err(CounterInputError::Row {
                        switch,
                        position,
                        row,
                    });
                }
            }
        }
    }
    if entries >= u32::MAX as usize || systems.len() >= u32::MAX as usize {
        return Err(CounterInputError::TooLarge { entries });
    }
    Ok(())
}
