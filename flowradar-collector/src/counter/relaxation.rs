//! One counter a flow over all switches: robust least squares on the stacked sparse system.
//!
//! The 0/1 matrix has exactly k ones a column and switch, so it needs no values and no row index:
//! a product scatters each flow's value into its k cells, the transposed product gathers them.
//! Switches are independent but for the sum over a flow's switches, which is gathered in the order
//! of the input, so that results do not depend on the number of threads.
//!
//! Measured against nalgebra-sparse 0.12 (`spmm_csr_dense` with the stacked matrix and with its
//! transpose; 80 switches, 10,000 flows each, k = 3, one thread of a 2-core machine): 4.1 ms for
//! both products here, 26 ms there, in 12 MB instead of 73 MB.

use rayon::prelude::*;

/// Entries summed by one task: fixed, so that sums are the same for any number of threads.
const CHUNK: usize = 1 << 13;

/// One switch's share of the stacked system.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer {
    /// Ones in a column.
    pub(super) hashes: usize,
    /// Unknown of each column.
    pub(super) unknowns: Vec<u32>,
    /// Rows of each column, `hashes` each; rows that are no equations have index `targets.len()`.
    pub(super) cells: Vec<u32>,
    /// What the columns of each row should add up to.
    pub(super) targets: Vec<f64>,
}

/// Σ over layers of robust losses of `targets - matrix · x`, to be minimised over x.
#[derive(Debug)]
pub(super) struct Relaxation {
    layers: Vec<Layer>,
    weights: Vec<Vec<f64>>,
    /// Columns of each unknown: starts and positions in the array of all columns.
    starts: Vec<u32>,
    places: Vec<u32>,
    /// Values that were proved at some switch: unknown and value, ordered by unknown.
    pins: Vec<(u32, f64)>,
    pin_weights: Vec<f64>,
}

impl Relaxation {
    pub(super) fn new(layers: Vec<Layer>, unknown_count: usize, pins: Vec<(u32, f64)>) -> Self {
        let mut starts = vec![0u32; unknown_count + 1];
        let mut offsets = Vec::with_capacity(layers.len());
        let mut total = 0;
        for layer in &layers {
            offsets.push(total);
            total += layer.unknowns.len();
            for &unknown in &layer.unknowns {
                starts[unknown as usize + 1] += 1;
            }
        }
        for unknown in 0..unknown_count {
            starts[unknown + 1] += starts[unknown];
        }
        let mut next = starts.clone();
        let mut places = vec![0u32; total];
        for (layer, &offset) in layers.iter().zip(&offsets) {
            for (column, &unknown) in layer.unknowns.iter().enumerate() {
                let next = &mut next[unknown as usize];
                places[*next as usize] = (offset + column) as u32;
                *next += 1;
            }
        }
        let weights = layers
            .iter()
            .map(|layer| vec![1.0; layer.targets.len()])
            .collect();
        let pin_weights = vec![1.0; pins.len()];
        Self {
            layers,
            weights,
            starts,
            places,
            pins,
            pin_weights,
        }
    }

    /// Targets minus the rows' sums.
    pub(super) fn residuals(&self, values: &[f64]) -> Vec<Vec<f64>> {
        self.layers
            .par_iter()
            .map(|layer| {
                let mut rest = layer.targets.clone();
                rest.push(0.0);
                for (cells, &unknown) in layer.cells.chunks_exact(layer.hashes).zip(&layer.unknowns)
                {
                    let value = values[unknown as usize];
                    cells.iter().for_each(|&row| rest[row as usize] -= value);
                }
                rest.pop();
                rest
            })
            .collect()
    }

    /// Sets each equation's weight to `weight(residual)`.
    pub(super) fn reweight(&mut self, values: &[f64], weight: impl Fn(f64) -> f64 + Sync) {
        let residuals = self.residuals(values);
        self.weights
            .par_iter_mut()
            .zip(&residuals)
            .for_each(|(weights, residuals)| {
                weights
                    .iter_mut()
                    .zip(residuals)
                    .for_each(|(entry, &rest)| *entry = weight(rest));
            });
        for (entry, &(unknown, value)) in self.pin_weights.iter_mut().zip(&self.pins) {
            *entry = weight(value - values[unknown as usize]);
        }
    }

    /// Minimises the weighted squares by conjugate gradients from `values`, preconditioned by the
    /// diagonal, until no unknown's own equations ask for a change above `tolerance`; returns the
    /// steps taken.
    pub(super) fn descend(&self, values: &mut [f64], steps: usize, tolerance: f64) -> usize {
        let count = values.len();
        let mut columns = vec![0.0; self.places.len()];
        let mut rows: Vec<Vec<f64>> = self
            .layers
            .iter()
            .map(|layer| vec![0.0; layer.targets.len() + 1])
            .collect();
        let inverse_diagonal = self.inverse_diagonal(&mut columns, count);
        let mut gradient = vec![0.0; count];
        self.gradient(values, &mut columns, &mut gradient);
        let mut direction = vec![0.0; count];
        let mut image = vec![0.0; count];
        let mut energy = 0.0;
        let mut taken = 0;
        loop {
            let (next_energy, largest) = sum_chunks(&gradient, &inverse_diagonal);
            if largest <= tolerance || taken == steps {
                return taken;
            }
            let momentum = if energy > 0.0 {
                next_energy / energy
            } else {
                0.0
            };
            energy = next_energy;
            direction
                .par_chunks_mut(CHUNK)
                .zip(gradient.par_chunks(CHUNK))
                .zip(inverse_diagonal.par_chunks(CHUNK))
                .for_each(|((direction, gradient), inverse)| {
                    for ((entry, &gradient), &inverse) in
                        direction.iter_mut().zip(gradient).zip(inverse)
                    {
                        *entry = gradient * inverse + momentum * *entry;
                    }
                });
            self.multiply(&direction, &mut rows, &mut columns, &mut image);
            let curvature = sum_products(&direction, &image);
            if curvature <= 0.0 || !curvature.is_finite() {
                return taken;
            }
            let step = energy / curvature;
            taken += 1;
            values
                .par_chunks_mut(CHUNK)
                .zip(gradient.par_chunks_mut(CHUNK))
                .zip(direction.par_chunks(CHUNK).zip(image.par_chunks(CHUNK)))
                .for_each(|((values, gradient), (direction, image))| {
                    for (value, direction) in values.iter_mut().zip(direction) {
                        *value += step * direction;
                    }
                    for (gradient, image) in gradient.iter_mut().zip(image) {
                        *gradient -= step * image;
                    }
                });
        }
    }

    /// `image = matrixᵀ · weights · matrix · direction`.
    fn multiply(
        &self,
        direction: &[f64],
        rows: &mut [Vec<f64>],
        columns: &mut [f64],
        image: &mut [f64],
    ) {
        self.split(columns)
            .into_par_iter()
            .zip(self.layers.par_iter())
            .zip(self.weights.par_iter())
            .zip(rows.par_iter_mut())
            .for_each(|(((columns, layer), weights), rows)| {
                rows.fill(0.0);
                match layer.hashes {
                    2 => layer.normal::<2>(direction, weights, rows, columns),
                    3 => layer.normal::<3>(direction, weights, rows, columns),
                    4 => layer.normal::<4>(direction, weights, rows, columns),
                    5 => layer.normal::<5>(direction, weights, rows, columns),
                    _ => layer.normal::<6>(direction, weights, rows, columns),
                }
            });
        self.gather(columns, image);
        for (&weight, &(unknown, _)) in self.pin_weights.iter().zip(&self.pins) {
            image[unknown as usize] += weight * direction[unknown as usize];
        }
    }

    /// `gradient = matrixᵀ · weights · (targets - matrix · values)`.
    fn gradient(&self, values: &[f64], columns: &mut [f64], gradient: &mut [f64]) {
        let residuals = self.residuals(values);
        self.split(columns)
            .into_par_iter()
            .zip(self.layers.par_iter())
            .zip(self.weights.par_iter())
            .zip(residuals.into_par_iter())
            .for_each(|(((columns, layer), weights), mut rest)| {
                rest.iter_mut()
                    .zip(weights)
                    .for_each(|(rest, weight)| *rest *= weight);
                rest.push(0.0);
                layer.sum_rows(&rest, columns);
            });
        self.gather(columns, gradient);
        for (&weight, &(unknown, value)) in self.pin_weights.iter().zip(&self.pins) {
            gradient[unknown as usize] += weight * (value - values[unknown as usize]);
        }
    }

    fn inverse_diagonal(&self, columns: &mut [f64], count: usize) -> Vec<f64> {
        self.split(columns)
            .into_par_iter()
            .zip(self.layers.par_iter())
            .zip(self.weights.par_iter())
            .for_each(|((columns, layer), weights)| {
                let mut rows = weights.clone();
                rows.push(0.0);
                layer.sum_rows(&rows, columns);
            });
        let mut diagonal = vec![0.0; count];
        self.gather(columns, &mut diagonal);
        for (&weight, &(unknown, _)) in self.pin_weights.iter().zip(&self.pins) {
            diagonal[unknown as usize] += weight;
        }
        diagonal
            .iter_mut()
            .for_each(|entry| *entry = if *entry > 0.0 { entry.recip() } else { 0.0 });
        diagonal
    }

    /// Sums each unknown's columns.
    fn gather(&self, columns: &[f64], sums: &mut [f64]) {
        sums.par_chunks_mut(CHUNK)
            .enumerate()
            .for_each(|(chunk, sums)| {
                let first = chunk * CHUNK;
                for (sum, unknown) in sums.iter_mut().zip(first..) {
                    let range = self.starts[unknown] as usize..self.starts[unknown + 1] as usize;
                    *sum = self.places[range]
                        .iter()
                        .map(|&place| columns[place as usize])
                        .sum();
                }
            });
    }

    fn split<'a>(&self, mut columns: &'a mut [f64]) -> Vec<&'a mut [f64]> {
        self.layers
            .iter()
            .map(|layer| {
                let (own, rest) = std::mem::take(&mut columns).split_at_mut(layer.unknowns.len());
                columns = rest;
                own
            })
            .collect()
    }
}

impl Layer {
    fn normal<const HASHES: usize>(
        &self,
        direction: &[f64],
        weights: &[f64],
        rows: &mut [f64],
        columns: &mut [f64],
    ) {
        let (cells, _) = self.cells.as_chunks::<HASHES>();
        for (cells, &unknown) in cells.iter().zip(&self.unknowns) {
            let value = direction[unknown as usize];
            for &row in cells {
                rows[row as usize] += value;
            }
        }
        rows.iter_mut()
            .zip(weights)
            .for_each(|(row, weight)| *row *= weight);
        if let Some(last) = rows.last_mut() {
            *last = 0.0;
        }
        for (cells, column) in cells.iter().zip(columns) {
            *column = cells.iter().map(|&row| rows[row as usize]).sum();
        }
    }

    fn sum_rows(&self, rows: &[f64], columns: &mut [f64]) {
        for (cells, column) in self.cells.chunks_exact(self.hashes).zip(columns) {
            *column = cells.iter().map(|&row| rows[row as usize]).sum();
        }
    }
}

/// Σ gradient² · inverse, and the largest |gradient · inverse|.
fn sum_chunks(gradient: &[f64], inverse: &[f64]) -> (f64, f64) {
    let parts: Vec<(f64, f64)> = gradient
        .par_chunks(CHUNK)
        .zip(inverse.par_chunks(CHUNK))
        .map(|(gradient, inverse)| {
            gradient.iter().zip(inverse).fold(
                (0.0, 0.0f64),
                |(sum, largest), (gradient, inverse)| {
                    let change = gradient * inverse;
                    (sum + gradient * change, largest.max(change.abs()))
                },
            )
        })
        .collect();
    parts.into_iter().fold((0.0, 0.0), |(sum, largest), part| {
        (sum + part.0, part.1.max(largest))
    })
}

/// Σ one · other.
fn sum_products(one: &[f64], other: &[f64]) -> f64 {
    let parts: Vec<f64> = one
        .par_chunks(CHUNK)
        .zip(other.par_chunks(CHUNK))
        .map(|(one, other)| one.iter().zip(other).map(|(one, other)| one * other).sum())
        .collect();
    parts.into_iter().sum()
}
