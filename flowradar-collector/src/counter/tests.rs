//! Ground truth from random networks, and small systems whose answers follow from the definitions.

use super::fixture::{Network, NetworkSpec, Random};
use super::*;

/// Counters by status, and how many of them are wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Score {
    counters: usize,
    exact: usize,
    joint: usize,
    wrong_exact: usize,
    wrong_joint: usize,
    wrong_bounds: usize,
}

impl Score {
    fn of(network: &Network, solution: &CounterSolution) -> Self {
        let mut score = Self::default();
        for (truth, counters) in network.truth.iter().zip(&solution.switches) {
            assert_eq!(truth.len(), counters.values.len());
            let counters = counters.values.iter().zip(&counters.statuses);
            for (&truth, (&value, &status)) in truth.iter().zip(counters) {
                score.counters += 1;
                match status {
                    CounterStatus::Exact => {
                        score.exact += 1;
                        score.wrong_exact += usize::from(truth != value);
                    }
                    CounterStatus::Joint => {
                        score.joint += 1;
                        score.wrong_joint += usize::from(truth != value);
                    }
                    CounterStatus::Unresolved { least, most } => {
                        let holds = (least..=most).contains(&truth);
                        score.wrong_bounds += usize::from(!holds);
                        assert!((least..=most).contains(&value));
                    }
                }
            }
        }
        score
    }

    fn add(&mut self, other: Self) {
        self.counters += other.counters;
        self.exact += other.exact;
        self.joint += other.joint;
        self.wrong_exact += other.wrong_exact;
        self.wrong_joint += other.wrong_joint;
        self.wrong_bounds += other.wrong_bounds;
    }

    /// No exact counter and no bound is wrong, and fewer than one in 10,000 joint counters.
    fn assert_honest(&self) {
        assert_eq!((self.wrong_exact, self.wrong_bounds), (0, 0), "{self:?}");
        assert!(self.wrong_joint * 10_000 <= self.joint, "{self:?}");
    }

    fn resolved(&self) -> f64 {
        (self.exact + self.joint) as f64 / self.counters as f64
    }
}

fn solve(network: &Network) -> CounterSolution {
    solve_counters(
        network.flow_count,
        &network.systems,
        &CounterOptions::default(),
    )
    .expect("the generator makes valid systems")
}

fn score(spec: NetworkSpec) -> Score {
    let network = spec.make();
    let score = Score::of(&network, &solve(&network));
    score.assert_honest();
    score
}

/// A network of one switch, and the true counters.
fn one_switch(spec: NetworkSpec) -> (SwitchSystem, Vec<u64>) {
    let mut network = NetworkSpec {
        arity: 2,
        missing: 0.0,
        ..spec
    }
    .make();
    (network.systems.swap_remove(0), network.truth.swap_remove(0))
}

fn solve_one(system: SwitchSystem) -> SwitchCounters {
    let flow_count = system
        .flows
        .iter()
        .max()
        .map_or(0, |&flow| flow as usize + 1);
    let mut solution = solve_counters(flow_count, &[system], &CounterOptions::default())
        .expect("the generator makes valid systems");
    solution.switches.remove(0)
}

#[test]
fn joint_counters_in_half_the_memory() {
    for (hashes, cells_per_flow) in [(2, 0.5), (3, 0.62), (3, 0.68), (4, 0.75)] {
        let score = score(NetworkSpec {
            hashes,
            cells_per_flow,
            flows_per_switch: 1000,
            ..NetworkSpec::default()
        });
        assert!(
            score.resolved() >= 0.999,
            "{hashes} hashes, {cells_per_flow}: {score:?}"
        );
    }
}

#[test]
fn joint_counters_of_large_flows_only() {
    let score = score(NetworkSpec {
        fewest_packets: 50,
        flows_per_switch: 1500,
        ..NetworkSpec::default()
    });
    assert_eq!(score.exact, 0, "an overloaded switch proves nothing");
    assert!(score.resolved() >= 0.999, "{score:?}");
}

#[test]
fn joint_counters_with_mixed_paths_and_packets_in_flight() {
    let score = score(NetworkSpec {
        within_rack: 0.15,
        within_pod: 0.25,
        in_flight: 0.05,
        flows_per_switch: 1500,
        ..NetworkSpec::default()
    });
    assert!(score.resolved() >= 0.999, "{score:?}");
}

#[test]
fn joint_counters_with_faults() {
    let spec = NetworkSpec {
        flows_per_switch: 1500,
        ..NetworkSpec::default()
    };
    let missing = score(NetworkSpec {
        missing: 0.1,
        ..spec
    });
    assert!(missing.resolved() >= 0.999, "{missing:?}");
    let looping = score(NetworkSpec {
        looping: 0.01,
        ..spec
    });
    assert!(looping.resolved() >= 0.999, "{looping:?}");
    let phantom = score(NetworkSpec {
        phantom: 0.01,
        ..spec
    });
    assert!(phantom.resolved() >= 0.998, "{phantom:?}");
    // Each hidden flow spoils k cells with some four flows each.
    let hidden = score(NetworkSpec {
        hidden: 1.0,
        ..spec
    });
    assert!(hidden.resolved() >= 0.98, "{hidden:?}");
}

#[test]
fn one_switch_above_the_threshold_is_exact() {
    let spec = NetworkSpec {
        hashes: 4,
        cells_per_flow: 1.025,
        arity: 4,
        ..NetworkSpec::default()
    };
    for flows_per_switch in [1000, 5000] {
        let score = score(NetworkSpec {
            flows_per_switch,
            ..spec
        });
        assert!(
            score.exact as f64 >= 0.999 * score.counters as f64,
            "{score:?}"
        );
    }
}

#[test]
fn elimination_proves_what_bounds_do_not() {
    for (hashes, cells_per_flow) in [(3, 1.13), (4, 1.06), (5, 1.05)] {
        let (system, truth) = one_switch(NetworkSpec {
            hashes,
            cells_per_flow,
            fewest_packets: 1000,
            flows_per_switch: 2000,
            ..NetworkSpec::default()
        });
        let counters = solve_one(system);
        assert_eq!(counters.values, truth);
        assert!(
            counters
                .statuses
                .iter()
                .all(|&status| status == CounterStatus::Exact)
        );
    }
}

#[test]
fn byte_counters() {
    let (mut system, mut truth) = one_switch(NetworkSpec {
        hashes: 4,
        cells_per_flow: 1.08,
        fewest_packets: 20,
        flows_per_switch: 1500,
        ..NetworkSpec::default()
    });
    // Up to 2^40 bytes: 100,000 bytes a packet.
    truth.iter_mut().for_each(|counter| *counter *= 100_000);
    system.counts.iter_mut().for_each(|count| *count *= 100_000);
    system.least.fill(20);
    let counters = solve_one(system);
    assert_eq!(counters.values, truth);
    assert!(
        counters
            .statuses
            .iter()
            .all(|&status| status == CounterStatus::Exact)
    );
}

#[test]
fn a_hidden_flow_leaves_nothing_exact_but_bounds() {
    let spec = NetworkSpec {
        hashes: 4,
        cells_per_flow: 1.2,
        fewest_packets: 5,
        flows_per_switch: 1500,
        ..NetworkSpec::default()
    };
    for seed in 0..8 {
        let (mut system, truth) = one_switch(NetworkSpec { seed, ..spec });
        let subtable = system.counts.len() / 4;
        let random = &mut Random(seed);
        for place in 0..4 {
            system.counts[place * subtable + random.below(subtable)] += 7;
        }
        let counters = solve_one(system);
        for (&truth, &status) in truth.iter().zip(&counters.statuses) {
            assert_ne!(status, CounterStatus::Exact);
            if let CounterStatus::Unresolved { least, most } = status {
                assert!((least..=most).contains(&truth));
            }
        }
    }
}

#[test]
fn full_cells_bound_nothing() {
    let full = SwitchSystem {
        hashes: 2,
        counts: vec![u64::MAX, 9, u64::MAX, u64::MAX],
        known: vec![false, true, false, false],
        flows: vec![0, 1, 2],
        cells: vec![0, 2, 1, 3, 1, 2],
        least: vec![1, 1, 3],
        hints: Vec::new(),
    };
    let counters = solve_one(full);
    assert_eq!(
        counters.statuses,
        [
            CounterStatus::Unresolved {
                least: 1,
                most: u64::MAX
            },
            CounterStatus::Unresolved { least: 1, most: 6 },
            CounterStatus::Unresolved { least: 3, most: 8 },
        ]
    );
}

#[test]
fn a_cell_at_its_lower_bounds_is_exact_whatever_else() {
    // Both flows are in cell 0; the other cells have undecoded flows.
    let system = SwitchSystem {
        hashes: 2,
        counts: vec![2, 0, 900, 900],
        known: vec![false; 4],
        flows: vec![0, 1],
        cells: vec![0, 2, 0, 3],
        least: vec![1, 1],
        hints: Vec::new(),
    };
    let counters = solve_one(system);
    assert_eq!(counters.values, [1, 1]);
    assert_eq!(counters.statuses, [CounterStatus::Exact; 2]);
}

#[test]
fn flows_with_the_same_cells_are_unresolved() {
    let (mut system, _) = one_switch(NetworkSpec {
        cells_per_flow: 1.5,
        fewest_packets: 10,
        flows_per_switch: 600,
        ..NetworkSpec::default()
    });
    let twins = system.flows.len() - 2..system.flows.len();
    let copied = system.rows_of(twins.start).to_vec();
    for (place, &row) in copied.iter().enumerate() {
        let own = system.cells[(twins.start + 1) * 3 + place];
        let moved = system.counts[own as usize].min(10);
        system.counts[own as usize] -= moved;
        system.counts[row as usize] += moved;
        system.cells[(twins.start + 1) * 3 + place] = row;
    }
    let counters = solve_one(system);
    for twin in twins {
        assert!(!counters.statuses[twin].is_resolved());
    }
}

#[test]
fn a_deviation_that_two_flows_could_have_is_unresolved() {
    let spec = NetworkSpec {
        flows_per_switch: 1500,
        fewest_packets: 10,
        lossy: 0.0,
        ..NetworkSpec::default()
    };
    let mut network = spec.make();
    // At one switch a flow moves to the cells of another one and loses a packet there.
    let system = &mut network.systems[0];
    let [one, other] = [10usize, 11];
    for place in 0..3 {
        let (from, to) = (
            system.cells[other * 3 + place],
            system.cells[one * 3 + place],
        );
        system.counts[from as usize] -= network.truth[0][other];
        system.counts[to as usize] += network.truth[0][other] - 1;
        system.cells[other * 3 + place] = to;
    }
    network.truth[0][other] -= 1;
    let solution = solve(&network);
    let score = Score::of(&network, &solution);
    score.assert_honest();
    let statuses = &solution.switches[0].statuses;
    assert!(!statuses[one].is_resolved() && !statuses[other].is_resolved());
    assert!(score.counters - score.exact - score.joint < 20, "{score:?}");
}

#[test]
fn overload_is_marked() {
    let score = score(NetworkSpec {
        cells_per_flow: 0.3,
        flows_per_switch: 800,
        fewest_packets: 5,
        ..NetworkSpec::default()
    });
    assert!(score.resolved() < 0.5, "{score:?}");
}

#[test]
fn elimination_beyond_the_budget_is_said() {
    let (system, _) = one_switch(NetworkSpec {
        hashes: 4,
        cells_per_flow: 1.1,
        fewest_packets: 50,
        flows_per_switch: 1000,
        ..NetworkSpec::default()
    });
    let flow_count = system
        .flows
        .iter()
        .max()
        .map_or(0, |&flow| flow as usize + 1);
    let options = CounterOptions {
        dense_core_bytes: 1000,
        ..CounterOptions::default()
    };
    let solution = solve_counters(flow_count, &[system], &options).expect("valid");
    assert_eq!(
        (solution.summary.over_budget, solution.summary.exact),
        (1, 0)
    );
}

#[test]
fn threads_do_not_matter() {
    let network = NetworkSpec {
        flows_per_switch: 600,
        in_flight: 0.05,
        within_rack: 0.2,
        ..NetworkSpec::default()
    }
    .make();
    let with_threads = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("threads can be started")
            .install(|| solve(&network))
    };
    assert_eq!(with_threads(1), with_threads(3));
}

#[test]
fn contradictory_counts_are_no_error() {
    // Lower bounds above the counts, sums that differ between the subtables, huge counts.
    let system = SwitchSystem {
        hashes: 2,
        counts: vec![0, u64::MAX - 1, 5, 1 << 62, 3, 0],
        known: vec![true; 6],
        flows: vec![0, 1, 2, 3],
        cells: vec![0, 3, 0, 4, 1, 5, 2, 4],
        least: vec![4, u64::MAX, 1, 0],
        hints: vec![Some(u64::MAX), None, Some(3), None],
    };
    let counters = solve_one(system);
    assert_eq!(counters.statuses.len(), 4);
    let empty = solve_counters(0, &[], &CounterOptions::default()).expect("valid");
    assert_eq!(empty, CounterSolution::default());
}

#[test]
fn systems_that_do_not_fit_are_refused() {
    let good = SwitchSystem {
        hashes: 2,
        counts: vec![1; 4],
        known: vec![true; 4],
        flows: vec![0, 1],
        cells: vec![0, 2, 1, 3],
        least: vec![1; 2],
        hints: Vec::new(),
    };
    let solve = |system: &SwitchSystem| {
        solve_counters(2, std::slice::from_ref(system), &CounterOptions::default()).map(|_| ())
    };
    assert_eq!(solve(&good), Ok(()));
    let refused: [(SwitchSystem, CounterInputError); 6] = [
        (
            SwitchSystem {
                hashes: 7,
                ..good.clone()
            },
            CounterInputError::Hashes {
                switch: 0,
                hashes: 7,
            },
        ),
        (
            SwitchSystem {
                known: vec![true; 3],
                ..good.clone()
            },
            CounterInputError::Length {
                switch: 0,
                column: "known",
                found: 3,
                expected: 4,
            },
        ),
        (
            SwitchSystem {
                hints: vec![None],
                ..good.clone()
            },
            CounterInputError::Length {
                switch: 0,
                column: "hints",
                found: 1,
                expected: 2,
            },
        ),
        (
            SwitchSystem {
                cells: vec![0, 2, 1, 4],
                ..good.clone()
            },
            CounterInputError::Row {
                switch: 0,
                position: 1,
                row: 4,
            },
        ),
        (
            SwitchSystem {
                cells: vec![0, 2, 1, 1],
                ..good.clone()
            },
            CounterInputError::Row {
                switch: 0,
                position: 1,
                row: 1,
            },
        ),
        (
            SwitchSystem {
                flows: vec![1, 1],
                ..good
            },
            CounterInputError::Flow { switch: 0, flow: 1 },
        ),
    ];
    for (system, error) in refused {
        assert_eq!(solve(&system), Err(error));
    }
}

/// A small network with any mix of faults.
fn random_spec(seed: u64) -> NetworkSpec {
    let random = &mut Random(seed.wrapping_mul(0x9e37_79b9) ^ 0x50a4);
    let mut fault = |most: f64| {
        let present = random.chance(0.4);
        let size = random.unit();
        if present { most * size * size } else { 0.0 }
    };
    let (lossy, in_flight, looping) = (fault(0.3), fault(0.3), fault(0.1));
    let (phantom, hidden, undecoded) = (fault(0.1), fault(3.0), fault(0.1));
    let (missing, within_rack, within_pod) = (fault(0.5), fault(0.5), fault(0.5));
    let flows = 1 << (3 + random.below(7));
    NetworkSpec {
        arity: 2 + 2 * random.below(3),
        flows_per_switch: 5 + random.below(flows),
        hashes: 2 + random.below(5),
        cells_per_flow: 0.3 + 1.5 * random.unit(),
        within_rack,
        within_pod,
        lossy,
        in_flight,
        looping,
        phantom,
        hidden,
        undecoded,
        missing,
        fewest_packets: if random.chance(0.7) { 1 } else { 40 },
        seed,
    }
}

/// Set `COUNTER_SOAK_NETWORKS` for more networks and `COUNTER_SOAK_FIRST` for others.
#[test]
fn random_faulty_networks() {
    let variable = |name: &str, default: u64| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let first = variable("COUNTER_SOAK_FIRST", 0);
    let mut total = Score::default();
    for seed in first..first + variable("COUNTER_SOAK_NETWORKS", 200) {
        let network = random_spec(seed).make();
        let score = Score::of(&network, &solve(&network));
        if score.wrong_exact + score.wrong_joint + score.wrong_bounds > 0 {
            eprintln!("seed {seed}: {score:?}");
        }
        total.add(score);
    }
    eprintln!("{total:?}");
    total.assert_honest();
    assert!(total.exact > 0 && total.joint > 0 && total.resolved() < 1.0);
}
