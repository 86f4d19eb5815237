//! CounterDecode of one switch by its own equations: what can be proved here is exact.

use super::elimination::{Elimination, EliminationFailure, SparseColumns};
use super::system::SwitchSystem;

/// Largest probability with which a hidden flow may go unnoticed in a block that is called exact.
///
/// A hidden flow whose cells are exactly those of a known flow can never be noticed, so a small
/// table cannot prove anything: with 100 flows over 3 · 41 cells the chance is 0.0015.
const BLIND_SPOT: f64 = 1e-3;
/// Hypothetical hidden flows tried on each block.
const TRIALS: usize = 1024;
/// From this many flows a block's checks are generic: a check that holds by chance modulo 2 fails
/// over the integers.
const GENERIC_FLOWS: usize = 512;
/// How often rows that no other row checks are taken out before the rest is given up.
const ATTEMPTS: usize = 4;

const NONE: u32 = u32::MAX;

/// What one switch's equations prove.
#[derive(Debug)]
pub(super) struct LocalCounters {
    /// Counters of the flows that are exact, and best guesses of those that only follow if nothing
    /// is hidden.
    pub(super) values: Vec<Option<i64>>,
    /// Whether the counter is proved.
    pub(super) exact: Vec<bool>,
    /// The dense part was larger than allowed.
    pub(super) over_budget: bool,
}

/// Solves what the switch's own equations determine. `guesses` are likely values, used to save
/// work; they never change the result.
///
/// O(ones) for what peels; see [`Elimination`] for the rest.
pub(super) fn solve_switch(
    system: &SwitchSystem,
    guesses: &[Option<i64>],
    dense_core_bytes: usize,
) -> LocalCounters {
    let mut rows = Rows::new(system);
    rows.close_at_lower_bounds();
    let bounded = rows.clone_state();
    let mut over_budget = false;
    for attempt in 1..=ATTEMPTS {
        let mut cores = Vec::new();
        rows.peel();
        for core in rows.cores() {
            match rows.solve_core(&core, guesses, dense_core_bytes) {
                Ok(elimination) => cores.push((core, elimination)),
                Err(EliminationFailure::OverBudget) => over_budget = true,
                Err(EliminationFailure::Deficient) => {}
            }
        }
        let checks = rows.checks(&cores);
        let unchecked: Vec<u32> = (0..rows.rest.len() as u32)
            .filter(|&row| rows.is_closed(row) && rows.size[row as usize] > 0)
            .filter(|&row| !rows.only_bounded(row) && checks[row as usize] == 0)
            .collect();
        if unchecked.is_empty() {
            rows.judge_blocks(&checks);
            break;
        }
        if attempt == ATTEMPTS {
            break;
        }
        rows.restore_state(&bounded);
        for row in unchecked {
            rows.usable[row as usize] = false;
        }
    }
    let exact = rows
        .proof
        .iter()
        .map(|&proof| matches!(proof, Proof::Bound | Proof::Exact));
    LocalCounters {
        exact: exact.collect(),
        values: rows.values(),
        over_budget,
    }
}

/// How the counter of a flow was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// Not found.
    Open,
    /// A cell counted just what its flows count at least. Holds whatever is hidden elsewhere.
    Bound,
    /// Follows from the equations if no flow is hidden.
    Equations,
    /// Follows from the equations, and others would have shown a hidden flow.
    Exact,
}

/// The flows that changed since the bounds were used up, to start over.
struct BoundedState {
    rest: Vec<i64>,
    lower: Vec<i64>,
    open: Vec<u32>,
    proof: Vec<Proof>,
    found: Vec<i64>,
}

/// A connected part of the equations in which each has two unknowns or more.
struct Core {
    flows: Vec<u32>,
    rows: Vec<u32>,
}

/// The equations of a switch while they are solved.
struct Rows<'a> {
    system: &'a SwitchSystem,
    least: Vec<i64>,
    /// Row may be used as an equation.
    usable: Vec<bool>,
    /// Row's count minus the flows found.
    rest: Vec<i64>,
    /// Sum of the lower bounds of the open flows.
    lower: Vec<i64>,
    /// Number of open flows.
    open: Vec<u32>,
    /// Number of flows.
    size: Vec<u32>,
    starts: Vec<u32>,
    flows: Vec<u32>,
    proof: Vec<Proof>,
    found: Vec<i64>,
    /// Row and flow in the order of peeling.
    pivots: Vec<(u32, u32)>,
}

impl<'a> Rows<'a> {
    fn new(system: &'a SwitchSystem) -> Self {
        let limit = system.count_limit();
        let row_count = system.counts.len();
        let flow_count = system.flows.len();
        let usable: Vec<bool> = system
            .counts
            .iter()
            .zip(&system.known)
            .map(|(&count, &known)| known && count <= limit)
            .collect();
        let rest: Vec<i64> = system
            .counts
            .iter()
            .map(|&count| count.min(limit * 2) as i64)
            .collect();
        let least: Vec<i64> = system
            .least
            .iter()
            .map(|&least| least.min(limit) as i64)
            .collect();
        let mut size = vec![0u32; row_count];
        for &row in &system.cells {
            size[row as usize] += 1;
        }
        let mut starts = Vec::with_capacity(row_count + 1);
        let mut total = 0;
        for &size in &size {
            starts.push(total);
            total += size;
        }
        starts.push(total);
        let mut next = starts.clone();
        let mut flows = vec![0u32; system.cells.len()];
        let mut lower = vec![0i64; row_count];
        for (flow, &least) in least.iter().enumerate() {
            for &row in system.rows_of(flow) {
                let row = row as usize;
                flows[next[row] as usize] = flow as u32;
                next[row] += 1;
                lower[row] += least;
            }
        }
        Self {
            system,
            least,
            usable,
            rest,
            lower,
            open: size.clone(),
            size,
            starts,
            flows,
            proof: vec![Proof::Open; flow_count],
            found: vec![0; flow_count],
            pivots: Vec::new(),
        }
    }

    fn flows_of(&self, row: u32) -> std::ops::Range<usize> {
        self.starts[row as usize] as usize..self.starts[row as usize + 1] as usize
    }

    fn is_closed(&self, row: u32) -> bool {
        self.usable[row as usize] && self.open[row as usize] == 0
    }

    fn only_bounded(&self, row: u32) -> bool {
        self.flows[self.flows_of(row)]
            .iter()
            .all(|&flow| self.proof[flow as usize] == Proof::Bound)
    }

    fn close(&mut self, flow: u32, value: i64, proof: Proof) {
        self.found[flow as usize] = value;
        self.proof[flow as usize] = proof;
        for &row in self.system.rows_of(flow as usize) {
            self.rest[row as usize] -= value;
            self.lower[row as usize] -= self.least[flow as usize];
            self.open[row as usize] -= 1;
        }
    }

    /// A cell that counted no more than the lower bounds of its flows fixes them all, also if it
    /// has flows that are not known, and whatever is hidden elsewhere.
    fn close_at_lower_bounds(&mut self) {
        let limit = self.system.count_limit() as i64;
        let at_bound = |rows: &Self, row: u32| {
            let row = row as usize;
            rows.open[row] > 0 && rows.rest[row] == rows.lower[row] && rows.rest[row] <= limit
        };
        let mut queue: Vec<u32> = (0..self.rest.len() as u32)
            .filter(|&row| at_bound(self, row))
            .collect();
        while let Some(row) = queue.pop() {
            if !at_bound(self, row) {
                continue;
            }
            for at in self.flows_of(row) {
                let flow = self.flows[at];
                if self.proof[flow as usize] == Proof::Open {
                    self.close(flow, self.least[flow as usize], Proof::Bound);
                    let touched = self.system.rows_of(flow as usize);
                    queue.extend(touched.iter().filter(|&&row| at_bound(self, row)));
                }
            }
        }
    }

    fn clone_state(&self) -> BoundedState {
        BoundedState {
            rest: self.rest.clone(),
            lower: self.lower.clone(),
            open: self.open.clone(),
            proof: self.proof.clone(),
            found: self.found.clone(),
        }
    }

    fn restore_state(&mut self, state: &BoundedState) {
        self.rest.clone_from(&state.rest);
        self.lower.clone_from(&state.lower);
        self.open.clone_from(&state.open);
        self.proof.clone_from(&state.proof);
        self.found.clone_from(&state.found);
        self.pivots.clear();
    }

    /// Whether the flow may have this value, as far as its cells' counts go.
    fn within_bounds(&self, flow: u32, value: i64) -> bool {
        let least = self.least[flow as usize];
        value >= least
            && self
                .system
                .rows_of(flow as usize)
                .iter()
                .all(|&row| self.rest[row as usize] - (self.lower[row as usize] - least) >= value)
    }

    /// An equation with one unknown gives its value.
    fn peel(&mut self) {
        let mut queue: Vec<u32> = (0..self.rest.len() as u32)
            .filter(|&row| self.usable[row as usize] && self.open[row as usize] == 1)
            .collect();
        while let Some(row) = queue.pop() {
            if self.open[row as usize] != 1 {
                continue;
            }
            let flows = self.flows[self.flows_of(row)].iter().copied();
            let Some(flow) = flows.into_iter().find(|&flow| self.is_open(flow)) else {
                continue;
            };
            let value = self.rest[row as usize];
            if !self.within_bounds(flow, value) {
                continue;
            }
            self.close(flow, value, Proof::Equations);
            self.pivots.push((row, flow));
            for &other in self.system.rows_of(flow as usize) {
                if self.usable[other as usize] && self.open[other as usize] == 1 {
                    queue.push(other);
                }
            }
        }
    }

    fn is_open(&self, flow: u32) -> bool {
        self.proof[flow as usize] == Proof::Open
    }

    /// Connected parts of what peeling left, with at least as many equations as unknowns.
    fn cores(&self) -> Vec<Core> {
        let mut cores = Vec::new();
        let mut seen_row = vec![false; self.rest.len()];
        let mut seen_flow = vec![false; self.found.len()];
        for first in 0..self.rest.len() as u32 {
            if seen_row[first as usize]
                || !self.usable[first as usize]
                || self.open[first as usize] == 0
            {
                continue;
            }
            seen_row[first as usize] = true;
            let mut core = Core {
                flows: Vec::new(),
                rows: vec![first],
            };
            let mut next = 0;
            while let Some(&row) = core.rows.get(next) {
                next += 1;
                for at in self.flows_of(row) {
                    let flow = self.flows[at];
                    if self.is_open(flow) && !seen_flow[flow as usize] {
                        seen_flow[flow as usize] = true;
                        core.flows.push(flow);
                        for &other in self.system.rows_of(flow as usize) {
                            if self.usable[other as usize] && !seen_row[other as usize] {
                                seen_row[other as usize] = true;
                                core.rows.push(other);
                            }
                        }
                    }
                }
            }
            if core.flows.len() <= core.rows.len() {
                cores.push(core);
            }
        }
        cores
    }

    /// Solves a core, if its columns are independent, and closes its flows if there is a solution
    /// within the bounds.
    fn solve_core(
        &mut self,
        core: &Core,
        guesses: &[Option<i64>],
        dense_core_bytes: usize,
    ) -> Result<Elimination, EliminationFailure> {
        let mut place = vec![NONE; self.rest.len()];
        for (at, &row) in core.rows.iter().enumerate() {
            place[row as usize] = at as u32;
        }
        let mut matrix = SparseColumns {
            row_count: core.rows.len(),
            ..SparseColumns::default()
        };
        matrix.starts.push(0);
        for &flow in &core.flows {
            let rows = self.system.rows_of(flow as usize).iter();
            matrix.rows.extend(
                rows.map(|&row| place[row as usize])
                    .filter(|&at| at != NONE),
            );
            matrix.starts.push(matrix.rows.len() as u32);
        }
        let mut counts: Vec<i64> = core
            .rows
            .iter()
            .map(|&row| self.rest[row as usize])
            .collect();
        let mut start = Vec::with_capacity(core.flows.len());
        for (column, &flow) in core.flows.iter().enumerate() {
            let value = guesses[flow as usize].unwrap_or(self.least[flow as usize]);
            start.push(value);
            for &row in matrix.column(column as u32) {
                counts[row as usize] -= value;
            }
        }
        let guessed = counts.iter().all(|&count| count == 0);
        let elimination = Elimination::new(matrix, dense_core_bytes, !guessed)?;
        if !guessed {
            let Some(solution) = elimination.solve(&mut counts) else {
                return Err(EliminationFailure::Deficient);
            };
            start
                .iter_mut()
                .zip(&solution)
                .for_each(|(value, change)| *value += change);
        }
        let flows = || core.flows.iter().copied().zip(start.iter().copied());
        if flows().all(|(flow, value)| self.within_bounds(flow, value)) {
            flows().for_each(|(flow, value)| self.close(flow, value, Proof::Equations));
            Ok(elimination)
        } else {
            Err(EliminationFailure::Deficient)
        }
    }

    /// 64 random checks modulo 2: sums of equations in which all flows cancel. A word a row, a bit
    /// a check; rows that are no equations take part in none.
    fn checks(&self, cores: &[(Core, Elimination)]) -> Vec<u64> {
        let mut checks: Vec<u64> = (0..self.rest.len() as u32)
            .map(|row| {
                if self.is_closed(row) {
                    mix(u64::from(row) + 1)
                } else {
                    0
                }
            })
            .collect();
        for (core, elimination) in cores {
            let mut words: Vec<u64> = core.rows.iter().map(|&row| checks[row as usize]).collect();
            elimination.checks(&mut words);
            for (&row, &word) in core.rows.iter().zip(&words) {
                checks[row as usize] = word;
            }
        }
        for &(row, flow) in self.pivots.iter().rev() {
            checks[row as usize] = 0;
            let rows = self.system.rows_of(flow as usize).iter();
            checks[row as usize] = rows.fold(0, |word, &other| word ^ checks[other as usize]);
        }
        checks
    }

    /// Calls the flows of a block exact where every equation is satisfied and a hidden flow would
    /// have left one unsatisfied.
    fn judge_blocks(&mut self, checks: &[u64]) {
        let mut block_of = vec![NONE; self.found.len()];
        let mut seen_row = vec![false; self.rest.len()];
        let subtable_rows = (self.rest.len() / self.system.hashes).max(1) as f64;
        for first in 0..self.found.len() as u32 {
            if block_of[first as usize] != NONE || self.proof[first as usize] != Proof::Equations {
                continue;
            }
            block_of[first as usize] = first;
            let mut flows = vec![first];
            let mut rows: Vec<Vec<u32>> = vec![Vec::new(); self.system.hashes];
            let mut satisfied = true;
            let mut complete = true;
            let mut next = 0;
            while let Some(&flow) = flows.get(next) {
                next += 1;
                for (subtable, &row) in self.system.rows_of(flow as usize).iter().enumerate() {
                    if !self.is_closed(row) {
                        complete = false;
                        continue;
                    }
                    if seen_row[row as usize] {
                        continue;
                    }
                    seen_row[row as usize] = true;
                    rows[subtable].push(row);
                    satisfied &= self.rest[row as usize] == 0;
                    for at in self.flows_of(row) {
                        let other = self.flows[at] as usize;
                        if self.proof[other] == Proof::Equations && block_of[other] == NONE {
                            block_of[other] = first;
                            flows.push(other as u32);
                        }
                    }
                }
            }
            if satisfied && self.shows_hidden_flows(&flows, &rows, complete, subtable_rows, checks)
            {
                for flow in flows {
                    self.proof[flow as usize] = Proof::Exact;
                }
            }
        }
    }

    /// Whether a hidden flow in a block would leave an equation unsatisfied, but for
    /// [`BLIND_SPOT`].
    fn shows_hidden_flows(
        &self,
        flows: &[u32],
        rows: &[Vec<u32>],
        complete: bool,
        subtable_rows: f64,
        checks: &[u64],
    ) -> bool {
        let row_total: usize = rows.iter().map(Vec::len).sum();
        let spare = row_total as i64 - flows.len() as i64 - (self.system.hashes as i64 - 1);
        // A hidden flow only in part within the block makes the subtables' sums differ.
        let within: f64 = rows
            .iter()
            .map(|rows| (rows.len() as f64 / subtable_rows).min(1.0))
            .product();
        let share = flows.len() as f64 / self.found.len() as f64;
        if complete && within <= BLIND_SPOT * share.min(0.01) {
            return true;
        }
        if spare < 1 || rows.iter().any(Vec::is_empty) {
            return false;
        }
        let same_cells: f64 =
            flows.len() as f64 / rows.iter().map(|rows| rows.len() as f64).product::<f64>();
        let mut random = mix(u64::from(flows[0]) ^ 0x5bd1_e995);
        let mut unnoticed = 0;
        for _ in 0..TRIALS {
            let mut word = 0;
            for rows in rows {
                random = mix(random);
                let at = (random >> 32) as usize % rows.len();
                word ^= checks[rows[at] as usize];
            }
            unnoticed += usize::from(word == 0);
        }
        let mut unnoticed = unnoticed as f64 / TRIALS as f64;
        if flows.len() >= GENERIC_FLOWS {
            unnoticed -= 1.5 * 0.5f64.powi(spare.min(60) as i32);
        }
        within * unnoticed.max(same_cells) <= BLIND_SPOT
    }

    fn values(&self) -> Vec<Option<i64>> {
        let found = self.proof.iter().zip(&self.found);
        found
            .map(|(&proof, &found)| (proof != Proof::Open).then_some(found))
            .collect()
    }
}

/// A bijective mix of 64 bits (the finaliser of SplitMix64), as a fixed source of random words.
pub(super) const fn mix(value: u64) -> u64 {
    let mut word = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
