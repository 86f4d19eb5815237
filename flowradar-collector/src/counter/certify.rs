//! Which of the joint counters are the only sparse explanation.
//!
//! Flow occurrences with the same unknown and the same counter form a *class*, one free variable.
//! Peeling the classes over the satisfied equations proves that no other counters with this
//! pattern of equality satisfy them. What remains is another pattern: a flow that deviates where it
//! is not believed to. Such a deviation would go unnoticed just if its column is a combination of
//! the classes, which one random vector of the left kernel shows for all columns at once: it is
//! orthogonal to each class; a column that it is also orthogonal to is (but for 2⁻⁶⁴) such a
//! combination. Two columns that it maps to the same or the opposite word could deviate together.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use rayon::prelude::*;

use super::joint::{Joint, Part};
use super::local::mix;

const NONE: u32 = u32::MAX;

/// Classes followed from one ambiguous column before only the column itself is marked.
const MAX_SUPPORT: usize = 4096;

/// Rounds in which columns found doubtful are untied before the rest is taken for granted.
const MAX_ROUNDS: usize = 6;

/// Largest chance that one of a switch's flows has the cells of a random one, up to which
/// deviations are believed there; a tenth of it where equations are left unsatisfied.
const MAX_COINCIDENCE: f64 = 0.02;

/// What is known about the columns of all parts.
pub(super) struct Certificate {
    /// For each part, whether each column is certain.
    pub(super) certain: Vec<Vec<bool>>,
    /// For each part, the number of equations that are not satisfied.
    pub(super) unsatisfied: Vec<usize>,
    /// Columns that deviate from the most common counter of their flow.
    pub(super) deviations: usize,
}

/// Decides which columns are certain. O(ones · log) but for ambiguous columns.
pub(super) fn certify(joint: &Joint) -> Certificate {
    let residuals: Vec<Vec<i64>> = joint.parts.par_iter().map(Part::residuals).collect();
    let count = |residuals: &Vec<i64>| residuals.iter().filter(|&&rest| rest != 0).count();
    let unsatisfied: Vec<usize> = residuals.par_iter().map(count).collect();
    let mut doubtful = unsupported(joint, &residuals);
    let mut deviations = 0;
    for _ in 0..MAX_ROUNDS {
        let before = doubtful.iter().filter(|&&doubtful| doubtful).count();
        let mut classes = Classes::new(joint, &doubtful);
        let mut rows = Equations::new(joint, &residuals);
        rows.peel(&mut classes);
        let words = rows.left_kernel(&classes);
        let sums: Vec<u64> = classes
            .columns
            .iter()
            .map(|column| {
                rows.rows_of(column)
                    .fold(0u64, |sum, row| sum.wrapping_add(words[row]))
            })
            .collect();
        rows.mark_undetermined(&classes, &mut doubtful);
        rows.mark_coincidences(&classes, &unsatisfied, &mut doubtful);
        for column in 0..sums.len() {
            if sums[column] == 0 && classes.is_tied(column as u32) {
                doubtful[column] = true;
                rows.mark_support(&classes, &[(column as u32, 1)], &mut doubtful, false);
            }
        }
        rows.mark_pairs(&classes, &sums, &mut doubtful);
        deviations = classes.deviations();
        if doubtful.iter().filter(|&&doubtful| doubtful).count() == before {
            break;
        }
    }
    let mut certain = Vec::with_capacity(joint.parts.len());
    let mut next = doubtful.iter();
    for part in &joint.parts {
        certain.push(
            next.by_ref()
                .take(part.unknowns.len())
                .map(|&doubtful| !doubtful)
                .collect(),
        );
    }
    Certificate {
        certain,
        unsatisfied,
        deviations,
    }
}

/// Columns with an equation that is not satisfied, or out of bounds.
fn unsupported(joint: &Joint, residuals: &[Vec<i64>]) -> Vec<bool> {
    let mut unsupported = Vec::new();
    for (part, residuals) in joint.parts.iter().zip(residuals) {
        unsupported.extend((0..part.unknowns.len()).map(|column| {
            let value = part.values[column];
            !(part.least[column]..=part.most[column]).contains(&value)
                || part
                    .rows_of(column)
                    .iter()
                    .any(|&row| residuals[row as usize] != 0)
        }));
    }
    unsupported
}

/// A column of a part, by its place.
#[derive(Clone, Copy, Debug)]
struct Column {
    part: u32,
    column: u32,
}

/// Columns grouped by unknown and counter.
struct Classes {
    columns: Vec<Column>,
    class_of: Vec<u32>,
    /// Columns of each class: starts and indices of columns.
    starts: Vec<u32>,
    members: Vec<u32>,
    /// The class' counter is exact at another switch.
    pinned: Vec<bool>,
    /// The class is not its flow's most common counter.
    deviates: Vec<bool>,
    determined: Vec<bool>,
    /// Row and class in the order of peeling.
    pivots: Vec<(u32, u32)>,
}

impl Classes {
    /// A doubtful column is a class of its own: nothing ties it to the others.
    fn new(joint: &Joint, doubtful: &[bool]) -> Self {
        let mut columns = Vec::new();
        let mut keys: Vec<(u32, i64, u32, u32)> = Vec::new();
        for (place, part) in joint.parts.iter().enumerate() {
            for (column, (&unknown, &value)) in part.unknowns.iter().zip(&part.values).enumerate() {
                let index = columns.len() as u32;
                let own = if doubtful[columns.len()] {
                    index + 1
                } else {
                    0
                };
                keys.push((unknown, value, own, index));
                columns.push(Column {
                    part: place as u32,
                    column: column as u32,
                });
            }
        }
        keys.par_sort_unstable();
        let mut classes = Self {
            class_of: vec![NONE; columns.len()],
            columns,
            starts: vec![0],
            members: Vec::with_capacity(keys.len()),
            pinned: Vec::new(),
            deviates: Vec::new(),
            determined: Vec::new(),
            pivots: Vec::new(),
        };
        let mut pins = joint.pins.as_slice();
        for flow in keys.chunk_by(|one, other| one.0 == other.0) {
            let unknown = flow[0].0;
            pins = &pins[pins.partition_point(|pin| pin.0 < unknown)..];
            let (own, rest) = pins.split_at(pins.partition_point(|pin| pin.0 == unknown));
            pins = rest;
            let first = classes.pinned.len();
            let mut weights: Vec<usize> = Vec::new();
            for class in flow.chunk_by(|one, other| (one.1, one.2) == (other.1, other.2)) {
                let is_tied = class[0].2 == 0;
                let equal = own
                    .iter()
                    .filter(|pin| is_tied && pin.1 == class[0].1)
                    .count();
                for &(_, _, _, column) in class {
                    classes.class_of[column as usize] = classes.pinned.len() as u32;
                    classes.members.push(column);
                }
                classes.starts.push(classes.members.len() as u32);
                classes.pinned.push(equal > 0);
                weights.push(class.len() + equal);
            }
            let elsewhere = own
                .iter()
                .map(|pin| own.iter().filter(|other| other.1 == pin.1).count());
            let most = weights.iter().copied().chain(elsewhere).max().unwrap_or(0);
            let mut common_seen = false;
            for weight in weights {
                let common = weight == most && !common_seen;
                common_seen |= common;
                classes.deviates.push(!common);
            }
            debug_assert_eq!(classes.deviates.len() - first, classes.pinned.len() - first);
        }
        classes.determined.clone_from(&classes.pinned);
        classes
    }

    fn members(&self, class: u32) -> &[u32] {
        let class = class as usize;
        &self.members[self.starts[class] as usize..self.starts[class + 1] as usize]
    }

    /// Whether the column's counter is tied to one at another switch.
    fn is_tied(&self, column: u32) -> bool {
        let class = self.class_of[column as usize];
        self.pinned[class as usize] || self.members(class).len() > 1
    }

    fn deviations(&self) -> usize {
        let classes = self
            .deviates
            .iter()
            .enumerate()
            .filter(|(_, deviates)| **deviates);
        classes
            .map(|(class, _)| self.members(class as u32).len())
            .sum()
    }
}

/// All rows of all parts, numbered through.
struct Equations<'a> {
    joint: &'a Joint,
    offsets: Vec<u32>,
    valid: Vec<bool>,
    /// Columns of classes that are not determined yet, and the xor of their indices.
    open: Vec<u32>,
    open_xor: Vec<u32>,
    /// Place of each row in the order of peeling.
    pivot_place: Vec<u32>,
}

impl<'a> Equations<'a> {
    fn new(joint: &'a Joint, residuals: &[Vec<i64>]) -> Self {
        let mut offsets = Vec::with_capacity(joint.parts.len());
        let mut valid = Vec::new();
        for (part, residuals) in joint.parts.iter().zip(residuals) {
            offsets.push(valid.len() as u32);
            let rows = part.usable.iter().zip(residuals);
            valid.extend(rows.map(|(&usable, &rest)| usable && rest == 0));
        }
        let open = vec![0; valid.len()];
        let pivot_place = vec![NONE; valid.len()];
        Self {
            joint,
            offsets,
            open_xor: open.clone(),
            open,
            valid,
            pivot_place,
        }
    }

    /// Valid rows of a column.
    fn rows_of(&self, column: &Column) -> impl Iterator<Item = usize> {
        let offset = self.offsets[column.part as usize] as usize;
        let rows = self.joint.parts[column.part as usize].rows_of(column.column as usize);
        rows.iter()
            .map(move |&row| offset + row as usize)
            .filter(|&row| self.valid[row])
    }

    /// Determines class after class from equations with one open class; equations that keep an open
    /// one become invalid.
    fn peel(&mut self, classes: &mut Classes) {
        for (index, column) in classes.columns.iter().enumerate() {
            if classes.determined[classes.class_of[index] as usize] {
                continue;
            }
            let offset = self.offsets[column.part as usize];
            let part = &self.joint.parts[column.part as usize];
            for &row in part.rows_of(column.column as usize) {
                self.open[(offset + row) as usize] += 1;
                self.open_xor[(offset + row) as usize] ^= index as u32;
            }
        }
        let mut queue: Vec<u32> = (0..self.valid.len() as u32)
            .filter(|&row| self.valid[row as usize] && self.open[row as usize] == 1)
            .collect();
        while let Some(row) = queue.pop() {
            if self.open[row as usize] != 1 {
                continue;
            }
            let class = classes.class_of[self.open_xor[row as usize] as usize];
            classes.determined[class as usize] = true;
            self.pivot_place[row as usize] = classes.pivots.len() as u32;
            classes.pivots.push((row, class));
            for &member in classes.members(class) {
                let column = classes.columns[member as usize];
                let offset = self.offsets[column.part as usize];
                for &row in self.joint.parts[column.part as usize].rows_of(column.column as usize) {
                    let row = (offset + row) as usize;
                    self.open[row] -= 1;
                    self.open_xor[row] ^= member;
                    if self.open[row] == 1 && self.valid[row] {
                        queue.push(row as u32);
                    }
                }
            }
        }
        for (valid, &open) in self.valid.iter_mut().zip(&self.open) {
            *valid &= open == 0;
        }
    }

    /// A random vector modulo 2⁶⁴ that every determined class is orthogonal to.
    fn left_kernel(&self, classes: &Classes) -> Vec<u64> {
        let mut words: Vec<u64> = (0..self.valid.len())
            .map(|row| {
                if self.valid[row] {
                    mix(row as u64 ^ 0x6c62_272e)
                } else {
                    0
                }
            })
            .collect();
        for &(pivot, class) in classes.pivots.iter().rev() {
            words[pivot as usize] = 0;
            let mut sum = 0u64;
            for &member in classes.members(class) {
                for row in self.rows_of(&classes.columns[member as usize]) {
                    sum = sum.wrapping_add(words[row]);
                }
            }
            words[pivot as usize] = sum.wrapping_neg();
        }
        words
    }

    /// Columns that are not determined, or in no equation.
    fn mark_undetermined(&self, classes: &Classes, doubtful: &mut [bool]) {
        let columns = classes.columns.iter().zip(&classes.class_of).zip(doubtful);
        for ((column, &class), doubtful) in columns {
            *doubtful |=
                !classes.determined[class as usize] || self.rows_of(column).next().is_none();
        }
    }

    /// Small tables explain much by chance: there, deviations are not believed, nor counters that
    /// no other switch supports if equations are left over, nor flows that are doubtful elsewhere.
    fn mark_coincidences(&self, classes: &Classes, unsatisfied: &[usize], doubtful: &mut [bool]) {
        let parts = self.joint.parts.iter().zip(unsatisfied);
        let is_small: Vec<bool> = parts
            .map(|(part, &left)| is_small(part, left > 0))
            .collect();
        let mut doubtful_elsewhere = vec![false; self.joint.unknown_count];
        let unknown_of = |column: &Column| {
            self.joint.parts[column.part as usize].unknowns[column.column as usize] as usize
        };
        for (column, &doubtful) in classes.columns.iter().zip(&*doubtful) {
            doubtful_elsewhere[unknown_of(column)] |= doubtful;
        }
        for (place, column) in classes.columns.iter().enumerate() {
            let part = column.part as usize;
            let class = classes.class_of[place] as usize;
            doubtful[place] |= is_small[part]
                && (classes.deviates[class]
                    || unsatisfied[part] > 0 && !classes.is_tied(place as u32)
                    || doubtful_elsewhere[unknown_of(column)] && !classes.pinned[class]);
        }
    }

    /// Pairs of columns of one switch that could deviate together instead of classes that do.
    fn mark_pairs(&self, classes: &Classes, sums: &[u64], doubtful: &mut [bool]) {
        let mut first = 0;
        for part in &self.joint.parts {
            let range = first..first + part.unknowns.len() as u32;
            first = range.end;
            let mut keys: Vec<(u64, u32)> = range
                .filter(|&column| sums[column as usize] != 0 && classes.is_tied(column))
                .map(|column| {
                    (
                        sums[column as usize].min(sums[column as usize].wrapping_neg()),
                        column,
                    )
                })
                .collect();
            keys.sort_unstable();
            for same in keys.chunk_by(|one, other| one.0 == other.0) {
                for (place, &(_, one)) in same.iter().enumerate() {
                    for &(_, other) in &same[place + 1..] {
                        let equal = sums[one as usize] == sums[other as usize];
                        let pair = [(one, 1), (other, if equal { -1 } else { 1 })];
                        self.mark_support(classes, &pair, doubtful, true);
                    }
                }
            }
        }
    }

    /// Marks the classes that combine to the columns given (with their factors); if
    /// `deviating_only`, just if one of them deviates, and then the columns too.
    fn mark_support(
        &self,
        classes: &Classes,
        columns: &[(u32, i64)],
        doubtful: &mut [bool],
        deviating_only: bool,
    ) {
        let mut rest: HashMap<u32, i64> = HashMap::new();
        let mut heap = BinaryHeap::new();
        let mut support = Vec::new();
        let add = |column: &Column,
                   factor: i64,
                   heap: &mut BinaryHeap<_>,
                   rest: &mut HashMap<u32, i64>| {
            for row in self.rows_of(column) {
                let row = row as u32;
                *rest.entry(row).or_default() += factor;
                let place = self.pivot_place[row as usize];
                if place != NONE {
                    heap.push(Reverse(place));
                }
            }
        };
        for &(column, factor) in columns {
            add(
                &classes.columns[column as usize],
                factor,
                &mut heap,
                &mut rest,
            );
        }
        while let Some(Reverse(place)) = heap.pop() {
            let (row, class) = classes.pivots[place as usize];
            let factor = rest.get(&row).copied().unwrap_or(0);
            if factor == 0 {
                continue;
            }
            support.push(class);
            if support.len() > MAX_SUPPORT {
                return;
            }
            for &member in classes.members(class) {
                add(
                    &classes.columns[member as usize],
                    factor.wrapping_neg(),
                    &mut heap,
                    &mut rest,
                );
            }
        }
        if deviating_only
            && !support
                .iter()
                .any(|&class| classes.deviates[class as usize])
        {
            return;
        }
        for &(column, _) in columns {
            doubtful[column as usize] = true;
        }
        for class in support {
            for &member in classes.members(class) {
                doubtful[member as usize] = true;
            }
        }
    }
}

fn is_small(part: &Part, has_unsatisfied: bool) -> bool {
    let subtable = part.counts.len() as f64 / part.hashes as f64;
    let coincidence = part.unknowns.len() as f64 / subtable.powi(part.hashes as i32);
    coincidence
        > if has_unsatisfied {
            MAX_COINCIDENCE / 10.0
        } else {
            MAX_COINCIDENCE
        }
}
