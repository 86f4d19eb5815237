//! CounterDecode.

mod bits;
mod certify;
mod elimination;
mod explain;
#[cfg(test)]
mod fixture;
mod joint;
mod local;
mod relaxation;
mod system;
#[cfg(test)]
mod tests;

use rayon::prelude::*;

pub use system::{
    CounterInputError, CounterOptions, CounterSolution, CounterStatus, CounterSummary, MAX_HASHES,
    MIN_HASHES, SwitchCounters, SwitchSystem,
};

/// Switches solved at a time: their counters are the guesses of the next ones.
const WAVE: usize = 8;

/// Finds the counters of all flows at all switches.
pub fn solve_counters(
    flow_count: usize,
    systems: &[SwitchSystem],
    options: &CounterOptions,
) -> Result<CounterSolution, CounterInputError> {
    system::validate(flow_count, systems)?;
    let mut summary = CounterSummary::default();
    let mut guesses: Vec<Option<i64>> = vec![None; flow_count];
    let mut locals = Vec::with_capacity(systems.len());
    for wave in systems.chunks(WAVE) {
        let solved: Vec<local::LocalCounters> = wave
            .par_iter()
            .map(|system| {
                let own: Vec<Option<i64>> = system
                    .flows
                    .iter()
                    .map(|&flow| guesses[flow as usize])
                    .collect();
                local::solve_switch(system, &own, options.dense_core_bytes)
            })
            .collect();
        for (system, solved) in wave.iter().zip(&solved) {
            for ((&flow, &exact), &value) in
                system.flows.iter().zip(&solved.exact).zip(&solved.values)
            {
                if exact {
                    guesses[flow as usize] = value;
                }
            }
        }
        locals.extend(solved);
    }
    summary.over_budget = locals.iter().filter(|local| local.over_budget).count();
    let (exact, values): (Vec<_>, Vec<_>) = locals
        .into_iter()
        .map(|local| (local.exact, local.values))
        .unzip();
    let mut joint = joint::Joint::new(flow_count, systems, &exact, &values);
    joint.solve(options, &mut summary);
    let certificate = certify::certify(&joint);
    summary.deviations = certificate.deviations;
    let mut switches = Vec::with_capacity(systems.len());
    for (switch, part) in joint.parts.iter().enumerate() {
        let mut counters = SwitchCounters {
            values: values[switch]
                .iter()
                .map(|value| value.unwrap_or(0) as u64)
                .collect(),
            statuses: vec![CounterStatus::Exact; values[switch].len()],
            unexplained_rows: certificate.unsatisfied[switch],
        };
        for (column, &position) in part.positions.iter().enumerate() {
            let (least, most) = (part.least[column], part.most[column]);
            counters.values[position as usize] = part.values[column].max(least).min(most) as u64;
            counters.statuses[position as usize] = if certificate.certain[switch][column] {
                CounterStatus::Joint
            } else {
                CounterStatus::Unresolved {
                    least: least as u64,
                    most: most as u64,
                }
            };
        }
        summary.unexplained_rows += counters.unexplained_rows;
        for status in &counters.statuses {
            match status {
                CounterStatus::Joint => summary.joint += 1,
                CounterStatus::Unresolved { .. } => summary.unresolved += 1,
                CounterStatus::Exact => summary.exact += 1,
            }
        }
        switches.push(counters);
    }
    Ok(CounterSolution { switches, summary })
}
