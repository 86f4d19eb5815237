//! CounterDecode of one switch by its own equations: what can be proved here is exact.

use super::elimination::{Budget, Elimination, EliminationFailure, SparseColumns};
use super::system::SwitchSystem;

/// Largest probability with which a hidden flow may go unnoticed in what is called exact at one
/// switch.
///
/// A hidden flow whose cells are just those of a known flow can never be noticed, so a small table
/// cannot prove much: with 100 flows in 3 · 41 cells the chance is 0.0015.
const BLIND_SPOT: f64 = 1e-4;
/// Hypothetical hidden flows tried on each block.
const TRIALS: usize = 1024;
/// From this many flows a block's checks are generic: a check that holds by chance modulo 2 fails
/// over the integers.
const GENERIC_FLOWS: usize = 512;
/// Equations beyond need from which a large block may do without trials.
const GENERIC_SPARE_ROWS: i64 = 16;
/// How often rows that no other row checks are taken out before the rest is given up.
const ATTEMPTS: usize = 4;

/// Rows whose memory is fetched together.
const WAVE_STEP: usize = 32;

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

/// Solves what the switch's own equations determine. `guess` gives a likely value of the flow at a
/// position, used to save work; it never changes the result.
///
/// O(ones) for what peels; see [`Elimination`] for the rest.
pub(super) fn solve_switch(
    system: &SwitchSystem,
    guess: impl Fn(usize) -> Option<i64>,
    budget: Budget,
) -> LocalCounters {
    let mut equations = Equations::new(system);
    equations.close_at_lower_bounds();
    equations.propagate(true);
    let (_, mut over_budget) = equations.solve_cores(&guess, budget);
    equations.judge_large_blocks();
    if equations.proof.contains(&Proof::Open) || equations.proof.contains(&Proof::Equations) {
        // Begins again with what is proved. That is rare: to keep the beginning would cost more.
        let proved = equations.exact_counters();
        equations = Equations::new(system);
        equations.close_at_lower_bounds();
        for (flow, value) in proved {
            equations.close(flow, value, Proof::Exact);
        }
        let mut state = equations.clone_state();
        for _ in 0..ATTEMPTS {
            equations.propagate(false);
            let (cores, over) = equations.solve_cores(&guess, budget);
            over_budget |= over;
            let checks = equations.checks(&cores);
            let unchecked = equations.unchecked(&checks);
            if unchecked.is_empty() {
                equations.judge_blocks(&checks);
                break;
            }
            for row in unchecked {
                state.rows[row as usize].usable = false;
            }
            equations.restore_state(&state);
        }
    }
    let exact = equations.proof.iter().map(|&proof| proof.is_final());
    LocalCounters {
        exact: exact.collect(),
        values: equations.values(),
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

impl Proof {
    const fn is_final(self) -> bool {
        matches!(self, Self::Bound | Self::Exact)
    }
}

/// What is known before the equations are used, to start over.
struct State {
    rows: Vec<Row>,
    proof: Vec<Proof>,
    values: Vec<i64>,
}

/// A connected part of the equations in which each has two unknowns or more.
struct Core {
    flows: Vec<u32>,
    rows: Vec<u32>,
}

/// Flows whose counters follow from each other.
struct Block {
    flows: Vec<u32>,
    /// Closed rows, by subtable.
    rows: Vec<Vec<u32>>,
    /// Every row is satisfied.
    satisfied: bool,
    /// Every row of every flow is an equation.
    complete: bool,
}

/// One cell: what its flows that are not found yet count together.
///
/// Aligned, so that none is in two cache lines: rows are visited in no order.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
struct Row {
    /// Count minus the flows found.
    rest: i64,
    /// Sum of the lower bounds of the open flows.
    lower: i64,
    /// Number of open flows.
    open: u32,
    /// Exclusive or of the open flows: the flow, if there is only one.
    open_xor: u32,
    /// All flows are known: the row is an equation.
    usable: bool,
    /// A flow that was found follows from equations only.
    derived: bool,
}

impl Row {
    fn is_at_bound(&self) -> bool {
        self.open > 0 && self.rest == self.lower
    }

    fn is_pure(&self) -> bool {
        self.usable && self.open == 1
    }
}

/// The equations of a switch while they are solved.
struct Equations<'a> {
    system: &'a SwitchSystem,
    rows: Vec<Row>,
    starts: Vec<u32>,
    flows: Vec<u32>,
    proof: Vec<Proof>,
    /// Counters, and of flows not found yet the lower bounds.
    values: Vec<i64>,
    /// Row and flow in the order of peeling.
    pivots: Vec<(u32, u32)>,
}

impl<'a> Equations<'a> {
    fn new(system: &'a SwitchSystem) -> Self {
        let limit = system.count_limit();
        let flow_count = system.flows.len();
        let least: Vec<i64> = system
            .least
            .iter()
            .map(|&least| least.min(limit) as i64)
            .collect();
        let counts = system.signed_counts().into_iter().zip(system.equations());
        let mut rows: Vec<Row> = counts
            .map(|(rest, usable)| Row {
                rest,
                lower: 0,
                open: 0,
                open_xor: 0,
                usable,
                derived: false,
            })
            .collect();
        for (flow, &least) in (0..).zip(&least) {
            for &row in system.rows_of(flow as usize) {
                let row = &mut rows[row as usize];
                row.lower += least;
                row.open += 1;
                row.open_xor ^= flow;
            }
        }
        let mut starts = Vec::with_capacity(rows.len() + 1);
        let mut total = 0;
        for row in &rows {
            starts.push(total);
            total += row.open;
        }
        starts.push(total);
        let mut next = starts.clone();
        let mut flows = vec![0u32; system.cells.len()];
        for flow in 0..flow_count as u32 {
            for &row in system.rows_of(flow as usize) {
                let next = &mut next[row as usize];
                flows[*next as usize] = flow;
                *next += 1;
            }
        }
        Self {
            system,
            rows,
            starts,
            flows,
            proof: vec![Proof::Open; flow_count],
            values: least,
            pivots: Vec::new(),
        }
    }

    fn flows_of(&self, row: u32) -> std::ops::Range<usize> {
        self.starts[row as usize] as usize..self.starts[row as usize + 1] as usize
    }

    fn is_closed(&self, row: u32) -> bool {
        self.rows[row as usize].usable && self.rows[row as usize].open == 0
    }

    /// Equations between flows that are not proved yet which no other equation checks.
    fn unchecked(&self, checks: &[u64]) -> Vec<u32> {
        let has_unproved = |row: u32| {
            self.flows[self.flows_of(row)]
                .iter()
                .any(|&flow| !self.proof[flow as usize].is_final())
        };
        (0..self.rows.len() as u32)
            .filter(|&row| checks[row as usize] == 0 && self.is_closed(row) && has_unproved(row))
            .collect()
    }

    fn exact_counters(&self) -> Vec<(u32, i64)> {
        (0..self.values.len() as u32)
            .filter(|&flow| self.proof[flow as usize] == Proof::Exact)
            .map(|flow| (flow, self.values[flow as usize]))
            .collect()
    }

    fn close(&mut self, flow: u32, value: i64, proof: Proof) {
        let least = std::mem::replace(&mut self.values[flow as usize], value);
        self.proof[flow as usize] = proof;
        for &row in self.system.rows_of(flow as usize) {
            let row = &mut self.rows[row as usize];
            row.rest -= value;
            row.lower -= least;
            row.open -= 1;
            row.open_xor ^= flow;
            row.derived |= proof == Proof::Equations;
        }
    }

    /// A cell that counted no more than the lower bounds of its flows fixes them all, also if it
    /// has flows that are not known, and whatever is hidden elsewhere.
    fn close_at_lower_bounds(&mut self) {
        let mut queue: Vec<u32> = (0..self.rows.len() as u32)
            .filter(|&row| self.rows[row as usize].is_at_bound())
            .collect();
        while let Some(row) = queue.pop() {
            if self.rows[row as usize].is_at_bound() {
                self.close_row(row, Proof::Bound, &mut queue, Row::is_at_bound);
            }
        }
    }

    /// Fixes the open flows of a cell at their lower bounds, and queues what became `ready`.
    fn close_row(
        &mut self,
        row: u32,
        proof: Proof,
        queue: &mut Vec<u32>,
        ready: impl Fn(&Row) -> bool,
    ) {
        for at in self.flows_of(row) {
            let flow = self.flows[at];
            if self.is_open(flow) {
                self.close(flow, self.values[flow as usize], proof);
                let touched = self.system.rows_of(flow as usize).iter();
                queue.extend(touched.filter(|&&row| ready(&self.rows[row as usize])));
            }
        }
    }

    fn clone_state(&self) -> State {
        State {
            rows: self.rows.clone(),
            proof: self.proof.clone(),
            values: self.values.clone(),
        }
    }

    fn restore_state(&mut self, state: &State) {
        self.rows.clone_from(&state.rows);
        self.proof.clone_from(&state.proof);
        self.values.clone_from(&state.values);
        self.pivots.clear();
    }

    /// Whether the flow may have this value, as far as its cells' counts go.
    fn within_bounds(&self, flow: u32, value: i64) -> bool {
        let least = self.values[flow as usize];
        value >= least
            && self.system.rows_of(flow as usize).iter().all(|&row| {
                self.rows[row as usize].rest - (self.rows[row as usize].lower - least) >= value
            })
    }

    /// An equation with one unknown gives its value. With `bounds`, so does a cell that is left with
    /// no more than the lower bounds of its open flows; such flows have no pivot.
    fn propagate(&mut self, bounds: bool) {
        let ready = |row: &Row| row.is_pure() || bounds && row.is_at_bound();
        let mut wave: Vec<u32> = (0..self.rows.len() as u32)
            .filter(|&row| ready(&self.rows[row as usize]))
            .collect();
        let mut next_wave = Vec::new();
        while !wave.is_empty() {
            for step in wave.chunks(WAVE_STEP) {
                self.load_ahead(step);
                for &at in step {
                    let row = self.rows[at as usize];
                    if bounds && row.is_at_bound() && row.open > 1 {
                        self.close_row(at, Proof::Equations, &mut next_wave, ready);
                    } else if ready(&row) && self.within_bounds(row.open_xor, row.rest) {
                        let flow = row.open_xor;
                        self.close(flow, row.rest, Proof::Equations);
                        if row.usable {
                            self.pivots.push((at, flow));
                        }
                        let touched = self.system.rows_of(flow as usize).iter();
                        next_wave.extend(touched.filter(|&&row| ready(&self.rows[row as usize])));
                    }
                }
            }
            wave.clear();
            std::mem::swap(&mut wave, &mut next_wave);
        }
    }

    /// Loads what taking flows out of these rows will need into the cache: here the loads do not wait
    /// for each other.
    fn load_ahead(&self, rows: &[u32]) {
        let mut flows = [0; WAVE_STEP];
        for (flow, &row) in flows.iter_mut().zip(rows) {
            *flow = self.rows[row as usize].open_xor;
        }
        let hashes = self.system.hashes;
        let mut open = 0_u32;
        for &flow in &flows[..rows.len()] {
            // Of rows with several open flows it is no flow.
            let cells = self.system.cells.get(flow as usize * hashes..);
            for &row in cells.into_iter().flatten().take(hashes) {
                open ^= self.rows[row as usize].open;
            }
        }
        std::hint::black_box(open);
    }

    fn is_open(&self, flow: u32) -> bool {
        self.proof[flow as usize] == Proof::Open
    }

    /// Solves what peeling left; returns the cores solved, and whether one was too large.
    fn solve_cores(
        &mut self,
        guess: &dyn Fn(usize) -> Option<i64>,
        budget: Budget,
    ) -> (Vec<(Core, Elimination)>, bool) {
        let mut solved = Vec::new();
        let mut over_budget = false;
        for core in self.cores() {
            match self.solve_core(&core, guess, budget) {
                Ok(elimination) => solved.push((core, elimination)),
                Err(EliminationFailure::OverBudget) => over_budget = true,
                Err(EliminationFailure::Deficient) => {}
            }
        }
        (solved, over_budget)
    }

    /// Connected parts of what peeling left, with at least as many equations as unknowns.
    fn cores(&self) -> Vec<Core> {
        let mut cores = Vec::new();
        let mut seen_row = vec![false; self.rows.len()];
        let mut seen_flow = vec![false; self.values.len()];
        for first in 0..self.rows.len() as u32 {
            if seen_row[first as usize]
                || !self.rows[first as usize].usable
                || self.rows[first as usize].open == 0
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
                            if self.rows[other as usize].usable && !seen_row[other as usize] {
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
        guess: &dyn Fn(usize) -> Option<i64>,
        budget: Budget,
    ) -> Result<Elimination, EliminationFailure> {
        let mut place = vec![NONE; self.rows.len()];
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
            .map(|&row| self.rows[row as usize].rest)
            .collect();
        let mut start = Vec::with_capacity(core.flows.len());
        for (column, &flow) in core.flows.iter().enumerate() {
            let value = guess(flow as usize).unwrap_or(self.values[flow as usize]);
            start.push(value);
            for &row in matrix.column(column as u32) {
                counts[row as usize] -= value;
            }
        }
        let guessed = counts.iter().all(|&count| count == 0);
        let elimination = Elimination::new(matrix, budget, !guessed)?;
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
        let mut checks: Vec<u64> = (0..self.rows.len() as u32)
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
    /// have left one unsatisfied, the safest blocks first, up to [`BLIND_SPOT`] for the switch.
    fn judge_blocks(&mut self, checks: &[u64]) {
        let blocks = self.blocks().into_iter().filter(|block| block.satisfied);
        let mut blocks: Vec<(f64, Block)> = blocks
            .map(|block| (self.blind_spot(&block, checks), block))
            .collect();
        blocks.sort_by(|one, other| one.0.total_cmp(&other.0));
        let mut blind = 0.0;
        for (blind_spot, block) in blocks {
            blind += blind_spot;
            if blind > BLIND_SPOT {
                break;
            }
            for flow in block.flows {
                self.proof[flow as usize] = Proof::Exact;
            }
        }
    }

    /// The same for blocks that are so large, and have so many equations to spare, that a hidden
    /// flow's column is no combination of theirs, without an elimination to prove it.
    fn judge_large_blocks(&mut self) {
        if self.is_solved() {
            // All blocks together are judged like one, and need not be told apart.
            let rows = self.rows.iter().filter(|row| row.derived).count();
            let derived = self
                .proof
                .iter()
                .filter(|&&proof| proof == Proof::Equations)
                .count();
            let spare = rows as i64 - derived as i64 - (self.system.hashes as i64 - 1);
            if derived >= GENERIC_FLOWS && spare >= GENERIC_SPARE_ROWS {
                for proof in &mut self.proof {
                    *proof = if proof.is_final() {
                        *proof
                    } else {
                        Proof::Exact
                    };
                }
            }
            return;
        }
        for block in self.blocks() {
            let is_large = block.flows.len() >= GENERIC_FLOWS && block.complete;
            if is_large && block.satisfied && self.spare_rows(&block) >= GENERIC_SPARE_ROWS {
                for flow in block.flows {
                    self.proof[flow as usize] = Proof::Exact;
                }
            }
        }
    }

    /// Whether all flows are found and all rows are satisfied equations.
    fn is_solved(&self) -> bool {
        self.rows
            .iter()
            .all(|row| row.usable && row.open == 0 && row.rest == 0)
    }

    /// Equations of a block beyond its flows and the equal sums of its subtables.
    fn spare_rows(&self, block: &Block) -> i64 {
        let rows: usize = block.rows.iter().map(Vec::len).sum();
        rows as i64 - block.flows.len() as i64 - (self.system.hashes as i64 - 1)
    }

    /// Flows that follow from the equations, connected by closed rows.
    fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut seen_flow = vec![false; self.values.len()];
        let mut seen_row = vec![false; self.rows.len()];
        for first in 0..self.values.len() as u32 {
            if seen_flow[first as usize] || self.proof[first as usize] != Proof::Equations {
                continue;
            }
            seen_flow[first as usize] = true;
            let mut block = Block {
                flows: vec![first],
                rows: vec![Vec::new(); self.system.hashes],
                satisfied: true,
                complete: true,
            };
            let mut next = 0;
            while let Some(&flow) = block.flows.get(next) {
                next += 1;
                for (subtable, &row) in self.system.rows_of(flow as usize).iter().enumerate() {
                    if !self.is_closed(row) {
                        block.complete = false;
                        continue;
                    }
                    if std::mem::replace(&mut seen_row[row as usize], true) {
                        continue;
                    }
                    block.rows[subtable].push(row);
                    block.satisfied &= self.rows[row as usize].rest == 0;
                    for at in self.flows_of(row) {
                        let other = self.flows[at] as usize;
                        if self.proof[other] == Proof::Equations && !seen_flow[other] {
                            seen_flow[other] = true;
                            block.flows.push(other as u32);
                        }
                    }
                }
            }
            blocks.push(block);
        }
        blocks
    }

    /// Probability that a hidden flow, with a random cell in each subtable, changes a block's
    /// counters and leaves none of its equations unsatisfied.
    fn blind_spot(&self, block: &Block, checks: &[u64]) -> f64 {
        let Block {
            flows,
            rows,
            complete,
            ..
        } = block;
        let spare = self.spare_rows(block);
        let subtable = (self.rows.len() / self.system.hashes).max(1) as f64;
        let shares: Vec<f64> = rows
            .iter()
            .map(|rows| (rows.len() as f64 / subtable).min(1.0))
            .collect();
        // Only in part within a complete block, it makes the sums of the subtables differ.
        let within: f64 = shares.iter().product();
        if spare < 1 {
            return if *complete { within } else { 1.0 };
        }
        // It has just the cells of a flow of the block.
        let closed = |flow: u32| {
            let rows = self.system.rows_of(flow as usize).iter();
            rows.filter(|&&row| self.is_closed(row)).count() as i32
        };
        let same_cells: f64 = flows.iter().map(|&flow| subtable.powi(-closed(flow))).sum();
        let mut random = mix(u64::from(flows[0]) ^ 0x5bd1_e995);
        let mut unnoticed = 0;
        for _ in 0..TRIALS {
            let mut touched = false;
            let mut word = 0;
            for (rows, &share) in rows.iter().zip(&shares) {
                random = mix(random);
                if *complete || (random as u32 as f64) < share * f64::from(u32::MAX) {
                    let at = ((random >> 32) * rows.len() as u64) >> 32;
                    word ^= rows.get(at as usize).map_or(0, |&row| checks[row as usize]);
                    touched = true;
                }
            }
            unnoticed += usize::from(touched && word == 0);
        }
        let mut unnoticed = unnoticed as f64 / TRIALS as f64;
        if flows.len() >= GENERIC_FLOWS {
            unnoticed -= 1.5 * 0.5f64.powi(spare.min(60) as i32);
        }
        same_cells.max(if *complete {
            within * unnoticed
        } else {
            unnoticed
        })
    }

    fn values(&self) -> Vec<Option<i64>> {
        let values = self.proof.iter().zip(&self.values);
        values
            .map(|(&proof, &value)| (proof != Proof::Open).then_some(value))
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
