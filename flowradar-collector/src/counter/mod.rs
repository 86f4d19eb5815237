//! CounterDecode: the counters of the flows that FlowDecode found (FlowRadar, NSDI 2016 §4.2), at
//! each switch alone where that is enough, and over all switches together where it is not.
//!
//! Every cell of a counting table is a linear equation: its PacketCount (or ByteCount) is the sum
//! of the counters of the flows that hash to it. [`solve_counters`] takes these equations of all
//! switches of one epoch, knows nothing of routing, and says of each counter how well it is known:
//!
//! | status | holds |
//! | --- | --- |
//! | exact | The switch's own equations have one solution only, it satisfies all of them in integers, and there are equations to spare that a hidden flow would have left unsatisfied. |
//! | joint | It satisfies every equation of the switch; together with sparse losses it is the only solution of the network's equations. |
//! | unresolved | Anything else. The true counter is within the bounds given. |
//!
//! # One switch (`local.rs`, `elimination.rs`)
//! 1. A cell that counted just what its flows count at least (1 packet each) fixes them all. Under
//!    heavy-tailed traffic this alone finds a sixth of the flows, and whatever else is hidden, it
//!    holds.
//! 2. An equation with one unknown left gives it; a cell left with the lower bounds of its unknowns
//!    gives them all; until nothing changes. With a 1-packet flow in two or more, this finds all
//!    counters at k = 4 and 1.025 cells a flow, in linear time.
//! 3. What remains is solved by structured elimination over GF(2) and 2-adic lifting: exact, with a
//!    proof that the solution is unique, whatever the condition of the matrix.
//! 4. Each connected block of equations is judged: all satisfied; and a hidden flow would show. A
//!    hidden flow (a false positive of the flow filter, known nowhere) adds its packets to one cell
//!    of each subtable. It is noticed unless its column is a combination of the known ones, which
//!    64 random vectors of the left kernel tell for 1024 random columns.
//!
//! # All switches (`joint.rs`, `relaxation.rs`, `explain.rs`, `certify.rs`)
//! 1. Counters of a flow at the switches of its path are equal but for losses and packets in flight.
//!    One counter a flow is estimated from all equations that are not settled yet, by iteratively
//!    reweighted least squares (weights 1/|residual|, towards least absolute deviations) and
//!    conjugate gradients with the diagonal as preconditioner. A few rounds leave only flows with
//!    half of their equations unsatisfied, and later rounds solve only for these.
//! 2. What is left over at a switch is explained by flows that deviate there: a flow none of whose
//!    equations is satisfied, all or most of which ask for the same change, is changed if no other
//!    flow could account for one of them; then by flows whose deviations cancel in a shared cell.
//! 3. Flows with a third of their equations still unsatisfied go back to step 1.
//! 4. Certificate: occurrences of a flow with the same counter are one unknown; those with an
//!    unsatisfied equation are unknowns of their own. Peeling over the satisfied equations proves
//!    that the unknowns are determined, and a random vector of the left kernel modulo 2⁶⁴ shows
//!    every flow occurrence that could deviate unnoticed, and every pair that could in place of a
//!    deviation found. These, and what they could be mistaken for, are unresolved. In tables so
//!    small that a known flow has a random flow's cells with a probability of 0.02 (0.002 if equations
//!    are left unsatisfied), deviations are not believed at all.
//!
//! # Cost
//! Time is linear in the ones of the matrix (k a flow and switch) times the conjugate-gradient
//! steps (about 40 to 100), but for step 3 of a single switch: there, with d of n flows left to the
//! dense part (d ≈ n/8 just above the threshold of 1.0238 cells a flow at k = 4, if no flow has but
//! one packet), some d³/250 word operations and d²/4 bytes. [`CounterOptions`] bounds both; beyond,
//! counters are joint at best. Results do not depend on the number of threads.
//!
//! Measured (k = 8 fat tree, 80 switches, counters with a Pareto tail and half of the flows with one
//! packet, 2 % of the flows losing packets; two seconds of one core at most but for the last row):
//!
//! | k | cells a flow | flows a switch | resolved | of these exact | remarks |
//! | --- | --- | --- | --- | --- | --- |
//! | 3 | 0.68, 0.60 | 10,000 | 100.00 % | 17.8, 13.9 % | |
//! | 3 | 0.68 | 10,000 | 99.996 % | 17.4 % | 15 % of flows on one switch, 25 % on three; 5 % with packets in flight |
//! | 3 | 0.68 | 10,000 | 99.88 % | 17.7 % | one hidden flow a switch, about |
//! | 2 | 0.50 | 10,000 | 99.98 % | 15.0 % | |
//! | 4 | 1.025 | 10,000 | 100.00 % | 100 % | |
//! | 4 | 1.025 | 10,000 | 100.00 % | 55.0 % | no flow below 50 packets: more unknowns than equations at every second switch |
//! | 4 | 1.025 | 100,000 | 100.00 % | 100 % | some 3 seconds of one core |
//!
//! No counter in these was wrong, exact or joint.
//!
//! # Limits
//! - A hidden flow with just the cells of a known one cannot be noticed, here or anywhere. At one
//!   switch, no more is called exact than what a random hidden flow changes unnoticed with a
//!   probability of 0.0001: with k = 3, full tables below some 450 cells prove little.
//! - With k = 2 a block of equations that has one solution has none to spare: only counters at
//!   their lower bounds and very small blocks are exact.
//! - Where all switches together have fewer equations than unknowns, or FlowDecode would not peel
//!   (k = 3: below some 0.58 cells a flow), the certificate does not peel either.
//! - Three or more flows that deviate at one switch in place of three others are not searched for.
//!
//! ```
//! use flowradar_collector::counter::{CounterOptions, SwitchSystem, solve_counters};
//! use flowradar_core::CounterStatus;
//!
//! // Two flows of 3 and 4 packets in a table of 2 · 200 cells; they share cell 7.
//! let mut counts = vec![0; 400];
//! (counts[7], counts[210], counts[300]) = (7, 3, 4);
//! let system = SwitchSystem {
//!     hashes: 2,
//!     counts,
//!     known: vec![true; 400],
//!     flows: vec![0, 1],
//!     cells: vec![7, 210, 7, 300],
//!     least: vec![1, 1],
//!     hints: Vec::new(),
//! };
//! let solution = solve_counters(2, &[system], &CounterOptions::default())?;
//! assert_eq!(solution.switches[0].values, [3, 4]);
//! assert!(solution.switches[0].statuses.iter().all(CounterStatus::is_resolved));
//! # Ok::<(), flowradar_collector::counter::CounterInputError>(())
//! ```

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

use std::mem::take;
use std::sync::{Mutex, OnceLock, PoisonError};

use flowradar_core::CounterStatus;
use rayon::prelude::*;

use certify::certify;
use elimination::Budget;
use joint::{Joint, Part};
use local::{LocalCounters, solve_switch};
use system::NO_LIMIT;

pub use system::{
    CounterInputError, CounterOptions, CounterSolution, CounterSummary, MAX_HASHES, MIN_HASHES,
    SwitchCounters, SwitchSystem,
};

/// Switches solved at a time: their counters are the guesses of the next ones.
const WAVE: usize = 8;

/// Finds the counters of all flows at all switches of one epoch.
///
/// `flow_count` is the number of flows in the network; [`SwitchSystem::flows`] are below it. Any
/// subset of the switches will do.
///
/// # Errors
/// If the columns of a system do not fit each other. What the counts say is never an error: what
/// cannot be explained is unresolved.
pub fn solve_counters(
    flow_count: usize,
    systems: &[SwitchSystem],
    options: &CounterOptions,
) -> Result<CounterSolution, CounterInputError> {
    system::validate(flow_count, systems)?;
    let locals = solve_switches(flow_count, systems, options);
    let mut joint = Joint::new(flow_count, systems, &locals);
    let mut summary = CounterSummary {
        over_budget: locals.iter().filter(|local| local.over_budget).count(),
        ..CounterSummary::default()
    };
    joint.solve(options, &mut summary);
    let certificate = certify(&joint);
    summary.deviations = certificate.deviations;
    let mut switches: Vec<SwitchCounters> = locals
        .into_par_iter()
        .zip(&joint.parts)
        .zip(&certificate.certain)
        .map(|((local, part), certain)| switch_counters(&local, part, certain))
        .collect();
    for (counters, &unsatisfied) in switches.iter_mut().zip(&certificate.unsatisfied) {
        counters.unexplained_rows = unsatisfied;
        summary.unexplained_rows += unsatisfied;
        for status in &counters.statuses {
            match status {
                CounterStatus::Exact => summary.exact += 1,
                CounterStatus::Joint => summary.joint += 1,
                CounterStatus::Unresolved { .. } => summary.unresolved += 1,
            }
        }
    }
    Ok(CounterSolution { switches, summary })
}

/// Solves each switch by itself, guessing what earlier ones proved.
fn solve_switches(
    flow_count: usize,
    systems: &[SwitchSystem],
    options: &CounterOptions,
) -> Vec<LocalCounters> {
    let budget = Budget {
        bytes: options.dense_core_bytes,
        word_operations: options.dense_word_operations / systems.len().max(1) as u64,
    };
    let mut locals = Vec::with_capacity(systems.len());
    let mut guesses = Guesses::default();
    for wave in systems.chunks(WAVE) {
        let earlier = Mutex::new(guesses);
        let current = OnceLock::new();
        let solve = |system: &SwitchSystem| {
            let limit = system.count_limit();
            let guess = |position: usize| match system.hints.get(position) {
                Some(&Some(hint)) if hint <= limit => Some(hint as i64),
                _ => {
                    let guesses: &Guesses = current.get_or_init(|| {
                        let mut guesses =
                            take(&mut *earlier.lock().unwrap_or_else(PoisonError::into_inner));
                        guesses.gather(flow_count, systems, &locals);
                        guesses
                    });
                    guesses.values[system.flows[position] as usize]
                }
            };
            solve_switch(system, guess, budget)
        };
        let solved: Vec<LocalCounters> = wave.par_iter().map(solve).collect();
        let earlier = || earlier.into_inner().unwrap_or_else(PoisonError::into_inner);
        guesses = current.into_inner().unwrap_or_else(earlier);
        locals.extend(solved);
    }
    locals
}

/// What switches proved, to be guessed at others. Most switches need no guesses: they are gathered when
/// the first one asks.
#[derive(Default)]
struct Guesses {
    /// By network-wide number.
    values: Vec<Option<i64>>,
    /// Switches whose counters are among `values`.
    switches: usize,
}

impl Guesses {
    /// Adds what was proved since the last time.
    fn gather(&mut self, flow_count: usize, systems: &[SwitchSystem], locals: &[LocalCounters]) {
        self.values.resize(flow_count, None);
        for (system, local) in systems.iter().zip(locals).skip(self.switches) {
            for (position, &flow) in system.flows.iter().enumerate() {
                if local.exact[position] {
                    self.values[flow as usize] = local.values[position];
                }
            }
        }
        self.switches = locals.len();
    }
}

/// Puts what was proved and what was found jointly together.
fn switch_counters(local: &LocalCounters, part: &Part, certain: &[bool]) -> SwitchCounters {
    let mut counters = SwitchCounters {
        values: local
            .values
            .iter()
            .map(|value| value.unwrap_or(0).max(0) as u64)
            .collect(),
        statuses: vec![CounterStatus::Exact; local.values.len()],
        unexplained_rows: 0,
    };
    for (column, &position) in part.positions.iter().enumerate() {
        let (least, most) = (part.least[column], part.most[column]);
        counters.values[position as usize] = part.values[column].min(most).max(least) as u64;
        counters.statuses[position as usize] = if certain[column] {
            CounterStatus::Joint
        } else {
            let most = if most > NO_LIMIT / 2 {
                u64::MAX
            } else {
                most as u64
            };
            CounterStatus::Unresolved {
                least: least as u64,
                most,
            }
        };
    }
    counters
}
