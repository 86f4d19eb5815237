//! How many false positives a flow filter has.

use alloc::vec::Vec;

use super::FilterKind;
use crate::hash::HashFamilyId;
use crate::layout::{BLOCK_BITS, BLOCK_HASHES, FILTER_BITS_MAX, FilterLayout, LayoutError};

/// Fewest bits of an array of a partitioned filter: below that bits are not what costs.
const PARTITION_BITS_MIN: u64 = 64;

/// After so many flows a word of a block is full, but for one chance in 10^15.
const BLOCK_FULL: u64 = 2_500;

/// Flows taken for known, expected while `flows` different flows are added to an empty filter one by
/// one. O(blocks' occupancy) or O(1).
///
/// The flow that comes after `i` others is taken for known if all its bits are set.
///
/// - *Partitioned*, `k` arrays of `m` bits: with probability `(1 - (1 - 1/m)^i)^k`, as arrays are
///   independent and every flow before set one bit of each. Summed over `i`.
/// - *Blocked*, `B` blocks: a block that `j` flows fell into takes the next for known with
///   probability `g(j) = (1 - (63/64)^j)^8`, as the eight words are independent. A block that ends up
///   with `J` flows had `g(0) + … + g(J-1)` false positives, and `J` is binomially distributed. That
///   blocks fill unevenly is why blocked filters need more bits (Putze, Sanders, Singler, "Cache-,
///   hash-, and space-efficient Bloom filters", 2009).
///
/// ```
/// use flowradar_core::layout::FilterLayout;
/// use flowradar_core::plan::expected_false_positives;
///
/// // One bit, one hash: every flow but the first is taken for known.
/// let filter = FilterLayout::partitioned(1, 1)?;
/// assert_eq!(expected_false_positives(&filter, 11), 10.0);
/// # Ok::<(), flowradar_core::layout::LayoutError>(())
/// ```
pub fn expected_false_positives(filter: &FilterLayout, flows: u64) -> f64 {
    match *filter {
        FilterLayout::Partitioned {
            hashes,
            partition_bits,
        } => of_partitioned(hashes, partition_bits as f64, flows),
        FilterLayout::Blocked { blocks } => of_blocked(blocks as f64, flows),
    }
}

/// The filter with the fewest bits that has at most `wished` expected false positives.
pub(super) fn smallest(
    kind: FilterKind,
    family: HashFamilyId,
    flows: u64,
    wished: f64,
) -> Result<FilterLayout, LayoutError> {
    match kind {
        FilterKind::Partitioned => smallest_partitioned(family, flows, wished),
        FilterKind::Blocked => {
            let blocks_max = FILTER_BITS_MAX / BLOCK_BITS;
            least(1, blocks_max, |blocks| {
                of_blocked(blocks as f64, flows) <= wished
            })
            .ok_or(LayoutError::FilterBits(FILTER_BITS_MAX + 1))
            .and_then(|blocks| FilterLayout::blocked(blocks as u32))
        }
    }
}

fn smallest_partitioned(
    family: HashFamilyId,
    flows: u64,
    wished: f64,
) -> Result<FilterLayout, LayoutError> {
    let mut best: Option<FilterLayout> = None;
    for hashes in 1..=family.filter_lanes_max() as u8 {
        let most = (FILTER_BITS_MAX / hashes as u64).min(u32::MAX as u64);
        let Some(bits) = least(PARTITION_BITS_MIN, most, |bits| {
            of_partitioned(hashes, bits as f64, flows) <= wished
        }) else {
            continue;
        };
        let filter = FilterLayout::partitioned(hashes, bits as u32)?;
        match best {
            // More hashes first save bits, then cost bits.
            Some(best) if best.bits() < filter.bits() => break,
            _ => best = Some(filter),
        }
    }
    best.ok_or(LayoutError::FilterBits(FILTER_BITS_MAX + 1))
}

/// The least number from `first` to `last` that suffices, to a part in 4,000 (rounded up), where
/// every number above one that suffices suffices too.
fn least(first: u64, last: u64, suffices: impl Fn(u64) -> bool) -> Option<u64> {
    let mut high = first;
    let mut low = first - 1;
    while !suffices(high) {
        low = high;
        if high == last {
            return None;
        }
        high = (high * 2).min(last);
    }
    while high - low > 1 + high / 4000 {
        let middle = low + (high - low) / 2;
        if suffices(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    Some(high)
}

fn of_partitioned(hashes: u8, partition_bits: f64, flows: u64) -> f64 {
    // ln of the chance that one flow leaves a bit clear; minus infinity for one bit.
    let clear = libm::log1p(-1.0 / partition_bits);
    let taken = |before: f64| {
        if before <= 0.0 {
            0.0
        } else {
            power(-libm::expm1(before * clear), hashes)
        }
    };
    const SUMMED_MAX: u64 = 128;
    if flows <= SUMMED_MAX {
        return (0..flows).map(|before| taken(before as f64)).sum();
    }
    // The sum is the integral from one half before the first to one half after the last flow, up to
    // a relative error of the order of hashes² / (24 · flows²); Simpson's rule.
    const INTERVALS: u32 = 64;
    let step = (flows as f64 - 0.5) / INTERVALS as f64;
    let inner: f64 = (1..INTERVALS)
        .map(|index| {
            let weight = if index % 2 == 1 { 4.0 } else { 2.0 };
            weight * taken(index as f64 * step)
        })
        .sum();
    (inner + taken(flows as f64 - 0.5)) * step / 3.0
}

fn of_blocked(blocks: f64, flows: u64) -> f64 {
    let mean = flows as f64 / blocks;
    if mean > BLOCK_FULL as f64 {
        // Every flow beyond the filling is taken for known: how many fall into each block does not
        // matter.
        return blocks * block_false_positives(mean as u64);
    }
    // Beyond, the rest of the distribution does not count any more.
    let most = ((mean + 12.0 * libm::sqrt(mean) + 40.0) as u64).min(flows);
    if blocks <= 1.0 {
        return block_false_positives(flows);
    }
    // The probability of `count` flows in a block, from the most probable number outwards: from zero
    // on it would start at a number too small for a float.
    let odds = 1.0 / (blocks - 1.0);
    let mode = (mean as u64).min(most);
    let ratio = |count: u64| (flows - count) as f64 / (count + 1) as f64 * odds;
    let mut weights: Vec<f64> = alloc::vec![0.0; most as usize + 1];
    weights[mode as usize] = 1.0;
    for count in mode..most {
        weights[count as usize + 1] = weights[count as usize] * ratio(count);
    }
    for count in (0..mode).rev() {
        weights[count as usize] = weights[count as usize + 1] / ratio(count);
    }
    let total: f64 = weights.iter().sum();
    let mut false_positives = 0.0;
    let mut expected = 0.0;
    for (count, weight) in weights.iter().enumerate() {
        expected += weight * false_positives;
        false_positives += block_takes_for_known(count as u64);
    }
    blocks * expected / total
}

/// Expected false positives of a block that `flows` flows fall into.
fn block_false_positives(flows: u64) -> f64 {
    let filling = flows.min(BLOCK_FULL);
    let filling_false_positives: f64 = (0..filling).map(block_takes_for_known).sum();
    filling_false_positives + (flows - filling) as f64
}

/// Chance that a block with so many flows takes the next for known.
fn block_takes_for_known(flows: u64) -> f64 {
    const BITS_OF_A_WORD: f64 = 64.0;
    let clear = libm::log1p(-1.0 / BITS_OF_A_WORD);
    power(-libm::expm1(flows as f64 * clear), BLOCK_HASHES)
}

fn power(base: f64, exponent: u8) -> f64 {
    (0..exponent).fold(1.0, |product, _| product * base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_integral_is_the_sum() {
        for (hashes, bits, flows) in [(1, 200.0, 129), (8, 2500.0, 1000), (17, 1700.0, 1000)] {
            let clear: f64 = 1.0 - 1.0 / bits;
            let sum: f64 = (0..flows)
                .map(|before| power(1.0 - libm::pow(clear, before as f64), hashes))
                .sum();
            let computed = of_partitioned(hashes, bits, flows);
            assert!((computed / sum - 1.0).abs() < 1e-3, "{computed} {sum}");
        }
    }

    /// By another way: the sum over flows of a binomial number of flows before it in its block,
    /// with the power of eight multiplied out.
    #[test]
    fn blocked_agrees_with_inclusion_and_exclusion() {
        const BINOMIALS: [f64; 9] = [1.0, 8.0, 28.0, 56.0, 70.0, 56.0, 28.0, 8.0, 1.0];
        for (blocks, flows) in [(1.0, 300), (20.0, 1000), (40.0, 1000), (3.0, 5)] {
            let sum: f64 = (0..flows)
                .map(|before| {
                    BINOMIALS
                        .iter()
                        .enumerate()
                        .map(|(words, binomial)| {
                            let sign = if words % 2 == 0 { 1.0 } else { -1.0 };
                            let clear = libm::pow(63.0 / 64.0, words as f64);
                            let none = 1.0 - (1.0 - clear) / blocks;
                            sign * binomial * libm::pow(none, before as f64)
                        })
                        .sum::<f64>()
                })
                .sum();
            let computed = of_blocked(blocks, flows);
            assert!(
                (computed - sum).abs() < 1e-6 * sum + 1e-10,
                "{computed} {sum}"
            );
        }
    }

    #[test]
    fn the_smallest_filter_keeps_to_the_wish_and_no_smaller_one_does() {
        for kind in [FilterKind::Partitioned, FilterKind::Blocked] {
            for family in HashFamilyId::ALL {
                for flows in [16, 1_000, 1_000_000] {
                    for wished in [1e-6, 0.01, 1.0] {
                        let filter = smallest(kind, family, flows, wished).expect("fits");
                        assert!(expected_false_positives(&filter, flows) <= wished);
                        let smaller = match filter {
                            FilterLayout::Partitioned {
                                hashes,
                                partition_bits,
                            } if partition_bits as u64 > PARTITION_BITS_MIN => {
                                FilterLayout::partitioned(hashes, partition_bits * 99 / 100)
                            }
                            FilterLayout::Blocked { blocks } if blocks > 1 => {
                                FilterLayout::blocked((blocks * 99 / 100).min(blocks - 1))
                            }
                            _ => continue,
                        };
                        let smaller = smaller.expect("not empty");
                        assert!(expected_false_positives(&smaller, flows) > wished);
                    }
                }
            }
        }
    }
}
