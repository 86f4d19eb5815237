//! How often peeling gets stuck.
//!
//! Flows in a random table are the edges of a random hypergraph on its cells; peeling gets stuck in
//! the *2-core*, where every cell has two flows or more. Two things leave one:
//!
//! 1. *Too many flows.* As the table fills, a large 2-core appears at once, at a load near a
//!    threshold. For a plain table of `k` subtables with `n` flows the load at which it appears has
//!    nearly a normal distribution with
//!
//!    ```text
//!    mean = threshold(k) - b(k) n^(-2/3)        standard deviation = a(k) n^(-1/2)
//!    ```
//!
//!    which is the scaling law of Amraoui, Montanari, Richardson and Urbanke ("Finite-length scaling
//!    for iteratively decoded LDPC ensembles", 2009; Dembo and Montanari, "Finite size scaling for
//!    the core of large random hypergraphs", 2008). The thresholds are those of Dietzfelbinger and
//!    Walzer (ESA 2019); `a` and `b` are measured (`examples/peeling_threshold.rs`). Coupled tables
//!    come near the higher threshold of Walzer (SODA 2021), but slowly: mean and deviation of their
//!    load are measured for each width of the window, at some numbers of flows.
//! 2. *A few flows that happen to share cells*, at any load: two flows with the same `k` cells, three
//!    flows with one cell of each subtable, and so on. Their expected number is counted exactly and
//!    is a bound for the probability. It is what decides for few flows or very low failure
//!    probabilities, and why more hashes are then better: two flows share all cells of a plain table
//!    with `c` cells a flow at an expected `n² / 2 (k / (c n))^k` places.
//!
//! The probability of failure is at most the sum of both. The models hold for hashes that behave as
//! random.

use alloc::vec;
use alloc::vec::Vec;

use crate::layout::{CELLS_MAX, CellWidths, Coupling, LayoutError, TableLayout};

/// Fewest flows that a coupled table is planned for. Below, it would be larger than a plain one.
pub const COUPLED_FLOWS_MIN: u64 = 10_000;

/// How often SingleDecode fails to find all of `flows` flows in this table, apart from flow-filter
/// false positives: a bound by the model of `plan/peeling.rs`, on the safe side for every number of
/// flows. For coupled tables with fewer than [`COUPLED_FLOWS_MIN`] flows, or windows far from
/// those measured, it is 1: not known.
///
/// ```
/// use flowradar_core::layout::{CellWidths, Coupling, TableLayout};
/// use flowradar_core::plan::single_decode_failure_probability;
///
/// let table = TableLayout::new(3, 42_000, Coupling::Plain, CellWidths::default())?;
/// assert!(single_decode_failure_probability(&table, 100_000) < 0.001);
/// assert!(single_decode_failure_probability(&table, 105_000) > 0.999);
/// # Ok::<(), flowradar_core::layout::LayoutError>(())
/// ```
pub fn single_decode_failure_probability(table: &TableLayout, flows: u64) -> f64 {
    let hashes = table.hashes() as u8;
    let subtable_cells = table.subtable_cells();
    let failure = match table.coupling() {
        Coupling::Plain => plain_failure(hashes, subtable_cells, flows),
        Coupling::Window { cells } => COUPLED
            .iter()
            .filter(|coupled| coupled.hashes == hashes)
            .filter(|coupled| coupled.window_cells(subtable_cells).abs_diff(cells) <= 1)
            .map(|coupled| coupled.failure(subtable_cells, flows))
            .fold(1.0, f64::min),
    };
    failure.min(1.0)
}

/// The table with the fewest cells that fails at most with the wished probability.
pub(super) fn smallest(
    hashes: Option<u8>,
    plain: bool,
    coupled: bool,
    widths: CellWidths,
    flows: u64,
    wished: f64,
) -> Result<TableLayout, LayoutError> {
    let wants = |known: u8| hashes.is_none_or(|hashes| hashes == known);
    let mut best: Option<(u64, u8, Coupling)> = None;
    let mut consider =
        |hashes: u8, subtable_cells: Option<u32>, coupling: &dyn Fn(u32) -> Coupling| {
            let Some(subtable_cells) = subtable_cells else {
                return;
            };
            let cells = hashes as u64 * subtable_cells as u64;
            if best.is_none_or(|(fewest, ..)| cells < fewest) {
                best = Some((cells, hashes, coupling(subtable_cells)));
            }
        };
    if plain {
        // Two hashes only when asked for: they take ten times the cells.
        let candidates = PLAIN.iter().map(|plain| plain.hashes);
        for known in candidates.chain(hashes.filter(|&hashes| hashes == 2)) {
            if wants(known) {
                let cells =
                    least_cells(known, |cells| plain_failure(known, cells, flows) <= wished);
                consider(known, cells, &|_| Coupling::Plain);
            }
        }
    }
    if coupled {
        for known in COUPLED.iter().filter(|coupled| wants(coupled.hashes)) {
            let cells = least_cells(known.hashes, |cells| known.failure(cells, flows) <= wished);
            consider(known.hashes, cells, &|subtable_cells| Coupling::Window {
                cells: known.window_cells(subtable_cells),
            });
        }
    }
    let (cells, hashes, coupling) = best.ok_or(LayoutError::Cells(CELLS_MAX + 1))?;
    TableLayout::new(hashes, (cells / hashes as u64) as u32, coupling, widths)
}

/// The window with which a coupled table of this size fails least.
pub(super) fn best_window(hashes: u8, subtable_cells: u32, flows: u64) -> Option<Coupling> {
    COUPLED
        .iter()
        .filter(|coupled| coupled.hashes == hashes && flows >= COUPLED_FLOWS_MIN)
        .min_by(|a, b| {
            // Standard deviations to spare, where both fail for sure.
            a.margin(subtable_cells, flows)
                .total_cmp(&b.margin(subtable_cells, flows))
                .reverse()
        })
        .map(|coupled| Coupling::Window {
            cells: coupled.window_cells(subtable_cells),
        })
}

/// Constants of plain tables with so many subtables.
struct PlainLoad {
    hashes: u8,
    threshold: f64,
    /// `b` of the module's formula.
    shift: f64,
    /// `a` of the module's formula.
    spread: f64,
}

const PLAIN: [PlainLoad; 4] = [
    PlainLoad {
        hashes: 3,
        threshold: 0.81847,
        shift: 0.90,
        spread: 0.50,
    },
    PlainLoad {
        hashes: 4,
        threshold: 0.77228,
        shift: 0.70,
        spread: 0.38,
    },
    PlainLoad {
        hashes: 5,
        threshold: 0.70178,
        shift: 0.65,
        spread: 0.34,
    },
    PlainLoad {
        hashes: 6,
        threshold: 0.63708,
        shift: 0.60,
        spread: 0.31,
    },
];

/// Measured loads of coupled tables with windows of one part in `window_part` of the subtable.
struct CoupledLoad {
    hashes: u8,
    window_part: u32,
    /// `(flows, median load, standard deviation times the square root of flows)`, flows ascending.
    loads: &'static [(f64, f64, f64)],
}

const COUPLED: [CoupledLoad; 9] = [
    CoupledLoad {
        hashes: 4,
        window_part: 8,
        loads: &[
            (1e4, 0.8139, 0.89),
            (3e4, 0.8315, 1.07),
            (1e5, 0.8416, 0.99),
        ],
    },
    CoupledLoad {
        hashes: 4,
        window_part: 16,
        loads: &[
            (1e4, 0.8359, 1.35),
            (3e4, 0.8656, 1.08),
            (1e5, 0.8883, 1.21),
        ],
    },
    CoupledLoad {
        hashes: 4,
        window_part: 24,
        loads: &[(3e4, 0.8686, 1.36), (1e5, 0.8971, 1.74)],
    },
    CoupledLoad {
        hashes: 4,
        window_part: 32,
        loads: &[
            (3e4, 0.8618, 1.47),
            (1e5, 0.8979, 1.59),
            (3e5, 0.9176, 1.60),
        ],
    },
    CoupledLoad {
        hashes: 4,
        window_part: 48,
        loads: &[(1e5, 0.8928, 2.44)],
    },
    CoupledLoad {
        hashes: 3,
        window_part: 8,
        loads: &[
            (1e4, 0.7794, 0.82),
            (3e4, 0.7899, 0.99),
            (1e5, 0.7960, 0.84),
        ],
    },
    CoupledLoad {
        hashes: 3,
        window_part: 16,
        loads: &[(3e4, 0.8257, 1.42), (1e5, 0.8421, 1.28)],
    },
    CoupledLoad {
        hashes: 3,
        window_part: 24,
        loads: &[(1e5, 0.8523, 1.36)],
    },
    CoupledLoad {
        hashes: 3,
        window_part: 32,
        loads: &[(1e5, 0.8540, 1.66)],
    },
];

/// A coupled table gets stuck where it is worst along its length, so the load has the distribution
/// of a minimum, with more weight far below the median than a normal one. The minimum of some thirty
/// normal variables has its millionth 6.1 of these standard deviations below the median, a normal
/// variable 4.75.
const COUPLED_SPREAD_MARGIN: f64 = 1.3;

impl CoupledLoad {
    /// Width of the window in cells.
    fn window_cells(&self, subtable_cells: u32) -> u32 {
        subtable_cells.div_ceil(self.window_part).max(1)
    }

    /// Standard deviations between the load and the mean load at which peeling gets stuck.
    fn margin(&self, subtable_cells: u32, flows: u64) -> f64 {
        let load = flows as f64 / (self.hashes as f64 * subtable_cells as f64);
        let (mean, spread) = self.mean_and_spread(flows as f64);
        (mean - load) / (COUPLED_SPREAD_MARGIN * spread / libm::sqrt(flows as f64))
    }

    /// By interpolation over the logarithm of flows; beyond the last as there, which is on the safe
    /// side, as both only get better.
    fn mean_and_spread(&self, flows: f64) -> (f64, f64) {
        let after = self.loads.iter().position(|&(known, ..)| known > flows);
        match after {
            Some(0) => (f64::NEG_INFINITY, 1.0),
            None => {
                let &(_, mean, spread) = self.loads.last().expect("every window was measured");
                (mean, spread)
            }
            Some(after) => {
                let (low, low_mean, low_spread) = self.loads[after - 1];
                let (high, high_mean, high_spread) = self.loads[after];
                let part = libm::log(flows / low) / libm::log(high / low);
                (
                    low_mean + part * (high_mean - low_mean),
                    low_spread.max(high_spread),
                )
            }
        }
    }

    fn failure(&self, subtable_cells: u32, flows: u64) -> f64 {
        upper_tail(self.margin(subtable_cells, flows))
            + coupled_pairs(
                self.hashes,
                subtable_cells,
                self.window_cells(subtable_cells),
                flows,
            )
    }
}

/// Up to here every set of flows that could get stuck is counted, and no law of large numbers
/// is needed.
const COUNTED_FLOWS_MAX: u64 = 64;

/// Flows of the largest small stopping set that is counted beside the large ones.
const SMALL_SET_FLOWS: usize = 8;

fn plain_failure(hashes: u8, subtable_cells: u32, flows: u64) -> f64 {
    if hashes == 2 {
        return graph_failure(subtable_cells, flows);
    }
    let Some(plain) = PLAIN.iter().find(|plain| plain.hashes == hashes) else {
        return 1.0;
    };
    if flows <= COUNTED_FLOWS_MAX {
        return stuck_sets(hashes, subtable_cells, flows, flows as usize);
    }
    let n = flows as f64;
    let load = n / (hashes as f64 * subtable_cells as f64);
    let mean = plain.threshold - plain.shift / libm::cbrt(n * n);
    let margin = (mean - load) / (plain.spread / libm::sqrt(n));
    upper_tail(margin) + stuck_sets(hashes, subtable_cells, flows, SMALL_SET_FLOWS)
}

/// With two hashes flows are the edges of a bipartite graph, and a cycle is what gets stuck. There is
/// none with probability `sqrt(1 - (n/m)²)` for `n` flows and `m` cells in each subtable (Botelho,
/// Pagh and Ziviani, "Practical perfect hashing in nearly optimal space", 2013).
fn graph_failure(subtable_cells: u32, flows: u64) -> f64 {
    let density = flows as f64 / subtable_cells as f64;
    if density < 1.0 {
        1.0 - libm::sqrt(1.0 - density * density)
    } else {
        1.0
    }
}

/// Expected number of sets of two to `largest` flows that get stuck on their own in a plain table:
/// in each subtable none of the set is alone in its cell.
///
/// The ways to place `s` flows into `m` cells with none alone are the sum over `j` cells in use of
/// `m (m-1) … (m-j+1)` times the associated Stirling number of `s` and `j`: partitions of `s` into
/// `j` parts of two or more.
fn stuck_sets(hashes: u8, subtable_cells: u32, flows: u64, largest: usize) -> f64 {
    let (n, m) = (flows as f64, subtable_cells as f64);
    // Rows `s - 2` and `s - 1` of the Stirling numbers, each number divided by m^s.
    let mut before: Vec<f64> = vec![0.0; largest + 2];
    let mut row = before.clone();
    before[0] = 1.0;
    // Flows chosen: n (n-1) … / s!.
    let mut sets = n;
    let mut expected = 0.0;
    for s in 2..=largest.min(flows as usize) {
        let mut next = vec![0.0; largest + 2];
        for j in 1..=s / 2 {
            next[j] = (j as f64 * row[j] + (s - 1) as f64 * before[j - 1] / m) / m;
        }
        let mut placings = 1.0;
        let mut stuck = 0.0;
        for (j, stirling) in next.iter().enumerate().take(s / 2 + 1).skip(1) {
            placings *= (m - (j - 1) as f64).max(0.0);
            stuck += stirling * placings;
        }
        sets *= (n - (s - 1) as f64) / s as f64;
        expected += sets * power(stuck, hashes);
        before = core::mem::replace(&mut row, next);
    }
    expected
}

/// Expected number of pairs of flows that share all cells of a coupled table.
///
/// Two flows whose windows of `w` cells begin `d` apart share a cell of one subtable with probability
/// `(w - d) / w²`. The offset is one of `o = m - w + 1`; over all pairs of offsets the mean of the
/// `k`-th power of `1 - d/w` is about `2 w / ((k + 1) o)`.
fn coupled_pairs(hashes: u8, subtable_cells: u32, window_cells: u32, flows: u64) -> f64 {
    let (n, w) = (flows as f64, window_cells as f64);
    let offsets = subtable_cells as f64 - w + 1.0;
    let overlap = (2.0 * w / ((hashes as f64 + 1.0) * offsets) + 1.0 / offsets).min(1.0);
    n * (n - 1.0) / 2.0 * overlap / power(w, hashes)
}

/// Chance that a normal variable is this many standard deviations above its mean.
fn upper_tail(deviations: f64) -> f64 {
    0.5 * libm::erfc(deviations * core::f64::consts::FRAC_1_SQRT_2)
}

/// The least cells of a subtable that suffice, where more suffice too; none if no table is that large.
fn least_cells(hashes: u8, suffices: impl Fn(u32) -> bool) -> Option<u32> {
    let most = (CELLS_MAX / hashes as u64) as u32;
    let (mut low, mut high) = (0, 1);
    while !suffices(high) {
        if high == most {
            return None;
        }
        low = high;
        high = (high * 2).min(most);
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if suffices(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    Some(high)
}

fn power(base: f64, exponent: u8) -> f64 {
    (0..exponent).fold(1.0, |product, _| product * base)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All placings of a few flows in a few cells, one after the other.
    #[test]
    fn stuck_sets_are_counted_as_by_hand() {
        for (hashes, cells, flows) in [(2_u8, 2_u32, 3_u64), (2, 3, 3), (3, 2, 4), (2, 2, 4)] {
            let flows_taken = flows as usize;
            let alone_nowhere = |set: usize, mut placing: u64| {
                let mut counts = [0; 4];
                for flow in 0..flows_taken {
                    counts[(placing % cells as u64) as usize] += set >> flow & 1;
                    placing /= cells as u64;
                }
                !counts.contains(&1)
            };
            let placings = (cells as u64).pow(flows as u32);
            let expected: f64 = (1..1_usize << flows)
                .map(|set| {
                    let stuck = (0..placings)
                        .filter(|&placing| alone_nowhere(set, placing))
                        .count();
                    power(stuck as f64 / placings as f64, hashes)
                })
                .sum();
            let computed = stuck_sets(hashes, cells, flows, flows_taken);
            assert!((computed - expected).abs() < 1e-12, "{computed} {expected}");
        }
    }

    #[test]
    fn pairs_of_a_window_as_wide_as_the_table_are_those_of_a_plain_one() {
        let plain = stuck_sets(3, 1000, 500, 2);
        let coupled = coupled_pairs(3, 1000, 1000, 500);
        assert!((coupled / plain - 1.0).abs() < 1e-9);
    }
}
