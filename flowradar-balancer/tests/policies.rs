//! What the policies promise, as properties.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use flowradar_balancer::Timestamp;
use flowradar_balancer::policy::estimate::EstimatorSettings;
use flowradar_balancer::policy::{
    Availability, BackEndId, BackEndSettings, Balancer, BalancerSettings, Policy, Unit, UnitKey,
};
use proptest::prelude::*;

const LATER: Timestamp = Timestamp::from_millis(3_600_000);

fn balancer(policy: Policy, weights: &[f64]) -> Balancer {
    let settings = BalancerSettings {
        policy,
        ..BalancerSettings::default()
    };
    let back_ends = weights
        .iter()
        .enumerate()
        .map(|(index, &weight)| BackEndSettings {
            weight,
            ..BackEndSettings::new(BackEndId(index as u16), format!("collector {index}"))
        });
    Balancer::new(settings, back_ends)
}

fn key(number: u64) -> UnitKey {
    UnitKey::new(
        IpAddr::V4(Ipv4Addr::from(0x0a00_0000 | number as u32)),
        number,
    )
}

/// Dispatches `amount` of each unit at one time, and returns where each went.
fn dispatch_all(
    balancer: &mut Balancer,
    units: &mut [(UnitKey, Unit)],
    amount: f64,
    now: Timestamp,
) -> Vec<BackEndId> {
    let dispatched = units.iter_mut().map(|(key, unit)| {
        balancer
            .dispatch(unit, *key, amount, now)
            .expect("one is up")
            .back_end
    });
    dispatched.collect()
}

fn units(count: u64, now: Timestamp) -> Vec<(UnitKey, Unit)> {
    (0..count)
        .map(|number| (key(number), Unit::new(now)))
        .collect()
}

fn policies() -> impl Strategy<Value = Policy> {
    prop_oneof![
        Just(Policy::RoundRobin),
        Just(Policy::Rendezvous { load_bound: None }),
        Just(Policy::Rendezvous {
            load_bound: Some(0.25)
        }),
        Just(Policy::LeastLoaded),
        Just(Policy::EstimatedLoad {
            horizon: Duration::from_millis(500)
        }),
        Just(Policy::Fixed {
            routes: vec![("10.0.0.0/8".parse().expect("a prefix"), vec![BackEndId(0)])]
        }),
    ]
}

proptest! {
    /// A failure moves the units of the failed back end and no other; nothing goes to it.
    #[test]
    fn failure_moves_only_what_it_must(policy in policies(), back_ends in 2_usize..8, failed in 0_u16..8, count in 1_u64..300) {
        let failed = BackEndId(failed % back_ends as u16);
        let mut balancer = balancer(policy, &vec![1.0; back_ends]);
        let mut units = units(count, Timestamp::ZERO);
        let before = dispatch_all(&mut balancer, &mut units, 10.0, Timestamp::ZERO);
        balancer.set_availability(failed, Availability::Down, Timestamp::from_millis(1));
        let after = dispatch_all(&mut balancer, &mut units, 10.0, Timestamp::from_millis(2));
        for (before, after) in before.iter().zip(&after) {
            prop_assert!(*after != failed);
            prop_assert!(before == after || *before == failed);
        }
    }

    /// A unit moves to a new back end or not at all (rendezvous without bound).
    #[test]
    fn growth_moves_only_to_the_new(back_ends in 1_usize..8, count in 1_u64..300) {
        let policy = Policy::Rendezvous { load_bound: None };
        let mut balancer = balancer(policy, &vec![1.0; back_ends]);
        let mut units = units(count, Timestamp::ZERO);
        let before = dispatch_all(&mut balancer, &mut units, 10.0, Timestamp::ZERO);
        let new = BackEndId(100);
        balancer.add(BackEndSettings::new(new, "new"), None);
        for ((key, unit), before) in units.iter_mut().zip(before) {
            balancer.rebalance(unit, *key, LATER);
            let after = unit.assigned().expect("assigned");
            prop_assert!(after == before || after == new);
        }
    }

    /// No back end is given more than its bound: (1 + bound) of its fair share, and one unit.
    #[test]
    fn load_stays_within_the_bound(
        weights in prop::collection::vec(1_u32..5, 2..8),
        loads in prop::collection::vec(1_u32..50, 1..300),
        bound in 0.05_f64..1.0,
    ) {
        let weights: Vec<f64> = weights.into_iter().map(f64::from).collect();
        let mut balancer = balancer(Policy::Rendezvous { load_bound: Some(bound) }, &weights);
        let mut largest: f64 = 0.0;
        for (number, &load) in loads.iter().enumerate() {
            let mut unit = Unit::new(Timestamp::ZERO);
            balancer.dispatch(&mut unit, key(number as u64), f64::from(load), Timestamp::ZERO);
            largest = largest.max(unit.estimate().rate_per_second());
        }
        let total: f64 = balancer.status(Timestamp::ZERO).iter().map(|status| status.assigned_per_second).sum();
        let sum_of_weights: f64 = weights.iter().sum();
        for (status, weight) in balancer.status(Timestamp::ZERO).iter().zip(&weights) {
            let limit = (1.0 + bound) * total * weight / sum_of_weights + largest;
            prop_assert!(status.assigned_per_second <= limit * 1.000_001, "{status:?} above {limit}");
        }
    }

    /// Loads and units are accounted to nobody once all units are released.
    #[test]
    fn released_units_leave_nothing(policy in policies(), count in 1_u64..100, steps in 1_u64..20) {
        let mut balancer = balancer(policy, &[1.0, 2.0, 1.0]);
        let mut units = units(count, Timestamp::ZERO);
        for step in 0..steps {
            let now = Timestamp::from_millis(step * 1000);
            let state = if step % 3 == 1 { Availability::Down } else { Availability::Up };
            balancer.set_availability(BackEndId((step % 2) as u16), state, now);
            dispatch_all(&mut balancer, &mut units, (step + 1) as f64, now);
        }
        for (_, unit) in units {
            balancer.release(unit);
        }
        for status in balancer.status(LATER) {
            prop_assert_eq!(status.units, 0);
            prop_assert_eq!(status.assigned_per_second, 0.0);
        }
    }
}

/// The share of a failed back end is spread over all others, in every policy that has a choice.
#[test]
fn a_failed_share_is_spread() {
    for policy in [
        Policy::RoundRobin,
        Policy::Rendezvous { load_bound: None },
        Policy::Rendezvous {
            load_bound: Some(0.25),
        },
        Policy::LeastLoaded,
        Policy::EstimatedLoad {
            horizon: Duration::from_millis(500),
        },
    ] {
        let mut balancer = balancer(policy.clone(), &[1.0; 5]);
        let mut units = units(2000, Timestamp::ZERO);
        let before = dispatch_all(&mut balancer, &mut units, 10.0, Timestamp::ZERO);
        balancer.set_availability(BackEndId(2), Availability::Down, Timestamp::ZERO);
        let after = dispatch_all(&mut balancer, &mut units, 10.0, Timestamp::from_millis(10));
        let mut took = BTreeMap::<BackEndId, u32>::new();
        let mut orphans = 0;
        for (before, after) in before.iter().zip(&after) {
            if *before == BackEndId(2) {
                orphans += 1;
                *took.entry(*after).or_default() += 1;
            }
        }
        assert!(orphans > 300, "{policy:?}: {orphans}");
        for id in [0, 1, 3, 4].map(BackEndId) {
            // A quarter each: 100 of 400, with a standard deviation below 10.
            let share = f64::from(took.get(&id).copied().unwrap_or(0)) / f64::from(orphans);
            assert!(
                (0.12..0.38).contains(&share),
                "{policy:?}: {took:?} of {orphans}"
            );
        }
    }
}

#[test]
fn fixed_prefixes_prefer_the_longest_and_return() {
    let routes = vec![
        ("10.0.0.0/8".parse().expect("a prefix"), vec![BackEndId(0)]),
        (
            "10.1.0.0/16".parse().expect("a prefix"),
            vec![BackEndId(1), BackEndId(2)],
        ),
    ];
    let mut balancer = balancer(Policy::Fixed { routes }, &[1.0; 3]);
    let long = UnitKey::new("10.1.2.3".parse().expect("an address"), 1);
    let short = UnitKey::new("10.2.2.3".parse().expect("an address"), 2);
    let mut unit = Unit::new(Timestamp::ZERO);
    let at = |balancer: &mut Balancer, unit: &mut Unit, key, ms| {
        let dispatch = balancer.dispatch(unit, key, 1.0, Timestamp::from_millis(ms));
        dispatch.expect("one is up").back_end
    };
    assert_eq!(
        at(&mut balancer, &mut Unit::new(Timestamp::ZERO), short, 0),
        BackEndId(0)
    );
    assert_eq!(at(&mut balancer, &mut unit, long, 0), BackEndId(1));
    balancer.set_availability(BackEndId(1), Availability::Down, Timestamp::from_millis(1));
    assert_eq!(at(&mut balancer, &mut unit, long, 2), BackEndId(2));
    balancer.set_availability(BackEndId(1), Availability::Up, Timestamp::from_millis(3));
    assert_eq!(
        at(&mut balancer, &mut unit, long, 4),
        BackEndId(2),
        "no move without need"
    );
    let moved = balancer
        .rebalance(&mut unit, long, LATER)
        .expect("home again");
    assert_eq!(moved.back_end, BackEndId(1));
}

#[test]
fn nothing_up_gives_nothing() {
    let mut balancer = balancer(Policy::LeastLoaded, &[1.0; 2]);
    let mut unit = Unit::new(Timestamp::ZERO);
    for id in [0, 1] {
        balancer.set_availability(BackEndId(id), Availability::Down, Timestamp::ZERO);
    }
    assert_eq!(
        balancer.dispatch(&mut unit, key(1), 1.0, Timestamp::ZERO),
        None
    );
    assert_eq!(balancer.dispatch_once(key(1), 1.0, Timestamp::ZERO), None);
    // Draining is better than nothing.
    balancer.set_availability(BackEndId(1), Availability::Draining, Timestamp::ZERO);
    let dispatch = balancer.dispatch(&mut unit, key(1), 1.0, Timestamp::ZERO);
    assert_eq!(
        dispatch.map(|dispatch| dispatch.back_end),
        Some(BackEndId(1))
    );
}

#[test]
fn a_recovered_back_end_comes_back_slowly() {
    let mut balancer = balancer(Policy::Rendezvous { load_bound: None }, &[1.0; 3]);
    balancer.set_availability(BackEndId(0), Availability::Down, Timestamp::ZERO);
    balancer.set_availability(BackEndId(0), Availability::Up, Timestamp::from_millis(1000));
    let share = |now_ms| {
        let now = Timestamp::from_millis(now_ms);
        let hits =
            (0..6000).filter(|&unit| balancer.by_hash(key(unit).hash, now) == Some(BackEndId(0)));
        hits.count()
    };
    // Weights of 0.05, 0.5 and 1 beside two of 1: 2.4 %, 20 % and 33 % of 6000.
    let (start, middle, end) = (share(1000), share(16_000), share(60_000));
    assert!((80..220).contains(&start), "{start}");
    assert!((1050..1350).contains(&middle), "{middle}");
    assert!((1850..2150).contains(&end), "{end}");
}

/// The paper's claim: with long, uneven units, estimates balance where turns do not.
#[test]
fn estimates_balance_uneven_units_where_turns_do_not() {
    let imbalance = |policy: Policy| {
        let mut balancer = balancer(policy, &[1.0; 4]);
        let mut received = [0.0_f64; 4];
        let mut units = units(64, Timestamp::ZERO);
        for step in 0..200_u64 {
            let now = Timestamp::from_millis(step * 500);
            for (number, (key, unit)) in units.iter_mut().enumerate() {
                // Units appear one after the other; every fourth is a hundred times as heavy.
                if (number as u64) > step {
                    continue;
                }
                let amount = if number % 4 == 0 { 1000.0 } else { 10.0 };
                let to = balancer
                    .dispatch(unit, *key, amount, now)
                    .expect("all are up")
                    .back_end;
                received[to.0 as usize] += amount;
            }
        }
        let mean = received.iter().sum::<f64>() / 4.0;
        received
            .iter()
            .fold(0.0_f64, |worst, got| worst.max(got / mean))
    };
    assert!(imbalance(Policy::RoundRobin) > 3.0);
    assert!(imbalance(Policy::LeastLoaded) < 1.3);
    assert!(
        imbalance(Policy::EstimatedLoad {
            horizon: Duration::from_millis(500)
        }) < 1.3
    );
}

/// Equation 1 by hand: `R_i - t * sum of r_j * p_j` of two back ends whose residual capacity is known.
#[test]
fn residual_capacity_is_weighed_against_what_is_expected() {
    let policy = Policy::EstimatedLoad {
        horizon: Duration::from_millis(100),
    };
    let settings = BalancerSettings {
        policy,
        estimator: EstimatorSettings {
            rate_time_constant: Duration::from_millis(200),
            ..EstimatorSettings::default()
        },
        ..BalancerSettings::default()
    };
    let back_ends = (0..2).map(|id| BackEndSettings::new(BackEndId(id), format!("server {id}")));
    let mut balancer = Balancer::new(settings, back_ends);
    // A unit of 20 at once has a rate of 20 / 0.2 = 100 a second: 10 in the next 100 ms.
    let mut unit = Unit::new(Timestamp::ZERO);
    balancer.place(&mut unit, BackEndId(0), Timestamp::ZERO);
    balancer.dispatch(&mut unit, key(1), 20.0, Timestamp::ZERO);
    let choice = |balancer: &mut Balancer, residual: f64| {
        balancer.set_residual(BackEndId(0), Some(residual));
        balancer.set_residual(BackEndId(1), Some(50.0));
        let mut new = Unit::new(Timestamp::ZERO);
        let chosen = balancer.dispatch(&mut new, key(2), 0.0, Timestamp::ZERO);
        balancer.release(new);
        chosen.expect("two are up").back_end
    };
    assert_eq!(choice(&mut balancer, 59.9), BackEndId(1));
    assert_eq!(choice(&mut balancer, 60.1), BackEndId(0));
    // Ten times the look ahead, ten times the expected load.
    balancer.set_time_scales(Duration::from_secs(1), Duration::from_secs(5));
    assert_eq!(choice(&mut balancer, 149.9), BackEndId(1));
    assert_eq!(choice(&mut balancer, 150.1), BackEndId(0));
    // What has ended is expected no more.
    balancer.mute(&mut unit);
    assert_eq!(unit.assigned(), Some(BackEndId(0)));
    assert_eq!(choice(&mut balancer, 50.1), BackEndId(0));
    assert_eq!(choice(&mut balancer, 49.9), BackEndId(1));
}
