//! CounterDecode over all switches: one counter a flow, and sparse deviations from it.

use rayon::prelude::*;

use super::local::LocalCounters;
use super::relaxation::{Layer, Relaxation};
use super::system::{CounterOptions, CounterSummary, NO_LIMIT, SwitchSystem};

const NONE: u32 = u32::MAX;

/// Rounds of settling on what is not settled yet, and of explaining.
const REFINEMENTS: usize = 8;
/// Rounds of reweighting in each of them.
const REFINEMENT_ROUNDS: usize = 4;

/// Residuals below which an equation gets no more weight, round by round.
const RESIDUAL_FLOORS: [f64; 4] = [8.0, 2.0, 0.5, 0.25];
/// Conjugate gradients stop when no unknown would change by more.
const TOLERANCE: f64 = 0.02;

/// What the joint solve may still change at one switch.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) hashes: usize,
    /// Unknown (flow without an exact counter here) of each column.
    pub(super) unknowns: Vec<u32>,
    /// Rows of each column.
    pub(super) cells: Vec<u32>,
    /// Position of each column in the switch's system.
    pub(super) positions: Vec<u32>,
    /// Whether each row is an equation.
    pub(super) usable: Vec<bool>,
    /// Counts minus the exact counters.
    pub(super) counts: Vec<i64>,
    pub(super) least: Vec<i64>,
    pub(super) most: Vec<i64>,
    /// The counters as they are believed now.
    pub(super) values: Vec<i64>,
}

/// The equations of all switches that are not proved yet.
#[derive(Clone, Debug)]
pub(super) struct Joint {
    pub(super) parts: Vec<Part>,
    pub(super) unknown_count: usize,
    /// Unknowns that are exact at some other switch, and their counters there, by unknown.
    pub(super) pins: Vec<(u32, i64)>,
}

impl Part {
    #[inline]
    pub(super) fn rows_of(&self, column: usize) -> &[u32] {
        &self.cells[column * self.hashes..(column + 1) * self.hashes]
    }

    /// Counts minus the counters as believed; zero for rows that are no equations.
    pub(super) fn residuals(&self) -> Vec<i64> {
        let mut rest = self.counts.clone();
        for (cells, &value) in self.cells.chunks_exact(self.hashes).zip(&self.values) {
            cells.iter().for_each(|&row| rest[row as usize] -= value);
        }
        rest.iter_mut()
            .zip(&self.usable)
            .for_each(|(rest, &usable)| {
                if !usable {
                    *rest = 0;
                }
            });
        rest
    }
}

impl Joint {
    /// Gathers what is not exact.
    pub(super) fn new(
        flow_count: usize,
        systems: &[SwitchSystem],
        locals: &[LocalCounters],
    ) -> Self {
        let mut unknown_of = vec![NONE; flow_count];
        let mut unknown_count = 0;
        let all_exact: Vec<bool> = locals
            .par_iter()
            .map(|local| local.exact.iter().all(|&exact| exact))
            .collect();
        let systems_and_locals = systems.iter().zip(locals).zip(&all_exact);
        for ((system, local), _) in systems_and_locals.filter(|&(_, &all_exact)| !all_exact) {
            for (&flow, &exact) in system.flows.iter().zip(&local.exact) {
                let unknown = &mut unknown_of[flow as usize];
                if !exact && *unknown == NONE {
                    *unknown = unknown_count;
                    unknown_count += 1;
                }
            }
        }
        let mut pins = Vec::new();
        // Where everything is exact, there is nothing to pin.
        let pinning = if unknown_count > 0 { systems } else { &[] };
        for (system, local) in pinning.iter().zip(locals) {
            for (position, &flow) in system.flows.iter().enumerate() {
                let unknown = unknown_of[flow as usize];
                if let (true, Some(value)) = (local.exact[position], local.values[position])
                    && unknown != NONE
                {
                    pins.push((unknown, value));
                }
            }
        }
        pins.sort_by_key(|&(unknown, _)| unknown);
        let parts = systems
            .par_iter()
            .zip(locals)
            .map(|(system, local)| part(system, local, &unknown_of))
            .collect();
        Self {
            parts,
            unknown_count: unknown_count as usize,
            pins,
        }
    }

    /// Finds the counters.
    pub(super) fn solve(&mut self, options: &CounterOptions, summary: &mut CounterSummary) {
        if self.unknown_count == 0 {
            return;
        }
        let mut estimates = self.first_estimates();
        let everything: Vec<u32> = (0..self.unknown_count as u32).collect();
        self.relax(
            &everything,
            &mut estimates,
            options.rounds,
            options,
            summary,
        );
        let mut active = everything;
        let mut stalled = false;
        for _ in 0..REFINEMENTS {
            self.round(&active, &estimates);
            let next = self.unsettled(&active, &estimates);
            if next.is_empty() || (next.len() == active.len() && stalled) {
                break;
            }
            stalled = next.len() == active.len();
            active = next;
            self.relax(&active, &mut estimates, REFINEMENT_ROUNDS, options, summary);
        }
        self.round(&active, &estimates);
        for _ in 0..REFINEMENTS {
            self.parts
                .par_iter_mut()
                .map(super::explain::explain_residuals)
                .sum::<usize>();
            let active = self.disturbed();
            if active.is_empty() {
                break;
            }
            self.reset(&active, &mut estimates);
            self.relax(&active, &mut estimates, REFINEMENT_ROUNDS, options, summary);
            self.round(&active, &estimates);
        }
        self.parts.par_iter_mut().for_each(|part| {
            super::explain::explain_residuals(part);
        });
    }

    /// Each unknown's smallest share of a cell, or its exact counter elsewhere.
    fn first_estimates(&self) -> Vec<f64> {
        let mut estimates = vec![f64::INFINITY; self.unknown_count];
        for part in &self.parts {
            let mut sizes = vec![0u32; part.counts.len()];
            part.cells.iter().for_each(|&row| sizes[row as usize] += 1);
            for (column, &unknown) in part.unknowns.iter().enumerate() {
                let estimate = &mut estimates[unknown as usize];
                for &row in part.rows_of(column) {
                    if part.counts[row as usize] > NO_LIMIT / 2 {
                        continue;
                    }
                    let share = part.counts[row as usize] as f64 / f64::from(sizes[row as usize]);
                    *estimate = estimate.min(share);
                }
            }
        }
        for estimate in &mut estimates {
            *estimate = if estimate.is_finite() { *estimate } else { 0.0 };
        }
        for &(unknown, value) in &self.pins {
            estimates[unknown as usize] = value as f64;
        }
        estimates
    }

    /// Robust least squares over the unknowns `active`; the others stay as believed.
    fn relax(
        &self,
        active: &[u32],
        estimates: &mut [f64],
        rounds: usize,
        options: &CounterOptions,
        summary: &mut CounterSummary,
    ) {
        let mut index = vec![NONE; self.unknown_count];
        for (place, &unknown) in active.iter().enumerate() {
            index[unknown as usize] = place as u32;
        }
        let layers = self
            .parts
            .par_iter()
            .map(|part| layer(part, &index))
            .collect();
        let pins = self
            .pins
            .iter()
            .filter(|&&(unknown, _)| index[unknown as usize] != NONE)
            .map(|&(unknown, value)| (index[unknown as usize], value as f64))
            .collect();
        let mut relaxation = Relaxation::new(layers, active.len(), pins);
        let mut values: Vec<f64> = active.iter().map(|&at| estimates[at as usize]).collect();
        for round in 0..rounds {
            let floor = RESIDUAL_FLOORS[round.min(RESIDUAL_FLOORS.len() - 1)];
            relaxation.reweight(&values, |rest| 1.0 / rest.abs().max(floor));
            let steps = relaxation.descend(&mut values, options.gradient_steps, TOLERANCE);
            summary.rounds += 1;
            summary.gradient_steps += steps;
        }
        for (&unknown, &value) in active.iter().zip(&values) {
            estimates[unknown as usize] = value;
        }
    }

    /// Believes the rounded estimates of `active`.
    fn round(&mut self, active: &[u32], estimates: &[f64]) {
        let mut is_active = vec![false; self.unknown_count];
        active
            .iter()
            .for_each(|&unknown| is_active[unknown as usize] = true);
        self.parts.par_iter_mut().for_each(|part| {
            for (column, &unknown) in part.unknowns.iter().enumerate() {
                if is_active[unknown as usize] {
                    let value = estimates[unknown as usize].round() as i64;
                    part.values[column] = value.min(part.most[column]).max(part.least[column]);
                }
            }
        });
    }

    /// Those of `active` that are no integers yet or have half of their equations unsatisfied.
    fn unsettled(&self, active: &[u32], estimates: &[f64]) -> Vec<u32> {
        let (equations, unsatisfied) = self.equations();
        active
            .iter()
            .copied()
            .filter(|&unknown| {
                let estimate = estimates[unknown as usize];
                let at = unknown as usize;
                (estimate - estimate.round()).abs() > 0.25 || unsatisfied[at] * 2 >= equations[at]
            })
            .collect()
    }

    /// Number of equations of each unknown, and of those that are not satisfied.
    fn equations(&self) -> (Vec<u32>, Vec<u32>) {
        let mut equations = vec![0u32; self.unknown_count];
        let mut unsatisfied = vec![0u32; self.unknown_count];
        let residuals: Vec<Vec<i64>> = self.parts.par_iter().map(Part::residuals).collect();
        for (part, residuals) in self.parts.iter().zip(&residuals) {
            for (column, &unknown) in part.unknowns.iter().enumerate() {
                for &row in part.rows_of(column) {
                    equations[unknown as usize] += u32::from(part.usable[row as usize]);
                    unsatisfied[unknown as usize] += u32::from(residuals[row as usize] != 0);
                }
            }
        }
        (equations, unsatisfied)
    }

    /// Unknowns with an unsatisfied equation.
    fn disturbed(&self) -> Vec<u32> {
        let (equations, unsatisfied) = self.equations();
        (0..self.unknown_count as u32)
            .filter(|&unknown| {
                let at = unknown as usize;
                unsatisfied[at] * 3 >= equations[at] && unsatisfied[at] > 0
            })
            .collect()
    }

    /// Takes deviations of `active` back: all switches start from the flow's most common counter.
    fn reset(&mut self, active: &[u32], estimates: &mut [f64]) {
        let mut is_active = vec![false; self.unknown_count];
        active
            .iter()
            .for_each(|&unknown| is_active[unknown as usize] = true);
        let mut seen: Vec<(u32, i64)> = Vec::new();
        for part in &self.parts {
            for (&unknown, &value) in part.unknowns.iter().zip(&part.values) {
                if is_active[unknown as usize] {
                    seen.push((unknown, value));
                }
            }
        }
        seen.sort_unstable();
        for same_unknown in seen.chunk_by(|one, other| one.0 == other.0) {
            let common = same_unknown
                .chunk_by(|one, other| one.1 == other.1)
                .max_by_key(|same| same.len())
                .map_or(0, |same| same[0].1);
            estimates[same_unknown[0].0 as usize] = common as f64;
        }
        self.round(active, estimates);
    }
}

fn part(system: &SwitchSystem, local: &LocalCounters, unknown_of: &[u32]) -> Part {
    let limit = system.count_limit();
    let mut part = Part {
        hashes: system.hashes,
        unknowns: Vec::new(),
        cells: Vec::new(),
        positions: Vec::new(),
        usable: system.equations(),
        counts: system.signed_counts(),
        least: Vec::new(),
        most: Vec::new(),
        values: Vec::new(),
    };
    let mut spare = part.counts.clone();
    for (position, &flow) in system.flows.iter().enumerate() {
        let rows = system.rows_of(position);
        let least = match (local.exact[position], local.values[position]) {
            (true, Some(value)) => {
                rows.iter()
                    .for_each(|&row| part.counts[row as usize] -= value);
                value
            }
            _ => {
                let least = system.least[position].min(limit) as i64;
                part.unknowns.push(unknown_of[flow as usize]);
                part.cells.extend_from_slice(rows);
                part.positions.push(position as u32);
                part.least.push(least);
                least
            }
        };
        rows.iter().for_each(|&row| spare[row as usize] -= least);
    }
    for (cells, &least) in part.cells.chunks_exact(part.hashes).zip(&part.least) {
        let most = cells
            .iter()
            .map(|&row| spare[row as usize] + least)
            .min()
            .unwrap_or(least);
        part.most.push(most.max(least));
    }
    part.values.clone_from(&part.least);
    part
}

/// The rows that the active columns of a part touch, as real equations.
fn layer(part: &Part, index: &[u32]) -> Layer {
    let mut residuals = part.residuals();
    let mut place = vec![NONE; part.counts.len()];
    let mut layer = Layer {
        hashes: part.hashes,
        ..Layer::default()
    };
    let mut touched = Vec::new();
    for (column, &unknown) in part.unknowns.iter().enumerate() {
        if index[unknown as usize] == NONE {
            continue;
        }
        layer.unknowns.push(index[unknown as usize]);
        for &row in part.rows_of(column) {
            residuals[row as usize] += part.values[column];
            layer.cells.push(row);
            if part.usable[row as usize] && place[row as usize] == NONE {
                place[row as usize] = touched.len() as u32;
                touched.push(row);
            }
        }
    }
    layer.targets = touched
        .iter()
        .map(|&row| residuals[row as usize] as f64)
        .collect();
    for cell in &mut layer.cells {
        *cell = place[*cell as usize].min(touched.len() as u32);
    }
    layer
}
