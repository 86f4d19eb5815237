use super::fixture::{Network, NetworkSpec, Random};
use super::*;

/// Counters by status and whether they are right.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Score {
    counters: usize,
    exact: usize,
    joint: usize,
    wrong_exact: usize,
    wrong_joint: usize,
    wrong_bounds: usize,
    wrong_unresolved: usize,
}

fn score(network: &Network, solution: &CounterSolution) -> Score {
    let mut score = Score::default();
    for (truth, counters) in network.truth.iter().zip(&solution.switches) {
        for ((&truth, &value), &status) in
            truth.iter().zip(&counters.values).zip(&counters.statuses)
        {
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
                    score.wrong_unresolved += usize::from(truth != value);
                    score.wrong_bounds += usize::from(!(least..=most).contains(&truth));
                }
            }
        }
    }
    score
}

fn run(spec: NetworkSpec) -> Score {
    let network = spec.make();
    let start = std::time::Instant::now();
    let solution = solve_counters(
        network.flow_count,
        &network.systems,
        &CounterOptions::default(),
    )
    .expect("valid");
    let seconds = start.elapsed().as_secs_f64();
    let score = score(&network, &solution);
    eprintln!(
        "{spec:?}\n  {score:?}\n  {:?} {seconds:.2} s resolved {:.4} %",
        solution.summary,
        100.0 * (score.exact + score.joint) as f64 / score.counters as f64
    );
    score
}

#[test]
#[ignore = "experiment"]
fn experiment() {
    let var = |name: &str, default: f64| -> f64 {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    run(NetworkSpec {
        arity: var("ARITY", 8.0) as usize,
        flows_per_switch: var("FLOWS", 2000.0) as usize,
        hashes: var("K", 3.0) as usize,
        cells_per_flow: var("CELLS", 0.68),
        within_rack: var("RACK", 0.0),
        within_pod: var("POD", 0.0),
        lossy: var("LOSSY", 0.02),
        in_flight: var("FLIGHT", 0.0),
        looping: var("LOOPS", 0.0),
        phantom: var("PHANTOM", 0.0),
        hidden: var("HIDDEN", 0.0),
        undecoded: var("UNDECODED", 0.0),
        missing: var("MISSING", 0.0),
        fewest_packets: var("FEWEST", 1.0) as u64,
        seed: var("SEED", 1.0) as u64,
    });
}

#[test]
#[ignore = "experiment"]
fn debug_wrong() {
    let network = NetworkSpec {
        flows_per_switch: 2000,
        seed: 1,
        ..NetworkSpec::default()
    }
    .make();
    let solution = solve_counters(
        network.flow_count,
        &network.systems,
        &CounterOptions::default(),
    )
    .expect("valid");
    for (s, (truth, counters)) in network.truth.iter().zip(&solution.switches).enumerate() {
        let system = &network.systems[s];
        let mut rest: Vec<i64> = system.counts.iter().map(|&c| c as i64).collect();
        let mut delta = vec![Vec::new(); rest.len()];
        for p in 0..truth.len() {
            for &r in system.rows_of(p) {
                rest[r as usize] -= counters.values[p] as i64;
                if truth[p] != counters.values[p] {
                    delta[r as usize]
                        .push((system.flows[p], truth[p] as i64 - counters.values[p] as i64));
                }
            }
        }
        for p in 0..truth.len() {
            if truth[p] != counters.values[p] {
                let rows: Vec<_> = system
                    .rows_of(p)
                    .iter()
                    .map(|&r| (r, rest[r as usize], delta[r as usize].clone()))
                    .collect();
                eprintln!(
                    "switch {s} flow {} true {} value {} {:?} rows {rows:?}",
                    system.flows[p], truth[p], counters.values[p], counters.statuses[p]
                );
                for (t, other) in network.systems.iter().enumerate() {
                    if let Some(q) = other.flows.iter().position(|&f| f == system.flows[p]) {
                        eprintln!(
                            "    at {t} true {} value {} {:?}",
                            network.truth[t][q],
                            solution.switches[t].values[q],
                            solution.switches[t].statuses[q]
                        );
                    }
                }
            }
        }
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
    let hidden: f64 = hidden;
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

#[test]
fn soak() {
    let rounds = std::env::var("COUNTER_SOAK_NETWORKS")
        .ok()
        .and_then(|text| text.parse().ok());
    let first = std::env::var("COUNTER_SOAK_FIRST")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0u64);
    let mut total = Score::default();
    for seed in first..first + rounds.unwrap_or(150u64) {
        let spec = random_spec(seed);
        let network = spec.make();
        let solution = solve_counters(
            network.flow_count,
            &network.systems,
            &CounterOptions::default(),
        )
        .expect("the generator makes valid systems");
        let score = score(&network, &solution);
        if score.wrong_exact + score.wrong_joint + score.wrong_bounds > 0 {
            eprintln!("{spec:?}\n    {score:?}");
        }
        total.add(score);
    }
    eprintln!("{total:?}");
    assert_eq!(total.wrong_exact, 0, "{total:?}");
    assert_eq!(total.wrong_bounds, 0, "{total:?}");
    assert!(total.wrong_joint * 10_000 <= total.joint, "{total:?}");
}

impl Score {
    fn add(&mut self, other: Self) {
        self.counters += other.counters;
        self.exact += other.exact;
        self.joint += other.joint;
        self.wrong_exact += other.wrong_exact;
        self.wrong_joint += other.wrong_joint;
        self.wrong_bounds += other.wrong_bounds;
        self.wrong_unresolved += other.wrong_unresolved;
    }
}

#[test]
#[ignore = "experiment"]
fn classify() {
    use std::collections::BTreeMap;
    let rounds: u64 = std::env::var("COUNTER_SOAK_NETWORKS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1000);
    let mut table: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for seed in 0..rounds {
        let spec = random_spec(seed);
        let network = spec.make();
        let solution = solve_counters(
            network.flow_count,
            &network.systems,
            &CounterOptions::default(),
        )
        .expect("the generator makes valid systems");
        let mut by_flow: Vec<Vec<(usize, u64, bool)>> = vec![Vec::new(); network.flow_count];
        for (s, c) in solution.switches.iter().enumerate() {
            for (p, &v) in c.values.iter().enumerate() {
                by_flow[network.systems[s].flows[p] as usize].push((
                    s,
                    v,
                    matches!(c.statuses[p], CounterStatus::Unresolved { .. }),
                ));
            }
        }
        for (s, c) in solution.switches.iter().enumerate() {
            let system = &network.systems[s];
            for (p, &v) in c.values.iter().enumerate() {
                if c.statuses[p] != CounterStatus::Joint {
                    continue;
                }
                let places = &by_flow[system.flows[p] as usize];
                let same = places.iter().filter(|x| x.1 == v).count();
                let kind = if places.len() == 1 {
                    "single"
                } else if same == 1 {
                    "alone"
                } else if same * 2 > places.len() {
                    "majority"
                } else {
                    "minority"
                };
                let doubt = places.iter().any(|x| x.2);
                let key = format!(
                    "{kind:9} otherdoubt {doubt:5} unexplained {:5} hidden {:5} k2 {:5} tiny {:5}",
                    c.unexplained_rows > 0,
                    spec.hidden > 0.0,
                    spec.hashes == 2,
                    system.counts.len() / spec.hashes < 30
                );
                let entry = table.entry(key).or_default();
                entry.0 += 1;
                entry.1 += usize::from(v != network.truth[s][p]);
            }
        }
    }
    for (key, (all, wrong)) in table {
        eprintln!("{key} {all:8} {wrong:6} {:.5}", wrong as f64 / all as f64);
    }
}

#[test]
#[ignore = "experiment"]
fn phases() {
    use super::elimination::{Elimination, SparseColumns};
    let mut random = Random(5);
    for flows in [10_000usize, 100_000] {
        let subtable = (flows as f64 * 1.025 / 4.0) as usize;
        let mut matrix = SparseColumns {
            starts: vec![0],
            row_count: subtable * 4,
            ..SparseColumns::default()
        };
        for _ in 0..(flows as f64
            * std::env::var("SHARE")
                .ok()
                .and_then(|t| t.parse().ok())
                .unwrap_or(1.0)) as usize
        {
            for k in 0..4 {
                matrix
                    .rows
                    .push((k * subtable + random.below(subtable)) as u32);
            }
            matrix.starts.push(matrix.rows.len() as u32);
        }
        let x: Vec<i64> = (0..matrix.len())
            .map(|_| random.below(1000) as i64)
            .collect();
        let mut counts = vec![0i64; matrix.row_count];
        for (c, &v) in x.iter().enumerate() {
            for &r in matrix.column(c as u32) {
                counts[r as usize] += v;
            }
        }
        let start = std::time::Instant::now();
        let e = Elimination::new(matrix.clone(), 1 << 30, true);
        eprintln!("{flows}: eliminate {:?}", start.elapsed());
        let Ok(e) = e else {
            eprintln!("{:?}", e.err());
            continue;
        };
        eprintln!("  dense {}", e.dense_columns());
        let start = std::time::Instant::now();
        let solved = e.solve(&mut counts);
        eprintln!(
            "  solve {:?} {}",
            start.elapsed(),
            solved.as_ref() == Some(&x)
        );
    }
}
