//! Explains what the common counters leave over at a switch by flows that deviate there.

use super::joint::Part;

/// How a column's residuals speak for a deviation, the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Evidence {
    /// All equations ask for the same change.
    All,
    /// Most equations ask for the same change, and the others are not satisfied either.
    Most,
    /// An unsatisfied equation has no other flow that only has unsatisfied equations.
    Only,
}

/// Shifts counters of single flows so that equations become satisfied; returns how many.
///
/// Each step leaves fewer equations unsatisfied, so it ends.
pub(super) fn explain_residuals(part: &mut Part) -> usize {
    let mut residuals = part.residuals();
    let mut candidates: Vec<u32> = columns(part)
        .filter(|&column| is_candidate(part, &residuals, column))
        .collect();
    let mut claims = vec![0u32; residuals.len()];
    let mut changes = 0;
    loop {
        candidates.retain(|&column| is_candidate(part, &residuals, column));
        claims.fill(0);
        for &column in &candidates {
            part.rows_of(column as usize)
                .iter()
                .for_each(|&row| claims[row as usize] += 1);
        }
        let before = changes;
        for evidence in [Evidence::All, Evidence::Most, Evidence::Only] {
            for &column in &candidates {
                if let Some(change) = change(part, &residuals, &claims, column, evidence) {
                    accept(part, &mut residuals, column, change);
                    changes += 1;
                }
            }
            if changes > before {
                break;
            }
        }
        if changes == before {
            changes += explain_cancelled(part, &mut residuals, &mut claims);
        }
        if changes == before {
            return changes;
        }
        candidates = columns(part)
            .filter(|&at| is_candidate(part, &residuals, at))
            .collect();
    }
}

/// Two flows whose deviations cancel in a shared cell leave it satisfied: accepts changes that
/// satisfy more equations than they disturb. The other flow is then found by what is disturbed.
fn explain_cancelled(part: &mut Part, residuals: &mut [i64], claims: &mut [u32]) -> usize {
    let candidates: Vec<(u32, i64)> = columns(part)
        .filter_map(|column| Some((column, gainful_change(part, residuals, column)?)))
        .collect();
    claims.fill(0);
    for &(column, change) in &candidates {
        for &row in part.rows_of(column as usize) {
            claims[row as usize] += u32::from(residuals[row as usize] == change);
        }
    }
    let mut changes = 0;
    for &(column, change) in &candidates {
        let rows = part.rows_of(column as usize);
        let is_sole = |&row: &u32| claims[row as usize] == 1 && residuals[row as usize] == change;
        if rows.iter().any(is_sole) && gainful_change(part, residuals, column) == Some(change) {
            accept(part, residuals, column, change);
            changes += 1;
        }
    }
    changes
}

/// The change that satisfies two equations of the column at least and more than it disturbs.
fn gainful_change(part: &Part, residuals: &[i64], column: u32) -> Option<i64> {
    let equations = || {
        part.rows_of(column as usize)
            .iter()
            .filter(|&&row| part.usable[row as usize])
    };
    let satisfied = equations()
        .filter(|&&row| residuals[row as usize] == 0)
        .count();
    let votes_for = |change: i64| {
        equations()
            .filter(|&&row| residuals[row as usize] == change)
            .count()
    };
    let change = equations()
        .map(|&row| residuals[row as usize])
        .filter(|&change| change != 0 && is_allowed(part, column, change))
        .max_by_key(|&change| votes_for(change))?;
    (votes_for(change) > satisfied.max(1)).then_some(change)
}

fn columns(part: &Part) -> std::ops::Range<u32> {
    0..part.unknowns.len() as u32
}

fn is_allowed(part: &Part, column: u32, change: i64) -> bool {
    let column = column as usize;
    (part.least[column]..=part.most[column]).contains(&(part.values[column] + change))
}

fn accept(part: &mut Part, residuals: &mut [i64], column: u32, change: i64) {
    part.values[column as usize] += change;
    let hashes = part.hashes;
    for &row in &part.cells[column as usize * hashes..(column as usize + 1) * hashes] {
        if part.usable[row as usize] {
            residuals[row as usize] -= change;
        }
    }
}

/// Whether none of the column's equations (two at least) is satisfied.
fn is_candidate(part: &Part, residuals: &[i64], column: u32) -> bool {
    let mut equations = 0;
    for &row in part.rows_of(column as usize) {
        if part.usable[row as usize] {
            equations += 1;
            if residuals[row as usize] == 0 {
                return false;
            }
        }
    }
    equations > 1
}

/// The change of the column that the evidence asks for, if it is within the column's bounds and an
/// equation asks for it that no other candidate claims.
fn change(
    part: &Part,
    residuals: &[i64],
    claims: &[u32],
    column: u32,
    evidence: Evidence,
) -> Option<i64> {
    if !is_candidate(part, residuals, column) {
        return None;
    }
    let equations = || {
        part.rows_of(column as usize)
            .iter()
            .filter(|&&row| part.usable[row as usize])
    };
    let total = equations().count();
    let is_sole = |row: u32| claims[row as usize] == 1;
    let votes_for = |change: i64| {
        equations()
            .filter(|&&row| residuals[row as usize] == change)
            .count()
    };
    let row = *equations()
        .filter(|&&row| is_sole(row))
        .max_by_key(|&&row| votes_for(residuals[row as usize]))?;
    let change = residuals[row as usize];
    let votes = votes_for(change);
    let enough = match evidence {
        Evidence::All => votes == total,
        Evidence::Most => votes * 2 > total,
        Evidence::Only => true,
    };
    (enough && is_allowed(part, column, change)).then_some(change)
}
