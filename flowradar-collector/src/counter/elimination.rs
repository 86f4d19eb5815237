//! Exact solution of a sparse 0/1 system, with the proof that the solution is unique.
//!
//! *Structured elimination.* A cell is declared dense when nothing else is possible; a column with
//! one cell that is neither dense nor taken takes this cell as its pivot. The pivots form a
//! triangle of ones; the columns without a pivot (a few per cent) and the dense cells remain as a
//! small dense matrix, the Schur complement, computed and reduced over GF(2), 64 entries a word.
//! This is inactivation decoding seen from the columns: cells have very different degrees, and
//! making the fullest cells dense leaves fewer columns over than deactivating columns of equal
//! degree.
//!
//! *Uniqueness.* If the Schur complement has full column rank over GF(2), so has the whole matrix;
//! some square minor is odd, hence not zero, and the columns are independent over the rationals.
//!
//! *Solution.* With the inverse modulo 2 the integer solution is lifted 2-adically, a binary digit
//! a step (Dixon's method): solve for the digits modulo 2, subtract, halve. A remainder of zero in
//! every row ends it, and is the proof that every row is satisfied in integers. This takes as many
//! steps as the largest counter has bits, whatever the condition of the matrix, where conjugate
//! gradients need thousands of steps near the threshold.

use std::collections::BinaryHeap;

use super::bits::{BLOCK, BitMatrix, add_bits};

/// Binary digits after which lifting gives up: counters and their differences fit.
const MAX_DIGITS: u32 = 62;

/// A sparse 0/1 matrix by columns, each at most `u8::MAX` ones.
#[derive(Clone, Debug, Default)]
pub(super) struct SparseColumns {
    /// Where each column's rows start, and one more entry.
    pub(super) starts: Vec<u32>,
    /// Row indices.
    pub(super) rows: Vec<u32>,
    /// Number of rows.
    pub(super) row_count: usize,
}

impl SparseColumns {
    pub(super) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    #[inline]
    pub(super) fn column(&self, column: u32) -> &[u32] {
        let column = column as usize;
        &self.rows[self.starts[column] as usize..self.starts[column + 1] as usize]
    }

    /// Columns of each row: starts and indices.
    fn transpose(&self) -> (Vec<u32>, Vec<u32>) {
        let mut starts = vec![0u32; self.row_count + 1];
        for &row in &self.rows {
            starts[row as usize + 1] += 1;
        }
        for row in 0..self.row_count {
            starts[row + 1] += starts[row];
        }
        let mut next = starts.clone();
        let mut columns = vec![0u32; self.rows.len()];
        for column in 0..self.len() as u32 {
            for &row in self.column(column) {
                columns[next[row as usize] as usize] = column;
                next[row as usize] += 1;
            }
        }
        (starts, columns)
    }
}

/// What the dense part of an elimination may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    /// Bytes.
    pub(super) bytes: usize,
    /// Operations on 64-bit words.
    pub(super) word_operations: u64,
}

/// Why a matrix could not be eliminated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EliminationFailure {
    /// The columns are not independent over GF(2).
    Deficient,
    /// The dense part is larger than allowed.
    OverBudget,
}

/// A matrix of full column rank, ready to be solved for many right-hand sides.
#[derive(Debug)]
pub(super) struct Elimination {
    matrix: SparseColumns,
    /// Row and column of the triangular part, in the order of elimination.
    pivots: Vec<(u32, u32)>,
    /// Columns of the dense part.
    inactive: Vec<u32>,
    /// Rows of the dense part.
    dense_rows: Vec<u32>,
    /// Reduced Schur complement, transposed: a row an inactive column, a column a dense row;
    /// followed by the transformation that reduced it, if a solution was asked for.
    dense: BitMatrix,
    /// Position in `dense_rows` of the pivot of each row of `dense`.
    dense_pivots: Vec<u32>,
}

impl Elimination {
    /// Eliminates `matrix`, or says why not.
    ///
    /// With `solvable` the inverse of the dense part is kept for [`Self::solve`].
    pub(super) fn new(
        matrix: SparseColumns,
        budget: Budget,
        solvable: bool,
    ) -> Result<Self, EliminationFailure> {
        if matrix.len() > matrix.row_count {
            return Err(EliminationFailure::Deficient);
        }
        let Triangle {
            pivots,
            inactive,
            dense_rows,
        } = Triangle::find(&matrix);
        if inactive.len() > dense_rows.len() {
            return Err(EliminationFailure::Deficient);
        }
        let width = (dense_rows.len() + if solvable { inactive.len() } else { 0 }).max(1);
        let words = width.div_ceil(64);
        let operations = (inactive.len() as u64).pow(2) * words as u64 / BLOCK as u64;
        let Some(rest) = budget
            .bytes
            .checked_sub(words * 8 * (inactive.len() + (1 << BLOCK)))
        else {
            return Err(EliminationFailure::OverBudget);
        };
        if operations > budget.word_operations {
            return Err(EliminationFailure::OverBudget);
        }
        let mut dense = schur_complement(&matrix, &pivots, &inactive, &dense_rows, width, rest)?;
        if solvable {
            for place in 0..inactive.len() {
                dense.set(place, dense_rows.len() + place);
            }
        }
        let dense_pivots = dense.reduce(dense_rows.len());
        if dense_pivots.len() < inactive.len() {
            return Err(EliminationFailure::Deficient);
        }
        Ok(Self {
            matrix,
            pivots,
            inactive,
            dense_rows,
            dense,
            dense_pivots,
        })
    }

    /// The integer solution of `matrix · x = counts`, or nothing if there is none within
    /// [`MAX_DIGITS`] bits. `counts` is left as zeros if there is a solution.
    ///
    /// O(bits of the largest entry · (ones + dense columns² / 64)).
    pub(super) fn solve(&self, counts: &mut [i64]) -> Option<Vec<i64>> {
        let mut solution = vec![0i64; self.matrix.len()];
        let mut digits = vec![0u8; self.matrix.len()];
        let mut parity = vec![0u8; counts.len()];
        for place in 0..MAX_DIGITS {
            if counts.iter().all(|&count| count == 0) {
                return Some(solution);
            }
            for (parity, &count) in parity.iter_mut().zip(counts.iter()) {
                *parity = (count & 1) as u8;
            }
            self.digits(&mut parity, &mut digits);
            // A negative entry has ones for ever: it ends when the digit taken as -1 ends it.
            let mut negated = counts.to_vec();
            for (column, &digit) in digits.iter().enumerate() {
                if digit == 1 {
                    solution[column] += 1 << place;
                    for &row in self.matrix.column(column as u32) {
                        counts[row as usize] -= 1;
                        negated[row as usize] += 1;
                    }
                }
            }
            if negated.iter().all(|&count| count == 0) {
                for (entry, &digit) in solution.iter_mut().zip(&digits) {
                    *entry -= i64::from(digit) << (place + 1);
                }
                counts.fill(0);
                return Some(solution);
            }
            if counts.iter().any(|&count| count & 1 == 1) {
                return None;
            }
            counts.iter_mut().for_each(|count| *count >>= 1);
        }
        None
    }

    /// Solves modulo 2; `parity` is used up.
    fn digits(&self, parity: &mut [u8], digits: &mut [u8]) {
        let mut reduced = parity.to_vec();
        for &(row, column) in self.pivots.iter().rev() {
            if reduced[row as usize] == 1 {
                for &other in self.matrix.column(column) {
                    reduced[other as usize] ^= 1;
                }
            }
        }
        let words = self.inactive.len().div_ceil(64) + 1;
        let offset = self.dense_rows.len();
        let mut sum = vec![0u64; words];
        for (place, &pivot) in self.dense_pivots.iter().enumerate() {
            if reduced[self.dense_rows[pivot as usize] as usize] == 1 {
                add_bits(&mut sum, &self.dense.row(place)[offset / 64..]);
            }
        }
        for (place, &column) in self.inactive.iter().enumerate() {
            let bit = offset % 64 + place;
            let digit = (sum[bit / 64] >> (bit % 64) & 1) as u8;
            digits[column as usize] = digit;
            if digit == 1 {
                for &row in self.matrix.column(column) {
                    parity[row as usize] ^= 1;
                }
            }
        }
        for &(row, column) in self.pivots.iter().rev() {
            let digit = parity[row as usize];
            digits[column as usize] = digit;
            if digit == 1 {
                for &other in self.matrix.column(column) {
                    parity[other as usize] ^= 1;
                }
            }
        }
    }

    /// 64 random vectors of the left kernel modulo 2, a bit each: one word a row, such that the
    /// words of each column's rows add up to zero. `checks` brings random words for the rows.
    pub(super) fn checks(&self, checks: &mut [u64]) {
        let mut is_pivot = vec![false; self.dense_rows.len()];
        for &pivot in &self.dense_pivots {
            is_pivot[pivot as usize] = true;
        }
        let free: Vec<usize> = (0..self.dense_rows.len())
            .filter(|&at| !is_pivot[at])
            .collect();
        for (place, &pivot) in self.dense_pivots.iter().enumerate() {
            let word = free
                .iter()
                .filter(|&&at| self.dense.get(place, at))
                .fold(0, |word, &at| word ^ checks[self.dense_rows[at] as usize]);
            checks[self.dense_rows[pivot as usize] as usize] = word;
        }
        for &(row, column) in &self.pivots {
            checks[row as usize] = 0;
            checks[row as usize] = self
                .matrix
                .column(column)
                .iter()
                .fold(0, |word, &at| word ^ checks[at as usize]);
        }
    }
}

/// The triangular part of a matrix and what is left over.
struct Triangle {
    pivots: Vec<(u32, u32)>,
    inactive: Vec<u32>,
    dense_rows: Vec<u32>,
}

/// What has become of a row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RowState {
    Idle,
    Dense,
    Pivot,
}

impl Triangle {
    /// O(ones · log rows).
    fn find(matrix: &SparseColumns) -> Self {
        let (starts, columns) = matrix.transpose();
        let columns_of =
            |row: u32| &columns[starts[row as usize] as usize..starts[row as usize + 1] as usize];
        let mut idle: Vec<u8> = Vec::with_capacity(matrix.len());
        let mut idle_xor: Vec<u32> = Vec::with_capacity(matrix.len());
        for column in 0..matrix.len() as u32 {
            idle.push(matrix.column(column).len() as u8);
            idle_xor.push(matrix.column(column).iter().fold(0, |xor, &row| xor ^ row));
        }
        let mut weight = vec![0u32; matrix.row_count];
        for column in 0..matrix.len() as u32 {
            for &row in matrix.column(column) {
                weight[row as usize] += share(idle[column as usize]);
            }
        }
        let mut heap: BinaryHeap<(u32, u32)> = weight
            .iter()
            .enumerate()
            .map(|(row, &weight)| (weight, row as u32))
            .collect();
        let mut state = vec![RowState::Idle; matrix.row_count];
        let mut ready: Vec<u32> = (0..matrix.len() as u32)
            .filter(|&column| idle[column as usize] == 1)
            .collect();
        let mut pivots = Vec::with_capacity(matrix.len());
        let mut pivoted = vec![false; matrix.len()];
        loop {
            let row = if let Some(column) = ready.pop() {
                if idle[column as usize] != 1 {
                    continue;
                }
                let row = idle_xor[column as usize];
                pivots.push((row, column));
                pivoted[column as usize] = true;
                state[row as usize] = RowState::Pivot;
                row
            } else {
                let Some((stored, row)) = heap.pop() else {
                    break;
                };
                if state[row as usize] != RowState::Idle {
                    continue;
                }
                if stored != weight[row as usize] {
                    heap.push((weight[row as usize], row));
                    continue;
                }
                state[row as usize] = RowState::Dense;
                row
            };
            for &column in columns_of(row) {
                let before = idle[column as usize];
                idle[column as usize] -= 1;
                idle_xor[column as usize] ^= row;
                if before == 2 {
                    ready.push(column);
                }
                let change = share(before - 1).wrapping_sub(share(before));
                for &other in matrix.column(column) {
                    if state[other as usize] == RowState::Idle {
                        let weight = &mut weight[other as usize];
                        *weight = weight.wrapping_add(change);
                        if (change as i32) > 0 {
                            heap.push((*weight, other));
                        }
                    }
                }
            }
        }
        let inactive = (0..matrix.len() as u32)
            .filter(|&column| !pivoted[column as usize])
            .collect();
        let dense_rows = (0..matrix.row_count as u32)
            .filter(|&row| state[row as usize] != RowState::Pivot)
            .collect();
        Self {
            pivots,
            inactive,
            dense_rows,
        }
    }
}

/// How much a column with `idle` cells left speaks for making one of them dense.
const fn share(idle: u8) -> u32 {
    match idle {
        0 | 1 => 0,
        2 => 16,
        3 => 4,
        _ => 1,
    }
}

/// The Schur complement of the triangle, transposed, in a matrix of `width` columns.
fn schur_complement(
    matrix: &SparseColumns,
    pivots: &[(u32, u32)],
    inactive: &[u32],
    dense_rows: &[u32],
    width: usize,
    budget: usize,
) -> Result<BitMatrix, EliminationFailure> {
    const NONE: u32 = u32::MAX;
    let mut position = vec![NONE; matrix.row_count];
    for (place, &row) in dense_rows.iter().enumerate() {
        position[row as usize] = place as u32;
    }
    // A pivot row's functional is needed until the last column of that row was seen.
    let mut uses = vec![0u32; matrix.row_count];
    for &row in &matrix.rows {
        uses[row as usize] += 1;
    }
    let words = dense_rows.len().div_ceil(64).max(1);
    let most_slots = budget / (words * 8);
    let mut slot_of = vec![NONE; matrix.row_count];
    let mut free_slots: Vec<u32> = Vec::new();
    let mut slots: Vec<u64> = Vec::new();
    let mut sum = vec![0u64; words];
    let mut dense = BitMatrix::new(inactive.len(), width);
    let columns = pivots.iter().map(|&(row, column)| (Some(row), column));
    let rest = inactive.iter().map(|&column| (None, column));
    for (place, (pivot, column)) in columns.chain(rest).enumerate() {
        sum.fill(0);
        for &row in matrix.column(column) {
            if Some(row) == pivot {
                continue;
            }
            let at = position[row as usize];
            if at != NONE {
                sum[at as usize / 64] ^= 1 << (at % 64);
                continue;
            }
            let slot = slot_of[row as usize] as usize;
            add_bits(&mut sum, &slots[slot * words..(slot + 1) * words]);
            uses[row as usize] -= 1;
            if uses[row as usize] == 0 {
                free_slots.push(slot as u32);
            }
        }
        if let Some(row) = pivot {
            uses[row as usize] -= 1;
            if uses[row as usize] == 0 {
                continue;
            }
            let slot = match free_slots.pop() {
                Some(slot) => slot as usize,
                None if slots.len() / words >= most_slots => {
                    return Err(EliminationFailure::OverBudget);
                }
                None => {
                    slots.resize(slots.len() + words, 0);
                    slots.len() / words - 1
                }
            };
            slots[slot * words..(slot + 1) * words].copy_from_slice(&sum);
            slot_of[row as usize] = slot as u32;
        } else {
            dense.row_mut(place - pivots.len())[..words].copy_from_slice(&sum);
        }
    }
    Ok(dense)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Random;
    use super::*;

    const BUDGET: Budget = Budget {
        bytes: 1 << 24,
        word_operations: 1 << 32,
    };

    fn random_matrix(
        random: &mut Random,
        columns: usize,
        rows: usize,
        ones: usize,
    ) -> SparseColumns {
        let mut matrix = SparseColumns {
            row_count: rows,
            ..SparseColumns::default()
        };
        matrix.starts.push(0);
        for _ in 0..columns {
            let mut column: Vec<u32> = Vec::new();
            while column.len() < ones.min(rows) {
                let row = random.below(rows) as u32;
                if !column.contains(&row) {
                    column.push(row);
                }
            }
            matrix.rows.extend(column);
            matrix.starts.push(matrix.rows.len() as u32);
        }
        matrix
    }

    /// Rank modulo a prime by dense elimination: full rank modulo any prime is full rank.
    fn rank(matrix: &SparseColumns, prime: i64) -> usize {
        let mut columns: Vec<Vec<i64>> = (0..matrix.len() as u32)
            .map(|column| {
                let mut dense = vec![0; matrix.row_count];
                matrix
                    .column(column)
                    .iter()
                    .for_each(|&row| dense[row as usize] = 1);
                dense
            })
            .collect();
        let mut rank = 0;
        for row in 0..matrix.row_count {
            let Some(pivot) = (rank..columns.len()).find(|&at| columns[at][row] != 0) else {
                continue;
            };
            columns.swap(rank, pivot);
            let pivot = columns[rank].clone();
            for column in columns
                .iter_mut()
                .skip(rank + 1)
                .filter(|column| column[row] != 0)
            {
                // Cross-multiplied, so that no inverse is needed.
                let (scale, factor) = (pivot[row], column[row]);
                for (entry, pivot) in column.iter_mut().zip(&pivot) {
                    *entry = (*entry * scale - pivot * factor).rem_euclid(prime);
                }
            }
            rank += 1;
        }
        rank
    }

    #[test]
    fn proves_full_rank_just_where_it_is_modulo_2_and_solves() {
        let random = &mut Random(3);
        let (mut full, mut deficient) = (0, 0);
        for round in 0..400 {
            let columns = 1 + random.below(60);
            let rows = (columns + random.below(12)).max(4);
            let matrix = random_matrix(random, columns, rows, 2 + round % 4);
            let expected = rank(&matrix, 2) == columns;
            let solved = Elimination::new(matrix.clone(), BUDGET, true);
            assert_eq!(solved.is_ok(), expected);
            let Ok(elimination) = solved else {
                deficient += 1;
                continue;
            };
            full += 1;
            assert_eq!(rank(&matrix, 1_000_003), columns);
            let truth: Vec<i64> = (0..columns)
                .map(|_| (random.word() >> 20) as i64 - (1 << 42))
                .collect();
            let mut counts = vec![0; rows];
            for (column, &value) in truth.iter().enumerate() {
                for &row in matrix.column(column as u32) {
                    counts[row as usize] += value;
                }
            }
            let mut inconsistent = counts.clone();
            assert_eq!(elimination.solve(&mut counts), Some(truth));
            if rows > columns {
                inconsistent[random.below(rows)] += 1;
                // A row that no column has cannot be satisfied either; any solution must be one.
                if let Some(solution) = elimination.solve(&mut inconsistent.clone()) {
                    for (column, &value) in solution.iter().enumerate() {
                        for &row in matrix.column(column as u32) {
                            inconsistent[row as usize] -= value;
                        }
                    }
                    assert!(inconsistent.iter().all(|&rest| rest == 0));
                }
            }
            let mut checks: Vec<u64> = (0..rows).map(|_| random.word()).collect();
            elimination.checks(&mut checks);
            for column in 0..columns as u32 {
                let rows = matrix.column(column).iter();
                assert_eq!(rows.fold(0, |word, &row| word ^ checks[row as usize]), 0);
            }
            assert!(rows == columns || checks.iter().any(|&word| word != 0));
        }
        assert!(
            full > 50 && deficient > 50,
            "{full} full, {deficient} deficient"
        );
    }

    #[test]
    fn keeps_to_the_budget() {
        let matrix = random_matrix(&mut Random(9), 1000, 1100, 4);
        for budget in [
            Budget {
                bytes: 1000,
                ..BUDGET
            },
            Budget {
                word_operations: 10,
                ..BUDGET
            },
        ] {
            let refused = Elimination::new(matrix.clone(), budget, true).map(|_| ());
            assert_eq!(refused, Err(EliminationFailure::OverBudget));
        }
        assert!(Elimination::new(matrix, BUDGET, true).is_ok());
    }
}
