//! Dense matrices over GF(2), a bit an entry.

/// Columns reduced at once by the method of the four Russians: 2^8 combinations fit the L2 cache.
pub(super) const BLOCK: usize = 8;

/// A dense matrix over GF(2), rows packed into 64-bit words.
#[derive(Clone, Debug)]
pub(super) struct BitMatrix {
    words: usize,
    rows: usize,
    bits: Vec<u64>,
}

impl BitMatrix {
    /// All zeros.
    pub(super) fn new(rows: usize, columns: usize) -> Self {
        let words = columns.div_ceil(64);
        Self {
            words,
            rows,
            bits: vec![0; rows * words],
        }
    }

    #[inline]
    pub(super) fn row(&self, row: usize) -> &[u64] {
        &self.bits[row * self.words..(row + 1) * self.words]
    }

    #[inline]
    pub(super) fn row_mut(&mut self, row: usize) -> &mut [u64] {
        &mut self.bits[row * self.words..(row + 1) * self.words]
    }

    #[inline]
    pub(super) fn get(&self, row: usize, column: usize) -> bool {
        self.bits[row * self.words + column / 64] >> (column % 64) & 1 == 1
    }

    #[inline]
    pub(super) fn set(&mut self, row: usize, column: usize) {
        self.bits[row * self.words + column / 64] |= 1 << (column % 64);
    }

    /// Brings the first `columns` columns to reduced row echelon form and returns the pivot column
    /// of each non-zero row, in order (rows are swapped into place). Later columns are carried
    /// along. O(rows² · columns / 8) bit operations, 64 of them in a word.
    pub(super) fn reduce(&mut self, columns: usize) -> Vec<u32> {
        let mut pivots: Vec<u32> = Vec::new();
        let mut table = vec![0u64; self.words << BLOCK];
        let mut column = 0;
        while column < columns && pivots.len() < self.rows {
            let first = pivots.len();
            while column < columns && pivots.len() < self.rows && pivots.len() - first < BLOCK {
                if let Some(row) = self.find_pivot(first, &pivots, column) {
                    let place = pivots.len();
                    self.swap_rows(row, place);
                    for earlier in first..place {
                        if self.get(earlier, column) {
                            self.add_row(place, earlier);
                        }
                    }
                    pivots.push(column as u32);
                }
                column += 1;
            }
            self.clear_block(first, &pivots, &mut table);
        }
        pivots
    }

    /// The first row at or below the last pivot with a one in `column`, after the pivots of the
    /// block at hand (rows from `first`) were taken out of the rows that were looked at.
    fn find_pivot(&mut self, first: usize, pivots: &[u32], column: usize) -> Option<usize> {
        for row in pivots.len()..self.rows {
            for (place, &pivot) in pivots.iter().enumerate().skip(first) {
                if self.get(row, pivot as usize) {
                    self.add_row(place, row);
                }
            }
            if self.get(row, column) {
                return Some(row);
            }
        }
        None
    }

    /// Clears the pivot columns of the rows `first..` of a block in all other rows.
    fn clear_block(&mut self, first: usize, pivots: &[u32], table: &mut [u64]) {
        let size = pivots.len() - first;
        if size == 0 {
            return;
        }
        let words = self.words;
        for place in 0..size {
            let half = words << place;
            let (done, next) = table.split_at_mut(half);
            let pivot_row = &self.bits[(first + place) * words..(first + place + 1) * words];
            for (source, target) in done.chunks_exact(words).zip(next.chunks_exact_mut(words)) {
                for ((target, source), pivot) in target.iter_mut().zip(source).zip(pivot_row) {
                    *target = source ^ pivot;
                }
            }
        }
        let block = &pivots[first..];
        for (row, bits) in self.bits.chunks_exact_mut(words).enumerate() {
            if (first..first + size).contains(&row) {
                continue;
            }
            let mut pattern = 0;
            for (place, &pivot) in block.iter().enumerate() {
                let bit = bits[pivot as usize / 64] >> (pivot % 64) & 1;
                pattern |= (bit as usize) << place;
            }
            if pattern != 0 {
                let combination = &table[pattern * words..(pattern + 1) * words];
                for (target, source) in bits.iter_mut().zip(combination) {
                    *target ^= source;
                }
            }
        }
    }

    fn add_row(&mut self, source: usize, target: usize) {
        let words = self.words;
        let (source, target) = if source < target {
            let (low, high) = self.bits.split_at_mut(target * words);
            (
                &low[source * words..(source + 1) * words],
                &mut high[..words],
            )
        } else {
            let (low, high) = self.bits.split_at_mut(source * words);
            (
                &high[..words],
                &mut low[target * words..(target + 1) * words],
            )
        };
        for (target, source) in target.iter_mut().zip(source) {
            *target ^= source;
        }
    }

    fn swap_rows(&mut self, one: usize, other: usize) {
        if one != other {
            let (low, high) = (one.min(other), one.max(other));
            let (front, back) = self.bits.split_at_mut(high * self.words);
            front[low * self.words..(low + 1) * self.words]
                .swap_with_slice(&mut back[..self.words]);
        }
    }
}

/// `target ^= source`, word by word.
#[inline]
pub(super) fn add_bits(target: &mut [u64], source: &[u64]) {
    for (target, source) in target.iter_mut().zip(source) {
        *target ^= source;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plain Gauss-Jordan elimination on booleans.
    fn reduce_plainly(rows: &mut [Vec<bool>], columns: usize) -> Vec<u32> {
        let mut pivots = Vec::new();
        for column in 0..columns {
            let Some(row) = (pivots.len()..rows.len()).find(|&row| rows[row][column]) else {
                continue;
            };
            rows.swap(pivots.len(), row);
            let pivot = rows[pivots.len()].clone();
            for (row, bits) in rows.iter_mut().enumerate() {
                if row != pivots.len() && bits[column] {
                    bits.iter_mut()
                        .zip(&pivot)
                        .for_each(|(bit, add)| *bit ^= add);
                }
            }
            pivots.push(column as u32);
        }
        pivots
    }

    #[test]
    fn reduces_like_plain_elimination() {
        let mut state = 7u64;
        let mut random = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695);
            state >> 33
        };
        for round in 0..60 {
            let (rows, columns, extra) = (1 + round, 1 + (round * 7) % 90, round % 5);
            let mut plain: Vec<Vec<bool>> = (0..rows)
                .map(|_| {
                    (0..columns + extra)
                        .map(|_| random() % (2 + round as u64 % 4) == 0)
                        .collect()
                })
                .collect();
            if rows > 4 {
                plain[3] = plain[1].clone();
            }
            let mut packed = BitMatrix::new(rows, columns + extra);
            for (row, bits) in plain.iter().enumerate() {
                for (column, _) in bits.iter().enumerate().filter(|(_, bit)| **bit) {
                    packed.set(row, column);
                }
            }
            let expected = reduce_plainly(&mut plain, columns);
            assert_eq!(packed.reduce(columns), expected);
            // The reduced row echelon form of the pivot rows is unique.
            for (row, bits) in plain.iter().enumerate().take(expected.len()) {
                for (column, &bit) in bits.iter().enumerate().take(columns) {
                    assert_eq!(packed.get(row, column), bit);
                }
            }
        }
    }
}
