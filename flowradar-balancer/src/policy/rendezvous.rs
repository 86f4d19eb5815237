//! Weighted rendezvous hashing (highest random weight).

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The score of a back end for a unit: the unit belongs to the back end with the highest.
///
/// A back end of weight `w` has the highest score with probability `w` / sum of weights,
/// independently for each unit, and a change of one back end moves only units from it or to it:
/// each score depends on one unit and one back end alone. (Thaler and Ravishankar 1998; weights by
/// the logarithm of a uniform number.) Weights of 0 or less never win.
pub fn rendezvous_score(unit_hash: u64, back_end_hash: u64, weight: f64) -> f64 {
    if weight <= 0.0 {
        return f64::NEG_INFINITY;
    }
    weight / -uniform(mix(unit_hash ^ back_end_hash)).ln()
}

/// A hash of a back end's name: assignments survive a change of order in the configuration.
pub(crate) fn name_hash(name: &str, seed: u64) -> u64 {
    xxh3_64_with_seed(name.as_bytes(), seed)
}

/// A number in (0, 1) from 53 bits.
pub(crate) fn uniform(hash: u64) -> f64 {
    ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

/// The finaliser of SplitMix64: every bit of the input moves every bit of the output.
pub(crate) const fn mix(mut word: u64) -> u64 {
    word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wins_follow_weights() {
        let back_ends = [
            (name_hash("a", 0), 1.0),
            (name_hash("b", 0), 2.0),
            (name_hash("c", 0), 5.0),
        ];
        let mut wins = [0_u32; 3];
        for unit in 0..80_000_u64 {
            let scores = back_ends.map(|(hash, weight)| rendezvous_score(mix(unit), hash, weight));
            let best = (0..3).max_by(|&a, &b| scores[a].total_cmp(&scores[b]));
            wins[best.expect("three scores")] += 1;
        }
        // Five standard deviations of a binomial with 80,000 trials are below 750.
        for (won, expected) in wins.iter().zip([10_000, 20_000, 50_000]) {
            assert!(won.abs_diff(expected) < 750, "{wins:?}");
        }
    }

    #[test]
    fn no_weight_never_wins() {
        assert_eq!(rendezvous_score(1, 2, 0.0), f64::NEG_INFINITY);
        assert!(rendezvous_score(1, 2, 1e-9) > 0.0);
    }
}
