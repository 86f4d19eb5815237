//! Every capture of exports through the engine, in every unit, against a collector fed directly.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use flowradar_balancer::Timestamp;
use flowradar_balancer::engine::{AssignmentUnit, CopyPlan, Engine, EnginePlan};
use flowradar_balancer::policy::{Availability, BackEndId, Policy};
use support::{Collector, Datagram, Sent, all_captures, plan};

/// What each collector got.
fn collect(sent: Sent) -> BTreeMap<BackEndId, Collector> {
    let mut collectors = BTreeMap::<BackEndId, Collector>::new();
    for (to, source, bytes) in sent.datagrams {
        collectors.entry(to).or_default().take(source, &bytes);
    }
    collectors
}

fn run(engine: &mut Engine, datagrams: &[Datagram]) -> Sent {
    let mut sent = Sent::default();
    for (index, (source, bytes)) in datagrams.iter().enumerate() {
        let now = Timestamp::from_millis(index as u64);
        engine.handle(bytes, *source, now, &mut sent);
        if index % 100 == 99 {
            engine.tick(now, &mut sent);
        }
    }
    // Longer than anything waits.
    engine.tick(Timestamp::from_millis(10_000_000), &mut sent);
    sent
}

fn union(collectors: &BTreeMap<BackEndId, Collector>) -> BTreeMap<support::Record, usize> {
    let mut union = BTreeMap::new();
    for collector in collectors.values() {
        for (record, count) in &collector.records {
            *union.entry(record.clone()).or_default() += count;
        }
    }
    union
}

fn direct(datagrams: &[Datagram], mut collector: Collector) -> Collector {
    for (source, bytes) in datagrams {
        collector.take(*source, bytes);
    }
    collector
}

fn units() -> [AssignmentUnit; 4] {
    [
        AssignmentUnit::Exporter,
        AssignmentUnit::Stream,
        AssignmentUnit::Message,
        AssignmentUnit::Record,
    ]
}

#[test]
fn every_record_of_every_capture_arrives_once() {
    for (name, datagrams) in all_captures("every_record_of_every_capture_arrives_once") {
        for unit in units() {
            let mut engine = Engine::new(plan(3, unit), Timestamp::ZERO);
            let collectors = collect(run(&mut engine, &datagrams));
            // Where streams are split, data waits for late templates.
            let reference = if unit.splits_streams() {
                Collector::patient()
            } else {
                Collector::default()
            };
            let reference = direct(&datagrams, reference);
            assert!(
                union(&collectors) == reference.records,
                "{name} by {unit:?}"
            );
            let counters = engine.counters();
            assert_eq!(counters.bad_headers, 0, "{name}");
            assert_eq!(
                counters.waited,
                counters.waited_released + counters.sent_without_template
            );
            if !unit.splits_streams() {
                continue;
            }
            for (id, collector) in &collectors {
                assert_eq!(
                    collector.sequence_failures, 0,
                    "{name} by {unit:?} at {id:?}"
                );
            }
            let missing: usize = collectors
                .values()
                .map(|collector| collector.missing_templates)
                .sum();
            assert_eq!(
                missing > 0,
                counters.sent_without_template > 0,
                "{name} by {unit:?}"
            );
            // What each collector got of options is all there is.
            for (id, collector) in &collectors {
                for options in collector.options.keys() {
                    assert!(
                        reference.options.contains_key(options),
                        "{name} by {unit:?} at {id:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn whole_streams_are_not_touched() {
    for (name, datagrams) in all_captures("whole_streams_are_not_touched") {
        for unit in [AssignmentUnit::Exporter, AssignmentUnit::Stream] {
            let mut engine = Engine::new(plan(3, unit), Timestamp::ZERO);
            let sent = run(&mut engine, &datagrams);
            let out: Vec<_> = sent
                .datagrams
                .iter()
                .map(|(_, source, bytes)| (source, bytes))
                .collect();
            let into: Vec<_> = datagrams
                .iter()
                .map(|(source, bytes)| (source, bytes))
                .collect();
            assert!(out == into, "{name} by {unit:?}");
        }
    }
}

/// A collector fails in the middle, another is added, a third is drained and removed: nothing is
/// lost that was sent to the living, no templates miss, no sequence breaks.
#[test]
fn nothing_is_lost_while_collectors_come_and_go() {
    for (name, datagrams) in all_captures("nothing_is_lost_while_collectors_come_and_go") {
        for unit in units() {
            let mut engine = Engine::new(plan(3, unit), Timestamp::ZERO);
            let mut sent = Sent::default();
            // The stretches between the events begin with the templates: each goes twice.
            for round in 0..5_u64 {
                let now = Timestamp::from_millis(round * 100_000);
                match round {
                    1 => engine.set_availability(BackEndId(0), Availability::Down, now, &mut sent),
                    2 => engine.set_plan(plan(4, unit), now),
                    3 => engine.set_availability(
                        BackEndId(1),
                        Availability::Draining,
                        now,
                        &mut sent,
                    ),
                    4 => engine.set_availability(BackEndId(0), Availability::Up, now, &mut sent),
                    _ => {}
                }
                for (index, (source, bytes)) in datagrams.iter().enumerate() {
                    let before = sent.datagrams.len();
                    let now = now + Duration::from_millis(index as u64);
                    engine.handle(bytes, *source, now, &mut sent);
                    let forbidden = match round {
                        1 | 2 => Some(BackEndId(0)),
                        _ => None,
                    };
                    let drained = (round >= 3).then_some(BackEndId(1));
                    for (to, _, _) in &sent.datagrams[before..] {
                        assert!(
                            Some(*to) != forbidden && Some(*to) != drained,
                            "{name} by {unit:?}, round {round}"
                        );
                    }
                }
            }
            engine.tick(Timestamp::from_millis(10_000_000), &mut sent);
            let collectors = collect(sent);
            // From the second round on every template is known: only what never had one is missing.
            let mut reference = if unit.splits_streams() {
                Collector::patient()
            } else {
                Collector::default()
            };
            for _ in 0..5 {
                reference = direct(&datagrams, reference);
            }
            assert!(
                union(&collectors) == reference.records,
                "{name} by {unit:?}"
            );
            if unit.splits_streams() {
                for (id, collector) in &collectors {
                    assert_eq!(
                        collector.sequence_failures, 0,
                        "{name} by {unit:?} at {id:?}"
                    );
                }
            }
        }
    }
}

/// One in twenty datagrams is lost before it arrives: the union is what a collector fed with the
/// rest makes of it, and collectors of split streams see no break.
#[test]
fn losses_upstream_stay_upstream() {
    for (name, datagrams) in all_captures("losses_upstream_stay_upstream") {
        let mut kept = datagrams.clone();
        let mut index = 0;
        kept.retain(|_| {
            index += 1;
            index % 20 != 7
        });
        for unit in [AssignmentUnit::Message, AssignmentUnit::Record] {
            let mut engine = Engine::new(plan(3, unit), Timestamp::ZERO);
            let collectors = collect(run(&mut engine, &kept));
            let reference = direct(&kept, Collector::patient());
            assert!(
                union(&collectors) == reference.records,
                "{name} by {unit:?}"
            );
            for (id, collector) in &collectors {
                assert_eq!(
                    collector.sequence_failures, 0,
                    "{name} by {unit:?} at {id:?}"
                );
            }
        }
    }
}

/// By record, a flow has one collector, whoever reports it and in whichever direction.
#[test]
fn a_flow_has_one_collector() {
    for (name, datagrams) in all_captures("a_flow_has_one_collector") {
        let mut engine = Engine::new(plan(5, AssignmentUnit::Record), Timestamp::ZERO);
        // The same by two routers.
        let mut twice = datagrams.clone();
        for (source, _) in &mut twice {
            source.set_ip("203.0.113.77".parse().expect("an address"));
        }
        let collectors = collect(run(&mut engine, &[datagrams, twice].concat()));
        let mut homes = BTreeMap::new();
        for (id, collector) in &collectors {
            for (_, version, _, fields, record) in collector.records.keys() {
                let without_flow = engine.counters().records_without_flow > 0 || *version == 0;
                let home = *homes.entry((fields.clone(), record.clone())).or_insert(*id);
                assert!(home == *id || without_flow, "{name}: {home:?} and {id:?}");
            }
        }
    }
}

/// Copies are what the exporter sent; of one in N, templates are never left out.
#[test]
fn copies_are_whole_or_thinned_with_all_templates() {
    for (name, datagrams) in all_captures("copies_are_whole_or_thinned_with_all_templates") {
        let (whole, thinned) = (BackEndId(10), BackEndId(11));
        let copy = |destination, one_in| CopyPlan {
            name: String::new(),
            destination,
            prefixes: Vec::new(),
            protocols: Vec::new(),
            one_in,
        };
        let plan = EnginePlan {
            copies: vec![copy(whole, 1), copy(thinned, 3)],
            ..plan(2, AssignmentUnit::Record)
        };
        let mut engine = Engine::new(plan, Timestamp::ZERO);
        let sent = run(&mut engine, &datagrams);
        let of = |id| sent.datagrams.iter().filter(move |(to, _, _)| *to == id);
        let copied: Vec<_> = of(whole)
            .map(|(_, source, bytes)| (*source, bytes.clone()))
            .collect();
        assert!(copied == datagrams, "{name}");
        let mut collector = Collector::default();
        of(thinned).for_each(|(_, source, bytes)| collector.take(*source, bytes));
        let reference = direct(&datagrams, Collector::default());
        assert!(collector.record_count() <= reference.record_count());
        assert!(
            collector.missing_templates <= reference.missing_templates,
            "{name}"
        );
        // A set whose template comes later has sequence units that nobody can count.
        if reference.missing_templates == 0 {
            assert_eq!(collector.sequence_failures, 0, "{name}");
        }
    }
}

/// Load is shared when one exporter is split, in every policy that is not fixed.
#[test]
fn one_hot_exporter_is_shared() {
    let captures = all_captures("one_hot_exporter_is_shared");
    for (name, datagrams) in captures
        .iter()
        .filter(|(name, _)| name.contains("sdwan") || name.contains("ipfixcol2"))
    {
        for policy in [
            Policy::RoundRobin,
            Policy::LeastLoaded,
            Policy::Rendezvous { load_bound: None },
        ] {
            let mut plan = plan(4, AssignmentUnit::Message);
            plan.groups[0].balancer.policy = policy.clone();
            let mut engine = Engine::new(plan, Timestamp::ZERO);
            let collectors = collect(run(&mut engine, datagrams));
            let total: usize = collectors.values().map(Collector::record_count).sum();
            for (id, collector) in &collectors {
                let share = collector.record_count() as f64 / total as f64;
                assert!(
                    (0.1..0.4).contains(&share),
                    "{name} by {policy:?}: {id:?} has {share}"
                );
            }
        }
    }
}
